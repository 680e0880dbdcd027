"""From a name or path to a verified checkpoint file, and to its network."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from derain_cli.checkpoints import hub
from derain_cli.checkpoints.catalogue import WeightsEntry, entry_named, list_weights, weights_folder
from derain_cli.errors import CheckpointError, UnavailableError, did_you_mean

if TYPE_CHECKING:  # torch takes a second to load, and a name is resolved without
    from torch import nn

RUN_FILES = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class LoadedModel:
    """A network with its trained weights: eval mode, float32, on the CPU."""

    model: "nn.Module"
    architecture: str
    name: str
    path: Path
    metadata: Mapping[str, str]


def load_model(name_or_path: str | os.PathLike[str]) -> LoadedModel:
    """Network with trained weights.

    Args:
        name_or_path: An entry of `weights.toml`, a network's bare name (its default weights), a
            safetensors file, the folder of a training run (its best checkpoint), or
            `hf:org/repo[@revision][:file]`.

    Raises:
        UnavailableError: No weights of that name; the message suggests the nearest.
        CheckpointError: The file is damaged, changed, or not one of ours.
    """
    from derain_cli.checkpoints.files import (  # noqa: PLC0415 (torch)
        build_described,
        load_tensors,
        read_metadata,
    )

    path = resolve_weights(name_or_path)
    metadata = read_metadata(path)
    model = build_described(path, metadata)
    load_tensors(model, path)
    return LoadedModel(model.eval(), metadata["model"], shown_name(name_or_path), path, metadata)


def shown_name(name_or_path: str | os.PathLike[str]) -> str:
    """Display name: the name itself, a file's stem, or a run's folder."""
    path = Path(name_or_path)
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else str(name_or_path)


def resolve_weights(name_or_path: str | os.PathLike[str]) -> Path:
    """Verified file of a name or path, downloaded if necessary.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: No weights of that name, or they cannot be downloaded.
        CheckpointError: A bundled, cached or downloaded file that has another SHA-256 than stated.
    """
    return find_weights(name_or_path) or download_weights(str(name_or_path))


def find_weights(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Verified file of a name or path if it is here. Makes no network request.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: Nothing of that name.
        CheckpointError: A bundled or cached file that has another SHA-256 than stated.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name.startswith(hub.PREFIX):
        cached = hub.find_cached(hub.HubFile.parse(name))
        if cached:
            hub.check_stated_digest(cached)
        return cached
    checkpoint = _run_checkpoint(path) if path.is_dir() else path
    if checkpoint and checkpoint.is_file():
        return checkpoint
    entry = entry_named(name)
    if entry is None:
        raise UnavailableError(_unknown(name))
    found = locate(entry)
    if found:
        hub.check_sha256(found, entry.sha256)
    return found


def _run_checkpoint(folder: Path) -> Path | None:
    files = [folder / file for file in RUN_FILES]
    return next((file for file in files if file.is_file()), None)


def locate(entry: WeightsEntry) -> Path | None:
    """The file of an entry, bundled or in the Hub's cache; not verified."""
    if entry.bundled_path.is_file():
        return entry.bundled_path
    return hub.find_cached(entry.on_hub) if entry.on_hub else None


def _unknown(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        return (
            f"{name!r} holds no best.safetensors: a training run saves its first checkpoint at its "
            "first validation, or when it is stopped"
        )
    if path.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin"):
        return f"no checkpoint {name!r} here; `derain models list` lists the weights"
    from derain_cli.models import MODELS  # noqa: PLC0415 (torch)

    if name in MODELS:
        return _without_default(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f"no run folder {name!r}; a repository of the Hub is named 'hf:{name}'"
    if len(path.parts) > 1:
        return f"no checkpoint or run folder {name!r}"
    entries = list_weights()
    if not entries:
        return (
            f"unknown model {name!r}: {str(weights_folder() / 'weights.toml')!r} lists no weights; "
            "$DERAIN_WEIGHTS can name another folder of weights"
        )
    names = {entry.name for entry in entries}
    defaults = {entry.model for entry in entries if entry.default}
    return f"unknown model {name!r}. {did_you_mean(name, names | defaults)}"


def _without_default(network: str) -> str:
    """Message for a network's name without default weights."""
    names = [entry.name for entry in list_weights() if entry.model == network]
    if not names:
        return f"network {network!r} has no weights here: train some, then name the run's folder"
    return f"network {network!r} has no default weights; name some: {', '.join(names)}"


def download_weights(name: str, *, again: bool = False, timeout: float | None = None) -> Path:
    """Verified file of an entry or a Hub name, downloaded from the Hub.

    Args:
        name: An entry of `weights.toml`, a network's bare name, or `hf:org/repo[@revision][:file]`.
        again: Replace the cached file.
        timeout: Seconds that the download may take; None: ten minutes.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: The download failed; the message names what is bundled, and where
            to put the file.
        CheckpointError: The download has another SHA-256 than stated; it is deleted.
    """
    if name.startswith(hub.PREFIX):
        return _download(hub.HubFile.parse(name), "", again, timeout)
    entry = entry_named(name)
    if entry is None:
        raise UnavailableError(_unknown(name))
    place = f"put {entry.file!r} into {str(weights_folder())!r}"
    if entry.on_hub is None:
        raise UnavailableError(f"weights {entry.name!r} are not here: {place}{_say_bundled()}")
    path = _download(entry.on_hub, f"; or {place}", again, timeout)
    try:
        hub.check_sha256(path, entry.sha256)
    except CheckpointError:
        hub.forget(path)
        raise
    return path


def pull_weights(name: str, *, timeout: float | None = None) -> Path:
    """Verified file of a name, downloaded if missing, damaged or possibly outdated.

    Args:
        name: As for `download_weights`.
        timeout: Seconds that the download may take; None: ten minutes.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: The download failed.
        CheckpointError: The bundled or the downloaded file is damaged.
    """
    moves = name.startswith(hub.PREFIX) and not hub.HubFile.parse(name).pinned
    try:
        here = find_weights(name)
    except CheckpointError:
        entry = entry_named(name)
        if entry and entry.bundled_path.is_file():
            raise
        return download_weights(name, again=True, timeout=timeout)
    return here if here and not moves else download_weights(name, timeout=timeout)


def _download(source: hub.HubFile, way_out: str, again: bool, timeout: float | None) -> Path:
    try:
        return hub.download(source, again=again, timeout=timeout)
    except CheckpointError:
        raise
    except UnavailableError as error:
        raise UnavailableError(f"{error}{way_out}{_say_bundled()}") from error


def _say_bundled() -> str:
    names = [entry.name for entry in list_weights() if entry.bundled_path.is_file()]
    return f". Bundled: {', '.join(names)}" if names else ""
