"""Ctrl-C is heard while the main thread is in a long call of C."""

import select
import signal
import subprocess
import sys

import pytest

BUSY = """
import hashlib, signal
from derain_cli.cli.signals import acknowledging
signal.signal(signal.SIGINT, lambda number, frame: print("handled", flush=True))
with acknowledging("heard"):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 6_000_000)
    print("done", flush=True)
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_is_acknowledged_before_pythons_own_handler_can_run():
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "busy\n"
    child.send_signal(signal.SIGINT)
    assert [child.stderr.readline() for _ in range(2)] == ["\n", "heard\n"]
    assert not select.select([child.stdout], [], [], 0)[0], "the handler was quicker"
    told, more = child.communicate()
    assert sorted(told.split()) == ["done", "handled", "handled"]
    assert more == ""
