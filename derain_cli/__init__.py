"""derain: take the rain out of photographs, and study the networks that do it.

The public names load on first use, so that importing the package costs nothing:

    from derain_cli import Derainer, derain, read_image, write_image

    image = read_image("photo.jpg")
    write_image(derain(image), "photo_derained.jpg")

    derainer = Derainer.load("rdmc-real")  # once, for many images
    array = derainer(image.rgb)            # arrays, PIL images, tensors: back as they went in
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from derain_cli.version import __version__

if TYPE_CHECKING:
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.checkpoints.resolving import load_model
    from derain_cli.datasets.known import dataset_pairs
    from derain_cli.errors import (
        CheckpointError,
        ConfigError,
        DatasetError,
        DerainError,
        DiskError,
        ImageError,
        NothingToDoError,
        ResourceError,
        TrainingError,
        UnavailableError,
        UnreadableImageError,
        UsageError,
    )
    from derain_cli.evaluation.scoring import evaluate
    from derain_cli.evaluation.statistics import summarise
    from derain_cli.images import Picture, read_image, write_image
    from derain_cli.inference.derainer import Derainer, derain
    from derain_cli.models import MODELS, build_model, find_model, list_models
    from derain_cli.training.configs.finetune import FinetuneConfig
    from derain_cli.training.configs.search import SearchConfig
    from derain_cli.training.configs.train import TrainConfig
    from derain_cli.training.finetuning import finetune
    from derain_cli.training.searcher import search
    from derain_cli.training.trainer import train

_HOMES = {
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DatasetError",
        "DerainError",
        "DiskError",
        "ImageError",
        "NothingToDoError",
        "ResourceError",
        "TrainingError",
        "UnavailableError",
        "UnreadableImageError",
        "UsageError",
    ),
    "checkpoints.catalogue": ("list_weights",),
    "checkpoints.files": ("save_checkpoint",),
    "checkpoints.resolving": ("load_model",),
    "datasets.known": ("dataset_pairs",),
    "evaluation.scoring": ("evaluate",),
    "evaluation.statistics": ("summarise",),
    "images": ("Picture", "read_image", "write_image"),
    "inference.derainer": ("Derainer", "derain"),
    "models": ("MODELS", "build_model", "find_model", "list_models"),
    "training.configs.finetune": ("FinetuneConfig",),
    "training.configs.search": ("SearchConfig",),
    "training.configs.train": ("TrainConfig",),
    "training.finetuning": ("finetune",),
    "training.searcher": ("search",),
    "training.trainer": ("train",),
}

_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "MODELS",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "DerainError",
    "Derainer",
    "DiskError",
    "FinetuneConfig",
    "ImageError",
    "NothingToDoError",
    "Picture",
    "ResourceError",
    "SearchConfig",
    "TrainConfig",
    "TrainingError",
    "UnavailableError",
    "UnreadableImageError",
    "UsageError",
    "__version__",
    "build_model",
    "dataset_pairs",
    "derain",
    "evaluate",
    "find_model",
    "finetune",
    "list_models",
    "list_weights",
    "load_model",
    "read_image",
    "save_checkpoint",
    "search",
    "summarise",
    "train",
    "write_image",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    """Load a public name from its module on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
