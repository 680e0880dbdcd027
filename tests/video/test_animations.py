from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.errors import UnreadableImageError
from derain_cli.video.animations import (
    AnimationResult,
    derain_animation,
    is_animation,
    read_animation,
)

DURATIONS = (40, 120, 80)


def make_animation(path: Path, *, alpha: bool = False, **options: object) -> Path:
    """Three images with a square that moves."""
    images = []
    for index in range(3):
        pixels = np.full((24, 32, 4), 255, np.uint8)
        pixels[..., :3] = 60 + 40 * index
        pixels[4:12, 4 + 6 * index : 12 + 6 * index, :3] = (200, 30, 90)
        if alpha:
            pixels[:4, :, 3] = 0
        images.append(Image.fromarray(pixels if alpha else pixels[..., :3]))
    more = {"save_all": True, "append_images": images[1:], "duration": DURATIONS, "loop": 2}
    images[0].save(path, **(more | options))
    return path


def derained(path: Path, suffix: str, *, quality: int | None = None) -> AnimationResult:
    """Every image made darker by a quarter."""
    animation = read_animation(path, 10**8)
    *steps, result = derain_animation(
        animation, lambda rainy: rainy - rainy // 4, suffix, quality=quality, temporal=False
    )
    assert steps == [1, 2, 3]
    assert isinstance(result, AnimationResult)
    return result


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_images_times_and_loops_are_kept(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    source = make_animation(tmp_path / f"wet{suffix}", **options)
    (tmp_path / f"dry{suffix}").write_bytes(derained(source, suffix).content)
    rainy = read_animation(source, 10**8)
    result = read_animation(tmp_path / f"dry{suffix}", 10**8)
    assert result.durations == rainy.durations == DURATIONS
    assert result.loops == rainy.loops == 2
    for before, after in zip(rainy.images, result.images, strict=True):
        expected = before[..., :3] - before[..., :3] // 4
        assert np.abs(after[..., :3].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("suffix", "loops"), [(".gif", None), (".webp", 1), (".png", 1)])
def test_what_plays_once_plays_once_in_every_format(
    tmp_path: Path, suffix: str, loops: int | None
) -> None:
    source = make_animation(tmp_path / "wet.gif", loop=None)
    assert read_animation(source, 10**8).loops is None
    (tmp_path / f"dry{suffix}").write_bytes(derained(source, suffix).content)
    assert read_animation(tmp_path / f"dry{suffix}", 10**8).loops == loops


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_alpha_is_kept(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    options |= {"disposal": 2} if suffix == ".gif" else {}
    source = make_animation(tmp_path / f"wet{suffix}", alpha=True, **options)
    (tmp_path / f"dry{suffix}").write_bytes(derained(source, suffix).content)
    result = read_animation(tmp_path / f"dry{suffix}", 10**8)
    for pixels in result.images:
        assert pixels[:4, :, 3].max() == 0
        assert pixels[4:, :, 3].min() == 255


def test_only_what_moves_is_an_animation(tmp_path: Path) -> None:
    assert is_animation(make_animation(tmp_path / "moving.png"))
    Image.new("RGB", (4, 4)).save(tmp_path / "still.png")
    assert not is_animation(tmp_path / "still.png")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    assert not is_animation(tmp_path / "broken.gif")


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    source = make_animation(tmp_path / "wet.gif")
    with pytest.raises(UnreadableImageError, match="3 images of 32x24 pixels, more than 1,000"):
        read_animation(source, 1000)


def test_fast_times_stay_and_add_up(tmp_path: Path) -> None:
    source = make_animation(tmp_path / "wet.png", duration=(50 / 3, 50 / 3, 5))
    times = read_animation(source, 10**8).durations
    assert sum(times[:2]) in (32, 33)  # as whole milliseconds, which Pillow has written
    assert times[2] == 100  # as browsers show what claims 10 ms or less


def test_the_image_for_programs_without_animation_stays_apart(tmp_path: Path) -> None:
    still = Image.new("RGB", (32, 24), (200, 200, 200))
    moving = [Image.new("RGB", (32, 24), (level, 0, 0)) for level in (40, 80, 120)]
    still.save(
        tmp_path / "wet.png",
        save_all=True,
        append_images=moving,
        default_image=True,
        duration=DURATIONS,
    )
    (tmp_path / "dry.png").write_bytes(derained(tmp_path / "wet.png", ".png").content)
    result = read_animation(tmp_path / "dry.png", 10**8)
    assert result.durations == DURATIONS
    assert result.poster is not None
    assert result.poster[0, 0].tolist() == [150, 150, 150, 255]
    assert [image[0, 0, 0] for image in result.images] == [30, 60, 90]


def test_what_of_a_header_is_lost_is_said(tmp_path: Path) -> None:
    source = make_animation(tmp_path / "wet.gif", comment=b"mine")
    assert read_animation(source, 10**8).lost == ("not kept: comments",)
