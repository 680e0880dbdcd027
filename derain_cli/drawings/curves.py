"""Curves of training runs, as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from derain_cli.drawings.svg import PALETTE, Axis, document, text

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 860, 240, 64, 24, 34, 60
# The palette is repeated with dashes after eight curves.
DASHES = ("", "6 3", "2 3")
# Curves of more points than this are drawn smooth, what they smooth pale behind; the points of
# shorter ones are marked, because nothing is known of what is between them.
NOISY = 60
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One run's numbers over its steps."""

    run: str
    psnr: Points
    loss: Points


def draw(curves: Sequence[Curve]) -> str:
    """The SVG's text.

    Example:
        >>> draw([Curve("run", [(1, 20.0), (2, 25.0)], [(1, 0.5), (2, 0.25)])])[:4]
        '<svg'
    """
    steps = max((point[0] for c in curves for point in (*c.psnr, *c.loss)), default=1)
    legend = TOP + 2 * (PANEL + GAP)
    height = legend + 18 * len(curves) + 12
    positive = all(value > 0 for curve in curves for _, value in curve.loss)
    below = TOP + PANEL + GAP
    parts = [
        *_panel(curves, "validation PSNR, dB", lambda c: c.psnr, TOP, steps, logarithmic=False),
        *_panel(curves, "training loss", lambda c: c.loss, below, steps, logarithmic=positive),
    ]
    for index, curve in enumerate(curves):
        y = legend + 18 * index + 6
        parts.append(f'<path d="M{LEFT} {y - 4}h28" {_stroke(index)}/>')
        parts.append(text(LEFT + 36, y, curve.run + _best_of(curve)))
    return document(WIDTH, height, parts)


def _best_of(curve: Curve) -> str:
    """What the legend says of a run's highest score."""
    if not curve.psnr:
        return ""
    step, psnr = max(curve.psnr, key=lambda point: point[1])
    return f" (best {psnr:.2f} dB, step {step:,})"


def _panel(
    curves: Sequence[Curve],
    title: str,
    points_of: Callable[[Curve], Points],
    top: int,
    steps: float,
    *,
    logarithmic: bool,
) -> list[str]:
    """Frame, ticks and the lines of all runs."""
    values = [value for curve in curves for _, value in points_of(curve)]
    parts = [text(LEFT, top - 8, title)]
    if not values:
        return [*parts, text(LEFT + 8, top + 20, "nothing yet")]
    across = Axis(0, steps, LEFT, WIDTH - RIGHT)
    up = Axis(*_span(values, logarithmic), top + PANEL - 8, top + 8, logarithmic)
    parts += _ticks(across, up, top)
    for index, curve in enumerate(curves):
        points = points_of(curve)
        if len(points) <= NOISY:
            parts += _dots(points, across, up, PALETTE[index % len(PALETTE)])
        else:
            parts.append(_line(points, across, up, f'{_stroke(index)} opacity="0.25"'))
            points = smoothed(points, len(points) // 30)
        parts.append(_line(points, across, up, _stroke(index)))
    return parts


def _span(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """Least and largest, apart: a single value is in the middle.

    Example:
        >>> _span([20, 25], False), _span([20], False), _span([0.5], True)
        ((20, 25), (19, 21), (0.25, 1.0))
    """
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low / 2, high * 2) if logarithmic else (low - 1, high + 1)


def _dots(points: Points, across: Axis, up: Axis, colour: str) -> list[str]:
    places = ((across.at(x), up.at(y)) for x, y in points)
    return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]


def _line(points: Points, across: Axis, up: Axis, stroke: str) -> str:
    places = (f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in points)
    return f'<path d="M{"L".join(places)}" {stroke}/>' if len(points) > 1 else ""


def smoothed(points: Points, reach: int) -> Points:
    """Each value as the mean of its neighbours up to `reach` away; fewer near the ends.

    Example:
        >>> smoothed([(0, 0.0), (1, 3.0), (2, 0.0), (3, 3.0)], 1)
        [(0, 1.5), (1, 1.0), (2, 2.0), (3, 1.5)]
    """
    result = []
    for index, (step, _) in enumerate(points):
        values = [value for _, value in points[max(0, index - reach) : index + reach + 1]]
        result.append((step, sum(values) / len(values)))
    return result


def _ticks(across: Axis, up: Axis, top: int) -> list[str]:
    bottom = top + PANEL
    parts = [
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" '
        'fill="none" stroke="#999999"/>'
    ]
    for step in across.ticks():
        if step == int(step):
            x = across.at(step)
            parts.append(f'<path d="M{x:.1f} {bottom}v4" stroke="#999999"/>')
            parts.append(text(x, bottom + 17, f"{int(step):,}", anchor="middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 33, "steps", anchor="middle"))
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e5e5"/>')
        parts.append(text(LEFT - 6, y + 4, f"{value:g}", anchor="end"))
    return parts


def _stroke(index: int) -> str:
    dash = DASHES[index // len(PALETTE) % len(DASHES)]
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{PALETTE[index % len(PALETTE)]}" stroke-width="1.8"{dashes}'
