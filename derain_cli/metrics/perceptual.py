"""LPIPS and DISTS: distances between images in the features of a network that recognises objects.

LPIPS: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric", CVPR 2018, version 0.1 with AlexNet, the one most papers print.
DISTS: K. Ding, K. Ma, S. Wang, E. Simoncelli, "Image Quality Assessment: Unifying Structure and
Texture Similarity", TPAMI 2022. Both are 0 for equal images, and lower is better.

The weights are published by their authors and are not part of this program: the user puts the files
into a folder, `$DERAIN_METRIC_WEIGHTS` or `~/.cache/derain/metrics`. Pickled files are read with
`weights_only`, so that they can hold tensors and nothing that runs.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from derain_cli.errors import CheckpointError, ImageError, UnavailableError, first_line
from derain_cli.whole_files import cache_folder

Pixels = NDArray[np.uint8]

WEIGHTS_VARIABLE = "DERAIN_METRIC_WEIGHTS"
LPIPS_MEAN, LPIPS_DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS_EPSILON = 1e-10
DISTS_EPSILON = 1e-6
# Below this, AlexNet's second pooling has nothing left to pool.
SHORTEST_LPIPS_SIDE = 31
SHORTEST_DISTS_SIDE = 16


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    Attributes:
        names: Patterns of file names under which it circulates.
        source: Where it comes from, to print.
    """

    names: tuple[str, ...]
    source: str


FILES: Mapping[str, WeightsFile] = {
    "alexnet": WeightsFile(
        ("alexnet*.pth", "alexnet*.safetensors"),
        "alexnet-owt-7be5be79.pth of https://download.pytorch.org/models/",
    ),
    "lpips": WeightsFile(
        ("alex.pth", "lpips*.pth", "lpips*.safetensors"),
        "alex.pth of the LPIPS authors' release, version 0.1",
    ),
    "vgg16": WeightsFile(
        ("vgg16*.pth", "vgg16*.safetensors"),
        "model.safetensors of timm/vgg16.tv_in1k on the Hub, saved as vgg16.safetensors",
    ),
    "dists": WeightsFile(
        ("dists*.pt", "dists*.pth", "dists*.safetensors"),
        "weights.pt of the DISTS authors' release, saved as dists.pt",
    ),
}


class AlexNetFeatures(nn.Module):
    """The five convolutions of AlexNet (A. Krizhevsky's one-tower version), each after its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 64, 11, stride=4, padding=2),
                "3": nn.Conv2d(64, 192, 5, padding=2),
                "6": nn.Conv2d(192, 384, 3, padding=1),
                "8": nn.Conv2d(384, 256, 3, padding=1),
                "10": nn.Conv2d(256, 256, 3, padding=1),
            }
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Five maps of 64, 192, 384, 256 and 256 channels from a normalised image."""
        maps = []
        for position, convolution in self.features.items():
            if position in ("3", "6"):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(convolution(x))
            maps.append(x)
        return maps


