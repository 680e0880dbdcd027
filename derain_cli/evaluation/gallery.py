"""Images of an evaluation: all of them saved, or those worth a look drawn once scores are known.

Which images are worth a look is decided from the rows alone, and those few go through the network
once more. So a report has its images however often the evaluation was cut off and resumed, and
nothing is held in memory meanwhile.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.layouts import Pair
from derain_cli.errors import ResourceError
from derain_cli.evaluation.extremes import largest_differences, made_worse, sign_of
from derain_cli.evaluation.scoring import Deraining, Scored
from derain_cli.evaluation.statistics import INPUT, Row
from derain_cli.whole_files import write_whole

CASES = 3
LONGEST_SIDE = 960
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Choice:
    """An image to show: its row, why, and the model on the left where two are compared."""

    row: Row
    kind: str
    left: str = INPUT


@dataclass(frozen=True)
class Case:
    """An image to look at: JPEG bytes of the left, the right and the clean image.

    Attributes:
        row: Its scores; the right image is this model's.
        kind: Why it is shown: worst, best, made worse or largest difference.
        left_label: What the left image is: "rainy", or another model's name.
        left: The rainy image, or another model's result.
        right: The model's result.
        clean: The ground truth.
    """

    row: Row
    kind: str
    left_label: str
    left: bytes
    right: bytes
    clean: bytes


def choose_cases(rows: Sequence[Row], column: str, count: int = CASES) -> list[Choice]:
    """Images worth a look, by data set and model, none twice for one model.

    First those made worse than the input, then the worst and the best, then those on which two
    models differ most; at most `count` of each kind.
    """
    scored = [
        row for row in rows if row.model != INPUT and row.scores[column] == row.scores[column]
    ]
    choices: list[Choice] = []
    for key in dict.fromkeys((row.dataset, row.model) for row in scored):
        members = [row for row in scored if (row.dataset, row.model) == key]
        worse = [c.row for c in made_worse(rows, column) if (c.row.dataset, c.row.model) == key]
        ranked = sorted(members, key=lambda row: sign_of(column) * row.scores[column])
        kinds = {"made worse": worse, "worst": ranked, "best": ranked[::-1]}
        shown: set[str] = set()
        for kind, candidates in kinds.items():
            fresh = [row for row in candidates[:count] if row.image not in shown]
            shown |= {row.image for row in fresh}
            choices += [Choice(row, kind) for row in fresh]
    choices += [
        Choice(change.row, "largest difference", change.against.model)
        for change in largest_differences(rows, column, count)
    ]
    return choices


def draw_cases(
    choices: Sequence[Choice],
    datasets: Mapping[str, Sequence[Pair]],
    models: Sequence[Deraining],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Case]:
    """The chosen images, compressed and made small.

    Args:
        choices: What to draw.
        datasets: The data sets that were scored.
        models: The models that were scored, by their `name`.
        report: Called with (images drawn, images in all).
    """
    pairs = {(name, pair.name): pair for name, members in datasets.items() for pair in members}
    by_name = {model.name: model for model in models}
    cases = []
    for number, choice in enumerate(choices, 1):
        rainy, clean = read_pair(pairs[choice.row.dataset, choice.row.image])
        left = rainy if choice.left == INPUT else by_name[choice.left](rainy)
        images = map(_jpeg, (left, by_name[choice.row.model](rainy), clean))
        label = "rainy" if choice.left == INPUT else choice.left
        cases.append(Case(choice.row, choice.kind, label, *images))
        report(number, len(choices))
    return cases


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _encode(image, "jpeg", quality=JPEG_QUALITY, subsampling=0)


def _encode(image: Image.Image, format: str, **options: int) -> bytes:
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def save_derained(folder: Path) -> Callable[[Scored], None]:
    """An observer for `evaluate` that writes `folder/DATASET/MODEL/IMAGE.png`.

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
