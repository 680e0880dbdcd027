"""The connections that a search can choose from, and their costs."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

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

GIGA = 10**9
PUBLISHED = RdmcConfig()
Alphas = Sequence[Sequence[float]]


@dataclass(frozen=True)
class SearchSpace:
    """Choices of a search: a number of edges per category, within a budget.

    Attributes:
        shape: The network without its edges; it determines their costs.
        keep: Edges of each category, skip-ups and skip-downs.
        budget: Most multiply-adds of the network at 256x256, in 10^9; 0 = no limit.
    """

    shape: RdmcConfig = PUBLISHED
    keep: int = 2
    budget: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that no choice can meet.

        Raises:
            ConfigError: An impossible number of edges, or a budget below the cheapest choice.
        """
        if not 1 <= self.keep <= CATEGORY:
            raise ConfigError(f"`keep` is {self.keep!r}; it must be from 1 to {CATEGORY}")
        if not self._affordable.any():
            cheapest = math.ceil(self._totals.min() / GIGA * 1000) / 1000
            raise ConfigError(
                f"`budget` is {self.budget:g} GMAC, but the cheapest network that keeps "
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
            ConfigError: Fewer than `count` exist.
        """
        allowed = self._affordable.ravel().nonzero()[0]
        if not 1 <= count <= len(allowed):
            raise ConfigError(
                f"`candidates` random {count}: it must be from 1 to {len(allowed)}, the number of "
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


def softmax(row: Sequence[float]) -> list[float]:
    """Shares that sum to 1.

    Example:
        >>> softmax([1.0, 1.0, float("-inf")])
        [0.5, 0.5, 0.0]
    """
    powers = [math.exp(alpha - max(row)) for alpha in row]
    return [power / sum(powers) for power in powers]
