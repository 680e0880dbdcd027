"""Encoders: which one stands for a codec, how good it is asked to be, and frames into packets."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from derain_cli.errors import UsageError, did_you_mean
from derain_cli.inference.devices import cpu_flags
from derain_cli.video.kinds import load_pyav
from derain_cli.video.reading import CONVERSION, Colours, Film, swscale_matrix, turned_back
from derain_cli.video.steadiness import Frame

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.format import VideoFormat

DEFAULT_QUALITY = 80
SEGMENT = 48  # frames that are encoded on their own; what a killed run loses at most
LAMBDA = 118  # FFmpeg's unit of quality for encoders that take a quantiser (FF_QP2LAMBDA)
TAGS_OF_HEVC = frozenset({"hvc1", "hev1"})
FULL_RANGE, BT601 = 2, 5  # as FFmpeg numbers colour ranges and matrices
LOW_DELAY = 1 << 19  # FFmpeg's flag of an encoder
MPEG4_TICKS = 65535  # in a second; its streams count them in 16 bits
# Frames per second that an MPEG-2 stream can state: one of eight, times a fraction.
MPEG2_RATES = tuple(
    Fraction(*rate) * Fraction(times, divided)
    for rate in ((24000, 1001), (24,), (25,), (30000, 1001), (30,), (50,), (60000, 1001), (60,))
    for times in range(1, 5)
    for divided in range(1, 33)
)

Options = Mapping[str, str]


@dataclass(frozen=True)
class Coder:
    """An encoder of FFmpeg.

    Attributes:
        encoder: FFmpeg's name.
        options: Its options for a quality of 1 to 100.
        quantiser: Quantiser for that quality, where the encoder has no constant quality of its own.
        even_sides: Whether subsampled pixels need even sides.
        clock: Seconds between two frames, as near to those of a rate as the encoder can count.
        is_jpeg: Whether pixels are JPEG's: all 256 levels, the matrix of BT.601.
    """

    encoder: str
    options: Callable[[int], Options]
    quantiser: Callable[[int], float] | None = None
    even_sides: bool = True
    clock: Callable[[Fraction], Fraction] = lambda rate: 1 / rate
    is_jpeg: bool = False


def _rate_factor(per_step: float, worst: int, **more: str) -> Callable[[int], Options]:
    """Constant quality: 0 is the best, and a step of our scale is `per_step` of theirs."""
    return lambda quality: {"crf": f"{min(worst, (100 - quality) * per_step):.1f}", **more}


def _fixed(**options: str) -> Callable[[int], Options]:
    return lambda _quality: options


def _quantiser(quality: int) -> float:
    return min(31.0, 1 + (100 - quality) * 0.1)


def _clock_of_mpeg4(rate: Fraction) -> Fraction:
    return max(Fraction(1, MPEG4_TICKS), (1 / rate).limit_denominator(MPEG4_TICKS))


def _clock_of_mpeg2(rate: Fraction) -> Fraction:
    return 1 / min(MPEG2_RATES, key=lambda known: abs(known - rate))


CODERS: Mapping[str, Coder] = {
    "h264": Coder("libx264", _rate_factor(0.9, 51)),
    "hevc": Coder("libx265", _rate_factor(1.0, 51, **{"x265-params": "log-level=error"})),
    "vp8": Coder("libvpx", _rate_factor(1.2, 63, deadline="good", **{"cpu-used": "4"})),
    "vp9": Coder(
        "libvpx-vp9", _rate_factor(1.2, 63, **{"cpu-used": "4", "row-mt": "1"}), None, False
    ),
    "av1": Coder("libsvtav1", _rate_factor(1.25, 63, preset="8", **{"svtav1-params": "rc=0"})),
    "mpeg4": Coder("mpeg4", _fixed(), _quantiser, clock=_clock_of_mpeg4),
    "mpeg2video": Coder("mpeg2video", _fixed(), _quantiser, clock=_clock_of_mpeg2),
    "mjpeg": Coder("mjpeg", _fixed(), _quantiser, False, is_jpeg=True),
    "prores": Coder("prores_ks", _fixed(vendor="apl0"), None, False),
    "ffv1": Coder("ffv1", _fixed(level="3"), None, False),
}
"""What FFmpeg calls a codec, and the encoder for it that PyAV's own build holds."""


@dataclass(frozen=True)
class Coding:
    """How a film is encoded; equal settings give equal packets.

    Attributes:
        codec: Key of `CODERS`.
        coder: The encoder.
        quality: 1 to 100.
        pixel_format: Of the encoded frames.
        colours: Colour tags of the encoded frames.
        b_frames: Whether frames may be stored out of order; AVI has no way to say so.
        tag: The container's name of the codec, "" for the usual one.
        notices: What the user should be told.
    """

    codec: str
    coder: Coder
    quality: int
    pixel_format: str
    colours: Colours
    b_frames: bool = True
    tag: str = ""
    notices: tuple[str, ...] = ()


