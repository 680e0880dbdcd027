"""LPIPS and DISTS against numbers worked out by hand, with weights made for it."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from derain_cli.errors import CheckpointError, ImageError, UnavailableError
from derain_cli.metrics.perceptual import (
    AlexNetFeatures,
    Dists,
    Lpips,
    Vgg16Features,
    load_dists,
    load_lpips,
)

WIDTHS = (64, 192, 384, 256, 256)


def flat(red: int, green: int = 0, side: int = 40) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, 0], np.uint8), (side, side, 3)).copy()


def alexnet_that_copies_red() -> dict[str, torch.Tensor]:
    """Filter 0 of the first layer is the red value in the middle, filter 1 always 1."""
    state = {name: torch.zeros_like(x) for name, x in AlexNetFeatures().state_dict().items()}
    state["features.0.weight"][0, 0, 5, 5] = 1
    state["features.0.bias"][1] = 1
    return state


@pytest.fixture
def lpips_folder(tmp_path: Path) -> Path:
    torch.save(alexnet_that_copies_red(), tmp_path / "alexnet-owt-7be5be79.pth")
    linear = {f"lin{k}.model.1.weight": torch.zeros(1, w, 1, 1) for k, w in enumerate(WIDTHS)}
    linear["lin0.model.1.weight"][0, 0] = 0.5
    linear["lin0.model.1.weight"][0, 1] = 2.0
    torch.save(linear, tmp_path / "alex.pth")
    return tmp_path


def test_lpips_of_flat_images_by_hand(lpips_folder: Path) -> None:
    """Red 255 is (1 + 0.030) / 0.458 after normalising, red 128 is 0.0739; the others are 1."""
    first, second = (1 + 0.030) / 0.458, ((2 * 128 / 255 - 1) + 0.030) / 0.458
    one, other = (np.array([red, 1]) / math.hypot(red, 1) for red in (first, second))
    expected = float(np.array([0.5, 2.0]) @ (one - other) ** 2)
    distance = load_lpips(lpips_folder)
    assert distance(flat(255), flat(128)) == pytest.approx(expected, rel=1e-5)
    assert distance(flat(200), flat(200)) == 0


def test_dists_of_the_image_itself_by_hand(tmp_path: Path) -> None:
    """Weights on the first three channels only: their means and deviations are known."""
    vgg = {name: torch.zeros_like(x) for name, x in Vgg16Features().state_dict().items()}
    save_file(vgg, tmp_path / "vgg16.safetensors")
    channels = 3 + sum(Vgg16Features.widths)
    alpha, beta = torch.zeros(1, channels, 1, 1), torch.zeros(1, channels, 1, 1)
    alpha[0, 0], beta[0, 1] = 3.0, 1.0
    torch.save({"alpha": alpha, "beta": beta}, tmp_path / "dists.pt")
    first, second = flat(255, 0), flat(51, 0)
    first[:, ::2, 1], second[:, ::2, 1] = 255, 51  # half of the columns: variances 1/4 and 1/100
    # Means of red 1 and 0.2: 0.4 / 1.04. Green: covariance 0.05, variances 0.25 and 0.01.
    texture, structure = 0.4 / 1.04, 0.1 / 0.26
    distance = load_dists(tmp_path)
    assert distance(first, second) == pytest.approx(1 - (3 * texture + structure) / 4, abs=1e-5)
    assert distance(first, first) == pytest.approx(0, abs=1e-6)


def test_the_pooling_of_dists_by_hand() -> None:
    """A lone 1 under the blur's taps (1 2 1) / 4: its corner sees a sixteenth."""
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 1] = 1
    pooled = Vgg16Features()._pool(x)
    assert pooled[0, 0].tolist() == [
        [pytest.approx(0.25), pytest.approx(0.25)],
        [pytest.approx(0.25), pytest.approx(0.25)],
    ]


def test_random_weights_order_images_by_distortion() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (48, 56, 3), dtype=np.uint8)
    lpips = Lpips().eval()
    for weights in lpips.weights:
        torch.nn.init.constant_(weights, 1.0)
    for distance in (lpips, Dists().eval()):
        noisy = [np.clip(clean + rng.normal(0, s, clean.shape), 0, 255) for s in (3, 60)]
        near, far = (distance(x.astype(np.uint8), clean) for x in noisy)
        assert 0 < near < far


@pytest.mark.parametrize("load", [load_lpips, load_dists])
def test_without_weights_one_line_says_where_they_come_from(load, tmp_path: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"needs published weights: put .* authors"
    ) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_the_folder_comes_from_the_environment(lpips_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("DERAIN_METRIC_WEIGHTS", str(lpips_folder))
    assert load_lpips()(flat(9), flat(9)) == 0


def test_other_weights_and_hostile_files_are_refused(lpips_folder: Path) -> None:
    torch.save({"lin0.model.1.weight": torch.zeros(1, 7, 1, 1)}, lpips_folder / "alex.pth")
    with pytest.raises(CheckpointError, match=r"tensor 'lin0.model.1.weight' is \(1, 7, 1, 1\)"):
        load_lpips(lpips_folder)
    (lpips_folder / "alex.pth").write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load_lpips(lpips_folder)


def test_tiny_images_are_refused() -> None:
    with pytest.raises(ImageError, match="30x30 is too small for LPIPS"):
        Lpips()(flat(1, side=30), flat(2, side=30))
