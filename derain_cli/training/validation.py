"""Scores of a network on whole held-out images, and example images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.full_reference import psnr
from derain_cli.models import entry_of
from derain_cli.training import phases
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.samples import Source
from derain_cli.training.optimization import autocast, to_device

Pixels = NDArray[np.uint8]
# A dry image that comes back unchanged scores infinity, which would swamp a mean; 60 dB already
# looks equal.
HIGHEST_PSNR = 60.0
# Larger images than this squared go through the network in tiles.
WHOLE_SIDE = 1024


@dataclass(frozen=True)
class Validation:
    """Results of a validation.

    Attributes:
        scores: Mean PSNR (luma) of each source's held-out images.
        psnr: Mean over the sources; None if none has held-out images.
        images: Source's name and rainy, derained, clean and rain side by side, for looking.
    """

    scores: dict[str, float]
    psnr: float | None
    images: tuple[tuple[str, Pixels], ...]


def validate(network: nn.Module, sources: Sequence[Source], config: TrainConfig) -> Validation:
    """Score a network, which must be in eval mode, on the held-out images of all sources."""
    scores: dict[str, float] = {}
    images: list[tuple[str, Pixels]] = []
    done, total = 0, sum(source.held_out_count for source in sources)
    for source in sources:
        psnrs: list[float] = []
        for rainy, clean in source.validation():
            done += 1
            phases.say("validating", done, total)
            derained = derain(network, rainy, config)
            if len(psnrs) < config.images:
                name = f"{source.name}-{len(psnrs)}" if config.images > 1 else source.name
                images.append((name, side_by_side(rainy, derained, clean)))
            psnrs.append(min(psnr(derained, clean, "y"), HIGHEST_PSNR))
        if psnrs:
            scores[source.name] = float(np.mean(psnrs))
    mean = float(np.mean(list(scores.values()))) if scores else None
    return Validation(scores, mean, tuple(images))


@torch.inference_mode()
def derain(network: nn.Module, rainy: Pixels, config: TrainConfig) -> Pixels:
    """Derained 8-bit image in the run's precision, large ones in tiles."""
    device = next(network.parameters()).device
    if rainy.shape[0] * rainy.shape[1] > WHOLE_SIDE**2:
        entry = entry_of(network)
        in_tiles = Derainer(
            network, entry, name=config.model, device=str(device), precision=config.precision
        )
        return in_tiles(rainy)
    image = to_device(as_batch(rainy), device)
    with autocast(config, device):
        derained = network(image)[0].float()
    pixels: Pixels = (derained.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def as_batch(pixels: Pixels) -> NDArray[np.float32]:
    """`(1, 3, height, width)` in 0..1."""
    return np.asarray(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255, np.float32)


def side_by_side(rainy: Pixels, derained: Pixels, clean: Pixels) -> Pixels:
    """Rainy, derained, clean and the rain taken out (rainy - derained), from left to right.

    Example:
        >>> white, gray = np.full((1, 1, 3), 255, np.uint8), np.full((1, 1, 3), 55, np.uint8)
        >>> side_by_side(white, gray, gray)[0, :, 0].tolist()
        [255, 55, 55, 200]
    """
    rain = np.clip(rainy.astype(np.int16) - derained, 0, 255).astype(np.uint8)
    return np.concatenate((rainy, derained, clean, rain), axis=1)


def statistics_images(
    draw: Callable[[np.random.Generator], Pixels], seed: int, count: int, device: torch.device
) -> Iterator[Tensor]:
    """Whole rainy training images `(1, 3, height, width)`, the same ones for the same seed.

    Of sides longer than `WHOLE_SIDE` the middle is used.
    """
    for index in range(count):
        pixels = draw(np.random.default_rng([seed, index]))
        top, left = (max(0, side - WHOLE_SIDE) // 2 for side in pixels.shape[:2])
        middle = pixels[top : top + WHOLE_SIDE, left : left + WHOLE_SIDE]
        yield to_device(as_batch(middle), device)


def file_name(step: int, source: str) -> str:
    """Name of a validation image.

    Example:
        >>> file_name(500, "pairs:/data/rain200h")
        'step-0000500-pairs-data-rain200h.png'
    """
    plain = "-".join(filter(None, (_plain(part) for part in source.replace(":", "/").split("/"))))
    return f"step-{step:07}-{plain[-60:]}.png"


def _plain(text: Any) -> str:  # noqa: ANN401
    return "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in str(text))
