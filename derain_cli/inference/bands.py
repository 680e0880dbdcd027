"""One attempt at an image in tiles: row by row of them, blended where they overlap.

A large image runs as rows of tiles (columns, if it is wide). Only one row of results is held as
floats; whoever asks for the rows writes them in the image's own dtype at once. `tiles` decides
where tiles lie, `tiling` how large they are. A whole image is the case of one tile.

With an overlap of at least twice the receptive radius plus `tiles.FEATHER`, tiles equal the whole
image up to float rounding. In practice less is enough, because distant pixels hardly count.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np

from derain_cli.errors import ImageError
from derain_cli.inference.engine import Engine, Tileable
from derain_cli.inference.pixels import Levels, Pixels, Reader, is_finite, pad_to_multiple
from derain_cli.inference.scales import Layer, turned_reader
from derain_cli.inference.tiles import plan_axis
from derain_cli.inference.tiling import TileSize

Turnable = TypeVar("Turnable", Pixels, Levels, Layer)
OnShare = Callable[[float], None]  # told what share of an image is done


class TileNetwork(Protocol):
    """What derains the tiles: `Derainer` does.

    Attributes:
        name: For messages.
        precision: "fp32", "bf16" or "fp16".
        entry: What tiles must know of the network.
        engine: What runs it.
    """

    name: str
    precision: str
    entry: Tileable
    engine: Engine

    def begin_network(
        self, rainy: Levels, precision: str, context_mean: Levels | None = None
    ) -> Callable[[], Levels]:
        """Begin a tile; the function waits for its result."""

    def run_context(self, rainy: Levels) -> Levels | None:
        """What the network averages over a whole image; None if it averages nothing."""


@dataclass(frozen=True)
class RunFacts:
    """How an image was derained.

    Attributes:
        tile: Largest side of a tile in pixels; 0 when the image ran whole.
        precision: Precision of the result: fp32 if a lower one gave values that are not finite.
        notices: Messages for the user.
        scales: What the image was shrunken by at most, to find wide rain; 1 for not at all.
    """

    tile: int
    precision: str
    notices: tuple[str, ...] = ()
    scales: int = 1


class TiledRun:
    """One attempt at an image: its tiles and the notices about them.

    When a tiled image is wider than high, rows here are the image's columns: bands run along the
    short side, so that they stay small for panoramas. The network still sees tiles upright.
    """

    def __init__(
        self,
        network: TileNetwork,
        size: tuple[int, int],
        tile: TileSize,
        overlap: int,
        notices: Sequence[str] = (),
    ) -> None:
        """Plan the tiles.

        Args:
            network: What derains a tile.
            size: Height and width of the image.
            tile: Height and width of the tiles; (0, 0) for the whole image.
            overlap: Pixels by which neighbouring tiles overlap.
            notices: What the user is to be told of earlier attempts.
        """
        self._network = network
        self.is_turned = any(tile) and size[1] > size[0]
        if self.is_turned:
            size, tile = size[::-1], tile[::-1]
        self.height, self.width = size
        self._overlap, multiple = overlap, network.entry.padding_multiple
        self.rows = plan_axis(self.height, tile[0], overlap, multiple)
        self.columns = plan_axis(self.width, tile[1], overlap, multiple)
        self.tile = 0 if self.rows.count == self.columns.count == 1 else max(tile)
        self.precision = network.precision
        self.on_progress: OnShare | None = None
        self._tiles_done = 0
        self._context_mean: Levels | None = None
        self.notices = [*notices, *self._tile_notices()]

    def facts(self, scales: int = 1, notices: Sequence[str] = ()) -> RunFacts:
        """How the image was derained; complete once all bands have run.

        Args:
            scales: As of `RunFacts`.
            notices: Of the coarser sizes.
        """
        every = dict.fromkeys((*notices, *self.notices))
        return RunFacts(self.tile, self.precision, tuple(every), scales)

    def reader(self, read: Reader) -> Reader:
        """Reads the same image, whose rows are the bands'."""
        return turned_reader(read) if self.is_turned else read

    def turned(self, values: Turnable, *sides: int) -> Turnable:
        """The array itself, or a view of it with the two sides exchanged."""
        return values.swapaxes(*sides) if self.is_turned else values

    def bands(self, read: Reader) -> Iterator[tuple[slice, Levels]]:
        """Finished rows from top to bottom: which, and `(batch, 3, rows, width)` in 0..1."""
        carried: Levels | None = None
        if self.tile:
            self._context_mean = self._mean_context(read)
        ends = (*self.rows.starts[1:], self.height)
        for top, end, weights in zip(self.rows.starts, ends, self.rows.weights, strict=True):
            band = self._band(read, slice(top, top + self.rows.tile), weights)
            if carried is not None:
                band[..., : carried.shape[-2], :] += carried
            carried = band[..., end - top :, :].copy()
            finished = band[..., : end - top, : self.width]
            yield slice(top, end), np.clip(finished, 0, 1, out=finished)

    def _mean_context(self, read: Reader) -> Levels | None:
        """Mean over the image of what the network averages, from all tiles; None for nothing.

        Every pixel counts once: tiles are weighted as they are blended.
        """
        multiple = self._network.entry.padding_multiple
        total: Levels | float = 0.0
        for top, row_weights in zip(self.rows.starts, self.rows.weights, strict=True):
            for left, weights in zip(self.columns.starts, self.columns.weights, strict=True):
                place = slice(top, top + self.rows.tile), slice(left, left + self.columns.tile)
                tile = self.turned(pad_to_multiple(read(*place), multiple), -1, -2)
                context = self._network.run_context(tile)
                if context is None:
                    return None
                share = self.turned(
                    _means(row_weights, multiple)[:, None] * _means(weights, multiple), 0, 1
                )
                total = total + (context * share).sum(axis=(2, 3), keepdims=True)
        cells = self.rows.padded * self.columns.padded / multiple**2
        return cast(Levels, total) / np.float32(cells)

    def _band(self, read: Reader, rows: slice, row_weights: Levels) -> Levels:
        """Weighted sum of one row of tiles, `(batch, 3, tile, columns)`."""
        band: Levels | None = None
        columns = self.columns
        for left, weights, derained in self._derained_tiles(read, rows):
            if columns.count == self.rows.count == 1:
                return derained
            if band is None:
                # In the tiles' own order of channels and pixels, so that sums need no strides.
                shape = (len(derained), 3, len(row_weights), columns.padded)
                band = np.zeros_like(derained, shape=shape)
            derained *= row_weights[:, None] * weights
            band[..., left : left + columns.tile] += derained
        assert band is not None, "an axis has at least one tile"
        return band

    def _derained_tiles(self, read: Reader, rows: slice) -> Iterator[tuple[int, Levels, Levels]]:
        """First column, weights and result of each tile of a row, a few of them begun ahead."""
        columns, begun = self.columns, deque[tuple[int, Levels, Callable[[], Levels]]]()
        for left, weights in zip(columns.starts, columns.weights, strict=True):
            tile = read(rows, slice(left, left + columns.tile))
            padded = pad_to_multiple(tile, self._network.entry.padding_multiple)
            begun.append((left, weights, self._begin(padded)))
            if len(begun) > self._network.engine.ahead:
                yield self._finished(*begun.popleft())
        while begun:
            yield self._finished(*begun.popleft())

    def _finished(
        self, left: int, weights: Levels, result: Callable[[], Levels]
    ) -> tuple[int, Levels, Levels]:
        derained = self.turned(result(), -1, -2)
        self._tiles_done += 1
        if self.on_progress is not None:
            self.on_progress(self._tiles_done / (self.rows.count * self.columns.count))
        return left, weights, derained

    def _begin(self, rainy: Levels) -> Callable[[], Levels]:
        """Begin a tile; the function waits for the result, checks it, and redoes it if need be."""
        rainy, precision = self.turned(rainy, -1, -2), self.precision
        result = self._network.begin_network(rainy, precision, self._context_mean)
        return lambda: self._checked(result(), rainy, precision)

    def _checked(self, derained: Levels, rainy: Levels, precision: str) -> Levels:
        """The network's result in float32, redone in fp32 where a lower precision overflowed."""
        if is_finite(derained):
            return derained
        if precision != "fp32":
            self.notices.append(f"{precision} gave values that are not finite: redone in fp32")
            self.precision = "fp32"
            again = self._network.begin_network(rainy, "fp32", self._context_mean)
            return self._checked(again(), rainy, "fp32")
        raise ImageError(
            f"{self._network.name} gives values that are not finite for this image: "
            "its weights are damaged or its training diverged"
        )

    def _tile_notices(self) -> Iterator[str]:
        """Reasons why the result may differ from that of the whole image."""
        if not self.tile:
            return
        entry = self._network.entry
        if entry.not_tile_exact:
            yield f"derained in tiles of {self.tile} pixels: {entry.not_tile_exact}"
        elif self._overlap < entry.tile_overlap:
            yield (
                f"tiles of {self.tile} pixels overlap by {self._overlap}, "
                f"{self._network.name} wants {entry.tile_overlap}: seams may show"
            )


def _means(weights: Levels, multiple: int) -> Levels:
    """Means of every `multiple` neighbours along a side."""
    means: Levels = weights.reshape(-1, multiple).mean(axis=1)
    return means
