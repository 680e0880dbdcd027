"""PNG: its chunks, their metadata, pixels of 16 bits, and writing it.

Pillow and OpenCV see the chunks that hold pixels and nothing else: both refuse files for chunks
that do not matter, and neither notices rows that are missing. Pillow reads and writes 8 bits; it
makes 8 bits of 16-bit colours, silently.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import BinaryIO

import numpy as np

from derain_cli.images.exif import without_mark
from derain_cli.images.iptc import iptc_of_resources
from derain_cli.images.opencv import decode_with_opencv
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pixels import Canvas, bands, pillow_image, samples_of, saved_with_pillow
from derain_cli.images.sources import Notices
from derain_cli.images.statements import CREDENTIALS
from derain_cli.images.xmp import whole_xmp

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_CHUNKS = {b"cHRM": 32, b"cICP": 4, b"gAMA": 4, b"sRGB": 1, b"mDCV": 24, b"cLLI": 8}
TEXT_CHUNKS = (b"iTXt", b"tEXt", b"zTXt")
_SIDE_CHUNKS = {*_COLOUR_CHUNKS, *TEXT_CHUNKS, b"iCCP", b"eXIf", b"pHYs", b"acTL", b"caBX"}
# Of no meaning beside other pixels, or of the other images of an animation.
_NOT_NAMED = (b"bKGD", b"hIST", b"sPLT", b"sBIT", b"tIME", b"iDOT", b"vpAg", b"fcTL", b"fdAT")
_PIXEL_CHUNKS = (b"PLTE", b"tRNS")
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_MOST_IN_CHUNK = 1 << 26  # of chunks beside the pixels, as stored and as decompressed
_SRGB_POINTS = np.array([31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000], ">u4")
_MOST_COLUMNS = 1_000_000  # of libpng, which prints its refusal
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_FIRST_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_ADAM7 = (*_FIRST_PASSES, (0, 1, 1, 2))  # first column and row, steps to the next ones


@dataclass
class PngChunks:
    """A PNG's chunks: the header, those that belong to the pixels, and all others that are read."""

    header: bytes
    pixels: list[tuple[bytes, bytes]] = field(default_factory=list)
    side: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return struct.unpack(">II", self.header[:8])

    @property
    def depth(self) -> int:
        """Bits per channel as stored."""
        return self.header[8]

    @property
    def colour_type(self) -> int:
        """0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGB with alpha."""
        return self.header[9]

    @property
    def transparent(self) -> bool:
        """Whether the image has an alpha channel or a transparent colour."""
        return self.colour_type in (4, 6) or any(kind == b"tRNS" for kind, _ in self.pixels)

    @property
    def frames(self) -> int:
        """Images of an animation, 1 if it is none."""
        animation = next((data for kind, data in self.side if kind == b"acTL"), b"")
        return max(1, int.from_bytes(animation[:4], "big"))

    def passes(self) -> list[tuple[int, int]]:
        """Rows and the length of one, its filter included, for each pass."""
        width, height = self.size
        bits = _CHANNELS[self.colour_type] * self.depth
        steps = _ADAM7 if self.header[12] else ((0, 0, 1, 1),)
        sizes = [
            (-(-(width - left) // right), -(-(height - top) // down))
            for left, top, right, down in steps
        ]
        return [
            (rows, 1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns and rows
        ]


def read_png_chunks(stream: BinaryIO, notices: Notices) -> PngChunks:
    """All chunks but those with pixels, which are skipped.

    Raises:
        ValueError: The header is damaged.
    """
    chunks: PngChunks | None = None
    others: dict[str, None] = {}
    for kind, length in _walk(stream):
        if chunks is None:
            chunks = PngChunks(_header(stream, kind, length))
        elif kind in _PIXEL_CHUNKS or kind in _SIDE_CHUNKS:
            if length > _MOST_IN_CHUNK:
                name = kind.decode("ascii")
                notices.append(f"its {name} chunk of {length:,} bytes is dropped: too large")
                continue
            data, whole = _checked(stream, kind, length)
            if kind in _PIXEL_CHUNKS:
                chunks.pixels.append((kind, data))
                if not whole:
                    notices.damage(f"its {kind.decode('ascii')} chunk has a wrong checksum")
            elif whole and len(data) == _COLOUR_CHUNKS.get(kind, len(data)):
                chunks.side.append((kind, data))
            else:
                notices.damage(f"its {kind.decode('ascii')} chunk is damaged and was dropped")
        elif kind.isalpha() and kind[:1].islower() and kind not in _NOT_NAMED:
            others[kind.decode("ascii")] = None
    if chunks is None:
        raise ValueError("its PNG header is missing")
    if others:
        notices.append(f"its {', '.join(others)} data are dropped")
    return chunks


def _walk(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk, the stream being at its data; ends where the file does."""
    size = stream.seek(0, os.SEEK_END)
    at = 8
    kind = b""
    while kind != b"IEND":
        stream.seek(at)
        start = stream.read(8)
        if len(start) < 8:
            return
        length, kind = struct.unpack(">I4s", start)
        yield kind, min(length, max(0, size - at - 8))
        at += 12 + length


def _checked(stream: BinaryIO, kind: bytes, length: int) -> tuple[bytes, bool]:
    """Data of a chunk, and whether they fit its checksum."""
    data = stream.read(length)
    return data, stream.read(4) == zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def _header(stream: BinaryIO, kind: bytes, length: int) -> bytes:
    data, whole = _checked(stream, kind, length)
    if kind != b"IHDR" or len(data) != 13 or not whole:
        raise ValueError("its PNG header is damaged")
    if data[9] not in _CHANNELS or data[8] not in (1, 2, 4, 8, 16) or data[12] > 1:
        raise ValueError(f"its PNG header names the unknown colour type {data[9]}")
    if data[10:12] != b"\0\0":
        raise ValueError("its PNG header names an unknown compression or filter method")
    return data


def pixels_alone(stream: BinaryIO, chunks: PngChunks, notices: Notices) -> bytearray:
    """A PNG of the same pixels without any other chunk, in which all checksums are right.

    Decoders print complaints, or refuse the pixels, for what is wrong beside them. One of 16 bits
    has no transparent colour either: OpenCV would turn some into alpha but not others.

    Raises:
        ValueError: Rows are missing, or are of no kind that PNG knows.
        zlib.error: The compressed data are damaged.
    """
    clean = bytearray(_SIGNATURE + _png_chunk(b"IHDR", chunks.header))
    for kind, data in chunks.pixels if chunks.depth < 16 else ():
        clean += _png_chunk(kind, data)
    begin, rows, wrong, kind = len(clean), _Rows(chunks.passes()), False, b""
    for kind, length in _walk(stream):
        if kind == b"IDAT":
            data, whole = _checked(stream, kind, length)
            rows.feed(data)
            clean += _png_chunk(kind, data)
            wrong |= not whole
    if rows.missing:
        raise ValueError(f"{rows.missing:,} of {rows.expected:,} bytes of its rows are missing")
    if wrong or not rows.sum_is_right:
        notices.damage("may be damaged: the checksum of its pixels is wrong")
    elif kind != b"IEND":
        notices.damage("is damaged behind its pixels: the end mark is missing")
    if not rows.plain:
        del clean[begin:]
        clean += _png_chunk(b"IDAT", _compressed_again(stream, rows.expected))
    return clean + _png_chunk(b"IEND", b"")


class _Rows:
    """Decompresses rows to see whether all are there and whether decoders will be content.

    Args:
        passes: Rows and the length of one for each pass; one pass unless it is interlaced.
    """

    def __init__(self, passes: Sequence[tuple[int, int]]) -> None:
        ends = list(accumulate(rows * length for rows, length in passes))
        self.expected = self.missing = ends[-1]
        self._starts = [
            range(end - rows * length, end, length)
            for end, (rows, length) in zip(ends, passes, strict=True)
        ]
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._header = self._behind = b""
        self._sum = zlib.adler32(b"")
        self._surplus = False

    def feed(self, data: bytes) -> None:
        """The next compressed bytes.

        Raises:
            ValueError: A row begins with a filter that PNG does not know.
        """
        missing = 2 - len(self._header)
        self._header, data = self._header + data[:missing], data[missing:]
        if self._inflate.eof:
            self._behind += data
            return
        while data and not self._inflate.eof and not self._surplus:
            rows = self._inflate.decompress(data, min(max(self.missing, 1), 1 << 20))
            self._surplus = len(rows) > self.missing
            if not self._surplus:
                self._check_filters(rows)
                self._sum = zlib.adler32(rows, self._sum)
                self.missing -= len(rows)
            data = self._inflate.unconsumed_tail
        self._behind += self._inflate.unused_data

    def _check_filters(self, rows: bytes) -> None:
        begin = self.expected - self.missing
        values = np.frombuffer(rows, np.uint8)
        for starts in self._starts:
            first = starts.start + -(-max(0, begin - starts.start) // starts.step) * starts.step
            end = min(starts.stop, begin + len(rows))
            if first < end and values[first - begin : end - begin : starts.step].max() > 4:
                raise ValueError("a row begins with an unknown filter")

    @property
    def sum_is_right(self) -> bool:
        """Whether the checksum behind the rows is theirs."""
        return self._behind[:4] == self._sum.to_bytes(4, "big")

    @property
    def plain(self) -> bool:
        """Whether the data are what any decoder reads without a word."""
        header = int.from_bytes(self._header, "big")
        known = header >> 8 & 0x8F == 8 and not header % 31 and not header & 32
        return known and self.sum_is_right and len(self._behind) == 4


def _compressed_again(stream: BinaryIO, length: int) -> bytes:
    """The rows, compressed as they should be."""
    inflate, deflate = zlib.decompressobj(-zlib.MAX_WBITS), zlib.compressobj(1)
    parts, header = [], 2
    for kind, size in _walk(stream):
        if kind == b"IDAT" and length:
            data = stream.read(size)
            data, header = data[header:], max(0, header - len(data))
            while data and length and not inflate.eof:
                rows = inflate.decompress(data, min(length, 1 << 20))
                parts.append(deflate.compress(rows))
                length -= len(rows)
                data = inflate.unconsumed_tail
    return b"".join((*parts, deflate.flush()))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)


def png_metadata(chunks: PngChunks, notices: Notices) -> Metadata:
    """What the chunks say, as they say it."""
    side = chunks.side
    first = dict(reversed(side))
    texts = [(kind, data) for kind, data in side if kind in TEXT_CHUNKS]
    profiles = dict(_raw_profiles(texts))
    xmp = next((data for data in map(_xmp_of, texts) if data is not None), None)
    if xmp == b"":
        notices.damage("its XMP is damaged or too large and was dropped")
    if b"caBX" in first:
        notices.append(CREDENTIALS)
    shape = first.get(b"pHYs", b"")
    if len(shape) == 9 and not shape[8] and shape[:4] != shape[4:8]:
        notices.append("its pixels are not square, which is no longer said")
    kept = [(k, data) for k, data in side if k in _COLOUR_CHUNKS]
    kept += [(k, data) for k, data in texts if not data.startswith((_XMP_KEYWORD, b"Raw profile "))]
    iptc = profiles.get("iptc") or profiles.get("8bim")
    return Metadata(
        exif=first.get(b"eXIf") or profiles.get("exif") or _exif_of_app1(profiles.get("app1")),
        icc=_icc_of(first.get(b"iCCP"), notices) or profiles.get("icc") or profiles.get("icm"),
        xmp=xmp or profiles.get("xmp") or None,
        dpi=_dpi_of(first.get(b"pHYs", b"")),
        iptc=(iptc_of_resources(iptc) or iptc) if iptc else None,
        png_chunks=tuple(kept),
    )


def means_srgb(chunks: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the colour chunks say what pixels mean without them.

    Example:
        >>> means_srgb([(b"gAMA", (45455).to_bytes(4, "big"))])
        True
    """
    stated = dict(chunks)
    if b"sRGB" in stated:
        return True
    gamma = int.from_bytes(stated.get(b"gAMA", b"\0\0\xb1\x8f"), "big")
    points = np.frombuffer(stated.get(b"cHRM", _SRGB_POINTS.tobytes()), ">u4").astype(np.int64)
    return abs(gamma - 45455) < 600 and bool(np.all(np.abs(points - _SRGB_POINTS) < 200))


def _inflated(data: bytes) -> bytes:
    """Decompressed data; b"" where they are damaged or longer than a chunk may be."""
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(data, _MOST_IN_CHUNK)
    except zlib.error:
        return b""
    return content if inflate.eof else b""


def _icc_of(chunk: bytes | None, notices: Notices) -> bytes | None:
    if chunk is None:
        return None
    _name, _, compressed = chunk.partition(b"\0")
    profile = _inflated(compressed[1:])
    if profile[36:40] == b"acsp":
        return profile
    notices.damage("its colour profile is damaged and was dropped")
    return None


def _dpi_of(chunk: bytes) -> tuple[float, float] | None:
    if len(chunk) != 9 or chunk[8] != 1:  # 1: per metre
        return None
    x, y = struct.unpack(">II", chunk[:8])
    return (x * 0.0254, y * 0.0254) if 0 < x < 1 << 26 and 0 < y < 1 << 26 else None


def _text_of(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a text chunk; b"" for a text that cannot be read."""
    keyword, _, text = data.partition(b"\0")
    if kind == b"zTXt":
        return keyword, _inflated(text[1:])
    if kind == b"iTXt":
        compressed, text = text[:1] == b"\1", text[2:]
        text = text.partition(b"\0")[2].partition(b"\0")[2]  # behind language and translation
        return keyword, _inflated(text) if compressed else text
    return keyword, text


def _xmp_of(chunk: tuple[bytes, bytes]) -> bytes | None:
    """The packet in a text chunk; None in others."""
    return _text_of(*chunk)[1] if chunk[1].startswith(_XMP_KEYWORD + b"\0") else None


def _raw_profiles(texts: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Blocks that ImageMagick stores as text: a name, a length and hexadecimal digits in lines."""
    for kind, data in texts:
        if data.startswith(b"Raw profile type "):
            keyword, text = _text_of(kind, data)
            with contextlib.suppress(ValueError):
                block = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
                yield keyword[17:].decode("latin-1").lower(), block


def _exif_of_app1(block: bytes | None) -> bytes | None:
    return block if block and without_mark(block)[:2] in (b"II", b"MM") else None


def decode_png_of_16_bits(png: bytearray, chunks: PngChunks, orientation: int) -> Canvas:
    """Pixels of a 16-bit PNG, which `pixels_alone` has stripped."""
    if max(chunks.size) > _MOST_COLUMNS:
        raise ValueError(f"more than {_MOST_COLUMNS:,} columns or rows of 16-bit PNG are not read")
    transparent = next((data for kind, data in chunks.pixels if kind == b"tRNS"), b"")
    colours, alpha = {0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True)}[chunks.colour_type]
    samples = decode_with_opencv(png)
    height, width = samples.shape[:2]
    key = np.frombuffer(transparent[: 2 * colours], ">u2") if transparent and not alpha else None
    canvas = Canvas((width, height), 16, alpha=alpha or key is not None, orientation=orientation)
    for top, bottom in bands(width, height):
        band = samples[top:bottom]
        rows = [band[..., :1] if colours == 1 else band[..., 2::-1]]
        if canvas.alpha is not None:
            opaque = band[..., 3:4] if key is None else _opacity(rows[0], key)
            rows.append(opaque)
        canvas.fill(top, np.concatenate(rows, axis=2))
    return canvas


def _opacity(samples: np.ndarray, transparent: np.ndarray) -> np.ndarray:
    """Alpha `(rows, width, 1)`: 0 where the colour is the transparent one, else 65535."""
    same: np.ndarray = np.all(samples == transparent, axis=2, keepdims=True)
    return np.where(same, 0, 65535).astype(np.uint16)


def encode_png(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A PNG of 8 or 16 bits with its metadata (no quality: it loses nothing)."""
    if picture.bit_depth == 16:
        data = _png_of_16_bits(samples_of(picture, alpha))
    else:
        data = saved_with_pillow(pillow_image(picture, alpha), "PNG")
    chunks = b"".join(_png_chunk(*chunk) for chunk in _written_png_chunks(picture.metadata))
    behind_header = 8 + 12 + 13
    return data[:behind_header] + chunks + data[behind_header:]


def _written_png_chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """Chunks that hold the metadata, in the order in which PNG wants them."""
    kept = metadata.png_chunks
    if metadata.icc:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)
    # One statement on colours is enough, and a profile says more than sRGB does.
    yield from (
        (k, data) for k, data in kept if k in _COLOUR_CHUNKS and not (metadata.icc and k == b"sRGB")
    )
    if metadata.dpi:
        x, y = (round(side / 0.0254) for side in metadata.dpi)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if metadata.exif:
        yield b"eXIf", metadata.exif
    if xmp := whole_xmp(metadata.xmp, metadata.extended_xmp):
        yield b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp
    yield from ((k, data) for k, data in kept if k in TEXT_CHUNKS)


def _png_of_16_bits(samples: np.ndarray) -> bytes:
    """A PNG of 1-4 channels `(height, width, channels)` uint16.

    Each byte is stored as its difference to the pixel on its left (filter 1). Run-length deflate is
    as small here as the full search, and as fast as OpenCV's encoder: low bytes are noise.
    """
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", _png_chunk(b"IHDR", header)]
    deflate = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    for top, bottom in bands(width, height):
        values = (
            samples[top:bottom].astype(">u2", order="C").reshape(bottom - top, -1).view(np.uint8)
        )
        rows = np.empty((bottom - top, 1 + values.shape[1]), np.uint8)
        rows[:, 0] = 1
        rows[:, 1:] = values
        rows[:, 1 + 2 * channels :] -= values[:, : -2 * channels]
        parts.append(_png_chunk(b"IDAT", deflate.compress(rows.data)))
    parts += [_png_chunk(b"IDAT", deflate.flush()), _png_chunk(b"IEND", b"")]
    return b"".join(parts)
