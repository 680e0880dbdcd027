"""Images of an evaluation: those worth a look are chosen from the rows and drawn, or all saved."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.layouts import find_pairs
from derain_cli.errors import ResourceError
from derain_cli.evaluation.gallery import (
    LONGEST_SIDE,
    Choice,
    choose_cases,
    draw_cases,
    save_derained,
)
from derain_cli.evaluation.scoring import Scored
from derain_cli.evaluation.statistics import INPUT, Row


def row(image: str, score: float, *, model: str = "net", column: str = "psnr") -> Row:
    return Row("set", "", image, model, "y", {column: score}, 0.1)


def rows_of(column: str = "psnr", **scores: float) -> list[Row]:
    return [row(image, score, column=column) for image, score in scores.items()]


def names(choices: list[Choice]) -> list[tuple[str, str]]:
    return [(choice.kind, choice.row.image) for choice in choices]


def test_the_worst_and_best_are_chosen_in_order():
    rows = rows_of(a=30, b=20, c=math.inf, d=25, e=40, f=22)
    expected = [("worst", "b"), ("worst", "f"), ("best", "c"), ("best", "e")]
    assert names(choose_cases(rows, "psnr", 2)) == expected


def test_lower_is_better_for_some_scores():
    rows = rows_of("niqe", a=3.0, b=9.0, c=math.nan)
    assert names(choose_cases(rows, "niqe", 1)) == [("worst", "b"), ("best", "a")]


def test_images_made_worse_come_first_and_none_is_shown_twice():
    rows = rows_of(a=30, b=20, c=25)
    rows += [row(image, score, model=INPUT) for image, score in (("a", 29), ("b", 22), ("c", 26))]
    expected = [("made worse", "b"), ("made worse", "c"), ("worst", "a")]
    assert names(choose_cases(rows, "psnr", 3)) == expected


def test_the_largest_differences_of_two_models_are_shown_side_by_side():
    rows = [*rows_of(a=30, b=20), row("a", 31, model="other"), row("b", 27, model="other")]
    choice = choose_cases(rows, "psnr", 1)[-1]
    found = choice.kind, choice.row.image, choice.row.model, choice.left
    assert found == ("largest difference", "b", "other", "net")


class Painter:
    """A model that paints everything in one level."""

    def __init__(self, name: str, level: int) -> None:
        self.name, self.level = name, level

    def __call__(self, rainy: np.ndarray) -> np.ndarray:
        return np.full_like(rainy, self.level)


@pytest.fixture
def pairs(tmp_path: Path) -> list:
    for side, level in (("rainy", 200), ("clean", 10)):
        (tmp_path / side).mkdir()
        image = Image.new("RGB", (LONGEST_SIDE, LONGEST_SIDE * 2), (level, level, level))
        image.save(tmp_path / side / "a.png")
    return find_pairs(tmp_path)


def test_drawn_images_are_small_jpegs_of_what_was_chosen(pairs):
    choices = [
        Choice(row("a", 20), "worst"),
        Choice(row("a", 21, model="other"), "largest difference", "net"),
    ]
    seen: list[tuple[int, int]] = []
    models = [Painter("net", 90), Painter("other", 120)]
    first, second = draw_cases(
        choices, {"set": pairs}, models, lambda *progress: seen.append(progress)
    )

    def level(jpeg: bytes) -> int:
        image = Image.open(io.BytesIO(jpeg))
        assert (image.format, image.size) == ("JPEG", (LONGEST_SIDE // 2, LONGEST_SIDE))
        return round(float(np.asarray(image).mean()))

    assert [level(x) for x in (first.left, first.right, first.clean)] == [200, 90, 10]
    assert [level(x) for x in (second.left, second.right, second.clean)] == [90, 120, 10]
    assert (first.left_label, second.left_label) == ("rainy", "net")
    assert seen == [(1, 2), (2, 2)]


def scored(image: str, *, model: str = "net", level: int = 90) -> Scored:
    images = (np.full((8, 12, 3), value, np.uint8) for value in (200, level, 10))
    return Scored(row(image, 20, model=model), *images)


def test_derained_images_are_saved_bit_for_bit_by_set_and_model(tmp_path):
    save = save_derained(tmp_path)
    save(scored("heavy/1", model="runs/a b", level=77))
    save(scored("1", model=INPUT))
    (path,) = tmp_path.rglob("*.*")
    assert path == tmp_path / "set/runs_a_b/heavy/1.png"
    assert (np.asarray(Image.open(path)) == 77).all()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "set").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot make"):
        save_derained(Path(tmp_path))(scored("1"))
