"""MENET: a small U-Net on space-to-depth features, trained with several losses at once.

Paper (fan-menet): Y. Fan, R. Chen, B. Li, "Multi-Task Learning Enhanced Single Image De-Raining".
Written from the paper; what its text and figures leave open (widths, where a skip joins, the batch
norm's settings) follows facts read off the authors' release. The losses of section III-B and their
GB / LB weighting are not part of this file.

How the paper's symbols map to this file:

=========================  ================================================================
paper                      here
=========================  ================================================================
O, B, R, eq. 1             `rainy`, clean, rain; `Menet.to_residual` predicts B - O = -R
f_w, Fig. 5                `Menet`
desubpixel D, eq. 9        `F.pixel_unshuffle(x, 2)`, also called space-to-depth
subpixel U, eq. 9          `F.pixel_shuffle(x, 2)`
CA, Fig. 6                 `ChannelAttention`
residual blocks (8, 16)    `Menet.blocks`, `MenetConfig.residual_blocks`
"shared convolution", GB   `Menet.last_shared_weight`
=========================  ================================================================

Every convolution that a batch norm follows is a `ConvNorm`, which inference merges into one layer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.conv_norm import ConvNorm
from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple

# TensorFlow's defaults, which the paper's implementation ran with: torch counts the share of the
# new batch (1 - 0.99), TensorFlow that of the past.
NORM_MOMENTUM = 0.01
NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class MenetConfig:
    """Shape of the network.

    Attributes:
        residual_blocks: 8, or 16 in the "deep" network of Table II.
        channel_attention: False is Table I's network without CA.
        width: Channels at 1/4 of the size; at 1/2 there are a quarter as many, because sub-pixel
            up-sampling spreads four channels over the four new pixels.
    """

    residual_blocks: int = 8
    channel_attention: bool = True
    width: int = 64

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a multiple of 4, not {self.width!r}")
        if self.residual_blocks < 0:
            raise ValueError(f"residual_blocks must not be negative, not {self.residual_blocks!r}")

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond which nothing changes an output pixel but what `Menet.context` averages."""
        return 17 + 8 * self.residual_blocks


@dataclass(frozen=True)
class MenetDeepConfig(MenetConfig):
    """The deep network of Table II: twice the residual blocks."""

    residual_blocks: int = 16


def _conv_norm(inputs: int, outputs: int, kernel: int = 3) -> ConvNorm:
    """Convolution and batch norm with the defaults of the release's framework."""
    return ConvNorm(inputs, outputs, kernel, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


class ResidualBlock(nn.Module):
    """conv3 - BN - ReLU - conv3 - BN + input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_norm(channels, channels)
        self.second = _conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        changed: Tensor = self.second(F.relu(self.first(x), inplace=True))
        return x + changed


class ChannelAttention(nn.Module):
    """Weigh channels by what the whole image shows at 1/4 of the features' size (Fig. 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shrink = nn.ModuleList(_conv_norm(4 * channels, channels, kernel=1) for _ in range(2))
        self.see = nn.ModuleList(_conv_norm(channels, channels) for _ in range(2))
        self.weigh = _conv_norm(channels, channels)

    def context(self, x: Tensor) -> Tensor:
        """What is averaged over the image: `(batch, channels, height / 4, width / 4)`."""
        context = x
        for shrink, see in zip(self.shrink, self.see, strict=True):
            context = F.relu(shrink(F.pixel_unshuffle(context, 2)), inplace=True)
            context = F.relu(see(context), inplace=True)
        weighed: Tensor = self.weigh(context)
        return weighed

    def forward(self, x: Tensor, context_mean: Tensor | None = None) -> Tensor:
        """Features x + x s, one s in 0..1 per channel; sides must be multiples of 4.

        Args:
            x: `(batch, channels, height, width)`.
            context_mean: `(batch, channels, 1, 1)`, where `x` is a part of an image whose mean is
                known.
        """
        if context_mean is None:
            context_mean = self.context(x).mean(dim=(2, 3), keepdim=True)
        # The mean comes first: a sigmoid of every place would flatten the strong ones.
        return x + x * torch.sigmoid(context_mean)


class Menet(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    In training mode with channel attention, batch x height x width must exceed 16 x 16 pixels:
    a batch norm at 1/16 of the size needs two values.
    """

    def __init__(self, config: MenetConfig = MenetConfig()) -> None:
        super().__init__()
        self.config = config
        half, quarter = config.width // 4, config.width
        self.to_half = _conv_norm(4 * 3, half)
        self.to_quarter = _conv_norm(4 * half, quarter)
        self.attention = ChannelAttention(quarter) if config.channel_attention else None
        self.blocks = nn.Sequential(
            *(ResidualBlock(quarter) for _ in range(config.residual_blocks))
        )
        self.from_quarter = _conv_norm(quarter, quarter)
        self.from_half = _conv_norm(half, half)
        self.to_residual = nn.Conv2d(half, 4 * 3, 3, padding=1, bias=False)
        # Released code: pixels are 0..255, so at its start the network changes next to nothing. We
        # have 0..1 and keep that start by small weights. Measured on one pair, 240 steps of Adam
        # 1e-3: 48.2 dB instead of 32.4 from torch's own start, 23.3 with the output in 1/255.
        nn.init.normal_(self.to_residual.weight, std=1e-3)

    @property
    def last_shared_weight(self) -> Tensor:
        """Weight of the last convolution that all losses share, for GB weighting (algorithm 1).

        All losses are computed from the derained image, so it is the last convolution of all.
        Gradient norm of one loss: `torch.autograd.grad(loss, model.last_shared_weight,
        retain_graph=True)[0].norm()`. Under DistributedDataParallel ask `ddp.module`.
        """
        return self.to_residual.weight

    def context(self, rainy: Tensor) -> Tensor | None:
        """What channel attention averages over a whole image, at 1/16 of its size.

        Tiles of an image take the mean of it as `context_mean`, and so see the whole image as it
        does. (Averages over windows of 144 to 272 pixels instead lost 0.22 to 0.31 dB of menet-real
        on 24 training pairs of Rain800; one try, of which no benchmark was kept.)

        Args:
            rainy: `(batch, 3, height, width)`, sides multiples of 16.

        Returns:
            None for a network without attention.
        """
        if self.attention is None:
            return None
        return self.attention.context(F.relu(self._down(rainy)[1]))

    def _down(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Features at 1/2 and 1/4 of the size, before their ReLU."""
        # Space-to-depth instead of pooling: nothing of the image is lost on the way down (eq. 9).
        half = self.to_half(F.pixel_unshuffle(padded, 2))
        return half, self.to_quarter(F.pixel_unshuffle(F.relu(half), 2))

    def forward(self, rainy: Tensor, context_mean: Tensor | None = None) -> Tensor:
        """Derained image: the rainy one plus the predicted B - O.

        Args:
            rainy: `(batch, 3, height, width)` in 0..1.
            context_mean: Mean of `context` over an image of which `rainy` is a part; None where
                `rainy` is the whole image.
        """
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, 16)
        half, quarter = self._down(padded)
        features = F.relu(quarter)
        # Attention chooses channels by what the whole image shows, the blocks look at places.
        if self.attention is not None:
            features = self.attention(features, context_mean)
        x = self.blocks(features)
        # Both skips take the maps before their ReLU, negative values included.
        x = F.pixel_shuffle(self.from_quarter(x + quarter), 2)
        x = self.from_half(x + half)
        derained: Tensor = padded + F.pixel_shuffle(self.to_residual(x), 2)
        return derained[..., :height, :width]
