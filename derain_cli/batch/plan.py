"""The plan: every output path is settled, and what cannot go well refused, before any work."""

import dataclasses
import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from derain_cli.batch.events import Job, Plan
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
    words: Sequence[str], options: BatchOptions, listed: Sequence[str] | None = None
) -> Plan:
    """Every job of a batch with all its output paths settled; nothing is written.

    What is read are the first bytes of images whose names have no known ending.

    Args:
        words: Files, folders, globs, or `-`.
        options: How the batch is read and written.
        listed: Paths from a list, None without one.

    Raises:
        UsageError: Two results would share a path, a result would replace an original, a result
            exists and neither `overwrite` nor `skip_existing` was chosen, or `output` does not fit.
        NothingToDoError: The inputs name no image.
        ResourceError: An output folder cannot be written to.
    """
    if not words and listed is None:
        raise UsageError("no inputs: name images, folders or quoted patterns, or '-' for stdin")
    inputs, passed_over = collect_inputs(words, options, listed or ())
    if not inputs:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in passed_over[:3])
        raise NothingToDoError(f"no image to derain. {reasons or 'The list is empty'}")
    place = choose_place(words, options, listed, inputs)
    jobs = tuple(_job(item, place, options) for item in inputs)
    _refuse_collisions(jobs)
    _refuse_originals(jobs)
    jobs = _settle_existing(jobs, options)
    _refuse_unwritable(jobs)
    return Plan(jobs, passed_over)


def _job(item: Input, place: Place, options: BatchOptions) -> Job:
    if item.problem:
        return Job(item.path, problem=item.problem)
    derained = place(item, LAYERS[0])
    kind = kind_of(item, options)
    if derained is not None and has_film_name(derained):
        kind = "film"  # from stdin, whose content nobody has seen yet
    if kind == "animation" and derained is not None and not can_hold_animation(derained):
        kind = "image"  # its first image, for a format that does not move
    if kind != "image":
        return Job(item.path, derained=derained, kind=kind)
    return Job(
        item.path,
        derained=derained,
        rain=place(item, LAYERS[1]) if options.save_rain else None,
        compare=place(item, LAYERS[2]) if options.compare else None,
    )


def _refuse_collisions(jobs: Iterable[Job]) -> None:
    taken: dict[object, tuple[Job, Path]] = {}
    for job in jobs:
        for target in job.targets:
            other, path = taken.setdefault(_location(target), (job, target))
            if other is not job and not _known_apart(job, target, other, path):
                raise UsageError(
                    f"{job.name!r} and {other.name!r} would both be written to {str(target)!r}"
                    f"{_how_names_differ(target, path)}: derain them in separate runs with "
                    "different -o folders"
                )


def _how_names_differ(one: Path, two: Path) -> str:
    """Why two paths may be one file; "" for equal ones."""
    if one == two:
        return ""
    if str(one).casefold() == str(two).casefold():
        return " (on many disks upper and lower case are one)"
    names = f"{one.name!a} and {two.name!a}"
    return f" ({names} differ in Unicode form alone, and are one on many disks)"


def _location(path: Path) -> tuple[object, ...]:
    """Key that is equal for two paths that may be one file: case and Unicode form do not count."""
    folder, below = path.parent, [path.name]
    while not mode_of(folder) and folder.parent != folder:
        below.append(folder.name)
        folder = folder.parent
    names = (unicodedata.normalize("NFC", name.casefold()) for name in below)
    return (resolved(folder), *names)


def _known_apart(job: Job, target: Path, other: Job, path: Path) -> bool:
    """Whether sources that differ only in case prove that their own folder tells case apart."""
    if job.source is None or other.source is None or target == path:
        return False
    one_folder = {resolved_parent(p) for p in (job.source, other.source, target, path)}
    return len(one_folder) == 1 and _location(job.source) == _location(other.source)


def _refuse_originals(jobs: Sequence[Job]) -> None:
    """No target is an input, by whatever name, link or case it is reached."""
    sources = [job.source for job in jobs if job.source is not None and not job.problem]
    originals = {_file_id(path, follow=follow) for path in sources for follow in (False, True)}
    for job in jobs:
        for target in job.targets:
            if os.path.lexists(target) and _file_id(target, follow=False) in originals:
                raise UsageError(
                    f"the result of {job.name!r} would replace the input {str(target)!r}: "
                    "originals are never written to; choose another -o or --suffix"
                )


def _file_id(path: Path, *, follow: bool) -> tuple[int, int]:
    facts = path.stat(follow_symlinks=follow)
    return facts.st_dev, facts.st_ino


def _settle_existing(jobs: Sequence[Job], options: BatchOptions) -> tuple[Job, ...]:
    existing = [path for job in jobs for path in job.targets if os.path.lexists(path)]
    for path in existing:
        if mode_of(path) and not stat.S_ISREG(mode_of(path)):
            raise UsageError(
                f"the result {str(path)!r} cannot be written: a folder or device is there"
            )
    if existing and not (options.overwrite or options.skip_existing):
        more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise UsageError(
            f"{str(existing[0])!r}{more} already: --skip-existing keeps what is there, "
            "--overwrite replaces it"
        )
    if not options.skip_existing:
        return tuple(jobs)
    there = set(existing)
    return tuple(
        dataclasses.replace(job, skip=bool(job.targets) and there.issuperset(job.targets))
        for job in jobs
    )


def _refuse_unwritable(jobs: Iterable[Job]) -> None:
    """Find a read-only disk before hours of work, not after them."""
    folders = {target.parent for job in jobs if not job.skip for target in job.targets}
    for folder in sorted(folders):
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not is_folder(there):
            raise UsageError(f"cannot write into {str(folder)!r}: {str(there)!r} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ResourceError(
                f"cannot write into {str(folder)!r}: no permission or a read-only disk; "
                "-o names another folder"
            )
