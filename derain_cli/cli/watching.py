"""`derain --watch FOLDER`: images and films are derained as they arrive."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from derain_cli.errors import NothingToDoError, UsageError

if TYPE_CHECKING:
    from derain_cli.batch import BatchOptions, Plan
    from derain_cli.batch.events import Location

SETTLED = 1.0  # seconds without a change after which a file counts as copied to its end
Version = tuple[Path, int, int]


def check_watching(folder: Path, inputs: list[str], options: "BatchOptions") -> None:
    """Refuse what cannot be watched.

    Raises:
        UsageError: No folder, other inputs beside it, results that have no place, or no extra.
    """
    if inputs:
        raise UsageError("--watch takes its inputs from its folder: leave the others away")
    if not folder.is_dir():
        raise UsageError(f"--watch {str(folder)!r} is no folder")
    if options.overwrite:
        raise UsageError("--watch and --overwrite exclude each other: it would never come to rest")
    if options.output is not None and not options.output.endswith("/"):
        raise UsageError(f"--watch needs a folder for its results: write -o {options.output}/")
    try:
        import watchfiles  # noqa: F401 (an extra)
    except ImportError as error:
        raise UsageError(
            "--watch needs 'watchfiles', which is not installed: pip install 'derain-cli[watch]'"
        ) from error


def watch_folder(folder: Path, options: "BatchOptions", run: "Callable[[Plan], None]") -> None:
    """Derain what is in a folder and what arrives, until Ctrl-C.

    Args:
        folder: The folder; with `options.recursive` those below, too.
        options: How results are written; those that are there are kept.
        run: Does a plan and reports it.
    """
    options = dataclasses.replace(options, skip_existing=True)
    tried: set[Version] = set()
    for _ in _occasions(folder, recursive=options.recursive):
        plan = _new_in(folder, options, tried)
        if plan.jobs:
            run(plan)
            tried.update(_version(job.source) for job in plan.jobs)


def _occasions(folder: Path, *, recursive: bool) -> Iterator[None]:
    """At first, and whenever something in the folder has changed, once it is at rest."""
    from watchfiles import watch

    waiting: set[Path] = {folder}  # what is there counts as having just arrived
    # The watch begins before the first look: what arrives during the first batch is not missed.
    changes = watch(folder, recursive=recursive, rust_timeout=500, yield_on_timeout=True)
    for changed in changes:
        waiting.update(Path(path) for _, path in changed)
        if waiting and not changed and all(_is_settled(path) for path in waiting):
            waiting.clear()
            yield


def _is_settled(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > SETTLED
    except OSError:
        return True  # it has gone again


def _new_in(folder: Path, options: "BatchOptions", tried: set[Version]) -> "Plan":
    """What has no result yet and has not failed as it is."""
    from derain_cli.batch import Plan, plan_batch

    try:
        plan = plan_batch([str(folder)], options)
    except NothingToDoError:
        return Plan(())
    jobs = [job for job in plan.to_do if _version(job.source) not in tried]
    return Plan(tuple(jobs))


def _version(path: "Location | None") -> Version:
    assert isinstance(path, Path), "what is watched is a folder of this machine"
    try:
        facts = path.stat()
    except OSError:
        return path, 0, 0
    return path, facts.st_size, facts.st_mtime_ns
