"""TrainConfig: everything that decides a training run; its fields are the options of the CLI."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin

from derain_cli.errors import ConfigError, did_you_mean

# What may differ between a run and its continuation without changing any number of it.
FREE_ON_RESUME = frozenset(
    {"device", "threads", "workers", "cache", "max_time", "save_every", "images", "data_root"}
)


def option(default: Any, text: str, **facts: Any) -> Any:  # noqa: ANN401 (a dataclass field's type)
    """A config field with the help text that the command line shows.

    Args:
        default: Value when nothing is said.
        text: The help.
        **facts: `pair=True` for a tuple of exactly two values, given as one option; `shown` is the
            default in words.
    """
    return field(default=default, metadata={"help": text} | facts)


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Frozen, JSON in and out, compared field by field on resume."""

    model: str = option("rdmc", "Network to train.")
    model_option: tuple[str, ...] = option(
        (), "NAME=VALUE of the network's own config, VALUE in JSON; repeatable."
    )
    recipe: str = option("supervised", "What happens to one batch.")
    weights: str | None = option(None, "Checkpoint or name of weights to start from.")

    data_root: str = option(
        "",
        "Where named data sets lie.",
        shown="$DERAIN_DATA, else ~/.cache/derain/datasets",
    )
    dataset: tuple[str, ...] = option((), "NAME_OR_FOLDER[:WEIGHT] of pairs; repeatable.")
    data: tuple[str, ...] = option(
        (), "RAINY_FOLDER CLEAN_FOLDER of pairs, matched by name.", pair=True
    )
    clean: tuple[str, ...] = option((), "Folder of clean images to paint rain on; repeatable.")
    rain: tuple[str, ...] = option(
        (),
        "KIND[:WEIGHT] of painted rain: small, medium, large, heavy, dry, streaks:FOLDER, "
        "pairs:DATASET, wide, drops or mixed:FOLDER[,...]; parts of a scene are joined by +, among "
        "them structures, veil and phone (phone+structures+wide); repeatable.",
    )
    backgrounds: int = option(
        0, "Paint on this many clean patches of 128x128, chosen by the seed; 0 = all images."
    )
    held_out: int = option(
        20, "Images per folder kept out of training, for validation; at most half of them."
    )
    hold_out_by: str = option(
        "file",
        "file, or photo: also leave out of training every image that shows a photo which is held "
        "out in another folder.",
    )
    crops: str = option("random", "random places, or ten: corners and middle, each also mirrored.")
    flip: bool = option(True, "Mirror half of the crops.")
    rotate: bool = option(False, "Turn the crops by 0, 90, 180 or 270 degrees.")

    steps: int = option(20_000, "Optimisation steps.")
    batch_size: int = option(16, "Crops per step, over all processes.")
    crop: int = option(64, "Side of the training crops, pixels.")
    final_crop: int = option(
        0, "Larger crop at the end (the batch shrinks with its area); 0 = none."
    )
    final_from: float = option(0.8, "Share of the steps after which the larger crop is used.")
    lr: float = option(1e-3, "Learning rate at the start.")
    betas: tuple[float, ...] = option((0.9, 0.999), "Adam's two decay rates.", pair=True)
    lr_schedule: str = option("cosine", "cosine (to --lr-min), constant, or milestones.")
    lr_milestones: tuple[float, ...] = option((), "Shares of the steps at which the rate drops.")
    lr_factor: float = option(0.2, "What the rate is multiplied with at a milestone.")
    lr_rates: tuple[float, ...] = option(
        (), "The rate from each milestone on, instead of --lr-factor."
    )
    lr_min: float = option(0.0, "Where the cosine ends.")
    warmup: int = option(0, "Steps in which the rate rises from near 0.")
    clip_gradient: float = option(0.0, "Largest gradient norm; 0 = no clipping.")
    collapse: float = option(
        1.8,
        "Go back to the last good save at half the rate when the moving loss stays above this "
        "many times its best, or a gradient is not finite; 0 = never.",
    )
    ema: float = option(
        0.0, "Validate and save a moving average of the weights, with this decay; 0 = none."
    )
    loss: tuple[str, ...] = option(
        ("ssim:1", "mse:0.1"),
        "LOSS:WEIGHT terms: ssim, neg-ssim, mse, l1, charbonnier, fft, pixel, edge, texture, tv, "
        "contrastive; repeatable.",
    )
    loss_weighting: str = option(
        "fixed", "fixed, or MENET's balanced gb (by gradients) and lb (by losses)."
    )
    contrastive: float | None = option(
        None, "Weight of the contrastive term, over what --loss says; 0 = without."
    )
    vgg: str | None = option(None, "safetensors file of VGG-19's weights, for contrastive.")
    output_weights: tuple[float, ...] = option(
        (1.0, 1.0, 1.0), "alpha of recipe collaborative: the results B, M and T."
    )
    scale_weights: tuple[float, ...] = option(
        (0.05, 0.001), "beta of recipe collaborative: the results at 1/2 and 1/4 of the size."
    )
    freeze_norm_from: float = option(
        0.7,
        "Share of the steps after which batch-norm statistics are gathered on whole images and "
        "frozen; 1 = never; 0 with --weights = those of the weights.",
    )

    seed: int = option(0, "Seed of weights, crops and rain.")
    device: str = option("auto", "auto, cpu, cuda[:N] or mps.")
    precision: str = option(
        "fp32", "fp32, bf16 for autocast (three times faster on some CPUs), or fp16 (CUDA)."
    )
    compile: bool = option(False, "Compile the network with torch.compile.")
    threads: int = option(0, "CPU threads; 0 = as PyTorch chooses.")
    workers: int = option(0, "Threads that draw batches ahead; 0 = one on a CPU, four on a GPU.")
    cache: float = option(2.0, "GiB of decoded images to keep in memory.")
    validate_every: int = option(2000, "Steps between validations; 0 = only at the end.")
    images: int = option(1, "Validation images to save of each source; 0 = none.")
    save_every: int = option(500, "Steps between saves of the resumable state.")
    max_time: float = option(0.0, "Stop and save after this many minutes; 0 = no limit.")

    def __post_init__(self) -> None:
        """Turn JSON lists into tuples and refuse impossible values.

        Raises:
            ConfigError: A value of another type or out of its range, quoted with the range.
        """
        for item in dataclasses.fields(self):
            if isinstance(item.default, tuple) and isinstance(getattr(self, item.name), list):
                object.__setattr__(self, item.name, tuple(getattr(self, item.name)))
            self._require(item.name, _fits(getattr(self, item.name), item.type), _said(item.type))
        for name in ("steps", "batch_size", "crop", "lr"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in (
            *(
                "held_out",
                "backgrounds",
                "final_crop",
                "lr_min",
                "warmup",
                "clip_gradient",
                "collapse",
            ),
            *("max_time", "threads", "workers", "cache", "validate_every", "images"),
            *("save_every", "seed"),
        ):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        for name in ("final_from", "freeze_norm_from"):
            self._require(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        self._require("ema", 0 <= self.ema < 1, "from 0 to below 1")
        self._require("data", len(self.data) in (0, 2), "two folders")
        self._require_one_of("crops", ("random", "ten"))
        self._require_one_of("hold_out_by", ("file", "photo"))
        self._require_one_of("lr_schedule", ("cosine", "constant", "milestones"))
        self._require_one_of("precision", ("fp32", "bf16", "fp16"))
        self._require_one_of("loss_weighting", ("fixed", "gb", "lb"))
        betas_fine = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        self._require("betas", betas_fine, "two numbers from 0 to below 1")
        rates_fine = not self.lr_rates or len(self.lr_rates) == len(self.lr_milestones)
        self._require("lr_rates", rates_fine, f"one rate for each of {len(self.lr_milestones)}")

    def _require(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise ConfigError(f"{flag(name)} is {getattr(self, name)!r}; it must be {expected}")

    def _require_one_of(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise ConfigError(f"{flag(name)} is {value!r}. {did_you_mean(value, known)}")

    def crop_at(self, step: int) -> tuple[int, int]:
        """(crop side, batch size) of a step.

        Example:
            >>> TrainConfig(steps=10, crop=64, batch_size=16, final_crop=128).crop_at(9)
            (128, 4)
        """
        if not self.final_crop or step < self.final_from * self.steps:
            return self.crop, self.batch_size
        area = (self.crop / self.final_crop) ** 2
        return self.final_crop, max(1, round(self.batch_size * area))

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
                raise ConfigError(f"--model-option is {text!r}; it must be NAME=VALUE")
            options[name] = _parsed(value)
        return options

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Self:
        """Config from JSON's fields.

        Raises:
            ConfigError: A field that does not exist; the nearest is suggested.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise ConfigError(f"unknown option {name!r}. {did_you_mean(name, known)}")
        return cls(**fields)

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
        except ValueError as error:
            raise ConfigError(f"config {str(path)!r} is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ConfigError(f"config {str(path)!r} must be a JSON object of options")
        try:
            return cls.from_mapping(fields)
        except ConfigError as error:
            raise ConfigError(f"config {str(path)!r}: {error}") from error


def flag(name: str) -> str:
    """The command line's spelling of a field.

    Example:
        >>> flag("batch_size")
        '--batch-size'
    """
    return "--" + name.replace("_", "-")


def _parsed(value: str) -> Any:  # noqa: ANN401 (any JSON value)
    """JSON, or the text itself where it is none: `pyramid=laplacian` needs no quotes."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 (a field's type)
    """Whether a value, perhaps from a JSON file, is of a field's type."""
    if isinstance(kind, UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(x, get_args(kind)[0]) for x in value)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _said(kind: Any) -> str:  # noqa: ANN401 (a field's type)
    """A field's type in words.

    Example:
        >>> _said(tuple[float, ...]), _said(str | None)
        ('a list of numbers', 'a text')
    """
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if get_origin(kind) is tuple:
        return "a list of " + names[get_args(kind)[0]].removeprefix("a ") + "s"
    members = [member for member in get_args(kind) if member is not type(None)]
    return names[members[0] if members else kind]
