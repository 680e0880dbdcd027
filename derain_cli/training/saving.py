"""What a run saves between its steps: validated weights, the state to go on from, the log."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from derain_cli.training import phases, processes
from derain_cli.training.batch_norm import gather_norm_statistics
from derain_cli.training.collapse import MOST_RETURNS, PATIENCE, CollapseWatch, halve_rates
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.recipe import Recipe
from derain_cli.training.run_folder import RunFolder
from derain_cli.training.validation import Validation, file_name, statistics_images, validate

STATISTICS_IMAGES = 48
NO_SAVE = -10 * PATIENCE


@dataclass
class RunState:
    """What changes between steps, apart from the recipe's own state.

    Attributes:
        rate_share: Share of the scheduled learning rate that is left after collapses.
        candidate: Step of the save that a collapse would go back to once it has proved itself; far
            below 0 = none yet.
        returned_to: Step of the save that the run last went back to; far below 0 = never.
        returns: How often it went back to that one.
        watch: State of the collapse watch.
    """

    step: int = 0
    best_psnr: float = float("-inf")
    seconds: float = 0.0
    norm_frozen: bool = False
    rate_share: float = 1.0
    candidate: int = NO_SAVE
    returned_to: int = NO_SAVE
    returns: int = 0
    watch: dict[str, float] = field(default_factory=dict)


class Saving:
    """Writes a run's files, and opens them again on resume.

    Attributes:
        state: The run's state, which `open` replaces on resume.
    """

    def __init__(
        self, recipe: Recipe, config: TrainConfig, folder: RunFolder, device: torch.device
    ) -> None:
        self._recipe, self._config, self._folder, self._device = recipe, config, folder, device
        self.state = RunState()
        self.watch = CollapseWatch(config.collapse_limit)

    def open(self, *, resume: bool) -> None:
        """Make the run's folder, or read the state that it holds.

        Where a launcher starts this command again after a process was lost, the run goes on.
        """
        if processes.may_be_restarted():
            holds_run = processes.is_first() and self._folder.holds_run
            resume = processes.any_of(resume or holds_run)
        if processes.is_first():
            self._folder.open(self._config, resume=resume)
        processes.wait_for_all()
        if resume and self._folder.has_state:
            self._go_on()
        elif processes.is_first():
            # Weights are written before the state of their step: with this one, a run killed in
            # between begins anew, and is not taken for one whose state was lost.
            self._write_state()
        if resume and processes.is_first():
            self._folder.forget_log_after(self.state.step)

    def _go_on(self) -> None:
        state = self._folder.load_state(self._device)
        try:
            self._take(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise self._folder.damaged_state() from error

    def _take(self, state: dict[str, Any]) -> None:
        self.state = RunState(**state["run"])
        self.watch.load_state_dict(self.state.watch)
        self._recipe.load_state_dict(state["recipe"])

    def save_state(self) -> None:
        """Write everything that resuming needs."""
        if not processes.is_first():
            return
        aged = self.state.step - self.state.candidate >= PATIENCE
        renewing = bool(self._config.collapse_limit) and self.watch.trusts and aged
        if renewing:
            # A collapse that had begun before the candidate was saved would show by now.
            if self.state.candidate >= 0:
                self._folder.promote_candidate()
            self.state.candidate = self.state.step
        self._write_state()
        if self.state.step >= self._config.steps:
            self._folder.drop_fallbacks()
        elif renewing:
            self._folder.note_candidate()

    def _write_state(self) -> None:
        phases.say("saving")
        self.state.watch = self.watch.state_dict()
        state = {"run": asdict(self.state), "recipe": self._recipe.state_dict()}
        self._folder.save_state(state)

    def go_back(self) -> str:
        """Return to the last good state at half the rate; what to tell, "" if there is none.

        There is none before two saves, or when it was returned to too often already.
        """
        processes.wait_for_all()
        if not self._folder.has_good_state:
            return ""
        state = self._folder.load_good_state(self._device)
        left, before = self.state.step, self.state
        same = before.returned_to == state["run"]["step"]
        returns = before.returns + 1 if same else 1
        if returns > MOST_RETURNS:
            return ""
        share = 0.5 * before.rate_share
        factor = share / RunState(**state["run"]).rate_share
        self._take({"run": state["run"], "recipe": halve_rates(state["recipe"], factor)})
        self.state.rate_share, self.state.returns = share, returns
        # What lies in best.safetensors stays the best, though the run forgets the step it is of.
        self.state.best_psnr = max(before.best_psnr, self.state.best_psnr)
        self.state.returned_to, self.state.candidate = self.state.step, NO_SAVE
        told = (
            f"collapsed at step {left}: back to step {self.state.step}, at {share:g} of the "
            "learning rate"
        )
        if processes.is_first():
            self._folder.forget_log_after(self.state.step)
            self.log({"collapse": told})
            self._write_state()
        processes.wait_for_all()
        return told

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the metrics, with its step and seconds."""
        step, seconds = self.state.step, round(self.state.seconds, 1)
        self._folder.log({"step": step} | dict(line) | {"seconds": seconds})

    def validate(self) -> Validation:
        """Score the network on held-out images and write it, as the best too if it is."""
        network, config = self._ready_network(), self._config
        scored = validate(network, self._recipe.sources, config)
        phases.say("saving")
        self.log({"validation": scored.scores, "psnr": scored.psnr})
        about = self._about(scored.psnr)
        self._folder.save_weights("last.safetensors", network, config, about)
        if scored.psnr is not None and scored.psnr > self.state.best_psnr:
            self.state.best_psnr = scored.psnr
            self._folder.save_weights("best.safetensors", network, config, about)
        for source, image in scored.images:
            self._folder.save_image(file_name(self.state.step, source), image)
        return scored

    def save_network(self) -> None:
        """Write the network of a stopped run, so that it can be used before it goes on."""
        if not processes.is_first():
            return
        network, about = self._ready_network(), self._about(None)
        self._folder.save_weights("last.safetensors", network, self._config, about)

    def _about(self, psnr: float | None) -> dict[str, str]:
        return {
            "step": str(self.state.step),
            "seconds": f"{self.state.seconds:.0f}",
            "validation_psnr": "" if psnr is None else f"{psnr:.3f}",
        }

    def freeze_statistics(self) -> None:
        """Batch-norm statistics of whole images, for all processes alike, from now on."""
        # The moving average's weights differ from the model's, so it needs statistics of its own.
        # No set: its order is another one in each process, which would then swap the two.
        for network in dict.fromkeys((self._recipe.model, self._recipe.result)):
            self._gather_statistics(network)
            processes.take_from_first(network)

    def _ready_network(self) -> nn.Module:
        """A copy fit for whole images: batch-norm statistics of crops do not fit those."""
        network = copy.deepcopy(self._recipe.result)
        if not self.state.norm_frozen:
            self._gather_statistics(network)
        return network.eval()

    def _gather_statistics(self, network: nn.Module) -> None:
        images = statistics_images(
            self._recipe.whole, self._config.seed, STATISTICS_IMAGES, self._device
        )
        counted = phases.each("gathering statistics", images, STATISTICS_IMAGES)
        gather_norm_statistics(network, counted)
