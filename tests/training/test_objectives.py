"""Losses by name: the published sums, and clear words where a term cannot be."""

import pytest
import torch
from safetensors.torch import save_file

from derain_cli.errors import ConfigError, UnavailableError
from derain_cli.losses import formulas as losses
from derain_cli.losses.vgg import Vgg19Features
from derain_cli.models import build_model
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import LOSSES, SHORTEST, Objective


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 24, 24, generator=generator) for _ in range(3)]


@pytest.fixture(scope="module")
def menet():
    return build_model("menet", {"residual_blocks": 1, "width": 8})


def objective(model=None, **changes):
    return Objective(TrainConfig(**changes), model or torch.nn.Conv2d(3, 3, 3))


def test_rdmc_eq_8_is_the_default(images):
    derained, clean, rainy = images
    total, parts = objective()(derained, clean, rainy)
    torch.testing.assert_close(total, losses.consistency(derained, clean, 0.1))
    assert list(parts) == ["ssim", "mse"]


def test_every_term_can_be_asked_for(images, tmp_path):
    save_file(Vgg19Features().state_dict(), tmp_path / "vgg.safetensors")
    terms = tuple(f"{name}:2" for name in LOSSES)
    total, parts = objective(loss=terms, vgg=str(tmp_path / "vgg.safetensors"))(*images)
    assert set(parts) == set(LOSSES)
    torch.testing.assert_close(total, 2 * torch.stack(list(parts.values())).sum())


def test_menet_terms_are_its_three_tasks(images, menet):
    derained, clean, rainy = images
    terms = {"loss": ("pixel:1", "edge:1", "texture:1"), "loss_weighting": "lb"}
    total, parts = objective(menet, **terms)(derained, clean, rainy)
    tasks = losses.menet_losses(derained, clean)
    for name, value in tasks.items():
        torch.testing.assert_close(parts[name], value)
    weights = [parts[f"weight_{name}"] for name in tasks]
    torch.testing.assert_close(torch.stack(weights).sum(), torch.tensor(2.0))
    expected = sum(w * value for w, value in zip(weights, tasks.values(), strict=True))
    torch.testing.assert_close(total, expected)


def test_gradient_balance_asks_the_last_convolution(images, menet):
    _, clean, rainy = images
    config = TrainConfig(loss=("pixel:1", "edge:1"), loss_weighting="gb")
    total, parts = Objective(config, menet)(menet(rainy), clean, rainy)
    norms = [
        torch.autograd.grad(parts[n], menet.last_shared_weight, retain_graph=True)[0].norm()
        for n in ("pixel", "edge")
    ]
    torch.testing.assert_close(parts["weight_pixel"], 1 - norms[0] / sum(norms))
    total.backward()


def test_a_term_of_weight_0_is_left_out(images):
    _, parts = objective(loss=("l1:1", "contrastive:0", "tv:0"))(*images)
    assert list(parts) == ["l1"]
    _, parts = objective(loss=("l1:1", "contrastive:0.1"), contrastive=0.0)(*images)
    assert list(parts) == ["l1"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": ("ssim:1", "contrastive:0.1")}, ConfigError, "`vgg` FILE.*`contrastive` 0"),
        ({"contrastive": 0.1}, ConfigError, "`vgg` FILE"),
        ({"contrastive": 0.1, "vgg": "no.safetensors"}, UnavailableError, "no VGG-19 weights"),
        ({"loss": ("simm",)}, ConfigError, "Did you mean 'ssim'"),
        ({"loss": ("l1:x",)}, ConfigError, "weight of loss 'l1:x' is no number"),
        ({"loss": ("ssim:nan",)}, ConfigError, "weight of loss 'ssim:nan' is no number"),
        ({"loss": ("l1:0",)}, ConfigError, "no loss has a weight"),
        ({"loss": ()}, ConfigError, "no loss has a weight"),
        ({"loss": ("l1",), "loss_weighting": "lb"}, ConfigError, "needs two losses"),
        ({"loss_weighting": "gb"}, ConfigError, "'rdmc' does not name"),
        ({"loss_weighting": "gb", "compile": True}, ConfigError, "leave `compile` out"),
        ({"crop": 10}, ConfigError, "`crop` is 10; the ssim loss needs 11 pixels"),
        ({"final_crop": 3, "loss": ("texture",)}, ConfigError, "`final_crop` is 3; the texture"),
    ],
)
def test_what_cannot_be_is_said(changes, error, message):
    with pytest.raises(error, match=message):
        objective(**changes)


@pytest.mark.parametrize("name", LOSSES)
def test_the_shortest_crop_of_each_term_is_enough_and_one_less_is_not(name, tmp_path):
    """A loss that is not finite counts as none."""
    save_file(Vgg19Features().state_dict(), tmp_path / "vgg.safetensors")
    term = objective(loss=(name,), vgg=str(tmp_path / "vgg.safetensors"))

    def is_computed(side):
        try:
            return bool(term(*torch.rand(3, 1, 3, side, side))[0].isfinite())
        except (RuntimeError, ValueError):
            return False

    shortest = SHORTEST.get(name, 1)
    assert is_computed(shortest)
    assert shortest == 1 or not is_computed(shortest - 1)
