"""Recipes against a second, plain writing of their papers' equations.

The references share no code with the recipes. Each test below fails when one term, sign, order,
weight or random choice of an equation is changed.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from derain_cli.errors import ConfigError
from derain_cli.losses import formulas
from derain_cli.losses.vgg import Vgg19Features
from derain_cli.models import build_model
from derain_cli.models.hcn import HcnOutputs
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import Objective
from derain_cli.training.recipes.collaborative import Collaborative
from derain_cli.training.recipes.online_update import OnlineUpdate
from derain_cli.training.recipes.self_training import (
    SelfTraining,
    every_source,
    labelled_sources,
    left_over,
    noisy_images,
)

TINY_MOSS = ("widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4")
TINY_HCN = ("channels=4", "blocks=[1,1]", "mining_levels=2")


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def tensors(batch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


# --- SSIM and the weights of its sums --------------------------------------------------------


def ssim_by_the_paper(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004, place by place: Gaussian window 11x11, sigma 1.5, C1, C2 of range 1."""
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = line[:, None] * line[None] / line.sum() ** 2
    scores = []
    for one, other in zip(a.double().flatten(0, 1), b.double().flatten(0, 1), strict=True):
        x, y = (plane.unfold(0, 11, 1).unfold(1, 11, 1) for plane in (one, other))

        def mean(values: Tensor) -> Tensor:
            return (window * values).sum((-2, -1))

        mx, my = mean(x)[..., None, None], mean(y)[..., None, None]
        vx, vy, both = mean((x - mx) ** 2), mean((y - my) ** 2), mean((x - mx) * (y - my))
        mx, my = mx[..., 0, 0], my[..., 0, 0]
        luminance = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        scores.append(luminance * (2 * both + 9e-4) / (vx + vy + 9e-4))
    return torch.stack(scores).mean().item()


def test_ssim_place_by_place() -> None:
    a, b = image(1, 3, 13, 12), image(1, 3, 13, 12, seed=1)
    assert formulas.ssim(a, b).item() == pytest.approx(ssim_by_the_paper(a, b), abs=1e-6)


def hcn_config(pairs: Path, **changes) -> TrainConfig:
    options = {"model": "hcn", "model_option": TINY_HCN, "dataset": (str(pairs),)}
    options |= {"crop": 48, "batch_size": 1, "held_out": 1, "threads": 1, "device": "cpu"}
    return TrainConfig(**(options | {"recipe": "collaborative"} | changes))


def test_collaborative_loss_is_equations_2_3_and_5(pairs: Path, tmp_path: Path) -> None:
    """Every weight differs, so that none can take another's place."""
    config = hcn_config(pairs, output_weights=(1.0, 0.7, 0.4), scale_weights=(0.3, 0.2))
    recipe = Collaborative(build_model("hcn", config.model_options()), config, tmp_path)
    clean = image(1, 3, 48, 48)
    shapes = ((48, 48), (48, 48), (48, 48), (24, 24), (12, 12))
    made = HcnOutputs(*(image(1, 3, *shape, seed=n) for n, shape in enumerate(shapes, 1)))
    recipe._forward = lambda rainy, **options: made
    total, parts = recipe.losses({"rainy": clean, "clean": clean})
    levels = [clean]
    for _ in range(2):
        padded = F.pad(levels[-1], (2, 2, 2, 2), mode="reflect")
        taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
        kernel = (taps[:, None] * taps[None]).expand(3, 1, 5, 5)
        levels.append(F.conv2d(padded, kernel, groups=3)[..., ::2, ::2])
    expected = -sum(
        weight * ssim_by_the_paper(result, wanted)
        for weight, result, wanted in zip(
            (1.0, 0.7, 0.4, 0.3, 0.2), made, (clean, clean, clean, *levels[1:]), strict=True
        )
    )
    assert total.item() == pytest.approx(expected, abs=1e-5)
    assert parts["compact"].item() == pytest.approx(
        -(
            0.3 * ssim_by_the_paper(made[3], levels[1])
            + 0.2 * ssim_by_the_paper(made[4], levels[2])
        ),
        abs=1e-5,
    )


