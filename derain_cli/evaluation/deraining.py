"""Derainers as an evaluation runs them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from derain_cli.inference.derainer import Derainer

Pixels = NDArray[np.uint8]


class EvaluatedModel:
    """A derainer under the name it was asked for by, at a strength.

    Attributes:
        name: In rows and tables.
        derainer: What runs it.
    """

    def __init__(self, derainer: Derainer, name: str, strength: float = 1.0) -> None:
        self.name, self.derainer, self._strength = name, derainer, strength

    def __call__(self, rainy: Pixels) -> Pixels:
        """Derained 8-bit image."""
        return self.derainer(rainy, strength=self._strength)

    def derain_together(self, rainy: Sequence[Pixels]) -> list[Pixels]:
        """Derained 8-bit images of 8-bit images of one size, in one pass of the network."""
        return self.derainer.run_together(rainy, self._strength)[0]
