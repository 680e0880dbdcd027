"""Lists at every width: nothing is cut off."""

import io
import re
import sys

import pytest

from derain_cli.cli.listing import print_listing

ROWS = [["one", "1.25", "for what it is made " * 6], ["another", "10.00", "short"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def listed(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, columns: int) -> list[str]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", stream)
    print_listing(("name", "s/MP"), ("purpose",), ROWS, width=300, right=("s/MP",))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    return [line.rstrip() for line in plain.splitlines()]


def test_off_a_terminal_each_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = listed(monkeypatch, io.StringIO(), 80)
    assert len(lines) == 1 + len(ROWS)
    assert lines[1].split(maxsplit=2) == [ROWS[0][0], ROWS[0][1], ROWS[0][2].strip()]


def test_a_narrow_terminal_has_long_cells_beneath(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = listed(monkeypatch, Terminal(), 80)
    assert lines[:4] == ["name      s/MP", "one       1.25", "another  10.00", ""]
    assert lines[4:] == [f"one: {ROWS[0][2].strip()}", "another: short"]


def test_a_wide_terminal_has_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(listed(monkeypatch, Terminal(), 200)) == 1 + len(ROWS)
