"""Two processes that share a batch compute what one does: real children, talking through gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from derain_cli.errors import ConfigError
from derain_cli.models import MODELS, build_model
from derain_cli.training import processes, saving
from derain_cli.training.recipes.supervised import Supervised
from derain_cli.training.trainer import train
from tests.children import Child

CHILD = """
import sys, warnings
from pathlib import Path
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.trainer import train
# What torch deprecates would otherwise be a warning in every user's log.
warnings.filterwarnings("error", category=FutureWarning)
warnings.filterwarnings("error", category=DeprecationWarning, module="derain_cli")
with processes.joined("cpu"):
    for path in sys.argv[1:]:
        train(TrainConfig.read(Path(path)), Path(path).with_suffix(""))
"""


def run_two(folder: Path, configs: dict) -> None:
    """Train each config with two processes; run folders are named by the configs."""
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(config.to_json())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = [str(folder / f"{name}.json") for name in configs]
    children = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        settings = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, **place}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        command = [sys.executable, "-c", CHILD, *paths]
        children.append(Child(command, env=environment, stderr=subprocess.PIPE))
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors.decode()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_config):
    """Each run done by two processes (in `two/`) and by one (in `one/`)."""
    folder = tmp_path_factory.mktemp("runs")
    short = {"steps": 4, "save_every": 0, "images": 0}
    configs = {
        "plain": tiny_config("resnet", loss=("l1:1",), **short),
        "uneven": tiny_config("unet", batch_size=3, loss=("mse:1",), **short),
        "norms": tiny_config("rdmc", batch_size=4, freeze_norm_from=0.5, **short),
        "parts": tiny_config(
            "rdmc", batch_size=4, accumulate=2, freeze_norm_from=0.5, **short | {"steps": 2}
        ),
        "first": tiny_config("resnet", loss=("l1:1",), **short | {"steps": 1}),
        "balanced": tiny_config(
            "menet", loss=("pixel:1", "edge:1"), loss_weighting="gb", freeze_norm_from=1, **short
        ),
    }
    if "hcn" in MODELS:
        configs["unused"] = tiny_config("hcn", **short)
        configs["outputs"] = tiny_config("hcn", recipe="collaborative", crop=48, **short)
    for side in ("one", "two"):
        (folder / side).mkdir()
    run_two(folder / "two", configs)
    for name, config in configs.items():
        train(config, folder / "one" / name)
    return folder


@pytest.mark.parametrize(
    "name",
    ["plain", "uneven", "norms", "parts", "balanced", *(["unused", "outputs"] * ("hcn" in MODELS))],
)
def test_two_processes_end_with_the_weights_of_one(runs, state_of, name):
    one, two = (state_of(runs / side / name) for side in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        # Four steps of Adam move a weight by 8e-3. Sums in another order move it by up to 3e-5 with
        # batch norm and 3e-8 without: Adam divides small gradients by themselves.
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


def test_gradient_is_exactly_the_mean_of_the_shares(runs, state_of, tiny_config):
    """Without batch norm, to the bit: computed here from the two halves of the batch."""
    config = tiny_config("resnet", loss=("l1:1",), steps=1)
    torch.manual_seed(config.seed)
    model = build_model("resnet", config.model_options()).to(memory_format=torch.channels_last)
    recipe = Supervised(model, config, Path())
    gradients = []
    for part in (range(1), range(1, 2)):
        batch = {
            name: torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            for name, x in recipe.draw(0, part).items()
        }
        total, _ = recipe.losses(batch)
        gradients.append(torch.autograd.grad(total, list(model.parameters())))
    for parameter, first, second in zip(model.parameters(), *gradients, strict=True):
        parameter.grad = (first + second) / 2
    torch.optim.Adam(model.parameters(), lr=config.lr, fused=True).step()
    for name, value in state_of(runs / "two" / "first").items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_one_process_files_alone(runs):
    assert {path.name for path in (runs / "two" / "plain").iterdir()} == {
        path.name for path in (runs / "one" / "plain").iterdir()
    }


def test_without_torchrun_there_is_one_process():
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert processes.share_of(5) == range(5)
    with pytest.raises(ConfigError, match="batch of 0 cannot be shared by 1 processes"):
        processes.share_of(0)


def test_processes_gather_statistics_in_one_order(monkeypatch):
    """In a set the average could come first in one process and second in another."""
    networks = SimpleNamespace(model=2, result=1)  # numbers: a set would have 1 before 2
    gathered = []
    monkeypatch.setattr(saving.processes, "take_from_first", lambda _: None)
    recipe_alone = SimpleNamespace(_recipe=networks, _gather_statistics=gathered.append)
    saving.Saving.freeze_statistics(recipe_alone)
    assert gathered == [2, 1]
