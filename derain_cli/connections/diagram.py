"""SVG images of a search: the network with its edges, and the alphas over time."""

from collections.abc import Sequence
from typing import NamedTuple

from derain_cli.connections.file import FoundConnections
from derain_cli.connections.space import GIGA, Alphas, softmax
from derain_cli.drawings.svg import PALETTE, document, text
from derain_cli.models.rdmc import CANDIDATES, LEVELS, Connection, level_of

WIDTH, HEIGHT = 920, 560
COLOURS = PALETTE[:2]  # skip-up, skip-down
TITLES = ("skip-up", "skip-down")
BOX_WIDTH, BOX_HEIGHT = 92, 34
TOP, ROW = 84, 96
THICKEST, THINNEST = 9.0, 0.6
LABEL_HEIGHT = 15.0
PALE, GREY, DASHED = "#bbbbbb", "#999999", 'stroke-dasharray="4 4"'
History = Sequence[tuple[int, Alphas]]


def network_image(found: FoundConnections) -> str:
    """SVG: the ten layers and each candidate edge, as thick as its share; chosen ones coloured."""
    chosen = found.edges
    edges = [
        _edge_path(edge, share, colour, chosen=edge in chosen)
        for row, shares, colour in zip(CANDIDATES, found.shares, COLOURS, strict=True)
        for edge, share in zip(row, shares, strict=True)
    ]
    # Chosen edges are drawn last, over the others.
    edges.sort(key=lambda path: 'class="chosen"' in path)
    title = f"{len(chosen)} of {len(edges)} connections, {found.cost / GIGA:.3f} GMAC at 256x256"
    body = [text(24, 34, title, size=17), *_skips(), *edges, *_layers(), *_table(found)]
    return document(WIDTH, HEIGHT, [*body, *_network_legend()], title)


def _network_legend() -> list[str]:
    """What each kind of line is, below the network."""
    chosen = [
        _sample(24, 516 + 20 * row, f"chosen {title}", f'stroke="{colour}" stroke-width="5"')
        for row, (title, colour) in enumerate(zip(TITLES, COLOURS, strict=True))
    ]
    return [
        *chosen,
        _sample(200, 516, "not chosen", f'stroke="{GREY}" stroke-width="3" stroke-opacity="0.45"'),
        _sample(200, 536, "always there", f'stroke="{PALE}" {DASHED}'),
        text(370, 516, "the thicker, the larger its share", colour="#666666"),
    ]


def _sample(x: float, y: float, words: str, stroke: str) -> str:
    """A line of the legend: a stretch of a line, and what it means."""
    return f'<path class="legend" d="M{x:g} {y - 4:g}h28" {stroke}/>' + text(x + 36, y, words)


def _place(layer: int) -> tuple[float, float]:
    """Middle of a layer's box: a U, the encoder on the left, full size on top."""
    level = level_of(layer)
    inward = 16 * level
    x = 90 + inward if layer <= LEVELS else 510 - inward
    return x, TOP + ROW * level


def _layers() -> list[str]:
    boxes = []
    for layer in range(1, 2 * LEVELS + 1):
        x, y = _place(layer)
        level = level_of(layer)
        size = "full size" if not level else f"1/{2**level}"
        boxes += [
            f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="6" fill="#ffffff" stroke="#333333"/>',
            text(x, y - 2, f"layer {layer}", anchor="middle"),
            text(x, y + 11, size, size=10, anchor="middle", colour="#666666"),
        ]
    return boxes


def _skips() -> list[str]:
    """The fixed connections: same-level skips and layer to layer."""
    lines = [(layer, 2 * LEVELS + 1 - layer) for layer in range(1, LEVELS + 1)]
    lines += [(layer, layer + 1) for layer in range(1, 2 * LEVELS) if layer != LEVELS]
    paths = []
    for start, end in lines:
        (a, b), (c, d) = _place(start), _place(end)
        paths.append(
            f'<path class="fixed" d="M{a:g} {b:g} L{c:g} {d:g}" stroke="{PALE}" '
            f'{DASHED} fill="none"/>'
        )
    return paths


def _edge_path(edge: Connection, share: float, colour: str, *, chosen: bool) -> str:
    (x, y), (to_x, to_y) = _place(edge[0]), _place(edge[1])
    x, to_x = x + BOX_WIDTH / 2, to_x - BOX_WIDTH / 2
    middle = (x + to_x) / 2
    return (
        f'<path class="{"chosen" if chosen else "candidate"}" data-edge="{edge[0]}-{edge[1]}" '
        f'd="M{x:g} {y:g} C{middle:g} {y:g} {middle:g} {to_y:g} {to_x:g} {to_y:g}" '
        f'stroke="{colour if chosen else GREY}" stroke-width="{_thickness(share):.3f}" '
        f'stroke-opacity="{0.9 if chosen else 0.45}" fill="none">'
        f"<title>{_shown(edge)}: {share:.3f}</title></path>"
    )


