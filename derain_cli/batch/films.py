"""Films and animations of a batch: one at a time, each through stages of its own."""

import contextlib
import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from derain_cli.batch.decoding import Moving
from derain_cli.batch.events import Frames, Job, Motion, Result, Started
from derain_cli.batch.failures import as_derain_error
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.network import Network
from derain_cli.batch.options import ENDINGS, BatchOptions
from derain_cli.batch.writing import write_result
from derain_cli.errors import DiskError, UsageError
from derain_cli.images import DEFAULT_MAX_PIXELS
from derain_cli.video.kinds import FORMAT_OF_SUFFIX, film_suffix_of_bytes, written_suffix
from derain_cli.whole_files import mode_like, sha256_of


class Films:
    """Derains films and animations.

    Attributes:
        disk_failed: The disk refused a file: the next input would meet the same disk.
    """

    def __init__(
        self, network: Network, options: BatchOptions, stdin: bytes, interrupter: Interrupter
    ) -> None:
        self._network, self._options = network, options
        self._stdin, self._interrupter = stdin, interrupter
        self.disk_failed = False

    def run(self, moving: Moving) -> Iterator[Started | Frames | Result]:
        """`Started`, then how far it has come, then its `Result`."""
        job = moving.job
        yield Started(job)
        began = time.perf_counter()
        steps = self._animation(job) if job.kind == "animation" else self._film(job)
        try:
            for event in steps:
                if isinstance(event, Result):
                    seconds = time.perf_counter() - began
                    event = dataclasses.replace(event, seconds=seconds)
                yield event
                if self._interrupter.asked:
                    raise KeyboardInterrupt
        except Exception as error:  # noqa: BLE001 (one odd file must not end a night's batch)
            failure = as_derain_error(job, error)
            self.disk_failed |= isinstance(failure, DiskError)
            yield Result(job, "failed", error=failure)

    @contextlib.contextmanager
    def _in_network(self) -> Iterator[None]:
        began = time.perf_counter()
        with self._interrupter.in_network():
            yield
        self._network.seconds += time.perf_counter() - began

    def _film(self, job: Job) -> Iterator[Frames | Result]:
        source, target = _paths_of(job)
        if source is not None and target is not None:
            yield from self._file(job, source, target)
            return
        with tempfile.TemporaryDirectory(prefix="derain-") as folder:
            yield from self._piped(job, Path(folder))

    def _piped(self, job: Job, folder: Path) -> Iterator[Frames | Result]:
        """A film from or to a pipe, by way of files: films are jumped about in, pipes cannot be."""
        source, target = _paths_of(job)
        if source is None:
            source = folder / ("stdin" + (film_suffix_of_bytes(self._stdin) or ".mp4"))
            source.write_bytes(self._stdin)
        if target is None:
            target = folder / ("derained" + written_suffix(source.suffix))
        for event in self._file(job, source, target):
            if isinstance(event, Result) and job.derained is None:
                yield dataclasses.replace(event, content=target.read_bytes())
            else:
                yield event

    def _file(self, job: Job, source: Path, target: Path) -> Iterator[Frames | Result]:
        from derain_cli.video.films import (  # noqa: PLC0415 (a batch of photos needs none of it)
            FilmOptions,
            FilmProgress,
            derain_film,
        )

        if target.suffix.lower() not in FORMAT_OF_SUFFIX:
            raise UsageError(
                f"`output` {str(target)!r} does not end like a film, which {job.name!r} is"
            )
        options = FilmOptions(
            strength=self._options.strength,
            codec=self._options.codec,
            quality=self._options.quality,
            temporal=self._options.temporal,
            batch_size=self._options.batch_size,
            overwrite=self._options.overwrite or bool(job.redo),
            strict=self._options.strict,
        )
        with contextlib.closing(
            derain_film(source, target, self._network.derainer, options, self._in_network)
        ) as steps:
            for event in steps:
                if isinstance(event, FilmProgress):
                    yield Frames(job, event.frames, event.total)
                    continue
                film, flicker = event.film, event.flicker
                width, height = film.upright_size
                motion = Motion(
                    event.frames,
                    event.resumed,
                    film.seconds,
                    event.codec,
                    (flicker.of_rainy, flicker.of_derained),
                )
                yield Result(
                    job,
                    "done",
                    width,
                    height,
                    film.bits,
                    tile=event.tile,
                    notices=(*event.notices, *self._notices()),
                    digest=sha256_of(target),
                    motion=motion,
                )

    def _animation(self, job: Job) -> Iterator[Frames | Result]:
        from derain_cli.video.animations import (  # noqa: PLC0415 (as above)
            derain_animation,
            read_animation,
        )

        source, target = _paths_of(job)
        assert source is not None
        animation = read_animation(source, self._options.max_pixels or DEFAULT_MAX_PIXELS)
        total = len(animation.images)
        suffix = (target or source).suffix
        if target is None and self._options.format:  # no name on stdout says it
            suffix = ENDINGS[self._options.format]
        steps = derain_animation(
            animation,
            self._derain_image,
            suffix,
            quality=self._options.quality,
            temporal=self._options.temporal,
        )
        for event in steps:
            if isinstance(event, int):
                yield Frames(job, event, total)
                continue
            if target is not None:
                overwrite = self._options.overwrite or bool(job.redo)
                write_result(event.content, target, overwrite=overwrite, mode=mode_like(source))
            height, width = animation.images[0].shape[:2]
            flicker = event.flicker.of_rainy, event.flicker.of_derained
            yield Result(
                job,
                "done",
                width,
                height,
                8,
                tile=0,
                notices=(*animation.lost, *self._notices()),
                digest=hashlib.sha256(event.content).hexdigest(),
                content=None if target else event.content,
                motion=Motion(total, 0, sum(animation.durations) / 1000, event.format, flicker),
            )

    def _derain_image(self, rainy: np.ndarray) -> np.ndarray:
        with self._in_network():
            return self._network.derainer(rainy, strength=self._options.strength)

    def _notices(self) -> tuple[str, ...]:
        if self._options.save_rain or self._options.compare:
            return ("`save_rain` and `compare` are for photos: a film has its result alone",)
        return ()


def _paths_of(job: Job) -> tuple[Path | None, Path | None]:
    """Source and target of a film, which are files of this machine: FFmpeg jumps about in them."""
    source, target = job.source, job.derained
    for place in (source, target):
        if place is not None and not isinstance(place, Path):
            raise UsageError(f"{job.name!r} is a film: films are derained from file to file")
    assert source is None or isinstance(source, Path)
    assert target is None or isinstance(target, Path)
    return source, target
