"""Name or path -> verified file -> network; and saving.

A checkpoint is a safetensors file that describes itself: its metadata hold the format version, the
network's name and config, and how it was trained. Nothing is ever unpickled.

`--model X` is looked up in this order: a file or a run folder; an entry of `weights.toml`, first
among the bundled files, then in the Hub's cache, then on the Hub at the revision that the entry
pins; otherwise an error that says what there is. `hf:org/repo[@revision][:file]` is any checkpoint
that this program saved: from the cache if it is there, `derain models pull` refreshes it.
"""

import json
import os
import re
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from derain_cli import __version__, hub
from derain_cli.errors import (
    CheckpointError,
    ResourceError,
    UnavailableError,
    did_you_mean,
)
from derain_cli.models import MODELS, build_model, model_config
from derain_cli.whole_files import write_whole_file

FORMAT = "1"
DEFAULT_WEIGHTS = "rdmc-real"
HARMLESS = 4_000_000  # parameters that any machine has room for
RUN_FILES = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class WeightsEntry:
    """An entry of `weights.toml`: a checkpoint one can name.

    Attributes:
        name: `<model>-<trained on>`.
        model: Key of `MODELS`.
        file: File name in `weights/`.
        sha256: Of that file, in hex.
        default: Whether the network's bare name means this entry.
        repo: Repository of the Hub that holds the file, "" for `hub.WEIGHTS_REPO`.
        revision: Commit of that repository; "" when the file is only bundled.
        about: Everything else: data, steps, seed, time, scores, licence.
    """

    name: str
    model: str
    file: str
    sha256: str
    default: bool = False
    repo: str = ""
    revision: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bundled_path(self) -> Path:
        """Where the file lies, or would, in the weights folder."""
        return weights_folder() / self.file

    @property
    def on_hub(self) -> hub.HubFile | None:
        """Where the file can be had from; None when it is only bundled."""
        if not self.revision:
            return None
        return hub.HubFile(self.repo or hub.WEIGHTS_REPO, self.revision, self.file)


@dataclass(frozen=True)
class LoadedModel:
    """A network with its trained weights: eval mode, float32, on the CPU."""

    model: nn.Module
    architecture: str
    name: str
    path: Path
    metadata: Mapping[str, str]


def weights_folder() -> Path:
    """Where the bundled checkpoints lie: `$DERAIN_WEIGHTS`, the wheel's, or the checkout's."""
    chosen = os.environ.get("DERAIN_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    inside = Path(__file__).parent / "weights"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "weights"


def list_weights() -> tuple[WeightsEntry, ...]:
    """The checkpoints that can be named, in the order of `weights.toml`."""
    return read_entries(weights_folder())


def read_entries(folder: Path) -> tuple[WeightsEntry, ...]:
    """Entries of the `weights.toml` in a folder; none when there is no such file.

    Raises:
        CheckpointError: It is not TOML, or an entry lacks a field.
    """
    path = folder / "weights.toml"
    if not path.is_file():
        return ()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} is not TOML: {error}") from error
    return tuple(_entry(path, name, dict(fields)) for name, fields in table.items())


def _entry(path: Path, name: str, fields: dict[str, Any]) -> WeightsEntry:
    try:
        known = {key: fields.pop(key) for key in ("model", "file", "sha256")}
    except KeyError as error:
        raise CheckpointError(f"entry {name!r} of {str(path)!r} lacks {error}") from error
    known |= {key: fields.pop(key) for key in ("default", "repo", "revision") if key in fields}
    entry = WeightsEntry(name, **known, about=fields)
    if entry.revision and not hub.COMMIT.fullmatch(entry.revision):
        raise CheckpointError(
            f"entry {name!r} of {str(path)!r} has revision {entry.revision!r}: what is downloaded "
            "by name is pinned to a commit, 40 hex digits"
        )
    return entry


def load_model(name_or_path: str | Path) -> LoadedModel:
    """Network with trained weights.

    Args:
        name_or_path: An entry of `weights.toml`, a network's bare name (its default weights), a
            safetensors file, the folder of a training run (its best checkpoint), or
            `hf:org/repo[@revision][:file]`.

    Raises:
        UnavailableError: Nothing of that name; the nearest is suggested.
        CheckpointError: The file is damaged, changed, or not one of ours.
    """
    path = resolve_weights(name_or_path)
    metadata = read_metadata(path)
    model = _build(path, metadata)
    _load_tensors(model, path)
    return LoadedModel(model.eval(), metadata["model"], _shown(name_or_path), path, metadata)


def _shown(name_or_path: str | Path) -> str:
    """A name as it is, a file without its suffix, a run by its folder."""
    path = Path(name_or_path)
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else str(name_or_path)


def resolve_weights(name_or_path: str | Path) -> Path:
    """The verified file behind a name or path, downloaded if it is not here.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: Nothing of that name, or it is not here and cannot be had.
        CheckpointError: A bundled, cached or downloaded file that has another SHA-256 than stated.
    """
    return find_weights(name_or_path) or download_weights(str(name_or_path))


