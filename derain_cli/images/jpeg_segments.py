"""The segments of a JPEG: what kind it is, what it says of itself, and where its image ends."""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither stuffing nor a restart
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_SCAN, _END, _APP1, _APP2, _APP11, _APP13, _COMMENT = 0xDA, 0xD9, 0xE1, 0xE2, 0xEB, 0xED, 0xFE
_EXIF, XMP_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_ICC, _PHOTOSHOP = b"ICC_PROFILE\0", b"Photoshop 3.0\0"
_MARKS = {_EXIF: _APP1, XMP_MARK: _APP1, _EXTENSION: _APP1, _ICC: _APP2, _PHOTOSHOP: _APP13}
# Read, made anew by whoever writes a JPEG, or lists of what lies behind the image.
_NOT_NAMED = (*_MARKS, b"JFIF", b"JFXX", b"Adobe", b"Ducky", b"MPF", b"FPXR", b"urn:iso:std")
_KINDS = {0xC3: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS image"}
_KINDS |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")
MOST_IN_SEGMENT = 65533
_MANY_ZEROS = 64
_MANY_CORRECTIONS = 256  # encoders hold back at most 1,000 bits that correct earlier passes


class JpegParts(NamedTuple):
    """What the segments in front of the first scan say.

    Attributes:
        frame: Marker of the frame header, 0 without one.
        precision: Bits per channel.
        size: Width and height.
        exif: EXIF block without the mark in front.
        xmp: First XMP packet.
        extension: Pieces of extended XMP packets as `(guid, length, offset, bytes)`.
        icc: Colour profile.
        photoshop: Photoshop's resources, all segments joined.
        comments: Contents of all comment segments.
        credentials: Whether there are content credentials (C2PA).
        others: Names of other programs' data, such as a heat camera's.
    """

    frame: int = 0
    precision: int = 8
    size: tuple[int, int] = (0, 0)
    exif: bytes = b""
    xmp: bytes = b""
    extension: tuple[tuple[str, int, int, bytes], ...] = ()
    icc: bytes = b""
    photoshop: bytes = b""
    comments: tuple[bytes, ...] = ()
    credentials: bool = False
    others: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What makes it a JPEG that common decoders do not read; "" for the usual kinds.

        Example:
            >>> JpegParts(frame=0xC3).kind
            'lossless JPEG'
        """
        if self.frame in _KINDS:
            return _KINDS[self.frame]
        return f"{self.precision}-bit JPEG" if self.frame and self.precision != 8 else ""


def jpeg_parts(stream: BinaryIO) -> JpegParts:
    """What the segments in front of the first scan say; a damaged one ends the search."""
    frame, size, precision = 0, (0, 0), 8
    contents: dict[bytes, list[bytes]] = {mark: [] for mark in _MARKS}
    comments, credentials = [], False
    others: dict[str, None] = {}
    for marker, data in _segments(stream):
        if marker in _FRAMES and len(data) >= 5:
            precision, height, width = struct.unpack(">BHH", data[:5])
            frame, size = marker, (width, height)
        elif marker == _COMMENT:
            comments.append(data)
        elif marker == _APP11:
            credentials |= b"c2pa" in data[:128]
        elif 0xE0 <= marker <= 0xEF and not data.startswith(_NOT_NAMED):
            others[_name_of(marker, data)] = None
        mark = next((mark for mark in _MARKS if data.startswith(mark)), None)
        if mark and marker == _MARKS[mark]:
            contents[mark].append(data.removeprefix(mark))
    return JpegParts(
        frame=frame,
        precision=precision,
        size=size,
        exif=b"".join(contents[_EXIF]),
        xmp=b"".join(contents[XMP_MARK][:1]),
        extension=tuple(map(_piece, (data for data in contents[_EXTENSION] if len(data) >= 40))),
        icc=b"".join(data[2:] for data in sorted(contents[_ICC], key=lambda data: data[:1])),
        photoshop=b"".join(contents[_PHOTOSHOP]),
        comments=tuple(comments),
        credentials=credentials,
        others=tuple(others),
    )


def _name_of(marker: int, data: bytes) -> str:
    """What a segment of an application calls itself, and its number.

    Example:
        >>> _name_of(0xE1, b"FLIR" + bytes(20))
        'FLIR (APP1)'
    """
    name = re.match(rb"[\w .:/-]{2,24}", data)
    return f"{name[0].decode('ascii') if name else 'unknown'} (APP{marker - 0xE0})"


def _piece(data: bytes) -> tuple[str, int, int, bytes]:
    length, offset = struct.unpack(">II", data[32:40])
    return data[:32].decode("ascii", "replace").upper(), length, offset, data[40:]


def _segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment up to the first scan."""
    stream.seek(2)
    while (mark := stream.read(1)) == b"\xff":
        while (mark := stream.read(1)) == b"\xff":
            continue
        if not mark or mark[0] in (_SCAN, _END):
            return
        if mark[0] in _NO_LENGTH:
            continue
        start = stream.read(2)
        length = int.from_bytes(start, "big") - 2
        if len(start) < 2 or length < 0:
            return
        yield mark[0], stream.read(length)


def extended_xmp(parts: JpegParts, guid: str) -> bytes | None:
    """The extended packet of a GUID; None unless all its pieces are there."""
    pieces = {offset: (length, data) for g, length, offset, data in parts.extension if g == guid}
    packet = b"".join(data for _, (_, data) in sorted(pieces.items()))
    if not pieces or {length for length, _ in pieces.values()} != {len(packet)}:
        return None
    ends = 0
    for offset, (_, data) in sorted(pieces.items()):
        if offset != ends:
            return None
        ends += len(data)
    return packet


def bytes_behind_image(data: bytes) -> bytes:
    """What follows the end mark of the first image in a file, padding left out."""
    at = 2
    while (mark := _MARKER.search(data, at)) is not None:
        marker, at = mark[0][1], mark.end()
        if marker == _END:
            return data[at:].strip(b"\0\xff\r\n ")
        if marker not in _NO_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return b""


def zeros_in_scans(data: bytes) -> int:
    """Length of a run of zero bytes in compressed data that no encoder writes; 0 without any.

    It is what a disk or a download leaves where a block was lost. Decoders may read it as image
    content without a word.
    """
    at = data.find(bytes(_MANY_ZEROS))
    while at >= 0:
        end = at + _MANY_ZEROS
        while end < len(data) and not data[end]:
            end += 1
        scan = _scan_at(data, at)
        if scan and scan.never_writes(end - at):
            return end - at
        at = data.find(bytes(_MANY_ZEROS), end)
    return 0


class _Scan(NamedTuple):
    """The scan that a place lies in: its table of codes, coefficients and approximation."""

    codes: bytes
    first_coefficient: int
    refines: bool
    progressive: bool

    def never_writes(self, zeros: int) -> bool:
        """Whether so many zero bytes in a row cannot come from an encoder.

        They can where zero bits are the code for "nothing more in this block", as flat images
        have it, and in passes that give the mean of each block one more bit, without a code.
        """
        if self.progressive and not self.first_coefficient:
            return False
        counts = self.codes[:16]
        if not sum(counts) or len(self.codes) <= 16:
            return False
        run, new = divmod(self.codes[16], 16)
        if self.refines:
            return zeros >= _MANY_CORRECTIONS and (new > 0 or run in (0, 15))
        return new > 0


def _scan_at(data: bytes, place: int) -> _Scan | None:
    """The scan whose compressed data hold a place; None for a place in a segment."""
    tables: dict[int, bytes] = {}
    at, progressive, scan = 2, False, None
    while (mark := _MARKER.search(data, at, place)) is not None:
        marker, at = mark[0][1], mark.end()
        if marker == _END:
            return None
        if marker in _NO_LENGTH:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        content, at = data[at + 2 : at + length], at + length
        if at > place:
            return None
        if marker == 0xC4:
            tables |= _code_tables(content)
        progressive |= marker in (0xC2, 0xCA)
        if marker == _SCAN and len(content) >= 6:
            first, _, approximation = content[-3:]
            codes = tables.get(16 | content[2] & 15, b"")
            scan = _Scan(codes, first, bool(approximation >> 4), progressive)
    return scan


def _code_tables(content: bytes) -> dict[int, bytes]:
    """Huffman tables of a segment: 16 counts and the symbols, by class and number."""
    tables, at = {}, 0
    while at + 17 <= len(content):
        end = at + 17 + sum(content[at + 1 : at + 17])
        tables[content[at]] = content[at + 1 : end]
        at = end
    return tables


def segment(marker: int, data: bytes) -> bytes:
    """A segment of at most `MOST_IN_SEGMENT` bytes."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def xmp_segment(xmp: bytes) -> bytes:
    """A segment that holds an XMP packet."""
    return segment(_APP1, XMP_MARK + xmp)


def comment_segment(comment: bytes) -> bytes:
    """A segment that holds a comment."""
    return segment(_COMMENT, comment)


def photoshop_segment(resources: bytes) -> bytes:
    """A segment that holds Photoshop's resources, IPTC records among them."""
    return segment(_APP13, _PHOTOSHOP + resources)


def extension_segments(extension: bytes, guid: str) -> Iterator[bytes]:
    """Segments that hold an extended XMP packet."""
    for offset in range(0, len(extension), 65400):
        place = guid.encode("ascii") + struct.pack(">II", len(extension), offset)
        yield segment(_APP1, _EXTENSION + place + extension[offset : offset + 65400])
