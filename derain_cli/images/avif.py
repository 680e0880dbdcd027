"""AVIF: depth and colours of its layers, and writing it."""

import re
import struct
from typing import Any, NamedTuple

import numpy as np

from derain_cli.images.exif import exif_with_resolution
from derain_cli.images.picture import Picture
from derain_cli.images.pixels import pillow_image, saved_with_pillow
from derain_cli.images.statements import cicp_of
from derain_cli.images.xmp import whole_xmp


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
    """An AVIF of 8 bits; quality 90 by default, alpha always exact."""
    options: dict[str, Any] = {}
    metadata = picture.metadata
    if alpha is not None:
        # Pillow has one quality for both; libaom keeps alpha as it is.
        options = {"codec": "aom", "advanced": {"alpha:lossless": "1"}}
    data = saved_with_pillow(
        pillow_image(picture, alpha),
        "AVIF",
        quality=quality or 90,
        subsampling="4:0:0" if picture.gray else "4:4:4",
        icc_profile=metadata.icc,
        exif=exif_with_resolution(metadata),
        xmp=whole_xmp(metadata.xmp, metadata.extended_xmp),
        **options,
    )
    colours = cicp_of(metadata)
    return _with_colours(data, *colours) if colours else data


def _with_colours(avif: bytes, primaries: int, transfer: int) -> bytes:
    """The file with other primaries and another transfer function; Pillow writes sRGB's."""
    box = avif.index(b"colrnclx") + 8
    return avif[:box] + struct.pack(">HH", primaries, transfer) + avif[box + 4 :]
