"""An evaluation's rows on disk the moment they are known, so that a run that was cut off goes on.

Beside `scores.csv` lies `scores.jsonl`: a first line that says what is scored with what, then a
line per row, and a last one when the evaluation is complete. The JSON lines are what is resumed
from; the CSV holds the same rows for other programs. A row is written with one call, and a line
that a sudden end cut off is dropped.
"""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_cli.errors import ResourceError, UsageError
from derain_cli.evaluation.statistics import Row
from derain_cli.whole_files import write_whole

FORMAT = 1
ABOUT = ("dataset", "group", "tone", "image", "model", "protocol")
INFINITE = {"inf": math.inf, "-inf": -math.inf}

Settings = Mapping[str, Any]


class Journal:
    """Rows of an evaluation, kept in a CSV file and in JSON lines beside it.

    Attributes:
        path: The CSV file.
        rows: All rows so far, in their order.
    """

    def __init__(self, path: Path, columns: Sequence[str], settings: Settings) -> None:
        """Journal of an evaluation; `begin` or `resume` opens it.

        Args:
            path: The CSV file, which ends in .csv.
            columns: Of the scores.
            settings: What must be the same for a later `resume`, as JSON can hold it.
        """
        self.path, self.lines_path = path, path.with_suffix(".jsonl")
        self.rows: list[Row] = []
        self._columns, self._settings = list(columns), settings
        self._begun = False

    def begin(self, *, overwrite: bool = False) -> None:
        """Start anew; nothing is written before the first row.

        Raises:
            UsageError: Anything is there but a complete evaluation with these settings, and not
                `overwrite`.
        """
        if overwrite:
            return
        if not self.lines_path.exists():
            if self.path.exists():
                raise UsageError(
                    f"{str(self.path)!r} exists already and is of no evaluation: give `overwrite` "
                    "to replace it, or name another file"
                )
            return
        held = self._read()
        if held.complete and held.lines[0]["settings"] == self._settings:
            return
        what = f"an unfinished evaluation ({held.rows} rows)" if held.begun else "something else"
        if held.complete:
            what = "an evaluation with other settings"
        raise UsageError(
            f"{str(self.lines_path)!r} holds {what}: give `resume` to go on with an evaluation, "
            "`overwrite` to replace it, or name another file"
        )

    def resume(self) -> None:
        """Go on from the rows that are there, or start anew where there are none yet.

        Raises:
            UsageError: It was begun with other settings.
            ResourceError: No space or no permission.
        """
        held = self._read()
        if not held.begun:
            self.begin()
            return
        begun = held.lines[0]["settings"]
        for what in dict.fromkeys((*begun, *self._settings)):
            if begun.get(what) != self._settings.get(what):
                raise UsageError(
                    f"`resume`: {str(self.path)!r} was begun with other {what} "
                    f"({_difference(begun.get(what), self._settings.get(what))}); give what it was "
                    "begun with, or `overwrite` instead of `resume` to begin anew"
                )
        self.rows = [_row(line) for line in held.lines[1:]]
        _cut(self.lines_path, held.size)
        write_whole(self.path, self._csv(self.rows))
        self._begun = True

    def append(self, row: Row) -> None:
        """Write a row to both files.

        Raises:
            ResourceError: No space or no permission.
        """
        if not self._begun:
            first = {"v": FORMAT, "event": "begin", "settings": self._settings}
            write_whole(self.lines_path, _line(first))
            write_whole(self.path, self._csv([]))
            self._begun = True
        self.rows.append(row)
        _append(self.lines_path, _line({"v": FORMAT, "event": "row"} | _fields(row)))
        _append(self.path, self._csv([row], head=False))

    def end(self) -> None:
        """Note that the evaluation is complete."""
        _append(self.lines_path, _line({"v": FORMAT, "event": "end", "rows": len(self.rows)}))

    def _read(self) -> "_Held":
        """The whole lines of the file; none when it is no journal."""
        try:
            content = self.lines_path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise ResourceError(
                f"cannot read {str(self.lines_path)!r}: {error.strerror}"
            ) from error
        lines: list[dict[str, Any]] = []
        size = 0
        for raw in content.splitlines(keepends=True):
            line = _parsed(raw)
            expected = ("row", "end") if lines else ("begin",)
            if line is None or line["event"] not in expected:
                break
            if line["event"] == "end":
                return _Held(lines, size, complete=True)
            lines.append(line)
            size += len(raw)
        return _Held(lines, size, complete=False)

    def _csv(self, rows: Sequence[Row], *, head: bool = True) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if head:
            writer.writerow([*ABOUT, *self._columns, "seconds"])
        for row in rows:
            scores = (row.scores[column] for column in self._columns)
            cells = ["" if math.isnan(score) else score for score in scores]
            names = (without_formula(str(getattr(row, name))) for name in ABOUT)
            writer.writerow([*names, *cells, row.seconds])
        # A name that is no text in UTF-8 comes out as it went in.
        return text.getvalue().encode("utf-8", "surrogateescape")


def without_formula(cell: str) -> str:
    """A cell that spreadsheets take for text, not for a formula to compute.

    Example:
        >>> without_formula("=HYPERLINK(1)"), without_formula("a=b")
        ("'=HYPERLINK(1)", 'a=b')
    """
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


@dataclass(frozen=True)
class _Held:
    """What a journal's file holds: its first line and its rows, and their length in bytes."""

    lines: Sequence[Mapping[str, Any]]
    size: int
    complete: bool

    @property
    def begun(self) -> bool:
        return bool(self.lines)

    @property
    def rows(self) -> int:
        return len(self.lines) - 1


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """A line's event; None for a line that was cut off or is none of ours."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    ours = isinstance(line, dict) and line.get("v") == FORMAT and "event" in line
    return line if ours else None


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, allow_nan=False).encode() + b"\n"


def _fields(row: Row) -> dict[str, Any]:
    about = {name: getattr(row, name) for name in ABOUT}
    scores = {column: _stored(score) for column, score in row.scores.items()}
    return about | {"scores": scores, "seconds": row.seconds}


def _stored(score: float) -> float | str | None:
    """A score as JSON holds it: null for what is not defined, "inf" for equal images."""
    return None if math.isnan(score) else str(score) if math.isinf(score) else score


def _row(line: Mapping[str, Any]) -> Row:
    scores = {
        column: math.nan if score is None else INFINITE.get(score, score)
        for column, score in line["scores"].items()
    }
    return Row(**{name: line[name] for name in ABOUT}, scores=scores, seconds=line["seconds"])


def _append(path: Path, content: bytes) -> None:
    """One write of the whole line: a sudden end leaves all of it or, at worst, its beginning."""
    try:
        with path.open("ab", buffering=0) as file:
            file.write(content)
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _cut(path: Path, size: int) -> None:
    try:
        os.truncate(path, size)
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _difference(begun: object, now: object) -> str:
    """The part of two values of a setting that differs."""
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*begun, *now)):
            if begun.get(key) != now.get(key):
                return f"{key}: {_difference(begun.get(key), now.get(key))}"
    return f"{_shown(begun)}, now {_shown(now)}"


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:16]}…" if len(text) > 40 else text
