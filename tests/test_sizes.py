"""Gaussian and Laplacian pyramids: OpenCV's, and what makes them pyramids."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from derain_cli import sizes as pyramids
from derain_cli.sizes import PYRAMIDS, double_size, gaussian_pyramid, laplacian_pyramid


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (33, 46)])
def test_gaussian_pyramid_equals_opencv(size: tuple[int, int]) -> None:
    rainy = image(1, 3, *size)
    theirs = rainy[0].permute(1, 2, 0).numpy()
    for level in gaussian_pyramid(rainy, 2)[1:]:
        theirs = cv2.pyrDown(theirs)
        np.testing.assert_allclose(level[0].permute(1, 2, 0).numpy(), theirs, atol=1e-6)


def test_laplacian_band_equals_opencv_inside() -> None:
    rainy = image(1, 1, 32, 32)
    band = laplacian_pyramid(rainy, 1)[0][0, 0].numpy()
    fine = rainy[0, 0].numpy()
    theirs = fine - cv2.pyrUp(cv2.pyrDown(fine))
    np.testing.assert_allclose(band[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("size", [(16, 20), (17, 23)])
def test_laplacian_pyramid_adds_up_to_the_image(size: tuple[int, int]) -> None:
    rainy = image(2, 3, *size)
    first, second, rest = laplacian_pyramid(rainy, 2)
    half = second + double_size(rest, *second.shape[-2:])
    sum_of_bands = first + double_size(half, *size)
    np.testing.assert_allclose(sum_of_bands.numpy(), rainy.numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [(15, 18), (16, 17)])
def test_an_even_image_has_empty_bands(size: tuple[int, int]) -> None:
    first, second, rest = laplacian_pyramid(torch.full((1, 3, *size), 0.7), 2)
    assert max(first.abs().max().item(), second.abs().max().item()) < 1e-6
    np.testing.assert_allclose(rest.numpy(), 0.7, atol=1e-6)


def test_a_ramp_has_empty_bands_inside() -> None:
    # nothing is shifted: pixel i of the coarser level lies on pixel 2 i of the finer
    ramp = (torch.arange(24) / 24).expand(1, 1, 24, 24)
    band = laplacian_pyramid(ramp, 1)[0]
    assert band[..., 4:-4].abs().max() < 1e-6


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_gradient(kind: str) -> None:
    rainy = image(1, 2, 7, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: PYRAMIDS[kind](x, 2), rainy)


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_autocast_changes_nothing(kind: str) -> None:
    rainy = image(1, 3, 12, 13)
    with torch.autocast("cpu", torch.bfloat16):
        levels = PYRAMIDS[kind](rainy, 2)
    for level, expected in zip(levels, PYRAMIDS[kind](rainy, 2), strict=True):
        assert torch.equal(level, expected)


def test_trains_after_a_validation_under_inference_mode() -> None:
    pyramids._taps.cache_clear()
    rainy = image(1, 3, 8, 8)
    with torch.inference_mode():
        laplacian_pyramid(rainy, 1)
    rainy.requires_grad_()
    laplacian_pyramid(rainy, 1)[0].square().sum().backward()
    assert rainy.grad is not None
