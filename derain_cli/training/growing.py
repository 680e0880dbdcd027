"""Let a wider or deeper network begin as what a smaller one has learned.

The weights of the smaller network fill the first channels of the larger one's layers. Its old
channels do not see the new ones at first, and new blocks change nothing, so that the larger network
begins with exactly the smaller one's results; what is new learns from there. The idea is
function-preserving growth (Chen, Goodfellow and Shlens, "Net2Net", ICLR 2016).
"""

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference, in 0..1, between the results of a network and of what it grew into."""


def grow(small: nn.Module, large: nn.Module) -> None:
    """Fill `large`, freshly built, with the weights of `small`, in place.

    Args:
        small: A trained network.
        large: A network of the same architecture whose config asks for as many or more channels
            and blocks.

    Raises:
        ValueError: `large` lacks some of `small`, or would not begin with its results, as where
            features are concatenated, normed together or halved for a gate.
    """
    learned = small.state_dict()
    room = large.state_dict()
    for name, old in learned.items():
        new = room.get(name)
        if new is None or new.dim() != old.dim() or any(map(int.__lt__, new.shape, old.shape)):
            raise ValueError(f"it has less room than the weights for {name}")
    with torch.no_grad():
        for name, new in room.items():
            if name in learned:
                _fill(new, learned[name])
            elif _ends_block(name):
                new.zero_()
    if _difference(small, large) > TOLERANCE:
        raise ValueError("its blocks cannot begin with the results of a smaller network")


def _fill(new: Tensor, old: Tensor) -> None:
    """Write `old` into the first channels of `new`; old outputs ignore the new inputs."""
    if old.dim():
        new[: len(old)] = 0
    new[tuple(slice(size) for size in old.shape)] = old


def _ends_block(name: str) -> bool:
    """Whether a parameter is of the last layer of a block, which adds the block's change.

    Networks that can grow call these layers `last`, or by a name that begins so.
    """
    return name.rpartition(".")[0].rpartition(".")[2].startswith("last")


def _difference(small: nn.Module, large: nn.Module) -> float:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((small.eval()(image) - large.eval()(image)).abs().max())
