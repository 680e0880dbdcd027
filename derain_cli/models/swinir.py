"""SwinIR: windowed self-attention, the transformer of the generalisation study.

Papers: J. Gu, X. Ma, X. Kong, Y. Qiao, C. Dong, "Networks are Slacking Off: Understanding
Generalization Problem in Image Deraining", NeurIPS 2023, whose section 2.3 takes this network as
the representative of transformers; and J. Liang, J. Cao, G. Sun, K. Zhang, L. Van Gool, R. Timofte,
"SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021, in its light configuration.
Written from the papers; weights trained with it carry this repository's licence.

How the papers' symbols map to this file:

================================  =================================================================
paper                             here
================================  =================================================================
O = B + R (study, section 2.1)    `rainy` = clean + rain
I_LQ, I_RHQ (section 3.1)         `rainy`, `derained` = rainy - `to_rain(...)`
H_SF, F_0                         `to_features`, `features`
RSTB, H_RSTB_i (section 3.2)      `ResidualSwinBlock`, `blocks[i - 1]`
H_CONV_i, the RSTB's conv         `ResidualSwinBlock.conv`
H_CONV, F_DF                      `after_blocks`, its output
H_REC                             `to_rain`
STL, H_STL_i,j                    `SwinLayer`, `ResidualSwinBlock.layers[j - 1]`
MSA; regular / shifted windows    `WindowAttention`, `shift` 0 / half a window
P_Q, P_K, P_V                     `WindowAttention.to_qkv`
B (of the attention), h heads     `WindowAttention.relative_bias`, `SwinIRConfig.heads`
M x M window, C channels          `SwinIRConfig.window`, `SwinIRConfig.channels`
K RSTBs of L STLs                 `SwinIRConfig.depths`: L for each of the K
MLP, LN                           `SwinLayer.mlp`, `SwinLayer.norm_...`
================================  =================================================================

An output pixel sees no farther than 103 pixels, because attention stays within windows. The windows
stand on a grid of 8 pixels: moving an image by 8 moves the result, moving it by 4 does not.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple

Band = tuple[int, int, int]


@dataclass(frozen=True)
class SwinIRConfig:
    """Shape of the network; the defaults are the light configuration (section 4.1).

    Attributes:
        channels: Width of every layer, shared out among the heads.
        depths: Transformer layers of each residual block.
        heads: Attention heads.
        window: Side of an attention window; even, because every second layer moves by half of it.
        mlp_ratio: Hidden width of the MLP over `channels`.
    """

    channels: int = 60
    depths: tuple[int, ...] = (6, 6, 6, 6)
    heads: int = 6
    window: int = 8
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        """Turn a list (from JSON) into a tuple; refuse shapes that cannot be built."""
        object.__setattr__(self, "depths", tuple(self.depths))
        if self.heads < 1 or self.channels < 1 or self.channels % self.heads:
            raise ValueError(f"{self.channels} channels cannot be shared by {self.heads} heads")
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be an even number from 2 up, not {self.window!r}")
        if min(self.depths, default=0) < 1 or self.mlp_ratio < 1:
            raise ValueError(
                f"depths and mlp_ratio start at 1, not {self.depths} and {self.mlp_ratio!r}"
            )

    @property
    def padding_multiple(self) -> int:
        """What heights and widths must divide by: whole windows."""
        return self.window


def window_bands(side: int, window: int, shift: int) -> tuple[Band, ...]:
    """Stretches `(start, stop, window side)` of an image's side that are cut into equal windows.

    Shifted windows reach over the border; the parts inside it become smaller windows of their own.

    Args:
        side: Height or width in pixels, a multiple of `window`.
        window: Side of a whole window.
        shift: Where the first whole window starts.

    Example:
        >>> window_bands(32, 8, 0)
        ((0, 32, 8),)
        >>> window_bands(32, 8, 4)
        ((0, 4, 4), (4, 28, 8), (28, 32, 4))
        >>> window_bands(8, 8, 4)
        ((0, 4, 4), (4, 8, 4))
    """
    if shift == 0:
        return ((0, side, window),)
    last = side - window + shift
    whole = ((shift, last, window),) if last > shift else ()
    return ((0, shift, shift), *whole, (last, side, window - shift))


class WindowAttention(nn.Module):
    """Self-attention among the pixels of one window, with a learned bias per relative position."""

    # Paper: a shifted layer rolls the image and masks what meets across the border. We cut the
    # border into smaller windows, which is the same attention without a mask per window: bias plus
    # mask would be windows x heads x 64 x 64 numbers, half as much memory again for any image.

    relative_index: Tensor

    def __init__(self, config: SwinIRConfig, shift: int) -> None:
        super().__init__()
        window = config.window
        self.heads, self.window, self.shift = config.heads, window, shift
        self.to_qkv = nn.Linear(config.channels, 3 * config.channels)
        self.project = nn.Linear(config.channels, config.channels)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, config.heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("relative_index", _relative_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features; `x` and result are `(batch, height, width, channels)`."""
        qkv = self.to_qkv(x)
        rows = window_bands(x.shape[1], self.window, self.shift)
        columns = window_bands(x.shape[2], self.window, self.shift)
        attended = torch.cat(
            [
                torch.cat(
                    [
                        self._attend(qkv[:, top:bottom, left:right], height, width)
                        for left, right, width in columns
                    ],
                    dim=2,
                )
                for top, bottom, height in rows
            ],
            dim=1,
        )
        projected: Tensor = self.project(attended)
        return projected

    def relative_bias(self, height: int, width: int) -> Tensor:
        """Bias `(1, heads, pixels, pixels)` of a window of this size, from the one shared table."""
        index = self.relative_index[:height, :width, :height, :width].flatten()
        pixels = height * width
        return self.bias_table[index].view(1, pixels, pixels, self.heads).permute(0, 3, 1, 2)

    def _attend(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """Attention within windows of `height` x `width`, which tile the given part exactly."""
        batch, rows, columns = qkv.shape[0], qkv.shape[1] // height, qkv.shape[2] // width
        grid = qkv.reshape(batch, rows, height, columns, width, 3, self.heads, -1)
        queries, keys, values = grid.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(
            3, batch * rows * columns, self.heads, height * width, -1
        )
        bias = self.relative_bias(height, width).to(qkv.dtype).contiguous()
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        grid = attended.view(batch, rows, columns, self.heads, height, width, -1)
        return grid.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows * height, columns * width, -1)


