"""Where painted rain comes from: the rain maker, folders of streaks, the rain of given pairs."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.layouts import Pair, list_images
from derain_cli.errors import DatasetError
from derain_cli.rain.painting import RAIN_KINDS, TABLE_1, Layer, vary_layer

Pixels = NDArray[np.uint8]
LayerSource = Callable[[int, int, np.random.Generator], Layer]
BANK_LAYERS, BANK_SIZE = 192, (360, 480)


def no_rain(height: int, width: int, rng: np.random.Generator) -> Layer:
    """An empty layer: dry images teach networks to leave dry photos unchanged."""
    return np.zeros((height, width), np.float32)


def made_layers(kind: str, seed: int) -> LayerSource:
    """Fresh layers for the ranges of Table 1; for other kinds, crops of a bank painted once.

    Zoom and gain would widen Table 1's exact ranges ("small" streaks of 31 pixels into 22 to 47),
    so these three are painted anew for every crop. For our own kinds, painting whole layers once
    and varying crops of them costs a hundredth of painting each crop.

    Args:
        kind: A key of `RAIN_KINDS`.
        seed: Of the bank.
    """
    if kind in TABLE_1:
        return RAIN_KINDS[kind]
    bank = _painted_bank(kind, seed)
    return lambda height, width, rng: _piece(bank, height, width, rng)


@lru_cache(maxsize=8)
def _painted_bank(kind: str, seed: int) -> tuple[Pixels, ...]:
    layers = (
        RAIN_KINDS[kind](*BANK_SIZE, np.random.default_rng([seed, index]))
        for index in range(BANK_LAYERS)
    )
    return tuple((layer * 255).astype(np.uint8) for layer in layers)


def streak_layers(folder: Path, cache: ImageCache) -> LayerSource:
    """Crops of the grey rain layers in a folder, one to four added up: drizzle to downpour.

    Raises:
        DatasetError: No images there.
    """
    paths = list_images(folder)
    if not paths:
        raise DatasetError(f"no rain layers in {str(folder)!r}")

    def overlaid(height: int, width: int, rng: np.random.Generator) -> Layer:
        chosen = rng.integers(len(paths), size=int(rng.integers(1, 5)))
        pieces = [_piece([cache.pixels(paths[i])[..., 0]], height, width, rng) for i in chosen]
        return np.asarray(np.minimum(np.sum(pieces, axis=0), 1), np.float32)

    return overlaid


def pair_layers(pairs: Sequence[Pair], cache: ImageCache) -> LayerSource:
    """Crops of the rain in given pairs: rainy - clean, in the channel that clips least."""

    def cut(height: int, width: int, rng: np.random.Generator) -> Layer:
        pair = pairs[int(rng.integers(len(pairs)))]
        bank = cache.keep(("rain", pair), lambda: (_rain_of(pair, cache),))
        return _piece(bank, height, width, rng)

    return cut


def _rain_of(pair: Pair, cache: ImageCache) -> Pixels:
    rainy, clean = cache.pair(pair)
    rain = rainy.astype(np.int16) - clean
    return np.asarray(np.clip(rain, 0, 255).max(axis=2), np.uint8)


def _piece(bank: Sequence[Pixels], height: int, width: int, rng: np.random.Generator) -> Layer:
    layer = bank[int(rng.integers(len(bank)))]
    return vary_layer(layer.astype(np.float32) / np.float32(255), height, width, rng)
