"""Training samples: given pairs, or rain painted on the fly; crops, mixing and batch order.

A batch is a pure function of (seed, step): sample number i of step s draws everything it needs
from `numpy.random.default_rng([seed, s, i])`. Resuming replays nothing, and N processes that take
their slice of the batch see what one process would.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import DatasetError, ImageError
from derain_cli.images import probe_image
from derain_cli.rain.layers import LayerSource
from derain_cli.rain.painting import paint

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")
Window = tuple[slice, slice]
# A clean image: a whole file, or the clean half of a pair that lies side by side in one.
Clean = Path | Pair
# The fifth paper's backgrounds are patches of this size (section 2.1, E.2).
BACKGROUND_SIDE = 128
# A seed's second number where it must not be a step's: backgrounds are drawn once for all.
BACKGROUNDS = 5_128_128


VALIDATION_SIDE = 512
"""Scenes and painted rain are validated on at most the middle of this side of a photo."""


class Source(Protocol):
    """Something that yields training samples and whole validation pairs."""

    @property
    def name(self) -> str:
        """What its scores are called."""

    @property
    def weight(self) -> float:
        """Its share of the samples, relative to the other sources'."""

    def sample(self, crop: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Rainy and clean `(crop, crop, 3)`, decided by `rng` alone."""

    def validation(self) -> list[tuple[Pixels, Pixels]]:
        """Held-out whole images, rainy and clean."""

    def whole(self, rng: np.random.Generator) -> Pixels:
        """A whole rainy training image (for batch-norm statistics)."""

    def check(self, crop: int) -> None:
        """Refuse unreadable, unequal and too small images, from their headers."""

    @property
    def training_count(self) -> int:
        """How many images there are to learn from."""

    @property
    def held_out_count(self) -> int:
        """How many images are kept for validation."""

    def half(self, which: int) -> Self:
        """The source with every other of its clean images, from number `which` (0 or 1) on.

        Both halves keep the validation images.

        Raises:
            DatasetError: Nothing is left to learn from.
        """

    def part(self, share: float, seed: int) -> Self:
        """The source with a share of its training images, chosen by the seed; one at least."""


@dataclass(frozen=True)
class PairSource:
    """Given pairs.

    Attributes:
        ten_crops: Corners and middle, each also mirrored (MENET), instead of random places.
    """

    name: str
    weight: float
    training: Sequence[Pair]
    held_out: Sequence[Pair]
    ten_crops: bool = False
    cache: ImageCache = field(default_factory=ImageCache, compare=False)

    def sample(self, crop: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """The same place of both images of a random pair."""
        rainy, clean = self.cache.pair(self.training[int(rng.integers(len(self.training)))])
        if not self.ten_crops:
            window = window_of(rainy, crop, rng, self.name)
            return rainy[window], clean[window]
        window = _one_of_five(rainy, crop, rng, self.name)
        direction = 1 if rng.random() < 0.5 else -1
        return rainy[window][:, ::direction], clean[window][:, ::direction]

    def validation(self) -> list[tuple[Pixels, Pixels]]:
        """The held-out pairs."""
        return [self.cache.pair(pair) for pair in self.held_out]

    def whole(self, rng: np.random.Generator) -> Pixels:
        """A random rainy image."""
        return self.cache.pair(self.training[int(rng.integers(len(self.training)))])[0]

    def check(self, crop: int) -> None:
        """Look at the header of every image.

        Raises:
            DatasetError: The first that cannot be read, is too small or differs from its partner.
        """
        for pair in (*self.training, *self.held_out):
            width, height = size_of(pair if pair.rainy_half else pair.rainy)
            if not pair.rainy_half and (width, height) != (other := size_of(pair.clean)):
                raise DatasetError(
                    f"pair {pair.name!r}: {str(pair.rainy)!r} is {width}x{height}, "
                    f"{str(pair.clean)!r} is {other[0]}x{other[1]}; a pair must have one size"
                )
            require_room(str(pair.rainy), height, width, crop)

    @property
    def training_count(self) -> int:
        """Pairs to learn from."""
        return len(self.training)

    @property
    def held_out_count(self) -> int:
        """Pairs kept for validation."""
        return len(self.held_out)

    def half(self, which: int) -> Self:
        """The pairs of every other clean image: pairs that share one stay together.

        Raises:
            DatasetError: Nothing is left to learn from.
        """
        cleans = set(sorted({pair.clean for pair in self.training})[which::2])
        require_two(self.name, cleans)
        return replace(self, training=[pair for pair in self.training if pair.clean in cleans])

    def part(self, share: float, seed: int) -> Self:
        """The source with a share of its pairs, chosen by the seed; one at least."""
        return replace(self, training=part_of(self.training, share, seed))


@dataclass(frozen=True)
class Background:
    """A patch of `BACKGROUND_SIDE` pixels of a clean image."""

    path: Clean
    top: int
    left: int


@dataclass(frozen=True)
class PaintedSource:
    """Rain painted on the fly onto clean images, or onto a few patches of them.

    Attributes:
        backgrounds: The only patches to paint on; without any, all of all images.
    """

    name: str
    weight: float
    training: Sequence[Clean]
    held_out: Sequence[Clean]
    layer: LayerSource
    backgrounds: Sequence[Background] = ()
    cache: ImageCache = field(default_factory=ImageCache, compare=False)

    def sample(self, crop: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """A random place of a random clean image, and the same with fresh rain."""
        clean = self._background(rng)
        clean = clean[window_of(clean, crop, rng, self.name)]
        return paint(clean, self.layer(crop, crop, rng)), clean

    def _background(self, rng: np.random.Generator) -> Pixels:
        if not self.backgrounds:
            return self._pixels(self.training[int(rng.integers(len(self.training)))])
        patch = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        rows = slice(patch.top, patch.top + BACKGROUND_SIDE)
        return self._pixels(patch.path)[rows, patch.left : patch.left + BACKGROUND_SIDE]

    def _pixels(self, clean: Clean) -> Pixels:
        return self.cache.pair(clean)[1] if isinstance(clean, Pair) else self.cache.pixels(clean)

    def validation(self) -> list[tuple[Pixels, Pixels]]:
        """The held-out images, each under rain that never changes."""
        rng = np.random.default_rng(0)
        images = [middle_of(self._pixels(clean)) for clean in self.held_out]
        return [
            (paint(clean, self.layer(clean.shape[0], clean.shape[1], rng)), clean)
            for clean in images
        ]

    def whole(self, rng: np.random.Generator) -> Pixels:
        """A random clean image under fresh rain."""
        clean = self._pixels(self.training[int(rng.integers(len(self.training)))])
        return paint(clean, self.layer(clean.shape[0], clean.shape[1], rng))

    def check(self, crop: int) -> None:
        """Look at the header of every image.

        Raises:
            DatasetError: The first that cannot be read or is too small.
        """
        if self.backgrounds and crop > BACKGROUND_SIDE:
            raise DatasetError(
                f"`backgrounds` are {BACKGROUND_SIDE}x{BACKGROUND_SIDE} patches, smaller than the "
                f"{crop}x{crop} crop; choose a smaller `crop`"
            )
        for clean in (*self.training, *self.held_out):
            width, height = size_of(clean)
            path = clean.clean if isinstance(clean, Pair) else clean
            require_room(str(path), height, width, crop)

    @property
    def training_count(self) -> int:
        """Clean images, or patches of them, to paint on."""
        return len(self.backgrounds or self.training)

    @property
    def held_out_count(self) -> int:
        """Clean images kept for validation."""
        return len(self.held_out)

    def half(self, which: int) -> Self:
        """Every other clean image, and every other patch.

        Raises:
            DatasetError: Nothing is left to paint on.
        """
        images, patches = self.training[which::2], self.backgrounds[which::2]
        require_two(self.name, patches if self.backgrounds else images)
        return replace(self, training=images, backgrounds=patches)

    def part(self, share: float, seed: int) -> Self:
        """The source with a share of what it paints on, chosen by the seed; one at least."""
        training = part_of(self.training, share, seed)
        patches = part_of(self.backgrounds, share, seed)
        return replace(self, training=training, backgrounds=patches)


def require_two(name: str, kept: Collection[Any]) -> None:
    """Refuse a half of the training images in which there is none."""
    if not kept:
        raise DatasetError(
            f"{name!r} has one training image; a search needs two: weights learn on one half, "
            "alphas on the other"
        )


def part_of(items: Sequence[Item], share: float, seed: int) -> Sequence[Item]:
    """A share of the items in their order, chosen by the seed; one at least."""
    if share == 1:
        return items
    count = max(1, round(share * len(items)))
    order = np.random.default_rng([seed, len(items)]).permutation(len(items))
    return [items[index] for index in sorted(order[:count])]


def choose_backgrounds(paths: Sequence[Clean], count: int, seed: int) -> list[Background]:
    """The first `count` of an endless row of clean patches that the seed decides.

    Images take turns, so that few patches are of many images; 8 patches are among the 16.

    Raises:
        DatasetError: No image is large enough.
    """
    sizes = {path: size_of(path) for path in paths}
    large = [path for path in paths if min(sizes[path]) >= BACKGROUND_SIDE]
    if not large:
        raise DatasetError(
            f"no clean image has room for a patch of {BACKGROUND_SIDE}x{BACKGROUND_SIDE} pixels; "
            "give larger ones, or leave `backgrounds` out"
        )
    order = np.random.default_rng([seed, BACKGROUNDS]).permutation(len(large))
    chosen = []
    for index in range(count):
        path = large[int(order[index % len(large)])]
        rng = np.random.default_rng([seed, BACKGROUNDS, index])
        width, height = sizes[path]
        top = int(rng.integers(height - BACKGROUND_SIDE + 1))
        chosen.append(Background(path, top, int(rng.integers(width - BACKGROUND_SIDE + 1))))
    return chosen


def size_of(image: Clean) -> tuple[int, int]:
    """(width, height) from the header; of a half, where a pair lies side by side."""
    path = image.clean if isinstance(image, Pair) else image
    try:
        width, height = probe_image(path)
    except ImageError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(image, Pair):
        return width, height
    if width % 2:
        raise DatasetError(
            f"{str(path)!r} is {width} pixels wide: no two halves; take it out of its folder"
        )
    return width // 2, height


def require_room(image: str, height: int, width: int, crop: int) -> None:
    """Refuse an image that is smaller than a crop."""
    if min(height, width) < crop:
        raise DatasetError(
            f"{image!r} is {width}x{height}, smaller than the {crop}x{crop} crop; "
            "take it out or choose a smaller `crop`"
        )


def middle_of(image: Pixels) -> Pixels:
    """The middle of a large photo: whole ones would take most of a validation's time.

    Example:
        >>> middle_of(np.zeros((2000, 300, 3), np.uint8)).shape
        (512, 300, 3)
    """
    rows, columns = (
        slice(max(0, side - VALIDATION_SIDE) // 2, (side + VALIDATION_SIDE) // 2)
        for side in image.shape[:2]
    )
    return image[rows, columns]


def window_of(pixels: Pixels, crop: int, rng: np.random.Generator, source: str) -> Window:
    """A random square of an image."""
    height, width = pixels.shape[:2]
    require_room(f"an image of {source}", height, width, crop)
    top, left = rng.integers(0, height - crop + 1), rng.integers(0, width - crop + 1)
    return slice(top, top + crop), slice(left, left + crop)


def _one_of_five(pixels: Pixels, crop: int, rng: np.random.Generator, source: str) -> Window:
    """A corner or the middle."""
    height, width = pixels.shape[:2]
    require_room(f"an image of {source}", height, width, crop)
    down, right = height - crop, width - crop
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    top, left = places[int(rng.integers(len(places)))]
    return slice(top, top + crop), slice(left, left + crop)


def draw_batch(
    sources: Sequence[Source],
    seed: int,
    step: int,
    indices: range,
    crop: int,
    *,
    flip: bool,
    rotate: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rainy and clean `(batch, 3, crop, crop)` in 0..1: samples `indices` of one step.

    A pure function of its arguments. Each sample picks its source with the sources' weights.
    """
    rainy, clean = [], []
    for index in indices:
        rng = np.random.default_rng([seed, step, index])
        sample = np.stack(_choose(sources, rng).sample(crop, rng))
        if flip and rng.random() < 0.5:
            sample = sample[:, :, ::-1]
        if rotate:
            sample = np.rot90(sample, int(rng.integers(4)), axes=(1, 2))
        rainy.append(sample[0])
        clean.append(sample[1])
    return to_batch(rainy), to_batch(clean)


def draw_whole(sources: Sequence[Source], rng: np.random.Generator) -> Pixels:
    """A whole rainy training image of one of the sources, chosen with their weights."""
    return _choose(sources, rng).whole(rng)


def _choose(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    weights = np.array([source.weight for source in sources])
    return sources[int(rng.choice(len(sources), p=weights / weights.sum()))]


def to_batch(images: Sequence[Pixels]) -> NDArray[np.float32]:
    """`(batch, 3, height, width)` in 0..1 of equally large `(height, width, 3)` uint8 images."""
    stacked = np.stack(images).astype(np.float32) / 255
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
