"""derain: take the rain out of photographs, and study the networks that do it.

The public names load on first use, so that importing the package costs nothing:

    from derain_cli import Derainer, read_image, write_image

    image = read_image("photo.jpg")
    derained = Derainer.load("rdmc-real")(image.rgb)
    write_image(image.with_rgb(derained), "photo_derained.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from derain_cli.version import __version__

if TYPE_CHECKING:
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.checkpoints.resolving import load_model
    from derain_cli.errors import DerainError
    from derain_cli.evaluation.scoring import evaluate
    from derain_cli.images import Picture, read_image, write_image
    from derain_cli.inference.derainer import Derainer
    from derain_cli.models import MODELS, build_model
    from derain_cli.training.configs.train import TrainConfig
    from derain_cli.training.trainer import train

_HOMES = {
    "DerainError": "errors",
    "Derainer": "inference.derainer",
    "MODELS": "models",
    "Picture": "images",
    "TrainConfig": "training.configs.train",
    "build_model": "models",
    "evaluate": "evaluation.scoring",
    "list_weights": "checkpoints.catalogue",
    "load_model": "checkpoints.resolving",
    "read_image": "images",
    "save_checkpoint": "checkpoints.files",
    "train": "training.trainer",
    "write_image": "images",
}

__all__ = [
    "MODELS",
    "DerainError",
    "Derainer",
    "Picture",
    "TrainConfig",
    "__version__",
    "build_model",
    "evaluate",
    "list_weights",
    "load_model",
    "read_image",
    "save_checkpoint",
    "train",
    "write_image",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (any public name)
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
