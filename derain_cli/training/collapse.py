"""Collapse of a run: how it is noticed, and how far back to go.

A network without norms can lose within 50 steps what it learnt in hours, towards the identity and
without a way back, while every number stays finite. `CollapseWatch` notices; `halve_rates` makes a
saved state go on more slowly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FOLLOW = 0.02
"""Share of a new loss in the moving one."""
PATIENCE = 100
"""Steps in a row that the moving loss must be too high."""
WARM_UP = 200
"""Steps before the moving loss of a crop size means anything."""
MOST_RETURNS = 3
"""To one save; a run that collapses from it again and again will not be mended by a lower rate."""


@dataclass
class CollapseWatch:
    """Compares the moving loss with its best.

    Attributes:
        limit: A moving loss above this many times its best is too high; 0 = never.
        crop: Side of the crops that the losses are of: a larger crop has another loss.
        seen: Losses since the crop size last changed.
        moving: The moving loss.
        best: Its lowest value.
        above: Steps in a row that it was too high.
    """

    limit: float
    crop: int = 0
    seen: int = 0
    moving: float = 0.0
    best: float = float("inf")
    above: int = 0

    def has_collapsed(self, loss: float, crop: int) -> bool:
        """Take in the loss of a step; whether the run has collapsed.

        Losses that are negative by construction (as -SSIM is) have no such ratio: those of a run
        that ever goes below 0 are not judged.

        Example:
            >>> watch = CollapseWatch(limit=1.8)
            >>> any(watch.has_collapsed(0.1, 64) for _ in range(400))
            False
            >>> [watch.has_collapsed(0.4, 64) for _ in range(200)].index(True)
            114
        """
        if crop != self.crop:
            self.crop, self.seen, self.moving, self.best = crop, 0, loss, float("inf")
        self.seen += 1
        self.moving += FOLLOW * (loss - self.moving)
        if self.seen > WARM_UP:
            self.best = min(self.best, self.moving)
        high = bool(self.limit) and self.best > 0 and self.moving > self.limit * self.best
        self.above = self.above + 1 if high else 0
        return self.above >= PATIENCE

    @property
    def trusts(self) -> bool:
        """Whether the network of this step looks sound."""
        return self.above == 0

    def state_dict(self) -> dict[str, float]:
        """What resuming needs."""
        return {name: getattr(self, name) for name in ("crop", "seen", "moving", "best", "above")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


def halve_rates(state: Any, factor: float = 0.5) -> Any:  # noqa: ANN401 (a tree of anything)
    """A recipe's state in which every optimizer goes on at a share of its rate.

    `optimization.Optimization` multiplies the scheduled rate with the `rate_share` of each group.

    Example:
        >>> halve_rates({"optimizer": {"param_groups": [{"lr": 1.0}], "state": {}}})
        {'optimizer': {'param_groups': [{'lr': 1.0, 'rate_share': 0.5}], 'state': {}}}
    """
    if not isinstance(state, Mapping):
        return state
    halved = {name: halve_rates(value, factor) for name, value in state.items()}
    if "param_groups" in halved:
        halved["param_groups"] = [
            dict(group) | {"rate_share": factor * group.get("rate_share", 1.0)}
            for group in halved["param_groups"]
        ]
    return halved