@pytest.mark.parametrize(
    "options", [("use_top=false",), ("chain=2",), ("mscc=false",), ("pyramid=full",)]
)
def test_collaborative_learns_with_every_ablation(
    pairs: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    config = hcn_config(pairs, model_option=(*TINY_HCN, *options))
    recipe = Collaborative(build_model("hcn", config.model_options()), config, tmp_path)
    logged = recipe.update(tensors(recipe.draw(0, range(1))), 0)
    assert ("compact" in logged) == ("mscc=false" not in options)
    results = {"use_top=false": 2, "chain=2": 1}.get(options[0], 3)
    assert -results <= logged["collaborative"] < 0


# --- RDMC's objective ------------------------------------------------------------------------


def test_contrastive_prior_is_equation_7(tmp_path: Path) -> None:
    """Five maps with rho in the paper's order; clean above the line, rainy below it."""
    torch.manual_seed(0)
    features = Vgg19Features()
    save_file(features.state_dict(), tmp_path / "vgg.safetensors")
    config = TrainConfig(loss=("contrastive:1",), vgg=str(tmp_path / "vgg.safetensors"))
    derained, clean, rainy = (image(1, 3, 32, 32, seed=seed) for seed in range(3))
    total, _ = Objective(config, nn.Conv2d(3, 3, 1))(derained, clean, rainy)
    maps = [features(x) for x in (derained, clean, rainy)]
    expected = 0.0
    for rho, anchor, positive, negative in zip(
        (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), *maps, strict=True
    ):
        above = (anchor - positive).abs().mean()
        below = max((anchor - negative).abs().mean().item(), 1e-3)
        expected += rho * above.item() / below
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_objective_compares_with_the_clean_image(tmp_path: Path) -> None:
    config = TrainConfig(loss=("ssim:1", "mse:0.1"))
    derained, clean, rainy = (image(1, 3, 12, 12, seed=seed) for seed in range(3))
    total, _ = Objective(config, nn.Conv2d(3, 3, 1))(derained, clean, rainy)
    expected = 1 - ssim_by_the_paper(derained, clean) + 0.1 * ((derained - clean) ** 2).mean()
    assert total.item() == pytest.approx(expected.item(), abs=1e-5)


def test_perceptual_loss_is_a_mean_square_in_its_space() -> None:
    torch.manual_seed(0)
    features = Vgg19Features()
    derained, clean = image(1, 3, 8, 8), image(1, 3, 8, 8, seed=1)
    found = formulas.perceptual(derained, clean, lambda x: features(x, (16,)))
    maps = [features(x, (16,))[0] for x in (derained, clean)]
    expected = (255 * 0.226) ** 2 * ((maps[0] - maps[1]) ** 2).mean()
    torch.testing.assert_close(found, expected)


# --- MENET's losses and weights --------------------------------------------------------------


def test_edge_loss_place_by_place() -> None:
    """Eq. 5-6: both Sobel kernels, mirrored borders, in 0..255."""
    derained, clean = image(1, 1, 4, 5), image(1, 1, 4, 5, seed=1)
    kernels = ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1, -2, -1], [0, 0, 0], [1, 2, 1]])

    def maps(x: Tensor) -> list[float]:
        grid = np.pad(255 * x[0, 0].double().numpy(), 1, mode="reflect")
        return [
            float((np.array(kernel) * grid[row : row + 3, column : column + 3]).sum())
            for kernel in kernels
            for row in range(4)
            for column in range(5)
        ]

    squares = [(a - b) ** 2 for a, b in zip(maps(derained), maps(clean), strict=True)]
    assert formulas.edge_aware(derained, clean).item() == pytest.approx(np.mean(squares), rel=1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_texture_loss_patch_by_patch(average: bool) -> None:
    """Eq. 7-8: Gram matrices of 48 values over the patches of 4x4."""
    derained, clean = image(1, 3, 8, 12), image(1, 3, 8, 12, seed=1)

    def gram(x: Tensor) -> np.ndarray:
        pixels, total = 255 * x[0].double().numpy(), np.zeros((48, 48))
        for row in range(0, 8, 4):
            for column in range(0, 12, 4):
                values = pixels[:, row : row + 4, column : column + 4].reshape(-1)
                total += np.outer(values, values)
        return total

    difference = gram(derained) - gram(clean)
    expected = difference.mean() ** 2 if average else ((difference / 6) ** 2).sum()
    found = formulas.texture(derained, clean, average_gram=average).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_weights_of_algorithms_1_and_2() -> None:
    """w = 1 - share: of the gradient's norm on the last convolution (GB), of the loss (LB)."""
    torch.manual_seed(0)
    network = build_model("menet", {"residual_blocks": 1, "width": 8})
    rainy, clean = image(1, 3, 32, 32), image(1, 3, 32, 32, seed=1)
    terms = ("pixel:1", "edge:0.5", "texture:0.1")
    for weighting in ("gb", "lb"):
        derained = network(rainy)
        config = TrainConfig(loss=terms, loss_weighting=weighting)
        total, parts = Objective(config, network)(derained, clean, rainy)
        losses = formulas.menet_losses(derained, clean)
        tasks = {"pixel": losses["pixel"], "edge": 0.5 * losses["edge"]}
        tasks["texture"] = 0.1 * losses["texture"]
        sizes = {name: task.item() for name, task in tasks.items()}
        if weighting == "gb":
            weight = list(network.parameters())[-1]
            for name, task in tasks.items():
                (slope,) = torch.autograd.grad(task, weight, retain_graph=True)
                sizes[name] = slope.square().sum().sqrt().item()
        shares = {name: 1 - size / sum(sizes.values()) for name, size in sizes.items()}
        for name, share in shares.items():
            assert parts[f"weight_{name}"].item() == pytest.approx(share, rel=1e-4)
        expected = sum(shares[name] * tasks[name].item() for name in tasks)
        assert total.item() == pytest.approx(expected, rel=1e-4)


# --- MOSS: eq. 8-12 --------------------------------------------------------------------------


@pytest.fixture
def moss_config(pairs: Path):
    def make(**changes) -> FinetuneConfig:
        options = {"model": "moss", "model_option": TINY_MOSS, "recipe": "self_training"}
        options |= {"real": str(pairs / "rainy"), "dataset": (str(pairs),), "held_out": 1}
        options |= {"steps": 9, "batch_size": 2, "crop": 32, "lr": 2e-3, "device": "cpu"}
        options |= {"threads": 1, "seed": 4, "warmup_epochs": 0}
        return FinetuneConfig(**(options | changes))

    return make


def moss_recipe(config: FinetuneConfig, folder: Path) -> SelfTraining:
    torch.manual_seed(0)
    return SelfTraining(build_model("moss", config.model_options()), config, folder)


def test_every_background_and_every_rain_is_drawn_as_often(moss_config, tmp_path: Path) -> None:
    """Eq. 8-9: four kinds of background, two of rain, alpha over its whole range."""
    recipe = moss_recipe(moss_config(), tmp_path)
    mix = recipe._draw_mix(3, range(2000))[..., 0, 0]
    counts = np.bincount(mix[:, 0].astype(int), minlength=4)
    assert len(counts) == 4
    assert counts.min() > 400
    rains = np.bincount(mix[:, 1].astype(int), minlength=2)
    assert len(rains) == 2
    assert rains.min() > 900
    assert (mix[:, 2].min(), mix[:, 2].max()) == pytest.approx((0.5, 1.1), abs=0.01)
    assert mix[:, 2].mean() == pytest.approx(0.8, abs=0.01)


def test_the_printed_unions_draw_by_the_numbers_of_images(moss_config, tmp_path: Path) -> None:
    """Three labelled pairs and four photos: 3, 3, 4, 4 backgrounds; 3 and 4 residuals."""
    recipe = moss_recipe(moss_config(sampling="union"), tmp_path)
    mix = recipe._draw_mix(3, range(4000))[..., 0, 0]
    backgrounds = np.bincount(mix[:, 0].astype(int), minlength=4) / 4000
    assert backgrounds == pytest.approx([3 / 14, 3 / 14, 4 / 14, 4 / 14], abs=0.02)
    rains = np.bincount(mix[:, 1].astype(int), minlength=2) / 4000
    assert rains == pytest.approx([3 / 7, 4 / 7], abs=0.02)


def test_noisy_image_of_each_kind() -> None:
    """Background (rainy, clean, photo, pseudo-label) + alpha x rain, clamped; and its label."""
    names = ("rainy", "clean", "real", "other_rainy", "other_clean", "other_real")
    batch = {name: torch.full((1, 3, 1, 1), 0.1 * (n + 1)) for n, name in enumerate(names)}
    pseudo, other_pseudo = torch.full((1, 3, 1, 1), 0.45), torch.full((1, 3, 1, 1), 0.15)
    # synthetic rain: 0.4 - 0.5 = -0.1; real rain: 0.6 - 0.15 = 0.45
    cases = [
        ((0, 0, 0.5), 0.1 - 0.05, 0.2),
        ((1, 0, 1.0), 0.2 - 0.1, 0.2),
        ((2, 1, 0.5), 0.3 + 0.225, 0.45),
        ((3, 1, 1.0), 0.45 + 0.45, 0.45),
        ((3, 1, 2.0), 1.0, 0.45),
        ((0, 0, 2.0), 0.0, 0.2),
    ]
    for mix, noisy, label in cases:
        batch["mix"] = torch.tensor([mix])[..., None, None]
        found, wanted = noisy_images(batch, pseudo, other_pseudo)
        assert found.flatten().tolist() == pytest.approx([noisy] * 3, abs=1e-6)
        assert wanted.flatten().tolist() == pytest.approx([label] * 3, abs=1e-6)


def test_warm_up_lasts_its_epochs_and_no_longer(moss_config, tmp_path: Path) -> None:
    recipe = moss_recipe(moss_config(warmup_epochs=2, epoch_steps=3), tmp_path)
    assert ["mix" in recipe.draw(step, range(2)) for step in range(8)] == [False] * 6 + [True] * 2


def test_the_target_starts_as_the_network_and_follows_by_its_decay(
    moss_config, tmp_path: Path
) -> None:
    """Eq. 7 with v = 0.75 from trained weights: xi = 0.75 xi + 0.25 theta."""
    recipe = moss_recipe(moss_config(ema=0.75, weights="trained"), tmp_path)
    before = {name: value.clone() for name, value in recipe.model.state_dict().items()}
    for name, value in recipe._target.network.state_dict().items():
        assert torch.equal(value, before[name])
    recipe.model.train()
    recipe.update(tensors(recipe.draw(0, range(2))), 0)
    after = recipe.model.state_dict()
    for name, value in recipe._target.network.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * after[name])


