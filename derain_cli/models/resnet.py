"""ResNet: the plain residual network of the generalisation study, at full resolution throughout.

Papers: J. Gu, X. Ma, X. Kong, Y. Qiao, C. Dong, "Networks are Slacking Off: Understanding
Generalization Problem in Image Deraining", NeurIPS 2023, whose section 2.3 takes this network as
the representative of convolutions with deep residual connections; and C. Ledig et al., "Photo-
Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017, whose
SRResNet (Fig. 4) it is, without the up-sampling. Written from the papers; weights trained with it
carry this repository's licence.

How the papers' symbols map to this file:

===========================  ======================================================================
paper                        here
===========================  ======================================================================
O = B + R (section 2.1)      `rainy` = clean + rain
output O with a tilde        `derained` = rainy - `to_rain(...)`
B residual blocks (Fig. 4)   `ResNetConfig.blocks`, each a `ResidualBlock`
n64 (Fig. 4)                 `ResNetConfig.channels`
first conv (Fig. 4)          `to_features`
conv before the long sum     `after_blocks`; the long sum of Fig. 4 is in `ResNet.forward`
last conv                    `to_rain`
===========================  ======================================================================

An output pixel sees no farther than 2 x blocks + 3 pixels (35), and any size runs without padding.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of the network.

    Attributes:
        channels: Width of every layer.
        blocks: Number of residual blocks.
    """

    channels: int = 64
    blocks: int = 16

    def __post_init__(self) -> None:
        """Refuse widths and depths below 1."""
        for field, value in (("channels", self.channels), ("blocks", self.blocks)):
            if value < 1:
                raise ValueError(f"{field} must be at least 1, not {value!r}")

    @property
    def receptive_radius(self) -> int:
        """Pixels beyond which nothing changes an output pixel."""
        return 2 * self.blocks + 3


class ResidualBlock(nn.Module):
    """conv3 - ReLU - conv3, added to its input."""

    # Paper (Ledig et al.): batch norm after both convolutions. gu2023 trained in a framework whose
    # SRResNet has none, as has become usual in restoration. We leave it out, too: statistics of
    # training crops do not fit whole images, and gu2023 trains on as few as 8 backgrounds.

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, channels, height, width)`; no activation after the sum."""
        change: Tensor = self.conv_out(F.relu(self.conv_in(x), inplace=True))
        return x + change


class ResNet(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: ResNetConfig = ResNetConfig()) -> None:
        super().__init__()
        self.config = config
        # Paper (Ledig et al.): 9x9 first and last. We use 3x3, as the framework of gu2023 does.
        self.to_features = nn.Conv2d(3, config.channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.channels) for _ in range(config.blocks)))
        self.after_blocks = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.to_rain = nn.Conv2d(config.channels, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image: the rainy one minus the rain found in it."""
        # The blocks refine features that the long skip hands past them, as in Ledig et al., Fig. 4.
        features = F.relu(self.to_features(rainy))
        rain: Tensor = self.to_rain(features + self.after_blocks(self.blocks(features)))
        # Rain, not the image, is predicted: where nothing falls the output is the input.
        return rainy - rain
