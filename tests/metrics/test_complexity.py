"""Structural complexity: hand-computed cases, properties, and its order of real photos."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from derain_cli.errors import NothingToDoError, UsageError
from derain_cli.metrics.complexity import mean_complexity, scale_complexities, structural_complexity

SHIPPED = Path(skimage.data.__file__).parent

images = arrays(np.uint8, st.tuples(st.integers(1, 17), st.integers(1, 17), st.just(3)))


def photo(name: str) -> NDArray[np.uint8]:
    """A photo that comes with scikit-image; nothing is downloaded."""
    if not any(SHIPPED.glob(f"{name}.*")):
        pytest.skip(f"this scikit-image does not ship {name}")
    loaded: NDArray[np.uint8] = getattr(skimage.data, name)()
    return loaded


def patches(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Patches of 128x128, as the study trains on."""
    rows = range(0, image.shape[0] - 127, 128)
    columns = range(0, image.shape[1] - 127, 128)
    return [image[y : y + 128, x : x + 128] for y in rows for x in columns]


def test_two_scales_by_hand() -> None:
    """Pixels 1/4 away from their blocks, and blocks 1/4 away from the whole."""
    image = np.array([[0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5]])
    fine = 0.25**2 / 2
    assert scale_complexities(image) == pytest.approx((fine,))
    square = np.vstack([image, image])
    coarse = 0.25**2 / 2
    assert scale_complexities(square) == pytest.approx((fine, coarse))
    assert structural_complexity(square) == pytest.approx(fine + coarse)


def test_equals_the_overlaps_of_the_paper() -> None:
    """C_k from O(k, k-1), O(k, k), O(k-1, k-1) of patterns kept at full size."""
    rng = np.random.default_rng(0)
    scales = [rng.random((32, 32))]
    for k in range(1, 6):
        blocks = scales[0].reshape(32 >> k, 1 << k, 32 >> k, 1 << k).mean(axis=(1, 3))
        scales.append(np.kron(blocks, np.ones((1 << k, 1 << k))))
    expected = [
        abs((s * t).mean() - ((s * s).mean() + (t * t).mean()) / 2)
        for s, t in zip(scales[1:], scales[:-1], strict=True)
    ]
    assert scale_complexities(scales[0]) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("shape", [(64, 64), (17, 33, 3), (1, 1)])
def test_constant_image_has_none(value: int, shape: tuple[int, ...]) -> None:
    assert structural_complexity(np.full(shape, value, np.uint8)) == 0.0


@given(images)
def test_within_bounds_and_blind_to_orientation(image: NDArray[np.uint8]) -> None:
    complexity = structural_complexity(image)
    assert 0 <= complexity <= 1 / 8
    assert structural_complexity(image.transpose(1, 0, 2)) == pytest.approx(complexity)
    assert structural_complexity(255 - image) == pytest.approx(complexity)


@given(arrays(np.uint8, (16, 16)))
def test_is_half_the_variance_of_a_square(image: NDArray[np.uint8]) -> None:
    assert structural_complexity(image) == pytest.approx(np.var(image / 255) / 2)


@given(images)
def test_same_for_every_way_to_store_a_image(image: NDArray[np.uint8]) -> None:
    complexity = structural_complexity(image)
    assert structural_complexity(image / 255) == pytest.approx(complexity)
    assert structural_complexity(image.astype(np.uint16) * 257) == pytest.approx(complexity)
    gray = image[..., 0]
    assert structural_complexity(np.dstack([gray] * 3)) == pytest.approx(
        structural_complexity(gray)
    )


def test_odd_rows_and_columns_are_left_out() -> None:
    even = np.random.default_rng(0).random((6, 10))
    odd = np.pad(even, ((0, 1), (0, 1)), constant_values=0.5)
    assert scale_complexities(odd)[0] == pytest.approx(scale_complexities(even)[0])


def test_noise_is_fine_and_photos_are_coarse() -> None:
    """White noise loses 3/4 of its variance at each halving; a photo keeps most of it."""
    noise = np.random.default_rng(0).random((512, 512))
    fine, coarser, *_ = scale_complexities(noise)
    assert fine / structural_complexity(noise) == pytest.approx(3 / 4, abs=0.01)
    assert coarser / fine == pytest.approx(1 / 4, abs=0.01)
    for name in ("camera", "astronaut", "coffee", "chelsea"):
        scales = [scale_complexities(patch) for patch in patches(photo(name))]
        assert np.mean(scales, axis=0)[0] < 0.05 * mean_complexity(patches(photo(name)))


def test_blur_takes_complexity_away_and_contrast_brings_it() -> None:
    camera = photo("camera") / 255
    blurred = (camera[:-1, :-1] + camera[1:, 1:]) / 2
    assert structural_complexity(blurred[:256, :256]) < structural_complexity(camera[:256, :256])
    assert structural_complexity(camera / 2) == pytest.approx(structural_complexity(camera) / 4)


def test_orders_photos_from_plain_to_varied() -> None:
    """Empty ground, then one repeated texture, then scenes of objects, then a portrait."""
    names = ("moon", "brick", "camera", "astronaut")
    complexities = [mean_complexity(patches(photo(name))) for name in names]
    assert complexities == sorted(complexities)
    assert complexities[0] < complexities[-1] / 10


def test_faces_are_more_complex_than_other_patches() -> None:
    """The paper's order of CelebA and DIV2K, on 100 faces and 100 other patches of LFW."""
    lfw = photo("lfw_subset")
    assert mean_complexity(lfw[:100]) > 1.1 * mean_complexity(lfw[100:])


def test_mean_is_over_images() -> None:
    first, second = np.eye(2), np.eye(8)
    expected = (structural_complexity(first) + structural_complexity(second)) / 2
    assert mean_complexity(iter([first, second])) == pytest.approx(expected)


def test_empty_set_is_an_error() -> None:
    with pytest.raises(NothingToDoError, match="no images"):
        mean_complexity([])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5), r"not \(5,\)"),
        (np.zeros((0, 4)), r"not \(0, 4\)"),
        (np.zeros((1, 2, 3, 4)), r"not \(1, 2, 3, 4\)"),
        (np.zeros((4, 4), bool), "not bool"),
    ],
)
def test_no_image_is_an_error(image: NDArray[np.float64], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        structural_complexity(image)
