"""What scored images say together: means, and differences between models, with their spread."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from derain_cli.metrics.full_reference import PROTOCOLS

INPUT = "(input)"
# The protocol of images that have no ground truth to compare with.
UNPAIRED = ""
RESAMPLES = 5000
RESAMPLE_CHUNK = 250
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Column:
    """A score in the tables.

    Attributes:
        title: What it is called.
        decimals: How many are printed.
        better: "higher", "lower", or "" where it only states what another score can reach.
        range: From what to what it goes, with its unit.
    """

    title: str
    decimals: int
    better: str
    range: str

    @property
    def meaning(self) -> str:
        """Range and direction, to print.

        Example:
            >>> COLUMNS["psnr"].meaning
            'dB, 0 to infinity, higher is better'
        """
        return f"{self.range}, {self.better} is better" if self.better else self.range


COLUMNS: Mapping[str, Column] = {
    "psnr": Column("PSNR", 2, "higher", "dB, 0 to infinity"),
    "ssim": Column("SSIM", 4, "higher", "-1 to 1"),
    "niqe": Column("NIQE", 2, "lower", "about 2 to 20"),
    "lpips": Column("LPIPS", 4, "lower", "0 to about 1"),
    "dists": Column("DISTS", 4, "lower", "0 to about 1"),
    "e_r": Column("E_R", 2, "higher", "levels, at most E_R ceiling"),
    "e_r_ceiling": Column("E_R ceiling", 2, "", "levels: what E_R can reach"),
    "e_b": Column("E_B", 2, "lower", "levels, 0 to 255"),
    "dry": Column("dry PSNR", 2, "higher", "dB, 0 to infinity, of the clean image derained"),
    "change": Column("change", 2, "", "levels, 0 to 255: mean difference from the input"),
    "changed": Column(
        "changed", 4, "", "share of pixels, 0 to 1, more than 2 levels off the input"
    ),
}


@dataclass(frozen=True)
class Row:
    """Scores of one image under one model; "(input)" is the untouched rainy image.

    Attributes:
        dataset: Name of the data set.
        group: Part of it that papers score apart, or "".
        image: Name of the pair.
        model: Name of the model.
        protocol: Key of `PROTOCOLS` under which PSNR and SSIM were taken.
        scores: By column. NaN where a score is not defined (see `metrics`), infinite PSNR for
            equal images.
        seconds: Time in the network.
        tone: Whether rainy and clean image have one tone (`datasets.tone`), or "" unexamined.
    """

    dataset: str
    group: str
    image: str
    model: str
    protocol: str
    scores: Mapping[str, float]
    seconds: float
    tone: str = ""


@dataclass(frozen=True)
class Mean:
    """Mean over images (never of pooled errors).

    Attributes:
        value: Mean of the defined scores; NaN without any.
        error: Its standard error; NaN for fewer than two images, or where one is infinite.
        images: How many scores were defined.
    """

    value: float
    error: float
    images: int


@dataclass(frozen=True)
class Score:
    """Means of a model over the images of a data set, or of a group of it ("" = all)."""

    dataset: str
    group: str
    model: str
    protocol: str
    images: int
    means: Mapping[str, Mean]
    seconds: float

    @property
    def part(self) -> str:
        """Name of the data set with its group, to print."""
        return f"{self.dataset} ({self.group})" if self.group else self.dataset

    def holds(self, row: Row) -> bool:
        """Whether a row is one of those that the means are of."""
        in_group = not self.group or self.group in (row.group, row.tone)
        return in_group and (row.dataset, row.model) == (self.dataset, self.model)


@dataclass(frozen=True)
class Difference:
    """How much `model` scores above `against`, image by image.

    Attributes:
        dataset: Name of the data set.
        column: Key of `COLUMNS`.
        model: Name of the model.
        against: Name of the other one.
        value: Mean of the differences.
        low: Lower end of the 95 % bootstrap interval of that mean.
        high: Its upper end.
        images: How many images have a finite score under both.
    """

    dataset: str
    column: str
    model: str
    against: str
    value: float
    low: float
    high: float
    images: int


def summarise(rows: Iterable[Row]) -> list[Score]:
    """Means by data set, group and model, in the order of the rows; a whole set before its groups.

    A score that is not defined (NaN) is left out of its mean. A set in which some pairs differ in
    tone is scored in two parts besides: those that do, and those that do not.
    """
    datasets: dict[str, list[Row]] = {}
    for row in rows:
        datasets.setdefault(row.dataset, []).append(row)
    return [
        _mean_of_rows(dataset, group, model, members)
        for dataset, own in datasets.items()
        for group, models in _groups(own).items()
        for model, members in models.items()
    ]


def _groups(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows of one data set by group ("" = all) and model."""
    tones = len({row.tone for row in rows}) > 1
    groups: dict[str, dict[str, list[Row]]] = {"": {}}
    for row in rows:
        for group in dict.fromkeys(("", row.group, row.tone if tones else "")):
            groups.setdefault(group, {}).setdefault(row.model, []).append(row)
    return groups


