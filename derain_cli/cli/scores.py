"""What `derain eval` prints and writes of scores: tables, JSON lines, CSV."""

import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from derain_cli.evaluation.published import Quoted
    from derain_cli.evaluation.statistics import Difference, Row, Score

PIPE_WIDTH = 240


@dataclass(frozen=True)
class Results:
    """What is printed and written.

    Attributes:
        seconds: The whole time of scoring.
        precision: What the networks ran in.
    """

    rows: "Sequence[Row]"
    scores: "Sequence[Score]"
    differences: "Sequence[Difference]"
    quotes: "Sequence[Quoted]"
    seconds: float
    precision: str

    @property
    def network_share(self) -> float:
        """Share of the time that was spent in networks."""
        return sum(row.seconds for row in self.rows) / self.seconds

    @property
    def time_spent(self) -> str:
        """The time and the networks' share of it, to print."""
        if not self.network_share:
            return f"{self.seconds:.1f} s, no network"
        return f"{self.network_share:.1%} of {self.seconds:.1f} s in the network"


def summarise_rows(
    rows: "Sequence[Row]", seconds: float, precision: str, *, quote: bool = False, seed: int = 0
) -> Results:
    """Means, differences and, if asked for, what papers print on the same data sets."""
    from derain_cli.datasets.known import dataset_named
    from derain_cli.evaluation.published import published
    from derain_cli.evaluation.statistics import differences, summarise

    scores = summarise(rows)
    keys = {dataset_named(score.dataset) for score in scores}
    quotes = published(key for key in keys if key) if quote else []
    return Results(rows, scores, differences(rows, seed), quotes, seconds, precision)


def write_csv(path: Path, rows: "Sequence[Row]") -> None:
    """Write a row per image and model; what is not defined stays empty.

    Raises:
        ResourceError: No space or no permission.
    """
    from derain_cli.whole_files import write_whole

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    about = ["dataset", "group", "image", "model", "protocol"]
    writer.writerow([*about, *rows[0].scores, "seconds"])
    for row in rows:
        scores = ["" if math.isnan(score) else score for score in row.scores.values()]
        writer.writerow([*(getattr(row, name) for name in about), *scores, row.seconds])
    write_whole(path, text.getvalue().encode())


def show_json(results: Results) -> None:
    """Print everything but the rows as JSON lines."""
    from derain_cli.evaluation.statistics import INPUT

    for score in results.scores:
        means = {column: mean.value for column, mean in score.means.items()}
        errors = {f"{column}_error": mean.error for column, mean in score.means.items()}
        about: dict[str, Any] = {
            "dataset": score.dataset,
            "group": score.group,
            "model": score.model,
        }
        about |= {"protocol": score.protocol, "images": score.images}
        about |= {} if score.model == INPUT else {"precision": results.precision}
        _echo_json("score", about | means | errors | {"seconds": score.seconds})
    for difference in results.differences:
        _echo_json("difference", asdict(difference))
    for quoted in results.quotes:
        _echo_json("quoted", asdict(quoted))
    _echo_json("summary", {"seconds": results.seconds, "network_share": results.network_share})


def _echo_json(event: str, fields: Mapping[str, Any]) -> None:
    """A line of JSON; what JSON cannot hold (infinity, not a number) is null."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
    typer.echo(json.dumps({"v": 1, "event": event} | plain))


def show_tables(results: Results) -> None:
    """Print a table of means per protocol, and one of the differences between models."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(markup=False, highlight=False, width=width)
    for protocol in dict.fromkeys(score.protocol for score in results.scores):
        table, sources = _score_table(results, protocol)
        console.print(table)
        for number, source in enumerate(sources, 1):
            console.print(f"[{number}] quoted, not measured: {source}")
    if results.differences:
        console.print(_difference_table(results.differences))


def _score_table(results: Results, protocol: str) -> "tuple[Table, list[str]]":
    """The table of one protocol, and the sources that its quoted rows point to by number."""
    from rich.table import Table

    from derain_cli.datasets.known import dataset_named
    from derain_cli.evaluation.statistics import COLUMNS
    from derain_cli.metrics.full_reference import PROTOCOLS

    scores = [score for score in results.scores if score.protocol == protocol]
    columns = list(scores[0].means)
    titles = [COLUMNS[column].title for column in columns]
    table = Table("data set", "model", "images", *titles, "s/image")
    table.title = f"{protocol}: {PROTOCOLS[protocol].description}"
    if results.precision != "fp32":
        table.title += f"; networks in {results.precision}"
    table.title_justify = "left"
    sources: dict[str, int] = {}
    for part, members in itertools.groupby(scores, key=lambda score: score.part):
        *_, last = measured = list(members)
        for score in measured:
            table.add_row(*_measured_cells(score))
        place = dataset_named(last.dataset), last.group
        for quoted in results.quotes:
            if (quoted.dataset, quoted.group) == place:
                source = f"{quoted.source}; {quoted.protocol}"
                model = f"{quoted.method} [{sources.setdefault(source, len(sources) + 1)}]"
                cells = _quoted_cells(quoted, columns)
                table.add_row(part, model, "", *cells, "", style="dim italic")
        table.add_section()
    return table, list(sources)


def _measured_cells(score: "Score") -> list[str]:
    from derain_cli.evaluation.statistics import format_mean

    means = [format_mean(column, mean) for column, mean in score.means.items()]
    return [score.part, score.model, str(score.images), *means, f"{score.seconds:.2f}"]


def _quoted_cells(quoted: "Quoted", columns: Sequence[str]) -> list[str]:
    from derain_cli.evaluation.statistics import format_score

    return [format_score(column, quoted.scores.get(column, math.nan)) for column in columns]


def _difference_table(differences: "Sequence[Difference]") -> "Table":
    from rich.table import Table

    from derain_cli.evaluation.statistics import COLUMNS, format_difference

    columns = list(dict.fromkeys(difference.column for difference in differences))
    table = Table("data set", "model", "against", *(COLUMNS[column].title for column in columns))
    table.title = "mean difference image by image [95 % bootstrap interval]"
    table.title_justify = "left"
    cells: dict[tuple[str, str, str], list[str]] = {}
    for difference in differences:
        names = difference.dataset, difference.model, difference.against
        cells.setdefault(names, []).append(format_difference(difference))
    for names, members in cells.items():
        table.add_row(*names, *members)
    return table
