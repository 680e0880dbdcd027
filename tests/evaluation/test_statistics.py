"""Means, standard errors and paired differences."""

import math

import numpy as np
import pytest

from derain_cli.evaluation.statistics import (
    INPUT,
    Row,
    bootstrap_interval,
    differences,
    mean_of,
    summarise,
)


def row(image: str, model: str, psnr: float, *, group: str = "", **scores: float) -> Row:
    return Row("set", group, image, model, "y", {"psnr": psnr} | scores, 0.5)


def test_means_are_over_images_with_their_standard_error():
    mean = mean_of([20.0, 22.0, 27.0])
    assert mean.value == pytest.approx(23)
    assert mean.error == pytest.approx(np.std([20, 22, 27], ddof=1) / math.sqrt(3))


def test_undefined_scores_are_left_out_of_means():
    mean = mean_of([math.nan, 20.0, 22.0])
    assert (mean.value, mean.error, mean.images) == (21, 1, 2)
    nothing = mean_of([math.nan])
    assert math.isnan(nothing.value)
    assert nothing.images == 0


def test_an_infinite_score_makes_the_mean_infinite_and_its_error_undefined():
    mean = mean_of([math.inf, 20.0])
    assert mean.value == math.inf
    assert math.isnan(mean.error)
    assert math.isnan(mean_of([20.0]).error)


def test_a_whole_set_comes_before_its_groups():
    rows = [row("1", "a", 10, group="dense"), row("1", "b", 12, group="dense"),
            row("2", "a", 20, group="sparse"), row("2", "b", 24, group="sparse")]  # fmt: skip
    scores = summarise(rows)
    assert [(score.part, score.model) for score in scores] == [
        ("set", "a"), ("set", "b"), ("set (dense)", "a"), ("set (dense)", "b"),
        ("set (sparse)", "a"), ("set (sparse)", "b"),
    ]  # fmt: skip
    assert [score.means["psnr"].value for score in scores] == [15, 18, 10, 12, 20, 24]
    assert [score.images for score in scores] == [2, 2, 1, 1, 1, 1]
    assert scores[0].seconds == 0.5


def test_differences_are_paired_by_image_whatever_the_order():
    first = [row(str(n), "a", 20 + 3.0 * n) for n in range(8)]
    second = [row(str(n), "b", 20.5 + 3.0 * n) for n in reversed(range(8))]
    (found,) = differences([*first, *second])
    # The images differ by 21 dB among them, the models by exactly half a decibel on each.
    assert (found.model, found.against, found.column) == ("b", "a", "psnr")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.images == 8


def test_models_of_other_images_are_compared_on_those_of_both():
    rows = [row("1", "a", 20), row("2", "a", 21), row("2", "b", 23), row("3", "b", 90)]
    (found,) = differences(rows)
    assert (found.model, found.value, found.images) == ("b", 2, 1)


def test_every_pair_of_models_is_compared_and_the_input_with_none():
    models = [INPUT, "a", "b", "c"]
    rows = [row(str(n), model, 20 + len(model) * n) for n in range(3) for model in models]
    assert [(found.model, found.against) for found in differences(rows)] == [
        ("b", "a"), ("c", "a"), ("c", "b"),
    ]  # fmt: skip


def test_a_ceiling_is_not_compared_and_undefined_scores_are_left_out():
    rows = [row(str(n), model, math.inf if n == 0 else 20.0 + (model == "b"),
                e_r=math.nan, e_r_ceiling=40.0)
            for n in range(4) for model in "ab"]  # fmt: skip
    psnr, e_r = differences(rows)
    assert (psnr.column, psnr.images, psnr.value) == ("psnr", 3, 1)
    assert (e_r.column, e_r.images) == ("e_r", 0)
    assert math.isnan(e_r.value)


def test_the_interval_is_a_function_of_values_and_seed():
    values = np.random.default_rng(3).normal(0.4, 1, 60)
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1)
    assert bootstrap_interval(values, 1) != bootstrap_interval(values, 2)


def test_the_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(5).normal(0, 1, 400)
    low, high = bootstrap_interval(values)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.06)
