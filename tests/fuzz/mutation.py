"""Seeded damage: what disks, networks, programs and people with a purpose do to files."""

import random
import struct
import zlib
from collections.abc import Callable

_ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutated(data: bytes, seed: int) -> bytes:
    """The file with one to four changes that a seed decides."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_MUTATIONS)(data, chance) if data else b"\0"
    return data


def _flip_bits(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 8, 64))):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _put_odd_number(data: bytes, chance: random.Random) -> bytes:
    """Lengths and counts are where programs believe files too much."""
    at, order = _place(data, chance), chance.choice("<>")
    number = struct.pack(order + "I", chance.choice(_ODD_NUMBERS))
    return data[:at] + number[: chance.choice((1, 2, 4))] + data[at + 4 :]


def _zero_block(data: bytes, chance: random.Random) -> bytes:
    at, length = _place(data, chance), chance.choice((4, 64, 512))
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def _cut_end(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _cut_middle(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 4, 100, 1000)) :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    piece = data[at : at + chance.choice((1, 12, 200))]
    return data[:at] + piece * chance.choice((2, 50)) + data[at:]


def _insert_noise(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.randbytes(chance.choice((1, 16, 300))) + data[at:]


def _mend_png_sums(data: bytes, chance: random.Random) -> bytes:
    """Other bytes in a PNG chunk whose checksum is right: a program's fault, not a disk's."""
    if not data.startswith(b"\x89PNG"):
        return _flip_bits(data, chance)
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = bytearray(data[at + 4 : at + 8 + length])
        if len(body) > 4 and chance.random() < 0.3:
            body[chance.randrange(4, len(body))] ^= 1 << chance.randrange(8)
        parts.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts)


def _place(data: bytes, chance: random.Random) -> int:
    """A place in the file; the beginning, where headers are, more often."""
    return chance.randrange(min(len(data), chance.choice((64, 600, len(data)))))


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip_bits,
    _put_odd_number,
    _put_odd_number,
    _zero_block,
    _cut_end,
    _cut_middle,
    _repeat,
    _insert_noise,
    _mend_png_sums,
)
