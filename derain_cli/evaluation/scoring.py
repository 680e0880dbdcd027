"""Score models on pairs: a row per image and model.

The network runs in the calling thread; reading the next pair and scoring the last results happen in
threads beside it, so that its speed decides how long an evaluation takes.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.datasets.known import dataset_protocol
from derain_cli.datasets.layouts import Pair
from derain_cli.datasets.tone import OTHER_TONE, SAME_TONE, differs_in_tone
from derain_cli.errors import ImageError, UsageError, did_you_mean
from derain_cli.evaluation.statistics import INPUT, UNPAIRED, Row
from derain_cli.metrics.full_reference import PROTOCOLS, psnr, ssim
from derain_cli.metrics.niqe import niqe
from derain_cli.metrics.region_errors import region_errors

Pixels = NDArray[np.uint8]
Distance = Callable[[Pixels, Pixels], float]

# A metric by the name that is asked for, and the columns it fills.
METRICS: Mapping[str, tuple[str, ...]] = {
    "psnr": ("psnr",),
    "ssim": ("ssim",),
    "niqe": ("niqe",),
    "lpips": ("lpips",),
    "dists": ("dists",),
    "e_r": ("e_r", "e_r_ceiling"),
    "e_b": ("e_b",),
    "dry": ("dry",),
    "change": ("change", "changed"),
}
DEFAULT_METRICS = ("psnr", "ssim")
# What can be said of images without ground truth.
UNPAIRED_METRICS = ("niqe", "change")
# A pixel counts as changed when a channel is more than this many levels away.
UNCHANGED_LEVELS = 2
# Several rainy images in a row may share a clean one; more than that is not worth the memory.
CACHED_BYTES = 256 << 20


class Deraining(Protocol):
    """What evaluation needs of a model: `inference.derainer.Derainer` fits."""

    @property
    def name(self) -> str:
        """What its rows are called."""

    def __call__(self, rainy: Pixels, /) -> Pixels:
        """Derained 8-bit image of an 8-bit image."""


@runtime_checkable
class BatchDeraining(Protocol):
    """A model that takes several images of one size at once."""

    def derain_together(self, rainy: Sequence[Pixels]) -> Sequence[Pixels]:
        """Derained 8-bit images of 8-bit images."""


@dataclass(frozen=True)
class Scored:
    """A row and the images it is about, `(height, width, 3)` uint8 each."""

    row: Row
    rainy: Pixels
    derained: Pixels
    clean: Pixels


@dataclass(frozen=True)
class Planned:
    """A pair to score: its data set, its protocol, and the models whose rows are not known yet."""

    dataset: str
    pair: Pair
    protocol: str
    models: frozenset[str]


@dataclass(frozen=True)
class ReadPair:
    """A planned pair with its pixels."""

    plan: Planned
    rainy: Pixels
    clean: Pixels

    @property
    def tone(self) -> str:
        """Whether rainy and clean image have one tone; "" without ground truth."""
        if self.plan.pair.is_unpaired:
            return ""
        return OTHER_TONE if differs_in_tone(self.rainy, self.clean) else SAME_TONE


Key = tuple[str, str, str]


def key_of(row: Row) -> Key:
    """What tells a row from all others of an evaluation: data set, image, model."""
    return row.dataset, row.image, row.model


def evaluate(
    datasets: Mapping[str, Sequence[Pair]],
    models: Sequence[Deraining],
    protocol: str | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    observe: Callable[[Scored], None] | None = None,
    done: Collection[Key] = frozenset(),
    workers: int = 1,
    batch_size: int = 1,
) -> Iterator[Row]:
    """Rows in the order of the images: the input first, then each model.

    Args:
        datasets: Name to pairs. Each image is read once, whatever the number of models.
        models: Networks to score; none scores the input alone.
        protocol: Key of `metrics.full_reference.PROTOCOLS`; None for what is usual on each data
            set. Scores are of the 8-bit result.
        metrics: Keys of `METRICS`.
        observe: Called with every scored image, in the threads that score.
        done: Rows that are known already (`key_of`) and are left out.
        workers: Threads that score, and as many that read ahead.
        batch_size: Images of one size that go through a model together, if it can do that.

    Raises:
        UsageError: Unknown protocol or metric.
        UnavailableError: A metric whose weights are not here.
        DatasetError: A pair that cannot be read or whose sizes differ.
        ImageError: An image that a metric is not defined on.
    """
    _require_known("metric", metrics, METRICS)
    _require_known("protocol", [protocol] if protocol else [], PROTOCOLS)
    run = _Evaluation(models, metrics, observe or _ignore, workers, batch_size)
    names = [INPUT, *(model.name for model in models)]
    plans = [
        Planned(
            dataset,
            pair,
            UNPAIRED if pair.is_unpaired else protocol or dataset_protocol(dataset),
            frozenset(name for name in names if (dataset, pair.name, name) not in done),
        )
        for dataset, pairs in datasets.items()
        for pair in pairs
    ]
    return run.rows(plans)


def _require_known(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}. {did_you_mean(name, known)}")


def _ignore(scored: Scored) -> None:
    """Default observer: do nothing."""


class _Evaluation:
    """Threads that read ahead and score behind the network, both bounded."""

    def __init__(
        self,
        models: Sequence[Deraining],
        metrics: Sequence[str],
        observe: Callable[[Scored], None],
        workers: int,
        batch_size: int,
    ) -> None:
        self.models, self.metrics, self.observe = models, metrics, observe
        self.workers, self.batch_size = workers, batch_size
        self.distances = load_distances(metrics)
        self.cache = ImageCache(CACHED_BYTES)

    def rows(self, plans: Sequence[Planned]) -> Iterator[Row]:
        """The rows that are not known yet, in order."""
        # Always the same images go together, so that a resumed run repeats every bit.
        batches = [list(batch) for batch in _batched(plans, self.batch_size)]
        batches = [batch for batch in batches if any(plan.models for plan in batch)]
        readers = ThreadPoolExecutor(self.workers, "reading")
        scorers = ThreadPoolExecutor(self.workers, "scoring")
        waiting: deque[Future[Row]] = deque()
        try:
            for batch in self._read_ahead(readers, batches):
                waiting += self._score_batch(scorers, batch)
                # A few images of every model wait at most: memory stays bounded.
                most = (self.workers + self.batch_size) * (1 + len(self.models))
                while waiting and (waiting[0].done() or len(waiting) > most):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for pool in (readers, scorers):
                pool.shutdown(cancel_futures=True)

    def _read_ahead(
        self, readers: ThreadPoolExecutor, batches: Sequence[Sequence[Planned]]
    ) -> Iterator[list[ReadPair]]:
        """Every batch with its pixels; the next ones are read while one is worked on."""
        left = iter(batches)
        ahead: deque[list[Future[ReadPair]]] = deque()
        while True:
            most = max(1, self.workers // self.batch_size)
            for batch in itertools.islice(left, most + 1 - len(ahead)):
                ahead.append([readers.submit(self._read, plan) for plan in batch])
            if not ahead:
                return
            yield [future.result() for future in ahead.popleft()]

    def _read(self, plan: Planned) -> ReadPair:
        return ReadPair(plan, *self.cache.pair(plan.pair))

    def _score_batch(
        self, scorers: ThreadPoolExecutor, batch: Sequence[ReadPair]
    ) -> Iterator[Future[Row]]:
        """The rows of each pair of a batch, input first, then each model."""
        futures: list[list[Future[Row]]] = [[] for _ in batch]
        for place, read in enumerate(batch):
            if INPUT in read.plan.models:
                score = partial(self._score, read, INPUT, read.rainy, read.clean, 0.0)
                futures[place].append(scorers.submit(score))
        for model in self.models:
            if not any(model.name in read.plan.models for read in batch):
                continue
            for place, (derained, seconds) in self._derain(model, batch).items():
                read = batch[place]
                if model.name in read.plan.models:
                    dry = model(read.clean) if "dry" in self.metrics else read.clean
                    score = partial(self._score, read, model.name, derained, dry, seconds)
                    futures[place].append(scorers.submit(score))
        return itertools.chain.from_iterable(futures)

    def _derain(
        self, model: Deraining, batch: Sequence[ReadPair]
    ) -> dict[int, tuple[Pixels, float]]:
        """Derained image and seconds by place in the batch; images of one size together."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, read in enumerate(batch):
            by_size.setdefault(read.rainy.shape, []).append(place)
        results: dict[int, tuple[Pixels, float]] = {}
        for places in by_size.values():
            began = time.perf_counter()
            derained = _derain_images(model, [batch[place].rainy for place in places])
            seconds = (time.perf_counter() - began) / len(places)
            results |= {
                place: (image, seconds) for place, image in zip(places, derained, strict=True)
            }
        return results

    def _score(
        self, read: ReadPair, model: str, derained: Pixels, dry: Pixels, seconds: float
    ) -> Row:
        dataset, pair, protocol = read.plan.dataset, read.plan.pair, read.plan.protocol
        try:
            scores = score_image(
                derained, read.rainy, read.clean, protocol, self.metrics, self.distances
            )
        except ImageError as error:
            where = f"pair {pair.name!r} of {dataset!r} under {model!r}"
            way_out = "take the image out, or leave that one out of `metrics`"
            raise ImageError(f"{where}: {error}; {way_out}") from error
        if "dry" in self.metrics:
            scores["dry"] = psnr(dry, read.clean, protocol)
        row = Row(dataset, pair.group, pair.name, model, protocol, scores, seconds, tone=read.tone)
        self.observe(Scored(row, read.rainy, derained, read.clean))
        return row


