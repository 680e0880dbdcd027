"""EXIF of an image that has been turned upright."""

import io
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
    whole_number,
)

_SIZE_TAGS = (256, 257, 0xA002, 0xA003)  # width, height; the same in the EXIF directory
_WINDOWS_THUMBNAIL = 0x501B
_DROPPED_TAGS = frozenset({ORIENTATION, _WINDOWS_THUMBNAIL})
_MARK = b"Exif\0\0"  # in front of the block in JPEGs, and by mistake elsewhere


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


def without_mark(exif: bytes) -> bytes:
    """The block without the mark that JPEGs put in front of it, however often it is there."""
    while exif.startswith(_MARK):
        exif = exif.removeprefix(_MARK)
    return exif


def upright_exif(exif: bytes, size: tuple[int, int]) -> bytes | None:
    """The EXIF block of the upright image; None when nothing is left of it.

    The orientation goes, so does the thumbnail (of the rainy image), and sizes in it are those
    of the upright image. All other bytes stay where they are: cameras' own notes hold offsets
    that nobody else can move.
    """
    order, _ = tiff_order(exif)
    block = bytearray(exif)
    start = struct.unpack(order + "I", exif[4:8])[0]
    count = struct.unpack_from(order + "H", block, start)[0]
    entries = [bytes(block[at : at + 12]) for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [e for e in entries if struct.unpack(order + "H", e[:2])[0] not in _DROPPED_TAGS]
    if not kept:
        return None
    _blank_thumbnail(block, order, start + 2 + 12 * count)
    packed = struct.pack(order + "H", len(kept)) + b"".join(kept)
    block[start : start + 6 + 12 * count] = packed.ljust(6 + 12 * count, b"\0")
    _set_sizes(block, order, start, size)
    for entry in kept:
        code, _, _, place = struct.unpack(order + "HHII", entry)
        if code == EXIF_TAG:
            _set_sizes(block, order, place, size)
    return bytes(block)


def _blank_thumbnail(block: bytearray, order: str, link: int) -> None:
    """Overwrite the JPEG that the second directory points to; the link itself goes elsewhere."""
    try:
        tags, _ = read_directory(
            io.BytesIO(block), order, struct.unpack_from(order + "I", block, link)[0]
        )
    except (ValueError, struct.error):
        return
    place, length = whole_number(tags, 513, 0), whole_number(tags, 514, 0)
    if block[place : place + 3] == b"\xff\xd8\xff" and place + length <= len(block):
        block[place : place + length] = bytes(length)


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
    """EXIF for formats without a resolution of their own: with it, unless it states another."""
    exif = metadata.exif
    if not metadata.dpi:
        return exif
    x, y = (Tag(RATIONAL, struct.pack("<II", round(side * 1000), 1000)) for side in metadata.dpi)
    stated = {282: x, 283: y, 296: Tag(SHORT, struct.pack("<H", 2))}
    if not exif:
        return exif_block(stated)
    return exif if 282 in exif_tags(exif) else _with_entries(exif, stated)


def _with_entries(exif: bytes, tags: Directory) -> bytes:
    """The block with more entries: all go into a new first directory at its end."""
    order, _ = tiff_order(exif)
    start = struct.unpack(order + "I", exif[4:8])[0]
    count = struct.unpack_from(order + "H", exif, start)[0]
    old = [exif[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    old = [entry for entry in old if struct.unpack(order + "H", entry[:2])[0] not in tags]
    at = len(exif) + len(exif) % 2
    behind = at + 6 + 12 * (len(old) + len(tags))
    new, values = [], b""
    for code, tag in tags.items():
        if tag.kind == SHORT:
            number = int.from_bytes(tag.value, "little")
            new.append(struct.pack(order + "HHIHH", code, SHORT, 1, number, 0))
            continue
        new.append(struct.pack(order + "HHII", code, tag.kind, 1, behind + len(values)))
        values += struct.pack(order + "II", *struct.unpack("<II", tag.value))
    entries = sorted((*old, *new), key=lambda entry: struct.unpack(order + "H", entry[:2])[0])
    packed = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4) + values
    head = exif[:4] + struct.pack(order + "I", at)
    return head + exif[8:] + bytes(at - len(exif)) + packed


def valid_orientation(number: int) -> int:
    """An orientation as the standard numbers them; 1 (upright) for any other number."""
    return number if 1 <= number <= 8 else 1
