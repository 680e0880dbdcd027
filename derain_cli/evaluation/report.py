"""An evaluation as one HTML file that needs nothing else: tables, histograms, images to compare.

The page loads nothing from anywhere and says so to the browser: its content security policy allows
only what is in the file.
"""

import base64
import itertools
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from derain_cli.datasets.known import dataset_named
from derain_cli.drawings.histogram import histogram
from derain_cli.evaluation.gallery import Case
from derain_cli.evaluation.published import Quoted
from derain_cli.evaluation.statistics import (
    COLUMNS,
    Difference,
    Row,
    Score,
    format_difference,
    format_mean,
    format_score,
)
from derain_cli.metrics.full_reference import PROTOCOLS
from derain_cli.whole_files import write_whole

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(
    path: Path,
    rows: Sequence[Row],
    scores: Sequence[Score],
    *,
    differences: Sequence[Difference] = (),
    quotes: Sequence[Quoted] = (),
    cases: Sequence[Case] = (),
    facts: Sequence[str] = (),
) -> None:
    """Write the report, whole or not at all.

    Args:
        path: File to write.
        rows: Every scored image.
        scores: Their means.
        differences: Between models.
        quotes: Papers' scores on the same data sets.
        cases: Images to look at.
        facts: What to say of the run.

    Raises:
        ResourceError: No space or no permission.
    """
    sections = [
        _scores_section(scores, quotes),
        _differences_section(differences),
        _histograms_section(rows),
        _cases_section(cases),
        _rows_section(rows),
    ]
    datasets = ", ".join({escape(score.dataset): 0 for score in scores})
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"derain eval: {datasets}",
        facts=" · ".join(map(escape, facts)),
        sections="\n".join(sections),
    )
    write_whole(path, page.encode())


def _scores_section(scores: Sequence[Score], quotes: Sequence[Quoted]) -> str:
    parts = ["<h2>Means over images ± standard error</h2>"]
    for protocol in {score.protocol: 0 for score in scores}:
        members = [score for score in scores if score.protocol == protocol]
        parts.append(f"<h3>{protocol}: {escape(PROTOCOLS[protocol].description)}</h3>")
        parts.append(_scores_table(members, quotes))
    if quotes:
        parts.append(
            '<p class="caption">Rows in italics are quoted from the papers named, not measured: '
            "other training data, other copies of the data sets, often an unstated protocol.</p>"
        )
    return "\n".join(parts)


def _scores_table(scores: Sequence[Score], quotes: Sequence[Quoted]) -> str:
    columns = list(scores[0].means)
    heads = [_head("data set"), _head("model"), _number_head("images")]
    heads += [_number_head(COLUMNS[column].title) for column in columns]
    heads += [_number_head("s/image"), _head("")]
    lines = []
    for part, members in itertools.groupby(scores, key=lambda score: score.part):
        *_, last = measured = list(members)
        lines += [_score_line(score) for score in measured]
        place = dataset_named(last.dataset), last.group
        about = [quoted for quoted in quotes if (quoted.dataset, quoted.group) == place]
        lines += [_quote_line(part, quoted, columns) for quoted in about]
    return _table("scores", heads, lines)


def _score_line(score: Score) -> str:
    cells = [_cell(score.part), _cell(score.model), _number(score.images)]
    cells += [
        _number(mean.value, format_mean(column, mean)) for column, mean in score.means.items()
    ]
    return _line([*cells, _number(score.seconds, f"{score.seconds:.2f}"), _cell("")])


def _quote_line(part: str, quoted: Quoted, columns: Iterable[str]) -> str:
    scores = {column: quoted.scores.get(column, math.nan) for column in columns}
    cells = [_number(score, format_score(column, score)) for column, score in scores.items()]
    source = f'<td class="source">quoted from {escape(f"{quoted.source}; {quoted.protocol}")}</td>'
    about = _cell(part), _cell(quoted.method), _cell("")
    return _line([*about, *cells, _cell(""), source], "quoted")


