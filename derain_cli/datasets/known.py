"""The known data sets, where they lie, and their images."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from derain_cli.datasets.layouts import Pair, find_pairs
from derain_cli.errors import DatasetError, did_you_mean
from derain_cli.metrics.full_reference import DEFAULT_PROTOCOL

TEST_FOLDERS, TRAIN_FOLDERS = ("test", "testing"), ("train", "training")


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Attributes:
        pairs: How many pairs it has; a different count is said, not refused.
        split: "train", "test" or "real" (no ground truth). Test sets are never trained on.
        protocol: Colour space in which the papers score it (see `metrics.full_reference`).
        paper: Where it was published.
        layout: How it circulates; see `layouts`.
        aliases: Other names of its folder; `A/B` is a folder in a folder. Case and punctuation of
            names do not count.
        counts: Other numbers of pairs in which it circulates, and what those are.
        groups: Parts that papers score apart, with their numbers of pairs in the order of names.
        input_psnr: Mean PSNR of the rainy images under `protocol` on a copy known to be right.
        note: What to know before trusting a score on it, or of what was trained on it.
    """

    pairs: int
    split: str
    protocol: str
    paper: str
    layout: str = "rain/ + norain/ or input/ + target/"
    aliases: tuple[str, ...] = ()
    counts: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    input_psnr: float | None = None
    note: str = ""


YANG = "Yang et al., CVPR 2017"
ZHANG_2018 = "Zhang & Patel, CVPR 2018"
ZHANG_2020 = "Zhang, Sindagi & Patel, TCSVT 2020"
FU = "Fu et al., CVPR 2017"
WEI = "Wei et al., CVPR 2019"
QUAN = "Quan et al., CVPR 2021"
LI_2022 = "Li et al., 2022"
STREAKS = "rainstreak/ and gt/: name both with --data (training) or --rainy and --clean (scoring)"
SIRR_TRAIN = "650 photos under 14 kinds of rain each, from the training set of Rain1400"
OLD = "rain-001.png + norain-001.png, rainy/ beside them, or input/ + target/"
NEW = "rain/X2/norain-1x2.png + norain/norain-1.png"
BESIDE = "side by side in one file, or input/ + target/"
MANY = "rainy_image/1_1.jpg … 1_14.jpg + ground_truth/1.jpg"
SIRR = "rain/input1.png + norain/input1.png, the first 10 dense; or dense/ + sparse/"
LI = "Li, Cheong & Tan, CVPR 2019"
BA = "Ba et al., ECCV 2022"
OUTDOOR = "in/im_0001_s80_a04.png + gt/im_0001.png, or input/ + gt/"
SCENES = "SCENE/SCENE-R-000.png … + SCENE/SCENE-C-000.png"
OVERLAP = "im_0301 to im_0350 are in the training set and in Test1; papers differ in protocol"
MIXED = "holds the training sets of Rain800, Rain100L, Rain100H and Rain1400: no other beside it"
RENEWED = {200: "the version of 2018, called rain200l or rain200h here"}
RAIN100 = "9 of its photos are there twice; Rain100L and Rain100H have the same backgrounds"
SEEN = "546 of its 1800 images have backgrounds of Rain100L and Rain100H"
UNSEEN = {1254: "without the 546 images that have backgrounds of Rain100"}
SHARED = "11 of its backgrounds are in rain100l_train, 9 in rain100l and rain100h"

