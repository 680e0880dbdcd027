"""Batch norm merged into the convolutions before it, and checked against the network itself."""

import copy

import torch
from torch import Tensor, nn

from derain_cli.conv_norm import ConvNorm
from derain_cli.errors import CheckpointError
from derain_cli.models import HasFolded, ModelEntry
from derain_cli.sizes import round_up

# Side of the random image on which a folded network is compared with the one it was made of.
PROBE_SIDE = 64
# Largest difference that float32 rounding explains, relative to the largest value of the result.
ROUNDING = 1e-3


def folded_network(model: nn.Module, entry: ModelEntry, name: str) -> nn.Module:
    """Equal copy for inference, in eval mode, without the batch norms that can be merged.

    A network that merges in its own way has a method `folded()`; in any other each `ConvNorm`
    becomes one convolution, and every other batch norm stays. The result is compared with the
    network's own on one random image.

    Args:
        model: The network; it stays as it is.
        entry: What `MODELS` says of it.
        name: For the error.

    Raises:
        CheckpointError: The folded network gives another image than the network itself.
    """
    plain = copy.deepcopy(model).eval()
    folded = _fold(plain)
    if folded is None:
        return plain
    _check_equal(plain, folded, round_up(PROBE_SIDE, entry.padding_multiple), name)
    return folded


def _fold(plain: nn.Module) -> nn.Module | None:
    """A folded network, or None where there is nothing to merge."""
    if isinstance(plain, HasFolded):
        return plain.folded().eval()
    if not any(isinstance(module, ConvNorm) for module in plain.modules()):
        return None
    folded = copy.deepcopy(plain)
    for module in folded.modules():
        if isinstance(module, ConvNorm):
            module.merge()
    return folded


@torch.inference_mode()
def _check_equal(plain: nn.Module, folded: nn.Module, side: int, name: str) -> None:
    first = next(plain.parameters())
    random = torch.Generator().manual_seed(0)
    rainy = torch.rand((1, 3, side, side), generator=random).to(first.device, first.dtype)
    expected: Tensor = plain(rainy)
    difference = (folded(rainy) - expected).abs().max().item()
    # NaN fails neither test: damaged weights are reported by the first image that goes through.
    if difference > ROUNDING * max(1.0, expected.abs().max().item()):
        raise CheckpointError(
            f"network {name!r}: merging its batch norms changes its result by {difference:.3g} "
            "(of 1); mend its folded(), or build it of ConvNorm"
        )
