"""Formats that Pillow opens: pixels of any 8-bit mode, and metadata."""

import dataclasses
import io
import re
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
    WebPImagePlugin,
)

from derain_cli.errors import UnreadableImageError
from derain_cli.images.avif import av1_layers
from derain_cli.images.bmp import bmp_profile
from derain_cli.images.codecs import open_odd_jpeg
from derain_cli.images.gif import gif_profile, gif_xmp
from derain_cli.images.heif import refuse_other_codecs
from derain_cli.images.jpeg import jpeg_coding, strict_jpeg_pixels
from derain_cli.images.jpeg_segments import bytes_behind_image, jpeg_parts, zeros_in_scans
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pixels import Canvas, bands
from derain_cli.images.png import (
    PngChunks,
    decode_png_of_16_bits,
    pixels_alone,
    png_metadata,
    read_png_chunks,
)
from derain_cli.images.sources import Notices, OpenedImage, SourceFile
from derain_cli.images.statements import cicp_chunk, jpeg_statements, upright_metadata
from derain_cli.images.webp import is_lossless_webp
from derain_cli.images.xmp import GAIN_MAP, VIDEO

GRAY_MODES = ("1", "L", "LA", "La")  # of Pillow, 8 bits and less


def open_png(file: SourceFile, notices: Notices) -> OpenedImage:
    """The header of a PNG; adds to the notices, also while pixels are decoded."""
    chunks = read_png_chunks(file.stream, notices)
    if chunks.frames > 1:
        notices.append(f"holds {chunks.frames} images; the first is used")
    metadata, orientation = upright_metadata(png_metadata(chunks, notices), chunks.size, notices)

    def decode() -> Picture:
        png = pixels_alone(file.stream, chunks, notices)
        if chunks.depth == 16:
            gray = chunks.colour_type in (0, 4)
            canvas = decode_png_of_16_bits(png, chunks, orientation)
        else:
            image = PngImagePlugin.PngImageFile(io.BytesIO(png))
            _scale_transparent_gray(image, chunks.depth)
            canvas = decode_with_pillow(image, orientation, notices)
            gray = image.mode in GRAY_MODES
        return Picture(canvas.rgb, canvas.alpha, gray, "png", metadata, tuple(notices))

    return OpenedImage(chunks.size, orientation, decode, _png_pixel_bytes(chunks))


def _png_pixel_bytes(chunks: PngChunks) -> int:
    return (4 if chunks.transparent else 3) * (2 if chunks.depth == 16 else 1)


def open_jpeg(file: SourceFile, notices: Notices) -> OpenedImage:
    """The header of a JPEG; adds to the notices, also while pixels are decoded.

    Raises:
        UnreadableImageError: A kind that needs more than common decoders.
    """
    parts = jpeg_parts(file.stream)
    if parts.kind:
        return open_odd_jpeg(file, parts, notices)
    file.stream.seek(0)
    image = _jpeg_image(file.stream)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notices.append(f"holds {frames} images; the first is used")
    stated = dataclasses.replace(
        jpeg_statements(parts, notices),
        dpi=_valid_dpi(image.info.get("dpi")),
        jpeg=jpeg_coding(image),
    )
    metadata, orientation = upright_metadata(stated, image.size, notices)

    def decode() -> Picture:
        data = file.read_all()
        _note_what_follows(bytes_behind_image(data), notices, frames)
        if zeros := zeros_in_scans(data):
            notices.damage(f"may be damaged: {zeros:,} bytes of its pixels are zero")
        pixels = strict_jpeg_pixels(data, image, notices)
        if pixels is None:
            file.stream.seek(0)
            canvas = decode_with_pillow(_jpeg_image(file.stream), orientation, notices)
        else:
            canvas = Canvas.of(pixels, orientation)
        kept = metadata_of_converted(image.mode, metadata)
        gray = image.mode == "L"
        return Picture(canvas.rgb, canvas.alpha, gray, "jpeg", kept, tuple(notices))

    return OpenedImage(image.size, orientation, decode)


def _jpeg_image(stream: BinaryIO) -> JpegImagePlugin.JpegImageFile:
    """The opened file; without its other images where their index is damaged."""
    try:
        return JpegImagePlugin.jpeg_factory(stream)
    except (KeyError, TypeError, ValueError, struct.error):
        stream.seek(0)
        return JpegImagePlugin.JpegImageFile(stream)


