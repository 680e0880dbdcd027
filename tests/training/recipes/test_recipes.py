"""What the recipes compute for a batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from derain_cli.errors import ConfigError
from derain_cli.losses import formulas as losses
from derain_cli.models import MODELS, build_model
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.collaborative import Collaborative

needs_hcn = pytest.mark.skipif("hcn" not in MODELS, reason="hcn is not in MODELS")


def recipe_of(config):
    torch.manual_seed(0)
    model = build_model(config.model, config.model_options())
    return RECIPES[config.recipe](model, config, Path())


def batch_of(recipe, step=0):
    drawn = recipe.draw(step, range(2))
    return {name: torch.from_numpy(images) for name, images in drawn.items()}


def test_supervised_updates_towards_the_clean_image(tiny_config):
    recipe = recipe_of(tiny_config("unet", loss=("l1:1",), lr=1e-2))
    batch = batch_of(recipe)
    values = [recipe.update(batch, step)["loss"] for step in range(9)]
    assert values[-1] < 0.9 * values[0]


def test_collaborative_needs_several_results(tiny_config):
    with pytest.raises(ConfigError, match="not 'unet'; use `recipe` supervised"):
        recipe_of(tiny_config("unet", recipe="collaborative"))


@needs_hcn
@pytest.mark.parametrize("pyramid", ["gaussian", "laplacian"])
def test_collaborative_loss_is_eq_5(tiny_config, pyramid):
    options = (*tiny_config("hcn").model_option, f"pyramid={pyramid}")
    config = tiny_config("hcn", recipe="collaborative", crop=48, model_option=options)
    recipe = recipe_of(config)
    assert isinstance(recipe, Collaborative)
    batch = batch_of(recipe)
    total, parts = recipe.losses(batch)
    bottom, middle, top, half, quarter = recipe.model(batch["rainy"], all_outputs=True)
    full = sum(losses.ssim(image, batch["clean"]) for image in (bottom, middle, top))
    torch.testing.assert_close(parts["collaborative"], -full)
    compact = losses.multi_scale_compact((half, quarter), batch["clean"], (0.05, 0.001), pyramid)
    torch.testing.assert_close(parts["compact"], compact)
    torch.testing.assert_close(total, parts["collaborative"] + parts["compact"])


@needs_hcn
def test_collaborative_trains_every_weight(tiny_config):
    recipe = recipe_of(tiny_config("hcn", recipe="collaborative", crop=48))
    recipe.update(batch_of(recipe), 0)
    for name, parameter in recipe.model.named_parameters():
        assert parameter.grad is not None, name


@needs_hcn
def test_without_multi_scale_exits_eq_2_is_all(tiny_config):
    options = (*tiny_config("hcn").model_option, "mscc=false")
    config = tiny_config("hcn", recipe="collaborative", crop=48, model_option=options)
    recipe = recipe_of(config)
    assert list(recipe.losses(batch_of(recipe))[1]) == ["collaborative"]


@needs_hcn
@pytest.mark.parametrize(("options", "shortest"), [((), 41), (("mscc=false",), 11)])
def test_crops_have_room_for_the_smallest_image_that_is_compared(tiny_config, options, shortest):
    options = (*tiny_config("hcn").model_option, *options)
    config = tiny_config("hcn", recipe="collaborative", crop=shortest, model_option=options)
    recipe = recipe_of(config)
    assert recipe.losses(batch_of(recipe))[0].isfinite()
    with pytest.raises(
        ConfigError, match=f"`crop` is {shortest - 1}; .* needs {shortest} pixels or more"
    ):
        recipe_of(replace(config, crop=shortest - 1))


def test_average_is_what_is_shown(tiny_config):
    recipe = recipe_of(tiny_config("resnet", ema=0.5))
    assert recipe.result is not recipe.model
    recipe.update(batch_of(recipe), 0)
    weights = [next(iter(network.parameters())) for network in (recipe.result, recipe.model)]
    assert not torch.equal(*weights)
    plain = recipe_of(tiny_config("resnet"))
    assert plain.result is plain.model
