"""Curves of training runs, drawn by matplotlib (extra `plots`), which only this file loads."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING, Any

from derain_cli.drawings.svg import PALETTE
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("svg", "png", "pdf")
# The palette is repeated with dashes after eight curves.
STYLES = [*product(("-", "--", ":"), PALETTE)]
# Curves of more points than this are drawn smooth, what they smooth pale behind; the points of
# shorter ones are marked, because nothing is known of what is between them.
NOISY = 60
# A logarithmic axis of a range shorter than this would have a tick or none.
DECADE = 10
# Ticks at 2 and 5 times powers of ten in a range of fewer decades.
FEW = 4
Points = list[tuple[float, float]]
# Names of runs are no formulas, their text stays text, and the same runs give the same file.
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "derain", "text.parse_math": False}


@dataclass(frozen=True)
class Curve:
    """One run's numbers over its steps."""

    run: str
    psnr: Points
    loss: Points


def draw(curves: Sequence[Curve], kind: str = "svg") -> bytes:
    """The file's content: validation PSNR above, training loss below, a legend.

    Args:
        curves: At least one.
        kind: svg, png or pdf.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise UsageError(
            "curves are drawn by matplotlib, which is not installed: "
            "pip install 'derain-cli[plots]' (the numbers are in the runs' metrics.jsonl)"
        ) from error
    with rc_context(SETTINGS):
        content = BytesIO()
        about = {"Date": None} if kind == "svg" else {}
        figure_of(curves).savefig(content, format=kind, dpi=120, metadata=about)
    return content.getvalue()


def figure_of(curves: Sequence[Curve]) -> "Figure":
    """The drawing, for `draw`."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(8.6, 7 + 0.25 * len(curves)), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    _panel(above, curves, "validation PSNR, dB", lambda curve: curve.psnr)
    _panel(below, curves, "training loss", lambda curve: curve.loss)
    values = [value for curve in curves for _, value in curve.loss]
    if values and min(values) > 0 and max(values) > DECADE * min(values):
        _make_logarithmic(below, decades=math.log10(max(values) / min(values)))
    below.set_xlim(left=0)
    below.set_xlabel("steps")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.xaxis.set_major_formatter("{x:,.0f}")
    lines = [_line_of(index) for index in range(len(curves))]
    figure.legend(
        lines, [curve.run + _best_of(curve) for curve in curves], loc="outside lower left"
    )
    return figure


def _panel(
    axes: "Axes", curves: Sequence[Curve], title: str, points_of: Callable[[Curve], Points]
) -> None:
    """The lines of all runs."""
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(color="#e5e5e5")
    axes.ticklabel_format(axis="y", useOffset=False)
    for index, curve in enumerate(curves):
        style, colour = STYLES[index % len(STYLES)]
        points = points_of(curve)
        marker = "o" if len(points) <= NOISY else ""
        if not marker:
            axes.plot(*zip(*points, strict=True), style, color=colour, alpha=0.25)
            points = smoothed(points, len(points) // 30)
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, marker=marker, markersize=4)
    if not axes.lines:
        axes.text(0.02, 0.9, "nothing yet", transform=axes.transAxes)


def _make_logarithmic(axes: "Axes", decades: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 (an extra)

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < FEW else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _line_of(index: int) -> Any:  # noqa: ANN401 (a type of the extra)
    from matplotlib.lines import Line2D  # noqa: PLC0415 (an extra)

    style, colour = STYLES[index % len(STYLES)]
    return Line2D([], [], linestyle=style, color=colour)


def _best_of(curve: Curve) -> str:
    """What the legend says of a run's highest score."""
    if not curve.psnr:
        return ""
    step, psnr = max(curve.psnr, key=lambda point: point[1])
    return f" (best {psnr:.2f} dB, step {step:,})"


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
