"""The first layers of VGG-19, fixed, as the space of RDMC's contrastive prior (eq. 6-7).

Network: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, configuration E. Weights: a safetensors file in the layout of timm and
torchvision (`features.0.weight` ...), for instance `model.safetensors` of `timm/vgg19.tv_in1k`
(BSD-3-Clause). Nothing is downloaded here.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from derain_cli.errors import CheckpointError, UnavailableError

# Positions in the published stack, ReLUs and pools counted, from 0: relu1_1, relu1_2, conv2_1,
# pool2, relu3_2.
CONTRAST_LAYERS = (1, 3, 5, 9, 13)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Vgg19Features(nn.Module):
    """VGG-19 as far as its last layer in use, position 13 (relu3_2); weights never train."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        # ReLUs are not in place: position 5 is read before its ReLU, which would overwrite it.
        self.features = nn.Sequential(
            *_convolution(3, 64),
            *_convolution(64, 64),
            nn.MaxPool2d(2),
            *_convolution(64, 128),
            *_convolution(128, 128),
            nn.MaxPool2d(2),
            *_convolution(128, 256),
            *_convolution(256, 256),
        )
        mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", deviation.view(3, 1, 1), persistent=False)
        self.requires_grad_(requires_grad=False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """The five maps of RDMC eq. 7, each `(batch, channels, height / 2^k, width / 2^k)`.

        Paper: does not say how pictures are normalised. We do what these weights were trained with:
        ImageNet's mean and deviation.

        Args:
            picture: `(batch, 3, height, width)` in 0..1, at least 4x4.
        """
        x = (picture - self.mean) / self.deviation
        maps = []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in CONTRAST_LAYERS:
                maps.append(x)
        return maps


def load_vgg19_features(path: str | Path) -> Vgg19Features:
    """The feature network with the weights of a file; only the six layers in use are read.

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


def _convolution(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.ReLU]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()


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
