"""RDMC: recursive dynamic multi-scale network with searched cross-level connections.

Paper: Z. Jiang, R. Liu, S. Yang, Z. Zhang, X. Fan, "Contrastive Learning Based Recursive Dynamic
Multi-Scale Network for Image Deraining", IEEE TCSVT 2023. The authors released no code; this file
is written from the paper, and weights trained with it carry this repository's licence.

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
BN                     `StageNorm`: one batch norm per stage
=====================  ==================================================================
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from derain_cli.padding import pad_to_multiple

LEVELS = 5
PAPER_CONNECTIONS = ((3, 9), (4, 8), (2, 8), (3, 7))
Connection = tuple[int, int]


@dataclass(frozen=True)
class RdmcConfig:
    """Shape of the network.

    Attributes:
        widths: Channels per path of encoder layers 1-5; the decoder mirrors them.
        dilations: One path per dilation (Fig. 2 c).
        stages: Recursions T (Table IV: 3 is best).
        connections: Searched edges (encoder layer, decoder layer), section III-B.
        norm_per_stage: Own batch norm for each stage. Stage 1 sees the rainy picture twice, stage 3
            a nearly clean one: shared running statistics fit neither.
    """

    widths: tuple[int, ...] = (12, 12, 24, 24, 48)
    dilations: tuple[int, ...] = (1, 2, 3)
    stages: int = 3
    connections: tuple[Connection, ...] = PAPER_CONNECTIONS
    norm_per_stage: bool = True

    def __post_init__(self) -> None:
        """Refuse edges that do not exist; turn lists (from JSON) into tuples."""
        edges = tuple((int(source), int(target)) for source, target in self.connections)
        for edge in edges:
            if edge not in all_connections():
                known = ", ".join(f"{a}->{b}" for a, b in all_connections())
                raise ValueError(f"no such connection {edge[0]}->{edge[1]}; there are {known}")
        if len(set(edges)) != len(edges):
            raise ValueError(f"a connection is named twice: {edges}")
        object.__setattr__(self, "connections", edges)
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "dilations", tuple(self.dilations))


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
        convolved: Tensor = self.conv(F.max_pool2d(x, 2**-self.steps))
        return convolved


class Rdmc(nn.Module):
    """The whole network: rainy picture in, derained picture out.

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
        """Derained picture after the last of T stages."""
        return self.all_stages(rainy)[-1]

    def all_stages(self, rainy: Tensor) -> list[Tensor]:
        """B^(1) ... B^(T): what each stage makes of the rainy picture (eq. 2)."""
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, 2 ** (LEVELS - 1))
        derained, results = padded, []
        for stage in range(self.config.stages):
            derained = padded - self.rain_of_stage(torch.cat((derained, padded), dim=1), stage)
            results.append(derained[..., :height, :width])
        return results

    def rain_of_stage(self, stage_input: Tensor, stage: int) -> Tensor:
        """Rain `(batch, 3, height, width)` seen in `cat(derained, rainy)` by one stage."""
        features = self._encode(stage_input, stage)
        x = torch.cat(features[-1], dim=1)
        for index, layer in enumerate(self.decoder):
            if index:
                x = self._decoder_input(LEVELS + 1 + index, x, features)
            x = layer(x, stage)
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
                paths = [F.max_pool2d(path, 2) for path in paths]
            paths = layer(paths, stage)
            features.append(paths)
        return features

    def _decoder_input(self, layer: int, below: Tensor, features: list[list[Tensor]]) -> Tensor:
        """Up-sampled features, the same-level skip and the searched connections of one layer."""
        parts = [_upsample(below, 2), *features[level_of(layer)]]
        for source, target in self.config.connections:
            if target == layer:
                connection = self.connections[f"{source}_{target}"]
                parts.append(connection(torch.cat(features[source - 1], dim=1)))
        return torch.cat(parts, dim=1)

    def _decoder_inputs(self, layer: int) -> int:
        widths, level = self.config.widths, level_of(layer)
        same_level = len(self.config.dilations) * widths[level]
        if layer == LEVELS + 1:
            return same_level
        found = sum(target == layer for _, target in self.config.connections)
        return widths[level + 1] + same_level + found * widths[level]

    def folded(self) -> "Rdmc":
        """Equal network for inference, batch norm merged into the convolutions.

        Each stage then has convolutions of its own, so it can be neither trained nor saved as an
        `Rdmc`. `inference.fold_batch_norm` looks for this method.
        """
        folded = copy.deepcopy(self).eval()
        for parent in list(folded.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, ConvNormReLU):
                    setattr(parent, name, FoldedConvReLU(layer))
        return folded


def _upsample(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
