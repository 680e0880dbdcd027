"""Task weighting: the algorithms by hand, what GB costs, and processes that weigh as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from derain_cli.errors import ConfigError
from derain_cli.losses.weighting import gradient_balanced, loss_balanced, weigh_losses
from tests.children import Child


def tasks_of(derained: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Three losses of very different size."""
    difference = derained - clean
    return {
        "pixel": difference.square().mean(),
        "edge": 10 * difference.diff(dim=-1).square().mean(),
        "texture": 1e4 * (derained.mean() - clean.mean()) ** 2,
    }


class TwoConvolutions(nn.Module):
    """A network whose last convolution all tasks share."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 12, 3, padding=1, bias=False)
        for weight in self.parameters():
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
        self.backward_passes = 0

    def forward(self, rainy: Tensor) -> Tensor:
        features = torch.relu(self.first(rainy))
        if features.requires_grad:
            features.register_hook(self._count)
        return torch.pixel_shuffle(self.last(features), 2)[..., ::2, ::2] + rainy

    def _count(self, _: Tensor) -> None:
        self.backward_passes += 1


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    rainy, clean = torch.rand(2, 4, 3, 8, 8, generator=generator)
    return rainy, clean


def test_loss_balance_by_hand() -> None:
    weights = loss_balanced([torch.tensor(2.0), torch.tensor(3.0), torch.tensor(5.0)])
    torch.testing.assert_close(weights, torch.tensor([0.8, 0.7, 0.5]))


def test_gradient_balance_by_hand() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = [3 * weight[0] + 4 * weight[1], (weight**2).sum(), 5 * weight[1]]
    norms = torch.tensor([5.0, 2 * 5**0.5, 5.0])
    torch.testing.assert_close(gradient_balanced(losses, weight), 1 - norms / norms.sum())


def test_weights_of_a_dominating_task_keep_their_digits() -> None:
    # 1 - 1e9 / (1e9 + 1) is 0 in float32: the task would be lost
    weights = loss_balanced([torch.tensor(1.0), torch.tensor(1e9)])
    assert weights[1].item() == pytest.approx(1e-9, rel=1e-5)


def test_perfect_tasks_weigh_the_same() -> None:
    weights = loss_balanced([torch.tensor(0.0)] * 3)
    torch.testing.assert_close(weights, torch.full((3,), 2 / 3))


@pytest.mark.parametrize("weighting", ["gb", "lb"])
def test_a_lone_task_cannot_be_balanced(weighting: str) -> None:
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(ConfigError, match=r"needs two tasks or more, not 1: .* 'fixed'"):
        weigh_losses({"pixel": weight.sum()}, weighting, shared_weight=weight)


def test_gradient_balance_equals_a_full_backward_pass_per_task(
    batch: tuple[Tensor, Tensor],
) -> None:
    rainy, clean = batch
    norms = []
    for task in ("pixel", "edge", "texture"):
        network = TwoConvolutions()
        tasks_of(network(rainy), clean)[task].backward()
        norms.append(network.last.weight.grad.norm())
    network = TwoConvolutions()
    losses = tasks_of(network(rainy), clean)
    weights = gradient_balanced(list(losses.values()), network.last.weight)
    expected = torch.stack(norms)
    torch.testing.assert_close(weights, 1 - expected / expected.sum())


def test_gradient_balance_stops_at_the_last_convolution(batch: tuple[Tensor, Tensor]) -> None:
    rainy, clean = batch
    network = TwoConvolutions()
    losses = tasks_of(network(rainy), clean)
    total, _ = weigh_losses(losses, "gb", shared_weight=network.last.weight)
    assert network.backward_passes == 0
    assert all(weight.grad is None for weight in network.parameters())
    total.backward()
    assert network.backward_passes == 1


@pytest.mark.parametrize("weighting", ["gb", "lb"])
def test_no_gradient_flows_through_the_weights(
    batch: tuple[Tensor, Tensor], weighting: str
) -> None:
    rainy, clean = batch
    network = TwoConvolutions()
    losses = tasks_of(network(rainy), clean)
    total, weights = weigh_losses(losses, weighting, shared_weight=network.last.weight)
    total.backward()
    expected = torch.zeros_like(network.first.weight)
    for task, weight in weights.items():
        other = TwoConvolutions()
        (weight.item() * tasks_of(other(rainy), clean)[task]).backward()
        expected += other.first.weight.grad
    torch.testing.assert_close(network.first.weight.grad, expected)


@pytest.mark.parametrize("weighting", ["gb", "lb"])
def test_the_weights_of_three_tasks_add_up_to_two(
    batch: tuple[Tensor, Tensor], weighting: str
) -> None:
    rainy, clean = batch
    network = TwoConvolutions()
    losses = tasks_of(network(rainy), clean)
    _, weights = weigh_losses(losses, weighting, shared_weight=network.last.weight)
    assert list(weights) == list(losses)
    assert sum(weights.values()).item() == pytest.approx(2)
    largest = max(losses, key=lambda task: losses[task].item())
    if weighting == "lb":
        assert min(weights, key=lambda task: weights[task].item()) == largest


def test_autocast_does_not_coarsen_the_weights() -> None:
    losses = [torch.tensor(1.0), torch.tensor(1.001), torch.tensor(7.0)]
    expected = loss_balanced(losses)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss_balanced(losses), expected)


def test_fixed_weights() -> None:
    losses = {"pixel": torch.tensor(2.0), "edge": torch.tensor(300.0)}
    total, weights = weigh_losses(losses, "fixed", fixed={"edge": 1e-2, "pixel": 1.0})
    assert total.item() == pytest.approx(5)
    assert weights["edge"].item() == pytest.approx(1e-2)


def test_fixed_weights_name_every_task() -> None:
    losses = {"pixel": torch.tensor(2.0), "edge": torch.tensor(300.0)}
    message = r"fixed loss weights are given for \['pixel'\], but the tasks are \['edge', 'pixel'\]"
    with pytest.raises(ConfigError, match=message):
        weigh_losses(losses, "fixed", fixed={"pixel": 1.0})


def test_unknown_weighting() -> None:
    with pytest.raises(ConfigError, match=r"unknown loss weighting 'GB'\. .*Known: fixed, gb, lb"):
        weigh_losses({}, "GB")


def test_gradient_balance_needs_the_shared_convolution() -> None:
    with pytest.raises(ConfigError, match=r"'gb' needs the weight of the last shared convolution"):
        weigh_losses({"pixel": torch.tensor(1.0)}, "gb")


SCRIPT = """
import importlib.util, json, os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from derain_cli.losses.weighting import weigh_losses

spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
rainy, clean = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
share = slice(rank * 4 // size, (rank + 1) * 4 // size)
network = module.TwoConvolutions()
wrapped = network
if size > 1:
    dist.init_process_group("gloo")
    wrapped = DistributedDataParallel(network)
derained = wrapped(rainy[share])
# A mean over pictures, so that shares add up to the batch.
losses = {"pixel": (derained - clean[share]).square().mean(),
          "edge": 10 * (derained - clean[share]).abs().mean()}
total, weights = weigh_losses(losses, sys.argv[2], shared_weight=network.last.weight)
total.backward()
print(json.dumps([*(w.item() for w in weights.values()),
                  *network.first.weight.grad.flatten().tolist()]))
if size > 1:
    dist.destroy_process_group()
"""


def run_processes(count: int, weighting: str) -> list[list[float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__)), weighting]
    processes = [
        Child(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        for rank in range(count)
    ]
    try:
        return [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["gb", "lb"])
def test_two_processes_weigh_as_one(weighting: str) -> None:
    (one,) = run_processes(1, weighting)
    for rank in run_processes(2, weighting):
        assert rank == pytest.approx(one, rel=1e-4, abs=1e-6)
