"""Everything in a photo but the rain: mist, lens, sensor noise and JPEG compression."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def add_veil(scene: Floats, rng: np.random.Generator) -> Floats:
    """Scene in uneven, nearly grey mist that thins towards the foreground (the bottom).

    The mist belongs to the scene: networks learn to take out the rain and to leave the mist.

    Args:
        scene: `(height, width, 3)` in 0..1.
        rng: Decides how thick it is.
    """
    height, width = scene.shape[:2]
    coarse = rng.uniform(0.3, 1, (3, 3)) * np.linspace(1, rng.uniform(0.2, 1), 3)[:, None]
    thick = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    share = np.clip(np.asarray(thick)[..., None] * rng.uniform(0.1, 0.7), 0, 0.8)
    light = np.clip(rng.uniform(0.5, 0.95) + rng.normal(0, 0.02, 3), 0, 1)
    return np.asarray(scene * (1 - share) + share * light, np.float32)


def see_through_lens(scene: Floats, rng: np.random.Generator) -> Floats:
    """Scene after the lens: sharp, slightly soft or out of focus; brighter or darker.

    Args:
        scene: `(height, width, 3)` in 0..1.
        rng: Decides how soft and how dark.
    """
    blur = rng.choice((0.0, rng.uniform(0.3, 1.0), rng.uniform(1.0, 5.0)), p=(0.35, 0.45, 0.2))
    if blur > 0:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), float(blur)), np.float32)
    gamma = float(np.exp(rng.normal(0, 0.3)))  # above 1 is dusk, and night at the far end
    return np.asarray(np.clip(scene, 0, 1) ** np.float32(gamma), np.float32)


@dataclass(frozen=True)
class Sensor:
    """Noise and JPEG of one photo, the same for the rainy and the clean image.

    If only the rainy image had them, networks would learn to denoise and to repair JPEGs, and would
    no longer leave dry photos unchanged.

    Attributes:
        noise: Added to each image, `(height, width, 3)` in 0..1.
        quality: JPEG quality; 0 = not compressed.
    """

    noise: Floats
    quality: int

    @classmethod
    def drawn(cls, height: int, width: int, rng: np.random.Generator) -> "Sensor":
        """Sensor noise, sometimes coarse-grained; most photos are JPEGs of quality 60 to 95."""
        strength = rng.choice((0.0, rng.uniform(0.002, 0.012), rng.uniform(0.01, 0.03)))
        noise = rng.standard_normal((height, width, 3), np.float32) * np.float32(strength)
        if rng.random() < 0.4:
            noise = np.asarray(cv2.GaussianBlur(noise, (3, 3), 0.7), np.float32)
        quality = int(rng.integers(60, 96)) if rng.random() < 0.7 else 0
        return cls(noise, quality)

    def take(self, scene: Floats) -> Pixels:
        """The 8-bit photo of a scene in 0..1."""
        return self.compressed(self.exposed(scene))

    def exposed(self, scene: Floats) -> Pixels:
        """What the sensor sees of a scene in 0..1."""
        return np.asarray(np.rint(np.clip(scene + self.noise, 0, 1) * 255), np.uint8)

    def compressed(self, pixels: Pixels) -> Pixels:
        """What the JPEG leaves of it."""
        if not self.quality:
            return pixels
        encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        decoded = cv2.imdecode(encoded[1], cv2.IMREAD_COLOR)
        return np.ascontiguousarray(np.asarray(decoded, np.uint8)[..., ::-1])


@dataclass(frozen=True)
class DigitalZoom:
    """The middle of a small camera's picture, enlarged: smoothed, sharpened, then compressed.

    Of distant rain it leaves soft and broken streaks with dark edges beside them. Without a zoom it
    is a photo that was sharpened for a page. As with `Sensor`, the rainy and the clean image go
    through the same one.

    Attributes:
        size: Height and width of the photo.
        factor: By how much it is enlarged.
        smoothing: Levels of 255 that are smoothed away as noise; 0 = none.
        sharpness: Share of what a blur takes away that is added again.
    """

    size: tuple[int, int]
    factor: float
    smoothing: float
    sharpness: float

    @classmethod
    def drawn(cls, height: int, width: int, rng: np.random.Generator) -> "DigitalZoom":
        """A zoom of 1 (a fifth) to 2.6; two of three smooth, half of them sharpen."""
        smoothing = rng.choice((0.0, rng.uniform(6, 16), rng.uniform(10, 30)))
        sharpness = rng.choice((0.0, rng.uniform(0.2, 1.2)))
        factor = max(1.0, float(rng.uniform(0.6, 2.6)))
        return cls((height, width), factor, float(smoothing), float(sharpness))

    def seen(self, photo: Floats) -> Floats:
        """The scene at the size of the sensor."""
        height, width = (max(1, round(side / self.factor)) for side in self.size)
        small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32)

    def developed(self, pixels: Pixels) -> Pixels:
        """What the camera makes of what its sensor saw, at the size of the photo."""
        if self.smoothing:
            pixels = np.asarray(cv2.bilateralFilter(pixels, 5, self.smoothing, 2.0), np.uint8)
        height, width = self.size
        large = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))
        if not self.sharpness:
            return large.astype(np.uint8)
        blurred = cv2.GaussianBlur(large, (0, 0), self.factor)
        share = 1 + self.sharpness
        return np.asarray(cv2.addWeighted(large, share, blurred, 1 - share, 0), np.uint8)
