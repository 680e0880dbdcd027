"""TIFF: which layouts are read, pixels of 16 bits, and writing it with its metadata.

Pillow reads 8 bits; tifffile reads 16 and writes all; OpenCV reads 16 in LZW and PackBits.
"""

import contextlib
import dataclasses
import io
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import TiffImagePlugin, _imaging

from derain_cli.errors import UnreadableImageError
from derain_cli.images.codecs import codecs, unsupported
from derain_cli.images.exif import exif_block, exif_tags, valid_orientation
from derain_cli.images.iptc import iptc_of_resources, iptc_of_tag, lost_resources
from derain_cli.images.jpeg_segments import zeros_in_scans
from derain_cli.images.libtiff import libtiff_messages
from derain_cli.images.opencv import decode_with_opencv
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.pillow import GRAY_MODES, decode_with_pillow, metadata_of_converted
from derain_cli.images.pixels import Canvas, as_stored, bands, samples_of
from derain_cli.images.sniff import RAW_FILE, RAW_WAY_OUT
from derain_cli.images.sources import Notices, OpenedImage, SourceFile
from derain_cli.images.statements import upright_metadata
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
from derain_cli.images.xmp import whole_xmp

_DESCRIPTIVE_TAGS = frozenset(
    # document, description, make, model, page, software, date, artist, host, ratings, copyright,
    # how colours are meant (transfer function, white point, primaries), Windows' own
    {269, 270, 271, 272, 285, 301, 305, 306, 315, 316, 318, 319, 18246, 18249, 33432}
    | {*range(40091, 40096), EXIF_TAG, GPS_TAG}
)
_PHOTOSHOP, _PHOTOSHOP_LAYERS = 34377, 37724
# Pixel scale, tie points, transformation, the three directories of keys, GDAL's own, coefficients
_GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844)
_JPEG_TABLES = 347
_MANY_ZEROS = 16  # bytes; codes of a fax have eleven zero bits at most, fills some more
_PRIVATE = 32768  # the first tag that is not of the standard
# Written, named elsewhere, or of no meaning beyond the file that holds them: the depth of tiles,
# parts of JPEG streams, padding and its offsets.
_NOT_NAMED = frozenset(
    {IPTC, ICC, _PHOTOSHOP, _PHOTOSHOP_LAYERS, 32995, 32996, 32997, 32998, 59932, 59933, 65110}
    | {*_GEO_TAGS, *_DESCRIPTIVE_TAGS}
)
_COMPRESSIONS = {
    1: "no",
    2: "CCITT RLE",
    3: "CCITT Group 3",
    4: "CCITT Group 4",
    5: "LZW",
    6: "old-style JPEG",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PLAIN_COMPRESSIONS = frozenset({1, 5, 8, 32773, 32946})
_SAVE_PLAINLY = "save it uncompressed or with ZIP (deflate) compression"
_MOST_PAGES = 1000


@dataclass(frozen=True)
class _TiffLayout:
    """What a page's directory says of its pixels."""

    size: tuple[int, int]
    bits: int
    colours: int
    samples: int
    alpha: int | None  # which sample
    associated: bool  # colours are multiplied by alpha
    photometric: int
    compression: int
    separate: bool  # one plane per sample
    orientation: int  # of this directory alone: XMP may state another

    @property
    def compression_name(self) -> str:
        """What the compression is called."""
        name = _COMPRESSIONS.get(self.compression)
        return f"{name} compression" if name else f"unknown compression {self.compression}"


def open_tiff(file: SourceFile, notices: Notices) -> OpenedImage:
    """The header of a TIFF; adds to the notices, also while pixels are decoded.

    Raises:
        UnreadableImageError: A layout this program does not read, or a camera RAW file.
    """
    order, big = tiff_order(file.head(4))
    file.stream.seek(8 if big else 4)
    at = unpack(file.stream, order + ("Q" if big else "I"))
    pages = _pages(file.stream, order, at, big=big)
    first, _ = read_directory(file.stream, order, at, big=big)
    index = _full_page(file, order, pages, big=big) if len(pages) > 1 else 0
    tags = first if index == 0 else read_directory(file.stream, order, pages[index], big=big)[0]
    layout = _tiff_layout(tags, file.label)
    _note_pages(len(pages), index, notices)
    if layout.samples - layout.colours > (layout.alpha is not None):
        notices.append("has extra channels beside colour and alpha, which are dropped")
    if _PHOTOSHOP_LAYERS in tags:
        notices.append("its Photoshop layers are dropped")
    if private := sorted(code for code in tags.keys() - _NOT_NAMED if code >= _PRIVATE):
        shown = ", ".join(map(str, private[:5])) + (" and more" if len(private) > 5 else "")
        notices.append(f"its private tags {shown} are dropped")
    metadata, orientation = _tiff_metadata(tags, layout.size, notices)

    def decode() -> Picture:
        _check_chunks(file, tags, layout)
        if layout.bits == 16:
            canvas = _decode_tiff_of_16_bits(file, layout, index, orientation)
            gray, kept = layout.colours == 1, metadata
        else:
            _note_damage(file, tags, layout, notices)
            canvas, mode = _decode_tiff_of_8_bits(file, layout, index, orientation, notices)
            gray, kept = mode in GRAY_MODES, metadata_of_converted(mode, metadata)
        return Picture(canvas.rgb, canvas.alpha, gray, "tiff", kept, tuple(notices))

    channels = 3 if layout.alpha is None else 4
    return OpenedImage(layout.size, orientation, decode, channels * (2 if layout.bits > 8 else 1))


def _note_pages(pages: int, index: int, notices: Notices) -> None:
    if pages > 1:
        used = "the first" if index == 0 else f"page {index + 1}, the first of full size,"
        notices.append(f"holds {pages} pages; {used} is used")


def _full_page(file: SourceFile, order: str, pages: Sequence[int], *, big: bool) -> int:
    """Which page is the image: the first that is not marked as a reduced copy or a mask."""
    for index, at in enumerate(pages):
        try:
            tags, _ = read_directory(file.stream, order, at, big=big)
        except (ValueError, struct.error):
            continue
        is_reduced = whole_number(tags, 254, 0) & 5 or whole_number(tags, 255, 1) == 2
        if not is_reduced or (index == 0 and 330 in tags):
            return index  # a reduced copy with directories of its own is the preview of a RAW file
    return 0


def _pages(stream: BinaryIO, order: str, at: int, *, big: bool) -> tuple[int, ...]:
    """Places of the directories in the chain; a chain that bites its tail ends there."""
    seen: dict[int, None] = {}
    entry, code, size = (20, "Q", 8) if big else (12, "H", 2)
    with contextlib.suppress(struct.error, OSError, OverflowError, ValueError):
        while at and at not in seen and len(seen) < _MOST_PAGES:
            stream.seek(at)
            count = unpack(stream, order + code)
            stream.seek(at + size + count * entry)
            following = unpack(stream, order + ("Q" if big else "I"))
            seen[at] = None
            at = following
    return tuple(seen) or (at,)


def _check_chunks(file: SourceFile, tags: Directory, layout: _TiffLayout) -> None:
    """Refuse a file that lacks strips or tiles: decoders leave them black.

    Raises:
        ValueError: Some are missing or lie outside the file.
    """
    tiled = 324 in tags
    offsets = whole_numbers(tags, 324 if tiled else 273)
    lengths = whole_numbers(tags, 325 if tiled else 279)
    width, height = layout.size
    across, down = whole_number(tags, 322, 0), whole_number(tags, 323, 0)
    if not tiled:
        across, down = width, min(whole_number(tags, 278, height), height)
    if not (across and down and width and height) or layout.compression == 6:
        return  # whoever reads on checks the size; old-style JPEGs lie elsewhere
    planes = layout.samples if layout.separate else 1
    needed = -(-width // across) * -(-height // down) * planes
    missing = needed - min(len(offsets), len(lengths or offsets))
    if missing > 0:
        raise ValueError(f"{missing} of its {'tiles' if tiled else 'strips'} are missing")
    if not all(offsets[:needed]) or (lengths and not all(lengths[:needed])):
        raise ValueError("parts of its pixels are missing")
    if layout.compression == 1:  # stated lengths may be wrong, and are not needed
        bits = across * layout.bits * (1 if layout.separate else layout.samples)
        rows = down if tiled else (height - 1) % down + 1
        last = offsets[needed - 1] + (bits + 7) // 8 * rows
        if last > file.stream.seek(0, os.SEEK_END):
            raise ValueError("parts of its pixels lie outside the file")


def _note_damage(file: SourceFile, tags: Directory, layout: _TiffLayout, notices: Notices) -> None:
    """Look at what libtiff does not: checksums behind deflated pixels, zeros where none can be."""
    if layout.compression not in (2, 3, 4, 7, 8, 32946):
        return
    tiled = 324 in tags
    offsets = whole_numbers(tags, 324 if tiled else 273)
    lengths = whole_numbers(tags, 325 if tiled else 279)
    size = layout.size[0] * layout.size[1] * layout.samples
    if len(offsets) > size:
        return
    tables = tags[_JPEG_TABLES].value if _JPEG_TABLES in tags else b""
    for offset, length in zip(offsets, lengths, strict=False):
        file.stream.seek(offset)
        data = file.stream.read(length)
        if layout.compression in (8, 32946):
            if _has_wrong_sum(data, 2 * size + (1 << 20)):
                notices.damage("may be damaged: the checksum of its pixels is wrong")
            continue
        if layout.compression == 7:
            zeros = zeros_in_scans(tables[:-2] + data[2:] if tables else data)
        else:
            zeros = _zeros_in_fax(data)
        if zeros:
            notices.damage(f"may be damaged: {zeros:,} bytes of its pixels are zero")


def _has_wrong_sum(data: bytes, most: int) -> bool:
    """Whether compressed data decompress to something that their checksum does not fit."""
    inflate = zlib.decompressobj()
    try:
        while data and not inflate.eof and most > 0:
            most -= len(inflate.decompress(data, 1 << 20))
            data = inflate.unconsumed_tail
    except zlib.error as error:
        return "incorrect data check" in str(error)
    return False


def _zeros_in_fax(data: bytes) -> int:
    """Length of a run of zero bytes that no fax coder writes within its data; 0 without any."""
    within = data.rstrip(b"\0")
    at = within.find(bytes(_MANY_ZEROS))
    return 0 if at < 0 else len(within) - at - len(within[at:].lstrip(b"\0"))


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
        orientation=valid_orientation(whole_number(tags, ORIENTATION, 1)),
    )


def _refuse_tiff(tags: Directory, depths: set[int], photometric: int, label: str) -> None:
    # DNGs carry their version, other makers a small preview in front and the sensor behind it.
    preview = whole_number(tags, 254, 0) & 1 and 330 in tags
    if 50706 in tags or photometric in (32803, 34892) or preview:
        raise UnreadableImageError(
            f"{label} is {RAW_FILE}, not an image this program reads; {RAW_WAY_OUT}"
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


class _Unturned(TiffImagePlugin.TiffImageFile):
    """Pixels as they are stored, without Pillow's limit on their number."""

    def load_prepare(self) -> None:
        """Make room for the pixels; our own limit has been checked."""
        if self._im is None:
            self.im = _imaging.new(self.mode, self._tile_size)
        super().load_prepare()

    def load_end(self) -> None:
        """Leave the pixels as they are stored; the size with them."""
        self._size = self._tile_size


def _decode_tiff_of_8_bits(
    file: SourceFile, layout: _TiffLayout, page: int, orientation: int, notices: Notices
) -> tuple[Canvas, str]:
    """Pixels of a TIFF of at most 8 bits, and the mode that Pillow read them in.

    Raises:
        UnreadableImageError: A compression or a colour model that nothing installed reads.
    """
    file.stream.seek(0)
    with libtiff_messages() as messages:
        try:
            image = _Unturned(file.stream)
            image.seek(page)
            mode = image.mode
            canvas = decode_with_pillow(image, orientation, notices)
        except (SyntaxError, LookupError, OSError, RuntimeError) as error:
            what = _unsupported_kind(error, messages, layout)
            if not what:
                raise
            samples = _samples_with_codecs(file, layout, page, what)
            mode = "L" if layout.colours == 1 else "RGB"
            return _canvas_of(samples, layout, orientation, np.uint8), mode
    if messages:
        notices.damage(f"may be damaged: its decoder says {messages[0]!r}")
    return canvas, mode


def _unsupported_kind(error: Exception, messages: Sequence[str], layout: _TiffLayout) -> str:
    """What a page is that Pillow cannot read whoever made it; "" for a damaged one."""
    article = "an 8-bit" if layout.bits == 8 else f"a {layout.bits}-bit"
    # Pillow's error for a compression that it does not know is its number.
    unknown = str(error) == str(layout.compression)
    if unknown or any("not configured" in message for message in messages):
        return f"{article} TIFF with {layout.compression_name}"
    if isinstance(error, SyntaxError) and "unknown" in str(error):
        kind = f"{layout.samples} samples of {layout.bits} bits, photometric {layout.photometric}"
        return f"a TIFF of an unusual kind ({kind})"
    return ""


def _samples_with_codecs(file: SourceFile, layout: _TiffLayout, page: int, what: str) -> np.ndarray:
    """Samples of a page that needs imagecodecs.

    Raises:
        UnreadableImageError: It is not installed, or does not read the page either.
    """
    if codecs() and layout.bits in (8, 16) and layout.photometric in (0, 1, 2):
        return _tiff_samples_with_tifffile(file, layout, page)
    raise unsupported(file.label, what, _SAVE_PLAINLY)


def _decode_tiff_of_16_bits(
    file: SourceFile, layout: _TiffLayout, page: int, orientation: int
) -> Canvas:
    """Pixels of a 16-bit gray or RGB TIFF."""
    if layout.compression in (5, 32773) and page == 0:
        samples = _tiff_samples_with_opencv(file, layout)
    else:
        samples = _tiff_samples_with_tifffile(file, layout, page)
    return _canvas_of(samples, layout, orientation, np.uint16)


def _canvas_of(
    samples: np.ndarray, layout: _TiffLayout, orientation: int, dtype: type[np.generic]
) -> Canvas:
    """The upright image of samples `(height, width, samples)`.

    Raises:
        ValueError: They do not have the shape that the header states.
    """
    width, height = layout.size
    if samples.shape != (height, width, layout.samples) or samples.dtype != dtype:
        raise ValueError(
            f"its {samples.dtype} pixels of shape {samples.shape} do not fit the size "
            f"{width} x {height} that its header states"
        )
    has_alpha = layout.alpha is not None
    canvas = Canvas(layout.size, 8 * samples.itemsize, alpha=has_alpha, orientation=orientation)
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
    top = np.iinfo(alpha.dtype).max
    full = np.minimum(np.rint(colour * (top / np.maximum(alpha, 1).astype(np.float32))), top)
    return np.asarray(np.where(alpha, full, colour), alpha.dtype)


def _tiff_samples_with_opencv(file: SourceFile, layout: _TiffLayout) -> np.ndarray:
    if layout.separate or layout.samples not in (1, 3, 4):
        what = f"a 16-bit TIFF with an unusual layout and {layout.compression_name}"
        return _samples_with_codecs(file, layout, 0, what)
    samples = decode_with_opencv(file.read_all())
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    return as_stored(samples[..., order], layout.orientation)  # OpenCV has turned them upright


def _tiff_samples_with_tifffile(file: SourceFile, layout: _TiffLayout, page: int) -> np.ndarray:
    """Samples `(height, width, samples)` of a page.

    Raises:
        UnreadableImageError: It is of a compression that nothing installed reads.
    """
    file.stream.seek(0)
    with _tifffile().TiffFile(file.stream) as tiff:
        try:
            planes = tiff.pages[page].asarray(squeeze=False)
        except (ValueError, LookupError, ImportError, RuntimeError) as error:
            if layout.compression in _PLAIN_COMPRESSIONS and not isinstance(error, ImportError):
                raise
            article = "an 8-bit" if layout.bits == 8 else f"a {layout.bits}-bit"
            what = f"{article} TIFF with {layout.compression_name}"
            raise unsupported(file.label, what, _SAVE_PLAINLY) from error
    planes = planes[:, 0]
    samples: np.ndarray = np.moveaxis(planes[..., 0], 0, -1) if layout.separate else planes[0]
    return samples


def _tifffile() -> ModuleType:
    """The module, with its remarks on odd files kept off the terminal."""
    import logging  # noqa: PLC0415 (only images that need tifffile need it)

    import tifffile  # noqa: PLC0415

    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    module: ModuleType = tifffile
    return module


def _tiff_metadata(
    tags: Directory, size: tuple[int, int], notices: Notices
) -> tuple[Metadata, int]:
    """Metadata of the upright image, and the orientation of the stored pixels."""
    described = {code: tags[code] for code in _DESCRIPTIVE_TAGS & tags.keys()}
    iptc, xmp, icc = tags.get(IPTC), tags.get(XMP), tags.get(ICC)
    resources = tags.get(_PHOTOSHOP)
    if icc and icc.value[36:40] != b"acsp":
        notices.damage("its colour profile is damaged and was dropped")
        icc = None
    notices += lost_resources(resources.value if resources else b"")
    stated = Metadata(
        exif=exif_block(described) if described else None,
        icc=icc.value if icc else None,
        xmp=xmp.value if xmp else None,
        dpi=dpi_of(tags),
        iptc=(iptc_of_tag(iptc.value) if iptc else None)
        or (iptc_of_resources(resources.value) if resources else None),
        geo=tuple((code, tags[code].kind, tags[code].value) for code in _GEO_TAGS if code in tags),
    )
    stated_orientation = whole_number(tags, ORIENTATION, 0)
    metadata, orientation = upright_metadata(stated, size, notices, orientation=stated_orientation)
    if metadata.geo and orientation != 1:
        notices.append("its georeference is dropped: it holds for the image before it is turned")
        metadata = dataclasses.replace(metadata, geo=())
    return metadata, orientation


def encode_tiff(picture: Picture, alpha: np.ndarray | None, quality: int | None) -> bytes:
    """A little-endian TIFF, compressed with deflate."""
    metadata, samples, buffer = picture.metadata, samples_of(picture, alpha), io.BytesIO()
    xmp = whole_xmp(metadata.xmp, metadata.extended_xmp)
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
        extratags=[(XMP, 1, len(xmp), xmp, True)] if xmp else [],
        metadata=None,
        software=False,
    )
    return _with_tiff_tags(buffer, metadata)


def _with_tiff_tags(buffer: io.BytesIO, metadata: Metadata) -> bytes:
    """A TIFF with a new first directory at its end that also holds EXIF, IPTC and a georeference.

    tifffile writes no EXIF directories; its own directory stays behind, unused.
    """
    described: Directory = {code: Tag(kind, value) for code, kind, value in metadata.geo}
    if metadata.exif:
        described |= {
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
