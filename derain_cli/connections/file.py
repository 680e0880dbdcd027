"""connections.toml: the edges that a search chose, their weights and their costs.

Costs and budgets are multiply-adds at 256x256, all stages counted, as in RDMC's Table III.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from derain_cli.connections.space import PUBLISHED, Alphas, SearchSpace, softmax
from derain_cli.errors import ConfigError
from derain_cli.models.rdmc import (
    CANDIDATES,
    Connection,
    RdmcConfig,
    all_connections,
)
from derain_cli.version import __version__

FORMAT = 1
KINDS = ("skip_up", "skip_down")


@dataclass(frozen=True)
class FoundConnections:
    """State of a search.

    Attributes:
        space: The choices it has.
        alphas: Skip-ups and skip-downs, in the order of `rdmc.CANDIDATES`.
        about: More facts for the file: steps, seed, data.
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
        """Entropy of the shares of each category in nats; ln 10 = 2.303 means no preference."""
        return [-sum(p * math.log(p) for p in row if p > 0) for row in self.shares]


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
        "[entropy]  # of the shares, in nats; ln 10 = 2.303 means no preference",
        *(f"{kind} = {value!r}" for kind, value in zip(KINDS, found.entropies, strict=True)),
    ]
    return "\n".join([*lines, *_edge_tables(found)]) + "\n"


def _shape_options(shape: RdmcConfig) -> str:
    """Options of `derain train` for a network without the published widths."""
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
    """A TOML value; text and numbers are written as in JSON."""
    return json.dumps(value)


def read_connections(path: Path) -> tuple[Connection, ...]:
    """The chosen edges of a connections.toml.

    Raises:
        ConfigError: The file cannot be read, is not TOML, has another format, or contradicts
            itself or the network; the message names the edge.
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
