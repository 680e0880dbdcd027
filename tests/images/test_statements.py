"""What a file says of itself survives, or a notice names the loss; untrue claims go."""

import base64
import hashlib
import io
import os
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from derain_cli.errors import UnreadableImageError
from derain_cli.images import (
    Metadata,
    Picture,
    encode_image,
    probe_image,
    read_image,
    writing_notices,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PIXELS = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)


def packet(inside: str) -> bytes:
    """An XMP packet with properties of one description; `inside` begins within its start tag."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def saved(format: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, behind: bytes = b"", depth: int = 8) -> bytes:
    samples = PIXELS if depth == 8 else PIXELS.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 8, depth, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows)) + behind + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(*segments: bytes, behind: bytes = b"", **options: object) -> bytes:
    data = saved("JPEG", quality=95, **options)
    return data[:20] + b"".join(segments) + data[20:] + behind


def tiff(samples: np.ndarray = PIXELS, *tags: tuple[object, ...], **options: object) -> bytes:
    buffer = io.BytesIO()
    options = {"photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(buffer, samples, extratags=tags, **options)
    return buffer.getvalue()


def tiff_tags(data: bytes) -> dict[int, object]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}


# Claims that are no longer true

GAIN_MAP = packet(
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
    'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:dc="urn:dc" dc:title="Rain" '
    'hdrgm:Version="1.0"><hdrgm:GainMapMax><rdf:Seq/></hdrgm:GainMapMax><Container:Directory>'
    '<rdf:Seq><rdf:li><Container:Item Item:Semantic="GainMap" Item:Length="9"/></rdf:li></rdf:Seq>'
    "</Container:Directory>"
)
VIDEO = packet(
    'xmlns:C="http://ns.google.com/photos/1.0/camera/" C:MotionPhoto="1" '
    "C:MicroVideoOffset='4000' C:Other=\"stays\"><C:MotionPhotoVersion>1</C:MotionPhotoVersion>"
)


def test_a_gain_map_is_named_and_no_longer_claimed() -> None:
    picture = read_image(jpeg(xmp=GAIN_MAP, behind=saved("JPEG")))
    assert picture.notices == ("its HDR gain map is dropped",)
    written = encode_image(picture)
    assert b"hdrgm:" not in written.replace(b"xmlns:hdrgm", b"")
    assert b"Container:Directory" not in written
    assert b'dc:title="Rain"' in written


@pytest.mark.parametrize("format", ["png", "webp", "tiff"])
def test_claims_go_from_every_container(format: str) -> None:
    picture = read_image(encode_image(Picture(PIXELS, metadata=Metadata(xmp=VIDEO)), format))
    assert picture.notices == ("its video (motion photo) is dropped",)
    assert b"Motion" not in picture.metadata.xmp
    assert b"MicroVideo" not in picture.metadata.xmp
    assert b'C:Other="stays"' in picture.metadata.xmp


def test_a_motion_photo_loses_its_video_by_name() -> None:
    video = b"\0\0\0\x18ftypmp42" + os.urandom(4000)
    picture = read_image(jpeg(xmp=VIDEO, behind=video))
    assert picture.notices == ("its video (motion photo) is dropped",)
    assert b"ftypmp42" not in encode_image(picture)
    assert read_image(jpeg(behind=video)).notices == picture.notices  # without a claim


def test_other_data_behind_a_jpeg_are_named() -> None:
    assert read_image(jpeg(behind=b"a vendor's own")).notices == (
        "has 14 bytes behind its image, which are dropped",
    )
    assert read_image(jpeg(behind=bytes(100))).notices == ()  # padding


@pytest.mark.parametrize("element", [True, False])
def test_thumbnails_of_the_rainy_image_leave_the_xmp(*, element: bool) -> None:
    inside = 'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"'
    thumbnail = "<xmp:Thumbnails><rdf:Alt><rdf:li>/9j/4AAQ</rdf:li></rdf:Alt></xmp:Thumbnails>"
    xmp = packet(f"{inside}>{thumbnail}" if element else f'{inside} xmp:Thumbnails="/9j/4">')
    kept = read_image(jpeg(xmp=xmp)).metadata.xmp
    assert b"/9j/" not in kept
    assert b'xmp:Rating="5"' in kept


def test_the_exif_thumbnail_leaves_no_byte() -> None:
    thumbnail = saved("JPEG", PIXELS[:4])
    block = (
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHI", 271, 2, 4) + b"Cam\0" + struct.pack("<I", 26)
    )
    entries = struct.pack("<HHII", 513, 4, 1, 56) + struct.pack("<HHII", 514, 4, 1, len(thumbnail))
    block += struct.pack("<H", 2) + entries + bytes(4) + thumbnail
    exif = read_image(jpeg(exif=b"Exif\0\0" + block)).metadata.exif
    assert b"Cam" in exif
    assert b"\xff\xd8\xff" not in exif


def test_content_credentials_are_named() -> None:
    jumbf = b"JP\0\1\0\0\0\1" + struct.pack(">I4sI4s", 40, b"jumb", 32, b"jumd") + b"c2pa"
    assert "content credentials (C2PA)" in read_image(jpeg(segment(0xEB, jumbf))).notices[0]
    assert "content credentials (C2PA)" in read_image(png(chunk(b"caBX", b"x"))).notices[0]


# Extended XMP

DEPTH = packet(
    'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" '
    f'GDepth:Data="{base64.b64encode(os.urandom(90000)).decode()}">'
)


def extended(main: str, extension: bytes, length: int | None = None) -> bytes:
    guid = hashlib.md5(extension).hexdigest().upper()
    claim = f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{guid}"'
    first = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet(f"{claim} {main}>"))
    pieces = [
        segment(
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + guid.encode()
            + struct.pack(">II", len(extension), at)
            + extension[at : at + 60000],
        )
        for at in range(0, length or len(extension), 60000)
    ]
    return jpeg(first, *reversed(pieces))  # in any order


def test_extended_xmp_survives_in_jpeg_and_becomes_one_packet_elsewhere() -> None:
    picture = read_image(extended('xmlns:dc="urn:dc" dc:format="x"', DEPTH))
    assert picture.notices == ()
    assert picture.metadata.extended_xmp == DEPTH
    again = read_image(encode_image(picture))
    assert again.metadata.extended_xmp == DEPTH
    for format in ("png", "webp", "tiff", "avif"):
        whole = read_image(encode_image(picture, format)).metadata.xmp
        assert b'dc:format="x"' in whole
        assert b"GDepth:Data" in whole
        assert b"HasExtendedXMP" not in whole


def test_an_incomplete_extension_is_dropped_with_its_claim() -> None:
    picture = read_image(extended('xmlns:dc="urn:dc" dc:format="x"', DEPTH, 60000))
    assert picture.notices == ("its extended XMP is incomplete and was dropped",)
    assert b"HasExtendedXMP" not in encode_image(picture)
    assert b'dc:format="x"' in encode_image(picture)


def test_what_is_too_long_for_a_jpeg_goes_into_the_extension_or_is_named() -> None:
    history = packet(">" + "<!-- history -->" * 6000)
    picture = Picture(PIXELS, metadata=Metadata(xmp=history))
    assert writing_notices(picture, "jpeg") == ()
    assert read_image(encode_image(picture, "jpeg")).metadata.extended_xmp == history
    text = struct.pack("<HHII", 270, 2, 70_000, 26) + bytes(4) + b"d" * 70_000
    exif = b"II*\0\x08\0\0\0\1\0" + text
    long = Metadata(exif=exif, iptc=b"\x1c\x02x" + bytes(70_000), comment=bytes(70_000))
    picture = Picture(PIXELS, metadata=long)
    assert writing_notices(picture, "jpeg")[0] == (
        "COMMENT, EXIF, IPTC data are dropped: too long for a JPEG"
    )
    assert read_image(encode_image(picture, "jpeg")).metadata.exif is None


# Colours


CICP_HLG = (b"cICP", bytes([9, 18, 0, 1]))


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff", "bmp"])
@pytest.mark.parametrize(
    ("kept", "named"),
    [
        ((b"gAMA", struct.pack(">I", 100_000)), "colour (gAMA)"),
        ((b"cHRM", struct.pack(">8I", *range(1, 9))), "colour (cHRM)"),
        (CICP_HLG, "colour (BT.2020, HLG)"),
        ((b"tEXt", b"Author\0Me"), "PNG text"),
    ],
)
def test_a_png_chunk_that_does_not_fit_is_named(
    kept: tuple[bytes, bytes], named: str, format: str
) -> None:
    picture = Picture(PIXELS, metadata=Metadata(png_chunks=(kept,)))
    assert writing_notices(picture, format) == (
        f"{named} data are dropped: {format.upper()} cannot hold them",
    )


def test_chunks_that_say_srgb_are_no_loss() -> None:
    usual = (
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    )
    for chunks in (usual, usual[:1], usual[1:], ((b"sRGB", b"\0"),)):
        assert writing_notices(Picture(PIXELS, metadata=Metadata(png_chunks=chunks)), "jpeg") == ()


@pytest.mark.parametrize("format", ["png", "avif"])
def test_cicp_survives_in_png_and_avif(format: str) -> None:
    picture = Picture(PIXELS, metadata=Metadata(png_chunks=(CICP_HLG,)))
    written = encode_image(picture, format)
    assert read_image(written).metadata.png_chunks == (CICP_HLG,)
    back = encode_image(read_image(written), "png")
    assert chunk(*CICP_HLG) in back
    lost = writing_notices(picture, format)
    assert lost == () if format == "png" else "HDR tones (HLG)" in lost[0]


def test_srgb_avif_states_nothing_special() -> None:
    assert read_image(saved("AVIF")).metadata.png_chunks == ()


def test_hdr_chunks_of_a_png_stay() -> None:
    light = chunk(b"cLLI", struct.pack(">II", 10_000_000, 4_000_000))
    mastering = chunk(b"mDCV", bytes(24))
    picture = read_image(png(chunk(*CICP_HLG), mastering, light))
    assert light in encode_image(picture)
    assert mastering in encode_image(picture)
    assert "HDR light level" in writing_notices(picture, "webp")[0]


def test_profile_of_a_bmp() -> None:
    pixels = saved("BMP")[54:]
    header = struct.pack("<IiiHHIIiiII", 124, 12, 8, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    header = header.ljust(56, b"\0") + b"DEBM" + bytes(52)
    header += struct.pack("<III", 124 + len(pixels), len(SRGB), 0)
    assert len(header) == 124
    whole = header + pixels + SRGB
    file = b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, 138) + whole
    picture = read_image(file)
    np.testing.assert_array_equal(picture.rgb, PIXELS)
    assert picture.metadata.icc == SRGB
    assert read_image(encode_image(picture, "png")).metadata.icc == SRGB
    assert "profile is damaged" in read_image(file[:-20]).notices[0]


# Captions, comments, resolution

CAPTION = b"\x1c\x02\x78\x00\x04Rain\x1c\x02\x19\x00\x05storm"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 4, 7])
def test_captions_of_a_tiff_in_any_type_and_byte_order(kind: int, order: str) -> None:
    value = CAPTION + bytes(-len(CAPTION) % 4)
    if kind == 4:  # as programs write them: numbers in the order of the file
        value = np.frombuffer(value, "<u4").tolist()
    tag = (33723, kind, len(value), value if kind == 4 else bytes(value), True)
    iptc = read_image(tiff(PIXELS, tag, byteorder=order)).metadata.iptc
    assert iptc.rstrip(b"\0") == CAPTION


def test_captions_among_photoshops_resources_of_a_tiff() -> None:
    resources = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(CAPTION)) + CAPTION
    picture = read_image(tiff(PIXELS, (34377, 7, len(resources), resources, True)))
    assert picture.metadata.iptc == CAPTION
    assert tiff_tags(encode_image(picture))[33723].rstrip(b"\0") == CAPTION


def test_captions_of_a_png_by_imagemagick() -> None:
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(CAPTION)) + CAPTION
    text = f"\niptc\n{len(block):8}\n{block.hex()}\n".encode()
    file = png(chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))
    assert read_image(file).metadata.iptc == CAPTION
    assert "IPTC data are dropped" in writing_notices(read_image(file))[0]


def test_comments() -> None:
    picture = read_image(jpeg(segment(0xFE, b"by hand"), segment(0xFE, b"twice")))
    assert picture.metadata.comment == b"by hand\ntwice"
    assert read_image(encode_image(picture)).metadata.comment == b"by hand\ntwice"
    assert writing_notices(picture, "png") == ("comment data are dropped: PNG cannot hold them",)
    gif = read_image(saved("GIF", comment=b"a loop"))
    assert "comment" in writing_notices(gif)[0]


def test_a_resolution_joins_exif_that_has_none() -> None:
    exif = Image.Exif()
    exif.endian = ">"
    exif[271], exif[0x8769] = "Canon", {0x927C: b"a note with offsets"}
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    picture = Picture(PIXELS, metadata=Metadata(exif=block, dpi=(300.0, 200.0)))
    for format in ("webp", "avif"):
        written = encode_image(picture, format)
        again = Image.open(io.BytesIO(written)).getexif()
        assert (again[271], again[282], again[283], again[296]) == ("Canon", 300, 200, 2)
        assert again.get_ifd(0x8769)[0x927C] == b"a note with offsets"
        assert read_image(written).metadata.dpi == (300, 200)


# Place

GEO = (
    (33550, "d", 3, (0.5, 0.5, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5.3e6, 0.0), True),
    (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32632), True),
    (42113, "s", 0, "-9999", True),
)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_georeference_stays_in_tiff_and_is_named_elsewhere(depth: int) -> None:
    samples = PIXELS if depth == 8 else PIXELS.astype(np.uint16) * 257
    picture = read_image(tiff(samples, *GEO))
    assert picture.notices == ()
    tags = tiff_tags(encode_image(picture))
    assert tags[33550] == (0.5, 0.5, 0.0)
    assert tags[33922][3:5] == (5e5, 5.3e6)
    assert tags[34735] == (1, 1, 0, 1, 3072, 0, 1, 32632)
    assert tags[42113] == "-9999"
    assert "GeoTIFF data are dropped" in writing_notices(picture, "jpeg")[-1]


def test_a_georeference_of_a_turned_image_is_dropped() -> None:
    picture = read_image(tiff(PIXELS, *GEO, (274, 3, 1, 6, True)))
    assert picture.rgb.shape == (12, 8, 3)
    assert "georeference is dropped" in picture.notices[0]
    assert 33922 not in tiff_tags(encode_image(picture))


def test_colours_of_a_tiff_stay() -> None:
    white = (318, "2I", 2, (3127, 10000, 3290, 10000), True)
    assert tiff_tags(encode_image(read_image(tiff(PIXELS, white))))[318] == (
        3127,
        10000,
        3290,
        10000,
    )


# Orientation, wherever it stands

EXIF_6 = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
XMP_6 = packet('xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><tiff:Orientation>6</tiff:Orientation>')
XMP_CHUNK = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP_6))
TURNED = {
    "PNG, EXIF": png(chunk(b"eXIf", EXIF_6)),
    "PNG, EXIF with JPEG's mark": png(chunk(b"eXIf", b"Exif\0\0" + EXIF_6)),
    "PNG, EXIF behind the pixels": png(behind=chunk(b"eXIf", EXIF_6)),
    "PNG, compressed XMP": png(XMP_CHUNK),
    "PNG, XMP behind the pixels": png(behind=XMP_CHUNK),
    "16-bit PNG, XMP": png(XMP_CHUNK, depth=16),
    "JPEG, EXIF": jpeg(exif=b"Exif\0\0" + EXIF_6),
    "JPEG, XMP": jpeg(xmp=XMP_6),
    "WebP, XMP": saved("WEBP", xmp=XMP_6, lossless=True),
    "AVIF, EXIF": saved("AVIF", exif=b"Exif\0\0" + EXIF_6),
    "TIFF": tiff(PIXELS, (274, 3, 1, 6, True)),
    "TIFF, XMP": tiff(PIXELS, (700, 1, len(XMP_6), XMP_6, True)),
    "16-bit TIFF": tiff(PIXELS.astype(np.uint16), (274, 3, 1, 6, True)),
    "16-bit TIFF, XMP": tiff(PIXELS.astype(np.uint16), (700, 1, len(XMP_6), XMP_6, True)),
    "TIFF, compressed": tiff(PIXELS, (274, 3, 1, 6, True), compression="adobe_deflate"),
}


@pytest.mark.parametrize("name", TURNED)
def test_orientation_counts_wherever_it_stands(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(TURNED[name])
    assert probe_image(path) == (8, 12)
    picture = read_image(path)
    assert picture.rgb.shape == (12, 8, 3)
    if name[:4] not in ("JPEG", "AVIF"):
        depth = 257 if name.startswith("16-bit PNG") else 1
        np.testing.assert_array_equal(picture.rgb, np.rot90(PIXELS, -1) * np.uint16(depth))
    again = read_image(encode_image(picture))
    assert again.rgb.shape == picture.rgb.shape


# The size limit counts bytes


def test_the_limit_counts_bytes_of_decoded_pixels() -> None:
    plain, deep = png(), png(depth=16)
    assert read_image(plain, max_pixels=96).width == 12
    with pytest.raises(UnreadableImageError, match=r"as large as 192 of 8-bit RGB.*_pixels` 192$"):
        read_image(deep, max_pixels=191)
    clear = saved("PNG", np.zeros((8, 12, 4), np.uint8))
    with pytest.raises(UnreadableImageError, match=r"`max_pixels` 128$"):
        read_image(clear, max_pixels=127)


# What is dropped is named


def resource(number: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


RESOURCES = resource(0x040B, b"http://x.y") + resource(2000, bytes(52)) + resource(0x0409, b"t")
PROFILE_OF_NOTHING = {"icc_profile": b"x" * 200}


@pytest.mark.parametrize(
    ("data", "notice"),
    [
        (jpeg(segment(0xE1, b"FLIR\0\1" + bytes(9))), "its FLIR (APP1) data are dropped"),
        (jpeg(segment(0xE7, b"\1\2\3")), "its unknown (APP7) data are dropped"),
        (
            jpeg(segment(0xED, b"Photoshop 3.0\0" + RESOURCES)),
            "its Photoshop resources (URL, clipping paths) are dropped",
        ),
        (tiff(PIXELS, (34377, 7, len(RESOURCES), RESOURCES, True)), "(URL, clipping paths)"),
        (png(chunk(b"sCAL", b"\x011\x001")), "its sCAL data are dropped"),
        (png(chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))), "its pixels are not square"),
        (tiff(PIXELS, (65000, 2, 5, b"mine\0", True)), "its private tags 65000 are dropped"),
        (saved("WEBP", **PROFILE_OF_NOTHING), "its colour profile is damaged"),
        (jpeg(segment(0xEC, b"Ducky\0\1")), ""),
        (png(chunk(b"tIME", bytes(7)), chunk(b"bKGD", bytes(6))), ""),
    ],
)
def test_what_is_dropped_is_named(data: bytes, notice: str) -> None:
    told = read_image(data).notices
    assert notice in told[0] if notice else told == ()


def test_statements_of_a_gif() -> None:
    whole = saved("GIF", PIXELS)
    at = 13 + 3 * (2 << (whole[10] & 7))
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    blocks = b"".join(
        bytes([len(SRGB[begin : begin + 255])]) + SRGB[begin : begin + 255]
        for begin in range(0, len(SRGB), 255)
    )
    stated = b"\x21\xff\x0bXMP DataXMP" + packet(">") + trailer
    stated += b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0"
    metadata = read_image(whole[:at] + stated + whole[at:]).metadata
    assert (metadata.xmp, metadata.icc) == (packet(">"), SRGB)


def test_a_page_marked_as_reduced_in_the_old_way_is_not_the_image() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        small = {"extratags": [(255, 3, 1, 2, True)], "metadata": None}
        file.write(PIXELS[:4], photometric="rgb", **small)
        file.write(PIXELS, photometric="rgb", metadata=None)
    assert read_image(buffer.getvalue()).rgb.shape == PIXELS.shape


# Readers of other hands


def exiftool(path: Path, *tags: str) -> list[str]:
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    command = ["exiftool", "-s3", "-n", *(f"-{tag}" for tag in tags), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_exiftool_finds_what_was_kept(tmp_path: Path) -> None:
    metadata = Metadata(
        xmp=packet('xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="rain">'),
        extended_xmp=packet(
            'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Bergen">'
        ),
        iptc=CAPTION,
        comment=b"by hand",
        png_chunks=(CICP_HLG,),
    )
    for format in ("jpeg", "png", "tiff", "webp", "avif"):
        path = tmp_path / f"x.{format}"
        path.write_bytes(encode_image(Picture(PIXELS, metadata=metadata), format))
        assert exiftool(path, "XMP-dc:Format", "XMP-photoshop:City") == ["rain", "Bergen"], format
        if format in ("jpeg", "tiff"):
            assert exiftool(path, "IPTC:Keywords", "IPTC:Caption-Abstract") == ["storm", "Rain"]
        if format == "jpeg":
            assert exiftool(path, "Comment") == ["by hand"]
        if format in ("png", "avif"):
            assert exiftool(path, "ColorPrimaries", "TransferCharacteristics") == ["9", "18"]


@pytest.mark.parametrize("format", ["jpeg", "png", "tiff", "webp", "bmp"])
def test_imagemagick_reads_the_results(format: str, tmp_path: Path) -> None:
    if not shutil.which("compare") or not shutil.which("identify"):
        pytest.skip("ImageMagick is not installed")
    path = tmp_path / f"x.{format}"
    picture = Picture(PIXELS, metadata=Metadata(icc=SRGB, exif=EXIF_6, dpi=(300.0, 300.0)))
    path.write_bytes(encode_image(replace(picture, metadata=Metadata(icc=SRGB)), format))
    command = ["identify", "-format", "%w %h %z", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("12 8 8", "")
