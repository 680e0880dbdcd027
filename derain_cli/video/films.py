"""A film from its file to the derained file: decoding, network and encoding at once."""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from derain_cli.errors import ImageError, UnreadableImageError
from derain_cli.images.failures import write_failure
from derain_cli.video.encoding import Coding, choose_coding
from derain_cli.video.frames import FrameNetwork, SegmentWriter, batches
from derain_cli.video.joining import join_film, needs_global_header
from derain_cli.video.kinds import FORMAT_OF_SUFFIX
from derain_cli.video.reading import Film, probe_film
from derain_cli.video.segments import Segment, SegmentFolder
from derain_cli.video.steadiness import Flicker
from derain_cli.whole_files import mode_like, move_whole_file

if TYPE_CHECKING:
    from derain_cli.inference.derainer import Derainer

PART = "whole.part"
AHEAD = 2  # batches that wait to be encoded


@dataclass(frozen=True)
class FilmOptions:
    """How films are derained and written.

    Attributes:
        strength: Share of the rain that is removed, 0..1.
        codec: Key of `encoding.CODERS`, or None: the film's own.
        quality: 1 to 100, or None.
        temporal: Whether each frame is steadied by its two neighbours.
        batch_size: Frames that go through the network together; 1: as the device likes.
        overwrite: Whether a result that is there is replaced.
        strict: Whether a film fails whose frames are not all whole.
    """

    strength: float = 1.0
    codec: str | None = None
    quality: int | None = None
    temporal: bool = True
    batch_size: int = 1
    overwrite: bool = False
    strict: bool = False


@dataclass(frozen=True)
class FilmProgress:
    """Frames that are finished, of all; those that an earlier run finished count."""

    frames: int
    total: int


@dataclass(frozen=True)
class FilmFacts:
    """What became of a film.

    Attributes:
        film: What was read.
        codec: Of the result.
        frames: Frames written.
        resumed: How many of them an earlier run had finished.
        flicker: Of the rainy and the derained film.
        tile: Side of the tiles, 0 for whole frames.
        notices: What the user should be told.
    """

    film: Film
    codec: str
    frames: int
    resumed: int
    flicker: Flicker
    tile: int
    notices: tuple[str, ...]


Guard = Callable[[], AbstractContextManager[None]]


def derain_film(
    source: Path,
    target: Path,
    derainer: "Derainer",
    options: FilmOptions,
    in_network: Guard = nullcontext,
) -> Generator[FilmProgress | FilmFacts]:
    """Derain a film; the target appears when it is whole.

    When the iterator is closed or an exception goes through it, the segments that are finished
    stay in a hidden folder beside the target, and a call with the same arguments goes on there.

    Args:
        source: The film.
        target: The file to write; its ending names the container.
        derainer: The network.
        options: How it is done.
        in_network: Wraps the time in which the network runs, in the calling thread.

    Yields:
        `FilmProgress` after each batch, `FilmFacts` at last.

    Raises:
        UnreadableImageError: Not a film, damaged, cut short, or without frames.
        UsageError: The extra is missing, or the codec cannot hold the film.
        ResourceError: No space, no permission, no memory.
        ImageError: Something appeared at the target, or another run writes it.
    """
    film = probe_film(source)
    container = FORMAT_OF_SUFFIX[target.suffix.lower()]
    coding = choose_coding(film, container, options.codec, options.quality)
    try:
        folder = SegmentFolder(target, _facts(film, coding, container, derainer, options))
        work = _Work(film, coding, container, folder, derainer, options, in_network)
        with closing(folder):
            yield from work.run(target)
    except OSError as error:
        raise write_failure(target, source.stat().st_size, error) from error


