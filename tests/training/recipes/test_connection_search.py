"""The search's gradients against closed forms and differences; its halves, its turns, its finds."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from derain_cli.connections.space import GIGA
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ConfigError, DatasetError, TrainingError
from derain_cli.models import build_model
from derain_cli.models.rdmc import CANDIDATES, RdmcSupernet, SupernetConfig, all_connections
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.samples import Background, PaintedSource, PairSource
from derain_cli.training.recipes.connection_search import ConnectionSearch, alpha_gradient

TINY = ("widths=[2,2,2,2,2]", "dilations=[1]", "stages=1")


def config_of(pairs: Path, **changes) -> SearchConfig:
    options = {
        "dataset": (str(pairs),),
        "model_option": TINY,
        "steps": 10,
        "batch_size": 2,
        "crop": 32,
        "held_out": 1,
        "device": "cpu",
        "seed": 3,
    }
    return SearchConfig(**(options | changes))


def recipe_of(pairs: Path, **changes) -> ConnectionSearch:
    config = config_of(pairs, **changes)
    torch.manual_seed(config.seed)
    model = RdmcSupernet(SupernetConfig(**config.model_options())).train()
    return ConnectionSearch(model, config, pairs)


def batch_of(recipe: ConnectionSearch, step: int = 0) -> dict[str, torch.Tensor]:
    drawn = recipe.draw(step, range(recipe.config.batch_size))
    return {name: torch.from_numpy(images) for name, images in drawn.items()}


def leaf(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def darts_validation(weights, alpha):
    """Validation loss of the DARTS paper's own example (its figure 2)."""
    return alpha * weights[0] - 2 * alpha + 1


def darts_training(weights, alpha):
    return weights[0] ** 2 - 2 * alpha * weights[0] + alpha**2


@pytest.mark.parametrize(("w", "alpha", "rate"), [(3.0, 2.0, 0.1), (-2.0, 0.5, 0.7), (1.0, 1.0, 2)])
def test_gradients_of_the_darts_example_equal_the_closed_form(w, alpha, rate):
    weight, alphas = leaf(w), leaf(alpha)
    first, loss = alpha_gradient(darts_validation, [weight], alphas)
    assert first.item() == pytest.approx(w - 2)
    assert loss.item() == pytest.approx(alpha * w - 2 * alpha + 1)
    moved = w - rate * 2 * (w - alpha)
    second, loss = alpha_gradient(darts_validation, [weight], alphas, darts_training, rate)
    assert second.item() == pytest.approx(moved - 2 + alpha * 2 * rate)
    assert loss.item() == pytest.approx(alpha * moved - 2 * alpha + 1)
    assert weight.grad is None


@pytest.mark.parametrize(("training", "optimum"), [(darts_training, 1.0), (None, 2.0)])
def test_only_second_order_descends_to_the_bilevel_optimum(training, optimum):
    """Of the DARTS example that is alpha = w = 1; first order ends at 2."""
    weight, alphas = leaf(2.0), leaf(-2.0)
    for _ in range(300):
        gradient, _ = alpha_gradient(darts_validation, [weight], alphas, training, 0.5)
        alphas.data -= 0.1 * gradient
        (slope,) = torch.autograd.grad(darts_training([weight], alphas.detach()), weight)
        weight.data -= 0.4 * slope
    assert (alphas.item(), weight.item()) == pytest.approx((optimum, optimum), abs=1e-3)


def test_quadratic_bilevel_problem_equals_the_closed_form():
    """Training 1/2 |w - A a|^2, validation 1/2 |w - b|^2 + c a: gradient c + rate A^T (w' - b)."""
    torch.manual_seed(0)
    mixing, target, slope = (torch.randn(*n, dtype=torch.float64) for n in ((4, 3), (4,), (3,)))
    weights = torch.randn(4, dtype=torch.float64, requires_grad=True)
    alphas = torch.randn(3, dtype=torch.float64, requires_grad=True)
    parts = [weights[:1].detach().requires_grad_(), weights[1:].detach().requires_grad_()]
    gradient, _ = alpha_gradient(
        lambda w, a: 0.5 * (torch.cat(list(w)) - target).square().sum() + slope @ a,
        parts,
        alphas,
        lambda w, a: 0.5 * (torch.cat(list(w)) - mixing @ a).square().sum(),
        0.3,
    )
    moved = weights - 0.3 * (weights - mixing @ alphas)
    torch.testing.assert_close(gradient, slope + 0.3 * mixing.T @ (moved - target))


