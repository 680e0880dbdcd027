"""Several passes, and the average of eight orientations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from derain_cli.errors import UsageError
from derain_cli.inference.derainer import Derainer
from derain_cli.models import MODELS


class Leaning(nn.Module):
    """Half of the level, plus a hundredth for each column to the left: not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy / 2 + torch.linspace(0.1, 0, rainy.shape[-1])


def derainer(**options: object) -> Derainer:
    return Derainer(Leaning(), MODELS["resnet"], name="leaning", device="cpu", **options)


def test_each_pass_is_given_the_result_of_the_last():
    rainy = torch.rand(1, 3, 6, 11)
    once = derainer()
    torch.testing.assert_close(
        derainer(passes=3).derain_tensor(rainy),
        once.derain_tensor(once.derain_tensor(once.derain_tensor(rainy))),
    )


def test_the_average_of_all_orientations_leans_nowhere():
    rainy = np.full((12, 12, 3), 100, np.uint8)
    leaning, straight = derainer()(rainy), derainer(tta=True)(rainy)
    assert np.ptp(leaning[..., 0]) > 20
    for turned in (straight[::-1], straight[:, ::-1], straight.swapaxes(0, 1)):
        np.testing.assert_array_equal(straight, turned)


def test_strength_and_progress_cover_all_passes():
    rainy, shares = np.full((8, 10, 3), 100, np.uint8), []
    engine = derainer(passes=2, tta=True)
    half, _ = engine.run(rainy, 0.5, on_progress=shares.append)
    whole = engine(rainy)
    np.testing.assert_allclose(half, (rainy.astype(int) + whole) / 2, atol=1)
    assert len(shares) == 16
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_no_pass_at_all_is_refused():
    with pytest.raises(UsageError, match="passes must be at least 1, not 0"):
        derainer(passes=0)
