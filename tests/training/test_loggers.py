"""Loggers by name: what others can read of a run, in its own folder and without a network."""

import json
from dataclasses import replace

import pytest

from derain_cli.errors import UsageError
from derain_cli.training import loggers
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.trainer import Progress

STEP = Progress(50, 100, {"loss": 0.25}, 1e-3, 16, 0.5, 0.1)
SCORED = replace(STEP, step=70, parts={"loss": 0.125}, validation={"rain100l": 31.5}, psnr=31.5)
QUIET = replace(STEP, step=51)


def log(name, run, *steps):
    with loggers.writing([name], run, TrainConfig(batch_size=3)) as write:
        for step in steps:
            write(step)


@pytest.fixture
def run(tmp_path, monkeypatch):
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_tensorboard_reads_numbers_and_scores(run):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", run, STEP, QUIET, SCORED)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(50, 0.25), (70, 0.125)]
    assert [(e.step, e.value) for e in events.Scalars("psnr/rain100l")] == [(70, 31.5)]
    assert events.Scalars("images per second")[0].value == 32


@pytest.mark.slow  # seconds to load
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_mlflow_reads_one_run_after_a_resume(run):
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="needs the extra mlflow")
    from mlflow.tracking import MlflowClient

    log("mlflow", run, STEP, QUIET)
    log("mlflow", run, SCORED)
    client = MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "derain")
    (found,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(found.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(50, 0.25), (70, 0.125)]
    assert found.data.params["batch_size"] == "3"
    assert found.info.run_name == "run"
    assert found.info.status == "FINISHED"
    assert {path.name for path in run.parent.iterdir()} == {"run"}


@pytest.mark.slow  # seconds to load
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_writes_offline_and_keeps_the_runs_name(run):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    log("wandb", run, STEP)
    known = json.loads((run / "loggers.json").read_text())["wandb"]
    (file,) = (run / "wandb").glob(f"offline-run-*/run-{known}.wandb")
    written = file.read_bytes()
    assert b"loss" in written
    assert b"0.25" in written
    log("wandb", run, SCORED)
    assert json.loads((run / "loggers.json").read_text())["wandb"] == known
    assert {path.name for path in run.parent.iterdir()} == {"run"}


def test_a_folder_in_the_way_is_not_the_program(run, monkeypatch):
    (run / "absent_logger").mkdir()
    monkeypatch.syspath_prepend(str(run))
    monkeypatch.setattr(loggers.Wandb, "needs", ("absent_logger",))
    with pytest.raises(UsageError, match=r"needs absent_logger: pip install 'derain-cli\[wandb\]'"):
        log("wandb", run, STEP)


def test_an_unknown_name_is_told_with_the_nearest(run):
    with pytest.raises(UsageError, match=r"unknown `log` 'tensorbord'. Did you mean 'tensorboard'"):
        log("tensorbord", run, STEP)


class Fails:
    """Loses its server at the second step."""

    needs = ()

    def __init__(self, run, config):
        self.steps = []

    def log(self, step, numbers):
        if self.steps:
            raise ConnectionError("the server is gone\nand so on")
        self.steps.append(step)

    def close(self):
        raise AssertionError("it was given up before")


def test_a_logger_that_fails_ends_no_run(run, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "LOGGERS", {"fails": Fails})
    log("fails", run, STEP, SCORED, SCORED)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["fails fails, the run goes on without it: the server is gone"]


def test_a_logger_that_cannot_begin_is_an_error(run, monkeypatch):
    class Never(Fails):
        def __init__(self, run, config):
            raise ValueError("no key")

    monkeypatch.setattr(loggers, "LOGGERS", {"never": Never})
    with pytest.raises(UsageError, match="`log` never cannot begin: no key"):
        log("never", run, STEP)
