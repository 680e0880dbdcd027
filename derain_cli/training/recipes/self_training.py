"""Self-training: labelled pairs, and noisy images that a slower copy of the network labels.

Paper: H. Huang, A. Yu, R. He, CVPR 2021 (MOSS), sections 3.2 and 4.2.

====================  ===============================================================
paper                 here
====================  ===============================================================
X_L, Y_L              `rainy`, `clean`
X_U                   `real`
f_xi, eq. 7           `MovingAverage`, memory included; `--ema` is v
R, eq. 8              rainy - clean of other pairs, photo - pseudo-label of other photos
x_n, eq. 9            `noisy_images`
L_s, L_u, L_TV        `labelled`, `noisy`, `variation`: eq. 6, 10, 11; eq. 12 is `learn`
Table 4               `--without memory`, `self-training`, `tv`, `skip-connection`
====================  ===============================================================

Measured by `tests/benchmarks/self_training_gain.py --parts real` with `menet-rain100l`, dB over the
labels alone on DDN-SIRR, dense and sparse: as published 0.04 and 0.03, for a network that knows
light streaks finds little rain in the photos and learns from no more than that. Labels of two
passes and stronger rain (`--pseudo-passes 2 --alpha 0.5 3 --noisy-weight 5`; 1200 steps, rate 3e-4)
gain 0.38 and 0.32 (two seeds, spread 0.03 and 0.06).

The memory is updated in the forward pass of a step, by labelled and noisy images at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.errors import ConfigError
from derain_cli.losses.formulas import l1, total_variation
from derain_cli.models import find_model
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.real_photos import RealPhotos
from derain_cli.training.data.samples import Source, draw_batch
from derain_cli.training.optimization import MovingAverage, Optimization, autocast
from derain_cli.training.recipes.adaptation import AdaptingRecipe, passes, require_finetune_config
from derain_cli.training.recipes.paired import sources_of


def noisy_images(
    batch: Mapping[str, Tensor], pseudo: Tensor, other_pseudo: Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 9: noisy images and their labels, `(batch, 3, height, width)` in 0..1.

    Args:
        batch: `rainy`, `clean` and `real` are backgrounds, `other_rainy - other_clean` and
            `other_real` rain; `mix`, `(batch, 3, 1, 1)`, says which background (0 rainy, 1 clean,
            2 real, 3 pseudo-label), which rain (0 synthetic, 1 real), and alpha.
        pseudo: Labels of `real`.
        other_pseudo: Labels of `other_real`.
    """
    background, rain, alpha = (batch["mix"][:, column] for column in range(3))
    numbers = torch.arange(len(pseudo), device=pseudo.device)
    chosen = background.flatten().long()
    images = torch.stack((batch["rainy"], batch["clean"], batch["real"], pseudo))
    labels = torch.stack((batch["clean"], batch["clean"], pseudo, pseudo))
    rains = torch.stack(
        (batch["other_rainy"] - batch["other_clean"], batch["other_real"] - other_pseudo)
    )[rain.flatten().long(), numbers]
    noisy = (images[chosen, numbers] + alpha[..., None] * rains).clamp(0, 1)
    return noisy, labels[chosen, numbers]


