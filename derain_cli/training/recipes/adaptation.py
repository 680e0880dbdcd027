"""The base of recipes that learn from unpaired photos, with a guard against collapse.

Without ground truth a network can drift in two directions: it removes nothing any more (its rain
goes to 0), or it removes ever more (its rain grows and images wash out). So before the first epoch
and after each one all photos are derained whole and reported in `epochs.jsonl`. The best epoch
without such a drift becomes `best.safetensors`; if adaptation only made things worse, the starting
weights are kept. Each recipe decides what "best" means: for one that learns from labelled pairs
their PSNR is the goal, for the others it is a limit.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.errors import ConfigError, DatasetError
from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.full_reference import psnr
from derain_cli.metrics.niqe import PATCH, niqe
from derain_cli.models import entry_of
from derain_cli.training import phases, processes
from derain_cli.training.batch_norm import keep_norms
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.data.real_photos import Planes, PseudoTruth, RealPhotos
from derain_cli.training.data.samples import Source
from derain_cli.training.guard import REPORTS, EpochReport, best_of, scores_better, what_is_worse
from derain_cli.training.run_folder import RunFolder
from derain_cli.training.validation import HIGHEST_PSNR
from derain_cli.whole_files import write_whole

log = logging.getLogger(__name__)


def passes(count: int, config: FinetuneConfig) -> int:
    """Steps of an epoch: `epoch_steps` of the config, else one pass over `count` samples.

    Example:
        >>> passes(5, FinetuneConfig(batch_size=2))
        3
    """
    return config.epoch_steps or math.ceil(count / config.batch_size)


class AdaptingRecipe:
    """Epochs with an evaluation of every photo between them; subclasses define the steps.

    Attributes:
        model: The network in training.
        photos: The real photos.
        truth: The network's results at the last evaluation: the pseudo ground truth.
        sources: Empty, because the guard and not the trainer chooses the best network.
        reports: One for each evaluation.
    """

    sources: Sequence[Source] = ()

    def __init__(
        self,
        model: nn.Module,
        config: FinetuneConfig,
        folder: Path,
        photos: RealPhotos,
        labelled: Sequence[Source],
        steps_per_epoch: int,
    ) -> None:
        self.model, self.config, self.photos = model, config, photos
        self.steps_per_epoch = steps_per_epoch
        self.truth = PseudoTruth(folder / "pseudo-truth")
        self.reports: list[EpochReport] = []
        self.warmup_epochs = 0
        self._folder, self._labelled = RunFolder(folder), labelled
        self._saved_epoch = -1
        if config.weights:
            keep_norms(model)
        if photos.notice and processes.is_first():
            log.warning(photos.notice)

    @property
    def _names(self) -> list[str]:
        return [path.name for path in self.photos.paths]

    @property
    def result(self) -> nn.Module:
        """The network that derains the photos and is evaluated and saved."""
        return self.model

    def begin_epoch(self, epoch: int) -> None:
        """Derain all photos anew, report on them, and keep the network if it is the best."""
        frozen = self.config.pseudo_truth == "frozen" and self.truth.epoch >= 0
        if processes.is_first():
            report = self._evaluate(epoch, keep=not frozen)
            self.reports = [*self.reports[:epoch], self._judged(report)]
            lines = [json.dumps(asdict(report)) + "\n" for report in self.reports]
            write_whole(self._folder.path / REPORTS, "".join(lines).encode())
            if self.reports[-1].kept:
                about = {"epoch": str(epoch), "step": str(epoch * self.steps_per_epoch)}
                about |= {} if report.psnr is None else {"validation_psnr": f"{report.psnr:.3f}"}
                self._folder.save_weights("best.safetensors", self.result, self.config, about)
        if not frozen:
            self.truth.epoch = epoch
        if processes.is_first():
            # The last saved state may belong to an earlier epoch, whose files resuming needs.
            self.truth.forget_all_but(self.truth.epoch, self._saved_epoch)
        processes.wait_for_all()

    def update(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One optimisation step; the loss parts, for the log.

        Raises:
            TrainingError: The loss is not finite; the weights are left as they were.
        """
        raise NotImplementedError

    def end(self) -> None:
        """Evaluate what the last epoch, perhaps a part of one, led to."""
        self.begin_epoch(math.ceil(self.config.steps / self.steps_per_epoch))

    def whole(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A whole real photo."""
        return self.photos.pixels(int(rng.integers(len(self.photos))))

    def state_dict(self) -> dict[str, Any]:
        """Weights, reports and the epoch of the pseudo ground truth, whose files stay in place."""
        self._saved_epoch = self.truth.epoch
        reports = [asdict(report) for report in self.reports]
        return {
            "model": self.model.state_dict(),
            "epoch": self.truth.epoch,
            "reports": reports,
            "photos": self._names,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            DatasetError: The photos are others: the files of an epoch are numbered in their order.
        """
        if state.get("photos", self._names) != self._names:
            raise DatasetError(
                f"the photos of `real` {self.config.real!r} are others than those the run began "
                "with: put these back, or start a new run with `out`"
            )
        self.model.load_state_dict(state["model"])
        self.truth.epoch = self._saved_epoch = state["epoch"]
        self.reports = [EpochReport(**report) for report in state["reports"]]

    def is_better(self, report: EpochReport, best: EpochReport) -> bool:
        """Whether an epoch that the guard accepts replaces the best so far."""
        return scores_better(report, best)

    def _judged(self, report: EpochReport) -> EpochReport:
        if report.epoch < self.warmup_epochs:
            return replace(report, warming=True, kept=True)  # until an epoch can be compared
        earlier = self.reports[: report.epoch]
        reference = next((seen for seen in earlier if not seen.warming), None)
        if reference is None:
            return replace(report, kept=True)
        worse, best = what_is_worse(report, reference), best_of(earlier)
        kept = not worse and (best is None or self.is_better(report, best))
        return replace(report, worse=worse, kept=kept)

    @torch.no_grad()
    def _evaluate(self, epoch: int, *, keep: bool) -> EpochReport:
        """Derain every photo with the current network, measure it, and store the results."""
        derainer = self._derainer()
        changes, energies, scores = [], [], []
        count = len(self.photos)
        for photo in phases.each("deraining all photos", range(count), count):
            rainy = self.photos.crop(photo, (slice(None), slice(None)))
            derained = derain_whole(derainer, rainy)
            before = self.truth.whole(photo)
            changes.append(0.0 if before is None else float(np.abs(derained - before).mean()))
            energies.append(float(np.square(rainy - derained).mean()))
            pixels = np.rint(derained * 255).astype(np.uint8)
            if min(pixels.shape[:2]) >= PATCH:
                scores.append(niqe(pixels))
            if keep:
                self.truth.write(photo, epoch, self._derained_again(derainer, derained))
            self._save_image(photo, epoch, pixels)
        scores = [score for score in scores if math.isfinite(score)]
        mean_score = float(np.mean(scores)) if scores else None
        energy, change = float(np.mean(energies)), float(np.mean(changes))
        return EpochReport(epoch, change, energy, mean_score, self._psnr(derainer))

    def _derained_again(self, derainer: Derainer, derained: Planes) -> Planes:
        for _ in range(self.config.pseudo_passes - 1):
            derained = derain_whole(derainer, derained)
        return derained

    def _derainer(self) -> Derainer:
        device = str(next(self.model.parameters()).device)
        entry, tile = entry_of(self.result), self.config.tile or None
        return Derainer(self.result, entry, name=self.config.model, device=device, tile=tile)

    def _psnr(self, derainer: Derainer) -> float | None:
        pairs = [pair for source in self._labelled for pair in source.validation()]
        scores = [
            min(psnr(derainer(rainy), clean, "y"), HIGHEST_PSNR)
            for rainy, clean in phases.each("validating", pairs, len(pairs))
        ]
        return float(np.mean(scores)) if scores else None

    def _save_image(self, photo: int, epoch: int, pixels: NDArray[np.uint8]) -> None:
        if not self.config.save_images:
            return
        folder = Path(self.config.save_images) / f"epoch-{epoch:04}"
        folder.mkdir(parents=True, exist_ok=True)
        _, encoded = cv2.imencode(".png", pixels[..., ::-1])
        write_whole(folder / f"{self._image_name(photo)}.png", encoded.tobytes())

    def _image_name(self, photo: int) -> str:
        """The photo's own, with what tells it from others: its format, or its number."""
        path, paths = self.photos.paths[photo], self.photos.paths
        if self._names.count(path.name) > 1:  # rainy images of several data sets
            return f"{path.stem}-{photo}"
        twins = sum(other.stem == path.stem for other in paths)
        return path.stem if twins == 1 else path.name


def derain_whole(derainer: Derainer, rainy: Planes) -> Planes:
    """Derained `(height, width, 3)` floats in 0..1, in tiles if memory requires it."""
    image = torch.from_numpy(np.ascontiguousarray(rainy.transpose(2, 0, 1)))[None]
    derained = derainer.derain_tensor(image)[0].cpu().numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(derained, np.float32)


def require_finetune_config(config: object) -> FinetuneConfig:
    """The config as a `FinetuneConfig`.

    Raises:
        ConfigError: It is of another command.
    """
    if not isinstance(config, FinetuneConfig):
        raise ConfigError("recipes for real photos belong to `derain finetune-real`")
    return config
