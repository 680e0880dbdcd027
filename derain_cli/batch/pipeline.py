"""The pipeline: pictures are decoded ahead of the network and encoded behind it."""

import dataclasses
import logging
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from derain_cli.batch.events import Event, Job, Plan, Result, Started, Summary
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.layers import rain_layer, side_by_side
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.places import written_format
from derain_cli.batch.writing import remove_stale_parts, write_result
from derain_cli.errors import DerainError, ImageError, ResourceError, UnreadableImageError
from derain_cli.images import (
    DEFAULT_MAX_PIXELS,
    WRITABLE_FORMATS,
    Picture,
    encode_image,
    probe_image,
    read_image,
    writing_notices,
)

if TYPE_CHECKING:  # torch is not needed to plan
    from derain_cli.inference.derainer import Derainer

log = logging.getLogger(__name__)

MEGAPIXELS_AT_ONCE = 160  # decoded pictures waiting on either side of the network


def run_batch(
    plan: Plan,
    derainer: "Derainer | None",
    options: BatchOptions,
    stdin: bytes = b"",
    interrupter: Interrupter | None = None,
) -> Generator[Event]:
    """Derain every picture of a plan and yield what happens, results in the plan's order.

    Decoding, network and encoding overlap; the network runs in the calling thread. Files are
    written under a temporary name and moved when they are whole; what a killed run left of such
    files is removed first. After a `KeyboardInterrupt` the picture in the network is dropped, the
    files being written are finished and yielded, and the exception goes on.

    Args:
        plan: From `plan_batch`, made with the same options.
        derainer: The network; may be None when the plan has nothing to do.
        options: How pictures are read and written.
        stdin: The picture, for an input that is `-`.
        interrupter: Raises the `KeyboardInterrupt` where no event is lost.

    Yields:
        `Started` and `Result` for each picture (skipped ones have no `Started`), then a `Summary`.
        A picture that fails is a `Result` with an error; none is raised. A disk that can no longer
        be written to ends the batch, as does the first failure under `fail_fast`.
    """
    remove_stale_parts(plan)
    yield from _Pipeline(derainer, options, stdin, interrupter or Interrupter()).run(plan.jobs)


@dataclass(frozen=True)
class _Decoded:
    job: Job
    picture: Picture
    seconds: float

    def fits(self, other: "_Decoded") -> bool:
        """Whether both can go through the network as one array."""
        one, two = self.picture.rgb, other.picture.rgb
        return one.shape == two.shape and one.dtype == two.dtype

    def result(self, **fields: object) -> Result:
        """A result that states the picture's size."""
        height, width = self.picture.rgb.shape[:2]
        depth = self.picture.bit_depth
        result = Result(self.job, "done", width, height, depth, notices=self.picture.notices)
        return dataclasses.replace(result, **fields)  # type: ignore[arg-type]