DATASETS: Mapping[str, Dataset] = {
    "rain100l": Dataset(
        100, "test", "y", YANG, OLD, counts=RENEWED, input_psnr=26.90, note=RAIN100
    ),
    "rain100h": Dataset(
        100, "test", "y", YANG, OLD, counts=RENEWED, input_psnr=13.56, note=RAIN100
    ),
    "rain100l_train": Dataset(200, "train", "y", YANG, OLD, ("RainTrainL", "Rain100L/train")),
    "rain100h_train": Dataset(
        1800, "train", "y", YANG, OLD, ("RainTrainH", "Rain100H/train"), counts=UNSEEN, note=SEEN
    ),
    "rain200l": Dataset(200, "test", "y", YANG, NEW, ("rain_data_test_Light", "RainLight")),
    "rain200h": Dataset(200, "test", "y", YANG, NEW, ("rain_data_test_Heavy", "RainHeavy")),
    "rain200l_train": Dataset(
        1800,
        "train",
        "y",
        YANG,
        NEW,
        ("rain_data_train_Light", "Rain200L/train", "RainLight/train"),
    ),
    "rain200h_train": Dataset(
        1800,
        "train",
        "y",
        YANG,
        NEW,
        ("rain_data_train_Heavy", "Rain200H/train", "RainHeavy/train"),
    ),
    "rain200h_sample": Dataset(23, "train", "y", YANG),
    "ddn_sirr_train": Dataset(
        9100, "train", "rgb", WEI, MANY, ("DDN-SIRR/train", "SIRR_train"), note=SIRR_TRAIN
    ),
    "rainds_real": Dataset(98, "test", "y", QUAN, STREAKS, ("RainDS/RainDS_real/test_set",)),
    "rainds_real_train": Dataset(
        150, "train", "y", QUAN, STREAKS, ("RainDS/RainDS_real/train_set",)
    ),
    "realrain1k_l": Dataset(224, "test", "y", LI_2022, aliases=("RealRain-1k-L",)),
    "realrain1k_l_train": Dataset(784, "train", "y", LI_2022, aliases=("RealRain-1k-L/train",)),
    "realrain1k_h": Dataset(224, "test", "y", LI_2022, aliases=("RealRain-1k-H",)),
    "realrain1k_h_train": Dataset(784, "train", "y", LI_2022, aliases=("RealRain-1k-H/train",)),
    "rain12": Dataset(
        12, "test", "y", "Li et al., CVPR 2016", "001_in.png + 001_GT.png", ("test12",)
    ),
    "rain800": Dataset(
        100, "test", "y", ZHANG_2020, BESIDE, ("Test100",), counts={98: "Test100 of Rain13K"}
    ),
    "rain800_train": Dataset(700, "train", "y", ZHANG_2020, BESIDE, ("Rain800/train",)),
    "rain1200": Dataset(
        1200, "test", "y", ZHANG_2018, BESIDE, ("Test1200", "DID-MDN-test", "DID-Data")
    ),
    "rain1200_train": Dataset(
        12000,
        "train",
        "y",
        ZHANG_2018,
        BESIDE,
        ("DID-MDN-training", "Rain1200/train", "DID-Data/train"),
    ),
    "rain1400": Dataset(
        1400, "test", "y", FU, MANY, ("Test2800", "DDN-Data"), counts={2800: "Test2800 of Rain13K"}
    ),
    "rain1400_train": Dataset(
        12600, "train", "y", FU, MANY, ("Rain12600", "Rain1400/train", "DDN-Data/train")
    ),
    "spa": Dataset(
        1000,
        "test",
        "y",
        "Wang et al., CVPR 2019",
        "rain/000.png + gt/000gt.png",
        ("SPA-Data", "real_test_1000"),
    ),
    "ddn_sirr_test": Dataset(
        20,
        "test",
        "rgb",
        WEI,
        SIRR,
        ("ddn-sirr", "SIRR_test"),
        groups={"dense": 10, "sparse": 10},
        input_psnr=20.88,
        note=SHARED,
    ),
    "spa_train": Dataset(
        638_492,
        "train",
        "y",
        "Wang et al., CVPR 2019",
        "real_world/001/001_0.png + real_world_gt/001.png",
        ("SPA-Data/train", "real_world"),
    ),
    "outdoor_rain": Dataset(
        750, "test", "y", LI, OUTDOOR, ("Outdoor-Rain/test", "Test1"), note=OVERLAP
    ),
    "outdoor_rain_train": Dataset(
        9000, "train", "y", LI, OUTDOOR, ("Outdoor-Rain/train", "outdoor-rain-8-2"), note=OVERLAP
    ),
    "gt_rain": Dataset(
        2100, "test", "rgb", BA, SCENES, ("GT-RAIN_test", "GT-Rain"), counts={3300: "GT-RAIN_val"}
    ),
    "gt_rain_train": Dataset(26_124, "train", "rgb", BA, SCENES, ("GT-RAIN_train",)),
    "lhp_rain_train": Dataset(
        1_000_000,
        "train",
        "y",
        "Guo et al., ICCV 2023",
        "input/ + gt/",
        ("LHP-Rain/train", "LHP-Rain"),
        note="frames of 3000 videos of 1920x1080, about a million; its authors offer a part, too",
    ),
    "rain13k_train": Dataset(
        13_712,
        "train",
        "y",
        "Jiang et al., CVPR 2020: Rain800, Rain100, Rain1400 and Rain12 together",
        "input/1.jpg + target/1.jpg",
        ("Rain13K/train", "Rain13K"),
        note=MIXED,
    ),
    "ddn_sirr_real": Dataset(147, "real", "rgb", WEI, "images in one folder", ("real_input",)),
}


