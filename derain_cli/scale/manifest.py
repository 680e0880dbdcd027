"""The manifest of a run: a line of JSON per image, appended whole, trusted by the next run."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_cli.errors import UsageError

VERSION = 1
KIND = "image"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one image.

    Attributes:
        input: Path or address of the original.
        status: "done" or "failed".
        size: Bytes of the input; None where that is not known.
        version: What changes with the input's content: its time in nanoseconds, or its ETag.
        weights: SHA-256 of the checkpoint.
        options: The options that change a result, as JSON with sorted keys.
        output: Path or address of the derained image.
        sha256: Of the output's content.
        error: Why it failed.
        seconds: Spent on it.
        when: Seconds since 1970 at the end.
    """

    input: str
    status: str
    size: int | None = None
    version: str = ""
    weights: str = ""
    options: str = "{}"
    output: str | None = None
    sha256: str | None = None
    error: str | None = None
    seconds: float | None = None
    when: float = 0.0

    def line(self) -> bytes:
        """The record as a line of JSON with its newline."""
        fields = {"v": VERSION, "kind": KIND} | dataclasses.asdict(self)
        fields["options"] = json.loads(self.options)
        # ASCII alone: a name that is no valid text survives as an escaped surrogate.
        return json.dumps(fields).encode("ascii") + b"\n"

    def outdated_by(self, wanted: "Record") -> str:
        """Why this result is not the one that is wanted now, or an empty text."""
        if (self.size, self.version) != (wanted.size, wanted.version):
            return "the input has changed"
        if self.weights != wanted.weights:
            return "made with other weights"
        if self.options != wanted.options:
            return f"made with other options ({_difference(self.options, wanted.options)})"
        return ""


def _difference(before: str, now: str) -> str:
    """The options that differ.

    Example:
        >>> _difference('{"strength": 1.0, "tile": 0}', '{"strength": 0.5, "tile": 0}')
        'strength 1.0 -> 0.5'
    """
    old, new = json.loads(before), json.loads(now)
    keys = sorted(key for key in old | new if old.get(key) != new.get(key))
    return ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in keys)


def options_text(options: Mapping[str, Any]) -> str:
    """The options that change a result, in the form in which manifests compare them."""
    return sys.intern(json.dumps(options, sort_keys=True))


def parse_record(line: bytes) -> Record | None:
    """The record of a line; None where a killed run left only part of one."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("kind") != KIND:
        return None
    known = {field.name for field in dataclasses.fields(Record)} & fields.keys()
    try:
        return Record(
            **{key: fields[key] for key in known}
            | {"options": options_text(fields.get("options") or {})}
        )
    except TypeError:
        return None


def read_manifest(path: Path) -> dict[str, Record]:
    """The last record of each input that says what its result is; a missing file holds none.

    A failure leaves an older result as it was, so that it does not stand before its record.

    Raises:
        UsageError: The file cannot be read, or is no manifest.
    """
    known: dict[str, Record] = {}
    for record in read_records(path):
        before = known.get(record.input)
        if record.status == "done" or before is None or before.status != "done":
            known[record.input] = record
    return known


def read_records(path: Path) -> Iterator[Record]:
    """Every whole record, in the order of the file.

    Raises:
        UsageError: The file cannot be read, or its first line is of another kind.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                record = parse_record(line)
                if record is None and number == 0 and line.endswith(b"\n"):
                    raise UsageError(
                        f"{str(path)!r} is not a manifest of this program; name another file"
                    )
                if record is not None:
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot read the manifest {str(path)!r}: {error.strerror}") from error


class ManifestWriter:
    """Appends records, each with one write, so that lines of several threads or runs stay whole."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file.

        Raises:
            UsageError: It cannot be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UsageError(
                f"cannot write the manifest {str(path)!r}: {error.strerror}"
            ) from error
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """A killed run may have left a line without its end; the next must not continue it."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        if size:
            os.lseek(self._file, size - 1, os.SEEK_SET)
            if os.read(self._file, 1) != b"\n":
                os.write(self._file, b"\n")

    def write(self, record: Record) -> None:
        """Append a record, with the time if it has none."""
        if not record.when:
            record = dataclasses.replace(record, when=round(time.time(), 3))
        os.write(self._file, record.line())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class Merged:
    """Several manifests as one.

    Attributes:
        records: The last record of each input, in the order of first appearance; one that is done
            wins over one that failed.
        twice: Inputs that were done by more than one run.
    """

    records: Mapping[str, Record]
    twice: tuple[str, ...]

    @property
    def failed(self) -> tuple[Record, ...]:
        """The records of images that no run could do."""
        return tuple(record for record in self.records.values() if record.status != "done")


def merge_manifests(paths: Iterable[Path]) -> Merged:
    """What several runs did together.

    Raises:
        UsageError: A file that is not there, cannot be read, or is no manifest.
    """
    records: dict[str, Record] = {}
    done_by: dict[str, Path] = {}
    twice: dict[str, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"no such manifest: {str(path)!r}")
        for record in read_records(path):
            before = records.get(record.input)
            if record.status == "done" and done_by.setdefault(record.input, path) != path:
                twice[record.input] = None
            if before is None or before.status != "done" or record.status == "done":
                records[record.input] = record
    return Merged(records, tuple(twice))
