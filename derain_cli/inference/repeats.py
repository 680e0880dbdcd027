"""An image several times through a network: pass after pass, or in eight orientations."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float32]

# Quarter turns, and whether the image is mirrored as well: the eight ways to lay a square.
ORIENTATIONS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))


def repeated(derain: Callable[[Levels], Levels], rainy: Levels, passes: int, tta: bool) -> Levels:
    """The derained images after several passes, averaged over orientations.

    Args:
        derain: One pass: `(batch, 3, height, width)` in 0..1 to the same.
        rainy: What the first pass is given.
        passes: Each pass is given the result of the one before.
        tta: Test-time augmentation: all passes in each of `ORIENTATIONS`, turned back and averaged.
            Networks are not symmetric, so the errors of the eight results differ and partly cancel.

    Example:
        >>> rainy = np.random.default_rng(0).random((1, 3, 4, 6), np.float32)
        >>> np.allclose(repeated(lambda x: x / 2, rainy, passes=2, tta=True), rainy / 4)
        True
    """
    orientations = ORIENTATIONS if tta else ORIENTATIONS[:1]
    total = np.zeros_like(rainy, np.float32)
    for turns, mirrored in orientations:
        derained = _laid(rainy, turns, mirrored)
        for _ in range(passes):
            derained = derain(derained)
        total += _upright(derained, turns, mirrored)
    total /= len(orientations)
    return total


def _laid(images: Levels, turns: int, mirrored: bool) -> Levels:
    turned = np.rot90(images, turns, axes=(-2, -1))
    return turned[..., ::-1] if mirrored else turned


def _upright(images: Levels, turns: int, mirrored: bool) -> Levels:
    unmirrored = images[..., ::-1] if mirrored else images
    return np.rot90(unmirrored, -turns, axes=(-2, -1))
