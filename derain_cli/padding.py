"""Make any picture size a multiple of what a network's down-sampling needs."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int, smallest: int = 1) -> Tensor:
    """Image grown at the bottom and right by mirrored pixels; cut the result with `[..., :h, :w]`.

    Args:
        image: `(batch, channels, height, width)`, any range.
        multiple: Height and width of the result are multiples of this number.
        smallest: Height and width of the result are at least this number.

    A side too short to be mirrored (1 pixel has no mirror) is continued with its last pixel.

    Example:
        >>> import torch
        >>> pad_to_multiple(torch.zeros(1, 3, 5, 9), 4).shape
        torch.Size([1, 3, 8, 12])
    """
    height, width = image.shape[-2:]
    bottom = max(round_up(height, multiple), smallest) - height
    right = max(round_up(width, multiple), smallest) - width
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