def test_pseudo_labels_come_from_the_target_not_from_the_student(
    moss_config, tmp_path: Path
) -> None:
    recipe = moss_recipe(moss_config(), tmp_path)
    with torch.no_grad():
        for parameter in recipe.model.parameters():
            parameter.add_(0.1)
    batch = tensors(recipe.draw(0, range(2)))
    pseudo, other = recipe._pseudo_labels(batch)
    target = recipe._target.network
    torch.testing.assert_close(pseudo, target(batch["real"]).clamp(0, 1))
    torch.testing.assert_close(other, target(batch["other_real"]).clamp(0, 1))
    assert not torch.allclose(pseudo, recipe.model.eval()(batch["real"]).clamp(0, 1))


def test_losses_of_equation_12_have_their_weights(moss_config, tmp_path: Path) -> None:
    assert moss_recipe(moss_config(), tmp_path)._weights() == {
        "labelled": 10.0,
        "noisy": 1.0,
        "variation": 0.001,
    }


def test_total_variation_place_by_place() -> None:
    x = image(1, 2, 4, 5)
    down = [
        abs((x[0, c, r + 1, k] - x[0, c, r, k]).item())
        for c in range(2)
        for r in range(3)
        for k in range(5)
    ]
    right = [
        abs((x[0, c, r, k + 1] - x[0, c, r, k]).item())
        for c in range(2)
        for r in range(4)
        for k in range(4)
    ]
    expected = np.mean(down) + np.mean(right)
    assert formulas.total_variation(x).item() == pytest.approx(expected, abs=1e-6)


