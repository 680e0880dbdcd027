import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.conv_norm import ConvNorm
from derain_cli.models.menet import ChannelAttention, Menet, MenetConfig, MenetDeepConfig

SMALL = MenetConfig(residual_blocks=1, width=8)
OPTIONS = {
    "small": SMALL,
    "without channel attention": dataclasses.replace(SMALL, channel_attention=False),
    "deeper": dataclasses.replace(SMALL, residual_blocks=3),
}
EVERY_OPTION = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def published() -> Menet:
    torch.manual_seed(0)
    return trained_a_little(Menet())


def trained_a_little(network: Menet) -> Menet:
    """Batch norms with statistics and factors of their own, so that none is the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    nn.init.normal_(network.to_residual.weight, std=0.03)
    return network.eval()


# --- the published networks ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (MenetConfig(), 815_680),
        (MenetConfig(channel_attention=False), 671_680),
        (MenetDeepConfig(), 1_407_552),
    ],
)
def test_has_the_published_number_of_parameters(config: MenetConfig, parameters: int) -> None:
    assert sum(p.numel() for p in Menet(config).parameters()) == parameters


def test_multiply_adds_of_a_224_picture() -> None:
    with torch.device("meta"):
        network, rainy = Menet().eval(), torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(rainy)
    assert counter.get_total_flops() / 2 == pytest.approx(2.21e9, rel=0.02)


def test_the_deep_network_differs_in_its_residual_blocks_alone() -> None:
    assert MenetDeepConfig() != MenetConfig()
    deep, plain = dataclasses.asdict(MenetDeepConfig()), dataclasses.asdict(MenetConfig())
    assert deep == plain | {"residual_blocks": 16}
    assert len(Menet(MenetDeepConfig()).blocks) == 16


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (7, 5), (16, 16), (33, 50)])
def test_takes_any_size(published: Menet, size: tuple[int, int]) -> None:
    rainy = torch.rand(2, 3, *size)
    derained = published(rainy)
    assert derained.shape == rainy.shape
    assert derained.isfinite().all()


def test_same_picture_same_result_in_eval_and_channels_last(published: Menet) -> None:
    rainy = torch.rand(1, 3, 24, 40)
    derained = published(rainy)
    assert torch.equal(published(rainy), derained)
    last = copy.deepcopy(published).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(rainy.to(memory_format=torch.channels_last)), derained)


def test_bfloat16_autocast_stays_close(published: Menet) -> None:
    rainy = torch.rand(1, 3, 24, 40)
    with torch.autocast("cpu", torch.bfloat16):
        derained = published(rainy)
    assert derained.dtype == rainy.dtype
    torch.testing.assert_close(derained, published(rainy), atol=0.05, rtol=0)


def test_starts_as_almost_the_identity() -> None:
    rainy = torch.rand(1, 3, 32, 32)
    assert (Menet().eval()(rainy) - rainy).abs().max() < 0.05


# --- its parts -------------------------------------------------------------------------------


def test_desubpixel_and_subpixel_invert_each_other() -> None:
    """Eq. 9: U(D(X)) = X, and D(U(X)) = X, to the bit."""
    picture = torch.rand(2, 12, 6, 10)
    down = F.pixel_unshuffle(picture, 2)
    assert down.shape == (2, 48, 3, 5)
    assert torch.equal(F.pixel_shuffle(down, 2), picture)
    assert torch.equal(F.pixel_unshuffle(F.pixel_shuffle(picture, 2), 2), picture)


def test_channel_attention_multiplies_each_channel_by_one_factor_between_1_and_2() -> None:
    attention = ChannelAttention(8).eval()
    features = torch.rand(2, 8, 8, 12) + 0.1
    factors = attention(features) / features
    torch.testing.assert_close(factors, factors[:, :, :1, :1].expand_as(factors))
    assert 1 < factors.min() < factors.max() < 2


def test_batch_norms_have_tensorflows_defaults_and_convolutions_no_bias() -> None:
    norms = [m for m in Menet().modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    assert all(m.bias is None for m in Menet().modules() if isinstance(m, nn.Conv2d))


def test_every_batch_norm_folds_into_its_convolution(published: Menet) -> None:
    folded, rainy = copy.deepcopy(published), torch.rand(1, 3, 37, 20)
    for module in folded.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(rainy), published(rainy), atol=1e-5, rtol=1e-5)


def test_last_shared_weight_is_where_every_loss_passes_last() -> None:
    """GB weighting: gradient norm of each loss on it, without touching `.grad`."""
    network = Menet(SMALL)
    rainy, clean = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    derained = network(rainy)
    losses = F.mse_loss(derained, clean), F.l1_loss(derained, clean)
    norms = [
        torch.autograd.grad(loss, network.last_shared_weight, retain_graph=True)[0].norm()
        for loss in losses
    ]
    assert network.last_shared_weight is list(network.parameters())[-1]
    assert all(norm > 0 for norm in norms)
    assert norms[0] != norms[1]
    assert network.last_shared_weight.grad is None


# --- every option ----------------------------------------------------------------------------


@EVERY_OPTION
def test_every_parameter_gets_a_gradient(config: MenetConfig) -> None:
    network = Menet(config)
    network(torch.rand(2, 3, 39, 33)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@EVERY_OPTION
def test_bfloat16_training_step_is_finite(config: MenetConfig) -> None:
    network = Menet(config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.rand(2, 3, 32, 32)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@EVERY_OPTION
def test_exports_as_it_runs(config: MenetConfig) -> None:
    network, rainy = Menet(config).eval(), torch.rand(1, 3, 13, 18)
    exported = torch.export.export(network, (rainy,)).module()
    torch.testing.assert_close(exported(rainy), network(rainy))


@EVERY_OPTION
def test_config_survives_json(config: MenetConfig) -> None:
    assert MenetConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"width": 66}, "width must be a multiple of 4, not 66"),
        ({"width": 0}, "width must be a multiple of 4, not 0"),
        ({"residual_blocks": -1}, "residual_blocks must not be negative, not -1"),
    ],
)
def test_refuses_an_impossible_config(fields: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MenetConfig(**fields)


# --- it learns -------------------------------------------------------------------------------


def rainy_and_clean(size: int = 48) -> tuple[Tensor, Tensor]:
    """A smooth picture, and the same behind diagonal streaks (20.4 dB)."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(1, 3, 6, 6, generator=generator)
    clean = F.interpolate(patches, size=(size, size), mode="bicubic").clamp(0, 1)
    drops = (torch.rand(1, 1, size + 8, size + 8, generator=generator) > 0.98).float()
    rain = F.conv2d(drops, torch.eye(9)[None, None] / 3).clamp(0, 1)
    return (clean + 0.6 * rain).clamp(0, 1), clean


@pytest.mark.slow
@pytest.mark.parametrize("config", [MenetConfig(), MenetDeepConfig()], ids=["menet", "menet-deep"])
def test_overfits_one_pair(config: MenetConfig) -> None:
    rainy, clean = rainy_and_clean()
    network, steps = Menet(config), 200
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (255**2 * F.mse_loss(network(rainy), clean)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = F.mse_loss(network(rainy), clean)
    assert -10 * error.log10() > 35
