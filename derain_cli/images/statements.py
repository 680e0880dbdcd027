"""What a file says of its image, made true for the upright, derained one."""

import dataclasses
import re
import struct

from derain_cli.images.exif import exif_tags, upright_exif, valid_orientation, without_mark
from derain_cli.images.iptc import iptc_of_resources, lost_resources
from derain_cli.images.jpeg_segments import JpegParts, extended_xmp
from derain_cli.images.picture import Metadata
from derain_cli.images.sources import Notices
from derain_cli.images.tiff_tags import ORIENTATION, Directory, dpi_of, whole_number
from derain_cli.images.xmp import (
    is_packet,
    upright_xmp,
    without_extension,
    without_stale_claims,
    xmp_orientation,
)

_PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
CREDENTIALS = "its content credentials (C2PA) are dropped: they vouch for other pixels"
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}


def upright_metadata(
    stated: Metadata,
    size: tuple[int, int],
    notices: Notices,
    *,
    orientation: int = 0,
    turned: bool = False,
) -> tuple[Metadata, int]:
    """Metadata of the upright image, and the EXIF orientation of the stored pixels.

    Args:
        stated: As the file has them.
        size: Width and height as stored.
        notices: Get a remark for each loss.
        orientation: What the file says outside EXIF and XMP; 0 for nothing.
        turned: Whether the decoder has turned the pixels already.
    """
    exif, tags = _readable_exif(stated.exif, notices)
    orientation = orientation or whole_number(tags, ORIENTATION, xmp_orientation(stated.xmp))
    orientation = 1 if turned else valid_orientation(orientation)
    upright_size = size[::-1] if orientation >= 5 else size
    return dataclasses.replace(
        stated,
        exif=upright_exif(exif, upright_size) if exif else None,
        xmp=true_xmp(stated.xmp, notices),
        extended_xmp=true_xmp(stated.extended_xmp, notices),
        dpi=stated.dpi or dpi_of(tags),
    ), orientation


def _readable_exif(exif: bytes | None, notices: Notices) -> tuple[bytes | None, Directory]:
    exif = without_mark(exif) if exif else None
    if not exif:
        return None, {}
    try:
        return exif, exif_tags(exif)
    except (ValueError, KeyError, struct.error):
        notices.damage("its EXIF block is damaged and was dropped")
        return None, {}


def true_xmp(xmp: bytes | None, notices: Notices) -> bytes | None:
    """A packet that says upright, and claims nothing that is not written."""
    if not xmp:
        return None
    xmp, lost = without_stale_claims(upright_xmp(xmp))
    notices += [notice for notice in lost if notice not in notices]
    return xmp


def jpeg_statements(parts: JpegParts, notices: Notices) -> Metadata:
    """What the segments of a JPEG say, as they say it; a damaged profile is left out."""
    if parts.credentials:
        notices.append(CREDENTIALS)
    icc = parts.icc if parts.icc[36:40] == b"acsp" else None
    if parts.icc and not icc:
        notices.damage("its colour profile is damaged and was dropped")
    notices += lost_resources(parts.photoshop)
    if parts.others:
        notices.append(f"its {', '.join(parts.others)} data are dropped")
    xmp, guid = without_extension(parts.xmp)
    extension = extended_xmp(parts, guid.upper()) if guid else None
    if guid and not (extension and is_packet(xmp) and is_packet(extension)):
        notices.damage("its extended XMP is incomplete and was dropped")
        extension = None
    return Metadata(
        exif=parts.exif or None,
        icc=icc,
        xmp=xmp or None,
        extended_xmp=extension,
        iptc=iptc_of_resources(parts.photoshop),
        comment=b"\n".join(parts.comments) or None,
        lossless=False,
    )


def cicp_chunk(header: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The PNG chunk for the colours that the `nclx` box of an AVIF or HEIC states.

    There is none for sRGB, which is what pixels mean without a statement.
    """
    box = re.search(rb"colrnclx(....)", header, re.DOTALL)
    if not box:
        return ()
    primaries, transfer = struct.unpack(">HH", box[1])
    if primaries in (1, 2) and transfer in (1, 2, 6, 13, 14, 15):
        return ()
    if not (0 < primaries < 256 and 0 < transfer < 256):
        return ()
    return ((b"cICP", bytes([primaries, transfer, 0, 1])),)  # of RGB in the full range


def cicp_of(metadata: Metadata) -> tuple[int, int] | None:
    """Colour primaries and transfer function by their numbers in ITU-T H.273."""
    data = next((data for kind, data in metadata.png_chunks if kind == b"cICP"), b"")
    return (data[0], data[1]) if len(data) == 4 else None


def colour_name(primaries: int, transfer: int) -> str:
    """What is special about colours.

    Example:
        >>> colour_name(9, 16)
        'BT.2020, PQ'
    """
    names = [_PRIMARIES.get(primaries, ""), HDR_TRANSFERS.get(transfer, "")]
    return ", ".join(name for name in names if name) or f"CICP {primaries}/{transfer}"
