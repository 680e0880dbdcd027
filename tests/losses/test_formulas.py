"""Every loss: a hand-computed case, a float64 gradcheck, and what the papers ask of it."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from derain_cli.errors import ConfigError
from derain_cli.losses import formulas as losses
from derain_cli.losses.vgg import Vgg19Features, load_vgg19_features
from derain_cli.sizes import PYRAMIDS, laplacian_pyramid

Loss = Callable[[Tensor, Tensor], Tensor]


def pictures(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TinyFeatures(nn.Module):
    """A feature network of two maps, small enough to check by differences."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, stride=2)
        for seed, weight in enumerate(self.parameters()):
            weight.data = pictures(*weight.shape, seed=seed) - 0.5

    def forward(self, picture: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(picture))
        return [first, self.second(first)]


@pytest.fixture
def tiny() -> TinyFeatures:
    return TinyFeatures().requires_grad_(requires_grad=False)


# --- gradients: all losses against finite differences in float64

SMALL = (2, 3, 5, 6)
LARGE = (1, 1, 12, 13)
GRADIENTS: dict[str, tuple[Loss, tuple[int, ...]]] = {
    "l1": (losses.l1, SMALL),
    "mse": (losses.mse, SMALL),
    "charbonnier": (losses.charbonnier, SMALL),
    "fourier_l1": (losses.fourier_l1, SMALL),
    "edge_aware": (losses.edge_aware, SMALL),
    "texture": (losses.texture, (2, 1, 9, 4)),
    "texture, averaged": (lambda a, b: losses.texture(a, b, average_gram=True), (2, 1, 9, 4)),
    "rain_divergence": (losses.rain_divergence, SMALL),
    "total_variation": (lambda a, _: losses.total_variation(a), SMALL),
    "total_variation, squared": (lambda a, _: losses.total_variation(a, squared=True), SMALL),
    "ssim": (losses.ssim, LARGE),
    "consistency": (losses.consistency, LARGE),
    "collaborative": (lambda a, b: losses.collaborative([a, a.sin(), a**2], b), LARGE),
}


@pytest.mark.parametrize(("loss", "shape"), GRADIENTS.values(), ids=GRADIENTS)
def test_gradient(loss: Loss, shape: tuple[int, ...]) -> None:
    derained = pictures(*shape, dtype=torch.float64).requires_grad_()
    clean = pictures(*shape, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, clean), derained)


@pytest.mark.parametrize("pyramid", PYRAMIDS)
def test_gradient_of_multi_scale_compact(pyramid: str) -> None:
    clean = pictures(1, 1, 44, 41, dtype=torch.float64)
    sizes = [level.shape[-2:] for level in PYRAMIDS[pyramid](clean, 2)[1:]]
    half, quarter = (
        pictures(1, 1, *size, seed=seed, dtype=torch.float64).requires_grad_()
        for seed, size in enumerate(sizes, start=1)
    )
    assert torch.autograd.gradcheck(
        lambda a, b: losses.multi_scale_compact([a, b], clean, (1.0, 0.5), pyramid),
        (half, quarter),
        fast_mode=True,
    )


def test_gradient_of_contrastive_prior(tiny: TinyFeatures) -> None:
    tiny = tiny.double()
    derained, clean, rainy = (pictures(2, 3, 5, 6, seed=s, dtype=torch.float64) for s in range(3))
    assert torch.autograd.gradcheck(
        lambda x: losses.contrastive_prior(x, clean, rainy, tiny, weights=(0.5, 1.0)),
        derained.requires_grad_(),
    )


# --- SSIM


