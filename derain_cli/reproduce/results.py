"""Ours beside the paper's: means with their errors, and paired differences with intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from derain_cli.evaluation.statistics import bootstrap_interval
from derain_cli.reproduce.plan import Options, chosen_rows, job_of
from derain_cli.reproduce.runner import finished_jobs, missing_tests, reasons, sheet_path
from derain_cli.reproduce.scoring import Scores, Sheet, count_network
from derain_cli.reproduce.tables import Column, Row, Table
from derain_cli.training.configs.train import TrainConfig


@dataclass(frozen=True)
class Measure:
    """A metric as tables print it."""

    title: str
    decimals: int


MEASURES: Mapping[str, Measure] = {
    "psnr": Measure("PSNR", 2),
    "ssim": Measure("SSIM", 4),
    "niqe": Measure("NIQE", 2),
    "change": Measure("change, of 255", 2),
    "e_r": Measure("E_R", 2),
    "e_r_ceiling": Measure("E_R ceiling", 2),
    "e_b": Measure("E_B", 2),
    "parameters_k": Measure("parameters, K", 0),
    "macs_m": Measure("MACs, M", 0),
}


@dataclass(frozen=True)
class Cell:
    """A metric of a row on a test set.

    Attributes:
        ours: Mean over images (of each image's mean over seeds); NaN without a result.
        error: Its standard error over images; NaN for fewer than two.
        spread: Sample deviation of the seeds' means; NaN for fewer than two seeds.
        images: How many images were scored.
        seeds: How many networks.
        paper: What the paper prints, None where nothing.
        difference: Ours minus the compared row's, image by image; NaN without.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        reason: Why there is no result of ours.
    """

    ours: float = math.nan
    error: float = math.nan
    spread: float = math.nan
    images: int = 0
    seeds: int = 0
    paper: float | None = None
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the result: its name, what the paper calls it, and a cell per column and metric."""

    name: str
    method: str
    ours: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Results:
    """All that is known of a table.

    Attributes:
        heads: Column and metric of each cell.
        lines: The untouched input first, then the rows in the paper's order.
        runs: What `done.json` says of each finished job.
        missing: Jobs that lack something, with the reason.
    """

    table: Table
    heads: tuple[tuple[Column, str], ...]
    lines: tuple[Line, ...]
    runs: Mapping[str, dict[str, Any]]
    missing: Mapping[str, str]
    missing_tests: Sequence[str]


def results_of(table: Table, options: Options) -> Results:
    """What the files of a table's folder come to."""
    heads = tuple((column, metric) for column in table.columns for metric in column.metrics)
    done, missing = finished_jobs(table, options), reasons(table, options)
    wanted = {row.name for row in chosen_rows(table, options.rows)}
    filling = _Filling(table, options, missing)
    lines = [] if table.count_only else [_input_line(table, options)]
    for row in table.rows:
        if row.is_ours and row.name not in wanted:
            continue
        cells = tuple(filling.cell(row, column, metric) for column, metric in heads)
        lines.append(Line(row.name, row.method or row.name, row.is_ours, cells))
    return Results(table, heads, tuple(lines), done, missing, missing_tests(table, options))


def _input_line(table: Table, options: Options) -> Line:
    cells = []
    for column in table.columns:
        sheets = [
            sheet
            for row in chosen_rows(table, options.rows)
            for sheet in _sheets(row, column, options)
        ]
        for metric in column.metrics:
            values = _values(sheets[0].of_input, column, metric) if sheets else {}
            cells.append(_mean_cell([values] if values else [], None))
    return Line("input", "(untouched input)", True, tuple(cells))


def _sheets(row: Row, column: Column, options: Options) -> list[Sheet]:
    """Scores of a row on a column's test set, one sheet a seed."""
    found = []
    for seed in range(options.seeds):
        job = job_of(row, column, seed)
        sheet = Sheet.read(sheet_path(job, column, options)) if job else None
        found += [sheet] if sheet else []
    return found


def _values(scores: Scores, column: Column, metric: str) -> dict[str, float]:
    """The defined scores of a column's group by image."""
    return {
        image: values[metric]
        for image, values in scores.items()
        if image.startswith(f"{column.group}/" if column.group else "")
        and not math.isnan(values.get(metric, math.nan))
    }


@dataclass(frozen=True)
class _Filling:
    """What fills the cells of a table: the files of its folder.

    Attributes:
        missing: Jobs that lack something, with the reason.
    """

    table: Table
    options: Options
    missing: Mapping[str, str]

    def cell(self, row: Row, column: Column, metric: str) -> Cell:
        """A metric of a row on a test set, compared with the table's row for that."""
        paper = _printed(row, column, metric)
        if not row.is_ours:
            return Cell(paper=paper)
        if self.table.count_only:
            settings = row.runs[-1].options.get("model_option", ())
            return Cell(ours=count_network(_settings(settings))[metric], paper=paper)
        values = self._values(row, column, metric)
        if not values:
            return Cell(paper=paper, reason=self._reason(row, column))
        cell = _mean_cell(values, paper)
        against = next((row for row in self.table.rows if row.name == self.table.against), row)
        if against.name == row.name:
            return cell
        return _compared(cell, values, self._values(against, column, metric))

    def _values(self, row: Row, column: Column, metric: str) -> list[dict[str, float]]:
        sheets = _sheets(row, column, self.options)
        return [_values(sheet.scores, column, metric) for sheet in sheets]

    def _reason(self, row: Row, column: Column) -> str:
        job = job_of(row, column, 0)
        return self.missing.get(job.name, "not run yet") if job else "not run yet"


def _settings(options: Sequence[str]) -> dict[str, Any]:
    return TrainConfig(model_option=tuple(options)).model_options()


def _printed(row: Row, column: Column, metric: str) -> float | None:
    figures = row.paper.get(column.label)
    return figures[column.metrics.index(metric)] if figures else None


def _mean_cell(values: Sequence[Mapping[str, float]], paper: float | None) -> Cell:
    """Mean over images of the mean over seeds, with its errors."""
    if not values or not values[0]:
        return Cell(paper=paper)
    by_image = np.array(_over_seeds(values))
    means = np.array([np.mean(list(seed.values())) for seed in values])
    count = len(by_image)
    return Cell(
        ours=float(by_image.mean()),
        error=float(by_image.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan,
        spread=float(means.std(ddof=1)) if len(means) > 1 else math.nan,
        images=count,
        seeds=len(values),
        paper=paper,
    )


def _over_seeds(values: Sequence[Mapping[str, float]]) -> list[float]:
    """Each image's mean over the seeds, in the order of the first."""
    shared = [image for image in values[0] if all(image in seed for seed in values)]
    return [float(np.mean([seed[image] for seed in values])) for image in shared]


def _compared(
    cell: Cell, values: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]
) -> Cell:
    """The cell with its difference from the compared row, over the images of both."""
    if not others or not others[0]:
        return cell
    images = [image for image in values[0] if all(image in seed for seed in (*values, *others))]

    def of(seeds: Sequence[Mapping[str, float]], image: str) -> float:
        return float(np.mean([seed[image] for seed in seeds]))

    gains = np.array([of(values, image) - of(others, image) for image in images])
    if not len(gains):
        return cell
    low, high = bootstrap_interval(gains)
    difference = float(gains.mean())
    return dataclasses.replace(cell, difference=difference, low=low, high=high)
