"""IPTC-IIM records (captions, keywords) in the forms in which files store them."""

import struct
from collections.abc import Iterator

_RECORDS = 0x0404
_NAMED = {0x040A: "copyright mark", 0x040B: "URL"}
_MARK = 0x1C  # begins every record


def iptc_of_resources(resources: bytes) -> bytes | None:
    """The records among Photoshop's resources; None without any."""
    return next((data for number, data in _resources(resources) if number == _RECORDS), None)


def lost_resources(resources: bytes) -> list[str]:
    """A notice for the resources that say something of the image and are not written."""
    found = {_NAMED.get(number, "") for number, _ in _resources(resources)}
    found |= {"clipping paths" for number, _ in _resources(resources) if 2000 <= number < 2999}
    names = ", ".join(sorted(found - {""}))
    return [f"its Photoshop resources ({names}) are dropped"] if names else []


def _resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each resource; a damaged one ends them."""
    at = 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        name = block[at + 6] + 1
        at += 6 + name + name % 2
        length = int.from_bytes(block[at : at + 4], "big")
        data = block[at + 4 : at + 4 + length]
        if len(data) < length:
            return
        yield number, data
        at += 4 + length + length % 2


def iptc_resource(records: bytes) -> bytes:
    """The records as one of Photoshop's resources."""
    start = b"8BIM" + struct.pack(">HHI", _RECORDS, 0, len(records))
    return start + records + bytes(len(records) % 2)


def iptc_of_tag(value: bytes) -> bytes | None:
    r"""Records of a TIFF tag; None where they are none.

    Some programs declare them as 32-bit numbers, so that the byte order of the file swaps them.

    Example:
        >>> iptc_of_tag(b"\x78\x02\x1c\x00"), iptc_of_tag(b"\x00\x78\x02\x1c")
        (None, b'\x1c\x02x\x00')
    """
    swapped = b"".join(value[at : at + 4][::-1] for at in range(0, len(value), 4))
    return next((form for form in (value, swapped) if form[:1] == bytes([_MARK])), None)
