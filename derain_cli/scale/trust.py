"""What a run may take from an earlier one's manifest, and what it records itself."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from derain_cli.batch.events import Job, Location, Plan, Result
from derain_cli.batch.options import BatchOptions
from derain_cli.scale.addresses import Address
from derain_cli.scale.fetching import Fetched
from derain_cli.scale.manifest import Record, options_text

# Options that change where or how fast results are made, not what they are.
WITHOUT_EFFECT = frozenset(
    {"output", "suffix", "recursive", "overwrite", "skip_existing", "workers", "batch_size"}
    | {"max_pixels", "fail_fast", "device", "engine", "threads", "compile"}
)


def options_of(options: BatchOptions, engine: Mapping[str, Any]) -> str:
    """The options that change a result, as a manifest holds them."""
    fields = dataclasses.asdict(options) | dict(engine)
    return options_text({key: fields[key] for key in fields if key not in WITHOUT_EFFECT})


UNSEEN: tuple[int | None, str] = (None, "")


class Trust:
    """Compares jobs with what a manifest says of them, and makes the records of this run.

    Attributes:
        known: The last record of each input.
    """

    def __init__(self, known: Mapping[str, Record], weights: str, options: str) -> None:
        self.known, self._weights, self._options = known, weights, options
        self._seen: dict[str, tuple[int | None, str]] = {}

    def check(self, plan: Plan) -> Plan:
        """The plan, in which results that no longer fit their inputs or options are made again."""
        if plan.is_open:
            return dataclasses.replace(plan, jobs=_Checked(plan.jobs, self._check))
        return dataclasses.replace(plan, jobs=tuple(map(self._check, plan.jobs)))

    def _check(self, job: Job) -> Job:
        wanted = self._record(job, look=True)
        before = self.known.get(wanted.input)
        if before is None or before.output != wanted.output:
            return job
        if before.status == "done":
            # Also where a layer is missing: one made now would not fit a derained file of before.
            reason = before.outdated_by(wanted)
        else:
            reason = "it failed before" if job.skip else ""
        return dataclasses.replace(job, skip=False, redo=reason) if reason else job

    def record(self, result: Result) -> Record:
        """The record of an image that was derained or failed."""
        error = str(result.error) if result.error is not None else None
        seconds = None if result.seconds is None else round(result.seconds, 4)
        return dataclasses.replace(
            self._record(result.job, look=False),
            status=result.status,
            sha256=result.digest,
            error=error,
            seconds=seconds,
        )

    def _record(self, job: Job, *, look: bool) -> Record:
        """With the state of the input before it was read: a change meanwhile must show later."""
        name = key_of(job.source)
        if look and not job.problem:
            self._seen[name] = _state_of(job.source)
        size, version = self._seen.get(name, UNSEEN) if look else self._seen.pop(name, UNSEEN)
        output = None if job.derained is None else key_of(job.derained)
        return Record(name, "planned", size, version, self._weights, self._options, output)


class _Checked(Collection[Job]):
    """Jobs of an open plan, each checked when it is taken."""

    def __init__(self, jobs: Collection[Job], check: Callable[[Job], Job]) -> None:
        self._jobs, self._check = jobs, check

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return map(self._check, self._jobs)

    def __contains__(self, job: object) -> bool:
        raise TypeError("an open plan can only be taken job by job")


def key_of(place: Location | None) -> str:
    """How a manifest names a file: an absolute path, or an address without what may be secret."""
    if place is None:
        return "-"
    return os.path.abspath(place) if isinstance(place, Path) else str(place)  # noqa: PTH100


def _state_of(source: Location | None) -> tuple[int | None, str]:
    source = source.address if isinstance(source, Fetched) else source
    if isinstance(source, Address):
        return source.size, source.version
    if not isinstance(source, Path):
        return None, ""
    try:
        facts = source.stat()
    except OSError:
        return None, ""
    return facts.st_size, str(facts.st_mtime_ns)
