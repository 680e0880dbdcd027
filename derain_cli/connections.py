"""connections.toml: which edges a search found, what they weigh and what they cost.

Costs and budgets are multiply-adds at 256x256, all stages counted, as in RDMC's Table III.
"""

import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain_cli import __version__
from derain_cli.errors import ConfigError
from derain_cli.models.rdmc import (
    CANDIDATES,
    CATEGORY,
    Connection,
    RdmcConfig,
    all_connections,
    connection_multiply_adds,
    multiply_adds,
)

FORMAT = 1
KINDS = ("skip_up", "skip_down")
GIGA = 10**9
PUBLISHED = RdmcConfig()

Alphas = Sequence[Sequence[float]]


@dataclass(frozen=True)
class SearchSpace:
    """What a search may choose: so many edges of each category, within a budget.

    Attributes:
        shape: The network without its edges; it decides what they cost.
        keep: Edges of each category, skip-ups and skip-downs.
        budget: Most multiply-adds of the network at 256x256, in 10^9; 0 = no limit.
    """

    shape: RdmcConfig = PUBLISHED
    keep: int = 2
    budget: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no choice meets.

        Raises:
            ConfigError: An impossible number of edges, or a budget below the cheapest choice.
        """
        if not 1 <= self.keep <= CATEGORY:
            raise ConfigError(f"--keep is {self.keep!r}; it must be from 1 to {CATEGORY}")
        if not self._affordable.any():
            cheapest = math.ceil(self._totals.min() / GIGA * 1000) / 1000
            raise ConfigError(
                f"--budget is {self.budget:g} GMAC, but the cheapest network that keeps "
                f"{self.keep} of each kind has {cheapest:g}"
            )

    @cached_property
    def costs(self) -> dict[Connection, int]:
        """Multiply-adds of each edge."""
        return {edge: connection_multiply_adds(self.shape, edge) for edge in all_connections()}

    @cached_property
    def fixed_cost(self) -> int:
        """Multiply-adds of the network without any edge."""
        return multiply_adds(replace(self.shape, connections=()))

    def cost(self, edges: Collection[Connection]) -> int:
        """Multiply-adds of the network with these edges.

        Example:
            >>> SearchSpace().cost(((3, 9), (4, 8), (2, 8), (3, 7)))
            3017834496
        """
        return self.fixed_cost + sum(self.costs[edge] for edge in edges)

    def choose(self, alphas: Alphas) -> tuple[Connection, ...]:
        """The likeliest edges: largest sum of alphas among the choices within the budget.

        Args:
            alphas: Skip-ups and skip-downs, in the order of `rdmc.CANDIDATES`.

        Example:
            >>> ups, downs = [0, 3, 0, 2, 0, 0, 0, 0, 0, 0], [0, 0, 5, 0, 0, 4, 0, 0, 0, 0]
            >>> SearchSpace().choose([ups, downs])
            ((1, 8), (2, 7), (3, 9), (4, 8))
        """
        ups, downs = (
            np.array([sum(row[place] for place in chosen) for chosen in self._places])
            for row in alphas
        )
        likely = np.where(self._affordable, ups[:, None] + downs[None, :], -np.inf)
        return self._edges(int(likely.argmax()))

    def draw(self, count: int, seed: int) -> list[tuple[Connection, ...]]:
        """Different choices within the budget, all equally likely.

        Raises:
            ConfigError: There are fewer than `count`.
        """
        allowed = self._affordable.ravel().nonzero()[0]
        if not 1 <= count <= len(allowed):
            raise ConfigError(
                f"--candidates random {count}: it must be from 1 to {len(allowed)}, the number of "
                "different choices"
            )
        drawn = np.random.default_rng(seed).permutation(allowed)[:count]
        return [self._edges(int(number)) for number in drawn]

    @cached_property
    def _places(self) -> list[tuple[int, ...]]:
        """All ways to keep some of a category, as positions in it."""
        return list(combinations(range(CATEGORY), self.keep))

    @cached_property
    def _totals(self) -> NDArray[np.int64]:
        """Multiply-adds of every choice: rows for the skip-ups, columns for the skip-downs."""
        ups, downs = (
            np.array([sum(self.costs[row[place]] for place in chosen) for chosen in self._places])
            for row in CANDIDATES
        )
        totals: NDArray[np.int64] = self.fixed_cost + ups[:, None] + downs[None, :]
        return totals

    @cached_property
    def _affordable(self) -> NDArray[np.bool_]:
        affordable: NDArray[np.bool_] = self._totals <= (self.budget or math.inf) * GIGA
        return affordable

    def _edges(self, number: int) -> tuple[Connection, ...]:
        """Choice by its number in the table of all, in the order of the search space."""
        chosen = [self._places[place] for place in divmod(number, len(self._places))]
        kept = (row[i] for row, places in zip(CANDIDATES, chosen, strict=True) for i in places)
        return tuple(sorted(kept))


@dataclass(frozen=True)
class FoundConnections:
    """Where a search stands.

    Attributes:
        space: What it may choose.
        alphas: Skip-ups and skip-downs, in the order of `rdmc.CANDIDATES`.
        about: More that the file shall say: steps, seed, data.
    """

    space: SearchSpace
    alphas: Alphas
    about: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @cached_property
    def edges(self) -> tuple[Connection, ...]:
        """The chosen edges, in the order of the search space."""
        return self.space.choose(self.alphas)

    @property
    def cost(self) -> int:
        """Multiply-adds of the network with the chosen edges."""
        return self.space.cost(self.edges)

    @property
    def shares(self) -> list[list[float]]:
        """Softmax of the alphas of each category."""
        return [softmax(row) for row in self.alphas]

    @property
    def entropies(self) -> list[float]:
        """Entropy of the shares of each category in nats: ln 10 = 2.303 prefers nothing."""
        return [-sum(p * math.log(p) for p in row if p > 0) for row in self.shares]


def softmax(row: Sequence[float]) -> list[float]:
    """Shares that sum to 1.

    Example:
        >>> softmax([1.0, 1.0, float("-inf")])
        [0.5, 0.5, 0.0]
    """
    powers = [math.exp(alpha - max(row)) for alpha in row]
    return [power / sum(powers) for power in powers]


def to_toml(found: FoundConnections) -> str:
    """The text of connections.toml."""
    space = found.space
    lines = [
        "# Found by `derain search`; this trains the network:",
        f"# derain train --model rdmc --connections FILE{_shape_options(space.shape)}",
        f"format = {FORMAT}",
        f"connections = {_value(found.edges)}",
        f"multiply_adds = {found.cost}  # of the whole network at 256x256, all stages",
        f"keep = {space.keep}  # of each kind",
        f"budget = {float(space.budget)!r}  # 10^9 multiply-adds; 0 = none",
        *(f"{name} = {_value(value)}" for name, value in found.about.items()),
        f"derain_version = {_value(__version__)}",
        "",
        "[entropy]  # of the shares, in nats; ln 10 = 2.303 prefers nothing",
        *(f"{kind} = {value!r}" for kind, value in zip(KINDS, found.entropies, strict=True)),
    ]
    return "\n".join([*lines, *_edge_tables(found)]) + "\n"


def _shape_options(shape: RdmcConfig) -> str:
    """Options of `derain train` for a network that has not the published widths."""
    names = ("widths", "dilations", "stages", "norm_per_stage")
    changed = {name: getattr(shape, name) for name in names}
    return "".join(
        f" --model-option '{name}={_value(value)}'"
        for name, value in changed.items()
        if value != getattr(PUBLISHED, name)
    )


def _edge_tables(found: FoundConnections) -> list[str]:
    lines = []
    chosen = found.edges
    rows = zip(KINDS, CANDIDATES, found.alphas, found.shares, strict=True)
    for kind, candidates, alphas, shares in rows:
        for edge, alpha, share in zip(candidates, alphas, shares, strict=True):
            lines += [
                "",
                "[[edge]]",
                f"from = {edge[0]}",
                f"to = {edge[1]}",
                f'kind = "{kind}"',
                f"alpha = {float(alpha)!r}",
                f"share = {share!r}",
                f"multiply_adds = {found.space.costs[edge]}",
                f"chosen = {_value(edge in chosen)}",
            ]
    return lines


def _value(value: Any) -> str:  # noqa: ANN401 (text, number or bool)
    """A TOML value; JSON's text and numbers are TOML's too."""
    return json.dumps(value)


def read_connections(path: Path) -> tuple[Connection, ...]:
    """The chosen edges of a connections.toml.

    Raises:
        ConfigError: Not readable, not TOML, of another format, or contradicting itself or the
            network: the edge is named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read connections {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"connections {str(path)!r} is not TOML: {error}") from error
    if content.get("format") != FORMAT:
        raise ConfigError(
            f"connections {str(path)!r} has format {content.get('format')!r}, "
            f"this version reads {FORMAT}"
        )
    edges = _checked_edges(content.get("connections"), path)
    _check_marks(content.get("edge", []), edges, path)
    return edges


