"""Sizes: pad images to a network's multiple, and build the pyramids of smaller ones."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def gaussian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """The image and its `levels` halvings G_0 ... G_levels: blurred, every second pixel kept.

    Blur with (1, 4, 6, 4, 1) / 16 along both axes, borders mirrored; sides are halved upwards.

    Args:
        image: `(batch, channels, height, width)`, at least 3x3 at the last level but one.
        levels: How many halvings.

    Example:
        >>> [tuple(level.shape) for level in gaussian_pyramid(torch.zeros(1, 3, 9, 6), 2)]
        [(1, 3, 9, 6), (1, 3, 5, 3), (1, 3, 3, 2)]
    """
    with torch.autocast(image.device.type, enabled=False):
        result = [image if image.dtype == torch.float64 else image.float()]
        for _ in range(levels):
            result.append(_blur(result[-1], gain=1.0)[..., ::2, ::2])
    return result


def laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Bands L_j = G_j - double_size(G_j+1), j < levels, then the low-pass rest G_levels.

    Adding them up again from the last, each doubled in size, gives the image back.

    Args:
        image: `(batch, channels, height, width)`, at least 3x3 at the last level but one.
        levels: How many halvings.

    Example:
        >>> band, rest = laplacian_pyramid(torch.ones(1, 1, 4, 4), 1)
        >>> band.abs().max(), rest.mean()
        (tensor(0.), tensor(1.))
    """
    gaussian = gaussian_pyramid(image, levels)
    bands = [
        fine - double_size(coarse, fine.shape[-2], fine.shape[-1])
        for fine, coarse in pairwise(gaussian)
    ]
    return [*bands, gaussian[-1]]


def double_size(coarse: Tensor, height: int, width: int) -> Tensor:
    """The next finer level as the coarser tells it: its pixels set apart by zeros, then blurred.

    Pixel i of the coarser level lies on pixel 2 i of the finer, where halving took it from (the
    bilinear resize of images would put it half a pixel farther on).

    Args:
        coarse: `(batch, channels, ceil(height / 2), ceil(width / 2))`.
        height: Of the result, 3 or more.
        width: Of the result, 3 or more.

    Example:
        >>> double_size(torch.tensor([[[[0.0, 2.0, 4.0]]]]).expand(1, 1, 2, 3), 3, 5)[0, 0, 1]
        tensor([0.5000, 1.0000, 2.0000, 3.0000, 3.5000])
    """
    with torch.autocast(coarse.device.type, enabled=False):
        spread = coarse.new_zeros(*coarse.shape[:2], height, width)
        spread[..., ::2, ::2] = coarse
        return _blur(spread, gain=2.0)


def full_size(image: Tensor, levels: int) -> list[Tensor]:
    """The image itself in place of every level: wang2022 constrains with it in Table 3, R4.

    Args:
        image: `(batch, channels, height, width)`.
        levels: How many copies to add.

    Example:
        >>> len(full_size(torch.zeros(1, 3, 4, 4), 2))
        3
    """
    return [image] * (levels + 1)


PYRAMIDS: Mapping[str, Callable[[Tensor, int], list[Tensor]]] = {
    "gaussian": gaussian_pyramid,
    "laplacian": laplacian_pyramid,
    "full": full_size,
}


def _blur(image: Tensor, gain: float) -> Tensor:
    """Same size, blurred along each axis by the five taps times `gain`, borders mirrored."""
    channels = image.shape[1]
    taps = gain * _taps(image.dtype, image.device)
    rows = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    blurred = F.conv2d(padded, rows, groups=channels)
    return F.conv2d(blurred, rows.transpose(2, 3), groups=channels)


@lru_cache(maxsize=8)
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept for later calls: one made under inference_mode could not be used by a training step.
    with torch.inference_mode(mode=False):
        return torch.tensor(TAPS, dtype=dtype, device=device)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Image grown at the bottom and right by mirrored pixels; cut the result with `[..., :h, :w]`.

    Args:
        image: `(batch, channels, height, width)`, any range.
        multiple: Height and width of the result are multiples of this number.

    A side too short to be mirrored (1 pixel has no mirror) is continued with its last pixel.

    Example:
        >>> import torch
        >>> pad_to_multiple(torch.zeros(1, 3, 5, 9), 4).shape
        torch.Size([1, 3, 8, 12])
    """
    height, width = image.shape[-2:]
    bottom, right = (round_up(side, multiple) - side for side in (height, width))
    return _grow(_grow(image, bottom, vertical=True), right, vertical=False)


def round_up(value: int, multiple: int) -> int:
    """Least multiple that is not below the value."""
    return -(-value // multiple) * multiple


def _grow(image: Tensor, amount: int, *, vertical: bool) -> Tensor:
    if amount == 0:
        return image
    side = image.shape[-2 if vertical else -1]
    padding = (0, 0, 0, amount) if vertical else (0, amount, 0, 0)
    mode = "reflect" if amount < side else "replicate"
    return F.pad(image, padding, mode=mode)
