"""Files in, files out: real images made with Pillow, tifffile, OpenCV or byte by byte."""

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from derain_cli.errors import (
    DerainError,
    ImageError,
    ResourceError,
    UnreadableImageError,
    UsageError,
)
from derain_cli.images import (
    DEFAULT_MAX_PIXELS,
    KEPT_METADATA,
    READABLE_SUFFIXES,
    WRITABLE_FORMATS,
    Metadata,
    Picture,
    encode_image,
    format_of_path,
    probe_image,
    read_image,
    write_image,
    writing_notices,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    b'tiff:Orientation="%d" dc:title="Regen \xc3\xbc"/></x:xmpmeta><?xpacket end="w"?>'
)
MAKER_NOTE = bytes(range(200)) + b"offsets inside"


# Files made by other hands than the code under test


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(samples: np.ndarray, depth: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG with unfiltered rows, written from the specification."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(flat[..., None].astype(np.uint8), axis=2)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def exif_bytes(orientation: int | None = None, *, thumbnail: bool = False) -> bytes:
    """A big-endian EXIF block as cameras write it, with a maker note and a GPS directory."""
    exif = Image.Exif()
    exif.endian = ">"
    exif[271], exif[272], exif[33432] = "Canon", "EOS R5", "(c) Jane"
    if orientation:
        exif[274] = orientation
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0x927C: MAKER_NOTE, 0xA002: 30, 0xA003: 20}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 15.5)}
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    if thumbnail:
        directory = struct.pack(">HHHII", 1, 513, 4, 1, 0) + bytes(4)
        count = struct.unpack_from(">H", block, 8)[0]
        link = 10 + 12 * count
        block = block[:link] + struct.pack(">I", len(block)) + block[link + 4 :] + directory
    return block


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if isinstance(exif := options.get("exif"), bytes):  # PNG alone wants no mark, and removes it
        options["exif"] = b"Exif\0\0" + exif
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff_bytes(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    options = {"photometric": "rgb", "metadata": None, "software": False} | options
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def tiff_samples(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return tiff.pages[0].asarray(squeeze=False)[0, 0]


def png_samples(data: bytes) -> np.ndarray:
    """16-bit samples of a PNG as another decoder than Pillow's sees them, in the file's order."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples.ndim == 2:
        return samples[..., None]
    samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return samples[..., [0, 3]] if data[25] == 4 else samples


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.swapaxes(0, 1), 2),
    8: lambda stored: np.rot90(stored, 1),
}


def channels_of(picture: Picture) -> np.ndarray:
    """Gray or RGB and alpha as the file has them."""
    colour = picture.rgb[..., :1] if picture.gray else picture.rgb
    return colour if picture.alpha is None else np.dstack([colour, picture.alpha])


# The property: mode x depth x format x orientation x odd sizes


@dataclass(frozen=True)
class Case:
    format: str
    mode: str
    depth: int
    orientation: int
    samples: np.ndarray

    def file(self) -> bytes:
        """The file with all the metadata its format can hold."""
        exif, xmp, turned = exif_bytes(self.orientation), XMP % self.orientation, self.orientation
        if self.format == "tiff":
            return self._tiff(turned, xmp)
        if self.format == "png":
            return self._png(exif, xmp)
        options = {"exif": exif, "xmp": xmp, "icc_profile": SRGB}
        if self.format == "bmp":
            options = {"dpi": (300, 200)}
        if self.format == "avif":  # less than 100 would change alpha
            options |= {"quality": 100, "subsampling": "4:0:0" if self.mode[0] == "L" else "4:4:4"}
        if self.format == "webp":
            options |= {"lossless": True, "exact": True}
        return saved(self._image(), self.format.upper(), **options)

    def _image(self) -> Image.Image:
        return Image.fromarray(self.samples if self.samples.shape[2] > 1 else self.samples[..., 0])

    def _png(self, exif: bytes, xmp: bytes) -> bytes:
        chunks = [
            chunk(b"gAMA", struct.pack(">I", 45455)),
            chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB)),
            chunk(b"pHYs", struct.pack(">IIB", 11811, 7874, 1)),
            chunk(b"eXIf", exif),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
            chunk(b"tEXt", b"Author\0Jane"),
        ]
        colour_type = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}[self.mode]
        return png_bytes(self.samples, self.depth, colour_type, *chunks)

    def _tiff(self, orientation: int, xmp: bytes) -> bytes:
        gray, alpha = self.mode[0] == "L", self.mode[-1] == "A"
        tags = [(274, 3, 1, orientation, True), (700, 1, len(xmp), xmp, True)]
        tags.append((315, 2, 0, "Jane", True))
        return tiff_bytes(
            self.samples if self.samples.shape[2] > 1 else self.samples[..., 0],
            photometric="minisblack" if gray else "rgb",
            extrasamples=["unassalpha"] if alpha else None,
            planarconfig="contig" if self.samples.shape[2] > 1 else None,
            resolution=(300, 200),
            resolutionunit="INCH",
            iccprofile=SRGB,
            extratags=tags,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    format = draw(st.sampled_from(["png", "tiff", "webp", "bmp", "jpeg", "avif"]))
    modes = {"jpeg": ["L", "RGB"], "bmp": ["L", "RGB"], "webp": ["RGB", "RGBA"]}
    mode = draw(st.sampled_from(modes.get(format, ["L", "LA", "RGB", "RGBA"])))
    depth = draw(st.sampled_from([8, 16])) if format in ("png", "tiff") else 8
    orientation = 1 if format == "bmp" else draw(st.integers(1, 8))
    height, width = draw(st.integers(1, 9)), draw(st.one_of(st.integers(1, 9), st.just(1001)))
    if draw(st.booleans()):
        height, width = width, height
    shape = (height, width, len(mode))
    samples = noise(
        *shape, dtype=np.uint16 if depth == 16 else np.uint8, seed=draw(st.integers(0, 9))
    )
    return Case(format, mode, depth, orientation, samples)


LOSSLESS = ("png", "tiff", "webp", "bmp")


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_picture_comes_back_as_it_was(case: Case) -> None:
    file = case.file()
    picture = read_image(file)
    upright = np.ascontiguousarray(UPRIGHT[case.orientation](case.samples))

    assert (picture.format, picture.notices) == (case.format, ())
    assert (picture.height, picture.width) == upright.shape[:2]
    assert picture.bit_depth == case.depth
    assert picture.gray == (case.mode[0] == "L")
    assert (picture.alpha is not None) == (case.mode[-1] == "A")
    if case.format in LOSSLESS:
        np.testing.assert_array_equal(channels_of(picture), upright)
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, upright[..., -1])

    written = encode_image(picture.with_rgb(picture.rgb.copy()))
    again = read_image(written)
    assert (again.format, again.gray, again.bit_depth) == (case.format, picture.gray, case.depth)
    assert again.rgb.shape == picture.rgb.shape
    if case.format in LOSSLESS:
        np.testing.assert_array_equal(again.rgb, picture.rgb)
    if picture.alpha is not None:
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    _check_by_other_readers(case, written, upright)
    _check_metadata(case, picture, again, written)


def _check_by_other_readers(case: Case, written: bytes, upright: np.ndarray) -> None:
    if case.depth == 16:
        samples = tiff_samples(written) if case.format == "tiff" else png_samples(written)
        assert samples.dtype == np.uint16
        np.testing.assert_array_equal(samples, upright)
        return
    image = opened(written)
    assert image.format == case.format.upper()
    assert image.size == (upright.shape[1], upright.shape[0])
    if (case.format, case.mode) != ("avif", "LA"):  # there is no such mode for AVIF in Pillow
        assert image.mode == case.mode
        if case.format in LOSSLESS:
            np.testing.assert_array_equal(np.asarray(image).reshape(upright.shape), upright)


def _check_metadata(case: Case, picture: Picture, again: Picture, written: bytes) -> None:
    kept = again.metadata
    if case.format == "bmp":
        assert kept.dpi == pytest.approx((300, 200), abs=0.1)
        return
    assert kept.icc == SRGB
    assert kept.xmp == XMP % 1
    assert kept == replace(picture.metadata, dpi=kept.dpi, jpeg=kept.jpeg)
    if case.format in ("png", "tiff"):
        assert kept.dpi == pytest.approx((300, 200), abs=0.1)
    if case.format == "tiff":
        with tifffile.TiffFile(io.BytesIO(written)) as tiff:
            assert tiff.pages[0].tags[315].value == "Jane"
            assert 274 not in tiff.pages[0].tags
        return
    exif = opened(written).getexif()
    assert exif.get(274, 1) == 1  # Pillow looks into the XMP, too
    assert (exif[271], exif[272], exif[33432]) == ("Canon", "EOS R5", "(c) Jane")
    assert exif.get_ifd(0x8769)[0x927C] == MAKER_NOTE
    assert exif.get_ifd(0x8825)[2] == (48.0, 8.0, 15.5)
    if case.format == "png":
        assert opened(written).text["Author"] == "Jane"
        assert opened(written).info["gamma"] == pytest.approx(0.45455)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_trap_1_upright_as_pillow_says(orientation: int) -> None:
    photo = np.kron(noise(3, 4, 3), np.ones((16, 16, 1), np.uint8))
    file = saved(Image.fromarray(photo), "JPEG", quality=95, exif=exif_bytes(orientation))
    expected = np.asarray(ImageOps.exif_transpose(opened(file)))
    picture = read_image(file)
    np.testing.assert_array_equal(picture.rgb, expected)
    assert np.asarray(opened(encode_image(picture))).shape == expected.shape


# Traps


def test_trap_1_exif_keeps_its_offsets_and_loses_the_thumbnail(tmp_path: Path) -> None:
    stored = exif_bytes(6, thumbnail=True)
    assert (
        opened(saved(Image.new("RGB", (8, 8)), "JPEG", exif=stored))
        .getexif()
        .get_ifd(ExifTags.IFD.IFD1)
    )
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.new("RGB", (30, 20)), "JPEG", exif=stored))
    assert probe_image(path) == (20, 30)
    kept = read_image(path).metadata.exif
    assert kept.index(MAKER_NOTE) == stored.index(MAKER_NOTE)  # offsets in it stay true
    exif = Image.Exif()
    exif.load(kept)
    assert 274 not in exif
    assert exif.get_ifd(ExifTags.IFD.IFD1) == {}
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (20, 30)


def test_trap_1_orientation_in_xmp_alone_counts() -> None:
    file = saved(Image.fromarray(noise(2, 5, 3)), "PNG")
    file = file[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 8) + file[33:]
    picture = read_image(file)
    np.testing.assert_array_equal(picture.rgb, np.rot90(noise(2, 5, 3), 1))
    assert b'Orientation="1"' in picture.metadata.xmp


def test_trap_1_old_imagemagick_png_keeps_its_exif() -> None:
    exif = exif_bytes(3)
    text = f"\nexif\n{len(exif):8}\n" + "\n".join(textwrap.wrap(exif.hex(), 72)) + "\n"
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text, zip=True)
    picture = read_image(saved(Image.fromarray(noise(3, 4, 3)), "PNG", pnginfo=info))
    np.testing.assert_array_equal(picture.rgb, np.rot90(noise(3, 4, 3), 2))
    assert opened(encode_image(picture)).getexif()[271] == "Canon"
    assert not picture.metadata.png_chunks  # the old block would turn the picture again


@pytest.mark.parametrize(
    "junk", [b"II*\0", b"nonsense", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_is_dropped_with_a_notice(junk: bytes) -> None:
    picture = read_image(saved(Image.new("RGB", (4, 4)), "JPEG", exif=junk))
    assert picture.metadata.exif is None
    assert picture.notices == ("its EXIF block is damaged and was dropped",)


def test_trap_2_deep_png_transparent_colour_becomes_alpha() -> None:
    samples = noise(4, 5, 3, dtype=np.uint16)
    key = chunk(b"tRNS", samples[1, 2].astype(">u2").tobytes())
    picture = read_image(png_bytes(samples, 16, 2, key))
    np.testing.assert_array_equal(picture.rgb, samples)
    assert picture.alpha[1, 2] == 0
    assert np.count_nonzero(picture.alpha == 65535) == 19
    gray = samples[..., :1]
    picture = read_image(png_bytes(gray, 16, 0, chunk(b"tRNS", gray[0, 0].astype(">u2").tobytes())))
    assert (picture.gray, picture.alpha[0, 0], picture.alpha[0, 1]) == (True, 0, 65535)


def test_trap_2_deep_png_interlaced() -> None:
    samples = noise(11, 13, 4, dtype=np.uint16)
    first_and_step = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2))
    rows = b""
    for top, left, down, right in (*first_and_step, (0, 1, 2, 2), (1, 0, 2, 1)):
        for row in samples[top::down, left::right]:
            rows += b"\0" + row.astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", 13, 11, 16, 6, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    picture = read_image(b"\x89PNG\r\n\x1a\n" + body)
    np.testing.assert_array_equal(channels_of(picture), samples)


@pytest.mark.parametrize("compression", [None, "adobe_deflate", "lzw", "packbits"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_trap_2_deep_tiff_of_any_common_compression(compression: str, channels: int) -> None:
    samples = noise(7, 5, channels, dtype=np.uint16)
    if compression in ("lzw", "packbits"):  # tifffile alone cannot write them
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        number = {"lzw": 5, "packbits": 32773}[compression]
        options = [cv2.IMWRITE_TIFF_COMPRESSION, number, cv2.IMWRITE_TIFF_PREDICTOR, 1]
        data = cv2.imencode(".tif", samples[..., order], options)[1].tobytes()
    else:
        gray = channels == 1
        data = tiff_bytes(
            samples[..., 0] if gray else samples,
            photometric="minisblack" if gray else "rgb",
            compression=compression,
            predictor=bool(compression),
        )
    picture = read_image(data)
    np.testing.assert_array_equal(channels_of(picture), samples)
    np.testing.assert_array_equal(tiff_samples(encode_image(picture)), samples)


def with_orientation(tiff: bytes, orientation: int) -> bytes:
    """A little-endian TIFF with one entry more, in a new directory at its end."""
    at = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, at)[0]
    entries = [tiff[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries.append(struct.pack("<HHII", 274, 3, 1, orientation))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    tiff += bytes(len(tiff) % 2)
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("compression", [5, 32773])
def test_trap_2_deep_tiff_that_opencv_turns_is_turned_once(
    compression: int, channels: int, orientation: int
) -> None:
    samples = noise(7, 5, channels, dtype=np.uint16)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    data = cv2.imencode(".tif", samples[..., order], options)[1].tobytes()
    picture = read_image(with_orientation(data, orientation))
    upright = UPRIGHT.get(orientation, UPRIGHT[1])(samples)
    np.testing.assert_array_equal(channels_of(picture), upright)


def test_trap_2_deep_tiff_planar_big_endian_inverted_bigtiff_tiled() -> None:
    samples = noise(33, 20, 3, dtype=np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(samples, 2, 0))
    for data in (
        tiff_bytes(planes, planarconfig="separate"),
        tiff_bytes(samples, byteorder=">"),
        tiff_bytes(
            samples, bigtiff=True, resolution=(10, 10), extratags=[(271, 2, 0, "Leica", True)]
        ),
        tiff_bytes(samples, tile=(16, 16)),
    ):
        np.testing.assert_array_equal(read_image(data).rgb, samples)
    inverted = read_image(tiff_bytes(65535 - samples[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(inverted.rgb[..., 1], samples[..., 0])
    assert inverted.gray


def test_trap_2_multiplied_alpha_is_taken_out() -> None:
    alpha = np.full((2, 2, 1), 32768, np.uint16)
    stored = np.concatenate([np.full((2, 2, 3), 10000, np.uint16), alpha], axis=2)
    picture = read_image(tiff_bytes(stored, extrasamples=["assocalpha"]))
    assert picture.rgb[0, 0, 0] == 20000  # 10000 * 65535 / 32768
    assert picture.alpha[0, 0] == 32768


@pytest.mark.parametrize("compression", ["jpeg2000", "lerc", "jpegxl"])
def test_multiplied_alpha_is_taken_out_of_8_bits_of_the_extra_codecs(compression: str) -> None:
    pytest.importorskip("imagecodecs", reason="the extra `codecs` is not installed")
    stored = np.full((16, 16, 4), 128, np.uint8)
    stored[..., :3] = (100, 0, 128)
    options = {"reversible": True} if compression == "jpeg2000" else {}
    data = tiff_bytes(
        stored, extrasamples=["assocalpha"], compression=compression, compressionargs=options
    )
    picture = read_image(data)
    assert picture.rgb[0, 0].tolist() == [199, 0, 255]  # 100 * 255 / 128
    assert picture.alpha[0, 0] == 128


def test_trap_2_channels_that_are_no_alpha_are_dropped_with_a_notice() -> None:
    samples = noise(3, 3, 5, dtype=np.uint16)
    picture = read_image(
        tiff_bytes(samples, planarconfig="contig", extrasamples=["unspecified", "unassalpha"])
    )
    np.testing.assert_array_equal(picture.rgb, samples[..., :3])
    np.testing.assert_array_equal(picture.alpha, samples[..., 4])
    assert picture.notices == ("has extra channels beside colour and alpha, which are dropped",)


FLOAT_TIFF = tiff_bytes(np.ones((4, 4, 3), np.float32))
DNG = tiff_bytes(noise(4, 4, 3), extratags=[(50706, 1, 4, b"\1\4\0\0", True)])
# tifffile writes no entry 330 (where the sensor's data are) by request: 331 is made one.
NEF = tiff_bytes(noise(4, 4, 3), subfiletype=1, extratags=[(331, 4, 1, 8, True)])
NEF = NEF.replace(struct.pack("<HHII", 331, 4, 1, 8), struct.pack("<HHII", 330, 4, 1, 8))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.tif",
            FLOAT_TIFF,
            "is a 32-bit float TIFF, which is unsupported; export it as 16-bit TIFF",
        ),
        ("a.tif", tiff_bytes(np.ones((4, 4, 3), np.int16)), "16-bit signed TIFF"),
        ("a.tif", tiff_bytes(np.ones((4, 4, 3), np.uint32)), "32-bit integer TIFF"),
        (
            "a.tif",
            tiff_bytes(np.ones((4, 4, 4), np.uint16), photometric="separated"),
            "neither gray",
        ),
        ("a.dng", DNG, "is a camera RAW file"),
        ("a.tif", DNG, "develop it and export a 16-bit TIFF"),
        ("a.jpg", NEF, "is a camera RAW file"),
        ("a.nef", tiff_bytes(noise(4, 4, 3)), "is a camera RAW file"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(64), "is a camera RAW file"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a camera RAW file"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201FF", "is a camera RAW file"),
        ("a.exr", b"\x76\x2f\x31\x01\2\0\0\0", "float OpenEXR image"),
        ("a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "export it as 16-bit TIFF"),
    ],
)
def test_trap_3_float_and_raw_name_the_way_out(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    assert says in _refusal(tmp_path, name, content)


def _refusal(folder: Path, name: str, content: bytes, **options: int) -> str:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path, **options)
    line = str(caught.value)
    assert line.startswith(repr(str(path)))
    assert "\n" not in line
    assert ";" in line, "the way out is missing"
    return line


def test_trap_4_cmyk_without_a_profile() -> None:
    cmyk = Image.new("CMYK", (9, 7), (0, 255, 255, 0))
    picture = read_image(saved(cmyk, "JPEG", quality=95))
    assert "CMYK" in picture.notices[0]
    assert picture.rgb[0, 0].tolist() == pytest.approx([255, 0, 0], abs=6)
    assert opened(encode_image(picture)).mode == "RGB"
    assert read_image(saved(cmyk, "TIFF")).rgb[0, 0].tolist() == [255, 0, 0]


def cmyk_profile() -> bytes:
    """A press whose cyan ink prints medium gray: no formula would guess that."""
    grid = np.zeros((2, 2, 2, 2, 3), np.uint8)
    grid[...] = (0, 128, 128)
    grid[0, 0, 0, 0], grid[1, 0, 0, 0] = (255, 128, 128), (128, 128, 128)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid.tobytes() + ramp * 3
    text = b"text" + bytes(4) + b"press\0\0\0"
    description = b"desc" + bytes(4) + struct.pack(">I", 6) + b"press\0" + bytes(79)
    white = b"XYZ " + bytes(4) + struct.pack(">3I", 63190, 65536, 54061)
    blocks = {b"A2B0": lut, b"cprt": text, b"desc": description, b"wtpt": white}
    table, body, at = struct.pack(">I", len(blocks)), b"", 132 + 12 * len(blocks)
    for name, block in blocks.items():
        block += bytes(-len(block) % 4)
        table += name + struct.pack(">II", at + len(body), len(block))
        body += block
    header = (
        struct.pack(">I", at + len(body)) + b"lcms\x02\x10\0\0prtrCMYKLab " + bytes(12) + b"acsp"
    )
    header = header.ljust(68, b"\0") + struct.pack(">3I", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_trap_4_cmyk_through_its_profile(format: str) -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    picture = read_image(saved(image, format, icc_profile=cmyk_profile()))
    assert picture.notices == ("CMYK converted to sRGB",)
    assert picture.rgb[0, 0].tolist() == pytest.approx([119] * 3, abs=8)  # L* = 50
    assert picture.metadata.icc is None


def test_trap_4_icc_stays_with_deep_tiff() -> None:
    picture = read_image(tiff_bytes(noise(4, 4, 3, dtype=np.uint16), iccprofile=SRGB))
    assert opened(encode_image(picture, "png")).info["icc_profile"] == SRGB
    with tifffile.TiffFile(io.BytesIO(encode_image(picture))) as tiff:
        assert tiff.pages[0].tags[34675].value == SRGB


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_trap_5_gray_with_few_bits_and_a_transparent_gray(depth: int) -> None:
    levels = noise(6, 7, 1) >> (8 - depth)
    key = int(levels[0, 0, 0])
    picture = read_image(png_bytes(levels, depth, 0, chunk(b"tRNS", struct.pack(">H", key))))
    assert picture.gray
    np.testing.assert_array_equal(picture.rgb[..., 0], levels[..., 0] * (255 // (2**depth - 1)))
    np.testing.assert_array_equal(picture.alpha, np.where(levels[..., 0] == key, 0, 255))
    assert opened(encode_image(picture)).mode == "LA"


def test_trap_5_palettes() -> None:
    image = Image.fromarray(noise(6, 7) % 4, "L")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    expected = np.asarray(image.convert("RGB"))
    opaque = read_image(saved(image, "PNG"))
    assert (opaque.gray, opaque.alpha) == (False, None)
    np.testing.assert_array_equal(opaque.rgb, expected)
    clear = read_image(saved(image, "PNG", transparency=bytes([0, 100, 200, 255])))
    np.testing.assert_array_equal(clear.rgb, expected)
    np.testing.assert_array_equal(clear.alpha, np.take([0, 100, 200, 255], np.asarray(image)))
    np.testing.assert_array_equal(read_image(encode_image(clear)).alpha, clear.alpha)
    gif = read_image(saved(image, "GIF", transparency=2))
    np.testing.assert_array_equal(gif.alpha, np.where(np.asarray(image) == 2, 0, 255))
    assert opened(encode_image(gif)).format == "PNG"  # GIF is only read


@pytest.mark.parametrize("mode", ["1", "L"])
def test_trap_5_gray_stays_gray(mode: str) -> None:
    image = Image.fromarray(noise(9, 9)).convert(mode)
    for format in ("PNG", "TIFF", "BMP"):
        picture = read_image(saved(image, format))
        assert picture.gray
        np.testing.assert_array_equal(picture.rgb[..., 2], np.asarray(image.convert("L")))
        tinted = picture.with_rgb(noise(9, 9, 3))  # a network may colour it a little
        written = opened(encode_image(tinted))
        assert written.mode == "L"
        expected = np.asarray(Image.fromarray(tinted.rgb).convert("L")).astype(int)
        assert np.abs(np.asarray(written).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("format", ["jpeg", "bmp"])
def test_trap_5_alpha_where_there_is_none(format: str, tmp_path: Path) -> None:
    picture = read_image(saved(Image.fromarray(noise(4, 4, 4)), "PNG"))
    target = tmp_path / "x"
    with pytest.raises(ImageError, match=r"transparent parts.*use `format` png"):
        write_image(picture, target, format=format)
    assert list(tmp_path.iterdir()) == []
    opaque = replace(picture, alpha=np.full((4, 4), 255, np.uint8))
    assert opened(encode_image(opaque, format)).mode == "RGB"
    assert "opaque everywhere" in writing_notices(opaque, format)[0]


def _photo() -> np.ndarray:
    """A smooth picture with some detail: neither flat nor noise."""
    return cv2.resize(noise(12, 16, 3), (160, 120), interpolation=cv2.INTER_CUBIC)


def _whole_files() -> dict[str, bytes]:
    photo, deep = _photo(), cv2.resize(noise(12, 16, 3, dtype=np.uint16), (80, 60))
    image = Image.fromarray(photo)
    return {
        "baseline.jpg": saved(image, "JPEG"),
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "photo.png": saved(image, "PNG"),
        "photo.webp": saved(image, "WEBP"),
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "photo.avif": saved(image, "AVIF", speed=10),
        "photo.bmp": saved(image, "BMP"),
        "photo.gif": saved(image, "GIF"),
        "raw.tif": saved(image, "TIFF"),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "deep.png": png_bytes(deep, 16, 2),
        "deep.tif": tiff_bytes(deep),
        "deepzip.tif": tiff_bytes(
            deep, compression="adobe_deflate", predictor=True, rowsperstrip=7
        ),
        "deeplzw.tif": cv2.imencode(".tif", deep, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes(),
    }


WHOLE = _whole_files()


@pytest.mark.parametrize("name", WHOLE)
def test_trap_6_no_truncated_file_is_read(name: str, tmp_path: Path) -> None:
    whole = WHOLE[name]
    expected = read_image(whole)
    for part in (0.02, 0.2, 0.5, 0.8, 0.95, 0.99):
        cut = whole[: int(len(whole) * part)]
        with contextlib.suppress(UnreadableImageError):
            # Only if nothing of the pixels is missing:
            np.testing.assert_array_equal(read_image(cut).rgb, expected.rgb)
    assert "damaged or cut short" in _refusal(tmp_path, name, whole[: len(whole) // 2])


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.binary(min_size=1, max_size=12))
def test_damaged_files_raise_nothing_but_our_errors(name: str, place: int, junk: bytes) -> None:
    data = bytearray(WHOLE[name])
    at = place % min(len(data), 4000)
    data[at : at + len(junk)] = junk
    try:
        picture = read_image(bytes(data), max_pixels=1_000_000)
    except DerainError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right, a third is not)
    else:
        assert picture.rgb.shape[2] == 3


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
MP4 = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jpg", b"", "is empty (0 bytes)"),
        ("page.jpg", b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404", "is an HTML page"),
        ("pointer.png", LFS, "is a Git-LFS pointer, not an image this program reads; fetch the"),
        ("clip.jpg", MP4, "is a video"),
        ("paper.png", b"%PDF-1.7", "is a PDF document"),
        ("art.png", b'<?xml version="1.0"?><svg xmlns="x"/>', "is an SVG drawing"),
        ("note.jpg", b"not a picture at all", "is a text file"),
        ("many.jpg", b"PK\3\4" + bytes(40), "is a ZIP archive"),
        ("new.jpg", b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL image"),
        ("junk.jpg", bytes(range(128, 200)), "is an unknown file (it begins 80 81 82"),
        ("layers.jpg", b"8BPS\0\1" + bytes(40), "is a Photoshop document"),
        ("app.png", b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", "is a PNG of an iPhone app (CgBI)"),
        ("scan.tif", bytes(128) + b"DICM", "is a DICOM image"),
        ("wide.tif", b"II\xbc\1" + bytes(40), "is a JPEG XR image"),
        ("plain.ppm", b"P6\n2 2\n255\n" + bytes(12), "is a Netpbm image"),
    ],
)
def test_trap_7_says_what_a_file_is(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    assert says in _refusal(tmp_path, name, content)


def test_trap_7_wrong_ending_is_read_by_content(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(noise(3, 5, 3)), "PNG"))
    picture = read_image(path)
    assert picture.format == "png"
    assert picture.notices == ("is a PNG image although its name ends in .jpg",)
    np.testing.assert_array_equal(picture.rgb, noise(3, 5, 3))


def test_trap_7_missing_folder_and_forbidden(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="does not exist; check the name"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(UnreadableImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"^standard input is empty"):
        read_image(b"")
    with pytest.raises(UnreadableImageError, match=r"^'upload 7' is empty"):
        read_image(b"", name="upload 7")


def huge(format: str) -> bytes:
    """A few bytes that promise 60000 x 60000 pixels."""
    if format == "png":
        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body
    small = saved(Image.new("RGB", (16, 16)), format)
    if format == "jpeg":
        at = small.index(b"\xff\xc0")
        return small[: at + 5] + struct.pack(">HH", 60000, 60000) + small[at + 9 :]
    if format == "bmp":
        return small[:18] + struct.pack("<ii", 60000, 60000) + small[26:]
    if format == "gif":
        return small[:6] + struct.pack("<HH", 60000, 60000) + small[10:]
    return (
        tiff_bytes(np.zeros((4, 4), np.uint16), photometric="minisblack")
        .replace(struct.pack("<HHII", 256, 4, 1, 4), struct.pack("<HHII", 256, 4, 1, 60000))
        .replace(struct.pack("<HHII", 257, 4, 1, 4), struct.pack("<HHII", 257, 4, 1, 60000))
    )


@pytest.mark.parametrize("format", ["png", "jpeg", "bmp", "gif", "tiff"])
def test_trap_8_bombs_are_refused_from_the_header(format: str, tmp_path: Path) -> None:
    line = _refusal(tmp_path, f"bomb.{format}", huge(format))
    deep = ", as large as 7,200,000,000 of 8-bit RGB" if format == "tiff" else ""
    assert f"3,600,000,000 pixels (60000 x 60000){deep}, the limit is 300,000,000" in line
    assert line.endswith(f"raise it with `max_pixels` {7200000000 if deep else 3600000000}")


def test_trap_8_webp_larger_than_pillow_reads() -> None:
    small = saved(Image.new("RGB", (16, 16)), "WEBP", icc_profile=SRGB)
    at = small.index(b"VP8X") + 12
    vast = small[:at] + 2 * (16382).to_bytes(3, "little") + small[at + 6 :]
    with pytest.raises(UnreadableImageError, match="convert it to PNG or TIFF"):
        read_image(vast)


def test_trap_8_limit_is_the_callers(tmp_path: Path) -> None:
    file = saved(Image.new("L", (10, 10)), "PNG")
    assert read_image(file, max_pixels=100).width == 10
    assert "`max_pixels` 100" in _refusal(tmp_path, "a.png", file, max_pixels=99)
    assert DEFAULT_MAX_PIXELS >= 200_000_000


MEASURE = """
import sys
from pathlib import Path
import cv2, tifffile
from derain_cli.images import probe_image, read_image
def peak():
    lines = Path("/proc/self/status").read_text().split("\\n")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
for name in sys.argv[1:]:
    probe_image(Path(name))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    picture = read_image(Path(name))
    print(round((peak() - before) / picture.rgb.nbytes, 2))
    del picture
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are in /proc")
def test_trap_8_a_large_photo_costs_one_extra_copy(tmp_path: Path) -> None:
    """The array, the decoder's own picture (Pillow: 4 bytes per pixel) and the file itself."""
    photo = np.zeros((2000, 3000, 3), np.uint8)
    photo[:, ::2] = np.arange(2000)[:, None, None] % 251
    image, deep = Image.fromarray(photo), photo.astype(np.uint16)
    (tmp_path / "1.jpg").write_bytes(saved(image, "JPEG", exif=exif_bytes(6)))
    (tmp_path / "2.png").write_bytes(saved(image, "PNG", compress_level=1))
    (tmp_path / "3.png").write_bytes(encode_image(Picture(deep)))
    (tmp_path / "4.tif").write_bytes(tiff_bytes(deep))
    code = [sys.executable, "-c", MEASURE, *sorted(map(str, tmp_path.iterdir()))]
    printed = subprocess.run(code, capture_output=True, check=True, text=True).stdout
    copies = [float(line) for line in printed.split()]
    assert len(copies) == 4
    assert max(copies) < 2.7, copies


@pytest.mark.slow
def test_trap_8_hundred_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "panorama.jpg"
    Image.new("RGB", (20000, 5000), (9, 99, 199)).save(path)
    assert probe_image(path) == (20000, 5000)
    picture = read_image(path)
    assert picture.rgb.shape == (5000, 20000, 3)
    write_image(picture, tmp_path / "out.jpg")
    assert probe_image(tmp_path / "out.jpg") == (20000, 5000)


@pytest.mark.parametrize("name", ["Straße im Regen.png", "-o.png", "[bold]雨[x].png", "a'b\"c.png"])
def test_trap_13_any_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    picture = Picture(noise(3, 3, 3))
    write_image(picture, path)
    np.testing.assert_array_equal(read_image(path).rgb, picture.rgb)
    deep = Picture(noise(3, 3, 3, dtype=np.uint16))
    write_image(deep, path)
    np.testing.assert_array_equal(read_image(path).rgb, deep.rgb)
    assert _refusal(tmp_path, name, b"").startswith(repr(str(path)))


def test_trap_15_first_of_several(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 6, 3, seed=seed)) for seed in range(3)]
    for format in ("PNG", "WEBP", "TIFF", "GIF", "AVIF", "MPO"):
        options = {"lossless": True} if format == "WEBP" else {}
        file = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        picture = read_image(file)
        first = np.asarray(opened(file).convert("RGB"))
        np.testing.assert_array_equal(picture.rgb, first)
        assert re.fullmatch(r"holds 3 (images|pages); the first is used", picture.notices[0])
    pages = np.stack([noise(4, 6, 3, dtype=np.uint16, seed=seed) for seed in range(2)])
    picture = read_image(tiff_bytes(pages))
    np.testing.assert_array_equal(picture.rgb, pages[0])
    assert picture.notices == ("holds 2 pages; the first is used",)


