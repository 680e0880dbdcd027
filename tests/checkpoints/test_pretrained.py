"""The Hub's three methods on every network, against a small Hub on this machine."""

import importlib.util
from pathlib import Path

import pytest
import torch

from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import CheckpointError, UnavailableError
from derain_cli.models import MODELS, architecture_of, build_model
from derain_cli.models.prenet import PReNet, PReNetConfig
from derain_cli.models.resnet import ResNet

spec = importlib.util.spec_from_file_location("local_hub", Path(__file__).with_name("test_hub.py"))
local_hub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local_hub)
running_hub, hub_server = local_hub.running_hub, local_hub.hub_server


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_known_by_its_class_and_config(name):
    with torch.device("meta"):
        assert architecture_of(build_model(name)) == name


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_the_three_methods(name):
    for method in ("from_pretrained", "save_pretrained", "push_to_hub"):
        assert callable(getattr(MODELS[name].build, method))


def small_prenet() -> PReNet:
    torch.manual_seed(0)
    return PReNet(PReNetConfig(channels=4, blocks=1, stages=2)).eval()


@torch.inference_mode()
def test_a_saved_folder_comes_back_to_the_bit_and_the_commands_take_it(tmp_path):
    network, rainy = small_prenet(), torch.rand(1, 3, 12, 15)
    network.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    back = PReNet.from_pretrained(tmp_path)
    assert back.config == network.config
    assert torch.equal(back(rainy), network(rainy))
    assert load_model(tmp_path / "model.safetensors").architecture == "prenet"
    card = (tmp_path / "README.md").read_text()
    assert "library_name: derain" in card
    assert "pipeline_tag: image-to-image" in card


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload")  # the Hub's own client
@torch.inference_mode()
def test_pushed_and_pulled_through_the_hub(hub_server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", local_hub.TOKEN)
    network, rainy = small_prenet(), torch.rand(1, 3, 12, 15)
    network.push_to_hub("me/prenet")
    held = hub_server.repositories["me/prenet"]
    assert {"README.md", "model.safetensors"} <= held.commits[held.refs["main"]].keys()
    back = PReNet.from_pretrained("me/prenet")
    assert torch.equal(back(rainy), network(rainy))
    assert torch.equal(load_model("hf:me/prenet").model(rainy), network(rainy))


def test_another_networks_weights_are_refused_by_name(tmp_path):
    small_prenet().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="weights of 'prenet', a PReNet and no ResNet"):
        ResNet.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UnavailableError, match=r"no model\.safetensors in"):
        PReNet.from_pretrained(tmp_path)
