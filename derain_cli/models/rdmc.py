"""RDMC: recursive dynamic multi-scale network with searched cross-level connections.

Paper (jiang2023): Z. Jiang, R. Liu, S. Yang, Z. Zhang, X. Fan, "Contrastive Learning Based
Recursive Dynamic Multi-Scale Network for Image Deraining", IEEE TCSVT 2023. The authors released no
code; this file is written from the paper, and weights trained with it carry this repository's
licence.

How the paper's symbols map to this file:

=====================  ==================================================================
paper                  here
=====================  ==================================================================
I, B^(i), eq. 2        `rainy`, `derained`; the stage input is `cat(derained, rainy)`
T = 3 stages           `RdmcConfig.stages`; one set of convolutions serves all of them
f_{l,p}, eq. 3-4       `MultiScaleLevel.paths[p]`, dilation p + 1: three paths that stay apart
F_l, eq. 5             what `MultiScaleLevel` hands to the skips: the concatenated paths
layers 1 ... 5         `encoder[0 ... 4]`, at 1, 1/2, 1/4, 1/8, 1/16 of the size
layers 6 ... 10        `decoder[0 ... 4]`, at 1/16 ... 1 of the size
DCR, skip-up/-down     `CrossLevelConnection`, one per searched edge `(layer, layer)`
alpha, section III-B   `RdmcSupernet.alphas`: row 0 the skip-ups, row 1 the skip-downs
BN                     `StageNorm`: one batch norm per stage
=====================  ==================================================================
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.fusion import fuse_conv_bn_eval

from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple

LEVELS = 5
PAPER_CONNECTIONS = ((3, 9), (4, 8), (2, 8), (3, 7))
Connection = tuple[int, int]


@dataclass(frozen=True)
class RdmcConfig:
    """Shape of the network.

    Attributes:
        widths: Channels per path of encoder layers 1-5; the decoder mirrors them.
        dilations: One path per dilation (Fig. 2 c). `(1, 1, 1)` is the network without multi-scale
            paths (Table V, without MFE) at the same number of parameters.
        stages: Recursions T (Table IV: 1 to 4, of which 3 is best).
        connections: Searched edges (encoder layer, decoder layer), section III-B. `()` is the
            network without cross-level recruitment (Table V, without DCR).
        norm_per_stage: Own batch norm for each stage. Stage 1 sees the rainy image twice, stage 3
            a nearly clean one: shared running statistics fit neither.
    """

    widths: tuple[int, ...] = (12, 12, 24, 24, 48)
    dilations: tuple[int, ...] = (1, 2, 3)
    stages: int = 3
    connections: tuple[Connection, ...] = PAPER_CONNECTIONS
    norm_per_stage: bool = True

    def __post_init__(self) -> None:
        """Turn lists (from JSON) into tuples; refuse impossible shapes and edges."""
        for name in ("widths", "dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.widths) != LEVELS or min(self.widths) < 1:
            raise ValueError(f"widths must be {LEVELS} numbers from 1 up, not {self.widths!r}")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations must be one or more from 1 up, not {self.dilations!r}")
        if self.stages < 1:
            raise ValueError(f"stages must be at least 1, not {self.stages!r}")
        edges = tuple((int(source), int(target)) for source, target in self.connections)
        for edge in edges:
            if edge not in all_connections():
                known = ", ".join(f"{a}->{b}" for a, b in all_connections())
                raise ValueError(f"no such connection {edge[0]}->{edge[1]}; there are {known}")
        if len(set(edges)) != len(edges):
            raise ValueError(f"a connection is named twice: {edges}")
        object.__setattr__(self, "connections", edges)

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond which nothing changes an output pixel."""
        return self.stages * ((1 << LEVELS) - 1) * (max(self.dilations) + 2)


def level_of(layer: int) -> int:
    """Resolution level (0 = full size) of layer 1 ... 10.

    Example:
        >>> [level_of(layer) for layer in (1, 5, 6, 10)]
        [0, 4, 4, 0]
    """
    return layer - 1 if layer <= LEVELS else 2 * LEVELS - layer


