"""Derainer: run any image through a network, whole or in tiles, within the available memory.

`tiling` decides how large tiles are, `bands` derains them row by row; here an image is derained at
the sizes, in the passes and with the tiles that were asked for, and again with smaller tiles where
memory ran out.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack, cast

import numpy as np

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.errors import ResourceError, UsageError
from derain_cli.inference.bands import OnShare, RunFacts, TiledRun
from derain_cli.inference.engine import Engine, Tileable
from derain_cli.inference.engines import load_engine, network_engine
from derain_cli.inference.kinds import derain_any
from derain_cli.inference.memory import (
    give_back_freed_memory,
    is_out_of_memory,
    keep_freed_memory,
)
from derain_cli.inference.pixels import (
    Levels,
    Pixels,
    Reader,
    blended,
    check_image,
    level_reader,
    pixel_reader,
    write_pixels,
)
from derain_cli.inference.repeats import ORIENTATIONS, repeated
from derain_cli.inference.scales import (
    SIZES,
    Layer,
    check_scales,
    fitting_scales,
    share_of_work,
    shrunken,
    streak_width,
    without_rain,
)
from derain_cli.inference.tiling import Shape, TileSize, Tiling

if TYPE_CHECKING:  # torch takes a second to load, and engines other than torch do without
    from torch import Tensor, nn

    from derain_cli.models import ModelEntry

log = logging.getLogger(__name__)

Image = TypeVar("Image")  # see `inference.kinds`
Result = TypeVar("Result")
# After an image of more pixels than these the tiles' memory is given back, because its file format
# needs as much; the next image takes a moment longer.
LARGE = 40_000_000


class DerainerOptions(TypedDict, total=False):
    """The keyword arguments of `Derainer`; see there."""

    device: str
    precision: str
    tile: int | None
    tile_overlap: int | None
    compile: bool
    threads: int | None
    passes: int
    tta: bool
    scales: int | str
    engine: str


class Derainer:
    """A network ready for use: call it with an image to get the derained image.

    Attributes:
        name: Name of the network in messages and tables.
        engine: What runs it.
        device: Where it runs, as torch spells it: "cpu", "cuda", "cuda:N" or "mps".
        precision: "fp32", "bf16" or "fp16".
        tiling: How large tiles are, and by how much they overlap.
        entry: What tiles must know of the network: its entry in `MODELS`, say.
    """

    def __init__(
        self,
        model: "nn.Module | Engine",
        entry: Tileable,
        *,
        name: str,
        device: str = "auto",
        precision: str = "fp32",
        tile: int | None = None,
        tile_overlap: int | None = None,
        compile: bool = False,
        threads: int | None = None,
        passes: int = 1,
        tta: bool = False,
        scales: int | str = 1,
        engine: str = "torch",
    ) -> None:
        """Copy of the network, folded, on its device.

        Args:
            model: The network, which stays as it is; or an engine that holds one.
            entry: Its entry in `MODELS`.
            name: For messages and tables.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "fp32"; "bf16" and "fp16" are faster on some devices and differ by about a
                level of 8 bits; "auto" is bf16 where the device multiplies it natively.
            tile: Largest side of a tile, 0 for no tiles, None for as large as memory allows.
            tile_overlap: At most half a tile; None for the network's own, less in small tiles.
            compile: Compile the network with `torch.compile` at its first image.
            threads: CPU threads; of the whole process with torch. None: all cores.
            passes: Times an image goes through the network, each time the result of the last.
            tta: Average over eight flips and turns of the image: eight times the work for the last
                tenths of a dB.
            scales: 2 and 4 find rain in the image at half and at a quarter of its size first, for
                streaks wider than the network knows; "auto" measures the width of the streaks that
                the network finds, and takes 1, 2 or 4 for each image.
            engine: "torch"; "openvino" or "onnx" give the same image, on the CPU alone, and need
                the extra of their name; "auto" takes OpenVINO where it is installed and the device
                is the CPU.

        Raises:
            UsageError: An unknown or absent device, or a value that cannot mean anything.
        """
        if passes < 1:
            raise UsageError(f"passes must be at least 1, not {passes}")
        self.passes, self.tta, self.scales = passes, tta, check_scales(scales)
        self.name = name
        self.entry = entry
        self.tiling = Tiling(entry, tile, tile_overlap)
        if not isinstance(model, Engine):
            model = network_engine(
                model,
                cast("ModelEntry", entry),
                engine,
                name=name,
                device=device,
                precision=precision,
                compile=compile,
                threads=threads,
            )
        self.engine = model
        self.device, self.precision = model.device, model.precision
        if self.device == "cpu":
            keep_freed_memory()

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str] = DEFAULT_WEIGHTS,
        *,
        on_phase: Callable[[str], None] | None = None,
        **options: Unpack[DerainerOptions],
    ) -> "Derainer":
        """Derainer with trained weights.

        Args:
            name: An entry of `weights.toml`, a network's bare name, a checkpoint, a run folder, or
                a file that `derain models export` wrote for ONNX Runtime or OpenVINO.
            on_phase: Told what takes a while before it begins, such as compiling the network.
            **options: As of `Derainer`.

        Raises:
            UnavailableError: No such weights.
            CheckpointError: The file is damaged or not one of ours.
            UsageError: As of `Derainer`.
        """
        loaded = load_engine(
            name,
            options.pop("engine", "torch"),
            device=options.pop("device", "auto"),
            precision=options.pop("precision", "fp32"),
            compile=options.pop("compile", False),
            threads=options.pop("threads", None),
            on_phase=on_phase or log.info,
        )
        return cls(loaded.engine, loaded.entry, name=loaded.name, **options)

    def __call__(self, images: Image, /, *, strength: float = 1.0) -> Image:
        """The derained image, or a list of them, of the kind that was given.

        Args:
            images: A `Picture`, a PIL image, an array (uint8, uint16, or float in 0..1; gray or
                RGB, with or without alpha), a tensor (uint8, or float in 0..1), or a list of
                these; see `inference.kinds`.
            strength: How much of the rain is removed: 0 gives the image back as it is, 1 the
                derained one.

        Raises:
            UsageError: Another kind of image, values outside of their range, or another strength.
            ResourceError: Not enough memory even for small tiles.
            ImageError: The network gave values that are not finite.
        """
        if isinstance(images, list | tuple):
            kind = type(images)
            return cast(Image, kind(derain_any(self, image, strength) for image in images))
        return cast(Image, derain_any(self, images, strength))

    def __repr__(self) -> str:
        """Name, device and precision."""
        return (
            f"Derainer({self.name!r}, device={self.device!r}, precision={self.precision!r}, "
            f"engine={self.engine.name!r})"
        )

    def run(
        self,
        rainy: Pixels,
        strength: float = 1.0,
        *,
        on_progress: OnShare | None = None,
    ) -> tuple[Pixels, RunFacts]:
        """Derained image, and how it was computed.

        Args:
            rainy: `(height, width, 3)`, uint8 or uint16, of any size.
            strength: 0 returns the image bit for bit, 1 the derained one; values between blend
                the two.
            on_progress: Called after each tile with the share of the image that is done, up to 1.
                It starts again from 0 where memory ran out and smaller tiles take over, and where
                scales are "auto" and wide streaks were found.

        Raises:
            UsageError: Not such an array; strength outside 0..1.
            ResourceError: Not enough memory even for small tiles.
            ImageError: The network gave values that are not finite.
        """
        check_image(rainy)
        if not 0 <= strength <= 1:
            raise UsageError(f"strength must lie in 0..1, not {strength}")
        if strength == 0:
            return rainy.copy(), RunFacts(0, self.precision)
        scales = self.scales
        if isinstance(scales, str):
            narrow, facts = self._run_at(1, rainy, 1.0, on_progress)
            width = streak_width(pixel_reader(rainy), pixel_reader(narrow), len(rainy))
            scales = fitting_scales(width)
            if scales == strength == 1:
                return narrow, facts
            del narrow
        return self._run_at(scales, rainy, strength, on_progress)

    def _run_at(
        self, scales: int, rainy: Pixels, strength: float, on_progress: OnShare | None
    ) -> tuple[Pixels, RunFacts]:
        if self._is_repeated:
            return self._run_repeated(scales, rainy, strength, on_progress)
        size = rainy.shape[:2]
        image = pixel_reader(rainy)
        coarse = self._find_coarse_rain(scales, image, (1, *size), on_progress)

        def attempt(run: TiledRun) -> tuple[Pixels, RunFacts]:
            run.on_progress = coarse.on_progress
            derained = np.empty_like(rainy, order="C")
            target = run.turned(derained, 0, 1)  # a view whose rows are the bands
            whole, read = run.reader(image), run.reader(coarse.read)
            for rows, result in run.bands(read):
                if strength < 1:
                    result = blended(whole(rows, slice(None)), result, strength)
                write_pixels(result, target[rows])
            return derained, run.facts(scales, coarse.notices)

        result = self._within_memory((1, *size), attempt, coarse.held)
        if size[0] * size[1] > LARGE:
            self.engine.release()
            give_back_freed_memory(self.device)
        return result

    def derain_tensor(self, rainy: "Tensor") -> "Tensor":
        """`derain_levels` for a tensor on any device; the result is on the same."""
        import torch  # noqa: PLC0415 (loaded already: the caller holds a tensor)

        levels = rainy.detach().to("cpu", torch.float32).numpy()
        return torch.from_numpy(self.derain_levels(levels)).to(rainy.device)

    def derain_levels(self, rainy: Levels) -> Levels:
        """Derained images in 0..1, clipped, for scores; tiled as an image would be.

        Args:
            rainy: `(batch, 3, height, width)`, float32 in 0..1.

        Raises:
            ResourceError: Not enough memory even for small tiles.
            ImageError: The network gave values that are not finite.
        """
        return self._run_levels(rainy)[0]

    def run_together(
        self, rainy: Sequence[Pixels], strength: float = 1.0
    ) -> tuple[list[Pixels], RunFacts]:
        """Derained images of one shape and type in one pass, and how they were computed.

        Args:
            rainy: Each `(height, width, 3)`, uint8 or uint16.
            strength: As for `run`.

        Raises:
            ResourceError: Not enough memory even for small tiles.
            ImageError: The network gave values that are not finite.
        """
        stacked = np.stack(rainy)
        largest = np.float32(np.iinfo(stacked.dtype).max)
        levels = (stacked.astype(np.float32) / largest).transpose(0, 3, 1, 2)
        derained, facts = self._run_levels(levels)
        whole = np.rint(blended(levels, derained, strength).transpose(0, 2, 3, 1) * largest)
        return list(whole.astype(stacked.dtype)), facts

    def _run_levels(self, rainy: Levels) -> tuple[Levels, RunFacts]:
        if not isinstance(self.scales, str):
            return self._levels_at(self.scales, rainy)
        derained, facts = self._levels_at(1, rainy)
        for image, narrow in zip(np.split(rainy, len(rainy)), derained, strict=True):
            width = streak_width(level_reader(image), level_reader(narrow[None]), rainy.shape[2])
            if (scales := fitting_scales(width)) > 1:
                wide, facts = self._levels_at(scales, image)
                narrow[...] = wide[0]
        return derained, facts

    @property
    def _is_repeated(self) -> bool:
        return self.passes > 1 or self.tta

    def _run_repeated(
        self, scales: int, rainy: Pixels, strength: float, on_progress: OnShare | None
    ) -> tuple[Pixels, RunFacts]:
        """`run` in several passes or orientations; the image is held as floats meanwhile."""
        levels = pixel_reader(rainy)(slice(None), slice(None))
        derained, facts = self._levels_at(scales, levels, on_progress)
        target = np.empty_like(rainy, order="C")
        write_pixels(np.clip(blended(levels, derained, strength), 0, 1), target)
        return target, facts

    def _levels_at(
        self, scales: int, rainy: Levels, on_progress: OnShare | None = None
    ) -> tuple[Levels, RunFacts]:
        """Derained images after all passes and orientations, and how they were computed."""
        if not self._is_repeated:
            return self._once(scales, rainy)
        facts: list[RunFacts] = []
        times = self.passes * (len(ORIENTATIONS) if self.tta else 1)

        def once(given: Levels) -> Levels:
            derained, fact = self._once(scales, given)
            facts.append(fact)
            if on_progress is not None:
                on_progress(len(facts) / times)
            return derained

        derained = repeated(once, rainy, self.passes, self.tta)
        notices = tuple(dict.fromkeys(notice for fact in facts for notice in fact.notices))
        return derained, RunFacts(facts[0].tile, facts[-1].precision, notices, scales)

    def _once(self, scales: int, rainy: Levels) -> tuple[Levels, RunFacts]:
        """Derained images in 0..1 after one pass, and how they were computed."""
        batch, _, height, width = rainy.shape
        shape = batch, height, width
        coarse = self._find_coarse_rain(scales, level_reader(rainy), shape)

        def attempt(run: TiledRun) -> tuple[Levels, RunFacts]:
            derained = np.empty(rainy.shape, np.float32)
            target = run.turned(derained, -1, -2)
            for rows, result in run.bands(run.reader(coarse.read)):
                target[..., rows, :] = result
            return derained, run.facts(scales, coarse.notices)

        return self._within_memory(shape, attempt, coarse.held)

    def _find_coarse_rain(
        self, scales: int, read: Reader, shape: Shape, on_progress: OnShare | None = None
    ) -> "_Coarse":
        """The image without the rain that shows at smaller sizes, the coarsest first."""
        sizes, (batch, height, width), begun = SIZES[scales], shape, 0.0
        held, notices = 0, dict[str, None]()
        for scale in sizes[:-1]:
            smaller = shrunken(read, scale, (height, width))
            small = batch, -(-height // scale), -(-width // scale)
            share = share_of_work(scale, sizes)
            advance = _part_of(on_progress, begun, share)
            # The image itself lies in memory as well, and so do the coarser layers.
            layer, facts = self._layer(smaller, small, held + math.prod(shape) * 3, advance)
            read = without_rain(read, layer, scale, (height, width))
            held, begun = held + layer.nbytes, begun + share
            notices.update(dict.fromkeys(facts.notices))
        return _Coarse(read, held, tuple(notices), _part_of(on_progress, begun, 1 - begun))

    def _layer(
        self, read: Reader, shape: Shape, held: int, on_progress: OnShare | None
    ) -> tuple[Layer, RunFacts]:
        """The rain in a shrunken image."""

        def attempt(run: TiledRun) -> tuple[Layer, RunFacts]:
            run.on_progress = on_progress
            layer = np.empty((*shape, 3), np.float16)
            target, source = run.turned(layer, 1, 2), run.reader(read)
            for rows, derained in run.bands(source):
                rain = source(rows, slice(None)) - derained
                target[:, rows] = rain.transpose(0, 2, 3, 1)
            return layer, run.facts()

        return self._within_memory(shape, attempt, held)

    def begin_network(
        self, rainy: Levels, precision: str, context_mean: Levels | None = None
    ) -> Callable[[], Levels]:
        """Begin a batch whose sides need no padding; the function waits for its result.

        Args:
            rainy: `(batch, 3, height, width)`.
            precision: The derainer's own, or fp32.
            context_mean: Of the image of which `rainy` is a tile, for networks with a context.
        """
        return self.engine.begin(rainy, precision, context_mean)

    def run_context(self, rainy: Levels) -> Levels | None:
        """What the network averages over a whole image, float32; None if it averages nothing."""
        return self.engine.context(rainy)

    def _within_memory(
        self, shape: Shape, attempt: Callable[[TiledRun], Result], held: int = 0
    ) -> Result:
        """Result of `attempt`, with the largest tiles that memory allows.

        Each attempt starts from scratch, so that no result of a failed one can end up in the image.

        Args:
            shape: Of the images.
            attempt: Runs the network over them.
            held: Bytes that lie in memory besides the images.
        """
        notices: list[str] = []
        size, tile = shape[1:], self.tiling.first(shape, self.engine, held)
        while True:
            try:
                overlap = self.tiling.overlap_of(min(tile))
                return attempt(TiledRun(self, size, tile, overlap, notices))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of `except`, whose traceback keeps the failed attempt's arrays alive.
            tile = self._smaller(tile, size)
            notices.append(f"out of memory: went on with tiles of {max(tile)} pixels")
            give_back_freed_memory(self.device)

    def _smaller(self, tile: TileSize, size: tuple[int, int]) -> TileSize:
        smaller = self.tiling.smaller(tile, size)
        if smaller is None:
            height, width = size
            raise ResourceError(
                f"out of memory: {self.name} cannot derain {width}x{height} pixels even in tiles "
                f"of {self.tiling.longest(tile, size)}; free some memory or take a smaller network"
            )
        return smaller


def derain(
    image: Image,
    model: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    *,
    strength: float = 1.0,
    **options: Unpack[DerainerOptions],
) -> Image:
    """Take the rain out of one image, or of a list of them.

    The weights are loaded at every call; for many calls make a `Derainer` once.

    Args:
        image: Any kind of image that `Derainer` takes; it comes back as that kind.
        model: Weights by name, a checkpoint, or the folder of a training run.
        strength: How much of the rain is removed, 0..1.
        **options: As of `Derainer`.

    Raises:
        UsageError: An image or an option that cannot mean anything.
        UnavailableError: No such weights.
        CheckpointError: Their file is damaged or not one of ours.
        ResourceError: Not enough memory even for small tiles.
        ImageError: The network gave values that are not finite.
    """
    return Derainer.load(model, **options)(image, strength=strength)


@dataclass(frozen=True)
class _Coarse:
    """What the finest size is given.

    Attributes:
        read: Reads the image without the rain that was found at smaller sizes.
        held: Bytes of the layers of rain.
        notices: Messages for the user.
        on_progress: Told the share of the finest size that is done.
    """

    read: Reader
    held: int
    notices: tuple[str, ...]
    on_progress: OnShare | None


def _part_of(on_progress: OnShare | None, begun: float, share: float) -> OnShare | None:
    """Tells the progress of a part of the work as that of all of it."""
    if on_progress is None or share == 1:
        return on_progress
    return lambda done: on_progress(begun + share * done)
