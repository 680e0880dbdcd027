"""JPEG: how one was compressed, and writing it back alike."""

import struct
from typing import Any

import numpy as np
from PIL import JpegImagePlugin

from derain_cli.images.picture import JpegCoding, Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow


def jpeg_coding(image: JpegImagePlugin.JpegImageFile) -> JpegCoding:
    """How an opened JPEG was compressed."""
    tables = [tuple(image.quantization[layer[3]]) for layer in image.layer[:3]]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()  # the last one serves all components that follow
    # Samplings that Pillow cannot write become 4:4:4, which loses nothing.
    subsampling = max(JpegImagePlugin.get_sampling(image), 0)
    return JpegCoding(tuple(tables), subsampling, bool(image.info.get("progressive")))


def encode_jpeg(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A JPEG with the tables of the one it was read from; else of a quality, 95 by default."""
    metadata, coding = picture.metadata, picture.metadata.jpeg
    options: dict[str, Any] = {
        "icc_profile": metadata.icc,
        "xmp": metadata.xmp,
        "exif": b"Exif\0\0" + metadata.exif if metadata.exif else None,
        "dpi": metadata.dpi,
        "comment": metadata.comment,
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
    return _with_iptc(data, metadata.iptc)


def _with_iptc(jpeg: bytes, iptc: bytes | None) -> bytes:
    """A JPEG with IPTC records behind its first segment, unless they are too long for one."""
    if not iptc or len(iptc) > 65000:
        return jpeg
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    segment = b"Photoshop 3.0\0" + resource
    behind = 4 + int.from_bytes(jpeg[4:6], "big") - 2 + 2
    return (
        jpeg[:behind] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + jpeg[behind:]
    )
