"""A run's folder: what it holds, written so that a crash, a kill or a full disk spoils nothing.

=====================  ==================================================================
config.json            the run's `TrainConfig`
metrics.jsonl          one line per log or validation
state.pt               all that resuming needs
last.safetensors       what the network was at the last validation
best.safetensors       at the validation with the highest mean PSNR; `--model RUN` takes it
images/                validation images: rainy, derained, clean and removed rain
=====================  ==================================================================
"""

import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.errors import ConfigError, ResourceError, TrainingError
from derain_cli.training.configs.fields import names
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.metrics_log import METRICS, read_metrics
from derain_cli.training.origin import machine, source_commit
from derain_cli.version import __version__
from derain_cli.whole_files import write_whole


class RunFolder:
    """The folder of one run.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Now, because a long run's checkout may move on.
        self._commit = source_commit()

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder and note the config in it.

        Raises:
            ConfigError: It holds a run and `resume` is not set; or there is none to resume, or
                that run had another config.
            ResourceError: It cannot be written to.
        """
        path = self.path / "config.json"
        if path.exists() and not resume:
            raise ConfigError(
                f"{str(self.path)!r} holds a run: add `resume`, or name another `out`"
            )
        if resume and not path.exists():
            raise ConfigError(f"{str(self.path)!r} holds no run to resume; leave `resume` out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot make {str(self.path)!r}: {error.strerror}; name another `out`"
            ) from error
        if resume:
            _check_same_run(type(config).read(path), config)
        write_whole(path, config.to_json().encode())

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the resumable state, whole or not at all.

        Raises:
            ResourceError: No space or no permission; the old state stays.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_whole(self.path / "state.pt", buffer.getbuffer())

    @property
    def has_state(self) -> bool:
        """Whether `save_state` came to save anything; if not, resuming begins at the beginning."""
        return (self.path / "state.pt").exists()

    def load_state(self, device: torch.device) -> dict[str, Any]:
        """What `save_state` saved last.

        Raises:
            TrainingError: The file is damaged.
        """
        path = self.path / "state.pt"
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{str(path)!r} is damaged; begin another run where its last validation left off: "
                f"`weights` {self.path / 'last.safetensors'} `out` NEW"
            ) from error
        return state

    def save_weights(
        self, file: str, model: nn.Module, config: TrainConfig, about: Mapping[str, str]
    ) -> None:
        """A checkpoint that describes itself: how it was made, from which code, on what.

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
        """Lines of steps that were done but not saved are done again: drop them."""
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path / METRICS, text.encode())


def _check_same_run(saved: TrainConfig, asked: TrainConfig) -> None:
    before, now = asdict(saved), asdict(asked)
    free = names(type(saved), lambda option: option.free_on_resume)
    changed = [name for name in before if before[name] != now[name] and name not in free]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"`resume` with another `{name}`: the run has {before[name]!r}, now {now[name]!r}; "
            "leave it out, or start a new run with `out`"
        )
