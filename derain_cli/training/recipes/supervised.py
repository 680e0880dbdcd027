"""Supervised training: pairs, and a weighted sum of losses between derained and clean.

The recipe of RDMC (eq. 10), MENET (eq. 2, with `--loss-weighting`), MOSS's warm-up (eq. 6) and the
gu2023 (section 2.1); `presets` holds each one's terms and weights.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from derain_cli.models import find_model
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import Objective
from derain_cli.training.recipes.paired import PairedRecipe


class Supervised(PairedRecipe):
    """Losses between the derained and the clean image."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        super().__init__(model, config)
        self._objective = Objective(config, model)
        # A network with more results than the derained image has parts that this never uses.
        unused = bool(find_model(config.model).training_outputs)
        self._forward = processes.wrap(model, config, unused=unused)

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its terms."""
        derained = self._forward(batch["rainy"]).float()
        with torch.autocast(derained.device.type, enabled=False):
            return self._objective(derained, batch["clean"], batch["rainy"])