@pytest.mark.parametrize("shape", [(11, 11), (17, 30)])
def test_ssim_equals_scikit_image(shape: tuple[int, ...]) -> None:
    a, b = pictures(1, 3, *shape).double(), pictures(1, 3, *shape, seed=1).double()
    expected = structural_similarity(
        a[0].numpy(),
        (0.7 * a + 0.3 * b)[0].numpy(),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert losses.ssim(a, 0.7 * a + 0.3 * b).item() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_even_pictures_by_hand() -> None:
    dark = torch.full((2, 3, 12, 12), 0.2, dtype=torch.float64)
    bright = torch.full((2, 3, 12, 12), 0.6, dtype=torch.float64)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert losses.ssim(dark, bright).item() == pytest.approx(expected)
    assert losses.ssim(dark.float(), bright.float()).item() == pytest.approx(expected, abs=1e-3)


def test_ssim_trains_after_a_validation_under_inference_mode() -> None:
    losses._gaussian.cache_clear()
    derained, clean = pictures(1, 3, 12, 12), pictures(1, 3, 12, 12, seed=1)
    with torch.inference_mode():
        losses.ssim(derained, clean)
    derained.requires_grad_()
    losses.ssim(derained, clean).backward()
    assert derained.grad is not None


def test_edge_aware_trains_after_a_validation_under_inference_mode() -> None:
    losses._sobel_kernels.cache_clear()
    derained, clean = pictures(1, 3, 4, 4), pictures(1, 3, 4, 4, seed=1)
    with torch.inference_mode():
        losses.edge_aware(derained, clean)
    derained.requires_grad_()
    losses.edge_aware(derained, clean).backward()
    assert derained.grad is not None


# --- autocast

AUTOCAST: dict[str, tuple[Loss, tuple[int, ...]]] = {
    "ssim": (losses.ssim, LARGE),
    "consistency": (losses.consistency, LARGE),
    "collaborative": (lambda a, b: losses.collaborative([a, a, a], b), LARGE),
    "l1": (losses.l1, LARGE),
    "mse": (losses.mse, LARGE),
    "edge_aware": (losses.edge_aware, LARGE),
    "texture": (losses.texture, LARGE),
    "rain_divergence": (losses.rain_divergence, LARGE),
    "total_variation": (lambda a, _: losses.total_variation(a), LARGE),
    "contrastive_prior": (
        lambda a, b: losses.contrastive_prior(
            a.expand(-1, 3, -1, -1),
            b.expand(-1, 3, -1, -1),
            pictures(1, 3, 12, 13, seed=5),
            TinyFeatures(),
            weights=(1.0, 1.0),
        ),
        LARGE,
    ),
}


@pytest.mark.parametrize(("loss", "shape"), AUTOCAST.values(), ids=AUTOCAST)
def test_autocast_changes_nothing(loss: Loss, shape: tuple[int, ...]) -> None:
    clean = pictures(*shape)
    derained = (clean + 0.01 * pictures(*shape, seed=1)).bfloat16().requires_grad_()
    expected = loss(derained.float(), clean)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(derained, clean)
    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == expected.item()
    under_autocast.backward()
    assert derained.grad.isfinite().all()


def test_losses_take_their_tensors_by_name_too() -> None:
    derained, clean = pictures(1, 1, 12, 13).bfloat16(), pictures(1, 1, 12, 13, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        by_name = losses.edge_aware(clean=clean, derained=derained)
    assert by_name.item() == losses.edge_aware(derained.float(), clean).item()


# --- HCN


def test_collaborative_by_hand() -> None:
    clean = torch.full((1, 3, 11, 11), 0.5)
    zero = torch.zeros(1, 3, 11, 11)
    luminance = 1e-4 / (0.25 + 1e-4)  # SSIM of black against 0.5
    loss = losses.collaborative([clean, zero, zero], clean, weights=(1.0, 2.0, 0.5))
    assert loss.item() == pytest.approx(-(1 + 2.5 * luminance), abs=1e-5)


def test_collaborative_wants_one_weight_per_result() -> None:
    clean = torch.zeros(1, 3, 11, 11)
    with pytest.raises(ConfigError, match=r"collaborative loss: 2 results, but 3 weights"):
        losses.collaborative([clean, clean], clean)


def test_multi_scale_compact_by_hand() -> None:
    clean = torch.full((1, 3, 44, 44), 0.5)
    half, quarter = torch.zeros(1, 3, 22, 22), torch.full((1, 3, 11, 11), 0.5)
    luminance = 1e-4 / (0.25 + 1e-4)
    loss = losses.multi_scale_compact([half, quarter], clean)
    assert loss.item() == pytest.approx(-(0.05 * luminance + 0.001), abs=1e-6)


def test_multi_scale_compact_compares_with_the_named_pyramid() -> None:
    clean = pictures(1, 3, 48, 48)
    _, band, rest = laplacian_pyramid(clean, 2)
    perfect = losses.multi_scale_compact([band, rest], clean, pyramid="laplacian")
    assert perfect.item() == pytest.approx(-0.051, abs=1e-6)
    assert losses.multi_scale_compact([band, rest], clean) > perfect + 0.01


def test_multi_scale_compact_refuses_an_unknown_pyramid() -> None:
    with pytest.raises(ConfigError, match=r"unknown pyramid 'gausian'\. Did you mean 'gaussian'"):
        losses.multi_scale_compact([], torch.zeros(1, 3, 48, 48), pyramid="gausian")


def test_rain_divergence_by_hand_is_a_mean_over_the_batch() -> None:
    quarter_and_three = torch.tensor([1.0, 3.0]).log().view(1, 1, 1, 2)
    even = torch.zeros(1, 1, 1, 2)
    one = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    loss = losses.rain_divergence(
        torch.cat((quarter_and_three, even)), torch.cat((even, even.clone()))
    )
    assert loss.item() == pytest.approx(one / 2, abs=1e-6)


def test_rain_divergence_of_negative_residuals_is_finite_and_only_about_shape() -> None:
    rain, other = pictures(2, 3, 6, 6) - 0.5, pictures(2, 3, 6, 6, seed=1) - 0.9
    loss = losses.rain_divergence(rain, other)
    assert loss > 0
    torch.testing.assert_close(losses.rain_divergence(rain + 0.3, other - 0.1), loss)
    assert losses.rain_divergence(rain, rain).item() == pytest.approx(0, abs=1e-6)


def test_rain_divergence_teaches_the_rain_in_training_only() -> None:
    rain, other = pictures(1, 3, 4, 4).requires_grad_(), pictures(1, 3, 4, 4, seed=1)
    other.requires_grad_()
    losses.rain_divergence(rain, other).backward()
    assert rain.grad.abs().sum() > 0
    assert other.grad is None


# --- MOSS and the plain losses


def test_total_variation_by_hand() -> None:
    picture = torch.tensor([[[[0.0, 1.0, 1.0], [0.5, 0.5, 0.0]]]])
    down, right = (0.5 + 0.5 + 1.0) / 3, (1.0 + 0.0 + 0.0 + 0.5) / 4
    assert losses.total_variation(picture).item() == pytest.approx(down + right)
    down, right = (0.25 + 0.25 + 1.0) / 3, (1.0 + 0.25) / 4
    assert losses.total_variation(picture, squared=True).item() == pytest.approx(down + right)


def test_l1_and_mse_by_hand() -> None:
    derained, clean = torch.tensor([[[[0.1, 0.9]]]]), torch.tensor([[[[0.4, 0.8]]]])
    assert losses.l1(derained, clean).item() == pytest.approx(0.2)
    assert losses.mse(derained, clean).item() == pytest.approx((0.09 + 0.01) / 2)


# --- RDMC


def test_consistency_by_hand() -> None:
    derained = torch.full((1, 3, 11, 11), 0.2, dtype=torch.float64)
    clean = torch.full((1, 3, 11, 11), 0.6, dtype=torch.float64)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    loss = losses.consistency(derained, clean)
    assert loss.item() == pytest.approx(1 - luminance + 0.1 * 0.16)


def test_contrastive_prior_by_hand_is_a_mean_of_ratios() -> None:
    clean, rainy = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    derained = torch.tensor([0.2, 0.5]).view(2, 1, 1, 1) * rainy
    loss = losses.contrastive_prior(derained, clean, rainy, lambda x: [x, x**2], weights=(0.5, 1.0))
    first = 0.5 * 0.2 / 0.8 + 0.04 / 0.96
    second = 0.5 * 0.5 / 0.5 + 0.25 / 0.75
    assert loss.item() == pytest.approx((first + second) / 2)


def test_contrastive_prior_is_zero_when_derained_is_clean(tiny: TinyFeatures) -> None:
    clean, rainy = pictures(2, 3, 6, 6), pictures(2, 3, 6, 6, seed=1)
    assert losses.contrastive_prior(clean, clean, rainy, tiny, weights=(1.0, 1.0)).item() == 0


def test_contrastive_prior_of_an_untouched_picture_is_guarded() -> None:
    clean, rainy = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    derained = rainy.clone().requires_grad_()
    loss = losses.contrastive_prior(derained, clean, rainy, lambda x: [x], weights=[1.0], floor=0.1)
    assert loss.item() == pytest.approx(1 / 0.1)
    loss.backward()
    # d/dx of mean |x| / 0.1 over twelve values: the floor hands on no gradient of its own
    torch.testing.assert_close(derained.grad, torch.full((1, 3, 2, 2), 10 / 12))


def test_contrastive_prior_of_a_dry_picture_teaches_nothing(tiny: TinyFeatures) -> None:
    dry = pictures(1, 3, 6, 6)
    derained = pictures(1, 3, 6, 6, seed=1).requires_grad_()
    loss = losses.contrastive_prior(derained, dry, dry, tiny, weights=(0.25, 1.0))
    loss.backward()
    assert loss.item() == pytest.approx(1.25)
    assert derained.grad.abs().max() < 1e-6


def test_contrastive_prior_pulls_to_clean_and_pushes_from_rainy(tiny: TinyFeatures) -> None:
    clean, rainy = pictures(1, 3, 8, 8), pictures(1, 3, 8, 8, seed=1)
    loss = [
        losses.contrastive_prior(clean + t * (rainy - clean), clean, rainy, tiny, (1.0, 1.0)).item()
        for t in (0.1, 0.4, 0.7, 0.9)
    ]
    assert loss == sorted(loss)


def test_contrastive_prior_wants_one_weight_per_map(tiny: TinyFeatures) -> None:
    clean = torch.zeros(1, 3, 6, 6)
    with pytest.raises(ConfigError, match=r"contrastive prior: 2 feature maps, but 5 weights"):
        losses.contrastive_prior(clean, clean, clean, tiny)


def test_contrastive_prior_with_vgg19_from_a_file(tmp_path: Path) -> None:
    made = {
        name: (pictures(*x.shape, seed=seed) - 0.5) * math.sqrt(24 / max(x[0].numel(), 24))
        for seed, (name, x) in enumerate(Vgg19Features().named_parameters())
    }
    save_file(made, tmp_path / "vgg19.safetensors")
    features = load_vgg19_features(tmp_path / "vgg19.safetensors")
    clean, rainy = pictures(2, 3, 16, 16), pictures(2, 3, 16, 16, seed=1)
    derained = (0.5 * clean + 0.5 * rainy).requires_grad_()
    loss = losses.contrastive_prior(derained, clean, rainy, features)
    loss.backward()
    assert 0.5 < loss.item() < 3  # halfway each ratio is about 1, the weights add up to 1.47
    assert derained.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in features.parameters())


# --- MENET


def test_edge_aware_by_hand() -> None:
    clean = torch.zeros(2, 3, 4, 5)
    clean[..., 2] = 3 / 255  # one bright column: 4 x 3 on its left, -4 x 3 on its right
    loss = losses.edge_aware(torch.zeros(2, 3, 4, 5), clean)
    assert loss.item() == pytest.approx(2 * 12**2 / 5 / 2)


def test_edge_aware_equals_opencv() -> None:
    derained, clean = pictures(1, 1, 9, 7), pictures(1, 1, 9, 7, seed=1)

    def sobel(x: Tensor, dx: int, dy: int) -> np.ndarray:
        return cv2.Sobel(255 * x[0, 0].numpy(), cv2.CV_32F, dx, dy, ksize=3)

    squares = [
        ((sobel(derained, *axis) - sobel(clean, *axis)) ** 2).mean() for axis in ((1, 0), (0, 1))
    ]
    assert losses.edge_aware(derained, clean).item() == pytest.approx(np.mean(squares), rel=1e-5)


def test_edge_aware_sees_no_even_change_of_brightness() -> None:
    picture = pictures(1, 3, 6, 6)
    assert losses.edge_aware(picture + 0.1, picture).item() == pytest.approx(0, abs=1e-6)


def test_texture_by_hand_compares_whole_gram_matrices() -> None:
    derained, clean = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 4, 8)
    derained[0, 0, 0, :2] = torch.tensor([2.0, 3.0]) / 255  # two values of the first of two patches
    # G = F F^T / 2 has the entries 4/2, 9/2 and twice 6/2
    whole = 2.0**2 + 4.5**2 + 2 * 3.0**2
    assert losses.texture(derained, clean).item() == pytest.approx(whole)
    # released code: the mean of the 16 x 16 entries of F F^T, which are 4, 9, 6, 6 and zeros
    averaged = (25 / 256) ** 2
    loss = losses.texture(derained, clean, average_gram=True)
    assert loss.item() == pytest.approx(averaged)


