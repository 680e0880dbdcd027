"""What happens in a batch, as its consumer is told."""

from dataclasses import dataclass
from typing import Literal

from derain_cli.batch.jobs import Job
from derain_cli.errors import DerainError


@dataclass(frozen=True)
class Started:
    """The network begins with a picture."""

    job: Job


@dataclass(frozen=True)
class Result:
    """What became of one picture.

    Attributes:
        job: What was to be done.
        status: `done`; `skipped`: the results were there; `failed`: see `error`; `planned`: what a
            dry run says of a picture that would be derained.
        width: Of the picture; None where it was not read, as all that follows.
        height: Of the picture.
        bit_depth: 8 or 16.
        seconds: Decoding, network and encoding together, waiting in queues left out.
        tile: Side of the tiles, 0 for the whole picture at once.
        notices: What the user should be told.
        error: Why it failed.
        content: The encoded picture, where it goes to stdout.
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


@dataclass(frozen=True)
class Summary:
    """The last event of a batch that was not interrupted.

    Attributes:
        done: Pictures derained.
        skipped: Pictures whose results were there.
        failures: The results of those that failed.
        not_started: Pictures left out after a failure that ended the batch.
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


Event = Started | Result | Summary
