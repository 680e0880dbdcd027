"""Each quick preset, cut to about a minute on one core, learns something from real pairs."""

import os
from pathlib import Path

import numpy as np
import pytest

from derain_cli.metrics.full_reference import psnr
from derain_cli.training.configs.presets import preset_values
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.paired import sources_of
from derain_cli.training.trainer import train

DATA = Path(
    os.environ.get("DERAIN_DATA", str(Path(__file__).parents[4] / "shared" / "data"))
).resolve()
STEPS = {
    "hcn": 40,
    "moss": 240,
    "rdmc": 200,
    "menet": 200,
    "menet-deep": 200,
    "nimbus": 120,
    "resnet": 60,
    "unet": 80,
    "swinir": 90,
}


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "rain200h_sample").is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("model", list(STEPS))
def test_quick_preset_improves_whole_images(model, tmp_path):
    data = {"dataset": ("rain200h_sample",), "data_root": str(DATA), "held_out": 3}
    steps = STEPS[model]
    cut = {"steps": steps, "validate_every": steps // 2, "warmup": 4, "device": "cpu"}
    values = preset_values(model, "quick", data)
    config = TrainConfig(**({"model": model} | values | data | cut))
    rainy_psnr = np.mean(
        [psnr(rainy, clean, "y") for rainy, clean in sources_of(config)[0].validation()]
    )
    scores = []
    train(config, tmp_path / "run", report=lambda p: scores.append(p.psnr) if p.psnr else None)
    assert len(scores) == 2
    assert scores[-1] > rainy_psnr + 2
    assert scores[1] > scores[0]


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "rain800_train").is_dir(), reason="needs ../shared/data")
def test_the_recipe_of_nimbus_runs_as_it_stands(tmp_path):
    """Its first 200 steps, with all its data, its scenes and its held-out photos."""
    values = preset_values("nimbus", "paper", {}) | {"data_root": str(DATA), "device": "cpu"}
    losses, waited, taken = [], [], []

    def note(progress):
        losses.append(progress.parts["loss"])
        waited.append(progress.waited)
        taken.append(progress.seconds_per_step)

    config = TrainConfig(model="nimbus", **values)
    train(config, tmp_path / "run", report=note, should_stop=lambda: len(losses) >= 200)
    assert np.mean(losses[-50:]) < np.mean(losses[:50])
    # Banks are drawn and photos decoded in the first steps; after that drawing keeps up.
    assert np.sum(waited[100:]) < 0.03 * np.sum(taken[100:])