class SelfTraining(AdaptingRecipe):
    """Eq. 12, after epochs of eq. 6 alone."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        """Look at the labelled pairs and the photos.

        Raises:
            ConfigError: No labelled pairs, or the config is not one of `derain finetune-real`.
            DatasetError: No photos, unreadable or small ones, or pairs that are none.
        """
        chosen = require_finetune_config(config)
        self._pairs = labelled_sources(chosen)
        photos = RealPhotos.of(chosen)
        length = passes(labelled_count(self._pairs), chosen)
        super().__init__(model, chosen, folder, photos, self._pairs, length)
        self.warmup_epochs = chosen.warmup_epochs
        self._optimization = Optimization(model.parameters(), config)
        # From random weights the average must forget those; trained ones it may keep.
        self._target = MovingAverage(model, config.ema, young=not config.weights)
        unused = bool(find_model(config.model).training_outputs)
        self._forward = processes.wrap(model, config, unused=unused)

    @property
    def result(self) -> nn.Module:
        """The target network: it labels the photos, and is the steadier one."""
        return self._target.network

    def draw(self, step: int, part: range) -> dict[str, NDArray[np.float32]]:
        """Samples `part` of a step's batch: pairs; after the warm-up also rain and photos."""
        rainy, clean = self._draw_pairs(step, part, 0)
        if not self._mixes(step):
            return {"rainy": rainy, "clean": clean}
        other_rainy, other_clean = self._draw_pairs(step, part, self.config.crop_at(step)[1])
        return {
            "rainy": rainy,
            "clean": clean,
            "other_rainy": other_rainy,
            "other_clean": other_clean,
            "real": self._draw_photos(step, part, 1),
            "other_real": self._draw_photos(step, part, 2),
            "mix": self._draw_mix(step, part),
        }

    def _mixes(self, step: int) -> bool:
        warm = step >= self.warmup_epochs * self.steps_per_epoch
        return warm and "self-training" not in self.config.without

    def _draw_pairs(
        self, step: int, part: range, offset: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        numbers = range(part.start + offset, part.stop + offset)
        crop, config = self.config.crop_at(step)[0], self.config
        return draw_batch(
            self._pairs, config.seed, step, numbers, crop, flip=config.flip, rotate=config.rotate
        )

    def _draw_photos(self, step: int, part: range, purpose: int) -> NDArray[np.float32]:
        """Crops of photos; `purpose` keeps the random numbers of a sample's two photos apart."""
        crops = []
        for index in part:
            rng = np.random.default_rng([self.config.seed, step, index, purpose])
            photo = int(rng.integers(len(self.photos)))
            window = self.photos.window(photo, self.config.crop_at(step)[0], rng)
            direction = -1 if self.config.flip and rng.random() < 0.5 else 1
            crops.append(self.photos.crop(photo, window)[:, ::direction])
        return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))

    def _draw_mix(self, step: int, part: range) -> NDArray[np.float32]:
        mix = []
        for index in part:
            rng = np.random.default_rng([self.config.seed, step, index, 3])
            low, high = self.config.alpha
            mix.append((rng.integers(4), rng.integers(2), rng.uniform(low, high)))
        return np.array(mix, np.float32)[..., None, None]

    def learn(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One step down eq. 12 (eq. 6 in the warm-up), and one of the target (eq. 7)."""
        rainy, clean = batch["rainy"], batch["clean"]
        with autocast(self.config, rainy.device):
            if "mix" in batch:
                noisy, label = noisy_images(batch, *self._pseudo_labels(batch))
                derained = self._forward(torch.cat((rainy, noisy))).float()
                parts = {
                    "labelled": l1(derained[: len(rainy)], clean),
                    "noisy": l1(derained[len(rainy) :], label),
                    "variation": total_variation(derained[len(rainy) :]),
                }
            else:
                parts = {"labelled": l1(self._forward(rainy).float(), clean)}
        total = sum(self._weights()[name] * part for name, part in parts.items())
        logged = self._optimization.step(torch.as_tensor(total), parts, step, len(rainy))
        self._target.follow(self.model, step)
        return logged

    @torch.no_grad()
    def _pseudo_labels(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The target network's results for both photos of each sample."""
        photos = torch.cat((batch["real"], batch["other_real"]))
        for _ in range(self.config.pseudo_passes):
            photos = self._target.network(photos).float().clamp(0, 1)
        pseudo, other_pseudo = photos.chunk(2)
        return pseudo, other_pseudo

    def _weights(self) -> dict[str, float]:
        """lambda_1 to lambda_3 of eq. 12."""
        config = self.config
        variation = 0.0 if "tv" in config.without else config.tv_weight
        return {
            "labelled": config.labelled_weight,
            "noisy": config.noisy_weight,
            "variation": variation,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs: also the target network, its memory included."""
        target = self._target.network.state_dict()
        return super().state_dict() | {
            "optimizer": self._optimization.state_dict(),
            "target": target,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self._optimization.load_state_dict(state["optimizer"])
        self._target.network.load_state_dict(state["target"])


def labelled_sources(config: TrainConfig) -> list[Source]:
    """The labelled pairs to learn from; of each source the share that `--labelled` says.

    Raises:
        ConfigError: No labelled pairs are named.
        DatasetError: A test set, an unknown name, a missing folder, or images that do not fit.
    """
    config = require_finetune_config(config)
    if not (config.dataset or config.data or config.clean):
        raise ConfigError(
            "self-training learns from labelled pairs too: give `dataset` NAME or `data` "
            "RAINY CLEAN; without any, take `method` online-update"
        )
    return [source.part(config.labelled, config.seed) for source in sources_of(config)]


def labelled_count(sources: Sequence[Source]) -> int:
    """How many images there are to learn from.

    Example:
        >>> from derain_cli.training.data.samples import PairSource
        >>> labelled_count([PairSource("a", 1.0, [None] * 3, [])])
        3
    """
    return sum(source.training_count for source in sources)
