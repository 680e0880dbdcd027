import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from skimage import data as photos

from derain_cli.errors import CheckpointError, ImageError
from derain_cli.metrics.full_reference import full_range_luma
from derain_cli.metrics.niqe import (
    BUNDLED_MODEL,
    FEATURES,
    NiqeModel,
    _fit_aggd,
    _fit_ggd,
    fit_niqe_model,
    load_niqe_model,
    niqe,
    save_niqe_model,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
PHOTOS = {
    "astronaut": lambda: photos.astronaut(),
    "coffee": lambda: photos.coffee(),
    "cat": lambda: photos.chelsea(),
}


@pytest.fixture(params=PHOTOS)
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    return np.ascontiguousarray(PHOTOS[request.param]()[:288, :384])


@pytest.fixture
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(photos.astronaut()[:288, :384])


def tiles(photo: np.ndarray, side: int, step: int) -> list[np.ndarray]:
    """Overlapping squares: enough patches of one photo to fit a model on."""
    height, width = photo.shape[:2]
    corners = ((y, x) for y in range(0, height - side, step) for x in range(0, width - side, step))
    return [photo[y : y + side, x : x + side] for y, x in corners]


def blurred(photo: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(photo, (0, 0), sigma))


def noisy(photo: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8)


def rained_on(photo: np.ndarray, streaks: int) -> np.ndarray:
    rain = np.zeros(photo.shape[:2], np.uint8)
    random = np.random.default_rng(0)
    for x, y in random.integers(0, (photo.shape[1], photo.shape[0]), (streaks, 2)):
        cv2.line(rain, (int(x), int(y)), (int(x) + 5, int(y) + 18), 130, 1, cv2.LINE_AA)
    return np.minimum(photo.astype(np.uint16) + rain[..., None], 255).astype(np.uint8)


def test_photos_score_better_than_noise(photo: np.ndarray) -> None:
    static = np.random.default_rng(0).integers(0, 256, photo.shape, np.uint8)
    assert 0 < niqe(photo) < niqe(static) / 2


def test_scores_stay_what_they_were(astronaut: np.ndarray) -> None:
    # Printed scores are compared across releases: a change here is a change of the metric.
    assert niqe(astronaut) == pytest.approx(5.192, abs=0.01)


def test_blur_raises_the_score(photo: np.ndarray) -> None:
    scores = [niqe(photo), *(niqe(blurred(photo, sigma)) for sigma in (2, 4))]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 2


def test_noise_raises_the_score(photo: np.ndarray) -> None:
    scores = [niqe(photo), *(niqe(noisy(photo, sigma)) for sigma in (15, 30, 60))]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 2


def test_rain_raises_the_score(photo: np.ndarray) -> None:
    scores = [niqe(photo), *(niqe(rained_on(photo, streaks)) for streaks in (300, 1200))]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 1


def test_enlarging_raises_the_score(photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    larger = cv2.resize(photo, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    assert niqe(np.asarray(larger)) > niqe(photo) + 0.5


def test_same_image_same_score(photo: np.ndarray) -> None:
    before = photo.copy()
    assert niqe(photo) == niqe(photo.copy())
    assert np.array_equal(photo, before)
    # A view with other strides holds the same image.
    assert niqe(np.asfortranarray(photo)) == niqe(photo)


def test_threads_do_not_change_the_score(photo: np.ndarray) -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = niqe(photo)
        cv2.setNumThreads(2)
        assert niqe(photo) == alone
    finally:
        cv2.setNumThreads(threads)


def test_only_luma_counts(photo: np.ndarray) -> None:
    gray = np.repeat(full_range_luma(photo).astype(np.uint8)[..., None], 3, axis=2)
    assert niqe(gray) == pytest.approx(niqe(photo), rel=1e-12)


def test_pixels_beyond_whole_patches_are_not_looked_at(photo: np.ndarray) -> None:
    odd = np.pad(photo, ((0, 95), (0, 95), (0, 0)))
    assert niqe(odd) == niqe(photo)


def test_one_patch_is_enough_and_less_is_refused(photo: np.ndarray) -> None:
    assert 0 < niqe(photo[:96, :96]) < 50
    with pytest.raises(ImageError, match="NIQE needs 96x96 pixels or more, got 384x95"):
        niqe(photo[:95])
    with pytest.raises(ImageError, match="8-bit RGB"):
        niqe(photo.astype(np.float32))


@pytest.mark.parametrize("level", [0, 93, 255])
def test_flat_image_has_no_score(level: int) -> None:
    assert math.isnan(niqe(np.full((200, 200, 3), level, np.uint8)))


def test_flat_patches_are_left_out(photo: np.ndarray) -> None:
    with_sky = np.concatenate((np.full_like(photo, 200), photo))
    # Only the patches' first rows feel the border to the flat part.
    assert niqe(with_sky) == pytest.approx(niqe(photo), rel=0.15)


def generalised_gaussian(shape: float, count: int) -> np.ndarray:
    """`(1, 1, count)` positive draws of scale 1."""
    return np.random.default_rng(3).gamma(1 / shape, size=(1, 1, count)) ** (1 / shape)


@pytest.mark.parametrize("shape", [0.5, 1, 2, 4])
def test_symmetric_fit_recovers_the_distribution(shape: float) -> None:
    values = 3 * generalised_gaussian(shape, 400_000)
    values[..., ::2] *= -1
    found_shape, found_scale = _fit_ggd(values)
    assert found_shape[0] == pytest.approx(shape, rel=0.02)
    assert found_scale[0] == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("shape", [0.5, 1, 2])
def test_asymmetric_fit_recovers_the_distribution(shape: float) -> None:
    left, right = 1.0, 3.0
    values = generalised_gaussian(shape, 400_000)
    # Both sides have one density at 0, so a side's share is that of its scale: 1 to 3.
    values[..., ::4] *= -left
    for start in (1, 2, 3):
        values[..., start::4] *= right
    found = [column[0] for column in _fit_aggd(values)]
    mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
    assert found == pytest.approx([shape, mean, left, right], rel=0.03)


def test_bundled_model_is_a_gaussian() -> None:
    model = load_niqe_model()
    assert np.array_equal(model.covariance, model.covariance.T)
    assert np.linalg.eigvalsh(model.covariance).min() > 0
    assert BUNDLED_MODEL.stat().st_size < 10_000
    with safe_open(BUNDLED_MODEL, "np") as file:
        assert "BSDS500" in file.metadata()["fitted_on"]


def test_distance_from_a_model_computed_by_hand(astronaut: np.ndarray) -> None:
    here = fit_niqe_model(tiles(astronaut, 96, 32))
    stretched = NiqeModel(here.mean, 4 * here.covariance)
    # One patch takes the model's covariance, so twice the spread is half the distance.
    patch = blurred(astronaut[:96, :96], 2)
    assert niqe(patch, stretched) == pytest.approx(niqe(patch, here) / 2, rel=1e-6)
    assert niqe(patch, here) > niqe(astronaut[:96, :96], here)


def test_fit_takes_the_sharp_patches(astronaut: np.ndarray) -> None:
    sharp = tiles(astronaut, 96, 24)
    soft = [blurred(tile, 6) for tile in sharp]
    mixed = [np.concatenate(pair, axis=1) for pair in zip(sharp, soft, strict=True)]
    sharp_mean, soft_mean, mixed_mean = (
        fit_niqe_model(images).mean for images in (sharp, soft, mixed)
    )
    assert np.abs(soft_mean - sharp_mean).max() > 0.5
    assert np.abs(mixed_mean - sharp_mean).max() < 0.1


def test_fit_refuses_too_little(astronaut: np.ndarray) -> None:
    with pytest.raises(ImageError, match=f"0 sharp patches in 0 images cannot fix {FEATURES}"):
        fit_niqe_model([])
    with pytest.raises(ImageError, match="sharp patches in 2 images"):
        fit_niqe_model([astronaut, np.zeros_like(astronaut)])


def test_saved_model_scores_the_same(astronaut: np.ndarray, tmp_path: Path) -> None:
    model = fit_niqe_model(tiles(astronaut, 96, 24))
    path = tmp_path / "niqe.safetensors"
    save_niqe_model(model, path, "one photo")
    loaded = load_niqe_model(path)
    assert np.allclose(loaded.covariance, model.covariance, rtol=1e-6)
    image = blurred(astronaut, 1)
    assert niqe(image, loaded) == pytest.approx(niqe(image, model), rel=1e-2)


def test_missing_and_foreign_models(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no NIQE model in '.*nowhere\.safetensors'"):
        load_niqe_model(tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"no NIQE model in '.*text\.safetensors'"):
        load_niqe_model(tmp_path / "text.safetensors")
    save_file({"weight": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no NIQE model"):
        load_niqe_model(tmp_path / "other.safetensors")
    save_file({"mean": np.zeros(3), "covariance": np.zeros((3, 3))}, tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match=r"has \(3,\) and \(3, 3\) numbers"):
        load_niqe_model(tmp_path / "small.safetensors")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(("dataset", "rise"), [("rain100l", 0.5), ("rain100h", 4)])
def test_rainy_images_score_worse_than_clean_ones(dataset: str, rise: float) -> None:
    folder = DATA / dataset
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/{dataset}")
    rainy = sorted((folder / "rainy").iterdir())[:10]
    clean = [folder / "clean" / f"{path.stem}.jpg" for path in rainy]
    rainy_mean, clean_mean = (
        np.mean([niqe(read(path)) for path in paths]) for paths in (rainy, clean)
    )
    assert 2 < clean_mean < 4
    assert rainy_mean > clean_mean + rise


@pytest.mark.slow
def test_bundled_model_is_what_the_docstring_says() -> None:
    folder = DATA / "bsds_clean"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/bsds_clean")
    paths = sorted(folder.glob("*.jpg"))
    refitted, bundled = fit_niqe_model(read(path) for path in paths), load_niqe_model()
    assert len(paths) == 209
    assert np.allclose(refitted.mean, bundled.mean, rtol=1e-3, atol=1e-4)
    assert np.allclose(refitted.covariance, bundled.covariance, rtol=1e-2, atol=1e-4)
