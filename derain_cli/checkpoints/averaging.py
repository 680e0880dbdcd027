"""The weights between two trainings of one network: `share` of the one, the rest of the other.

Weights that were trained on from each other lie in one valley: between them are networks that do
what either does well (Wortsman et al., CVPR 2022). So rain that a later training forgot comes back
without another training.
"""

import os
from pathlib import Path

import torch

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import UsageError
from derain_cli.models import model_config


def average(
    one: str | os.PathLike[str], other: str | os.PathLike[str], share: float, target: Path
) -> None:
    """Write `share * one + (1 - share) * other`; whole numbers, such as counters, are those of one.

    Args:
        one: As of `load_model`.
        other: The same network.
        share: Between 0 and 1.
        target: File to write; an old one is replaced.

    Raises:
        UsageError: Another network, or another share.
        UnavailableError: No such weights.
        CheckpointError: A file is damaged or foreign.
        ResourceError: The file cannot be written.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share must lie in 0..1, not {share}")
    first, second = load_model(one), load_model(other)
    if (first.architecture, model_config(first.model)) != (
        second.architecture,
        model_config(second.model),
    ):
        raise UsageError(f"{first.name!r} and {second.name!r} are not of the same network")
    rest = second.model.state_dict()
    with torch.no_grad():
        for name, tensor in first.model.state_dict().items():
            if tensor.is_floating_point():
                tensor.mul_(share).add_(rest[name], alpha=1 - share)
    about = {"average": f"{share} of {first.name}, {1 - share:.6g} of {second.name}"}
    save_checkpoint(target, first.model, first.architecture, about)
