"""SwinIR: size, contract and windows of the transformer."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models.swinir import SwinIR, SwinIRConfig, WindowAttention, window_bands

SMALL = SwinIRConfig(channels=12, depths=(2,), heads=2)


@pytest.fixture(scope="module")
def network() -> SwinIR:
    torch.manual_seed(0)
    return SwinIR().eval()


def rainy_picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_size_matches_the_released_light_network() -> None:
    """With the up-sampling for doubled pictures it would be the 910,152 that are known of it.

    The paper's Table 3 prints 878 K: that is 910,152 without the 32,460 of `after_blocks`.
    """
    network = SwinIR()
    own = sum(p.numel() for p in network.parameters())
    last = sum(p.numel() for p in network.to_rain.parameters())
    after_blocks = sum(p.numel() for p in network.after_blocks.parameters())
    up_sampling = 60 * 12 * 9 + 12
    assert own == 905_283
    assert own - last + up_sampling == 910_152
    assert round((own - last + up_sampling - after_blocks) / 1000) == 878


def test_multiply_adds_at_256() -> None:
    with torch.device("meta"):
        network = SwinIR()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 256, 256, device="meta"))
    assert counter.get_total_flops() // 2 == 68_019_978_240


def test_gradients_flow_under_bf16() -> None:
    network = SwinIR(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        network(rainy_picture(24, 24)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("shift", [0, 4])
@torch.no_grad()
def test_attention_equals_the_masked_attention_of_the_paper(shift: int) -> None:
    """Every pixel against every pixel, with all but those of the same window masked out."""
    height, width = 16, 24
    attention = WindowAttention(SMALL, shift).double()
    torch.nn.init.normal_(attention.bias_table)
    x = torch.randn(1, height, width, 12, dtype=torch.float64)

    y = torch.arange(height).repeat_interleave(width)
    x_place = torch.arange(width).repeat(height)
    window = torch.stack(
        [(y - shift).div(8, rounding_mode="floor"), (x_place - shift).div(8, rounding_mode="floor")]
    )
    allowed = (window[:, :, None] == window[:, None, :]).all(dim=0)
    down, right = y[:, None] - y[None, :], x_place[:, None] - x_place[None, :]
    row = (down.clamp(-7, 7) + 7) * 15 + right.clamp(-7, 7) + 7
    bias = attention.bias_table[row].permute(2, 0, 1)

    q, k, v = attention.to_qkv(x).view(height * width, 3, 2, 6).permute(1, 2, 0, 3)
    scores = (q @ k.transpose(1, 2)) / 6**0.5 + bias
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    expected = attention.project((weights @ v).permute(1, 0, 2).reshape(1, height, width, 12))
    torch.testing.assert_close(attention(x), expected)


@torch.no_grad()
def test_shifted_windows_are_regular_windows_of_the_moved_picture() -> None:
    regular, shifted = WindowAttention(SMALL, 0), WindowAttention(SMALL, 4)
    shifted.load_state_dict(regular.state_dict())
    x = torch.randn(2, 32, 24, 12)
    inside = shifted(x)[:, 4:-4, 4:-4]
    torch.testing.assert_close(inside, regular(x[:, 4:-4, 4:-4]))
    assert not torch.allclose(inside, regular(x)[:, 4:-4, 4:-4], atol=1e-3)


@torch.no_grad()
def test_moving_by_a_window_moves_the_result_by_half_a_window_does_not() -> None:
    torch.manual_seed(0)
    network, rainy, margin = SwinIR(SMALL).double().eval(), rainy_picture(64, 64).double(), 24
    whole = network(rainy)
    for step, same in ((8, True), (4, False)):
        # Cut on both sides, so that the picture stays a multiple of the window.
        moved = network(rainy[..., step : 56 + step, step : 56 + step])
        here = moved[..., margin : 56 - margin, margin : 56 - margin]
        there = whole[..., margin + step : 56 + step - margin, margin + step : 56 + step - margin]
        assert torch.allclose(here, there, rtol=0, atol=1e-9) == same


def test_receptive_radius_is_103() -> None:
    """Gradients of one row of pixels are exactly zero out of its reach, and only there.

    How far that is depends on where the row lies in its window of 8.
    """
    torch.manual_seed(0)
    network = SwinIR(SwinIRConfig(channels=4, heads=1)).double().eval()
    rainy = rainy_picture(232, 8).double().requires_grad_()
    derained = network(rainy)
    radius = 0
    for row in range(112, 120):
        target = derained[..., row, :].sum()
        (gradient,) = torch.autograd.grad(target, rainy, retain_graph=True)
        touched = gradient.abs().amax(dim=(0, 1, 3)).nonzero().flatten()
        radius = max(radius, int((touched - row).abs().max()))
    assert radius == 103


@pytest.mark.parametrize("shift", range(8))
@pytest.mark.parametrize("side", [8, 16, 40])
def test_bands_tile_the_side(side: int, shift: int) -> None:
    bands = window_bands(side, 8, shift)
    assert [start for start, _, _ in bands] == [0, *(stop for _, stop, _ in bands[:-1])]
    assert bands[-1][1] == side
    assert all(start < stop and (stop - start) % window == 0 for start, stop, window in bands)


def test_config_from_json_equals_the_original() -> None:
    assert SwinIRConfig(depths=[6, 6, 6, 6]) == SwinIRConfig()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"channels": 10, "heads": 3}, "10 channels cannot be shared by 3 heads"),
        ({"window": 7}, "window must be an even number from 2 up, not 7"),
        ({"depths": ()}, "depths and mlp_ratio start at 1"),
        ({"mlp_ratio": 0}, "depths and mlp_ratio start at 1"),
    ],
)
def test_impossible_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwinIRConfig(**config)


@pytest.mark.slow
def test_overfits_one_pair() -> None:
    torch.manual_seed(0)
    network = SwinIR()
    clean = 0.7 * F.interpolate(rainy_picture(4, 4), size=(16, 16), mode="bilinear")
    rainy = clean.clone()
    rainy[..., 2:-2, 1::5] += 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    # Transformers need the slow start and the slow end; a constant rate stalls at 30 dB.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=150)
    for _ in range(150):
        optimizer.zero_grad()
        F.l1_loss(network(rainy), clean).backward()
        optimizer.step()
        schedule.step()
    assert -10 * F.mse_loss(network(rainy), clean).log10() > 35
