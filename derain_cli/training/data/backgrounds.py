"""Which photo an image shows: a photo held out of training in one folder is held out of all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from derain_cli.datasets.fingerprints import SAME_PHOTO, Thumbnail, thumbnail
from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.layouts import Pair
from derain_cli.training.data.samples import Clean

Item = TypeVar("Item", bound=Clean)


@dataclass
class HeldOutPhotos:
    """The photos that were held out so far, known by their thumbnails.

    The same photo lies in several data sets: validation on a held-out file flatters a network that
    has met its background elsewhere.
    """

    cache: ImageCache
    _thumbnails: list[Thumbnail] = field(default_factory=list)

    def add(self, items: Sequence[Clean]) -> None:
        """Count these as held out, in whatever folder they are met."""
        self._thumbnails += [self._thumbnail(item) for item in items]

    def without(self, items: Sequence[Item]) -> list[Item]:
        """The items whose photo was not held out anywhere, in their order."""
        if not self._thumbnails:
            return list(items)
        held_out = np.stack(self._thumbnails)
        return [item for item in items if (held_out @ self._thumbnail(item)).max() <= SAME_PHOTO]

    def _thumbnail(self, item: Clean) -> Thumbnail:
        clean = self.cache.pair(item)[1] if isinstance(item, Pair) else self.cache.pixels(item)
        return thumbnail(clean)