@pytest.mark.parametrize("second_order", [False, True])
def test_gradient_of_the_supernet_equals_finite_differences(pairs, second_order):
    """Also through the step of all its weights, convolutions and batch norms, in float64."""
    recipe = recipe_of(pairs, loss=("ssim:1", "mse:0.1"), second_order=second_order)
    recipe.model.double()
    batch = {name: images.double() for name, images in batch_of(recipe).items()}
    other = {name: batch[f"other_{name}"] for name in ("rainy", "clean")}
    weights = [value for name, value in recipe.model.named_parameters() if name != "alphas"]
    rate = 0.5  # large, so that the second order shows

    def validation(weights, alphas):
        return recipe.loss_of(weights, alphas, other)

    def training(weights, alphas):
        return recipe.loss_of(weights, alphas, batch)

    def value(alphas):
        moved = weights
        if second_order:
            slopes = torch.autograd.grad(training(weights, alphas), weights)
            moved = [w - rate * slope for w, slope in zip(weights, slopes, strict=True)]
        return validation(moved, alphas).item()

    alphas = torch.linspace(-0.5, 0.5, 20, dtype=torch.float64).view(2, 10).requires_grad_()
    given = (training, rate) if second_order else ()
    gradient, loss = alpha_gradient(validation, weights, alphas, *given)
    assert loss.item() == pytest.approx(value(alphas), rel=1e-12)
    for row, column in ((0, 0), (0, 7), (1, 3), (1, 9)):
        nudge = torch.zeros_like(gradient)
        nudge[row, column] = 1e-5
        slope = (value((alphas + nudge).detach()) - value((alphas - nudge).detach())) / 2e-5
        assert gradient[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-9)
    first, _ = alpha_gradient(validation, weights, alphas)
    apart = (gradient - first).norm() / first.norm()
    assert (apart > 0.01) == second_order


def test_one_update_moves_alphas_by_one_half_and_weights_by_the_other(pairs):
    recipe = recipe_of(pairs, lr_schedule="constant")
    batch = batch_of(recipe)
    before = copy.deepcopy(recipe.model)
    recipe.update(batch, 0)
    changed_other = dict(batch_of(recipe), other_clean=torch.zeros(2, 3, 32, 32))
    again = ConnectionSearch(copy.deepcopy(before), recipe.config, pairs)
    again.update(changed_other, 0)
    assert not torch.equal(recipe.model.alphas, before.alphas)
    assert not torch.equal(recipe.model.alphas, again.model.alphas)
    # With the alphas put back, the weights' step saw nothing of the other half.
    frozen = ConnectionSearch(
        copy.deepcopy(before), dataclasses.replace(recipe.config, alpha_lr=1e-30), pairs
    )
    frozen_again = ConnectionSearch(
        copy.deepcopy(before), dataclasses.replace(recipe.config, alpha_lr=1e-30), pairs
    )
    frozen.update(batch, 0)
    frozen_again.update(changed_other, 0)
    for name, value in frozen.model.state_dict().items():
        if name != "alphas":
            assert torch.equal(value, frozen_again.model.state_dict()[name]), name


@pytest.mark.parametrize("second_order", [False, True])
def test_batch_norm_statistics_follow_the_weights_half_only(pairs, second_order):
    recipe = recipe_of(pairs, second_order=second_order, alpha_lr=1e-30)
    batch = batch_of(recipe)
    alone = copy.deepcopy(recipe.model)
    alone(batch["rainy"])
    recipe.update(batch, 0)
    for name, buffer in alone.named_buffers():
        torch.testing.assert_close(recipe.model.get_buffer(name), buffer, msg=name)


@pytest.mark.parametrize("second_order", [False, True])
def test_bf16_moves_alphas_as_fp32_does(pairs, second_order):
    moved = []
    for precision in ("fp32", "bf16"):
        recipe = recipe_of(pairs, precision=precision, second_order=second_order, loss=("mse:1",))
        logged = recipe.update(batch_of(recipe), 0)
        assert all(np.isfinite(value) for value in logged.values())
        moved.append(recipe.model.alphas.grad.flatten())
    assert torch.cosine_similarity(*moved, dim=0) > 0.9


def test_batches_are_a_pure_function_of_the_step_and_halves_never_mix(pairs):
    recipe = recipe_of(pairs)
    first, again = recipe.draw(5, range(2)), recipe.draw(5, range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["rainy"], recipe.draw(6, range(2))["rainy"])
    # A process's slice is that part of the whole batch.
    assert all(
        np.array_equal(first[name][1:], images)
        for name, images in recipe.draw(5, range(1, 2)).items()
    )
    other = np.concatenate([first["other_clean"], again["other_clean"]])
    assert not any(np.array_equal(one, two) for one in first["clean"] for two in other)


