"""Whole files or none: temporary files tied to their targets, which a later run can recognise."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
from pathlib import Path

from derain_cli.batch.jobs import Plan
from derain_cli.batch.paths import is_folder
from derain_cli.errors import DerainError, ImageError, ResourceError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
PART = re.compile(r"\.derain-([0-9a-f]{12})-[0-9a-f]{8}\.part")


def remove_stale_parts(plan: Plan) -> None:
    """Remove what a killed run left of the files of this plan, and nothing else."""
    parts: dict[Path, set[str]] = {}
    for job in plan.jobs:
        for target in job.targets:
            parts.setdefault(target.parent, set()).add(target_digest(target))
    for folder, digests in parts.items():
        if is_folder(folder):
            for path in list(folder.iterdir()):
                match = PART.fullmatch(path.name)
                if match and match[1] in digests:
                    path.unlink(missing_ok=True)


def write_whole(content: bytes, target: Path, *, overwrite: bool) -> None:
    """Write a file so that it is whole or not there; its folder is made.

    Raises:
        ImageError: The name is too long, or the file appeared meanwhile and may not be replaced.
        ResourceError: No space or no permission; no temporary file is left.
    """
    part = target.with_name(f".derain-{target_digest(target)}-{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _move(part, target, overwrite=overwrite)
    except OSError as error:
        raise _write_failure(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _write_failure(target: Path, error: OSError) -> DerainError:
    text = f"cannot write {str(target)!r}: {error.strerror}"
    if error.errno in NO_SPACE:
        return ResourceError(f"{text}; free some space, or name another disk with -o")
    if error.errno in NO_PERMISSION:
        return ResourceError(f"{text}; name another folder with -o")
    return ImageError(text)


def _move(part: Path, target: Path, *, overwrite: bool) -> None:
    """Rename; without `overwrite` a file that appeared since the plan was made stays."""
    if not overwrite:
        try:
            os.link(part, target)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: the gap between look and move stays
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        else:
            return
    part.replace(target)


def target_digest(target: Path) -> str:
    """Ties a temporary file to its target, in a name that is never too long."""
    return hashlib.blake2s(os.fsencode(target.name), digest_size=6).hexdigest()
