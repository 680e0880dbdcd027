"""Pairs made of clean images."""

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.layouts import find_pairs
from derain_cli.errors import DatasetError, ResourceError, UsageError
from derain_cli.rain.synthesis import synthesize


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 200, (32, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_pairs_are_written_that_are_found_again(tmp_path, photos):
    assert synthesize(photos, tmp_path / "made", "large", 3) == 2
    pairs = find_pairs(tmp_path / "made")
    rainy, clean = read_pair(pairs[0])
    assert (rainy >= clean).all()
    assert (rainy > clean).any()
    synthesize(photos, tmp_path / "again", "large", 3)
    np.testing.assert_array_equal(rainy, read_pair(find_pairs(tmp_path / "again")[0])[0])
    with pytest.raises(UsageError, match="not empty"):
        synthesize(photos, tmp_path / "made", "large", 3)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["clean", "rainy"]


def test_rain_of_a_data_set_below_the_data_root(tmp_path, photos):
    synthesize(photos, tmp_path / "root" / "mine", "heavy", 0)
    made = synthesize(photos, tmp_path / "made", "pairs:mine", 0, tmp_path / "root")
    assert made == 2


def test_the_clean_images_are_never_replaced(tmp_path, photos):
    originals = tmp_path / "clean"
    photos.rename(originals)
    before = {path: path.read_bytes() for path in originals.iterdir()}
    for holds in (None, lambda _name: True):
        with pytest.raises(UsageError, match=r"would replace the images of '.*clean'"):
            synthesize(originals, tmp_path, "large", 3, holds=holds)
    assert {path: path.read_bytes() for path in originals.iterdir()} == before


def test_two_images_of_one_name_are_refused(tmp_path, photos):
    Image.new("RGB", (40, 32)).save(photos / "A.jpg")
    with pytest.raises(DatasetError, match=r"'A.jpg' and 'a.png' would both|'a.png' and 'A.jpg'"):
        synthesize(photos, tmp_path / "made", "large", 0)
    assert not (tmp_path / "made").exists()


def test_a_image_that_cannot_be_read_leaves_nothing(tmp_path, photos):
    (photos / "z.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"z\.png"):
        synthesize(photos, tmp_path / "made", "large", 0)
    assert not (tmp_path / "made").exists()
    (tmp_path / "mine" / "rainy").mkdir(parents=True)
    with pytest.raises(DatasetError):
        synthesize(photos, tmp_path / "mine", "large", 0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["rainy"]


def test_a_full_disk_leaves_nothing(tmp_path, photos, monkeypatch):
    def full(path, content):
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("derain_cli.whole_files.write_whole_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        synthesize(photos, tmp_path / "made", "large", 0)
    assert not (tmp_path / "made").exists()


def test_a_scene_changes_the_clean_image_too(tmp_path, photos):
    synthesize(photos, tmp_path / "made", "veil+large", 3)
    rainy, clean = read_pair(find_pairs(tmp_path / "made")[0])
    assert (rainy >= clean).all()
    assert (rainy > clean).any()
    with Image.open(photos / "a.png") as opened:
        photo = np.asarray(opened)
    assert clean.std() < photo.std()
