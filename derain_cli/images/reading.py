"""Images out of files: `read_image` and `probe_image`."""

from pathlib import Path

from derain_cli.errors import UnreadableImageError
from derain_cli.images.picture import Picture
from derain_cli.images.pillow import open_jpeg, open_png, open_with_pillow
from derain_cli.images.sniff import name_notices, recognise_format
from derain_cli.images.sources import Notices, OpenedImage, SourceFile, open_source
from derain_cli.images.tiff import open_tiff

DEFAULT_MAX_PIXELS = 300_000_000
"""Larger images are refused unless the caller says otherwise (a 900 MB array)."""
_BYTES_OF_A_PIXEL = 3  # of 8-bit RGB, in which the limit counts


def read_image(
    source: str | Path | bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    name: str | None = None,
    strict: bool = False,
) -> Picture:
    """The image in a file or in bytes, upright, with its metadata.

    Args:
        source: A file, or a file's content.
        max_pixels: Larger images are refused before they are decoded. Counted in pixels of 8-bit
            RGB: one of 16 bits counts twice, and alpha adds a third.
        name: What errors call the source; default: its path.
        strict: Whether a file is refused that decoders find damaged although they can read it;
            otherwise the damage is a notice.

    Raises:
        UnreadableImageError: Not an image this program reads, damaged, or too large.
        ResourceError: Not enough memory.
    """
    with open_source(source, name) as file:
        opened = _open(file, strict=strict)
        _check_size(opened, max_pixels, file.label)
        return opened.decode()


def probe_image(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright image, from the header alone.

    Raises:
        UnreadableImageError: Not an image this program reads, or a damaged header.
    """
    with open_source(path, None) as file:
        opened = _open(file)
        return (opened.height, opened.width) if opened.orientation >= 5 else opened.size


def decoded_bytes(path: str | Path | bytes) -> int:
    """Memory that the decoded image takes, from the header alone.

    Raises:
        UnreadableImageError: Not an image this program reads, or a damaged header.
    """
    with open_source(path, None) as file:
        opened = _open(file)
        return opened.width * opened.height * opened.pixel_bytes


def _open(file: SourceFile, *, strict: bool = False) -> OpenedImage:
    format = recognise_format(file)
    notices = Notices(strict=strict)
    notices += name_notices(file, format)
    if format == "tiff":
        return open_tiff(file, notices)
    if format == "png":
        return open_png(file, notices)
    if format == "jpeg":
        return open_jpeg(file, notices)
    return open_with_pillow(file, format, notices)


def _check_size(opened: OpenedImage, max_pixels: int, label: str) -> None:
    pixels = opened.width * opened.height
    if pixels <= 0:
        raise UnreadableImageError(
            f"{label} has no pixels ({opened.width} x {opened.height}); copy or download it again"
        )
    counted = -(-pixels * opened.pixel_bytes // _BYTES_OF_A_PIXEL)
    if counted > max_pixels:
        as_rgb = "" if counted == pixels else f", as large as {counted:,} of 8-bit RGB"
        raise UnreadableImageError(
            f"{label} has {pixels:,} pixels ({opened.width} x {opened.height}){as_rgb}, the limit "
            f"is {max_pixels:,}; if you trust the file, raise it with `max_pixels` {counted}"
        )
