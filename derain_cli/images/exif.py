"""EXIF and XMP of a picture that has been turned upright."""

import io
import re
import struct

from derain_cli.images.picture import Metadata
from derain_cli.images.tiff_tags import (
    EXIF_TAG,
    LONG,
    ORIENTATION,
    RATIONAL,
    SHORT,
    Directory,
    Tag,
    pack_directory,
    read_directory,
    tiff_order,
)

_SIZE_TAGS = (256, 257, 0xA002, 0xA003)  # width, height; the same in the EXIF directory


def exif_block(tags: Directory) -> bytes:
    """An EXIF block (little-endian, no mark in front) with these entries."""
    return b"II*\0\x08\0\0\0" + pack_directory(tags, 8)


def exif_tags(exif: bytes) -> Directory:
    """Entries of an EXIF block.

    Raises:
        KeyError, ValueError, struct.error: The block is damaged.
    """
    order, _ = tiff_order(exif)
    return read_directory(io.BytesIO(exif), order, struct.unpack(order + "I", exif[4:8])[0])[0]


def upright_exif(exif: bytes, size: tuple[int, int]) -> bytes | None:
    """The EXIF block of the upright picture; None when nothing is left of it.

    The orientation goes, so does the thumbnail (of the rainy picture), and sizes in it are those
    of the upright picture. All other bytes stay where they are: cameras' own notes hold offsets
    that nobody else can move.
    """
    order, _ = tiff_order(exif)
    block = bytearray(exif)
    start = struct.unpack(order + "I", exif[4:8])[0]
    count = struct.unpack_from(order + "H", block, start)[0]
    entries = [bytes(block[at : at + 12]) for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [e for e in entries if struct.unpack(order + "H", e[:2])[0] != ORIENTATION]
    if not kept:
        return None
    packed = struct.pack(order + "H", len(kept)) + b"".join(kept)
    block[start : start + 6 + 12 * count] = packed.ljust(6 + 12 * count, b"\0")
    _set_sizes(block, order, start, size)
    for entry in kept:
        code, _, _, place = struct.unpack(order + "HHII", entry)
        if code == EXIF_TAG:
            _set_sizes(block, order, place, size)
    return bytes(block)


def _set_sizes(block: bytearray, order: str, start: int, size: tuple[int, int]) -> None:
    """Overwrite width and height in one directory of an EXIF block."""
    if start + 2 > len(block):
        return
    count = struct.unpack_from(order + "H", block, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        code, kind = struct.unpack_from(order + "HH", block, at)
        if code in _SIZE_TAGS and kind in (SHORT, LONG):
            value = size[_SIZE_TAGS.index(code) % 2]
            if kind == LONG or value < 65536:
                struct.pack_into(order + ("H" if kind == SHORT else "I"), block, at + 8, value)


def exif_with_resolution(metadata: Metadata) -> bytes | None:
    """EXIF for formats without a resolution of their own: a block with it if there is no other."""
    if metadata.exif or not metadata.dpi:
        return metadata.exif
    x, y = (Tag(RATIONAL, struct.pack("<II", round(side * 1000), 1000)) for side in metadata.dpi)
    return exif_block({282: x, 283: y, 296: Tag(SHORT, struct.pack("<H", 2))})


_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)([1-8])""")


def xmp_orientation(xmp: bytes | None) -> int:
    """EXIF orientation that an XMP packet states; 1 if none."""
    found = _XMP_ORIENTATION.search(xmp) if xmp else None
    return int(found[2]) if found else 1


def upright_xmp(xmp: bytes) -> bytes:
    r"""An XMP packet whose orientation says upright.

    Example:
        >>> upright_xmp(b'<rdf tiff:Orientation="6"/>')
        b'<rdf tiff:Orientation="1"/>'
    """
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def valid_orientation(number: int) -> int:
    """An orientation as the standard numbers them; 1 (upright) for any other number."""
    return number if 1 <= number <= 8 else 1