def all_connections() -> tuple[Connection, ...]:
    """The n(n-1) = 20 edges between different levels that the search chooses from.

    Example:
        >>> len(all_connections())
        20
    """
    encoder, decoder = range(1, LEVELS + 1), range(LEVELS + 1, 2 * LEVELS + 1)
    return tuple((a, b) for a in encoder for b in decoder if level_of(a) != level_of(b))


def is_skip_up(connection: Connection) -> bool:
    """Whether an edge leads to a higher resolution (it needs up-sampling)."""
    return level_of(connection[1]) < level_of(connection[0])


# The search space by category: skip-ups, skip-downs.
CANDIDATES = tuple(
    tuple(edge for edge in all_connections() if is_skip_up(edge) == up) for up in (True, False)
)

CATEGORY = len(CANDIDATES[0])


class StageNorm(nn.Module):
    """Batch norm with separate statistics and affine terms per stage."""

    def __init__(self, channels: int, stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(stages))

    def forward(self, x: Tensor, stage: int) -> Tensor:
        """Normalise `(batch, channels, height, width)` as stage number `stage` does."""
        normed: Tensor = self.stages[min(stage, len(self.stages) - 1)](x)
        return normed


class ConvNormReLU(nn.Module):
    """conv3 - BN - ReLU, the layer of eq. 3 and 4."""

    def __init__(self, inputs: int, outputs: int, config: RdmcConfig, dilation: int = 1) -> None:
        super().__init__()
        norms = config.stages if config.norm_per_stage else 1
        # A bias in front of a batch norm is cancelled by it; the paper's count has it once.
        bias = not config.norm_per_stage
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)
        self.norm = StageNorm(outputs, norms)

    def forward(self, x: Tensor, stage: int) -> Tensor:
        """Features `(batch, outputs, height, width)`, never negative."""
        return F.relu(self.norm(self.conv(x), stage), inplace=True)


class FoldedConvReLU(nn.Module):
    """`ConvNormReLU` for inference: one convolution per stage holds that stage's batch norm."""

    def __init__(self, layer: ConvNormReLU) -> None:
        super().__init__()
        norms = (cast(nn.BatchNorm2d, norm) for norm in layer.norm.stages)
        self.stages = nn.ModuleList(fuse_conv_bn_eval(layer.conv, norm) for norm in norms)

    def forward(self, x: Tensor, stage: int) -> Tensor:
        """Features `(batch, outputs, height, width)`, never negative."""
        return F.relu(self.stages[min(stage, len(self.stages) - 1)](x), inplace=True)


class MultiScaleLevel(nn.Module):
    """One encoder layer: parallel paths of different dilation that stay apart (eq. 3-4)."""

    def __init__(self, inputs: int, outputs: int, config: RdmcConfig) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            ConvNormReLU(inputs, outputs, config, dilation) for dilation in config.dilations
        )

    def forward(self, features: Sequence[Tensor], stage: int) -> list[Tensor]:
        """Each path's features from that path's own features one layer earlier."""
        return [path(x, stage) for path, x in zip(self.paths, features, strict=True)]


