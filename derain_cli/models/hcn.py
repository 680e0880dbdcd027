"""HCN: high-order collaborative network with bidirectional scale-content similarity mining.

Paper (wang2022): C. Wang, J. Pan, X.-M. Wu, "Online-Updated High-Order Collaborative Networks for
Single Image Deraining", AAAI 2022. Written from the paper and from facts about the authors' release
(where the two differ a comment says so); weights trained with it carry this repository's licence.

How the paper's symbols map to this file (B^ is its B with a hat, an estimate):

==============================  ===========================================================
paper                           here
==============================  ===========================================================
O, B, R (eq. 1)                 `rainy`, clean, rain: what the `to_rain_*` exits give, O - B^
sub-networks B, M, T (Fig. 2)   chains ending in `to_rain_bottom`, `_middle`, `_top`
B^_1, B^_2, B^_3 (eq. 2)        `HcnOutputs.derained`, `.derained_middle`, `.derained_top`
N_mn (Fig. 2)                   `Hcn.n11` ... `Hcn.n31`, each an `EncoderDecoder` (Fig. 3)
arrows into N_mn (Fig. 2)       `Hcn.into_21` (from N11 and the stem of M), `into_12`, ...
B^_1/2, B^_1/4 (eq. 3)          `HcnOutputs.derained_half`, `.derained_quarter`
B_1/2, B_1/4 (eq. 3)            levels 1 and 2 of `PYRAMIDS[config.pyramid](clean, 2)`
BiSCSM (Fig. 3)                 `SimilarityMining`, at a quarter of the size
Down2Up, Up2Down (Fig. 4)       its `down2up` (small scales to large) and `up2down`: `Mining`
positional embedding            `position_code`, read by each `PlacedConv`
x, z (eq. 4)                    `own`, `other` of `Mining.forward`
x^pxp_ij, z^pxp_uv, p = 3       rows of `_patches`: places (i, j) are queries, (u, v) keys
W_f, W_g, W_theta (eq. 4)       `Mining.query`, `.key`, `.value`
phi, sigma (eq. 4)              the softmax's exponentials and their sum, in `_attend`
y^pxp_ij (eq. 4)                rows of what `_attend` returns, added up by `fold`
alpha = 0.2 of LeakyReLU        `SLOPE`
alpha_i, beta_j (eq. 2, 3, 5)   weights of the losses: recipe `collaborative`
k, lambda, R_random (eq. 6)     recipe `online-update`
==============================  ===========================================================

Sizes: an image is mirrored at the bottom and right up to a multiple of 32 (the bottleneck's quarter
scale times three halvings inside the mining) and the result is cropped back; each image of the
multi-scale constraints is padded to a multiple of 32 of its own. Every pixel of the bottleneck
looks at every other, so tiles only approximate the whole image.

The networks of the paper's ablations are options of `HcnConfig`: `mining` and `position` (Table 2),
`mscc` and `pyramid` (Table 3), `use_top` and `chain` (Table 4, Fig. 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.errors import did_you_mean
from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import PYRAMIDS, pad_to_multiple

PATCH = 3
SOFTMAX_SCALE = 10.0
KEY_FLOOR = 1e-4
OVERLAP_DIVISOR = 4
SLOPE = 0.2
# What may stand at the bottleneck (Table 2): M7, M4, M5, M2, M3 and M1 of the paper.
MININGS = ("both", "down2up", "up2down", "sum", "conv1x1", "none")
# On the CPU, without gradients: what is held at once, chosen to stay inside a core's caches.
BLOCK_SIMILARITIES = 2**21
BAND_PIXELS = 2**12


@dataclass(frozen=True)
class HcnConfig:
    """Shape of the network.

    Attributes:
        channels: Width of every layer but the exits; a multiple of 4 (the position code gives half
            to each axis, in pairs of sine and cosine).
        blocks: Residual blocks at full, half, quarter ... size, in the encoder and in the decoder.
        match_channels: Channels of the features that are compared (W_f and W_g of eq. 4).
        mining_levels: Scales of the mining at the bottleneck.
        mining: What stands at the bottleneck, one of `MININGS`: both directions, one of them, sums
            or 1x1 convolutions in place of the mining (Table 2, M2 and M3), or nothing (M1).
        position: False is Table 2's M6: the convolutions of the bottleneck see no position code.
        mscc: Whether the exits for the multi-scale compact constraints (eq. 3) exist. They only
            serve training.
        pyramid: Which half and quarter size images those constraints see: a key of `PYRAMIDS`;
            `full` replaces both by the full-size image (Table 3, R4).
        use_top: False is Table 4's network without T.
        chain: Number of modules in a plain chain instead of Fig. 2: 1, 2 and 3 are the sub-networks
            T, M and B on their own (Fig. 8; 3 is Table 4's network without T and M), 6 is Table 4's
            cascaded network. 0 is the collaborative network.
    """

    channels: int = 20
    blocks: tuple[int, ...] = (12, 2, 1)
    match_channels: int = 5
    mining_levels: int = 4
    mining: str = "both"
    position: bool = True
    mscc: bool = True
    # Paper: Laplacian pyramid. Released code: Gaussian. We take the latter by default: in a band
    # of differences local means are near 0, where the first factor of SSIM says nothing.
    pyramid: str = "gaussian"
    use_top: bool = True
    chain: int = 0

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built; turn lists (from JSON) into tuples."""
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels must be a multiple of 4, not {self.channels}")
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks must name at least one block per scale, not {self.blocks}")
        if self.match_channels < 1 or self.mining_levels < 2:
            raise ValueError("match_channels must be at least 1 and mining_levels at least 2")
        if self.pyramid not in PYRAMIDS:
            raise ValueError(
                f"unknown pyramid {self.pyramid!r}. {did_you_mean(self.pyramid, PYRAMIDS)}"
            )
        if self.mining not in MININGS:
            raise ValueError(
                f"unknown mining {self.mining!r}. {did_you_mean(self.mining, MININGS)}"
            )
        if self.chain < 0:
            raise ValueError(f"chain must be 0 (collaborative) or above, not {self.chain}")
        if self.chain and not self.use_top:
            raise ValueError("a chain has no sub-network T to leave out; give chain or use_top")

    @property
    def padding_multiple(self) -> int:
        """What heights and widths must divide by: all halvings down to the last mining level."""
        halvings = len(self.blocks) + self.mining_levels - 2
        return 1 << halvings


class HcnOutputs(NamedTuple):
    """What sub-networks and intermediate layers make of a rainy image, all `(batch, 3, ...)`.

    Attributes:
        derained: Of sub-network B: the result.
        derained_middle: Of sub-network M, from N22; None in a chain.
        derained_top: Of sub-network T, from N31; None in a chain or with `use_top=False`.
        derained_half: Half the size, rounded up (eq. 3, j = 1); None without `HcnConfig.mscc`.
        derained_quarter: A quarter of the size (eq. 3, j = 2); None likewise.
    """

    derained: Tensor
    derained_middle: Tensor | None
    derained_top: Tensor | None
    derained_half: Tensor | None
    derained_quarter: Tensor | None


def position_code(
    channels: int, height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """Fixed sines and cosines `(channels, height, width)` in -1..1 that tell places apart.

    The first half of the channels codes the row y, the second half the column x; in each half,
    channels 2k and 2k + 1 are sine and cosine of the index times 10000^(-4k / channels).

    Example:
        >>> position_code(4, 2, 3)[:, 1, 2]  # sin y, cos y, sin x, cos x
        tensor([ 0.8415,  0.5403,  0.9093, -0.4161])
    """
    rows = _axis_code(channels // 2, height, device)[:, :, None].expand(-1, -1, width)
    columns = _axis_code(channels // 2, width, device)[:, None, :].expand(-1, height, -1)
    return torch.cat((rows, columns))


class ConvLeaky(nn.Module):
    """Convolution and LeakyReLU over features laid side by side."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)

    def forward(self, *features: Tensor) -> Tensor:
        """Features `(batch, outputs, height, width)` of one or more of the same size."""
        return F.leaky_relu(self.conv(_side_by_side(features)), SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """conv3 - LeakyReLU - conv3, plus the input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_leaky = ConvLeaky(channels, channels, 3)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        change: Tensor = self.conv(self.conv_leaky(x))
        return change.add_(x)


class DenseStack(nn.Module):
    """Residual blocks at one scale, each followed by a 1x1 layer over all that came before."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        self.gathers = nn.ModuleList(
            ConvLeaky((earlier + 2) * channels, channels, 1) for earlier in range(blocks)
        )

    def forward(self, x: Tensor, mirrored: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Features after the last unit, and what each residual block gave.

        Args:
            x: `(batch, channels, height, width)`.
            mirrored: For a decoder, the encoder's residual blocks in reverse order; unit i has the
                i-th added to its input.
        """
        earlier, given = [x], []
        for unit, (block, gather) in enumerate(zip(self.blocks, self.gathers, strict=True)):
            given.append(block(x + mirrored[unit] if mirrored else x))
            earlier = _with(earlier, given[-1])
            x = _gather(gather, earlier)
        return x, given


class PlacedConv(nn.Module):
    """Convolution that sees where it is: 1x1 with the position code, then 3x3 and LeakyReLU."""

    def __init__(self, channels: int, *, position: bool = True) -> None:
        super().__init__()
        self.place = nn.Conv2d(2 * channels, channels, 1) if position else None
        self.conv = ConvLeaky(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        if self.place is None:
            unplaced: Tensor = self.conv(x)
            return unplaced
        _, channels, height, width = x.shape
        code = position_code(channels, height, width, x.device).to(x.dtype).expand_as(x)
        placed: Tensor = self.conv(self.place(_side_by_side((x, code))))
        return placed


class Mining(nn.Module):
    """Scale-content similarity mining (Fig. 4, eq. 4).

    Each 3x3 patch of a scale is matched with all patches of that scale and of another one; the
    values of those patches, weighted by similarity, are added up where patches overlap.
    """

    def __init__(self, channels: int, match_channels: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Conv2d(channels, match_channels, 1), nn.PReLU())
        self.key = nn.Sequential(nn.Conv2d(channels, match_channels, 1), nn.PReLU())
        self.value = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.PReLU())

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Features of the shape of `own`, enriched by what resembles them.

        Args:
            own: x of eq. 4, `(batch, channels, height, width)`.
            other: z of eq. 4, the neighbouring scale `(batch, channels, height', width')`.
        """
        # Paper: keys from z, values from x alone. Released code: both from both scales together,
        # keys of unit length, similarities times 10, the overlaps of nine patches divided by 4. We
        # do as the release: eq. 4 as printed has no value for a key at another place than (g, h).
        query = _patches(self.query(own))
        key = torch.cat([_patches(self.key(scale)) for scale in (own, other)], dim=1)
        value = torch.cat([_patches(self.value(scale)) for scale in (own, other)], dim=1)
        mined = _attend(query, F.normalize(key, dim=-1, eps=KEY_FLOOR).to(query), value)
        overlaps = F.fold(mined.mT, own.shape[-2:], PATCH, padding=PATCH // 2)
        return own + overlaps / OVERLAP_DIVISOR


class Summing(nn.Module):
    """Table 2, M2: the neighbouring scale is added where the mining would look for likeness."""

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Features of the shape of `own`."""
        return own + _resized(other, own)


class Convolving(nn.Module):
    """Table 2, M3: a 1x1 convolution joins the two scales in place of the mining."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = ConvLeaky(2 * channels, channels, 1)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Features of the shape of `own`."""
        joined: Tensor = self.join(own, _resized(other, own))
        return joined


class SimilarityMining(nn.Module):
    """BiSCSM (Fig. 3): mining from small scales to large, then back, then all scales fused."""

    def __init__(
        self,
        channels: int,
        match_channels: int,
        levels: int,
        mining: str = "both",
        *,
        position: bool = True,
    ) -> None:
        super().__init__()
        self.levels, self.mining = levels, mining
        # One module per direction serves all its steps: the same likeness holds at every scale.
        rises, falls = mining != "up2down", mining != "down2up"
        if rises:
            self.down2up = _mining_of(mining, channels, match_channels)
        if falls:
            self.up2down = _mining_of(mining, channels, match_channels)
        if rises:
            self.down2up_convs = _placed_convs(channels, levels, position)
        if falls:
            self.up2down_convs = _placed_convs(channels, levels, position)
        self.fuse_scales = ConvLeaky((levels + rises + falls) * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape; height and width divide by 2^(levels - 1)."""
        scales = [x]
        for _ in range(self.levels - 1):
            scales.append(F.max_pool2d(scales[-1], 2))
        tops = [x]
        if self.mining != "up2down":
            scales = _mine_along(scales[::-1], self.down2up, self.down2up_convs)[::-1]
            tops.append(scales[0])
        # The second pass starts from what the first one found, not from the pooled features: so
        # the largest scale has seen all smaller ones before it hands anything down.
        if self.mining != "down2up":
            scales = _mine_along(scales, self.up2down, self.up2down_convs)
            tops.append(scales[0])
        small = [_resized(scale, x) for scale in scales[1:]]
        fused: Tensor = self.fuse_scales(*tops, *small)
        return fused


class EncoderDecoder(nn.Module):
    """Network module N_mn (Fig. 3): dense stacks at falling scales, mining, and back up."""

    def __init__(self, config: HcnConfig) -> None:
        super().__init__()
        channels, blocks = config.channels, config.blocks
        self.encoder = nn.ModuleList(DenseStack(channels, count) for count in blocks)
        self.mining: nn.Module = nn.Identity()
        if config.mining != "none":
            self.mining = SimilarityMining(
                channels,
                config.match_channels,
                config.mining_levels,
                config.mining,
                position=config.position,
            )
        self.decoder = nn.ModuleList(DenseStack(channels, count) for count in reversed(blocks))
        self.merges = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1) for _ in blocks[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape; sides divide by `HcnConfig.padding_multiple`."""
        encoded: list[tuple[Tensor, list[Tensor]]] = []
        for level, stack in enumerate(self.encoder):
            encoded.append(stack(F.max_pool2d(x, 2) if level else x))
            x = encoded[-1][0]
        x = self.mining(x)
        for step, stack in enumerate(self.decoder):
            same_scale, encoder_blocks = encoded.pop()
            if step:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.merges[step - 1](_side_by_side((x, same_scale)))
            x, _ = stack(x, encoder_blocks[::-1])
        return x


class Hcn(nn.Module, HubMethods):
    """The whole network (Fig. 2): rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: HcnConfig = HcnConfig()) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        # The order of what follows decides what a seed makes of it: published runs rely on it.
        self.stem_bottom = _stem(channels)
        if config.chain:
            self.chain = nn.ModuleList(EncoderDecoder(config) for _ in range(config.chain))
        else:
            self._build_streams(config)
        self.to_rain_bottom = _to_rain(channels)
        if not config.chain:
            self.to_rain_middle = _to_rain(channels)
            if config.use_top:
                self.to_rain_top = _to_rain(channels)
        if config.mscc:
            self.stem_half = _stem(channels)
            if not config.chain:
                self.stem_half_middle = _stem(channels)
            self.stem_quarter = _stem(channels)
            self.half_to_rain, self.quarter_to_rain = _to_rain(channels), _to_rain(channels)

    def _build_streams(self, config: HcnConfig) -> None:
        """The modules of Fig. 2 and what joins their inputs."""
        channels = config.channels
        self.stem_middle = _stem(channels)
        if config.use_top:
            self.stem_top = _stem(channels)
        self.n11, self.n12, self.n13 = (EncoderDecoder(config) for _ in range(3))
        self.n21, self.n22 = (EncoderDecoder(config) for _ in range(2))
        if config.use_top:
            self.n31 = EncoderDecoder(config)
        self.into_21 = ConvLeaky(2 * channels, channels, 3)
        if config.use_top:
            self.into_31 = ConvLeaky(2 * channels, channels, 3)
        self.into_12 = ConvLeaky(2 * channels, channels, 1)
        if config.use_top:
            self.into_22 = ConvLeaky(2 * channels, channels, 1)
        self.into_13 = ConvLeaky(2 * channels, channels, 1)

    def forward(self, rainy: Tensor, *, all_outputs: bool = False) -> Tensor | HcnOutputs:
        """Derained image of sub-network B; on request everything that is trained.

        Args:
            rainy: `(batch, 3, height, width)` in 0..1, any size.
            all_outputs: Also compute the exits that only serve training. With those of eq. 3 the
                image must have 5x5 pixels or more: its pyramid mirrors the half size.
        """
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        n13, n22, n31 = self._features(padded)
        derained = rainy - _cut(self.to_rain_bottom(n13), rainy)
        if not all_outputs:
            return derained
        # M and T are supervised too, so that what they hand to B is about rain (eq. 2).
        return HcnOutputs(
            derained,
            None if n22 is None else rainy - _cut(self.to_rain_middle(n22), rainy),
            None if n31 is None else rainy - _cut(self.to_rain_top(n31), rainy),
            *self._constrained(rainy),
        )

    def _features(self, rainy: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What N13, N22 and N31 make of a padded image: the wiring of Fig. 2."""
        if self.config.chain:
            return self._along_chain(self.stem_bottom(rainy), self.config.chain), None, None
        # Each stream sees the rainy image through a stem of its own: M and T must not depend on
        # what B's first module has already thrown away.
        n11 = self.n11(self.stem_bottom(rainy))
        n21 = self.n21(self.into_21(n11, self.stem_middle(rainy)))
        n12 = self.n12(self.into_12(n21, n11))
        n31 = None
        into_22 = n21
        if self.config.use_top:
            n31 = self.n31(self.into_31(n21, self.stem_top(rainy)))
            into_22 = self.into_22(n31, n21)
        n22 = self.n22(into_22)
        # Paper: N13 before the exit of B. Released code: calls N31 a second time, so that N13 is
        # never trained. We do as the paper.
        n13 = self.n13(self.into_13(n22, n12))
        return n13, n22, n31

    def _along_chain(self, x: Tensor, modules: int) -> Tensor:
        for module in self.chain[:modules]:
            x = module(x)
        return x

    def _constrained(self, rainy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Derained images of half and quarter size: the intermediate layers held by eq. 3."""
        if not self.config.mscc:
            return None, None
        _, half, quarter = PYRAMIDS[self.config.pyramid](rainy, 2)
        return self._derain_half(half), self._derain_quarter(quarter)

    def _derain_half(self, rainy: Tensor) -> Tensor:
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        if self.config.chain:
            features = self._along_chain(self.stem_half(padded), 2)
        else:
            n11 = self.n11(self.stem_half(padded))
            n21 = self.n21(self.into_21(n11, self.stem_half_middle(padded)))
            features = self.n12(self.into_12(n21, n11))
        return rainy - _cut(self.half_to_rain(features), rainy)

    def _derain_quarter(self, rainy: Tensor) -> Tensor:
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        first = self.chain[0] if self.config.chain else self.n11
        rain = self.quarter_to_rain(first(self.stem_quarter(padded)))
        return rainy - _cut(rain, rainy)


def _stem(channels: int) -> ConvLeaky:
    return ConvLeaky(3, channels, 3)


def _to_rain(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 3, 3, padding=1)


def _cut(padded: Tensor, image: Tensor) -> Tensor:
    return padded[..., : image.shape[-2], : image.shape[-1]]


def _resized(scale: Tensor, like: Tensor) -> Tensor:
    """A scale at the size of another: small ones repeat their pixels, large ones are pooled."""
    if scale.shape[-1] > like.shape[-1]:
        return F.max_pool2d(scale, scale.shape[-1] // like.shape[-1])
    return F.interpolate(scale, size=like.shape[-2:], mode="nearest")


def _mining_of(mining: str, channels: int, match_channels: int) -> nn.Module:
    if mining == "sum":
        return Summing()
    return Convolving(channels) if mining == "conv1x1" else Mining(channels, match_channels)


def _placed_convs(channels: int, levels: int, position: bool) -> nn.ModuleList:
    return nn.ModuleList(PlacedConv(channels, position=position) for _ in range(levels))


def _axis_code(channels: int, length: int, device: torch.device | None) -> Tensor:
    """Sines and cosines `(channels, length)` of the places along one axis."""
    channel = torch.arange(channels, device=device)[:, None]
    frequency = 10000.0 ** (-2 * (channel // 2) / channels)
    angle = torch.arange(length, device=device) * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


def _mine_along(scales: Sequence[Tensor], mining: nn.Module, convs: nn.ModuleList) -> list[Tensor]:
    """One pass over the scales: each is mined with the result of the one before."""
    results = [convs[0](scales[0])]
    for scale, conv in zip(scales[1:], convs[1:], strict=True):
        results.append(conv(mining(scale, results[-1])))
    return results


def _patches(features: Tensor) -> Tensor:
    """All 3x3 patches of `(batch, channels, height, width)`: `(batch, places, 9 channels)`."""
    return F.unfold(features, PATCH, padding=PATCH // 2).mT


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Means of `value`, weighted by phi / sigma of eq. 4: the softmax of scaled similarities.

    The matrix of all similarities (634 MB for a 481x321 image) is never formed.

    Args:
        query: `(batch, places, width)`.
        key: `(batch, other places, width)`.
        value: `(batch, other places, value width)`.
    """
    if _is_cpu_inference(query):
        return _attend_in_blocks(query, key, value)
    # The fused kernels want one width, a multiple of 8, for queries, keys and values: zeros do not
    # change the similarities.
    width = max(query.shape[-1], value.shape[-1])
    width += -width % 8
    q, k, v = (F.pad(x, (0, width - x.shape[-1])).unsqueeze(1) for x in (query, key, value))
    mined = F.scaled_dot_product_attention(q, k, v, scale=SOFTMAX_SCALE)
    return mined.squeeze(1)[..., : value.shape[-1]]


def _attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by some queries at a time; similarities in float32 at least, as fused kernels do.

    On a CPU this beats `scaled_dot_product_attention`, which multiplies the zeros too and has no
    fast bfloat16 product on every processor (see tests/benchmarks/hcn_attention.py).
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(precise) * SOFTMAX_SCALE, key.to(precise).mT
    batch, places, keys = query.shape[0], query.shape[1], key.shape[-1]
    rows = min(places, max(1, BLOCK_SIMILARITIES // (batch * keys)))
    # Written in place: new memory for each block costs as much time as the softmax.
    similarities, weights = query.new_empty(2, batch, rows, keys)
    mined = value.new_empty(batch, places, value.shape[-1])
    with torch.autocast("cpu", enabled=False):
        for first in range(0, places, rows):
            block = slice(first, min(first + rows, places))
            now = slice(block.stop - first)
            torch.bmm(query[:, block], key, out=similarities[:, now])
            torch.softmax(similarities[:, now], dim=-1, out=weights[:, now])
            torch.bmm(weights[:, now].to(value), value, out=mined[:, block])
    return mined


def _with(earlier: list[Tensor], latest: Tensor) -> list[Tensor]:
    """Features that a 1x1 layer reads, joined already where gradients will be needed.

    Each is read by up to 12 layers. Joined one by one, their gradients add up in wide rows, not in
    rows of 20 channels: that took half the time of a training step.
    """
    if _is_cpu_inference(latest):
        return [*earlier, latest]
    return [torch.cat((*earlier, latest), dim=1)]


def _gather(layer: nn.Module, features: Sequence[Tensor]) -> Tensor:
    """`layer(*features)` for a 1x1 layer.

    On the CPU it is done by bands of rows that fit the caches: joining up to 13 whole maps before
    each of the 180 such layers would take longer than the 3x3 convolutions.
    """
    if not _is_cpu_inference(features[0]):
        gathered: Tensor = layer(*features)
        return gathered
    rows = max(1, BAND_PIXELS // features[0].shape[-1])
    bands = zip(*(torch.split(feature, rows, dim=2) for feature in features), strict=True)
    return torch.cat([layer(*band) for band in bands], dim=2)


def _is_cpu_inference(x: Tensor) -> bool:
    """Whether work may be cut into many small pieces: no gradients, no graph to be captured."""
    quiet = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return x.device.type == "cpu" and quiet


def _side_by_side(features: Sequence[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(tuple(features), dim=1)
