"""Images of a validation, and their names."""

import numpy as np
import torch
from PIL import Image

from derain_cli.models import build_model
from derain_cli.training import validation
from derain_cli.training.trainer import train
from derain_cli.training.validation import derain, file_name, statistics_images


def test_images_show_rainy_derained_clean_and_rain(tiny_config, pairs, tmp_path):
    config = tiny_config("resnet", steps=2, validate_every=1, images=1)
    train(config, tmp_path / "run")
    files = sorted((tmp_path / "run" / "images").iterdir())
    assert [file.name[:12] for file in files] == ["step-0000001", "step-0000002"]
    shown = np.asarray(Image.open(files[1])).astype(int)
    assert shown.shape == (48, 4 * 64, 3)
    rainy, derained, clean, rain = np.split(shown, 4, axis=1)
    held_out = "3"  # of four pairs, one is kept out: the last
    np.testing.assert_array_equal(
        rainy, np.asarray(Image.open(pairs / "rainy" / f"{held_out}.png"))
    )
    np.testing.assert_array_equal(
        clean, np.asarray(Image.open(pairs / "clean" / f"{held_out}.png"))
    )
    np.testing.assert_array_equal(rain, np.clip(rainy - derained, 0, 255))


def test_no_images_when_none_are_wanted(tiny_config, tmp_path):
    train(tiny_config("resnet", steps=1, images=0), tmp_path / "run")
    assert not (tmp_path / "run" / "images").exists()


def test_file_names_are_plain_whatever_the_source_is_called():
    assert file_name(12, "pairs:/a b/ü?/x") == "step-0000012-pairs-a-b-ü--x.png"
    assert len(file_name(1, "y" * 300)) < 100


def test_large_images_are_derained_in_tiles_to_the_same(tiny_config, monkeypatch):
    config = tiny_config("resnet")
    network = build_model("resnet", config.model_options()).eval()
    rainy = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    whole = derain(network, rainy, config)
    monkeypatch.setattr(validation, "WHOLE_SIDE", 64)
    tiled = derain(network, rainy, config)
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_statistics_see_at_most_the_middle_of_a_large_image(monkeypatch):
    monkeypatch.setattr(validation, "WHOLE_SIDE", 4)
    pixels = np.arange(6 * 3 * 3, dtype=np.uint8).reshape(6, 3, 3)
    (seen,) = statistics_images(lambda rng: pixels, 0, 1, torch.device("cpu"))
    assert seen.shape == (1, 3, 4, 3)
    assert torch.equal((seen * 255).round().byte()[0], torch.tensor(pixels[1:5]).permute(2, 0, 1))
