"""TrainConfig: JSON in and out, schedules, and errors that name the option."""

import json

import pytest

from derain_cli.errors import ConfigError
from derain_cli.training.configs.train import TrainConfig


def test_json_round_trip(tmp_path):
    config = TrainConfig(dataset=("a:2", "b"), lr_milestones=(0.5,), steps=7)
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert TrainConfig.read(path) == config


def test_unknown_option_in_a_file_suggests_the_nearest(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"batchsize": 3}))
    with pytest.raises(
        ConfigError, match=r"config.json': .*'batchsize'. Did you mean 'batch_size'"
    ):
        TrainConfig.read(path)


def test_value_of_another_type_in_a_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"steps": 2.5, "clean": ["a"]}))
    with pytest.raises(ConfigError, match=r"config.json': `steps` is 2.5; .* whole number"):
        TrainConfig.read(path)
    path.write_text(json.dumps({"recipe": ["supervised"]}))
    with pytest.raises(ConfigError, match=r"`recipe` is \['supervised'\]; it must be text"):
        TrainConfig.read(path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_broken_file_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        TrainConfig.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps` is 0; it must be above 0"),
        ({"final_from": 1.5}, "`final_from` is 1.5; it must be from 0 to 1"),
        ({"lr_schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"held_out": -1}, "`held_out` is -1"),
        ({"steps": "ten"}, "`steps` is 'ten'; it must be a whole number"),
        ({"flip": 1}, "`flip` is 1; it must be true or false"),
        ({"lr": float("nan")}, "`lr` is nan; it must be a number"),
        ({"loss": "l1:1"}, "`loss` is 'l1:1'; it must be a list of texts"),
        ({"betas": (0.9, 1.0)}, r"`betas` is \(0.9, 1.0\); it must be two numbers from 0 to below"),
        ({"betas": (0.9,)}, "two numbers"),
        ({"data": ("rainy",)}, "`data` is .*; it must be two folders"),
        ({"ema": 1.0}, "`ema` is 1.0; it must be from 0 to below 1"),
        ({"lr_milestones": (0.5,), "lr_rates": (1.0, 2.0)}, "it must be one rate for each of 1"),
        ({"lr_milestones": (50.0,)}, "`lr_milestones` is .*; it must be .*above 0, to below 1"),
        ({"lr_milestones": (0.8, 0.5)}, "it must be rising shares"),
        ({"lr_factor": -3.0}, "`lr_factor` is -3.0; it must be above 0"),
        ({"crops": "five"}, "`crops` is 'five'"),
        (
            {"recipe": "collaborative", "output_weights": (1.0, 1.0)},
            r"`output_weights` is \(1.0, 1.0\); it must be three numbers",
        ),
        (
            {"recipe": "collaborative", "scale_weights": (0.05,)},
            r"`scale_weights` is \(0.05,\); it must be two numbers",
        ),
        ({"loss_weighting": "gbb"}, "Did you mean 'gb'"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_schedules():
    milestones = TrainConfig(
        steps=100, lr=1.0, lr_schedule="milestones", lr_milestones=(0.5, 0.8), lr_factor=0.1
    )
    assert [milestones.lr_at(step) for step in (0, 49, 50, 80)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = TrainConfig(steps=100, lr=1.0)
    assert [cosine.lr_at(step) for step in (0, 50)] == pytest.approx([1, 0.5])
    assert TrainConfig(steps=9, lr=1.0, lr_schedule="constant").lr_at(8) == 1.0


def test_final_crop_keeps_the_pixels_per_step():
    config = TrainConfig(steps=10, crop=64, batch_size=16, final_crop=128, final_from=0.5)
    assert config.crop_at(4) == (64, 16)
    assert config.crop_at(5) == (128, 4)


def test_norm_freezes_late_or_never():
    config = TrainConfig(steps=10, freeze_norm_from=0.7)
    assert [config.norm_frozen_at(step) for step in (6, 7)] == [False, True]
    assert not TrainConfig(steps=10, freeze_norm_from=1).norm_frozen_at(9)


def test_rate_rises_first_and_ends_at_its_least():
    config = TrainConfig(steps=100, lr=1.0, warmup=4, lr_min=0.2)
    assert [config.lr_at(step) for step in (0, 1, 3)] == pytest.approx([0.25, 0.5, 1], abs=2e-3)
    assert config.lr_at(100) == pytest.approx(0.2)
    constant = TrainConfig(steps=100, lr=1.0, lr_schedule="constant", warmup=2)
    assert [constant.lr_at(step) for step in (0, 1, 99)] == [0.5, 1, 1]


def test_rates_may_be_given_one_by_one():
    config = TrainConfig(
        steps=10, lr=1.0, lr_schedule="milestones", lr_milestones=(0.2, 0.6), lr_rates=(0.1, 0.5)
    )
    assert [config.lr_at(step) for step in (0, 2, 5, 6)] == [1, 0.1, 0.1, 0.5]


def test_model_options_are_json_or_words():
    config = TrainConfig(model_option=("widths=[1, 2]", "mscc=false", "pyramid=laplacian", "x="))
    assert config.model_options() == {
        "widths": [1, 2],
        "mscc": False,
        "pyramid": "laplacian",
        "x": "",
    }
    with pytest.raises(ConfigError, match="`model_option` is 'stages'; it must be NAME=VALUE"):
        TrainConfig(model_option=("stages",)).model_options()
