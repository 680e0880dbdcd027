"""What an exported or compiled network says of itself, in the file."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from derain_cli.errors import CheckpointError, first_line

FORMAT = 1
KEY = "derain"  # under which the facts stand in a file's metadata, as JSON
# Bounds for what a stranger's file may say; the zoo's networks are far within.
LONGEST_SIDE, MOST_CHANNELS, MOST_BYTES = 4096, 65536, 1e6


@dataclass(frozen=True)
class NetworkFacts:
    """All that running an exported network takes, and where it comes from.

    Attributes:
        name: Name of the weights.
        architecture: Key of `MODELS`.
        config: The network's config.
        padding_multiple: Heights and widths that it takes are multiples of this.
        tile_overlap: Pixels by which neighbouring tiles overlap.
        receptive_radius: No output pixel depends on a pixel farther away; None: on all of them.
        not_tile_exact: Why tiles cannot equal the whole image, if they cannot.
        context_channels: Channels of what it averages over the whole image; 0 for none. Where there
            are some, it has an input `context_mean`, NaN for the mean of the given image itself.
        bytes_per_pixel: Of the tensors that it holds at once.
        sha256: Of the checkpoint file; "" where there was none.
        derain_version: Of the program that wrote the file.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    padding_multiple: int
    tile_overlap: int
    receptive_radius: int | None
    not_tile_exact: str
    context_channels: int
    bytes_per_pixel: float
    sha256: str
    derain_version: str

    def to_json(self) -> str:
        """As it stands in a file."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str, file: str) -> "NetworkFacts":
        """Facts of a file, checked: it may be a stranger's.

        Raises:
            CheckpointError: They are damaged, of another format, or beyond all bounds.
        """
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError(f"this version reads format {FORMAT}")
            facts = cls(**fields)
            facts._check()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = first_line(error, 200)
            raise CheckpointError(f"{file!r} does not say what network it is: {reason}") from error
        return facts

    def _check(self) -> None:
        for name, (kind, allowed) in RANGES.items():
            value = getattr(self, name)
            if type(value) not in kind or not allowed(value):
                raise ValueError(f"{name} {str(value)[:40]!r} is impossible")


def _within(least: float, most: float) -> Callable[[float], bool]:
    return lambda value: least <= value <= most


RANGES: Mapping[str, tuple[tuple[type, ...], Callable[[Any], bool]]] = {
    "name": ((str,), lambda value: 0 < len(value) < 256),
    "architecture": ((str,), lambda value: len(value) < 256),
    "padding_multiple": ((int,), _within(1, LONGEST_SIDE)),
    "tile_overlap": ((int,), _within(0, LONGEST_SIDE)),
    "not_tile_exact": ((str,), lambda value: len(value) < 256),
    "context_channels": ((int,), _within(0, MOST_CHANNELS)),
    "bytes_per_pixel": ((int, float), _within(12, MOST_BYTES)),
    "sha256": ((str,), lambda value: len(value) in (0, 64)),
}
