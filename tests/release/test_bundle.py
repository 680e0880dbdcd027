"""A run becomes bundled weights and an entry that says how they were made."""

import hashlib
import tomllib

import pytest
import torch

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.checkpoints.files import read_metadata, save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.models import build_model
from derain_cli.release.bundle import bundle_run, push_run, released_bytes
from derain_cli.training.configs.train import TrainConfig


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    monkeypatch.setenv("DERAIN_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def make_run(tmp_path):
    def make(seed: int = 0, **options: object):
        folder = tmp_path / f"run{seed}"
        folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
        config = TrainConfig(
            **({"dataset": ("d",), "data_root": "/secret", "seed": seed} | options)
        )
        about = {"config": config.to_json(), "step": "5", "seconds": "1", "validation_psnr": "9"}
        save_checkpoint(folder / "best.safetensors", model, "rdmc", about)
        return folder

    return make


def test_bundled_run_is_found_by_name_and_is_the_run(weights, make_run):
    run = make_run()
    entry = bundle_run(run, "rdmc-x", default=True, about={"licence": 'by "us"\t\x7f é'})
    assert list_weights() == (entry,)
    path = weights / "rdmc-x.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
    loaded, own = load_model("rdmc").model.state_dict(), load_model(run).model.state_dict()
    assert all(torch.equal(loaded[name], own[name]) for name in own)
    assert "/secret" not in read_metadata(path)["config"]
    assert "/secret" not in (weights / "weights.toml").read_text(encoding="utf-8")
    assert entry.about["command"].startswith("derain train --model rdmc --dataset d --steps")


def test_the_same_run_gives_the_same_bytes(make_run):
    path = make_run() / "best.safetensors"
    assert len({released_bytes(path) for _ in range(20)}) == 1


def test_half_precision_halves_the_parameters_and_keeps_statistics(weights, make_run):
    run = make_run()
    bundle_run(run, "rdmc-x", half=True)
    loaded, own = load_model("rdmc-x").model.state_dict(), load_model(run).model.state_dict()
    for name in own:
        assert loaded[name].dtype == own[name].dtype
        exact = torch.equal(loaded[name], own[name])
        assert exact or torch.equal(loaded[name], own[name].half().float())
        assert exact or "running" not in name


def test_bundling_again_keeps_what_still_holds(weights, make_run):
    pin = {"repo": "me/net", "revision": "a" * 40}
    told = {"summary": "S", "data": "D", "limits": "L"}
    bundle_run(make_run(), "rdmc-x", default=True, about=told | pin)
    scores = {"set": {"psnr": 30.0, "protocol": "y"}}
    entry = bundle_run(make_run(), "rdmc-x", scores=scores)
    assert entry.about["scores"] == scores
    assert told.items() <= entry.about.items()
    assert entry.on_hub is not None
    again = bundle_run(make_run(1), "rdmc-x", scores={"other": {"psnr": 1.0}})
    assert (again.default, again.about["seed"], again.about["data"]) == (True, 1, "pairs of d")
    # What was measured on the old file is not true of the new one.
    assert again.about["scores"].keys() == {"other"}
    assert again.about["summary"] == "S"
    assert "limits" not in again.about
    assert again.on_hub is None  # the Hub has the old file
    assert list_weights() == (again,)


def test_one_default_per_network_and_comments_at_the_top_stay(weights, make_run):
    weights.mkdir()
    (weights / "weights.toml").write_text("# Ours.\n")
    bundle_run(make_run(), "rdmc-a", default=True)
    bundle_run(make_run(), "rdmc-b", default=True)
    assert {entry.name: entry.default for entry in list_weights()} == {
        "rdmc-a": False,
        "rdmc-b": True,
    }
    assert (weights / "weights.toml").read_text().startswith("# Ours.\n\n[rdmc-a]\n")


@pytest.mark.parametrize("name", ["x", "unet-x", "rdmc-", "rdmc-X", "rdmc-a/b"])
def test_names_begin_with_the_networks(name, weights, make_run):
    with pytest.raises(UsageError, match="is not 'rdmc-' and what it was trained on"):
        bundle_run(make_run(), name)
    assert not weights.exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"default": "true"}, "field 'default' of an entry is no text to set"),
        ({"summary": "S", "dry_psnr": "46.0"}, "field 'dry_psnr'"),
        ({"scores": "x"}, "field 'scores'"),
        ({"revision": "main"}, "revision 'main' is no commit"),
    ],
)
def test_an_entry_that_could_not_be_read_again_is_not_written(about, message, weights, make_run):
    with pytest.raises(UsageError, match=message):
        bundle_run(make_run(), "rdmc-x", about=about)
    assert not weights.exists()


@pytest.mark.parametrize("config", ["x", "[]"])
def test_a_foreign_config_is_released_nowhere(config, weights, tmp_path):
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, model, "rdmc", {"config": config, "step": "1"})
    with pytest.raises(CheckpointError, match="holds a foreign config"):
        bundle_run(path, "rdmc-x")
    with pytest.raises(CheckpointError, match="holds a foreign config"):
        push_run(str(path), "me/net")
    assert not weights.exists()


def test_entries_are_toml(weights, make_run):
    about = {"validation": {"pairs:a b": 1.5}, "many": ["a", 2, True]}
    bundle_run(make_run(), "rdmc-x", about=about, scores={"my set": {"psnr": 1.0}})
    text = (weights / "weights.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)["rdmc-x"]
    assert {key: table[key] for key in about} == about
    assert table["scores"] == {"my set": {"psnr": 1.0}}
