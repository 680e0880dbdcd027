"""Structures that look like rain: brick joints, railings, wires, letters, highlights, light strips.

A network trained only on rain over photos of nature takes everything thin, bright and upright for
rain. The two differ: structures are regular, follow perspective, end at objects, are as sharp as
those and may be darker than the background; rain is random, soft and always brighter. Here
structures are drawn over photos, shaded and in perspective, as part of the scene.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

CANVAS = 320
LETTERS = "ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstuvwxyz0123456789!?&"
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)


class _Sheet:
    """A square canvas of colours and their opacity."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.colour = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        self.opaque = np.zeros((CANVAS, CANVAS), np.uint8)

    def shade(self) -> tuple[int, int, int]:
        """A colour, grey more often than not, light or dark."""
        grey = self.rng.choice((self.rng.uniform(0, 90), self.rng.uniform(130, 255)))
        tint = self.rng.normal(0, self.rng.choice((3.0, 25.0)), 3)
        red, green, blue = np.clip(grey + tint, 0, 255).astype(int).tolist()
        return red, green, blue

    def line(
        self, start: tuple[float, float], end: tuple[float, float], thick: float, colour: object
    ) -> None:
        """A line of a width of one pixel or more, with smooth edges."""
        for target, value in ((self.colour, colour), (self.opaque, 255)):
            _draw_line(target, start, end, thick, value)

    def fill(self) -> None:
        """A surface of one colour with some grain."""
        self.colour[:] = self.shade()
        self.opaque[:] = 255
        grain = self.rng.normal(0, self.rng.uniform(0, 10), (CANVAS, CANVAS, 1))
        self.colour = np.clip(self.colour + grain, 0, 255).astype(np.uint8)


def _draw_line(
    target: Pixels,
    start: tuple[float, float],
    end: tuple[float, float],
    thick: float,
    value: object,
) -> None:
    points = [tuple(round(16 * place) for place in point) for point in (start, end)]
    cv2.line(target, *points, value, max(1, round(thick)), cv2.LINE_AA, 4)  # type: ignore[call-overload]


def _bars(sheet: _Sheet) -> None:
    """Railings, fences, blinds, slats, corrugated iron: equal bars at equal distances."""
    rng = sheet.rng
    if rng.random() < 0.4:
        sheet.fill()
    gap = rng.uniform(5, 44)
    thick, colour = max(1.0, gap * rng.uniform(0.08, 0.6)), sheet.shade()
    edge = sheet.shade() if rng.random() < 0.5 else None
    for place in np.arange(rng.uniform(0, gap), CANVAS, gap):
        sheet.line((place, -9), (place, CANVAS + 9), thick, colour)
        if edge and thick > 2.5:  # the lit side of a round bar
            lit = place - 0.3 * thick
            sheet.line((lit, -9), (lit, CANVAS + 9), max(1.0, 0.25 * thick), edge)
    for _ in range(int(rng.integers(0, 4))):
        height = rng.uniform(0, CANVAS)
        sheet.line((-9, height), (CANVAS + 9, height), thick * rng.uniform(0.8, 2), colour)


def _bricks(sheet: _Sheet) -> None:
    """Rows of bricks or tiles: joints across, and upright ones that alternate."""
    rng = sheet.rng
    sheet.fill()
    tall = rng.uniform(7, 60)
    long, joint = tall * rng.uniform(1, 5), max(1.0, tall * rng.uniform(0.04, 0.25))
    shift, colour = rng.choice((0.0, 0.33, 0.5)), sheet.shade()
    if rng.random() < 0.35:  # mortar is lighter than its bricks more often than not
        lit = sheet.colour[0, 0].astype(int) + rng.uniform(25, 140)
        red, green, blue = np.clip(lit, 0, 255).astype(int).tolist()
        colour = (red, green, blue)
    uneven, tone = rng.uniform(0, 0.12), sheet.colour[0, 0].astype(int)
    tops = np.arange(0, CANVAS + tall, tall)
    tops = tops + tall * rng.normal(0, uneven, len(tops))
    for row, (top, base) in enumerate(pairwise((*tops, CANVAS + tall))):
        sides = np.arange((row % 2) * shift * long - long, CANVAS + long, long)
        sides = sides + long * rng.normal(0, uneven, len(sides))
        for left, right in pairwise(sides):
            corner = (round(left), round(top)), (round(right), round(base))
            shade = np.clip(tone + int(rng.normal(0, 14)), 0, 255).tolist()
            cv2.rectangle(sheet.colour, *corner, shade, -1)
        for left in sides:
            sheet.line((left, top), (left, base), joint, colour)
    for top in tops:
        sheet.line((0, top), (CANVAS, top), joint, colour)


