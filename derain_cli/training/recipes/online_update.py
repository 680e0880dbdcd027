"""Online update: a network learns from its own derained photos, which are renewed every epoch.

Paper (wang2022): C. Wang et al., AAAI 2022, algorithm 1 and eq. 6. It works with every network.

====================  ===============================================================
paper                 here
====================  ===============================================================
I_real                `rainy`, crops of `RealPhotos`
B^(k-1)               `truth`, crops of `PseudoTruth`
R^k                   `rainy - derained`
R_random^(k-1)        `other_rain`: another photo's rainy - truth
lambda                `--kl-weight`
EpochReal             `--epochs`
Fig. 11 (b), (c), (d)  epoch 0 of the report, `--pseudo-truth frozen`, `--pseudo-truth online`
====================  ===============================================================

Measured by `tests/benchmarks/online_update_gain.py` with `menet-rain100l` on photos of
`ddn_sirr_real`: nothing in eq. 6 asks for less rain than the network leaves, and none is gained. At
the released rate of 1e-6 the rain removed falls by 3 % (20 photos, 4 epochs). At 1e-5 it falls by a
fifth, with lambda 0 too: the pseudo ground truth is the network's own result, and the gradient of
L1 does not fade with the difference (its sign counts), so Adam wanders. A visible lambda (8) adds
to that: over random partners the divergence is least for rain that is even everywhere.

What helps is a pseudo ground truth with less rain than the network leaves: its result of its
result, `--pseudo-passes 2`. At 1e-5 on 50 photos, with the truth frozen, the rain left, as
`rdmc-real` sees it, falls from 9.29 to 8.98 levels in 4 epochs and to 8.91 in 8; NIQE goes from
4.191 to 4.192 and 4.188, PSNR of held-out pairs falls by 0.12 and 0.23 dB. A renewed truth takes
it to 8.44 in 2 epochs (NIQE 4.23, 0.06 dB), three frozen passes to 8.23 in 4 (NIQE 4.21, 0.19 dB).
RDMC, whose stages are passes already, finds little more in a second one, and gains nothing.

Nor does `nimbus-real`, which knows rain of every kind and finds hardly any in a second pass (that
of commit f9d333c, `--photos 30 --epochs 3`). With the truth of two frozen passes the rain removed
falls from 5.47 to 3.75 levels, the rain left rises from 7.39 to 8.63, and held-out pairs lose
0.45 dB; a single frozen pass does the same (3.72, 8.65, 0.46 dB). At 1e-6 with two renewed passes
it drifts more slowly: 4.92, 7.68, 0.03 dB.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.errors import DatasetError
from derain_cli.losses.formulas import l1, rain_divergence
from derain_cli.models import find_model
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.real_photos import RealPhotos
from derain_cli.training.guard import EpochReport
from derain_cli.training.optimization import Optimization, autocast
from derain_cli.training.recipes.adaptation import AdaptingRecipe, passes, require_finetune_config
from derain_cli.training.recipes.paired import sources_of


def online_update_loss(
    derained: Tensor, truth: Tensor, rainy: Tensor, other_rain: Tensor, kl_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 6 and its two terms: `l1(B^k, B^(k-1)) + lambda KL(R^k, R_random^(k-1))`.

    Args:
        derained: `(batch, 3, height, width)` in 0..1, as are `truth` and `rainy`.
        truth: The pseudo ground truth.
        rainy: The photos.
        other_rain: Rain of other photos, same shape.
        kl_weight: lambda.

    Example:
        >>> rainy = torch.full((1, 3, 2, 2), 0.75)
        >>> loss, _ = online_update_loss(rainy - 0.25, rainy, rainy, 0 * rainy, 1.0)
        >>> loss  # even rain everywhere: no divergence
        tensor(0.2500)
    """
    parts = {
        "content": l1(derained, truth),
        "divergence": rain_divergence(rainy - derained, other_rain),
    }
    return parts["content"] + kl_weight * parts["divergence"], parts


class OnlineUpdate(AdaptingRecipe):
    """Eq. 6 on crops of real photos."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        """Look at the photos; labelled pairs, if named, are only scored.

        Raises:
            ConfigError: The config is not one of `derain finetune-real`.
            DatasetError: No photos, unreadable or small ones, or a single one.
        """
        chosen = require_finetune_config(config)
        photos = RealPhotos.of(chosen)
        if len(photos) < 2 and chosen.kl_weight:
            raise DatasetError(
                f"{chosen.real!r} holds one photo; R_random of eq. 6 is another photo's rain: "
                "add photos, or give `kl_weight` 0"
            )
        named = config.dataset or config.data or config.clean
        labelled = sources_of(config) if named else []
        super().__init__(model, chosen, folder, photos, labelled, passes(len(photos), chosen))
        self._optimization = Optimization(model.parameters(), config)
        # A network with more results than the derained image has parts that this never uses.
        unused = bool(find_model(config.model).training_outputs)
        self._forward = processes.wrap(model, config, unused=unused)

    def draw(self, step: int, part: range) -> dict[str, NDArray[np.float32]]:
        """Samples `part` of a step's batch: each photo once in a pass, at random places."""
        samples = [self._sample(step, index) for index in part]
        names = ("rainy", "truth", "other_rain")
        return {
            name: np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
            for name, crops in zip(names, zip(*samples, strict=True), strict=True)
        }

    def _sample(self, step: int, index: int) -> tuple[NDArray[np.float32], ...]:
        crop, seed = self.config.crop_at(step)[0], self.config.seed
        rng = np.random.default_rng([seed, step, index])
        photo = self._photo(step, index)
        window = self.photos.window(photo, crop, rng)
        other = (photo + 1 + int(rng.integers(max(len(self.photos) - 1, 1)))) % len(self.photos)
        elsewhere = self.photos.window(other, crop, rng)
        other_rain = self.photos.crop(other, elsewhere) - self.truth.crop(other, elsewhere)
        direction = -1 if self.config.flip and rng.random() < 0.5 else 1
        rainy, truth = self.photos.crop(photo, window), self.truth.crop(photo, window)
        return rainy[:, ::direction], truth[:, ::direction], other_rain

    def _photo(self, step: int, index: int) -> int:
        """Shuffled anew for every pass."""
        batch = self.config.crop_at(step)[1]
        epoch, position = divmod(step, self.steps_per_epoch)
        turn, place = divmod(position * batch + index, len(self.photos))
        order = np.random.default_rng([self.config.seed, epoch, turn, 1]).permutation
        return int(order(len(self.photos))[place])

    def update(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One step down eq. 6."""
        rainy = batch["rainy"]
        with autocast(self.config, rainy.device):
            derained = self._forward(rainy).float()
        with torch.autocast(rainy.device.type, enabled=False):
            total, parts = online_update_loss(
                derained, batch["truth"], rainy, batch["other_rain"], self.config.kl_weight
            )
        return self._optimization.step(total, parts, step, len(rainy))

    def is_better(self, report: EpochReport, best: EpochReport) -> bool:
        """More rain removed; labelled pairs, of other rain, are a limit alone."""
        return report.rain_energy > best.rain_energy

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs, apart from the pseudo ground truth's files."""
        return super().state_dict() | {"optimizer": self._optimization.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self._optimization.load_state_dict(state["optimizer"])
