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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("strength", [0.8, 0.5, 0.1])
def test_a_part_of_the_change_tells_of_the_whole(strength, dtype):
    level = np.iinfo(dtype).max // 255
    rainy, whole = np.full(SHAPE, 100 * level, dtype), np.full(SHAPE, 100 * level, dtype)
    whole[1000:1020, :20, 1] -= (VISIBLE + 4) * level
    whole[:5, :, 2] -= (VISIBLE - 2) * level
    part = np.rint(rainy + strength * (whole.astype(float) - rainy)).astype(dtype)
    rain, of_whole = measure_rain(rainy, part, strength), measure_rain(rainy, whole)
    assert rain.share == of_whole.share
    assert rain.mean == pytest.approx(of_whole.mean, rel=0.2)


def test_an_unchanged_image_is_dry():
    rainy = np.zeros(SHAPE, np.uint8)
    rain = measure_rain(rainy, rainy)
    assert (rain.share, rain.mean, rain.is_dry) == (0, 0, True)
    assert DRY_SHARE > 0
