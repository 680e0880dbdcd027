"""Whole files or none: temporary files tied to their targets, which a later run can recognise."""

import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Set
from pathlib import Path

from derain_cli.batch.events import Job, Plan
from derain_cli.batch.inputs import is_folder
from derain_cli.images import write_failure
from derain_cli.whole_files import is_abandoned, owner_tag, write_whole_file

# Files of versions before 0.2 do not name their owner.
_PART = re.compile(
    r"\.derain-(?P<target>[0-9a-f]{12})(-(?P<owner>[0-9a-f]{6}-\d+))?-[0-9a-f]{8}\.part"
)
_CLAIM = re.compile(r"\.derain-(?P<target>[0-9a-f]{12})\.claim")
_claimed: set[Path] = set()  # claims of this process, whichever batch made them


def remove_stale_parts(plan: Plan) -> None:
    """Remove what a killed run left of the files of this plan; those of a live run stay."""
    left: dict[str, list[Path]] = {}
    digests: dict[str, set[str]] = {}
    for target in (file for job in plan.known for file in job.files):
        folder = os.path.dirname(target)  # noqa: PTH120 (of a million)
        if folder not in left:
            left[folder] = _left_in(Path(folder))
        if left[folder]:
            digests.setdefault(folder, set()).add(target_digest(Path(target)))
    for folder, paths in left.items():
        for path in paths:
            if _is_stale(path, digests[folder]):
                path.unlink(missing_ok=True)


def _left_in(folder: Path) -> list[Path]:
    """What looks as if a run had left it there."""
    files = folder.iterdir() if is_folder(folder) else ()
    return [path for path in files if path.name.startswith(".derain-")]


def _is_stale(path: Path, digests: Set[str]) -> bool:
    """Whether a file is a part or a claim of one of these targets, and its owner is gone."""
    if claim := _CLAIM.fullmatch(path.name):
        return claim["target"] in digests and _is_dead(path)
    part = _PART.fullmatch(path.name)
    if not part or part["target"] not in digests:
        return False
    return not part["owner"] or is_abandoned(path, part["owner"])


def write_result(
    content: bytes, target: Path, *, overwrite: bool, skip_existing: bool = False, mode: int = 0o666
) -> bool:
    """Write a file so that it is whole or not there; its folder is made.

    Args:
        content: All of it.
        target: File to write.
        overwrite: Whether a file that is there is replaced.
        skip_existing: Whether a file that is there is left and that is no failure.
        mode: Permissions of the file, from which the umask takes some away.

    Returns:
        Whether the file was written.

    Raises:
        ImageError: The name is too long, or the file appeared meanwhile and may not be replaced.
        ResourceError: No space or no permission; no temporary file is left.
    """
    part = f".derain-{target_digest(target)}-{owner_tag()}-{secrets.token_hex(4)}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole_file(target, content, replace=overwrite, part=part, mode=mode)
    except FileExistsError as error:
        if skip_existing and os.path.lexists(target):
            return False
        raise write_failure(target, len(content), error) from error
    except OSError as error:
        raise write_failure(target, len(content), error) from error
    return True


def target_digest(target: Path) -> str:
    """Ties a temporary file to its target, in a name that is never too long."""
    return hashlib.blake2s(os.fsencode(target.name), digest_size=6).hexdigest()


class Claims:
    """Links that tell other runs into the same folder which images this one is at.

    They save work and protect nothing: where a disk has no links, or two runs take over a dead
    one's claim at the same moment, an image is derained twice. A link is there with its content,
    the owner's tag, or not at all.
    """

    def __init__(self) -> None:
        self._held: dict[Job, Path] = {}
        self._lock = threading.Lock()
        self._closed = False

    def take(self, job: Job) -> bool:
        """Claim a job's image; False when a live run has."""
        if not isinstance(job.derained, Path):
            return True
        path = job.derained.with_name(f".derain-{target_digest(job.derained)}.claim")
        with self._lock:
            if self._closed:
                return True
            with contextlib.suppress(OSError):
                if _is_dead(path):
                    path.unlink(missing_ok=True)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(owner_tag())
            except FileExistsError:
                return False
            except OSError:
                return True
            self._held[job] = path
            _claimed.add(path)
        return True

    def release(self, job: Job) -> None:
        """Give an image up, because it is done or has failed."""
        with self._lock:
            self._release(job)

    def close(self) -> None:
        """Give up every image, and claim no more."""
        with self._lock:
            self._closed = True
            for job in list(self._held):
                self._release(job)

    def _release(self, job: Job) -> None:
        path = self._held.pop(job, None)
        if path:
            _claimed.discard(path)
            with contextlib.suppress(OSError):
                path.unlink()


def _is_dead(claim: Path) -> bool:
    """Whether the run that made a claim is gone."""
    try:
        owner = str(claim.readlink())
    except OSError:
        return False
    known = re.fullmatch(r"[0-9a-f]{6}-\d+", owner)
    return claim not in _claimed and is_abandoned(claim, owner if known else "-0")
