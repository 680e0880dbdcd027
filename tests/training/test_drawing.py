"""Batches drawn in processes: what threads draw, and no process outlives its trainer."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from derain_cli.errors import DatasetError, TrainingError
from derain_cli.training.batches import Batches
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.drawing import drawing, result_of

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def numbers(step):
    return {"step": np.full(3, step, np.float32), "process": np.array([os.getpid()])}


def drawn(step, apart):
    with drawing(numbers, 1, apart=apart) as draw:
        return result_of(draw(step))


def exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=forks)])
def test_batches_are_drawn_where_asked(apart):
    batch = drawn(7, apart)
    assert batch["step"].tolist() == [7, 7, 7]
    assert (batch["process"][0] != os.getpid()) == apart


@forks
def test_threads_draw_in_a_process_that_may_have_no_children():
    here, there = multiprocessing.Pipe()
    daemon = multiprocessing.get_context("fork").Process(
        target=lambda: there.send(drawn(7, apart=True)["process"][0]), daemon=True
    )
    daemon.start()
    assert here.poll(60)
    assert here.recv() == daemon.pid
    daemon.join()


@forks
def test_opencv_works_in_the_process_though_it_had_threads_here():
    before = cv2.getNumThreads()
    image = np.random.default_rng(0).random((600, 800, 3), np.float32)
    expected = cv2.GaussianBlur(image, (0, 0), 3)  # starts OpenCV's threads
    with drawing(lambda _: {"blurred": cv2.GaussianBlur(image, (0, 0), 3)}, 1, apart=True) as draw:
        np.testing.assert_allclose(result_of(draw(0))["blurred"], expected, atol=1e-6)
    assert cv2.getNumThreads() == before


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_last_batches_to_the_trainer(number):
    with drawing(numbers, 1, apart=True) as draw:
        process = int(result_of(draw(0))["process"][0])
        os.kill(process, number)
        time.sleep(0.2)
        assert result_of(draw(1))["step"][0] == 1
    assert not exists(process)


@forks
@pytest.mark.parametrize("drawing_then", [True, False])
def test_a_process_ended_from_outside_is_told_with_the_way_on(drawing_then):
    with drawing(lambda step: time.sleep(60 * step) or numbers(step), 1, apart=True) as draw:
        process = int(result_of(draw(0))["process"][0])
        coming = draw(1) if drawing_then else None
        os.kill(process, signal.SIGKILL)
        while exists(process):
            time.sleep(0.02)
        with pytest.raises(TrainingError, match=r"ended from outside.*--resume"):
            result_of(coming or draw(1))


@forks
def test_an_error_of_the_data_arrives_as_it_is():
    def fail(step):
        raise DatasetError(f"no image for step {step}")

    with (
        drawing(fail, 1, apart=True) as draw,
        pytest.raises(DatasetError, match="no image for step 3"),
    ):
        result_of(draw(3))


@forks
def test_no_process_outlives_a_trainer_that_was_killed():
    code = (
        "import os, signal, numpy as np\n"
        "from derain_cli.training.drawing import drawing, result_of\n"
        "with drawing(lambda _: {'process': np.array([os.getpid()])}, 1, apart=True) as draw:\n"
        "    print(result_of(draw(0))['process'][0], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Returns when nobody holds its stdout any more, the process that draws neither.
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert int(killed.stdout) > 0


@pytest.mark.parametrize(("steps_per_epoch", "apart"), [(0, True), (2, False)])
def test_only_what_no_epoch_changes_is_drawn_apart(steps_per_epoch, apart):
    class Recipe:
        def begin_epoch(self, epoch):
            self.epoch = epoch

        def draw(self, step, part):
            images = np.full((len(part), 3, 2, 2), os.getpid(), np.float64)
            return {"rainy": images + getattr(self, "epoch", 0) / 4}

    recipe = Recipe()
    recipe.steps_per_epoch = steps_per_epoch
    config = TrainConfig(steps=4, batch_size=2, crop=64)
    batches = [batch for _, batch, _ in Batches(recipe, config, torch.device("cpu")).after(0)]
    drawn_by = {int(batch["rainy"].flatten()[0]) for batch in batches}
    assert len(batches) == 4
    assert (drawn_by != {os.getpid()}) == (apart and sys.platform == "linux")
    if steps_per_epoch:
        epochs = [4 * (batch["rainy"].flatten()[0].item() - os.getpid()) for batch in batches]
        assert epochs == [0, 0, 1, 1]
