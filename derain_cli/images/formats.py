"""The formats: which endings name them, and what each can hold."""

from collections.abc import Mapping

from derain_cli.images.picture import Picture

FORMAT_OF_SUFFIX: Mapping[str, str] = {
    ".avif": "avif",
    ".bmp": "bmp",
    ".dib": "bmp",
    ".gif": "gif",
    ".heic": "heic",
    ".heif": "heic",
    ".hif": "heic",
    ".jfif": "jpeg",
    ".jpe": "jpeg",
    ".jpeg": "jpeg",
    ".jpg": "jpeg",
    ".mpo": "jpeg",
    ".apng": "png",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}

READABLE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
WRITABLE_FORMATS = ("avif", "bmp", "jpeg", "png", "tiff", "webp")
READABLE_TEXT = "AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF and WebP"

KEPT_METADATA: Mapping[str, frozenset[str]] = {
    "avif": frozenset({"exif", "icc", "xmp", "extended_xmp", "dpi"}),
    "bmp": frozenset({"dpi"}),
    "jpeg": frozenset({"exif", "icc", "xmp", "extended_xmp", "dpi", "iptc", "comment"}),
    "png": frozenset({"exif", "icc", "xmp", "extended_xmp", "dpi", "png_chunks"}),
    "tiff": frozenset({"exif", "icc", "xmp", "extended_xmp", "dpi", "iptc", "geo"}),
    "webp": frozenset({"exif", "icc", "xmp", "extended_xmp", "dpi"}),
}
"""Fields of `Metadata` that each format can hold (AVIF and WebP: dpi within EXIF)."""
DEEP_FORMATS = frozenset({"png", "tiff"})  # hold 16 bits per channel
ALPHA_FORMATS = frozenset({"avif", "png", "tiff", "webp"})


def written_icc(picture: Picture, format: str) -> bytes | None:
    """The colour profile, unless it is a gray one and the format stores gray as RGB."""
    icc = picture.metadata.icc
    return None if icc and icc[16:20] == b"GRAY" and format == "webp" else icc
