"""XMP packets: orientation, claims that a derained image no longer fulfils, extended packets.

Packets are edited as text, so that all that is left stays as it was, byte for byte.
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import islice

_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:=["']|>)\s*)([1-8])""")
_RDF_START = re.compile(rb"<(?:[\w.-]+:)?RDF\b[^<>]*>")
_RDF_END = re.compile(rb"</(?:[\w.-]+:)?RDF\s*>")
_MOST_NAMES = 8  # different prefixes of one namespace, or elements without an end, that are edited
_NOTE = b"http://ns.adobe.com/xmp/note/"

GAIN_MAP, VIDEO = "its HDR gain map is dropped", "its video (motion photo) is dropped"
_ALL = rb"[\w.-]+"
# Namespace, names in it, and the notice for the data that go with the claim. Thumbnails show the
# rainy image; the others describe data that lie outside the primary image and are not written.
_STALE_CLAIMS = (
    (b"http://ns.adobe.com/hdr-gain-map/1.0/", _ALL, GAIN_MAP),
    (b"http://ns.apple.com/HDRGainMap/1.0/", _ALL, GAIN_MAP),
    (b"http://ns.google.com/photos/1.0/camera/", rb"(?:MotionPhoto|MicroVideo)\w*", VIDEO),
    (b"http://ns.google.com/photos/1.0/container/", rb"Directory", ""),
    (b"http://ns.google.com/photos/dd/1.0/device/", _ALL, "its depth data are dropped"),
    (b"http://ns.adobe.com/xap/1.0/", rb"Thumbnails", ""),
)


def xmp_orientation(xmp: bytes | None) -> int:
    """EXIF orientation that an XMP packet states; 1 if none."""
    stated = _ORIENTATION.search(xmp) if xmp else None
    return int(stated[2]) if stated else 1


def upright_xmp(xmp: bytes) -> bytes:
    r"""An XMP packet whose orientation says upright.

    Example:
        >>> upright_xmp(b'<rdf tiff:Orientation="6"/>')
        b'<rdf tiff:Orientation="1"/>'
    """
    return _ORIENTATION.sub(rb"\g<1>1", xmp)


def without_stale_claims(xmp: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The packet without claims about data that are not written, and a notice for each loss."""
    notices: dict[str, None] = {}
    for namespace, names, notice in _STALE_CLAIMS:
        xmp, count = _without(xmp, namespace, names)
        if count and notice:
            notices[notice] = None
    return xmp, tuple(notices)


def _without(xmp: bytes, namespace: bytes, names: bytes) -> tuple[bytes, int]:
    """The packet without properties of a namespace, and how many they were."""
    removed = 0
    for prefix in _prefixes(xmp, namespace):
        name = re.escape(prefix) + b":" + names
        attribute = rb"\s" + name + rb"""\s*=\s*(?:"[^"]*"|'[^']*')"""
        empty = rb"<" + name + rb"(?=[\s/])[^<>]*/>"
        xmp, attributes = re.subn(attribute, b"", xmp)
        xmp, elements = re.subn(empty, b"", xmp)
        xmp, nested = _without_elements(xmp, name)
        removed += attributes + elements + nested
    return xmp, removed


def _without_elements(xmp: bytes, name: bytes) -> tuple[bytes, int]:
    """The packet without elements whose names match, from start tag to end tag."""
    kept, at, removed, unclosed = [], 0, 0, set()
    for start in re.finditer(rb"<(" + name + rb")(?=[\s>])", xmp):
        if start.start() < at or start[1] in unclosed:
            continue
        end = xmp.find(b"</" + start[1], start.end())
        end = xmp.find(b">", end) + 1 if end >= 0 else 0
        if not end:
            unclosed.add(start[1])
            if len(unclosed) > _MOST_NAMES:  # each costs a search of the whole packet
                break
            continue
        kept.append(xmp[at : start.start()])
        at, removed = end, removed + 1
    return b"".join((*kept, xmp[at:])), removed


def _prefixes(xmp: bytes, namespace: bytes) -> Iterator[bytes]:
    declared = rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']"
    prefixes = dict.fromkeys(match[1] for match in re.finditer(declared, xmp))
    yield from islice(prefixes, _MOST_NAMES)


def without_extension(xmp: bytes) -> tuple[bytes, str]:
    """The packet without its claim to have an extension, and the GUID ("" if none) it named."""
    for prefix in _prefixes(xmp, _NOTE):
        name = re.escape(prefix) + rb":HasExtendedXMP"
        stated = re.search(name + rb"""\s*(?:=\s*["']|>)\s*(\w{32})""", xmp)
        if stated:
            return _without(xmp, _NOTE, rb"HasExtendedXMP")[0], stated[1].decode("ascii")
    return xmp, ""


def with_extension(xmp: bytes | None, extension: bytes) -> tuple[bytes, str]:
    """The first of two packets, which names the second by its GUID, and that GUID."""
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    claim = (
        f'<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" rdf:about="" '
        f'xmlns:xmpNote="{_NOTE.decode()}" xmpNote:HasExtendedXMP="{guid}"/>'
    ).encode()
    end = _RDF_END.search(xmp) if xmp else None
    if xmp and end:
        return xmp[: end.start()] + claim + xmp[end.start() :], guid
    rdf = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    )
    return rdf + claim + b"</rdf:RDF></x:xmpmeta>", guid


def whole_xmp(xmp: bytes | None, extension: bytes | None) -> bytes | None:
    """Both packets as one, for formats that set no limit to its size."""
    if not xmp or not extension:
        return xmp or extension
    start, end = _RDF_START.search(extension), _RDF_END.search(xmp)
    ends = [match.start() for match in _RDF_END.finditer(extension)]
    if not start or not end or not ends:
        return xmp
    return xmp[: end.start()] + extension[start.end() : ends[-1]] + xmp[end.start() :]


def is_packet(xmp: bytes) -> bool:
    """Whether bytes hold the end of an RDF description, behind which more can be put."""
    return bool(_RDF_END.search(xmp))
