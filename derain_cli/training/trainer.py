"""What happens between batches: resume, schedule, log, validate, save.

The recipe says what happens to one batch (`Recipe`), `run_folder` what a run leaves behind,
`processes` how several processes share the work.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import ConfigError, TrainingError, UsageError, did_you_mean
from derain_cli.inference.devices import choose_device
from derain_cli.models import build_model, model_config
from derain_cli.training import processes
from derain_cli.training.batch_norm import freeze_norms, gather_norm_statistics, share_norms
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.samples import Source
from derain_cli.training.optimization import autocast
from derain_cli.training.recipes import RECIPES
from derain_cli.training.run_folder import RunFolder
from derain_cli.training.validation import Validation, file_name, statistics_images, validate

__all__ = ["Progress", "Recipe", "TrainResult", "gather_norm_statistics", "train"]

LOG_EVERY = 50
STATISTICS_IMAGES = 48
GPU_WORKERS = 4

Batch = Mapping[str, Tensor]


class Recipe(Protocol):
    """A training idea: a whole optimisation step on one batch, with its own optimizers.

    Made as `RECIPES[name](model, config, folder)`, in every process. How to write one:

    - **Its data.** A recipe makes its own sources from the config and draws its own batches: real
      photos without a truth, a second half of the data, anything. `draw` is called in another
      thread, ahead of time; it must be a pure function of (seed, step, sample number), and of what
      `begin_epoch` left. So all randomness of a step belongs there, not into `update`.
    - **Epochs.** With `steps_per_epoch` above 0, `begin_epoch(k)` is called before anything of
      epoch k is drawn, and nothing is drawn ahead across that border: there a recipe renews its
      pseudo-truth. Before a resumed step in the middle of an epoch it is not called: what it made
      must come back with `load_state_dict`, from the state or from a file in `folder`.
    - **Its networks.** `model` is put into training mode before each step (batch norm frozen at the
      end of the run); `result` is what is validated and saved: `model`, or an average of it.
      Forward passes go through `processes.wrap(model, config)`, which averages gradients over
      processes; steps through `optimization.Optimization`.
    - **Validation** scores `result` on the held-out images of `sources`. Without any there is no
      score, and so no best checkpoint. `whole` draws images for batch-norm statistics.

    `paired.PairedRecipe` does all of this for recipes that learn from pairs.
    """

    model: nn.Module
    sources: Sequence[Source]
    steps_per_epoch: int

    @property
    def result(self) -> nn.Module:
        """The network that is validated and saved."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the data of an epoch."""

    def draw(self, step: int, part: range) -> Mapping[str, NDArray[np.float32]]:
        """Samples `part` of the batch of a step, by name."""

    def whole(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A whole rainy training image `(height, width, 3)`."""

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """One optimisation step on what `draw` drew, on the device; the loss parts, for the log."""

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""


@dataclass(frozen=True)
class Progress:
    """What a caller may show after a step.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        parts: The loss and its parts.
        lr: Learning rate of the step.
        images: Crops in the step, over all processes.
        seconds_per_step: Time of the step, with the wait for its batch, without validation or an
            epoch's look at real photos.
        waited: Seconds of it that the network waited for the batch.
        validation: PSNR per source, when scored.
        psnr: Its mean.
    """

    step: int
    steps: int
    parts: dict[str, float]
    lr: float
    images: int
    seconds_per_step: float
    waited: float
    validation: dict[str, float] | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        images_per_second: Over the time of this session's steps.
        waited: Share of their time in which the network waited for batches.
    """

    folder: Path
    step: int
    finished: bool
    best_psnr: float
    images_per_second: float = 0.0
    waited: float = 0.0


@dataclass
class RunState:
    """What changes between steps, apart from the recipe's own state."""

    step: int = 0
    best_psnr: float = float("-inf")
    seconds: float = 0.0
    norm_frozen: bool = False


@dataclass
class Clock:
    """Times of this session's steps."""

    started: float = field(default_factory=time.monotonic)
    stepping: float = 0.0
    waited: float = 0.0
    images: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self.started

    def rates(self) -> tuple[float, float]:
        """(images per second, share of the time that was spent waiting for them)."""
        seconds = max(self.stepping, 1e-9)
        return self.images / seconds, self.waited / seconds


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a network and leave its checkpoints in the folder `out`.

    Under `torchrun` every process calls this with the same arguments.

    Args:
        config: The run. With `resume`, it must equal the run's own, apart from what cannot change
            its numbers (device, threads, time limit).
        out: Run folder; made when missing, refused when it holds a run and `resume` is not set.
        resume: Go on from the folder's `state.pt`.
        report: Called after every step, in the first process.
        should_stop: Asked after every step; True saves and ends the run, resumable.

    Raises:
        ConfigError: Impossible options, or a folder that holds another run.
        DatasetError: Data missing, a test set, or unequal pairs.
        TrainingError: A loss that is not finite; the last saved state stays.
        ResourceError: No space for a file; its previous version stays.
    """
    with processes.joined(config.device) as device:
        run = _Run(config, RunFolder(out), device, resume)
        return run.run(report or (lambda progress: None), should_stop)


class _Run:
    def __init__(self, config: TrainConfig, folder: RunFolder, device: str, resume: bool) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.folder, self.state, self.clock = config, folder, RunState(), Clock()
        self.device = choose_device(device)
        self._check()
        torch.manual_seed(config.seed)
        model = _initial_model(config).to(self.device)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_norms(model)
        self.recipe: Recipe = RECIPES[config.recipe](model, config, folder.path)
        self._open(resume)

    def _check(self) -> None:
        """What cannot go well, before anything is written."""
        known = self.config.recipe in RECIPES
        if not known:
            hint = did_you_mean(self.config.recipe, RECIPES)
            raise ConfigError(f"unknown recipe {self.config.recipe!r}. {hint}")
        autocast(self.config, self.device)
        for step in (0, self.config.steps - 1):
            processes.share_of(self.config.crop_at(step)[1])

    def _open(self, resume: bool) -> None:
        if processes.is_first():
            self.folder.open(self.config, resume=resume)
        processes.wait_for_all()
        if not resume:
            return
        if self.folder.has_state:
            state = self.folder.load_state(self.device)
            self.state = RunState(**state["run"])
            self.recipe.load_state_dict(state["recipe"])
        if processes.is_first():
            self.folder.forget_log_after(self.state.step)

    def run(
        self, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> TrainResult:
        self.clock = clock = Clock()
        before = self.state.seconds
        for step, batch, waited in self._batches():
            began = time.monotonic()
            self._prepare(step)
            parts = self._update(batch, step)
            self.state.step = step + 1
            self.state.seconds = before + clock.elapsed
            images, taken = self.config.crop_at(step)[1], waited + time.monotonic() - began
            clock.stepping, clock.waited = clock.stepping + taken, clock.waited + waited
            clock.images += images
            found = self._after_step(parts)
            if processes.is_first():
                scores = (found.scores, found.psnr) if found else (None, None)
                rate = self.config.lr_at(step)
                report(
                    Progress(
                        step + 1, self.config.steps, parts, rate, images, taken, waited, *scores
                    )
                )
            late = bool(self.config.max_time) and clock.elapsed > 60 * self.config.max_time
            if processes.any_of(late or should_stop()) and self.state.step < self.config.steps:
                break
        self._save_state()
        finished, best = self.state.step >= self.config.steps, self.state.best_psnr
        return TrainResult(self.folder.path, self.state.step, finished, best, *clock.rates())

    def _batches(self) -> Iterator[tuple[int, Batch, float]]:
        """(step, batch, seconds waited for it); later batches are drawn while this one trains."""
        ahead = self.config.workers or (1 if self.device.type == "cpu" else GPU_WORKERS)
        coming: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(ahead) as loaders:
            for step in range(self.state.step, self.config.steps):
                if not coming:
                    self._begin_epoch(step)
                while len(coming) < ahead and step + len(coming) < self._drawable_until(step):
                    coming.append(loaders.submit(self._draw, step + len(coming)))
                asked = time.monotonic()
                batch = coming.popleft().result()
                waited = time.monotonic() - asked
                if step + len(coming) + 1 < self._drawable_until(step):
                    coming.append(loaders.submit(self._draw, step + len(coming) + 1))
                yield step, batch, waited

    def _drawable_until(self, step: int) -> int:
        """First step whose batch must not be drawn yet: epochs may change the data."""
        length = self.recipe.steps_per_epoch
        end_of_epoch = (step // length + 1) * length if length else self.config.steps
        return min(end_of_epoch, self.config.steps)

    def _begin_epoch(self, step: int) -> None:
        length = self.recipe.steps_per_epoch
        if length and step % length == 0:
            self.recipe.begin_epoch(step // length)

    def _draw(self, step: int) -> Batch:
        part = processes.share_of(self.config.crop_at(step)[1])
        drawn = self.recipe.draw(step, part)
        return {name: self._to_device(images) for name, images in drawn.items()}

    def _to_device(self, images: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(images).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)

    def _prepare(self, step: int) -> None:
        """Training mode, with batch norm frozen in the last part of the run."""
        self.recipe.model.train()
        if not self.config.norm_frozen_at(step):
            return
        if not self.state.norm_frozen:
            # Weights that come with statistics, and are frozen from the first step, keep theirs.
            if not (step == 0 and self.config.weights):
                self._freeze_statistics()
            self.state.norm_frozen = True
        freeze_norms(self.recipe.model)

    def _freeze_statistics(self) -> None:
        # The moving average's own weights need their own statistics.
        for network in {self.recipe.model, self.recipe.result}:
            self._gather_statistics(network)
            processes.take_from_first(network)

    def _update(self, batch: Batch, step: int) -> dict[str, float]:
        try:
            return self.recipe.update(batch, step)
        except TrainingError as error:
            saved = self.folder.path / "state.pt"
            where = f"; {str(saved)!r} keeps an earlier state" if saved.exists() else ""
            raise TrainingError(f"{error}{where}") from error
        except RuntimeError as error:
            # The compiler's own exceptions are in modules of torch that are costly to import.
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).strip().splitlines()[0]
                raise UsageError(f"--compile does not work here: {reason}") from error
            raise

    def _after_step(self, parts: dict[str, float]) -> Validation | None:
        if not processes.is_first():
            return None
        step, config = self.state.step, self.config
        if step % LOG_EVERY == 0:
            speed, waited = self.clock.rates()
            pace = {"images_per_second": round(speed, 2), "waited": round(waited, 4)}
            self._log({"lr": config.lr_at(step - 1)} | parts | pace)
        every = config.validate_every
        found = None
        if step == config.steps or (every and step % every == 0):
            found = self._validate_and_save()
        if config.save_every and step % config.save_every == 0:
            self._save_state()
        return found

    def _validate_and_save(self) -> Validation:
        network = self._ready_network()
        found = validate(network, self.recipe.sources, self.config, self._to_device)
        self._log({"validation": found.scores, "psnr": found.psnr})
        about = {
            "step": str(self.state.step),
            "seconds": f"{self.state.seconds:.0f}",
            "validation_psnr": "" if found.psnr is None else f"{found.psnr:.3f}",
        }
        self.folder.save_weights("last.safetensors", network, self.config, about)
        if found.psnr is not None and found.psnr > self.state.best_psnr:
            self.state.best_psnr = found.psnr
            self.folder.save_weights("best.safetensors", network, self.config, about)
        for source, image in found.images:
            self.folder.save_image(file_name(self.state.step, source), image)
        return found

    def _ready_network(self) -> nn.Module:
        """A copy fit for whole images: batch-norm statistics of crops do not fit those."""
        network = copy.deepcopy(self.recipe.result)
        if not self.state.norm_frozen:
            self._gather_statistics(network)
        return network.eval()

    def _gather_statistics(self, network: nn.Module) -> None:
        images = statistics_images(
            self.recipe.whole, self.config.seed, STATISTICS_IMAGES, self._to_device
        )
        gather_norm_statistics(network, images)

    def _save_state(self) -> None:
        if processes.is_first():
            state = {"run": asdict(self.state), "recipe": self.recipe.state_dict()}
            self.folder.save_state(state)

    def _log(self, line: Mapping[str, Any]) -> None:
        step, seconds = self.state.step, round(self.state.seconds, 1)
        self.folder.log({"step": step} | dict(line) | {"seconds": seconds})


def _initial_model(config: TrainConfig) -> nn.Module:
    model = build_model(config.model, config.model_options())
    if config.weights:
        loaded = load_model(config.weights)
        if loaded.architecture != config.model or model_config(loaded.model) != model_config(model):
            raise ConfigError(
                f"weights {config.weights!r} are of another network than {config.model!r}"
            )
        return loaded.model
    return model
