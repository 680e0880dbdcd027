"""What a file is, by its content; for kinds that are not read, what to do about them."""

import re
from typing import NamedTuple

from derain_cli.errors import UnreadableImageError
from derain_cli.images.formats import FORMAT_OF_SUFFIX, READABLE_TEXT
from derain_cli.images.heif import HEIF_BRANDS
from derain_cli.images.sources import SourceFile

_RAW_SUFFIX = re.compile(
    r"\.(3fr|arw|cr2|cr3|crw|dcr|dng|erf|iiq|kdc|mef|mos|mrw|nef|nrw|orf|pef|raf|raw|rw2|rwl|sr2|srf"
    r"|srw|x3f)"
)


class _Foreign(NamedTuple):
    """A kind of file that is not read: how it begins, what it is, what to do, how names end."""

    offset: int
    magic: bytes
    what: str
    way_out: str
    endings: tuple[str, ...] = ()


RAW_FILE = "a camera RAW file"
RAW_WAY_OUT = "develop it and export a 16-bit TIFF"
DEEP_TIFF, PNG_OR_TIFF = "export it as 16-bit TIFF", "export it as PNG or 16-bit TIFF"

_APPLE_PNG = b"CgBI"

_FOREIGN = (
    _Foreign(12, _APPLE_PNG, "a PNG of an iPhone app (CgBI)", "open it on a Mac, export it as PNG"),
    _Foreign(0, b"version https://git-lfs", "a Git-LFS pointer", "fetch the image: git lfs pull"),
    _Foreign(0, b"%PDF", "a PDF document", "export its image as PNG"),
    _Foreign(0, b"8BPS", "a Photoshop document", PNG_OR_TIFF, (".psd", ".psb")),
    _Foreign(0, b"\x76\x2f\x31\x01", "a float OpenEXR image", DEEP_TIFF, (".exr",)),
    _Foreign(0, b"#?RADIANCE", "a float Radiance HDR image", DEEP_TIFF, (".hdr",)),
    _Foreign(0, b"PF\n", "a float PFM image", DEEP_TIFF, (".pfm",)),
    _Foreign(0, b"Pf\n", "a float PFM image", DEEP_TIFF),
    _Foreign(0, b"\xff\x0a", "a JPEG XL image", PNG_OR_TIFF, (".jxl",)),
    _Foreign(4, b"JXL ", "a JPEG XL image", PNG_OR_TIFF),
    _Foreign(4, b"jP  \r\n", "a JPEG 2000 image", PNG_OR_TIFF, (".jp2", ".j2k", ".jpx")),
    _Foreign(0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", PNG_OR_TIFF, (".j2c", ".jpc")),
    _Foreign(0, b"II\xbc", "a JPEG XR image", PNG_OR_TIFF, (".jxr", ".wdp", ".hdp")),
    _Foreign(0, b"BPG\xfb", "a BPG image", PNG_OR_TIFF, (".bpg",)),
    _Foreign(0, b"qoif", "a QOI image", "export it as PNG", (".qoi",)),
    _Foreign(0, b"gimp xcf", "a GIMP document", PNG_OR_TIFF, (".xcf",)),
    _Foreign(0, b"DDS ", "a DDS texture", "export it as PNG", (".dds",)),
    _Foreign(0, b"SIMPLE  =", "a FITS image", DEEP_TIFF, (".fits",)),
    _Foreign(128, b"DICM", "a DICOM image", DEEP_TIFF, (".dcm",)),
    _Foreign(0, b"\0\0\1\0", "an icon", "export it as PNG", (".ico",)),
    _Foreign(0, b"icns", "an icon", "export it as PNG", (".icns",)),
    _Foreign(0, b"%!PS", "a PostScript document", "export its image as PNG", (".eps",)),
    *(
        _Foreign(0, b"P%d" % kind, "a Netpbm image", PNG_OR_TIFF, (".ppm", ".pgm", ".pbm", ".pnm"))
        for kind in (1, 2, 3, 4, 5, 6, 7)
    ),
    _Foreign(0, b"IIRO", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"IIRS", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"MMOR", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"IIU\0", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"FUJIFILMCCD-RAW", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"FOVb", RAW_FILE, RAW_WAY_OUT),
    _Foreign(0, b"\0MRM", RAW_FILE, RAW_WAY_OUT),
    _Foreign(6, b"HEAPCCDR", RAW_FILE, RAW_WAY_OUT),
    _Foreign(4, b"ftypcrx ", RAW_FILE, RAW_WAY_OUT),
    _Foreign(8, b"CR\x02", RAW_FILE, RAW_WAY_OUT),
    _Foreign(4, b"ftyp", "a video", "extract its frames as PNG first"),
    _Foreign(8, b"AVI ", "a video", "extract its frames as PNG first"),
    _Foreign(0, b"\x1a\x45\xdf\xa3", "a video", "extract its frames as PNG first"),
    _Foreign(0, b"PK\x03\x04", "a ZIP archive", "unpack it first"),
    _Foreign(0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
)


def recognise_format(file: SourceFile) -> str:
    """The format that a file's first bytes show.

    Raises:
        UnreadableImageError: It is something else; the message says what.
    """
    head = file.head(4096)
    format = format_of_bytes(head)
    if format == "tiff" and (_RAW_SUFFIX.fullmatch(file.suffix) or head[8:11] == b"CR\x02"):
        format = None
    if format:
        return format
    if not head:
        raise UnreadableImageError(f"{file.label} is empty (0 bytes); copy or download it again")
    what, way_out = _foreign(head, file.suffix)
    raise UnreadableImageError(
        f"{file.label} is {what}, not an image this program reads; {way_out}"
    )


def unread_ending(suffix: str) -> str:
    """Why an image whose name ends like this is not read; "" for readable ones and other files.

    Example:
        >>> unread_ending(".CR2")
        'a camera RAW file; develop it and export a 16-bit TIFF'
    """
    if _RAW_SUFFIX.fullmatch(suffix.lower()):
        return f"{RAW_FILE}; {RAW_WAY_OUT}"
    kind = next((kind for kind in _FOREIGN if suffix.lower() in kind.endings), None)
    return f"{kind.what}; {kind.way_out}" if kind else ""


def format_of_bytes(head: bytes) -> str | None:
    """The format whose mark the first bytes of a file carry; 4096 are enough.

    Example:
        >>> format_of_bytes(b"GIF89a...")
        'gif'
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] != _APPLE_PNG:
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"BM"):
        return "bmp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return _isobmff_format(head)


def _isobmff_format(head: bytes) -> str | None:
    """The format, avif or heic, by the brands in the `ftyp` box; None for videos and the rest."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & HEIF_BRANDS:
        return "heic"
    return None


def _foreign(head: bytes, suffix: str) -> tuple[str, str]:
    """What a file that is no image is, and what to do about it."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page", "download the image itself (a login or error page was saved)"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing", "export it as PNG"
    if _RAW_SUFFIX.fullmatch(suffix):
        return RAW_FILE, RAW_WAY_OUT
    for kind in _FOREIGN:
        if head.startswith(kind.magic, kind.offset):
            return kind.what, kind.way_out
    if _is_text(head):
        return "a text file", f"readable are {READABLE_TEXT}"
    return f"an unknown file (it begins {head[:8].hex(' ')})", f"readable are {READABLE_TEXT}"


def _is_text(head: bytes) -> bool:
    """Whether bytes are text in UTF-8, the last letter perhaps cut.

    Example:
        >>> _is_text("Grö".encode()[:3]), _is_text(bytes([200, 7]))
        (True, False)
    """
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or not error.start:
            return False
    return all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)


def name_notices(file: SourceFile, format: str) -> list[str]:
    """A notice for a name that ends like another format; none for the right or an unknown one."""
    expected = FORMAT_OF_SUFFIX.get(file.suffix)
    if expected in (None, format):
        return []
    return [f"is a {format.upper()} image although its name ends in {file.suffix}"]