class _Pipeline:
    """Threads that decode ahead and encode behind the network, both bounded."""

    def __init__(
        self,
        derainer: "Derainer | None",
        options: BatchOptions,
        stdin: bytes,
        interrupter: Interrupter,
    ) -> None:
        self.derainer, self.options, self.stdin = derainer, options, stdin
        self.interrupter = interrupter
        self.readers = ThreadPoolExecutor(options.thread_count, "derain-read")
        self.writers = ThreadPoolExecutor(options.thread_count, "derain-write")
        self.leaving: deque[tuple[float, Future[Result]]] = deque()
        self.stopped = False
        self.done = self.skipped = 0
        self.failures: list[Result] = []
        self.network_seconds = self.megapixels = 0.0

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """All events of the jobs, in order."""
        began = time.perf_counter()
        try:
            for group in self._groups(jobs):
                if isinstance(group, Result):
                    self._leave(group)
                else:
                    yield from (Started(rainy.job) for rainy in group)
                    self._derain_group(group)
                yield from self._ready()
                if self.stopped or self.interrupter.asked:
                    break
            yield from self._ready(finish=True)
            if self.interrupter.asked:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            yield from self._ready(finish=True)
            raise
        finally:
            self.readers.shutdown(wait=False, cancel_futures=True)
            self.writers.shutdown(wait=True)
        yield self._summary(len(jobs), time.perf_counter() - began)

    # Decoding

    def _groups(self, jobs: Sequence[Job]) -> Iterator[Result | list[_Decoded]]:
        """Neighbours of one shape and depth together, at most `batch_size`."""
        group: list[_Decoded] = []
        for read in self._read_ahead(jobs):
            if group and (isinstance(read, Result) or not read.fits(group[0])):
                yield group
                group = []
            if isinstance(read, Result):
                yield read
                continue
            group.append(read)
            if len(group) == self.options.batch_size:
                yield group
                group = []
        if group:
            yield group

    def _read_ahead(self, jobs: Sequence[Job]) -> Iterator[Result | _Decoded]:
        """Each job's picture in order, the next ones being decoded meanwhile."""
        waiting = deque(jobs)
        ahead: deque[tuple[float, Future[Result | _Decoded]]] = deque()
        while waiting or ahead:
            while waiting and len(ahead) <= max(self.options.thread_count, self.options.batch_size):
                size = _megapixels(waiting[0])
                if ahead and size + sum(other for other, _ in ahead) > MEGAPIXELS_AT_ONCE:
                    break
                ahead.append((size, self.readers.submit(self._read, waiting.popleft())))
            yield ahead.popleft()[1].result()

    def _read(self, job: Job) -> Result | _Decoded:
        if job.skip:
            return Result(job, "skipped")
        if job.problem:
            return Result(job, "failed", error=UnreadableImageError(job.problem))
        began = time.perf_counter()
        try:
            source = self.stdin if job.source is None else job.source
            name = job.name if job.source is None else None
            picture = read_image(
                source, max_pixels=self.options.max_pixels or DEFAULT_MAX_PIXELS, name=name
            )
        except Exception as error:  # noqa: BLE001 (one odd file must not end a night's batch)
            return Result(job, "failed", error=_as_derain_error(job, error))
        return _Decoded(job, picture, time.perf_counter() - began)

    # Network

    def _derain_group(self, group: Sequence[_Decoded]) -> None:
        """Together if there are several; each alone where that does not work out."""
        if len(group) == 1 or not self._derain_together(group):
            for rainy in group:
                self._derain(rainy)

    def _derain(self, rainy: _Decoded) -> None:
        assert self.derainer is not None, "a plan with something to do needs a derainer"
        began = time.perf_counter()
        try:
            with self.interrupter.in_network():
                derained, facts = self.derainer.run(rainy.picture.rgb, self.options.strength)
        except Exception as error:  # noqa: BLE001 (as above; KeyboardInterrupt is none)
            failure = _as_derain_error(rainy.job, error)
            self._leave(rainy.result(status="failed", error=failure))
            return
        seconds = time.perf_counter() - began
        self.network_seconds += seconds
        self._write_later(rainy, derained, seconds, facts.tile, facts.notices)

    def _derain_together(self, group: Sequence[_Decoded]) -> bool:
        """Whether pictures of one shape went through the network in one go."""
        assert self.derainer is not None, "a plan with something to do needs a derainer"
        began = time.perf_counter()
        try:
            with self.interrupter.in_network():
                derained = _derain_stack(
                    self.derainer, [rainy.picture.rgb for rainy in group], self.options.strength
                )
        except Exception as error:  # noqa: BLE001 (each alone will tell what is wrong)
            log.info("%d pictures are derained one by one: %s", len(group), error)
            return False
        seconds = time.perf_counter() - began
        self.network_seconds += seconds
        for rainy, pixels in zip(group, derained, strict=True):
            self._write_later(rainy, pixels, seconds / len(group), self.derainer.tile or 0)
        return True

    def _write_later(
        self,
        rainy: _Decoded,
        derained: np.ndarray,
        seconds: float,
        tile: int,
        notices: tuple[str, ...] = (),
    ) -> None:
        result = rainy.result(
            tile=tile,
            seconds=rainy.seconds + seconds,
            notices=rainy.picture.notices + notices,
        )
        future = self.writers.submit(self._finish, result, rainy.picture, derained)
        self.leaving.append((derained.size / 3e6, future))

    # Encoding

    def _finish(self, result: Result, rainy: Picture, derained: np.ndarray) -> Result:
        began = time.perf_counter()
        try:
            content = self._write(result.job, rainy, derained)
        except Exception as error:  # noqa: BLE001 (as above)
            return dataclasses.replace(
                result, status="failed", error=_as_derain_error(result.job, error)
            )
        seconds = (result.seconds or 0) + time.perf_counter() - began
        notices = result.notices + self._notices(rainy, result.job.derained)
        return dataclasses.replace(result, seconds=seconds, content=content, notices=notices)

    def _write(self, job: Job, rainy: Picture, derained: np.ndarray) -> bytes | None:
        """Encode everything, then write everything: what cannot be encoded leaves no file."""
        picture = rainy.with_rgb(derained)
        layers = {job.derained: picture}
        if job.rain:
            layers[job.rain] = rainy.with_rgb(rain_layer(rainy.rgb, derained))
        if job.compare:
            layers[job.compare] = side_by_side(rainy, picture)
        encoded = {target: self._encode(layers[target], job, target) for target in layers}
        for target in job.targets:
            self._store(encoded[target], target)
        return encoded[None] if job.derained is None else None

    def _encode(self, picture: Picture, job: Job, target: Path | None) -> bytes:
        format = self._format(picture, target)
        return encode_image(picture, format, self.options.quality, name=repr(job.name))

    def _format(self, picture: Picture, target: Path | None) -> str:
        """What a target's name asks for; without a name `--format`, then the input's own."""
        named = target and written_format(target)
        own = picture.format if picture.format in WRITABLE_FORMATS else "png"
        return named or self.options.format or own

    def _notices(self, picture: Picture, target: Path | None) -> tuple[str, ...]:
        format = self._format(picture, target)
        lost = writing_notices(picture, format)
        if picture.format in WRITABLE_FORMATS or self.options.format:
            return lost
        return (f"{picture.format.upper()} is only read: written as {format.upper()}", *lost)

    def _store(self, content: bytes, target: Path) -> None:
        if self.options.skip_existing and os.path.lexists(target):
            return
        try:
            write_result(content, target, overwrite=self.options.overwrite)
        except ResourceError:
            self.stopped = True  # the next picture would meet the same disk
            raise

    # Results

    def _leave(self, result: Result) -> None:
        future: Future[Result] = Future()
        future.set_result(result)
        self.leaving.append((0.0, future))

    def _ready(self, *, finish: bool = False) -> Iterator[Result]:
        """Results at the head of the queue; waits only where too many are being written."""
        while self.leaving:
            crowded = len(self.leaving) > 2 * self.options.thread_count
            crowded |= sum(size for size, _ in self.leaving) > MEGAPIXELS_AT_ONCE
            if not (finish or crowded or self.leaving[0][1].done()):
                return
            result = self.leaving[0][1].result()
            self.leaving.popleft()
            self._count(result)
            yield result

    def _count(self, result: Result) -> None:
        if result.status == "failed":
            self.failures.append(result)
            self.stopped |= self.options.fail_fast
        self.done += result.status == "done"
        self.skipped += result.status == "skipped"
        if result.status == "done" and result.width and result.height:
            self.megapixels += result.width * result.height / 1e6

    def _summary(self, jobs: int, seconds: float) -> Summary:
        counted = self.done + self.skipped + len(self.failures)
        return Summary(
            self.done,
            self.skipped,
            tuple(self.failures),
            jobs - counted,
            seconds,
            self.network_seconds,
            self.megapixels,
        )