def test_halves_never_share_a_image_and_validation_stays(pairs):
    (source,) = recipe_of(pairs).sources
    halves = [source.half(half) for half in (0, 1)]
    cleans = [{pair.clean for pair in half.training} for half in halves]
    assert not cleans[0] & cleans[1]
    assert cleans[0] | cleans[1] == {pair.clean for pair in source.training}
    assert halves[0].held_out == halves[1].held_out == source.held_out


def test_halves_keep_all_rain_of_one_clean_image_together():
    training = [
        Pair(f"{name}-{rain}", Path(f"{name}-{rain}.png"), Path(f"{name}.png"))
        for name in "abc"
        for rain in range(2)
    ]
    source = PairSource("many", 1.0, training, [])
    names = [[pair.name for pair in source.half(half).training] for half in (0, 1)]
    assert names == [["a-0", "a-1", "c-0", "c-1"], ["b-0", "b-1"]]


def test_halves_of_painted_images_and_patches():
    paths = [Path(f"{name}.png") for name in "abc"]
    patches = [Background(paths[0], 0, 0), Background(paths[0], 9, 9), Background(paths[1], 0, 0)]
    source = PaintedSource("small", 1.0, paths, [], lambda *given: None, patches)
    halves = [source.half(half) for half in (0, 1)]
    assert [half.training for half in halves] == [[paths[0], paths[2]], [paths[1]]]
    assert [half.backgrounds for half in halves] == [[patches[0], patches[2]], [patches[1]]]


def test_one_image_cannot_be_halved():
    pair = Pair("a", Path("a-rainy.png"), Path("a.png"))
    PairSource("one", 1.0, [pair], []).half(0)
    with pytest.raises(DatasetError, match="'one' has one training image"):
        PairSource("one", 1.0, [pair], []).half(1)


def test_budget_lowers_the_expected_cost_until_it_is_met(pairs):
    free = recipe_of(pairs)
    before = free.update(batch_of(free), 0)["gmac"]
    cheapest = min(free.space.cost(edges) for edges in free.space.draw(2025, 0)) / GIGA
    budget = (before + cheapest) / 2
    # Without data there is nothing but the budget to follow.
    tight = recipe_of(pairs, budget=budget, alpha_lr=0.1, loss=("mse:1e-30",))
    costs = [tight.update(batch_of(tight, step), step)["gmac"] for step in range(40)]
    assert costs[0] > budget
    assert costs[-1] == pytest.approx(budget, rel=0.03)
    assert tight.space.cost(tight.space.choose(tight.model.alphas.tolist())) <= budget * GIGA


def test_log_names_losses_entropies_and_cost(pairs):
    recipe = recipe_of(pairs)
    logged = recipe.update(batch_of(recipe), 0)
    assert set(logged) == {
        *("loss", "ssim", "mse", "alpha_loss", "entropy_up", "entropy_down", "gmac")
    }
    assert logged["entropy_up"] == pytest.approx(np.log(10), abs=1e-3)


def test_history_has_the_start_the_end_and_about_two_hundred_rows(pairs):
    recipe = recipe_of(pairs, steps=450)
    batch = batch_of(recipe)
    for step in (0, 1, 2, 5, 449):
        recipe.update(batch, step)
    assert [step for step, _ in recipe.history] == [0, 3, 6, 450]
    assert torch.equal(recipe.history[-1][1], recipe.model.alphas)
    assert recipe.history[0][1].eq(0).all()


