"""Files that are written whole or not at all, and where those go that can be made again."""

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import socket
import time
from pathlib import Path

from derain_cli.errors import ResourceError

_DEVICES, _MEMORY = (Path("/dev"), Path("/proc")), Path("/dev/shm")
_LITTER = re.compile(r"\.derain-(?P<owner>[0-9a-f]{6}-\d+)-[0-9a-f]{8}\.tmp")
_ABANDONED = 24 * 3600  # seconds after which a file of another machine's process is nobody's
_tidied: set[Path] = set()
_own: set[str] = set()  # temporary files that this process is writing


def cache_folder() -> Path:
    """`~/.cache/derain`; nothing is made.

    Raises:
        ResourceError: The account has no home folder, as in a container under a number.
    """
    try:
        return Path.home() / ".cache" / "derain"
    except RuntimeError as error:
        raise ResourceError(
            "this account has no home folder to keep files in: set $HOME to a folder"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole_file(
    path: Path,
    content: bytes | memoryview,
    *,
    replace: bool = True,
    part: str | None = None,
    mode: int = 0o666,
) -> None:
    """Write a file so that its name never shows a part of it, not even after a power cut.

    Args:
        path: File to write.
        content: All of it.
        replace: Whether a file that is there is replaced; a link is, not what it points to.
        part: Name of the temporary file beside it; None for one of chance, of which a killed
            process's are removed. None is left.
        mode: Permissions of the file, from which the umask takes some away.

    Raises:
        FileExistsError: Without `replace`, when something is there.
        OSError: It cannot be written; what was there stays as it was.
    """
    _refuse_devices(path)
    if part is None:
        _remove_litter(path.parent)
        # A fixed length, so that a name as long as the disk allows can be written.
        part = f".derain-{owner_tag()}-{secrets.token_hex(4)}.tmp"
    temporary = path.with_name(part)
    _own.add(part)
    try:
        opener = functools.partial(os.open, mode=mode)
        with open(temporary, "xb", opener=opener) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move_whole_file(temporary, path, replace=replace)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _own.discard(part)


def mode_like(source: object) -> int:
    """Permissions of a result: nobody may read it who may not read the input.

    Args:
        source: The input's path; of anything else, as an address, nothing is known.
    """
    try:
        mode = source.stat().st_mode if isinstance(source, Path) else 0o666
    except OSError:
        return 0o666
    return mode & 0o666 | 0o600


def _refuse_devices(path: Path) -> None:
    """What looks like a file below /dev or /proc is a device, or a link to an open one.

    Raises:
        PermissionError: The path is there.
    """
    folder = Path(os.path.abspath(path.parent))  # noqa: PTH100 (a link's name counts)
    below = any(folder.is_relative_to(place) for place in _DEVICES)
    if below and not folder.is_relative_to(_MEMORY):
        raise PermissionError(errno.EACCES, "a place for devices, not for files", str(path))


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


@functools.cache
def _host() -> str:
    return hashlib.blake2s(socket.gethostname().encode(), digest_size=3).hexdigest()


def owner_tag() -> str:
    """Names this process in the name of a file that is its own for a while."""
    return f"{_host()}-{os.getpid()}"


def is_abandoned(path: Path, owner: str) -> bool:
    """Whether the process that an owner tag names is gone, and will not finish a file.

    Of a process on another machine nothing is known: its files are abandoned after a day.
    """
    host, _, process = owner.partition("-")
    if host == _host() and os.name == "posix":
        return path.name not in _own if int(process) == os.getpid() else not _runs(int(process))
    try:
        return time.time() - path.stat(follow_symlinks=False).st_mtime > _ABANDONED
    except OSError:
        return False


def _runs(process: int) -> bool:
    """Whether there is a process of that number, be it another user's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove_litter(folder: Path) -> None:
    """Remove what killed processes left in a folder; looks once, before the first file."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            litter = _LITTER.fullmatch(entry.name)
            if litter and is_abandoned(folder / entry.name, litter["owner"]):
                (folder / entry.name).unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        ResourceError: No space or no permission; an old file stays as it was.
    """
    try:
        write_whole_file(path, content)
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error