def _wires(sheet: _Sheet) -> None:
    """Wires, ropes, stalks and masts: thin and long, each with its own direction."""
    rng = sheet.rng
    upright = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 9))):
        thick, colour = rng.uniform(1, 4), sheet.shade()
        ends, sag = rng.uniform(0, CANVAS, 2), rng.uniform(-25, 25)
        along = np.linspace(-5, CANVAS + 5, 24)
        course = np.linspace(ends[0], ends[1], 24) + sag * np.sin(np.linspace(0, np.pi, 24))
        points = list(
            zip(course, along, strict=True) if upright else zip(along, course, strict=True)
        )
        for start, end in pairwise(points):
            sheet.line(start, end, thick, colour)


def _letters(sheet: _Sheet) -> None:
    """Lines of letters, as on signs, watermarks and subtitles."""
    rng = sheet.rng
    if rng.random() < 0.4:
        sheet.fill()
    colour, font, size = sheet.shade(), int(rng.choice(FONTS)), rng.uniform(0.4, 3)
    thick = max(1, round(size * rng.uniform(0.7, 3)))
    see_through = int(rng.choice((255, 255, 150)))
    for base in np.arange(32 * size, CANVAS, 34 * size):
        text = "".join(rng.choice(list(LETTERS)) for _ in range(int(34 / size)))
        place = (int(rng.integers(-20, 20)), round(base))
        cv2.putText(sheet.colour, text, place, font, size, colour, thick, cv2.LINE_AA)
        cv2.putText(sheet.opaque, text, place, font, size, see_through, thick, cv2.LINE_AA)


def _fans(sheet: _Sheet) -> None:
    """Ribs that meet at a point: umbrellas, spokes, stays, folds of cloth."""
    rng = sheet.rng
    middle, count = rng.uniform(-0.2, 1.2, 2) * CANVAS, int(rng.integers(6, 40))
    colour, thick = sheet.shade(), rng.uniform(1, 3.5)
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.random():
        end = middle + 2 * CANVAS * np.array([np.cos(angle), np.sin(angle)])
        sheet.line(tuple(middle), tuple(end), thick, colour)


def _gloss(sheet: _Sheet) -> None:
    """Highlights on round things, lamps and their reflections: bright, short, sharp or soft."""
    rng = sheet.rng
    for _ in range(int(rng.integers(4, 40))):
        place = rng.integers(0, CANVAS, 2).tolist()
        axes = [int(rng.integers(1, 6)), int(rng.integers(2, 34))]
        bright = int(rng.integers(170, 256))
        tilt = float(rng.normal(0, 25))
        cv2.ellipse(sheet.colour, place, axes, tilt, 0, 360, (bright,) * 3, -1, cv2.LINE_AA)
        cv2.ellipse(sheet.opaque, place, axes, tilt, 0, 360, int(rng.integers(120, 256)), -1)
    soft = rng.choice((0.5, 1.5))
    sheet.opaque = np.asarray(cv2.GaussianBlur(sheet.opaque, (0, 0), soft), np.uint8)


def _poles(sheet: _Sheet) -> None:
    """Poles, legs, window frames and trunks: a few bars with a lit and a dark side."""
    rng = sheet.rng
    for _ in range(int(rng.integers(1, 5))):
        place, thick = rng.uniform(0, CANVAS), rng.uniform(3, 34)
        lean, base = rng.normal(0, 20), np.array(sheet.shade(), float)
        for share in np.linspace(-0.5, 0.5, max(2, round(thick / 2))):
            tone = np.clip(base * (1 + 0.7 * share * rng.choice((-1, 1))), 0, 255).tolist()
            left = place + share * thick
            sheet.line((left, -9), (left + lean, CANVAS + 9), thick / 3, tone)