class CrossLevelConnection(nn.Module):
    """A searched edge: bring F_l to the decoder layer's width and resolution."""

    def __init__(self, connection: Connection, inputs: int, outputs: int) -> None:
        super().__init__()
        source, target = connection
        self.steps = level_of(source) - level_of(target)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Skip-up: conv3, then up-sample. Skip-down: pool, then conv3 (the cheaper order each)."""
        if self.steps > 0:
            return _upsample(self.conv(x), 2**self.steps)
        convolved: Tensor = self.conv(_max_pool(x, 2**-self.steps))
        return convolved


class Rdmc(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: RdmcConfig = RdmcConfig()) -> None:
        super().__init__()
        self.config = config
        widths, paths = config.widths, len(config.dilations)
        inputs = (6, *widths[:-1])
        self.encoder = nn.ModuleList(
            MultiScaleLevel(a, b, config) for a, b in zip(inputs, widths, strict=True)
        )
        self.connections = nn.ModuleDict(
            {
                f"{source}_{target}": CrossLevelConnection(
                    (source, target), paths * widths[source - 1], widths[level_of(target)]
                )
                for source, target in config.connections
            }
        )
        self.decoder = nn.ModuleList(
            ConvNormReLU(self._decoder_inputs(layer), widths[level_of(layer)], config)
            for layer in range(LEVELS + 1, 2 * LEVELS + 1)
        )
        self.to_rain = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image after the last of T stages."""
        return self.all_stages(rainy)[-1]

    def all_stages(self, rainy: Tensor) -> list[Tensor]:
        """B^(1) ... B^(T): what each stage makes of the rainy image (eq. 2)."""
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, 2 ** (LEVELS - 1))
        derained, results = padded, []
        # Every stage sees the rainy image again, not only what the last one left of it: detail that
        # was taken for rain can come back.
        for stage in range(self.config.stages):
            derained = padded - self.rain_of_stage(torch.cat((derained, padded), dim=1), stage)
            results.append(derained[..., :height, :width])
        return results

    def rain_of_stage(self, stage_input: Tensor, stage: int) -> Tensor:
        """Rain `(batch, 3, height, width)` seen in `cat(derained, rainy)` by one stage."""
        features = self._encode(stage_input, stage)
        x: Tensor | None = None
        for number, layer in enumerate(self.decoder, start=LEVELS + 1):
            x = layer(self._decoder_input(number, x, features), stage)
        rain: Tensor = self.to_rain(x)
        return rain

    def _encode(self, stage_input: Tensor, stage: int) -> list[list[Tensor]]:
        """The paths of layers 1 ... 5; eq. 5 concatenates them into F_1 ... F_5.

        They stay apart until a convolution reads them: F_1 would be copied twice at full size,
        a seventh of the time on a CPU.
        """
        paths = [stage_input] * len(self.config.dilations)
        features = []
        for level, layer in enumerate(self.encoder):
            if level:
                paths = [_max_pool(path, 2) for path in paths]
            paths = layer(paths, stage)
            features.append(paths)
        return features

    def _decoder_input(
        self, layer: int, below: Tensor | None, features: list[list[Tensor]]
    ) -> Tensor:
        """Up-sampled features, the same-level skip and the searched connections of one layer."""
        parts = [*_upsampled(below), *features[level_of(layer)]]
        for source, target in self.config.connections:
            if target == layer:
                connection = self.connections[f"{source}_{target}"]
                parts.append(connection(torch.cat(features[source - 1], dim=1)))
        return torch.cat(parts, dim=1)

    def _decoder_inputs(self, layer: int) -> int:
        found = sum(target == layer for _, target in self.config.connections)
        return _fixed_inputs(self.config, layer) + found * self.config.widths[level_of(layer)]

    def folded(self) -> "Rdmc":
        """Equal network for inference, batch norm merged into the convolutions.

        Each stage then has convolutions of its own, so it can be neither trained nor saved as an
        `Rdmc`. `inference.folding` looks for this method.
        """
        folded = copy.deepcopy(self).eval()
        for parent in list(folded.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, ConvNormReLU):
                    setattr(parent, name, FoldedConvReLU(layer))
        return folded


@dataclass(frozen=True)
class SupernetConfig(RdmcConfig):
    """Shape of the network that holds every candidate edge.

    Attributes:
        connections: All 20 edges; nothing else is a search space.
        keep: Edges of each category that the derived network will have.
    """

    connections: tuple[Connection, ...] = all_connections()
    keep: int = 2

    def __post_init__(self) -> None:
        """Refuse a part of the search space, and a number that cannot be kept."""
        super().__post_init__()
        if self.connections != all_connections():
            raise ValueError("the supernet has all 20 connections in their own order; leave it out")
        if not 1 <= self.keep <= CATEGORY:
            raise ValueError(f"keep is {self.keep!r}; it must be from 1 to {CATEGORY}")

    def derived(self, connections: Collection[Connection]) -> RdmcConfig:
        """Shape of the network that has these edges only, in the order of the search space."""
        edges = tuple(sorted(connections))
        return RdmcConfig(self.widths, self.dilations, self.stages, edges, self.norm_per_stage)


