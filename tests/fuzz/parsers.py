"""Parsers of our own, each as a function of the bytes that a stranger's file hands it."""

import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from derain_cli.errors import DerainError
from derain_cli.images import exif, iptc, jpeg_segments, png, statements, tiff_tags, xmp
from derain_cli.images.bmp import bmp_profile
from derain_cli.images.picture import Metadata
from derain_cli.images.sources import Notices, SourceFile
from derain_cli.images.tiff import _check_chunks, _pages, _tiff_layout, _tiff_metadata
from tests.fuzz.specimens import SRGB, XMP, image_files

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = (b"IDAT", b"PLTE", b"tRNS", b"IEND", *sorted(png._SIDE_CHUNKS))


def png_chunks(data: bytes) -> None:
    """Side chunks with right checksums, then pixels; both are written again."""
    chunks, at = [(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0))], 0
    while at + 2 <= len(data):
        kind, length = _KINDS[data[at] % len(_KINDS)], data[at + 1]
        chunks.append((kind, data[at + 2 : at + 2 + length]))
        at += 2 + length
    _look_at_png(
        _SIGNATURE
        + b"".join(
            struct.pack(">I4s", len(part), kind) + part + struct.pack(">I", zlib.crc32(kind + part))
            for kind, part in chunks
        )
    )


def png_file(data: bytes) -> None:
    """A PNG byte by byte."""
    _look_at_png(_SIGNATURE + data)


def _look_at_png(data: bytes) -> None:
    stream, notices = io.BytesIO(data), Notices()
    try:
        chunks = png.read_png_chunks(stream, notices)
    except ValueError:
        return
    metadata = png.png_metadata(chunks, notices)
    upright, orientation = statements.upright_metadata(metadata, chunks.size, notices)
    assert 1 <= orientation <= 8
    list(png._written_png_chunks(upright))
    if chunks.size[0] * chunks.size[1] < 10_000:
        try:
            clean = png.pixels_alone(stream, chunks, notices)
        except (ValueError, zlib.error):
            return
        assert clean.startswith(_SIGNATURE)


def tiff(data: bytes) -> None:
    """Directories, layout and metadata of a TIFF, without its pixels."""
    file = SourceFile(io.BytesIO(data), "x", ".tif")
    try:
        order, big = tiff_tags.tiff_order(data[:4])
        file.stream.seek(8 if big else 4)
        at = tiff_tags.unpack(file.stream, order + ("Q" if big else "I"))
        _pages(file.stream, order, at, big=big)
        tags, _ = tiff_tags.read_directory(file.stream, order, at, big=big)
        layout = _tiff_layout(tags, "x")
        _check_chunks(file, tags, layout)
    except (DerainError, ValueError, KeyError, struct.error, OverflowError, ZeroDivisionError):
        return
    metadata, orientation = _tiff_metadata(tags, layout.size, Notices())
    assert 1 <= orientation <= 8
    if metadata.exif:
        assert tiff_tags.ORIENTATION not in exif.exif_tags(metadata.exif)


def exif_block(data: bytes) -> None:
    """EXIF made upright, and joined with a resolution."""
    stated = Metadata(exif=data, dpi=(300.0, 200.0))
    upright, _ = statements.upright_metadata(stated, (3, 4), Notices())
    if upright.exif:
        assert tiff_tags.ORIENTATION not in exif.exif_tags(upright.exif)
        joined = exif.exif_with_resolution(upright)
        assert joined
        exif.exif_tags(joined)


def xmp_packet(data: bytes) -> None:
    """Claims taken out, extensions split off and joined."""
    notices = Notices()
    kept = statements.true_xmp(data, notices) or b""
    assert len(kept) <= len(data)
    rest, guid = xmp.without_extension(kept)
    assert len(guid) in (0, 32)
    xmp.whole_xmp(rest, kept)
    xmp.whole_xmp(kept, rest)


def jpeg(data: bytes) -> None:
    """Segments of a JPEG, and where it ends."""
    data = b"\xff\xd8" + data
    parts = jpeg_segments.jpeg_parts(io.BytesIO(data))
    statements.jpeg_statements(parts, Notices())
    jpeg_segments.bytes_behind_image(data)
    jpeg_segments.zeros_in_scans(data)
    assert isinstance(parts.kind, str)


def other(data: bytes) -> None:
    """IPTC records, a BMP's profile, AVIF's colours."""
    iptc.iptc_of_resources(data)
    iptc.iptc_of_tag(data)
    statements.cicp_chunk(data)
    bmp_profile(SourceFile(io.BytesIO(data), "x", ".bmp"), Notices())


def safetensors(data: bytes) -> None:
    """What a checkpoint says of itself, and the network that it describes."""
    from derain_cli.checkpoints.files import build_described, read_metadata
    from derain_cli.training.provenance import training_facts

    path = Path(tempfile.gettempdir()) / f"covered-{__name__}.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data)
    try:
        metadata = read_metadata(path)
        training_facts(path)
        build_described(path, metadata)
    except DerainError as error:
        assert len(str(error).splitlines()) == 1, str(error)  # noqa: PT017 (no test of pytest)


def starts(name: str) -> list[bytes]:
    """Inputs to begin with."""
    files = image_files()
    texts = b'{"__metadata__":{"format":"1","model":"resnet","model_config":"{\\"channels\\":2}"}}'
    return {
        "png_chunks": [b"\x05\x04\0\0\xb1\x8f", b"\x0a\x20Raw profile type exif\0\0x"],
        "png_file": [data[8:] for key, data in files.items() if key.endswith(".png")],
        "tiff": [data for key, data in files.items() if key.endswith(".tiff")],
        "exif_block": [files["fax.tiff"]],
        "xmp_packet": [XMP],
        "jpeg": [data[2:] for key, data in files.items() if key.endswith(".jpeg")],
        "other": [SRGB, b"8BIM\4\4\0\0\0\0\0\4\x1c\2x\0"],
        "safetensors": [texts],
    }[name]


PARSERS: dict[str, Callable[[bytes], None]] = {
    parser.__name__: parser
    for parser in (
        png_chunks,
        png_file,
        tiff,
        exif_block,
        xmp_packet,
        jpeg,
        other,
        safetensors,
    )
}
