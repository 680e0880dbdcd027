"""Pairs whose two images differ in tone."""

from pathlib import Path

import numpy as np
import pytest

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import dataset_pairs
from derain_cli.datasets.tone import darker_share, differs_in_tone

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_share_of_darker_pixels_by_hand():
    clean = np.full((10, 10, 3), 100, np.uint8)
    rainy = clean.copy()
    rainy[:4] -= np.uint8(4)
    assert darker_share(rainy, clean) == 0.4
    assert differs_in_tone(rainy, clean)
    rainy[:1] = 255  # rain on a dark row
    assert darker_share(rainy, clean) == 0.3
    assert not differs_in_tone(rainy, clean)


@pytest.mark.skipif(not DATA.is_dir(), reason="the project's data are not here")
@pytest.mark.parametrize("name", ["rain100h", "ddn_sirr_test", "rain200h_sample"])
def test_additive_rain_is_of_one_tone(name):
    pairs = dataset_pairs(name, DATA)[::10]
    assert not any(differs_in_tone(*read_pair(pair)) for pair in pairs)
