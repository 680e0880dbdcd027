"""U-Net: the plain encoder-decoder of the generalisation study.

Papers: J. Gu, X. Ma, X. Kong, Y. Qiao, C. Dong, "Networks are Slacking Off: Understanding
Generalization Problem in Image Deraining", NeurIPS 2023, whose section 2.3 takes this network as
the representative of those that down- and up-sample; and O. Ronneberger, P. Fischer, T. Brox,
"U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015. Written from the
papers; weights trained with it carry this repository's licence.

How the papers' symbols map to this file:

=================================  ================================================================
paper                              here
=================================  ================================================================
O = B + R (section 2.1)            `rainy` = clean + rain
output O with a tilde              `derained` = rainy - `to_rain(...)`
contracting path (Fig. 1)          `encoder[0 ... 3]`, at 1, 1/2, 1/4, 1/8 of the size
expansive path (Fig. 1)            `decoder[0 ... 2]`, at 1/4, 1/2, 1 of the size
two "conv 3x3, ReLU"               `ConvPair`
"max pool 2x2"                     `F.max_pool2d` in `UNet.forward`
"up-conv 2x2"                      `up[0 ... 2]`
"copy" (crop not needed)           the concatenation in `UNet.forward`
"conv 1x1"                         `to_rain`
=================================  ================================================================

An output pixel sees no farther than 51 pixels; sizes are padded to a multiple of 8.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network.

    Attributes:
        widths: Channels per level, full size first; one level more halves the size once more.
            The paper on U-Net has a fifth level of 1024 channels, which would be three quarters of
            all parameters; rain streaks are local enough for four.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        """Turn a list (from JSON) into a tuple; refuse widths below 1."""
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be one or more numbers from 1 up, not {self.widths!r}")

    @property
    def padding_multiple(self) -> int:
        """What heights and widths must divide by: all halvings."""
        return 1 << (len(self.widths) - 1)


class ConvPair(nn.Sequential):
    """Twice conv3 - ReLU, at one size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        # Paper: unpadded convolutions and a cropped skip. We pad, so that the output has the
        # input's size.
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module, HubMethods):
    """The whole network: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output is not clipped), any size.
    """

    def __init__(self, config: UNetConfig = UNetConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        steps_up = tuple(zip(widths[:0:-1], widths[-2::-1], strict=True))
        inputs = (3, *widths[:-1])
        self.encoder = nn.ModuleList(ConvPair(a, b) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps_up)
        self.decoder = nn.ModuleList(ConvPair(2 * b, b) for _, b in steps_up)
        self.to_rain = nn.Conv2d(widths[0], 3, 1)
        for pair in (*self.encoder, *self.decoder):
            pair.apply(_initialise)

    def forward(self, rainy: Tensor) -> Tensor:
        """Derained image: the rainy one minus the rain found in it."""
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        skips = self._encode(padded)
        # The smallest level is where decoding starts; each step up also reads the features that
        # the encoder had at that size, because up-sampling alone cannot bring back edges.
        x = skips.pop()
        for up, pair in zip(self.up, self.decoder, strict=True):
            x = pair(torch.cat((skips.pop(), up(x)), dim=1))
        rain: Tensor = self.to_rain(x)
        return (padded - rain)[..., :height, :width]

    def _encode(self, padded: Tensor) -> list[Tensor]:
        """Features of every level, full size first."""
        features = [self.encoder[0](padded)]
        for pair in self.encoder[1:]:
            features.append(pair(F.max_pool2d(features[-1], 2)))
        return features


def _initialise(module: nn.Module) -> None:
    """Normal weights of variance 2 / inputs (section 3): ReLUs keep the signal's size."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
