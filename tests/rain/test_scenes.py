"""Scenes: pure functions of their generator, rain that only brightens, and what stays in both."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.errors import ConfigError
from derain_cli.rain import streaks
from derain_cli.rain.camera import DigitalZoom, Sensor, add_veil
from derain_cli.rain.painting import RAIN_KINDS
from derain_cli.rain.scenes import build_scene, parts_of
from derain_cli.rain.streaks import DROPS, STREAK_KINDS, WIDE, cover, mixed_layer, streak_layer
from derain_cli.rain.structures import STRUCTURES, draw_structure

KINDS = (
    *STREAK_KINDS,
    "veil+wide",
    "phone+wide",
    "structures+wide",
    "zoom+wide",
    "phone",
    "structures",
    "zoom",
)
DRY = ("structures", "veil", "phone", "zoom", "phone+structures", "dry+phone", "zoom+structures")


@pytest.fixture(autouse=True)
def _small_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Banks of a few layers: what a crop is cut from does not matter here."""
    monkeypatch.setattr(streaks, "BANK_LAYERS", 3)


@pytest.fixture
def photo() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(20, 200, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC))


def scene(kind: str, root: Path = Path()):
    return build_scene(kind, root, held_out=0, seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_a_function_of_its_generator(kind, photo):
    first = scene(kind)(photo, np.random.default_rng(4))
    again = scene(kind)(photo, np.random.default_rng(4))
    np.testing.assert_array_equal(first, again)
    assert first[0].dtype == np.uint8
    assert first[0].shape == first[1].shape == photo.shape


@pytest.mark.parametrize("kind", [*STREAK_KINDS, "veil+wide", "structures+wide", "large+wide"])
def test_rain_only_brightens_and_is_all_that_differs(kind, photo):
    made = [scene(kind)(photo, np.random.default_rng(seed)) for seed in range(12)]
    assert all((rainy.astype(int) >= clean).all() for rainy, clean in made)
    assert sum((rainy != clean).any() for rainy, clean in made) >= 8


@pytest.mark.parametrize("kind", DRY)
def test_without_rain_both_images_are_one(kind, photo):
    for seed in range(6):
        rainy, clean = scene(kind)(photo, np.random.default_rng(seed))
        np.testing.assert_array_equal(rainy, clean)


@pytest.mark.parametrize("kind", ["structures", "veil", "phone", "zoom"])
def test_what_is_no_rain_changes_the_clean_image(kind, photo):
    changed = [scene(kind)(photo, np.random.default_rng(seed))[1] for seed in range(6)]
    assert sum((image != photo).any() for image in changed) >= 3


def test_a_zoom_softens_and_its_sharpening_leaves_dark_edges():
    dark = np.full((60, 60, 3), 0.3, np.float32)
    streak = dark.copy()
    streak[:, 30:32] = 0.7
    soft, sharp = (DigitalZoom((60, 60), 2.0, 0.0, share) for share in (0.0, 1.0))
    before, plain, edged = (
        zoom.developed(Sensor(np.zeros((1, 1, 1), np.float32), 0).exposed(zoom.seen(scene)))
        for zoom, scene in ((soft, dark), (soft, streak), (sharp, streak))
    )
    assert before.shape == plain.shape == (60, 60, 3)
    assert (plain[30, :, 0] > before[30, 0, 0] + 5).sum() > 2  # wider than it fell
    assert edged.min() < before.min() - 5


def test_a_zoom_smooths_noise_away(photo):
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 4, photo.shape), 0, 255)
    small = noisy.astype(np.uint8)
    kept, smooth = (
        DigitalZoom(photo.shape[:2], 1.0, levels, 0.0).developed(small) for levels in (0.0, 25.0)
    )
    assert np.abs(smooth - photo.astype(float)).mean() < np.abs(kept - photo.astype(float)).mean()