def dataset_named(name: str | Path) -> str | None:
    """Key of `DATASETS` that a name, an alias or a folder's path means.

    Example:
        >>> dataset_named("Rain100L"), dataset_named("data/DDN-SIRR"), dataset_named("mine")
        ('rain100l', 'ddn_sirr_test', None)
        >>> dataset_named("data/Rain200H/train")
        'rain200h_train'
    """
    parts = [_plain(part) for part in Path(name).parts]
    if parts and parts[-1] in TEST_FOLDERS:
        parts.pop()
    for key, dataset in DATASETS.items():
        for known in (key, *dataset.aliases):
            words = [_plain(word) for word in known.split("/")]
            if parts[-len(words) :] == words:
                return key
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def dataset_protocol(name: str) -> str:
    """Protocol in which a data set, by name or folder, is usually scored."""
    key = dataset_named(name)
    return DATASETS[key].protocol if key else DEFAULT_PROTOCOL


def dataset_folder(name: str, data_root: Path) -> Path:
    """Folder of a data set: a path as it is, otherwise a name under `data_root`.

    Raises:
        DatasetError: Unknown name, or not there.
    """
    if Path(name).is_dir() and (name not in DATASETS or "/" in name):
        return Path(name)
    key = dataset_named(name)
    if key is None and (data_root / name).is_dir():
        return data_root / name
    if key is None:
        raise DatasetError(f"unknown data set {name!r}. {did_you_mean(name, DATASETS)}")
    folder = _folder_under(data_root, key)
    if folder is None:
        raise DatasetError(
            f"data set {name!r} is not in {str(data_root)!r}: put its images into "
            f"{str(data_root / key)!r} (rainy/ and clean/), or name another `data_root`"
        )
    return folder


def plain_folder(name: str, data_root: Path) -> Path:
    """A folder that is no data set: a path as it is, otherwise under `data_root`, there or not."""
    return Path(name) if Path(name).is_dir() else data_root / name


def find_folder(key: str, data_root: Path) -> Path | None:
    """Where a known data set lies under `data_root`; None when it is not there."""
    return _folder_under(data_root, key) if data_root.is_dir() else None


def _folder_under(data_root: Path, key: str) -> Path | None:
    names = (key, *DATASETS[key].aliases)
    own = TRAIN_FOLDERS if DATASETS[key].split == "train" else TEST_FOLDERS
    inside = [f"{name}/{folder}" for name in names for folder in own]
    folders = (_descend(data_root, words.split("/")) for words in (*inside, *names))
    return next((folder for folder in folders if folder), None)


def _descend(folder: Path, words: Sequence[str]) -> Path | None:
    """Folder in a folder by the plain form of its name; an exact name goes first."""
    for word in words:
        if not folder.is_dir():
            return None
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        named = [path for path in inside if _plain(path.name) == _plain(word)]
        if not named:
            return None
        folder = next((path for path in named if path.name == word), named[0])
    return folder


