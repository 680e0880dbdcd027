"""Codecs of the extra `codecs`, for files that common decoders do not read."""

from types import ModuleType

import numpy as np

from derain_cli.errors import UnreadableImageError
from derain_cli.images.jpeg_segments import JpegParts
from derain_cli.images.picture import Picture
from derain_cli.images.pixels import Canvas
from derain_cli.images.sources import Notices, OpenedImage, SourceFile
from derain_cli.images.statements import jpeg_statements, upright_metadata

INSTALL = "pip install 'derain-cli[codecs]'"


def codecs() -> ModuleType | None:
    """The package imagecodecs; None where it is not installed."""
    try:
        import imagecodecs  # noqa: PLC0415 (an extra)
    except ImportError:
        return None
    module: ModuleType = imagecodecs
    return module


def unsupported(label: str, what: str, way_out: str) -> UnreadableImageError:
    """The error for a file of a kind that is not read; names the extra where it might help."""
    if codecs():
        return UnreadableImageError(f"{label} is {what}, which imagecodecs cannot read; {way_out}")
    extra = f" (or, to read it: {INSTALL})"
    return UnreadableImageError(f"{label} is {what}, which is unsupported; {way_out}{extra}")


def open_odd_jpeg(file: SourceFile, parts: JpegParts, notices: Notices) -> OpenedImage:
    """The header of a JPEG of more than 8 bits or without loss, read with imagecodecs.

    Raises:
        UnreadableImageError: It is not installed, or does not read this kind either.
    """
    article = "an" if parts.kind[0] in "8" else "a"
    refusal = unsupported(
        file.label, f"{article} {parts.kind}", "export it as 8-bit JPEG or as 16-bit TIFF"
    )
    module = codecs()
    if module is None or "hierarchical" in parts.kind:
        raise refusal
    metadata, orientation = upright_metadata(jpeg_statements(parts, notices), parts.size, notices)

    def decode() -> Picture:
        read = module.jpegls_decode if "JPEG-LS" in parts.kind else module.jpeg_decode
        try:
            samples = np.asarray(read(file.read_all()))
        except (RuntimeError, ValueError) as error:
            raise refusal from error
        samples = samples if samples.ndim == 3 else samples[..., None]
        if samples.shape[2] not in (1, 3) or samples.dtype.kind != "u":
            raise refusal
        if parts.precision not in (8, 16):
            samples = _as_16_bits(samples, parts.precision)
        canvas = Canvas.of(samples, orientation)
        gray = samples.shape[2] == 1
        return Picture(canvas.rgb, None, gray, "jpeg", metadata, tuple(notices))

    return OpenedImage(parts.size, orientation, decode, 3 if parts.precision <= 8 else 6)


def _as_16_bits(samples: np.ndarray, precision: int) -> np.ndarray:
    """Samples of 2-15 bits as 16: white stays white.

    Example:
        >>> _as_16_bits(np.uint16([0, 4095]), 12)
        array([    0, 65535], dtype=uint16)
    """
    return np.rint(samples * (65535 / ((1 << precision) - 1))).astype(np.uint16)
