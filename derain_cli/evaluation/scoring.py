"""Score models on pairs: a row per image and model.

The network runs in the calling thread; reading the next pair and scoring the last result happen in
a thread each beside it, so that its speed decides how long an evaluation takes.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import dataset_protocol
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ImageError, UsageError, did_you_mean
from derain_cli.evaluation.statistics import INPUT, Row
from derain_cli.metrics.full_reference import PROTOCOLS, psnr, ssim
from derain_cli.metrics.niqe import niqe
from derain_cli.metrics.region_errors import region_errors

Pixels = NDArray[np.uint8]

# A metric by the name that is asked for, and the columns it fills.
METRICS: Mapping[str, tuple[str, ...]] = {
    "psnr": ("psnr",),
    "ssim": ("ssim",),
    "niqe": ("niqe",),
    "e_r": ("e_r", "e_r_ceiling"),
    "e_b": ("e_b",),
}

DEFAULT_METRICS = ("psnr", "ssim")


class Deraining(Protocol):
    """What evaluation needs of a model: `inference.derainer.Derainer` fits."""

    @property
    def name(self) -> str:
        """What its rows are called."""

    def __call__(self, rainy: Pixels, /) -> Pixels:
        """Derained 8-bit image of an 8-bit image."""


@dataclass(frozen=True)
class Scored:
    """A row and the images it is about, `(height, width, 3)` uint8 each."""

    row: Row
    rainy: Pixels
    derained: Pixels
    clean: Pixels


def evaluate(
    datasets: Mapping[str, Sequence[Pair]],
    models: Sequence[Deraining],
    protocol: str | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    observe: Callable[[Scored], None] | None = None,
) -> Iterator[Row]:
    """Rows in the order of the images: the input first, then each model.

    Args:
        datasets: Name to pairs. Each image is read once, whatever the number of models.
        models: Networks to score; none scores the input alone.
        protocol: Key of `metrics.full_reference.PROTOCOLS`; None for what is usual on each data
            set. Scores are of the 8-bit result.
        metrics: Keys of `METRICS`.
        observe: Called with every scored image, one after the other, beside the network.

    Raises:
        UsageError: Unknown protocol or metric.
        DatasetError: A pair that cannot be read or whose sizes differ.
        ImageError: An image that a metric is not defined on.
    """
    _require_known("metric", metrics, METRICS)
    _require_known("protocol", [protocol] if protocol else [], PROTOCOLS)
    return _rows(datasets, models, protocol, metrics, observe or _look_away)


def _require_known(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}. {did_you_mean(name, known)}")


def _look_away(scored: Scored) -> None:
    """What observes when nothing does."""


def _rows(
    datasets: Mapping[str, Sequence[Pair]],
    models: Sequence[Deraining],
    protocol: str | None,
    metrics: Sequence[str],
    observe: Callable[[Scored], None],
) -> Iterator[Row]:
    cases = [(name, pair) for name, pairs in datasets.items() for pair in pairs]
    reader, scorer = ThreadPoolExecutor(1, "reading"), ThreadPoolExecutor(1, "scoring")
    waiting: deque[Future[Row]] = deque()
    try:
        for (name, pair), (rainy, clean) in _read_ahead(reader, cases):
            used = protocol or dataset_protocol(name)
            score = partial(_score, observe, metrics, (name, pair, used), rainy, clean)
            waiting.append(scorer.submit(score, INPUT, rainy, 0.0))
            for model in models:
                started = time.perf_counter()
                derained = model(rainy)
                seconds = time.perf_counter() - started
                waiting.append(scorer.submit(score, model.name, derained, seconds))
            # Two images of every model wait at most: memory stays bounded when scoring is slow.
            while waiting and (waiting[0].done() or len(waiting) > 2 * (1 + len(models))):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for pool in (reader, scorer):
            pool.shutdown(cancel_futures=True)


Case = tuple[str, Pair]


def _read_ahead(
    reader: ThreadPoolExecutor, cases: Sequence[Case]
) -> Iterator[tuple[Case, tuple[Pixels, Pixels]]]:
    """Every case with its pixels; the next is read while this one is worked on."""
    coming = None
    for case, following in itertools.zip_longest(cases, cases[1:]):
        now = coming or reader.submit(read_pair, case[1])
        coming = following and reader.submit(read_pair, following[1])
        yield case, now.result()


def _score(
    observe: Callable[[Scored], None],
    metrics: Sequence[str],
    where: tuple[str, Pair, str],
    rainy: Pixels,
    clean: Pixels,
    model: str,
    derained: Pixels,
    seconds: float,
) -> Row:
    dataset, pair, protocol = where
    try:
        scores = score_image(derained, rainy, clean, protocol, metrics)
    except ImageError as error:
        raise ImageError(f"pair {pair.name!r} of {dataset!r} under {model!r}: {error}") from error
    row = Row(dataset, pair.group, pair.name, model, protocol, scores, seconds)
    observe(Scored(row, rainy, derained, clean))
    return row


def score_image(
    derained: Pixels,
    rainy: Pixels,
    clean: Pixels,
    protocol: str,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, float]:
    """Scores of one image by column, in the order of the metrics.

    Args:
        derained: `(height, width, 3)` uint8.
        rainy: What was derained, same shape and type.
        clean: The ground truth, same shape and type.
        protocol: Key of `PROTOCOLS`, for PSNR and SSIM.
        metrics: Keys of `METRICS`.

    Raises:
        ImageError: The images differ in size, are too small for a metric, or not 8-bit RGB.

    Example:
        >>> flat = np.full((16, 16, 3), 7, np.uint8)
        >>> score_image(flat, flat, flat, "y")
        {'psnr': inf, 'ssim': 1.0}
    """
    scores: dict[str, float] = {}
    if "psnr" in metrics:
        scores["psnr"] = psnr(derained, clean, protocol)
    if "ssim" in metrics:
        scores["ssim"] = ssim(derained, clean, protocol)
    if "niqe" in metrics:
        scores["niqe"] = niqe(derained)
    if "e_r" in metrics or "e_b" in metrics:
        errors = region_errors(derained, rainy, clean)
        scores |= {"e_r": errors.e_r, "e_r_ceiling": errors.e_r_ceiling, "e_b": errors.e_b}
    return {column: scores[column] for column in columns_of(metrics)}


def columns_of(metrics: Iterable[str]) -> list[str]:
    """Columns that metrics fill, in their order.

    Example:
        >>> columns_of(["e_r", "psnr"])
        ['e_r', 'e_r_ceiling', 'psnr']
    """
    return [column for metric in metrics for column in METRICS[metric]]
