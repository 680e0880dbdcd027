"""How decoders and encoders fail: exceptions and warnings from image codecs."""

import contextlib
import errno
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageCms

from derain_cli.errors import DerainError, DiskError, ImageError

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
)
"""What decoders raise when a file is damaged; anything else is a bug of this program."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line of at most 160 characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


_pillow_log = logging.getLogger("PIL")
_quiet_lock = threading.Lock()
_quiet_readers = 0
_quiet_filters = warnings.catch_warnings()


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep Python warnings of decoders from leaking; what matters is raised or becomes a notice.

    Filters belong to the process, and images are read in several threads: the first one in
    silences, the last one out restores.
    """
    global _quiet_readers, _quiet_filters
    with _quiet_lock:
        if not _pillow_log.handlers:  # else Python prints its errors on stderr
            _pillow_log.addHandler(logging.NullHandler())
        if _quiet_readers == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.|tifffile|pillow_heif")
        _quiet_readers += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_readers -= 1
            if _quiet_readers == 0:
                _quiet_filters.__exit__(None, None, None)


def write_failure(path: Path, size: int, error: OSError) -> DerainError:
    """The error to raise when a picture's file of `size` bytes could not be written.

    Returns:
        A `DiskError` where the disk is full or read-only, which the next file would meet too;
        an `ImageError` where this path is at fault.
    """
    label = repr(str(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(
            f"{label} cannot be written: no space for its {size:,} bytes ({one_line(error)}); "
            "free some, or write elsewhere with `output`"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(
            f"{label} cannot be written: its folder is read-only ({one_line(error)}); "
            "write elsewhere with `output`"
        )
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{label} cannot be written: its folder does not exist; create it first")
    return ImageError(f"{label} cannot be written ({one_line(error)}); choose another `output`")
