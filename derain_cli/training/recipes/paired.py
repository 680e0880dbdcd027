"""The base of recipes that learn from rainy and clean pairs: everything but their loss."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.samples import Source, draw_batch, draw_whole
from derain_cli.training.data.sources import build_sources
from derain_cli.training.optimization import MovingAverage, Optimization, autocast

Pixels = NDArray[np.uint8]
Config = TypeVar("Config", bound=TrainConfig)


def sources_of(config: TrainConfig) -> list[Source]:
    """The sources of pairs that the config names; the headers of all their images are checked.

    Raises:
        DatasetError: A test set, an unknown name, a missing folder, or images that do not fit.
    """
    sources = build_sources(
        dataset=config.dataset,
        data=config.data,
        clean=config.clean,
        rain=config.rain,
        backgrounds=config.backgrounds,
        data_root=Path(config.data_root),
        held_out=config.held_out,
        seed=config.seed,
        ten_crops=config.crops == "ten",
        hold_out_by=config.hold_out_by,
        cache=ImageCache.of_gibibytes(config.cache),
    )
    for source in sources:
        source.check(max(config.crop, config.final_crop))
    return sources


# Corners and middle of an image, each also mirrored, are ten samples of an epoch.
VIEWS = {"random": 1, "ten": 10}


def with_steps(config: Config) -> Config:
    """The config with its epochs turned into steps of the data that is really used.

    Raises:
        DatasetError: A test set, an unknown name, a missing folder, or images that do not fit.
    """
    if not config.epochs:
        return config
    steps = config.epoch_steps
    if not steps:
        images = sum(source.training_count for source in sources_of(config))
        steps = math.ceil(images * VIEWS[config.crops] / config.step_size)
    return replace(config, steps=config.epochs * steps)


class PairedRecipe:
    """Batches of pairs, a forward and a backward pass of each part, one Adam step.

    Attributes:
        model: The network in training.
        sources: Where its pairs come from.
        steps_per_epoch: 0, because these recipes have no epochs.
    """

    steps_per_epoch = 0
    _forward: nn.Module  # the model as `processes.wrap` makes it, by the subclass

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.model = model
        self.config = config
        self.sources = sources_of(config)
        self._optimization = Optimization(model.parameters(), config)
        self._average = MovingAverage(model, config.ema) if config.ema else None

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its parts, of one batch; called where `autocast` is on.

        Args:
            batch: "rainy" and "clean", `(batch, 3, crop, crop)` in 0..1.
        """
        raise NotImplementedError

    @property
    def result(self) -> nn.Module:
        """The network that is validated and saved: the moving average if there is one."""
        return self._average.network if self._average else self.model

    def begin_epoch(self, epoch: int) -> None:
        """Do nothing: there are no epochs."""

    def end(self) -> None:
        """Do nothing: the trainer validates."""

    def draw(self, step: int, part: range) -> dict[str, NDArray[np.float32]]:
        """Samples `part` of the batch of a step."""
        crop, config = self.config.crop_at(step)[0], self.config
        rainy, clean = draw_batch(
            self.sources, config.seed, step, part, crop, flip=config.flip, rotate=config.rotate
        )
        return {"rainy": rainy, "clean": clean}

    def whole(self, rng: np.random.Generator) -> Pixels:
        """A whole rainy training image."""
        return draw_whole(self.sources, rng)

    def update(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One optimisation step; the loss parts, for the log.

        Args:
            batch: What `draw` drew, on the model's device.
            step: Number of this step, from 0; it decides the learning rate.

        Raises:
            TrainingError: The loss is not finite; the weights are left as they were.
        """
        *earlier, last = self._parts_of(batch, step)
        for part in earlier:
            with processes.alone(self._forward):
                self._optimization.add(*self._losses_in_precision(part), step, len(part["rainy"]))
        logged = self._optimization.step(*self._losses_in_precision(last), step, len(last["rainy"]))
        if self._average:
            self._average.follow(self.model, step)
        return logged

    def _parts_of(self, batch: Mapping[str, Tensor], step: int) -> list[dict[str, Tensor]]:
        """The batch in the `accumulate` parts that it was drawn in."""
        if self.config.accumulate == 1:
            return [dict(batch)]
        shares = processes.shares_of(self.config.crop_at(step)[1], self.config.accumulate)
        sizes = [len(share) for share in shares]
        split = {name: torch.split(images, sizes) for name, images in batch.items()}
        return [{name: split[name][number] for name in split} for number in range(len(shares))]

    def _losses_in_precision(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(self.config, batch["rainy"].device):
            return self.losses(batch)

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimizer, all that resuming needs."""
        state = {"model": self.model.state_dict(), "optimizer": self._optimization.state_dict()}
        return state | ({"average": self._average.network.state_dict()} if self._average else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.model.load_state_dict(state["model"])
        self._optimization.load_state_dict(state["optimizer"])
        if self._average:
            self._average.network.load_state_dict(state["average"])