def _thickness(share: float) -> float:
    return THINNEST + (THICKEST - THINNEST) * share


def _shown(edge: Connection) -> str:
    return f"{edge[0]}→{edge[1]}"


def _table(found: FoundConnections) -> list[str]:
    """Table beside the network: alpha, share and cost of each edge, the likeliest first."""
    lines, y = [], 62.0
    chosen, costs = found.edges, found.space.costs
    groups = zip(TITLES, COLOURS, CANDIDATES, found.alphas, found.shares, strict=True)
    for (title, colour, row, alphas, shares), entropy in zip(groups, found.entropies, strict=True):
        lines.append(text(620, y, f"{title}, entropy {entropy:.3f}", size=13, colour=colour))
        lines += _columns(y + 18, ("edge", "alpha", "share", "MMAC"), "#666666")
        ranked = sorted(zip(row, alphas, shares, strict=True), key=lambda line: -line[1])
        for place, (edge, alpha, share) in enumerate(ranked):
            cells = (_shown(edge), f"{alpha:+.3f}", f"{share:.3f}", f"{costs[edge] / 1e6:.0f}")
            lines += _columns(y + 36 + 17 * place, cells, colour if edge in chosen else "#777777")
        y += 250
    return lines


def _columns(y: float, cells: Sequence[str], colour: str) -> list[str]:
    places = (660, 735, 810, 885)
    return [
        text(x, y, cell, anchor="end", colour=colour) for x, cell in zip(places, cells, strict=True)
    ]


def history_image(history: History, chosen: Sequence[Connection]) -> str:
    """SVG: share of each edge over the steps, one panel per category; chosen edges coloured.

    Args:
        history: Step and alphas at that step, in the order of `rdmc.CANDIDATES`.
        chosen: Edges to be drawn in colour and named.
    """
    body = []
    for index, (title, colour) in enumerate(zip(TITLES, COLOURS, strict=True)):
        panel = _Panel(left=60 + 460 * index, top=60, width=340, height=420)
        body += _panel_lines(panel, index, colour, history, chosen)
        body.append(text(panel.left, 40, f"{title}: share over time", size=15, colour=colour))
    return document(
        WIDTH, HEIGHT, [*body, *_history_legend()], "shares of the connections over time"
    )


def _history_legend() -> list[str]:
    samples = [*zip(COLOURS, (f"chosen {title}" for title in TITLES), strict=True)]
    return [
        _sample(60 + 190 * column, 530, words, f'stroke="{colour}" stroke-width="2"')
        for column, (colour, words) in enumerate([*samples, (PALE, "not chosen")])
    ]


class _Panel(NamedTuple):
    left: float
    top: float
    width: float
    height: float

    def point(self, across: float, up: float) -> str:
        return f"{self.left + self.width * across:.2f},{self.top + self.height * (1 - up):.2f}"


def _panel_lines(
    panel: _Panel, index: int, colour: str, history: History, chosen: Sequence[Connection]
) -> list[str]:
    shares = [softmax(alphas[index]) for _, alphas in history]
    steps = [step for step, _ in history]
    highest = max(max(row) for row in shares)
    last = max(steps[-1], 1)
    lines = _axes(panel, last, highest)
    for column, edge in sorted(enumerate(CANDIDATES[index]), key=lambda item: item[1] in chosen):
        points = " ".join(
            panel.point(step / last, row[column] / highest)
            for step, row in zip(steps, shares, strict=True)
        )
        ink = colour if edge in chosen else PALE
        lines.append(
            f'<polyline data-edge="{edge[0]}-{edge[1]}" points="{points}" fill="none" '
            f'stroke="{ink}" stroke-width="{2 if edge in chosen else 1}"/>'
        )
    ends = {edge: shares[-1][i] / highest for i, edge in enumerate(CANDIDATES[index])}
    return lines + _end_labels(panel, ends, colour, chosen)


def _end_labels(
    panel: _Panel, ends: dict[Connection, float], colour: str, chosen: Sequence[Connection]
) -> list[str]:
    """The edges' names where their lines end, moved down where they would overlap."""
    labels, free = [], panel.top
    for edge, height in sorted(ends.items(), key=lambda item: -item[1]):
        y = max(panel.top + panel.height * (1 - height) + 4, free)
        free = y + LABEL_HEIGHT
        ink = colour if edge in chosen else "#888888"
        labels.append(text(panel.left + panel.width + 6, y, _shown(edge), colour=ink))
    return labels


def _axes(panel: _Panel, last: int, highest: float) -> list[str]:
    left, bottom = panel.left, panel.top + panel.height
    return [
        f'<path d="M{left:g} {panel.top:g} V{bottom:g} H{left + panel.width:g}" '
        'stroke="#333333" fill="none"/>',
        text(left - 6, panel.top + 4, f"{highest:.2f}", anchor="end"),
        text(left - 6, bottom + 4, "0", anchor="end"),
        text(left + panel.width, bottom + 18, f"{last} steps", anchor="end"),
    ]
