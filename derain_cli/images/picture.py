"""What an image is: upright pixels, and the metadata that travels with them."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class JpegCoding:
    """How a JPEG was compressed, so that it can be written back alike.

    Attributes:
        tables: Quantisation tables in the order of the components, 64 numbers each, rows first.
        subsampling: Chroma subsampling in Pillow's numbering: 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0.
        progressive: Whether the scan data come in passes.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool = False


@dataclass(frozen=True)
class Metadata:
    """What travels with the pixels.

    Attributes:
        exif: TIFF-structured block (no `Exif` mark in front) without orientation and thumbnail.
        icc: Colour profile of the pixels.
        xmp: XMP packet; an orientation in it says upright.
        extended_xmp: Second XMP packet, which JPEGs store apart from the first.
        dpi: Horizontal and vertical dots per inch.
        iptc: IPTC-IIM records (captions and keywords of press photos).
        comment: Comment of a JPEG or GIF.
        geo: Georeference of a TIFF as `(tag, type, little-endian value)`.
        jpeg: Coding of a JPEG; None for other formats.
        png_chunks: Colour and text chunks of a PNG as `(type, data)`. The `cICP` chunk also stands
            for the colours that AVIF and HEIC files state in an `nclx` box.
        lossless: Whether the file kept its pixels exactly; decides how WebP is written.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    extended_xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    geo: tuple[tuple[int, int, bytes], ...] = ()
    jpeg: JpegCoding | None = None
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    lossless: bool = True


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright pixels and everything else that a file says about them.

    Attributes:
        rgb: `(height, width, 3)` uint8 or uint16, full range. Three equal channels if `gray`.
        alpha: `(height, width)` of the same type, straight (not multiplied in), or None.
        gray: Whether it is written back as gray where the format can.
        format: Format it was read from: avif, bmp, gif, heic, jpeg, png, tiff or webp.
        metadata: What travels with the pixels.
        notices: Remarks for the user about reading it.
    """

    rgb: np.ndarray = field(repr=False)
    alpha: np.ndarray | None = field(default=None, repr=False)
    gray: bool = False
    format: str = "png"
    metadata: Metadata = field(default=Metadata(), repr=False)
    notices: tuple[str, ...] = ()

    def with_rgb(self, rgb: np.ndarray) -> "Picture":
        """The same image with other pixels of the same shape and type.

        Raises:
            ValueError: Another shape or type.
        """
        if rgb.shape != self.rgb.shape or rgb.dtype != self.rgb.dtype:
            raise ValueError(
                f"expected {self.rgb.dtype} pixels of shape {self.rgb.shape}, "
                f"got {rgb.dtype} of shape {rgb.shape}"
            )
        return dataclasses.replace(self, rgb=rgb)

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.rgb.shape[1])

    @property
    def bit_depth(self) -> int:
        """Bits per channel: 8 or 16."""
        return 8 * self.rgb.dtype.itemsize
