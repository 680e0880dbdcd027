"""A short run of the harness, and parsers of our own under Hypothesis."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_cli.images import exif, iptc, jpeg_segments, png, tiff_tags, xmp
from derain_cli.images.sources import Notices
from tests.fuzz.parsers import PARSERS, starts

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the workers are forked")
def test_two_hundred_mutated_files() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--files", "200", "--seconds", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("200 files in")


@pytest.mark.parametrize("name", PARSERS)
def test_what_guided_fuzzing_begins_with(name: str) -> None:
    for start in starts(name):
        PARSERS[name](start)
        PARSERS[name](start[: len(start) // 2])


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([b"gAMA", b"cHRM", b"iCCP", b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"pHYs"]),
        st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=60).map(lambda data: b"XML:com.adobe.xmp\0\1\0\0\0" + data),
            st.binary(max_size=60).map(lambda data: b"Raw profile type exif\0\0" + data),
            st.binary(max_size=60).map(lambda data: b"x\0\0" + zlib.compress(data)),
        ),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=150)
@given(CHUNKS)
def test_any_side_chunks_of_a_png(chunks: list[tuple[bytes, bytes]]) -> None:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), *chunks, (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(part), kind) + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts
    )
    found = png.read_png_chunks(io.BytesIO(data), Notices())
    metadata = png.png_metadata(found, Notices())
    assert list(png._written_png_chunks(metadata)) is not None


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_any_exif_block(data: bytes) -> None:
    for block in (b"II*\0\x08\0\0\0" + data, b"MM\0*\0\0\0\x08" + data):
        try:
            exif.exif_tags(block)
        except (ValueError, KeyError, struct.error):
            continue
        upright = exif.upright_exif(block, (3, 4))
        if upright:
            assert tiff_tags.ORIENTATION not in exif.exif_tags(upright)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=300))
def test_any_jpeg_segments(data: bytes) -> None:
    parts = jpeg_segments.jpeg_parts(io.BytesIO(b"\xff\xd8" + data))
    assert parts.precision >= 0
    jpeg_segments.bytes_behind_image(b"\xff\xd8" + data)
    jpeg_segments.zeros_in_scans(b"\xff\xd8" + data + bytes(100) + data)
    iptc.iptc_of_resources(data)


PIECES = st.sampled_from(
    [
        b'<x:xmpmeta xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/">',
        b'<rdf:Description hdrgm:Version="1" ',
        b"<hdrgm:GainMapMax>",
        b"</hdrgm:GainMapMax>",
        b"<hdrgm:a/>",
        b"<rdf:RDF>",
        b"</rdf:RDF>",
        b'"',
        b"'",
        b">",
        b" hdrgm:b='",
    ]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PIECES, max_size=12))
def test_any_xmp_packet(pieces: list[bytes]) -> None:
    packet = b"".join(pieces)
    kept, _ = xmp.without_stale_claims(packet)
    assert len(kept) <= len(packet)
    joined, guid = xmp.with_extension(packet, b"x")
    assert xmp.without_extension(joined)[1] == guid or not xmp.is_packet(packet)


@pytest.mark.parametrize(
    "repeated", [b"<hdrgm:a>", b"<hdrgm:a ", b' hdrgm:a="', b"<rdf:RDF>", b"<hdrgm:%d>"]
)
def test_hostile_xmp_takes_no_more_than_linear_time(repeated: bytes) -> None:
    start = b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/">'
    numbers = range(100_000) if b"%d" in repeated else ()
    body = b"".join(repeated % number for number in numbers) or repeated * 100_000
    xmp.without_stale_claims(start + body)
    xmp.whole_xmp(start + body, start + body)
