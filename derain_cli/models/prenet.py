"""PReNet: one small residual network applied six times, with an LSTM that carries features over.

Paper: D. Ren, W. Zuo, Q. Hu, P. Zhu, D. Meng, "Progressive Image Deraining Networks: A Better and
Simpler Baseline", CVPR 2019. Written from the paper. Its public checkpoints load through `derain
models import --model prenet`; such a file keeps its authors' licence, weights trained here carry
this repository's licence.

How the paper's symbols map to this file:

===========================  ======================================================================
paper                        here
===========================  ======================================================================
y, x^t (eq. 4)               `rainy`, `derained` after stage t; x^0 = y
f_in                         `to_features` and ReLU, on both images side by side
f_recurrent, s^t             `ConvLstm`, whose `hidden` and `cell` pass from stage to stage
f_res (Fig. 3)               `blocks`, each a `ResidualBlock`; one set of weights for all stages
f_out                        `to_image`, added to y
T = 6 stages                 `PReNetConfig.stages`
===========================  ======================================================================

All stages share their weights: 168,963 parameters. A stage looks 13 pixels far, six of them 78, and
any size runs without padding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods


@dataclass(frozen=True)
class PReNetConfig:
    """Shape of the network.

    Attributes:
        channels: Width of every layer.
        blocks: Number of residual blocks in a stage.
        stages: How often the network is applied; changes no weights.
    """

    channels: int = 32
    blocks: int = 5
    stages: int = 6

    def __post_init__(self) -> None:
        """Refuse widths and depths below 1."""
        for name in ("channels", "blocks", "stages"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond which nothing changes an output pixel."""
        return self.stages * (2 * self.blocks + 3)


class ConvLstm(nn.Module):
    """A long short-term memory whose four gates are 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.forget_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.output_gate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """New (hidden, cell), each `(batch, channels, height, width)`."""
        both = torch.cat((features, hidden), dim=1)
        kept = torch.sigmoid(self.forget_gate(both)) * cell
        cell = kept + torch.sigmoid(self.input_gate(both)) * torch.tanh(self.candidate(both))
        return torch.sigmoid(self.output_gate(both)) * torch.tanh(cell), cell


class ResidualBlock(nn.Module):
    """conv3 - ReLU - conv3 - ReLU, added to its input, and a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, channels, height, width)`, none below 0."""
        change = F.relu(self.conv_out(F.relu(self.conv_in(x))))
        return F.relu(x + change)


class PReNet(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: PReNetConfig = PReNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.to_features = nn.Conv2d(6, config.channels, 3, padding=1)
        self.recurrent = ConvLstm(config.channels)
        self.blocks = nn.Sequential(*(ResidualBlock(config.channels) for _ in range(config.blocks)))
        self.to_image = nn.Conv2d(config.channels, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image after the last stage, the only one the paper's loss is on."""
        batch, _, height, width = rainy.shape
        derained = rainy
        hidden = cell = rainy.new_zeros(batch, self.config.channels, height, width)
        for _ in range(self.config.stages):
            features = F.relu(self.to_features(torch.cat((rainy, derained), dim=1)))
            hidden, cell = self.recurrent(features, hidden, cell)
            derained = rainy + self.to_image(self.blocks(hidden))
        return derained
