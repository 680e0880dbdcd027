"""What a batch is to do: a job for each picture, and all of them as a plan."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PassedOver:
    """Something that was named or found and is no input, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Job:
    """One picture and where its results go.

    Attributes:
        source: File to read; None: the bytes from stdin.
        derained: File to write; None: stdout.
        rain: File for the rain layer, if wanted.
        compare: File for the side-by-side picture, if wanted.
        skip: Whether all results are there already and are to be kept.
        problem: Why the picture cannot be read, where that is known without opening it.
    """

    source: Path | None
    derained: Path | None = None
    rain: Path | None = None
    compare: Path | None = None
    skip: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """How the picture is called in messages."""
        return "stdin" if self.source is None else str(self.source)

    @property
    def targets(self) -> tuple[Path, ...]:
        """Files to write; the derained picture comes last: once it is there, all are."""
        return tuple(path for path in (self.rain, self.compare, self.derained) if path is not None)


@dataclass(frozen=True)
class Plan:
    """Every job of a batch, in the order of the inputs; folders in natural order."""

    jobs: tuple[Job, ...]
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def to_do(self) -> tuple[Job, ...]:
        """Jobs whose picture is to be read."""
        return tuple(job for job in self.jobs if not job.skip and not job.problem)