def _stalks(sheet: _Sheet) -> None:
    """Grass, straw, fur, needles: strokes side by side, each lighter or darker than the next."""
    rng = sheet.rng
    sheet.fill()
    base, contrast = np.array(sheet.shade(), float), rng.uniform(15, 80)
    length, spread, thick = rng.uniform(8, 60), rng.uniform(4, 60), rng.uniform(1, 3)
    for _ in range(int(rng.integers(300, 1800))):
        start, angle = rng.uniform(-20, CANVAS + 20, 2), np.radians(rng.normal(0, spread))
        reach = length * rng.uniform(0.4, 1.6) * np.array([np.sin(angle), np.cos(angle)])
        tone = np.clip(base + rng.normal(0, contrast), 0, 255).tolist()
        sheet.line(tuple(start), tuple(start + reach), thick * rng.uniform(0.6, 1.5), tone)


def _strips(sheet: _Sheet) -> None:
    """Light strips, edges of roofs and trails of lamps: long, bright and slanted, often aglow."""
    rng = sheet.rng
    if rng.random() < 0.5:
        sheet.fill()
        sheet.colour = (sheet.colour * rng.uniform(0.05, 0.5)).astype(np.uint8)
    bright = np.clip(rng.uniform(150, 256) + rng.normal(0, 25, 3), 0, 255).tolist()
    slope = np.tan(np.radians(rng.uniform(8, 40) * rng.choice((-1, 1))))
    line = np.zeros((CANVAS, CANVAS), np.uint8)
    glow, ends = rng.uniform(2, 9), rng.uniform(-0.6, 1.6, 2) * CANVAS
    for height in rng.uniform(-0.2, 1.2, int(rng.integers(1, 7))) * CANVAS:
        course = [(at, height + slope * at + rng.normal(0, 2)) for at in sorted(ends)]
        _draw_line(line, course[0], course[1], rng.uniform(1, 6), 255)
        if rng.random() < 0.5:
            ends = rng.uniform(-0.6, 1.6, 2) * CANVAS
    halo = cv2.GaussianBlur(line, (0, 0), glow).astype(np.float32) * rng.choice((0.0, 1.5))
    share = np.maximum(line, np.minimum(halo, 200))[..., None] / 255
    lit = sheet.colour * (1 - share) + share * np.array(bright, np.float32)
    seen = np.clip(lit, 0, 255).astype(np.uint8)
    # Where there is no wall the glow lies over the scene itself.
    sheet.colour = seen if sheet.opaque.any() else np.full_like(seen, bright)
    sheet.opaque = np.maximum(sheet.opaque, np.round(255 * share[..., 0]).astype(np.uint8))


def _meshes(sheet: _Sheet) -> None:
    """Nets, grilles, wire mesh: thin lines of two directions, light before dark or the reverse."""
    rng = sheet.rng
    if rng.random() < 0.5:
        sheet.fill()
        sheet.colour = (sheet.colour * rng.uniform(0.1, 1)).astype(np.uint8)
    gap, turn = rng.uniform(4, 30), rng.choice((0.0, rng.uniform(0, 90)))
    thick, colour = max(1.0, gap * rng.uniform(0.06, 0.35)), sheet.shade()
    middle = np.array([CANVAS / 2, CANVAS / 2])
    for angle, share in ((turn, 1.0), (turn + rng.choice((90.0, 60.0)), rng.uniform(0.7, 1.4))):
        along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        across = np.array([-along[1], along[0]])
        for place in np.arange(-0.75 * CANVAS, 0.75 * CANVAS, gap * share):
            start = middle + place * across - CANVAS * along
            sheet.line(tuple(start), tuple(start + 2 * CANVAS * along), thick, colour)


