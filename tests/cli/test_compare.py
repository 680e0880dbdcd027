import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from derain_cli.cli.app import app
from derain_cli.evaluation.photo_comparison import _data_address

Run = Callable[..., Result]


@pytest.fixture
def networks(tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    """Two files of one network: two names to compare."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_checkpoint.read_bytes())
    return ["-m", str(tiny_checkpoint), "-m", str(other)]


def run(*arguments: object) -> Result:
    engine = ["--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(app, ["compare", *map(str, arguments), *engine])


def test_a_page_holds_the_photo_and_each_result(networks: list[str], photos: Path) -> None:
    photo = photos / "below" / "b.png"
    original = photo.read_bytes()
    result = run(photo, *networks)
    assert result.exit_code == 0, result.stderr
    target = photo.with_name("b_models.html")
    assert result.stdout == f"{target}\n"
    page = target.read_text(encoding="utf-8")
    contents = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    images = [Image.open(io.BytesIO(base64.b64decode(content))) for content in contents]
    assert [image.size for image in images] == [(24, 16)] * 3
    assert np.abs(np.asarray(images[0], int) - np.asarray(Image.open(photo), int)).mean() < 8
    assert "of the pixels changed" in page
    assert "http" not in page  # it asks nobody for anything
    assert photo.read_bytes() == original


def test_an_image_holds_them_side_by_side(networks: list[str], photos: Path) -> None:
    target = photos / "sheet.png"
    assert run(photos / "a2.jpg", *networks, "-o", target).exit_code == 0
    with Image.open(target) as sheet:
        assert sheet.width == 3 * 24 + 2 * 8
        assert sheet.height > 16


def test_what_makes_no_comparison_is_refused(networks: list[str], photos: Path) -> None:
    photo = photos / "a2.jpg"
    assert "name at least two weights" in run(photo, *networks[:2]).stderr
    assert "must end in .html" in run(photo, *networks, "-o", photos / "x.txt").stderr
    assert "is the photo itself" in run(photo, *networks, "-o", photo, "--overwrite").stderr
    (photos / "a2_models.html").write_text("mine")
    assert "exists already" in run(photo, *networks).stderr
    assert (photos / "a2_models.html").read_text() == "mine"


def test_a_photo_that_is_none_is_named_and_nothing_is_made(
    networks: list[str], photos: Path
) -> None:
    missing = photos / "nowhere" / "a.jpg"
    result = run(missing, *networks)
    assert (result.exit_code, "does not exist" in result.stderr) == (1, True)
    assert not missing.parent.exists()
    assert "'.' is a folder, not an image" in run(".", *networks).stderr


def test_a_side_that_no_jpeg_holds_is_shown_as_png() -> None:
    narrow, wide = np.zeros((2, 9, 3), np.uint8), np.zeros((2, 66_000, 3), np.uint8)
    assert _data_address(narrow).startswith("data:image/jpeg;base64,")
    assert _data_address(wide).startswith("data:image/png;base64,")
