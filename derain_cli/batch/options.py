"""The options of a batch, and the words that names of results are made of."""

import os
from dataclasses import dataclass
from typing import Literal

from derain_cli.errors import UsageError, did_you_mean

STDIN = "-"
DEFAULT_SUFFIX = "_derained"
LAYERS = ("", "_rain", "_compare")  # what follows the stem of the result, the rain, the comparison
ENDINGS = {
    "png": ".png",
    "jpg": ".jpg",
    "webp": ".webp",
    "tiff": ".tif",
    "avif": ".avif",
    "bmp": ".bmp",
}


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is read and written; the fields are the command's options.

    Attributes:
        output: A folder (exists, ends in a slash, or there are several inputs), a file, `-` for
            stdout, or None: beside the input.
        suffix: Follows the stem of a result that lies beside its input.
        format: Key of `ENDINGS`, or None: as the input.
        quality: 1-100 for formats that lose something, or None: as the input.
        recursive: Whether folders are searched to the bottom.
        overwrite: Whether existing results are replaced.
        skip_existing: Whether existing results are kept and their inputs left out.
        strength: Share of the rain that is removed, 0..1.
        save_rain: Whether the rain layer (rainy - derained) is written too.
        compare: Whether rainy and derained side by side are written too.
        workers: Threads that decode, and as many that encode; None: up to 4.
        batch_size: Images of one size that go through the network together.
        max_pixels: Larger images are refused before they are decoded; None: the reader's limit.
        fail_fast: Whether the first failure ends the batch.
        strict: Whether an image fails that decoders find damaged although they can read it.
        leave_dry: Whether images in which next to no rain is found are copied unchanged.
        frames: `first` or `all` images of an animation; a film is always derained whole.
        codec: Key of `video.encoding.CODERS` for films, or None: as the input.
        temporal: Whether the frames of films and animations are steadied by their neighbours.
    """

    output: str | None = None
    suffix: str = DEFAULT_SUFFIX
    format: str | None = None
    quality: int | None = None
    recursive: bool = False
    overwrite: bool = False
    skip_existing: bool = False
    strength: float = 1.0
    save_rain: bool = False
    compare: bool = False
    workers: int | None = None
    batch_size: int = 1
    max_pixels: int | None = None
    fail_fast: bool = False
    strict: bool = False
    leave_dry: bool = False
    frames: Literal["first", "all"] = "first"
    codec: str | None = None
    temporal: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything, before any file is looked at."""
        if self.overwrite and self.skip_existing:
            raise UsageError("`overwrite` and `skip_existing` exclude each other: choose one")
        if any(mark in self.suffix for mark in ("/", os.sep, "\0")):
            raise UsageError(
                f"`suffix` {self.suffix!r} must be part of a file name; folders go to `output`"
            )
        if self.format is not None and self.format not in ENDINGS:
            raise UsageError(
                f"unknown format {self.format!r}. {did_you_mean(self.format, ENDINGS)}"
            )
        if self.output == "":
            raise UsageError("`output` is empty (an unset variable?): name a file, a folder or -")

        self._check_numbers()

    def _check_numbers(self) -> None:
        ranges = {
            "strength": (0, 1),
            "quality": (1, 100),
            "workers": (1, None),
            "batch_size": (1, None),
        }
        for name, (lowest, highest) in ranges.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= (highest or value):  # no NaN either
                expected = f"{lowest}-{highest}" if highest else f"at least {lowest}"
                raise UsageError(f"{name} {value} is impossible: it must be {expected}")

    @property
    def thread_count(self) -> int:
        """Threads for each of decoding and encoding."""
        return self.workers or min(4, os.cpu_count() or 1)
