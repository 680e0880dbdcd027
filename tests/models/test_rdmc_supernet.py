"""The supernet of RDMC: what it equals, what it costs, and what its alphas move."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models.rdmc import (
    CANDIDATES,
    CATEGORY,
    PAPER_CONNECTIONS,
    Rdmc,
    RdmcConfig,
    RdmcSupernet,
    SupernetConfig,
    all_connections,
    connection_multiply_adds,
    is_skip_up,
    multiply_adds,
)

TINY = {"widths": (3, 2, 4, 2, 5), "dilations": (1, 2)}
ONE_OF_EACH = ((4, 9), (1, 6))
THREE_OF_EACH = ((2, 10), (5, 7), (5, 8), (1, 6), (4, 6), (3, 7))
ALL = all_connections()


def supernet_of(**options) -> RdmcSupernet:
    """A supernet whose batch norms have seen something, so that eval mode is not trivial."""
    torch.manual_seed(0)
    model = RdmcSupernet(SupernetConfig(**(TINY | {"stages": 2} | options)))
    for _ in range(2):
        model(torch.rand(2, 3, 32, 48))
    return model.eval()


def choose(model: RdmcSupernet, edges) -> RdmcSupernet:
    """Equal alphas for some edges, minus infinity for all others: weights of 1 and 0."""
    model.alphas.data = torch.tensor(
        [[0.0 if edge in edges else float("-inf") for edge in row] for row in CANDIDATES]
    ).to(model.alphas.dtype)
    return model


@pytest.mark.parametrize("keep", range(1, CATEGORY + 1))
def test_equal_alphas_of_kept_edges_weigh_exactly_one(keep):
    edges = [edge for row in CANDIDATES for edge in row[:keep]]
    weights = choose(RdmcSupernet(SupernetConfig(**TINY, keep=keep)), edges).edge_weights()
    assert weights.tolist() == [[1.0] * keep + [0.0] * (CATEGORY - keep)] * 2


@pytest.mark.parametrize(
    ("keep", "edges"), [(1, ONE_OF_EACH), (2, PAPER_CONNECTIONS), (3, THREE_OF_EACH), (10, ALL)]
)
@pytest.mark.parametrize("norm_per_stage", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_chosen_edges_equal_the_derived_network_to_the_bit(
    keep, edges, norm_per_stage, precision, layout
):
    model = choose(supernet_of(keep=keep, norm_per_stage=norm_per_stage), edges)
    model = model.to(memory_format=layout)
    derived = model.derived(edges).to(memory_format=layout)
    assert type(derived) is Rdmc
    assert set(derived.config.connections) == set(edges)
    rainy = torch.rand(2, 3, 37, 50).contiguous(memory_format=layout)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
        assert torch.equal(model(rainy), derived(rainy))


def test_published_widths_equal_the_derived_network_to_the_bit():
    torch.manual_seed(0)
    model = choose(RdmcSupernet().eval(), PAPER_CONNECTIONS)
    derived = model.derived(PAPER_CONNECTIONS)
    rainy = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        assert torch.equal(model(rainy), derived(rainy))


def test_chosen_edges_train_as_the_derived_network_does():
    """Training mode: the same loss, gradients and batch-norm statistics, to the bit."""
    model = choose(supernet_of(), PAPER_CONNECTIONS).train()
    model.alphas.requires_grad_(requires_grad=False)
    derived = model.derived(PAPER_CONNECTIONS)
    assert derived.training
    rainy = torch.rand(2, 3, 32, 32)
    for network in (model, derived):
        network(rainy).square().mean().backward()
    gradients = dict(model.named_parameters())
    for name, parameter in derived.named_parameters():
        if not name.startswith("decoder.") or not name.endswith("conv.weight"):
            assert torch.equal(parameter.grad, gradients[name].grad), name
    assert all(
        torch.equal(buffer, model.get_buffer(name)) for name, buffer in derived.named_buffers()
    )
    idle = gradients["connections.1_6.conv.weight"].grad
    assert idle is None


def test_edges_of_weight_zero_contribute_nothing_when_they_are_computed():
    """Leaving them out is exact: with all 20 computed the result is the same up to rounding."""
    model = choose(supernet_of(keep=3), THREE_OF_EACH).double()
    rainy = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    with FlopCounterMode(display=False) as whole:
        everything = model(rainy)  # gradients are wanted: nothing is left out
    with torch.no_grad(), FlopCounterMode(display=False) as part:
        chosen = model(rainy)
    torch.testing.assert_close(everything.detach(), chosen, rtol=0, atol=1e-12)
    assert part.get_total_flops() == 2 * multiply_adds(model.derived(THREE_OF_EACH).config, 32, 48)
    assert whole.get_total_flops() == 2 * multiply_adds(model.config, 32, 48)


def test_every_parameter_gets_a_gradient_and_every_alpha_matters():
    torch.manual_seed(0)
    model = RdmcSupernet(SupernetConfig(**TINY))
    model(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    assert model.alphas.grad.ne(0).all()


def test_a_network_with_all_edges_reads_every_one_of_them():
    """Also the four that lead to layer 6, which has no layer below it."""
    torch.manual_seed(0)
    model = Rdmc(RdmcConfig(**TINY, connections=ALL))
    model(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_candidates_are_ten_skip_ups_and_ten_skip_downs():
    ups, downs = CANDIDATES
    assert all(is_skip_up(edge) for edge in ups)
    assert not any(is_skip_up(edge) for edge in downs)
    assert set(ups) | set(downs) == set(ALL)


@pytest.mark.parametrize(
    "connections", [(), PAPER_CONNECTIONS, ONE_OF_EACH, THREE_OF_EACH, ALL], ids=len
)
@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_multiply_adds_are_those_that_are_done(connections, size):
    config = RdmcConfig(**TINY, stages=2, connections=connections)
    with FlopCounterMode(display=False) as counter:
        Rdmc(config).eval()(torch.rand(1, 3, *size))
    assert counter.get_total_flops() == 2 * multiply_adds(config, *size)


def test_an_edge_costs_what_the_network_saves_without_it():
    whole = multiply_adds(RdmcConfig(connections=ALL))
    for edge in ALL:
        rest = tuple(other for other in ALL if other != edge)
        saved = whole - multiply_adds(RdmcConfig(connections=rest))
        assert connection_multiply_adds(RdmcConfig(), edge) == saved


def test_size_of_the_published_supernet():
    assert sum(parameter.numel() for parameter in RdmcSupernet().parameters()) == 606_995


def test_a_supernet_of_another_search_space_is_refused():
    with pytest.raises(ValueError, match="all 20 connections"):
        SupernetConfig(connections=PAPER_CONNECTIONS)
    for keep in (0, CATEGORY + 1):
        with pytest.raises(ValueError, match=f"keep is {keep}; it must be from 1 to 10"):
            SupernetConfig(keep=keep)


def test_derived_refuses_an_edge_that_does_not_exist():
    with pytest.raises(ValueError, match="no such connection 3->8"):
        supernet_of().derived([(3, 8)])


def test_derived_shares_no_memory_with_the_supernet():
    model = supernet_of()
    derived = model.derived(PAPER_CONNECTIONS)
    owned = {value.data_ptr() for value in model.state_dict().values()}
    assert not owned & {value.data_ptr() for value in derived.state_dict().values()}


def test_folded_supernet_equals_the_supernet():
    model = supernet_of()
    model.alphas.data = torch.linspace(-1, 1, 20).view(2, 10)
    rainy = torch.rand(1, 3, 48, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.folded()(rainy), model(rainy), atol=1e-5, rtol=1e-4)


def test_edge_weights_do_not_depend_on_the_other_category():
    model = RdmcSupernet(SupernetConfig(**TINY, keep=2))
    for row, column in itertools.product(range(2), range(CATEGORY)):
        model.alphas.data.zero_()
        model.alphas.data[row, column] = 3.0
        weights = model.edge_weights()
        assert weights[row].argmax() == column
        assert torch.equal(weights[1 - row], torch.full((CATEGORY,), 2 * 0.1))
        torch.testing.assert_close(weights.sum(dim=1), torch.full((2,), 2.0))
