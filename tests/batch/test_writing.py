import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from derain_cli.batch import BatchOptions, Result, Summary, plan_batch, run_batch, write_result
from derain_cli.batch.writing import target_digest
from derain_cli.errors import DiskError, ImageError
from derain_cli.inference.derainer import Derainer


def run(
    words: list[Path], derainer: Derainer | None, **options: object
) -> tuple[list[Result], Summary]:
    chosen = BatchOptions(**options)
    *events, summary = run_batch(plan_batch(list(map(str, words)), chosen), derainer, chosen)
    assert isinstance(summary, Summary)
    return [event for event in events if isinstance(event, Result)], summary


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that is full: no file of this process may grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_and_ends_the_batch(
    tmp_path: Path, make_image: Callable[..., Path], derainer: Derainer
) -> None:
    for number in range(20):
        make_image(tmp_path / "in" / f"{number}.png", (40, 30))
    with largest_file(1000):
        results, summary = run([tmp_path / "in"], derainer, output=f"{tmp_path}/out/")
    assert all(isinstance(result.error, DiskError) for result in results)
    assert summary.not_started > 0
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_appears_after_the_plan_is_not_replaced(
    photos: Path, derainer: Derainer
) -> None:
    options = BatchOptions()
    plan = plan_batch([str(photos / "a2.jpg")], options)
    (photos / "a2_derained.jpg").write_bytes(b"mine")
    result = next(e for e in run_batch(plan, derainer, options) if isinstance(e, Result))
    assert isinstance(result.error, ImageError)
    assert (photos / "a2_derained.jpg").read_bytes() == b"mine"


def test_an_overwritten_link_leaves_the_file_it_pointed_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("precious")
    write_result(b"new", tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "precious").read_bytes() == b"old"
    assert (tmp_path / "link.png").read_bytes() == b"new"


def test_results_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_result(b"x", tmp_path / "new", overwrite=False)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_that_is_too_long_fails_alone(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=os.strerror(errno.ENAMETOOLONG)):
        write_result(b"x", tmp_path / ("n" * 300), overwrite=False)
    longest = tmp_path / ("n" * 255)
    write_result(b"x", longest, overwrite=False)
    assert longest.read_bytes() == b"x"


def test_parts_of_a_killed_run_are_removed_and_those_of_others_are_not(
    photos: Path, derainer: Derainer
) -> None:
    own, foreign = (
        photos / f".derain-{target_digest(photos / name)}-0123abcd.part"
        for name in ("a2_derained.jpg", "other_derained.jpg")
    )
    for path in (own, foreign):
        path.write_bytes(b"part")
    run([photos], derainer)
    assert not own.exists()
    assert foreign.read_bytes() == b"part"
