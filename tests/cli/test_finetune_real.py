import inspect
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.finetune_real import config_of, finetune_real
from derain_cli.errors import ConfigError, DatasetError, UnavailableError, UsageError
from derain_cli.models import build_model
from derain_cli.training.configs.finetune import METHODS, FinetuneConfig
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.online_update import OnlineUpdate
from derain_cli.training.recipes.self_training import SelfTraining

app = typer.Typer()
app.command()(finetune_real)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(RECIPES, "online_update", OnlineUpdate)
    monkeypatch.setitem(RECIPES, "self_training", SelfTraining)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos with spaces"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, build_model("resnet", {"channels": 4, "blocks": 1}), "resnet", {})
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def small(photos, weights, out):
    words = ("--real", photos, "--model", weights, "--out", out, "--device", "cpu")
    return (*words, "--crop", 32, "--batch-size", 2, "--threads", 1)


def test_online_update_from_the_command_line(photos, weights, tmp_path):
    out, kept = tmp_path / "run", tmp_path / "kept"
    words = small(photos, weights, out)
    done = invoke(*words, "--method", "online-update", "--epochs", 2, "--save-images", kept)
    assert done.exit_code == 0
    assert done.stdout.strip() == str(out)
    assert re.search(r"epoch 2: (not )?better.*, pseudo ground truth changed by", done.stderr)
    assert " images/s, waited " in done.stderr
    assert "best.safetensors is the network of epoch" in done.stderr
    assert load_model(out).architecture == "resnet"
    assert (kept / "epoch-0002/0.png").exists()


def test_collapse_is_said_and_not_shipped(photos, weights, tmp_path):
    words = (*small(photos, weights, tmp_path / "run"), "--steps", 4, "--lr", 1)
    done = invoke(*words, "--epoch-steps", 2)
    assert done.exit_code == 0
    assert "adaptation made things worse (rain energy rose" in done.stderr
    before, shipped = load_model(weights).model, load_model(tmp_path / "run").model
    for name, value in before.state_dict().items():
        assert torch.equal(value, shipped.state_dict()[name])


def test_a_finished_run_resumes_to_nothing_and_a_second_is_refused(photos, weights, tmp_path):
    words = (*small(photos, weights, tmp_path / "run"), "--steps", 2)
    assert invoke(*words).exit_code == 0
    with pytest.raises(ConfigError, match="holds a run"):
        invoke(*words)
    assert invoke("--out", tmp_path / "run", "--resume", "-q").exit_code == 0
    moved = invoke("--out", tmp_path / "run", "--resume", "-q", "--data-root", tmp_path)
    assert f"data sets are read from {tmp_path}, no longer from" in moved.stderr


def test_every_epoch_has_its_line(photos, weights, tmp_path):
    """Of the last one, which is a single step, it is written as soon as the one before it."""
    done = invoke(*small(photos, weights, tmp_path / "run"), "--steps", 3, "--epoch-steps", 2)
    assert re.findall(r"step (\d) of 3: epoch (\d):", done.stderr) == [
        ("1", "0"),
        ("3", "1"),
        ("3", "2"),
    ]
    again = invoke("--out", tmp_path / "run", "--resume", "--steps", 5)
    assert re.findall(r"step (\d) of 5: epoch (\d):", again.stderr)[-1] == ("5", "3")


def test_another_network_method_or_preset_is_no_resumption(tmp_path):
    config = FinetuneConfig(**METHODS["online_update"], weights="resnet-x", model="resnet")
    (tmp_path / "config.json").write_text(config.to_json())
    resumed = ("--out", tmp_path, "--resume", "--dry-run")
    with pytest.raises(UsageError, match="another `model`: the run has 'resnet-x', now 'other'"):
        invoke(*resumed, "-m", "other")
    with pytest.raises(UsageError, match="now 'resnet-x' from scratch"):
        invoke(*resumed, "-m", "resnet-x", "--from-scratch")
    with pytest.raises(UsageError, match="another `method`: the run has 'online-update'"):
        invoke(*resumed, "--method", "self-training")
    with pytest.raises(UsageError, match="`preset` begins a new run"):
        invoke(*resumed, "--preset", "quick")