def _mean_of_rows(dataset: str, group: str, model: str, rows: Sequence[Row]) -> Score:
    means = {column: mean_of([row.scores[column] for row in rows]) for column in rows[0].scores}
    seconds = sum(row.seconds for row in rows) / len(rows)
    return Score(dataset, group, model, rows[0].protocol, len(rows), means, seconds)


def describe_protocol(protocol: str) -> str:
    """A protocol with what its numbers are, to print.

    Example:
        >>> describe_protocol("y-full"), describe_protocol(UNPAIRED)
        ('y-full: full-range luma (0..255), 8-bit', 'images without ground truth')
    """
    if protocol == UNPAIRED:
        return "images without ground truth"
    return f"{protocol}: {PROTOCOLS[protocol].description}"


def mean_of(scores: Sequence[float]) -> Mean:
    """Mean of the scores that are defined, and its standard error.

    Example:
        >>> mean_of([1.0, 3.0, math.nan])
        Mean(value=2.0, error=1.0, images=2)
    """
    defined = np.array([score for score in scores if not math.isnan(score)])
    if not len(defined):
        return Mean(math.nan, math.nan, 0)
    if len(defined) < 2 or np.isinf(defined).any():
        return Mean(float(defined.mean()), math.nan, len(defined))
    error = float(defined.std(ddof=1)) / math.sqrt(len(defined))
    return Mean(float(defined.mean()), error, len(defined))


def differences(rows: Iterable[Row], seed: int = 0) -> list[Difference]:
    """Every model against every model before it, on each data set and in each column.

    Differences are taken image by image, over the images of both, which cancels how hard the
    images are; the interval is the percentile bootstrap over images. The same rows and seed give
    the same interval.
    """
    models_of: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        if row.model != INPUT:
            models_of.setdefault(row.dataset, {}).setdefault(row.model, {})[row.image] = row
    results: list[Difference] = []
    for dataset, models in models_of.items():
        for against, model in itertools.combinations(models, 2):
            compare = partial(_difference, dataset, models[model], models[against], seed)
            columns = next(iter(models[model].values())).scores
            results += [compare(column) for column in columns if COLUMNS[column].better]
    return results


def _difference(
    dataset: str, rows: Mapping[str, Row], others: Mapping[str, Row], seed: int, column: str
) -> Difference:
    gains = [
        row.scores[column] - others[image].scores[column]
        for image, row in rows.items()
        if image in others
    ]
    finite = np.array([gain for gain in gains if math.isfinite(gain)])
    model, against = (next(iter(side.values())).model for side in (rows, others))
    if not len(finite):
        return Difference(dataset, column, model, against, math.nan, math.nan, math.nan, 0)
    mean, (low, high) = float(finite.mean()), bootstrap_interval(finite, seed)
    return Difference(dataset, column, model, against, mean, low, high, len(finite))


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Ends of the 95 % percentile bootstrap interval of a mean.

    Args:
        values: `(n,)`, one or more finite numbers.
        seed: The same seed gives the same interval.

    Example:
        >>> bootstrap_interval(np.array([2.0, 2.0, 2.0]))
        (2.0, 2.0)
    """
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[rng.integers(len(values), size=(RESAMPLE_CHUNK, len(values)))].mean(axis=1)
            for _ in range(RESAMPLES // RESAMPLE_CHUNK)
        ]
    )
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (outside, 1 - outside))
    return float(low), float(high)


def format_score(column: str, value: float) -> str:
    """A score as tables print it.

    Example:
        >>> format_score("ssim", 0.97654), format_score("psnr", math.inf)
        ('0.9765', 'inf')
        >>> format_score("e_r", math.nan)
        '–'
    """
    return "–" if math.isnan(value) else f"{value:.{COLUMNS[column].decimals}f}"


def format_mean(column: str, mean: Mean) -> str:
    """A mean with its standard error, as tables print it.

    Example:
        >>> format_mean("psnr", Mean(33.416, 0.312, 100))
        '33.42 ± 0.31'
    """
    value = format_score(column, mean.value)
    return value if math.isnan(mean.error) else f"{value} ± {format_score(column, mean.error)}"


def format_difference(difference: Difference) -> str:
    """A difference with its interval, as tables print it.

    Example:
        >>> format_difference(Difference("d", "psnr", "b", "a", 0.5, 0.412, 0.631, 100))
        '+0.50 [+0.41, +0.63]'
    """
    if math.isnan(difference.value):
        return "–"
    signed = f"+.{COLUMNS[difference.column].decimals}f"
    low, high = (format(end, signed) for end in (difference.low, difference.high))
    return f"{difference.value:{signed}} [{low}, {high}]"
