"""Nimbus: its size, its reach, its blocks, and that it begins as the identity."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.inference.derainer import Derainer
from derain_cli.models import entry_of, find_model
from derain_cli.models.nimbus import (
    BLOCKS,
    LIMIT,
    Block,
    Nimbus,
    NimbusConfig,
    gate,
    receptive_radius,
)

SMALL = NimbusConfig(
    block="gated", widths=(4, 8, 8), encoder=(1, 1, 1), decoder=(1, 1), full_size=4
)
TWO_LEVELS = NimbusConfig(block="naf", widths=(4, 8), encoder=(1, 1), decoder=(1,), full_size=4)
OPTIONS = {block: dataclasses.replace(SMALL, block=block) for block in BLOCKS} | {
    "without full size": dataclasses.replace(SMALL, full_size=0),
    "one level": NimbusConfig(widths=(4,), encoder=(1,), decoder=()),
}
EVERY_OPTION = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def awake(network: Nimbus) -> Nimbus:
    """The network with weights that are not small anywhere."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def test_keeps_to_its_budget() -> None:
    """At most 4 M parameters, and 22 GMAC for an image of 481x321."""
    with torch.device("meta"):
        network, rainy = Nimbus().eval(), torch.empty(1, 3, 321, 481)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(rainy)
    assert sum(p.numel() for p in network.parameters()) == 1_593_171
    assert counter.get_total_flops() / 2 == pytest.approx(9.09e9, rel=0.01)


@pytest.mark.parametrize("kind", dict.fromkeys(sum(BLOCKS.values(), ())))
def test_a_block_works_in_place_only_in_what_is_its_own(kind: Block) -> None:
    block, x = kind(8), torch.randn(1, 8, 8, 8, requires_grad=True)
    given = x.detach().clone()
    with torch.inference_mode():
        # Without gradients nothing else would notice.
        features = x.detach().clone()
        changed = block(features)
    assert torch.equal(features, given)
    assert not torch.equal(changed, given)
    in_training = block(x)
    torch.testing.assert_close(changed, in_training)
    in_training.sum().backward()
    assert x.grad is not None


@EVERY_OPTION
def test_sees_as_far_as_it_says_and_no_farther(config: NimbusConfig) -> None:
    radius, network = receptive_radius(config), awake(Nimbus(config)).double()
    middle = (radius // 16 + 1) * 16
    seen = 0
    for place in (middle, middle + 2 ** len(config.widths) - 1):
        rainy = torch.rand(1, 3, 8, 2 * middle + 16, dtype=torch.float64, requires_grad=True)
        network(rainy)[0, :, 3, place].sum().backward()
        assert rainy.grad is not None
        columns = rainy.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        seen = max(seen, int((columns - place).abs().max()))
    # Two grids of 2x2 cells can never both be at their worst.
    assert 0.85 * radius <= seen <= radius


def test_the_table_says_how_far_it_sees() -> None:
    entry = find_model("nimbus")
    assert entry.receptive_radius == receptive_radius(NimbusConfig())
    assert entry.padding_multiple == NimbusConfig().padding_multiple
    assert entry_of(Nimbus(SMALL)).receptive_radius == receptive_radius(SMALL)


@pytest.mark.parametrize(
    ("block", "levels", "multiple"),
    [("plain", 3, 8), ("naf", 3, 16), ("mixed", 2, 4), ("mixed", 3, 16), ("hybrid", 2, 4)],
)
def test_sides_divide_by_the_cells_of_the_lowest_attention(
    block: str, levels: int, multiple: int
) -> None:
    counts = (1,) * levels
    config = NimbusConfig(block=block, widths=counts, encoder=counts, decoder=counts[1:])
    assert config.padding_multiple == multiple


@pytest.mark.parametrize("config", [SMALL, TWO_LEVELS], ids=["gated", "naf"])
@pytest.mark.parametrize("width", [320, 331])
def test_tiles_equal_the_whole_image(config: NimbusConfig, width: int) -> None:
    network = awake(Nimbus(config))
    entry = entry_of(network)
    image = np.random.default_rng(0).integers(0, 256, (192, width, 3), np.uint8)
    overlap = -(-(2 * receptive_radius(config) + 16) // 16) * 16
    tile = 2 * overlap
    assert tile < 320
    whole = Derainer(network, entry, name="nimbus", tile=0)(image)
    tiles = Derainer(network, entry, name="nimbus", tile=tile, tile_overlap=overlap)(image)
    assert np.abs(whole.astype(int) - tiles).max() <= 1


@EVERY_OPTION
def test_starts_as_almost_the_identity(config: NimbusConfig) -> None:
    rainy = torch.rand(1, 3, 32, 32)
    assert (Nimbus(config)(rainy) - rainy).abs().max() < 0.05


@EVERY_OPTION
def test_every_parameter_gets_a_gradient(config: NimbusConfig) -> None:
    network = Nimbus(config)
    network(torch.rand(2, 3, 39, 33)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@EVERY_OPTION
def test_exports_as_it_runs(config: NimbusConfig) -> None:
    network, rainy = awake(Nimbus(config)), torch.rand(1, 3, 13, 18)
    exported = torch.export.export(network, (rainy,)).module()
    torch.testing.assert_close(exported(rainy), network(rainy))


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(SMALL, block="plain")])
def test_wild_weights_give_bounded_changes(config: NimbusConfig) -> None:
    """A block adds at most its last layer's weights times LIMIT, whatever the others became."""
    network = Nimbus(config)
    block = network.encoder[0][0]
    block.first.weight.data *= 1e4
    x = 100 * torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        changed = (block(x) - x).abs().amax()
    assert changed <= LIMIT * block.last.weight.abs().sum((1, 2, 3)).max() + 1e-3


def test_images_of_8_bits_enter_bf16_without_rounding() -> None:
    network, entering = Nimbus().eval(), []
    for conv in (network.stem, network.tail.see):
        conv.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    levels = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    with torch.inference_mode():
        network(levels / 255)
    assert [x.shape[1] for x in entering] == [12, 3]
    for x in entering:
        assert x.unique().numel() >= 256
        torch.testing.assert_close(x.bfloat16().float(), x, rtol=0, atol=1e-3)
    torch.testing.assert_close(entering[1], 2 * levels - 255, rtol=0, atol=1e-3)


def test_gates_start_open() -> None:
    value = torch.tensor([[2.0]]).reshape(1, 1, 1, 1)
    assert gate(torch.cat((value, torch.ones_like(value)), dim=1)).item() == 2
    first = Nimbus(SMALL).encoder[0][0].first
    assert first.bias.tolist() == [0] * 4 + [1] * 4


@EVERY_OPTION
def test_config_survives_json(config: NimbusConfig) -> None:
    assert NimbusConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"block": "dense"}, "block must be one of plain, gated, hybrid, naf, mixed, not 'dense'"),
        ({"widths": ()}, r"widths must be one or more numbers from 1 up, not \(\)"),
        ({"encoder": (1, 2)}, r"encoder must be 3 counts of blocks, not \(1, 2\)"),
        ({"decoder": (1, 2, -1)}, r"decoder must be 2 counts of blocks, not \(1, 2, -1\)"),
        ({"full_size": -1}, "full_size must not be negative, not -1"),
    ],
)
def test_refuses_an_impossible_config(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        NimbusConfig(**fields)  # type: ignore[arg-type]
