"""Directories of TIFF files and of EXIF blocks: read, packed, looked up."""

import os
import struct
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np


class Tag(NamedTuple):
    """One entry of a TIFF directory: type, little-endian value, or the directory it names."""

    kind: int
    value: bytes
    directory: dict[int, "Tag"] | None = None


Directory = dict[int, Tag]
_UNIT_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}
_UNIT_SIZES |= {16: 8, 17: 8, 18: 8}
_ITEM_SIZES = _UNIT_SIZES | {5: 8, 10: 8}  # a rational is two numbers
SHORT, LONG, RATIONAL, UNDEFINED = 3, 4, 5, 7
EXIF_TAG, GPS_TAG, _INTEROP_TAG = 0x8769, 0x8825, 0xA005
ORIENTATION, IPTC, XMP, ICC = 274, 33723, 700, 34675


def tiff_order(head: bytes) -> tuple[str, bool]:
    """Byte order for `struct`, and whether offsets have 8 bytes (BigTIFF)."""
    order = {b"II": "<", b"MM": ">"}[head[:2]]
    return order, struct.unpack(order + "H", head[2:4])[0] == 43


def read_directory(
    stream: BinaryIO, order: str, at: int, *, big: bool = False, depth: int = 0
) -> tuple[Directory, int]:
    """Entries of the directory at a position, and the position of the next one (0: none).

    Entries that point outside the file are left out.
    """
    stream.seek(at)
    count_code, entry_size, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    count = unpack(stream, order + count_code)
    block = stream.read(count * entry_size) if count < 4096 else b""
    if len(block) < count * entry_size:
        raise ValueError("a TIFF directory is cut short")
    following = unpack(stream, order + ("Q" if big else "I"))
    size = stream.seek(0, os.SEEK_END)
    tags: Directory = {}
    for start in range(0, len(block), entry_size):
        code, kind, items = struct.unpack_from(order + ("HHQ" if big else "HHI"), block, start)
        length = _ITEM_SIZES.get(kind, 0) * items
        value = block[start + entry_size - inline : start + entry_size]
        if length > inline:
            stream.seek(struct.unpack(order + ("Q" if big else "I"), value)[0])
            value = stream.read(length) if length <= size else b""
        if length and len(value) >= length:
            tags[code] = _tag(stream, order, code, kind, value[:length], big=big, depth=depth)
    return tags, following


def unpack(stream: BinaryIO, code: str) -> int:
    """The number at the place of the stream, by its `struct` code."""
    value: int = struct.unpack(code, stream.read(struct.calcsize(code)))[0]
    return value


def _tag(
    stream: BinaryIO, order: str, code: int, kind: int, value: bytes, *, big: bool, depth: int
) -> Tag:
    unit = _UNIT_SIZES[kind]
    if order == ">" and unit > 1:
        value = np.frombuffer(value, f">u{unit}").astype(f"<u{unit}").tobytes()
    if code not in (EXIF_TAG, GPS_TAG, _INTEROP_TAG) or depth > 1:
        return Tag(kind, value)
    at = int.from_bytes(value[: _ITEM_SIZES[kind]], "little")
    try:
        directory, _ = read_directory(stream, order, at, big=big, depth=depth + 1)
    except (ValueError, struct.error):
        directory = {}
    return Tag(LONG, b"", directory)


def pack_directory(tags: Directory, at: int) -> bytes:
    """A little-endian directory for a position, with its values and directories behind it."""
    behind = at + 2 + 12 * len(tags) + 4
    entries, values = [], bytearray()
    for code, tag in sorted(tags.items()):
        kind, value, items = tag.kind, tag.value, len(tag.value) // _ITEM_SIZES[tag.kind]
        place = struct.pack("<I", behind + len(values))
        if tag.directory is not None:
            kind, items = LONG, 1
            values += pack_directory(tag.directory, behind + len(values))
        elif len(value) > 4:
            values += value
        else:
            place = value.ljust(4, b"\0")
        values += bytes(len(values) % 2)
        entries.append(struct.pack("<HHI", code, kind, items) + place)
    return struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + bytes(values)


def whole_numbers(tags: Directory, code: int, default: Sequence[int] = ()) -> tuple[int, ...]:
    """Value of a whole-number entry."""
    tag = tags.get(code)
    if tag is None or tag.kind not in (1, SHORT, LONG, 13, 16):
        return tuple(default)
    return tuple(np.frombuffer(tag.value, f"<u{_UNIT_SIZES[tag.kind]}").tolist())


def whole_number(tags: Directory, code: int, default: int) -> int:
    """First value of a whole-number entry."""
    return (*whole_numbers(tags, code), default)[0]


def dpi_of(tags: Directory) -> tuple[float, float] | None:
    """Resolution in dots per inch from the entries 282, 283 and 296, or None."""
    per_inch = {2: 1.0, 3: 2.54}.get(whole_number(tags, 296, 2))
    sides = [tags[code].value for code in (282, 283) if code in tags and len(tags[code].value) == 8]
    if per_inch is None or len(sides) < 2:
        return None
    (x, x_unit), (y, y_unit) = (struct.unpack("<II", side) for side in sides)
    if not (x and y and x_unit and y_unit):
        return None
    return per_inch * x / x_unit, per_inch * y / y_unit
