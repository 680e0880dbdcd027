"""Two machines simulated: two launchers with a process group each, which meet on loopback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from derain_cli.errors import ConfigError
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.trainer import train

on_linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run of a small network on four small pairs, saved every 20 steps."""
    for index in range(4):
        rng = np.random.default_rng(index)
        clean = np.repeat(rng.integers(40, 180, (6, 8, 3)), 8, 0).repeat(8, 1)
        for side, extra in (("clean", 0), ("rainy", rng.integers(0, 60, (48, 64, 1)))):
            path = tmp_path / "pairs" / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((clean + extra).astype(np.uint8)).save(path)
    return TrainConfig(
        model="resnet",
        model_option=("channels=4", "blocks=1"),
        dataset=(str(tmp_path / "pairs"),),
        loss=("l1:1",),
        steps=200,
        batch_size=2,
        crop=32,
        held_out=1,
        device="cpu",
        threads=1,
        validate_every=0,
        save_every=20,
        seed=4,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(port: int, *command: object) -> subprocess.Popen[bytes]:
    """One machine of two: `torchrun` with one process, which starts it again when it is lost."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    launcher += ["--nproc-per-node", "1", "--max-restarts", "3", "--monitor-interval", "0.1"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    launcher += ["--rdzv-id", "test", "--local-addr", "127.0.0.1", "-m", "derain_cli"]
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    return subprocess.Popen(
        [*launcher, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def children_of(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def kill_one(machine: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process of a machine."""
    victims = children_of(machine.pid)
    assert victims, "the run ended before anything could be killed"
    os.kill(victims[0], signal.SIGKILL)


def weights_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "state.pt", weights_only=True)["recipe"]["model"]


@on_linux
@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_run_ends_with_the_same_bits(
    tmp_path: Path,
    config: TrainConfig,
    wait_for_steps: Callable[[Path, subprocess.Popen[bytes]], None],
) -> None:
    (tmp_path / "config.json").write_text(config.to_json())
    for name in ("whole", "killed"):
        port, out = free_port(), tmp_path / name
        options = ("--config", tmp_path / "config.json", "--out", out, "-q")
        machines = [launch(port, "train", *options) for _ in range(2)]
        try:
            if name == "killed":
                wait_for_steps(out, machines[1])
                kill_one(machines[1])
            said = [machine.communicate(timeout=300)[0].decode() for machine in machines]
        finally:
            for machine in machines:
                machine.terminate()  # and with it, its process
        assert [machine.returncode for machine in machines] == [0, 0], said
        assert (name == "killed") == any("failed (exitcode: " in text for text in said)
    whole, killed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    steps = [
        [
            json.loads(line)["step"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "killed")
    ]
    assert steps[0] == steps[1]


def test_without_restarts_a_folder_that_holds_a_run_is_refused_as_ever(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    short = dataclasses.replace(config, steps=1)
    train(short, tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    with pytest.raises(ConfigError, match="holds a run"):
        train(short, tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert train(short, tmp_path / "run").finished
