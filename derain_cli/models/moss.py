"""MOSS: an encoder-decoder that describes rain by the items of a self-supervised memory.

Paper (huang2021): H. Huang, A. Yu, R. He, "Memory Oriented Transfer Learning for Semi-Supervised
Image Deraining", CVPR 2021. Written from the paper; what its text leaves open (widths, where the
resolution changes) follows facts read off the authors' release, whose gated skip blocks are left
out because the paper has none. The self-training of section 3.2 is a recipe, not part of this file.

How the paper's symbols map to this file:

=====================  ==================================================================
paper                  here
=====================  ==================================================================
x, section 3.1.1       `rainy`, moved from 0..1 to -1..1 inside `forward`
s(x)                   `shallow`, made by `Moss.head`
E, z(x)                `Moss.encoder`, `queries`: `(batch, c, height / 8, width / 8)`
M, e_i, m = 512        `RainMemory.items`, a buffer `(m, c)`
s_ij, k(j), eq. 1-2    the cosines and their argmax in `RainMemory.update`
eq. 3, tau             `RainMemory.update`, `MossConfig.memory_decay`
eq. 4-5, z^(x)         `RainMemory.read`
G, g(x)                `Moss.decoder`, `rain`
RB kappa (D, U)        `_encoder_stack`, `_decoder_stack` of `MossConfig.blocks` blocks
f_xi, eq. 7            a copy of the network in eval mode: its memory stays as it is
=====================  ==================================================================

When the memory learns: in `forward`, before it is read, if the module is in training mode and the
caller did not say `update_memory=False`. Gradients never reach it (the items are a buffer). An
exponential moving average of the network must average buffers along with parameters.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.hub_methods import HubMethods
from derain_cli.sizes import pad_to_multiple

NEGATIVE_SLOPE = 0.02


@dataclass(frozen=True)
class MossConfig:
    """Shape of the network and behaviour of its memory.

    Attributes:
        widths: Channels of s(x) and after each stack of the encoder; the decoder mirrors them.
        blocks: Residual blocks per stack (kappa).
        downsamplings: That many first encoder stacks halve the size, as many last ones double it.
        use_memory: False is Table 4's network without memory: the decoder gets z(x) itself.
        memory_items: Items m in the memory.
        memory_decay: Share tau of an item that survives an update (eq. 3).
        temperature: Cosines are divided by it before the softmax of eq. 4. The paper has 1, which
            with hundreds of items weighs them nearly alike; smaller values choose.
        skip_connection: False is Table 4's network without it: the image is made from g(x) alone,
            not from s(x) - g(x).
    """

    widths: tuple[int, ...] = (16, 32, 48, 64, 80, 96)
    blocks: int = 4
    downsamplings: int = 3
    use_memory: bool = True
    memory_items: int = 512
    memory_decay: float = 0.999
    temperature: float = 1.0
    skip_connection: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible values; turn lists (from JSON) into tuples."""
        object.__setattr__(self, "widths", tuple(self.widths))
        for name in ("blocks", "memory_items", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if not 0 <= self.memory_decay <= 1:
            raise ValueError(f"memory_decay must be in 0..1, not {self.memory_decay!r}")
        stacks = len(self.widths) - 1
        if stacks < 1 or not 0 <= self.downsamplings <= stacks:
            raise ValueError(
                f"downsamplings must be 0..{max(stacks, 0)} with {len(self.widths)} widths "
                f"(two widths at least), not {self.downsamplings!r}"
            )

    @property
    def padding_multiple(self) -> int:
        """What heights and widths must divide by: all halvings."""
        return 1 << self.downsamplings


class ResidualBlock(nn.Module):
    """conv3 - LeakyReLU - conv3 + input; a 1x1 convolution fits the input to another width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = max(inputs, outputs)
        self.expand = nn.Conv2d(inputs, inner, 3, padding=1, bias=False)
        self.reduce = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            # torch's own start shrinks features by sqrt(3) here, ten times over the network, and
            # nearly silences the path through the memory: this keeps their size. Measured on one
            # pair, 180 steps of Adam 1e-3: 37.0 and 38.4 dB (two seeds) instead of 31.9 and 34.4.
            nn.init.normal_(self.shortcut.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(batch, outputs, height, width)`; no activation after the sum."""
        changed = self.reduce(F.leaky_relu(self.expand(x), NEGATIVE_SLOPE, inplace=True))
        summed: Tensor = changed + self.shortcut(x)
        return summed


class RainMemory(nn.Module):
    """Prototypes of rain features that follow the features they resemble (section 3.1.2).

    Attributes:
        items: The memory `(m, c)`, a buffer: in checkpoints, but never moved by gradients.
    """

    items: Tensor

    def __init__(self, items: int, channels: int, decay: float, temperature: float) -> None:
        super().__init__()
        self.decay, self.temperature = decay, temperature
        # Random directions. Queries start out 1 to 4 long, so with items of length 1 neither the
        # old nor the new part of eq. 3 drowns the other.
        self.register_buffer("items", F.normalize(torch.randn(items, channels), dim=1))

    def forward(self, features: Tensor, *, update: bool = True) -> Tensor:
        """z^(x) `(batch, c, height, width)`: the features said in items of the memory.

        Args:
            features: z(x), `(batch, c, height, width)`; each position is one query.
            update: Let the memory learn from the features first. In eval mode it never does.
        """
        # Cosines rounded to bfloat16 would send queries to wrong items and hide what tells the
        # nearly equal weights of eq. 4 apart, so this part is float32 even under autocast.
        if features.dtype in (torch.bfloat16, torch.float16):
            with torch.autocast(features.device.type, enabled=False):
                return self._remember(features.float(), update=update).to(features.dtype)
        return self._remember(features, update=update)

    def _remember(self, features: Tensor, *, update: bool) -> Tensor:
        # Contiguous, else the attention falls back to a kernel that holds queries x items weights.
        positions = features.permute(0, 2, 3, 1).contiguous()
        queries = positions.flatten(0, 2)
        if update and self.training:
            self.update(queries)
        return self.read(queries).view_as(positions).permute(0, 3, 1, 2)

    def read(self, queries: Tensor) -> Tensor:
        """Items averaged by the softmax of their cosines with each query (eq. 4-5).

        Args:
            queries: z_j(x), `(queries, c)`.

        Returns:
            `(queries, c)`. Gradients reach the queries, not the items.
        """
        # A copy: the next update (or DistributedDataParallel's broadcast of buffers) writes into
        # `items` in place, and must not spoil what this reading keeps for the backward pass.
        items = self.items.to(queries.dtype, copy=torch.is_grad_enabled())
        # Never holds the weights of all queries x items, so big images fit (12 megapixels would
        # need 0.8 GiB for them).
        reading = F.scaled_dot_product_attention(
            F.normalize(queries, dim=1)[None, None],
            F.normalize(items, dim=1)[None, None],
            items[None, None],
            scale=1 / self.temperature,
        )
        return reading[0, 0]

    @torch.no_grad()
    def update(self, queries: Tensor) -> None:
        """Move each item towards the mean of the queries that chose it (eq. 1-3).

        Items nobody chose stay as they are (eq. 3 would be 0/0). With `torch.distributed`
        initialised the sums and counts are those of all processes, which must all call this.
        Queries that are not finite (overflow under fp16 with a loss scaler) are left out: one of
        them would spoil its item for good.

        Args:
            queries: z_j(x) of all positions of all images of the batch, `(queries, c)`.
        """
        # The query's own length scales all its cosines alike: the argmax does not need it.
        chosen = (queries @ F.normalize(self.items, dim=1).T).argmax(dim=1)
        finite = queries.isfinite().all(dim=1, keepdim=True)
        # A last column of ones counts the queries.
        counted = torch.where(finite, F.pad(queries, (0, 1), value=1.0), 0.0)
        totals = queries.new_zeros(len(self.items), counted.shape[1]).index_add_(0, chosen, counted)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(totals)
        sums, counts = totals[:, :-1], totals[:, -1:]
        moved = torch.lerp(sums / counts.clamp(min=1), self.items, self.decay)
        self.items.copy_(torch.where(counts > 0, moved, self.items))


class Moss(nn.Module, HubMethods):
    """The whole network, MOEDN: rainy image in, derained image out.

    Input and output are `(batch, 3, height, width)` in 0..1 (the output by its tanh), any size.

    Attributes:
        memory: The rain memory, None with `use_memory=False`.
    """

    def __init__(self, config: MossConfig = MossConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.head = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.encoder = nn.Sequential(
            *(
                _encoder_stack(narrow, wide, config.blocks, halve=index < config.downsamplings)
                for index, (narrow, wide) in enumerate(itertools.pairwise(widths))
            )
        )
        self.memory = (
            RainMemory(config.memory_items, widths[-1], config.memory_decay, config.temperature)
            if config.use_memory
            else None
        )
        mirrored = reversed(list(enumerate(itertools.pairwise(widths))))
        self.decoder = nn.Sequential(
            *(
                _decoder_stack(wide, narrow, config.blocks, double=index < config.downsamplings)
                for index, (narrow, wide) in mirrored
            )
        )
        self.to_image = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, rainy: Tensor, *, update_memory: bool = True) -> Tensor:
        """Derained image.

        Args:
            rainy: `(batch, 3, height, width)` in 0..1.
            update_memory: In training mode, let the memory learn from this batch before it is
                read. No effect in eval mode, where the memory never changes.
        """
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, self.config.padding_multiple)
        # The paper's networks work in -1..1, where their tanh ends.
        shallow = self.head(padded * 2 - 1)
        queries = self.encoder(shallow)
        # The decoder gets rain in words of the memory only, so it cannot copy the background.
        if self.memory is not None:
            queries = self.memory(queries, update=update_memory)
        rain = self.decoder(queries)
        # The background goes past the encoder: what is left for the encoder to describe is rain.
        background = shallow - rain if self.config.skip_connection else rain
        # Back to full precision first: bfloat16 near 1 is coarser than an 8-bit image.
        derained: Tensor = (torch.tanh(self.to_image(background).to(rainy.dtype)) + 1) / 2
        return derained[..., :height, :width]


def _encoder_stack(inputs: int, outputs: int, blocks: int, *, halve: bool) -> nn.Sequential:
    """RB kappa (D): the first block widens, then the size is halved if asked."""
    pool = [nn.AvgPool2d(2)] if halve else []
    rest = [ResidualBlock(outputs, outputs) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(inputs, outputs), *pool, *rest)


def _decoder_stack(inputs: int, outputs: int, blocks: int, *, double: bool) -> nn.Sequential:
    """RB kappa (U): the size is doubled if asked, then the first block narrows."""
    grow = [nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)] if double else []
    rest = [ResidualBlock(outputs, outputs) for _ in range(blocks - 1)]
    return nn.Sequential(*grow, ResidualBlock(inputs, outputs), *rest)
