"""The tables of scores that the shards of one evaluation wrote, as one."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_cli.batch.inputs import natural_order
from derain_cli.errors import UsageError
from derain_cli.evaluation.statistics import Row
from derain_cli.whole_files import write_whole

ABOUT = tuple(field.name for field in dataclasses.fields(Row) if field.name != "scores")


@dataclass(frozen=True)
class Scores:
    """Rows of several files.

    Attributes:
        columns: The head of each file.
        lines: The lines below it, those of a row that another file has left out.
        rows: The same as rows.
        twice: What more than one file has a row of.
    """

    columns: Sequence[str]
    lines: Sequence[Mapping[str, str]]
    rows: Sequence[Row]
    twice: Sequence[str]


def read_scores(files: Sequence[Path]) -> Scores:
    """What several runs scored together; the order is that of one run.

    Raises:
        UsageError: A file that cannot be read, is no table of scores, or has other columns; a data
            set that was scored under two protocols.
    """
    columns: list[str] | None = None
    found: dict[tuple[str, str, str], Mapping[str, str]] = {}
    twice: dict[str, None] = {}
    for file in files:
        head, lines = _read(file)
        columns = columns or head
        if head != columns:
            raise UsageError(f"{str(file)!r} has other columns than {str(files[0])!r}")
        for line in lines:
            key = line["dataset"], line["image"], line["model"]
            if found.setdefault(key, line) is not line:
                twice[" ".join(key)] = None
    _require_one_protocol(found.values())
    models = list(dict.fromkeys(line["model"] for line in found.values()))

    def place(line: Mapping[str, str]) -> tuple[object, ...]:
        return line["dataset"], natural_order(line["image"]), models.index(line["model"])

    ordered = sorted(found.values(), key=place)
    return Scores(columns or [], ordered, [_row(line) for line in ordered], list(twice))


def _require_one_protocol(lines: Iterable[Mapping[str, str]]) -> None:
    """Refuse scores whose mean would say nothing: they differ by whole decibels with the protocol.

    Raises:
        UsageError: A data set has rows under two of them.
    """
    protocols: dict[str, str] = {}
    for line in lines:
        dataset, protocol = line["dataset"], line["protocol"]
        first = protocols.setdefault(dataset, protocol)
        if first != protocol:
            raise UsageError(
                f"{dataset!r} was scored under protocol {first!r} and under {protocol!r}, whose "
                "scores have no common mean: merge the tables of one protocol"
            )


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as text:
            reader = csv.DictReader(text)
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the scores {str(file)!r}: {error}") from error
    head = list(reader.fieldnames or ())
    if not {"dataset", "image", "model", "protocol", "seconds"} <= set(head):
        raise UsageError(f"{str(file)!r} is not a table that eval --csv wrote")
    for number, line in enumerate(lines, start=2):
        _require_whole(line, f"{str(file)!r}, row {number}")
    return head, lines


def _require_whole(line: Mapping[Any, Any], label: str) -> None:
    """Refuse a row that is not as `eval` writes it, as one that was cut short.

    Raises:
        UsageError: It has fewer or more fields than the head, or no number where one belongs.
    """
    if None in line or None in line.values():
        raise UsageError(f"{label}: not as many fields as the head has; score that part again")
    try:
        _row(line)
    except ValueError as error:
        raise UsageError(f"{label}: {error}; score that part again") from error


def _row(line: Mapping[str, str]) -> Row:
    about = {name: line[name] for name in ABOUT if name in line and name != "seconds"}
    scores = {name: _number(line[name]) for name in line if name not in ABOUT}
    return Row(**about, scores=scores, seconds=float(line["seconds"]))


def _number(text: str) -> float:
    return float(text) if text else math.nan


def write_scores(path: Path, scores: Scores) -> None:
    """Write the rows of all files as one.

    Raises:
        ResourceError: No space or no permission.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, scores.columns)
    writer.writeheader()
    writer.writerows(scores.lines)
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))
