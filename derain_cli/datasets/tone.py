"""Pairs whose two images differ in tone: no network can be right about them.

Rain adds light. Where the rainy image is darker than the clean one in many places, the two were
made from different versions of a photo: brightened, recompressed or colour-corrected. Of the 670
training pairs of Rain800 that were looked at, 125 are so, and 41 of its 100 test images; a network
that removes the rain and leaves the tone loses 2 to 3 dB on them.
"""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

DARKER_BY = 3  # levels of 8 bits
LARGEST_SHARE = 0.35

SAME_TONE, OTHER_TONE = "same tone", "other tone"


def darker_share(rainy: Pixels, clean: Pixels) -> float:
    """Share of the pixels in which the rainy image is more than three levels darker.

    Args:
        rainy: `(height, width, 3)`.
        clean: Of the same shape.

    Example:
        >>> gray = np.full((2, 2, 3), 100, np.uint8)
        >>> darker_share(gray - np.uint8(4), gray), darker_share(gray - np.uint8(3), gray)
        (1.0, 0.0)
    """
    sums = (image.sum(axis=2, dtype=np.int32) for image in (clean, rainy))
    clean_sum, rainy_sum = sums
    return float(np.mean(clean_sum - rainy_sum > 3 * DARKER_BY))


def differs_in_tone(rainy: Pixels, clean: Pixels) -> bool:
    """Whether the rainy image is darker in so many places that its ground truth is another."""
    return darker_share(rainy, clean) > LARGEST_SHARE
