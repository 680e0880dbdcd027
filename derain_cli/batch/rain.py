"""How much rain was taken out of an image, measured on the image and its result."""

from dataclasses import dataclass

import numpy as np

# A channel that changes by more than this many 8-bit levels shows; less is the network's own noise.
VISIBLE = 6
# Images with a smaller changed share count as dry. With nimbus-real, 181 of 200 dry photos of BSDS
# lie below it and 7 of 147 real rainy ones (`python -m tests.benchmarks.dry_or_rainy`).
DRY_SHARE = 0.002
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Rain:
    """What a network changed.

    Attributes:
        share: Share of the pixels, 0..1, of which a channel changed by more than `VISIBLE` levels.
        mean: Mean absolute change of all channels, in 8-bit levels.
    """

    share: float
    mean: float

    @property
    def is_dry(self) -> bool:
        """Whether so little changed that the image can be called dry."""
        return self.share < DRY_SHARE

    def in_words(self) -> str:
        """For people.

        Example:
            >>> Rain(0.0004, 0.1).in_words(), Rain(0.123, 2.0).in_words()
            ('little rain found (0.04 %)', 'rain in 12.3 % of the image')
        """
        if self.is_dry:
            return f"little rain found ({100 * self.share:.2g} %)"
        return f"rain in {100 * self.share:.3g} % of the image"


def measure_rain(rainy: np.ndarray, derained: np.ndarray, strength: float = 1.0) -> Rain:
    """What a network changes in an image, told from its result.

    Args:
        rainy: `(height, width, 3)` uint8 or uint16.
        derained: The same shape and type.
        strength: Share of the change that the result shows, above 0 to 1. Whole levels tell less
            of a small one: below 0.1, changes of up to half a level divided by it are missed.
    """
    import cv2  # noqa: PLC0415 (planning does without)

    level = np.iinfo(rainy.dtype).max / 255
    changed, total = 0, 0.0
    for top in range(0, len(rainy), ROWS_AT_ONCE):  # a difference of 100 megapixels is 300 MB
        rows = slice(top, top + ROWS_AT_ONCE)
        difference = cv2.absdiff(
            np.ascontiguousarray(rainy[rows]), np.ascontiguousarray(derained[rows])
        )
        total += float(difference.sum(dtype=np.float64))
        changed += int((difference.max(axis=2) > VISIBLE * level * strength).sum())
    pixels = rainy.shape[0] * rainy.shape[1]
    return Rain(changed / pixels, total / (3 * pixels * level * strength))
