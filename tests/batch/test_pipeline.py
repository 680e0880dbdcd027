import pickle
import shutil
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from derain_cli.batch import BatchOptions, Plan, Result, Started, Summary, plan_batch, run_batch
from derain_cli.batch.events import Job
from derain_cli.errors import (
    DerainError,
    DiskError,
    ImageError,
    NothingToDoError,
    ResourceError,
    UsageError,
)
from derain_cli.inference.derainer import Derainer
from derain_cli.scale.on_ray import _ends_batch


def pixels(path: Path) -> np.ndarray:
    """Every pixel of a file: fails where one is missing."""
    with Image.open(path) as image:
        return np.asarray(image)


def snapshot(folder: Path) -> dict[Path, bytes | str | None]:
    """Everything in a folder: contents of files, targets of links."""
    return {path: _content(path) for path in folder.rglob("*")}


def _content(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else None


def run(
    words: list[Path], derainer: Derainer | None, **options: object
) -> tuple[list[Result], Summary]:
    chosen = BatchOptions(**options)
    *events, summary = run_batch(plan_batch(list(map(str, words)), chosen), derainer, chosen)
    assert isinstance(summary, Summary)
    return [event for event in events if isinstance(event, Result)], summary


def test_results_are_those_of_the_network_in_the_order_of_the_plan(
    tmp_path: Path, make_image: Callable[..., Path], derainer: Derainer
) -> None:
    sizes = {f"p{number}.png": (16 + 40 * (number % 3), 24) for number in range(12)}
    for name, size in sizes.items():
        make_image(tmp_path / name, size)
    results, summary = run([tmp_path], derainer, workers=3)
    assert [result.job.source.name for result in results] == list(sizes)
    assert [(result.width, result.height) for result in results] == list(sizes.values())
    assert (summary.done, summary.skipped, summary.failures) == (12, 0, ())
    assert summary.megapixels == pytest.approx(sum(w * h for w, h in sizes.values()) / 1e6)
    assert 0 < summary.network_seconds <= summary.seconds
    for result in results:
        rainy = pixels(result.job.source)
        derained = pixels(result.job.derained)
        np.testing.assert_array_equal(derained, derainer(rainy))
        assert (derained != rainy).any()


def test_a_image_is_started_before_its_result(photos: Path, derainer: Derainer) -> None:
    options = BatchOptions(recursive=True)
    events = list(run_batch(plan_batch([str(photos)], options), derainer, options))
    for name in ("a2.jpg", "a10.jpg", "b.png"):
        about = [
            type(event)
            for event in events
            if not isinstance(event, Summary) and event.job.source.name == name
        ]
        assert about == [Started, Result]


def test_rain_and_comparison(photos: Path, derainer: Derainer) -> None:
    (result,), _ = run([photos / "below" / "b.png"], derainer, save_rain=True, compare=True)
    rainy, derained, rain, compare = (
        pixels(path).astype(int)
        for path in (result.job.source, result.job.derained, result.job.rain, result.job.compare)
    )
    np.testing.assert_array_equal(rain, np.clip(rainy - derained, 0, 255))
    np.testing.assert_array_equal(compare, np.hstack([rainy, derained]))


def test_comparison_repeats_the_alpha_channel(tmp_path: Path, derainer: Derainer) -> None:
    rainy = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(rainy).save(tmp_path / "p.png")
    (result,), _ = run([tmp_path / "p.png"], derainer, compare=True)
    alpha = pixels(result.job.compare)[..., 3]
    np.testing.assert_array_equal(alpha, np.hstack([rainy[..., 3]] * 2))


def test_strength_0_changes_nothing(photos: Path, derainer: Derainer) -> None:
    (result,), _ = run([photos / "below" / "b.png"], derainer, strength=0.0)
    np.testing.assert_array_equal(pixels(result.job.derained), pixels(result.job.source))


def test_a_transparent_image_that_cannot_become_a_jpeg_leaves_no_file(
    tmp_path: Path, derainer: Derainer
) -> None:
    Image.new("RGBA", (8, 8), (9, 9, 9, 7)).save(tmp_path / "p.png")
    before = snapshot(tmp_path)
    (result,), summary = run([tmp_path], derainer, format="jpg", save_rain=True)
    assert isinstance(result.error, ImageError)
    assert summary.failures == (result,)
    assert snapshot(tmp_path) == before


def test_what_is_lost_in_writing_is_told(tmp_path: Path, derainer: Derainer) -> None:
    Image.new("P", (8, 8)).save(tmp_path / "p.gif")
    (result,), _ = run([tmp_path], derainer)
    assert "GIF is only read: written as PNG" in result.notices


def test_fail_fast_ends_the_batch_and_the_default_does_not(
    tmp_path: Path, make_image: Callable[..., Path], derainer: Derainer
) -> None:
    (tmp_path / "0.jpg").write_bytes(b"")
    for number in range(1, 9):
        make_image(tmp_path / f"{number}.jpg")
    _, summary = run([tmp_path], derainer, fail_fast=True)
    assert (summary.done, len(summary.failures), summary.not_started) == (0, 1, 8)
    _, summary = run([tmp_path], derainer, skip_existing=True)
    assert (summary.done, len(summary.failures), summary.not_started) == (8, 1, 0)


def test_a_plan_with_nothing_to_do_needs_no_network(photos: Path, derainer: Derainer) -> None:
    run([photos], derainer)
    results, summary = run([photos], None, skip_existing=True)
    assert [result.status for result in results] == ["skipped", "skipped"]
    assert summary.skipped == 2


def test_a_consumer_that_stops_finds_whole_files_and_no_threads(
    tmp_path: Path, make_image: Callable[..., Path], derainer: Derainer
) -> None:
    for number in range(30):
        make_image(tmp_path / "in" / f"{number}.png", (64, 48))
    options = BatchOptions(output=f"{tmp_path}/out/", workers=2)
    events = run_batch(plan_batch([str(tmp_path / "in")], options), derainer, options)
    next(event for event in events if isinstance(event, Result))
    events.close()
    written = list((tmp_path / "out").iterdir())
    assert 1 <= len(written) <= 1 + 2 * options.thread_count + 1, "it ran too far ahead"
    for path in written:
        pixels(path)
    waiting = [thread for thread in threading.enumerate() if thread.name.startswith("derain-")]
    for thread in waiting:
        thread.join(timeout=5)
        assert not thread.is_alive()


def drain_after_interrupt(events: Generator[object]) -> list[object]:
    seen = []
    try:
        seen.append(events.throw(KeyboardInterrupt))
        seen.extend(events)
    except KeyboardInterrupt:
        return seen
    pytest.fail("the interruption was swallowed")


def test_interruption_yields_what_is_written_and_drops_the_rest(
    tmp_path: Path, make_image: Callable[..., Path], derainer: Derainer
) -> None:
    for number in range(8):
        make_image(tmp_path / "in" / f"{number}.png")
    options = BatchOptions(output=f"{tmp_path}/out/")
    events = run_batch(plan_batch([str(tmp_path / "in")], options), derainer, options)
    finished: list[object] = []
    starts = 0
    while starts < 4:
        event = next(events)
        starts += isinstance(event, Started)
        finished += [event] if isinstance(event, Result) else []
    finished += drain_after_interrupt(events)
    names = {result.job.derained for result in finished}
    assert names == set((tmp_path / "out").iterdir())
    assert len(names) == 3


# Whatever the options


NAMES = ("a.jpg", "a.png", "A.png", "a_derained.jpg", "a_derained.png", "a_rain.png", "b.webp")


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    names=st.sets(st.sampled_from(NAMES), min_size=1),
    in_output=st.sets(st.sampled_from(NAMES)),
    words=st.lists(
        st.sampled_from([".", "*.png", "out", *NAMES, "out/a.png"]), min_size=1, max_size=3
    ),
    output=st.sampled_from([None, "out", "new/", "a.png", "a_derained.jpg", "x.png", "."]),
    policy=st.sampled_from(["", "overwrite", "skip_existing"]),
    flags=st.sets(st.sampled_from(["recursive", "save_rain", "compare", "fail_fast"])),
    suffix=st.sampled_from(["_derained", "", "_rain"]),
    format=st.sampled_from([None, "png", "jpg"]),
)
def test_no_earlier_file_changes_except_targets_under_overwrite(
    tmp_path: Path,
    make_image: Callable[..., Path],
    derainer: Derainer,
    names: set[str],
    in_output: set[str],
    words: list[str],
    output: str | None,
    policy: str,
    flags: set[str],
    suffix: str,
    format: str | None,
) -> None:
    folder = tmp_path / "case"
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        make_image(folder / name, (9, 7))
    for name in in_output:
        make_image(folder / "out" / name, (7, 9))
    before = snapshot(folder)
    where = output and f"{folder}/{output}"
    choices = dict.fromkeys(flags, True) | ({policy: True} if policy else {})
    options = BatchOptions(output=where, suffix=suffix, format=format, **choices)
    plan = Plan(())
    try:
        plan = plan_batch([str(folder / word) for word in words], options)
        events = list(run_batch(plan, derainer, options))
    except (UsageError, NothingToDoError):
        events = []
    after = snapshot(folder)
    targets = {target for job in plan.jobs for target in job.targets}
    may_change = targets if policy == "overwrite" else set()
    assert {path: after.get(path) for path in before if path not in may_change} == {
        path: content for path, content in before.items() if path not in may_change
    }
    assert not may_change & {job.source for job in plan.jobs}
    done = [e.job for e in events if isinstance(e, Result) and e.status == "done"]
    assert all(target in after for job in done for target in job.targets)
    new = {path for path in after if path not in before and path.is_file()}
    assert new <= targets


