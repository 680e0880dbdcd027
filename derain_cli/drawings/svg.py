"""The parts that our SVG drawings share: document, text, axes, a palette."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Told apart by colour-blind readers too (Okabe and Ito).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#8c6d31")
INK = "#222222"
TICKS = 6


def document(width: float, height: float, body: Sequence[str], title: str = "") -> str:
    """A whole SVG on white ground.

    Args:
        width: Pixels.
        height: Pixels.
        body: Its elements, in the order in which they are painted.
        title: What a screen reader says.
    """
    titled = [f"<title>{escape(title)}</title>"] if title else []
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="12">',
            *titled,
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        )
    )


def text(
    x: float, y: float, words: str, *, size: int = 12, anchor: str = "start", colour: str = INK
) -> str:
    """A line of text.

    Args:
        x: Pixels from the left, of the side that `anchor` names.
        y: Pixels from the top, of the base line.
        words: Any text; it is escaped.
        size: Pixels.
        anchor: start, middle or end.
        colour: `#rrggbb`.

    Example:
        >>> text(1, 2, "a < b")
        '<text x="1" y="2" font-size="12" text-anchor="start" fill="#222222">a &lt; b</text>'
    """
    return (
        f'<text x="{x:.6g}" y="{y:.6g}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(words)}</text>'
    )


@dataclass(frozen=True)
class Axis:
    """A range of numbers on a range of pixels.

    Attributes:
        low: Least number.
        high: Largest number.
        start: Pixel of the least number.
        stop: Pixel of the largest number.
        logarithmic: Equal factors are equally far apart.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Pixel of a number.

        Example:
            >>> Axis(0, 10, 100, 200).at(5), Axis(1, 100, 0, 50, logarithmic=True).at(10)
            (150.0, 25.0)
        """
        low, high, value = (self._scaled(x) for x in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """About six round numbers along an axis that is not logarithmic."""
        return round_numbers(self.low, self.high)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def round_numbers(low: float, high: float) -> list[float]:
    """About `TICKS` round numbers from low to high.

    Example:
        >>> round_numbers(0, 1000), round_numbers(0.24, 0.31)
        ([0, 200, 400, 600, 800, 1000], [0.24, 0.26, 0.28, 0.3])
    """
    if high <= low:
        return [low]
    rough = (high - low) / TICKS
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]