def test_mist_thins_the_contrast(photo):
    misty = add_veil(photo.astype(np.float32) / 255, np.random.default_rng(1))
    assert misty.std() < photo.std() / 255
    assert 0 <= misty.min() < misty.max() <= 1


def test_noise_and_jpeg_are_those_of_both_images(photo):
    rng = np.random.default_rng(2)
    sensor = Sensor(rng.normal(0, 0.02, (*photo.shape[:2], 3)).astype(np.float32), quality=0)
    light = photo.clip(60, 180).astype(np.float32) / 255
    brighter = sensor.take(light + 0.1).astype(int) - sensor.take(light)
    assert abs(brighter - 25.5).max() <= 1  # the noise is in both and cancels
    compressed = Sensor(np.zeros((1, 1, 1), np.float32), quality=60).take(light)
    assert 0 < np.abs(compressed.astype(int) - photo.clip(60, 180)).max() < 60


@pytest.mark.parametrize("knobs", [WIDE, DROPS])
def test_streaks_cover_a_part(knobs):
    layers = [streak_layer(80, 120, np.random.default_rng(seed), knobs) for seed in range(8)]
    assert all(layer.min() >= 0 and layer.max() <= 1 for layer in layers)
    assert 0.002 < np.mean([(layer > 0.02).mean() for layer in layers]) < 0.7


def test_opaque_streaks_take_their_light_from_the_scene():
    full = np.ones((4, 4), np.float32)
    night, day = np.full((4, 4, 3), 0.05, np.float32), np.full((4, 4, 3), 0.6, np.float32)
    for seed in range(20):
        dark, bright = (cover(scene, full, np.random.default_rng(seed)) for scene in (night, day))
        assert dark.mean() < bright.mean()
        assert dark.min() >= 0.05


def test_mixed_rain_keeps_its_size_and_range():
    given = streak_layer(128, 128, np.random.default_rng(1), WIDE)
    mixed = [mixed_layer(given, given, 64, 64, np.random.default_rng(seed)) for seed in range(5)]
    assert {layer.shape for layer in mixed} == {(64, 64)}
    assert all(layer.min() >= 0 and layer.max() <= 1 for layer in mixed)
    assert not np.array_equal(mixed[0], mixed[1])


def test_mixed_rain_of_a_folder(tmp_path, photo):
    for index in range(3):
        layer = streak_layer(80, 80, np.random.default_rng(index), WIDE)
        cv2.imwrite(str(tmp_path / f"{index}.png"), (255 * layer).astype(np.uint8))
    rainy, clean = scene(f"mixed:{tmp_path}")(photo, np.random.default_rng(0))
    np.testing.assert_array_equal(clean, photo)
    assert (rainy >= clean).all()
    assert (rainy > clean).any()
    with pytest.raises(ConfigError, match="'mixed' needs layers"):
        scene("mixed")


@pytest.mark.parametrize("kind", STRUCTURES)
def test_structures_show(kind):
    colour, opaque = draw_structure(kind, np.random.default_rng(5))
    assert colour.shape == (*opaque.shape, 3)
    shown = [draw_structure(kind, np.random.default_rng(seed))[1] for seed in range(5)]
    assert 0.003 < np.mean([(share > 100).mean() for share in shown]) <= 1


def test_parts_may_come_in_any_order(photo):
    one = scene("wide+phone+structures")(photo, np.random.default_rng(1))
    other = scene("structures+phone+wide")(photo, np.random.default_rng(1))
    np.testing.assert_array_equal(one, other)
    assert parts_of("veil+structures") == ["veil", "structures"]


def test_an_unknown_part_is_named():
    with pytest.raises(ConfigError, match=r"unknown kind of rain 'wide\+drop'"):
        scene("veil+wide+drop")


@pytest.mark.parametrize("command", [("train",), ("datasets", "synth")])
def test_help_names_every_kind_that_can_be_painted(command):
    told = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
    named = set(re.findall(r"[a-z]+", told))
    assert {*RAIN_KINDS, *STREAK_KINDS} <= named
