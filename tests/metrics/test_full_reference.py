import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photos
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from derain_cli.errors import ImageError, UsageError
from derain_cli.metrics.full_reference import (
    DEFAULT_PROTOCOL,
    PROTOCOLS,
    full_range_luma,
    luma,
    psnr,
    ssim,
)

Pair = tuple[np.ndarray, np.ndarray]
Score = Callable[..., float]
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def pair() -> Pair:
    clean = np.ascontiguousarray(photos.astronaut()[100:221, 150:331])
    noise = np.random.default_rng(0).normal(0, 12, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8), clean


def color(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((16, 16, 3), (red, green, blue), np.uint8)


@pytest.mark.parametrize(
    ("rgb", "limited", "full"),
    [
        ((0, 0, 0), 16, 0),
        ((255, 255, 255), 235, 255),
        ((255, 0, 0), 81, 76),
        ((0, 255, 0), 145, 150),
        ((0, 0, 255), 41, 29),
        ((128, 128, 128), 126, 128),
    ],
)
def test_luma_of_known_colours(rgb: tuple[int, int, int], limited: int, full: int) -> None:
    assert np.all(luma(color(*rgb)) == limited)
    assert np.all(full_range_luma(color(*rgb)) == full)


def test_luma_is_the_rounded_luma_of_scikit_image(pair: Pair) -> None:
    for image in pair:
        assert np.array_equal(luma(image), np.floor(rgb2ycbcr(image)[..., 0] + 0.5))


def test_luma_rounds_half_up() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 2)] * 3, indexing="ij"), axis=-1)
    thousandths = grid @ np.array([65_481, 128_553, 24_966])
    ties = grid[thousandths % 255_000 == 127_500]
    assert len(ties), "the tie case has to exist for this test to mean anything"
    exact = thousandths[thousandths % 255_000 == 127_500] // 255_000 + 1 + 16
    assert np.array_equal(luma(ties[None].astype(np.uint8))[0], exact)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_psnr_equals_scikit_image(pair: Pair, protocol: str) -> None:
    derained, clean = pair
    first, second = (PROTOCOLS[protocol].planes(image) for image in pair)
    expected = peak_signal_noise_ratio(second, first, data_range=255)
    assert psnr(derained, clean, protocol) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ssim_equals_scikit_image(pair: Pair, protocol: str) -> None:
    derained, clean = pair
    first, second = (PROTOCOLS[protocol].planes(image) for image in pair)
    expected = structural_similarity(
        first,
        second,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=-1 if first.ndim == 3 else None,
    )
    assert ssim(derained, clean, protocol) == pytest.approx(expected, abs=1e-6)


def test_scores_computed_by_hand() -> None:
    assert psnr(color(10, 10, 10), color(20, 20, 20), "rgb") == pytest.approx(28.1308, abs=1e-4)
    # One channel off by 30 in three: mean square error 300.
    assert psnr(color(0, 0, 30), color(0, 0, 0), "rgb") == pytest.approx(
        10 * math.log10(255**2 / 300)
    )
    # Flat images have no contrast, which leaves the luminance term of SSIM.
    c1 = 2.55**2
    luminance = (2 * 10 * 20 + c1) / (10**2 + 20**2 + c1)
    assert ssim(color(10, 10, 10), color(20, 20, 20), "rgb") == pytest.approx(luminance)


def test_rgb_ssim_is_the_mean_over_channels(pair: Pair) -> None:
    derained, clean = (image.copy() for image in pair)
    derained[..., 1:] = clean[..., 1:]
    gray_pair = (np.repeat(image[..., :1], 3, axis=2) for image in (derained, clean))
    assert ssim(derained, clean, "rgb") == pytest.approx((ssim(*gray_pair, "rgb") + 2) / 3)


def test_default_protocol_is_limited_range_luma(pair: Pair) -> None:
    assert DEFAULT_PROTOCOL == "y"
    assert psnr(*pair) == psnr(*pair, "y")
    assert ssim(*pair) == ssim(*pair, "y")
    assert psnr(*pair, "y") > psnr(*pair, "y-full") + 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equal_images(pair: Pair, protocol: str) -> None:
    _, clean = pair
    assert psnr(clean, clean, protocol) == math.inf
    assert ssim(clean, clean, protocol) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_scores_are_symmetric_and_leave_images_alone(pair: Pair, score: Score) -> None:
    derained, clean = pair
    before = derained.copy(), clean.copy()
    assert score(derained, clean) == pytest.approx(score(clean, derained), rel=1e-12)
    assert np.array_equal(derained, before[0])
    assert np.array_equal(clean, before[1])


@pytest.mark.parametrize("score", [psnr, ssim])
def test_size_mismatch_names_both_sizes(score: Score) -> None:
    with pytest.raises(ImageError, match=r"64x48.*65x48.*nothing is resized"):
        score(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 65, 3), np.uint8))


@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((48, 64, 3), np.float32), "float32"),
        (np.zeros((48, 64, 3), np.uint16), "uint16"),
        (np.zeros((48, 64), np.uint8), r"\(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), r"\(48, 64, 4\)"),
    ],
)
def test_other_pixels_are_refused(score: Score, image: np.ndarray, named: str) -> None:
    with pytest.raises(ImageError, match=f"8-bit RGB.*derained image.*{named}"):
        score(image, image)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_unknown_protocol_suggests(pair: Pair, score: Score) -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'rbg'\. Did you mean 'rgb'\?"):
        score(*pair, "rbg")


def test_ssim_of_the_smallest_image() -> None:
    smallest = np.random.default_rng(1).integers(0, 256, (11, 11, 3), np.uint8)
    assert ssim(smallest, smallest) == pytest.approx(1)
    with pytest.raises(ImageError, match=r"11x11 pixels or more, got 10x40"):
        ssim(np.zeros((40, 10, 3), np.uint8), np.zeros((40, 10, 3), np.uint8))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def input_scores(dataset: str, protocol: str) -> np.ndarray:
    """`(images, 2)`: PSNR and SSIM of every untouched input of a test set, in order of names."""
    folder = DATA / dataset
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/{dataset}")
    clean = {path.stem: path for path in (folder / "clean").iterdir()}
    scores = []
    for path in sorted((folder / "rainy").iterdir()):
        images = read(path), read(clean[path.stem])
        scores.append((psnr(*images, protocol), ssim(*images, protocol)))
    return np.array(scores)


@pytest.mark.parametrize(
    ("dataset", "decibels", "similarity"),
    [("rain100l", 26.90, 0.8382), ("rain100h", 13.56, 0.3786)],
)
def test_known_input_scores_of_rain100(dataset: str, decibels: float, similarity: float) -> None:
    scores = input_scores(dataset, "y")
    assert len(scores) == 100
    mean_psnr, mean_ssim = scores.mean(axis=0)
    assert mean_psnr == pytest.approx(decibels, abs=0.005)
    # To the fourth digit, which luma without rounding misses.
    assert mean_ssim == pytest.approx(similarity, abs=0.00005)


def test_known_input_scores_of_ddn_sirr() -> None:
    assert input_scores("ddn_sirr_test", "y")[:, 0].mean() == pytest.approx(22.29, abs=0.005)
    rgb = input_scores("ddn_sirr_test", "rgb")[:, 0]
    assert len(rgb) == 20
    assert rgb[:10].mean() == pytest.approx(17.82, abs=0.005)
    assert rgb[10:].mean() == pytest.approx(23.93, abs=0.005)
