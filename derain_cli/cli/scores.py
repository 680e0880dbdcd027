"""Output of `derain eval`: tables, JSON lines and CSV."""

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from derain_cli.evaluation.published import Quoted
    from derain_cli.evaluation.statistics import Difference, Row, Score

PIPE_WIDTH = 240


@dataclass(frozen=True)
class Results:
    """The results to print and write.

    Attributes:
        seconds: Time spent scoring in this session.
        precision: Number format of the networks.
        seed: Seed of the bootstrap intervals.
        total: Number of rows of a complete evaluation.
        known: Number of the first rows, which an earlier session scored.
    """

    rows: "Sequence[Row]"
    scores: "Sequence[Score]"
    differences: "Sequence[Difference]"
    quotes: "Sequence[Quoted]"
    seconds: float
    precision: str
    seed: int = 0
    total: int = 0
    known: int = 0

    @property
    def partial(self) -> str:
        """Share of the evaluation that is done, in words; empty if complete."""
        done = len(self.rows)
        return f"partial: {done} of {self.total} rows" if done < self.total else ""

    @property
    def network_share(self) -> float:
        """Share of this session's time that was spent in networks."""
        in_networks = sum(row.seconds for row in self.rows[self.known :])
        return min(1.0, in_networks / max(self.seconds, 1e-9))

    @property
    def time_spent(self) -> str:
        """The time, the networks' share of it and their seconds per image, to print."""
        if not self.network_share:
            return f"{self.seconds:.1f} s, no network"
        each = {
            score.model: f"{score.seconds:.3g} s/image under {score.model}"
            for score in self.scores
            if score.seconds and not score.group
        }
        share = f"{self.network_share:.1%} of {self.seconds:.1f} s in the network"
        return "; ".join((share, *each.values()))


def summarise_rows(
    rows: "Sequence[Row]",
    seconds: float,
    precision: str,
    *,
    quote: bool = False,
    seed: int = 0,
    total: int = 0,
    known: int = 0,
) -> Results:
    """Means, differences and, if asked for, what papers print on the same data sets."""
    from derain_cli.datasets.known import dataset_named
    from derain_cli.evaluation.published import published
    from derain_cli.evaluation.statistics import differences, summarise

    scores = summarise(rows)
    keys = {dataset_named(score.dataset) for score in scores}
    quotes = published(key for key in keys if key) if quote else []
    compared = differences(rows, seed)
    return Results(rows, scores, compared, quotes, seconds, precision, seed, total, known)


def show_json(results: Results) -> None:
    """Print everything but the rows as JSON lines."""
    from derain_cli.evaluation.statistics import INPUT

    worse = _worse_counts(results)
    for score in results.scores:
        means = {column: mean.value for column, mean in score.means.items()}
        errors = {f"{column}_error": mean.error for column, mean in score.means.items()}
        about: dict[str, Any] = {
            "dataset": score.dataset,
            "group": score.group,
            "model": score.model,
        }
        about |= {"protocol": score.protocol, "images": score.images}
        if score.model != INPUT:
            about["precision"] = results.precision
        if (score.dataset, score.group, score.model) in worse:
            about["made_worse"] = worse[score.dataset, score.group, score.model]
        spread = _spread_fields(results, score)
        _echo_json("score", about | means | errors | spread | {"seconds": score.seconds})
    for difference in results.differences:
        _echo_json("difference", asdict(difference))
    for quoted in results.quotes:
        _echo_json("quoted", asdict(quoted))
    time_spent = {"seconds": results.seconds, "network_share": results.network_share}
    rows = {"rows": len(results.rows), "partial": bool(results.partial)}
    _echo_json("summary", time_spent | rows)


def _spread_fields(results: Results, score: "Score") -> dict[str, float]:
    """Median, worst and 95 % interval of each column with a direction."""
    from derain_cli.evaluation.extremes import spread_of
    from derain_cli.evaluation.statistics import COLUMNS

    fields: dict[str, float] = {}
    for column in score.means:
        if COLUMNS[column].better:
            values = [row.scores[column] for row in results.rows if score.holds(row)]
            spread = spread_of(values, column, results.seed)
            fields |= {f"{column}_median": spread.median, f"{column}_worst": spread.worst}
            fields |= {f"{column}_low": spread.low, f"{column}_high": spread.high}
    return fields


def _worse_counts(results: Results) -> dict[tuple[str, str, str], int]:
    """Images made worse than the input by (data set, group, model); none without a direction."""
    from derain_cli.evaluation.extremes import leading_column, made_worse
    from derain_cli.evaluation.statistics import COLUMNS, INPUT

    column = leading_column(results.scores[0].means) if results.scores else ""
    if not column or not COLUMNS[column].better:
        return {}
    worse = made_worse(results.rows, column)
    return {
        (score.dataset, score.group, score.model): sum(score.holds(c.row) for c in worse)
        for score in results.scores
        if score.model != INPUT
    }


def _echo_json(event: str, fields: Mapping[str, Any]) -> None:
    """A line of JSON; infinity and NaN become null."""
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
    if results.partial:
        console.print(results.partial)


def _score_table(results: Results, protocol: str) -> "tuple[Table, list[str]]":
    """The table of one protocol, and the sources that its quoted rows point to by number.

    It contains no times, so the same images and weights give the same table to the bit.
    """
    from rich.table import Table

    from derain_cli.datasets.known import dataset_named
    from derain_cli.evaluation.statistics import COLUMNS

    scores = [score for score in results.scores if score.protocol == protocol]
    columns = list(scores[0].means)
    titles = [COLUMNS[column].title for column in columns]
    table = Table("data set", "model", "images", *titles, "worse")
    table.title = _title(results, protocol)
    table.title_justify = "left"
    worse = _worse_counts(results)
    sources: dict[str, int] = {}
    for part, members in itertools.groupby(scores, key=lambda score: score.part):
        *_, last = measured = list(members)
        for score in measured:
            count = worse.get((score.dataset, score.group, score.model), "")
            table.add_row(*_measured_cells(score), str(count))
        place = dataset_named(last.dataset), last.group
        for quoted in results.quotes:
            if (quoted.dataset, quoted.group) == place:
                source = f"{quoted.source}; {quoted.protocol}"
                model = f"{quoted.method} [{sources.setdefault(source, len(sources) + 1)}]"
                cells = _quoted_cells(quoted, columns)
                table.add_row(part, model, "", *cells, "", style="dim italic")
        table.add_section()
    return table, list(sources)


def _title(results: Results, protocol: str) -> str:
    from derain_cli.evaluation.statistics import describe_protocol

    title = describe_protocol(protocol)
    if results.precision != "fp32":
        title += f"; networks in {results.precision}"
    return f"{results.partial}; {title}" if results.partial else title


def _measured_cells(score: "Score") -> list[str]:
    from derain_cli.evaluation.statistics import format_mean

    means = [format_mean(column, mean) for column, mean in score.means.items()]
    return [score.part, score.model, str(score.images), *means]


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
