import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos

from derain_cli.errors import ImageError, UsageError
from derain_cli.metrics.region_errors import RegionErrors, rain_mask, region_errors

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def clean() -> np.ndarray:
    return np.ascontiguousarray(photos.astronaut()[100:180, 150:270])


@pytest.fixture
def rainy(clean: np.ndarray) -> np.ndarray:
    rain = np.zeros(clean.shape[:2], np.uint16)
    rain[10:60, 20:24] = 60
    rain[30:70, 80:82] = 25
    return np.minimum(clean + rain[..., None], 255).astype(np.uint8)


def test_errors_computed_by_hand() -> None:
    clean = np.full((10, 10, 3), 100, np.uint8)
    rainy = clean.copy()
    rainy[:2] = 150
    derained = clean.copy()
    derained[:2] = 110
    derained[2:6, :, 0] = 103
    # Rain: 150 -> 110 in 20 pixels. Background: 40 of 80 pixels are off by 3 in one channel of 3.
    errors = region_errors(derained, rainy, clean)
    assert errors.e_r == pytest.approx(40)
    assert errors.e_b == pytest.approx(math.sqrt(9 * 40 / 240))
    assert errors.e_r_ceiling == pytest.approx(50)
    assert errors.rain_share == pytest.approx(0.2)


def test_rain_left_alone_is_zero_and_rain_removed_is_the_ceiling(
    rainy: np.ndarray, clean: np.ndarray
) -> None:
    lazy = region_errors(rainy, rainy, clean)
    perfect = region_errors(clean, rainy, clean)
    assert lazy.e_r == 0
    assert lazy.e_b == perfect.e_b == 0
    assert perfect.e_r == perfect.e_r_ceiling == lazy.e_r_ceiling > 10
    assert lazy.rain_share == perfect.rain_share == pytest.approx((200 + 80) / clean[..., 0].size)


def test_each_error_sees_only_its_region(rainy: np.ndarray, clean: np.ndarray) -> None:
    mask = rain_mask(rainy, clean)
    spoiled_rain, spoiled_background = clean.copy(), clean.copy()
    spoiled_rain[mask] = 0
    spoiled_background[~mask] = 0
    assert region_errors(spoiled_rain, rainy, clean).e_b == 0
    perfect = region_errors(clean, rainy, clean)
    assert region_errors(spoiled_background, rainy, clean).e_r == perfect.e_r
    assert region_errors(spoiled_background, rainy, clean).e_b > 50


def test_threshold_is_exclusive_and_darker_is_not_rain() -> None:
    clean = np.full((1, 4, 3), 100, np.uint8)
    rainy = clean.copy()
    rainy[0, :, 1] = (110, 111, 80, 100)
    assert rain_mask(rainy, clean).tolist() == [[False, True, False, False]]
    assert rain_mask(rainy, clean, 9).tolist() == [[True, True, False, False]]
    assert rain_mask(rainy, clean, 9.5).tolist() == [[True, True, False, False]]
    assert not rain_mask(rainy, clean, 11).any()


def test_clipped_channels_do_not_hide_rain() -> None:
    clean = np.full((2, 2, 3), (255, 250, 30), np.uint8)
    rainy = np.full((2, 2, 3), (255, 255, 70), np.uint8)
    assert rain_mask(rainy, clean).all()


def test_full_swing_does_not_overflow() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    errors = region_errors(black, white, black)
    assert errors.e_r == errors.e_r_ceiling == 255
    assert errors.rain_share == 1


def test_empty_regions_are_nan(clean: np.ndarray) -> None:
    dry = region_errors(clean, clean, clean)
    assert math.isnan(dry.e_r)
    assert math.isnan(dry.e_r_ceiling)
    assert (dry.e_b, dry.rain_share) == (0, 0)
    black = np.zeros_like(clean)
    flooded = region_errors(black, black + np.uint8(90), black)
    assert math.isnan(flooded.e_b)
    assert (flooded.e_r, flooded.rain_share) == (90, 1)


@pytest.mark.parametrize("threshold", [-1, 255, math.nan])
def test_impossible_threshold(rainy: np.ndarray, clean: np.ndarray, threshold: float) -> None:
    with pytest.raises(UsageError, match=r"rain threshold .* must be in 0\.\.254"):
        region_errors(clean, rainy, clean, threshold)


def test_size_mismatch_names_the_images(rainy: np.ndarray, clean: np.ndarray) -> None:
    with pytest.raises(ImageError, match="derained image is 119x80, rainy image is 120x80"):
        region_errors(clean[:, :-1], rainy, clean)
    with pytest.raises(ImageError, match="derained image is 120x80, clean image is 120x79"):
        region_errors(clean, rainy, clean[:-1])


def test_other_pixels_are_refused(rainy: np.ndarray, clean: np.ndarray) -> None:
    with pytest.raises(ImageError, match="got a rainy image of float32"):
        region_errors(clean, rainy.astype(np.float32), clean)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def perfect_results(dataset: str, images: int) -> Iterator[RegionErrors]:
    folder = DATA / dataset
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/{dataset}")
    for path in sorted((folder / "rainy").iterdir())[:images]:
        clean = read(folder / "clean" / f"{path.stem}.jpg")
        yield region_errors(clean, read(path), clean)


def test_known_ceiling_on_rain100l() -> None:
    errors = list(perfect_results("rain100l", 30))
    assert len(errors) == 30
    assert np.mean([error.e_r for error in errors]) == pytest.approx(40.2, abs=0.05)
    assert {error.e_b for error in errors} == {0}


def test_rain100h_is_mostly_rain() -> None:
    errors = list(perfect_results("rain100h", 10))
    assert np.mean([error.rain_share for error in errors]) > 0.5
