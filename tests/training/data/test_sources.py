"""Training samples: mixing, crops, and batches that are a function of (seed, step)."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.known import hold_out, hold_out_pairs
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ConfigError, DatasetError
from derain_cli.rain import streaks
from derain_cli.training.data.samples import (
    BACKGROUND_SIDE,
    PairSource,
    choose_backgrounds,
    draw_batch,
)
from derain_cli.training.data.sources import build_sources


def image(path: Path, size: tuple[int, int] = (40, 32), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_hold_out_splits_without_loss_or_overlap(count):
    kept, held = hold_out(range(20), count)
    assert sorted([*kept, *held]) == list(range(20))
    assert len(held) == min(count, 10)


def sources_of(folder: Path, **changes):
    for index in range(6):
        image(folder / "train" / "rainy" / f"{index}.png", seed=index)
        image(folder / "train" / "clean" / f"{index}.png", seed=index + 50)
        image(folder / "dry" / f"{index}.png", seed=index + 90)
    options = {
        "dataset": ["train:2"],
        "clean": ["dry"],
        "rain": ["pairs:train:0.5", "dry"],
        "held_out": 2,
        "seed": 5,
        "data_root": folder,
    } | changes
    options["dataset"] = [str(folder / spec) for spec in options["dataset"]]
    options["rain"] = [spec.replace("pairs:", f"pairs:{folder}/") for spec in options["rain"]]
    return build_sources(**options)


def test_batch_is_a_function_of_seed_and_step(tmp_path):
    sources = sources_of(tmp_path)
    first = draw_batch(sources, 1, 7, range(8), 16, flip=True)
    again = draw_batch(sources_of(tmp_path), 1, 7, range(8), 16, flip=True)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, draw_batch(sources, 1, 8, range(8), 16, flip=True))
    assert first[0].shape == (8, 3, 16, 16)
    assert first[0].dtype == np.float32


def test_slices_of_two_processes_are_the_batch_of_one(tmp_path):
    sources = sources_of(tmp_path)
    whole = draw_batch(sources, 1, 2, range(6), 16, flip=True)
    halves = [draw_batch(sources, 1, 2, part, 16, flip=True) for part in (range(3), range(3, 6))]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))


def test_held_out_images_are_never_trained_on(tmp_path):
    pairs, painted, dry = sources_of(tmp_path)
    assert [source.weight for source in (pairs, painted, dry)] == [2.0, 0.5, 1.0]
    assert not set(pairs.training) & set(pairs.held_out)
    assert not set(dry.training) & set(dry.held_out)
    assert len(pairs.held_out) == 2
    rainy, clean = dry.validation()[0]
    np.testing.assert_array_equal(rainy, clean)


def test_painted_rain_only_adds_light(tmp_path):
    painted = sources_of(tmp_path)[1]
    rainy, clean = painted.sample(24, np.random.default_rng(0))
    assert (rainy.astype(int) >= clean).all()
    assert (rainy != clean).any()


def test_training_on_a_test_set_is_refused(tmp_path):
    image(tmp_path / "rain100h/rainy/1.png")
    image(tmp_path / "rain100h/clean/1.png")
    sides = (str(tmp_path / "rain100h/rainy"), str(tmp_path / "rain100h/clean"))
    for changes in (
        {"dataset": ["rain100h"]},
        {"clean": ["rain100h"]},
        {"clean": [sides[1]]},
        {"data": sides},
    ):
        with pytest.raises(DatasetError, match="never trained on"):
            sources_of(tmp_path, **changes)


@pytest.mark.parametrize("where", ["part", "side of a part", "link", "here", "archive's folder"])
def test_a_test_set_is_refused_wherever_it_lies(where, tmp_path, monkeypatch):
    for side in ("rain", "norain"):
        image(tmp_path / "ddn_sirr_test/dense" / side / "1.png")
        image(tmp_path / "mine/Rain100H" / side / "1.png")
    dense = tmp_path / "ddn_sirr_test/dense"
    (tmp_path / "linked").symlink_to(tmp_path / "mine/Rain100H")
    monkeypatch.chdir(tmp_path / "mine/Rain100H")
    changes = {
        "part": {"dataset": [str(dense)]},
        "side of a part": {"clean": [str(dense / "norain")], "rain": ["dry"]},
        "link": {"dataset": [str(tmp_path / "linked")]},
        "here": {"dataset": ["."]},
        "archive's folder": {"dataset": [str(tmp_path / "mine")]},
    }[where]
    plain = {"dataset": [], "clean": [], "rain": [], "held_out": 0, "seed": 0}
    with pytest.raises(DatasetError, match="never trained on"):
        build_sources(**plain | changes, data_root=tmp_path)


def test_a_held_out_background_is_not_trained_on_in_other_rain(tmp_path):
    for scene in range(4):
        image(tmp_path / f"mine/norain/{scene}.png", seed=scene)
        for rain in range(3):
            image(tmp_path / f"mine/rain/{scene}_{rain}.png", seed=scene)
    changes = {"dataset": [str(tmp_path / "mine")], "clean": [], "rain": []}
    (source,) = sources_of(tmp_path, **changes, held_out=2)
    assert source.held_out_count == 2
    assert source.training_count == 6
    assert not {p.clean for p in source.training} & {p.clean for p in source.held_out}


def test_a_single_scene_is_trained_on_with_its_other_frames(tmp_path):
    pairs = [Pair(str(rain), tmp_path / f"{rain}.png", tmp_path / "clean.png") for rain in range(4)]
    training, held = hold_out_pairs(pairs, 1)
    assert (len(training), len(held)) == (3, 1)


def test_training_half_of_a_set_with_both_halves_is_not_refused(tmp_path):
    """`Rain800` alone is the test set; a `train` folder in it is not."""
    for index in range(4):
        for part in ("train", "training", "test"):
            for side in ("rain", "norain"):
                image(tmp_path / "Rain800" / part / side / f"{index}.png", seed=index)
    for part in ("train", "training", "test"):
        sides = tuple(str(tmp_path / "Rain800" / part / side) for side in ("rain", "norain"))
        changes = {"dataset": [], "clean": [sides[1]], "rain": ["dry"], "data": sides}
        if part != "test":
            assert len(sources_of(tmp_path, **changes)) == 2
            continue
        with pytest.raises(DatasetError, match="never trained on"):
            sources_of(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dataset": [], "clean": [], "rain": []}, ConfigError, "nothing to train on"),
        ({"rain": []}, ConfigError, "clean images 'dry' need rain"),
        ({"clean": []}, ConfigError, "needs clean images"),
        ({"rain": ["hevy"]}, ConfigError, "Did you mean 'heavy'.*dry.*pairs:DATASET"),
        ({"rain": ["heavy:-1"]}, ConfigError, "of 'heavy:-1' is -1; it must be a number above 0"),
        ({"rain": ["heavy:1.2.3"]}, ConfigError, r"is 1\.2\.3; it must be a number above 0"),
        ({"rain": ["streaks"]}, ConfigError, "needs layers: name their folder, as streaks:FOLDER"),
        ({"rain": ["mixed:,dry"]}, ConfigError, "rain 'streaks' needs layers"),
        ({"rain": ["streaks:none"]}, DatasetError, "no folder of rain layers 'none'"),
        ({"rain": ["pairs:none"]}, DatasetError, "no folder of pairs .*none', neither here nor"),
        ({"dataset": ["none"]}, DatasetError, "no folder of pairs .*none', neither here nor"),
        ({"clean": [], "rain": [], "backgrounds": 2}, ConfigError, "patches of clean images: give"),
        ({"rain": ["dry", "wide"], "backgrounds": 2}, ConfigError, "and 'wide' is a scene"),
        ({"clean": ["train"]}, DatasetError, "no images in .*train' itself; .*train/clean'"),
    ],
)
def test_wrong_sources_are_named(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        sources_of(tmp_path, **changes)


def test_crop_larger_than_a_image_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="40x32, smaller than the 33x33 crop"):
        draw_batch(sources_of(tmp_path), 0, 0, range(1), 33, flip=False)


def test_two_folders_are_pairs_by_name(tmp_path):
    for index in range(4):
        image(tmp_path / "a" / f"{index}.png", seed=index)
        image(tmp_path / "b" / f"{index}.png", seed=index + 50)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    (source,) = sources_of(tmp_path, dataset=[], clean=[], rain=[], data=folders)
    assert (source.name, len(source.training), len(source.held_out)) == (folders[0], 2, 2)
    image(tmp_path / "a" / "9.png")
    with pytest.raises(DatasetError, match=r"9\.png"):
        sources_of(tmp_path, dataset=[], clean=[], rain=[], data=folders)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"`data`: no images in .*empty'"):
        sources_of(tmp_path, data=(folders[0], str(tmp_path / "empty")))
    with pytest.raises(DatasetError, match="`data`: no folder"):
        sources_of(tmp_path, data=(folders[0], str(tmp_path / "c")))


def test_ten_crops_are_corners_and_middle_each_also_mirrored(tmp_path):
    path = image(tmp_path / "0.png")
    source = PairSource("one", 1.0, [Pair("0", path, path)], (), ten_crops=True)
    samples = [source.sample(16, np.random.default_rng(seed)) for seed in range(200)]
    pixels = read_pixels(path)
    places = [(0, 0), (0, 24), (16, 0), (16, 24), (8, 12)]
    windows = [pixels[y : y + 16, x : x + 16] for y, x in places]
    expected = {window[:, ::turn].tobytes() for window in windows for turn in (1, -1)}
    assert {rainy.tobytes() for rainy, _ in samples} == expected
    assert all(np.array_equal(rainy, clean) for rainy, clean in samples)


def test_turned_crops_keep_rainy_and_clean_together(tmp_path):
    sources = sources_of(tmp_path, dataset=[], rain=["dry"])
    rainy, clean = draw_batch(sources, 0, 0, range(8), 16, flip=False, rotate=True)
    np.testing.assert_array_equal(rainy, clean)
    plain, _ = draw_batch(sources, 0, 0, range(8), 16, flip=False)
    turns = [
        next(k for k in range(4) if np.array_equal(np.rot90(before, k, axes=(1, 2)), after))
        for before, after in zip(plain, rainy, strict=True)
    ]
    assert len(set(turns)) > 1


@pytest.fixture(scope="module")
def large_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    sizes = [(140, 130), (128, 128), (200, 150), (90, 300)]
    return [image(folder / f"{i}.png", size, i) for i, size in enumerate(sizes)]


def test_backgrounds_are_decided_by_the_seed_and_grow(large_images):
    few, more = (choose_backgrounds(large_images, count, 5) for count in (4, 9))
    assert more[:4] == few
    assert choose_backgrounds(large_images, 4, 6) != few
    assert {patch.path for patch in more} == set(large_images[:3])
    with pytest.raises(DatasetError, match="room for a patch of 128"):
        choose_backgrounds(large_images[3:], 1, 0)


def dry_patches(folder, count):
    (source,) = build_sources(
        dataset=[],
        clean=[str(folder)],
        rain=["dry"],
        data_root=Path(),
        held_out=1,
        seed=3,
        backgrounds=count,
    )
    return source


def test_rain_falls_on_the_chosen_patches_only(large_images):
    source = dry_patches(large_images[0].parent, count=2)
    patches = [
        np.asarray(Image.open(p.path))[p.top :, p.left :][:BACKGROUND_SIDE, :BACKGROUND_SIDE]
        for p in source.backgrounds
    ]
    for seed in range(6):
        _, clean = source.sample(BACKGROUND_SIDE, np.random.default_rng(seed))
        assert any(np.array_equal(clean, patch) for patch in patches)
    with pytest.raises(DatasetError, match="128x128 patches, smaller than the 129x129 crop"):
        source.check(129)


def test_a_share_of_the_patches_is_all_that_rain_falls_on(large_images):
    source = dry_patches(large_images[0].parent, count=20)
    assert source.training_count == 20
    few = source.part(0.1, seed=0)
    assert few.training_count == len(few.backgrounds) == 2
    assert set(few.backgrounds) < set(source.backgrounds)
    assert source.part(1.0, seed=0) == source


def test_images_are_looked_at_before_training(tmp_path):
    pairs, *_, dry = sources_of(tmp_path)
    pairs.check(32)
    with pytest.raises(DatasetError, match=r"rainy/\d\.png' is 40x32, smaller than the 33x33 crop"):
        pairs.check(33)
    with pytest.raises(DatasetError, match=r"dry/\d\.png' is 40x32, smaller"):
        dry.check(33)
    image(tmp_path / "train/clean/4.png", (40, 33))
    with pytest.raises(DatasetError, match=r"pair '4': .* is 40x32, .* is 40x33; .* one size"):
        pairs.check(16)
    (tmp_path / "train/rainy/3.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"^'.*3\.png' is"):
        pairs.check(16)


def side_by_side(folder: Path, count: int = 6, side: int = 140) -> dict[str, np.ndarray]:
    """Images whose left half is rainy; their clean halves by name."""
    folder.mkdir(parents=True)
    clean = {}
    for index in range(count):
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(20, 150, (5, 6, 3), np.uint8))
        half = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        rainy = half + rng.integers(20, 60, (side, side, 1), np.uint8)
        clean[f"{index}.png"] = half
        Image.fromarray(np.hstack([rainy, half])).save(folder / f"{index}.png")
    return clean


@pytest.mark.parametrize("backgrounds", [0, 5])
@pytest.mark.parametrize("name", ["rain800_train", "Rain800/train", "mine"])
def test_rain_falls_on_the_clean_halves_of_pairs_side_by_side(tmp_path, name, backgrounds):
    halves = side_by_side(tmp_path / name)
    options = {"dataset": [], "rain": ["dry"], "data_root": tmp_path, "held_out": 2, "seed": 3}
    for clean in (name, str(tmp_path / name)):
        (source,) = build_sources(clean=[clean], backgrounds=backgrounds, **options)
        source.check(64)
        held = [image for _, image in source.validation()]
        assert len(held) == 1  # half of the two that are kept out, as of any clean images
        for whole in (*held, source.whole(np.random.default_rng(0))):
            assert any(np.array_equal(whole, half) for half in halves.values())
        for seed in range(5):
            crop = source.sample(64, np.random.default_rng(seed))[1]
            assert any(is_inside(crop, half) for half in halves.values())
        with pytest.raises(DatasetError, match=r"is 140x140, smaller than|are 128x128 patches"):
            source.check(141)


def is_inside(crop: np.ndarray, image: np.ndarray) -> bool:
    height, width = crop.shape[:2]
    corners = (image[: 1 - height or None, : 1 - width or None] == crop[0, 0]).all(axis=2)
    return any(
        np.array_equal(image[y : y + height, x : x + width], crop) for y, x in np.argwhere(corners)
    )


def test_an_odd_image_has_no_halves_and_is_named_before_training(tmp_path):
    side_by_side(tmp_path / "mine", count=9)
    image(tmp_path / "mine" / "5.png", (281, 140))
    options = {"dataset": [], "rain": ["dry"], "data_root": tmp_path, "held_out": 2, "seed": 3}
    (source,) = build_sources(clean=["mine"], **options)
    with pytest.raises(DatasetError, match=r"5\.png' is 281 pixels wide: no two halves"):
        source.check(64)


def test_plain_images_stay_whole(tmp_path):
    for index in range(6):
        image(tmp_path / "photos" / f"{index}.png", (80, 40), index)
    options = {"dataset": [], "rain": ["dry"], "data_root": tmp_path, "held_out": 2, "seed": 3}
    (source,) = build_sources(clean=["photos"], **options)
    assert all(isinstance(path, Path) for path in (*source.training, *source.held_out))
    assert source.validation()[0][1].shape == (40, 80, 3)


def test_a_photo_held_out_in_one_folder_is_held_out_of_all(tmp_path):
    """Two data sets of the same photos, one of them compressed: in other places held out."""
    for name, quality in (("first", None), ("second", 85)):
        for index in range(9):
            coarse = np.random.default_rng(index).integers(0, 200, (5, 6, 3), np.uint8)
            photo = Image.fromarray(coarse).resize((60, 50), Image.Resampling.BICUBIC)
            for side in ("rainy", "clean"):
                (tmp_path / name / side).mkdir(parents=True, exist_ok=True)
                shown = index if name == "first" else (index + 1) % 9
                suffix, options = ("png", {}) if quality is None else ("jpg", {"quality": quality})
                photo.save(tmp_path / name / side / f"{shown}.{suffix}", **options)
    options = {
        "dataset": [str(tmp_path / "first"), str(tmp_path / "second")],
        "clean": [str(tmp_path / "first" / "clean")],
        "rain": ["wide"],
        "held_out": 2,
        "seed": 0,
        "data_root": tmp_path,
    }
    by_file = build_sources(**options)
    assert [source.training_count for source in by_file] == [7, 7, 7]
    by_photo = build_sources(**options, hold_out_by="photo")
    assert [source.held_out_count for source in by_photo] == [2, 2, 1]
    # Four photos are held out in one of the folders, or three where both chose the same one.
    assert [source.training_count for source in by_photo] == [5, 5, 5]
    again = build_sources(**options, hold_out_by="photo")
    assert [source.training for source in by_photo] == [source.training for source in again]
    shown = {pair.name for pair in by_photo[0].training} & {
        str((int(pair.name) - 1) % 9) for pair in by_photo[1].held_out
    }
    assert not shown


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"dataset": [], "rain": ["dry"]}, "`clean`"), ({"clean": [], "rain": []}, "train'")],
)
def test_one_photo_in_several_files_cannot_be_held_out_and_learnt_from(tmp_path, changes, where):
    for folder in (tmp_path / "train" / "rainy", tmp_path / "train" / "clean", tmp_path / "dry"):
        for index in range(6):
            image(folder / f"{index}.png", seed=1)
    options = {"dataset": [str(tmp_path / "train")], "clean": [str(tmp_path / "dry")]} | changes
    with pytest.raises(DatasetError, match=f"{where}: each image shows a photo that is held out"):
        build_sources(**options, data_root=tmp_path, held_out=1, seed=0, hold_out_by="photo")


def test_scenes_are_sources_like_any(tmp_path, monkeypatch):
    monkeypatch.setattr(streaks, "BANK_LAYERS", 2)
    _, scene = sources_of(tmp_path, rain=["phone+structures+wide:0.5"])
    assert (scene.name, scene.weight) == ("phone+structures+wide", 0.5)
    first = draw_batch([scene], 1, 7, range(8), 16, flip=True)
    np.testing.assert_array_equal(first, draw_batch([scene], 1, 7, range(8), 16, flip=True))
    assert first[0].shape == (8, 3, 16, 16)
    assert len(scene.validation()) == scene.held_out_count == 1
    np.testing.assert_array_equal(scene.validation()[0], scene.validation()[0])
    assert scene.half(0).training_count + scene.half(1).training_count == scene.training_count
    assert scene.part(0.5, 0).training_count == 2
    scene.check(32)
    with pytest.raises(DatasetError, match="smaller than the 33x33 crop"):
        scene.check(33)
