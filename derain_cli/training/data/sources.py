"""Where training samples come from: what the options of the command line mean.

The kinds of sources themselves are in `samples`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.known import (
    DATASETS,
    hold_out,
    hold_out_pairs,
    plain_folder,
    refuse_test_set,
    training_pairs,
)
from derain_cli.datasets.layouts import Pair, find_pairs, list_images, match_pairs
from derain_cli.errors import ConfigError, DatasetError, ImageError
from derain_cli.rain.kinds import layer_source, trainable_pairs
from derain_cli.rain.scenes import build_scene, is_scene
from derain_cli.training.data.backgrounds import HeldOutPhotos, Item
from derain_cli.training.data.samples import (
    Background,
    Clean,
    PaintedSource,
    PairSource,
    Source,
    choose_backgrounds,
)
from derain_cli.training.data.scenes import SceneSource


def build_sources(
    *,
    dataset: Sequence[str],
    clean: Sequence[str],
    rain: Sequence[str],
    data_root: Path,
    held_out: int,
    seed: int,
    data: Sequence[str] = (),
    backgrounds: int = 0,
    ten_crops: bool = False,
    hold_out_by: str = "file",
    cache: ImageCache | None = None,
) -> list[Source]:
    """Training sources from what the command line says.

    Args:
        dataset: `NAME_OR_FOLDER[:WEIGHT]` of given pairs.
        clean: `NAME_OR_FOLDER` of clean images for painted rain.
        rain: `KIND[:WEIGHT]`; KIND is small, medium, large, heavy, wide, dense, curtain, slanted,
            coarse, drops, dry, `streaks:FOLDER` (grey rain layers), `mixed:FOLDER`,
            `pairs:NAME_OR_FOLDER` (the rain of given pairs), or a scene (`rain.scenes`).
        data_root: Where named data sets lie.
        held_out: Images per folder that are kept out of training, for validation.
        seed: Of the painted rain and of the backgrounds.
        data: A folder of rainy and one of clean images, matched by name; or nothing.
        backgrounds: Patches of the clean images to paint on; 0 = all of them.
        ten_crops: See `PairSource`.
        hold_out_by: "file", or "photo" to take out of training every image that shows a photo
            which is held out in any of the folders.
        cache: Of decoded images; a new one when left out.

    Raises:
        ConfigError: Nothing to train on, clean images without rain or rain without them, an
            unknown kind of rain, an impossible weight, or backgrounds for none or a scene.
        DatasetError: A test set, an unknown name, a missing folder or one without images, or all
            photos of one held out.
    """
    cache = cache or ImageCache()
    pairs = [
        (name, weight, hold_out_pairs(given, held_out))
        for name, weight, given in _given_pairs(dataset, data, data_root)
    ]
    training, held = _clean_photos(clean, rain, data_root, held_out)
    if hold_out_by == "photo":
        photos = HeldOutPhotos(cache)
        photos.add(held)
        for _, _, (_, held_pairs) in pairs:
            photos.add(held_pairs)
        training = _left(photos, training, "`clean`")
        pairs = [
            (name, weight, (_left(photos, part, repr(name)), held_pairs))
            for name, weight, (part, held_pairs) in pairs
        ]
    sources: list[Source] = [
        PairSource(name, weight, *both, ten_crops, cache) for name, weight, both in pairs
    ]
    # Not all that are held out: each kind of rain is scored over the same few.
    shown = hold_out(held, held_out)[1] or held
    patches = _patches(training, rain, backgrounds, seed)
    for kind, weight in map(split_weight, rain):
        if is_scene(kind):
            scene = build_scene(kind, data_root, held_out, seed, cache)
            sources.append(SceneSource(kind, weight, training, shown, scene, cache))
        else:
            layer = layer_source(kind, data_root, held_out, seed, cache)
            sources.append(PaintedSource(kind, weight, training, shown, layer, patches, cache))
    if not sources:
        raise ConfigError("nothing to train on: give `dataset` NAME, or `clean` FOLDER and `rain`")
    return sources


def _given_pairs(
    dataset: Sequence[str], data: Sequence[str], data_root: Path
) -> list[tuple[str, float, list[Pair]]]:
    """Name, weight and pairs of each."""
    given = [_named_pairs(spec, data_root) for spec in dataset]
    return [*given, _folder_pairs(*data)] if data else given


def _clean_photos(
    clean: Sequence[str], rain: Sequence[str], data_root: Path, held_out: int
) -> tuple[list[Clean], list[Clean]]:
    """The images to paint on: those of training, and those held out of each folder."""
    folders = [hold_out(_clean_images(name, data_root), held_out) for name in clean]
    if rain and not folders:
        raise ConfigError(f"rain {rain[0]!r} needs clean images to fall on: give `clean` FOLDER")
    if folders and not rain:
        raise ConfigError(f"clean images {clean[0]!r} need rain: give `rain` KIND")
    training = [image for left, _ in folders for image in left]
    return training, [image for _, held in folders for image in held]


def _left(photos: HeldOutPhotos, images: Sequence[Item], where: str) -> list[Item]:
    """The images whose photo is not held out; some, where there are any."""
    left = photos.without(images)
    if images and not left:
        raise DatasetError(
            f"{where}: each image shows a photo that is held out; give a smaller `held_out`, or "
            "`hold_out_by` file"
        )
    return left


def _patches(
    training: Sequence[Clean], rain: Sequence[str], count: int, seed: int
) -> list[Background]:
    """The only patches to paint on; none where whole images are painted on."""
    if not count:
        return []
    if not rain:
        raise ConfigError(
            "`backgrounds` are patches of clean images: give `clean` and `rain`, or leave it out"
        )
    scene = next((kind for kind, _ in map(split_weight, rain) if is_scene(kind)), None)
    if scene:
        raise ConfigError(
            f"`backgrounds` are for plain layers of rain, and {scene!r} is a scene of whole "
            "photos; leave one of the two out"
        )
    return choose_backgrounds(training, count, seed)


def split_weight(spec: str) -> tuple[str, float]:
    """Name and weight of `NAME[:WEIGHT]`; the weight is 1 when left out.

    Example:
        >>> split_weight("streaks:layers:1.5"), split_weight("heavy")
        (('streaks:layers', 1.5), ('heavy', 1.0))

    Raises:
        ConfigError: A weight that is not positive.
    """
    name, separator, tail = spec.rpartition(":")
    if not separator or not re.fullmatch(r"[-+]?[0-9.]+", tail):
        return spec, 1.0
    try:
        weight = float(tail)
    except ValueError:
        weight = 0.0
    if weight <= 0:
        raise ConfigError(f"weight of {spec!r} is {tail}; it must be a number above 0")
    return name, weight


def _named_pairs(spec: str, data_root: Path) -> tuple[str, float, list[Pair]]:
    name, weight = split_weight(spec)
    return name, weight, trainable_pairs(name, data_root)


def _folder_pairs(rainy: str, clean: str) -> tuple[str, float, list[Pair]]:
    for folder in (rainy, clean):
        if not Path(folder).is_dir():
            raise DatasetError(f"`data`: no folder {folder!r}")
        refuse_test_set(Path(folder))
        if not list_images(Path(folder)):
            raise DatasetError(f"`data`: no images in {folder!r}")
    return rainy, 1.0, match_pairs(Path(rainy), Path(clean))


def _clean_images(name: str, data_root: Path) -> list[Clean]:
    """A folder of clean images, or the clean side of a training set."""
    folder = plain_folder(name, data_root)
    if folder.parent == data_root and folder.name in DATASETS:
        return _clean_sides(training_pairs(folder.name, data_root))
    if not folder.is_dir():
        raise DatasetError(f"no folder of clean images {name!r}, neither here nor in `data_root`")
    refuse_test_set(folder)
    images = list_images(folder)
    if not images:
        inside = ", ".join(repr(str(path)) for path in sorted(folder.iterdir()) if path.is_dir())
        hint = f"itself; name one of {inside}" if inside else "to paint rain on"
        raise DatasetError(f"`clean`: no images in {str(folder)!r} {hint}")
    return _clean_sides(_side_by_side(folder, images)) or [*images]


def _clean_sides(pairs: Sequence[Pair]) -> list[Clean]:
    """The clean images of pairs, each once and in the order of their files."""
    halves: list[Clean] = [pair for pair in pairs if pair.rainy_half]
    files = {pair.clean for pair in pairs if not pair.rainy_half}
    return [*halves, *sorted(files)]


def _side_by_side(folder: Path, images: Sequence[Path]) -> list[Pair]:
    """The pairs in the halves of a folder's images; none where these are plain images."""
    try:
        pairs = find_pairs(folder)
    except (DatasetError, ImageError):  # no layout of pairs; what is damaged is said later
        return []
    return [pair for pair in pairs if pair.rainy_half and pair.rainy in set(images)]
