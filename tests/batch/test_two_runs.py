"""Two runs into one folder: nothing is done twice, fails or disappears because of the other."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from derain_cli.batch import BatchOptions, Result, Summary, plan_batch, run_batch
from derain_cli.batch.encoding import Encoding
from derain_cli.batch.writing import Claims, remove_stale_parts, target_digest, write_result
from derain_cli.inference.derainer import Derainer
from derain_cli.whole_files import owner_tag, write_whole_file
from tests.children import Child


def ended_process() -> int:
    """The number of a process that is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


DEAD = f"{owner_tag().partition('-')[0]}-{ended_process()}"


def results_of(photos: Path, derainer: Derainer | None, out: Path) -> list[Result | Summary]:
    options = BatchOptions(output=f"{out}/", skip_existing=True)
    plan = plan_batch([str(photos)], options)
    events = run_batch(plan, derainer, options)
    return [event for event in events if isinstance(event, Result | Summary)]


def test_a_result_that_appears_while_a_file_is_written_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, really = tmp_path / "a.png", os.fsync

    def other_run_finishes_first(number: int) -> None:
        really(number)
        target.write_bytes(b"the other run's")

    monkeypatch.setattr(os, "fsync", other_run_finishes_first)
    encoding = Encoding(BatchOptions(skip_existing=True), Claims())
    assert encoding._store(b"mine", target, 0o666) is False
    encoding.close()
    assert target.read_bytes() == b"the other run's"
    assert list(tmp_path.iterdir()) == [target]


def test_results_that_appear_after_the_plan_are_skipped_before_decoding(
    photos: Path, tmp_path: Path
) -> None:
    options = BatchOptions(output=f"{tmp_path}/out/", skip_existing=True)
    plan = plan_batch([str(photos)], options)
    for job in plan.jobs:
        job.derained.parent.mkdir(exist_ok=True)
        job.derained.write_bytes(b"the other run's")
    *results, summary = run_batch(plan, None, options)  # no network is needed
    assert {result.status for result in results} == {"skipped"}
    assert (summary.done, summary.skipped) == (0, len(plan.jobs))
    assert all(job.derained.read_bytes() == b"the other run's" for job in plan.jobs)


def test_an_image_that_a_live_run_has_claimed_is_left_to_it(
    photos: Path, tmp_path: Path, derainer: Derainer
) -> None:
    options = BatchOptions(output=f"{tmp_path}/out/", skip_existing=True)
    other, claimed = Claims(), plan_batch([str(photos)], options).jobs[0]
    assert other.take(claimed)
    *results, summary = results_of(photos, derainer, tmp_path / "out")
    assert results[0].status == "skipped"
    assert results[0].notices == ("another run is deraining it",)
    assert (summary.skipped, len(summary.failures)) == (1, 0)
    assert not claimed.derained.exists()
    other.close()
    *results, summary = results_of(photos, derainer, tmp_path / "out")
    assert (summary.done, claimed.derained.exists()) == (1, True)
    assert [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_a_dead_runs_claims_and_parts_are_removed_and_a_live_ones_stay(
    photos: Path, tmp_path: Path, derainer: Derainer
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    target = plan_batch([str(photos)], BatchOptions(output=f"{out}/")).jobs[0].derained
    start = out / f".derain-{target_digest(target)}"
    dead_part = Path(f"{start}-{DEAD}-01234567.part")
    live_part = Path(f"{start}-{owner_tag().partition('-')[0]}-{os.getppid()}-01234567.part")
    elsewhere = Path(f"{start}-ffffff-1-01234567.part")  # another machine's: nothing is known
    for part in (dead_part, live_part, elsewhere):
        part.write_bytes(b"part")
    claim = Path(f"{start}.claim")
    claim.symlink_to(DEAD)
    *_, summary = results_of(photos, derainer, out)
    assert summary.skipped == 0
    assert target.exists()
    assert not os.path.lexists(claim)
    assert [part.exists() for part in (dead_part, live_part, elsewhere)] == [False, True, True]
    os.utime(elsewhere, (0, 0))
    remove_stale_parts(plan_batch([str(photos)], BatchOptions(output=f"{out}/", overwrite=True)))
    assert not elsewhere.exists()


TWO_RUNS = """
import sys
from derain_cli.batch import BatchOptions, Result, plan_batch, run_batch
from derain_cli.inference.derainer import Derainer
photos, out, checkpoint = sys.argv[1:]
derainer = Derainer.load(checkpoint, device="cpu", threads=1)
options = BatchOptions(output=out + "/", skip_existing=True)
print("ready", flush=True)
sys.stdin.readline()
for event in run_batch(plan_batch([photos], options), derainer, options):
    if isinstance(event, Result):
        print(event.status)
"""


def test_two_processes_share_the_work(
    tmp_path: Path, make_image: Callable[..., Path], tiny_checkpoint: Path
) -> None:
    for number in range(24):
        make_image(tmp_path / "in" / f"{number}.png", (40, 30))
    words = [sys.executable, "-c", textwrap.dedent(TWO_RUNS), str(tmp_path / "in")]
    words += [str(tmp_path / "out"), str(tiny_checkpoint)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [Child(words, **pipes) for _ in range(2)]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    said = [run.communicate()[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert "failed" not in said[0] + said[1]
    assert (said[0] + said[1]).count("done") == 24  # none twice
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{number}.png" for number in range(24)
    )


def test_a_result_is_as_private_as_its_input(photos: Path, derainer: Derainer) -> None:
    source = photos / "a2.jpg"
    for mode, expected in ((0o600, 0o600), (0o640, 0o640), (0o755, 0o644), (0o444, 0o644)):
        source.chmod(mode)
        options = BatchOptions(overwrite=True)
        list(run_batch(plan_batch([str(source)], options), derainer, options))
        result = (photos / "a2_derained.jpg").stat().st_mode & 0o777
        before = os.umask(0)
        os.umask(before)
        assert result == expected & ~before


def test_other_writers_remove_their_litter_too(tmp_path: Path) -> None:
    dead = tmp_path / f".derain-{DEAD}-01234567.tmp"
    live = tmp_path / f".derain-{owner_tag().partition('-')[0]}-{os.getppid()}-01234567.tmp"
    for part in (dead, live):
        part.write_bytes(b"part")
    write_whole_file(tmp_path / "state.pt", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([live.name, "state.pt"])


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="POSIX devices")
def test_devices_are_never_replaced() -> None:
    for place in ("/dev/derain-test", "/proc/self/fd/derain-test"):
        with pytest.raises(PermissionError, match="a place for devices"):
            write_whole_file(Path(place), b"x")
    if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK):
        path = Path("/dev/shm") / f"derain-test-{os.getpid()}.png"
        assert write_result(b"x", path, overwrite=False)
        path.unlink()
