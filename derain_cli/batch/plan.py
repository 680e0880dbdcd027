"""The plan: every output path is settled, and what cannot go well refused, before any work."""

import contextlib
import dataclasses
import gc
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from derain_cli.batch.events import Job, Location, Plan
from derain_cli.batch.inputs import (
    Input,
    collect_inputs,
    is_folder,
    mode_of,
    resolved,
    resolved_parent,
)
from derain_cli.batch.options import LAYERS, BatchOptions
from derain_cli.batch.places import Place, choose_place, kind_of
from derain_cli.errors import NothingToDoError, ResourceError, UsageError
from derain_cli.video.kinds import can_hold_animation, has_film_name


def plan_batch(
    words: Sequence[str],
    options: BatchOptions,
    listed: Sequence[str] | None = None,
    holds: Callable[[str], bool] | None = None,
    collided: Callable[[UsageError], None] | None = None,
) -> Plan:
    """Every job of a batch with all its output paths settled; nothing is written.

    What is read are the first bytes of images whose names have no known ending.

    Args:
        words: Files, folders, globs, or `-`.
        options: How the batch is read and written.
        listed: Paths from a list, None without one.
        holds: Whether an image with this relative path is for this run, one of several that share
            the inputs; None: all are. The plan may then be empty.
        collided: Told of results that would share a path, whose images are then left out; None: the
            first such is an error.

    Raises:
        UsageError: Two results would share a path, a result would replace an original, a result
            exists and neither `overwrite` nor `skip_existing` was chosen, or `output` does not fit.
        NothingToDoError: The inputs name no image.
        ResourceError: An output folder cannot be written to.
    """
    with _no_search_for_cycles():
        return _plan(words, options, listed, holds, collided)


