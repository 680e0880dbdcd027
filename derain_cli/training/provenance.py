"""How weights were made: the command, data, time and validation of their run."""

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain_cli.checkpoints.files import read_metadata
from derain_cli.checkpoints.resolving import resolve_weights
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.training.configs.fields import facts, flag, hidden, names
from derain_cli.training.configs.finetune import METHODS, FinetuneConfig
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.metrics_log import read_metrics

# Recipes of other commands than `derain train`, and what their configs are.
CONFIGS: Mapping[str, type[TrainConfig]] = {
    recipe: kind for kind in (FinetuneConfig, SearchConfig) for recipe in kind.recipes
}


def training_facts(checkpoint: Path) -> dict[str, Any]:
    """Fields of a `weights.toml` entry, read from a run's checkpoint and the files beside it.

    A checkpoint that none of our commands made has no such fields.

    Raises:
        CheckpointError: Its config is not one of this version, or no training writes such metadata.
    """
    metadata = read_metadata(checkpoint)
    if "config" not in metadata:
        return {}
    try:
        return _facts_of(checkpoint, metadata)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(checkpoint)!r} holds facts that no training writes: {error!r:.100}"
        ) from error


def _facts_of(checkpoint: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    config = _config_of(checkpoint, metadata)
    facts: dict[str, Any] = {
        "data": describe_data(config),
        "command": " && ".join(_commands(config, "RUN")),
        "steps": int(metadata["step"]),
        "seed": config.seed,
    }
    validation = _validation(checkpoint.parent, metadata)
    if validation:
        facts["validation"] = validation
    seconds = metadata.get("seconds") or _at_step(checkpoint.parent, metadata, "seconds")
    if seconds:
        facts["seconds"] = int(seconds)
    return facts | {key: metadata[key] for key in ("machine", "commit") if key in metadata}


def _config_of(checkpoint: Path, metadata: Mapping[str, str]) -> TrainConfig:
    kind = CONFIGS.get(metadata.get("recipe", ""), TrainConfig)
    try:
        return kind.from_mapping(json.loads(metadata["config"]))
    except (AttributeError, RecursionError, TypeError, ValueError, UsageError) as error:
        raise CheckpointError(f"{str(checkpoint)!r} holds a foreign config: {error}") from error


def _validation(run: Path, metadata: Mapping[str, str]) -> dict[str, float]:
    """Mean PSNR (dB) by source of images, at the checkpoint's step."""
    scores = _at_step(run, metadata, "validation")
    if isinstance(scores, dict):
        return {name: round(psnr, 2) for name, psnr in scores.items()}
    mean = metadata.get("validation_psnr")
    return {"mean": round(float(mean), 2)} if mean else {}


def _at_step(run: Path, metadata: Mapping[str, str], field: str) -> Any:  # noqa: ANN401 (a log's)
    """The last value of a field in the run's log at the checkpoint's step; None if absent."""
    lines = [line for line in read_metrics(run) if str(line["step"]) == metadata["step"]]
    return next((line[field] for line in reversed(lines) if line.get(field)), None)


def describe_data(config: TrainConfig) -> str:
    """A run's training data, in words.

    Example:
        >>> describe_data(TrainConfig(dataset=("rain100l_train:2",), clean=("my",), rain=("dry",)))
        'pairs of rain100l_train; clean images of my under dry rain'
        >>> describe_data(TrainConfig(data=("/home/me/rainy", "/home/me/clean")))
        'pairs of rainy and clean'
    """
    names = [without_path(item).partition(":")[0] for item in config.dataset]
    if config.data:
        names.append(" and ".join(map(without_path, config.data)))
    parts = [f"pairs of {', '.join(names)}"] if names else []
    if isinstance(config, FinetuneConfig):
        parts.append(f"photos of {without_path(config.real)} without a truth")
    if config.clean:
        clean = ", ".join(map(without_path, config.clean))
        rain = ", ".join(re.sub(r":[\d.]+$", "", without_path(kind)) for kind in config.rain)
        parts.append(f"clean images of {clean} under {rain} rain")
    return "; ".join(parts)


def training_command(config: TrainConfig, out: str = "RUN") -> str:
    """The command line that trains these weights again.

    Options at their default are left out, and so are those that change no result: threads, pauses,
    the folder of the data sets. Absolute paths are cut down to their last part.

    Example:
        >>> training_command(TrainConfig(dataset=("rain100l_train",), steps=9, flip=False))
        'derain train --model rdmc --dataset rain100l_train --no-flip --steps 9 --seed 0 --out RUN'
    """
    words, said = _begin_command(config)
    kind = type(config)
    stated = names(kind, lambda option: option.stated)
    if isinstance(config, FinetuneConfig):  # what a method publishes is a default of the command
        stated |= {*METHODS[config.recipe]}
    # A run's epochs became steps, and a command takes one of the two.
    silent = names(kind, lambda option: option.free_on_resume) | hidden(kind) | said | {"epochs"}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name not in silent and (item.name in stated or value != item.default):
            words += _option(item.name, value, facts(item).pair)
    return shlex.join([*words, "--out", out])


def _commands(config: TrainConfig, out: str, depth: int = 0) -> list[str]:
    """The command lines that train these weights, starting with the run they were begun from."""
    if not config.weights or not Path(config.weights).exists():
        return [training_command(config, out)]  # from scratch, or from named weights
    base = f"BASE{depth or ''}"
    checkpoint = resolve_weights(config.weights)
    metadata = read_metadata(checkpoint)
    known = "config" in metadata
    first = _commands(_config_of(checkpoint, metadata), base, depth + 1) if known else []
    return [*first, training_command(dataclasses.replace(config, weights=base), out)]


def _begin_command(config: TrainConfig) -> tuple[list[str], frozenset[str]]:
    """(first words of a run's command, fields besides the hidden ones that they say)."""
    words = ["derain", config.command]
    if not isinstance(config, FinetuneConfig):
        return words, frozenset()
    words += ["--method", config.recipe.replace("_", "-"), "--model"]
    if config.weights:  # a network comes with its options
        return [*words, without_path(config.weights)], frozenset({"model_option"})
    return [*words, config.model, "--from-scratch"], frozenset()


def _option(name: str, value: Any, pair: bool) -> list[str]:  # noqa: ANN401 (any field's value)
    if isinstance(value, bool):
        return [flag(name) if value else flag(f"no_{name}")]
    if pair:
        return [flag(name), *(without_path(str(item)) for item in value)]
    values = value if isinstance(value, tuple) else (value,)
    return [word for item in values for word in (flag(name), without_path(str(item)))]


def without_path(value: str) -> str:
    """A path's last part, because folders of one machine mean nothing on another; else unchanged.

    Example:
        >>> without_path("/home/me/photos"), without_path("streaks:streaks:1.2")
        ('photos', 'streaks:streaks:1.2')
        >>> without_path("mixed:/home/me/layers,pairs:/home/me/pairs:0.5")
        'mixed:layers,pairs:pairs:0.5'
    """
    if Path(value).is_absolute():
        return Path(value).name
    return re.sub(r"(?<=[:,])/(?!/)[^:,]*", lambda path: Path(path[0]).name, value)
