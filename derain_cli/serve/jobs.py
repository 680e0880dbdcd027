"""Jobs of requests: parse their options, read their images and make the answers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

from derain_cli.batch.layers import rain_layer, side_by_side
from derain_cli.errors import NothingToDoError, UsageError, did_you_mean
from derain_cli.images import (
    WRITABLE_FORMATS,
    Picture,
    encode_image,
    read_image,
    writing_notices,
)

LAYERS = ("derained", "rain", "compare")

MEDIA_TYPES: Mapping[str, str] = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "webp": "image/webp",
}

ENDINGS: Mapping[str, str] = {format: f".{format}" for format in MEDIA_TYPES} | {
    "jpeg": ".jpg",
    "tiff": ".tif",
}

FORMATS: Mapping[str, str] = {format: format for format in MEDIA_TYPES} | {
    "jpg": "jpeg",
    "tif": "tiff",
}


@dataclass(frozen=True)
class Job:
    """One image and its options.

    Attributes:
        content: The file.
        name: Its name in messages and in the answer's file name.
        model: Name of the weights; None: the server's own choice.
        strength: Share of the rain to remove, 0..1.
        format: Key of `MEDIA_TYPES`; None: as the input.
        quality: 1-100 for lossy formats; None: as the input.
        layer: One of `LAYERS`.
    """

    content: bytes
    name: str = "image"
    model: str | None = None
    strength: float = 1.0
    format: str | None = None
    quality: int | None = None
    layer: str = "derained"


@dataclass(frozen=True)
class Answer:
    """A file to send back.

    Attributes:
        content: The file.
        format: Key of `MEDIA_TYPES`.
        name: File name of the answer.
        notices: Notices for the user.
    """

    content: bytes
    format: str
    name: str
    notices: tuple[str, ...] = ()


def parse_job(content: bytes, name: str, fields: Mapping[str, str]) -> Job:
    """Parse the job in a request's fields.

    Raises:
        UsageError: An unknown field, or an invalid value.
        NothingToDoError: No image was sent.
    """
    known = {field.name for field in dataclasses.fields(Job)} - {"content"}
    for field in fields:
        if field not in known:
            raise UsageError(f"unknown parameter {field!r}. {did_you_mean(field, known)}")
    if not content:
        raise NothingToDoError(
            "no image was sent: it is the body of the request, or its multipart field 'image'"
        )
    return Job(
        content,
        plain_name(fields.get("name") or name),
        fields.get("model") or None,
        _number("strength", fields.get("strength", "1"), 0, 1),
        _choice("format", fields.get("format"), FORMATS),
        _quality(fields.get("quality")),
        _choice("layer", fields.get("layer"), {layer: layer for layer in LAYERS}) or LAYERS[0],
    )


def plain_name(name: str) -> str:
    """The file name alone, without folders and control characters.

    Example:
        >>> plain_name("../holiday/a.jpg"), plain_name("")
        ('a.jpg', 'image')
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(sign for sign in last if sign.isprintable())[:200] or "image"


def _number(field: str, text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise UsageError(f"{field} must be a number from {lowest} to {highest}, not {text!r}")
    return value


def _quality(text: str | None) -> int | None:
    if not text:
        return None
    value = _number("quality", text, 1, 100)
    if not value.is_integer():
        raise UsageError(f"quality must be a whole number from 1 to 100, not {text!r}")
    return int(value)


def _choice(field: str, text: str | None, known: Mapping[str, str]) -> str | None:
    if not text:
        return None
    if text.lower() not in known:
        raise UsageError(f"unknown {field} {text!r}. {did_you_mean(text.lower(), known)}")
    return known[text.lower()]


def read_rainy(job: Job, max_pixels: int) -> Picture:
    """Read the image of a job.

    Raises:
        UnreadableImageError: Not an image this program reads, damaged, or too large.
        ResourceError: Not enough memory.
    """
    return read_image(job.content, max_pixels=max_pixels, name=job.name)


def make_answer(job: Job, rainy: Picture, derained: np.ndarray) -> Answer:
    """The requested layer as a file, with the same bytes as the command line writes.

    Raises:
        ImageError: The format cannot hold this image.
        ResourceError: Not enough memory.
    """
    if job.layer == "rain":
        picture = rainy.with_rgb(rain_layer(rainy.rgb, derained))
    elif job.layer == "compare":
        picture = side_by_side(rainy, rainy.with_rgb(derained))
    else:
        picture = rainy.with_rgb(derained)
    own = picture.format if picture.format in WRITABLE_FORMATS else "png"
    format = job.format or own
    content = encode_image(picture, format, job.quality, name=repr(job.name))
    notices = (*rainy.notices, *writing_notices(picture, format))
    if job.format is None and own != picture.format:
        notices += (f"{picture.format.upper()} is only read: written as {own.upper()}",)
    return Answer(content, format, _answer_name(job, format), notices)


def _answer_name(job: Job, format: str) -> str:
    stem = PurePosixPath(job.name).stem
    return f"{stem}_{job.layer}{ENDINGS[format]}"


def make_preview(job: Job, picture: Picture) -> Answer:
    """The image in a format that every browser shows: upright, 8 bits, JPEG or PNG."""
    format = "jpeg" if picture.alpha is None else "png"
    if picture.alpha is not None:
        picture = _in_eight_bits(picture)
    content = encode_image(picture, format, 95 if format == "jpeg" else None, name=repr(job.name))
    stem = PurePosixPath(job.name).stem
    return Answer(content, format, f"{stem}_preview{ENDINGS[format]}", picture.notices)


def _in_eight_bits(picture: Picture) -> Picture:
    if picture.bit_depth == 8:
        return picture
    alpha = None if picture.alpha is None else (picture.alpha >> 8).astype(np.uint8)
    rgb = (picture.rgb >> 8).astype(np.uint8)
    return dataclasses.replace(picture, rgb=rgb, alpha=alpha)
