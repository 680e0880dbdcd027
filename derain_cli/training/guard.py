"""The guard of an adaptation: which epochs made things worse, and which was best."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPORTS = "epochs.jsonl"
# Mean squared rain may shrink or grow by this before it counts as a collapse: twice the amplitude.
ENERGY_LIMIT = 4.0
# A quarter of an 8-bit level, squared: less rain than that is none.
NO_ENERGY = (0.25 / 255) ** 2
# NIQE of the same photos hardly moves by itself; 2 % is a change of their look.
NIQE_LIMIT = 1.02
# What real rain may cost in dB of the labelled rain that the network came with.
PSNR_LIMIT = 0.3


@dataclass(frozen=True)
class EpochReport:
    """What the real photos look like after an epoch; 0 is before the first.

    Attributes:
        change: Mean absolute change since the pseudo-truth that was learnt from, in 0..1.
        rain_energy: Mean square of rainy - derained.
        niqe: Mean over the photos of 96 pixels and more; None without any.
        psnr: Of the held-out labelled images (luma, dB); None without any.
        warming: Before self-training proper: not compared.
        worse: Why it counts as worse than the first one compared; "" if it does not.
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
    # Of what was not measured in both nothing is said.
    psnrs = (reference.psnr or 0.0, report.psnr or math.inf)
    if psnrs[1] < psnrs[0] - PSNR_LIMIT:
        return f"PSNR fell from {psnrs[0]:.2f} to {psnrs[1]:.2f} dB"
    niqes = (reference.niqe or math.inf, report.niqe or 0.0)
    if niqes[1] > NIQE_LIMIT * niqes[0]:
        return f"NIQE rose from {niqes[0]:.2f} to {niqes[1]:.2f}"
    return ""


def best_of(reports: Sequence[EpochReport]) -> EpochReport | None:
    """The epoch whose network is `best.safetensors`; None before there is one.

    Example:
        >>> best_of([EpochReport(0, 0, 1, kept=True), EpochReport(1, 0, 2)]).epoch
        0
    """
    return next((report for report in reversed(reports) if report.kept), None)


def scores_better(report: EpochReport, best: EpochReport) -> bool:
    """By PSNR of labelled pairs, else by NIQE, else for being later."""
    if report.psnr is not None and best.psnr is not None:
        return report.psnr > best.psnr
    if report.niqe is not None and best.niqe is not None:
        return report.niqe < best.niqe
    return True


def read_reports(folder: Path) -> list[EpochReport]:
    """The reports of a run; none before its first."""
    path = folder / REPORTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [EpochReport(**json.loads(line)) for line in lines]
