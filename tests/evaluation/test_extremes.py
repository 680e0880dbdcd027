"""What a mean hides, worked out by hand."""

import math

from derain_cli.evaluation.extremes import largest_differences, made_worse, spread_of
from derain_cli.evaluation.statistics import INPUT, Row


def rows(**scores: dict[str, float]) -> list[Row]:
    """Rows by model of image -> PSNR."""
    return [
        Row("set", "", image, INPUT if model == "input" else model, "y", {"psnr": score}, 0.0)
        for model, by_image in scores.items()
        for image, score in by_image.items()
    ]


def test_spread_of_scores_by_hand():
    spread = spread_of([float(n) for n in range(1, 21)] + [math.inf, math.nan], "psnr")
    found = spread.median, spread.worst, spread.worst_tenth, spread.best_tenth
    assert found == (10.5, 1.0, 1.5, 19.5)
    assert 7 < spread.low < 10.5 < spread.high < 14
    lower = spread_of([float(n) for n in range(1, 21)], "niqe")
    assert (lower.worst, lower.worst_tenth, lower.best_tenth) == (20.0, 19.5, 1.5)


def test_images_made_worse_are_listed_worst_first():
    found = made_worse(
        rows(
            input={"a": 30, "b": 20, "c": 25, "d": math.inf, "e": math.inf},
            net={"a": 29, "b": 28, "c": 21, "d": 50, "e": math.inf},
        ),
        "psnr",
    )
    assert [(c.row.image, c.row.model, c.gain) for c in found] == [
        ("d", "net", -math.inf),  # a dry photo that was changed
        ("c", "net", -4),
        ("a", "net", -1),
    ]


def test_largest_differences_name_the_better_model_first():
    found = largest_differences(
        rows(
            input={"a": 10, "b": 10, "c": 10},
            one={"a": 30, "b": 20, "c": 25, "d": math.inf},
            two={"a": 31, "b": 26, "c": 22, "d": 50},
        ),
        "psnr",
        count=2,
    )
    about = [(c.row.image, c.row.model, c.against.model, c.gain) for c in found]
    assert about == [("b", "two", "one", 6), ("c", "one", "two", 3)]
