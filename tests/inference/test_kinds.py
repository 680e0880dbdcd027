"""Every kind of image goes through a Derainer and comes back as it was."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from derain_cli.errors import UsageError
from derain_cli.images import Picture
from derain_cli.inference.derainer import Derainer, derain
from derain_cli.models import MODELS

HALF = 0.5


class Darker(nn.Module):
    """Every level times a half."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy * HALF


@pytest.fixture
def derainer() -> Derainer:
    return Derainer(Darker(), MODELS["resnet"], name="darker", device="cpu")


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_whole_numbers_keep_their_type_and_shape(derainer, dtype, channels):
    image = (values(9, 13, *channels) * np.iinfo(dtype).max).astype(dtype)
    result = derainer(image)
    assert (result.dtype, result.shape) == (image.dtype, image.shape)
    np.testing.assert_allclose(result, image * HALF, atol=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_type_and_are_not_rounded_to_levels(derainer, dtype):
    image = values(9, 13, 3).astype(dtype)
    result = derainer(image)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, image * HALF, atol=1e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_not_touched(derainer, channels):
    image = (values(9, 13, channels) * 255).astype(np.uint8)
    result = derainer(image)
    np.testing.assert_array_equal(result[..., -1], image[..., -1])
    np.testing.assert_allclose(result[..., :-1], image[..., :-1] * HALF, atol=1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images_keep_their_mode_and_what_they_carry(derainer, mode):
    shape = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    levels = np.uint16 if mode == "I;16" else np.uint8
    image = Image.fromarray((values(9, 13, *shape) * np.iinfo(levels).max).astype(levels))
    assert image.mode == mode
    image.info["icc_profile"] = b"profile"
    result = derainer(image)
    assert (result.mode, result.size) == (mode, image.size)
    assert result.info["icc_profile"] == b"profile"


@pytest.mark.parametrize(("mode", "becomes"), [("I", "I"), ("I;16B", "I;16"), ("I;16L", "I;16")])
def test_16_bits_in_any_mode_are_not_cut_at_255(derainer, mode, becomes):
    values_of_16_bits = np.array([[0, 1000], [30000, 65535]], np.uint16)
    order = ">u2" if mode == "I;16B" else "<u2"
    if mode == "I":
        image = Image.fromarray(values_of_16_bits.astype(np.int32))
    else:
        image = Image.frombytes(mode, (2, 2), values_of_16_bits.astype(order).tobytes())
    assert image.mode == mode
    result = derainer(image)
    assert result.mode == becomes
    np.testing.assert_allclose(np.asarray(result), values_of_16_bits * HALF, atol=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "mode F says nothing of its range"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "0 to 65535, not 0 to 70000"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "0 to 65535, not -1 to 0"),
    ],
)
def test_pil_images_of_no_known_range_are_refused(derainer, image, message):
    with pytest.raises(UsageError, match=message):
        derainer(image)


def test_a_palette_becomes_rgb_and_its_transparency_alpha(derainer):
    image = Image.fromarray((values(9, 13) * 8).astype(np.uint8), mode=None).convert("P")
    assert derainer(image).mode == "RGB"
    image.info["transparency"] = 0
    assert derainer(image).mode == "RGBA"


def test_cmyk_becomes_rgb_without_the_profile_of_its_inks(derainer):
    image = Image.fromarray((values(9, 13, 4) * 255).astype(np.uint8), "CMYK")
    image.info |= {"icc_profile": b"inks", "dpi": (300, 300)}
    result = derainer(image)
    assert (result.mode, result.info) == ("RGB", {"dpi": (300, 300)})
    assert derainer(Image.new("La", (13, 9))).mode == "LA"


@pytest.mark.parametrize("shape", [(3, 9, 13), (1, 9, 13), (2, 3, 9, 13)])
def test_tensors_keep_type_shape_and_values(derainer, shape):
    levels = torch.rand(shape)
    torch.testing.assert_close(derainer(levels), levels * HALF)
    assert derainer(levels.double()).dtype == torch.float64
    whole = (levels * 255).round().to(torch.uint8)
    result = derainer(whole)
    assert result.dtype == torch.uint8
    assert (result.float() - whole.float() * HALF).abs().max() <= 1


def test_a_picture_keeps_everything_but_its_pixels(derainer):
    picture = Picture((values(9, 13, 3) * 255).astype(np.uint8), gray=False, format="webp")
    result = derainer(picture)
    assert isinstance(result, Picture)
    assert result.format == "webp"
    np.testing.assert_allclose(result.rgb, picture.rgb * HALF, atol=1)


def test_a_list_comes_back_as_a_list_of_the_same_kinds(derainer):
    images = [values(9, 13, 3), torch.rand(3, 8, 8), Image.new("L", (5, 7), 100)]
    first, second, third = derainer(images)
    assert isinstance(first, np.ndarray)
    assert isinstance(second, Tensor)
    assert third.getpixel((0, 0)) == 50


def test_strength_leaves_part_of_the_rain_in_every_kind(derainer):
    image = np.full((8, 8, 3), 0.8, np.float32)
    np.testing.assert_allclose(derainer(image, strength=0.5), 0.6, atol=1e-6)
    np.testing.assert_array_equal(derainer(image, strength=0), image)
    tensor = torch.full((3, 8, 8), 0.8)
    torch.testing.assert_close(derainer(tensor, strength=0.5), torch.full((3, 8, 8), 0.6))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("photo.jpg", "not str; read_image reads one from a path"),
        (None, "a Picture, a PIL image, an array or a tensor, not NoneType"),
        (np.zeros((2, 3, 4, 5)), "not 2x3x4x5; give several images as a list"),
        (np.zeros((4, 4, 3), np.int64), "uint8 or uint16, not 4x4x3 of int64"),
        (np.full((4, 4, 3), 255.0), r"must lie in 0\.\.1, not 255\.\.255; divide by its white"),
        (np.full((4, 4, 3), np.nan), r"must lie in 0\.\.1"),
        (np.zeros((0, 4, 3)), "nothing in it"),
        (torch.zeros(4, 4), "must be .channels, height, width."),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"uint8, or float in 0\.\.1, not torch.int64"),
    ],
)
def test_what_is_no_image_is_one_clear_line(derainer, image, message):
    with pytest.raises(UsageError, match=message):
        derainer(image)


def test_repr_names_weights_device_and_precision(derainer):
    assert repr(derainer) == "Derainer('darker', device='cpu', precision='fp32', engine='torch')"


def test_derain_takes_weights_by_name():
    image = (values(24, 32, 3) * 255).astype(np.uint8)
    expected = Derainer.load("menet-real", device="cpu")(image)
    np.testing.assert_array_equal(derain(image, "menet-real", device="cpu"), expected)
