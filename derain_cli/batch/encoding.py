"""Threads that encode and write images behind the network."""

import dataclasses
import hashlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from derain_cli.batch.decoding import results_exist
from derain_cli.batch.events import Job, Location, Remote, Result
from derain_cli.batch.failures import as_derain_error
from derain_cli.batch.layers import rain_layer, side_by_side
from derain_cli.batch.network import Derained
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.places import written_format
from derain_cli.batch.rain import Rain, measure_rain
from derain_cli.batch.writing import Claims, write_result
from derain_cli.errors import DiskError, ImageError
from derain_cli.images import WRITABLE_FORMATS, Picture, encode_image, writing_notices
from derain_cli.whole_files import mode_like


class Encoding:
    """Encodes and writes the results of a batch.

    Attributes:
        disk_failed: The disk refused a file: the next image would meet the same disk.
    """

    def __init__(self, options: BatchOptions, claims: Claims, stdin: bytes = b"") -> None:
        self._options, self._claims, self._stdin = options, claims, stdin
        self._writers = ThreadPoolExecutor(options.thread_count, "derain-write")
        self.disk_failed = False

    def close(self) -> None:
        """Wait for the files that are being written."""
        self._writers.shutdown(wait=True)

    def submit(self, derained: Derained) -> Future[Result]:
        """Write an image's results in another thread."""
        image = derained.rainy.image
        return self._writers.submit(self._finish, derained.result(), image, derained.pixels)

    def _finish(self, result: Result, rainy: Picture, derained: np.ndarray) -> Result:
        began = time.perf_counter()
        try:
            if self._options.skip_existing and results_exist(result.job) and not result.job.redo:
                return Result(result.job, "skipped")
            rain = self._rain_of(rainy, derained)
            dry = self._options.leave_dry and rain is not None and rain.is_dry
            content, written = self._write(result.job, rainy, derained, leave=dry)
            stays = not written.get(result.job.derained, True)
            held = _content_of(result.job.derained, content) if stays else content
        except Exception as error:  # noqa: BLE001 (one odd image must not end a night's batch)
            failure = as_derain_error(result.job, error)
            return dataclasses.replace(result, status="failed", error=failure)
        finally:
            self._claims.release(result.job)
        if written and not any(written.values()):
            return Result(result.job, "skipped")
        seconds = (result.seconds or 0) + time.perf_counter() - began
        job = result.job
        notices = result.notices + self._notices(rainy, job.derained)
        if job.redo:
            notices = (f"derained again: {job.redo}", *notices)
        if rain and dry:
            notices += (f"{rain.in_words()}: {self._left(rainy, job)}",)
        if stays:
            notices += (f"{str(job.derained)!r} was there and stays: only its layers are new",)
        given = content if job.derained is None else None
        return dataclasses.replace(
            result,
            seconds=seconds,
            content=given,
            notices=notices,
            rain=rain,
            digest=hashlib.sha256(held).hexdigest(),
        )

    def _rain_of(self, rainy: Picture, derained: np.ndarray) -> Rain | None:
        """What the network found, whatever share of it is removed; None where it did not run."""
        strength = self._options.strength
        return measure_rain(rainy.rgb, derained, strength) if strength else None

    def _write(
        self, job: Job, rainy: Picture, derained: np.ndarray, *, leave: bool
    ) -> tuple[bytes, dict[Location | None, bool]]:
        """Encode everything, then write everything: what cannot be encoded leaves no file.

        Returns:
            The content of the derained file, and which targets were written: what is there may
            stay, and another run may have been quicker.
        """
        if leave:
            derained = rainy.rgb
        encoded = self.encode_all(job, rainy, derained)
        if leave and self._keeps_format(rainy, job):
            encoded[job.derained] = self._original(job)
        mode = mode_like(job.source)
        written: dict[Location | None, bool] = {
            target: self._store(encoded[target], target, mode, job.redo) for target in job.targets
        }
        return encoded[job.derained], written

    def _left(self, rainy: Picture, job: Job) -> str:
        same = self._keeps_format(rainy, job)
        return "copied unchanged" if same else "written without a change to its pixels"

    def _keeps_format(self, rainy: Picture, job: Job) -> bool:
        return self._format(rainy, job.derained) == rainy.format

    def _original(self, job: Job) -> bytes:
        return self._stdin if job.source is None else job.source.read_bytes()

    def encode_all(
        self, job: Job, rainy: Picture, derained: np.ndarray
    ) -> dict[Location | None, bytes]:
        """The content of every file of a job."""
        image = rainy.with_rgb(derained)
        layers = {job.derained: image}
        if job.rain:
            layers[job.rain] = rainy.with_rgb(rain_layer(rainy.rgb, derained))
        if job.compare:
            layers[job.compare] = side_by_side(rainy, image)
        return {target: self._encode(layers[target], job, target) for target in layers}

    def _encode(self, image: Picture, job: Job, target: Location | None) -> bytes:
        format = self._format(image, target)
        return encode_image(image, format, self._options.quality, name=repr(job.name))

    def _format(self, image: Picture, target: Location | None) -> str:
        """What a target's name asks for; without a name `--format`, then the input's own."""
        named = target and written_format(target)
        own = image.format if image.format in WRITABLE_FORMATS else "png"
        return named or self._options.format or own

    def _notices(self, image: Picture, target: Location | None) -> tuple[str, ...]:
        format = self._format(image, target)
        lost = writing_notices(image, format)
        if image.format in WRITABLE_FORMATS or self._options.format:
            return lost
        return (f"{image.format.upper()} is only read: written as {format.upper()}", *lost)

    def _store(self, content: bytes, target: Location, mode: int, redo: str = "") -> bool:
        """Write a file; False when another run wrote it and it is to be kept."""
        options = self._options
        overwrite = options.overwrite or bool(redo)
        try:
            if not isinstance(target, Path):
                return self._send(content, target, overwrite=overwrite)
            return write_result(
                content,
                target,
                overwrite=overwrite,
                skip_existing=options.skip_existing,
                mode=mode,
            )
        except DiskError:
            self.disk_failed = True
            raise
        except ImageError:
            # A task that a cluster does again meets the very file that it wrote before.
            if not (isinstance(target, Path) and _holds(target, content)):
                raise
            return True

    def _send(self, content: bytes, target: Remote, *, overwrite: bool) -> bool:
        if target.write_whole(content, overwrite=overwrite):
            return True
        if self._options.skip_existing:
            return False
        raise ImageError(
            f"{str(target)!r} exists already: `skip_existing` keeps what is there, `overwrite` "
            "replaces it"
        )


def _content_of(target: Location | None, otherwise: bytes) -> bytes:
    """What a file holds that was kept; another machine's is taken to hold what was made."""
    return target.read_bytes() if isinstance(target, Path) else otherwise


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False
