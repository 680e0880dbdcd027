"""What every network of the zoo must do, over the whole table."""

from pathlib import Path

import pytest
import torch

import derain_cli.models as zoo
from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import ConfigError, UsageError
from derain_cli.models import MODELS, build_model, entry_of, find_model, model_config

torch.set_num_threads(1)


# As published, tracing or bf16 take these ten seconds and more: time goes by layers.
SMALLER = {
    "hcn": {"channels": 4, "blocks": [1], "match_channels": 1, "mining_levels": 2},
    "swinir": {"depths": [2, 2]},
}


@pytest.fixture(scope="module", params=MODELS)
def network(request):
    torch.manual_seed(0)
    return request.param, build_model(request.param).eval()


def test_every_file_of_the_zoo_is_in_the_table():
    files = {path.stem for path in Path(zoo.__file__).parent.glob("*.py")} - {"__init__"}
    named = {entry.build.__module__.rpartition(".")[2] for entry in MODELS.values()}
    assert files == named


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (3, 50)])
@torch.inference_mode()
def test_any_size_comes_back_as_it_was(network, size):
    derained = network[1](torch.rand(1, 3, *size))
    assert derained.shape == (1, 3, *size)
    assert derained.isfinite().all()


@torch.inference_mode()
def test_eval_is_deterministic_and_knows_no_batch(network):
    rainy = torch.rand(2, 3, 32, 32)
    both = network[1](rainy)
    assert torch.equal(both, network[1](rainy))
    torch.testing.assert_close(both[:1], network[1](rainy[:1]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_bf16_and_channels_last_stay_close(name):
    torch.manual_seed(0)
    model = build_model(name, SMALLER.get(name, {})).eval()
    rainy = torch.rand(1, 3, 16, 24)  # processors without bf16 take seconds for more
    exact = model(rainy)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(rainy.contiguous(memory_format=torch.channels_last)).float()
    assert half.isfinite().all()
    assert (half - exact).abs().mean() < 0.05


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(1)
    model = build_model(name, SMALLER.get(name, {})).train()
    outputs = model(torch.rand(2, 3, 64, 64), **find_model(name).training_outputs)
    results = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    torch.stack([(result**2).mean() for result in results]).sum().backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None]
    assert idle == []
    dead = [key for key, value in model.named_parameters() if not value.grad.isfinite().all()]
    assert dead == []


def test_checkpoint_round_trip_is_bit_equal(network, tmp_path):
    name, model = network
    save_checkpoint(tmp_path / "x.safetensors", model, name, {})
    loaded = load_model(tmp_path / "x.safetensors")
    assert loaded.architecture == name
    assert model_config(loaded.model) == model_config(model)
    rainy = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(rainy), loaded.model(rainy))


@pytest.mark.parametrize("name", MODELS)
def test_export_works_or_the_entry_says_why_not(name):
    if reason := find_model(name).not_exportable:
        pytest.skip(reason)
    model, rainy = build_model(name, SMALLER.get(name, {})).eval(), torch.rand(1, 3, 64, 64)
    exported = torch.export.export(model, (rainy,))
    with torch.inference_mode():
        torch.testing.assert_close(exported.module()(rainy), model(rainy))


def test_entries_say_what_tiling_needs(network):
    entry = find_model(network[0])
    assert entry.padding_multiple >= 1
    assert entry.tile_overlap >= 0
    assert (entry.receptive_radius is None) == bool(entry.not_tile_exact)


@pytest.mark.parametrize(
    ("name", "config", "overlap"),
    [
        ("resnet", {"channels": 1, "blocks": 20}, 109),  # 88 * 43 / 35
        ("resnet", {"channels": 1, "blocks": 4}, 88),
        ("prenet", {"channels": 1, "blocks": 2, "stages": 12}, 104),
        ("menet", {"width": 4, "residual_blocks": 9, "channel_attention": False}, 128),
    ],
)
def test_a_network_that_sees_farther_has_tiles_that_overlap_more(name, config, overlap):
    """With positive weights nothing cancels: the gradient shows all that a pixel depends on."""
    model = build_model(name, config).eval().double()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    rainy = torch.rand(1, 3, 16, 352, dtype=torch.float64, requires_grad=True)
    derained, reaches = model(rainy), []
    for center in range(168, 184):
        (grad,) = torch.autograd.grad(derained[0, 0, 8, center], rainy, retain_graph=True)
        seen = grad.abs().sum((0, 1, 2)).nonzero().flatten()
        reaches += [center - int(seen.min()), int(seen.max()) - center]
    entry = entry_of(model)
    assert (entry.receptive_radius, entry.tile_overlap) == (max(reaches), overlap)


def test_published_networks_see_as_far_as_their_entries_say():
    for name, entry in MODELS.items():
        radius = getattr(entry.config(), "receptive_radius", entry.receptive_radius)
        assert radius == entry.receptive_radius, name


def test_unknown_names_and_fields_are_named():
    with pytest.raises(UsageError, match="unknown model 'hcm'"):
        build_model("hcm")
    with pytest.raises(ConfigError, match=r"no option 'stagez'\. Did you mean 'stages'"):
        build_model("rdmc", {"stagez": 3})
    wrong_kind = r"a value of stages='no' is of the wrong kind \(as published: stages=\d+\)"
    with pytest.raises(ConfigError, match=wrong_kind):
        build_model("rdmc", {"stages": "no"})
