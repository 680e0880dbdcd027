"""Images of an evaluation: all of them saved, or the worst and best kept to look at."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.errors import ResourceError
from derain_cli.evaluation.scoring import Scored
from derain_cli.evaluation.statistics import COLUMNS, INPUT, Row
from derain_cli.whole_files import write_whole

CASES = 3
LONGEST_SIDE = 960
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Case:
    """An image to look at: JPEG bytes of what went in, what came out and the truth."""

    row: Row
    kind: str
    rainy: bytes
    derained: bytes
    clean: bytes


class Gallery:
    """Keeps the worst and best images of each model on each data set while they pass by.

    Give `observe` to `evaluation.evaluate`. Only the images kept are held in memory, compressed.
    """

    def __init__(self, column: str = "psnr", count: int = CASES) -> None:
        """Gallery by a column of the scores, with so many worst and as many best images."""
        self._column = column
        self._sign = -1 if COLUMNS[column].better == "lower" else 1
        self._count = count
        self._kept: dict[tuple[str, str], dict[str, list[tuple[float, Case]]]] = {}

    def observe(self, scored: Scored) -> None:
        """Keep the image if it is among the worst or best so far."""
        goodness = self._sign * scored.row.scores[self._column]
        if scored.row.model == INPUT or math.isnan(goodness):
            return
        key = scored.row.dataset, scored.row.model
        kept = self._kept.setdefault(key, {"worst": [], "best": []})
        for kind, rank in (("worst", goodness), ("best", -goodness)):
            if len(kept[kind]) < self._count or rank < kept[kind][-1][0]:
                kept[kind].append((rank, _case(scored, kind)))
                kept[kind].sort(key=lambda ranked: ranked[0])
                del kept[kind][self._count :]

    def cases(self) -> list[Case]:
        """The kept images: worst first, then best, data set by data set and model by model."""
        found: list[Case] = []
        for kept in self._kept.values():
            worst = [case for _, case in kept["worst"]]
            shown = {case.row.image for case in worst}
            best = [case for _, case in kept["best"] if case.row.image not in shown]
            found += [*worst, *best]
        return found


def _case(scored: Scored, kind: str) -> Case:
    images = map(_jpeg, (scored.rainy, scored.derained, scored.clean))
    return Case(scored.row, kind, *images)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _encode(image, "jpeg", quality=JPEG_QUALITY, subsampling=0)


def _encode(image: Image.Image, format: str, **options: int) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def save_derained(folder: Path) -> Callable[[Scored], None]:
    """An observer for `evaluation.evaluate` that writes `folder/DATASET/MODEL/PICTURE.png`.

    Raises:
        ResourceError: When called: no space or no permission.
    """

    def save(scored: Scored) -> None:
        row = scored.row
        if row.model == INPUT:
            return
        path = folder / file_name(row.dataset) / file_name(row.model) / f"{row.image}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"cannot make {str(path.parent)!r}: {error.strerror}") from error
        write_whole(path, _encode(Image.fromarray(scored.derained), "png"))

    return save


def file_name(name: str) -> str:
    """A name of a data set or model as one part of a path.

    Example:
        >>> file_name("runs/a b/last.safetensors"), file_name("../..")
        ('runs_a_b_last.safetensors', '_')
    """
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "_"
