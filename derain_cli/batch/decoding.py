"""Threads that decode images ahead of the network."""

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from derain_cli.batch.events import Job, Result
from derain_cli.batch.failures import as_derain_error
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.writing import Claims
from derain_cli.errors import DerainError, UnreadableImageError
from derain_cli.images import DEFAULT_MAX_PIXELS, Picture, decoded_bytes, read_image
from derain_cli.video.kinds import film_suffix_of_bytes

BYTES_AT_ONCE = 480_000_000  # of decoded pixels that wait on either side of the network


@dataclass(frozen=True)
class Decoded:
    """An image in memory, ready for the network."""

    job: Job
    image: Picture
    seconds: float

    def fits(self, other: "Decoded") -> bool:
        """Whether both can go through the network as one array."""
        one, two = self.image.rgb, other.image.rgb
        return one.shape == two.shape and one.dtype == two.dtype

    def result(self, **fields: object) -> Result:
        """A result that states the image's size."""
        height, width = self.image.rgb.shape[:2]
        depth = self.image.bit_depth
        result = Result(self.job, "done", width, height, depth, notices=self.image.notices)
        return dataclasses.replace(result, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Moving:
    """A film or an animation, which is decoded frame by frame when its turn comes."""

    job: Job


class Decoding:
    """Decodes the images of a batch in order, a bounded number of them ahead of the network."""

    def __init__(self, options: BatchOptions, stdin: bytes, claims: Claims) -> None:
        self._options, self._stdin, self._claims = options, stdin, claims
        self._readers = ThreadPoolExecutor(options.thread_count, "derain-read")

    def close(self) -> None:
        """Drop what nobody has asked for yet."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def groups(self, jobs: Iterable[Job]) -> Iterator[Result | Moving | list[Decoded]]:
        """Neighbours of one shape and depth together, at most `batch_size`."""
        group: list[Decoded] = []
        for read in self._read_ahead(jobs):
            if group and (isinstance(read, (Result, Moving)) or not read.fits(group[0])):
                yield group
                group = []
            if isinstance(read, (Result, Moving)):
                yield read
                continue
            group.append(read)
            if len(group) == self._options.batch_size:
                yield group
                group = []
        if group:
            yield group

    def _read_ahead(self, jobs: Iterable[Job]) -> Iterator[Result | Moving | Decoded]:
        """Each job's image in order, while the next ones are being decoded."""
        ahead: deque[tuple[int, Future[Result | Moving | Decoded]]] = deque()
        most_ahead = max(self._options.thread_count, self._options.batch_size)
        for job in jobs:
            size = _bytes_of(job)
            while ahead and (
                len(ahead) > most_ahead or size + sum(other for other, _ in ahead) > BYTES_AT_ONCE
            ):
                yield ahead.popleft()[1].result()
            ahead.append((size, self._readers.submit(self.read, job)))
        while ahead:
            yield ahead.popleft()[1].result()

    def read(self, job: Job) -> Result | Moving | Decoded:
        """The image of a job; the result where that is known or it cannot be read."""
        if job.skip:
            return Result(job, "skipped")
        if job.problem:
            return Result(job, "failed", error=UnreadableImageError(job.problem))
        if self._options.skip_existing:
            claimed = self._claims.take(job)
            if results_exist(job) and not job.redo:  # another run has been quicker
                self._claims.release(job)
                return Result(job, "skipped")
            if not claimed:
                return Result(job, "skipped", notices=("another run is deraining it",))
        if job.kind != "image" or (job.source is None and film_suffix_of_bytes(self._stdin)):
            return Moving(job)
        began = time.perf_counter()
        try:
            image = self._image_of(job)
        except Exception as error:  # noqa: BLE001 (one odd file must not end a night's batch)
            self._claims.release(job)
            return Result(job, "failed", error=as_derain_error(job, error))
        return Decoded(job, image, time.perf_counter() - began)

    def _image_of(self, job: Job) -> Picture:
        most, strict = self._options.max_pixels or DEFAULT_MAX_PIXELS, self._options.strict
        if job.source is None:
            return read_image(self._stdin, max_pixels=most, name=job.name, strict=strict)
        if isinstance(job.source, Path):
            return read_image(job.source, max_pixels=most, strict=strict)
        content = job.source.read_bytes()
        return read_image(content, max_pixels=most, name=job.name, strict=strict)


def results_exist(job: Job) -> bool:
    """Whether all files that a job would write are there."""
    return 0 < len(job.targets) == len(job.files) and all(map(os.path.lexists, job.files))


def _bytes_of(job: Job) -> int:
    """Size of the decoded pixels from the header, 0 where it cannot be read."""
    if job.source is None or job.skip or job.problem or job.kind != "image":
        return 0
    if not isinstance(job.source, Path):
        return job.source.decoded_size
    try:
        return decoded_bytes(job.source)
    except (DerainError, OSError):
        return 0  # decoding will say why