def test_self_training_from_scratch(photos, tmp_path):
    pairs = tmp_path / "pairs"
    for side in ("rainy", "clean"):
        (pairs / side).mkdir(parents=True)
        for path in photos.iterdir():
            (pairs / side / path.name).write_bytes(path.read_bytes())
    tiny = ["widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4"]
    words = [*small(photos, "moss", tmp_path / "run"), "--from-scratch"]
    words += [word for text in tiny for word in ("--model-option", text)]
    words += ["--method", "self-training", "--dataset", pairs, "--epochs", 2]
    done = invoke(*words, "--warmup-epochs", 1, "--held-out", 1, "--without", "tv")
    assert done.exit_code == 0
    assert "PSNR (y)" in done.stderr
    assert load_model(tmp_path / "run").architecture == "moss"


def test_published_settings(photos, weights):
    given = {"real": str(photos), "crop": 32}
    online = config_of("online-update", str(weights), given, from_scratch=False)
    assert (online.lr, online.batch_size, online.kl_weight) == (1e-6, 1, 1e-4)
    assert online.steps == 30 * 3
    assert online.model_options()["channels"] == 4
    below_the_root = given | {"real": photos.name, "data_root": str(photos.parent)}
    named = config_of("online-update", str(weights), below_the_root, from_scratch=False)
    assert named.steps == online.steps  # the photos were found and counted
    constant = given | {"lr_schedule": "constant"}
    even = config_of("online-update", str(weights), constant, from_scratch=False)
    assert (even.lr, even.lr_schedule, even.lr_rates) == (1e-6, "constant", ())
    drops = given | {"lr": 1e-5, "lr_milestones": (0.5,)}
    dropping = config_of("online-update", str(weights), drops, from_scratch=False)
    assert (dropping.lr_schedule, dropping.lr_rates) == ("milestones", ())
    moss = config_of("self-training", "moss", {}, from_scratch=True)
    assert (moss.lr, moss.batch_size, moss.crop, moss.steps, moss.ema) == (
        *(1e-4, 16, 256, 100_000),
        0.999,
    )
    assert (moss.labelled_weight, moss.noisy_weight, moss.tv_weight) == (10, 1, 0.001)


def test_mistakes_are_said(photos, weights, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'online-update'"):
        invoke(*small(photos, weights, tmp_path / "a"), "--method", "online-updat")
    with pytest.raises(UsageError, match="no `model`"):
        invoke("--real", photos, "--out", tmp_path / "b")
    with pytest.raises(UsageError, match="leave `from_scratch` out"):
        invoke(*small(photos, "resnet", tmp_path / "c"), "--from-scratch")
    with pytest.raises(UsageError, match="`epochs` and `steps` exclude each other"):
        invoke(*small(photos, weights, tmp_path / "g"), "--epochs", 1, "--steps", 9)
    with pytest.raises(UnavailableError):
        invoke(*small(photos, "no-such-weights", tmp_path / "d"))
    with pytest.raises(DatasetError, match="no folder"):
        invoke(*small(tmp_path / "absent", weights, tmp_path / "e"))
    words = (*small(photos, weights, tmp_path / "f"), "--method", "self-training")
    with pytest.raises(ConfigError, match="labelled pairs"):
        invoke(*words, "--steps", 1)


def test_options_are_those_of_the_config_with_published_defaults():
    options = inspect.signature(finetune_real).parameters
    assert "[default: 1e-06]" in get_args(options["lr"].annotation)[1].help
    assert "[default: 0.0001]" in get_args(options["kl_weight"].annotation)[1].help
    assert "recipe" not in options
    assert invoke("--help").exit_code == 0
