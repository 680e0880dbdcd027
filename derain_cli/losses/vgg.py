"""VGG-19 up to relu5_1, fixed, as the space in which two losses compare images.

Network: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, configuration E. Weights: a safetensors file in the layout of timm and
torchvision (`features.0.weight` ...), for instance `model.safetensors` of `timm/vgg19.tv_in1k`
(BSD-3-Clause). Nothing is downloaded here.

jiang2023 (RDMC, eq. 6-7) reads five maps for its contrastive prior, fan-menet (Table IV) one for
its perceptual loss.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from derain_cli.errors import CheckpointError, UnavailableError

# Positions in the published stack, ReLUs and pools counted, from 0. Paper (jiang2023): "i = 1, 3,
# 5, 9, 13". We read these as the 1st, 3rd, 5th, 9th and 13th convolution, the first of each block,
# after their ReLUs: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
CONTRAST_LAYERS = (1, 6, 11, 20, 29)
# Paper (fan-menet): "the forth convolution before the third max-pooling": conv3_4, before its ReLU.
PERCEPTUAL_LAYER = 16
# Widths of the convolutions of each block; a pooling stands between blocks.
BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,))
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Vgg19Features(nn.Module):
    """VGG-19 as far as its last layer in use, position 29 (relu5_1); weights never train."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, widths in enumerate(BLOCKS):
            layers += [nn.MaxPool2d(2)] if number else []
            for outputs in widths:
                # Not in place: a convolution that is read before its ReLU would be overwritten.
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(3, 1, 1), persistent=False)
        self.requires_grad_(requires_grad=False)

    def forward(self, image: Tensor, layers: Sequence[int] = CONTRAST_LAYERS) -> list[Tensor]:
        """The maps at some positions, each `(batch, channels, height / 2^k, width / 2^k)`.

        Paper: does not say how images are normalised. We do what these weights were trained with:
        ImageNet's mean and deviation.

        Args:
            image: `(batch, 3, height, width)` in 0..1, at least 16x16 for the last map.
            layers: Positions to read; those of jiang2023, eq. 7, when left out.
        """
        x = (image - self.mean) / self.deviation
        maps = []
        for position in range(max(layers) + 1):
            x = self.features[position](x)
            if position in layers:
                maps.append(x)
        return maps


def load_vgg19_features(path: str | Path) -> Vgg19Features:
    """The feature network with the weights of a file; only the layers in use are read.

    Args:
        path: A safetensors file in the layout of timm and torchvision; more tensors may be in it.

    Raises:
        UnavailableError: There is no such file.
        CheckpointError: It is no safetensors file, or not of VGG-19: a tensor is missing, has
            another shape, or holds anything but finite floating-point numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise UnavailableError(
            f"no VGG-19 weights at {str(path)!r}. Give model.safetensors of timm/vgg19.tv_in1k, "
            "or train without the contrastive prior (`contrastive` 0)"
        )
    network = Vgg19Features()
    expected = {name: tuple(x.shape) for name, x in network.named_parameters()}
    try:
        with safe_open(path, framework="pt") as file:
            missing = sorted(expected.keys() - file.keys())
            if missing:
                raise CheckpointError(f"{_not_vgg19(path)}: it has no tensor {missing[0]!r}")
            weights = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is not a safetensors file: {error}") from error
    for name, shape in expected.items():
        _check_weight(path, name, weights[name], shape)
    network.load_state_dict(weights)
    return network.eval()


def _check_weight(path: Path, name: str, weight: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(weight.shape) != shape:
        raise CheckpointError(
            f"{_not_vgg19(path)}: tensor {name!r} is {tuple(weight.shape)} instead of {shape}"
        )
    if not weight.is_floating_point() or not weight.isfinite().all():
        raise CheckpointError(
            f"{_not_vgg19(path)}: tensor {name!r} holds something else than finite numbers"
        )


def _not_vgg19(path: Path) -> str:
    return f"{str(path)!r} does not hold the weights of VGG-19 (without batch norm)"
