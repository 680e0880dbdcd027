"""Readable means read, damaged means said, unsupported is called by its name."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from derain_cli.errors import UnreadableImageError
from derain_cli.images import Picture, read_image

RANDOM = np.random.default_rng(5)
NOISE = RANDOM.integers(0, 256, (40, 50, 3), np.uint8)


def photo() -> Image.Image:
    small = Image.fromarray(RANDOM.integers(0, 256, (24, 32, 3), np.uint8))
    return small.resize((480, 360), Image.Resampling.BICUBIC)


PHOTO = photo()


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes, *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + data) ^ wrong
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(pixels: bytes, *extras: bytes, depth: int = 8, end: bytes | None = None) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, depth, 2, 0, 0, 0))
    end = chunk(b"IEND", b"") if end is None else end
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extras) + pixels + end


def rows(depth: int = 8) -> bytes:
    samples = NOISE if depth == 8 else NOISE.astype(">u2") * 257
    return b"".join(b"\0" + row.tobytes() for row in samples)


def stored(data: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(data, 0))


def said_of(data: bytes) -> tuple[Picture, str]:
    """The image and the one notice about it; a strict reader refuses it with the same words."""
    picture = read_image(data)
    (notice,) = picture.notices
    with pytest.raises(UnreadableImageError, match=r"without `strict`$") as caught:
        read_image(data, strict=True)
    assert notice in str(caught.value)
    return picture, notice


# Side chunks that do not matter

XMP_MARK = b"XML:com.adobe.xmp\0"
PIXEL_COUNT = 40 * 50
DROPPED = {
    "profile of zeros": (
        chunk(b"iCCP", b"printer\0\0" + zlib.compress(bytes(1_500_000))),
        "its colour profile is damaged and was dropped",
    ),
    "text with a wrong checksum": (
        chunk(b"tEXt", b"Comment\0hello", wrong=True),
        "its tEXt chunk is damaged and was dropped",
    ),
    "profile with a wrong checksum": (
        chunk(b"iCCP", b"x\0\0" + zlib.compress(b"x" * 200), wrong=True),
        "its iCCP chunk is damaged and was dropped",
    ),
    "gamma of two bytes": (chunk(b"gAMA", b"\0\1"), "its gAMA chunk is damaged and was dropped"),
    "XMP that cannot be inflated": (
        chunk(b"iTXt", XMP_MARK + b"\1\0\0\0" + b"nonsense"),
        "its XMP is damaged or too large and was dropped",
    ),
}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", DROPPED)
def test_a_damaged_side_chunk_does_not_cost_the_pixels(name: str, depth: int) -> None:
    extra, expected = DROPPED[name]
    picture, notice = said_of(png(stored(rows(depth)), extra, depth=depth))
    np.testing.assert_array_equal(picture.rgb, NOISE * np.uint16(1 if depth == 8 else 257))
    assert notice == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_large_texts_are_kept(depth: int) -> None:
    prompt = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"masterpiece, " * 170_000))
    packet = zlib.compress(b"<x>" + b"<!-- DocumentAncestors -->" * 90_000 + b"</x>")
    xmp = chunk(b"iTXt", XMP_MARK + b"\1\0\0\0" + packet)
    picture = read_image(png(stored(rows(depth)), prompt, xmp, depth=depth))
    assert picture.notices == ()
    assert picture.metadata.png_chunks == ((b"zTXt", prompt[8:-4]),)
    assert len(picture.metadata.xmp) > 2_000_000


def test_a_text_of_70_megabytes_is_dropped_with_a_notice() -> None:
    data = png(stored(rows()), chunk(b"iTXt", XMP_MARK + bytes(70_000_000)))
    assert read_image(data).notices == ("its iTXt chunk of 70,000,018 bytes is dropped: too large",)


# Pixels of a PNG


@pytest.mark.parametrize("depth", [8, 16])
def test_missing_rows_are_a_failure(depth: int) -> None:
    whole = rows(depth)
    for part in (0, len(whole) // 40, len(whole) - len(whole) // 40, len(whole) - 1):
        for strict in (False, True):
            with pytest.raises(UnreadableImageError, match="bytes of its rows are missing"):
                read_image(png(stored(whole[:part]), depth=depth), strict=strict)


def test_missing_rows_of_an_interlaced_png_are_a_failure() -> None:
    first_and_step = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2))
    data = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in (*first_and_step, (0, 1, 2, 2), (1, 0, 2, 1))
        for row in NOISE[top::down, left::right]
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 8, 2, 0, 0, 1))
    start, end = b"\x89PNG\r\n\x1a\n" + header, chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_image(start + stored(data) + end).rgb, NOISE)
    with pytest.raises(UnreadableImageError, match=r"151 of [\d,]+ bytes of its rows are missing"):
        read_image(start + stored(data[:-151]) + end)


@pytest.mark.parametrize("depth", [8, 16])
def test_wrong_checksums_are_said(depth: int, capfd: pytest.CaptureFixture[str]) -> None:
    whole, deflated = rows(depth), zlib.compress(rows(depth), 0)
    expected = "may be damaged: the checksum of its pixels is wrong"
    right = NOISE * np.uint16(1 if depth == 8 else 257)
    for pixels in (
        chunk(b"IDAT", deflated, wrong=True),
        chunk(b"IDAT", deflated[:-4] + b"sums"),
        stored(whole + bytes(300)),  # the sum is that of other rows
    ):
        picture, notice = said_of(png(pixels, depth=depth))
        assert notice == expected
        np.testing.assert_array_equal(picture.rgb, right)
    _, notice = said_of(png(stored(whole), depth=depth, end=b""))
    assert notice == "is damaged behind its pixels: the end mark is missing"
    for harmless in (deflated + b"more", b"\x99\x99" + deflated[2:]):
        picture = read_image(png(chunk(b"IDAT", harmless), depth=depth))
        assert picture.notices == ()
        np.testing.assert_array_equal(picture.rgb, right)
    with pytest.raises(UnreadableImageError, match="a row begins with an unknown filter"):
        read_image(png(stored(b"\x09" + whole[1:]), depth=depth))
    assert capfd.readouterr() == ("", "")


def test_odd_headers_are_refused_without_a_word_on_stderr() -> None:
    """In a process of its own: pytest's handlers would take what Python prints for want of any."""
    odd_png = png(stored(rows(16)), depth=16)
    header = bytearray(odd_png[16:29])
    header[11] = 1  # the filter method
    odd_png = odd_png[:8] + chunk(b"IHDR", bytes(header)) + odd_png[33:]
    plain = tiff(NOISE)
    at = plain.index(struct.pack("<HHIH", 277, 3, 1, 3)) + 8
    odd_tiff = plain[:at] + struct.pack("<H", 260) + plain[at + 2 :]
    files = f"{odd_png.hex()}\n{odd_tiff.hex()}"
    command = [sys.executable, "-c", WITHOUT_CODECS]
    done = subprocess.run(command, input=files, capture_output=True, text=True, check=True)
    assert "unknown compression or filter method" in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


