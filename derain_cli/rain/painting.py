"""Paint synthetic rain onto clean images: O = B + R, clipped (gu2023, section 2.1).

A rain layer is `(height, width)` float32 in 0..1, one grey layer added to all three channels. Every
layer is a pure function of its generator: the same seed paints the same rain.

`RAIN_KINDS` holds the three ranges of Table 1 of gu2023 and `heavy`: several overlaid
directions of long, bright streaks, as in Rain100H.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Layer = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class RainRange:
    """One row of Table 1: what the four knobs of the rain maker are drawn from.

    Attributes:
        quantity: Bounds of the amount; the brightest 0.01 x quantity / 256 of the noise is kept.
        widths: Windows of the Gaussian that thickens the streak, pixels.
        length: Bounds of the streak length, pixels.
        direction: Bounds of the angle from the vertical, degrees.
    """

    quantity: tuple[int, int]
    widths: tuple[int, ...]
    length: tuple[int, int]
    direction: tuple[float, float]


SMALL = RainRange((200, 300), (5,), (30, 31), (-5, 5))
MEDIUM = RainRange((200, 300), (5, 7, 9), (20, 40), (-30, 30))
LARGE = RainRange((200, 300), (1, 3, 5, 7, 9), (5, 60), (-70, 70))


def paint(clean: Pixels, layer: Layer) -> Pixels:
    """Rainy image: the grey layer added to every channel and clipped.

    Args:
        clean: `(height, width, 3)` uint8.
        layer: `(height, width)` in 0..1.

    Example:
        >>> paint(np.full((1, 1, 3), 200, np.uint8), np.full((1, 1), 0.5, np.float32)).max()
        np.uint8(255)
    """
    rain = np.rint(layer * 255).astype(np.int16)[..., None]
    return np.asarray(np.clip(clean + rain, 0, 255), np.uint8)


def streak_kernel(length: float, angle: float, width: int = 1) -> Layer:
    """Motion-blur kernel: a line through the middle, summing to 1.

    Args:
        length: Pixels.
        angle: Degrees from the vertical, positive leans to the right going down.
        width: Odd window of the Gaussian that thickens the line; 1 leaves it thin.
    """
    half = int(np.ceil(length / 2)) + width // 2 + 1
    size, shift = 2 * half + 1, 4
    direction = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))]) * length / 2
    ends = [
        tuple(np.rint((half + sign * direction) * 2**shift).astype(int).tolist())
        for sign in (-1, 1)
    ]
    line = np.zeros((size, size), np.uint8)
    cv2.line(line, ends[0], ends[1], 255, 1, cv2.LINE_AA, shift)
    kernel = line.astype(np.float32)
    if width > 1:
        kernel = np.asarray(cv2.GaussianBlur(kernel, (width, width), 0), np.float32)
    return np.asarray(kernel / kernel.sum(), np.float32)


def range_layer(height: int, width: int, rng: np.random.Generator, knobs: RainRange) -> Layer:
    """Rain of one direction, drawn from a row of Table 1."""
    quantity = rng.uniform(*knobs.quantity)
    kernel = streak_kernel(
        rng.uniform(*knobs.length), rng.uniform(*knobs.direction), int(rng.choice(knobs.widths))
    )
    margin = kernel.shape[0] // 2
    noise = rng.random((height + 2 * margin, width + 2 * margin), dtype=np.float32)
    share = 0.01 * quantity / 256
    drops = np.where(noise > 1 - share, noise, 0).astype(np.float32)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)
    streaks = cv2.filter2D(cv2.filter2D(drops, -1, cross), -1, kernel)
    return _normalised(_inner(np.asarray(streaks, np.float32), margin), peak=rng.uniform(0.4, 0.9))


def heavy_layer(height: int, width: int, rng: np.random.Generator) -> Layer:
    """Heavy rain: 3 to 7 sets of long streaks around one direction, often some crossing it.

    Bounds are set from the rain layers of the 23 training samples of the Rain200H kind: main
    direction within 20 degrees of the vertical, mean intensity 6 to 90 of 255, coverage 0.2 to 0.9.
    """
    main = rng.normal(0, 9)
    sets = int(rng.integers(3, 8))
    crossing = rng.random() < 0.6
    total = np.zeros((height, width), np.float32)
    for index in range(sets):
        spread = 30 if crossing and index >= sets - 2 else 5
        kernel = streak_kernel(
            rng.uniform(25, 130), main + rng.normal(0, spread), int(rng.choice((1, 1, 3)))
        )
        total += _drawn_streaks(height, width, rng, kernel) * rng.uniform(0.4, 1.2)
    mean = rng.uniform(6, 90) / 255
    scaled = total * (mean / max(float(total.mean()), 1e-6))
    return np.asarray(np.clip(scaled, 0, 1), np.float32)


def _drawn_streaks(height: int, width: int, rng: np.random.Generator, kernel: Layer) -> Layer:
    """Streaks of equal shape and uneven brightness at random places."""
    margin = kernel.shape[0] // 2
    shape = (height + 2 * margin, width + 2 * margin)
    drops = np.zeros(shape, np.float32)
    count = int(rng.uniform(0.0007, 0.0045) * drops.size)
    drops.flat[rng.integers(0, drops.size, count)] = rng.uniform(0.2, 1, count)
    streaks = cv2.filter2D(drops, -1, kernel / kernel.max())
    return _inner(np.asarray(streaks, np.float32), margin)


def _inner(layer: Layer, margin: int) -> Layer:
    return layer[margin : layer.shape[0] - margin, margin : layer.shape[1] - margin]


def _normalised(layer: Layer, peak: float) -> Layer:
    """Layer scaled so that its 99.9th percentile is `peak` (the maximum would be chance)."""
    bright = float(np.quantile(layer, 0.999))
    return np.asarray(np.clip(layer * (peak / max(bright, 1e-6)), 0, 1), np.float32)


# Kinds whose ranges gu2023 prints.
TABLE_1 = ("small", "medium", "large")

LayerMaker = Callable[[int, int, np.random.Generator], Layer]

RAIN_KINDS: Mapping[str, LayerMaker] = {
    "small": lambda height, width, rng: range_layer(height, width, rng, SMALL),
    "medium": lambda height, width, rng: range_layer(height, width, rng, MEDIUM),
    "large": lambda height, width, rng: range_layer(height, width, rng, LARGE),
    "heavy": heavy_layer,
}


def vary_layer(layer: Layer, height: int, width: int, rng: np.random.Generator) -> Layer:
    """A `(height, width)` piece of a given rain layer: random place, mirror, zoom and gain.

    Args:
        layer: `(any height, any width)` in 0..1; a layer smaller than asked for is mirrored on.
        height: Of the result.
        width: Of the result.
        rng: Its state decides all choices.
    """
    zoom = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
    rows, columns = (max(2, round(side / zoom)) for side in (height, width))
    missing = [max(0, need - have) for need, have in zip((rows, columns), layer.shape, strict=True)]
    if any(missing):
        layer = np.pad(layer, [(0, extra) for extra in missing], mode="symmetric")
    top = int(rng.integers(0, layer.shape[0] - rows + 1))
    left = int(rng.integers(0, layer.shape[1] - columns + 1))
    piece = layer[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    zoomed = cv2.resize(np.ascontiguousarray(piece), (width, height))
    return np.asarray(np.clip(zoomed * rng.uniform(0.6, 1.3), 0, 1), np.float32)
