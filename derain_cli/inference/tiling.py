"""How large tiles are: what the caller asked for, what memory allows, what is left of it.

`tiles` says where tiles of a size lie.
"""

import math

from derain_cli.errors import UsageError
from derain_cli.inference.engine import Engine, Tileable
from derain_cli.inference.memory import memory_budget
from derain_cli.inference.tiles import cheapest_tiles, round_down, round_up

TileSize = tuple[int, int]  # height and width in pixels
Shape = tuple[int, int, int]  # images, their height and width
# The shortest tile a caller may ask for, and the shortest that halving for lack of memory reaches.
SHORTEST_TILE, SHORTEST_HALVED_TILE = 32, 128
# An image of at most this many pixels runs whole; its memory is not even measured.
SURELY_SMALL = 512 * 512
# Kernels need scratch space that counting live tensors does not see.
SCRATCH = 1.5
# A pixel of a finished row of tiles: three floats, and half as much again for what is carried on.
BAND_BYTES = 18


class Tiling:
    """The sizes of a network's tiles, which shrink when memory runs out and stay small then.

    Attributes:
        tile: Largest side in pixels; 0 = always whole, None = as memory allows.
        overlap: Pixels by which neighbouring tiles overlap.
    """

    def __init__(self, entry: Tileable, tile: int | None, overlap: int | None) -> None:
        """Tiles as they were asked for, on the network's grid.

        Args:
            entry: What tiles must know of the network.
            tile: Largest side, 0 for no tiles, None for as large as memory allows.
            overlap: At most half a tile; None for the network's own, less in small tiles.

        Raises:
            UsageError: A tile or an overlap that cannot be.
        """
        self._multiple = entry.padding_multiple
        self.tile = self._checked_tile(tile)
        own = round_up(entry.tile_overlap, self._multiple)
        self.overlap = own if overlap is None else self._checked_overlap(overlap)
        self._limit: int | None = None  # set once memory runs out
        self._bytes_per_pixel = 0.0  # measured when first needed

    def first(self, shape: Shape, engine: Engine, held: int = 0) -> TileSize:
        """Height and width of the tiles to begin with; (0, 0) for the whole image.

        Args:
            shape: Of the images.
            engine: What runs the network.
            held: Bytes that lie in memory besides the images.
        """
        batch, *sides = shape
        height, width = (round_up(side, self._multiple) for side in sides)
        if self.tile is not None:
            tile = self.tile, self.tile
        elif batch * height * width <= SURELY_SMALL:
            tile = 0, 0
        else:
            tile = self._cheapest((batch, height, width), engine, held)
        limit = self._limit
        if limit and max(height, width) > limit:
            tile = min(tile[0] or limit, limit), min(tile[1] or limit, limit)
        return tile

    def smaller(self, tile: TileSize, size: tuple[int, int]) -> TileSize | None:
        """Tiles of half the side, after these took too much memory; None if they were the last.

        Args:
            tile: Height and width; (0, 0) for the whole image.
            size: Of the image.
        """
        halved = round_down(self.longest(tile, size) // 2, self._multiple)
        if halved < self._at_least(SHORTEST_HALVED_TILE):
            return None
        self._limit = halved
        return halved, halved

    def longest(self, tile: TileSize, size: tuple[int, int]) -> int:
        """Longest side of the tiles that an image of this size gets."""
        most = round_up(max(size), self._multiple)
        return min(max(tile) or most, most)

    def overlap_of(self, tile: int) -> int:
        """Pixels by which tiles of this side overlap: at most half of them."""
        return min(self.overlap, round_down(tile // 2, self._multiple))

    def _cheapest(self, shape: Shape, engine: Engine, held: int) -> TileSize:
        """The tiles that cost least of those that fit the memory; (0, 0) if the image does."""
        if not self._bytes_per_pixel:
            self._bytes_per_pixel = engine.bytes_per_pixel()
        batch, height, width = shape
        needed = SCRATCH * batch * self._bytes_per_pixel
        budget = memory_budget(engine.device, math.prod(shape) * 3 + held)

        def fits(rows: int, columns: int) -> bool:
            # One row of tiles is put together in floats beside the network's own tensors.
            band = batch * max(rows, columns) * min(height, width) * BAND_BYTES
            return rows * columns * needed + band <= budget

        if height * width * needed <= budget:
            return 0, 0
        cheapest = cheapest_tiles((height, width), self.overlap, self._multiple, fits)
        if cheapest is None:
            side = round_down(math.isqrt(int(budget / needed)), self._multiple)
            side = max(side, self._at_least(SHORTEST_HALVED_TILE))
            cheapest = side, side
        return cheapest

    def _at_least(self, side: int) -> int:
        """Shortest tile not below `side` that fits the network's grid and still has an overlap."""
        return round_up(max(side, 2 * self._multiple), self._multiple)

    def _checked_tile(self, tile: int | None) -> int | None:
        shortest = self._at_least(SHORTEST_TILE)
        if tile and tile < shortest:
            raise UsageError(f"tile must be 0 or at least {shortest}, not {tile}")
        return tile and round_up(tile, self._multiple)

    def _checked_overlap(self, overlap: int) -> int:
        if overlap < 0:
            raise UsageError(f"tile overlap must not be negative, not {overlap}")
        wanted = round_up(overlap, self._multiple)
        half = round_down(self.tile // 2, self._multiple) if self.tile else wanted
        if wanted > half:
            raise UsageError(f"tile overlap must be at most half of tile {self.tile}: {half}")
        return wanted
