"""What happens to one batch: one file per training idea, one line in `RECIPES`.

A recipe is a class `(model, config, folder)` that does what `recipe.Recipe` says; read that
docstring first. `folder` is the run's folder, for files of its own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.collaborative import Collaborative
from derain_cli.training.recipes.connection_search import ConnectionSearch
from derain_cli.training.recipes.online_update import OnlineUpdate
from derain_cli.training.recipes.recipe import Recipe
from derain_cli.training.recipes.self_training import SelfTraining
from derain_cli.training.recipes.supervised import Supervised

RECIPES: Mapping[str, Callable[[nn.Module, TrainConfig, Path], Recipe]] = {
    "supervised": Supervised,
    "collaborative": Collaborative,
    "connection_search": ConnectionSearch,
    "online_update": OnlineUpdate,
    "self_training": SelfTraining,
}