def test_texture_does_not_grow_with_the_crop() -> None:
    derained, clean = pictures(1, 3, 8, 8), pictures(1, 3, 8, 8, seed=1)
    once = losses.texture(derained, clean)
    four_times = losses.texture(derained.repeat(1, 1, 2, 2), clean.repeat(1, 1, 2, 2))
    torch.testing.assert_close(four_times, once)


def test_texture_is_blind_to_the_order_of_patches() -> None:
    picture = pictures(1, 3, 8, 12)
    moved = torch.cat((picture[..., 8:], picture[..., :8]), dim=-1)
    assert not torch.equal(moved, picture)
    assert losses.texture(moved.double(), picture.double()).item() == pytest.approx(0, abs=1e-12)


def test_texture_leaves_out_a_rest_that_fills_no_patch() -> None:
    derained, clean = pictures(1, 3, 10, 11), pictures(1, 3, 10, 11, seed=1)
    loss = losses.texture(derained, clean)
    torch.testing.assert_close(loss, losses.texture(derained[..., :8, :8], clean[..., :8, :8]))


def test_menet_losses_are_in_units_of_255() -> None:
    derained, clean = pictures(1, 3, 8, 8), pictures(1, 3, 8, 8, seed=1)
    found = losses.menet_losses(derained, clean)
    assert list(found) == ["pixel", "edge", "texture"]
    assert found["pixel"].item() == pytest.approx(F.mse_loss(255 * derained, 255 * clean).item())
    assert found["edge"].item() == losses.edge_aware(derained, clean).item()
    released = losses.menet_losses(derained, clean, average_gram=True)
    assert released["texture"].item() != found["texture"].item()
