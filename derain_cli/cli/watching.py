"""`derain --watch FOLDER`: derain images and films as they arrive."""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from derain_cli.errors import DerainError, NothingToDoError, UsageError

if TYPE_CHECKING:
    from derain_cli.batch import BatchOptions, Plan
    from derain_cli.batch.events import Location

SETTLED = 1.0  # seconds without a change after which a file counts as complete
Version = tuple[Path, int, int]


def check_watching(folder: Path, inputs: list[str], options: "BatchOptions") -> None:
    """Refuse inputs and options that cannot be watched.

    Raises:
        UsageError: Not a folder, other inputs, no local folder for results, or a missing extra.
    """
    from derain_cli.scale.addresses import is_address

    if inputs:
        raise UsageError("--watch takes its inputs from its folder: drop the others")
    if not folder.is_dir():
        raise UsageError(f"--watch {str(folder)!r} is not a folder")
    if options.overwrite:
        raise UsageError("--watch and --overwrite exclude each other: it would never finish")
    if is_address(options.output):
        raise UsageError(
            f"--watch writes into a local folder, and -o {options.output} is an address: name a "
            "folder"
        )
    if options.output is not None and not options.output.endswith("/"):
        raise UsageError(f"--watch needs a folder for its results: write -o {options.output}/")
    try:
        import watchfiles  # noqa: F401 (an extra)
    except ImportError as error:
        raise UsageError(
            "--watch needs 'watchfiles', which is not installed: pip install 'derain-cli[watch]'"
        ) from error


def refuse_beside_watching(flags: Mapping[str, object]) -> None:
    """Refuse flags that a watched folder knows nothing of, rather than leave them out.

    Args:
        flags: Each with its value, None or False where it was not given.

    Raises:
        UsageError: One was given.
    """
    given = next((flag for flag, value in flags.items() if value not in (None, False)), "")
    if given:
        raise UsageError(f"--watch and {given} exclude each other: leave one out")


def watch_folder(
    folder: Path,
    options: "BatchOptions",
    run: "Callable[[Plan], Collection[Location | None]]",
    say: Callable[[DerainError], None],
) -> None:
    """Derain the images in a folder and those that arrive, until Ctrl-C.

    Args:
        folder: The folder; with `options.recursive` also those below it.
        options: How results are written; existing ones are kept.
        run: Carries out a plan and reports it; returns the inputs that it came to.
        say: Told once why what has arrived cannot be planned, as where two results would share a
            name; the watch goes on with the others, and the next change may mend that.

    Raises:
        DerainError: What is there at the beginning cannot be planned.
    """
    from watchfiles import watch

    options = dataclasses.replace(options, skip_existing=True)
    tried: set[Version] = set()
    waiting: set[Path] = {folder}  # existing files count as new
    has_looked = False
    said: set[str] = set()

    def say_once(error: DerainError) -> None:
        if str(error) not in said:
            say(error)
        said.add(str(error))

    # The watch begins before the first look, so that arrivals during the first batch count.
    changes = watch(folder, recursive=options.recursive, rust_timeout=500, yield_on_timeout=True)
    for changed in changes:
        waiting.update(Path(path) for _, path in changed)
        if any(map(_is_settled, waiting)):
            try:
                plan, waiting = _new_in(folder, options, tried, say_once if has_looked else None)
            except DerainError as error:
                if not has_looked:
                    raise
                say_once(error)
                waiting = set()
                continue
            has_looked = True
            if plan.jobs:
                # As they are now: what is completed during the run is a version to try again.
                versions = {job.source: _version(job.source) for job in plan.jobs}
                tried.update(versions[source] for source in run(plan))


def _is_settled(path: Path) -> bool:
    """Whether a file is complete; one of a clock that is ahead is taken to be."""
    try:
        return not 0 <= time.time() - path.stat().st_mtime <= SETTLED
    except OSError:
        return True  # it was removed again


def _new_in(
    folder: Path,
    options: "BatchOptions",
    tried: set[Version],
    collided: Callable[[DerainError], None] | None,
) -> "tuple[Plan, set[Path]]":
    """Plan of complete inputs that have no result and have not failed in this version.

    And those that still grow, as a film does that is being recorded: they hold back no other.
    """
    from derain_cli.batch import Plan, plan_batch

    try:
        plan = plan_batch([str(folder)], options, collided=collided)
    except NothingToDoError:
        return Plan(()), set()
    new = [job for job in plan.to_do if _version(job.source) not in tried]
    paths = (job.source for job in new if isinstance(job.source, Path))
    growing = {path for path in paths if not _is_settled(path)}
    return Plan(tuple(job for job in new if job.source not in growing)), growing


def _version(path: "Location | None") -> Version:
    assert isinstance(path, Path), "a watched folder is a local one"
    try:
        facts = path.stat()
    except OSError:
        return path, 0, 0
    return path, facts.st_size, facts.st_mtime_ns