def test_an_animation_on_stdout_has_the_format_that_was_asked_for(
    tmp_path: Path, derainer: Derainer
) -> None:
    images = [Image.new("RGB", (16, 12), (shade, 90, 40)) for shade in (10, 200)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    words = [tmp_path / "a.gif"]
    formats = {"webp": b"RIFF", "png": b"\x89PNG", None: b"GIF89a"}
    for format, beginning in formats.items():
        (result,) = run(words, derainer, output="-", frames="all", format=format)[0]
        assert result.content is not None
        assert result.content.startswith(beginning)


def test_a_film_without_memory_does_not_end_the_batch_and_a_full_disk_does(
    tmp_path: Path, derainer: Derainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.mp4", "2.mp4"):
        (tmp_path / name).write_bytes(b"a film")

    def failing(error: Exception) -> Summary:
        def film(*_words: object) -> Generator[Result]:
            raise error
            yield

        monkeypatch.setattr("derain_cli.batch.films.Films._film", film)
        return run([tmp_path], derainer)[1]

    for memory in (MemoryError(), ResourceError("out of memory")):
        assert (len(failing(memory).failures), failing(memory).not_started) == (2, 0)
    assert failing(DiskError("no space")).not_started == 1


def test_over_ray_too_only_a_disk_ends_the_batch() -> None:
    def ends(error: DerainError) -> bool:
        """As the driver decides, which gets errors pickled."""
        result = Result(Job("a.jpg"), "failed", error=pickle.loads(pickle.dumps(error)))
        return _ends_batch(result, BatchOptions())

    assert not ends(ResourceError("not enough memory"))
    assert not ends(ImageError("damaged"))
    assert ends(DiskError("no space"))
