"""The contact sheet of kinds of rain."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.errors import DatasetError
from derain_cli.rain import streaks
from derain_cli.rain.sheet import LABEL, SIDE, draw_sheet


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr(streaks, "BANK_LAYERS", 2)
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 200, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


def test_a_row_per_kind(tmp_path, photos):
    draw_sheet(photos, tmp_path / "sheet.png", ("wide", "dry"), columns=3, seed=1)
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (2 * (SIDE + LABEL), 3 * SIDE, 3)
    first, second, third = np.split(sheet[-SIDE:], 3, axis=1)
    np.testing.assert_array_equal(first, third)  # the photos take turns
    assert (first != second).any()


def test_by_command(tmp_path, photos):
    out = tmp_path / "sheet.png"
    options = ["--out", str(out), "--rain", "large", "--columns", "1"]
    result = CliRunner().invoke(app, ["datasets", "rain-sheet", str(photos), *options])
    assert result.exit_code == 0, result.output
    with Image.open(out) as sheet:
        assert sheet.size == (SIDE, SIDE + LABEL)


def test_a_folder_without_photos_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no images in"):
        draw_sheet(tmp_path, tmp_path / "sheet.png", ("dry",))


def test_no_photo_and_no_file_is_replaced_unasked(tmp_path, photos):
    def draw(out, *more):
        words = ["datasets", "rain-sheet", str(photos), "--out", str(out), "--rain", "dry", *more]
        return CliRunner().invoke(app, words)

    before = (photos / "0.png").read_bytes()
    among = draw(photos / "0.png", "--overwrite")
    assert (among.exit_code, "lies among the photos" in among.stderr) == (2, True)
    assert (photos / "0.png").read_bytes() == before
    (tmp_path / "mine.png").write_bytes(b"mine")
    refused = draw(tmp_path / "mine.png")
    assert (refused.exit_code, "--overwrite replaces it" in refused.stderr) == (2, True)
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert draw(tmp_path / "mine.png", "--overwrite").exit_code == 0
