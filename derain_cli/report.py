"""An evaluation as one HTML file that needs nothing else: tables, histograms, pictures to compare.

The page loads nothing from anywhere and says so to the browser: its content security policy allows
only what is in the file.
"""

import base64
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from derain_cli.checkpoints import write_whole
from derain_cli.comparison import (
    COLUMNS,
    Difference,
    Row,
    Score,
    format_difference,
    format_mean,
    format_score,
)
from derain_cli.datasets import dataset_named
from derain_cli.gallery import Case
from derain_cli.metrics.full_reference import PROTOCOLS
from derain_cli.published import Quoted

TEMPLATE = Path(__file__).with_name("report.html")

BAND, LABEL, PLOT, BAR_HEIGHT = 64, 200, 560, 44  # of a histogram, in pixels
MOST_BINS = 32
BIN_WIDTHS = (0.25, 0.5, 1.0, 2.0, 5.0)


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
        rows: Every scored picture.
        scores: Their means.
        differences: Between models.
        quotes: Papers' scores on the same data sets.
        cases: Pictures to look at.
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
    parts = ["<h2>Means over pictures ± standard error</h2>"]
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
    heads = [_head("data set"), _head("model"), _number_head("pictures")]
    heads += [_number_head(COLUMNS[column].title) for column in columns]
    heads += [_number_head("s/picture"), _head("")]
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
        "<h2>Differences between models, picture by picture</h2>"
        + _table("differences", heads, [_line(cells) for cells in lines.values()])
        + '<p class="caption">Mean difference and its 95 % bootstrap interval over pictures.</p>'
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
    return "<h2>PSNR of single pictures</h2>" + "\n".join(parts) if parts else ""


def histogram(scores: Mapping[str, Sequence[float]]) -> str:
    """Histograms of PSNR as SVG, one below the other on one scale, the mean dashed.

    Args:
        scores: Finite numbers by model.
    """
    everything = np.concatenate([np.asarray(values) for values in scores.values()])
    edges = _bin_edges(float(everything.min()), float(everything.max()))
    counts = {model: np.histogram(values, edges)[0] for model, values in scores.items()}
    highest = max(int(count.max()) for count in counts.values())
    height = BAND * len(scores) + 24
    bands = [
        _band(index, model, counts[model] / highest, edges, float(np.mean(scores[model])))
        for index, model in enumerate(scores)
    ]
    ticks = [
        f'<text x="{_x(edge, edges):.1f}" y="{height - 6}" text-anchor="middle">{edge:g}</text>'
        for edge in edges[:: -(-len(edges) // 10)]
    ]
    return (
        f'<svg class="histogram" viewBox="0 0 {LABEL + PLOT + 40} {height}" '
        f'width="{LABEL + PLOT + 40}" role="img" aria-label="Histograms of PSNR">'
        f"{''.join(bands)}{''.join(ticks)}"
        f'<text x="{LABEL + PLOT + 12}" y="{height - 6}">dB</text></svg>'
    )


def _bin_edges(lowest: float, highest: float) -> NDArray[np.float64]:
    fits = (width for width in BIN_WIDTHS if highest - lowest <= width * (MOST_BINS - 2))
    width = next(fits, BIN_WIDTHS[-1])
    first, last = math.floor(lowest / width), math.floor(highest / width) + 1
    return np.asarray(np.arange(first, last + 1) * width, np.float64)


def _band(
    index: int, model: str, shares: NDArray[np.float64], edges: NDArray[np.float64], mean: float
) -> str:
    base, name = BAND * (index + 1), escape(model if len(model) <= 26 else "…" + model[-25:])
    width = PLOT / len(shares)
    bars = "".join(
        f'<rect class="bar" x="{LABEL + position * width:.1f}" y="{base - BAR_HEIGHT * share:.1f}" '
        f'width="{width - 1:.1f}" height="{BAR_HEIGHT * share:.1f}"/>'
        for position, share in enumerate(shares)
        if share
    )
    at = _x(mean, edges)
    return (
        f'<text x="{LABEL - 10}" y="{base - 16}" text-anchor="end">{name}</text>{bars}'
        f'<line class="mean" x1="{at:.1f}" x2="{at:.1f}" y1="{base - BAR_HEIGHT}" y2="{base}"/>'
        f'<text x="{at + 4:.1f}" y="{base - BAR_HEIGHT - 4}">{mean:.2f}</text>'
        f'<line class="axis" x1="{LABEL}" x2="{LABEL + PLOT}" y1="{base}" y2="{base}"/>'
    )


def _x(value: float, edges: NDArray[np.float64]) -> float:
    return float(LABEL + PLOT * (value - edges[0]) / (edges[-1] - edges[0]))


def _cases_section(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    parts = [
        "<h2>Worst and best pictures</h2>",
        '<p class="caption">Drag across a picture: rainy on its left, derained on its right.</p>',
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
        'left picture"><span class="handle"></span></div>'
        f"<figcaption>{case.kind}: {name}, {scores} "
        '<label><input type="checkbox"> clean on the left</label></figcaption></figure>'
    )


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _rows_section(rows: Sequence[Row]) -> str:
    columns = list(rows[0].scores) if rows else []
    names = ["data set", "group", "picture", "model"]
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
    return "<h2>Every picture</h2>" + _table("sortable", heads, lines)


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
