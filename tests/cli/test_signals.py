"""Ctrl-C is heard while the main thread is in a long call of C."""

import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.children import Child

# A mutex that its own thread locks twice waits in C, and no signal ends that; stdin does.
BUSY = """
import ctypes, signal, sys, threading
from derain_cli.cli.signals import acknowledging
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
signal.signal(signal.SIGINT, lambda number, frame: print("handled", flush=True))
threading.Thread(target=lambda: (sys.stdin.read(1), libc.pthread_mutex_unlock(mutex))).start()
with acknowledging("heard"):
    print("busy", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mutexes")
def test_ctrl_c_is_acknowledged_before_pythons_own_handler_can_run():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    child = Child([sys.executable, "-c", BUSY], text=True, **pipes)
    assert child.stdout.readline() == "busy\n"
    asleep = 0
    while asleep < 5:  # the main thread has reached the mutex, where it stays
        asleep = asleep + 1 if " S " in Path(f"/proc/{child.pid}/stat").read_text() else 0
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert [child.stderr.readline() for _ in range(2)] == ["\n", "heard\n"]
    assert not select.select([child.stdout], [], [], 0)[0], "the handler was quicker"
    assert child.communicate("x") == ("handled\n", "")
    assert child.returncode == 0
