"""Training samples from scenes: photos under any rain, with structures, mist and a camera."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.layouts import Pair
from derain_cli.rain.scenes import Scene
from derain_cli.training.data.samples import (
    Clean,
    middle_of,
    part_of,
    require_room,
    require_two,
    size_of,
    window_of,
)

Pixels = NDArray[np.uint8]
FARTHEST = 4.0
"""A crop is cut from at most this many times its side, and made smaller: phone photos are large."""


@dataclass(frozen=True)
class SceneSource:
    """Scenes made on the fly of clean images.

    Attributes:
        name: The kind, as in `rain.scenes`.
    """

    name: str
    weight: float
    training: Sequence[Clean]
    held_out: Sequence[Clean]
    scene: Scene
    cache: ImageCache = field(default_factory=ImageCache, compare=False)

    def sample(self, crop: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """A random place of a random clean image, near or far, as a scene."""
        photo = self._pixels(self.training[int(rng.integers(len(self.training)))])
        room = min(FARTHEST, min(photo.shape[:2]) / crop)
        # Half of the crops as they are; of large photos most are made smaller.
        far = max(1.0, float(np.exp(rng.uniform(-1, 1) * np.log(room)))) if room > 1 else 1.0
        side = min(round(crop * far), *photo.shape[:2])
        piece = photo[window_of(photo, side, rng, self.name)]
        if side != crop:
            piece = np.asarray(cv2.resize(piece, (crop, crop), interpolation=cv2.INTER_AREA))
        return self.scene(piece, rng)

    def _pixels(self, clean: Clean) -> Pixels:
        return self.cache.pair(clean)[1] if isinstance(clean, Pair) else self.cache.pixels(clean)

    def validation(self) -> list[tuple[Pixels, Pixels]]:
        """The held-out images, each as a scene that never changes."""
        rng = np.random.default_rng(0)
        return [self.scene(middle_of(self._pixels(clean)), rng) for clean in self.held_out]

    def whole(self, rng: np.random.Generator) -> Pixels:
        """A whole clean training image as a rainy scene."""
        clean = self._pixels(self.training[int(rng.integers(len(self.training)))])
        return self.scene(clean, rng)[0]

    def check(self, crop: int) -> None:
        """Look at the header of every image.

        Raises:
            DatasetError: The first that cannot be read or is too small.
        """
        for clean in (*self.training, *self.held_out):
            width, height = size_of(clean)
            require_room(
                str(clean.rainy if isinstance(clean, Pair) else clean), height, width, crop
            )

    @property
    def training_count(self) -> int:
        """Clean images to make scenes of."""
        return len(self.training)

    @property
    def held_out_count(self) -> int:
        """Clean images kept for validation."""
        return len(self.held_out)

    def half(self, which: int) -> Self:
        """Every other clean image.

        Raises:
            DatasetError: Nothing is left to make scenes of.
        """
        images = self.training[which::2]
        require_two(self.name, images)
        return replace(self, training=images)

    def part(self, share: float, seed: int) -> Self:
        """The source with a share of its clean images, chosen by the seed; one at least."""
        return replace(self, training=part_of(self.training, share, seed))
