"""The guard of an adaptation: which epochs made things worse, and which was best."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPORTS = "epochs.jsonl"
# Mean squared rain may shrink or grow by this before it counts as a collapse: twice the amplitude.
ENERGY_LIMIT = 4.0
# A quarter of an 8-bit level, squared; a network that removes less than this removes nothing.
NO_ENERGY = (0.25 / 255) ** 2
# NIQE of the same photos hardly moves by itself: a change of 2 % is visible.
NIQE_LIMIT = 1.02
# dB that adaptation may lose on labelled rain before it counts as worse.
PSNR_LIMIT = 0.3


@dataclass(frozen=True)
class EpochReport:
    """Measurements of the real photos after an epoch; epoch 0 is the network as it came.

    Attributes:
        change: Mean absolute difference from the previous pseudo ground truth, in 0..1.
        rain_energy: Mean square of rainy - derained.
        niqe: Mean over the photos of at least 96 pixels a side; None if there are none.
        psnr: Mean over the held-out labelled images (luma, dB); None if there are none.
        warming: A warm-up epoch of self-training, which is not compared.
        worse: Why the epoch counts as worse than the first compared one; "" if it does not.
        kept: Whether its network became `best.safetensors`.
    """

    epoch: int
    change: float
    rain_energy: float
    niqe: float | None = None
    psnr: float | None = None
    warming: bool = False
    worse: str = ""
    kept: bool = False


def what_is_worse(report: EpochReport, reference: EpochReport) -> str:
    """Why an epoch counts as worse than the reference; "" if it does not.

    Example:
        >>> what_is_worse(EpochReport(3, 0.0, 1e-5), EpochReport(0, 0.0, 1e-3))
        'rain energy fell from 0.001 to 1e-05: it stops removing rain'
    """
    before, now = max(reference.rain_energy, NO_ENERGY), report.rain_energy
    if not math.isfinite(now) or now > ENERGY_LIMIT * before:
        return f"rain energy rose from {before:.3g} to {now:.3g}: it removes more than rain"
    if reference.rain_energy > NO_ENERGY and now < before / ENERGY_LIMIT:
        return f"rain energy fell from {before:.3g} to {now:.3g}: it stops removing rain"
    psnr_before, psnr = reference.psnr, report.psnr
    if psnr_before is not None and psnr is not None and psnr < psnr_before - PSNR_LIMIT:
        return f"PSNR fell from {psnr_before:.2f} to {psnr:.2f} dB"
    niqe_before, niqe = reference.niqe, report.niqe
    if niqe_before is not None and niqe is not None and niqe > NIQE_LIMIT * niqe_before:
        return f"NIQE rose from {niqe_before:.2f} to {niqe:.2f}"
    return ""


def best_of(reports: Sequence[EpochReport]) -> EpochReport | None:
    """The epoch whose network is `best.safetensors`; None if no epoch was kept yet.

    Example:
        >>> best_of([EpochReport(0, 0, 1, kept=True), EpochReport(1, 0, 2)]).epoch
        0
    """
    return next((report for report in reversed(reports) if report.kept), None)


def scores_better(report: EpochReport, best: EpochReport) -> bool:
    """Whether PSNR on labelled pairs is higher, else NIQE lower; without either, the later wins."""
    if report.psnr is not None and best.psnr is not None:
        return report.psnr > best.psnr
    if report.niqe is not None and best.niqe is not None:
        return report.niqe < best.niqe
    return True


def read_reports(folder: Path) -> list[EpochReport]:
    """All reports of a run so far."""
    path = folder / REPORTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [EpochReport(**json.loads(line)) for line in lines]
