"""The VGG-19 feature stack: the right layers, and only the right files."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from derain_cli.errors import CheckpointError, UnavailableError
from derain_cli.losses.vgg import PERCEPTUAL_LAYER, Vgg19Features, load_vgg19_features


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A file's worth of weights in the layout of timm; only their shapes are VGG-19's."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.1 * torch.randn(x.shape, generator=generator)).to(dtype)
        for name, x in Vgg19Features().named_parameters()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vgg19.safetensors"


def test_layout_is_the_published_one() -> None:
    shapes = {name: tuple(x.shape) for name, x in Vgg19Features().named_parameters()}
    assert {name: shape for name, shape in shapes.items() if name.endswith("weight")} == {
        "features.0.weight": (64, 3, 3, 3),
        "features.2.weight": (64, 64, 3, 3),
        "features.5.weight": (128, 64, 3, 3),
        "features.7.weight": (128, 128, 3, 3),
        "features.10.weight": (256, 128, 3, 3),
        "features.12.weight": (256, 256, 3, 3),
        "features.14.weight": (256, 256, 3, 3),
        "features.16.weight": (256, 256, 3, 3),
        "features.19.weight": (512, 256, 3, 3),
        "features.21.weight": (512, 512, 3, 3),
        "features.23.weight": (512, 512, 3, 3),
        "features.25.weight": (512, 512, 3, 3),
        "features.28.weight": (512, 512, 3, 3),
    }


def test_maps_are_the_first_of_each_block_after_its_relu(path: Path) -> None:
    """jiang2023 eq. 7: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1; fan-menet: conv3_4."""
    made = weights()
    save_file({**made, "head.fc.weight": torch.zeros(2, 2)}, path)
    image = torch.rand(2, 3, 18, 16, generator=torch.Generator().manual_seed(1))

    def conv(x: Tensor, position: int) -> Tensor:
        name = f"features.{position}"
        return F.conv2d(x, made[f"{name}.weight"], made[f"{name}.bias"], padding=1)

    def relu(x: Tensor, *positions: int) -> Tensor:
        for position in positions:
            x = F.relu(conv(x, position))
        return x

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    relu1_1 = relu((image - mean) / deviation, 0)
    relu2_1 = relu(F.max_pool2d(relu(relu1_1, 2), 2), 5)
    relu3_1 = relu(F.max_pool2d(relu(relu2_1, 7), 2), 10)
    conv3_4 = conv(relu(relu3_1, 12, 14), 16)
    relu4_1 = relu(F.max_pool2d(F.relu(conv3_4), 2), 19)
    relu5_1 = relu(F.max_pool2d(relu(relu4_1, 21, 23, 25), 2), 28)
    network = load_vgg19_features(path)
    expected = [relu1_1, relu2_1, relu3_1, relu4_1, relu5_1]
    torch.testing.assert_close(network(image), expected)
    assert conv3_4.min() < 0  # it is read before its ReLU
    torch.testing.assert_close(network(image, (PERCEPTUAL_LAYER,)), [conv3_4])


def test_weights_never_train_and_half_precision_is_widened(path: Path) -> None:
    save_file(weights(torch.float16), path)
    network = load_vgg19_features(path)
    assert not network.training
    assert not any(x.requires_grad for x in network.parameters())
    assert {x.dtype for x in network.state_dict().values()} == {torch.float32}


def test_missing_file(path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no VGG-19 weights at '.*vgg19\.safetensors'"):
        load_vgg19_features(path)


@pytest.mark.parametrize("content", [pickle.dumps({"features.0.weight": 1}), b"", b"version lfs"])
def test_a_file_that_is_no_safetensors_is_not_read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vgg19\.safetensors' is not a safetensors file"):
        load_vgg19_features(path)


def test_missing_tensor(path: Path) -> None:
    made = weights()
    del made["features.12.bias"]
    save_file(made, path)
    with pytest.raises(CheckpointError, match=r"VGG-19.*has no tensor 'features\.12\.bias'"):
        load_vgg19_features(path)


def test_wrong_shape_names_both(path: Path) -> None:
    save_file({**weights(), "features.5.weight": torch.zeros(128, 128, 3, 3)}, path)
    message = r"'features\.5\.weight' is \(128, 128, 3, 3\) instead of \(128, 64, 3, 3\)"
    with pytest.raises(CheckpointError, match=message):
        load_vgg19_features(path)


@pytest.mark.parametrize("bad", [torch.full((64,), torch.nan), torch.zeros(64, dtype=torch.int64)])
def test_numbers_that_are_none(path: Path, bad: Tensor) -> None:
    save_file({**weights(), "features.2.bias": bad}, path)
    with pytest.raises(CheckpointError, match=r"'features\.2\.bias' holds something else"):
        load_vgg19_features(path)
