"""Scores of a finished job on the test sets of its columns, image by image."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from derain_cli.datasets.known import DATASETS, dataset_named, dataset_pairs, plain_folder
from derain_cli.datasets.layouts import Pair, unpaired_images
from derain_cli.evaluation.scoring import METRICS, UNPAIRED_METRICS, evaluate
from derain_cli.evaluation.statistics import INPUT
from derain_cli.images import probe_image
from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.niqe import PATCH
from derain_cli.models import build_model
from derain_cli.models.rdmc import Rdmc, multiply_adds
from derain_cli.reproduce.tables import Column
from derain_cli.whole_files import write_whole

PERFECT = 100.0
Scores = dict[str, dict[str, float]]  # image -> column -> score


@dataclass(frozen=True)
class Sheet:
    """Scores of one network on one test set.

    Attributes:
        scores: Image to its scores; names of a group's images begin with `GROUP/`.
        of_input: The same of the untouched rainy images.
        seconds: Mean time in the network for an image.
    """

    scores: Scores
    of_input: Scores
    seconds: float

    def to_json(self) -> str:
        """The text of its file."""
        return json.dumps(
            {"scores": self.scores, "of_input": self.of_input, "seconds": self.seconds}
        )

    @classmethod
    def read(cls, path: Path) -> "Sheet | None":
        """The sheet of a file; None where it is missing or was cut short."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return cls(content["scores"], content["of_input"], content["seconds"])

    def write(self, path: Path) -> None:
        """Write it whole.

        Raises:
            ResourceError: No space or no permission.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.to_json().encode())


def score_column(
    column: Column, dataset: str, derainer: Derainer, data_root: Path, images: int
) -> Sheet:
    """Scores of a network on a column's test set.

    Args:
        column: What is measured.
        dataset: The data set to take for the column's.
        derainer: The network.
        data_root: Where data sets lie.
        images: How many of its images, evenly spaced; 0 = all.

    Raises:
        DatasetError: It is missing, or an image cannot be read.
    """
    metrics = [name for name, columns in METRICS.items() if set(columns) & set(column.metrics)]
    pairs = spaced(_images_of(column, dataset, data_root), images)
    sheet: dict[str, Scores] = {INPUT: {}, derainer.name: {}}
    seconds = []
    protocol = column.protocol or None
    for row in evaluate({dataset: pairs}, [derainer], protocol, metrics=metrics):
        name = f"{row.group}/{row.image}"
        sheet[row.model][name] = _defined(row.scores)
        seconds += [row.seconds] if row.model != INPUT else []
    return Sheet(sheet[derainer.name], sheet[INPUT], float(np.mean(seconds)) if seconds else 0.0)


def _images_of(column: Column, dataset: str, data_root: Path) -> list[Pair]:
    """The pairs of a test set, or real photos of a column that is measured without ground truth."""
    if not set(column.metrics) <= set(UNPAIRED_METRICS):
        return dataset_pairs(dataset, data_root)
    pairs = unpaired_images(photo_folder(dataset, data_root))
    return [pair for pair in pairs if min(probe_image(pair.rainy)) >= PATCH]  # NIQE's


def _defined(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores that JSON can hold: a perfect result is 100 dB, what is not defined is left out.

    Example:
        >>> _defined({"psnr": math.inf, "e_r": math.nan, "e_b": 2.0})
        {'psnr': 100.0, 'e_b': 2.0}
    """
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    return {name: PERFECT if math.isinf(score) else score for name, score in known.items()}


def photo_folder(dataset: str, data_root: Path) -> Path:
    """The folder of a data set of real photos, by any of its names; or a plain folder."""
    key = dataset_named(dataset)
    folder = plain_folder(dataset, data_root)
    if not folder.is_dir() and key:
        names = (key, *DATASETS[key].aliases)
        folders = [plain_folder(name, data_root) for name in names]
        folder = next((path for path in folders if path.is_dir()), folder)
    return folder


def spaced(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, evenly spaced; all of them for 0 or more than there are.

    Example:
        >>> spaced("abcdef", 3)
        ['a', 'c', 'e']
    """
    if not count or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def count_network(options: Mapping[str, Any]) -> dict[str, float]:
    """Parameters in thousands and multiply-adds at 256x256 in millions of an untrained RDMC."""
    network = build_model("rdmc", options)
    assert isinstance(network, Rdmc)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = multiply_adds(network.config)
    return {"parameters_k": parameters / 1000, "macs_m": macs / 1e6}
