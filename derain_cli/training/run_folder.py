"""A run's folder. Its files survive a crash, a kill or a full disk.

=====================  ==================================================================
config.json            the run's `TrainConfig`
metrics.jsonl          one line per log or validation
state.pt               everything that resuming needs
good.pt                the last sound state, for a collapsed run to go back to
candidate.pt           a later one that has not proved itself yet
last.safetensors       the network at the last validation or stop
best.safetensors       the network with the highest mean PSNR; `--model RUN` uses it
images/                validation images: rainy, derained, clean and removed rain
=====================  ==================================================================
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from derain_cli.checkpoints.files import read_metadata, save_checkpoint
from derain_cli.errors import ConfigError, ResourceError, TrainingError
from derain_cli.training.configs.fields import names
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.metrics_log import METRICS, read_metrics
from derain_cli.training.origin import machine, source_commit
from derain_cli.version import __version__
from derain_cli.whole_files import write_whole

STATE, CANDIDATE, GOOD_STATE = "state.pt", "candidate.pt", "good.pt"


class RunFolder:
    """The folder of one run.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Read now: the checkout may change while a long run goes on.
        self._commit = source_commit()

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """Create the folder and write the config into it.

        Raises:
            ConfigError: It holds a run and `resume` is not set; or there is none to resume, or
                that run had another config.
            ResourceError: It cannot be written to.
        """
        path = self.path / "config.json"
        self.require(config, resume=resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot make {str(self.path)!r}: {error.strerror}; name another `out`"
            ) from error
        write_whole(path, config.to_json().encode())

    def require(self, config: TrainConfig, *, resume: bool) -> None:
        """Refuse a folder that the run cannot have; nothing is written.

        Raises:
            ConfigError: As of `open`.
        """
        path = self.path / "config.json"
        if path.exists() and not resume:
            raise ConfigError(
                f"{str(self.path)!r} holds a run: add `resume`, or name another `out`"
            )
        if resume and not path.exists():
            raise ConfigError(f"{str(self.path)!r} has no run to resume; drop `resume`")
        if resume:
            _check_same_run(type(config).read(path), config)
            if not self.has_state:
                self._require_no_trained_weights()

    def damaged_state(self, file: str = STATE) -> TrainingError:
        """The error for a state that cannot be read or does not fit the run."""
        return TrainingError(
            f"{str(self.path / file)!r} is damaged; begin another run where its last "
            f"validation or stop left off: `weights` {self.path / 'last.safetensors'} `out` NEW"
        )

    def _require_no_trained_weights(self) -> None:
        """Refuse to begin over trained weights that `resume` was to go on with.

        Raises:
            ConfigError: A checkpoint of a later step than the first is here.
        """
        for name in ("last.safetensors", "best.safetensors"):
            path = self.path / name
            if path.exists() and read_metadata(path).get("step") != "0":
                raise ConfigError(
                    f"{str(self.path)!r} holds weights but no state.pt to resume from; begin "
                    f"another run with `weights` {path} and `out` NEW"
                )

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the resumable state, whole or not at all.

        Raises:
            ResourceError: No space or no permission; the old state stays.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_whole(self.path / STATE, buffer.getbuffer())

    def note_candidate(self) -> None:
        """Copy the state just saved: it is what a collapse goes back to, if it proves itself.

        Raises:
            ResourceError: No space or no permission; an older candidate stays.
        """
        write_whole(self.path / CANDIDATE, (self.path / STATE).read_bytes())

    def promote_candidate(self) -> None:
        """Make the candidate the good state: it has proved itself."""
        if (self.path / CANDIDATE).exists():
            (self.path / CANDIDATE).replace(self.path / GOOD_STATE)

    def drop_fallbacks(self) -> None:
        """Delete the states that a collapse would go back to: the run is over."""
        for name in (CANDIDATE, GOOD_STATE):
            (self.path / name).unlink(missing_ok=True)

    @property
    def has_good_state(self) -> bool:
        """Whether a state has proved itself."""
        return (self.path / GOOD_STATE).exists()

    def load_good_state(self, device: torch.device) -> dict[str, Any]:
        """The last state that proved itself.

        Raises:
            TrainingError: The file is damaged.
        """
        return self._load(self.path / GOOD_STATE, device)

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").exists()

    @property
    def has_state(self) -> bool:
        """Whether a state was saved; without one, resuming starts from the beginning."""
        return (self.path / STATE).exists()

    def load_state(self, device: torch.device) -> dict[str, Any]:
        """The state that was saved last.

        Raises:
            TrainingError: The file is damaged.
        """
        return self._load(self.path / STATE, device)

    def _load(self, path: Path, device: torch.device) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # whatever bytes of any kind make of a reader
            raise self.damaged_state(path.name) from error
        return state

    def save_weights(
        self, file: str, model: nn.Module, config: TrainConfig, about: Mapping[str, str]
    ) -> None:
        """Write a checkpoint whose metadata states its config, code and machine.

        Raises:
            ResourceError: No space or no permission; an old file stays.
        """
        described = {"recipe": config.recipe, "config": config.to_json()} | dict(about)
        device = next(model.parameters()).device
        described |= {"commit": self._commit, "machine": machine(device)}
        save_checkpoint(self.path / file, model, config.model, described)

    def save_image(self, name: str, pixels: Any) -> None:  # noqa: ANN401 (an array)
        """A PNG under `images/`.

        Raises:
            ResourceError: No space or no permission.
        """
        _, encoded = cv2.imencode(".png", pixels[..., ::-1])
        (self.path / "images").mkdir(exist_ok=True)
        write_whole(self.path / "images" / name, encoded.tobytes())

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the metrics.

        Raises:
            ResourceError: No space or no permission.
        """
        path = self.path / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(line) | {"version": __version__}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(f"cannot write {str(path)!r}: {error.strerror}") from error

    def forget_log_after(self, step: int) -> None:
        """Drop log lines of steps that a resumed run will repeat."""
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path / METRICS, text.encode())


def _check_same_run(saved: TrainConfig, asked: TrainConfig) -> None:
    before, now = asdict(saved), asdict(asked)
    free = names(type(saved), lambda option: option.free_on_resume)
    # A run may become longer: it goes on along the schedule of the new number of steps.
    free = free | ({"steps"} if asked.steps > saved.steps else set())
    free = free | (set() if asked.epochs else {"epochs"})  # steps in their place
    changed = [name for name in before if before[name] != now[name] and name not in free]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"`resume` with another `{name}`: the run has {before[name]!r}, now {now[name]!r}; "
            "leave it out, or start a new run with `out`"
        )
