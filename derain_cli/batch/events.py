"""What happens in a batch, as its consumer is told."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from derain_cli.batch.rain import Rain
from derain_cli.errors import DerainError


@dataclass(frozen=True)
class PassedOver:
    """Something that was named or found and is no input, and why."""

    path: str
    reason: str


class Remote(Protocol):
    """A file beyond this machine; `scale.addresses.Address` is one."""

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def suffix(self) -> str:
        """The ending of its name."""

    @property
    def decoded_size(self) -> int:
        """Bytes of the image in memory, 0 where that is not known."""

    def read_bytes(self) -> bytes:
        """The whole content."""

    def write_whole(self, content: bytes, *, overwrite: bool) -> bool:
        """Write it whole or not at all; False where something else is there and stays."""


Location = Path | Remote


class _Place:
    """A field that keeps a path as text: of a million jobs, paths take longer than the whole plan.

    It takes a path or its text, and gives a path.
    """

    def __set_name__(self, _owner: type, name: str) -> None:
        self._kept = f"_{name}"

    def __get__(self, job: object | None, _owner: type) -> Location | None:
        if job is None:  # the default, which `dataclass` asks for
            return None
        place = getattr(job, self._kept)
        return Path(place) if isinstance(place, str) else cast("Location | None", place)

    def __set__(self, job: object, place: str | Location | None) -> None:
        text = str(place) if isinstance(place, Path) else place
        object.__setattr__(job, self._kept, text)


@dataclass(frozen=True)
class Job:
    """One image and where its results go.

    Attributes:
        source: File to read; None: the bytes from stdin.
        derained: File to write; None: stdout.
        rain: File for the rain layer, if wanted.
        compare: File for the side-by-side image, if wanted.
        skip: Whether all results are there already and are to be kept.
        problem: Why the image cannot be read, where that is known without opening it.
        relative: Its path below the folder that was named; shards are told apart by it.
        redo: Why results that are there are replaced although such results are kept.
        kind: What is read; decides which way it takes.
    """

    source: _Place = _Place()
    derained: _Place = _Place()
    rain: _Place = _Place()
    compare: _Place = _Place()
    skip: bool = False
    problem: str = ""
    relative: str = ""
    redo: str = ""
    kind: Literal["image", "animation", "film"] = "image"

    @property
    def name(self) -> str:
        """How the image is called in messages."""
        return "stdin" if self.source is None else str(self.source)

    @property
    def targets(self) -> tuple[Location, ...]:
        """Files to write; the derained image comes last: once it is there, all are."""
        return tuple(path for path in (self.rain, self.compare, self.derained) if path is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """The targets that lie on this machine, as text."""
        kept = (self._rain, self._compare, self._derained)  # type: ignore[attr-defined]
        return tuple([place for place in kept if isinstance(place, str)])


@dataclass(frozen=True)
class Plan:
    """Every job of a batch, in the order of the inputs; folders in natural order.

    Attributes:
        jobs: What is to be done. Where `is_open`, they can be taken once, and there are as many as
            have been taken.
        passed_over: What was named or found and is no input.
        is_open: Whether the jobs become known only while they are taken, as a long listing of a
            server is read.
    """

    jobs: Collection[Job]
    passed_over: tuple[PassedOver, ...] = ()
    is_open: bool = False

    @property
    def only(self) -> Job | None:
        """The one job of a plan that has one; stdin and stdout hold one image."""
        return next(iter(self.known)) if len(self.known) == 1 else None

    @property
    def to_do(self) -> tuple[Job, ...]:
        """Jobs whose image is to be read; none where they are not known yet."""
        return tuple(job for job in self.known if not job.skip and not job.problem)

    @property
    def known(self) -> Collection[Job]:
        """The jobs that are known before they are taken; none of an open plan."""
        return () if self.is_open else self.jobs

    @property
    def has_work(self) -> bool:
        """Whether an image may have to be read."""
        return self.is_open or bool(self.to_do)


@dataclass(frozen=True)
class Started:
    """The network begins with an image."""

    job: Job


@dataclass(frozen=True)
class Frames:
    """A film or an animation has come so far.

    Attributes:
        job: What is being done.
        done: Frames that are finished; those of an interrupted run count.
        total: Frames that there are.
    """

    job: Job
    done: int
    total: int


@dataclass(frozen=True)
class Motion:
    """What only a film or an animation has.

    Attributes:
        frames: How many were written.
        resumed: How many of them an interrupted run had finished.
        seconds: How long it plays.
        codec: Of the result, as FFmpeg or Pillow calls it.
        flicker: Mean change between aligned neighbours in levels of 8 bits, rainy and derained.
    """

    frames: int
    resumed: int
    seconds: float
    codec: str
    flicker: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """What became of one image.

    Attributes:
        job: What was to be done.
        status: `done`; `skipped`: the results were there; `failed`: see `error`; `planned`: what a
            dry run says of an image that would be derained.
        width: Of the image; None where it was not read, as all that follows.
        height: Of the image.
        bit_depth: 8 or 16.
        seconds: Decoding, network and encoding together, waiting in queues left out.
        tile: Side of the tiles, 0 for the whole image at once.
        notices: What the user should be told.
        error: Why it failed.
        content: The encoded image, where it goes to stdout.
        digest: SHA-256 of the derained file.
        motion: Of films and animations.
        rain: What changed, of images.
        precision: Of the network's arithmetic.
        scales: What the image was shrunken by at most, to find wide rain; 1 for not at all.
    """

    job: Job
    status: Literal["done", "skipped", "failed", "planned"]
    width: int | None = None
    height: int | None = None
    bit_depth: int | None = None
    seconds: float | None = None
    tile: int | None = None
    notices: tuple[str, ...] = ()
    error: DerainError | None = None
    content: bytes | None = None
    digest: str | None = None
    motion: Motion | None = None
    rain: Rain | None = None
    precision: str | None = None
    scales: int | None = None


@dataclass(frozen=True)
class Summary:
    """The last event of a batch that was not interrupted.

    Attributes:
        done: Images derained.
        skipped: Images whose results were there.
        failures: The results of those that failed.
        not_started: Images left out after a failure that ended the batch.
        seconds: From the first decoding to the last written file.
        network_seconds: Share of that in which the network ran.
        megapixels: Derained.
    """

    done: int
    skipped: int
    failures: tuple[Result, ...]
    not_started: int
    seconds: float
    network_seconds: float
    megapixels: float


Event = Started | Frames | Result | Summary
