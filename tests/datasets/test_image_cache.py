"""Decoded images: kept up to a number of bytes, whoever asks."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import DatasetError

BYTES = 8 * 8 * 3


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{index}.png" for index in range(4)]
    for index, path in enumerate(made):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    return made


def test_what_was_used_last_stays(paths):
    cache = ImageCache(2 * BYTES)
    first, second = (cache.pixels(path) for path in paths[:2])
    assert cache.pixels(paths[0]) is first
    cache.pixels(paths[2])  # the second goes, not the first
    assert cache.pixels(paths[0]) is first
    assert cache.pixels(paths[1]) is not second
    assert cache.held == 2 * BYTES


def test_nothing_is_kept_beyond_the_limit(paths):
    cache = ImageCache(BYTES - 1)
    assert [cache.pixels(path)[0, 0, 0] for path in paths] == [0, 1, 2, 3]
    assert cache.held == 0


def test_threads_see_right_images_and_the_limit_holds(paths):
    cache = ImageCache(2 * BYTES)
    wanted = [index % 4 for index in range(400)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: cache.pixels(paths[index])[0, 0, 0], wanted))
    assert found == wanted
    assert 0 < cache.held <= 2 * BYTES


def test_a_clean_image_of_several_pairs_is_kept_once(paths):
    cache = ImageCache()
    for rainy in paths[:3]:
        cache.pair(Pair(rainy.stem, rainy, paths[3]))
    assert cache.held == 4 * BYTES


def test_halves_of_one_file_are_a_pair(paths):
    rainy, clean = ImageCache().pair(Pair("0", paths[0], paths[0], rainy_half="right"))
    assert rainy.shape == clean.shape == (8, 4, 3)


def test_unequal_sizes_are_refused(paths):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(paths[3])
    with pytest.raises(DatasetError, match=r"is 8x8.* is 9x8; a pair must have one size"):
        ImageCache().pair(Pair("0", paths[0], paths[3]))