def test_state_round_trip_continues_to_the_same_bits(pairs):
    whole = recipe_of(pairs, second_order=True)
    batches = [batch_of(whole, step) for step in range(4)]
    for step, batch in enumerate(batches):
        whole.update(batch, step)
    first = recipe_of(pairs, second_order=True)
    for step in (0, 1):
        first.update(batches[step], step)
    second = recipe_of(pairs, second_order=True, seed=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in (2, 3):
        second.update(batches[step], step)
    assert_same(whole.state_dict(), second.state_dict())


def assert_same(first, second) -> None:
    """Equal to the bit, through dictionaries and lists."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_loss_that_is_not_finite_leaves_the_alphas(pairs):
    recipe = recipe_of(pairs)
    batch = batch_of(recipe) | {"other_clean": torch.full((2, 3, 32, 32), float("nan"))}
    with pytest.raises(TrainingError, match=r"alphas' loss of step 7 is nan; lower `lr`"):
        recipe.update(batch, 7)
    assert recipe.model.alphas.eq(0).all()


def test_recipe_belongs_to_the_search(pairs):
    for model, config in (
        ("rdmc", config_of(pairs, model_option=())),
        ("rdmc-supernet", TrainConfig(dataset=(str(pairs),))),
    ):
        with pytest.raises(ConfigError, match="belongs to `derain search`"):
            ConnectionSearch(build_model(model), config, pairs)


def test_impossible_budget_names_the_cheapest_network(pairs):
    with pytest.raises(ConfigError, match=r"`budget` is 0\.001 GMAC, but the cheapest network"):
        recipe_of(pairs, budget=0.001)


PLANTED = ((3, 9), (2, 7))
SMALL = ("widths=[4,4,4,4,4]", "dilations=[1]", "stages=1")


def planted_batch(generator: torch.Generator):
    """Grey images whose rain is a coarse and a fine field; the fields by the edge they go to."""
    coarse = torch.randn(4, 1, 4, 4, generator=generator)
    fine = torch.randn(4, 1, 16, 16, generator=generator)
    rain = sum(F.interpolate(field, size=(32, 32), mode="bilinear") for field in (coarse, fine))
    grey = torch.full((4, 3, 32, 32), 0.5)
    return (
        grey,
        0.5 - 0.1 * rain.expand(-1, 3, -1, -1),
        dict(zip(PLANTED, (fine, coarse), strict=True)),
    )


def plant(model: RdmcSupernet, generator: torch.Generator, signals: dict) -> None:
    """Every edge carries noise, but the planted ones, which carry a batch's fields instead.

    The encoder sees grey: what is to be found reaches the decoder through two edges only.
    """
    current: dict = {}

    def see(module, given):
        current.clear()
        current.update(signals[id(given[0])])

    def carry(edge):
        def hook(module, given, result):
            noise = torch.randn(result.shape, generator=generator)
            return result + current.get(edge, noise)

        return hook

    model.register_forward_pre_hook(see)
    for edge in all_connections():
        model.connections[f"{edge[0]}_{edge[1]}"].register_forward_hook(carry(edge))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
@pytest.mark.parametrize("second_order", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_planted_edges_are_found(pairs, seed, second_order):
    recipe = recipe_of(
        pairs,
        model_option=SMALL,
        keep=1,
        loss=("mse:1",),
        lr=0.02,
        lr_schedule="constant",
        alpha_lr=0.03,
        batch_size=4,
        seed=seed,
        second_order=second_order,
    )
    generator, signals = torch.Generator().manual_seed(seed), {}
    plant(recipe.model, generator, signals)
    for step in range(240 if second_order else 150):
        rainy, clean, fields = planted_batch(generator)
        other_rainy, other_clean, other_fields = planted_batch(generator)
        signals.clear()
        signals.update({id(rainy): fields, id(other_rainy): other_fields})
        batch = {"rainy": rainy, "clean": clean}
        recipe.update(batch | {"other_rainy": other_rainy, "other_clean": other_clean}, step)
    assert set(recipe.space.choose(recipe.model.alphas.tolist())) == set(PLANTED)
    shares = recipe.model.alphas.softmax(dim=1).detach()
    for edges, row in zip(CANDIDATES, shares, strict=True):
        (place,) = (edges.index(edge) for edge in PLANTED if edge in edges)
        others = [share for index, share in enumerate(row.tolist()) if index != place]
        assert row[place] > 1.5 * max(others)


def test_training_starts_from_the_searched_network_with_the_supernets_weights(tmp_path, pairs):
    """jiang2023, section IV-A: the searched model is loaded and fine-tuned on all data."""
    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models.rdmc import RdmcSupernet, SupernetConfig
    from derain_cli.training.trainer import _initial_model

    torch.manual_seed(0)
    supernet = RdmcSupernet(SupernetConfig(widths=(2, 2, 2, 2, 2), stages=2))
    save_checkpoint(tmp_path / "search.safetensors", supernet, "rdmc-supernet", {})
    options = ("widths=[2,2,2,2,2]", "stages=2", "connections=[[4,8],[2,8]]")
    weights = str(tmp_path / "search.safetensors")
    config = TrainConfig(model="rdmc", model_option=options, weights=weights)
    found, expected = _initial_model(config), supernet.derived([(4, 8), (2, 8)])
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    other = dataclasses.replace(config, model_option=("stages=2", options[2]))
    with pytest.raises(ConfigError, match="supernet of another shape"):
        _initial_model(other)
    with pytest.raises(ConfigError, match="which edges it chose: name the folder of the search"):
        _initial_model(dataclasses.replace(config, model_option=options[:2]))
