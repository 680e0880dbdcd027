"""Every loss of the five papers, each a short function of tensors in 0..1.

Images are `(batch, channels, height, width)`; every loss is a scalar. Each image of a batch is
scored by itself and the scores are averaged, so that N processes with a share each find the mean
one process finds. Losses run in float32 even under autocast (float64 stays): most of them are
differences of nearly equal numbers.

=======================  ==========================================================================
paper                    here
=======================  ==========================================================================
HCN eq. 2, 3             `collaborative`, `multi_scale_compact`; their sum is eq. 5
HCN eq. 6                `l1` (content term), `rain_divergence` (regularisation term)
MOSS eq. 6, 10, 11       `l1`, `l1`, `total_variation`
RDMC eq. 7, 8-9          `contrastive_prior`, `consistency`; eq. 10 is 8 + 0.1 x 7
MENET eq. 4, 6, 8        `menet_losses`: 255^2 x `mse`, `edge_aware`, `texture`; Table IV's VGG term
                         is `perceptual`; weights of eq. 2 in
                         `loss_weights`
gu2023, section 2.1      `l1`
=======================  ==========================================================================
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from derain_cli.errors import ConfigError, did_you_mean
from derain_cli.sizes import PYRAMIDS

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
CONTRAST_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
CONTRAST_FLOOR = 1e-3
LEVELS_8BIT = 255.0
VGG_LEVELS = LEVELS_8BIT * 0.226  # mean of ImageNet's three deviations


PATCH = 4
FeatureNetwork = Callable[[Tensor], Sequence[Tensor]]
_Arguments = ParamSpec("_Arguments")


def _without_autocast(loss: Callable[_Arguments, Tensor]) -> Callable[_Arguments, Tensor]:
    """The loss with autocast off and its tensors in float32 at least."""

    @wraps(loss)
    def in_float32(*given: _Arguments.args, **named: _Arguments.kwargs) -> Tensor:
        device = next(x.device for x in (*given, *named.values()) if isinstance(x, Tensor))
        with torch.autocast(device.type, enabled=False):
            widened = [_widen(x) for x in given]
            return loss(*widened, **{name: _widen(x) for name, x in named.items()})  # type: ignore[arg-type]

    return in_float32


def ssim(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean structural similarity, 1 for equal images (Wang et al. 2004, eq. 13).

    Gaussian window 11x11, sigma 1.5, per channel, without border padding. Runs in float32 even
    under autocast: the variances are differences of nearly equal numbers.

    Args:
        derained: `(batch, channels, height, width)` in 0..1, at least 11x11.
        clean: Same shape.

    Example:
        >>> black, white = torch.zeros(1, 3, 11, 11), torch.ones(1, 3, 11, 11)
        >>> round(ssim(black, white).item(), 6)  # C1 / (1 + C1): the structure of both is the same
        0.0001
    """
    with torch.autocast(derained.device.type, enabled=False):
        a, b = _at_least_float32(derained), _at_least_float32(clean)
        mean_a, mean_b = _blur(a), _blur(b)
        variance_a = _blur(a * a) - mean_a**2
        variance_b = _blur(b * b) - mean_b**2
        covariance = _blur(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
        return (luminance * structure).mean()


@_without_autocast
def l1(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference: `mean |derained - clean|` (MOSS eq. 6 and 10, HCN eq. 6).

    Args:
        derained: Any shape and range.
        clean: Same shape; pseudo ground truth where there is no clean image.

    Example:
        >>> l1(torch.tensor([0.25, 0.75]), torch.tensor([0.0, 1.0]))
        tensor(0.2500)
    """
    return F.l1_loss(derained, clean)


@_without_autocast
def charbonnier(derained: Tensor, clean: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2): L1 with a round bottom.

    Example:
        >>> black, white = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
        >>> round(charbonnier(black, white).item(), 4), round(charbonnier(black, black).item(), 4)
        (1.0, 0.001)
    """
    return torch.sqrt((derained - clean) ** 2 + epsilon**2).mean()


@_without_autocast
def fourier_l1(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of the Fourier transforms' real and imaginary parts.

    Args:
        derained: `(batch, channels, height, width)`.
        clean: The same shape.

    Example:
        >>> black, white = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
        >>> fourier_l1(black, white)  # 16 in one of 4 x 3 coefficients, real and imaginary
        tensor(0.6667)
    """
    spectrum = torch.fft.rfft2(derained - clean)
    return torch.view_as_real(spectrum).abs().mean()


@_without_autocast
def mse(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean squared difference: `mean (derained - clean)^2` (MENET eq. 3, RDMC eq. 8).

    Args:
        derained: Any shape and range.
        clean: Same shape.

    Example:
        >>> mse(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0]))
        tensor(0.1250)
    """
    return F.mse_loss(derained, clean)


@_without_autocast
def total_variation(image: Tensor, *, squared: bool = False) -> Tensor:
    """How much neighbours differ: `mean |x[i+1, j] - x[i, j]| + mean |x[i, j+1] - x[i, j]|`.

    MOSS eq. 11. Paper: a norm, written ||x||_TV. Released code: half of the mean squared
    differences of images in -1..1, which is twice ours with `squared`. We take the norm.

    Args:
        image: `(batch, channels, height, width)`, at least 2x2.
        squared: Squares of the differences instead of their absolute values.

    Example:
        >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]]))
        tensor(1.)
    """
    down, right = image.diff(dim=-2), image.diff(dim=-1)
    if squared:
        return down.square().mean() + right.square().mean()
    return down.abs().mean() + right.abs().mean()


def collaborative(
    derained: Sequence[Tensor], clean: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """HCN eq. 2: `- sum_i alpha_i SSIM(derained_i, clean)`, at best `-sum_i alpha_i`.

    Args:
        derained: Results of the sub-networks B, M, T, each `(batch, channels, height, width)`.
        clean: Same shape as each of them, at least 11x11.
        weights: alpha_1 ... alpha_3.

    Raises:
        ConfigError: Not one weight per result.

    Example:
        >>> image = torch.rand(1, 3, 12, 12)
        >>> collaborative([image, image, image], image)
        tensor(-3.)
    """
    _check_count("collaborative loss", "results", len(derained), weights)
    terms = [alpha * ssim(x, clean) for alpha, x in zip(weights, derained, strict=True)]
    return -torch.stack(terms).sum()


def multi_scale_compact(
    derained: Sequence[Tensor],
    clean: Tensor,
    weights: Sequence[float] = (0.05, 0.001),
    pyramid: str = "gaussian",
) -> Tensor:
    """HCN eq. 3 (MSCC): `- sum_j beta_j SSIM(derained_j, clean_j)`, clean_j at 1/2^j of the size.

    Paper: Laplacian pyramid. Released code: Gaussian pyramid. We take the Gaussian, because the
    SSIM of band-pass images is ill-posed: their means are 0, and so its luminance term is noise.

    Args:
        derained: The 1/2 and the 1/4 result, of the sizes of the pyramid's levels 1 and 2, each at
            least 11x11: `clean` must be 41x41 or larger.
        clean: `(batch, channels, height, width)` in 0..1, full size.
        weights: beta_1, beta_2.
        pyramid: `gaussian` or `laplacian` (the last level of which is the low-pass rest).

    Raises:
        ConfigError: Unknown pyramid, or not one weight per result.

    Example:
        >>> clean = torch.rand(1, 3, 48, 48)
        >>> _, half, quarter = PYRAMIDS["gaussian"](clean, 2)
        >>> multi_scale_compact([half, quarter], clean)
        tensor(-0.0510)
    """
    if pyramid not in PYRAMIDS:
        raise ConfigError(f"unknown pyramid {pyramid!r}. {did_you_mean(pyramid, PYRAMIDS)}")
    _check_count("multi-scale compact loss", "results", len(derained), weights)
    levels = PYRAMIDS[pyramid](clean, len(derained))[1:]
    pairs = zip(weights, derained, levels, strict=True)
    return -torch.stack([beta * ssim(x, level) for beta, x, level in pairs]).sum()


@_without_autocast
def rain_divergence(rain: Tensor, other_rain: Tensor) -> Tensor:
    """HCN eq. 6, regularisation term: `KL(Q || P) = sum_i Q_i (log Q_i - log P_i)`, 0 when equal.

    P and Q are the softmax of `rain` and of `other_rain` over all pixels of one image. Paper: "KL
    loss" of the two residuals. Released code: feeds the raw residuals to KLDivLoss, where negative
    targets give NaN. We take the softmax of both first. No gradient reaches `other_rain`.

    Softmaxed residuals are nearly even: between two Rain100L crops of 224x224 this is 0.003, and at
    the paper's lambda of 1e-4 its gradient is 1e-5 of the content term's. The released form's has
    the content term's size; lambda 8 gives that here.

    Args:
        rain: `(batch, channels, height, width)`, rainy - derained, of the image in training.
        other_rain: Same shape, the residual of another real image at the last epoch.

    Example:
        >>> rain, other = torch.tensor([[[[1.0, 3.0]]]]).log(), torch.tensor([[[[1.0, 1.0]]]]).log()
        >>> rain_divergence(rain, other)  # 1/2 log(1/2 / 1/4) + 1/2 log(1/2 / 3/4)
        tensor(0.1438)
    """
    log_p = F.log_softmax(rain.flatten(1), dim=1)
    log_q = F.log_softmax(other_rain.detach().flatten(1), dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def consistency(derained: Tensor, clean: Tensor, mse_weight: float = 0.1) -> Tensor:
    """RDMC eq. 8 and 9: `1 - SSIM(derained, clean) + gamma_1 MSE(derained, clean)`, 0 when equal.

    Args:
        derained: `(batch, channels, height, width)` in 0..1, at least 11x11.
        clean: Same shape.
        mse_weight: gamma_1.

    Example:
        >>> round(consistency(torch.zeros(1, 3, 11, 11), torch.ones(1, 3, 11, 11)).item(), 4)
        1.0999
    """
    return 1 - ssim(derained, clean) + mse_weight * mse(derained, clean)


@_without_autocast
def contrastive_prior(
    derained: Tensor,
    clean: Tensor,
    rainy: Tensor,
    features: FeatureNetwork,
    weights: Sequence[float] = CONTRAST_WEIGHTS,
    floor: float = CONTRAST_FLOOR,
) -> Tensor:
    """RDMC eq. 7: `sum_i rho_i |G_i(clean) - G_i(derained)|_1 / |G_i(rainy) - G_i(derained)|_1`.

    It pulls the derained image to the clean and pushes it from the rainy one, in the space of a
    fixed feature network. 0 when derained is clean; 1 x sum of rho where rainy is clean already.

    The denominator is not let below `floor` (mean absolute difference of one image's features),
    and hands on no gradient there. Without that guard an image that comes back untouched, as from
    a fresh network whose rain is zero, would divide by 0.

    Args:
        derained: `(batch, 3, height, width)` in 0..1, the anchor.
        clean: Same shape, the positive.
        rainy: Same shape, the negative.
        features: G, the fixed network: an image to its maps G_1 ... G_n, each `(batch, ...)`;
            `vgg.load_vgg19_features` reads the published one. No gradient reaches its weights if
            they ask for none; it runs in float32.
        weights: rho_1 ... rho_n.
        floor: Least denominator.

    Raises:
        ConfigError: Not one weight per map.

    Example:
        >>> clean, rainy = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> contrastive_prior(0.2 * rainy, clean, rainy, lambda x: [x], weights=[1.0])
        tensor(0.2500)
    """
    with torch.no_grad():
        positives, negatives = features(clean), features(rainy)
    anchors = features(derained)
    _check_count("contrastive prior", "feature maps", len(anchors), weights)
    terms = [
        rho * _distance(anchor, positive) / _distance(anchor, negative).clamp_min(floor)
        for rho, anchor, positive, negative in zip(
            weights, anchors, positives, negatives, strict=True
        )
    ]
    return torch.stack(terms).sum(dim=0).mean()


@_without_autocast
def edge_aware(derained: Tensor, clean: Tensor) -> Tensor:
    """MENET eq. 5-6: `mean (phi(255 derained) - phi(255 clean))^2`, phi both Sobel maps.

    phi convolves every channel with the two 3x3 Sobel kernels, unscaled, borders mirrored.

    Args:
        derained: `(batch, channels, height, width)` in 0..1, at least 2x2; scaled to 0..255 here,
            because the balance of MENET's losses depends on it.
        clean: Same shape.

    Example:
        >>> clean = torch.zeros(1, 1, 3, 3)
        >>> clean[..., 2] = 1 / 255  # the kernel across sees 4, 4, 0 in its three columns
        >>> edge_aware(torch.zeros(1, 1, 3, 3), clean)  # 0, 16, 0 and nothing along: 16 / 6
        tensor(2.6667)
    """
    # phi is linear: one pass over the difference, without the digits lost between two large maps.
    maps = _sobel(LEVELS_8BIT * (derained - clean))
    return maps.square().mean()


@_without_autocast
def perceptual(derained: Tensor, clean: Tensor, features: FeatureNetwork) -> Tensor:
    """MENET Table IV: `mean (phi(derained) - phi(clean))^2`, phi a layer of VGG-19 (eq. 5).

    Paper: images in 0..255, of which a VGG of that time takes the mean alone. Ours divides by the
    deviation of ImageNet as well, about 57 levels: the maps are scaled back by that, so that the
    published weight of 1e-3 means what it meant beside a pixel loss in 0..255.

    Args:
        derained: `(batch, 3, height, width)` in 0..1.
        clean: Same shape.
        features: The fixed network: an image to one or more maps.

    Example:
        >>> gray, black = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)
        >>> round(perceptual(gray, black, lambda x: [x]).item(), 1)  # (0.5 x 57.63)^2
        830.3
    """
    with torch.no_grad():
        wanted = features(clean)
    pairs = zip(features(derained), wanted, strict=True)
    terms = [F.mse_loss(found, goal) for found, goal in pairs]
    return VGG_LEVELS**2 * torch.stack(terms).mean()


@_without_autocast
def texture(derained: Tensor, clean: Tensor, *, average_gram: bool = False) -> Tensor:
    """MENET eq. 7-8: `|| G(255 derained) - G(255 clean) ||_F^2`, `G = F F^T / M`.

    F is `(48, M)`: the 48 values of each of the M patches of 4x4 pixels. Paper: compares whole Gram
    matrices and does not say by what they are scaled. Released code: compares the mean of a Gram
    matrix's entries, one number per image. We compare whole matrices and divide the sum over the
    patches by M, so that the loss does not grow with the crop.

    Args:
        derained: `(batch, channels, height, width)` in 0..1, at least 4x4; scaled to 0..255 here. A
            rest at the bottom and right that fills no patch is left out.
        clean: Same shape.
        average_gram: The released code's loss: `G = F F^T`, its entries averaged.

    Example:
        >>> black, gray = torch.zeros(1, 1, 4, 8), torch.full((1, 1, 4, 8), 1 / 255)
        >>> texture(gray, black), texture(gray, black, average_gram=True)  # 256 x 1^2 and 2^2
        (tensor(256.), tensor(4.))
    """
    difference = _gram(LEVELS_8BIT * derained) - _gram(LEVELS_8BIT * clean)
    if average_gram:
        patches = (clean.shape[-2] // PATCH) * (clean.shape[-1] // PATCH)
        return (patches * difference.mean(dim=(1, 2))).square().mean()
    return difference.square().sum(dim=(1, 2)).mean()


def menet_losses(
    derained: Tensor, clean: Tensor, *, average_gram: bool = False
) -> dict[str, Tensor]:
    """MENET's three tasks before weighting: `pixel` (eq. 4), `edge` (eq. 6), `texture` (eq. 8).

    All in units of 0..255, as published: the weighting (GB, LB or fixed) compares their sizes.

    Args:
        derained: `(batch, channels, height, width)` in 0..1, at least 4x4.
        clean: Same shape.
        average_gram: See `texture`.

    Example:
        >>> losses = menet_losses(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 2 / 255))
        >>> {task: round(loss.item(), 2) for task, loss in losses.items()}
        {'pixel': 4.0, 'edge': 0.0, 'texture': 36864.0}
    """
    return {
        "pixel": LEVELS_8BIT**2 * mse(derained, clean),
        "edge": edge_aware(derained, clean),
        "texture": texture(derained, clean, average_gram=average_gram),
    }


def _check_count(loss: str, things: str, count: int, weights: Sequence[float]) -> None:
    if count != len(weights):
        raise ConfigError(f"{loss}: {count} {things}, but {len(weights)} weights; give one each")


def _widen(argument: object) -> object:
    return _at_least_float32(argument) if isinstance(argument, Tensor) else argument


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each item of the batch."""
    return (a - b).abs().flatten(1).mean(dim=1)


def _gram(image: Tensor) -> Tensor:
    """`(batch, values, values)`: products of the values of a patch, averaged over the patches."""
    height, width = (side // PATCH * PATCH for side in image.shape[-2:])
    patches = F.pixel_unshuffle(image[..., :height, :width], PATCH).flatten(2)
    return patches @ patches.transpose(1, 2) / patches.shape[-1]


def _sobel(image: Tensor) -> Tensor:
    """`(batch, 2 channels, height, width)`: differences along the rows and along the columns."""
    channels = image.shape[1]
    kernels = _sobel_kernels(image.dtype, image.device).repeat(channels, 1, 1, 1)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernels, groups=channels)


@lru_cache(maxsize=8)
def _gaussian(dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept for later calls: one made under inference_mode could not be used by a training step.
    with torch.inference_mode(mode=False):
        offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
        return (weights / weights.sum()).to(device, dtype)


@lru_cache(maxsize=8)
def _sobel_kernels(dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):
        across = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=dtype, device=device)
        return torch.stack((across, across.T)).unsqueeze(1)


def _blur(x: Tensor) -> Tensor:
    """Separable Gaussian over valid positions only."""
    channels = x.shape[1]
    window = _gaussian(x.dtype, x.device)
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(x, rows, groups=channels), columns, groups=channels)