def _weather(sheet: _Sheet) -> None:
    """Make edges uneven and surfaces blotched: walls and wood are not drawn with a ruler."""
    rng = sheet.rng
    blotches = _noise(rng, rng.uniform(0.5, 1.1)) * rng.uniform(0.03, 0.22)
    sheet.colour = np.clip(sheet.colour * (1 + blotches[..., None]), 0, 255).astype(np.uint8)
    rows, columns = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    reach = np.float32(rng.uniform(0.2, 1.4))
    to_column, to_row = (at + reach * _noise(rng, 0.6) for at in (columns, rows))
    for name in ("colour", "opaque"):
        bent = cv2.remap(
            getattr(sheet, name),
            to_column,
            to_row,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        setattr(sheet, name, np.asarray(bent, np.uint8))


def _noise(rng: np.random.Generator, fineness: float) -> Floats:
    """Noise of all sizes with a standard deviation of 1; finer sizes are `fineness` as strong."""
    total = np.zeros((CANVAS, CANVAS), np.float32)
    for octave in range(7):
        cells = 5 * 2**octave
        coarse = rng.normal(0, fineness**octave, (cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    return np.asarray(total / total.std(), np.float32)


STRUCTURES: Mapping[str, Callable[[_Sheet], None]] = {
    "bars": _bars,
    "bricks": _bricks,
    "wires": _wires,
    "letters": _letters,
    "fans": _fans,
    "gloss": _gloss,
    "poles": _poles,
    "stalks": _stalks,
    "strips": _strips,
    "meshes": _meshes,
}
KINDS = tuple(STRUCTURES)
_WEIGHTS = {"bricks": 3.0, "bars": 2.0}  # the hardest to tell from rain; the others weigh 1
SHARES = np.array([_WEIGHTS.get(kind, 1.0) for kind in KINDS])
SHARES /= SHARES.sum()
WEATHERED = {
    "bricks": 0.75,
    "bars": 0.4,
    "letters": 0.25,
    "poles": 0.5,
    "stalks": 0.5,
    "meshes": 0.3,
}
"""Share of the structures of a kind that are rough; those of the others are smooth."""
LEVEL = frozenset({"strips"})
"""Kinds that are never turned on end: steep, they would be rain."""


def draw_structure(kind: str, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A structure in perspective: colours `(320, 320, 3)` and their opacity."""
    sheet = _Sheet(rng)
    STRUCTURES[kind](sheet)
    if rng.random() < WEATHERED.get(kind, 0):
        _weather(sheet)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * CANVAS
    upright = rng.random() < 0.75  # most structures are upright or level
    if kind in LEVEL:
        angle = rng.normal(0, 4)
    else:
        angle = rng.choice((0.0, 90.0)) + rng.normal(0, 4) if upright else rng.uniform(0, 180)
    turn = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), angle, 1.45)
    corners: Floats = np.column_stack((square, np.ones(4, np.float32)))
    turned = corners @ np.asarray(turn, np.float32).T
    strength = 0.28 * CANVAS * rng.random()
    seen = turned + rng.uniform(-1, 1, (4, 2)).astype(np.float32) * np.float32(strength)
    matrix = cv2.getPerspectiveTransform(square, seen.astype(np.float32))
    sides = [
        np.asarray(
            cv2.warpPerspective(
                side,
                matrix,
                (CANVAS, CANVAS),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
            ),
            np.uint8,
        )
        for side in (sheet.colour, sheet.opaque)
    ]
    return sides[0], sides[1]


def add_structure(scene: Floats, rng: np.random.Generator) -> Floats:
    """Scene with a structure in front, shaded and about as sharp as a photo.

    Each is drawn anew (7 ms): of a bank of 256, eight walls had upright light joints, a network
    knew them by heart and took the joints of any other wall for rain.

    Args:
        scene: `(height, width, 3)` in 0..1.
        rng: Decides which structure, and its pose.
    """
    height, width = scene.shape[:2]
    colour, opaque = draw_structure(str(rng.choice(KINDS, p=SHARES)), rng)
    zoom = float(np.exp(rng.uniform(np.log(0.6), np.log(1.5)))) * max(1, max(height, width) / 300)
    mirror = rng.choice((-1, 1))
    # The crop may be anywhere in the sheet; the structure ends where the sheet does.
    place = rng.uniform(0.15, 0.85, 2) * CANVAS
    shift = np.array([width, height]) / 2 - np.array([mirror * zoom, zoom]) * place
    matrix = np.array([[mirror * zoom, 0, shift[0]], [0, zoom, shift[1]]])
    seen = [cv2.warpAffine(side, matrix, (width, height)) for side in (colour, opaque)]
    if rng.random() < 0.5:
        blur = rng.uniform(0.3, 0.9)
        seen = [cv2.GaussianBlur(side, (0, 0), blur) for side in seen]
    share = seen[1][..., None].astype(np.float32) * np.float32(rng.uniform(0.7, 1) / 255)
    shaded = seen[0].astype(np.float32) / 255 * _shade(height, width, rng)
    return np.asarray(np.clip(scene * (1 - share) + share * shaded, 0, 1), np.float32)


def _shade(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Uneven light: a smooth factor around 1, `(height, width, 1)`."""
    coarse = rng.normal(1, rng.uniform(0, 0.25), (3, 3)).clip(0.3, 1.6).astype(np.float32)
    shade = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(shade, np.float32)[..., None]