def _note_what_follows(behind: bytes, notices: Notices, frames: int) -> None:
    """Name the data behind the image that no notice has named yet."""
    if not behind or frames > 1 or {GAIN_MAP, VIDEO} & set(notices):
        return
    if b"ftyp" in behind[:64] or b"MotionPhoto_Data" in behind:
        notices.append(VIDEO)
    elif behind.startswith(b"\xff\xd8\xff") and re.search(rb"hdrgm|HDRGainMap|hdrgainmap", behind):
        notices.append(GAIN_MAP)
    else:
        notices.append(f"has {len(behind):,} bytes behind its image, which are dropped")


def open_with_pillow(file: SourceFile, format: str, notices: Notices) -> OpenedImage:
    """The header of AVIF, BMP, GIF, HEIC and WebP; adds to the notices, also while decoding."""
    header = file.head()
    if format == "heic":
        refuse_other_codecs(header, file.label)
    file.stream.seek(0)
    image = _pillow_opener(format, file.label)(file.stream)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        used = "main one" if format == "heic" else "first"
        notices.append(f"holds {frames} images; the {used} is used")
    bits = av1_layers(header).bits if format == "avif" else image.info.get("bit_depth", 8)
    if bits > 8:
        notices.append(f"has {bits} bits per channel, which are read as 8")
    if format in ("avif", "heic"):
        notices += _auxiliary_losses(image, header)
    stated = dataclasses.replace(
        _pillow_statements(image),
        png_chunks=cicp_chunk(header) if format in ("avif", "heic") else (),
        lossless=format in ("bmp", "gif") or (format == "webp" and is_lossless_webp(file)),
    )
    if format == "bmp":
        stated = dataclasses.replace(stated, icc=bmp_profile(file, notices))
    if format == "gif":
        data, comment = file.read_all(), image.info.get("comment") or None
        stated = dataclasses.replace(
            stated, comment=comment, xmp=gif_xmp(data), icc=gif_profile(data)
        )
    if stated.icc and stated.icc[36:40] != b"acsp":
        notices.damage("its colour profile is damaged and was dropped")
        stated = dataclasses.replace(stated, icc=None)
    turned = format == "heic"  # by libheif
    metadata, orientation = upright_metadata(stated, image.size, notices, turned=turned)

    def decode() -> Picture:
        gray = image.mode in GRAY_MODES
        gray |= format == "avif" and av1_layers(header).monochrome
        canvas = decode_with_pillow(image, orientation, notices)
        kept = metadata_of_converted(image.mode, metadata)
        return Picture(canvas.rgb, canvas.alpha, gray, format, kept, tuple(notices))

    return OpenedImage(image.size, orientation, decode, 4 if image.has_transparency_data else 3)


def _auxiliary_losses(image: Any, header: bytes) -> list[str]:  # noqa: ANN401 (an extra's class)
    """Notices for the images that go with the primary one in AVIF and HEIC files."""
    names = " ".join(str(name) for name in image.info.get("aux", ()))
    losses = []
    if "gainmap" in names.lower() or b"tmap" in header:
        losses.append(GAIN_MAP)
    if image.info.get("depth_images"):
        losses.append("its depth map is dropped")
    return losses


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
            f"{label} is a {format.upper()} image, which this build of Pillow does not read; "
            "pip install --force-reinstall pillow"
        )
    return {
        "avif": AvifImagePlugin.AvifImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
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
    to_rgb = colour_conversion(image, notices)
    canvas = Canvas(image.size, 8, alpha=alpha, orientation=orientation)
    mode = ("L" if image.mode in GRAY_MODES else "RGB") + ("A" if alpha else "")
    for top, bottom in bands(image.width, image.height):
        band = to_rgb(image.crop((0, top, image.width, bottom)))
        samples = np.asarray(band if band.mode == mode else band.convert(mode))
        canvas.fill(top, samples.reshape(bottom - top, image.width, -1))
    return canvas


def colour_conversion(
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


def _pillow_statements(image: Image.Image) -> Metadata:
    """What Pillow found in a header."""
    info = image.info
    exif: bytes | None = info.get("exif")
    return Metadata(
        exif=exif or None,
        icc=info.get("icc_profile") or None,
        xmp=info.get("xmp") or None,
        dpi=_valid_dpi(info.get("dpi")),
    )


def _valid_dpi(dpi: Any) -> tuple[float, float] | None:  # noqa: ANN401 (whatever the file says)
    try:
        x, y = (float(side) for side in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None
