"""An evaluation as one HTML file that needs nothing else: tables, histograms, images to compare.

The page loads nothing from anywhere and says so to the browser: its content security policy allows
only what is in the file. What it looks like is in `report.html`, a Jinja2 template that escapes
whatever it is given.
"""

import base64
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from derain_cli.datasets.known import dataset_named
from derain_cli.drawings.histogram import histogram
from derain_cli.evaluation.extremes import (
    Spread,
    largest_differences,
    leading_column,
    made_worse,
    spread_of,
)
from derain_cli.evaluation.gallery import Case
from derain_cli.evaluation.published import Quoted
from derain_cli.evaluation.statistics import (
    COLUMNS,
    INPUT,
    Difference,
    Row,
    Score,
    describe_protocol,
    format_difference,
    format_mean,
    format_score,
)
from derain_cli.whole_files import write_whole

TEMPLATE = Path(__file__).with_name("report.html")
# So many images of a long list are shown; all are in the last table and in the CSV.
LISTED = 30


@dataclass(frozen=True)
class Report:
    """What a report is made of.

    Attributes:
        rows: Every scored image.
        scores: Their means.
        differences: Between models.
        quotes: Papers' scores on the same data sets.
        cases: Images to look at.
        facts: What to say of the run, by name: date, machine, versions, weights' hashes.
        seed: Of the bootstrap intervals.
    """

    rows: Sequence[Row]
    scores: Sequence[Score]
    differences: Sequence[Difference] = ()
    quotes: Sequence[Quoted] = ()
    cases: Sequence[Case] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def write_report(path: Path, report: Report) -> None:
    """Write the report, whole or not at all.

    Raises:
        ResourceError: No space or no permission.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "sorting": sorting_value,
        "score": lambda value, column: format_score(column, value),
        "mean": lambda value, column: format_mean(column, value),
        "difference": format_difference,
        "image": _data_uri,
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(_context(report))
    write_whole(path, page.encode("utf-8", "backslashreplace"))  # names may be no text


def _context(report: Report) -> dict[str, Any]:
    columns = list(report.scores[0].means)
    leading = leading_column(columns)
    return {
        "datasets": list(dict.fromkeys(score.dataset for score in report.scores)),
        "facts": report.facts,
        "columns": {column: COLUMNS[column] for column in columns},
        "undefined_score": math.nan,
        "leading": leading,
        "leading_title": COLUMNS[leading].title,
        "protocols": [
            {"title": describe_protocol(name), "parts": list(parts)}
            for name, parts in _protocols(report)
        ],
        "quotes": report.quotes,
        "spreads": list(_spreads(report, leading)),
        "differences": list(_difference_lines(report.differences)),
        "histograms": list(_histograms(report.rows)),
        "worse": made_worse(report.rows, leading)[:LISTED],
        "worse_counts": list(_worse_counts(report, leading)),
        "largest": largest_differences(report.rows, leading)[:LISTED],
        "cases": _cases(report.cases),
        "rows": report.rows,
    }


def _protocols(report: Report) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    for protocol in dict.fromkeys(score.protocol for score in report.scores):
        scores = [score for score in report.scores if score.protocol == protocol]
        yield protocol, _parts(scores, report.quotes)


def _parts(scores: Sequence[Score], quotes: Sequence[Quoted]) -> Iterator[dict[str, Any]]:
    """Scores of one data set or group, with what papers print on it."""
    for part, members in itertools.groupby(scores, key=lambda score: score.part):
        measured = list(members)
        place = dataset_named(measured[0].dataset), measured[0].group
        quoted = [quote for quote in quotes if (quote.dataset, quote.group) == place]
        yield {"name": part, "scores": measured, "quotes": quoted}


def _spreads(report: Report, column: str) -> Iterator[tuple[str, str, Spread]]:
    for dataset, model in dict.fromkeys((row.dataset, row.model) for row in report.rows):
        members = [row for row in report.rows if (row.dataset, row.model) == (dataset, model)]
        scores = [row.scores[column] for row in members]
        yield dataset, model, spread_of(scores, column, report.seed)


def _worse_counts(report: Report, column: str) -> Iterator[tuple[str, str, int, int]]:
    """(data set, model, images made worse, images in all); none without a direction."""
    if not COLUMNS[column].better:
        return
    worse = made_worse(report.rows, column)
    for score in report.scores:
        if score.model != INPUT and not score.group:
            key = score.dataset, score.model
            count = sum((change.row.dataset, change.row.model) == key for change in worse)
            yield score.dataset, score.model, count, score.images


def _difference_lines(
    differences: Sequence[Difference],
) -> Iterator[tuple[tuple[str, str, str], list[Difference]]]:
    def names(difference: Difference) -> tuple[str, str, str]:
        return difference.dataset, difference.model, difference.against

    for key, members in itertools.groupby(differences, key=names):
        yield key, list(members)


def _histograms(rows: Sequence[Row]) -> Iterator[tuple[str, Markup]]:
    for dataset in dict.fromkeys(row.dataset for row in rows):
        scores: dict[str, list[float]] = {}
        for row in rows:
            score = row.scores.get("psnr", math.nan)
            if row.dataset == dataset and math.isfinite(score):
                scores.setdefault(row.model, []).append(score)
        if scores:
            yield dataset, Markup(histogram(scores))


def _cases(cases: Sequence[Case]) -> dict[str, list[Case]]:
    titled: dict[str, list[Case]] = {}
    for case in cases:
        about = (
            f"{case.row.model} against {case.left_label}"
            if case.left_label != "rainy"
            else case.row.model
        )
        titled.setdefault(f"{case.row.dataset}: {about}", []).append(case)
    return titled


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def sorting_value(value: float) -> str:
    """A number as the page sorts it; what is not defined sorts below everything.

    Example:
        >>> sorting_value(math.nan), sorting_value(math.inf), sorting_value(2.5)
        ('-Infinity', 'Infinity', '2.5')
    """
    return "-Infinity" if math.isnan(value) else str(value).replace("inf", "Infinity")
