import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.batch import BatchOptions, Plan
from derain_cli.cli.app import app
from derain_cli.cli.watching import check_watching, watch_folder
from derain_cli.errors import UsageError

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


def test_what_was_completed_meanwhile_or_not_come_to_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, never, done = (tmp_path / name for name in ("begun.jpg", "never.jpg", "done.jpg"))
    for path in (begun, never, done):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    os.utime(tmp_path, (1, 1))
    runs: list[set[str]] = []

    def run(plan: Plan) -> set[object]:
        """Fails at what is half there, while another program writes the rest; then stops."""
        runs.append({Path(job.name).name for job in plan.jobs})
        begun.write_bytes(b"whole")
        os.utime(begun, (5, 5))
        return {job.source for job in plan.jobs} - {never}

    changes = [set(), {(1, str(begun))}, {(1, str(begun))}]
    monkeypatch.setattr("watchfiles.watch", lambda *_words, **_options: iter(changes))
    watch_folder(tmp_path, BatchOptions(), run, lambda _error: None)
    assert runs == [
        {"begun.jpg", "never.jpg", "done.jpg"},
        {"begun.jpg", "never.jpg"},
        {"never.jpg"},
    ]


def test_an_arrival_that_cannot_be_planned_is_said_once_and_ends_no_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[set[str]] = []
    said: list[str] = []

    def arrive(*names: str) -> set[tuple[int, str]]:
        for name in names:
            (tmp_path / name).write_bytes(b"x")
            os.utime(tmp_path / name, (1, 1))
        os.utime(tmp_path, (1, 1))
        return {(1, str(tmp_path / name)) for name in names}

    def changes(*_words: object, **_options: object) -> Iterator[set[tuple[int, str]]]:
        yield arrive("a.png")
        yield arrive("a.gif", "b.png")  # a.gif is written as a PNG too, under the name of a.png's
        yield arrive("c.png")
        (tmp_path / "a.gif").unlink()
        yield {(3, str(tmp_path / "a.gif"))}

    def run(plan: Plan) -> set[object]:
        runs.append({Path(job.name).name for job in plan.jobs})
        return {job.source for job in plan.jobs}

    monkeypatch.setattr("watchfiles.watch", changes)
    watch_folder(tmp_path, BatchOptions(), run, lambda error: said.append(str(error)))
    assert runs == [{"a.png"}, {"b.png"}, {"c.png"}]
    assert len(said) == 1
    assert "would both be written to" in said[0]
    arrive("a.gif")
    with pytest.raises(UsageError, match="would both be written to"):
        watch_folder(tmp_path, BatchOptions(), run, lambda error: said.append(str(error)))


def test_results_at_an_address_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match="-o s3://b/dry/ is an address: name a folder"):
        check_watching(photos, [], BatchOptions(output="s3://b/dry/"))


def test_what_cannot_be_watched_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(*arguments: object) -> str:
        result = CliRunner().invoke(app, ["derain", "--watch", str(photos), *map(str, arguments)])
        assert result.exit_code == 2
        return result.stderr

    assert "drop the others" in refusal(photos / "a2.jpg")
    assert "never finish" in refusal("--overwrite")
    for flag in (["--from-file", "list"], ["--shard", "0/2"], ["--manifest", "m"], ["--on", "ray"]):
        assert f"--watch and {flag[0]} exclude each other" in refusal(*flag)
    assert "--watch and --dry-run exclude each other" in refusal("--dry-run")
    assert "needs a folder for its results" in refusal("-o", "out")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "pip install 'derain-cli[watch]'" in refusal()
