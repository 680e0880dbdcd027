"""How complex images are: multi-scale structural complexity.

Papers: A. A. Bagrov et al., "Multiscale structural complexity of natural patterns", PNAS 2020, as
used by J. Gu, X. Ma, X. Kong, Y. Qiao, C. Dong, "Networks are Slacking Off: Understanding
Generalization Problem in Image Deraining", NeurIPS 2023 (section 3.1, Fig. 6 b) to order sets of
background images: when the backgrounds are less complex than the rain, a network learns them
instead of one kind of rain.

How the paper's symbols map to this file:

===================  ==============================================================================
paper                here
===================  ==============================================================================
s_k                  the image after k times averaging blocks of 2x2 pixels, at its full size
O_{k,l}              overlap of two scales: the mean of s_k s_l over pixels (and colour channels)
C_k                  `scale_complexities(image)[k - 1]`
C                    `structural_complexity(image)`, the sum of all C_k
===================  ==============================================================================

C_k = | O_{k,k-1} - (O_{k,k} + O_{k-1,k-1}) / 2 | is half the mean square of s_k - s_{k-1}, which is
how it is computed: never negative and without differences of nearly equal numbers. Block averages
make the terms add up, so C is half the variance of the image within its largest block: contrast
counts, and noise counts as much as anything else of its contrast. What tells noise from structure
is where the complexity sits: noise has three quarters of it in C_1, photos have most of it in the
coarse scales. Compare sets of images of one size only.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from derain_cli.errors import NothingToDoError, UsageError


def structural_complexity(image: np.ndarray) -> float:
    """Complexity C of an image, 0 when it is constant; at most 1/8.

    Args:
        image: `(height, width)` or `(height, width, channels)`; integers over their type's whole
            range, or floats in 0..1.

    Raises:
        UsageError: The array is no image.

    Example:
        >>> structural_complexity(np.array([[0.0, 1.0], [1.0, 0.0]]))
        0.125
    """
    return float(sum(scale_complexities(image)))


def mean_complexity(images: Iterable[np.ndarray]) -> float:
    """Mean complexity of a set of images, which should have one size.

    Raises:
        NothingToDoError: The set is empty.
        UsageError: An array is no image.

    Example:
        >>> flat, checks = np.zeros((2, 2)), np.eye(2)
        >>> mean_complexity([flat, checks])
        0.0625
    """
    complexities = [structural_complexity(image) for image in images]
    if not complexities:
        raise NothingToDoError("no images to take the mean complexity of; name at least one")
    return float(np.mean(complexities))


def scale_complexities(image: np.ndarray) -> tuple[float, ...]:
    """C_1, C_2, ...: what each halving of the size takes away, finest detail first.

    An odd last row or column is left out of its scale and of all coarser ones. The scales end when
    the shorter side is one block: an image one pixel wide has none.

    Args:
        image: See `structural_complexity`.

    Raises:
        UsageError: The array is no image.

    Example:
        >>> scale_complexities(np.kron(np.eye(2), np.ones((2, 2))))
        (0.0, 0.125)
    """
    pixels = _as_fractions(image)
    complexities = []
    while min(pixels.shape[:2]) > 1:
        height, width, channels = pixels.shape[0] // 2, pixels.shape[1] // 2, pixels.shape[2]
        blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, channels)
        averages = blocks.mean(axis=(1, 3), keepdims=True)
        complexities.append(float(np.mean((averages - blocks) ** 2)) / 2)
        pixels = averages.reshape(height, width, channels)
    return tuple(complexities)


def _as_fractions(image: np.ndarray) -> NDArray[np.float64]:
    """Image `(height, width, channels)` in 0..1, float64."""
    if image.ndim not in (2, 3) or image.size == 0:
        raise UsageError(
            f"an image is (height, width) or (height, width, channels), not {image.shape}"
        )
    if np.issubdtype(image.dtype, np.integer):
        scale = float(np.iinfo(image.dtype).max)
    elif np.issubdtype(image.dtype, np.floating):
        scale = 1.0
    else:
        raise UsageError(f"pixels are integers or floats, not {image.dtype}")
    return image.reshape(*image.shape[:2], -1).astype(np.float64) / scale
