"""Whole files or none: temporary files tied to their targets, which a later run can recognise."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from derain_cli.batch.events import Plan
from derain_cli.batch.inputs import is_folder
from derain_cli.images import write_failure
from derain_cli.whole_files import write_whole_file

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


def write_result(content: bytes, target: Path, *, overwrite: bool) -> None:
    """Write a file so that it is whole or not there; its folder is made.

    Raises:
        ImageError: The name is too long, or the file appeared meanwhile and may not be replaced.
        ResourceError: No space or no permission; no temporary file is left.
    """
    part = f".derain-{target_digest(target)}-{secrets.token_hex(4)}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole_file(target, content, replace=overwrite, part=part)
    except OSError as error:
        raise write_failure(target, len(content), error) from error


def target_digest(target: Path) -> str:
    """Ties a temporary file to its target, in a name that is never too long."""
    return hashlib.blake2s(os.fsencode(target.name), digest_size=6).hexdigest()
