"""Kinds of rain by name, as the options of the command line give them."""

from pathlib import Path

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.known import dataset_named, hold_out_pairs, plain_folder, training_pairs
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ConfigError, DatasetError, did_you_mean
from derain_cli.rain.layers import LayerSource, made_layers, no_rain, pair_layers, streak_layers
from derain_cli.rain.painting import RAIN_KINDS
from derain_cli.rain.streaks import STREAK_KINDS

SETTINGS = ("structures", "veil", "phone", "zoom")
"""Parts of a scene other than rain."""
KNOWN = (
    *(*RAIN_KINDS, *STREAK_KINDS, "dry", "streaks:FOLDER", "mixed:FOLDER", "pairs:DATASET"),
    *SETTINGS,
)
"""All that `--rain` takes, for the error that suggests the nearest."""


def trainable_pairs(name: str, data_root: Path) -> list[Pair]:
    """Training pairs of a data set or folder; a missing path gets its own message."""
    is_path = "/" in name and dataset_named(name) is None
    if is_path and not plain_folder(name, data_root).is_dir():
        raise DatasetError(f"no folder of pairs {name!r}, neither here nor in `data_root`")
    return training_pairs(name, data_root)


def layer_source(
    kind: str, data_root: Path, held_out: int, seed: int, cache: ImageCache
) -> LayerSource:
    """Source of rain layers: painted ones of a named kind, or crops of given ones.

    Raises:
        ConfigError: An unknown kind, or one that lacks its folder.
        DatasetError: No such folder or data set.
    """
    what, _, where = kind.partition(":")
    if what == "dry":
        return no_rain
    if what in ("streaks", "pairs") and not where:
        raise ConfigError(f"rain {what!r} needs layers: name their folder, as {what}:FOLDER")
    if what == "streaks":
        folder = plain_folder(where, data_root)
        if not folder.is_dir():
            raise DatasetError(
                f"no folder of rain layers {where!r}, neither here nor in `data_root`"
            )
        return streak_layers(folder, cache)
    if what == "pairs":
        return pair_layers(hold_out_pairs(trainable_pairs(where, data_root), held_out)[0], cache)
    if kind not in RAIN_KINDS:
        raise ConfigError(f"unknown kind of rain {kind!r}. {did_you_mean(kind, KNOWN)}")
    return made_layers(kind, seed)