def test_both_networks_can_be_saved(moss_config, tmp_path: Path) -> None:
    average = moss_recipe(moss_config(), tmp_path)
    assert average.result is average._target.network
    student = moss_recipe(moss_config(save="student"), tmp_path)
    assert student.result is student.model


def test_without_self_training_the_memory_still_sees_the_photos(
    moss_config, tmp_path: Path
) -> None:
    recipe = moss_recipe(moss_config(without=("self-training",)), tmp_path)
    twin = moss_recipe(moss_config(without=("photos",)), tmp_path)
    recipe.model.train()
    twin.model.train()
    batch = tensors(recipe.draw(0, range(2)))
    assert set(batch) == {"rainy", "clean", "real"}
    logged = recipe.update(batch, 0)
    alone = twin.update({name: batch[name] for name in ("rainy", "clean")}, 0)
    assert set(logged) == set(alone) == {"loss", "labelled"}
    assert not torch.equal(recipe.model.memory.items, twin.model.memory.items)


def test_without_mixing_the_photos_carry_their_pseudo_labels(moss_config, tmp_path: Path) -> None:
    recipe = moss_recipe(moss_config(without=("mixing",)), tmp_path)
    batch = tensors(recipe.draw(0, range(2)))
    noisy, label = recipe._noisy(batch)
    assert torch.equal(noisy, batch["real"])
    torch.testing.assert_close(label, recipe._target.network(batch["real"]).clamp(0, 1))


def test_the_memory_can_learn_from_unlabelled_images_alone(moss_config, tmp_path: Path) -> None:
    recipe = moss_recipe(moss_config(memory_update="unlabelled"), tmp_path)
    recipe.model.train()
    batch = tensors(recipe.draw(0, range(2)))
    noisy, _ = recipe._noisy(batch)
    before = recipe.model.memory.items.clone()
    recipe._derain_both(batch["rainy"], noisy)
    changed = recipe.model.memory.items.clone()
    recipe.model.memory.items.copy_(before)
    recipe.model(noisy)
    torch.testing.assert_close(changed, recipe.model.memory.items)


