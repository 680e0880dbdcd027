"""Which files are films, which of them can be written, and the one place that loads PyAV."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain_cli.errors import UsageError
from derain_cli.images import format_of_bytes

FORMAT_OF_SUFFIX: Mapping[str, str] = {
    ".3gp": "3gp",
    ".avi": "avi",
    ".m2ts": "mpegts",
    ".m4v": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mp4",
    ".mts": "mpegts",
    ".qt": "mov",
    ".ts": "mpegts",
    ".webm": "webm",
}
"""The container that each ending of a written film asks for, as FFmpeg calls it."""

ANIMATION_SUFFIXES: Mapping[str, str] = {
    ".apng": "PNG",
    ".gif": "GIF",
    ".png": "PNG",
    ".webp": "WEBP",
}
"""The format that each ending of an animation asks for, as Pillow calls it."""

READ_ONLY_SUFFIXES = frozenset({".3g2", ".asf", ".flv", ".mpeg", ".mpg", ".ogv", ".vob", ".wmv"})
FILM_SUFFIXES = frozenset(FORMAT_OF_SUFFIX) | READ_ONLY_SUFFIXES
FALLBACK_SUFFIX = ".mkv"  # takes the sound and the subtitles of nearly every container
TRANSPORT_MARK = 0x47  # first byte of each packet of a transport stream; .m2ts puts a clock before


def has_film_name(path: Path) -> bool:
    """Whether a name ends like a film's.

    Example:
        >>> has_film_name(Path("holiday.MP4")), has_film_name(Path("holiday.jpg"))
        (True, False)
    """
    return path.suffix.lower() in FILM_SUFFIXES


def looks_like_film(path: Path) -> bool:
    """As `has_film_name`, but TypeScript sources, which end in .ts too, are none."""
    if not has_film_name(path):
        return False
    if FORMAT_OF_SUFFIX.get(path.suffix.lower()) != "mpegts":
        return True
    try:
        with path.open("rb") as file:
            head = file.read(5)
    except OSError:
        return True  # whoever opens it will say why it cannot be read
    return TRANSPORT_MARK in (head[:1] + head[4:5])


def film_suffix_of_bytes(content: bytes) -> str:
    r"""The ending that a film's first bytes ask for; "" for anything else.

    Example:
        >>> film_suffix_of_bytes(b"\0\0\0\x18ftypmp42"), film_suffix_of_bytes(b"\x89PNG")
        ('.mp4', '')
    """
    head = content[:4096]
    if head[4:8] == b"ftyp" and not format_of_bytes(head):
        return ".mov" if head[8:12] == b"qt  " else ".mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return ".webm" if b"webm" in head[:64] else ".mkv"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return ".avi"
    packets = head[:1] + head[188:189] + head[376:377]
    return ".ts" if packets == bytes([TRANSPORT_MARK]) * 3 else ""


def can_hold_animation(path: Path) -> bool:
    """Whether a name asks for a format of several images."""
    return path.suffix.lower() in ANIMATION_SUFFIXES


def written_suffix(suffix: str) -> str:
    """The ending of the result of a film with this ending.

    Example:
        >>> written_suffix(".MOV"), written_suffix(".wmv")
        ('.MOV', '.mkv')
    """
    return suffix if suffix.lower() in FORMAT_OF_SUFFIX else FALLBACK_SUFFIX


def load_pyav(label: str) -> Any:  # noqa: ANN401 (a module that need not be there)
    """PyAV, silenced.

    Args:
        label: What the message calls the film.

    Raises:
        UsageError: The extra is not installed.
    """
    try:
        import av  # noqa: PLC0415 (an extra)
        import av.logging  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"{label} is a film; to read it: pip install 'derain-cli[video]'"
        ) from error
    av.logging.set_level(None)
    return av


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of PyAV says that there is no space left."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
