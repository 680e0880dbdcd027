"""GIF: the XMP packet and the colour profile that it may hold. Pillow does not read them."""

_EXTENSION = b"\x21\xff\x0b"
_XMP, _ICC = _EXTENSION + b"XMP DataXMP", _EXTENSION + b"ICCRGBG1012"
_BEHIND_XMP = b"\x01\xff\xfe"  # numbers that lead any reader of blocks to the end of the packet


def gif_xmp(data: bytes) -> bytes | None:
    """The packet; None without one."""
    start = data.find(_XMP) + len(_XMP)
    end = data.find(_BEHIND_XMP, start)
    return data[start:end] if start >= len(_XMP) and end > start else None


def gif_profile(data: bytes) -> bytes | None:
    """The profile; None without one."""
    start = data.find(_ICC)
    return _blocks(data, start + len(_ICC)) or None if start >= 0 else None


def _blocks(data: bytes, at: int) -> bytes:
    """Content of the blocks at a place, each behind its length, up to one of length 0."""
    parts = []
    while at < len(data) and data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)