class _Work:
    """One film on its way through the three stages."""

    def __init__(
        self,
        film: Film,
        coding: Coding,
        container: str,
        folder: SegmentFolder,
        derainer: "Derainer",
        options: FilmOptions,
        in_network: Guard,
    ) -> None:
        self._film, self._coding, self._container = film, coding, container
        self._folder, self._options, self._in_network = folder, options, in_network
        self._network = FrameNetwork(derainer, options.strength, options.batch_size)

    def run(self, target: Path) -> Iterator[FilmProgress | FilmFacts]:
        segments = self._folder.finished()
        resumed = sum(len(segment.times) for segment in segments)
        yield FilmProgress(resumed, self._film.frames)
        if not (segments and segments[-1].is_last):
            yield from self._frames(resumed)
            segments = self._folder.finished()
        self._check_damage(segments)
        part = self._new_part()
        notices: tuple[str, ...] = ()
        total = sum(len(segment.times) for segment in segments)
        joining = join_film(
            self._film, self._coding, self._container, segments, self._folder.packets(), part
        )
        for said in joining:
            notices = said
            yield FilmProgress(total, total)
        _publish(part, target, overwrite=self._options.overwrite)
        self._folder.remove()
        yield self._facts(segments, resumed, notices)

    def _new_part(self) -> Path:
        """An empty file for the whole film, which keeps its permissions when it is written."""
        part = self._folder.path / PART
        part.unlink(missing_ok=True)
        part.touch(mode=mode_like(self._film.path))
        return part

    def _check_damage(self, segments: list[Segment]) -> None:
        frames = sum(len(segment.times) for segment in segments)
        damage = _damage(self._film, segments, frames)
        if self._options.strict and damage:
            raise UnreadableImageError(
                f"{self._film.label} {damage[0]}; without `strict` it is written as it is"
            )

    def _frames(self, first: int) -> Iterator[FilmProgress]:
        """Every frame from `first` on: one batch is decoded and some are encoded meanwhile."""
        temporal, size = self._options.temporal, self._network.batch_size
        begin = SegmentWriter.first_needed(first, temporal=temporal)
        writer = SegmentWriter(
            self._film,
            self._coding,
            self._folder,
            first=first,
            temporal=temporal,
            global_header=needs_global_header(self._container),
        )
        coming = batches(self._film, begin, size)
        behind: deque[Future[None]] = deque()
        with (
            closing(coming),
            ThreadPoolExecutor(1, "decode") as reader,
            ThreadPoolExecutor(1, "encode") as encoder,
        ):
            ahead = reader.submit(next, coming, None)
            while (batch := ahead.result()) is not None:
                ahead = reader.submit(next, coming, None)
                with self._in_network():
                    derained = self._network.derain(batch)
                behind.append(encoder.submit(writer.add, derained))
                while len(behind) > AHEAD:
                    behind.popleft().result()
                yield FilmProgress(max(first, derained[-1].rainy.index + 1), self._film.frames)
            behind.append(encoder.submit(writer.finish))
            for waiting in behind:
                waiting.result()

    def _facts(self, segments: list[Segment], resumed: int, notices: tuple[str, ...]) -> FilmFacts:
        flicker = sum((segment.flicker for segment in segments), Flicker())
        frames = sum(len(segment.times) for segment in segments)
        said = (*self._film.notices, *self._coding.notices, *self._network.notices, *notices)
        return FilmFacts(
            self._film,
            self._coding.codec,
            frames,
            resumed,
            flicker,
            self._network.tile,
            (*said, *_damage(self._film, segments, frames)),
        )


def _damage(film: Film, segments: list[Segment], frames: int) -> list[str]:
    """What of the input was not whole."""
    lost, damaged = film.frames - frames, sum(segment.damaged for segment in segments)
    return [
        f"is damaged: {count} of {film.frames} frames {what}"
        for count, what in (
            (lost, "could not be decoded and are missing"),
            (damaged, "are made up in part by the decoder"),
        )
        if count > 0
    ]


def _facts(
    film: Film, coding: Coding, container: str, derainer: "Derainer", options: FilmOptions
) -> dict[str, object]:
    """Everything that decides what the segments hold; another value, and they are of no use."""
    status = film.path.stat()
    return {
        "source": [str(film.path.resolve()), status.st_size, status.st_mtime_ns],
        "container": container,
        "coding": [coding.coder.encoder, coding.quality, coding.pixel_format, coding.b_frames],
        "network": _answer_of(derainer),
        "strength": options.strength,
        "temporal": options.temporal,
        "batch": options.batch_size,
    }


def _answer_of(derainer: "Derainer") -> str:
    """What tells one network from another: name, tiles, scales, and its answer to fixed noise."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    answer = hashlib.sha256(derainer(noise).tobytes()).hexdigest()[:16]
    tiles = f"{derainer.tiling.tile} {derainer.tiling.overlap}"
    return f"{derainer.name} {derainer.precision} {tiles} {derainer.scales} {answer}"


def _publish(part: Path, target: Path, *, overwrite: bool) -> None:
    try:
        move_whole_file(part, target, replace=overwrite)
    except FileExistsError as error:
        raise ImageError(f"{str(target)!r} appeared meanwhile; `overwrite` replaces it") from error
