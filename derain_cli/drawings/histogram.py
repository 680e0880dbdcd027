"""Histogram of the gains of each model, as SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

BAND, LABEL, PLOT, BAR_HEIGHT = 64, 200, 560, 44  # of a histogram, in pixels
MOST_BINS = 32
BIN_WIDTHS = (0.25, 0.5, 1.0, 2.0, 5.0)


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