def dataset_pairs(name: str, data_root: str | os.PathLike[str]) -> list[Pair]:
    """Pairs of a known data set under `data_root`, or of a folder given by path.

    Raises:
        DatasetError: Unknown name, not there, or not as expected.
    """
    pairs = find_pairs(dataset_folder(name, Path(data_root)))
    key = dataset_named(name)
    return grouped(pairs, DATASETS[key].groups) if key else pairs


def grouped(pairs: list[Pair], groups: Mapping[str, int]) -> list[Pair]:
    """The pairs with the groups that the order of their names tells.

    Only where the number of pairs is the groups' and no folder has told the groups already.
    """
    if any(pair.group for pair in pairs) or sum(groups.values()) != len(pairs):
        return pairs
    labels = [group for group, count in groups.items() for _ in range(count)]
    return [replace(pair, group=label) for pair, label in zip(pairs, labels, strict=True)]


def describe_count(name: str, pairs: int) -> str:
    """How many pairs were found, against what is known of the data set.

    Example:
        >>> describe_count("rain800", 98)
        '98 pairs, 100 expected: Test100 of Rain13K'
        >>> describe_count("rain12", 12), describe_count("mine", 7)
        ('12 of 12 pairs', '7 pairs')
    """
    key = dataset_named(name)
    if key is None:
        return f"{pairs} pairs"
    known = DATASETS[key]
    unit = "images" if known.split == "real" else "pairs"
    if pairs == known.pairs:
        return f"{pairs} of {known.pairs} {unit}"
    version = known.counts.get(pairs, "no version known here has so many")
    return f"{pairs} {unit}, {known.pairs} expected: {version}"


def training_pairs(name: str, data_root: Path) -> list[Pair]:
    """Pairs of a data set that may be trained on.

    Raises:
        DatasetError: It is a test set, by its name or by where its files lie.
    """
    key = dataset_named(name)
    if key is not None and DATASETS[key].split == "test":
        raise DatasetError(f"{name!r} is a test set: it is scored on, never trained on")
    pairs = dataset_pairs(name, data_root)
    for folder in {file.parent for pair in pairs for file in (pair.rainy, pair.clean)}:
        refuse_test_set(folder)
    return pairs


def refuse_test_set(folder: Path) -> None:
    """Refuse a test set or a part of it: the nearest name that is known, as in Rain800/train.

    Parts are a side, or a side of a group: `ddn_sirr_test/dense/norain`. Links are followed. What
    lies in a folder called train is of no test set, whatever is around it.

    Raises:
        DatasetError: It is one.
    """
    whole = folder.resolve()
    for path in (whole, *whole.parents[:2]):
        key = dataset_named(path)
        if key is not None and DATASETS[key].split == "test":
            raise DatasetError(
                f"{str(folder)!r} is of the test set {key!r}: it is scored on, never trained on"
            )
        if key is not None or _plain(path.name) in TRAIN_FOLDERS:
            return


Item = TypeVar("Item")


def hold_out(items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """(training part, held-out part): `count` evenly spaced items are kept for validation.

    Example:
        >>> hold_out("abcdef", 2)
        (['a', 'b', 'd', 'e'], ['c', 'f'])
    """
    count = min(count, len(items) // 2)
    held_out = {round((index + 1) * len(items) / count) - 1 for index in range(count)}
    training = [item for index, item in enumerate(items) if index not in held_out]
    return training, [items[index] for index in sorted(held_out)]


def hold_out_pairs(pairs: Sequence[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """(training part, held-out part) that share no clean image.

    Where several rainy images have one clean image, those of a held-out one are in neither part;
    unless nothing would be left to train on (a single scene).
    """
    training, held = hold_out(pairs, count)
    shown = {pair.clean for pair in held}
    return [pair for pair in training if pair.clean not in shown] or training, held