# JPEG

CODINGS = ({}, {"optimize": True}, {"subsampling": 0})


@pytest.mark.parametrize("coding", CODINGS)
def test_512_zero_bytes_anywhere_in_a_jpeg_are_said(coding: dict[str, object]) -> None:
    whole = saved(PHOTO, "JPEG", quality=90, **coding)
    assert read_image(whole, strict=True).notices == ()
    for at in np.linspace(1000, len(whole) - 600, 10).astype(int):
        damaged = whole[:at] + bytes(512) + whole[at + 512 :]
        assert "may be damaged" in read_image(damaged).notices[0]
        with pytest.raises(UnreadableImageError, match="may be damaged"):
            read_image(damaged, strict=True)


@pytest.mark.parametrize("quality", [75, 90])
def test_512_zero_bytes_in_any_coded_pass_of_a_progressive_jpeg_are_said(quality: int) -> None:
    whole = saved(PHOTO, "JPEG", quality=quality, progressive=True)
    assert read_image(whole, strict=True).notices == ()
    for at in np.linspace(1000, len(whole) - 600, 20).astype(int):
        damaged = whole[:at] + bytes(512) + whole[at + 512 :]
        with pytest.raises(UnreadableImageError, match="damaged"):
            read_image(damaged, strict=True)


def patterns() -> list[Image.Image]:
    """Drawings whose compressed data hold long runs of equal bits."""
    rows, columns = np.mgrid[0:400, 0:600]
    drawn = (
        (rows + columns) % 256,
        columns * 255 // 600,
        (rows // 8 + columns // 8) % 2 * 255,
        (rows % 8 < 4) * 80 + 60,
        ((rows // 64 + columns // 64) % 2) * (columns % 2) * 255,
    )
    return [Image.fromarray(values.astype(np.uint8)) for values in drawn]


@pytest.mark.parametrize("quality", [5, 50, 92, 100])
def test_drawn_patterns_are_not_called_damaged(quality: int) -> None:
    for image in patterns():
        for options in ({}, {"optimize": True}, {"progressive": True}):
            for kind in (image, image.convert("RGB")):
                data = saved(kind, "JPEG", quality=quality, **options)
                assert read_image(data).notices == ()


def test_a_jpeg_with_a_gap_is_said_and_still_read() -> None:
    whole = saved(PHOTO, "JPEG", quality=90)
    picture, notice = said_of(whole[:9000] + whole[11000:])
    assert "its decoder says 'Corrupt JPEG data" in notice
    assert picture.rgb.shape == (360, 480, 3)


@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 30)])
@pytest.mark.parametrize("progressive", [False, True])
def test_flat_jpegs_are_not_called_damaged(
    colour: tuple[int, int, int], *, progressive: bool
) -> None:
    for optimize in (False, True):
        flat = Image.new("RGB", (1200, 1000), colour)
        for image in (flat, flat.convert("L")):
            data = saved(image, "JPEG", progressive=progressive, optimize=optimize)
            assert read_image(data).notices == ()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_colour_model_is_checked(mode: str) -> None:
    whole = saved(PHOTO.convert(mode), "JPEG", quality=90)
    damaged = whole[:5000] + whole[7000:]
    assert any("its decoder says" in notice for notice in read_image(damaged).notices)


