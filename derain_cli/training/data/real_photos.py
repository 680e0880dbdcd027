"""A folder of rainy photos without a truth, and the pseudo-truth a network gives them.

Photos may be of any size: training takes crops, and whole photos are derained in tiles. The
pseudo-truth lies in files, as floats: a folder of big photos would not fit the memory, and 8-bit
files would round away what small steps change.
"""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.known import plain_folder
from derain_cli.datasets.layouts import Pair, list_images
from derain_cli.errors import ConfigError, DatasetError, ImageError, TrainingError
from derain_cli.images import probe_image
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.whole_files import write_whole

Pixels = NDArray[np.uint8]
Planes = NDArray[np.float32]  # (height, width, 3) in 0..1
Window = tuple[slice, slice]
NAMED = 3


@dataclass(frozen=True)
class RealPhotos:
    """The photos of a folder, in natural order of their names.

    Attributes:
        sizes: (height, width) of each.
        skipped: Photos of the folder that are smaller than a crop.
        pairs: Where these are the rainy images of pairs whose clean ones are not looked at.
    """

    paths: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    skipped: tuple[Path, ...] = ()
    cache: ImageCache = field(default_factory=ImageCache, compare=False)
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, config: FinetuneConfig) -> "RealPhotos":
        """The photos of `--real`, here or below the data root, those smaller than a crop left out.

        Raises:
            ConfigError: No folder was named.
            DatasetError: No such folder, no image in it that is large enough, or one that cannot
                be read.
        """
        if not config.real:
            raise ConfigError("no `real`: name the folder of rainy photos to adapt to")
        folder = plain_folder(config.real, Path(config.data_root))
        if not folder.is_dir():
            raise DatasetError(
                f"no folder of rainy photos {config.real!r}, neither here nor in `data_root`"
            )
        paths = list_images(folder)
        if not paths:
            raise DatasetError(f"no images in {str(folder)!r}; `real` needs rainy photos")
        crop = max(config.crop, config.final_crop)
        sizes = {path: _size(path) for path in paths}
        large = [path for path in paths if min(sizes[path]) >= crop]
        if not large:
            raise DatasetError(f"no photo in {str(folder)!r} is as large as `crop` {crop}")
        skipped = tuple(path for path in paths if min(sizes[path]) < crop)
        cache = ImageCache.of_gibibytes(config.cache)
        return cls(tuple(large), tuple(sizes[path] for path in large), skipped, cache)

    @classmethod
    def of_pairs(cls, pairs: Sequence[Pair], config: FinetuneConfig) -> "RealPhotos":
        """The rainy images of pairs, as photos without ground truth.

        Raises:
            ConfigError: No pairs are left over.
            DatasetError: An image that cannot be read or is smaller than a crop.
        """
        if not pairs:
            raise ConfigError(
                "--real rest needs pairs that --labelled leaves out; lower --labelled"
            )
        crop = max(config.crop, config.final_crop)
        sizes = [_size(pair.rainy, halves=2 if pair.rainy_half else 1) for pair in pairs]
        for pair, (height, width) in zip(pairs, sizes, strict=True):
            if min(height, width) < crop:
                raise DatasetError(
                    f"{str(pair.rainy)!r} is {width}x{height}, smaller than `crop` {crop}; take a "
                    "smaller `crop`, or the pair out"
                )
        paths, cache = tuple(pair.rainy for pair in pairs), ImageCache.of_gibibytes(config.cache)
        return cls(paths, tuple(sizes), cache=cache, pairs=tuple(pairs))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def notice(self) -> str:
        """What to say of the skipped photos; empty if there are none."""
        if not self.skipped:
            return ""
        names = ", ".join(repr(path.name) for path in self.skipped[:NAMED])
        more = f" and {len(self.skipped) - NAMED} more" if len(self.skipped) > NAMED else ""
        count = len(self.paths) + len(self.skipped)
        return f"skipped {len(self.skipped)} of {count} photos smaller than a crop: {names}{more}"

    def window(self, photo: int, crop: int, rng: np.random.Generator) -> Window:
        """A random place of a photo."""
        top, left = (int(rng.integers(side - crop + 1)) for side in self.sizes[photo])
        return slice(top, top + crop), slice(left, left + crop)

    def pixels(self, photo: int) -> Pixels:
        """The whole photo `(height, width, 3)`.

        Raises:
            DatasetError: The file cannot be read.
        """
        if self.pairs:
            return self.cache.pair(self.pairs[photo])[0]
        return self.cache.pixels(self.paths[photo])

    def crop(self, photo: int, window: Window) -> Planes:
        """A part of a photo, in 0..1."""
        return np.asarray(self.pixels(photo)[window].astype(np.float32) / 255, np.float32)


def _size(path: Path, halves: int = 1) -> tuple[int, int]:
    try:
        width, height = probe_image(path)
        width //= halves
    except ImageError as error:
        raise DatasetError(f"{error}; or take it out of `real`") from error
    return height, width


class PseudoTruth:
    """Derained photos of an epoch as floats, in `folder/epoch-0000/0.npy` and so on.

    Attributes:
        epoch: Whose results are read; -1 before there are any.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epoch = -1

    def crop(self, photo: int, window: Window) -> Planes:
        """A part of a derained photo."""
        return np.array(self._open(photo, self.epoch)[window])

    def whole(self, photo: int) -> Planes | None:
        """A derained photo; None before there are any."""
        return None if self.epoch < 0 else np.array(self._open(photo, self.epoch))

    def write(self, photo: int, epoch: int, derained: Planes) -> None:
        """Put a photo's result of an epoch beside the present ones.

        Raises:
            ResourceError: No space or no permission.
        """
        buffer = io.BytesIO()
        np.save(buffer, derained)
        path = self._path(photo, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getbuffer())

    def forget_all_but(self, *epochs: int) -> None:
        """Delete the results of other epochs."""
        kept = {self._path(0, epoch).parent for epoch in epochs}
        for folder in set(self.folder.glob("epoch-*")) - kept:
            shutil.rmtree(folder)

    def _open(self, photo: int, epoch: int) -> Planes:
        path = self._path(photo, epoch)
        try:
            opened: Planes = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"pseudo-truth {str(path)!r} is gone or damaged; start a new run with `out`"
            ) from error
        return opened

    def _path(self, photo: int, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04}" / f"{photo}.npy"
