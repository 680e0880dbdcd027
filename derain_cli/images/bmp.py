"""BMP: the colour profile that its newest header can hold. Pillow does not read it."""

import struct

from derain_cli.images.sources import Notices, SourceFile

_HEADER_OF_FILE = 14
_NEWEST = 124  # bytes of the header of version 5
_MOST_BYTES = 1 << 26


def bmp_profile(file: SourceFile, notices: Notices) -> bytes | None:
    """The embedded profile; None without one."""
    head = file.head(_HEADER_OF_FILE + _NEWEST)
    if len(head) < _HEADER_OF_FILE + _NEWEST or struct.unpack_from("<I", head, 14)[0] < _NEWEST:
        return None
    kind = head[70:74][::-1]
    if kind == b"LINK":
        notices.append("names a colour profile in another file, which is dropped")
    if kind != b"MBED":
        return None
    at, length = struct.unpack_from("<II", head, _HEADER_OF_FILE + 112)
    file.stream.seek(_HEADER_OF_FILE + at)
    profile = file.stream.read(min(length, _MOST_BYTES))
    if len(profile) == length and profile[36:40] == b"acsp":
        return profile
    notices.damage("its colour profile is damaged and was dropped")
    return None