class Vgg16Features(nn.Module):
    """VGG-16 with the pooling of DISTS: the square root of blurred squares instead of a maximum."""

    stages = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    widths = (64, 128, 256, 512, 512)
    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict()
        before = 3
        for positions, width in zip(self.stages, self.widths, strict=True):
            for position in positions:
                self.features[str(position)] = nn.Conv2d(before, width, 3, padding=1)
                before = width
        taps = torch.tensor([0.25, 0.5, 0.25])  # the inner three of a Hann window of five
        self.register_buffer("blur", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Five maps, one per stage, from a normalised image."""
        maps = []
        for stage, positions in enumerate(self.stages):
            x = self._pool(x) if stage else x
            for position in positions:
                x = F.relu(self.features[str(position)](x))
            maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.blur.expand(channels, 1, 3, 3)
        return (F.conv2d(x**2, kernel, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


class Lpips(nn.Module):
    """LPIPS 0.1: `network(derained, clean)` is a distance, from 0 to about 1."""

    def __init__(self) -> None:
        super().__init__()
        self.alexnet = AlexNetFeatures()
        self.weights = nn.ParameterList(
            torch.zeros(convolution.out_channels)
            for convolution in self.alexnet.features.values()
            if isinstance(convolution, nn.Conv2d)
        )

    @torch.inference_mode()
    def forward(self, first: Pixels, second: Pixels) -> float:
        """Distance of two images `(height, width, 3)` uint8 of one size.

        Raises:
            ImageError: A side is shorter than 31 pixels.
        """
        _require_sides("LPIPS", first, SHORTEST_LPIPS_SIDE)
        both = 2 * _as_batch(first, second, self.weights[0].device) - 1
        total = 0.0
        for weights, maps in zip(
            self.weights, self.alexnet(_normalised(both, LPIPS_MEAN, LPIPS_DEVIATION)), strict=True
        ):
            length = maps.square().sum(dim=1, keepdim=True).sqrt()
            one, other = maps / (length + LPIPS_EPSILON)
            total += float(((one - other).square() * weights[:, None, None]).sum(dim=0).mean())
        return total


class Dists(nn.Module):
    """DISTS: `network(derained, clean)` is a distance from 0 to about 1. Nothing is resized."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg16 = Vgg16Features()
        channels = 3 + sum(Vgg16Features.widths)
        self.alpha, self.beta = (nn.Parameter(torch.ones(channels)) for _ in range(2))

    @torch.inference_mode()
    def forward(self, first: Pixels, second: Pixels) -> float:
        """Distance of two images `(height, width, 3)` uint8 of one size.

        Raises:
            ImageError: A side is shorter than 16 pixels.
        """
        _require_sides("DISTS", first, SHORTEST_DISTS_SIDE)
        both = _as_batch(first, second, self.alpha.device)
        maps = [both, *self.vgg16(_normalised(both, IMAGENET_MEAN, IMAGENET_DEVIATION))]
        alike = list(zip(*map(_texture_and_structure, maps), strict=True))
        texture, structure = (torch.cat(parts) for parts in alike)
        weights = float(self.alpha.sum() + self.beta.sum())
        likeness = float((self.alpha * texture).sum() + (self.beta * structure).sum())
        return 1 - likeness / weights


def _texture_and_structure(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel: how alike are the means, and how alike the deviations from them."""
    one, other = maps.flatten(2).double()
    mean, other_mean = one.mean(dim=1), other.mean(dim=1)
    variance, other_variance = one.var(dim=1, correction=0), other.var(dim=1, correction=0)
    covariance = (one * other).mean(dim=1) - mean * other_mean
    texture = (2 * mean * other_mean + DISTS_EPSILON) / (
        mean.square() + other_mean.square() + DISTS_EPSILON
    )
    structure = (2 * covariance + DISTS_EPSILON) / (variance + other_variance + DISTS_EPSILON)
    return texture.float(), structure.float()


def _as_batch(first: Pixels, second: Pixels, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.stack((first, second))).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255


def _normalised(x: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    shift, scale = (x.new_tensor(values).view(3, 1, 1) for values in (mean, deviation))
    return (x - shift) / scale


def _require_sides(name: str, image: Pixels, shortest: int) -> None:
    height, width = image.shape[:2]
    if min(height, width) < shortest:
        raise ImageError(f"{width}x{height} is too small for {name}, which needs {shortest} pixels")


def metric_weights_folder() -> Path:
    """Where the weights of LPIPS and DISTS are looked for."""
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    return Path(chosen).expanduser() if chosen else cache_folder() / "metrics"


def load_lpips(folder: Path | None = None) -> Lpips:
    """LPIPS with the published weights of a folder (`metric_weights_folder` by default).

    Raises:
        UnavailableError: A file is not there; says where it comes from.
        CheckpointError: A file is damaged or holds something else.
    """
    network = Lpips()
    places = _find("lpips", ("alexnet", "lpips"), folder or metric_weights_folder())
    _fill(places["alexnet"], dict(network.alexnet.named_parameters()))
    linear = {f"lin{k}.model.1.weight": weights for k, weights in enumerate(network.weights)}
    _fill(places["lpips"], linear)
    return network.eval().requires_grad_(requires_grad=False)


def load_dists(folder: Path | None = None) -> Dists:
    """DISTS with the published weights of a folder (`metric_weights_folder` by default).

    Raises:
        UnavailableError: A file is not there; says where it comes from.
        CheckpointError: A file is damaged or holds something else.
    """
    network = Dists()
    places = _find("dists", ("vgg16", "dists"), folder or metric_weights_folder())
    _fill(places["vgg16"], dict(network.vgg16.named_parameters()))
    _fill(places["dists"], {"alpha": network.alpha, "beta": network.beta})
    return network.eval().requires_grad_(requires_grad=False)


def _find(metric: str, parts: Sequence[str], folder: Path) -> dict[str, Path]:
    places = {part: next(_named(folder, FILES[part].names), None) for part in parts}
    missing = [FILES[part].source for part, place in places.items() if place is None]
    if missing:
        raise UnavailableError(
            f"metric {metric!r} needs published weights: put {' and '.join(missing)} into "
            f"{str(folder)!r}, or set {WEIGHTS_VARIABLE} to their folder"
        )
    return {part: place for part, place in places.items() if place is not None}


def _named(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _fill(path: Path, parameters: Mapping[str, Tensor]) -> None:
    """Copy tensors of a file into parameters of as many elements; others in it are left alone."""
    stored = _read_tensors(path)
    for name, parameter in parameters.items():
        tensor = stored.get(name)
        if tensor is None or tensor.numel() != parameter.numel() or not tensor.isfinite().all():
            shape = "missing" if tensor is None else str(tuple(tensor.shape))
            raise CheckpointError(
                f"{str(path)!r} does not hold these weights: tensor {name!r} is {shape}, expected "
                f"finite numbers of shape {tuple(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(tensor.reshape(parameter.shape))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes a reader raise
        raise CheckpointError(
            f"{str(path)!r} cannot be read as weights: {first_line(error)}"
        ) from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{str(path)!r} holds no table of tensors")
    return {str(name): value for name, value in stored.items() if isinstance(value, Tensor)}
