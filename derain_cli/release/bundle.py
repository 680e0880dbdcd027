"""From a training run to released weights: the bundled file and its entry.

A release is a checkpoint in `weights/` and its entry in `weights.toml`, which states what a reader
needs to judge it or train it again: the command line, data, seed, steps, time, machine, scores.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from derain_cli.checkpoints import hub
from derain_cli.checkpoints.catalogue import (
    WeightsEntry,
    list_weights,
    read_entries,
    weights_folder,
)
from derain_cli.checkpoints.files import read_metadata
from derain_cli.checkpoints.resolving import resolve_weights
from derain_cli.errors import UsageError
from derain_cli.release.cards import model_card
from derain_cli.training.provenance import training_facts, without_path
from derain_cli.whole_files import write_whole

FIELD_ORDER = (
    *("model", "file", "sha256", "default", "repo", "revision", "summary", "data", "command"),
    *("steps", "seed", "seconds", "machine", "commit", "validation", "licence", "limits"),
    *("harm", "dry_psnr", "dry_psnr_median", "dry_psnr_worst", "seconds_per_megapixel"),
)

# Fields of an entry that hold for any run's weights.
TRUE_OF_ANY_FILE = frozenset({"summary", "licence"})
# Fields that follow from the file or are measured: text in their place would mislead, or not load.
NOT_TEXT = frozenset(
    {"model", "file", "sha256", "default", "scores", "validation", "steps", "seed", "seconds"}
    | {"dry_psnr", "dry_psnr_median", "dry_psnr_worst", "seconds_per_megapixel"}
)
BUFFER_ENDINGS = ("running_mean", "running_var", "num_batches_tracked")


def bundle_run(
    run: Path,
    name: str,
    *,
    about: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    default: bool | None = None,
    half: bool = False,
    folder: Path | None = None,
) -> WeightsEntry:
    """Copy a run's best checkpoint into the weights folder and write its entry.

    Bundling again replaces the file and the facts of the run. All other fields stay as long as the
    file is the same; for a new file, those that describe the old one are dropped.

    Args:
        run: Folder of a training run, or a checkpoint file.
        name: `<model>-<trained on>`.
        about: Fields to add or replace: summary, data, machine, commit, licence, limits; repo and
            revision once the file is on the Hub.
        scores: By data set, as `cards.read_scores` returns them; added to those there are.
        default: Whether the network's bare name means these weights; None keeps what it was.
        half: Store the parameters as float16: half the size; check that the scores do not change.
        folder: Weights folder; None for the bundled one.

    Raises:
        UsageError: A name that does not start with the network's; a text for a field that is none,
            or a revision that is no commit.
        CheckpointError: The run's checkpoint is damaged or foreign.
        ResourceError: No space or no permission.
    """
    folder = folder or weights_folder()
    source = resolve_weights(run)
    metadata = read_metadata(source)
    _require_name(name, metadata["model"])
    _require_texts(about or {})
    facts = training_facts(source)  # which refuses a foreign config
    content = released_bytes(source, half=half)
    entries = {entry.name: entry for entry in read_entries(folder)}
    old = entries.get(name) or WeightsEntry(name, metadata["model"], f"{name}.safetensors", "")
    sha256 = hashlib.sha256(content).hexdigest()
    fields = _fields(facts, old, same=sha256 == old.sha256) | dict(about or {})
    if scores:
        fields["scores"] = dict(fields.get("scores", {})) | dict(scores)
    entry = dataclasses.replace(
        old,
        sha256=sha256,
        default=old.default if default is None else default,
        # The Hub holds the old file, so a new one is not there.
        repo=fields.pop("repo", old.repo if sha256 == old.sha256 else ""),
        revision=fields.pop("revision", old.revision if sha256 == old.sha256 else ""),
        about=fields,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / entry.file, content)
    entries[name] = entry
    _write_entries(folder / "weights.toml", _with_one_default(entries.values(), entry))
    return entry


def _fields(facts: Mapping[str, Any], old: WeightsEntry, *, same: bool) -> dict[str, Any]:
    """Fields of an entry: those of the run, and those of the old entry that still hold."""
    fields = {name: text for name, text in old.about.items() if same or name in TRUE_OF_ANY_FILE}
    fields |= facts
    if "data" in old.about and facts.get("command") == old.about.get("command"):
        fields["data"] = old.about["data"]  # may have been edited by hand, and still holds
    return fields


def push_run(
    run: str, repo: str, *, private: bool = False, new_card: bool = False, file: str = ""
) -> tuple[hub.HubFile, str]:
    """Upload a checkpoint and its model card to the Hub.

    Args:
        run: Folder of a training run, a checkpoint file, or a name of weights.
        repo: `org/repo`, made when it is not there.
        private: Whether a new repository is private.
        new_card: Replace a model card that is there already.
        file: Name to give the file; "" for the one that `hf:org/repo` means.

    Returns:
        Where it is, at its commit, and its SHA-256.

    Raises:
        UnavailableError: No such run, no network, no token, or no right to write there.
        CheckpointError: The checkpoint is damaged or foreign.
    """
    source = resolve_weights(run)
    metadata = read_metadata(source)
    entry = next((entry for entry in list_weights() if entry.name == run), None)
    about = dict(entry.about) if entry else training_facts(source)  # or a foreign config is refused
    content = released_bytes(source)
    sha256 = hashlib.sha256(content).hexdigest()
    name = entry.name if entry else repo.partition("/")[2]
    target = hub.HubFile(repo, file=file or hub.CHECKPOINT_FILE)
    card = model_card(name, metadata["model"], about | {"sha256": sha256}, target)
    files = {target.file: content, hub.CARD_FILE: card.encode()}
    commit = hub.upload(repo, files, f"Upload {name}", private=private, new_card=new_card)
    return dataclasses.replace(target, revision=commit), sha256


def _require_name(name: str, model: str) -> None:
    if not re.fullmatch(rf"{model}-[a-z0-9][a-z0-9-]*", name):
        raise UsageError(
            f"name {name!r} is not '{model}-' and what it was trained on (a-z, 0-9, -)"
        )


def _require_texts(about: Mapping[str, Any]) -> None:
    wrong = next((name for name in about if name in NOT_TEXT and isinstance(about[name], str)), "")
    if wrong:
        raise UsageError(
            f"field {wrong!r} of an entry is no text to set: it follows from the checkpoint, "
            "`default` or `scores`, or is measured by tests/benchmarks/figures.py"
        )
    revision = about.get("revision", "")
    if revision and not hub.COMMIT.fullmatch(revision):
        raise UsageError(f"revision {revision!r} is no commit, which has 40 hex digits")


def _with_one_default(entries: Iterable[WeightsEntry], new: WeightsEntry) -> list[WeightsEntry]:
    def agreed(entry: WeightsEntry) -> WeightsEntry:
        other = entry.model == new.model and entry.name != new.name
        return dataclasses.replace(entry, default=False) if other and new.default else entry

    return [agreed(entry) for entry in entries]


def released_bytes(source: Path, *, half: bool = False) -> bytes:
    """A checkpoint without the paths of the machine it was trained on; the same bytes each time.

    Args:
        source: A checkpoint of ours.
        half: Store the parameters as float16.
    """
    with safe_open(str(source), framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {key: _released(key, file.get_tensor(key), half) for key in file.keys()}  # noqa: SIM118
    if "config" in metadata:
        metadata["config"] = json.dumps(_without_paths(json.loads(metadata["config"])))
    return _in_order(save(tensors, metadata))


def _without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:  # noqa: ANN401 (any field's value)
        if isinstance(value, list):
            return [plain(item) for item in value]
        return without_path(value) if isinstance(value, str) else value

    return {name: plain(value) for name, value in config.items()} | {"data_root": ""}


def _in_order(content: bytes) -> bytes:
    """A safetensors file with sorted metadata: the library writes them in an order of chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _released(key: str, tensor: Tensor, half: bool) -> Tensor:
    # Statistics of batch norm are few, and small variances do not fit half precision.
    if not half or not tensor.is_floating_point() or key.endswith(BUFFER_ENDINGS):
        return tensor
    return tensor.half()


