"""What is written down about a network and its weights: facts of their training, scores, the card.

A reader should be able to judge weights, and to train them again, from their card alone.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.checkpoints import read_metadata, resolve_weights
from derain_cli.comparison import COLUMNS, INPUT
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.hub import HubFile
from derain_cli.models import build_model, find_model
from derain_cli.training.config import TrainConfig, flag
from derain_cli.training.finetune_config import METHODS, FinetuneConfig
from derain_cli.training.run_folder import FREE_ON_RESUME
from derain_cli.training.search_config import SearchConfig

COUNTED_SIDE = 256
# Recipes of other commands than `derain train`, and what their configs are.
CONFIGS: Mapping[str, type[TrainConfig]] = {
    **dict.fromkeys(METHODS, FinetuneConfig),
    "connection_search": SearchConfig,
}
LABELS = {
    "data": "trained on",
    "command": "command",
    "steps": "steps",
    "seed": "seed",
    "seconds": "seconds",
    "machine": "machine",
    "commit": "commit",
    "validation": "validation PSNR, dB",
    "sha256": "SHA-256",
}


def network_facts(name: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What there is to know of a network without its weights.

    Multiply-adds are those of convolutions and matrix products on one picture of 256x256 pixels,
    counted on tensors without memory.

    Args:
        name: A key of `MODELS`.
        config: Fields of its config that differ from the published ones.

    Raises:
        UsageError: Unknown name.
    """
    entry = find_model(name)
    model = build_model(name, config).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    picture = torch.empty(1, 3, COUNTED_SIDE, COUNTED_SIDE, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(picture)
    return {
        "model": name,
        "paper": entry.paper,
        "parameters": parameters,
        "multiply_adds_256": counter.get_total_flops() // 2,
        "padding_multiple": entry.padding_multiple,
        "tile_overlap": entry.tile_overlap,
        "receptive_radius": entry.receptive_radius,
        "not_tile_exact": entry.not_tile_exact,
    }


def training_facts(checkpoint: Path) -> dict[str, Any]:
    """What a run's checkpoint and the files beside it say of its training, as entry fields.

    A checkpoint that was made by no command of ours has none.

    Raises:
        CheckpointError: Its config is not one of this version.
    """
    metadata = read_metadata(checkpoint)
    if "config" not in metadata:
        return {}
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
    except (ValueError, UsageError) as error:
        raise CheckpointError(f"{str(checkpoint)!r} holds a foreign config: {error}") from error


def _validation(run: Path, metadata: Mapping[str, str]) -> dict[str, float]:
    """Mean PSNR (dB) by source of pictures, at the checkpoint's step."""
    scores = _at_step(run, metadata, "validation")
    if scores:
        return {name: round(psnr, 2) for name, psnr in scores.items()}
    mean = metadata.get("validation_psnr")
    return {"mean": round(float(mean), 2)} if mean else {}


def _at_step(run: Path, metadata: Mapping[str, str], field: str) -> Any:  # noqa: ANN401 (a log's)
    """What the run's log last said of a field at the checkpoint's step; None if nothing."""
    log = run / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    seen = [line for line in map(json.loads, lines) if str(line["step"]) == metadata["step"]]
    return next((line[field] for line in reversed(seen) if line.get(field)), None)


def describe_data(config: TrainConfig) -> str:
    """What a run was trained on, in words.

    Example:
        >>> describe_data(TrainConfig(dataset=("rain100l_train:2",), clean=("my",), rain=("dry",)))
        'pairs of rain100l_train; clean pictures of my under dry rain'
    """
    names = [item.partition(":")[0] for item in config.dataset]
    if config.data:
        names.append(" and ".join(config.data))
    told = [f"pairs of {', '.join(names)}"] if names else []
    if isinstance(config, FinetuneConfig):
        told.append(f"photos of {without_path(config.real)} without a truth")
    if config.clean:
        rain = ", ".join(re.sub(r":[\d.]+$", "", kind) for kind in config.rain)
        told.append(f"clean pictures of {', '.join(config.clean)} under {rain} rain")
    return "; ".join(told)


def training_command(config: TrainConfig, out: str = "RUN") -> str:
    """The command line that trains these weights again.

    What has its default is left out, and so is what changes no number: threads, pauses, the folder
    of the data sets. Of a folder somewhere else only the name is said.

    Example:
        >>> training_command(TrainConfig(dataset=("rain100l_train",), steps=9, flip=False))
        'derain train --model rdmc --dataset rain100l_train --no-flip --steps 9 --seed 0 --out RUN'
    """
    words, own, stated = _begin_command(config)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        differs = item.name in stated or value != item.default
        if differs and item.name not in FREE_ON_RESUME | own:
            words += _option(item.name, value, item.metadata.get("pair", False))
    return shlex.join([*words, "--out", out])


def _commands(config: TrainConfig, out: str, depth: int = 0) -> list[str]:
    """The command lines that train these weights, those of the run they began with first."""
    if not config.weights or not Path(config.weights).exists():
        return [training_command(config, out)]  # from nothing, or from weights that have a name
    base = f"BASE{depth or ''}"
    checkpoint = resolve_weights(config.weights)
    metadata = read_metadata(checkpoint)
    known = "config" in metadata
    first = _commands(_config_of(checkpoint, metadata), base, depth + 1) if known else []
    return [*first, training_command(dataclasses.replace(config, weights=base), out)]


def _begin_command(config: TrainConfig) -> tuple[list[str], frozenset[str], frozenset[str]]:
    """(first words of a run's command, fields that they say, fields to state in any case)."""
    if isinstance(config, FinetuneConfig):
        method = config.recipe.replace("_", "-")
        words = ["derain", "finetune-real", "--method", method, "--model"]
        words += (
            [without_path(config.weights)] if config.weights else [config.model, "--from-scratch"]
        )
        # What a method publishes is a default of the command; a network comes with its options.
        published = {*METHODS[config.recipe], "steps", "seed"} - {"epochs"}
        network = {"model_option"} if config.weights else set()
        said = frozenset({"model", "weights", "recipe", *network})
        return words, said, frozenset(published)
    if isinstance(config, SearchConfig):
        return ["derain", "search"], frozenset({"model", "recipe"}), frozenset({"steps", "seed"})
    return ["derain", "train"], frozenset(), frozenset({"model", "steps", "seed"})


def _option(name: str, value: Any, pair: bool) -> list[str]:  # noqa: ANN401 (any field's value)
    if isinstance(value, bool):
        return [flag(name) if value else flag(f"no_{name}")]
    if pair:
        return [flag(name), *(without_path(str(item)) for item in value)]
    values = value if isinstance(value, tuple) else (value,)
    return [word for item in values for word in (flag(name), without_path(str(item)))]


def without_path(value: str) -> str:
    """A path's last part; anything else as it is. Weights travel, their machine's folders do not.

    Example:
        >>> without_path("/home/me/photos"), without_path("streaks:streaks:1.2")
        ('photos', 'streaks:streaks:1.2')
    """
    return Path(value).name if Path(value).is_absolute() else value


def read_scores(path: Path, models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Scores of a model by data set, from what `derain eval --json` printed.

    Beside each score stands the untouched input's, as `input_psnr` …; a data set's group and a
    protocol other than `y` are part of the key.

    Args:
        path: File of JSON lines.
        models: What the model may be called in it (its name, the run's folder).

    Raises:
        UsageError: Not such a file, or none of these models is in it.
    """
    lines = _score_lines(path)
    wanted, scores = set(models), {}
    inputs = {_score_key(line): line for line in lines if line["model"] == INPUT}
    for line in lines:
        if line["model"] in wanted:
            key = _score_key(line)
            told = {"protocol": line["protocol"], "images": line["images"]} | _means(line)
            if line.get("precision", "fp32") != "fp32":  # else unsaid, as in what eval takes
                told = {"precision": line["precision"]} | told
            untouched = _means(inputs.get(key, {}))
            scores[key] = told | {f"input_{name}": value for name, value in untouched.items()}
    if not scores:
        seen = ", ".join(sorted({line["model"] for line in lines} - {INPUT})) or "none"
        raise UsageError(f"{str(path)!r} scores none of {sorted(wanted)}; it scores: {seen}")
    return scores


def _score_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == "score"]
    except OSError as error:
        raise UsageError(f"cannot read scores {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is not what `derain eval --json` prints") from error


def _score_key(line: Mapping[str, Any]) -> str:
    protocol = "" if line["protocol"] == "y" else line["protocol"]
    return " ".join(part for part in (line["dataset"], line["group"], protocol) if part)


def _means(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(line[name], 4) for name in COLUMNS if line.get(name) is not None}


def model_card(name: str, model: str, about: Mapping[str, Any], source: HubFile) -> str:
    """Text of the README.md of weights on the Hub, with the header that the Hub reads.

    Args:
        name: Title.
        model: Key of `MODELS`.
        about: Fields of an entry of `weights.toml`, as many as there are.
        source: Where the weights will be.
    """
    entry = find_model(model)
    parts = [
        _card_header(model, about),
        f"# {name}",
        about.get("summary", f"Removes rain from photographs ({model}; {entry.paper})."),
        f"```sh\nderain photo.jpg --model {source}\n```",
        f"## Training\n\n{_facts_table(about)}" if about.keys() & LABELS.keys() else "",
        f"## Scores\n\n{_scores_table(about['scores'])}" if about.get("scores") else "",
        f"## Limits\n\n{about['limits']}" if about.get("limits") else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _card_header(model: str, about: Mapping[str, Any]) -> str:
    licence = about.get("licence", "").lower()
    # The Hub knows licences by one word; a sentence about them belongs into the text.
    stated = [f"license: {licence}"] if re.fullmatch(r"[a-z0-9.-]+", licence) else []
    lines = [*stated, "library_name: derain", "pipeline_tag: image-to-image"]
    tags = ["image-restoration", "deraining", model]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _facts_table(about: Mapping[str, Any]) -> str:
    rows = [f"| {label} | {_cell(about[key])} |" for key, label in LABELS.items() if key in about]
    return "\n".join(["| | |", "|---|---|", *rows])


def _scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for means in scores.values() for name in means))
    titles = [name.replace("_", " ") for name in columns]
    lines = [["data set", *titles], ["---"] * (1 + len(columns))]
    lines += [
        [name, *(_cell(means.get(c, "–")) for c in columns)] for name, means in scores.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: Any) -> str:  # noqa: ANN401 (any field)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value).replace("|", "\\|").replace("\n", " ")