def choose_coding(film: Film, container: str, codec: str | None, quality: int | None) -> Coding:
    """The film's own codec and pixels where they can be written, else the nearest.

    Args:
        film: What is read.
        container: FFmpeg's name of the container that is written.
        codec: Key of `CODERS`, or None: the film's own.
        quality: 1 to 100, or None.

    Raises:
        UsageError: No such codec, or one that cannot hold this film.
    """
    if codec is not None and codec not in CODERS:
        raise UsageError(f"unknown codec {codec!r}. {did_you_mean(codec, CODERS)}")
    notices = []
    name = codec or film.codec
    if name not in CODERS:
        name = "vp9" if container == "webm" else "h264"
        notices.append(f"{film.codec} is only read: written as {name}")
    coder = CODERS[name]
    _check_container(container, name)
    pixel_format = _nearest_format(film.pixel_format, coder, film.label)
    notices += _format_notices(film, name, pixel_format)
    notices += _hdr_notices(film, coder)
    _check_sides(film, coder, pixel_format)
    return Coding(
        name,
        coder,
        DEFAULT_QUALITY if quality is None else quality,
        pixel_format,
        replace(film.colours, range=FULL_RANGE, matrix=BT601) if coder.is_jpeg else film.colours,
        container != "avi",
        film.tag if name == film.codec and film.tag in TAGS_OF_HEVC else "",
        tuple(notices),
    )


def configure(context: "VideoCodecContext", film: Film, coding: Coding) -> None:
    """Set up an encoder that has not been opened.

    Frames are numbered for the encoder; their times are given to the packets later, so that no
    encoder's idea of a clock touches them.
    """
    context.width, context.height = film.width, film.height
    context.pix_fmt = coding.pixel_format
    context.framerate = film.rate
    context.time_base = coding.coder.clock(film.rate)
    if film.aspect is not None:
        context.sample_aspect_ratio = film.aspect
    context.gop_size = SEGMENT
    colours = coding.colours
    context.color_range, context.color_primaries = colours.range, colours.primaries
    context.color_trc, context.colorspace = colours.transfer, colours.matrix
    options = dict(coding.coder.options(coding.quality))
    if not coding.b_frames:
        context.max_b_frames = 0
        if coding.codec == "mpeg2video":  # which else says that frames may be out of order
            context.flags |= LOW_DELAY
    if coding.coder.encoder in ("libvpx", "libvpx-vp9"):
        context.bit_rate = 0 if coding.coder.encoder == "libvpx-vp9" else 200_000_000
    if coding.coder.quantiser is not None:
        context.qscale = True
        context.global_quality = round(LAMBDA * coding.coder.quantiser(coding.quality))
    if coding.tag:
        context.codec_tag = coding.tag
    if film.hdr is not None and "x265-params" in options:
        options["x265-params"] += film.hdr.x265_params
    if coding.coder.encoder == "libx264" and "avx512f" in cpu_flags():
        # With AVX-512 its macroblock tree gives other packets for equal frames, about once in four
        # short segments on a busy machine; a resumed film would not equal an uninterrupted one.
        options["x264-params"] = "asm=AVX2"
    context.options = options


@dataclass(frozen=True)
class Encoded:
    """A packet: the number of its frame in the film, whether decoding can begin with it, bytes."""

    index: int
    is_key: bool
    content: bytes


class SegmentEncoder:
    """Encodes the frames of one segment, which decode without any other.

    Raises:
        UsageError: The encoder does not take such a film.
    """

    def __init__(self, film: Film, coding: Coding, first: int, *, global_header: bool) -> None:
        av = load_pyav(film.label)
        self._film, self._coding, self._first = film, coding, first
        self._context: VideoCodecContext = av.CodecContext.create(coding.coder.encoder, "w")
        configure(self._context, film, coding)
        if global_header:
            self._context.flags |= av.codec.context.Flags.global_header
        _open(self._context, film, coding)
        self._clock = coding.coder.clock(film.rate)
        self._frame_class: Any = av.VideoFrame
        self._count = 0

    def encode(self, upright: Frame) -> list[Encoded]:
        """The packets that are ready after one more frame."""
        stored = turned_back(upright, self._film.matrix)
        name = "rgb24" if stored.dtype == np.uint8 else "rgb48le"
        frame = self._frame_class.from_ndarray(stored, format=name).reformat(
            format=self._coding.pixel_format,
            interpolation=CONVERSION,
            dst_colorspace=swscale_matrix(self._coding.colours, self._film.height),
            dst_color_range=self._coding.colours.range or None,
        )
        frame.pts, frame.time_base = self._count, self._clock
        self._count += 1
        return self._packets(self._context.encode(frame))

    def finish(self) -> list[Encoded]:
        """What the encoder still holds."""
        return self._packets(self._context.encode(None))

    def _packets(self, packets: Sequence[Any]) -> list[Encoded]:
        return [
            Encoded(self._first + self._number(packet), packet.is_keyframe, bytes(packet))
            for packet in packets
            if packet.size
        ]

    def _number(self, packet: Any) -> int:  # noqa: ANN401 (PyAV's packet, an extra)
        return round(int(packet.pts) * Fraction(packet.time_base) / self._clock)


