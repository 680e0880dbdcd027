"""Whether a data set is what its name promises, and what it shares with others."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from derain_cli.datasets.fingerprints import (
    Thumbnail,
    duplicates,
    image_digest,
    same_photos,
    set_digest,
    thumbnail,
)
from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import (
    DATASETS,
    dataset_folder,
    dataset_named,
    dataset_protocol,
    describe_count,
    grouped,
)
from derain_cli.datasets.layouts import Matching, Pair, list_images, recognise
from derain_cli.datasets.tone import differs_in_tone
from derain_cli.errors import DatasetError
from derain_cli.metrics.full_reference import psnr

# Mean input scores of copies whose clean images are compressed otherwise differ by less.
SAME_VERSION = 0.05


@dataclass(frozen=True)
class Verification:
    """What was found in a data set's folder.

    Attributes:
        name: As it was asked for.
        folder: Where it lies.
        layout: How it is laid out.
        count: Number of pairs, against what is known of the set.
        problems: What makes it unfit to score on, a line each: no partner, unreadable, two sizes,
            a number of pairs that no known version has.
        sizes: Number of pairs by `WIDTHxHEIGHT`.
        duplicates: Names of clean images that show one photo.
        digest: Fingerprint of all pixels: equal for copies equal to the bit, whatever the names
            and lossless formats. JPEGs decode alike only with the same decoder.
        protocol: Under which `input_psnr` was taken.
        input_psnr: Mean PSNR of the rainy images by group ("" = all): a fingerprint of the
            version that survives another compression. Empty without ground truth.
        shared: By name of another set: (image, that set's image) of every photo in both.
        other_tone: Names of pairs whose rainy image is darker than the clean one in many places
            (`datasets.tone`): no network can be right about them.
    """

    name: str
    folder: Path
    layout: str
    count: str
    problems: Sequence[str]
    sizes: Mapping[str, int]
    duplicates: Sequence[Sequence[str]]
    digest: str
    protocol: str
    input_psnr: Mapping[str, float]
    shared: Mapping[str, Sequence[tuple[str, str]]]
    other_tone: Sequence[str] = ()

    @property
    def sound(self) -> bool:
        """Nothing is missing or damaged, and nothing is shared with the sets asked about."""
        return not self.problems and not any(self.shared.values())

    @property
    def version(self) -> str:
        """What the input's score says of the version; empty where nothing is known of it."""
        key = dataset_named(self.name)
        known = DATASETS[key].input_psnr if key else None
        if known is None or "" not in self.input_psnr:
            return ""
        if abs(self.input_psnr[""] - known) < SAME_VERSION:
            return f"the version that papers score ({known:.2f} dB)"
        return f"another version than the one that papers score ({known:.2f} dB)"


@dataclass
class _Reading:
    """What one pass over the images gathers."""

    problems: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: dict[Path, Thumbnail] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)
    other_tone: list[str] = field(default_factory=list)


def verify(
    name: str,
    data_root: Path,
    against: Iterable[str] = (),
    report: Callable[[int, int], None] | None = None,
) -> Verification:
    """What is in a data set's folder, against what is known of it.

    Args:
        name: A known data set, or a folder of pairs or of single images.
        data_root: Where named data sets lie.
        against: Other data sets or folders, which should share no photo with it.
        report: Called with (pairs read, pairs in all).

    Raises:
        DatasetError: A set is not there or laid out in no known way, or one to compare with is
            damaged.
    """
    folder, protocol = dataset_folder(name, data_root), dataset_protocol(name)
    matching = _contents(name, folder)
    reading = _read_all(matching.pairs, protocol, report)
    own = list(reading.thumbnails)
    problems = [*map(_orphan_line, matching.orphans), *reading.problems]
    return Verification(
        name=name,
        folder=folder,
        layout=matching.layout,
        count=describe_count(name, len(matching.pairs)),
        problems=[*problems, *_count_problem(name, len(matching.pairs))],
        sizes=dict(reading.sizes.most_common()),
        duplicates=[
            [own[position].name for position in positions]
            for positions in duplicates(list(reading.thumbnails.values()))
        ],
        digest=set_digest(reading.digests),
        protocol=protocol,
        input_psnr={group: fmean(scores) for group, scores in reading.scores.items()},
        shared={other: _shared(reading.thumbnails, other, data_root) for other in against},
        other_tone=reading.other_tone,
    )


def _contents(name: str, folder: Path) -> Matching:
    """The set's pairs; an image without ground truth is a pair with itself."""
    key = dataset_named(name)
    known = DATASETS[key] if key else None
    try:
        matching = recognise(folder)
    except DatasetError:
        images = list_images(folder)
        if not images or (known and known.split != "real"):
            raise
        pairs = [Pair(path.stem, path, path) for path in images]
        return Matching("images without ground truth", pairs)
    pairs = grouped(list(matching.pairs), known.groups if known else {})
    return Matching(matching.layout, pairs, matching.orphans)


def _orphan_line(path: Path) -> str:
    return f"{path.name!r} in {str(path.parent)!r} has no partner, or is one too many"


def _count_problem(name: str, pairs: int) -> list[str]:
    key = dataset_named(name)
    if key is None or pairs in (DATASETS[key].pairs, *DATASETS[key].counts):
        return []
    return [describe_count(name, pairs)]


def _read_all(
    pairs: Sequence[Pair], protocol: str, report: Callable[[int, int], None] | None = None
) -> _Reading:
    reading = _Reading()
    for number, pair in enumerate(pairs, 1):
        try:
            _read(pair, protocol, reading)
        except DatasetError as error:
            reading.problems.append(str(error))
        if report:
            report(number, len(pairs))
    return reading


def _read(pair: Pair, protocol: str, reading: _Reading) -> None:
    rainy, clean = read_pair(pair)
    height, width = clean.shape[:2]
    reading.sizes[f"{width}x{height}"] += 1
    reading.digests.append(image_digest(rainy, clean))
    if pair.clean not in reading.thumbnails:
        reading.thumbnails[pair.clean] = thumbnail(clean)
    if pair.rainy != pair.clean or pair.rainy_half:
        if differs_in_tone(rainy, clean):
            reading.other_tone.append(pair.name)
        score = psnr(rainy, clean, protocol)
        for group in dict.fromkeys(("", pair.group)):
            reading.scores.setdefault(group, []).append(score)


def _shared(
    thumbnails: Mapping[Path, Thumbnail], other: str, data_root: Path
) -> list[tuple[str, str]]:
    """Names of own images and of the other set's that show the same photo."""
    pairs = _contents(other, dataset_folder(other, data_root)).pairs
    reading = _read_all(list({pair.clean: pair for pair in pairs}.values()), "y")
    if reading.problems:
        raise DatasetError(f"{other!r} cannot be compared with: {reading.problems[0]}")
    own, foreign = list(thumbnails), list(reading.thumbnails)
    positions = same_photos(list(thumbnails.values()), list(reading.thumbnails.values()))
    return [(own[first].name, foreign[second].name) for first, second in positions]
