"""HEIF, the container of HEIC photos: which codec its images are coded with."""

import re

from derain_cli.errors import UnreadableImageError

HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"}
    # of other codecs in the same container, which are recognised and not read
    | {b"avci", b"avcs", b"evbi", b"j2ki", b"j2is", b"jpeg", b"jpgs", b"unif", b"vvic", b"vvis"}
)
_READ = b"hvc1"
_CODECS = {
    b"av01": "AV1",
    b"avc1": "H.264",
    b"evc1": "EVC",
    b"j2k1": "JPEG 2000",
    b"jpeg": "JPEG",
    b"lhv1": "layered HEVC",
    b"unci": "no",
    b"vvc1": "H.266",
}
_ITEM = re.compile(rb"infe(?:\x02.{7}|\x03.{9})(.{4})", re.DOTALL)


def refuse_other_codecs(header: bytes, label: str) -> None:
    """Refuse images that no decoder here reads, by the name of their codec.

    Raises:
        UnreadableImageError: There is no HEVC image in the file, and one of another codec.
    """
    kinds = _ITEM.findall(header)
    other = next((_CODECS[kind] for kind in kinds if kind in _CODECS), None)
    if other and _READ not in kinds:
        raise UnreadableImageError(
            f"{label} is a HEIF image with {other} compression, which is unsupported; "
            "export it as PNG or 16-bit TIFF"
        )
