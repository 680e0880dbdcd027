"""U-Net: size, contract and reach of the plain encoder-decoder."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models.unet import UNet, UNetConfig


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet().eval()


def rainy_picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_size() -> None:
    assert sum(p.numel() for p in UNet().parameters()) == 7_697_475


def test_fifth_level_gives_the_original_size() -> None:
    """31.03 M with 3 channels in and 3 out is the U-Net of 2015."""
    with torch.device("meta"):
        network = UNet(UNetConfig(widths=(64, 128, 256, 512, 1024)))
    assert sum(p.numel() for p in network.parameters()) == 31_031_875


def test_multiply_adds_at_256() -> None:
    with torch.device("meta"):
        network = UNet()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() // 2 == 36_767_268_864


@torch.no_grad()
def test_receptive_radius_is_51() -> None:
    """With positive weights nothing cancels: an impulse changes all it can reach, and no more.

    How far that is depends on where the pixel lies in its block of 8.
    """
    network = UNet(UNetConfig(widths=(1, 1, 1, 1))).double()
    for name, parameter in network.named_parameters():
        parameter.fill_(0.0 if name.endswith("bias") else 0.1)
    rainy = torch.zeros(8, 3, 128, 8, dtype=torch.float64)
    for place in range(8):
        rainy[place, :, 56 + place, :] = 1.0
    reach = network(rainy).abs().amax(dim=(1, 3)) > 0
    distances = (torch.arange(128) - torch.arange(56, 64)[:, None]).abs()
    assert int(distances[reach].max()) == 51


@torch.no_grad()
def test_moving_by_a_block_moves_the_result(network: UNet) -> None:
    """Tiles that start at multiples of 8 equal the whole picture beyond 51 pixels."""
    rainy = rainy_picture(128, 72)
    whole, tile = network(rainy), network(rainy[..., 8:, :])
    torch.testing.assert_close(tile[..., 51:, :], whole[..., 59:, :], rtol=0, atol=1e-5)
    assert not torch.allclose(tile[..., :8, :], whole[..., 8:16, :], rtol=0, atol=1e-3)


def test_config_from_json_equals_the_original() -> None:
    assert UNetConfig(widths=[64, 128, 256, 512]) == UNetConfig()  # type: ignore[arg-type]


@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_impossible_config_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths must be one or more numbers from 1 up"):
        UNetConfig(widths=widths)


@pytest.mark.slow
def test_overfits_one_pair() -> None:
    torch.manual_seed(0)
    network = UNet()
    clean = 0.7 * F.interpolate(rainy_picture(4, 4), size=(32, 32), mode="bilinear")
    rainy = clean.clone()
    rainy[..., 2:-2, 1::5] += 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4, betas=(0.9, 0.99))
    for _ in range(150):
        optimizer.zero_grad()
        F.l1_loss(network(rainy), clean).backward()
        optimizer.step()
    assert -10 * F.mse_loss(network(rainy), clean).log10() > 35