def test_strict_and_lenient_decoders_agree() -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 1}, {"subsampling": 0}):
        data = saved(PHOTO, "JPEG", quality=80, **options)
        np.testing.assert_array_equal(
            read_image(data).rgb, np.asarray(Image.open(io.BytesIO(data)))
        )


# TIFF


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg", "group3", "group4"])
def test_zeros_in_the_middle_of_a_tiff_are_said(compression: str) -> None:
    bilevel = compression.startswith("group")
    whole = saved(PHOTO.convert("1") if bilevel else PHOTO, "TIFF", compression=compression)
    assert read_image(whole, strict=True).notices == ()
    for part in (0.3, 0.5, 0.7):
        at = int(part * len(whole))
        with pytest.raises(UnreadableImageError, match="damaged"):
            read_image(whole[:at] + bytes(128) + whole[at + 128 :], strict=True)


def test_a_flipped_bit_in_a_fax_is_said_and_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = bytearray(saved(PHOTO.convert("1"), "TIFF", compression="group4"))
    data[len(data) // 2] ^= 4
    _, notice = said_of(bytes(data))
    assert "may be damaged: its decoder says" in notice
    assert capfd.readouterr() == ("", "")


def tiff(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    options = {"photometric": "rgb", "metadata": None, "byteorder": "<"} | options
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("depth", [8, 16])
def test_missing_strips_are_a_failure(depth: int) -> None:
    samples = NOISE if depth == 8 else NOISE.astype(np.uint16)
    whole = bytearray(tiff(samples, rowsperstrip=8))
    read_image(bytes(whole))
    for tag in (273, 279):  # five strips become four
        at = next(
            whole.find(entry)
            for kind in (3, 4)
            if (entry := struct.pack("<HHI", tag, kind, 5)) in whole
        )
        whole[at + 4] = 4
    with pytest.raises(UnreadableImageError, match="1 of its strips are missing"):
        read_image(bytes(whole))


def test_the_reduced_page_is_not_the_image() -> None:
    for depth in (np.uint8, np.uint16):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as file:
            for kind in (1, 0, 1):  # the photo between two thumbnails
                page = NOISE[:16] if kind == 1 else NOISE
                file.write(page.astype(depth), photometric="rgb", subfiletype=kind)
        picture = read_image(buffer.getvalue())
        np.testing.assert_array_equal(picture.rgb, NOISE)
        assert picture.notices == ("holds 3 pages; page 2, the first of full size, is used",)


# Kinds that are not read


def with_compression(kind: type, compression: int) -> bytes:
    data = bytearray(tiff(np.zeros((16, 16, 3), kind)))
    at = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    data[at : at + 2] = struct.pack("<H", compression)
    return bytes(data)


JPEG = saved(PHOTO, "JPEG")
SOF = JPEG.index(b"\xff\xc0")
KINDS = {
    "a 16-bit TIFF with ZSTD compression": with_compression(np.uint16, 50000),
    "a 16-bit TIFF with WebP compression": with_compression(np.uint16, 50001),
    "an 8-bit TIFF with JPEG 2000 compression": with_compression(np.uint8, 34712),
    "an 8-bit TIFF with JPEG XL compression": with_compression(np.uint8, 50002),
    "an 8-bit TIFF with WebP compression": with_compression(np.uint8, 50001),
    "an 8-bit TIFF with LERC compression": with_compression(np.uint8, 34887),
    "a 12-bit JPEG": JPEG[: SOF + 4] + b"\x0c" + JPEG[SOF + 5 :],
    "a lossless JPEG": JPEG[:SOF] + b"\xff\xc3" + JPEG[SOF + 2 :],
    "a hierarchical JPEG": JPEG[:SOF] + b"\xff\xc5" + JPEG[SOF + 2 :],
}
WITHOUT_CODECS = """
import sys, warnings
warnings.simplefilter("error")
sys.modules["imagecodecs"] = None  # what an import finds when the extra is not installed
from derain_cli.images import read_image
from derain_cli.errors import UnreadableImageError
for line in sys.stdin:
    try:
        print("read", read_image(bytes.fromhex(line)).notices)
    except UnreadableImageError as error:
        print(error)
"""


def test_kinds_that_are_not_read_are_called_by_name() -> None:
    command = [sys.executable, "-c", WITHOUT_CODECS]
    files = "\n".join(data.hex() for data in KINDS.values())
    done = subprocess.run(command, input=files, capture_output=True, text=True, check=True)
    lines = dict(zip(KINDS, done.stdout.splitlines(), strict=True))
    for kind, line in lines.items():
        assert line.startswith(f"standard input is {kind}, which is unsupported; "), line
        assert "save it" in line or "export it as" in line
        assert line.endswith("(or, to read it: pip install 'derain-cli[codecs]')")
    assert done.stderr == ""


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", ["zstd", "lerc", "jpegxl"])
def test_the_extra_reads_rare_compressions(compression: str, kind: type) -> None:
    pytest.importorskip("imagecodecs")
    samples = NOISE.astype(kind)
    picture = read_image(tiff(samples, compression=compression))
    np.testing.assert_array_equal(picture.rgb, samples)


def test_the_extra_reads_lossless_jpegs() -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    gray = NOISE[..., 0].astype(np.uint16) * 16
    picture = read_image(imagecodecs.ljpeg_encode(gray, bitspersample=12))
    assert (picture.gray, picture.bit_depth) == (True, 16)
    expected = np.rint(gray * (65535 / 4095)).astype(np.uint16)
    np.testing.assert_array_equal(picture.rgb[..., 1], expected)
