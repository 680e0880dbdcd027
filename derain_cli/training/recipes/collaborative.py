"""Collaborative training of HCN: all its sub-networks' results, at three sizes, are compared.

Paper (wang2022): C. Wang, J. Pan, X.-M. Wu, AAAI 2022, eq. 5 = eq. 2 + eq. 3. In the paper's words
alpha_i are `--output-weights`, beta_j `--scale-weights`. Rainy and clean pyramids are of one kind,
the network's `pyramid`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from derain_cli.errors import ConfigError
from derain_cli.losses import formulas as losses
from derain_cli.models import MODELS, find_model
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import require_crops
from derain_cli.training.recipes.paired import PairedRecipe


class Collaborative(PairedRecipe):
    """Eq. 2 on the three full-size results, eq. 3 on those at half and quarter size."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        """Check that there is something to collaborate.

        Raises:
            ConfigError: A network with one result only, or crops too small for its images of
                quarter size.
        """
        self._outputs = find_model(config.model).training_outputs
        if not self._outputs:
            known = ", ".join(name for name, entry in MODELS.items() if entry.training_outputs)
            raise ConfigError(
                f"recipe 'collaborative' needs a network with several results ({known}), not "
                f"{config.model!r}; use `recipe` supervised"
            )
        self._pyramid: str = model.config.pyramid  # type: ignore[union-attr, assignment]
        in_quarters = model.config.mscc and self._pyramid != "full"  # type: ignore[union-attr]
        # A quarter of 41 pixels, rounded up, is SSIM's window of 11.
        require_crops(config, config.recipe, 41 if in_quarters else losses.WINDOW)
        super().__init__(model, config)
        self._forward = processes.wrap(model, config)

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 5 and its two parts."""
        *results, half, quarter = self._forward(batch["rainy"], **self._outputs)
        clean, config = batch["clean"], self.config
        # An ablation without T, or a chain, has fewer results: those that are there keep their
        # alpha.
        present = [
            (alpha, result)
            for alpha, result in zip(config.output_weights, results, strict=True)
            if result is not None
        ]
        alphas, derained = zip(*present, strict=True)
        with torch.autocast(clean.device.type, enabled=False):
            parts = {"collaborative": losses.collaborative(derained, clean, alphas)}
            if half is not None:
                parts["compact"] = losses.multi_scale_compact(
                    (half, quarter), clean, config.scale_weights, self._pyramid
                )
            return torch.stack(list(parts.values())).sum(), parts
