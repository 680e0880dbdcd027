"""Read and write images; what is not rain stays: depth, alpha, gray, EXIF, ICC, XMP, resolution.

Who reads and writes which file:

=============================  ===========================  =========================
file                           read with                    written with
=============================  ===========================  =========================
8-bit JPEG                     simplejpeg; damaged and      Pillow
                               CMYK ones: Pillow
8-bit PNG, WebP, AVIF, BMP,    Pillow                       Pillow (not GIF)
GIF
8-bit TIFF                     Pillow                       tifffile
16-bit PNG                     OpenCV (Pillow makes 8 bits  `png.py` (neither writes
                               of colours, silently)        gray with alpha)
16-bit TIFF                    tifffile; LZW and PackBits:  tifffile (OpenCV drops ICC
                               OpenCV (tifffile would need  profiles silently)
                               imagecodecs)
HEIC                           pillow-heif (extra `heic`)   not written
12-bit and lossless JPEG,      imagecodecs (extra           not written
TIFF with rare compressions    `codecs`)
=============================  ===========================  =========================

The content decides what a file is, never its name. OpenCV gets bytes, never a path, and never an
8-bit photo: it fills truncated JPEGs silently. Sizes are checked in the header, before anything
is decoded. Pixels go from the decoder to their upright place band by band, so an image costs its
decoder's memory plus one array. What a decoder knows of damage that it can live with becomes a
notice, or an error for a reader that is strict.

The rooms, imports pointing down: `reading` and `writing`; `tiff`; `pillow`; `codecs`; one per
further format (`avif`, `bmp`, `jpeg`, `png`, `webp`) and `sniff`; `statements`, which makes true
what a file says of itself; `exif`, `iptc`, `jpeg_segments`, `opencv`, `pixels`, `sources`, `xmp`;
`failures`, `formats`, `libtiff`, `tiff_tags`; `picture`. Other modules import from here alone.
"""

from derain_cli.images.failures import write_failure
from derain_cli.images.formats import (
    FORMAT_OF_SUFFIX,
    KEPT_METADATA,
    READABLE_SUFFIXES,
    WRITABLE_FORMATS,
)
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.reading import DEFAULT_MAX_PIXELS, decoded_bytes, probe_image, read_image
from derain_cli.images.sniff import format_of_bytes, unread_ending
from derain_cli.images.writing import encode_image, format_of_path, write_image, writing_notices

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMAT_OF_SUFFIX",
    "KEPT_METADATA",
    "READABLE_SUFFIXES",
    "WRITABLE_FORMATS",
    "Metadata",
    "Picture",
    "decoded_bytes",
    "encode_image",
    "format_of_bytes",
    "format_of_path",
    "probe_image",
    "read_image",
    "unread_ending",
    "write_failure",
    "write_image",
    "writing_notices",
]
