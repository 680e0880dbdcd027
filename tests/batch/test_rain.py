"""How much changed, in words and numbers; dry images left as they are."""

import numpy as np
import pytest

from derain_cli.batch.rain import DRY_SHARE, VISIBLE, measure_rain

SHAPE = (1030, 40, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_share_and_mean_are_those_of_the_pixels_that_changed(dtype):
    level = np.iinfo(dtype).max // 255
    rainy = np.full(SHAPE, 100 * level, dtype)
    derained = rainy.copy()
    derained[1000:1020, :20, 1] -= (VISIBLE + 4) * level  # in the second band of rows
    derained[:5, :, 2] -= VISIBLE * level  # too little to be seen
    rain = measure_rain(rainy, derained)
    assert rain.share == pytest.approx(20 * 20 / (1030 * 40))
    total = 20 * 20 * (VISIBLE + 4) + 5 * 40 * VISIBLE
    assert rain.mean == pytest.approx(total / (1030 * 40 * 3))
    assert not rain.is_dry
    assert rain.in_words() == "rain in 0.971 % of the image"


def test_an_unchanged_image_is_dry():
    rainy = np.zeros(SHAPE, np.uint8)
    rain = measure_rain(rainy, rainy)
    assert (rain.share, rain.mean, rain.is_dry) == (0, 0, True)
    assert DRY_SHARE > 0
