"""Which images of a folder belong together: the layouts in which data sets circulate.

==================================  ===============================================================
layout                              as in
==================================  ===============================================================
two folders                         rainy/ + clean/, rain/ + norain/, input/ + target/, …: most sets
rain/X2/ + norain/                  Rain100 and Rain200 (norain-1x2.png + norain-1.png)
rainy/ beside the clean images    Rain100 as repackaged (rainy/rain-001.png + norain-001.png)
two names in one folder             rain-001.png + norain-001.png, 001x2.png + 001.png (Rain100),
                                    001_in.png + 001_GT.png (Rain12)
several rainy to one clean          901_1.jpg … 901_14.jpg + 901.jpg (Rain1400)
side by side in one file            Rain800, Rain1200; which half is rainy differs between sets
folders of groups                   dense/ + sparse/ (DDN-SIRR), Rain_Heavy/ … (Rain1200)
==================================  ===============================================================

Nothing is guessed from the order of files: images are paired by name, and what has no partner is
an error that names it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from derain_cli.datasets.fingerprints import likeness, thumbnail
from derain_cli.errors import DatasetError, ImageError
from derain_cli.images import READABLE_SUFFIXES, read_image

RAINY_FOLDERS = ("rainy", "rain", "input", "inputs", "in", "rainy_image", "data", "real_world")
CLEAN_FOLDERS = (
    *("clean", "norain", "target", "gt", "ground_truth", "groundtruth", "label", "real_world_gt"),
)
GROUPS = ("dense", "sparse", "heavy", "medium", "light")
RAINY_NAME = re.compile(r"rain-?\d+|.*\dx2|.*_(?:in|rain|rainy)", re.IGNORECASE)
CLEAN_NAME = re.compile(r"norain-?\d+|.*_(?:gt|norain|clean)", re.IGNORECASE)
RAIN_LAYER_NAME = re.compile(r"rain(?:streak|region)-?\d+", re.IGNORECASE)
NAME_PREFIX = re.compile(r"^(?:no)?rain-?(?=\d)", re.IGNORECASE)

NAME_SUFFIX = re.compile(
    r"(?:(?<=\d)x2|(?<=\d)gt|_(?:in|rain|rainy|gt|norain|clean)|_s\d+_a\d+)$", re.IGNORECASE
)
SCENE_NAME = re.compile(r"(?P<scene>.+)-(?P<side>[RC])-\d+", re.IGNORECASE)

# Folders within folders are looked into this deep: Rain1200/Rain_Heavy/test/.
DEPTH = 3
# So many images of a folder are looked at to tell what is side by side in them.
PROBES = 7
# Likeness of rainy and clean is above 0.72 for 95 % of Rain100H; of halves of photos, below 0.54.
SAME_SCENE = 0.6


@dataclass(frozen=True)
class Pair:
    """A rainy image and what it looks like without rain.

    Attributes:
        name: Stem of the rainy file, after its group's folder if there is one.
        rainy: Its file.
        clean: The other's file; the same file when both are side by side in it.
        rainy_half: "left" or "right" when side by side, otherwise "".
        group: Part of the data set that papers score apart: "dense", "heavy", …
        is_unpaired: Whether it is an image without ground truth, which stands for both. (A clean
            image that is scored against itself is a pair.)
    """

    name: str
    rainy: Path
    clean: Path
    rainy_half: str = ""
    group: str = ""
    is_unpaired: bool = False


@dataclass(frozen=True)
class Matching:
    """What a folder holds.

    Attributes:
        layout: How it is laid out, to print.
        pairs: What belongs together, in natural order.
        orphans: Images whose partner is missing, and names that are taken twice.
    """

    layout: str
    pairs: Sequence[Pair]
    orphans: Sequence[Path] = field(default=())


def find_pairs(folder: Path) -> list[Pair]:
    """Pairs of a data set's folder, matched by name and in natural order.

    Raises:
        DatasetError: No known layout, an image without its partner, or no pair at all.
    """
    return complete(recognise(folder), folder)


def match_pairs(rainy_folder: Path, clean_folder: Path) -> list[Pair]:
    """Pairs of two folders by name; several rainy images may share a clean one (901_1 -> 901).

    Raises:
        DatasetError: An image without its partner, or nothing to match.
    """
    matching = _match("", list_images(rainy_folder), list_images(clean_folder))
    return complete(matching, rainy_folder)


def unpaired_images(folder: Path) -> list[Pair]:
    """The images of a folder, each as a pair with itself, named by its file.

    Raises:
        DatasetError: No folder, or no image in it.
    """
    images = list_images(folder)
    if not images:
        raise DatasetError(f"no images in {str(folder)!r}")
    return [Pair(path.name, path, path, is_unpaired=True) for path in images]


def complete(matching: Matching, folder: Path) -> list[Pair]:
    """The pairs, if nothing is missing.

    Raises:
        DatasetError: An image without its partner, or no pair at all.
    """
    if matching.orphans:
        first, *rest = matching.orphans
        more = f", and {len(rest)} more" if rest else ""
        raise DatasetError(
            f"{first.name!r} in {str(first.parent)!r} has no partner, or is one too many{more}: "
            "complete the pair or take it out"
        )
    if not matching.pairs:
        raise DatasetError(f"no images in {str(folder)!r}")
    return list(matching.pairs)


def recognise(folder: Path) -> Matching:
    """What a data set's folder holds, whatever known layout it has.

    Raises:
        DatasetError: The folder is missing or laid out in no known way.
    """
    if not folder.is_dir():
        raise DatasetError(f"no data set in {str(folder)!r}: the folder does not exist")
    matching = _recognise(folder, DEPTH)
    if matching is None:
        several = [path.name for path in _subfolders(folder) if _recognise(path, DEPTH - 1)]
        if several:
            raise DatasetError(
                f"{str(folder)!r} holds several sets: name one of {', '.join(sorted(several))}"
            )
        raise DatasetError(
            f"{str(folder)!r} is laid out in no way known here; expected rainy/ + clean/, rain/ + "
            "norain/, input/ + target/, rain-001 + norain-001, 001x2 + 001 or pairs side by side"
        )
    return matching


def _recognise(folder: Path, depth: int) -> Matching | None:
    layouts: tuple[Callable[[Path], Matching | None], ...] = (
        _two_folders,
        _scene,
        _scenes,
        _folder_beside_images,
        _two_names,
        lambda path: _groups(path, depth),
        lambda path: _nested(path, depth),
        _side_by_side,
    )
    return next((matching for layout in layouts if (matching := layout(folder))), None)


def _two_folders(folder: Path) -> Matching | None:
    rainy, clean = _side(folder, RAINY_FOLDERS), _side(folder, CLEAN_FOLDERS)
    if rainy is None or clean is None:
        return None
    layout = f"{rainy.relative_to(folder).as_posix()}/ + {clean.name}/"
    return _match(layout, _images_within(rainy), _images_within(clean))


def _images_within(folder: Path) -> list[Path]:
    """Images of a folder, or of its folders where it holds none itself."""
    return list_images(folder) or [
        path for inside in _subfolders(folder) for path in list_images(inside)
    ]


def _scene(folder: Path) -> Matching | None:
    """Frames of one scene in the rain, and one frame of it without."""
    named = [(SCENE_NAME.fullmatch(path.stem), path) for path in list_images(folder)]
    sides: dict[str, list[Path]] = {"r": [], "c": []}
    for match, path in named:
        if match is None:
            return None
        sides[match["side"].lower()].append(path)
    if not sides["r"] or not sides["c"]:
        return None
    clean, *others = sides["c"]
    pairs = [Pair(path.stem, path, clean) for path in sides["r"]]
    return Matching(f"{sides['r'][0].name} … + {clean.name}", pairs, others)


def _scenes(folder: Path) -> Matching | None:
    """A folder of scenes, each with its frames in the rain and one without."""
    inside = {path.name: _scene(path) for path in _subfolders(folder)}
    scenes = {name: matching for name, matching in inside.items() if matching}
    if not scenes:
        return None
    pairs = [
        replace(pair, name=f"{name}/{pair.name}")
        for name, matching in scenes.items()
        for pair in matching.pairs
    ]
    orphans = [path for matching in scenes.values() for path in matching.orphans]
    return Matching(f"{len(scenes)} scenes: {next(iter(scenes.values())).layout}", pairs, orphans)


def _folder_beside_images(folder: Path) -> Matching | None:
    rainy, clean = _side(folder, RAINY_FOLDERS), list_images(folder)
    if rainy is None or not clean:
        return None
    return _match(f"{rainy.name}/ beside the clean images", list_images(rainy), clean)


def _side(folder: Path, names: Iterable[str]) -> Path | None:
    """The folder of one side; its images may lie in an X2/ of their own."""
    named = {path.name.lower(): path for path in _subfolders(folder)}
    side = next((named[name] for name in names if name in named), None)
    if side and (side / "X2").is_dir() and not list_images(side):
        return side / "X2"
    return side


def _two_names(folder: Path) -> Matching | None:
    images = [path for path in list_images(folder) if not RAIN_LAYER_NAME.fullmatch(path.stem)]
    rainy = [path for path in images if RAINY_NAME.fullmatch(path.stem)]
    clean = [path for path in images if CLEAN_NAME.fullmatch(path.stem) and path not in rainy]
    if rainy and not clean:  # 001x2.png beside 001.png: the clean name says nothing
        clean = [path for path in images if path not in rainy]
    if not rainy or not clean:
        return None
    return _match(f"{rainy[0].name} + {clean[0].name}", rainy, clean)


def _groups(folder: Path, depth: int) -> Matching | None:
    parts = {}
    for path in _subfolders(folder):
        group = next((name for name in GROUPS if name in path.name.lower()), None)
        if group and depth and (matching := _recognise(path, depth - 1)):
            parts[group] = matching
    if not parts:
        return None
    pairs = [
        replace(pair, name=f"{group}/{pair.name}", group=group)
        for group, matching in parts.items()
        for pair in matching.pairs
    ]
    orphans = [path for matching in parts.values() for path in matching.orphans]
    layout = f"{', '.join(parts)}: {next(iter(parts.values())).layout}"
    return Matching(layout, pairs, orphans)


def _nested(folder: Path, depth: int) -> Matching | None:
    """The only data set in the folders of a folder (an archive unpacked into its own name)."""
    if not depth:
        return None
    inside = {path: _recognise(path, depth - 1) for path in _subfolders(folder)}
    matched = [(path, matching) for path, matching in inside.items() if matching]
    if len(matched) != 1:
        return None
    ((path, matching),) = matched
    return replace(matching, layout=f"{path.name}/: {matching.layout}")


def _side_by_side(folder: Path) -> Matching | None:
    """Pairs in the halves of single images; the brighter halves are the rainy ones.

    Rain adds light. Which half it is differs between data sets and even between copies of one, so
    it is measured. Images whose halves show different scenes are no pairs.
    """
    images = list_images(folder)
    votes = _votes(images[:: -(-len(images) // PROBES) or 1])
    half = max(("left", "right"), key=votes.count)
    if not votes or votes.count(half) <= len(votes) / 2:
        return None
    pairs = [Pair(path.stem, path, path, half) for path in images]
    return Matching(f"side by side, the rainy image on the {half}", pairs)


def _votes(images: Sequence[Path]) -> list[str]:
    """Which half is the brighter one in each image that can be read.

    Whoever reads the pairs says what is damaged; one such image must not keep the others from being
    recognised.

    Raises:
        ImageError: None can be read.
    """
    votes: list[str] = []
    for number, path in enumerate(images, 1):
        try:
            votes.append(_brighter_half(path))
        except ImageError:
            if number == len(images) and not votes:
                raise
    return votes


def _brighter_half(path: Path) -> str:
    """Which half is brighter, "left" or "right"; "" when the two do not show one scene."""
    pixels = read_image(path).rgb
    middle, odd = divmod(pixels.shape[1], 2)
    if odd or middle == 0:
        return ""
    left, right = pixels[:, :middle], pixels[:, middle:]
    if likeness(thumbnail(left), thumbnail(right)) < SAME_SCENE:
        return ""
    return "left" if np.mean(left) > np.mean(right) else "right"


def _match(layout: str, rainy: Sequence[Path], clean: Sequence[Path]) -> Matching:
    """Pairs by name: equal names first, then names whose common part is equal."""
    equal = {_composed(path.stem): path for path in reversed(clean)}
    common = {_key(path.stem): path for path in reversed(clean)}
    orphans: list[Path] = []
    pairs: dict[str, Pair] = {}
    for path in rainy:
        key = _key(path.stem)
        partner = (
            equal.get(_composed(path.stem)) or common.get(key) or common.get(key.rpartition("_")[0])
        )
        if partner is None or path.stem in pairs:
            orphans.append(path)
        else:
            pairs[path.stem] = Pair(path.stem, path, partner)
    used = {pair.clean for pair in pairs.values()}
    orphans += [path for path in clean if path not in used]
    return Matching(layout, list(pairs.values()), orphans)


def _key(stem: str) -> str:
    """What both names of a pair have in common: rain-001, norain-001x2 and 001_GT are all 001."""
    return NAME_SUFFIX.sub("", NAME_PREFIX.sub("", _composed(stem)))


def _composed(stem: str) -> str:
    """A name with its accents composed: archives made on macOS hold them apart (NFD)."""
    return unicodedata.normalize("NFC", stem)


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder in natural order (2 before 10), dot-files left out.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"no folder {str(folder)!r}")
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READABLE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=lambda path: _natural(path.name))


def _subfolders(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(folders, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)  # of the numerals those that `int` reads: no superscripts
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
