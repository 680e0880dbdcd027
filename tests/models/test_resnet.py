"""ResNet: size, contract and reach of the plain residual network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models.resnet import ResNet, ResNetConfig

SMALL = ResNetConfig(channels=8, blocks=2)


@pytest.fixture(scope="module")
def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet().eval()


def rainy_picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_published_size() -> None:
    """64 channels, 16 blocks: 33 convolutions of 64 to 64, one in, one out."""
    inner = 33 * (64 * 64 * 9 + 64)
    assert sum(p.numel() for p in ResNet().parameters()) == 1_222_147
    assert inner + (3 * 64 * 9 + 64) + (64 * 3 * 9 + 3) == 1_222_147


def test_multiply_adds_at_256() -> None:
    with torch.device("meta"):
        network = ResNet()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() // 2 == 79_951_822_848


@torch.no_grad()
def test_receptive_radius_is_35() -> None:
    """With positive weights nothing cancels: an impulse changes all it can reach, and no more."""
    network = ResNet(ResNetConfig(channels=1)).double()
    for name, parameter in network.named_parameters():
        parameter.fill_(0.0 if name.endswith("bias") else 0.1)
    rainy = torch.zeros(1, 3, 96, 5, dtype=torch.float64)
    rainy[..., 48, :] = 1.0
    changed = network(rainy).abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert changed.tolist() == list(range(48 - 35, 48 + 35 + 1))


@pytest.mark.parametrize("config", [{"channels": 0}, {"blocks": 0}])
def test_impossible_config_is_refused(config: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(config))} must be at least 1, not 0"):
        ResNetConfig(**config)


@pytest.mark.slow
def test_overfits_one_pair() -> None:
    torch.manual_seed(0)
    network = ResNet()
    clean = 0.7 * F.interpolate(rainy_picture(4, 4), size=(32, 32), mode="bilinear")
    rainy = clean.clone()
    rainy[..., 2:-2, 1::5] += 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.9, 0.99))
    for _ in range(150):
        optimizer.zero_grad()
        F.l1_loss(network(rainy), clean).backward()
        optimizer.step()
    assert -10 * F.mse_loss(network(rainy), clean).log10() > 35
