"""Model cards: facts of a network, the training of its weights, and their scores.

A card alone should be enough to judge weights and to train them again.
"""

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.checkpoints.files import limited_forward
from derain_cli.checkpoints.hub import HubFile
from derain_cli.datasets.known import dataset_named
from derain_cli.datasets.origins import ORIGINS
from derain_cli.errors import UsageError
from derain_cli.evaluation.statistics import COLUMNS, INPUT
from derain_cli.models import build_model, entry_of, find_model

COUNTED_SIDE = 256
COUNTED_SECONDS = 0.4  # for a stranger's network; most take a fifth of it

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


def network_facts(
    name: str, config: Mapping[str, Any] | None = None, built: nn.Module | None = None
) -> dict[str, Any]:
    """Facts about a network that need no weights.

    MACs are those of convolutions and matrix products on one image of 256x256 pixels, counted on
    tensors without memory; None where counting those of a stranger's network takes too long.

    Args:
        name: A key of `MODELS`.
        config: Fields of its config that differ from the published ones.
        built: The network where it is there already, as a stranger's is that was built with care.

    Raises:
        UsageError: Unknown name.
    """
    model = (built or build_model(name, config)).eval()
    entry = entry_of(model)
    is_foreign = built is not None and built.config != entry.config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "model": name,
        "paper": entry.paper,
        "parameters": parameters,
        "multiply_adds_256": _multiply_adds(model, COUNTED_SECONDS if is_foreign else math.inf),
        "padding_multiple": entry.padding_multiple,
        "tile_overlap": entry.tile_overlap,
        "receptive_radius": entry.receptive_radius,
        "not_tile_exact": entry.not_tile_exact,
    }


def _multiply_adds(model: nn.Module, seconds: float) -> int | None:
    """Those of one image; None for a stranger's network that takes longer or cannot be counted."""
    image = torch.empty(1, 3, COUNTED_SIDE, COUNTED_SIDE, device="meta")
    counter = FlopCounterMode(display=False)
    try:
        with limited_forward(seconds), counter, torch.no_grad():
            model.to("meta")(image)
    except Exception:  # whatever a foreign config makes a network's forward raise
        if seconds == math.inf:
            raise
        return None
    return int(counter.get_total_flops() // 2)


def read_scores(path: Path, models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Scores of a model by data set, from what `derain eval --json` printed.

    Beside each score stands the untouched input's, as `input_psnr` …, and what a mean hides: the
    PSNR of the worst image and the number of images made worse than the input. A data set's group
    and a protocol other than `y` are part of the key.

    Args:
        path: File of JSON lines.
        models: What the model may be called in it (its name, the run's folder).

    Raises:
        UsageError: Not such a file, none of these models is in it, or it is of an evaluation that
            was interrupted.
    """
    lines = _score_lines(path)
    wanted, scores = set(models), {}
    inputs = {_score_key(line): line for line in lines if line["model"] == INPUT}
    for line in lines:
        if line["model"] in wanted:
            key = _score_key(line)
            score = {"protocol": line["protocol"], "images": line["images"]} | _means(line)
            if line.get("precision", "fp32") != "fp32":  # the default of eval is left out
                score = {"precision": line["precision"]} | score
            untouched = _means(inputs.get(key, {}))
            score |= {f"input_{name}": value for name, value in untouched.items()}
            scores[key] = score | _extremes(line)
    if not scores:
        seen = ", ".join(sorted({line["model"] for line in lines} - {INPUT})) or "none"
        raise UsageError(f"{str(path)!r} scores none of {sorted(wanted)}; it scores: {seen}")
    return scores


def _score_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        scores = [line for line in lines if line["event"] == "score"]
    except OSError as error:
        raise UsageError(f"cannot read scores {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is not what `derain eval --json` prints") from error
    if any(line.get("partial") for line in lines):
        raise UsageError(f"{str(path)!r} is of an unfinished evaluation: let it end, then bundle")
    return scores


def _score_key(line: Mapping[str, Any]) -> str:
    protocol = "" if line["protocol"] == "y" else line["protocol"]
    return " ".join(part for part in (line["dataset"], line["group"], protocol) if part)


def _means(line: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(line[name], 4) for name in COLUMNS if line.get(name) is not None}


def _extremes(line: Mapping[str, Any]) -> dict[str, Any]:
    """Worst image and number made worse; earlier versions of `eval` print neither."""
    worst = line.get("psnr_worst")  # null where every score is infinite
    known = {} if worst is None else {"worst_psnr": round(worst, 4)}
    return known | ({"made_worse": line["made_worse"]} if "made_worse" in line else {})


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
        _card_header(name, model, about),
        f"# {name}",
        about.get("summary", f"Removes rain from photographs ({model}; {entry.paper})."),
        f"```sh\nderain photo.jpg --model {source}\n```",
        f"## Training\n\n{_facts_table(about)}" if about.keys() & LABELS.keys() else "",
        f"## Scores\n\n{_scores_table(about['scores'])}" if about.get("scores") else "",
        f"## Limits\n\n{about['limits']}" if about.get("limits") else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _card_header(name: str, model: str, about: Mapping[str, Any]) -> str:
    """What the Hub reads of a card, as its own client writes it: licence, data, tags, scores."""
    licence = about.get("licence", "").lower()
    results = list(_eval_results(about.get("scores", {})))
    data = ModelCardData(
        # The Hub knows licences by one word; a sentence about them belongs into the text.
        license=licence if re.fullmatch(r"[a-z0-9.-]+", licence) else None,
        library_name="derain",
        pipeline_tag="image-to-image",
        tags=["image-restoration", "deraining", model],
        datasets=_hub_datasets(about.get("command", "")) or None,
        model_name=name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _eval_results(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[EvalResult]:
    """A result per data set and metric, for the Hub's table of scores (`model-index`)."""
    for dataset, means in scores.items():
        # The Hub takes two results on one data set for one, unless they are of two configs.
        whole, _, part = dataset.partition(" ")
        key = dataset_named(whole) or whole
        origin = ORIGINS.get(key)
        for column, value in means.items():
            if column in COLUMNS:
                yield EvalResult(
                    task_type="image-to-image",
                    task_name="Image deraining",
                    dataset_type=origin.hub if origin and origin.hub else key,
                    dataset_name=dataset,
                    dataset_config=part or None,
                    metric_type=column,
                    metric_name=f"{COLUMNS[column].title} ({means.get('protocol', 'y')})",
                    metric_value=value,
                )


def _hub_datasets(command: str) -> list[str]:
    """Copies on the Hub of the data sets that a training command names."""
    named = [
        value.partition(":")[0]
        for option, value in itertools.pairwise(shlex.split(command))
        if option in ("--dataset", "--real")
    ]
    copies = (ORIGINS[name].hub for name in named if name in ORIGINS)
    return sorted({copy for copy in copies if copy})


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
