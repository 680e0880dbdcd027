"""Muon: orthogonal steps of Adam's size for matrices, Adam's own steps for the rest."""

import pytest
import torch
from torch import nn

from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.muon import Muon, is_matrix, orthogonal
from derain_cli.training.optimization import Optimization


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 24, 3, 3)])
@pytest.mark.parametrize("size", [1e-6, 1e3])
def test_singular_values_become_alike_and_sizes_adams(shape, size):
    gradient = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    step, other = orthogonal(torch.stack([gradient, gradient.roll(1)]))
    torch.testing.assert_close(step, orthogonal(gradient[None])[0], rtol=0.05, atol=0.01)
    torch.testing.assert_close(other, orthogonal(gradient.roll(1)[None])[0], rtol=0.05, atol=0.01)
    assert step.shape == gradient.shape
    matrix = step.reshape(len(step), -1)
    values = torch.linalg.svdvals(matrix) / (0.2 * max(matrix.shape) ** 0.5)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert matrix.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)
    assert (matrix * gradient.reshape(len(step), -1)).sum() > 0


def test_no_gradient_is_no_step():
    assert not orthogonal(torch.zeros(1, 16, 16)).any()


def test_what_is_no_matrix_steps_as_with_adam():
    mine, adams = (nn.Parameter(torch.linspace(-1, 2, 6)) for _ in range(2))
    optimizers = (
        Muon([mine], 0.1, (0.9, 0.99)),
        torch.optim.Adam([adams], lr=0.1, betas=(0.9, 0.99)),
    )
    for _ in range(5):
        for weight, optimizer in zip((mine, adams), optimizers, strict=True):
            optimizer.zero_grad()
            (weight**2 + weight).sum().backward()
            optimizer.step()
    torch.testing.assert_close(mine, adams)


def test_a_matrix_follows_nesterovs_momentum():
    """mean <- 0.95 mean + 0.05 gradient; the step is along 0.05 gradient + 0.95 mean."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(3, 16, 24, generator=generator).double().unbind()
    weight = nn.Parameter(torch.zeros(16, 24, dtype=torch.float64))
    optimizer = Muon([weight], 0.1, (0.9, 0.99))
    mean, expected = torch.zeros(16, 24).double(), torch.zeros(16, 24).double()
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.95 * mean + 0.05 * gradient
        expected = expected - 0.1 * orthogonal((0.05 * gradient + 0.95 * mean)[None])[0]
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-3)


def test_layers_that_are_narrow_or_depthwise_are_left_to_adam():
    layers = [nn.Conv2d(16, 32, 3), nn.Conv2d(12, 48, 3), nn.Conv2d(32, 32, 3, groups=32)]
    assert [is_matrix(layer.weight) for layer in layers] == [True, False, False]
    assert not is_matrix(layers[0].bias)


def walk(stop):
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    config = TrainConfig(optimizer="muon", lr=0.01)
    optimization = Optimization(layer.parameters(), config)
    losses = []
    for step in range(8):
        if step == stop:
            state = optimization.state_dict()
            optimization = Optimization(layer.parameters(), config)
            optimization.load_state_dict(state)
        loss = (layer(torch.eye(16)) - torch.eye(16)).square().sum()
        losses.append(optimization.step(loss, {}, step, 16)["loss"])
    return losses


def test_a_run_learns_and_goes_on_where_it_was():
    losses = walk(-1)
    assert losses[-1] < 0.8 * losses[0]
    assert walk(4) == losses
