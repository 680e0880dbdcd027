"""Presets: every network has them, every value is a config's, every number has its source."""

import dataclasses

import pytest

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.errors import ConfigError
from derain_cli.models import MODELS, find_model
from derain_cli.training.configs.presets import PRESETS, explain, find_preset, preset_values
from derain_cli.training.configs.train import TrainConfig

EVERY = [(model, name) for model, presets in PRESETS.items() for name in presets]


def config_of(model: str, name: str, **given) -> TrainConfig:
    return TrainConfig(**({"model": model} | preset_values(model, name, given) | given))


@pytest.mark.parametrize("model", sorted({entry.model for entry in list_weights()}))
def test_every_network_with_bundled_weights_has_its_presets(model):
    assert model in PRESETS, f"{model!r} has no presets yet: add them to configs/presets.py"
    assert {"paper", "quick", "wide-rain"} <= set(PRESETS[model])


def test_a_network_without_published_settings_trains_by_presets_for_any(monkeypatch):
    others = {name: presets for name, presets in PRESETS.items() if name != "unet"}
    monkeypatch.setattr("derain_cli.training.configs.presets.PRESETS", others)
    assert find_preset("unet", "quick")["steps"].value > 0
    assert find_preset("unet", "wide-rain")["backgrounds"].value > 0
    with pytest.raises(ConfigError, match=r"'paper' of model 'unet'\. .*Known: quick, wide-rain"):
        find_preset("unet", "paper")


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_a_preset_is_a_config_and_names_its_sources(model, name):
    config = config_of(model, name)
    fields = {item.name for item in dataclasses.fields(TrainConfig)}
    for field, setting in find_preset(model, name).items():
        assert field in fields
        assert getattr(config, field) == setting.value
        assert len(setting.source) > 8


# Of the papers' own text, by hand: steps = epochs x pairs / batch, drops at epoch / epochs.
def test_hcn_numbers():
    config = config_of("hcn", "paper")
    assert (config.crop, config.batch_size, config.lr, config.epochs) == (128, 12, 5e-4, 500)
    config = dataclasses.replace(config, steps=500 * 1800 // 12)
    rates = [config.lr_at(round(epoch * 150)) for epoch in (0, 299.9, 300, 399.9, 400)]
    assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6])
    assert config.output_weights == (1, 1, 1)
    assert config.scale_weights == (0.05, 0.001)
    assert config.recipe == "collaborative"


def test_rdmc_numbers():
    config = config_of("rdmc", "paper")
    assert (config.crop, config.batch_size) == (128, 8)
    half, whole = 3000 // 8, 6000 // 8
    assert config.steps == 150 * half + 100 * whole
    drops = {0: 1e-3, 30: 2e-4, 50: 4e-5, 80: 8e-6, 150: 1e-4, 180: 2e-5, 200: 4e-6, 230: 8e-7}
    for epoch, rate in drops.items():
        start = min(epoch, 150) * half + max(epoch - 150, 0) * whole
        assert config.lr_at(start + 1) == pytest.approx(rate)
        if epoch:
            assert config.lr_at(start - 1) != pytest.approx(rate)
    searched = config_of("rdmc", "searched")
    assert (searched.epochs, searched.epoch_steps, searched.lr) == (100, 750, 1e-4)
    searched = dataclasses.replace(searched, steps=75_000)
    assert searched.lr_at(22_499) == pytest.approx(1e-4)
    assert searched.lr_at(22_500) == pytest.approx(2e-5)
    assert searched.lr_at(60_000) == pytest.approx(8e-7)
    search = config_of("rdmc-supernet", "paper")
    assert (search.epochs, search.epoch_steps, search.lr) == (150, 375, 1e-3)
    assert config.loss == ("ssim:1", "mse:0.1", "contrastive:0.1")


def test_menet_numbers():
    config = config_of("menet", "paper")
    assert (config.crop, config.batch_size, config.lr, config.crops) == (224, 20, 1e-3, "ten")
    assert config.epochs == 100
    config = dataclasses.replace(config, steps=100 * (200 * 10 // 20))
    assert [config.lr_at(step) for step in (3999, 4000, 8000)] == pytest.approx([1e-3, 1e-4, 1e-5])
    assert config.loss_weighting == "gb"
    assert config_of("menet", "paper", dataset=("rain100h_train",)).loss_weighting == "lb"
    given = {"dataset": ("rain100h_train",), "loss_weighting": "gb"}
    assert config_of("menet", "paper", **given).loss_weighting == "gb"


def test_steps_given_by_hand_replace_a_presets_epochs():
    config = config_of("hcn", "paper", steps=7)
    assert (config.steps, config.epochs) == (7, 0)


def test_moss_numbers():
    config = config_of("moss", "paper")
    assert (config.crop, config.batch_size, config.lr, config.steps) == (256, 16, 1e-4, 100_000)
    assert config.lr_at(99_999) == 1e-4


@pytest.mark.parametrize("model", ["resnet", "unet", "swinir"])
def test_study_numbers(model):
    config = config_of(model, "paper")
    assert (config.crop, config.batch_size, config.lr, config.steps) == (128, 16, 2e-4, 250_000)
    assert config.betas == (0.9, 0.99)
    assert config.loss == ("l1:1",)
    assert config.lr_at(125_000) == pytest.approx(1e-4, rel=1e-3)
    wide = config_of(model, "wide-rain")
    assert (wide.backgrounds, wide.rain) == (512, ("large",))


def test_given_data_replace_the_presets_and_given_options_win():
    assert config_of("hcn", "paper").dataset == ("rain200h_train",)
    assert config_of("hcn", "paper", clean=("photos",), rain=("heavy",)).dataset == ()
    assert config_of("unet", "paper", clean=("photos",)).rain == ("medium",)
    assert config_of("unet", "paper", dataset=("mine",)).rain == ()
    assert config_of("unet", "paper", dataset=("mine",)).backgrounds == 0
    assert config_of("unet", "paper", lr=0.5).lr == 0.5


def test_every_field_is_explained():
    given = {"lr": 0.5}
    config = config_of("moss", "quick", **given)
    rows = {name: (value, source) for name, value, source in explain(config, "quick", given)}
    assert rows["lr"] == (0.5, "given")
    assert rows["ema"] == (0.0, "default")
    assert rows["crop"] == (64, "ours: minutes on two CPU cores")
    assert rows["flip"][1].startswith("huang2021 release")
    assert list(rows) == [item.name for item in dataclasses.fields(config)]


def test_unknown_presets_are_named():
    with pytest.raises(
        ConfigError, match=r"unknown preset 'papr' of model 'rdmc'\. Did you mean 'p"
    ):
        find_preset("rdmc", "papr")
    with pytest.raises(ConfigError, match=r"no presets for model 'rdmd'\. Did you mean 'rdmc'"):
        find_preset("rdmd", "paper")


@pytest.mark.parametrize(("model", "name"), EVERY)
def test_recipes_of_presets_fit_their_networks(model, name):
    if model in MODELS and config_of(model, name).recipe == "collaborative":
        assert find_model(model).training_outputs
