"""A larger network begins as the smaller one whose weights it takes."""

import dataclasses

import pytest
import torch

from derain_cli.models.nimbus import Nimbus, NimbusConfig
from derain_cli.training.growing import TOLERANCE, grow

SMALL = NimbusConfig(block="plain", widths=(4, 6), encoder=(1, 1), decoder=(1,), full_size=2)
LARGE = NimbusConfig(block="plain", widths=(7, 9), encoder=(3, 2), decoder=(2,), full_size=5)


def learned(config: NimbusConfig) -> Nimbus:
    """A network whose weights are not small anywhere."""
    torch.manual_seed(1)
    network = Nimbus(config)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def test_a_wider_and_deeper_network_begins_with_the_same_results():
    small, large = learned(SMALL), Nimbus(LARGE)
    grow(small, large)
    rainy = torch.rand(2, 3, 37, 50)
    expected = small(rainy)
    assert (expected - rainy).abs().max() > 0.1
    torch.testing.assert_close(large(rainy), expected, rtol=0, atol=TOLERANCE)


def test_what_is_new_learns():
    small, large = learned(SMALL), Nimbus(LARGE)
    grow(small, large)
    optimizer = torch.optim.SGD(large.parameters(), 0.1)
    before = {name: value.clone() for name, value in large.state_dict().items()}
    for _ in range(3):  # new channels are first seen, then changed
        optimizer.zero_grad()
        large(torch.rand(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    unmoved = [name for name, value in large.state_dict().items() if value.equal(before[name])]
    assert unmoved == []
    assert large.stem.weight[4:].ne(before["stem.weight"][4:]).any()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (dataclasses.replace(LARGE, widths=(3, 9)), "less room than the weights for stem"),
        (dataclasses.replace(LARGE, decoder=(0,)), "less room than the weights for decoder"),
        (dataclasses.replace(LARGE, full_size=0), "less room than the weights for tail"),
    ],
)
def test_a_smaller_network_is_refused(config, reason):
    with pytest.raises(ValueError, match=reason):
        grow(learned(SMALL), Nimbus(config))


def test_blocks_that_halve_their_channels_are_refused():
    small, large = (dataclasses.replace(config, block="gated") for config in (SMALL, LARGE))
    with pytest.raises(ValueError, match="cannot begin with the results of a smaller network"):
        grow(learned(small), Nimbus(large))
