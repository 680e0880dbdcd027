"""Single images that a mean hides: made worse than the input, and where models differ most."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from derain_cli.evaluation.statistics import COLUMNS, INPUT, Row, bootstrap_interval

TENTH = 0.1


@dataclass(frozen=True)
class Spread:
    """How a model's scores of one column lie around their mean.

    Attributes:
        median: Of the finite scores; NaN without any, as all others.
        worst: The worst of them.
        low: Lower end of the 95 % bootstrap interval of the mean.
        high: Its upper end.
        worst_tenth: Mean of the worst tenth of the images, at least one.
        best_tenth: Mean of the best tenth.
    """

    median: float
    worst: float
    low: float
    high: float
    worst_tenth: float
    best_tenth: float


@dataclass(frozen=True)
class Change:
    """An image's score under a model and what it is compared with.

    Attributes:
        row: The image under the model.
        against: The same image under "(input)" or another model.
        gain: How much better the model is, negative where it is worse.
    """

    row: Row
    against: Row
    gain: float


def leading_column(columns: Iterable[str]) -> str:
    """The column that images are ranked by: PSNR if it was taken, else the first that has a better.

    Example:
        >>> leading_column(["niqe", "psnr"]), leading_column(["e_r_ceiling", "e_b"])
        ('psnr', 'e_b')
    """
    names = list(columns)
    ranked = [column for column in names if COLUMNS[column].better]
    return "psnr" if "psnr" in ranked else (ranked or names)[0]


def sign_of(column: str) -> int:
    """1 where higher is better, -1 where lower is."""
    return -1 if COLUMNS[column].better == "lower" else 1


def spread_of(scores: Sequence[float], column: str, seed: int = 0) -> Spread:
    """Median, worst, interval and tenths of the finite scores of a column.

    Example:
        >>> spread_of([3.0, 1.0, 2.0], "niqe").worst
        3.0
    """
    finite = np.array([score for score in scores if math.isfinite(score)])
    if not len(finite):
        return Spread(*[math.nan] * 6)
    goodness = np.sort(sign_of(column) * finite)
    count = max(1, round(TENTH * len(finite)))
    worst, best = goodness[:count].mean(), goodness[-count:].mean()
    low, high = bootstrap_interval(finite, seed)
    ranked = (goodness[0], worst, best)
    lowest, worst_tenth, best_tenth = (float(sign_of(column) * value) for value in ranked)
    return Spread(float(np.median(finite)), lowest, low, high, worst_tenth, best_tenth)


def made_worse(rows: Iterable[Row], column: str) -> list[Change]:
    """Images that a model scores worse than the untouched input, the worst first.

    An input that equals the clean image has an infinite PSNR: whatever changes it makes it worse.
    """
    changes = _changes(rows, column, lambda model, against: INPUT in (model, against))
    return sorted((c for c in changes if c.gain < 0), key=lambda change: change.gain)


def largest_differences(rows: Iterable[Row], column: str, count: int = 10) -> list[Change]:
    """Images on which two models differ most, `count` per pair of models and data set.

    The row is the better one's.
    """
    changes = _changes(rows, column, lambda model, against: INPUT not in (model, against))
    by_pair: dict[tuple[str, frozenset[str]], list[Change]] = {}
    for change in filter(lambda c: math.isfinite(c.gain), changes):
        better = change if change.gain > 0 else Change(change.against, change.row, -change.gain)
        models = frozenset((change.row.model, change.against.model))
        by_pair.setdefault((change.row.dataset, models), []).append(better)
    ranked = (sorted(members, key=lambda c: -c.gain)[:count] for members in by_pair.values())
    return [change for changes in ranked for change in changes if change.gain > 0]


def _changes(rows: Iterable[Row], column: str, wanted: Callable[[str, str], bool]) -> list[Change]:
    images: dict[tuple[str, str], list[Row]] = {}
    for row in rows if COLUMNS[column].better else ():
        images.setdefault((row.dataset, row.image), []).append(row)
    changes = []
    for members in images.values():
        input_first = sorted(members, key=lambda row: row.model != INPUT)
        for against, row in itertools.combinations(input_first, 2):
            gain = sign_of(column) * (row.scores[column] - against.scores[column])
            if wanted(row.model, against.model) and not math.isnan(gain):
                changes.append(Change(row, against, gain))
    return changes
