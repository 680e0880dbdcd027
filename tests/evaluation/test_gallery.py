"""Images of an evaluation: the worst and best are kept, all are saved where asked."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.errors import ResourceError
from derain_cli.evaluation.gallery import LONGEST_SIDE, Gallery, save_derained
from derain_cli.evaluation.scoring import Scored
from derain_cli.evaluation.statistics import INPUT, Row


def scored(
    image: str, score: float, *, model: str = "net", column: str = "psnr", level: int = 90
) -> Scored:
    row = Row("set", "", image, model, "y", {column: score}, 0.1)
    images = (np.full((8, 12, 3), value, np.uint8) for value in (200, level, 10))
    return Scored(row, *images)


def names(gallery: Gallery) -> list[tuple[str, str]]:
    return [(case.kind, case.row.image) for case in gallery.cases()]


def test_the_worst_and_best_are_kept_in_order():
    gallery = Gallery(count=2)
    for image, score in (("a", 30), ("b", 20), ("c", math.inf), ("d", 25), ("e", 40), ("f", 22)):
        gallery.observe(scored(image, score))
    assert names(gallery) == [("worst", "b"), ("worst", "f"), ("best", "c"), ("best", "e")]


def test_lower_is_better_for_some_scores():
    gallery = Gallery("niqe", count=1)
    for image, score in (("a", 3.0), ("b", 9.0), ("c", math.nan)):
        gallery.observe(scored(image, score, column="niqe"))
    assert names(gallery) == [("worst", "b"), ("best", "a")]


def test_no_image_is_shown_twice_and_the_input_never():
    gallery = Gallery(count=3)
    for image, score in (("a", 30), ("b", 20)):
        gallery.observe(scored(image, score))
        gallery.observe(scored(image, score - 5, model=INPUT))
    assert names(gallery) == [("worst", "b"), ("worst", "a")]


def test_images_are_kept_compressed_and_small():
    gallery = Gallery(count=1)
    big = np.zeros((LONGEST_SIDE * 2, LONGEST_SIDE, 3), np.uint8)
    gallery.observe(Scored(scored("a", 20).row, big, big + np.uint8(128), big))
    (case,) = gallery.cases()
    derained = Image.open(io.BytesIO(case.derained))
    assert (derained.format, derained.size) == ("JPEG", (LONGEST_SIDE // 2, LONGEST_SIDE))
    assert abs(int(np.asarray(derained).mean()) - 128) <= 1


def test_derained_images_are_saved_bit_for_bit_by_set_and_model(tmp_path):
    save = save_derained(tmp_path)
    save(scored("heavy/1", 20, model="runs/a b", level=77))
    save(scored("1", 20, model=INPUT))
    (path,) = tmp_path.rglob("*.*")
    assert path == tmp_path / "set/runs_a_b/heavy/1.png"
    assert (np.asarray(Image.open(path)) == 77).all()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "set").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot make"):
        save_derained(Path(tmp_path))(scored("1", 20))