def _differences_section(differences: Sequence[Difference]) -> str:
    if not differences:
        return ""
    columns = list({difference.column: 0 for difference in differences})
    heads = [_head("data set"), _head("model"), _head("against")]
    heads += [_number_head(COLUMNS[column].title) for column in columns]
    lines: dict[tuple[str, str, str], list[str]] = {}
    for difference in differences:
        names = difference.dataset, difference.model, difference.against
        cells = lines.setdefault(names, [_cell(name) for name in names])
        cells.append(_number(difference.value, format_difference(difference)))
    return (
        "<h2>Differences between models, image by image</h2>"
        + _table("differences", heads, [_line(cells) for cells in lines.values()])
        + '<p class="caption">Mean difference and its 95 % bootstrap interval over images.</p>'
    )


def _histograms_section(rows: Sequence[Row]) -> str:
    parts = []
    for dataset in {row.dataset: 0 for row in rows}:
        scores: dict[str, list[float]] = {}
        for row in rows:
            score = row.scores.get("psnr", math.nan)
            if row.dataset == dataset and math.isfinite(score):
                scores.setdefault(row.model, []).append(score)
        if scores:
            parts.append(f"<h3>{escape(dataset)}</h3>{histogram(scores)}")
    return "<h2>PSNR of single images</h2>" + "\n".join(parts) if parts else ""


def _cases_section(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    parts = [
        "<h2>Worst and best images</h2>",
        '<p class="caption">Drag across an image: rainy on its left, derained on its right.</p>',
    ]
    for dataset, model in {(case.row.dataset, case.row.model): 0 for case in cases}:
        members = [case for case in cases if (case.row.dataset, case.row.model) == (dataset, model)]
        figures = "".join(map(_figure, members))
        parts.append(f'<h3>{escape(f"{dataset}: {model}")}</h3><div class="cases">{figures}</div>')
    return "\n".join(parts)


def _figure(case: Case) -> str:
    scores = ", ".join(
        f"{COLUMNS[column].title} {format_score(column, score)}"
        for column, score in case.row.scores.items()
    )
    name = escape(case.row.image)
    return (
        f'<figure class="case {case.kind}"><div class="compare">'
        f'<img class="right" alt="{name} derained" src="{_data_uri(case.derained)}">'
        f'<img class="left rainy" alt="{name} rainy" src="{_data_uri(case.rainy)}">'
        f'<img class="left clean" alt="{name} clean" src="{_data_uri(case.clean)}">'
        f'<input type="range" min="0" max="100" value="50" aria-label="{name}: share shown of the '
        'left image"><span class="handle"></span></div>'
        f"<figcaption>{case.kind}: {name}, {scores} "
        '<label><input type="checkbox"> clean on the left</label></figcaption></figure>'
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _rows_section(rows: Sequence[Row]) -> str:
    columns = list(rows[0].scores) if rows else []
    names = ["data set", "group", "image", "model"]
    names += [COLUMNS[column].title for column in columns]
    heads = [f"<th><button>{name}</button></th>" for name in [*names, "s"]]
    lines = [
        _line(
            [
                *map(_cell, (row.dataset, row.group, row.image, row.model)),
                *(_number(score, format_score(name, score)) for name, score in row.scores.items()),
                _number(row.seconds, f"{row.seconds:.3f}"),
            ]
        )
        for row in rows
    ]
    return "<h2>Every image</h2>" + _table("sortable", heads, lines)


def _table(kind: str, heads: Iterable[str], lines: Iterable[str]) -> str:
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(cells: Iterable[str], kind: str = "") -> str:
    return f'<tr class="{kind}">{"".join(cells)}</tr>' if kind else f"<tr>{''.join(cells)}</tr>"


def _head(text: str) -> str:
    return f"<th>{escape(text)}</th>"


def _number_head(text: str) -> str:
    return f'<th class="number">{escape(text)}</th>'


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _number(value: float, text: str | None = None) -> str:
    """A number's cell; what is not defined sorts below everything."""
    sorts = "-Infinity" if math.isnan(value) else str(value).replace("inf", "Infinity")
    return f'<td class="number" data-value="{sorts}">{escape(text or str(value))}</td>'