class SwinLayer(nn.Module):
    """Attention, then MLP, each normalised before and added to its input (Fig. 2 b)."""

    # Paper: no word of dropped layers. Released code: up to one in ten is left out, by chance,
    # in training. We drop none: a step stays a pure function of weights and batch.

    def __init__(self, config: SwinIRConfig, shift: int) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.channels
        self.norm_attention = nn.LayerNorm(config.channels)
        self.attention = WindowAttention(config, shift)
        self.norm_mlp = nn.LayerNorm(config.channels)
        self.mlp = nn.Sequential(
            nn.Linear(config.channels, hidden), nn.GELU(), nn.Linear(hidden, config.channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, height, width, channels)`."""
        x = x + self.attention(self.norm_attention(x))
        mixed: Tensor = self.mlp(self.norm_mlp(x))
        return x + mixed


class ResidualSwinBlock(nn.Module):
    """RSTB (Fig. 2 a): layers with regular and shifted windows in turn, a conv3, and the input."""

    def __init__(self, config: SwinIRConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(SwinLayer(config, (index % 2) * config.window // 2) for index in range(depth))
        )
        self.conv = nn.Conv2d(config.channels, config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, height, width, channels)`."""
        return x + _convolve(self.conv, self.layers(x))


class SwinIR(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: SwinIRConfig = SwinIRConfig()) -> None:
        super().__init__()
        self.config = config
        self.to_features = nn.Conv2d(3, config.channels, 3, padding=1)
        # Paper: neither of these two norms is drawn. Released code: both. We keep them, because
        # the second brings a sum of 24 layers back into range.
        self.norm_before = nn.LayerNorm(config.channels)
        self.blocks = nn.Sequential(*(ResidualSwinBlock(config, depth) for depth in config.depths))
        self.norm_after = nn.LayerNorm(config.channels)
        self.after_blocks = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.to_rain = nn.Conv2d(config.channels, 3, 3, padding=1)
        self.apply(_initialise)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image: the rainy one minus the rain found in it."""
        # Released code: the mean colour of its training set is subtracted first. We do not: the
        # first convolution's bias can do that.
        height, width = rainy.shape[-2:]
        # Windows tile the image exactly only at a multiple of their side.
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        # Attention works on channels last, convolutions on channels first: hence the permutations.
        features = self.to_features(padded)
        x = self.norm_before(features.permute(0, 2, 3, 1))
        x = _convolve(self.after_blocks, self.norm_after(self.blocks(x)))
        # The long skip keeps the shallow features, so the blocks only have to change them.
        rain: Tensor = self.to_rain(features + x.permute(0, 3, 1, 2))
        return (padded - rain)[..., :height, :width]


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolution of features `(batch, height, width, channels)`."""
    convolved: Tensor = conv(x.permute(0, 3, 1, 2))
    return convolved.permute(0, 2, 3, 1)


def _relative_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels `(row, column, other row, other column)`."""
    steps = torch.arange(window)
    offset = steps[:, None] - steps[None, :] + window - 1
    return offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]


def _initialise(module: nn.Module) -> None:
    """Small normal weights for the linear layers, as transformers want them."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
