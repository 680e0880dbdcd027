"""JPEG: how one was compressed, its pixels, and writing it back alike.

libjpeg goes on after damage and fills in what it lost. Pillow and OpenCV do not pass its warnings
on; simplejpeg, which is the same library in another wrapping, does.
"""

import struct
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from derain_cli.images.failures import one_line
from derain_cli.images.iptc import iptc_resource
from derain_cli.images.jpeg_segments import (
    MOST_IN_SEGMENT,
    XMP_MARK,
    comment_segment,
    extension_segments,
    photoshop_segment,
    xmp_segment,
)
from derain_cli.images.picture import JpegCoding, Metadata, Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow
from derain_cli.images.sources import Notices
from derain_cli.images.xmp import upright_xmp, whole_xmp, with_extension

MOST_EXIF = MOST_IN_SEGMENT - len(b"Exif\0\0")
MOST_IPTC = MOST_IN_SEGMENT - 40
MOST_ICC = 255 * 65519


def jpeg_coding(image: JpegImagePlugin.JpegImageFile) -> JpegCoding:
    """How an opened JPEG was compressed."""
    tables = [tuple(image.quantization[layer[3]]) for layer in image.layer[:3]]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()  # the last one serves all components that follow
    # Samplings that Pillow cannot write become 4:4:4, which loses nothing.
    subsampling = max(JpegImagePlugin.get_sampling(image), 0)
    return JpegCoding(tuple(tables), subsampling, bool(image.info.get("progressive")))


def strict_jpeg_pixels(data: bytes, image: Image.Image, notices: Notices) -> np.ndarray | None:
    """Pixels `(height, width, 1 or 3)` of a JPEG that libjpeg finds nothing wrong with.

    Returns:
        None where Pillow is to read it: it is damaged, which is added to the notices, or of a
        colour model that is converted.
    """
    colours = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}.get(image.mode, "RGB")
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        warning = one_line(error)
    else:
        fits = pixels.shape[:2] == image.size[::-1] and image.mode in ("L", "RGB")
        return pixels if fits else None
    try:
        simplejpeg.decode_jpeg(data, colours, strict=False)
    except ValueError:
        return None  # not a warning, but something that only Pillow may be able to read
    notices.damage(f"may be damaged: its decoder says {warning!r}")
    return None


def encode_jpeg(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A JPEG with the tables of the one it was read from; else of a quality, 95 by default."""
    metadata, coding = picture.metadata, picture.metadata.jpeg
    icc, exif = metadata.icc, metadata.exif
    options: dict[str, Any] = {
        "icc_profile": icc if icc and len(icc) <= MOST_ICC else None,
        "exif": b"Exif\0\0" + exif if exif and len(exif) <= MOST_EXIF else None,
        "dpi": metadata.dpi,
        "subsampling": coding.subsampling if coding else 0,
    }
    if coding and quality is None:
        # Larger entries need 16-bit tables, which most decoders do not expect in a JPEG.
        options["qtables"] = [[min(entry, 255) for entry in table] for table in coding.tables]
    else:
        options["quality"] = quality or 95
    image = pillow_image(picture, alpha)
    try:
        data = saved_with_pillow(
            image, "JPEG", progressive=bool(coding and coding.progressive), **options
        )
    except OSError:
        # Pillow's buffer for progressive files is too small for pure noise at the finest tables.
        data = saved_with_pillow(image, "JPEG", **options)
    behind = 2  # the first segments say that it is a JPEG file, and hold EXIF
    while data[behind + 1] in (0xE0, 0xE1):
        behind += 2 + struct.unpack_from(">H", data, behind + 2)[0]
    return data[:behind] + _segments(metadata) + data[behind:]


def too_long_for_jpeg(metadata: Metadata) -> set[str]:
    """Fields that do not fit into a JPEG's segments."""
    longest = {"exif": MOST_EXIF, "iptc": MOST_IPTC, "icc": MOST_ICC, "comment": MOST_IN_SEGMENT}
    return {key for key, most in longest.items() if len(getattr(metadata, key) or b"") > most}


def _segments(metadata: Metadata) -> bytes:
    """XMP, IPTC records and the comment; Pillow holds back what does not fit into one segment."""
    parts = []
    xmp, extension = metadata.xmp, metadata.extended_xmp
    most = MOST_IN_SEGMENT - len(XMP_MARK)
    claim = 400  # with it, the first packet names the second
    if xmp and len(xmp) > most - (claim if extension else 0):
        # An extension holds packets of any length, and has no orientation of its own.
        xmp, extension = None, whole_xmp(xmp, extension)
    if extension:
        xmp, guid = with_extension(xmp, upright_xmp(extension))
        parts.append(xmp_segment(xmp))
        parts += extension_segments(upright_xmp(extension), guid)
    elif xmp:
        parts.append(xmp_segment(xmp))
    if metadata.iptc and len(metadata.iptc) <= MOST_IPTC:
        parts.append(photoshop_segment(iptc_resource(metadata.iptc)))
    if metadata.comment and len(metadata.comment) <= MOST_IN_SEGMENT:
        parts.append(comment_segment(metadata.comment))
    return b"".join(parts)
