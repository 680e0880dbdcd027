"""What a request asks for, and how its image is read and its answer made."""

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
class Wish:
    """One image and what is to become of it.

    Attributes:
        content: The file.
        name: What it is called in messages and in the answer's file name.
        model: Name of the weights; None: the server's own choice.
        strength: Share of the rain that is removed, 0..1.
        format: Key of `MEDIA_TYPES`; None: as the input.
        quality: 1-100 for formats that lose something; None: as the input.
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
        name: Its file name.
        notices: What the user should know about it.
    """

    content: bytes
    format: str
    name: str
    notices: tuple[str, ...] = ()


def parse_wish(content: bytes, name: str, fields: Mapping[str, str]) -> Wish:
    """The wish that a request's fields state.

    Raises:
        UsageError: An unknown field, or a value that cannot mean anything.
        NothingToDoError: No image was sent.
    """
    known = {field.name for field in dataclasses.fields(Wish)} - {"content"}
    for field in fields:
        if field not in known:
            raise UsageError(f"unknown parameter {field!r}. {did_you_mean(field, known)}")
    if not content:
        raise NothingToDoError(
            "no image was sent: it is the body of the request, or its multipart field 'image'"
        )
    return Wish(
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


def read_rainy(wish: Wish, max_pixels: int) -> Picture:
    """The image that was sent.

    Raises:
        UnreadableImageError: Not an image this program reads, damaged, or too large.
        ResourceError: Not enough memory.
    """
    return read_image(wish.content, max_pixels=max_pixels, name=wish.name)


def make_answer(wish: Wish, rainy: Picture, derained: np.ndarray) -> Answer:
    """The layer that was asked for, as a file; the command line writes the same bytes.

    Raises:
        ImageError: The format cannot hold this image.
        ResourceError: Not enough memory.
    """
    if wish.layer == "rain":
        picture = rainy.with_rgb(rain_layer(rainy.rgb, derained))
    elif wish.layer == "compare":
        picture = side_by_side(rainy, rainy.with_rgb(derained))
    else:
        picture = rainy.with_rgb(derained)
    own = picture.format if picture.format in WRITABLE_FORMATS else "png"
    format = wish.format or own
    content = encode_image(picture, format, wish.quality, name=repr(wish.name))
    notices = (*rainy.notices, *writing_notices(picture, format))
    if wish.format is None and own != picture.format:
        notices += (f"{picture.format.upper()} is only read: written as {own.upper()}",)
    return Answer(content, format, _answer_name(wish, format), notices)


def _answer_name(wish: Wish, format: str) -> str:
    stem = PurePosixPath(wish.name).stem
    return f"{stem}_{wish.layer}{ENDINGS[format]}"


def make_preview(wish: Wish, picture: Picture) -> Answer:
    """The image as a file that every browser shows: upright, 8 bits, JPEG or PNG."""
    format = "jpeg" if picture.alpha is None else "png"
    if picture.alpha is not None:
        picture = _in_eight_bits(picture)
    content = encode_image(picture, format, 95 if format == "jpeg" else None, name=repr(wish.name))
    stem = PurePosixPath(wish.name).stem
    return Answer(content, format, f"{stem}_preview{ENDINGS[format]}", picture.notices)


def _in_eight_bits(picture: Picture) -> Picture:
    if picture.bit_depth == 8:
        return picture
    alpha = None if picture.alpha is None else (picture.alpha >> 8).astype(np.uint8)
    rgb = (picture.rgb >> 8).astype(np.uint8)
    return dataclasses.replace(picture, rgb=rgb, alpha=alpha)
