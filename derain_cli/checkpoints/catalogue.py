"""The bundled weights: `weights.toml` and its entries."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from derain_cli.checkpoints import DEFAULT_WEIGHTS as DEFAULT_WEIGHTS
from derain_cli.checkpoints import hub
from derain_cli.errors import CheckpointError


@dataclass(frozen=True)
class WeightsEntry:
    """An entry of `weights.toml`: a checkpoint with a name.

    Attributes:
        name: `<model>-<trained on>`.
        model: Key of `MODELS`.
        file: Name of the file in `weights/`.
        sha256: Digest of that file, in hex.
        default: Whether the network's name alone means this entry.
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
        """Path of the file in the weights folder, whether or not it exists."""
        return weights_folder() / self.file

    @property
    def on_hub(self) -> hub.HubFile | None:
        """Where to download the file; None if it is only bundled."""
        if not self.revision:
            return None
        return hub.HubFile(self.repo or hub.WEIGHTS_REPO, self.revision, self.file)


def weights_folder() -> Path:
    """Folder of the bundled checkpoints: `$DERAIN_WEIGHTS`, the wheel's, or the checkout's."""
    chosen = os.environ.get("DERAIN_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    inside = Path(__file__).parents[1] / "weights"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "weights"


def list_weights() -> tuple[WeightsEntry, ...]:
    """The named checkpoints, in the order of `weights.toml`."""
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
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not TOML: {error}") from error
    for name, fields in table.items():
        if not isinstance(fields, dict):
            raise CheckpointError(f"{str(path)!r} has {name!r} outside an entry")
    return tuple(_entry(path, name, dict(fields)) for name, fields in table.items())


def _entry(path: Path, name: str, fields: dict[str, Any]) -> WeightsEntry:
    try:
        known = {key: fields.pop(key) for key in ("model", "file", "sha256")}
    except KeyError as error:
        raise CheckpointError(f"entry {name!r} of {str(path)!r} lacks {error}") from error
    known |= {key: fields.pop(key) for key in ("default", "repo", "revision") if key in fields}
    for key, value in known.items():
        if not isinstance(value, bool if key == "default" else str):
            raise CheckpointError(f"entry {name!r} of {str(path)!r} has {key} {value!r}")
    if Path(known["file"]).name != known["file"]:
        raise CheckpointError(
            f"entry {name!r} of {str(path)!r} has file {known['file']!r}: it must be a bare name"
        )
    entry = WeightsEntry(name, **known, about=fields)
    if entry.revision and not hub.COMMIT.fullmatch(entry.revision):
        raise CheckpointError(
            f"entry {name!r} of {str(path)!r} has revision {entry.revision!r}: what is downloaded "
            "by name is pinned to a commit, 40 hex digits"
        )
    return entry


def entry_named(name: str) -> WeightsEntry | None:
    """Entry with this name, else the default entry of the network with this name, else None."""
    entries = list_weights()
    named = [entry for entry in entries if entry.name == name]
    defaults = [entry for entry in entries if entry.default and entry.model == name]
    return next(iter(named + defaults), None)


def known_harm(name: str) -> str:
    """Known harm of the weights of this name, as their entry states it; "" if none."""
    entry = entry_named(name)
    return str(entry.about.get("harm", "")) if entry else ""
