"""Gradients added up over parts of a batch: the same samples, the same step, in less memory."""

import dataclasses
from pathlib import Path

import pytest
import torch

from derain_cli.errors import ConfigError
from derain_cli.models import build_model
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.supervised import Supervised
from derain_cli.training.trainer import train


@pytest.fixture
def config(tiny_config) -> TrainConfig:
    """Batch norm frozen from the first step; six crops a step."""
    return tiny_config("rdmc", steps=3, batch_size=6, freeze_norm_from=0.0, held_out=0)


def in_parts(config, count):
    return dataclasses.replace(config, batch_size=6 // count, accumulate=count)


def test_the_step_is_that_of_the_larger_batch(config, tmp_path, state_of):
    """But for rounding: a sum in one kernel and a sum of parts differ in the last digit."""
    losses = {}
    for count in (1, 3):
        seen = losses.setdefault(count, [])
        train(
            in_parts(config, count),
            tmp_path / str(count),
            report=lambda progress, seen=seen: seen.append(progress.parts["loss"]),
        )
    assert losses[3] == pytest.approx(losses[1], rel=1e-5)
    whole, parts = (state_of(tmp_path / str(count)) for count in (1, 3))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)  # 3 steps move it by 6e-3


def test_gradient_is_to_the_bit_the_sum_of_the_parts(config, tmp_path, state_of):
    """Of one batch of six, computed here in three parts, each weighted by its share."""
    train(dataclasses.replace(in_parts(config, 3), steps=1), tmp_path / "run")
    torch.manual_seed(config.seed)
    model = build_model("rdmc", config.model_options()).to(memory_format=torch.channels_last)
    model.load_state_dict(buffers_of(state_of(tmp_path / "run"), model))
    recipe = Supervised(model.eval(), config, Path())
    batch = {name: torch.from_numpy(x) for name, x in recipe.draw(0, range(6)).items()}
    for first in range(0, 6, 2):
        part = {
            name: images[first : first + 2].contiguous(memory_format=torch.channels_last)
            for name, images in batch.items()
        }
        loss, _ = recipe.losses(part)
        (2 / 6 * loss).backward()
    torch.optim.Adam(model.parameters(), lr=config.lr, fused=True).step()
    for name, value in state_of(tmp_path / "run").items():
        assert torch.equal(value, model.state_dict()[name]), name


def buffers_of(state, model):
    """The run's frozen statistics beside the network's first weights."""
    return model.state_dict() | {name: state[name] for name, _ in model.named_buffers()}


def test_less_memory_is_asked_for_at_once(config, monkeypatch, tmp_path):
    """No forward pass sees more than its part, the last part of an uneven batch neither."""
    sizes = []
    forward = Supervised.losses

    def losses(self, batch):
        sizes.append(len(batch["rainy"]))
        return forward(self, batch)

    monkeypatch.setattr(Supervised, "losses", losses)
    uneven = dataclasses.replace(
        config, steps=2, batch_size=2, accumulate=3, final_crop=40, final_from=0.5
    )
    train(uneven, tmp_path / "run")
    assert sizes == [2, 2, 2, 1, 1, 2]  # then 6 x (32/40)^2, rounded


def test_an_epoch_is_as_many_crops(tiny_config, tmp_path):
    config = tiny_config("resnet", loss=("l1:1",), epochs=4, held_out=0, batch_size=1, accumulate=2)
    assert train(config, tmp_path / "run").step == 8  # four images, two a step


def test_losses_that_are_balanced_over_the_batch_are_refused(tiny_config, tmp_path):
    config = tiny_config("menet", loss=("pixel", "edge"), loss_weighting="lb", accumulate=2)
    with pytest.raises(ConfigError, match="`loss_weighting` lb compares the losses of a whole"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
