"""A convolution and the batch norm after it: the one pair of layers that inference merges."""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm.

    A network that is built of these is faster at inference without a line of its own: there each
    pair becomes one convolution. Nothing else is ever merged, whatever its attributes are called,
    because only this class says in which order the two are applied.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        # A bias would be cancelled by the mean that batch norm subtracts.
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features `(batch, outputs, height, width)`."""
        normed: Tensor = self.norm(self.conv(x))
        return normed

    def merge(self) -> None:
        """Put the batch norm into the convolution's weights; for inference only.

        A norm that was exchanged for another kind of layer is left as it is.
        """
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()
