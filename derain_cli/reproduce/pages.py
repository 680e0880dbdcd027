"""A table's results as Markdown, HTML, CSV, JSON and, where the paper draws, an SVG."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from derain_cli.drawings.points import Series, draw_points
from derain_cli.errors import UsageError
from derain_cli.reproduce.plan import Options, chosen_rows, folder_of, job_of
from derain_cli.reproduce.results import MEASURES, Cell, Line, Results
from derain_cli.training.curves import plot_runs
from derain_cli.whole_files import write_whole


@dataclass(frozen=True)
class Grid:
    """A table to print: heads, and rows of as many cells."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_pages(results: Results, options: Options, command: str) -> list[Path]:
    """Write everything of a table into its folder; the files, the page to read first.

    Args:
        results: What is known.
        options: What was asked for.
        command: The command line, to be quoted.

    Raises:
        ResourceError: No space or no permission.
    """
    try:
        figure, missing = _figure(results, options), ""
    except UsageError as error:  # an extra is not there, and hours of training are done
        figure, missing = "", f"The figure is not drawn: {error}"
    texts = {
        "page.md": to_markdown(results, options, command, figure, missing),
        "page.html": to_html(results, options, command, figure, missing),
        "results.csv": to_csv(results),
        "results.json": to_json(results, options),
    }
    for name, text in texts.items():
        # A path on the command line need not be text.
        write_whole(options.out / name, text.encode("utf-8", "backslashreplace"))
    return [options.out / name for name in (*texts, *([figure] if figure else []))]


def score_grid(results: Results) -> Grid:
    """Ours ± standard error and the paper's, row by row.

    Where the paper prints nothing its column is left out.
    """
    heads, printed = ["method"], []
    for number, (column, metric) in enumerate(results.heads):
        title = f"{column.label} {MEASURES[metric].title}"
        known = any(line.cells[number].paper is not None for line in results.lines)
        printed.append(known)
        heads += [title, "paper"] if known else [title]
    rows = []
    for line in results.lines:
        cells = [line.method]
        for cell, known, (_, metric) in zip(line.cells, printed, results.heads, strict=True):
            cells.append(_ours(cell, metric) if line.ours else "")
            cells += [_plain(cell.paper, metric)] if known else []
        rows.append(tuple(cells))
    return Grid(tuple(heads), tuple(rows))


def difference_grid(results: Results) -> Grid:
    """Each row against the compared one, image by image, with 95 % intervals."""
    heads = ["method"]
    heads += [f"{column.label} {MEASURES[metric].title}" for column, metric in results.heads]
    rows = [
        (line.method, *(_difference(cell, metric) for cell, (_, metric) in _cells(line, results)))
        for line in results.lines
        if any(not math.isnan(cell.difference) for cell in line.cells)
    ]
    return Grid(tuple(heads), tuple(rows))


def _cells(line: Line, results: Results) -> list[tuple[Cell, tuple[Any, str]]]:
    return list(zip(line.cells, results.heads, strict=True))


def run_grid(results: Results) -> Grid:
    """What each run was, and what the paper's was."""
    heads = ("run", "steps", "paper's steps", "crop x batch", "paper's", "minutes", "left out")
    rows = []
    for name, done in results.runs.items():
        rows.append(
            (
                name,
                f"{done['steps']:,}",
                f"{done['paper_steps']:,}",
                f"{done['crop']} x {done['batch_size']}",
                f"{done['paper_crop']} x {done['paper_batch_size']}",
                f"{done['seconds'] / 60:.1f}",
                "contrastive prior" if done["prior"] else "",
            )
        )
    return Grid(heads, tuple(rows))


def shortened(results: Results, options: Options) -> list[str]:
    """What was shortened or replaced, in sentences; empty for a run as published."""
    lines = []
    if options.shortens:
        had = (
            f"{options.budget:g} minutes in all, shared evenly over the runs"
            if options.budget
            else f"{options.steps:,} steps a run"
        )
        took = sum(done["seconds"] for done in results.runs.values()) / 60
        lines.append(
            f"Training was to have {had}, and took {took:.0f} minutes: steps, crops and batches "
            "are smaller than the paper's (see the runs below)."
        )
        if results.table.short_networks:
            small = "; ".join(
                f"{name} with {', '.join(settings)}"
                for name, settings in results.table.short_networks.items()
            )
            lines.append(f"The networks are smaller: {small}.")
        if results.table.photos:
            lines.append(f"{results.table.photos} of the real photos are adapted to.")
    counts = sorted({cell.images for line in results.lines for cell in line.cells if cell.images})
    if counts:
        numbers = " or ".join(map(str, counts))
        lines.append(f"Scores are means over {numbers} images of a test set.")
    lines += [f"{new!r} stands for {old!r}." for old, new in options.instead.items()]
    if any(done["prior"] for done in results.runs.values()):
        lines.append("The contrastive prior is left out: no VGG-19 weights were given.")
    lines += [f"Not run: {name}: {reason}." for name, reason in results.missing.items()]
    lines += [f"Not scored: test set {name!r} is missing." for name in results.missing_tests]
    return lines


def _figure(results: Results, options: Options) -> str:
    """The name of the figure's file, drawn; "" for none."""
    name = "figure.svg"
    if results.table.figure == "points":
        series = _series(results)
        if not series:
            return ""
        write_whole(options.out / name, draw_points(series, "background patches").encode())
        return name
    if results.table.figure == "curves":
        folders = []
        for row in chosen_rows(results.table, options.rows):
            job = job_of(row, results.table.columns[0], 0)
            if job and job.name in results.runs:
                folders.append(folder_of(job, options))
        if folders:
            plot_runs(folders, options.out / name)
            return name
    return ""


