import numpy as np
import pytest

from derain_cli.video.steadiness import measure_flicker, motion, moved, steady_frame


def scene(shift: int, dtype: type = np.uint8) -> np.ndarray:
    """Soft blobs, moved to the right by so many pixels."""
    columns, rows = np.meshgrid(np.arange(160) - shift, np.arange(96))
    levels = 128 + 60 * np.sin(columns / 9) * np.cos(rows / 7) + 20 * np.sin(columns / 4 + rows / 5)
    scale = 257 if dtype == np.uint16 else 1
    return np.repeat((levels * scale)[..., None], 3, axis=2).astype(dtype)


def rain(seed: int) -> np.ndarray:
    streaks = np.random.default_rng(seed).random((12, 160)) > 0.97
    return 50 * np.repeat(streaks, 8, axis=0)[..., None].astype(np.uint8)


def test_motion_finds_where_things_went() -> None:
    inner = motion(scene(3), scene(0))[20:-20, 20:-20]
    assert np.abs(inner[..., 0] + 3).mean() < 0.3
    assert np.abs(inner[..., 1]).mean() < 0.3


def test_a_frame_moved_by_nothing_stays() -> None:
    frame = scene(0)
    assert np.array_equal(moved(frame, np.zeros((96, 160, 2), np.float32)), frame)


def test_what_only_moves_does_not_flicker() -> None:
    still = measure_flicker((scene(0), scene(2)), (scene(0), scene(2)))
    wet = measure_flicker((scene(0) + rain(1), scene(2) + rain(2)), (scene(0), scene(2)))
    assert still.of_rainy < 2
    assert wet.of_rainy > 2 * wet.of_derained


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_neighbours_take_out_what_is_in_one_frame(dtype: type) -> None:
    frames = [scene(shift, dtype) for shift in (0, 2, 4)]
    scale = 257 if dtype == np.uint16 else 1
    wet = [
        (frame + (rain(seed).astype(np.uint32) * scale).astype(dtype))
        for seed, frame in enumerate(frames)
    ]
    steady = steady_frame(*wet)
    before = np.square(wet[1].astype(float) - frames[1]).mean()
    after = np.square(steady.astype(float) - frames[1]).mean()
    assert steady.dtype == dtype
    assert after < 0.8 * before


def test_a_neighbour_of_another_scene_leaves_no_ghost() -> None:
    frame, other = scene(0), np.full((96, 160, 3), 255, np.uint8)
    assert np.array_equal(steady_frame(other, frame, other), frame)
    assert np.array_equal(steady_frame(None, frame, None), frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_lamp_that_changes_its_colour_keeps_each(dtype: type) -> None:
    red, green = scene(0, dtype), scene(0, dtype)  # the two are equally bright as a lamp
    scale = 257 if dtype == np.uint16 else 1
    red[30:50, 60:80] = np.array((220, 30, 30)) * scale
    green[30:50, 60:80] = np.array((20, 120, 40)) * scale
    assert np.array_equal(steady_frame(green, red, green)[32:48, 62:78], red[32:48, 62:78])
