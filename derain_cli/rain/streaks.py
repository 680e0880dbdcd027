"""Streaks drawn one by one, of any width, focus and depth, and blended over a scene.

`painting` makes rain as filtered noise: all streaks of a layer have one shape, and are added. In
front of a camera each streak differs, near streaks are wide and out of focus, and a wide streak
hides what is behind it. Here a layer holds the coverage `(height, width)` in 0..1 of each pixel,
and `cover` blends it over a scene.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.rain.painting import Layer, vary_layer

Floats = NDArray[np.float32]

BANK_LAYERS, BANK_SIZE = 192, (360, 480)
MOST_STREAKS = 900
"""Most streaks per depth. More of them look like noise, which `painting` draws faster."""


@dataclass(frozen=True)
class StreakRange:
    """Ranges from which the streaks of a kind are drawn.

    Attributes:
        widths: Bounds of the streak width, pixels; log-uniform.
        lengths: Bounds of its length, pixels.
        longest: Bounds of the ratio of length to width.
        direction: Largest angle of a layer from the vertical, degrees.
        depths: Bounds of the number of layers of different depth.
        cover: Bounds of the share of the image that one depth covers.
        strength: Bounds of how opaque the brightest streaks are.
    """

    widths: tuple[float, float]
    lengths: tuple[float, float]
    longest: tuple[float, float]
    direction: float
    depths: tuple[int, int]
    cover: tuple[float, float]
    strength: tuple[float, float]


# Set beside real photos: most rain is fine and dense, far and near at once; few streaks are wide.
WIDE = StreakRange((0.8, 14), (6, 250), (6, 45), 60, (1, 5), (0.03, 0.3), (0.12, 0.95))
DROPS = StreakRange((2.5, 14), (4, 60), (1.0, 5), 50, (1, 2), (0.01, 0.07), (0.2, 0.9))
# A downpour before trees: every pixel has some soft rain in front of it, none of it bright.
DENSE = StreakRange((1.2, 5), (20, 220), (10, 45), 30, (2, 5), (0.15, 0.6), (0.08, 0.4))
# Steady rain seen through a long lens: faint soft lines, longer than any crop, before grey foliage.
CURTAIN = StreakRange((1.0, 4.5), (40, 400), (20, 110), 20, (3, 6), (0.15, 0.7), (0.03, 0.25))
# Fine rain that wind drives: short thin lines, all aslant, before mist, fields and sky.
SLANTED = StreakRange((0.8, 3), (12, 140), (12, 60), 60, (1, 4), (0.08, 0.5), (0.06, 0.6))
# A downpour in a photo of many megapixels: soft lines as wide as twigs, before dark leaves.
COARSE = StreakRange((3, 16), (40, 420), (6, 40), 25, (2, 5), (0.1, 0.6), (0.04, 0.4))
STREAK_KINDS = {
    "wide": WIDE,
    "drops": DROPS,
    "dense": DENSE,
    "curtain": CURTAIN,
    "slanted": SLANTED,
    "coarse": COARSE,
}


def streak_layer(height: int, width: int, rng: np.random.Generator, knobs: StreakRange) -> Layer:
    """Coverage of each pixel by the streaks of all depths."""
    through = np.ones((height, width), np.float32)
    main = rng.uniform(-1, 1) * knobs.direction
    if rng.random() < 0.5:  # wind is rarer than calm
        main *= rng.random()
    spread = rng.choice((1.0, 3.0, 8.0))
    for _ in range(int(rng.integers(knobs.depths[0], knobs.depths[1] + 1))):
        through *= 1 - _one_depth(height, width, rng, knobs, main + rng.normal(0, spread))
    return np.asarray(1 - through, np.float32)


def _one_depth(
    height: int, width: int, rng: np.random.Generator, knobs: StreakRange, direction: float
) -> Layer:
    """Streaks at about one distance: one width, one focus, nearly one direction."""
    # Far rain is thin, and there is more of it than near rain.
    thick = min(_even_by_ratio(rng, knobs.widths), _even_by_ratio(rng, knobs.widths))
    length = float(np.clip(thick * _even_by_ratio(rng, knobs.longest), *knobs.lengths))
    share = _even_by_ratio(rng, knobs.cover)
    count = share * height * width / (thick * length)
    edge = rng.choice((2.0, 2.0, 3.0, 6.0))  # 2 is a Gaussian, more is a disc's hard edge
    strength, jitter = rng.uniform(*knobs.strength), rng.choice((0.3, 1.0, 3.0))
    layer = np.zeros((height, width), np.float32)
    for _ in range(int(np.clip(count, 1, MOST_STREAKS))):
        streak = _Streak(
            row=rng.uniform(-0.3, 1.3) * height,
            column=rng.uniform(-0.1, 1.1) * width,
            thick=thick * rng.uniform(0.6, 1.5),
            length=length * rng.uniform(0.4, 1.5),
            angle=direction + rng.normal(0, jitter),
            edge=float(edge),
            light=strength * rng.uniform(0.25, 1) ** 1.5,
            bend=rng.uniform(-0.5, 0.5),
        )
        streak.draw(layer)
    return np.asarray(np.clip(layer, 0, 1), np.float32)


def _even_by_ratio(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


@dataclass(frozen=True)
class _Streak:
    """One streak: a soft-edged stroke, brighter at one end (`bend`)."""

    row: float
    column: float
    thick: float
    length: float
    angle: float
    edge: float
    light: float
    bend: float

    def draw(self, layer: Layer) -> None:
        """Add the part inside a layer to it."""
        sine, cosine = np.sin(np.radians(self.angle)), np.cos(np.radians(self.angle))
        half, side = 0.7 * self.length + 1, 1.2 * self.thick + 1
        tall, broad = half * abs(cosine) + side, half * abs(sine) + side
        top, bottom = _within(self.row, tall, layer.shape[0])
        left, right = _within(self.column, broad, layer.shape[1])
        if top >= bottom or left >= right:
            return
        down = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(self.row)
        across = np.arange(left, right, dtype=np.float32)[None] - np.float32(self.column)
        along = (down * cosine + across * sine) / (0.5 * self.length)
        beside = (across * cosine - down * sine) / (0.5 * max(self.thick, 1.0))
        shape = np.exp(-(np.abs(beside) ** self.edge) - along**4) * (1 + self.bend * along)
        # A streak thinner than a pixel covers a part of it.
        layer[top:bottom, left:right] += self.light * min(1.0, self.thick) * shape


def _within(middle: float, reach: float, size: int) -> tuple[int, int]:
    return max(0, int(middle - reach)), min(size, int(middle + reach) + 2)


def banked_streaks(
    kind: str, seed: int, height: int, width: int, rng: np.random.Generator
) -> Layer:
    """A varied crop of a layer of a bank: drawing a whole layer for each crop takes too long."""
    layer = _banked_layer(kind, seed, int(rng.integers(BANK_LAYERS)))
    return vary_layer(layer.astype(np.float32) / np.float32(255), height, width, rng)


@lru_cache(maxsize=len(STREAK_KINDS) * BANK_LAYERS)
def _banked_layer(kind: str, seed: int, index: int) -> NDArray[np.uint8]:
    """One layer of a bank, drawn when it is first needed: a whole bank takes up to a minute."""
    drawn = streak_layer(*BANK_SIZE, np.random.default_rng([seed, index, 1]), STREAK_KINDS[kind])
    return np.asarray((255 * drawn).round(), np.uint8)


def cover(scene: Floats, layer: Layer, rng: np.random.Generator) -> Floats:
    """Scene behind streaks: a blend of added light and water that hides the background.

    A drop shows the whole surroundings, mostly the sky: its light comes from the scene's own light
    and is nearly grey. At times it is lit from elsewhere, by a lamp or a flash, and far brighter
    than a dark scene. It never darkens what is behind it.

    Args:
        scene: `(height, width, 3)` in 0..1.
        layer: Share of each pixel that streaks cover, `(height, width)` in 0..1.
        rng: Decides opacity and light.
    """
    opaque = rng.choice((0.0, 1.0, float(rng.random())))
    surroundings = scene.mean(axis=(0, 1))
    grey = 0.7 * surroundings.mean() + 0.3 * surroundings
    lamp = rng.uniform(0.05, rng.choice((0.3, 0.3, 0.7)))
    light = np.clip(grey * rng.uniform(1.1, 2.2) + lamp, 0, 1)
    share = layer[..., None]
    covered = scene * (1 - opaque * share) + share * light
    return np.asarray(np.clip(np.maximum(covered, scene), 0, 1), np.float32)


def mixed_layer(
    given: Layer, other: Layer, height: int, width: int, rng: np.random.Generator
) -> Layer:
    """RainMix (Guo et al., AAAI 2021): chains of turns, shears and zooms of given rain, blended.

    Args:
        given: A layer of twice the height and width asked for.
        other: Another one, which joins some of the chains.
        height: Of the result.
        width: Of the result.
        rng: Decides all.
    """
    original = _turned(given, height, width, np.eye(2))
    shares = rng.dirichlet(np.ones(3))
    mixed = np.zeros((height, width), np.float32)
    for share in shares:
        matrix = np.eye(2)
        for _ in range(int(rng.integers(1, 4))):
            matrix = matrix @ _turn(rng)
        start = other if rng.random() < 0.3 else given
        mixed += np.float32(share) * _turned(start, height, width, matrix)
    kept = rng.beta(1, 1)
    # Blending thins the layers, so the result is amplified by up to two.
    blended = (kept * original + (1 - kept) * mixed) * rng.uniform(1, 2)
    return np.asarray(np.clip(blended, 0, 1), np.float32)


def _turn(rng: np.random.Generator) -> NDArray[np.float64]:
    """A turn, a shear or a zoom."""
    kind = rng.integers(3)
    if kind == 0:
        angle = np.radians(rng.uniform(-30, 30))
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if kind == 1:
        return np.array([[1.0, rng.uniform(-0.3, 0.3)], [0.0, 1.0]])
    zoom = np.exp(rng.uniform(-0.35, 0.35, 2))
    return np.diag(zoom)


def _turned(layer: Layer, height: int, width: int, matrix: NDArray[np.float64]) -> Layer:
    """The middle of a layer, moved by a matrix around its own middle."""
    middle = np.array([layer.shape[1] / 2, layer.shape[0] / 2])
    shift = np.array([width / 2, height / 2]) - matrix @ middle
    affine = np.column_stack((matrix, shift))
    moved = cv2.warpAffine(layer, affine, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.float32)
