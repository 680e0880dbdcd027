"""The rain maker: deterministic, inside its ranges, in the direction asked for."""

import numpy as np
import pytest

from derain_cli.rain.layers import made_layers
from derain_cli.rain.painting import (
    LARGE,
    MEDIUM,
    RAIN_KINDS,
    SMALL,
    RainRange,
    heavy_layer,
    paint,
    range_layer,
    streak_kernel,
    vary_layer,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def lean(layer: np.ndarray) -> float:
    """Dominant streak angle from the vertical, degrees, by the structure tensor."""
    down, right = np.gradient(layer.astype(np.float64))
    across = 0.5 * np.arctan2(2 * (right * down).mean(), (right**2).mean() - (down**2).mean())
    return -float(np.degrees(across))


@pytest.mark.parametrize("kind", RAIN_KINDS)
def test_same_seed_same_rain(kind):
    first, second = (RAIN_KINDS[kind](60, 80, rng(3)) for _ in range(2))
    assert first.shape == (60, 80)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, RAIN_KINDS[kind](60, 80, rng(4)))


@pytest.mark.parametrize("kind", RAIN_KINDS)
def test_rain_is_light_in_range(kind):
    layers = [RAIN_KINDS[kind](120, 120, rng(seed)) for seed in range(6)]
    assert all(layer.min() >= 0 and layer.max() <= 1 for layer in layers)
    assert all(layer.max() > 0.05 for layer in layers)


@pytest.mark.parametrize("angle", [-30.0, 0.0, 20.0])
def test_kernel_has_the_angle_and_sums_to_one(angle):
    kernel = streak_kernel(41, angle)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    rows, columns = np.nonzero(kernel > kernel.max() / 2)
    slope = np.polyfit(rows, columns, 1)[0]
    assert np.degrees(np.arctan(slope)) == pytest.approx(angle, abs=3)


def test_wider_gaussian_makes_thicker_streaks():
    thin, thick = ((streak_kernel(31, 0, width) > 1e-3).sum() for width in (1, 7))
    assert thick > 2 * thin


def test_small_range_falls_straight_and_large_leans():
    small = [abs(lean(RAIN_KINDS["small"](200, 200, rng(seed)))) for seed in range(5)]
    assert max(small) < 8
    leans = [lean(range_layer(200, 200, rng(seed), LARGE)) for seed in range(12)]
    assert max(leans) > 20
    assert min(leans) < -20


def test_heavy_rain_matches_the_bounds_its_docstring_states():
    layers = [255 * heavy_layer(160, 240, rng(seed)) for seed in range(20)]
    means = [layer.mean() for layer in layers]
    covered = [(layer > 10).mean() for layer in layers]
    assert min(means) > 5
    assert max(means) < 92
    assert 0.7 < np.median(covered) < 0.97


def test_paint_adds_the_same_grey_to_every_channel_and_clips():
    clean = np.array([[[10, 20, 250]]], np.uint8)
    np.testing.assert_array_equal(paint(clean, np.float32([[0.1]])), [[[36, 46, 255]]])
    np.testing.assert_array_equal(paint(clean, np.float32([[0]])), clean)


def test_vary_layer_has_the_size_asked_for_even_from_a_smaller_layer():
    layer = rng().random((20, 30)).astype(np.float32)
    piece = vary_layer(layer, 50, 64, rng(1))
    assert piece.shape == (50, 64)
    np.testing.assert_array_equal(piece, vary_layer(layer, 50, 64, rng(1)))


def test_the_twelve_numbers_of_table_1():
    """Quantity, width, length, direction of gu2023, as printed."""
    small, medium, large = SMALL, MEDIUM, LARGE
    assert (small.quantity, small.widths, small.length, small.direction) == (
        (200, 300),
        (5,),
        (30, 31),
        (-5, 5),
    )
    assert (medium.quantity, medium.widths, medium.length, medium.direction) == (
        (200, 300),
        (5, 7, 9),
        (20, 40),
        (-30, 30),
    )
    assert (large.quantity, large.widths, large.length, large.direction) == (
        (200, 300),
        (1, 3, 5, 7, 9),
        (5, 60),
        (-70, 70),
    )


@pytest.mark.parametrize(
    ("kind", "knobs"), [("small", SMALL), ("medium", MEDIUM), ("large", LARGE)]
)
def test_training_draws_from_table_1_and_no_wider(kind, knobs, monkeypatch):
    """Lengths, angles and widths of the kernels that training paints with: their whole ranges."""
    drawn = []

    def record(length, angle, width=1):
        drawn.append((length, angle, width))
        return streak_kernel(9, 0, 1)

    monkeypatch.setattr("derain_cli.rain.painting.streak_kernel", record)
    source = made_layers(kind, seed=0)
    generator = rng(1)
    for _ in range(400):
        source(16, 16, generator)
    lengths, angles, widths = (np.array(values) for values in zip(*drawn, strict=True))
    assert knobs.length[0] <= lengths.min() < lengths.max() <= knobs.length[1]
    assert knobs.direction[0] <= angles.min() < angles.max() <= knobs.direction[1]
    spread = knobs.direction[1] - knobs.direction[0]
    assert np.ptp(angles) > 0.95 * spread
    assert np.ptp(lengths) > 0.95 * (knobs.length[1] - knobs.length[0])
    assert set(widths.tolist()) == set(knobs.widths)


def test_layers_of_table_1_are_fresh_and_unvaried(monkeypatch):
    monkeypatch.setattr("derain_cli.rain.layers.vary_layer", None)
    for kind in ("small", "medium", "large"):
        np.testing.assert_array_equal(
            made_layers(kind, seed=0)(20, 30, rng(5)), RAIN_KINDS[kind](20, 30, rng(5))
        )


def test_drops_are_the_brightest_share_of_the_noise(monkeypatch):
    """0.01 x quantity / 256 of the pixels, before the cross filter and the blur."""
    kept = []
    monkeypatch.setattr(
        "derain_cli.rain.painting.cv2.filter2D", lambda layer, *_: kept.append(layer) or layer
    )
    range_layer(400, 400, rng(3), RainRange((256, 256), (1,), (9, 9), (0, 0)))
    assert (kept[0] > 0).mean() == pytest.approx(0.01, rel=0.1)
