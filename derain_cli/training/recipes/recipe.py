"""What a recipe is: the contract between the trainer and a training idea."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.training.data.samples import Source

Batch = Mapping[str, Tensor]


class Recipe(Protocol):
    """A training idea: a whole optimisation step on one batch, with its own optimizers.

    Made as `RECIPES[name](model, config, folder)`, in every process. How to write one:

    - **Its data.** A recipe makes its own sources from the config and draws its own batches: real
      photos without a truth, a second half of the data, anything. `draw` is called in another
      thread or, where there are no epochs, in another process, ahead of time; it must be a pure
      function of (seed, step, sample number), and of what `begin_epoch` left. So all randomness of
      a step belongs there, not into `update`.
    - **Epochs.** With `steps_per_epoch` above 0, `begin_epoch(k)` is called before anything of
      epoch k is drawn, and nothing is drawn ahead across that border: there a recipe renews its
      pseudo ground truth. Before a resumed step in the middle of an epoch it is not called: what it
      made must come back with `load_state_dict`, from the state or from a file in `folder`. `end`
      is called after the last step of the run, before its result is validated and saved.
    - **Its networks.** `model` is put into training mode before each step (batch norm frozen at the
      end of the run); `result` is what is validated and saved: `model`, or an average of it.
      Forward passes go through `processes.wrap(model, config)`, which averages gradients over
      processes; steps through `optimization.Optimization`.
    - **Validation** scores `result` on the held-out images of `sources`. Without any there is no
      score, and so no best checkpoint. `whole` draws images for batch-norm statistics.

    `paired.PairedRecipe` does all of this for recipes that learn from pairs.
    """

    @property
    def model(self) -> nn.Module:
        """The network in training."""

    @property
    def sources(self) -> Sequence[Source]:
        """Where held-out images come from; none: no score, and no best checkpoint."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, 0 for a recipe without epochs."""

    @property
    def result(self) -> nn.Module:
        """The network that is validated and saved."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the data of an epoch."""

    def end(self) -> None:
        """Do what is left to do after the last step."""

    def draw(self, step: int, part: range) -> Mapping[str, NDArray[np.float32]]:
        """Samples `part` of the batch of a step, by name."""

    def whole(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A whole rainy training image `(height, width, 3)`."""

    def update(self, batch: Batch, step: int) -> dict[str, float]:
        """One optimisation step on what `draw` drew, on the device; the loss parts, for the log."""

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
