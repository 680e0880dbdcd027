"""What happens between batches: resume, schedule, log, validate, save.

The recipe says what happens to one batch (`recipes.recipe`), `batches` draws them ahead of time,
`saving` writes what a run leaves behind, `processes` shares the work over several processes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import ConfigError, TrainingError, UsageError, did_you_mean, first_line
from derain_cli.inference.devices import choose_device
from derain_cli.models import build_model, model_config
from derain_cli.models.rdmc import Rdmc, RdmcSupernet
from derain_cli.training import processes
from derain_cli.training.batch_norm import freeze_norms, share_norms
from derain_cli.training.batches import Batches
from derain_cli.training.clock import Clock
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.growing import grow
from derain_cli.training.optimization import autocast
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.paired import with_steps
from derain_cli.training.recipes.recipe import Batch, Recipe
from derain_cli.training.run_folder import STATE, RunFolder
from derain_cli.training.saving import RunState, Saving
from derain_cli.training.validation import Validation

LOG_EVERY = 50


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
        notice: What the user should be told of this step.
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
    notice: str = ""


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


def train(
    config: TrainConfig,
    out: str | os.PathLike[str],
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
    if not isinstance(config, FinetuneConfig):  # whose epochs are counted by what is adapted to
        config = with_steps(config)
    with processes.joined(config.device) as device:
        run = _Run(config, RunFolder(Path(out)), device, resume)
        return run.run(report or (lambda progress: None), should_stop)


def check(
    config: TrainConfig, out: str | os.PathLike[str] | None = None, *, resume: bool = False
) -> None:
    """Refuse what `train` refuses before its first step, in the same words; write nothing.

    Args:
        config: The run.
        out: Its folder, if it is known already.
        resume: Whether the run is to go on there.

    Raises:
        ConfigError: As of `train`.
        DatasetError: As of `train`.
    """
    if not isinstance(config, FinetuneConfig):
        config = with_steps(config)
    if out is not None:
        RunFolder(Path(out)).require(config, resume=resume)
    device = torch.device(choose_device(config.device))
    _check(config, device)
    RECIPES[config.recipe](_initial_model(config).to(device), config, Path(out or "run"))


def _check(config: TrainConfig, device: torch.device) -> None:
    """Refuse what cannot go well before anything is built."""
    if config.recipe not in RECIPES:
        hint = did_you_mean(config.recipe, RECIPES)
        raise ConfigError(f"unknown recipe {config.recipe!r}. {hint}")
    autocast(config, device)
    for step in (0, config.steps - 1):
        processes.share_of(config.crop_at(step)[1])


class _Run:
    """One session of a run: from its beginning, or from the saved state, to its end or a stop."""

    def __init__(self, config: TrainConfig, folder: RunFolder, device: str, resume: bool) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        self.device = torch.device(choose_device(device))
        _check(config, self.device)
        # Before the network is built: its first weights are part of what a seed decides.
        torch.manual_seed(config.seed)
        model = _initial_model(config).to(self.device)
        # Dense 3x3 convolutions are faster in this layout, on CPUs and on tensor cores.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        share_norms(model)
        self.recipe: Recipe = RECIPES[config.recipe](model, config, folder.path)
        self.saving = Saving(self.recipe, config, folder, self.device)
        self.saving.open(resume=resume)
        self.clock = Clock()

    @property
    def state(self) -> RunState:
        """What changes between steps; going back replaces it."""
        return self.saving.state

    def run(
        self, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> TrainResult:
        """Take steps until the last, or until `should_stop` or the time limit says so."""
        self.clock = clock = Clock()
        before = self.state.seconds
        scored: Validation | None = None
        for step, batch, waited in self._batches():
            began = time.monotonic()
            self._prepare(step)
            parts, notice = self._guarded_update(batch, step)
            # The run went back: the batches that were drawn ahead are of steps it will repeat.
            if notice:
                if processes.is_first():
                    report(self._progress(parts, 0.0, waited, None, notice))
                continue
            self.state.step = step + 1
            self.state.seconds = before + clock.elapsed
            taken = waited + time.monotonic() - began
            clock.count(taken, waited, self.config.crop_at(step)[1])
            if self._is_finished():
                self.recipe.end()
            scored = self._after_step(parts)
            if processes.is_first():
                report(self._progress(parts, taken, waited, scored))
            # Every process must stop at the same step, or the others wait for its gradients.
            if processes.any_of(self._is_late() or should_stop()) and not self._is_finished():
                break
        # Also after a stop, so that not one step is lost.
        self.saving.save_state()
        finished, best = self._is_finished(), self.state.best_psnr
        # A validation has written it already. Of an adaptation only whole epochs are used.
        if not finished and scored is None and not isinstance(self.config, FinetuneConfig):
            self.saving.save_network()
        return TrainResult(self.folder.path, self.state.step, finished, best, *clock.rates())

    def _batches(self) -> Iterator[tuple[int, Batch, float]]:
        """Steps and their batches until the last step, begun anew where the run went back."""
        batches = Batches(self.recipe, self.config, self.device)
        while not self._is_finished():
            for step, batch, waited in batches.after(self.state.step):
                yield step, batch, waited
                # Another step than the next one: the run went back to an earlier save.
                if self.state.step != step + 1:
                    break

    def _guarded_update(self, batch: Batch, step: int) -> tuple[dict[str, float], str]:
        """The loss parts of a step; or, if the run went back instead, what to tell of it."""
        try:
            parts = self._update(batch, step)
        except TrainingError:
            notice = self.saving.go_back() if self.config.collapse_limit else ""
            if not notice:
                raise
            return {}, notice
        if not self.saving.watch.has_collapsed(parts["loss"], self.config.crop_at(step)[0]):
            return parts, ""
        self.state.step = step + 1
        notice = self.saving.go_back()
        if not notice:
            self.saving.watch.above = 0  # nowhere to go: look again in a while
        return parts, notice

    def _is_finished(self) -> bool:
        return self.state.step >= self.config.steps

    def _is_late(self) -> bool:
        return bool(self.config.max_time) and self.clock.elapsed > 60 * self.config.max_time

    def _progress(
        self,
        parts: dict[str, float],
        taken: float,
        waited: float,
        scored: Validation | None,
        notice: str = "",
    ) -> Progress:
        step = max(1, self.state.step)
        return Progress(
            step=step,
            steps=self.config.steps,
            parts=parts,
            lr=self.config.lr_at(step - 1) * self.state.rate_share,
            images=self.config.crop_at(step - 1)[1],
            seconds_per_step=taken,
            waited=waited,
            validation=scored.scores if scored else None,
            psnr=scored.psnr if scored else None,
            notice=notice,
        )

    def _prepare(self, step: int) -> None:
        """Training mode, with batch norm frozen in the last part of the run."""
        # At every step, because a validation leaves the network in eval mode.
        self.recipe.model.train()
        if not self.config.norm_frozen_at(step):
            # A run that was made longer thaws: what it froze before no longer fits.
            self.state.norm_frozen = False
            return
        if not self.state.norm_frozen:
            # Weights that come with statistics, and are frozen from the first step, keep theirs.
            if not (step == 0 and self.config.weights):
                self.saving.freeze_statistics()
            self.state.norm_frozen = True
        freeze_norms(self.recipe.model)

    def _update(self, batch: Batch, step: int) -> dict[str, float]:
        try:
            return self.recipe.update(batch, step)
        except TrainingError as error:
            saved = self.folder.path / STATE
            where = f"; {str(saved)!r} keeps an earlier state" if saved.exists() else ""
            raise TrainingError(f"{error}{where}") from error
        except RuntimeError as error:
            # The compiler's own exceptions are in modules of torch that are costly to import.
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise UsageError(f"`compile` does not work here: {first_line(error)}") from error
            raise

    def _after_step(self, parts: dict[str, float]) -> Validation | None:
        """Log, validate and save where it is time to; the first process does it for all."""
        if not processes.is_first():
            return None
        step, config = self.state.step, self.config
        if step % LOG_EVERY == 0:
            speed, waited = self.clock.rates()
            pace = {"images_per_second": round(speed, 2), "waited": round(waited, 4)}
            self.saving.log({"lr": config.lr_at(step - 1) * self.state.rate_share} | parts | pace)
        scored = None
        # Validated before it is saved: the state then knows whether this step is the best one.
        if self._is_finished() or (config.validate_every and step % config.validate_every == 0):
            scored = self.saving.validate()
        if config.save_every and step % config.save_every == 0:
            self.saving.save_state()
        return scored


def _initial_model(config: TrainConfig) -> nn.Module:
    model = build_model(config.model, config.model_options())
    if config.weights:
        loaded = load_model(config.weights)
        if isinstance(loaded.model, RdmcSupernet) and type(model) is Rdmc:
            return _derived(loaded.model, model, config)
        if loaded.architecture != config.model:
            raise ConfigError(
                f"weights {config.weights!r} are of another network than {config.model!r}"
            )
        if not config.model_options() or model_config(loaded.model) == model_config(model):
            return loaded.model
        _grow(loaded.model, model, config)
    return model


def _grow(small: nn.Module, large: nn.Module, config: TrainConfig) -> None:
    try:
        grow(small, large)
    except ValueError as error:
        reason = f"are of another shape than the {config.model!r} asked for: {error}"
        raise ConfigError(f"weights {config.weights!r} {reason}") from error


def _derived(supernet: RdmcSupernet, model: Rdmc, config: TrainConfig) -> Rdmc:
    """The network of a search's edges with the supernet's weights (jiang2023, section IV-A).

    Raises:
        ConfigError: No edges are named, or the network asked for has another shape.
    """
    if "connections" not in config.model_options():
        raise ConfigError(
            f"weights {config.weights!r} are of a search and do not say which edges it chose: name "
            "the folder of the search, or its file with `connections`"
        )
    derived = supernet.derived(model.config.connections)
    if derived.config != replace(model.config, connections=derived.config.connections):
        raise ConfigError(f"weights {config.weights!r} are of a supernet of another shape")
    return derived
