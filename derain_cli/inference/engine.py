"""What runs a network: torch itself, or another program that was given the network's graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Tileable(Protocol):
    """What cutting an image into tiles needs to know of a network; `ModelEntry` says it."""

    @property
    def padding_multiple(self) -> int:
        """Sides of tiles, and where they begin, are multiples of this."""

    @property
    def tile_overlap(self) -> int:
        """Pixels by which neighbouring tiles overlap by default."""

    @property
    def not_tile_exact(self) -> str:
        """Why tiles cannot equal the whole image, if they cannot."""


class Engine(ABC):
    """A network made ready to run.

    Attributes:
        name: "torch", "openvino" or "onnx".
        device: Where it runs, as torch spells it.
        precision: "fp32", "bf16" or "fp16".
        ahead: Tiles that are begun before the result of an earlier one is waited for.
    """

    name: str
    device: str
    precision: str
    ahead: int = 0

    @abstractmethod
    def derain(self, rainy: Array, precision: str, context_mean: Array | None = None) -> Array:
        """The network's float32 result, `(batch, 3, height, width)`, which may be written to.

        Args:
            rainy: The same shape in 0..1, sides multiples of the padding multiple.
            precision: The engine's own, or fp32.
            context_mean: Of the image of which `rainy` is a tile, for networks with a context.
        """

    def begin(
        self, rainy: Array, precision: str, context_mean: Array | None = None
    ) -> Callable[[], Array]:
        """Begin what `derain` does, where another device can work meanwhile; returns what waits."""
        return partial(self.derain, rainy, precision, context_mean)

    @abstractmethod
    def context(self, rainy: Array) -> Array | None:
        """What the network averages over a whole image; None if it averages nothing."""

    def release(self) -> None:  # noqa: B027 (most engines keep nothing of their own)
        """Give back memory that is kept for the next image, where the engine keeps some."""

    @abstractmethod
    def bytes_per_pixel(self) -> float:
        """Bytes of float32 tensors that the network holds at once, per pixel of the image."""
