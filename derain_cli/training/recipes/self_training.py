"""Self-training: labelled pairs, and noisy images that a slower copy of the network labels.

Paper (huang2021): H. Huang, A. Yu, R. He, CVPR 2021 (MOSS), sections 3.2 and 4.2.

====================  ===============================================================
paper                 here
====================  ===============================================================
X_L, Y_L              `rainy`, `clean`
X_U                   `real`
f_xi, eq. 7           `MovingAverage`, memory included; `--ema` is v
R, eq. 8              rainy - clean of other pairs, photo - pseudo-label of other photos
x_n, eq. 9            `noisy_images`
L_s, L_u, L_TV        `labelled`, `noisy`, `variation`: eq. 6, 10, 11; eq. 12 is `update`
Table 4               `--without memory`, `self-training`, `tv`, `skip-connection`
D_L, D_U (sec. 4.4)   `--labelled` and `--real rest`; `labelled.json` says which are which
====================  ===============================================================

Measured by `tests/benchmarks/self_training_gain.py --parts real` with `menet-rain100l`, dB over the
labels alone on DDN-SIRR, dense and sparse: as published 0.04 and 0.03, for a network that knows
light streaks finds little rain in the photos and learns from no more than that. Labels of two
passes and stronger rain (`--pseudo-passes 2 --alpha 0.5 3 --noisy-weight 5`; 1200 steps, rate 3e-4)
gain 0.38 and 0.32 (two seeds, spread 0.03 and 0.06).

From an earlier `nimbus-real`, which knew rain of every kind (`--model nimbus --base` its file,
`--seeds 1 --steps 300 --batch-size 4 --crop 128`, as published): 0.89 and 0.45 over the labels
alone. But both arms forget, for their labels are light rain only: from 22.21 and 28.49 dB to 20.55
and 27.58 with the labels, 21.43 and 28.03 with self-training too.

The memory is updated in the forward pass of a step, by labelled and noisy images at once
(`--memory-update unlabelled`: by the noisy ones alone). Without self-training the photos still pass
through the encoder, so that the memory knows real rain although no loss asks for it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ConfigError
from derain_cli.losses.formulas import l1, total_variation
from derain_cli.models import find_model
from derain_cli.training import processes
from derain_cli.training.configs.finetune import REST, FinetuneConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.real_photos import RealPhotos
from derain_cli.training.data.samples import PairSource, Source, draw_batch
from derain_cli.training.optimization import MovingAverage, Optimization, autocast
from derain_cli.training.recipes.adaptation import AdaptingRecipe, passes, require_finetune_config
from derain_cli.training.recipes.paired import sources_of
from derain_cli.whole_files import write_whole

log = logging.getLogger(__name__)


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


def _require_memory(model: nn.Module, config: FinetuneConfig) -> None:
    has_memory = hasattr(model, "memory")
    if config.memory_update != "all" and not has_memory:
        raise ConfigError(
            f"`memory_update` is for networks with a memory; {config.model!r} has none"
        )


class SelfTraining(AdaptingRecipe):
    """Eq. 12, after epochs of eq. 6 alone."""

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        """Look at the labelled pairs and the photos.

        Raises:
            ConfigError: No labelled pairs, the config is not one of `derain finetune-real`, or what
                the memory of a network without one learns from is chosen.
            DatasetError: No photos, unreadable or small ones, or pairs that are none.
        """
        chosen = require_finetune_config(config)
        _require_memory(model, chosen)
        every = every_source(chosen)
        self._pairs = [source.part(chosen.labelled, chosen.seed) for source in every]
        rest = left_over(every, self._pairs) if chosen.real == REST else []
        photos = RealPhotos.of_pairs(rest, chosen) if chosen.real == REST else RealPhotos.of(chosen)
        length = passes(labelled_count(self._pairs), chosen)
        super().__init__(model, chosen, folder, photos, self._pairs, length)
        self.warmup_epochs = chosen.warmup_epochs
        if "photos" not in chosen.without and not self._sees_photos(chosen.steps - 1):
            self._warn_of_warmup()
        self._optimization = Optimization(model.parameters(), config)
        # From random weights the average must forget those; trained ones it may keep.
        self._target = MovingAverage(model, config.ema, young=not config.weights)
        self._shares = _union_shares(labelled_count(self._pairs), len(photos))
        unused = bool(find_model(config.model).training_outputs)
        self._forward = processes.wrap(model, config, unused=unused)

    def _warn_of_warmup(self) -> None:
        if processes.is_first():
            log.warning(
                "the photos teach nothing: %s epochs of warm-up are %s steps, and the run has %s; "
                "give fewer `warmup_epochs` or more `steps`",
                self.warmup_epochs,
                self.warmup_epochs * self.steps_per_epoch,
                self.config.steps,
            )

    @property
    def result(self) -> nn.Module:
        """The target network, which labels the photos and is the steadier one, or the student."""
        return self._target.network if self.config.save == "average" else self.model

    def begin_epoch(self, epoch: int) -> None:
        """As every adaptation; before the first, note which pairs are labelled."""
        if epoch == 0 and processes.is_first():
            text = json.dumps(self._split(), indent=2)
            write_whole(self._folder.path / "labelled.json", text.encode())
        super().begin_epoch(epoch)

    def _split(self) -> dict[str, list[str]]:
        labelled = [
            pair.name
            for source in self._pairs
            if isinstance(source, PairSource)
            for pair in source.training
        ]
        return {"labelled": labelled, "unlabelled": [path.name for path in self.photos.paths]}

    def draw(self, step: int, part: range) -> dict[str, NDArray[np.float32]]:
        """Samples `part` of a step's batch: pairs; after the warm-up also rain and photos."""
        rainy, clean = self._draw_pairs(step, part, 0)
        if not self._sees_photos(step):
            return {"rainy": rainy, "clean": clean}
        if "self-training" in self.config.without:
            return {"rainy": rainy, "clean": clean, "real": self._draw_photos(step, part, 1)}
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

    def _sees_photos(self, step: int) -> bool:
        warm = step >= self.warmup_epochs * self.steps_per_epoch
        return warm and "photos" not in self.config.without

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
            mix.append((*self._kinds(rng), rng.uniform(low, high)))
        return np.array(mix, np.float32)[..., None, None]

    def _kinds(self, rng: np.random.Generator) -> tuple[int, int]:
        """Number of a background's kind and of its rain's.

        Paper: draws an image of the union of four sets and a residual of the union of two (eq.
        8-9), which are as large as their numbers of images: with 9100 pairs and 147 photos real
        rain would be one in 63. Released code: every kind as often. We do as the release by
        default, because else nothing would be learnt from the photos; `--sampling union` is the
        paper's.
        """
        if self.config.sampling == "even":
            return int(rng.integers(4)), int(rng.integers(2))
        labelled, real = self._shares
        kinds = (labelled / 2, labelled / 2, real / 2, real / 2)
        return int(rng.choice(4, p=kinds)), int(rng.choice(2, p=(labelled, real)))

    def update(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One step down eq. 12 (eq. 6 in the warm-up), and one of the target (eq. 7)."""
        rainy, clean = batch["rainy"], batch["clean"]
        with autocast(self.config, rainy.device):
            if "mix" in batch:
                noisy, label = self._noisy(batch)
                derained, derained_noisy = self._derain_both(rainy, noisy)
                parts = {
                    "labelled": l1(derained, clean),
                    "noisy": l1(derained_noisy, label),
                    "variation": total_variation(derained_noisy),
                }
            else:
                if "real" in batch:
                    with torch.no_grad():  # for the memory alone
                        self._forward(batch["real"])
                parts = {"labelled": l1(self._forward(rainy).float(), clean)}
        total = sum(self._weights()[name] * part for name, part in parts.items())
        logged = self._optimization.step(torch.as_tensor(total), parts, step, len(rainy))
        self._target.follow(self.model, step)
        return logged

    def _noisy(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Images without ground truth and their labels: eq. 9, or the photos as they are."""
        pseudo, other_pseudo = self._pseudo_labels(batch)
        if "mixing" in self.config.without:
            return batch["real"], pseudo
        return noisy_images(batch, pseudo, other_pseudo)

    def _derain_both(self, rainy: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Results for labelled and noisy images; what the memory learns from is the config's."""
        if self.config.memory_update == "unlabelled":
            labelled = self._forward(rainy, update_memory=False)
            return labelled.float(), self._forward(noisy).float()
        derained = self._forward(torch.cat((rainy, noisy))).float()
        return derained[: len(rainy)], derained[len(rainy) :]

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
    return [source.part(config.labelled, config.seed) for source in every_source(config)]


def every_source(config: TrainConfig) -> list[Source]:
    """The named pairs, before `--labelled` takes its share.

    Raises:
        ConfigError: No labelled pairs are named.
        DatasetError: A test set, an unknown name, a missing folder, or images that do not fit.
    """
    if not (config.dataset or config.data or config.clean):
        raise ConfigError(
            "self-training learns from labelled pairs too: give `dataset` NAME or `data` "
            "RAINY CLEAN; without any, take `method` online-update"
        )
    return sources_of(config)


def left_over(every: Sequence[Source], labelled: Sequence[Source]) -> list[Pair]:
    """The training pairs that are not among the labelled ones; held-out pairs never are."""
    rest: list[Pair] = []
    for source, part in zip(every, labelled, strict=True):
        if isinstance(source, PairSource) and isinstance(part, PairSource):
            kept = set(part.training)
            rest += [pair for pair in source.training if pair not in kept]
    return rest


def _union_shares(labelled: int, real: int) -> tuple[float, float]:
    """Shares of labelled and of real images in the unions of eq. 8-9.

    Example:
        >>> _union_shares(3, 1)
        (0.75, 0.25)
    """
    return labelled / (labelled + real), real / (labelled + real)


def labelled_count(sources: Sequence[Source]) -> int:
    """How many images there are to learn from.

    Example:
        >>> from derain_cli.training.data.samples import PairSource
        >>> labelled_count([PairSource("a", 1.0, [None] * 3, [])])
        3
    """
    return sum(source.training_count for source in sources)
