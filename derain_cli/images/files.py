"""How writing a picture's file fails."""

import errno
from pathlib import Path

from derain_cli.errors import DerainError, ImageError, ResourceError
from derain_cli.images.failures import one_line


def write_failure(path: Path, size: int, error: OSError) -> DerainError:
    """The error to raise when a picture's file of `size` bytes could not be written.

    Returns:
        A `ResourceError` where the disk is full or read-only, which the next file would meet too;
        an `ImageError` where this path is at fault.
    """
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
