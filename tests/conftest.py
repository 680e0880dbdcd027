"""What many tests need: small images, a tiny checkpoint, a way to run the command."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.children import Child

MakePicture = Callable[..., Path]
# Tests run in a process more than there are cores (`-n auto`): one thread each, theirs too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Exporting a network takes seconds: where a test is not about engines, torch runs it.
os.environ["DERAIN_ENGINE"] = "torch"

# Tests that share what takes long to make, or to import: those of one word run in one process.
TOGETHER = {
    "tests/inference/test_engines.py": "export",
    "tests/inference/test_exporting.py": "export",
    "tests/models/test_models.py::test_export": "export",
    "tests/scale/test_on_ray.py": "ray",
    "tests/serve/": "serve",
    "tests/training/test_processes.py": "processes",
}


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a fifth of the time tests wait for their children."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 2


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One test at a time to whichever process is free, but those of `TOGETHER` as a whole."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = (word for start, word in TOGETHER.items() if nodeid.startswith(start))
            return next(found, nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a real network with small widths; its output differs from its input."""
    import torch

    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models.rdmc import Rdmc, RdmcConfig

    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    model = Rdmc(RdmcConfig(widths=(2, 2, 2, 2, 2), stages=1)).eval()
    torch.set_rng_state(generator_state)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, "rdmc", {"recipe": "none"})
    return path


@pytest.fixture(scope="session")
def make_image() -> MakePicture:
    """Writes a smooth image with a little noise, the same for the same path and size."""

    def make(path: Path, size: tuple[int, int] = (24, 16), **save_options: object) -> Path:
        width, height = size
        noise = np.random.default_rng(len(path.name)).integers(0, 40, (height, width, 3))
        slope = np.linspace(0, 200, width)[None, :, None]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((slope + noise).astype(np.uint8)).save(path, **save_options)
        return path

    return make


@pytest.fixture
def photos(tmp_path: Path, make_image: MakePicture) -> Path:
    """A folder with a tree of images: a2.jpg, a10.jpg, below/b.png."""
    folder = tmp_path / "photos"
    for name in ("a10.jpg", "a2.jpg", "below/b.png"):
        make_image(folder / name)
    return folder


@pytest.fixture(scope="session")
def wait_for_steps() -> Callable[[Path, subprocess.Popen[bytes]], None]:
    """Waits until a run has saved a step that it took: its first state is of step 0."""
    import torch

    def wait(run: Path, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 120
        state = run / "state.pt"
        while not state.exists() or torch.load(state, weights_only=True)["run"]["step"] == 0:
            assert process.poll() is None, "the run ended before it saved a step"
            assert time.monotonic() < deadline, "no step was saved"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def derain_process() -> Callable[..., subprocess.Popen[bytes]]:
    """Starts `python -m derain_cli ARGUMENTS` as a child process with one CPU thread."""

    def start(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "derain_cli", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return Child(command, env=environment, **(pipes | settings))

    return start