def _batched(plans: Sequence[Planned], size: int) -> Iterator[Sequence[Planned]]:
    for start in range(0, len(plans), size):
        yield plans[start : start + size]


def _derain_images(model: Deraining, rainy: Sequence[Pixels]) -> Sequence[Pixels]:
    if len(rainy) > 1 and isinstance(model, BatchDeraining):
        return model.derain_together(rainy)
    return [model(image) for image in rainy]


def load_distances(metrics: Collection[str]) -> dict[str, Distance]:
    """Networks of the metrics that need one.

    Raises:
        UnavailableError: Their weights are not here; says where they come from.
        CheckpointError: Their files are damaged.
    """
    if not {"lpips", "dists"} & set(metrics):
        return {}
    from derain_cli.metrics.perceptual import load_dists, load_lpips  # noqa: PLC0415 (torch)

    loaders: dict[str, Callable[[], Distance]] = {"lpips": load_lpips, "dists": load_dists}
    return {name: load() for name, load in loaders.items() if name in metrics}


def score_image(
    derained: Pixels,
    rainy: Pixels,
    clean: Pixels,
    protocol: str,
    metrics: Sequence[str] = DEFAULT_METRICS,
    distances: Mapping[str, Distance] | None = None,
) -> dict[str, float]:
    """Scores of one image by column, in the order of the metrics.

    Args:
        derained: `(height, width, 3)` uint8.
        rainy: What was derained, same shape and type.
        clean: The ground truth, same shape and type.
        protocol: Key of `PROTOCOLS`, for PSNR and SSIM.
        metrics: Keys of `METRICS`; "dry" is left for whoever has the model.
        distances: Networks of LPIPS and DISTS, if those are asked for (`load_distances`).

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
    for name, distance in (distances or {}).items():
        scores[name] = distance(derained, clean)
    if "e_r" in metrics or "e_b" in metrics:
        errors = region_errors(derained, rainy, clean)
        scores |= {"e_r": errors.e_r, "e_r_ceiling": errors.e_r_ceiling, "e_b": errors.e_b}
    if "change" in metrics:
        difference = np.abs(derained.astype(np.int16) - rainy)
        scores["change"] = float(difference.mean())
        scores["changed"] = float((difference.max(axis=2) > UNCHANGED_LEVELS).mean())
    return {column: scores.get(column, np.nan) for column in columns_of(metrics)}


def columns_of(metrics: Iterable[str]) -> list[str]:
    """Columns that metrics fill, in their order.

    Example:
        >>> columns_of(["e_r", "psnr"])
        ['e_r', 'e_r_ceiling', 'psnr']
    """
    return [column for metric in metrics for column in METRICS[metric]]