def _series(results: Results) -> list[tuple[str, list[Series]]]:
    """A panel for each metric; a line for each network, category and range of rain."""
    panels = []
    for number, (_, metric) in enumerate(results.heads):
        if metric == "e_r_ceiling":
            continue
        lines: dict[str, list[tuple[float, float]]] = {}
        for line in results.lines:
            name, _, count = line.name.rpartition("-")
            value = line.cells[number].ours
            if line.ours and count.isdigit() and not math.isnan(value):
                lines.setdefault(name, []).append((int(count), value))
        series = [Series(name, tuple(points)) for name, points in lines.items()]
        if series:
            panels.append((MEASURES[metric].title, series))
    return panels


def to_markdown(
    results: Results, options: Options, command: str, figure: str, missing: str = ""
) -> str:
    """The page as Markdown."""
    parts = [f"# {results.table.name}: {results.table.title}", f"{results.table.source}."]
    parts += [results.table.note] if results.table.note else []
    parts += [f"```\n{command}\n```"]
    cut = shortened(results, options)
    if cut:
        parts += ["## What was shortened or replaced", "\n".join(f"- {line}" for line in cut)]
    for title, grid in _grids(results):
        parts += [f"## {title}", _markdown_table(grid)]
    parts += [f"![what the paper draws]({figure})"] if figure else []
    parts += [missing] if missing else []
    return "\n\n".join(parts) + "\n"


def _grids(results: Results) -> list[tuple[str, Grid]]:
    grids = [("Ours beside the paper's, mean ± standard error over images", score_grid(results))]
    differences = difference_grid(results)
    if differences.rows:
        # Its own line is missing where --rows leaves it out; its scores are there from before.
        table = results.table
        against = next(row.method or row.name for row in table.rows if row.name == table.against)
        title = f"Difference from '{against}', image by image, with 95 % intervals"
        grids.append((title, differences))
    return grids + ([("Runs", run_grid(results))] if results.runs else [])


def _markdown_table(grid: Grid) -> str:
    lines = [grid.heads, ("---",) * len(grid.heads), *grid.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{border:1px solid #bbb;padding:.2em .6em;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}pre{background:#eee;padding:.5em}"
)


def to_html(
    results: Results, options: Options, command: str, figure: str, missing: str = ""
) -> str:
    """The page as HTML in one file, its figure inside."""
    table = results.table
    parts = [f"<h1>{escape(table.name)}: {escape(table.title)}</h1>"]
    parts += [f"<p>{escape(table.source)}. {escape(table.note)}</p>"]
    parts += [f"<pre>{escape(command)}</pre>"]
    cut = shortened(results, options)
    if cut:
        items = "".join(f"<li>{escape(line)}</li>" for line in cut)
        parts.append(f"<h2>What was shortened or replaced</h2><ul>{items}</ul>")
    for title, grid in _grids(results):
        parts += [f"<h2>{escape(title)}</h2>", _html_table(grid)]
    if figure:
        parts.append((options.out / figure).read_text(encoding="utf-8"))
    parts += [f"<p>{escape(missing)}</p>"] if missing else []
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(table.name)}'
        f"</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _html_table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in grid.heads)
    rows = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in grid.rows
    ]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def to_csv(results: Results) -> str:
    """A line for each row, test set and metric; what is not known stays empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    facts = ("ours", "error", "spread", "images", "seeds", "paper", "difference", "low", "high")
    writer.writerow(["table", "row", "dataset", "group", "metric", *facts, "reason"])
    for line in results.lines:
        for cell, (column, metric) in _cells(line, results):
            values = [getattr(cell, fact) for fact in facts]
            known = ["" if _is_unknown(value) else value for value in values]
            where = [results.table.name, line.name, column.dataset, column.group, metric]
            writer.writerow([*where, *known, cell.reason])
    return text.getvalue()


def to_json(results: Results, options: Options) -> str:
    """Everything, for programs; what is not known is null."""
    content = {
        "v": 1,
        "table": results.table.name,
        "title": results.table.title,
        "source": results.table.source,
        "budget_minutes": options.budget,
        "steps_of_a_run": options.steps,
        "shortened": shortened(results, options),
        "rows": [
            {
                "row": line.name,
                "method": line.method,
                "ours": line.ours,
                "cells": [
                    {"dataset": column.dataset, "group": column.group, "metric": metric}
                    | {
                        name: None if _is_unknown(value) else value
                        for name, value in asdict(cell).items()
                    }
                    for cell, (column, metric) in _cells(line, results)
                ],
            }
            for line in results.lines
        ],
        "runs": dict(results.runs),
    }
    return json.dumps(content, indent=2) + "\n"


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _ours(cell: Cell, metric: str) -> str:
    if math.isnan(cell.ours):
        return cell.reason or "–"
    value = _plain(cell.ours, metric)
    return value if math.isnan(cell.error) else f"{value} ± {_plain(cell.error, metric)}"


def _plain(value: float | None, metric: str) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.{MEASURES[metric].decimals}f}"


def _difference(cell: Cell, metric: str) -> str:
    if math.isnan(cell.difference):
        return "–"
    digits = MEASURES[metric].decimals
    ends = f"[{cell.low:+.{digits}f}, {cell.high:+.{digits}f}]"
    return f"{cell.difference:+.{digits}f} {ends}"


def plain_lines(grid: Grid) -> Sequence[str]:
    """A grid as lines of text with aligned columns."""
    lines = [grid.heads, *grid.rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(grid.heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
