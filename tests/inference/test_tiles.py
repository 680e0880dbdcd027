"""Where tiles lie, and how they pass into one another."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_cli.inference.tiles import FEATHER, plan_axis


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 3000),
    steps=st.integers(2, 60),
    share=st.floats(0, 0.5),
    multiple=st.sampled_from([1, 4, 16]),
)
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(
    length: int, steps: int, share: float, multiple: int
) -> None:
    tile = steps * multiple
    overlap = int(share * steps) * multiple
    axis = plan_axis(length, tile, overlap, multiple)
    assert axis.tile <= tile
    assert length <= axis.padded < length + multiple
    assert all(position % multiple == 0 for position in (axis.tile, *axis.starts))
    gaps = np.diff(axis.starts)
    assert (gaps > 0).all()
    assert (gaps <= axis.tile - overlap).all()
    total = np.zeros(axis.padded)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights >= 0).all()
        total[start : start + axis.tile] += weights
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-5)


def test_the_rim_of_a_tile_counts_for_nothing() -> None:
    axis = plan_axis(1000, tile=256, overlap=96, multiple=16)
    unseen = (96 - FEATHER) // 2
    assert (axis.weights[1:, :unseen] == 0).all()
    assert (axis.weights[:-1, -unseen:] == 0).all()
