"""RDMC against the numbers and figures of its paper."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.errors import ConfigError
from derain_cli.models import build_model
from derain_cli.models.rdmc import (
    PAPER_CONNECTIONS,
    Rdmc,
    RdmcConfig,
    _max_pool,
    _upsample,
    all_connections,
    is_skip_up,
    level_of,
)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_count_of_table_3():
    assert parameters(Rdmc(RdmcConfig(norm_per_stage=False))) == 246_147
    assert parameters(Rdmc()) == 247_587


def test_multiply_adds_of_table_3():
    with FlopCounterMode(display=False) as counter:
        Rdmc().eval()(torch.rand(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 == pytest.approx(3_018e6, rel=0.001)


def test_search_space_has_ten_edges_of_each_kind():
    kinds = [is_skip_up(edge) for edge in all_connections()]
    assert (kinds.count(True), kinds.count(False)) == (10, 10)
    assert all(level_of(a) != level_of(b) for a, b in all_connections())


def test_figure_3_skip_space():
    down_of_2 = [b for a, b in all_connections() if a == 2 and not is_skip_up((a, b))]
    up_of_3 = [b for a, b in all_connections() if a == 3 and is_skip_up((a, b))]
    assert down_of_2 == [6, 7, 8]
    assert up_of_3 == [9, 10]


@pytest.mark.parametrize("connections", [(), ((1, 6), (5, 10)), all_connections()])
def test_any_set_of_connections_builds_and_runs(connections):
    model = Rdmc(RdmcConfig(connections=connections, stages=1, widths=(2, 2, 2, 2, 2)))
    assert model(torch.rand(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_edges_that_do_not_exist_are_refused():
    for edges in (((1, 10),), ((2, 5),), ((3, 9), (3, 9))):
        with pytest.raises(ConfigError, match="connection"):
            build_model("rdmc", {"connections": edges})


@pytest.mark.parametrize(
    "wrong",
    [{"widths": [12, 12]}, {"widths": [12, 12, 24, 24, 0]}, {"dilations": []}, {"stages": 0}],
)
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build_model("rdmc", wrong)


def test_connections_survive_json_lists():
    model = build_model("rdmc", {"connections": [list(edge) for edge in PAPER_CONNECTIONS]})
    assert model.config == RdmcConfig()


def test_each_stage_predicts_rain_and_subtracts_it():
    model = Rdmc().eval()
    torch.nn.init.zeros_(model.to_rain.weight)
    torch.nn.init.constant_(model.to_rain.bias, 0.25)
    rainy = torch.rand(1, 3, 32, 32)
    for derained in model.all_stages(rainy):
        torch.testing.assert_close(derained, rainy - 0.25)


def test_stages_share_convolutions_but_not_norms():
    names = [name for name, _ in Rdmc().named_parameters()]
    assert len({name for name in names if "norm.stages.2" in name}) == 2 * 20
    assert not [name for name in names if "conv" in name and "stage" in name]


def test_paths_stay_apart_in_the_encoder():
    """Eq. 3-4: path p of a layer sees path p of the layer before, nothing of the others."""
    model = Rdmc(RdmcConfig(stages=1)).eval()
    features = [torch.rand(1, 12, 16, 16, requires_grad=True) for _ in range(3)]
    outputs = model.encoder[1](features, 0)
    for output, given in itertools.product(range(3), range(3)):
        (grad,) = torch.autograd.grad(
            outputs[output].sum(), features[given], retain_graph=True, allow_unused=True
        )
        assert (grad is not None) == (output == given)


@pytest.mark.parametrize("dilations", [(1, 2, 3), (1, 1, 1), (2,)])
def test_receptive_radius_is_the_footprint_of_the_stages(dilations):
    """Positive weights let every path through; average pooling shows all that a maximum may see."""
    config = RdmcConfig(stages=1, widths=(1, 1, 1, 1, 1), dilations=dilations, norm_per_stage=False)
    model = Rdmc(config).eval().double()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.3 if parameter.dim() > 1 else 1.0)
    rainy = torch.rand(1, 3, 352, 352, dtype=torch.float64, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "max_pool2d", torch.nn.functional.avg_pool2d)
        derained = model(rainy)
    reaches = []
    for center in range(168, 184):
        (grad,) = torch.autograd.grad(derained[0, 0, center, center], rainy, retain_graph=True)
        seen = grad.abs().sum((0, 1)).any(0).nonzero().flatten()
        reaches += [center - int(seen.min()), int(seen.max()) - center]
    assert max(reaches) == config.receptive_radius
    assert 3 * config.receptive_radius == RdmcConfig(dilations=dilations).receptive_radius


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_without_gradients_is_the_same_to_the_bit(dtype):
    features = torch.randn(2, 12, 16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    features[0, 3, 5, 7] = torch.nan
    features = features.to(memory_format=torch.channels_last)
    for factor in (2, 4, 8):
        expected = torch.nn.functional.max_pool2d(features, factor)
        with torch.no_grad():
            pooled = _max_pool(features, factor)
        torch.testing.assert_close(pooled, expected, rtol=0, atol=0, equal_nan=True)
        assert pooled.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_upsampling_without_gradients_is_the_same_to_the_bit(dtype):
    features = torch.randn(2, 12, 16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    features = features.to(memory_format=torch.channels_last)
    for factor in (2, 4, 8):
        expected = torch.nn.functional.interpolate(features, scale_factor=factor, mode="bilinear")
        with torch.no_grad():
            large = _upsample(features, factor)
        torch.testing.assert_close(large, expected, rtol=0, atol=0)
        assert large.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_overfits_one_pair():
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, 6, 6)
    clean = torch.nn.functional.interpolate(coarse, size=48, mode="bicubic").clamp(0, 1)
    rainy = clean + 0.5 * (torch.rand(1, 1, 48, 48) > 0.9)
    model = Rdmc().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        error = torch.mean((model(rainy) - clean) ** 2)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    assert -10 * torch.log10(error.detach()) > 35
