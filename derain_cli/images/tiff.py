"""TIFF: which layouts are read, pixels of 16 bits, and writing it with its metadata.

Pillow reads 8 bits; tifffile reads 16 and writes all; OpenCV reads 16 in LZW and PackBits.
"""

import contextlib
import io
import os
import struct
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import TiffImagePlugin

from derain_cli.errors import UnreadableImageError
from derain_cli.images.exif import exif_block, exif_tags, upright_xmp, valid_orientation
from derain_cli.images.opencv import decode_with_opencv
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pillow import GRAY_MODES, decode_with_pillow, metadata_of_converted
from derain_cli.images.pixels import Canvas, bands, samples_of
from derain_cli.images.sniff import RAW_FILE, RAW_WAY_OUT
from derain_cli.images.sources import OpenedPicture, SourceFile
from derain_cli.images.tiff_tags import (
    EXIF_TAG,
    GPS_TAG,
    ICC,
    IPTC,
    ORIENTATION,
    UNDEFINED,
    XMP,
    Directory,
    Tag,
    dpi_of,
    pack_directory,
    read_directory,
    tiff_order,
    unpack,
    whole_number,
    whole_numbers,
)

_DESCRIPTIVE_TAGS = frozenset(
    # description, make, model, software, date, artist, host, ratings, copyright, Windows' own
    {270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
    | {EXIF_TAG, GPS_TAG}
)


@dataclass(frozen=True)
class _TiffLayout:
    """What the first page's header says of its pixels."""

    size: tuple[int, int]
    bits: int
    colours: int
    samples: int
    alpha: int | None  # which sample
    associated: bool  # colours are multiplied by alpha
    photometric: int
    compression: int
    separate: bool  # one plane per sample


def open_tiff(file: SourceFile, notices: list[str]) -> OpenedPicture:
    """The header of a TIFF; adds to the notices, also while pixels are decoded.

    Raises:
        UnreadableImageError: A layout this program does not read, or a camera RAW file.
    """
    order, big = tiff_order(file.head(4))
    file.stream.seek(8 if big else 4)
    at = unpack(file.stream, order + ("Q" if big else "I"))
    tags, following = read_directory(file.stream, order, at, big=big)
    layout = _tiff_layout(tags, file.label)
    pages = _count_pages(file.stream, order, at, big=big) if following else 1
    if pages > 1:
        notices.append(f"holds {pages} pages; the first is used")
    if layout.samples - layout.colours > (layout.alpha is not None):
        notices.append("has extra channels beside colour and alpha, which are dropped")
    metadata = _tiff_metadata(tags)
    orientation = valid_orientation(whole_number(tags, ORIENTATION, 1))

    def decode() -> Picture:
        if layout.bits == 16:
            canvas = _decode_tiff_of_16_bits(file, layout, orientation)
            gray, kept = layout.colours == 1, metadata
        else:
            file.stream.seek(0)
            image = TiffImagePlugin.TiffImageFile(file.stream)
            mode = image.mode
            canvas = decode_with_pillow(image, 1, notices)  # Pillow turns TIFFs itself
            gray, kept = mode in GRAY_MODES, metadata_of_converted(mode, metadata)
        return Picture(canvas.rgb, canvas.alpha, gray, "tiff", kept, tuple(notices))

    return OpenedPicture(layout.size, orientation, decode)


def _count_pages(stream: BinaryIO, order: str, at: int, *, big: bool) -> int:
    """Directories in the chain; a chain that bites its tail ends there."""
    seen: set[int] = set()
    entry, code, size = (20, "Q", 8) if big else (12, "H", 2)
    with contextlib.suppress(struct.error):
        while at and at not in seen:
            stream.seek(at)
            count = unpack(stream, order + code)
            stream.seek(at + size + count * entry)
            following = unpack(stream, order + ("Q" if big else "I"))
            seen.add(at)
            at = following
    return len(seen)


def _tiff_layout(tags: Directory, label: str) -> _TiffLayout:
    """Layout of the pixels.

    Raises:
        UnreadableImageError: A layout this program does not read.
    """
    samples = whole_number(tags, 277, 1)
    depths = set(whole_numbers(tags, 258, (1,))[:samples])
    bits, photometric = max(depths), whole_number(tags, 262, 1)
    _refuse_tiff(tags, depths, photometric, label)
    colours = {0: 1, 1: 1, 3: 1, 5: 4}.get(photometric, 3)
    extra = whole_numbers(tags, 338)
    if samples == colours + 1 and not extra:
        extra = (2,)  # unnamed, but all programs that write such files mean alpha
    alpha = next((colours + at for at, kind in enumerate(extra) if kind in (1, 2)), None)
    return _TiffLayout(
        size=(whole_number(tags, 256, 0), whole_number(tags, 257, 0)),
        bits=bits,
        colours=colours,
        samples=samples,
        alpha=alpha if alpha is None or alpha < samples else None,
        associated=1 in extra,
        photometric=photometric,
        compression=whole_number(tags, 259, 1),
        separate=whole_number(tags, 284, 1) == 2 and samples > 1,
    )


def _refuse_tiff(tags: Directory, depths: set[int], photometric: int, label: str) -> None:
    # DNGs carry their version, other makers a small preview in front and the sensor behind it.
    preview = whole_number(tags, 254, 0) & 1 and 330 in tags
    if 50706 in tags or photometric in (32803, 34892) or preview:
        raise UnreadableImageError(
            f"{label} is {RAW_FILE}, not a picture this program reads; {RAW_WAY_OUT}"
        )
    sample_format = max(whole_numbers(tags, 339, (1,)))
    bits = max(depths)
    kind = {2: "signed", 3: "float", 5: "complex", 6: "complex float"}.get(sample_format, "")
    if kind or len(depths) > 1 or bits not in (1, 2, 4, 8, 16):
        shown = "/".join(str(depth) for depth in sorted(depths))
        raise UnreadableImageError(
            f"{label} is a {shown}-bit {kind or 'integer'} TIFF, which is unsupported; "
            "export it as 16-bit TIFF"
        )
    if bits == 16 and photometric not in (0, 1, 2):
        raise UnreadableImageError(
            f"{label} is a 16-bit TIFF of an unsupported colour model (neither gray nor RGB); "
            "export it as 16-bit RGB TIFF"
        )


def _decode_tiff_of_16_bits(file: SourceFile, layout: _TiffLayout, orientation: int) -> Canvas:
    """Pixels of a 16-bit gray or RGB TIFF."""
    if layout.compression in (5, 32773):
        samples = _tiff_samples_with_opencv(file, layout)
    else:
        samples = _tiff_samples_with_tifffile(file, layout)
    width, height = layout.size
    if samples.shape != (height, width, layout.samples) or samples.dtype != np.uint16:
        raise ValueError(f"found {samples.dtype} pixels of shape {samples.shape}")
    has_alpha = layout.alpha is not None
    canvas = Canvas(layout.size, 16, alpha=has_alpha, orientation=orientation)
    for top, bottom in bands(width, height):
        colour = samples[top:bottom, :, : layout.colours]
        if layout.photometric == 0:  # 0 is white
            colour = ~colour
        if layout.alpha is None:
            canvas.fill(top, colour)
            continue
        alpha = samples[top:bottom, :, layout.alpha, None]
        if layout.associated:
            colour = _straight(colour, alpha)
        canvas.fill(top, np.concatenate([colour, alpha], axis=2))
    return canvas


def _straight(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours with the alpha that is multiplied into them taken out.

    Example:
        >>> _straight(np.uint16([[[100]]]), np.uint16([[[32768]]]))
        array([[[200]]], dtype=uint16)
    """
    full = np.minimum(np.rint(colour * (65535 / np.maximum(alpha, 1).astype(np.float32))), 65535)
    return np.asarray(np.where(alpha, full, colour), np.uint16)


def _tiff_samples_with_opencv(file: SourceFile, layout: _TiffLayout) -> np.ndarray:
    if layout.separate or layout.samples not in (1, 3, 4):
        raise UnreadableImageError(
            f"{file.label} is a 16-bit TIFF with an unsupported layout of LZW or PackBits data; "
            "save it uncompressed or with ZIP (deflate) compression"
        )
    samples = decode_with_opencv(file.read_all())
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    return samples[..., order]


def _tiff_samples_with_tifffile(file: SourceFile, layout: _TiffLayout) -> np.ndarray:
    """Samples `(height, width, samples)` of the first page."""
    file.stream.seek(0)
    with _tifffile().TiffFile(file.stream) as tiff:
        page = tiff.pages[0]
        if not all(page.databytecounts) or len(page.databytecounts) < np.prod(page.chunked):
            raise ValueError("parts of its pixels are missing")
        try:
            planes = page.asarray(squeeze=False)
        except (ValueError, KeyError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise UnreadableImageError(
                f"{file.label} is a 16-bit TIFF with unsupported compression {layout.compression}; "
                "save it uncompressed or with ZIP (deflate) compression"
            ) from error
    planes = planes[:, 0]
    samples: np.ndarray = np.moveaxis(planes[..., 0], 0, -1) if layout.separate else planes[0]
    return samples


def _tifffile() -> ModuleType:
    """The module; its remarks on odd files are not for the terminal."""
    import logging  # noqa: PLC0415 (only pictures that need tifffile need it)

    import tifffile  # noqa: PLC0415

    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    module: ModuleType = tifffile
    return module


def _tiff_metadata(tags: Directory) -> Metadata:
    described = {code: tags[code] for code in _DESCRIPTIVE_TAGS & tags.keys()}
    iptc, xmp, icc = tags.get(IPTC), tags.get(XMP), tags.get(ICC)
    return Metadata(
        exif=exif_block(described) if described else None,
        icc=icc.value if icc else None,
        xmp=upright_xmp(xmp.value) if xmp else None,
        dpi=dpi_of(tags),
        iptc=iptc.value if iptc and iptc.kind in (1, UNDEFINED) else None,
    )


def encode_tiff(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A little-endian TIFF, compressed with deflate."""
    metadata, samples, buffer = picture.metadata, samples_of(picture, alpha), io.BytesIO()
    _tifffile().imwrite(
        buffer,
        samples if samples.shape[2] > 1 else samples[..., 0],
        byteorder="<",
        photometric="minisblack" if picture.gray else "rgb",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=None if alpha is None else ["unassalpha"],
        compression="adobe_deflate",
        predictor=True,
        iccprofile=metadata.icc,
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
        extratags=[(XMP, 1, len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else [],
        metadata=None,
        software=False,
    )
    return _with_tiff_tags(buffer, metadata)


def _with_tiff_tags(buffer: io.BytesIO, metadata: Metadata) -> bytes:
    """A TIFF with a new first directory at its end that also holds EXIF and IPTC.

    tifffile writes no EXIF directories; its own directory stays behind, unused.
    """
    described: Directory = {}
    if metadata.exif:
        described = {
            k: tag for k, tag in exif_tags(metadata.exif).items() if k in _DESCRIPTIVE_TAGS
        }
    if metadata.iptc:
        described[IPTC] = Tag(UNDEFINED, metadata.iptc)
    is_big = buffer.getbuffer()[2] == 43
    if not described or is_big:
        return buffer.getvalue()
    buffer.seek(4)
    tags, _ = read_directory(buffer, "<", unpack(buffer, "<I"))
    end = buffer.seek(0, os.SEEK_END)
    at = end + end % 2
    buffer.write(bytes(end % 2) + pack_directory(described | tags, at))
    buffer.seek(4)
    buffer.write(struct.pack("<I", at))
    return buffer.getvalue()
