"""WebP: whether one is lossless, and writing it."""

import os
import struct

import numpy as np

from derain_cli.images.exif import exif_with_resolution
from derain_cli.images.formats import written_icc
from derain_cli.images.picture import Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow
from derain_cli.images.sources import SourceFile
from derain_cli.images.xmp import whole_xmp


def is_lossless_webp(file: SourceFile) -> bool:
    """Whether the first frame is coded without loss."""
    file.stream.seek(12)
    while len(start := file.stream.read(8)) == 8:
        kind, length = struct.unpack("<4sI", start)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8L")
        # A frame of an animation is a box with such chunks in it, behind 16 bytes of its own.
        file.stream.seek(16 if kind == b"ANMF" else length + length % 2, os.SEEK_CUR)
    return False


def encode_webp(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A WebP: without loss for images from lossless files, else of a quality, 90 by default."""
    metadata = picture.metadata
    lossless = quality is None and metadata.lossless
    return saved_with_pillow(
        pillow_image(picture, alpha),
        "WEBP",
        lossless=lossless,
        exact=True,  # colours under transparent pixels stay
        quality=quality or (75 if lossless else 90),  # how hard it tries, if lossless
        icc_profile=written_icc(picture, "webp"),
        exif=exif_with_resolution(metadata),
        xmp=whole_xmp(metadata.xmp, metadata.extended_xmp),
    )
