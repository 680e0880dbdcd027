"""Scenes: objects, rain and camera, composed from the parts of a name such as `A+B+C`.

A scene turns a photo into a rainy and a clean image. Its parts may be named in any order; they are
applied in this one: `structures`, lens (`phone`), `veil`, each rain, sensor and JPEG (`phone`),
which `zoom` enlarges in between. Everything but the rain is in both images.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import ImageCache
from derain_cli.errors import ConfigError
from derain_cli.rain.camera import DigitalZoom, Sensor, add_veil, see_through_lens
from derain_cli.rain.kinds import SETTINGS, layer_source
from derain_cli.rain.layers import LayerSource
from derain_cli.rain.painting import RAIN_KINDS
from derain_cli.rain.streaks import STREAK_KINDS, banked_streaks, cover, mixed_layer
from derain_cli.rain.structures import add_structure

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Change = Callable[[Floats, np.random.Generator], Floats]

MIXED = "mixed"


@dataclass(frozen=True)
class Scene:
    """Makes a rainy and a clean image of a photo, a pure function of the photo and `rng`.

    Attributes:
        before: Changes to the scene before the rain, in order.
        rain: Functions that add rain, in order.
        photographed: Whether a phone's sensor and JPEG compression come last.
        zoomed: Whether they are those of a small part of the sensor, enlarged.
    """

    before: tuple[Change, ...] = ()
    rain: tuple[Change, ...] = ()
    photographed: bool = False
    zoomed: bool = False

    def __call__(self, photo: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Rainy and clean `(height, width, 3)`; equal to the bit without rain."""
        clean, zoom = np.asarray(photo.astype(np.float32) / 255, np.float32), None
        if self.zoomed:
            zoom = DigitalZoom.drawn(photo.shape[0], photo.shape[1], rng)
            clean = zoom.seen(clean)
        for change in self.before:
            clean = change(clean, rng)
        rainy = clean
        for fall in self.rain:
            rainy = fall(rainy, rng)
        height, width = clean.shape[:2]
        no_camera = Sensor(np.zeros((height, width, 1), np.float32), quality=0)
        has_camera = self.photographed or self.zoomed
        sensor = Sensor.drawn(height, width, rng) if has_camera else no_camera

        def take(scene: Floats) -> Pixels:
            exposed = sensor.exposed(scene)
            return sensor.compressed(zoom.developed(exposed) if zoom else exposed)

        taken = take(clean)
        return (take(rainy) if self.rain else taken), taken


def parts_of(kind: str) -> list[str]:
    """Split a kind into its parts; a `+` in a folder's name does not separate parts.

    Example:
        >>> parts_of("phone+wide+streaks:a+b"), parts_of("heavy")
        (['phone', 'wide', 'streaks:a+b'], ['heavy'])
    """
    known = "|".join((*SETTINGS, *STREAK_KINDS, *RAIN_KINDS, "dry", MIXED, "streaks", "pairs"))
    return re.split(rf"\+(?=(?:{known})(?:[:+]|$))", kind)


def is_scene(kind: str) -> bool:
    """Whether a kind needs more than adding a rain layer.

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
    """Build the scene named by a kind.

    Args:
        kind: Parts joined by `+`: structures, veil, phone, zoom, dry and kinds of rain, among them
            wide, dense, curtain, slanted, coarse, drops and `mixed:FOLDER_OR_PAIRS[,...]`.
        data_root: Folder of the layers and data sets.
        held_out: Images per data set that are kept out of training.
        seed: Seed of all banks.
        cache: Cache of decoded layers.

    Raises:
        ConfigError: An unknown part.
        DatasetError: No such folder or data set.
    """
    parts, cache = parts_of(kind), cache or ImageCache()
    before: list[Change] = []
    if "structures" in parts:
        before.append(add_structure)
    if "phone" in parts:
        before.append(see_through_lens)
    if "veil" in parts:
        before.append(add_veil)
    rains = [part for part in parts if part not in (*SETTINGS, "dry")]
    rain = tuple(_rain(part, data_root, held_out, seed, cache) for part in rains)
    return Scene(tuple(before), rain, photographed="phone" in parts, zoomed="zoom" in parts)


def _rain(part: str, data_root: Path, held_out: int, seed: int, cache: ImageCache) -> Change:
    what, _, where = part.partition(":")
    if part in STREAK_KINDS:
        return _covering(part, seed)
    if what == MIXED:
        return _adding(_mixed(where, data_root, held_out, seed, cache))
    return _adding(layer_source(part, data_root, held_out, seed, cache))


def _covering(kind: str, seed: int) -> Change:
    """Streaks that partly hide what is behind them."""

    def fall(scene: Floats, rng: np.random.Generator) -> Floats:
        height, width = scene.shape[:2]
        return cover(scene, banked_streaks(kind, seed, height, width, rng), rng)

    return fall


def _adding(layer: LayerSource) -> Change:
    """Rain as published: add a grey layer."""

    def fall(scene: Floats, rng: np.random.Generator) -> Floats:
        height, width = scene.shape[:2]
        rain = layer(height, width, rng)[..., None]
        return np.asarray(np.clip(scene + rain, 0, 1), np.float32)

    return fall


def _mixed(names: str, data_root: Path, held_out: int, seed: int, cache: ImageCache) -> LayerSource:
    """RainMix over the named layers; folders are written without `streaks:`."""
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
