"""Programs of other hands on our results: `pytest -m slow tests/images/test_other_readers.py`.

Debian's packages: libimage-exiftool-perl, imagemagick, ffmpeg, libvips-tools. What is not installed
is skipped by name.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from derain_cli.images import Picture, encode_image, read_image
from tests.fuzz.specimens import image_files

pytestmark = pytest.mark.slow

FORMATS = ("avif", "bmp", "jpeg", "png", "tiff", "webp")
LOSSLESS = (".png", ".tiff", ".bmp")
Results = dict[Path, Picture]
REMARKS = (
    "MakerNote",  # its type in the specimens is what Pillow makes of it
    "(XMP) @ warning/profile.c",  # ImageMagick 6 says so of any XMP in a WebP
    "ignoring nclx profile",  # there is an ICC profile, too
    "not permitted on grayscale PNG",  # the specimens' colour profile, which gray files may have
    "Unknown field with tag",  # GeoTIFF's
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every kind of file that is read, written in every format, and how we read it again."""
    folder, written = tmp_path_factory.mktemp("readers"), {}
    for name, data in image_files().items():
        picture = read_image(data, name=name)
        for format in FORMATS:
            if picture.alpha is None or format not in ("bmp", "jpeg"):
                path = folder / f"{name.replace('.', '-')}.{format}"
                path.write_bytes(encode_image(picture, format))
                written[path] = read_image(path)
    assert len(written) > 100
    return written


def output_of(command: list[object]) -> bytes:
    """What a program prints; it must have nothing to complain about."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    lines = [line for line in done.stderr.decode().splitlines() if line]
    said = [line for line in lines if not any(remark in line for remark in REMARKS)]
    assert (done.returncode, said) == (0, []), command
    return done.stdout


def check_pixels(path: Path, raw: bytes, ours: Picture) -> None:
    """Pixels of as many bits as ours, in the machine's byte order, against ours."""
    theirs = np.frombuffer(raw, ours.rgb.dtype).reshape(ours.height, ours.width, -1)
    assert theirs.shape[2] in (1, 3), path
    difference = np.abs(theirs - ours.rgb.astype(int))
    # Decoders of lossy formats round apart, and enlarge colour in ways of their own.
    assert difference.max() == 0 if path.suffix in LOSSLESS else difference.mean() < 8, path


def test_exiftool_finds_no_fault(results: Results) -> None:
    command = ["exiftool", "-q", "-json", "-warning", "-error", "-ImageWidth"]
    told = json.loads(output_of([*command, *results]))
    assert len(told) == len(results)
    # The maker's note of the specimens is no directory.
    assert {facts.get("Warning") for facts in told} <= {None, "[minor] Bad MakerNotes directory"}
    assert not any("Error" in facts for facts in told)
    assert all(facts["ImageWidth"] == results[Path(facts["SourceFile"])].width for facts in told)


def test_imagemagick_sees_the_same_pixels(results: Results) -> None:
    program = next((name for name in ("magick", "convert-im6.q16") if shutil.which(name)), "magick")
    for path, ours in results.items():
        if path.suffix != ".avif":  # few have a decoder for it
            options = ["-depth", ours.bit_depth, "-endian", "LSB", "rgb:-"]
            check_pixels(path, output_of([program, f"{path}[0]", "-alpha", "off", *options]), ours)


def test_ffmpeg_sees_the_same_pixels(results: Results) -> None:
    for path, ours in results.items():
        if ours.alpha is None:
            command = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-frames:v", "1"]
            kind = "rgb24" if ours.bit_depth == 8 else "rgb48le"
            check_pixels(path, output_of([*command, "-pix_fmt", kind, "-"]), ours)


def test_libvips_sees_the_same_pixels(results: Results, tmp_path: Path) -> None:
    for path, ours in results.items():
        if path.suffix != ".bmp" and ours.alpha is None:
            output_of(["vips", "copy", path, tmp_path / "x.v"])
            output_of(["vips", "rawsave", tmp_path / "x.v", tmp_path / "x.raw"])
            check_pixels(path, (tmp_path / "x.raw").read_bytes(), ours)
