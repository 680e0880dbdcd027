"""Read and write pictures; what is not rain stays: depth, alpha, gray, EXIF, ICC, XMP, resolution.

Who reads and writes which file:

=============================  ===========================  =========================
file                           read with                    written with
=============================  ===========================  =========================
8-bit JPEG, PNG, WebP, AVIF,   Pillow                       Pillow (not GIF)
BMP, GIF
8-bit TIFF                     Pillow                       tifffile
16-bit PNG                     OpenCV (Pillow makes 8 bits  `png.py` (neither writes
                               of colours, silently)        gray with alpha)
16-bit TIFF                    tifffile; LZW and PackBits:  tifffile (OpenCV drops ICC
                               OpenCV (tifffile would need  profiles silently)
                               imagecodecs)
HEIC                           pillow-heif (extra `heic`)   not written
=============================  ===========================  =========================

The content decides what a file is, never its name. OpenCV gets bytes, never a path, and never an
8-bit photo: it fills truncated JPEGs silently. Sizes are checked in the header, before anything
is decoded. Pixels go from the decoder to their upright place band by band, so a picture costs its
decoder's memory plus one array.

The rooms, imports pointing down: `reading` and `writing`; `tiff`; `pillow`; one per further format
(`avif`, `jpeg`, `png`, `webp`) and `sniff`; `exif`, `files`, `opencv`, `pixels`, `sources`;
`failures`, `formats`, `tiff_tags`; `picture`. Other modules import from here alone.
"""

from derain_cli.images.failures import write_failure
from derain_cli.images.formats import (
    FORMAT_OF_SUFFIX,
    KEPT_METADATA,
    READABLE_SUFFIXES,
    WRITABLE_FORMATS,
)
from derain_cli.images.picture import Metadata, Picture
from derain_cli.images.reading import DEFAULT_MAX_PIXELS, probe_image, read_image
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
