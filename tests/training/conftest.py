"""What training tests need: tiny pairs, tiny networks, and a look at what a run left."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from derain_cli.checkpoints.resolving import load_model
from derain_cli.rain.painting import SMALL, paint, range_layer
from derain_cli.training.configs.train import TrainConfig

TINY = {
    "rdmc": ("widths=[2,2,2,2,2]", "stages=2"),
    "nimbus": ("widths=[4,4]", "encoder=[1,1]", "decoder=[1]", "full_size=2"),
    "resnet": ("channels=4", "blocks=1"),
    "unet": ("widths=[4,4]",),
    "swinir": ("channels=4", "depths=[1]", "heads=2"),
    "moss": ("widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4"),
    "menet": ("residual_blocks=1", "width=8"),
    "menet-deep": ("residual_blocks=2", "width=8"),
    "hcn": ("channels=4", "blocks=[1,1]", "mining_levels=2"),
    "prenet": ("channels=4", "blocks=1", "stages=2"),
}
"""Options that make each network of the zoo small, its structure kept."""

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four smooth images of 64x48 with and without rain."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    for side in ("rainy", "clean"):
        (folder / side).mkdir(parents=True)
    for index in range(4):
        rng = np.random.default_rng(index)
        coarse = rng.integers(40, 180, (6, 8, 3), np.uint8)
        clean = np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))
        Image.fromarray(clean).save(folder / "clean" / f"{index}.png")
        rainy = paint(clean, range_layer(48, 64, rng, SMALL))
        Image.fromarray(rainy).save(folder / "rainy" / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_config(pairs: Path) -> MakeConfig:
    """Makes the config of a run of a few steps of a tiny network on the tiny pairs."""

    def make(model: str = "rdmc", **changes: object) -> TrainConfig:
        options: dict[str, object] = {
            "model": model,
            "model_option": TINY[model],
            "dataset": (str(pairs),),
            "steps": 9,
            "batch_size": 2,
            "crop": 32,
            "held_out": 1,
            "lr": 2e-3,
            "device": "cpu",
            "threads": 1,
            "validate_every": 0,
            "save_every": 3,
            "seed": 4,
        }
        return TrainConfig(**(options | changes))  # type: ignore[arg-type]

    return make


def _state_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "state.pt", weights_only=True)
    return state["recipe"]["model"]  # type: ignore[return-value]


def _saved_by(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "last.safetensors").model.state_dict()


@pytest.fixture(scope="session")
def state_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    """Weights in training of a run."""
    return _state_of


@pytest.fixture(scope="session")
def saved_by() -> Callable[[Path], dict[str, torch.Tensor]]:
    """Weights in the last checkpoint of a run."""
    return _saved_by


@pytest.fixture(scope="session")
def assert_same_run() -> Callable[[Path, Path], None]:
    """Compares two runs to the bit: weights in training, and in the last checkpoint."""

    def compare(first: Path, second: Path) -> None:
        for read in (_state_of, _saved_by):
            one, other = read(first), read(second)
            assert one.keys() == other.keys()
            for name, tensor in one.items():
                assert torch.equal(tensor, other[name]), name

    return compare


@pytest.fixture(scope="session")
def lines_of() -> Callable[[Path], list[dict[str, object]]]:
    """The lines of a run's metrics."""
    return lambda folder: [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