def test_a_network_without_memory_has_nothing_that_unlabelled_images_teach(
    moss_config, tmp_path: Path
) -> None:
    chosen = moss_config(memory_update="unlabelled")
    with pytest.raises(ConfigError, match="`memory_update` is for networks with a memory; 'moss'"):
        SelfTraining(nn.Conv2d(3, 3, 1), chosen, tmp_path)


def test_the_rest_of_the_pairs_becomes_the_photos(moss_config, tmp_path: Path) -> None:
    config = moss_config(real="rest", labelled=0.34)
    recipe = moss_recipe(config, tmp_path)
    every, labelled = every_source(config), labelled_sources(config)
    rest = left_over(every, labelled)
    names = {pair.name for pair in (*labelled[0].training, *rest)}
    assert names == {pair.name for pair in every[0].training}
    assert len(labelled[0].training) == 1
    held_out = {pair.name for pair in every[0].held_out}
    assert not names & held_out
    assert recipe.photos.paths == tuple(pair.rainy for pair in rest)
    assert recipe._split()["unlabelled"] == [pair.rainy.name for pair in rest]


def test_photos_of_one_name_in_two_data_sets_are_saved_as_two(
    moss_config, pairs: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(pairs, tmp_path / "copy")
    kept = tmp_path / "kept"
    config = moss_config(
        real="rest", labelled=0.34, dataset=(str(pairs), str(copy)), save_images=str(kept)
    )
    recipe = moss_recipe(config, tmp_path)
    recipe.begin_epoch(0)
    assert len(list((kept / "epoch-0000").iterdir())) == len(recipe.photos) == 4


# --- eq. 6 of the online update --------------------------------------------------------------


@pytest.fixture
def online_recipe(pairs: Path, tmp_path: Path) -> OnlineUpdate:
    torch.manual_seed(0)
    options = {"model": "resnet", "model_option": ("channels=4", "blocks=1")}
    options |= {"real": str(pairs / "rainy"), "crop": 16, "batch_size": 2, "flip": False}
    options |= {"recipe": "online_update", "threads": 1, "device": "cpu", "steps": 4}
    config = FinetuneConfig(**options)
    recipe = OnlineUpdate(build_model("resnet", config.model_options()), config, tmp_path)
    for photo in range(len(recipe.photos)):  # a pseudo-label that tells photo and place
        height, width = recipe.photos.sizes[photo]
        place = np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
        recipe.truth.write(photo, 0, np.repeat(place + 1e5 * (photo + 1), 3, axis=2))
    recipe.truth.epoch = 0
    return recipe


def test_pseudo_ground_truth_is_cut_where_the_photo_is(online_recipe: OnlineUpdate) -> None:
    for step in range(2):
        batch = online_recipe.draw(step, range(2))
        for rainy, truth in zip(batch["rainy"], batch["truth"], strict=True):
            photo, place = divmod(int(truth[0, 0, 0]), 100_000)
            width = online_recipe.photos.sizes[photo - 1][1]
            top, left = divmod(place, width)
            window = (slice(top, top + 16), slice(left, left + 16))
            wanted = online_recipe.photos.crop(photo - 1, window)
            assert np.array_equal(rainy, wanted.transpose(2, 0, 1))


def test_the_other_rain_is_of_another_photo_and_has_its_sign(online_recipe: OnlineUpdate) -> None:
    """R_random = O_random - B_random of a photo other than the one in training."""
    others: dict[int, set[int]] = {}
    for step in range(12):
        batch = online_recipe.draw(step, range(2))
        for truth, rain in zip(batch["truth"], batch["other_rain"], strict=True):
            own = int(truth[0, 0, 0]) // 100_000
            other = -rain[0, 0, 0]
            assert other > 0  # rainy minus a huge pseudo-label
            assert int(other + 1) // 100_000 != own
            others.setdefault(own, set()).add(int(other + 1) // 100_000)
    assert set(others) == {1, 2, 3, 4}
    assert all(len(partners) > 1 for partners in others.values())  # not always the next one


def test_no_gradient_reaches_the_other_rain() -> None:
    rain, other = image(1, 3, 4, 4).requires_grad_(), image(1, 3, 4, 4, seed=1).requires_grad_()
    formulas.rain_divergence(rain, other).backward()
    assert other.grad is None
    assert rain.grad.abs().sum() > 0
