"""A run's numbers for programs that compare runs: TensorBoard, Weights & Biases, MLflow.

Each is an extra of its own name. Without the variables of its last column each writes into the
run's folder alone and asks nothing of the network.

===========  ==============  =========================================  =======================
name         where           to look at it                              to send it to a server
===========  ==============  =========================================  =======================
tensorboard  tensorboard/    tensorboard --logdir RUN
wandb        wandb/          wandb sync RUN/wandb/offline-run-*         WANDB_MODE=online
mlflow       mlflow.db       mlflow ui --backend-store-uri              MLFLOW_TRACKING_URI=...
                             sqlite:///RUN/mlflow.db
===========  ==============  =========================================  =======================

A resumed run goes on under its own name: `loggers.json` remembers what the others call it.
"""

import dataclasses
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from derain_cli.errors import UsageError, did_you_mean, first_line
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.trainer import LOG_EVERY, Progress
from derain_cli.whole_files import write_whole

PROJECT = "derain"
IDS = "loggers.json"

log = logging.getLogger(__name__)


class Logger(Protocol):
    """Takes a run's numbers.

    Attributes:
        needs: What it imports.
    """

    needs: ClassVar[tuple[str, ...]]

    def __init__(self, run: Path, config: TrainConfig) -> None:
        """Begin, or go on with, the run in a folder."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers by name."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """TensorBoard's event files."""

    needs: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def __init__(self, run: Path, config: TrainConfig) -> None:
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter(run / "tensorboard")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write each number as a scalar."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise."""

    needs: ClassVar[tuple[str, ...]] = ("wandb",)

    def __init__(self, run: Path, config: TrainConfig) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers, by network
        wandb = import_module("wandb")
        self._run = wandb.init(
            dir=run,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.resolve().name,
            id=_id_of(run, "wandb", lambda: uuid.uuid4().hex[:8]),
            resume="allow" if mode == "online" else None,
            config=dataclasses.asdict(config),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Its own count of steps must never fall, ours does after a collapse.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers beside their step."""
        self._run.log({"step": step, **numbers})

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


class Mlflow:
    """A run of MLflow, in a data base of its own unless MLFLOW_TRACKING_URI says otherwise."""

    needs: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, run: Path, config: TrainConfig) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        own = f"sqlite:///{(run / 'mlflow.db').resolve()}"
        tracking = import_module("mlflow.tracking")
        self._entities = import_module("mlflow.entities")
        self._client = tracking.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", own))
        self._id = _id_of(run, "mlflow", lambda: self._begin(run.resolve().name, config))
        self._client.update_run(self._id, status="RUNNING")

    def _begin(self, name: str, config: TrainConfig) -> str:
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        begun: str = self._client.create_run(experiment, run_name=name).info.run_id
        settings = dataclasses.asdict(config).items()
        params = [self._entities.Param(name, str(value)) for name, value in settings]
        self._client.log_batch(begun, params=params)
        return begun

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write each number as a metric."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id)


LOGGERS: Mapping[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def require(names: Sequence[str]) -> None:
    """Refuse loggers that are not there.

    Raises:
        UsageError: An unknown name, or a program that is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"unknown `log` {name!r}. {did_you_mean(name, LOGGERS)}")
        missing = [module for module in LOGGERS[name].needs if not _is_installed(module)]
        if missing:
            raise UsageError(
                f"`log` {name} needs {missing[0]}: pip install 'derain-cli[{name}]' (the numbers "
                "are in the run's metrics.jsonl in any case)"
            )


def _is_installed(module: str) -> bool:
    """Whether a package can be imported; a mere folder of its name in the way is none."""
    found = find_spec(module)
    return found is not None and found.origin is not None


@contextmanager
def writing(
    names: Sequence[str], run: Path, config: TrainConfig
) -> Iterator[Callable[[Progress], None]]:
    """A function to call after every step; it writes to each named logger.

    Raises:
        UsageError: An unknown name, or a program that is not installed; from the function: a
            logger that cannot begin.
    """
    require(names)
    loggers = _Loggers(names, run, config)
    try:
        yield loggers.note
    finally:
        loggers.close()


class _Loggers:
    """Several loggers as one.

    They begin with the first step, so that a run that cannot begin leaves no files. One that fails
    later, because its server is gone, is left out with a warning: it does not end the run.
    """

    def __init__(self, names: Sequence[str], run: Path, config: TrainConfig) -> None:
        self._make = {name: partial(LOGGERS[name], run, config) for name in names}
        self._open: dict[str, Logger] = {}

    def note(self, progress: Progress) -> None:
        """Take in a step."""
        while self._make:
            name, make = self._make.popitem()
            try:
                self._open[name] = make()
            except Exception as error:
                raise UsageError(f"`log` {name} cannot begin: {first_line(error)}") from error
        if progress.step % LOG_EVERY == 0 or progress.validation:
            numbers = numbers_of(progress)
            for name, logger in list(self._open.items()):
                self._try(name, partial(logger.log, progress.step, numbers))

    def close(self) -> None:
        """Write what is left."""
        for name, logger in list(self._open.items()):
            self._try(name, logger.close)

    def _try(self, name: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 (what others raise must not end hours of training)
            del self._open[name]
            log.warning("%s fails, the run goes on without it: %s", name, first_line(error))


def numbers_of(progress: Progress) -> dict[str, float]:
    """What there is to log of a step, by name."""
    numbers = progress.parts | {
        "learning rate": progress.lr,
        "images per second": progress.images / max(progress.seconds_per_step, 1e-9),
    }
    scores = {f"psnr/{name}": value for name, value in (progress.validation or {}).items()}
    return numbers | scores


def _id_of(run: Path, name: str, make: Callable[[], str]) -> str:
    """What a logger calls this run, made at its first session."""
    path = run / IDS
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = make()
        write_whole(path, json.dumps(known).encode())
    return str(known[name])
