"""Pictures out of files: `read_image` and `probe_image`."""

from pathlib import Path

from derain_cli.errors import UnreadableImageError
from derain_cli.images.picture import Picture
from derain_cli.images.pillow import open_with_pillow
from derain_cli.images.sniff import name_notices, recognise_format
from derain_cli.images.sources import OpenedPicture, SourceFile, open_source
from derain_cli.images.tiff import open_tiff

DEFAULT_MAX_PIXELS = 300_000_000
"""Pictures with more pixels are refused unless the caller says otherwise (a 900 MB array)."""


def read_image(
    source: str | Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, name: str | None = None
) -> Picture:
    """The picture in a file or in bytes, upright, with its metadata.

    Args:
        source: A file, or a file's content.
        max_pixels: Larger pictures are refused before they are decoded.
        name: What errors call the source; default: its path.

    Raises:
        UnreadableImageError: Not a picture this program reads, damaged, or too large.
        ResourceError: Not enough memory.
    """
    with open_source(source, name) as file:
        opened = _open(file)
        _check_size(opened, max_pixels, file.label)
        return opened.decode()


def probe_image(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone.

    Raises:
        UnreadableImageError: Not a picture this program reads, or a damaged header.
    """
    with open_source(path, None) as file:
        opened = _open(file)
        return (opened.height, opened.width) if opened.orientation >= 5 else opened.size


def _open(file: SourceFile) -> OpenedPicture:
    format = recognise_format(file)
    notices = name_notices(file, format)
    if format == "tiff":
        return open_tiff(file, notices)
    return open_with_pillow(file, format, notices)


def _check_size(opened: OpenedPicture, max_pixels: int, label: str) -> None:
    pixels = opened.width * opened.height
    if pixels > max_pixels:
        raise UnreadableImageError(
            f"{label} has {pixels:,} pixels ({opened.width} x {opened.height}), the limit is "
            f"{max_pixels:,}; if you trust the file, raise it with --max-pixels {pixels}"
        )
    if pixels <= 0:
        raise UnreadableImageError(f"{label} has no pixels ({opened.width} x {opened.height})")
