"""Formats that Pillow opens: pixels of any 8-bit mode, and metadata."""

import contextlib
import dataclasses
import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from derain_cli.errors import UnreadableImageError
from derain_cli.images.avif import av1_layers
from derain_cli.images.exif import (
    exif_tags,
    upright_exif,
    upright_xmp,
    valid_orientation,
    xmp_orientation,
)
from derain_cli.images.jpeg import jpeg_coding
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pixels import Canvas, bands
from derain_cli.images.png import decode_png_of_16_bits, kept_png_chunks
from derain_cli.images.sources import OpenedPicture, SourceFile
from derain_cli.images.tiff_tags import ORIENTATION, Directory, dpi_of, whole_number
from derain_cli.images.webp import is_lossless_webp

GRAY_MODES = ("1", "L", "LA", "La")  # of Pillow, 8 bits and less


def open_with_pillow(file: SourceFile, format: str, notices: list[str]) -> OpenedPicture:
    """The header of any format but TIFF; adds to the notices, also while pixels are decoded."""
    header = file.head()
    file.stream.seek(0)
    image = _pillow_opener(format, file.label)(file.stream)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notices.append(f"holds {frames} pictures; the first is used")
    bits = av1_layers(header).bits if format == "avif" else image.info.get("bit_depth", 8)
    if bits > 8:
        notices.append(f"has {bits} bits per channel, which are read as 8")
    metadata, orientation = _pillow_metadata(file, image, format, notices)

    def decode() -> Picture:
        gray = image.mode in GRAY_MODES
        gray |= format == "avif" and av1_layers(header).monochrome
        if format == "png" and header[24] == 16:
            gray = header[25] in (0, 4)  # for Pillow, 16-bit gray with alpha is RGBA
            canvas = decode_png_of_16_bits(file, orientation)
        else:
            if format == "png":
                _scale_transparent_gray(image, header[24])
            canvas = decode_with_pillow(image, orientation, notices)
        kept = metadata_of_converted(image.mode, metadata)
        return Picture(canvas.rgb, canvas.alpha, gray, format, kept, tuple(notices))

    return OpenedPicture(image.size, orientation, decode)


def _pillow_opener(format: str, label: str) -> Callable[[BinaryIO], Any]:
    """What opens a format: unlike `Image.open` it has no size limit and tries no other format."""
    if format == "heic":
        try:
            import pillow_heif  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise UnreadableImageError(
                f"{label} is a HEIC photo; to read it: pip install 'derain-cli[heic]'"
            ) from error
        opener: Callable[[BinaryIO], Any] = pillow_heif.HeifImageFile
        return opener
    if (format == "avif" and not AvifImagePlugin.SUPPORTED) or (
        format == "webp" and not WebPImagePlugin.SUPPORTED
    ):
        raise UnreadableImageError(
            f"{label} is a {format.upper()} picture, which this build of Pillow does not read; "
            "pip install --force-reinstall pillow"
        )
    return {
        "avif": AvifImagePlugin.AvifImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "jpeg": JpegImagePlugin.jpeg_factory,
        "png": PngImagePlugin.PngImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }[format]


def _scale_transparent_gray(image: Image.Image, depth: int) -> None:
    """Pillow scales 2- and 4-bit gray to 8 bits, but leaves the transparent gray unscaled."""
    if image.mode == "L" and depth in (2, 4) and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= 255 // (2**depth - 1)


def decode_with_pillow(image: Image.Image, orientation: int, notices: list[str]) -> Canvas:
    """Pixels of any 8-bit mode, as RGB or gray and alpha, band by band."""
    image.load()
    alpha = image.has_transparency_data
    to_rgb = _colour_conversion(image, notices)
    canvas = Canvas(image.size, 8, alpha=alpha, orientation=orientation)
    mode = ("L" if image.mode in GRAY_MODES else "RGB") + ("A" if alpha else "")
    for top, bottom in bands(image.width, image.height):
        band = to_rgb(image.crop((0, top, image.width, bottom)))
        samples = np.asarray(band if band.mode == mode else band.convert(mode))
        canvas.fill(top, samples.reshape(bottom - top, image.width, -1))
    return canvas


def _colour_conversion(
    image: Image.Image, notices: list[str]
) -> Callable[[Image.Image], Image.Image]:
    """What turns CMYK and Lab into sRGB; other modes are left to Pillow's `convert`."""
    if image.mode not in ("CMYK", "LAB"):
        return lambda band: band
    profile: Any = ImageCms.createProfile("LAB") if image.mode == "LAB" else None
    icc = image.info.get("icc_profile")
    if image.mode == "CMYK" and icc and icc[16:20] == b"CMYK":
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    if profile is None:
        notices.append("CMYK without a profile, converted to sRGB: colours are approximate")
        return lambda band: band.convert("RGB")
    notices.append(f"{image.mode} converted to sRGB")
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return lambda band: _transformed(band, transform)


def _transformed(band: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(band, transform)
    if converted is None:  # only when asked to work in place
        raise ValueError("colour conversion failed")
    return converted


def metadata_of_converted(mode: str, metadata: Metadata) -> Metadata:
    """A CMYK or Lab profile does not describe the sRGB pixels made with it."""
    return dataclasses.replace(metadata, icc=None) if mode in ("CMYK", "LAB") else metadata


def _pillow_metadata(
    file: SourceFile, image: Image.Image, format: str, notices: list[str]
) -> tuple[Metadata, int]:
    """Metadata that Pillow found in a header, and the EXIF orientation of the stored pixels."""
    info = image.info
    exif, xmp = _stored_exif(image), info.get("xmp") or None
    tags: Directory = {}
    if exif:
        try:
            tags = exif_tags(exif)
        except (ValueError, KeyError, struct.error):
            exif = None
            notices.append("its EXIF block is damaged and was dropped")
    orientation = 1
    if format != "heic":  # libheif has turned the pixels
        orientation = valid_orientation(whole_number(tags, ORIENTATION, xmp_orientation(xmp)))
    size = image.size[::-1] if orientation >= 5 else image.size
    return Metadata(
        exif=upright_exif(exif, size) if exif else None,
        icc=info.get("icc_profile") or None,
        xmp=upright_xmp(xmp) if xmp else None,
        dpi=_valid_dpi(info.get("dpi")) or dpi_of(tags),
        iptc=info.get("photoshop", {}).get(0x0404),
        comment=info.get("comment") if format == "jpeg" else None,
        jpeg=jpeg_coding(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else None,
        png_chunks=kept_png_chunks(file.stream) if format == "png" else (),
        lossless=format in ("bmp", "gif", "png") or (format == "webp" and is_lossless_webp(file)),
    ), orientation


def _stored_exif(image: Image.Image) -> bytes | None:
    """The EXIF block without the mark in front of it."""
    exif: bytes | None = image.info.get("exif")
    if exif is None and isinstance(text := image.info.get("Raw profile type exif"), str):
        # ImageMagick's way of old: a name and a length, each on its line, then hexadecimal digits
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    return exif.removeprefix(b"Exif\0\0") if exif else None


def _valid_dpi(dpi: Any) -> tuple[float, float] | None:  # noqa: ANN401 (whatever the file says)
    try:
        x, y = (float(side) for side in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