class RdmcSupernet(Rdmc):
    """RDMC with all 20 candidate edges, each scaled by a weight that the search learns.

    The weights of a category are `keep` times the softmax of its alphas: together they weigh as
    much as the edges that the derived network keeps, each with weight 1. So `keep` equal alphas
    among others of minus infinity make weights of exactly 1 and 0. An edge of weight 0 is neither
    computed nor read by the decoder, and the supernet then equals `derived(edges)` to the bit.

    Attributes:
        alphas: `(2, 10)`, any range: skip-ups and skip-downs in the order of `CANDIDATES`.
    """

    config: SupernetConfig

    def __init__(self, config: SupernetConfig = SupernetConfig()) -> None:
        super().__init__(config)
        self.alphas = nn.Parameter(torch.zeros(2, CATEGORY))

    def edge_weights(self) -> Tensor:
        """`(2, 10)` in 0..keep, each row with sum `keep`: what scales the candidate edges."""
        return self.config.keep * self.alphas.softmax(dim=1)

    def rain_of_stage(self, stage_input: Tensor, stage: int) -> Tensor:
        """Rain `(batch, 3, height, width)` seen in `cat(derained, rainy)` by one stage."""
        weights = _by_edge(self.edge_weights())
        features = [torch.cat(paths, dim=1) for paths in self._encode(stage_input, stage)]
        x: Tensor | None = None
        for layer in range(LEVELS + 1, 2 * LEVELS + 1):
            x = self._decode(layer, x, features, weights, stage)
        rain: Tensor = self.to_rain(x)
        return rain

    def _decode(
        self,
        layer: int,
        below: Tensor | None,
        features: list[Tensor],
        weights: dict[Connection, Tensor],
        stage: int,
    ) -> Tensor:
        """One decoder layer, reading every edge into it that has a weight."""
        parts = [*_upsampled(below), features[level_of(layer)]]
        parts += [
            weights[source, target] * self.connections[f"{source}_{target}"](features[source - 1])
            for source, target in weights
            if target == layer
        ]
        decoder = self.decoder[layer - LEVELS - 1]
        x, read = torch.cat(parts, dim=1), self._channels_read(layer, weights)
        if len(read) == self._decoder_inputs(layer):
            return cast(Tensor, decoder(x, stage))
        narrowed = {"conv.weight": decoder.get_parameter("conv.weight")[:, read]}
        return cast(Tensor, functional_call(decoder, narrowed, (x, stage)))

    def _channels_read(self, layer: int, edges: Collection[Connection]) -> list[int]:
        """Which input channels of a decoder layer belong to these edges or to none."""
        read = list(range(_fixed_inputs(self.config, layer)))
        start, width = len(read), self.config.widths[level_of(layer)]
        for edge in self.config.connections:
            if edge[1] == layer:
                read += range(start, start + width) if edge in edges else ()
                start += width
        return read

    def derived(self, connections: Collection[Connection]) -> Rdmc:
        """The network that keeps these edges, each with weight 1, and this network's weights.

        Raises:
            ValueError: An edge that does not exist.
        """
        network = Rdmc(self.config.derived(connections))
        state = self.state_dict()
        for layer in range(LEVELS + 1, 2 * LEVELS + 1):
            name = f"decoder.{layer - LEVELS - 1}.conv.weight"
            state[name] = state[name][:, self._channels_read(layer, connections)]
        network.load_state_dict({name: state[name] for name in network.state_dict()})
        return network.to(self.alphas.device).train(self.training)


def _by_edge(weights: Tensor) -> dict[Connection, Tensor]:
    """Each edge's weight, in the order of the search space, without edges of weight 0.

    While a gradient may be asked of a weight, or nobody knows it, its edge stays even at 0.
    """
    all_stay = weights.requires_grad or weights.is_meta
    stays = torch.ones(weights.shape) if all_stay else weights.detach()
    by_edge = {
        edge: weight
        for edges, row, kept in zip(CANDIDATES, weights, stays.tolist(), strict=True)
        for edge, weight, stay in zip(edges, row, kept, strict=True)
        if stay
    }
    return {edge: by_edge[edge] for edge in all_connections() if edge in by_edge}


