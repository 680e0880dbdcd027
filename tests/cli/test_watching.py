import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app

pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")


def wait_for(
    path: Path, process: subprocess.Popen[bytes], meanwhile: Callable[[], object] = lambda: None
) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path} did not appear"
        meanwhile()
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_is_there_and_what_arrives(
    derain_process: Callable[..., subprocess.Popen[bytes]], tiny_checkpoint: Path, photos: Path
) -> None:
    network = ["-m", tiny_checkpoint, "-d", "cpu", "--threads", "1"]
    process = derain_process("--watch", photos, "-o", f"{photos}/dry/", *network)
    wait_for(photos / "dry" / "a10.jpg", process)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    Image.new("RGB", (8, 8), "gray").save(photos / "late.png")
    with (photos / "film.mp4").open("wb", buffering=0) as film:
        # A film that is still being recorded holds back no photo.
        wait_for(photos / "dry" / "late.png", process, meanwhile=lambda: film.write(b"more"))
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert stderr.count("failed: ") >= 1
    assert stderr.count("broken.jpg") <= 3  # it is tried once, not at every change
    assert sorted(path.name for path in (photos / "dry").iterdir()) == [
        "a10.jpg",
        "a2.jpg",
        "late.png",
    ]


def test_what_cannot_be_watched_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["derain", "--watch", str(photos), *map(str, arguments)])
        assert result.exit_code == 2
        return result.stderr

    assert "drop the others" in refusal(photos / "a2.jpg")
    assert "never finish" in refusal("--overwrite")
    assert "needs a folder for its results" in refusal("-o", "out")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "pip install 'derain-cli[watch]'" in refusal()
