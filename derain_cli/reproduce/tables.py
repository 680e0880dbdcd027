"""What a paper's table is made of: rows that are trained, columns that are scored, its figures.

A table is data. Each row of ours lists the runs that lead to its network; rows that only quote
another method have none. Each column names the test set that it is scored on, and the training set
that its networks learn from: a paper trains anew for most of its test sets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMMANDS = ("train", "finetune", "search")
# What a cell holds: what was printed for each metric of its column, None where nothing was.
Figures = tuple[float | None, ...]


@dataclass(frozen=True)
class Column:
    """A test set, what is measured on it, and what the networks of this column learn from.

    Attributes:
        dataset: Key of `datasets.known.DATASETS`, or another name of a folder in the data root.
        metrics: Keys of `evaluation.statistics.COLUMNS`; `change` (mean absolute change of an
            image, 0..255) where there is no ground truth.
        trained_on: Data sets of the rows' runs; rows that say their data themselves ignore it.
        group: Part of the data set that is scored apart, or "".
        protocol: Key of `metrics.full_reference.PROTOCOLS`; "" for the usual one of the data set.
    """

    dataset: str
    metrics: tuple[str, ...] = ("psnr", "ssim")
    trained_on: tuple[str, ...] = ()
    group: str = ""
    protocol: str = ""

    @property
    def label(self) -> str:
        """Name in tables of figures.

        Example:
            >>> Column("ddn_sirr_test", group="dense").label
            'ddn_sirr_test:dense'
        """
        return f"{self.dataset}:{self.group}" if self.group else self.dataset


@dataclass(frozen=True)
class Run:
    """One run of a row.

    Attributes:
        name: Its folder; rows whose runs have one name share that run.
        command: One of `COMMANDS`.
        options: Fields of the command's config.
        preset: Settings of `configs.presets` that the options stand on; "" for none. A fine-tuning
            stands on its method's published values instead.
        after: Name of an earlier run of the row whose weights this one starts from.
    """

    name: str
    command: str
    options: Mapping[str, Any]
    preset: str = "paper"
    after: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: What `--rows` takes.
        method: What the paper calls it.
        runs: Runs that lead to its network, in order; none for a quoted row.
        paper: Printed figures by label of the column.
    """

    name: str
    method: str
    runs: tuple[Run, ...] = ()
    paper: Mapping[str, Figures] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether this program trains its network."""
        return bool(self.runs)


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
        name: What the command takes.
        title: What it compares.
        source: Paper and number.
        columns: What is scored.
        rows: In the order of the paper.
        against: Name of the row that the others are compared with.
        short: Config fields that `--budget` and `--steps` put in place of the paper's, besides the
            steps.
        short_networks: Network to the options that make it small, likewise.
        images: Images of each test set that `--budget` and `--steps` score; 0 = all.
        photos: Real photos that `--budget` and `--steps` adapt to; 0 = all.
        figure: Draws what the paper draws: `curves` (learning curves) or `points` (a score over
            the number of backgrounds), else "".
        note: What the paper says in words, or what here differs from it.
        count_only: Columns of facts about a network that need no run: parameters, multiply-adds.
    """

    name: str
    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    against: str = ""
    short: Mapping[str, Any] = field(default_factory=dict)
    short_networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: int = 20
    photos: int = 0
    figure: str = ""
    note: str = ""
    count_only: bool = False


@dataclass(frozen=True)
class OutOfReach:
    """A table that cannot be run here, and why."""

    name: str
    title: str
    reason: str


def quoted(text: str, columns: Sequence[Column], ours: Mapping[str, Row]) -> tuple[Row, ...]:
    r"""Rows of a text table with the papers' figures, those of `ours` with their runs.

    The head names the columns by label; cells hold a figure per metric of their column, with `/`
    between, `-` for none. The first word of a line is the row's name, the rest up to two spaces
    the method.

    Example:
        >>> column = Column("rain12")
        >>> quoted("row  method  rain12\nx  Some one's  30.1/0.9", [column], {})[0].paper
        {'rain12': (30.1, 0.9)}
    """
    head, *lines = (re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines())
    known = {column.label: column for column in columns}
    rows = []
    for name, method, *cells in lines:
        paper = {
            label: _figures(cell, len(known[label].metrics))
            for label, cell in zip(head[2:], cells, strict=True)
        }
        made = ours.get(name, Row(name, method))
        rows.append(Row(name, method, made.runs, paper))
    return tuple(rows)


def _figures(cell: str, count: int) -> Figures:
    figures = tuple(None if part == "-" else float(part) for part in cell.split("/"))
    return figures + (None,) * (count - len(figures))


def variants(model: str, prefix: str, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    """Rows that are one training each, told apart by some config fields.

    Args:
        model: The network.
        prefix: Start of the runs' names.
        options: Row's name to its fields.
    """
    return {
        name: Row(name, "", (Run(f"{prefix}-{name}", "train", {"model": model, **fields}),))
        for name, fields in options.items()
    }