IN_CHILD = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from derain_cli.errors import ResourceError
from derain_cli.images import Picture, write_image
folder, situation = Path(sys.argv[1]), sys.argv[2]
if situation == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
elif os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
try:
    write_image(Picture(noise), folder / "x.png")
except ResourceError as error:
    print(error.exit_code, error)
"""


def _in_child(folder: Path, situation: str) -> str:
    code = [sys.executable, "-c", IN_CHILD, str(folder), situation]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr or "Permission" in done.stderr:
        pytest.skip("another user cannot run this Python")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_trap_16_disk_full(tmp_path: Path) -> None:
    (tmp_path / "finished.png").write_bytes(b"whole")
    line = _in_child(tmp_path, "full")
    assert line.startswith(f"5 {str(tmp_path / 'x.png')!r} cannot be written: no space for its")
    assert "free some" in line
    assert [path.name for path in tmp_path.iterdir()] == ["finished.png"]


def test_trap_16_no_space_left_on_a_tiny_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a file system")
    try:
        write_image(Picture(noise(20, 20, 3)), tmp_path / "finished.png")
        with pytest.raises(ResourceError, match=r"no space for its \d\d,\d\d\d bytes"):
            write_image(Picture(noise(99, 99, 3)), tmp_path / "x.png")
        assert [path.name for path in tmp_path.iterdir()] == ["finished.png"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_trap_16_disk_full_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"the file of last week")
    assert _in_child(tmp_path, "full").startswith("5 ")
    assert (tmp_path / "x.png").read_bytes() == b"the file of last week"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_trap_16_read_only_target() -> None:
    # pytest's own folders let nobody else in, and root may write everywhere.
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "locked"
        folder.mkdir(mode=0o555)
        Path(parent).chmod(0o755)
        line = _in_child(folder, "read-only")
        assert line.startswith(f"5 {str(folder / 'x.png')!r} cannot be written: its folder is read")
        assert "write elsewhere" in line
        assert list(folder.iterdir()) == []


def test_trap_16_no_such_folder_or_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="its folder does not exist; create it first"):
        write_image(Picture(noise(2, 2, 3)), tmp_path / "none" / "x.png")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ImageError, match="cannot be written"):
        write_image(Picture(noise(2, 2, 3)), tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


# JPEG coding, quality, other formats


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_written_as_it_was_coded(subsampling: int, *, progressive: bool) -> None:
    tables = [[min(255, 3 + i) for i in range(64)], [min(255, 9 + 2 * i) for i in range(64)]]
    options = {"qtables": tables, "subsampling": subsampling, "progressive": progressive}
    source = saved(Image.fromarray(_photo()), "JPEG", dpi=(300, 300), comment=b"by hand", **options)
    written = encode_image(read_image(source))
    before, after = opened(source), opened(written)
    assert after.quantization == before.quantization == {0: tables[0], 1: tables[1]}
    assert [layer[1:] for layer in after.layer] == [layer[1:] for layer in before.layer]
    assert bool(after.info.get("progressive")) is progressive
    assert after.info["dpi"] == (300, 300)
    assert after.info["comment"] == b"by hand"
    assert abs(len(written) / len(source) - 1) < 0.05
    # Again and again: a second pass changes (nearly) nothing.
    first, second = read_image(source).rgb.astype(int), read_image(written).rgb.astype(int)
    assert np.abs(first - second).mean() < 1.5


def test_quality_wins_over_the_tables_and_keeps_the_subsampling() -> None:
    picture = read_image(saved(Image.fromarray(_photo()), "JPEG", quality=95, subsampling=1))
    coarse, fine = (opened(encode_image(picture, quality=q)) for q in (30, 98))
    reference = opened(saved(Image.fromarray(_photo()), "JPEG", quality=30))
    assert coarse.quantization == reference.quantization
    assert fine.quantization[0][0] < coarse.quantization[0][0]
    assert coarse.layer[0][1:3] == (2, 1)


def test_quality_of_other_formats() -> None:
    picture = Picture(_photo(), metadata=Metadata(lossless=False))
    for format in ("webp", "avif", "jpeg"):
        assert len(encode_image(picture, format, 20)) < len(encode_image(picture, format, 95))
    for format in ("png", "tiff", "bmp"):
        assert encode_image(picture, format, 20) == encode_image(picture, format)
    lossy = read_image(encode_image(picture, "webp"))
    assert not lossy.metadata.lossless
    assert read_image(encode_image(replace(picture, metadata=Metadata()), "webp")).metadata.lossless


@pytest.mark.parametrize("quality", [0, 101, -3])
def test_quality_outside_its_range(quality: int) -> None:
    with pytest.raises(UsageError, match=f"quality {quality} is outside 1-100"):
        encode_image(Picture(noise(2, 2, 3)), "jpeg", quality)


def test_jpeg_of_noise_at_the_finest_tables_is_written_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    image = Image.fromarray(noise(600, 600, 3))
    fine = saved(image, "JPEG", qtables=[[1] * 64], subsampling=0)
    picture = read_image(fine)
    coding = replace(picture.metadata.jpeg, progressive=True)
    picture = replace(picture, metadata=replace(picture.metadata, jpeg=coding))
    assert opened(encode_image(picture)).quantization[0] == [1] * 64


def test_iptc_captions_of_press_photos_stay() -> None:
    caption = b"\x1c\x02\x78\x00\x04Rain\x1c\x02\x19\x00\x05storm"
    segment = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(caption)) + caption
    plain = saved(Image.fromarray(_photo()), "JPEG")
    file = plain[:20] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[20:]
    picture = read_image(file)
    assert picture.metadata.iptc == caption
    assert opened(encode_image(picture)).info["photoshop"][0x0404] == caption
    assert read_image(encode_image(picture, "tiff")).metadata.iptc == caption


def test_every_format_to_every_format() -> None:
    metadata = Metadata(
        exif=exif_bytes(), icc=SRGB, xmp=XMP % 1, dpi=(300.0, 200.0), iptc=b"\x1c\x02\x78\0\1x"
    )
    for alpha in (None, noise(6, 9, dtype=np.uint16)):
        deep = Picture(noise(6, 9, 3, dtype=np.uint16), alpha, metadata=metadata)
        for target in WRITABLE_FORMATS:
            if alpha is not None and target in ("jpeg", "bmp"):
                continue
            again = read_image(encode_image(deep, target))
            assert again.bit_depth == (16 if target in ("png", "tiff") else 8)
            kept = KEPT_METADATA[target] - {"comment", "extended_xmp", "geo", "png_chunks"}
            if target in ("avif", "webp"):  # have no place of their own for it beside EXIF
                kept -= {"dpi"}
            assert [key for key in kept if not getattr(again.metadata, key)] == []
            reduced = np.rint(deep.rgb / 257) if again.bit_depth == 8 else deep.rgb
            if target not in ("jpeg", "avif"):
                np.testing.assert_array_equal(again.rgb, reduced)
            lost = [note for note in writing_notices(deep, target) if "dropped" in note]
            assert bool(lost) == (target in ("png", "webp", "avif", "bmp"))


@pytest.mark.parametrize("target", ["avif", "bmp", "jpeg", "png", "tiff", "webp"])
def test_resolution_survives_every_format(target: str) -> None:
    picture = Picture(noise(4, 4, 3), metadata=Metadata(dpi=(300.0, 200.0)))
    assert read_image(encode_image(picture, target)).metadata.dpi == pytest.approx(
        (300, 200), abs=0.1
    )
    per_cm = read_image(
        tiff_bytes(noise(4, 4, 3), resolution=(100, 50), resolutionunit="CENTIMETER")
    )
    assert per_cm.metadata.dpi == pytest.approx((254, 127))


def test_exif_of_a_tiff_reaches_a_jpeg_and_comes_back() -> None:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + exif_bytes())
    picture = read_image(saved(Image.fromarray(_photo()), "TIFF", exif=exif))
    for data in (encode_image(picture, "jpeg"), encode_image(picture, "tiff")):
        again = opened(data).getexif()
        assert (again[271], again[272]) == ("Canon", "EOS R5")
        assert again.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        assert again.get_ifd(0x8825)[2] == (48.0, 8.0, 15.5)


def test_a_gray_profile_does_not_go_into_a_colour_file() -> None:
    gray_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    picture = Picture(
        np.repeat(noise(4, 4, 1), 3, 2), gray=True, metadata=Metadata(icc=gray_profile)
    )
    assert "icc_profile" not in opened(encode_image(picture, "webp")).info
    assert "ICC" in writing_notices(picture, "webp")[0]
    assert opened(encode_image(picture, "png")).info["icc_profile"] == gray_profile


def test_what_a_format_cannot_hold_is_one_line() -> None:
    long = Picture(noise(2, 2, 3))
    with pytest.raises(ImageError, match="cannot be written as WEBP"):
        encode_image(Picture(np.zeros((1, 20000, 3), np.uint8)), "webp")
    with pytest.raises(UsageError, match=r"cannot write format 'pngg'. Did you mean 'png'\?"):
        encode_image(long, "pngg")


def test_format_by_the_target_name(tmp_path: Path) -> None:
    picture = read_image(saved(Image.fromarray(_photo()), "PNG"))
    for suffix in (".jpg", ".JPEG", ".png", ".tif", ".webp", ".avif", ".bmp"):
        path = tmp_path / f"x{suffix}"
        write_image(picture, path)
        assert read_image(path).format == format_of_path(path)
        assert probe_image(path) == (160, 120)
        assert suffix.lower() in READABLE_SUFFIXES
    write_image(picture, tmp_path / "no-ending", format="jpg")
    assert read_image(tmp_path / "no-ending").format == "jpeg"
    for name in ("x.gif", "x.heic", "x", "x.txt"):
        with pytest.raises(UsageError, match="cannot write a file that ends in"):
            write_image(picture, tmp_path / name)


def test_avif_of_ten_bits_is_told() -> None:
    deep = cv2.resize(noise(12, 16, 3, dtype=np.uint16) >> 6, (160, 120))
    try:
        data = cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10])[1].tobytes()
    except cv2.error:
        pytest.skip("this OpenCV writes no AVIF")
    picture = read_image(data)
    assert picture.notices == ("has 10 bits per channel, which are read as 8",)
    assert np.abs(picture.rgb[..., ::-1].astype(int) - (deep >> 2)).mean() < 8


HEIC_ABSENT = """
import sys
sys.modules["pillow_heif"] = None  # what an import finds when the extra is not installed
from derain_cli.images import read_image
from derain_cli.errors import UnreadableImageError
try:
    read_image(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic" + bytes(100), name="IMG_1.heic")
except UnreadableImageError as error:
    print(error)
"""


def test_heic_without_the_extra_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEIC_ABSENT], capture_output=True, text=True, check=True
    )
    assert (
        done.stdout == "'IMG_1.heic' is a HEIC photo; to read it: pip install 'derain-cli[heic]'\n"
    )


def test_heic_with_the_extra() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif = pillow_heif.from_pillow(Image.fromarray(_photo()))
    heif.save(buffer, quality=90, exif=b"Exif\0\0" + exif_bytes(), icc_profile=SRGB)
    picture = read_image(buffer.getvalue(), name="IMG_1.HEIC")
    assert picture.format == "heic"
    assert np.abs(picture.rgb.astype(int) - _photo()).mean() < 6
    assert picture.metadata.icc == SRGB
    assert opened(encode_image(picture)).getexif()[271] == "Canon"


def heic(*images: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    heif, buffer = pillow_heif.HeifFile(), io.BytesIO()
    for image in images:
        heif.add_from_pillow(image)
    heif.save(buffer, quality=90, **options)
    return buffer.getvalue()


def test_odd_heics() -> None:
    photo = Image.fromarray(_photo())
    size = _photo().shape[:2]
    assert read_image(heic(photo.convert("L"))).gray
    alpha = read_image(heic(photo.convert("RGBA"))).alpha
    assert alpha is not None
    assert alpha.min() == 255
    turned = heic(photo, exif=exif_bytes(orientation=6))
    assert read_image(turned).rgb.shape[:2] == size[::-1]
    two = read_image(heic(photo, photo.rotate(90, expand=True), primary_index=1))
    assert (two.rgb.shape[:2], two.notices) == (
        size[::-1],
        ("holds 2 images; the main one is used",),
    )
    hdr = read_image(heic(photo, color_primaries=9, transfer_characteristics=16))
    assert (b"cICP", bytes([9, 16, 0, 1])) in hdr.metadata.png_chunks
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = pillow_heif.from_bytes("RGB;16", (32, 32), bytes(32 * 32 * 6))
    buffer = io.BytesIO()
    deep.save(buffer, quality=90)
    assert read_image(buffer.getvalue()).notices == (
        "has 10 bits per channel, which are read as 8",
    )
    for part in (0.3, 0.7, 0.95):
        with pytest.raises(UnreadableImageError, match="is damaged or cut short"):
            read_image(turned[: int(part * len(turned))])


@pytest.mark.parametrize(
    ("kind", "brand", "name"),
    [(b"j2k1", b"j2ki", "JPEG 2000"), (b"vvc1", b"vvic", r"H\.266"), (b"unci", b"mif1", "no")],
)
def test_other_codecs_in_a_heif_are_called_by_name(kind: bytes, brand: bytes, name: str) -> None:
    item = b"\0\0\0\x15infe\2\0\0\0\0\1\0\0" + kind + b"\0"
    data = b"\0\0\0\x18ftyp" + brand + bytes(4) + b"miaf" + brand + item + bytes(200)
    with pytest.raises(UnreadableImageError, match=f"a HEIF image with {name} compression"):
        read_image(data)


# The library's manners


def test_no_warning_and_no_print_for_odd_files(capfd: pytest.CaptureFixture[str]) -> None:
    deep = noise(5, 5, 3, dtype=np.uint16)
    bad_profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    odd = [
        png_bytes(deep, 16, 2, bad_profile, chunk(b"acTL", bytes(8))),
        png_bytes(noise(5, 5, 3), 8, 2, bad_profile, chunk(b"acTL", bytes(8))),
        tiff_bytes(noise(4, 4, 3), extratags=[(274, 3, 2, (1, 1), True), (33432, 2, 0, "x", True)]),
        tiff_bytes(deep, extratags=[(50000, 7, 4, b"abcd", True)]),
        saved(Image.fromarray(noise(5, 5) % 4, "P"), "PNG", transparency=bytes([0, 9, 99])),
        *(data[: len(data) // 2] for data in WHOLE.values()),
    ]
    for data in odd:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                encode_image(read_image(data))
            except DerainError:
                continue
    assert capfd.readouterr() == ("", "")


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before, file = list(warnings.filters), saved(Image.fromarray(_photo()), "PNG")
    threads = [threading.Thread(target=read_image, args=(file,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_names_may_be_strings(tmp_path: Path) -> None:
    name = str(tmp_path / "x.png")
    write_image(Picture(noise(3, 4, 3)), name)
    assert probe_image(name) == (4, 3)
    np.testing.assert_array_equal(read_image(name).rgb, noise(3, 4, 3))


def test_importing_loads_no_torch_and_no_opencv() -> None:
    late = "('torch', 'cv2', 'tifffile')"
    code = f"import sys, derain_cli.images; print([m for m in {late} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = saved(Image.fromarray(noise(30, 30, 3)), "PNG")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    picture = read_image(pipe)
    writer.join()
    np.testing.assert_array_equal(picture.rgb, noise(30, 30, 3))


def test_with_rgb_refuses_other_shapes_and_types() -> None:
    picture = Picture(noise(3, 4, 3))
    with pytest.raises(ValueError, match="expected uint8 pixels of shape"):
        picture.with_rgb(noise(4, 3, 3))
    with pytest.raises(ValueError, match="got uint16"):
        picture.with_rgb(noise(3, 4, 3, dtype=np.uint16))
    assert (picture.height, picture.width, picture.bit_depth) == (3, 4, 8)
