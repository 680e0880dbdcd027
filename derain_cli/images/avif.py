"""AVIF: depth and colours of its layers, and writing it."""

import re
from typing import Any, NamedTuple

import numpy as np

from derain_cli.images.exif import exif_with_resolution
from derain_cli.images.picture import Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow


class Av1Layers(NamedTuple):
    """Bits per channel (the most of any layer), and whether all layers are gray."""

    bits: int
    monochrome: bool


def av1_layers(header: bytes) -> Av1Layers:
    """Depth of an AVIF, and whether all its layers are gray, from its `av1C` boxes."""
    flags = [header[at.end() + 2] for at in re.finditer(b"av1C(?=...)", header, re.DOTALL)]
    bits = max(((12 if flag & 0x20 else 10) if flag & 0x40 else 8 for flag in flags), default=8)
    return Av1Layers(bits, bool(flags) and all(flag & 0x10 for flag in flags))


def encode_avif(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """An AVIF of 8 bits; quality 90 unless told otherwise, alpha always exact."""
    options: dict[str, Any] = {}
    if alpha is not None:
        # Pillow knows one quality for both; libaom is told to keep alpha as it is.
        options = {"codec": "aom", "advanced": {"alpha:lossless": "1"}}
    return saved_with_pillow(
        pillow_image(picture, alpha),
        "AVIF",
        quality=quality or 90,
        subsampling="4:0:0" if picture.gray else "4:4:4",
        icc_profile=picture.metadata.icc,
        exif=exif_with_resolution(picture.metadata),
        xmp=picture.metadata.xmp,
        **options,
    )
