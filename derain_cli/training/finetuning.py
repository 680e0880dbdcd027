"""Adapt a network to rainy photos: epochs become steps, the trainer does the rest."""

import dataclasses
import os
from collections.abc import Callable

from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.data.real_photos import RealPhotos
from derain_cli.training.recipes.adaptation import passes
from derain_cli.training.recipes.self_training import labelled_count, labelled_sources
from derain_cli.training.trainer import Progress, TrainResult, train


def finetune(
    config: FinetuneConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Adapt a network to real photos without clean counterparts.

    Arguments, result and errors are those of `train`. The best network is `best.safetensors` in
    `out`; where no epoch was better than the weights it began with, these are kept.
    """
    return train(with_steps(config), out, resume=resume, report=report, should_stop=should_stop)


def with_steps(config: FinetuneConfig) -> FinetuneConfig:
    """The config with its epochs turned into steps of the images there are."""
    if not config.epochs:
        return config
    if config.recipe == "self_training":
        count = labelled_count(labelled_sources(config))
    else:
        count = len(RealPhotos.of(config))
    return dataclasses.replace(config, steps=config.epochs * passes(count, config))
