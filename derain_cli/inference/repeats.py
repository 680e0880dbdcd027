"""An image several times through a network: pass after pass, or in eight orientations."""

from collections.abc import Callable

import torch
from torch import Tensor

# Quarter turns, and whether the image is mirrored as well: the eight ways to lay a square.
ORIENTATIONS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))


def repeated(derain: Callable[[Tensor], Tensor], rainy: Tensor, passes: int, tta: bool) -> Tensor:
    """The derained images after several passes, averaged over orientations.

    Args:
        derain: One pass: `(batch, 3, height, width)` in 0..1 to the same.
        rainy: What the first pass is given.
        passes: Each pass is given the result of the one before.
        tta: Test-time augmentation: all passes in each of `ORIENTATIONS`, turned back and averaged.
            Networks are not symmetric, so the errors of the eight results differ and partly cancel.

    Example:
        >>> rainy = torch.rand(1, 3, 4, 6)
        >>> torch.allclose(repeated(lambda x: x / 2, rainy, passes=2, tta=True), rainy / 4)
        True
    """
    orientations = ORIENTATIONS if tta else ORIENTATIONS[:1]
    total = torch.zeros_like(rainy, dtype=torch.float32)
    for turns, mirrored in orientations:
        derained = _laid(rainy, turns, mirrored)
        for _ in range(passes):
            derained = derain(derained)
        total += _upright(derained, turns, mirrored)
    return total / len(orientations)


def _laid(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    turned = torch.rot90(images, turns, dims=(-2, -1))
    return turned.flip(-1) if mirrored else turned


def _upright(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    unmirrored = images.flip(-1) if mirrored else images
    return torch.rot90(unmirrored, -turns, dims=(-2, -1))
