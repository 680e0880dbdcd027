"""Images into files: `encode_image` and `write_image`, and what is lost on the way."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from derain_cli.errors import ImageError, ResourceError, UsageError, did_you_mean
from derain_cli.images.avif import encode_avif
from derain_cli.images.failures import DECODER_ERRORS, one_line, quiet_decoders, write_failure
from derain_cli.images.formats import (
    ALPHA_FORMATS,
    DEEP_FORMATS,
    FORMAT_OF_SUFFIX,
    KEPT_METADATA,
    WRITABLE_FORMATS,
    written_icc,
)
from derain_cli.images.jpeg import encode_jpeg, too_long_for_jpeg
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow
from derain_cli.images.png import TEXT_CHUNKS, encode_png, means_srgb
from derain_cli.images.statements import HDR_TRANSFERS, cicp_of, colour_name
from derain_cli.images.tiff import encode_tiff
from derain_cli.images.webp import encode_webp
from derain_cli.whole_files import write_whole_file


def encode_image(
    picture: Picture,
    format: str | None = None,
    quality: int | None = None,
    *,
    name: str = "the image",
) -> bytes:
    """The content of a file that holds an image.

    Args:
        picture: What to write.
        format: avif, bmp, jpeg (or jpg), png, tiff (or tif) or webp. None: what it was read from,
            and PNG for formats that are only read.
        quality: 1-100 for JPEG, WebP and AVIF; the others lose nothing. None: JPEG with the tables
            and subsampling of the JPEG it was read from, WebP without loss for images from
            lossless files, else 95 (JPEG) or 90.
        name: What errors call the image.

    16 bits become 8 where the format holds no more: see `writing_notices`.

    Raises:
        UsageError: Unknown format, or a quality outside 1-100.
        ImageError: The format cannot hold this image.
    """
    chosen = _writable(format, picture)
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is outside 1-100")
    alpha = _written_alpha(picture, chosen, name)
    try:
        with quiet_decoders():
            return _ENCODERS[chosen](picture, alpha, quality)
    except MemoryError as error:
        raise ResourceError(f"{name}: not enough memory to write it as {chosen.upper()}") from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name} cannot be written as {chosen.upper()} ({one_line(error)}); try `format` png"
        ) from error


def write_image(
    picture: Picture, path: str | Path, *, format: str | None = None, quality: int | None = None
) -> None:
    """Write an image to a file, whole or not at all.

    Args:
        picture: What to write.
        path: Where to; an existing file is replaced.
        format: As for `encode_image`; None: by the path's ending.
        quality: As for `encode_image`.

    Raises:
        UsageError: The ending names no format that can be written.
        ImageError: The format cannot hold this image, or there is no such folder.
        ResourceError: Disk full, or the target is read-only.
    """
    path = Path(path)
    chosen = format or format_of_path(path)
    content = encode_image(picture, chosen, quality, name=repr(str(path)))
    try:
        write_whole_file(path, content)
    except OSError as error:
        raise write_failure(path, len(content), error) from error


def format_of_path(path: Path) -> str:
    """The format to write that a path's ending names.

    Raises:
        UsageError: None that can be written.

    Example:
        >>> format_of_path(Path("photo.JPG"))
        'jpeg'
    """
    format = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if format not in WRITABLE_FORMATS:
        raise UsageError(
            f"{str(path)!r}: cannot write a file that ends in {path.suffix!r}; "
            f"use one of .jpg, .png, .tif, .webp, .avif, .bmp"
        )
    return format


def writing_notices(picture: Picture, format: str | None = None) -> tuple[str, ...]:
    """What is lost when an image is written in a format, each loss named once.

    Example:
        >>> deep = Picture(np.zeros((1, 1, 3), np.uint16))
        >>> writing_notices(deep, "jpeg")
        ('16 bits per channel are reduced to 8: JPEG holds no more',)
    """
    chosen = _writable(format, picture)
    shown, notices = chosen.upper(), []
    if picture.bit_depth == 16 and chosen not in DEEP_FORMATS:
        notices.append(f"16 bits per channel are reduced to 8: {shown} holds no more")
    if picture.alpha is not None and chosen not in ALPHA_FORMATS:
        notices.append(f"the alpha channel, opaque everywhere, is dropped: {shown} has none")
    lost = list(_lost_metadata(picture, chosen))
    if lost:
        notices.append(f"{', '.join(lost)} data are dropped: {shown} cannot hold them")
    if chosen == "jpeg" and (long := too_long_for_jpeg(picture.metadata)):
        named = ", ".join(sorted(key.upper() for key in long))
        notices.append(f"{named} data are dropped: too long for a JPEG")
    colours = cicp_of(picture.metadata)
    if chosen == "avif" and colours and colours[1] in HDR_TRANSFERS:
        transfer = HDR_TRANSFERS[colours[1]]
        notices.append(f"HDR tones ({transfer}) are written with 8 bits: bands may show")
    return tuple(notices)


def _lost_metadata(picture: Picture, format: str) -> Iterator[str]:
    """Names of the kinds of metadata that a format cannot hold."""
    metadata, kept = picture.metadata, KEPT_METADATA[format]
    for key in ("exif", "icc", "iptc", "xmp"):
        held = key in kept and (key != "icc" or written_icc(picture, format))
        if getattr(metadata, key) and not held:
            yield key.upper()
    if metadata.extended_xmp and not metadata.xmp and "xmp" not in kept:
        yield "XMP"
    if metadata.comment and "comment" not in kept:
        yield "comment"
    if metadata.geo and "geo" not in kept:
        yield "GeoTIFF"
    if "png_chunks" not in kept:
        yield from _lost_png_chunks(metadata, format)


def _lost_png_chunks(metadata: Metadata, format: str) -> Iterator[str]:
    chunks = metadata.png_chunks
    if any(kind in TEXT_CHUNKS for kind, _ in chunks):
        yield "PNG text"
    colours = cicp_of(metadata)
    if colours and format != "avif":
        yield f"colour ({colour_name(*colours)})"
    # A profile and CICP both say more than gamma and primaries do.
    if not colours and not metadata.icc and not means_srgb(chunks):
        names = sorted(kind.decode("ascii") for kind, _ in chunks if kind in (b"cHRM", b"gAMA"))
        yield f"colour ({', '.join(names)})"
    if any(kind in (b"mDCV", b"cLLI") for kind, _ in chunks):
        yield "HDR light level"


def _writable(format: str | None, picture: Picture) -> str:
    if format is None:
        return picture.format if picture.format in WRITABLE_FORMATS else "png"
    chosen = {"jpg": "jpeg", "tif": "tiff"}.get(format.lower(), format.lower())
    if chosen not in WRITABLE_FORMATS:
        raise UsageError(
            f"cannot write format {format!r}. {did_you_mean(format.lower(), WRITABLE_FORMATS)}"
        )
    return chosen


def _written_alpha(picture: Picture, format: str, name: str) -> np.ndarray | None:
    """Alpha to write: that of the image, or None where an opaque one can be dropped.

    Raises:
        ImageError: The format has no alpha, and the image is not opaque.
    """
    if picture.alpha is None or format in ALPHA_FORMATS:
        return picture.alpha
    if picture.alpha.min() < np.iinfo(picture.alpha.dtype).max:
        raise ImageError(
            f"{name} has transparent parts, which {format.upper()} cannot keep; "
            "use `format` png (or webp, tiff, avif)"
        )
    return None


def _encode_bmp(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    return saved_with_pillow(pillow_image(picture, alpha), "BMP", dpi=picture.metadata.dpi)


_ENCODERS: Mapping[str, Callable[[Picture, np.ndarray | None, int | None], bytes]] = {
    "avif": encode_avif,
    "bmp": _encode_bmp,
    "jpeg": encode_jpeg,
    "png": encode_png,
    "tiff": encode_tiff,
    "webp": encode_webp,
}