def _checked_edges(listed: Any, path: Path) -> tuple[Connection, ...]:  # noqa: ANN401 (TOML)
    if not isinstance(listed, list) or not listed:
        raise ConfigError(
            f"connections {str(path)!r} chooses no edge: it needs connections = [[3, 9], ...]"
        )
    for edge in listed:
        if not isinstance(edge, list) or tuple(edge) not in all_connections():
            raise ConfigError(f"connections {str(path)!r}: {_no_such_edge(edge)}")
    edges = tuple((source, target) for source, target in listed)
    if len(set(edges)) != len(edges):
        raise ConfigError(f"connections {str(path)!r} names an edge twice: {listed}")
    return edges


def _no_such_edge(edge: Any) -> str:  # noqa: ANN401 (what a user wrote)
    known = ", ".join(f"{source}-{target}" for source, target in all_connections())
    pair = isinstance(edge, list | tuple) and len(edge) == 2
    shown = f"{edge[0]}-{edge[1]}" if pair else repr(edge)
    return f"no such edge {shown}; there are {known}"


def _check_marks(tables: Any, edges: tuple[Connection, ...], path: Path) -> None:  # noqa: ANN401
    """The tables of the edges must exist and agree with the list."""
    for table in tables:
        edge = (table.get("from"), table.get("to"))
        if edge not in all_connections():
            raise ConfigError(f"connections {str(path)!r}: {_no_such_edge(edge)}")
        if "chosen" in table and table["chosen"] != (edge in edges):
            listed = "does" if edge in edges else "does not"
            raise ConfigError(
                f"connections {str(path)!r} contradicts itself: edge {edge[0]}-{edge[1]} has "
                f"chosen = {_value(table['chosen'])}, but the list {listed} name it"
            )


def model_option(edges: Sequence[Connection]) -> str:
    """The edges as `TrainConfig.model_option` takes them.

    Example:
        >>> model_option(((3, 9), (2, 8)))
        'connections=[[3, 9], [2, 8]]'
    """
    return f"connections={json.dumps(edges)}"
