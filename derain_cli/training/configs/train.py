"""TrainConfig: everything that decides a training run; its fields are the options of the CLI."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from derain_cli.errors import ConfigError, did_you_mean
from derain_cli.training.configs.fields import (
    check,
    facts,
    option,
    require,
    unused,
    without_unused,
)

# Panels of the help.
NETWORK, DATA, CROPS, SCHEDULE, LOSSES = "Network", "Data", "Crops", "Schedule", "Losses"
SAVING, SPEED = "Validation and saving", "Speed and memory"

# Recipes by what they have in common. A field that only some of them use says so.
PAIRED = ("supervised", "collaborative", "connection_search")
FROM_PAIRS = (*PAIRED, "self_training")
WEIGHTED_LOSSES = ("supervised", "connection_search")

SCHEDULE_OF: Mapping[str, str] = {
    "lr_milestones": "milestones",
    "lr_factor": "milestones",
    "lr_rates": "milestones",
    "lr_min": "cosine",
}
"""The schedule that alone uses a field."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Frozen, JSON in and out, compared field by field on resume.

    Attributes:
        command: The command whose options the fields are.
        recipes: The recipes that the command offers.
    """

    command: ClassVar[str] = "train"
    recipes: ClassVar[tuple[str, ...]] = ("supervised", "collaborative")

    model: str = option(
        "rdmc",
        "Architecture to train.",
        group=NETWORK,
        word="name",
        flags=("--arch", "--model"),
        hidden_in=("finetune-real", "search"),
        stated=True,
        inherited=False,
    )
    model_option: tuple[str, ...] = option(
        (),
        "NAME=VALUE of the network's config; repeatable.",
        group=NETWORK,
        inherited=False,
    )
    recipe: str = option(
        "supervised",
        "supervised (weighted losses) or collaborative (those of HCN).",
        group=NETWORK,
        word="name",
        hidden_in=("finetune-real", "search"),
        inherited=False,
    )
    weights: str | None = option(
        None,
        "Weights to start from: a name, a file or a run. The network takes their shape.",
        group=NETWORK,
        word="name",
        hidden_in=("finetune-real",),
        inherited=False,
    )

    data_root: str = option(
        "",
        "Folder of the named data sets.",
        group=DATA,
        word="folder",
        shown="$DERAIN_DATA, else ~/.cache/derain/datasets",
        free_on_resume=True,
    )
    dataset: tuple[str, ...] = option(
        (),
        "NAME_OR_FOLDER[:WEIGHT] of pairs; repeatable.",
        group=DATA,
        word="name",
        yields_to=("dataset", "data", "clean"),
    )
    data: tuple[str, ...] = option(
        (),
        "RAINY_FOLDER CLEAN_FOLDER of pairs.",
        group=DATA,
        word="folder",
        pair=True,
        yields_to=("dataset", "data", "clean"),
    )
    clean: tuple[str, ...] = option(
        (),
        "Folder of clean images for --rain; repeatable.",
        group=DATA,
        word="folder",
        yields_to=("dataset", "data", "clean"),
    )
    rain: tuple[str, ...] = option(
        (),
        "KIND[:WEIGHT] to paint: small, medium, large, heavy, wide, dense, curtain, slanted, "
        "coarse, drops, dry, streaks:FOLDER, pairs:DATASET, mixed:FOLDER, or a scene such as "
        "phone+veil+wide; repeatable.",
        group=DATA,
        yields_to=("dataset", "data", "rain"),
    )
    backgrounds: int = option(
        0,
        "Clean patches of 128x128 to paint on; 0: all.",
        group=DATA,
        least=0,
        recipes=FROM_PAIRS,
        yields_to=("dataset", "data", "rain"),
    )
    held_out: int = option(
        20,
        "Images of each folder to keep for validation, at most half of them.",
        group=DATA,
        least=0,
    )
    hold_out_by: str = option(
        "file",
        "Hold out by file, or by photo (in all folders).",
        group=DATA,
        word="name",
        one_of=("file", "photo"),
        recipes=FROM_PAIRS,
    )

    crop: int = option(64, "Side of the crops.", group=CROPS, above=0)
    crops: str = option(
        "random",
        "random, or ten: corners and middle, also mirrored.",
        group=CROPS,
        word="name",
        one_of=("random", "ten"),
        recipes=FROM_PAIRS,
    )
    flip: bool = option(True, "Mirror half the crops.", group=CROPS)
    rotate: bool = option(False, "Turn crops by quarter turns.", group=CROPS, recipes=FROM_PAIRS)
    final_crop: int = option(
        0,
        "Larger crop at the end; 0 for none.",
        group=CROPS,
        least=0,
    )
    final_from: float = option(
        0.8,
        "Share of the steps before --final-crop.",
        group=CROPS,
        least=0,
        most=1,
    )

    steps: int = option(
        20_000,
        "Optimisation steps.",
        group=SCHEDULE,
        above=0,
        stated=True,
    )
    epochs: int = option(
        0,
        "Epochs in place of --steps; 0 for none.",
        group=SCHEDULE,
        least=0,
        inherited=False,
        yields_to=("steps",),
    )
    epoch_steps: int = option(
        0,
        "Steps of an epoch; 0 for all the data.",
        group=SCHEDULE,
        least=0,
        inherited=False,
        yields_to=("steps",),
    )
    batch_size: int = option(16, "Crops per step in all.", group=SCHEDULE, above=0)
    accumulate: int = option(
        1,
        "Batches whose gradients are added up for one step.",
        group=SCHEDULE,
        above=0,
        recipes=("supervised", "collaborative"),
    )
    lr: float = option(1e-3, "Initial learning rate.", group=SCHEDULE, above=0)
    optimizer: str = option(
        "adam",
        "adam or muon.",
        group=SCHEDULE,
        word="name",
        one_of=("adam", "muon"),
    )
    betas: tuple[float, ...] = option(
        (0.9, 0.999),
        "Adam's decay rates.",
        group=SCHEDULE,
        pair=True,
        least=0,
        below=1,
    )
    lr_schedule: str = option(
        "cosine",
        "cosine (to --lr-min), constant or milestones.",
        group=SCHEDULE,
        word="name",
        one_of=("cosine", "constant", "milestones"),
    )
    lr_milestones: tuple[float, ...] = option(
        (),
        "Share of the steps at which the learning rate drops; repeatable.",
        group=SCHEDULE,
        above=0,
        below=1,
    )
    lr_factor: float = option(0.2, "Factor of each drop.", group=SCHEDULE, above=0)
    lr_rates: tuple[float, ...] = option(
        (), "The rate after each drop; repeatable.", group=SCHEDULE, least=0
    )
    lr_min: float = option(0.0, "Final learning rate of the cosine.", group=SCHEDULE, least=0)
    warmup: int = option(0, "Steps of rising rate at the start.", group=SCHEDULE, least=0)
    clip_gradient: float = option(
        0.0, "Largest gradient norm; 0 for no limit.", group=SCHEDULE, least=0
    )
    collapse: float = option(
        1.8,
        "Go back to a save at this multiple of the best loss; 0 for never.",
        group=SCHEDULE,
        least=0,
        recipes=PAIRED,
    )
    ema: float = option(
        0.0,
        "Save a moving average of the weights with this decay; 0 for none.",
        group=SCHEDULE,
        least=0,
        below=1,
        recipes=FROM_PAIRS,
    )
    freeze_norm_from: float = option(
        0.7,
        "Share of the steps after which batch norm is measured on whole images and "
        "frozen; 1 for never.",
        group=SCHEDULE,
        least=0,
        most=1,
    )

    loss: tuple[str, ...] = option(
        ("ssim:1", "mse:0.1"),
        "LOSS[:WEIGHT]: ssim, neg-ssim, mse, l1, charbonnier, fft, pixel, edge, texture, "
        "texture-mean, tv, contrastive or perceptual; repeatable.",
        group=LOSSES,
        recipes=WEIGHTED_LOSSES,
    )
    loss_weighting: str = option(
        "fixed",
        "fixed, or MENET's balance: gb (by gradients) or lb (by losses).",
        group=LOSSES,
        word="name",
        one_of=("fixed", "gb", "lb"),
        recipes=WEIGHTED_LOSSES,
    )
    contrastive: float | None = option(
        None,
        "Weight of the contrastive loss; 0 for none.",
        group=LOSSES,
        recipes=WEIGHTED_LOSSES,
    )
    vgg: str | None = option(
        None,
        "VGG-19's weights for the contrastive loss.",
        group=LOSSES,
        word="file",
        recipes=WEIGHTED_LOSSES,
    )
    output_weights: tuple[float, ...] = option(
        (1.0, 1.0, 1.0),
        "alpha of HCN's eq. 2: weights of the results B, M and T.",
        group=LOSSES,
        recipes=("collaborative",),
    )
    scale_weights: tuple[float, ...] = option(
        (0.05, 0.001),
        "beta of HCN's eq. 3: weights of the results at 1/2 and 1/4 size.",
        group=LOSSES,
        recipes=("collaborative",),
    )

    seed: int = option(
        0,
        "Seed of weights, crops and rain.",
        group=SAVING,
        least=0,
        stated=True,
    )
    validate_every: int = option(
        2000,
        "Steps between validations; 0 validates only at the end.",
        group=SAVING,
        least=0,
        recipes=PAIRED,
    )
    images: int = option(
        1,
        "Validation images to save from each source.",
        group=SAVING,
        least=0,
        recipes=PAIRED,
        free_on_resume=True,
        former="pictures",
    )
    save_every: int = option(
        500,
        "Steps between saved states.",
        group=SAVING,
        least=0,
        free_on_resume=True,
    )
    max_time: float = option(
        0.0,
        "Stop after this many minutes; 0 for no limit.",
        group=SAVING,
        least=0,
        free_on_resume=True,
    )

    device: str = option(
        "auto",
        "auto, cpu, cuda[:N] or mps.",
        group=SPEED,
        word="name",
        free_on_resume=True,
    )
    precision: str = option(
        "fp32",
        "fp32, bf16 (up to three times faster) or fp16 (CUDA only).",
        group=SPEED,
        word="name",
        one_of=("fp32", "bf16", "fp16"),
    )
    compile: bool = option(False, "Compile the network first.", group=SPEED)
    threads: int = option(
        0,
        "CPU threads; 0 lets PyTorch choose.",
        group=SPEED,
        least=0,
        free_on_resume=True,
    )
    workers: int = option(
        0,
        "Threads or processes that draw batches; 0 chooses by the device.",
        group=SPEED,
        least=0,
        free_on_resume=True,
    )
    cache: float = option(
        2.0,
        "GiB of decoded images to keep in memory.",
        group=SPEED,
        least=0,
        free_on_resume=True,
    )

    def __post_init__(self) -> None:
        """Turn JSON lists into tuples and refuse impossible values.

        Raises:
            ConfigError: A value of another type or out of its range, quoted with the range; or one
                of a field that the recipe does not use.
        """
        for item in dataclasses.fields(self):
            if isinstance(item.default, tuple) and isinstance(getattr(self, item.name), list):
                object.__setattr__(self, item.name, tuple(getattr(self, item.name)))
        check(self)
        rising = list(self.lr_milestones) == sorted(self.lr_milestones)
        require(self, "lr_milestones", rising, "rising shares")
        rates_fine = not self.lr_rates or len(self.lr_rates) == len(self.lr_milestones)
        require(self, "lr_rates", rates_fine, f"one rate for each of {len(self.lr_milestones)}")
        require(self, "output_weights", len(self.output_weights) == 3, "three numbers: B, M and T")
        require(self, "scale_weights", len(self.scale_weights) == 2, "two numbers: 1/2 and 1/4")

    def crop_at(self, step: int) -> tuple[int, int]:
        """(crop side, crops in all) of a step.

        Example:
            >>> TrainConfig(steps=10, crop=64, batch_size=16, final_crop=128).crop_at(9)
            (128, 4)
        """
        if not self.final_crop or step < self.final_from * self.steps:
            return self.crop, self.step_size
        area = (self.crop / self.final_crop) ** 2
        return self.final_crop, max(1, round(self.step_size * area))

    @property
    def collapse_limit(self) -> float:
        """`collapse` where the recipe is watched so; what adapts to photos has its own guard."""
        return 0.0 if "collapse" in unused(type(self), self.recipe) else self.collapse

    @property
    def step_size(self) -> int:
        """Crops that a step learns from, before a final crop.

        Example:
            >>> TrainConfig(batch_size=4, accumulate=3).step_size
            12
        """
        return self.batch_size * self.accumulate

    def lr_at(self, step: int) -> float:
        """Learning rate of a step.

        Example:
            >>> TrainConfig(steps=10, lr=0.1).lr_at(0), round(TrainConfig(steps=10).lr_at(10), 6)
            (0.1, 0.0)
        """
        rising = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rising * self._scheduled(step / self.steps)

    def _scheduled(self, share: float) -> float:
        if self.lr_schedule == "constant":
            return self.lr
        if self.lr_schedule == "cosine":
            return self.lr_min + (self.lr - self.lr_min) * (1 + math.cos(math.pi * share)) / 2
        drops = sum(share >= drop for drop in self.lr_milestones)
        if self.lr_rates:
            return (self.lr, *self.lr_rates)[drops]
        return self.lr * self.lr_factor**drops

    def norm_frozen_at(self, step: int) -> bool:
        """Whether batch-norm statistics are frozen at a step."""
        return self.freeze_norm_from < 1 and step >= self.freeze_norm_from * self.steps

    def model_options(self) -> dict[str, Any]:
        """Fields of the network's config that differ from the published ones.

        Example:
            >>> TrainConfig(model_option=("stages=2", "pyramid=laplacian")).model_options()
            {'stages': 2, 'pyramid': 'laplacian'}

        Raises:
            ConfigError: No `NAME=VALUE`.
        """
        options = {}
        for text in self.model_option:
            name, separator, value = text.partition("=")
            if not separator:
                raise ConfigError(f"`model_option` is {text!r}; it must be NAME=VALUE")
            options[name] = _parsed(value)
        return options

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Self:
        """Config from JSON's fields, those of earlier versions under their new names.

        What the recipe does not use is left out: it changed nothing then, and changes nothing now.

        Raises:
            ConfigError: A field that does not exist; the nearest is suggested.
        """
        known = {item.name: facts(item) for item in dataclasses.fields(cls)}
        renamed = {fact.former: name for name, fact in known.items() if fact.former}
        values = {renamed.get(name, name): value for name, value in fields.items()}
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown option {name!r}. {did_you_mean(name, known)}")
        return cls(**without_unused(cls, values))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Config from a `config.json`.

        Raises:
            ConfigError: Not there, not JSON, or with unknown fields.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read config {str(path)!r}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config {str(path)!r} is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ConfigError(f"config {str(path)!r} must be a JSON object of options")
        try:
            return cls.from_mapping(fields)
        except ConfigError as error:
            raise ConfigError(f"config {str(path)!r}: {error}") from error


def require_scheduled(config: TrainConfig, given: Iterable[str]) -> None:
    """Refuse a field of another schedule, which would change nothing.

    Args:
        config: The run.
        given: Fields that were given by hand; a preset's may lie idle.

    Raises:
        ConfigError: One of them belongs to a schedule that the run does not have.
    """
    for name in given:
        schedule = SCHEDULE_OF.get(name, config.lr_schedule)
        if schedule != config.lr_schedule:
            raise ConfigError(
                f"`{name}` is not used by the schedule {config.lr_schedule!r}: "
                f"give `lr_schedule` {schedule}, or leave it out"
            )


def _parsed(value: str) -> Any:  # noqa: ANN401 (any JSON value)
    """JSON, or the text itself where it is none: `pyramid=laplacian` needs no quotes."""
    try:
        return json.loads(value)
    except ValueError:
        return value
