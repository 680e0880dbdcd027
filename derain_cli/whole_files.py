"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from derain_cli.errors import ResourceError


def write_whole_file(
    path: Path, content: bytes | memoryview, *, replace: bool = True, part: str | None = None
) -> None:
    """Write a file so that its name never shows a part of it, not even after a power cut.

    Args:
        path: File to write; its mode is that of any new file.
        content: All of it.
        replace: Whether a file that is there is replaced; a link is, not what it points to.
        part: Name of the temporary file beside it; None for one of chance. None is left.

    Raises:
        FileExistsError: Without `replace`, when something is there.
        OSError: It cannot be written; what was there stays as it was.
    """
    # A fixed length, so that a name as long as the disk allows can be written.
    temporary = path.with_name(part or f".derain-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:  # unlike tempfile's, readable to others by the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move_whole_file(temporary, path, replace=replace)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def move_whole_file(temporary: Path, path: Path, *, replace: bool) -> None:
    """Give a finished file its name; without `replace` only where nothing is there.

    Raises:
        FileExistsError: Without `replace`, when something is there.
        OSError: It cannot be moved.
    """
    if replace:
        temporary.replace(path)
    else:
        _move_to_free_name(temporary, path)
        temporary.unlink(missing_ok=True)  # a link was made: two names lead to the file


def _move_to_free_name(temporary: Path, path: Path) -> None:
    """Rename unless something is there; `os.rename` alone would replace it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links: the gap between look and move stays
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        temporary.replace(path)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        ResourceError: No space or no permission; an old file stays as it was.
    """
    try:
        write_whole_file(path, content)
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error
