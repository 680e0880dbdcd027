"""The table of data sets, where they are looked for, and errors that name the pair."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import (
    DATASETS,
    dataset_folder,
    dataset_named,
    dataset_pairs,
    describe_count,
    training_pairs,
)
from derain_cli.datasets.layouts import Pair, find_pairs
from derain_cli.errors import DatasetError
from derain_cli.metrics.full_reference import PROTOCOLS


def image(path: Path, size: tuple[int, int] = (40, 32), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pairs_in(folder: Path, count: int = 1) -> Path:
    for number in range(1, count + 1):
        image(folder / f"rain/{number}.png")
        image(folder / f"norain/{number}.png")
    return folder


def test_table_holds_the_published_sets():
    published = {
        "rain100l": 100,
        "rain100h": 100,
        "rain200l": 200,
        "rain200h": 200,
        "rain800": 100,
        "rain1200": 1200,
        "rain1400": 1400,
        "rain12": 12,
        "spa": 1000,
        "ddn_sirr_test": 20,
    }
    assert {name: DATASETS[name].pairs for name in published} == published
    assert {DATASETS[name].split for name in published} == {"test"}
    assert {dataset.split for dataset in DATASETS.values()} == {"train", "test", "real"}
    assert {dataset.protocol for dataset in DATASETS.values()} <= set(PROTOCOLS)
    for dataset in DATASETS.values():
        assert not dataset.groups or sum(dataset.groups.values()) == dataset.pairs


def test_no_two_sets_share_a_name():
    named = Counter(
        dataset_named(name) for key, known in DATASETS.items() for name in (key, *known.aliases)
    )
    assert named == {key: 1 + len(known.aliases) for key, known in DATASETS.items()}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Rain100L", "rain100l"),
        ("ddn-sirr", "ddn_sirr_test"),
        ("/data/Rain200H/test", "rain200h"),
        ("/data/Rain200H/train", "rain200h_train"),
        ("rain12600", "rain1400_train"),
        ("rain/rain100", None),
    ],
)
def test_names_are_known_however_they_are_written(name, key):
    assert dataset_named(name) == key


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("rain100l", "rain100l"),
        ("rain100l", "Rain100L"),
        ("rain200h", "Rain200H/test"),
        ("rain200h_train", "Rain200H/train"),
        ("rain100h_train", "RainTrainH"),
        ("ddn-sirr", "ddn_sirr_test"),
        ("rain800", "Test100"),
        ("spa", "real_test_1000"),
        ("my photos", "my photos"),
    ],
)
def test_a_set_is_found_under_its_folders_names(tmp_path, name, folder):
    pairs_in(tmp_path / folder)
    if folder.startswith("Rain200H"):
        pairs_in(tmp_path / "Rain200H" / ("train" if folder.endswith("test") else "test"))
    assert dataset_folder(name, tmp_path) == tmp_path / folder


def test_a_path_is_taken_as_it_is(tmp_path):
    folder = pairs_in(tmp_path / "here")
    assert dataset_folder(str(folder), tmp_path / "elsewhere") == folder


def test_missing_dataset_says_where_to_put_it(tmp_path):
    with pytest.raises(DatasetError, match=r"rain100l.*`data_root`"):
        dataset_pairs("rain100l", tmp_path)
    with pytest.raises(DatasetError, match="Did you mean 'rain100l'"):
        dataset_pairs("rain10l", tmp_path)


def test_groups_follow_the_order_of_names_when_nothing_is_missing(tmp_path):
    pairs_in(tmp_path / "ddn_sirr_test", 20)
    groups = [pair.group for pair in dataset_pairs("ddn-sirr", tmp_path)]
    assert groups == ["dense"] * 10 + ["sparse"] * 10
    (tmp_path / "ddn_sirr_test/rain/20.png").unlink()
    (tmp_path / "ddn_sirr_test/norain/20.png").unlink()
    assert {pair.group for pair in dataset_pairs("ddn-sirr", tmp_path)} == {""}


@pytest.mark.parametrize("name", ["rain100l", "Rain100L", "{}/Rain200H/test", "{}/Rain200H"])
def test_test_sets_are_never_trained_on(tmp_path, name):
    for folder in ("rain100l", "Rain200H/test"):
        pairs_in(tmp_path / folder)
    with pytest.raises(DatasetError, match="is a test set"):
        training_pairs(name.format(tmp_path), tmp_path)


def test_training_sets_are_given_out(tmp_path):
    pairs_in(tmp_path / "Rain200H/train", 3)
    assert len(training_pairs("rain200h_train", tmp_path)) == 3


def test_counts_are_told_against_what_is_expected():
    assert describe_count("rain100h", 200) == (
        "200 pairs, 100 expected: the version of 2018, called rain200l or rain200h here"
    )
    assert "no version known" in describe_count("rain100h", 99)
    assert describe_count("ddn_sirr_real", 147) == "147 of 147 images"


def test_unequal_sizes_are_an_error_that_names_the_pair(tmp_path):
    image(tmp_path / "rainy/1.png", (40, 32))
    image(tmp_path / "clean/1.png", (40, 30))
    (pair,) = find_pairs(tmp_path)
    with pytest.raises(DatasetError, match=r"pair '1': .*40x32.*40x30"):
        read_pair(pair)


def test_an_unreadable_image_is_an_error_that_names_the_pair(tmp_path):
    image(tmp_path / "clean/1.png")
    (tmp_path / "rainy").mkdir()
    (tmp_path / "rainy/1.png").write_text("<html>")
    with pytest.raises(DatasetError, match=r"pair '1': '.*1\.png' is"):
        read_pair(find_pairs(tmp_path)[0])


def test_a_truncated_image_is_an_error_not_a_grey_half(tmp_path):
    whole = image(tmp_path / "rainy/1.jpg", (200, 160)).read_bytes()
    (tmp_path / "rainy/1.jpg").write_bytes(whole[: len(whole) // 2])
    image(tmp_path / "clean/1.jpg", (200, 160))
    with pytest.raises(DatasetError, match="pair '1'"):
        read_pair(find_pairs(tmp_path)[0])


def test_halves_are_cut_apart(tmp_path):
    path = image(tmp_path / "1.png", (40, 32))
    pixels = np.asarray(Image.open(path))
    for half, rainy_columns in (("left", slice(0, 20)), ("right", slice(20, 40))):
        rainy, clean = read_pair(Pair("1", path, path, half))
        np.testing.assert_array_equal(rainy, pixels[:, rainy_columns])
        assert clean.shape == rainy.shape
        assert not np.array_equal(clean, rainy)
    odd = image(tmp_path / "2.png", (41, 32))
    with pytest.raises(DatasetError, match=r"pair '2': .* 41 pixels wide"):
        read_pair(Pair("2", odd, odd, "left"))


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    path = tmp_path / "1.png"
    deep = np.array([[[0, 128, 129], [65535, 257 * 200, 257 * 200 + 128]]], np.uint16)
    path.write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    rainy, _ = read_pair(Pair("1", path, path))
    assert rainy.tolist() == [[[0, 0, 1], [255, 200, 200]]]
