"""Rain found at several sizes: part by part as in one piece, and the width that decides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from derain_cli.errors import UsageError
from derain_cli.images import read_image
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.pixels import level_reader, pixel_reader
from derain_cli.inference.scales import enlarged, fitting_scales, shrunken, streak_width
from derain_cli.models import MODELS
from tests.inference.test_derainer import Formula, derainer, noise

GROUND = 100


def opened(rainy: Tensor) -> Tensor:
    """Takes out what is bright and at most two pixels wide, and all that is as narrow."""
    darkest = -F.max_pool2d(-rainy, (1, 3), stride=1, padding=(0, 1))
    return F.max_pool2d(darkest, (1, 3), stride=1, padding=(0, 1))


def halved(rainy: Tensor) -> Tensor:
    """Takes out half of what is brighter than the ground, however wide."""
    return rainy - 0.5 * (rainy - GROUND / 255)


def of(function: Callable[[Tensor], Tensor], **options: object) -> Derainer:
    """A derainer that sees no farther than two pixels."""
    return Derainer(Formula(function), MODELS["resnet"], name="formula", device="cpu", **options)


def striped(width: int, height: int = 128) -> np.ndarray:
    """Bright stripes of a width on flat ground, at irregular places."""
    image = np.full((height, 256, 3), GROUND, np.uint8)
    for left in (8, 52, 100, 160, 212):  # on the grid of quarter sizes
        image[:, left : left + width] = 160
    return image


@pytest.mark.parametrize("shape", [(150, 230), (230, 149), (37, 3)])
@pytest.mark.parametrize("scales", [2, 4])
def test_tiles_equal_the_whole_image(shape: tuple[int, int], scales: int) -> None:
    rainy = noise(*shape)
    whole, facts = derainer(scales=scales, tile=0).run(rainy)
    tiled, tiled_facts = derainer(scales=scales, tile=96).run(rainy)
    assert (facts.tile, facts.scales, tiled_facts.scales) == (0, scales, scales)
    assert tiled_facts.tile == (96 if max(shape) > 96 else 0)
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert np.abs(whole.astype(int) - derainer(tile=0)(rainy)).max() > 1
    levels = rainy.transpose(2, 0, 1)[None].astype(np.float32) / 255
    np.testing.assert_allclose(
        derainer(scales=scales, tile=0).derain_levels(levels),
        derainer(scales=scales, tile=96).derain_levels(levels),
        atol=1e-4,  # a level of float16
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_too_wide_for_a_network_is_found_at_a_smaller_size(dtype: type) -> None:
    rainy = (striped(8) * dtype(np.iinfo(dtype).max // 255)).astype(dtype)
    left = {scales: of(opened, scales=scales)(rainy) for scales in (1, 2, 4)}
    error = {scales: np.abs(left[scales] - rainy[0, 0, 0].astype(float)).mean() for scales in left}
    np.testing.assert_array_equal(left[1], rainy)
    np.testing.assert_array_equal(left[2], rainy)
    assert error[4] < error[1] / 2
    half, _ = of(opened, scales=4).run(rainy, 0.5)
    np.testing.assert_allclose(half, (rainy + left[4].astype(float)) / 2, atol=1)


@pytest.mark.parametrize(("width", "scales"), [(1, 1), (2, 1), (10, 2), (24, 4)])
def test_auto_goes_by_the_width_of_what_is_found(width: int, scales: int) -> None:
    rainy = striped(width)
    derained, facts = of(halved, scales="auto").run(rainy)
    assert facts.scales == scales
    np.testing.assert_array_equal(derained, of(halved, scales=scales)(rainy))
    half, facts = of(halved, scales="auto").run(rainy, 0.5)
    assert facts.scales == scales
    np.testing.assert_array_equal(half, of(halved, scales=scales).run(rainy, 0.5)[0])


def test_auto_decides_for_each_image_of_a_batch() -> None:
    levels = np.stack([striped(width).transpose(2, 0, 1) for width in (2, 24)]) / np.float32(255)
    auto = of(halved, scales="auto").derain_levels(levels)
    for index, scales in enumerate((1, 4)):
        alone = of(halved, scales=scales).derain_levels(levels[index : index + 1])
        np.testing.assert_array_equal(auto[index], alone[0])


def test_a_dry_image_and_a_change_of_tone_have_no_streaks() -> None:
    rainy = read_image(Path(__file__).parents[1] / "samples" / "rocket.jpg").rgb
    brighter = np.minimum(rainy, 245) + 10
    slowly = (rainy * np.linspace(0.8, 1, len(rainy))[:, None, None]).astype(np.uint8)
    for derained in (rainy, brighter, slowly):
        found = streak_width(pixel_reader(rainy), pixel_reader(derained), len(rainy))
        assert fitting_scales(found) == 1


def test_parts_are_those_of_the_whole() -> None:
    levels = np.random.default_rng(0).random((2, 3, 45, 70), np.float32)
    read = shrunken(level_reader(levels), 4, (45, 70))
    whole = read(slice(None), slice(None))
    assert whole.shape == (2, 3, 12, 18)
    np.testing.assert_allclose(whole[..., :11, :17], F.avg_pool2d(_tensor(levels), 4), atol=1e-6)
    np.testing.assert_array_equal(read(slice(3, 99), slice(5, 18)), whole[..., 3:, 5:])
    layer = whole.transpose(0, 2, 3, 1).astype(np.float16)
    large = enlarged(layer, 4, slice(0, 45), slice(0, 70))
    linear = F.interpolate(_tensor(layer.transpose(0, 3, 1, 2)), scale_factor=4, mode="bilinear")
    np.testing.assert_allclose(large.transpose(0, 3, 1, 2), linear[..., :45, :70], atol=1e-5)
    part = enlarged(layer, 4, slice(13, 31), slice(21, 66))
    np.testing.assert_array_equal(part, large[:, 13:31, 21:66])


def _tensor(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(levels, np.float32))


def test_progress_covers_all_sizes() -> None:
    shares: list[float] = []
    derainer(scales=4, tile=32, tile_overlap=0).run(noise(100, 70), on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert shares[0] < 0.05


def test_scales_go_with_passes_and_turns() -> None:
    rainy = striped(8)
    derained, facts = of(opened, scales=4, passes=2, tta=True).run(rainy)
    assert facts.scales == 4
    assert np.abs(derained - float(GROUND)).mean() < np.abs(rainy - float(GROUND)).mean() / 1.5


@pytest.mark.parametrize("scales", [0, 3, 8, "2", "fine"])
def test_other_scales_are_refused(scales: object) -> None:
    with pytest.raises(UsageError, match=f"scales must be 1, 2, 4 or auto, not {scales}"):
        derainer(scales=scales)
