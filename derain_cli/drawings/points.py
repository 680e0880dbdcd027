"""Scores over a number on a logarithmic axis, a panel for each score, as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from derain_cli.drawings.svg import INK, PALETTE, Axis, document, text

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 860, 220, 64, 24, 34, 56
LINE = 18


@dataclass(frozen=True)
class Series:
    """A line of points with a name."""

    name: str
    points: tuple[tuple[float, float], ...]


def draw_points(panels: Sequence[tuple[str, Sequence[Series]]], across: str) -> str:
    """The SVG's text.

    Args:
        panels: Title and lines of each panel; all have the same lines.
        across: What the horizontal axis counts.

    Example:
        >>> draw_points([("E_R", [Series("medium", ((8, 40.0), (64, 30.0)))])], "patches")[:4]
        '<svg'
    """
    values = [x for _, lines in panels for line in lines for x, _ in line.points]
    axis = Axis(min(values), max(values), LEFT, WIDTH - RIGHT, logarithmic=True)
    parts: list[str] = []
    for number, (title, lines) in enumerate(panels):
        parts += _panel(title, lines, axis, TOP + number * (PANEL + GAP))
    bottom = TOP + len(panels) * (PANEL + GAP)
    parts.append(text(WIDTH / 2, bottom - 10, across, anchor="middle"))
    for index, line in enumerate(panels[0][1]):
        y = bottom + LINE * index + 8
        parts.append(f'<path d="M{LEFT} {y - 4}h28" stroke="{_colour(index)}" stroke-width="2"/>')
        parts.append(text(LEFT + 36, y, line.name))
    return document(WIDTH, bottom + LINE * len(panels[0][1]) + 12, parts, across)


def _panel(title: str, lines: Sequence[Series], across: Axis, top: float) -> list[str]:
    values = [y for line in lines for _, y in line.points]
    up = Axis(min(values), max(values), top + PANEL - 8, top + 8)
    parts = [text(LEFT, top - 8, title)]
    parts.append(
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" '
        f'fill="none" stroke="{INK}" stroke-width="0.5"/>'
    )
    parts += [text(LEFT - 6, up.at(y) + 4, f"{y:g}", anchor="end") for y in up.ticks()]
    counts = sorted({x for line in lines for x, _ in line.points})
    below = top + PANEL + 16
    parts += [text(across.at(x), below, f"{x:g}", anchor="middle") for x in counts]
    for index, line in enumerate(lines):
        places = [(across.at(x), up.at(y)) for x, y in sorted(line.points)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        colour = _colour(index)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return parts


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]
