"""Make a data set: paint rain on clean images once and write the pairs as files."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache, read_pixels
from derain_cli.datasets.layouts import list_images
from derain_cli.errors import DatasetError, UsageError
from derain_cli.images import Picture, encode_image
from derain_cli.rain.kinds import layer_source
from derain_cli.rain.layers import LayerSource
from derain_cli.rain.painting import RAIN_KINDS, paint
from derain_cli.rain.scenes import build_scene, is_scene
from derain_cli.whole_files import write_whole

SIDES = ("rainy", "clean")

Pixels = NDArray[np.uint8]
Maker = Callable[[Pixels, np.random.Generator], tuple[Pixels, Pixels]]


def synthesize(
    clean_folder: Path,
    out: Path,
    rain: str,
    seed: int,
    data_root: Path = Path(),
    holds: Callable[[str], bool] | None = None,
) -> int:
    """Write `rainy/NAME.png` and `clean/NAME.png` for all images, or none; returns the count.

    Args:
        clean_folder: Clean images.
        out: Folder of the pairs; created if missing.
        rain: Kind of rain, as in `build_sources`.
        seed: 0 or more; the same seed paints the same rain.
        data_root: Where to look for data sets and layers named in `rain` that are not here.
        holds: Whether an image of this name is for this run, one of several that share `out`: each
            file is then written by itself, and replaces one of an earlier run.

    Raises:
        ConfigError: An unknown kind of rain.
        DatasetError: No clean images, two of one name, or one that cannot be read.
        UsageError: Pairs that exist already, or that would replace the clean images.
        ResourceError: No space or no permission.
    """
    images = list_images(clean_folder)
    if not images:
        raise DatasetError(f"no images in {str(clean_folder)!r}")
    _refuse_one_name(images)
    _refuse_originals(clean_folder, out)
    make = _maker(rain, data_root)
    mine = [(i, path) for i, path in enumerate(images) if holds is None or holds(path.name)]
    with _all_or_none(out) if holds is None else _shared(out) as folder:
        for index, path in mine:
            both = make(read_pixels(path), np.random.default_rng([seed, index]))
            for side, pixels in zip(SIDES, both, strict=True):
                write_whole(folder / side / f"{path.stem}.png", encode_image(Picture(pixels)))
    return len(mine)


def _refuse_one_name(images: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in images:
        other = seen.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise DatasetError(
                f"{other.name!r} and {path.name!r} would both become '{path.stem}.png': rename one"
            )


def _refuse_originals(clean_folder: Path, out: Path) -> None:
    for side in SIDES:
        if (out / side).resolve() == clean_folder.resolve():
            raise UsageError(
                f"the pairs would replace the images of {str(clean_folder)!r}: name another `out`"
            )


def _maker(rain: str, data_root: Path) -> Maker:
    """Function that makes a rainy and a clean image of a photo."""
    if is_scene(rain):
        return build_scene(rain, data_root, held_out=0, seed=0)
    layer = _fresh_layers(rain, data_root)
    return lambda clean, rng: (paint(clean, layer(clean.shape[0], clean.shape[1], rng)), clean)


def _fresh_layers(rain: str, data_root: Path) -> LayerSource:
    """Whole layers painted anew for each image, or pieces of a folder's layers."""
    if rain in RAIN_KINDS:
        return RAIN_KINDS[rain]
    return layer_source(rain, data_root, 0, 0, ImageCache())


@contextlib.contextmanager
def _shared(out: Path) -> Iterator[Path]:
    """The folder itself, with both sides."""
    for side in SIDES:
        (out / side).mkdir(parents=True, exist_ok=True)
    yield out


@contextlib.contextmanager
def _all_or_none(out: Path) -> Iterator[Path]:
    """A temporary folder whose two sides move to `out` once everything is written."""
    for side in SIDES:
        if (out / side).is_dir() and any((out / side).iterdir()):
            raise UsageError(f"{str(out / side)!r} is not empty; name another `out`")
    made = not out.is_dir()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".derain-", dir=out) as folder:
            for side in SIDES:
                (Path(folder) / side).mkdir()
            yield Path(folder)
            for side in SIDES:
                with contextlib.suppress(FileNotFoundError):
                    (out / side).rmdir()
                (Path(folder) / side).rename(out / side)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise
