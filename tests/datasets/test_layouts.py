"""Layouts that circulate, and images without a partner."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.layouts import find_pairs, list_images, match_pairs, recognise
from derain_cli.errors import DatasetError

SCENE = np.linspace(0, 6.3, 64)


def scene(seed: int) -> np.ndarray:
    """A smooth image `(48, 64, 3)` unlike that of another seed."""
    rng = np.random.default_rng(seed)
    shift, pitch = rng.uniform(0, 6, 2), rng.uniform(1, 3, 2)
    waves = (
        np.sin(pitch[0] * SCENE + shift[0])[None] + np.cos(pitch[1] * SCENE + shift[1])[:48, None]
    )
    return np.repeat((90 + 40 * waves)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def image(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene(0) if pixels is None else pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("rainy/1.png", "clean/1.png"),
        ("Rainy/1.png", "Clean/1.PNG"),
        ("rain/rain-001.png", "norain/norain-001.png"),
        ("rain/001x2.png", "clean/001.png"),
        ("rain/X2/norain-1x2.png", "norain/norain-1.png"),
        ("input/7.png", "target/7.png"),
        ("input/7.png", "groundtruth/7.png"),
        ("rainy_image/901_3.png", "ground_truth/901.png"),
        ("rain/000.png", "gt/000gt.png"),
        ("rain-001.png", "norain-001.png"),
        ("rainy/rain-001.png", "norain-001.png"),
        ("001_in.png", "001_GT.png"),
        ("001x2.png", "001.png"),
        ("norain-001x2.png", "norain-001.png"),
        ("Rain100H/rain-001.png", "Rain100H/norain-001.png"),
        ("in/im_0001_s80_a04.png", "gt/im_0001.png"),
        ("input/im_0301_s80_a04.png", "gt/im_0301.png"),
        ("real_world/001/001_0.png", "real_world_gt/001.png"),
        ("real_world/001/001_0.png", "real_world_gt/001/001.png"),
        ("Winter_1-Webcam-R-003.png", "Winter_1-Webcam-C-000.png"),
        ("train/Rain13K/input/7.jpg", "train/Rain13K/target/7.jpg"),
        ("input/Stra\u00dfe-\u00e9.png", "target/Stra\u00dfe-e\u0301.png"),
    ],
)
def test_layouts_that_circulate_are_paired(tmp_path, rainy, clean):
    expected = image(tmp_path / rainy), image(tmp_path / clean)
    (pair,) = find_pairs(tmp_path)
    assert (pair.rainy, pair.clean, pair.rainy_half) == (*expected, "")


def test_scenes_with_one_clean_frame_each_are_paired(tmp_path):
    for name in ("A/A-R-000", "A/A-R-001", "A/A-C-000", "B/B-R-000", "B/B-C-000"):
        image(tmp_path / f"{name}.png")
    matching = recognise(tmp_path)
    found = [(pair.name, pair.clean.name) for pair in matching.pairs]
    assert found == [
        ("A/A-R-000", "A-C-000.png"),
        ("A/A-R-001", "A-C-000.png"),
        ("B/B-R-000", "B-C-000.png"),
    ]
    assert matching.layout.startswith("2 scenes: ")


def test_equal_names_go_before_common_parts(tmp_path):
    for side in ("input", "target"):
        for stem in ("1", "1_1", "norain-1", "rain-1"):
            image(tmp_path / side / f"{stem}.png")
    pairs = find_pairs(tmp_path)
    assert [pair.rainy.name for pair in pairs] == [pair.clean.name for pair in pairs]
    assert len(pairs) == 4


def test_layers_of_rain_beside_the_pairs_are_left_alone(tmp_path):
    for name in ("rain-1", "norain-1", "rainstreak-1", "rainregion-1"):
        image(tmp_path / f"{name}.png")
    (pair,) = find_pairs(tmp_path)
    assert (pair.rainy.name, pair.clean.name) == ("rain-1.png", "norain-1.png")


def test_several_rainy_images_share_a_clean_one(tmp_path):
    clean = image(tmp_path / "ground_truth/901.jpg")
    for kind in range(1, 15):
        image(tmp_path / f"rainy_image/901_{kind}.jpg")
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == [f"901_{kind}" for kind in range(1, 15)]
    assert {pair.clean for pair in pairs} == {clean}


@pytest.mark.parametrize("rainy_half", ["left", "right"])
def test_side_by_side_the_brighter_half_is_rainy(tmp_path, rainy_half):
    for seed in range(5):
        clean = scene(seed)
        rainy = clean.copy()
        rainy[::7, :, :] = 250
        halves = (rainy, clean) if rainy_half == "left" else (clean, rainy)
        image(tmp_path / f"{seed}.png", np.hstack(halves))
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == list("01234")
    assert {(pair.rainy_half, pair.rainy == pair.clean) for pair in pairs} == {(rainy_half, True)}


def test_photos_are_no_pairs_side_by_side(tmp_path):
    for seed in range(5):
        image(tmp_path / f"{seed}.png", np.hstack([scene(seed), scene(seed + 50)]))
    with pytest.raises(DatasetError, match="laid out in no way known"):
        find_pairs(tmp_path)


def test_groups_are_told_by_their_folders(tmp_path):
    for group in ("Rain_Heavy", "Rain_Light"):
        for number in (1, 2):
            image(tmp_path / group / "test" / "rain" / f"{number}.png")
            image(tmp_path / group / "test" / "norain" / f"{number}.png")
    pairs = find_pairs(tmp_path)
    assert [(pair.name, pair.group) for pair in pairs] == [
        ("heavy/1", "heavy"),
        ("heavy/2", "heavy"),
        ("light/1", "light"),
        ("light/2", "light"),
    ]


def test_a_folder_of_several_sets_is_an_error_that_names_them(tmp_path):
    for split in ("train", "test"):
        image(tmp_path / split / "input/1.png")
        image(tmp_path / split / "target/1.png")
    with pytest.raises(DatasetError, match="several sets: name one of test, train"):
        find_pairs(tmp_path)


def test_every_format_that_can_be_read_makes_a_data_set(tmp_path):
    for folder in ("rainy", "clean"):
        image(tmp_path / folder / "1.avif")
    (pair,) = find_pairs(tmp_path)
    assert pair.rainy.suffix == pair.clean.suffix == ".avif"


@pytest.mark.parametrize("alone", ["rainy/2.png", "clean/2.png"])
def test_a_missing_partner_is_an_error_that_names_the_image(tmp_path, alone):
    for name in ("rainy/1.png", "clean/1.png", alone):
        image(tmp_path / name)
    with pytest.raises(DatasetError, match=rf"'2\.png' in .*{alone[:5]}.* no partner"):
        find_pairs(tmp_path)
    assert [path.name for path in recognise(tmp_path).orphans] == ["2.png"]
    assert [pair.name for pair in recognise(tmp_path).pairs] == ["1"]


@pytest.mark.parametrize("twice", ["rainy/1.jpg", "clean/1.jpg"])
def test_a_name_taken_twice_is_an_error(tmp_path, twice):
    for name in ("rainy/1.png", "clean/1.png", twice):
        image(tmp_path / name)
    with pytest.raises(DatasetError, match="one too many"):
        find_pairs(tmp_path)


def test_two_folders_anywhere_are_matched_by_name(tmp_path):
    image(tmp_path / "a/1.png")
    image(tmp_path / "b/1.jpg")
    (pair,) = match_pairs(tmp_path / "a", tmp_path / "b")
    assert (pair.rainy.name, pair.clean.name) == ("1.png", "1.jpg")


def test_empty_and_missing_folders_are_errors(tmp_path):
    (tmp_path / "rainy").mkdir()
    (tmp_path / "clean").mkdir()
    with pytest.raises(DatasetError, match="no images"):
        find_pairs(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        find_pairs(tmp_path / "gone")


def test_natural_order_and_hidden_files(tmp_path):
    for name in ("10.png", "2.png", ".hidden.png", "note.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["2.png", "10.png"]
    image(tmp_path / "10²1.png")
    assert [path.name for path in list_images(tmp_path)] == ["2.png", "10.png", "10²1.png"]