def _open(context: "VideoCodecContext", film: Film, coding: Coding) -> None:
    av = load_pyav(film.label)
    try:
        context.open()
    except av.error.MemoryError:
        raise
    except av.error.FFmpegError as error:
        what = f"{film.width}x{film.height} {coding.pixel_format}, {float(film.rate):.6g} frames/s"
        raise UsageError(
            f"{coding.coder.encoder} cannot write {film.label} ({what}: {error.strerror}); "
            "choose another `codec`"
        ) from error


def _nearest_format(name: str, coder: Coder, label: str) -> str:
    """The encoder's pixels that keep most: depth before chroma; the film's own if it has them."""
    av = load_pyav(label)
    offered: Sequence[VideoFormat] = av.Codec(coder.encoder, "w").video_formats or []
    if coder.is_jpeg:  # formats of the full range have names of their own
        offered = [format for format in offered if "yuvj" in format.name]
    names = [format.name for format in offered]
    if name in names or not names:
        return name
    wanted = av.VideoFormat(name)
    candidates = [format for format in offered if not _is_odd_kind(format)]
    best = min(candidates or offered, key=lambda format: _distance(format, wanted))
    return str(best.name)


def _is_odd_kind(format: "VideoFormat") -> bool:
    """Formats with alpha, a palette or interleaved chroma, which are nobody's second choice."""
    return format.name.startswith(("nv", "yuva", "gbrap", "pal")) or "yuvj" in format.name


def _distance(format: "VideoFormat", wanted: "VideoFormat") -> tuple[int, ...]:
    bits, wanted_bits = _bits(format), _bits(wanted)
    chroma, wanted_chroma = _chroma(format), _chroma(wanted)
    return (
        max(0, wanted_bits - bits),
        sum(max(0, one - two) for one, two in zip(wanted_chroma, chroma, strict=True)),
        len(format.components) < min(3, len(wanted.components)),
        format.is_rgb != wanted.is_rgb,
        bits - wanted_bits,
        sum(chroma) - sum(wanted_chroma),
    )


def _bits(format: "VideoFormat") -> int:
    return max(int(component.bits) for component in format.components)


def _chroma(format: "VideoFormat") -> tuple[int, int]:
    """Chroma samples per 16 pixels, across and down; none for gray."""
    if len(format.components) < 3:
        return 0, 0
    return format.chroma_width(16), format.chroma_height(16)


def _format_notices(film: Film, codec: str, pixel_format: str) -> list[str]:
    if pixel_format == film.pixel_format:
        return []
    av = load_pyav(film.label)
    read, written = av.VideoFormat(film.pixel_format), av.VideoFormat(pixel_format)
    notices = []
    if _bits(written) < film.bits:
        notices.append(
            f"its {film.bits} bits per channel are written as {_bits(written)}: "
            f"this encoder of {codec} has no more; `codec` names another"
        )
    if any(component.is_alpha for component in read.components):
        notices.append("its transparency is not kept")
    if _chroma(written) < _chroma(read):
        notices.append(f"its colours are written at less resolution ({pixel_format})")
    return notices


def _hdr_notices(film: Film, coder: Coder) -> list[str]:
    if film.hdr is None:
        return []
    if film.hdr.dynamic:
        return ["its brightness frame by frame (HDR10+, Dolby Vision) is not kept"]
    kept = coder.encoder == "libx265"
    return [] if kept else ["what it says of its HDR screen is not kept: only hevc does here"]


def _check_container(container: str, codec: str) -> None:
    with load_pyav(codec).open(io.BytesIO(), "w", format=container) as empty:
        try:
            empty.add_stream(CODERS[codec].encoder)
        except ValueError as error:
            raise UsageError(
                f"a file of kind {container} cannot hold {codec}: choose another `codec` or ending"
            ) from error


def _check_sides(film: Film, coder: Coder, pixel_format: str) -> None:
    if not coder.even_sides:
        return
    format = load_pyav(film.label).VideoFormat(pixel_format)
    across, down = format.chroma_width(2) == 1, format.chroma_height(2) == 1
    if (across and film.width % 2) or (down and film.height % 2):
        raise UsageError(
            f"{film.label} has odd sides ({film.width}x{film.height}), which {coder.encoder} "
            "cannot write; choose `codec` vp9 or ffv1"
        )
