"""PNG: its chunks, and pixels of 16 bits.

Pillow reads and writes 8 bits; it makes 8 bits of 16-bit colours, silently.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from derain_cli.images.opencv import decode_with_opencv
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pixels import Canvas, bands, pillow_image, samples_of, saved_with_pillow
from derain_cli.images.sources import SourceFile

_COLOUR_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB")
_TEXT_CHUNKS = (b"iTXt", b"tEXt", b"zTXt")


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of each chunk, checked.

    Raises:
        ValueError: A chunk is damaged, or the file ends before its end mark.
    """
    stream.seek(8)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", stream.read(8))
        data = stream.read(length)
        if stream.read(4) != zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big"):
            raise ValueError(f"PNG chunk {kind!r} is truncated or damaged")
        yield kind, data


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", checksum)


def kept_png_chunks(stream: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    """Chunks that say how colours are meant and that hold text; XMP and profiles go elsewhere."""
    kept = []
    stream.seek(8)
    while len(start := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind not in _COLOUR_CHUNKS + _TEXT_CHUNKS or length > 1 << 20:
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        data = stream.read(length)
        stream.seek(4, os.SEEK_CUR)
        if kind in _COLOUR_CHUNKS or not data.startswith((b"XML:com.adobe.xmp", b"Raw profile ")):
            kept.append((kind, data))
    return tuple(kept)


def decode_png_of_16_bits(file: SourceFile, orientation: int) -> Canvas:
    """Pixels of a 16-bit PNG.

    OpenCV sees nothing but size and pixels: it would print libpng's complaints about other chunks,
    and turn some transparent colours into alpha but not others.
    """
    pixels, transparent = bytearray(b"\x89PNG\r\n\x1a\n"), b""
    header = b""
    for kind, data in _png_chunks(file.stream):
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            pixels += _png_chunk(kind, data)
        header = data if kind == b"IHDR" else header
        transparent = data if kind == b"tRNS" else transparent
    colours, alpha = {0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True)}[header[9]]
    samples = decode_with_opencv(pixels)
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
    if metadata.xmp:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp
    yield from ((k, data) for k, data in kept if k in _TEXT_CHUNKS)


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