def _derain_stack(derainer: "Derainer", rainy: Sequence[np.ndarray], strength: float) -> np.ndarray:
    """Pictures of one shape as `(batch, height, width, 3)`, of their own type."""
    import torch  # noqa: PLC0415 (planning, and the command's usage errors, do without)

    stacked = np.stack(rainy)
    largest = np.iinfo(stacked.dtype).max
    levels = torch.from_numpy(stacked.astype(np.float32) / largest).permute(0, 3, 1, 2)
    derained = torch.lerp(levels, derainer.derain_tensor(levels), strength).permute(0, 2, 3, 1)
    pixels: np.ndarray = (derained * largest).round().numpy().astype(stacked.dtype)
    return pixels


def _megapixels(job: Job) -> float:
    """Size from the header alone, 0 where it cannot be read (then decoding will say why)."""
    if job.source is None or job.skip or job.problem:
        return 0.0
    try:
        width, height = probe_image(job.source)
    except (DerainError, OSError):
        return 0.0
    return width * height / 1e6


def _as_derain_error(job: Job, error: Exception) -> DerainError:
    """The error itself, or a bug's as one line with its traceback in the log."""
    if isinstance(error, DerainError):
        return error
    if isinstance(error, MemoryError):
        return ResourceError(f"{job.name!r}: not enough memory for a picture of this size")
    log.error("unexpected error with %r", job.name, exc_info=error)
    return ImageError(f"{job.name!r}: unexpected {type(error).__name__}: {error}")