def _write_entries(path: Path, entries: Iterable[WeightsEntry]) -> None:
    """Write `weights.toml`; comments above its first entry are kept, others are not."""
    old = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = [line for line in old[: _first_table(old)] if line.startswith("#")]
    blocks = ["\n".join(comments)] if comments else []
    blocks += [entry_toml(entry) for entry in entries]
    write_whole(path, ("\n\n".join(blocks) + "\n").encode())


def _first_table(lines: list[str]) -> int:
    return next((index for index, line in enumerate(lines) if line.startswith("[")), len(lines))


def entry_toml(entry: WeightsEntry) -> str:
    """An entry as the text of its TOML table.

    Example:
        >>> print(entry_toml(WeightsEntry("rdmc-x", "rdmc", "f", "ab", about={"steps": 3})))
        [rdmc-x]
        model = "rdmc"
        file = "f"
        sha256 = "ab"
        default = false
        steps = 3
    """
    known = {name: getattr(entry, name) for name in ("model", "file", "sha256", "default")}
    known |= {"repo": entry.repo} if entry.repo else {}
    known |= {"revision": entry.revision} if entry.revision else {}
    fields = known | {name: value for name, value in entry.about.items() if name != "scores"}
    rank = {name: place for place, name in enumerate(FIELD_ORDER)}
    ordered = sorted(fields, key=lambda name: rank.get(name, len(rank)))
    lines = [f"[{entry.name}]", *(f"{_key(name)} = {_toml(fields[name])}" for name in ordered)]
    scores = entry.about.get("scores")
    if scores:
        lines += ["", f"[{entry.name}.scores]"]
        lines += [f"{_key(name)} = {_toml(value)}" for name, value in scores.items()]
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _toml(name)


def _toml(value: Any) -> str:  # noqa: ANN401 (any TOML value)
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for the one control character that JSON lets through.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
