"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from derain_cli.errors import DerainError, ImageError, ResourceError
from derain_cli.images.failures import one_line


def write_whole_file(path: Path, content: bytes) -> None:
    """Write a file so that its name never shows a part of it, not even after a power cut.

    Raises:
        ImageError: The folder does not exist, or the name is a folder's.
        ResourceError: Disk full, or the target is read-only.
    """
    temporary = path.parent / f".derain-{secrets.token_hex(8)}.tmp"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _write_failure(path, len(content), error) from error


def _write_failure(path: Path, size: int, error: OSError) -> DerainError:
    label = repr(str(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"{label} cannot be written: no space for its {size:,} bytes ({one_line(error)}); "
            "free some, or write elsewhere with --output"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(
            f"{label} cannot be written: its folder is read-only ({one_line(error)}); "
            "write elsewhere with --output"
        )
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{label} cannot be written: its folder does not exist; create it first")
    return ImageError(f"{label} cannot be written ({one_line(error)}); choose another --output")
