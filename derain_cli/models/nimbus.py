"""Nimbus: a residual U-Net of naf blocks, made for a few CPU cores first and for GPUs too.

A network of our own; where other files cite a paper, this one cites measurements.

Why it looks as it does:

- **Half the size and below.** The image is folded to 1/2 (pixel unshuffle); layers of 12 channels
  at full size reach a fifth of a CPU's speed, dense 3x3 layers of 32 channels and more nearly all
  of it.
- **No batch norm**: its statistics of crops fit no whole image. Every block adds a change to its
  input, and what is inside a block is bounded (`LIMIT`): networks without norms trained at 1e-3 can
  collapse within 50 steps, and an unbounded product of two features is the likeliest place for that
  to begin.
- **A finite receptive field**, so that tiles equal the whole image: `receptive_radius`. The
  attention of the block kinds that have one averages over a fixed window, in training as in use.
- **It starts as the identity**: the last layer's weights are near 0, the output is the rainy image
  plus a change.

- **Plain blocks.** A comparison at equal compute, a sixth of what it should be (300 seconds of one
  core each; `python tests/benchmarks/nimbus_bakeoff.py --seconds 300 --threads 1`; AMD EPYC, fp32,
  8 crops of 64x64, SSIM + L1; the machine was shared, so that seconds are processor time):

  ======  ======  =====  =========  =====  =======  ================================  =====
  block   params  GMAC   ms, image  steps  radius   dB: light, Rain800, heavy; dry    mean
  ======  ======  =====  =========  =====  =======  ================================  =====
  plain   2.32 M  12.9   291        1765   167      31.31, 26.18, 24.44; 36.49        27.49
  gated   2.45 M  13.5   307        1506   89       31.09, 25.94, 23.54; 34.80        26.50
  hybrid  1.48 M  11.1   281        1505   489      30.72, 25.85, 23.21; 33.41        26.02
  naf     0.72 M  4.7    268        2068   291      31.68, 26.62, 24.42; 41.28        28.49
  ======  ======  =====  =========  =====  =======  ================================  =====

  The mean is over eight sources of held-out images; tiles equal the whole within 1 level with all.
  Plain blocks were chosen when only gated ones had been compared with them (120 seconds each).

- **Then naf blocks won.** The networks of today's size, as fast as each other for an image within
  10 %, for longer (1500 seconds of forward and backward passes, 33 minutes of a core with all else;
  `--seconds 1500 --threads 1 --precision bf16 --designs "plain deep" mixed "naf wide"`, beside
  another run on the other core):

  ==========  ======  =====  =========  =====  =======  ================================  =====
  design      params  GMAC   ms, image  steps  radius   dB: light, Rain800, heavy; dry    mean
  ==========  ======  =====  =========  =====  =======  ================================  =====
  plain deep  3.71 M  19.4   203        11023  227      34.06, 27.50, 27.48; 44.50        30.44
  mixed       3.41 M  19.1   223        9001   627      33.48, 27.54, 27.18; 46.11        30.43
  naf wide    1.59 M  9.6    214        8705   291      34.43, 28.10, 28.17; 50.04        31.50
  ==========  ======  =====  =========  =====  =======  ================================  =====

  Naf blocks are ahead on every source but one (0.03 dB behind), and pay at 1/2 and 1/4 of the size,
  where the mixed network lacks them.
- **The path at full size** keeps dry images. Naf wide with and without it, as above but for 420
  seconds (`--seconds 420 --designs "naf wide" "naf wide, no full size"`, each in a process of its
  own): 212 and 192 ms an image, 27.45 and 27.52 dB as the mean of the seven kinds of rain (0.5 dB
  apart at most, to either side), 41.97 and 39.84 dB for dry images.
- **L1 + 0.1 FFT-L1 for heavy rain.** A thousand steps of 4 crops of 128x128 from the weights that
  the first command on the card of `nimbus-rain100h` makes: that command again, but for `--weights
  FIRST --steps 1000 --lr 2e-4 --warmup 50 --ema 0.99 --seed 11 --threads 1` and the loss. dB of
  held-out images:

  ==============  ======================  ===========================================  =====
  loss            given pairs of RainH    painted: their rain (two), heavy, mixed      dry
  ==============  ======================  ===========================================  =====
  SSIM + L1       29.40, 29.39            30.75, 28.59, 30.37, 26.31                   49.25
  Charbonnier     29.40, 29.50            30.89, 28.66, 30.49, 26.42                   49.17
  L1 + 0.1 FFT    29.43, 29.54            30.78, 28.60, 30.55, 26.29                   53.89
  MSE             29.31, 29.42            30.68, 28.61, 30.36, 26.63                   45.41
  ==============  ======================  ===========================================  =====

  Four images of each source, one seed: enough to see that no choice gains more than 0.2 dB. From
  nothing, and for rain of every kind, SSIM + L1 alone was tried.
- **And stayed ahead.** In 113 minutes of two cores (24,000 steps, 0.55 PFLOP) naf wide passed plain
  deep, which had learnt for ten hours of one core and more (6 PFLOP): by 0.4 dB on Rain100L and
  Rain100H and 0.3 on DDN-SIRR. In six more runs (281 minutes of two cores and 137 of one, 84,913
  steps, 3.4 PFLOP) the lead grew to 1.6 dB on Rain100L and Rain100H and 1.3 on DDN-SIRR
  (`nimbus-real` and `nimbus-plain` of `derain eval`).
- **Rain as cameras deliver it.** A downpour before trees or a wall (91 and 95 of `ddn_sirr_real`)
  left long soft streaks with every version until the fourth run, and rain painted as long and as
  faint (`curtain`) did not help. What was missing was the camera: streaks that are smoothed as
  noise, enlarged and sharpened (`zoom` of `rain.scenes`). Lines left, levels of 255, by
  `tests/benchmarks/soft_streaks.py`: 4.30 and 3.36 before that run (the weights of commit
  155faf5), 3.11 and 2.16 after (f9d333c), of 5.42 and 5.28. Fine slanted rain (79), 4.54 of 5.50
  after it, came down to 2.21 with `slanted` and with photos sharpened at their own size; 91 then
  had 3.61, 95 2.20. Lines on 91 are wider than those of `curtain`: with `coarse` 3.38 are left,
  2.40 on 95 and 2.41 on 79. More of it is not enough: a further run with other shares and
  seeds, nearly half as much again of `slanted`, left 4.03 on 79. From the mean of both (3.09) 1,000
  steps more, with over twice as much of it and the seed that had left 2.41, led to 3.44.
  Nor did rain of several depths in one picture (`zoom+veil+dense+coarse` and four others; three
  runs from these weights, 10,900 steps in all, the last two at a constant rate, the last with 0.4
  of the structures): six averages on the way left 2.09 to 3.88 on 79, 3.20 to 3.50 on 91 and 1.98
  to 2.66 on 95. One run passes through most of that, so a single end says little of a mix.
- **Where a CPU multiplies matrices of bf16 (AMX), plain blocks are faster**: 0.29 s a megapixel on
  two cores of an Intel Xeon, naf wide 0.60 (`tests/benchmarks/figures.py --measure speed`); without
  AMX they take equally long. There the layer norms, gates and means take most of the time.
- **Attention at half the size.** In both tables its means are of 9x9 pixels at every pixel, and
  gates are bounded by `clamp`. With 5x5 cells of 2x2 pixels and `hardtanh` a step of naf wide takes
  134 ms instead of 172, and the small naf of the first table, 240 seconds in bf16, 2446 steps
  instead of 2138 to 28.43 dB instead of 28.29.
- **A fourth level**, not compared either: at 1/16 of the size context costs next to nothing. With
  fewer blocks above it a training step takes 219 ms instead of 267 (8 crops of 64x64, one core).
- **Wider where a CPU has bf16.** Twice the multiply-adds cost a third more time there, because wide
  layers come closer to what the cores can do. Forward and backward pass without loss or data, 16
  crops of 64x64 (AMD EPYC with avx512_bf16, two threads, torch 2.13, the machine otherwise idle):

  ===============  ==================  ==========  =====  ==============  =========
  widths           blocks              parameters  GMAC   crops a second  ms, image
  ===============  ==================  ==========  =====  ==============  =========
  32/64/128/160    1-2-2-3, 2-2-2      3.17 M      9.8    125             82
  48/96/144/160    1-2-2-3, 2-2-2      4.01 M      17.2   106             112
  48/96/192        2-2-4, 2-2          3.68 M      20.7   95              118
  64/96/128/160    1-2-2-3, 2-2-2      3.78 M      20.3   90              128
  48/96/192/192    1-2-2-3, 2-2-2      5.93 M      20.5   84              136
  ===============  ==================  ==========  =====  ==============  =========

  So the first, trained for 0.65 PFLOP, was grown (`training.growing`) to 48/96/128/160 with blocks
  2-2-2-3, 2-2-2: 3.71 M and 18.0 GMAC, a little below the fastest of the wide ones.

Five kinds of block can be chosen, for `tests/benchmarks/nimbus_bakeoff.py` to compare:

========  =====================================================================================
plain     conv3 - ReLU6 - conv3
gated     conv3 to twice the channels - product of the halves, bounded - conv1
hybrid    gated at 1/2 and 1/4; below, depthwise 7x7 - conv1 - gate - local attention - conv1
naf       layer norm, depthwise 3x3, gate and local attention (Chen et al., ECCV 2022), all levels
mixed     plain at 1/2 and 1/4; below, naf
========  =====================================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple

LIMIT = 6.0
"""No feature inside a block is farther from 0 than this."""
FIRST_SHARE = 0.1
"""A block's last layer starts at this share of its usual size, so that blocks start small."""
LEVELS = 510.0
"""Twice the levels of 8 bits: level k of 0..255 becomes 2k - 255, zeros are a middle grey."""
WINDOW = 5
"""Side of the window that local attention averages over, in cells of 2x2 pixels of its level."""
ATTENTION_REACH = 2 * (WINDOW // 2) + 1
"""Pixels of its level that local attention looks away, from the far side of a cell."""


@dataclass(frozen=True)
class NimbusConfig:
    """Shape of the network.

    Attributes:
        block: Kind of the blocks: plain, gated, hybrid, naf or mixed.
        widths: Channels at 1/2, 1/4, ... of the size.
        encoder: Blocks per level on the way down; the last are those of the lowest level.
        decoder: Blocks per level on the way up, the level at 1/2 first.
        full_size: Channels of the path at full size that joins the result with the input; 0 =
            the result comes straight from 1/2 of the size.
    """

    block: str = "naf"
    widths: tuple[int, ...] = (48, 96, 192)
    encoder: tuple[int, ...] = (2, 2, 4)
    decoder: tuple[int, ...] = (2, 2)
    full_size: int = 16

    def __post_init__(self) -> None:
        """Turn lists (from JSON) into tuples; refuse impossible values."""
        for name in ("widths", "encoder", "decoder"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.block not in BLOCKS:
            raise ValueError(f"block must be one of {', '.join(BLOCKS)}, not {self.block!r}")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be one or more numbers from 1 up, not {self.widths!r}")
        levels = len(self.widths)
        for name, length in (("encoder", levels), ("decoder", levels - 1)):
            counts = getattr(self, name)
            if len(counts) != length or min(counts, default=0) < 0:
                raise ValueError(f"{name} must be {length} counts of blocks, not {counts!r}")
        if self.full_size < 0:
            raise ValueError(f"full_size must not be negative, not {self.full_size!r}")

    @property
    def padding_multiple(self) -> int:
        """What heights and widths must divide by: all halvings, the attention's too."""
        levels = range(len(self.widths))
        return max(int(2 ** (level + 1)) * _block(self, level).multiple for level in levels)

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond which nothing changes an output pixel."""
        return receptive_radius(self)


class PlainBlock(nn.Module):
    """x + conv3(ReLU6(conv3(x)))."""

    reach = 2
    multiple = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3)
        self.last = _conv(channels, channels, 3, share=FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        changed: Tensor = self.last(F.relu6(self.first(x), inplace=True))
        # In place only in what a block has made itself: `x` may be a skip or another layer's input.
        return changed.add_(x)


class GatedBlock(nn.Module):
    """x + conv1(gate(conv3(x)))."""

    reach = 1
    multiple = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, 2 * channels, 3)
        _open_gate(self.first)
        self.last = _conv(channels, channels, 1, share=FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        changed: Tensor = self.last(gate_of(x, self.first))
        return changed.add_(x)


class WideBlock(nn.Module):
    """x + conv1(attention(gate(conv1(depthwise7(x)))))."""

    reach = 3 + ATTENTION_REACH
    multiple = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.across = _conv(channels, channels, 7, groups=channels)
        self.first = _conv(channels, 2 * channels, 1)
        _open_gate(self.first)
        self.attention = LocalAttention(channels)
        self.last = _conv(channels, channels, 1, share=FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        changed: Tensor = self.last(self.attention(gate_of(self.across(x), self.first)))
        return changed.add_(x)


class NafBlock(nn.Module):
    """Two residual steps after a layer norm each: one looks around, one mixes channels."""

    reach = 1 + ATTENTION_REACH
    multiple = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_around = ChannelNorm(channels)
        self.widen = _conv(channels, 2 * channels, 1)
        self.across = _conv(2 * channels, 2 * channels, 3, groups=2 * channels)
        _open_gate(self.across)
        self.attention = LocalAttention(channels)
        self.last_around = _conv(channels, channels, 1, share=FIRST_SHARE)
        self.norm_mix = ChannelNorm(channels)
        self.mix = _conv(channels, 2 * channels, 1)
        _open_gate(self.mix)
        self.last_mix = _conv(channels, channels, 1, share=FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        gated = self.attention(gate_of(self.norm_around(x), self.widen, self.across))
        around: Tensor = self.last_around(gated).add_(x)
        mixed: Tensor = self.last_mix(gate_of(self.norm_mix(around), self.mix))
        return mixed.add_(around)


class LocalAttention(nn.Module):
    """Weigh channels by their mean over a fixed window: a whole image would make tiles differ.

    Means and weights are found at half the size, in cells of 2x2 pixels: at every pixel the means
    alone took a fifth of the time of an image. Cells are the same in a tile as in the image,
    because tiles begin at multiples of `NimbusConfig.padding_multiple`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = _conv(channels, channels, 1, share=FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape, each channel times 0..2 at each place.

        Without gradients they are the input's own memory, which is overwritten.
        """
        half = WINDOW // 2
        cells = F.avg_pool2d(x, 2)
        rows = F.avg_pool2d(cells, (WINDOW, 1), 1, (half, 0), count_include_pad=False)
        around = F.avg_pool2d(rows, (1, WINDOW), 1, (0, half), count_include_pad=False)
        weights = 2 * torch.sigmoid(self.weigh(around))
        return _times(x, F.interpolate(weights, scale_factor=2.0))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the input's shape."""
        if torch.compiler.is_compiling():
            # Exported, the two permutations are copies: a fifth of an image's time in OpenVINO.
            change = x.float() - x.float().mean(1, keepdim=True)
            size = torch.rsqrt(change.square().mean(1, keepdim=True) + self.norm.eps)
            scale, shift = self.norm.weight[:, None, None], self.norm.bias[:, None, None]
            return (scale * (change * size) + shift).to(x.dtype)
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


Block = type[PlainBlock] | type[GatedBlock] | type[WideBlock] | type[NafBlock]

BLOCKS: Mapping[str, tuple[Block, Block]] = {
    "plain": (PlainBlock, PlainBlock),
    "gated": (GatedBlock, GatedBlock),
    "hybrid": (GatedBlock, WideBlock),
    "naf": (NafBlock, NafBlock),
    "mixed": (PlainBlock, NafBlock),
}
"""Blocks at 1/2 and 1/4 of the size, and below.

Each says how many pixels of its level it looks away (`reach`) and what sides it takes are multiples
of (`multiple`).
"""


class Nimbus(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: NimbusConfig = NimbusConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        steps = tuple(pairwise(widths))
        self.stem = LevelConv(4 * 3, widths[0])
        self.encoder = nn.ModuleList(
            _blocks(config, level, count) for level, count in enumerate(config.encoder)
        )
        self.down = nn.ModuleList(nn.Conv2d(upper, lower, 2, stride=2) for upper, lower in steps)
        self.up = nn.ModuleList(_conv(lower, 4 * upper, 1) for upper, lower in steps)
        self.decoder = nn.ModuleList(
            _blocks(config, level, count) for level, count in enumerate(config.decoder)
        )
        self.tail = FullSizeTail(config) if config.full_size else HalfSizeTail(config)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image: the rainy one plus the change found for it."""
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        levels = LEVELS * padded - LEVELS / 2
        # From here to the tail everything is at 1/2 of the size and below.
        x = self.stem(F.pixel_unshuffle(levels, 2))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=False):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.encoder[-1](x)
        for up, blocks in zip(reversed(self.up), reversed(self.decoder), strict=True):
            # Added, not concatenated: the blocks keep their width, and so their speed.
            x = blocks(F.pixel_shuffle(up(x), 2) + skips.pop())
        derained: Tensor = padded + self.tail(x, levels)
        return derained[..., :height, :width]


class LevelConv(nn.Conv2d):
    """3x3 convolution that keeps the size of an image in levels; exact for 8 bits in bf16.

    bf16 holds whole numbers up to 256, but no other multiples of 1/255. That rounding of the image
    was about half of what bf16 cost on heavy rain: 0.023 dB with it and 0.013 without (the first 30
    images of Rain100H, with the nimbus-real of commit dfbe8d6; `tests/benchmarks/bf16_cost.py
    --limit 30`). The weights are as for 0..1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        _keep_variance(self)

    def forward(self, levels: Tensor) -> Tensor:
        """Features `(batch, outputs, height, width)` of an image in -`LEVELS`/2..`LEVELS`/2."""
        return F.conv2d(levels, self.weight / LEVELS, self.bias, padding=1)


class FullSizeTail(nn.Module):
    """The change, found at full size from features at 1/2 and the image itself."""

    reach = 2

    def __init__(self, config: NimbusConfig) -> None:
        super().__init__()
        channels = config.full_size
        self.to_full = _conv(config.widths[0], 4 * channels, 1)
        self.see = LevelConv(3, channels)
        self.join = _conv(channels, channels, 3)
        self.to_change = _small(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        """The change `(batch, 3, height, width)`."""
        # The image itself, because features at 1/2 no longer know where a thin streak ends.
        joined = F.relu6(F.pixel_shuffle(self.to_full(x), 2) + self.see(levels), inplace=True)
        change: Tensor = self.to_change(F.relu6(self.join(joined), inplace=True))
        return change


class HalfSizeTail(nn.Module):
    """The change, unfolded from features at 1/2 of the size."""

    reach = 2

    def __init__(self, config: NimbusConfig) -> None:
        super().__init__()
        self.to_change = _small(nn.Conv2d(config.widths[0], 4 * 3, 3, padding=1))

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        """The change `(batch, 3, height, width)`."""
        return F.pixel_shuffle(self.to_change(x), 2)


def receptive_radius(config: NimbusConfig) -> int:
    """Pixels beyond which nothing changes an output pixel.

    Example:
        >>> receptive_radius(NimbusConfig())
        347
    """
    levels = len(config.widths)
    # Stem and tail, and the grids: a pixel may be the first of its cell and look at the last.
    reach = 2 + (FullSizeTail if config.full_size else HalfSizeTail).reach
    reach += int(2**levels) - 1
    for counts in (config.encoder, config.decoder):
        for level, count in enumerate(counts):
            reach += int(count * _block(config, level).reach * 2 ** (level + 1))
    return reach


def _block(config: NimbusConfig, level: int) -> Block:
    return BLOCKS[config.block][level >= 2]


def _blocks(config: NimbusConfig, level: int, count: int) -> nn.Sequential:
    make: Callable[[int], nn.Module] = _block(config, level)
    return nn.Sequential(*(make(config.widths[level]) for _ in range(count)))


def _conv(
    inputs: int, outputs: int, kernel: int, *, groups: int = 1, share: float = 1.0
) -> nn.Conv2d:
    """Convolution that keeps the size and, but for `share`, the variance of what goes in."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return _keep_variance(conv, share)


def _keep_variance(conv: nn.Conv2d, share: float = 1.0) -> nn.Conv2d:
    """Start a convolution so that what comes out varies as what goes in, times `share`."""
    fan_in = conv.weight[0].numel()
    nn.init.normal_(conv.weight, std=share * fan_in**-0.5)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _small(conv: nn.Conv2d) -> nn.Conv2d:
    """Convolution whose output is nearly 0: the network starts as the identity."""
    nn.init.normal_(conv.weight, std=1e-3)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _open_gate(conv: nn.Conv2d) -> None:
    """Start the gates around 1: a block begins nearly linear, and every weight learns."""
    assert conv.bias is not None
    nn.init.ones_(conv.bias[conv.out_channels // 2 :])


def gate(x: Tensor) -> Tensor:
    """Product of the two halves of the channels, within `LIMIT` of 0."""
    return _bounded_product(*x.chunk(2, dim=1))


def gate_of(x: Tensor, *convs: nn.Conv2d) -> Tensor:
    """`gate` of what convolutions make of features, all but the first of them depthwise."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        for conv in convs:
            x = conv(x)
        return gate(x)
    # Halves of the layers: exported, halves of the channels would be copied; in use, maps of half
    # the size, one after the other, are faster.
    return _bounded_product(*(_half_of(half, x, convs) for half in (0, 1)))


def _half_of(half: int, x: Tensor, convs: Sequence[nn.Conv2d]) -> Tensor:
    for conv in convs:
        size = conv.out_channels // 2
        part = slice(half * size, (half + 1) * size)
        assert conv.bias is not None
        groups = size if conv.groups > 1 else 1
        x = F.conv2d(x, conv.weight[part], conv.bias[part], padding=conv.padding, groups=groups)
    return x


def _bounded_product(value: Tensor, gate: Tensor) -> Tensor:
    # `clamp` would say the same; its gradient takes three passes over the features, not one.
    return F.hardtanh(_times(value, gate), -LIMIT, LIMIT, inplace=True)


def _times(own: Tensor, other: Tensor) -> Tensor:
    """Product, in place of the first where no gradient asks for it: a block's own features."""
    return own * other if torch.is_grad_enabled() else own.mul_(other)
