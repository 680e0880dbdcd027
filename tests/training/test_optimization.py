"""One step: schedule, clipping, the guard against NaN, averages of weights."""

import math

import pytest
import torch
from torch import nn

from derain_cli.errors import TrainingError
from derain_cli.models import build_model
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.optimization import MovingAverage, Optimization, autocast


def step_of(weight, loss, samples=16, **changes):
    optimization = Optimization([weight], TrainConfig(**changes))
    return optimization.step(loss, {"part": 2 * loss}, 0, samples)


def test_a_step_is_adams_with_the_schedules_rate():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    logged = step_of(weight, (weight**2).sum(), lr=0.1, warmup=4)
    assert logged == {"loss": 5.0, "part": 10.0}
    torch.testing.assert_close(weight.detach(), torch.tensor([1 - 0.025, -2 + 0.025]))


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_gradients_longer_than_the_limit_are_shortened(limit):
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    step_of(weight, (weight**2).sum() / 2, clip_gradient=limit)
    expected = 0.5 if limit == 0.5 else 5.0
    assert weight.grad.norm().item() == pytest.approx(expected, rel=1e-4)


def test_a_share_that_is_larger_than_the_mean_counts_more():
    weight = nn.Parameter(torch.tensor([3.0]))
    logged = step_of(weight, weight.sum(), samples=24, batch_size=16)
    assert weight.grad.item() == 1.5
    assert logged["loss"] == 4.5


@pytest.mark.parametrize(
    ("make_loss", "what"),
    [
        (lambda weight: weight.sum() / 0, "loss of step 0 is inf"),
        (lambda weight: (weight * 0).sqrt().sum(), "gradient norm of step 0 is nan"),
    ],
)
def test_nothing_changes_when_a_number_is_not_finite(make_loss, what):
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(TrainingError, match=what):
        step_of(weight, make_loss(weight))
    assert torch.equal(weight.detach(), torch.ones(2))


def test_state_goes_on_where_it_was():
    def walk(stop):
        weight = nn.Parameter(torch.tensor([1.0]))
        optimization = Optimization([weight], TrainConfig())
        for step in range(4):
            if step == stop:
                state = optimization.state_dict()
                optimization = Optimization([weight], TrainConfig())
                optimization.load_state_dict(state)
            optimization.step((weight**2).sum(), {}, step, 16)
        return weight.item()

    assert walk(2) == walk(-1)


def test_autocast_is_the_precisions():
    a = torch.ones(2, 2)
    with autocast(TrainConfig(precision="bf16"), a.device):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(TrainConfig(), a.device):
        assert (a @ a).dtype == torch.float32


def test_average_follows_weights_and_buffers():
    model = build_model("moss", {"widths": [4, 4], "blocks": 1, "downsamplings": 0})
    average = MovingAverage(model, 0.75, young=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    average.follow(model, 0)
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25)
    assert not average.network.training


def test_a_young_average_forgets_its_random_start():
    model = nn.Linear(1, 1)
    average = MovingAverage(model, 0.999)
    for step in range(50):
        nn.init.constant_(model.weight, 7.0)
        average.follow(model, step)
    assert average.network.weight.item() == pytest.approx(7.0, abs=1e-4)


@pytest.mark.gpu
def test_fp16_on_a_gpu_scales_the_loss_and_skips_what_overflows():
    weight = nn.Parameter(torch.ones(1, device="cuda"))
    optimization = Optimization([weight], TrainConfig(precision="fp16"))
    optimization.step((weight * 1e35).sum(), {}, 0, 16)  # times 2**16 no float holds it
    assert weight.item() == 1
    optimization.step(weight.sum(), {}, 1, 16)
    assert weight.item() < 1
    assert "scaler" in optimization.state_dict()


def test_fp16_goes_on_after_a_loss_that_was_not_finite():
    weight = nn.Parameter(torch.ones(1))
    optimization = Optimization([weight], TrainConfig())
    optimization._scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(TrainingError, match="the loss of step 0 is nan"):
        optimization.step((weight * math.nan).sum(), {}, 0, 16)
    optimization.step(weight.sum(), {}, 1, 16)
    assert weight.item() < 1
