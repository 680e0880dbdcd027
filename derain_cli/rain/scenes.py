"""Scenes: what stands before the camera, the rain in it, and the camera, as `A+B+C` says.

A scene makes a rainy and a clean image of a photo. Its parts are named in any order and always
come in this one: `structures`, lens (of `phone`), `veil`, every rain, sensor and JPEG (of `phone`).
All but the rain are in both images.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.errors import ConfigError
from derain_cli.rain.camera import Sensor, add_veil, see_through_lens
from derain_cli.rain.kinds import layer_source
from derain_cli.rain.layers import LayerSource
from derain_cli.rain.painting import RAIN_KINDS
from derain_cli.rain.streaks import STREAK_KINDS, banked_streaks, cover, mixed_layer
from derain_cli.rain.structures import add_structure

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Change = Callable[[Floats, np.random.Generator], Floats]

SETTINGS = ("structures", "veil", "phone")
"""Parts of a scene that are no rain."""
MIXED = "mixed"


@dataclass(frozen=True)
class Scene:
    """Makes a rainy and a clean image of a photo, a pure function of the photo and `rng`.

    Attributes:
        before: What changes the scene before it rains, in order.
        rain: What adds rain, in order.
        photographed: Whether a phone's sensor and JPEG come last.
    """

    before: tuple[Change, ...] = ()
    rain: tuple[Change, ...] = ()
    photographed: bool = False

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Rainy and clean `(height, width, 3)`; equal to the bit without rain."""
        clean = np.asarray(photo.astype(np.float32) / 255, np.float32)
        for change in self.before:
            clean = change(clean, rng)
        rainy = clean
        for fall in self.rain:
            rainy = fall(rainy, rng)
        height, width = photo.shape[:2]
        no_camera = Sensor(np.zeros((height, width, 1), np.float32), quality=0)
        sensor = Sensor.drawn(height, width, rng) if self.photographed else no_camera
        taken = sensor.take(clean)
        return (sensor.take(rainy) if self.rain else taken), taken


def parts_of(kind: str) -> list[str]:
    """Parts of a scene; a `+` in a folder's name separates nothing.

    Example:
        >>> parts_of("phone+wide+streaks:a+b"), parts_of("heavy")
        (['phone', 'wide', 'streaks:a+b'], ['heavy'])
    """
    known = "|".join((*SETTINGS, *STREAK_KINDS, *RAIN_KINDS, "dry", MIXED, "streaks", "pairs"))
    return re.split(rf"\+(?=(?:{known})(?:[:+]|$))", kind)


def is_scene(kind: str) -> bool:
    """Whether a kind needs more than a layer that is added.

    Example:
        >>> is_scene("wide"), is_scene("heavy+veil"), is_scene("streaks:wide")
        (True, True, False)
    """
    parts = parts_of(kind)
    names = {part.partition(":")[0] for part in parts}
    return len(parts) > 1 or bool(names & {*SETTINGS, *STREAK_KINDS, MIXED})


def build_scene(
    kind: str, data_root: Path, held_out: int, seed: int, cache: ImageCache | None = None
) -> Scene:
    """The scene that a kind names.

    Args:
        kind: Parts joined by `+`: structures, veil, phone, dry and kinds of rain, among them wide,
            drops and `mixed:FOLDER_OR_PAIRS[,...]`.
        data_root: Where folders of layers and data sets lie.
        held_out: Images per data set that are kept out of training.
        seed: Of all banks.
        cache: Of decoded layers.

    Raises:
        ConfigError: An unknown part.
        DatasetError: No such folder or data set.
    """
    parts, cache = parts_of(kind), cache or ImageCache()
    before: list[Change] = []
    if "structures" in parts:
        before.append(lambda scene, rng: add_structure(scene, seed, rng))
    if "phone" in parts:
        before.append(see_through_lens)
    if "veil" in parts:
        before.append(add_veil)
    rains = [part for part in parts if part not in (*SETTINGS, "dry")]
    rain = tuple(_rain(part, data_root, held_out, seed, cache) for part in rains)
    return Scene(tuple(before), rain, "phone" in parts)


def _rain(part: str, data_root: Path, held_out: int, seed: int, cache: ImageCache) -> Change:
    what, _, where = part.partition(":")
    if part in STREAK_KINDS:
        return _covering(part, seed)
    if what == MIXED:
        return _adding(_mixed(where, data_root, held_out, seed, cache))
    return _adding(layer_source(part, data_root, held_out, seed, cache))


def _covering(kind: str, seed: int) -> Change:
    """Streaks that hide what is behind them, more or less."""

    def fall(scene: Floats, rng: np.random.Generator) -> Floats:
        height, width = scene.shape[:2]
        return cover(scene, banked_streaks(kind, seed, height, width, rng), rng)

    return fall


def _adding(layer: LayerSource) -> Change:
    """The published rain: a grey layer is added."""

    def fall(scene: Floats, rng: np.random.Generator) -> Floats:
        height, width = scene.shape[:2]
        rain = layer(height, width, rng)[..., None]
        return np.asarray(np.clip(scene + rain, 0, 1), np.float32)

    return fall


def _mixed(names: str, data_root: Path, held_out: int, seed: int, cache: ImageCache) -> LayerSource:
    """RainMix over all the layers named, `streaks:` being left out before folders."""
    if not names:
        raise ConfigError(f"{MIXED!r} needs layers: name them as {MIXED}:FOLDER,pairs:DATASET")
    kinds = [name if name.startswith("pairs:") else f"streaks:{name}" for name in names.split(",")]
    sources = [layer_source(kind, data_root, held_out, seed, cache) for kind in kinds]

    def mixed(height: int, width: int, rng: np.random.Generator) -> Floats:
        given, other = (
            sources[int(rng.integers(len(sources)))](2 * height, 2 * width, rng) for _ in range(2)
        )
        return mixed_layer(given, other, height, width, rng)

    return mixed
