from dataclasses import replace

import numpy as np
import pytest
import torch

from derain_cli.errors import ConfigError, DatasetError
from derain_cli.losses.formulas import l1, total_variation
from derain_cli.models import build_model
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.guard import read_reports
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.self_training import (
    SelfTraining,
    labelled_count,
    labelled_sources,
    noisy_images,
)
from derain_cli.training.trainer import train

MOSS = ("widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4")


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(RECIPES, "self_training", SelfTraining)


@pytest.fixture
def config(pairs):
    """Makes the config of a run of a tiny MOSS on three pairs and four photos."""

    def make(**changes):
        options = {"model": "moss", "model_option": MOSS, "recipe": "self_training"}
        options |= {"real": str(pairs / "rainy"), "dataset": (str(pairs),), "held_out": 1}
        options |= {"steps": 9, "batch_size": 2, "crop": 32, "lr": 2e-3, "device": "cpu"}
        options |= {"threads": 1, "save_every": 3, "seed": 4, "warmup_epochs": 1}
        return FinetuneConfig(**(options | changes))

    return make


def recipe_of(config, folder):
    torch.manual_seed(0)
    return SelfTraining(build_model("moss", config.model_options()), config, folder)


def tensors(batch):
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def test_six_steps_and_three_are_nine(config, tmp_path, assert_same_run):
    train(config(), tmp_path / "whole")
    seen = []
    train(
        config(),
        tmp_path / "parts",
        report=lambda progress: seen.append(progress.step),
        should_stop=lambda: seen[-1] >= 6,
    )
    train(config(), tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    states = [
        torch.load(tmp_path / name / "state.pt", weights_only=True)["recipe"]["target"]
        for name in ("whole", "parts")
    ]
    assert "memory.items" in states[0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert read_reports(tmp_path / "whole") == read_reports(tmp_path / "parts")


def test_noisy_images_by_hand():
    generator = torch.Generator().manual_seed(0)
    names = ("rainy", "clean", "real", "other_rainy", "other_clean", "other_real")
    batch = {name: torch.rand(8, 3, 4, 4, generator=generator) for name in names}
    pseudo, other_pseudo = torch.rand(2, 8, 3, 4, 4, generator=generator)
    kinds = [(k % 4, k // 4, 0.5 + k / 16) for k in range(8)]
    batch["mix"] = torch.tensor(kinds)[..., None, None]
    noisy, labels = noisy_images(batch, pseudo, other_pseudo)
    for k, (background, rain, alpha) in enumerate(kinds):
        image = (batch["rainy"], batch["clean"], batch["real"], pseudo)[background][k]
        label = (batch["clean"], batch["clean"], pseudo, pseudo)[background][k]
        synthetic = batch["other_rainy"][k] - batch["other_clean"][k]
        residual = (synthetic, batch["other_real"][k] - other_pseudo[k])[rain]
        assert torch.allclose(noisy[k], (image + alpha * residual).clamp(0, 1))
        assert torch.equal(labels[k], label)


def test_loss_by_hand(config, tmp_path):
    recipe = recipe_of(config(tv_weight=0.5), tmp_path)
    batch = tensors(recipe.draw(5, range(2)))
    assert 0.5 <= batch["mix"][:, 2].min() <= batch["mix"][:, 2].max() <= 1.1
    twin = recipe_of(config(), tmp_path / "twin")
    with torch.no_grad():
        target = twin.result
        labels = target(torch.cat((batch["real"], batch["other_real"]))).clamp(0, 1).chunk(2)
        noisy, label = noisy_images(batch, *labels)
        derained = twin.model.train()(torch.cat((batch["rainy"], noisy)))
    recipe.model.train()
    logged = recipe.update(batch, 5)
    expected = (
        l1(derained[:2], batch["clean"]),
        l1(derained[2:], label),
        total_variation(derained[2:]),
    )
    for name, value in zip(("labelled", "noisy", "variation"), expected, strict=True):
        assert logged[name] == pytest.approx(value.item(), rel=1e-4)
    total = 10 * expected[0] + expected[1] + 0.5 * expected[2]
    assert logged["loss"] == pytest.approx(total.item(), rel=1e-4)


def test_pseudo_labels_of_two_passes_and_a_range_of_strengths(config, tmp_path):
    recipe = recipe_of(config(warmup_epochs=0, pseudo_passes=2, alpha=(2.0, 3.0)), tmp_path)
    batch = tensors(recipe.draw(1, range(8)))
    with torch.no_grad():
        once = recipe.result(batch["real"]).clamp(0, 1)
        twice = recipe.result(once).clamp(0, 1)
    pseudo, _ = recipe._pseudo_labels(batch)
    assert torch.allclose(pseudo, twice, atol=1e-6)
    assert not torch.allclose(pseudo, once, atol=1e-3)
    alphas = batch["mix"][:, 2]
    assert 2 <= alphas.min() < alphas.max() <= 3


def test_target_is_the_moving_average_with_memory(config, tmp_path):
    chosen = replace(config(ema=0.9), weights="starts from trained weights")
    recipe = recipe_of(chosen, tmp_path)
    before = {k: v.clone() for k, v in recipe.result.state_dict().items()}
    recipe.model.train()
    recipe.update(tensors(recipe.draw(5, range(2))), 5)
    now, after = recipe.model.state_dict(), recipe.result.state_dict()
    assert not torch.equal(now["memory.items"], before["memory.items"])
    for name, value in after.items():
        assert torch.allclose(value, 0.9 * before[name] + 0.1 * now[name], atol=1e-6), name


def test_warm_up_sees_pairs_alone(config, tmp_path):
    recipe = recipe_of(config(epoch_steps=3, warmup_epochs=2), tmp_path)
    assert set(recipe.draw(5, range(2))) == {"rainy", "clean"}
    assert "mix" in recipe.draw(6, range(2))
    train(config(epoch_steps=3, warmup_epochs=2), tmp_path / "run")
    warming = [report.warming for report in read_reports(tmp_path / "run")]
    assert warming == [True, True, False, False]
    assert all(report.psnr is not None for report in read_reports(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, True), ({"warmup_epochs": 0}, False), ({"without": ("photos",)}, False)],
)
def test_a_run_of_nothing_but_warm_up_says_so(config, tmp_path, caplog, changes, said):
    recipe_of(config(**{"steps": 6, "epoch_steps": 3, "warmup_epochs": 2} | changes), tmp_path)
    warning = "the photos teach nothing: 2 epochs of warm-up are 6 steps, and the run has 6"
    assert (warning in caplog.text) == said


def test_batches_depend_on_seed_and_step_alone(config, tmp_path):
    recipe = recipe_of(config(), tmp_path)
    first = recipe.draw(7, range(2))
    recipe.draw(2, range(2))
    again, second_half = recipe.draw(7, range(2)), recipe.draw(7, range(1, 2))
    for name, array in first.items():
        assert np.array_equal(array, again[name])
        assert np.array_equal(array[1:], second_half[name])
    assert not np.array_equal(first["rainy"], first["other_rainy"])


def test_ablations_of_table_4(config, tmp_path):
    plain = recipe_of(config(without=("self-training",)), tmp_path)
    assert set(plain.draw(8, range(2))) == {"rainy", "clean", "real"}
    assert plain.model.memory is not None
    pairs_alone = recipe_of(config(without=("photos",)), tmp_path)
    assert set(pairs_alone.draw(8, range(2))) == {"rainy", "clean"}
    without_tv = recipe_of(config(without=("tv",)), tmp_path)
    assert without_tv._weights()["variation"] == 0
    assert recipe_of(config(without=("memory",)), tmp_path).model.memory is None
    assert not recipe_of(
        config(without=("skip-connection",)), tmp_path
    ).model.config.skip_connection


def test_a_share_of_the_labels(config):
    assert labelled_count(labelled_sources(config())) == 3
    (few,) = labelled_sources(config(labelled=0.1))
    assert len(few.training) == 1
    assert few.training == labelled_sources(config(labelled=0.1))[0].training
    assert len(few.held_out) == 1


def test_folders_without_labels(config, pairs, tmp_path):
    with pytest.raises(ConfigError, match=r"labelled pairs too.*online-update"):
        train(config(dataset=()), tmp_path / "run")
    with pytest.raises(DatasetError):
        train(config(dataset=(str(pairs / "rainy"),)), tmp_path / "run2")