def find_weights(name_or_path: str | Path) -> Path | None:
    """The verified file behind a name or path if it is here; the network is not asked.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: Nothing of that name.
        CheckpointError: A bundled or cached file that has another SHA-256 than stated.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name.startswith(hub.PREFIX):
        cached = hub.find_cached(hub.HubFile.parse(name))
        if cached:
            hub.check_stated_sha256(cached)
        return cached
    checkpoint = _run_checkpoint(path) if path.is_dir() else path
    if checkpoint and checkpoint.is_file():
        return checkpoint
    entry = _entry_named(name)
    if entry is None:
        raise UnavailableError(_unknown(name))
    found = locate(entry)
    if found:
        hub.check_sha256(found, entry.sha256)
    return found


def _run_checkpoint(folder: Path) -> Path | None:
    files = [folder / file for file in RUN_FILES]
    return next((file for file in files if file.is_file()), None)


def _entry_named(name: str) -> WeightsEntry | None:
    entries = list_weights()
    named = [entry for entry in entries if entry.name == name]
    defaults = [entry for entry in entries if entry.default and entry.model == name]
    return next(iter(named + defaults), None)


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
            "first validation"
        )
    if path.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin"):
        return f"no checkpoint {name!r} here; `derain models list` names the weights there are"
    if name in MODELS:
        return f"network {name!r} has no weights here: train some, then name the run's folder"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f"no run folder {name!r}; a repository of the Hub is named 'hf:{name}'"
    if len(path.parts) > 1:
        return f"no checkpoint or run folder {name!r}"
    names = {entry.name for entry in list_weights()}
    defaults = {entry.model for entry in list_weights() if entry.default}
    return f"unknown model {name!r}. {did_you_mean(name, names | defaults)}"


def download_weights(name: str, *, again: bool = False) -> Path:
    """The verified file behind an entry's or a Hub name, from the Hub.

    Args:
        name: An entry of `weights.toml`, a network's bare name, or `hf:org/repo[@revision][:file]`.
        again: Replace what is cached.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: It cannot be had; says what is bundled, and where to put the file.
        CheckpointError: What arrived has another SHA-256 than stated; it is not kept.
    """
    if name.startswith(hub.PREFIX):
        return _download(hub.HubFile.parse(name), "", again)
    entry = _entry_named(name)
    if entry is None:
        raise UnavailableError(_unknown(name))
    place = f"put {entry.file!r} into {str(weights_folder())!r}"
    if entry.on_hub is None:
        raise UnavailableError(f"weights {entry.name!r} are not here: {place}{_say_bundled()}")
    path = _download(entry.on_hub, f"; or {place}", again)
    try:
        hub.check_sha256(path, entry.sha256)
    except CheckpointError:
        hub.forget(path)
        raise
    return path


def pull_weights(name: str) -> Path:
    """The verified file of a name, downloaded if it is not here, damaged, or may have changed.

    Raises:
        UsageError: A name that begins with `hf:` and is not of that form.
        UnavailableError: It cannot be had.
        CheckpointError: A bundled file is damaged, or what arrived is.
    """
    moves = name.startswith(hub.PREFIX) and not hub.HubFile.parse(name).pinned
    try:
        here = find_weights(name)
    except CheckpointError:
        entry = _entry_named(name)
        if entry and entry.bundled_path.is_file():
            raise
        return download_weights(name, again=True)
    return here if here and not moves else download_weights(name)


def _download(source: hub.HubFile, way_out: str, again: bool) -> Path:
    try:
        return hub.download(source, again=again)
    except CheckpointError:
        raise
    except UnavailableError as error:
        raise UnavailableError(f"{error}{way_out}{_say_bundled()}") from error


def _say_bundled() -> str:
    names = [entry.name for entry in list_weights() if entry.bundled_path.is_file()]
    return f". Bundled: {', '.join(names)}" if names else ""


def read_metadata(path: Path) -> dict[str, str]:
    """What a checkpoint says of itself, checked to be one of ours.

    Raises:
        CheckpointError: Not a safetensors file, not made by this program, or of a newer format.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_not_safetensors(path, error)) from error
    if metadata.get("model") not in MODELS:
        raise CheckpointError(f"{str(path)!r} was not saved by this program: it names no network")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has format {metadata.get('format')!r}, this version reads {FORMAT!r}"
        )
    return metadata


def _not_safetensors(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return f"{str(path)!r} is only a Git LFS pointer: run `git lfs pull` where it lies"
    return (
        f"{str(path)!r} is not a safetensors checkpoint ({error}); pickled files of strangers are "
        "never loaded"
    )


def _build(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    """The network that a checkpoint describes, unless it is larger than the checkpoint."""
    try:
        config = json.loads(metadata["model_config"])
        with _at_most(max(2 * path.stat().st_size, HARMLESS)):
            return build_model(metadata["model"], config)
    except Exception as error:  # whatever a foreign config makes a network's constructor raise
        raise CheckpointError(f"{str(path)!r} describes no network: {error}") from error


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Refuse to build a network of more parameters, before any of their memory is touched.

    A stranger's file names the widths of its network; those of a hostile one would take all memory.

    Raises:
        MemoryError: Within the block, when more parameters are made.
    """
    thread, left = threading.get_ident(), count

    def subtract(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:
                raise MemoryError("its config is of a far larger one than it holds")

    handle = register_module_parameter_registration_hook(subtract)
    try:
        yield
    finally:
        handle.remove()


def _load_tensors(model: nn.Module, path: Path) -> None:
    """Fill in the tensors; half precision, in which weights may be stored, becomes float32."""
    with safe_open(str(path), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{str(path)!r} does not fit its own config: {reason}") from error


def save_checkpoint(
    path: Path, model: nn.Module, architecture: str, about: Mapping[str, str]
) -> None:
    """Write a network's weights, whole or not at all.

    Args:
        path: File to write; an old one is replaced at once.
        model: Any state, any device.
        architecture: Key of `MODELS` it was built from.
        about: More metadata: recipe, data, scores.

    Raises:
        ResourceError: No space or no permission; an old file stays as it was.
    """
    metadata = dict(about) | {
        "format": FORMAT,
        "model": architecture,
        "model_config": json.dumps(model_config(model)),
        "derain_version": __version__,
    }
    tensors = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in model.state_dict().items()
    }
    write_whole(path, save(tensors, metadata))


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        ResourceError: No space or no permission; an old file stays as it was.
    """
    try:
        write_whole_file(path, content)
    except OSError as error:
        raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error
