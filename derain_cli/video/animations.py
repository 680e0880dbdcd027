"""Animations of GIF, WebP and APNG: every image derained, times and loops kept.

They are small and one file, so they are read and written at once, with Pillow. Where two neighbours
are equal Pillow writes one that is shown as long as both.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from derain_cli.errors import UnreadableImageError
from derain_cli.images.failures import DECODER_ERRORS, one_line, quiet_decoders
from derain_cli.video.kinds import ANIMATION_SUFFIXES, can_hold_animation
from derain_cli.video.steadiness import Flicker, Frame, measure_flicker, steady_frame

SHORTEST, USUAL = 11, 100  # milliseconds; what browsers make of shorter ones
LOSSY_QUALITY = 90
LOST = {"comment": "comments", "gamma": "gamma", "dpi": "resolution"}  # Pillow's name: ours


@dataclass(frozen=True)
class Animation:
    """All of an animation.

    Attributes:
        images: RGBA, all of one size.
        durations: Milliseconds that each is shown.
        loops: How often it is shown; 0 = for ever, None = once without saying so.
        lossless: Whether the file kept its pixels exactly.
        kept: What is written back as it was: colour profile, EXIF, XMP.
        poster: Image of a PNG for programs that show no animation, where it is not part of it.
        lost: What is not written back, in words.
    """

    images: tuple[Frame, ...]
    durations: tuple[int, ...]
    loops: int | None
    lossless: bool
    kept: dict[str, bytes]
    poster: Frame | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnimationResult:
    """A derained animation.

    Attributes:
        content: The file.
        format: As Pillow calls it.
        flicker: Of the rainy and the derained animation.
    """

    content: bytes
    format: str
    flicker: Flicker


def is_animation(path: Path) -> bool:
    """Whether a file is a GIF, WebP or PNG of several images; every GIF counts."""
    if not can_hold_animation(path):
        return False
    try:
        with quiet_decoders(), Image.open(path) as image:
            return image.format == "GIF" or getattr(image, "n_frames", 1) > 1
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return False  # whoever reads it as an image says what is wrong


def read_animation(path: Path, max_pixels: int) -> Animation:
    """The images of an animation as they are shown, each complete.

    Raises:
        UnreadableImageError: Damaged, or more pixels in all images together than allowed.
    """
    label = repr(str(path))
    try:
        with quiet_decoders(), Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            if count * image.width * image.height > max_pixels:
                raise UnreadableImageError(
                    f"{label} has {count} images of {image.width}x{image.height} pixels, more than "
                    f"{max_pixels:,} together; if you trust the file, raise `max_pixels`"
                )
            info, loops = dict(image.info), image.info.get("loop")
            shown = [
                (np.asarray(one.convert("RGBA")), float(one.info.get("duration") or 0))
                for one in ImageSequence.Iterator(image)
            ]
            lossless = image.format != "WEBP" or b"VP8L" in path.read_bytes()
    except DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"{label} is damaged or cut short ({one_line(error)}); copy or download it again"
        ) from error
    kept = {key: info[key] for key in ("icc_profile", "exif", "xmp") if info.get(key)}
    poster = shown.pop(0)[0] if info.get("default_image") else None
    durations = _in_milliseconds([time if time >= SHORTEST else USUAL for _, time in shown])
    images = tuple(pixels for pixels, _ in shown)
    return Animation(images, durations, loops, lossless, kept, poster, _lost(info))


def _in_milliseconds(times: Sequence[float]) -> tuple[int, ...]:
    """Whole milliseconds that add up to the same whole.

    Example:
        >>> _in_milliseconds([50 / 3] * 3)
        (17, 16, 17)
    """
    ends = np.rint(np.cumsum([0.0, *times])).astype(int)
    return tuple(np.diff(ends).tolist())


def _lost(info: Mapping[Any, Any]) -> tuple[str, ...]:
    """What of a header no result holds."""
    found = [name for key, name in LOST.items() if info.get(key)]
    return (f"not kept: {', '.join(found)}",) if found else ()


def derain_animation(
    animation: Animation,
    derain: Callable[[Frame], Frame],
    suffix: str,
    *,
    quality: int | None,
    temporal: bool,
) -> Iterator[int | AnimationResult]:
    """Derain every image, with the alpha it had.

    Args:
        animation: What was read.
        derain: The network, for one image of 8 bits.
        suffix: Ending of the file to write; names the format.
        quality: 1 to 100 of a lossy WebP; None: as it was read.
        temporal: Whether each image is steadied by its two neighbours.

    Yields:
        The number of images that are done, and the result at last.
    """
    rainy = [np.ascontiguousarray(pixels[..., :3]) for pixels in animation.images]
    derained: list[Frame] = []
    for pixels in rainy:
        derained.append(derain(pixels))
        yield len(derained)
    if temporal:
        around = zip([None, *derained], derained, [*derained[1:], None], strict=False)
        derained = [steady_frame(before, one, after) for before, one, after in around]
    flicker = Flicker()
    for index in range(1, len(rainy)):
        flicker += measure_flicker(
            (rainy[index - 1], rainy[index]), (derained[index - 1], derained[index])
        )
    format = ANIMATION_SUFFIXES[suffix.lower()]
    poster = None if animation.poster is None else _with_alpha_of(animation.poster, derain)
    yield AnimationResult(_written(animation, derained, poster, format, quality), format, flicker)


def _with_alpha_of(pixels: Frame, derain: Callable[[Frame], Frame]) -> Frame:
    derained = derain(np.ascontiguousarray(pixels[..., :3]))
    return np.concatenate([derained, pixels[..., 3:]], axis=2)


def _written(
    animation: Animation,
    derained: Sequence[Frame],
    poster: Frame | None,
    format: str,
    quality: int | None,
) -> bytes:
    alphas = [pixels[..., 3:] for pixels in animation.images]
    opaque = all(alpha.min() == 255 for alpha in alphas)
    images = [
        Image.fromarray(pixels if opaque else np.concatenate([pixels, alpha], axis=2))
        for pixels, alpha in zip(derained, alphas, strict=True)
    ]
    if format == "GIF" and opaque:  # Pillow itself makes a palette with transparency
        images = [image.quantize(256, Image.Quantize.MEDIANCUT) for image in images]
    if format == "PNG" and poster is not None:
        images.insert(0, Image.fromarray(poster).convert(images[0].mode))
    options: dict[str, Any] = {"save_all": True, "append_images": images[1:], **animation.kept}
    options["duration"] = list(animation.durations)
    if animation.loops is not None or format != "GIF":
        options["loop"] = 1 if animation.loops is None else animation.loops
    if format == "GIF" and not opaque:
        options["disposal"] = 2  # each image clears what the one before left
    if format == "PNG":
        options["default_image"] = poster is not None
    if format == "WEBP":
        lossless = animation.lossless and quality is None
        options |= {"lossless": lossless, "quality": quality or LOSSY_QUALITY}
    file = io.BytesIO()
    images[0].save(file, format, **options)
    return file.getvalue()