@contextlib.contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """A plan's many objects form no cycles; to look for some takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _plan(
    words: Sequence[str],
    options: BatchOptions,
    listed: Sequence[str] | None,
    holds: Callable[[str], bool] | None,
    collided: Callable[[UsageError], None] | None,
) -> Plan:
    if not words and listed is None:
        raise UsageError("no inputs: name images, folders or quoted patterns, or '-' for stdin")
    inputs, passed_over = collect_inputs(words, options, listed or ())
    if not inputs:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in passed_over[:3])
        raise NothingToDoError(f"no image to derain. {reasons or 'The list is empty'}")
    place = choose_place(words, options, listed, inputs)
    jobs = tuple(_job(item, place, options) for item in inputs)
    for remembered in (_folder_key, _names_in):  # by an earlier plan
        remembered.cache_clear()
    targets = [_Target(job, file, *os.path.split(file)) for job in jobs for file in job.files]
    clashing: set[Location | None] = set()
    for error, *pair in _collisions(targets):
        if collided is None:
            raise error
        collided(error)
        clashing.update(target.job.source for target in pair)
    if clashing:
        jobs = tuple(job for job in jobs if job.source not in clashing)
        targets = [target for target in targets if target.job.source not in clashing]
    existing = {target.path for target in targets if _is_there(target)}
    _refuse_originals(jobs, existing)
    if holds is not None:
        jobs = tuple(job for job in jobs if holds(job.relative))
        existing &= {file for job in jobs for file in job.files}
    jobs = _settle_existing(jobs, options, existing)
    _refuse_unwritable(jobs)
    return Plan(jobs, passed_over)


def _job(item: Input, place: Place, options: BatchOptions) -> Job:
    if item.problem:
        return Job(item.path, problem=item.problem, relative=item.relative)
    derained = place(item, LAYERS[0])
    kind = kind_of(item, options)
    if item.path is None and derained is not None and has_film_name(Path(derained)):
        kind = "film"  # from stdin, whose content nobody has seen yet
    if kind == "animation" and derained is not None and not can_hold_animation(Path(derained)):
        kind = "image"  # its first image, for a format that does not move
    if kind != "image":
        return Job(item.path, derained=derained, kind=kind, relative=item.relative)
    return Job(
        item.path,
        relative=item.relative,
        derained=derained,
        rain=place(item, LAYERS[1]) if options.save_rain else None,
        compare=place(item, LAYERS[2]) if options.compare else None,
    )


class _Target(NamedTuple):
    """A file to write, its folder and its name, all as text: several times faster than paths."""

    job: Job
    path: str
    folder: str
    name: str


def _collisions(targets: Iterable[_Target]) -> Iterator[tuple[UsageError, _Target, _Target]]:
    """Pairs of targets that may be one file, with what to say of them."""
    taken: dict[object, _Target] = {}
    for target in targets:
        other = taken.setdefault(_location(target.folder, target.name), target)
        if other.job is not target.job and not _known_apart(target, other):
            error = UsageError(
                f"{target.job.name!r} and {other.job.name!r} would both be written to "
                f"{target.path!r}{_how_names_differ(target.path, other.path)}: derain them in "
                "separate runs with different `output` folders"
            )
            yield error, target, other


def _how_names_differ(one: str, two: str) -> str:
    """Why two paths may be one file; "" for equal ones."""
    if one == two:
        return ""
    if one.casefold() == two.casefold():
        return " (on many disks upper and lower case are one)"
    names = f"{Path(one).name!a} and {Path(two).name!a}"
    return f" ({names} differ in Unicode form alone, and are one on many disks)"


def _location(folder: str, name: str) -> tuple[object, ...]:
    """Key that is equal for two paths that may be one file: case and Unicode form do not count."""
    return (_one_form(name), _folder_key(folder))


@lru_cache(maxsize=4096)
def _folder_key(name: str) -> tuple[str, ...]:
    """As `_location`, of a folder that may not be there yet; remembered for one plan."""
    folder, below = Path(name), []
    while not mode_of(folder) and folder.parent != folder:
        below.append(_one_form(folder.name))
        folder = folder.parent
    return (str(resolved(folder)), *below)


def _one_form(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", name.casefold())


@lru_cache(maxsize=4096)
def _names_in(folder: str) -> frozenset[str] | None:
    """The names in a folder in one form, for one plan; None where they cannot be listed."""
    try:
        return frozenset(map(_one_form, os.listdir(folder or ".")))  # noqa: PTH208 (a million names)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError:
        return None


def _is_there(target: _Target) -> bool:
    """Whether anything is at a path; a listing of its folder spares a look at each."""
    names = _names_in(target.folder)
    if names is not None and (not names or _one_form(target.name) not in names):
        return False
    return os.path.lexists(target.path)


def _known_apart(one: _Target, two: _Target) -> bool:
    """Whether sources that differ only in case prove that their own folder tells case apart."""
    first, second = one.job.source, two.job.source
    if not isinstance(first, Path) or not isinstance(second, Path) or one.path == two.path:
        return False
    one_folder = {resolved_parent(Path(path)) for path in (first, second, one.path, two.path)}
    places = {_location(*os.path.split(source)) for source in (first, second)}
    return len(one_folder) == len(places) == 1


def _refuse_originals(jobs: Sequence[Job], existing: Set[str]) -> None:
    """No target is an input, by whatever name, link or case it is reached."""
    if not existing:
        return
    sources = [job.source for job in jobs if isinstance(job.source, Path) and not job.problem]
    originals = {_file_id(path, follow=follow) for path in sources for follow in (False, True)}
    if any(job.source is None for job in jobs):
        originals.add(_redirected())
    originals.discard(None)
    for job in jobs:
        for target in job.files:
            if target in existing and _file_id(Path(target), follow=False) in originals:
                raise UsageError(
                    f"the result of {job.name!r} would replace the input {target!r}: "
                    "originals are never written to; choose another `output` or `suffix`"
                )


def _redirected() -> tuple[int, int] | None:
    """The file that standard input comes from; None for a pipe or a terminal."""
    try:
        facts = os.fstat(0)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISREG(facts.st_mode) else None


def _file_id(path: Path, *, follow: bool) -> tuple[int, int] | None:
    """Which file a path leads to; None for one that is gone, whose image fails alone later."""
    try:
        facts = path.stat(follow_symlinks=follow)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _settle_existing(
    jobs: Sequence[Job], options: BatchOptions, there: Set[str]
) -> tuple[Job, ...]:
    existing = [file for job in jobs for file in job.files if file in there] if there else []
    for mode, file in ((mode_of(Path(file)), file) for file in existing):
        if mode and not stat.S_ISREG(mode):
            raise UsageError(f"the result {file!r} cannot be written: a folder or device is there")
    if existing and not (options.overwrite or options.skip_existing):
        more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise UsageError(
            f"{existing[0]!r}{more} already: `skip_existing` keeps what is there, "
            "`overwrite` replaces it"
        )
    if not options.skip_existing or not existing:
        return tuple(jobs)
    return tuple(
        dataclasses.replace(job, skip=True) if job.files and there >= set(job.files) else job
        for job in jobs
    )


def _refuse_unwritable(jobs: Iterable[Job]) -> None:
    """Find a read-only disk before hours of work, not after them."""
    folders = {os.path.dirname(file) for job in jobs if not job.skip for file in job.files}  # noqa: PTH120 (as above)
    for folder in map(Path, sorted(folders)):
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not is_folder(there):
            raise UsageError(f"cannot write into {str(folder)!r}: {str(there)!r} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ResourceError(
                f"cannot write into {str(folder)!r}: no permission or a read-only disk; "
                "`output` names another folder"
            )