def multiply_adds(config: RdmcConfig, height: int = 256, width: int = 256) -> int:
    """Multiply-adds of the convolutions of all stages for one image (Table III: 256x256).

    Example:
        >>> multiply_adds(RdmcConfig()) / 1e6
        3017.834496
    """
    pixels, widths = _pixels_per_level(height, width), config.widths
    paths = len(config.dilations)
    encoder = sum(
        9 * inputs * outputs * paths * area
        for inputs, outputs, area in zip((6, *widths), widths, pixels, strict=False)
    )
    decoder = sum(
        9 * _fixed_inputs(config, layer) * widths[level_of(layer)] * pixels[level_of(layer)]
        for layer in range(LEVELS + 1, 2 * LEVELS + 1)
    )
    found = sum(
        connection_multiply_adds(config, edge, height, width) for edge in config.connections
    )
    return config.stages * (encoder + decoder + 9 * widths[0] * 3 * pixels[0]) + found


def connection_multiply_adds(
    config: RdmcConfig, connection: Connection, height: int = 256, width: int = 256
) -> int:
    """Multiply-adds that one edge adds in all stages: its convolution and its reader's share.

    Example:
        >>> connection_multiply_adds(RdmcConfig(), (3, 9)) < connection_multiply_adds(
        ...     RdmcConfig(), (2, 10)
        ... )
        True
    """
    pixels = _pixels_per_level(height, width)
    source, target = (level_of(layer) for layer in connection)
    outputs = config.widths[target]
    inputs = len(config.dilations) * config.widths[source]
    # Skip-up convolves before it up-samples, skip-down after it pooled: at the smaller size.
    own = 9 * inputs * outputs * pixels[max(source, target)]
    return config.stages * (own + 9 * outputs * outputs * pixels[target])


def _pixels_per_level(height: int, width: int) -> list[int]:
    multiple = 2 ** (LEVELS - 1)
    rows, columns = -(-height // multiple), -(-width // multiple)
    return [rows * columns * 4 ** (LEVELS - 1 - level) for level in range(LEVELS)]


def _fixed_inputs(config: RdmcConfig, layer: int) -> int:
    """Input channels of a decoder layer that are there without any searched edge."""
    level = level_of(layer)
    below = 0 if layer == LEVELS + 1 else config.widths[level + 1]
    return below + len(config.dilations) * config.widths[level]


def _upsampled(below: Tensor | None) -> list[Tensor]:
    """The features of the layer below at twice the size; layer 6 has none below."""
    return [] if below is None else [_upsample(below, 2)]


def _only_runs(x: Tensor) -> bool:
    """Whether a CPU only computes: neither learns through `x` nor traces what is done to it."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu")


def _max_pool(x: Tensor, factor: int) -> Tensor:
    """The largest value of each `factor` x `factor` cell, to the bit as `F.max_pool2d` finds it.

    On CPUs PyTorch pools 12 channels at a fifth (bf16) to a third (fp32) of the speed of two
    comparisons of slices, and this network spent a fifth of its time there. Where it learns or is
    exported it stays `F.max_pool2d`, whose backward pass is faster and which engines know by name.

    Args:
        x: Features `(batch, channels, height, width)` whose sides divide by `factor`.
        factor: Side of a cell, a power of two.
    """
    if not _only_runs(x):
        return F.max_pool2d(x, factor)
    while factor > 1:
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        x = torch.maximum(rows[..., ::2], rows[..., 1::2])
        factor //= 2
    return x


def _upsample(x: Tensor, factor: int) -> Tensor:
    """Features at `factor` times the size, between pixels by `F.interpolate`.

    On CPUs PyTorch does so in bf16 at two thirds of the speed of fp32 with a copy there and back,
    to the same bits, because it computes in fp32 either way.
    """
    features = x.float() if _only_runs(x) and x.dtype.itemsize == 2 else x
    large = F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
    return large.to(x.dtype)
