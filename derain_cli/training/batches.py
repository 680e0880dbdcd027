"""Batches, drawn beside the network that trains on the ones before."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import torch

from derain_cli.training import phases, processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.drawing import Images, drawing, result_of
from derain_cli.training.optimization import to_device
from derain_cli.training.recipes.recipe import Batch, Recipe

GPU_WORKERS = 4


class Batches:
    """The batches of a run in order, a few of them drawn ahead, never across an epoch's end."""

    def __init__(self, recipe: Recipe, config: TrainConfig, device: torch.device) -> None:
        self._recipe, self._config, self._device = recipe, config, device
        # One keeps a CPU busy without taking it from the network; a GPU empties several.
        self._ahead = config.workers or (1 if device.type == "cpu" else GPU_WORKERS)

    def after(self, first: int) -> Iterator[tuple[int, Batch, float]]:
        """(step, batch, seconds waited for it) from a step on."""
        coming: deque[Future[Images]] = deque()
        # A process would not see what `begin_epoch` changes.
        apart = self._device.type == "cpu" and not self._recipe.steps_per_epoch
        # Threads also copy to the device, beside the network; a process has none.
        drawn = self._draw if apart else self._batch
        with drawing(drawn, self._ahead, apart=apart) as draw:
            phases.say("reading data")
            for step in range(first, self._config.steps):
                if not coming:
                    self._begin_epoch(step)
                # One more than draw at once: they draw on while this batch is trained on.
                end = min(step + self._ahead + 1, self._drawable_until(step))
                asked = time.monotonic()
                for later in range(step + len(coming), end):
                    coming.append(draw(later))
                batch = self._on_device(result_of(coming.popleft()))
                yield step, batch, time.monotonic() - asked

    def _drawable_until(self, step: int) -> int:
        """First step whose batch must not be drawn yet, because an epoch may change the data."""
        length = self._recipe.steps_per_epoch
        end_of_epoch = (step // length + 1) * length if length else self._config.steps
        return min(end_of_epoch, self._config.steps)

    def _begin_epoch(self, step: int) -> None:
        length = self._recipe.steps_per_epoch
        if length and step % length == 0:
            self._recipe.begin_epoch(step // length)

    def _batch(self, step: int) -> Batch:
        return self._on_device(self._draw(step))

    def _on_device(self, drawn: Images) -> Batch:
        return {name: to_device(images, self._device) for name, images in drawn.items()}

    def _draw(self, step: int) -> Images:
        parts = processes.shares_of(self._config.crop_at(step)[1], self._config.accumulate)
        drawn = [self._recipe.draw(step, part) for part in parts]
        return {name: np.concatenate([images[name] for images in drawn]) for name in drawn[0]}
