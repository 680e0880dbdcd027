"""What a film is made of, and its frames one after the other, upright."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from derain_cli.errors import UnreadableImageError
from derain_cli.video.hdr import HdrFacts, read_hdr
from derain_cli.video.kinds import is_disk_full, load_pyav
from derain_cli.video.steadiness import Frame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

UPRIGHT = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)  # the display matrix of an upright film
# Chroma at full resolution and no shortcuts in rounding: a frame that nothing changed comes back
# without a loss of brightness. Values of PyAV's `Interpolation`, which is there only with PyAV.
CONVERSION = 4 | 0x2000 | 0x4000 | 0x40000  # BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP, ACCURATE_RND
HIGH_DEFINITION = 720  # rows from which an unnamed matrix means BT.709, as players take it
BT709, SMPTE170M, UNSPECIFIED = 1, 6, 2
DECODERS_CODECS = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
MISSING_SECONDS = 1.0  # a film may end this much before its header says


@dataclass(frozen=True)
class Colours:
    """Colour tags as FFmpeg numbers them: range, primaries, transfer, matrix."""

    range: int
    primaries: int
    transfer: int
    matrix: int


@dataclass(frozen=True)
class Film:
    """What the header, the first frame and a look at all packets say.

    Attributes:
        path: The file.
        container: FFmpeg's name of the container.
        stream: Index of the stream that is derained.
        codec: FFmpeg's name of its codec.
        tag: The container's own name of the codec.
        pixel_format: FFmpeg's name of the decoder's pixels.
        bits: Bits per channel.
        width: Columns as stored, not upright.
        height: Rows as stored.
        matrix: Display matrix, nine numbers: how the frames are turned to be shown.
        aspect: Sample aspect ratio, None where the file does not say.
        colours: Colour tags.
        time_base: Unit of the frames' times.
        rate: Mean frames per second.
        frames: Number of frames, as the packets are counted.
        seconds: Length.
        times: When each frame of an AVI is shown; empty for all that say so of their own frames.
        interlaced: Whether the first frame holds two fields.
        transparent: Whether it has an alpha channel, which no decoder here gives.
        hdr: How bright its screen was, as the first frame says.
    """

    path: Path
    container: str
    stream: int
    codec: str
    tag: str
    pixel_format: str
    bits: int
    width: int
    height: int
    matrix: tuple[int, ...]
    aspect: Fraction | None
    colours: Colours
    time_base: Fraction
    rate: Fraction
    frames: int
    seconds: float
    times: tuple[int, ...] = ()
    interlaced: bool = False
    transparent: bool = False
    hdr: HdrFacts | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should be told."""
        said = []
        if self.interlaced:
            said.append("it is interlaced: both fields are derained as one image, not apart")
        if self.transparent:
            said.append("its transparency is not kept")
        return tuple(said)

    @property
    def label(self) -> str:
        """What messages call it."""
        return repr(str(self.path))

    @property
    def is_turned(self) -> bool:
        """Whether it is shown with rows and columns exchanged."""
        return self.matrix[0] == 0 and self.matrix[4] == 0 and self.matrix[1] != 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as it is shown."""
        return (self.height, self.width) if self.is_turned else (self.width, self.height)


@dataclass(frozen=True)
class TimedFrame:
    """An upright frame, its place in the film, and its time in units of the film's time base.

    It is damaged where the decoder had to make up a part of it.
    """

    index: int
    time: int
    pixels: Frame
    damaged: bool = False


def probe_film(path: Path) -> Film:
    """What a film is; every packet is looked at, none but the first is decoded.

    Raises:
        UnreadableImageError: Not a film, no frames in it, damaged, or cut short.
        UsageError: The extra is not installed.
    """
    with open_film(path) as container:
        stream = _film_stream(container, repr(str(path)))
        film = _described(path, container, stream)
    return _with_counted_packets(film)


@contextlib.contextmanager
def open_film(path: Path) -> Iterator["InputContainer"]:
    """The open file; whatever FFmpeg says meanwhile becomes one line that names it."""
    label = repr(str(path))
    av = load_pyav(label)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        if is_disk_full(error):  # of a file that is written from this one
            raise OSError(error.errno, error.strerror) from error
        if isinstance(error, av.error.FileNotFoundError):
            raise UnreadableImageError(f"{label} does not exist; check the name") from error
        raise UnreadableImageError(
            f"{label} is damaged, cut short or no film ({error.strerror}); copy it again"
        ) from error


def timed_frames(film: Film, first: int = 0) -> Iterator[TimedFrame]:
    """The frames from number `first` on; those before are decoded and passed over.

    Raises:
        UnreadableImageError: The file cannot be read any more.
    """
    step = max(1, round(1 / (film.rate * film.time_base)))
    time: int | None = None
    with open_film(film.path) as container:
        stream = container.streams[film.stream]
        stream.thread_type = "AUTO"
        for index, frame in enumerate(_decoded(container, stream)):
            stored = film.times[index] if index < len(film.times) else frame.pts
            time = _time_of(stored, time, step)
            if index >= first:
                upright = turned_upright(_pixels(frame, film), film.matrix)
                yield TimedFrame(index, time, upright, bool(frame.is_corrupt))


def _time_of(stored: int | None, before: int | None, step: int) -> int:
    """When a frame is shown: one without a time, or with an earlier one's, follows the one before.

    Example:
        >>> _time_of(7, 3, 2), _time_of(None, 3, 2), _time_of(3, 3, 2)
        (7, 5, 5)
    """
    if before is None:
        return stored or 0
    return before + step if stored is None or stored <= before else stored


def turned_upright(pixels: Frame, matrix: tuple[int, ...]) -> Frame:
    """Stored pixels as they are shown; a matrix that does more than quarter turns changes nothing.

    Example:
        >>> stored = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        >>> turned_upright(stored, (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)).shape
        (2, 1, 3)
    """
    a, b, _, c, d = matrix[:5]
    if a == d == 0 and b and c:
        return np.ascontiguousarray(_flipped(pixels.swapaxes(0, 1), c < 0, b < 0))
    if b == c == 0 and a and d:
        return np.ascontiguousarray(_flipped(pixels, a < 0, d < 0))
    return pixels


def turned_back(pixels: Frame, matrix: tuple[int, ...]) -> Frame:
    """Undoes `turned_upright`."""
    a, b, _, c, d = matrix[:5]
    if a == d == 0 and b and c:
        return np.ascontiguousarray(_flipped(pixels, c < 0, b < 0).swapaxes(0, 1))
    return turned_upright(pixels, matrix)


def swscale_matrix(colours: Colours, height: int) -> int:
    """The matrix between brightness, chroma and RGB, as FFmpeg's scaler numbers it."""
    if colours.matrix not in (0, UNSPECIFIED):
        return colours.matrix
    return BT709 if height >= HIGH_DEFINITION else SMPTE170M


def _flipped(pixels: Frame, sideways: bool, upside_down: bool) -> Frame:
    return pixels[:: -1 if upside_down else 1, :: -1 if sideways else 1]


def _decoded(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    """All frames that can be decoded: a damaged packet costs its frame, as in every player."""
    error_type = load_pyav("").error.FFmpegError
    for packet in container.demux(stream):
        with contextlib.suppress(error_type):
            yield from packet.decode()


def _pixels(frame: "VideoFrame", film: Film) -> Frame:
    name = "rgb24" if film.bits == 8 else "rgb48le"
    pixels: Frame = frame.to_ndarray(
        format=name,
        interpolation=CONVERSION,
        src_colorspace=swscale_matrix(film.colours, film.height),
        src_color_range=frame.color_range or None,
    )
    return pixels


def _film_stream(container: "InputContainer", label: str) -> "VideoStream":
    covers = load_pyav(label).stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & covers:
            return stream
    kind = "only sound" if container.streams.audio else "no film in it"
    raise UnreadableImageError(f"{label} has {kind}: there is no video stream to derain")


def _described(path: Path, container: "InputContainer", stream: "VideoStream") -> Film:
    frame = next(_decoded(container, stream), None)
    if frame is None:
        raise UnreadableImageError(
            f"{str(path)!r} has no frame that can be decoded; copy or download it again"
        )
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return Film(
        path,
        container.format.name,
        stream.index,
        DECODERS_CODECS.get(context.name, context.name),
        context.codec_tag,
        frame.format.name,
        max(8, *(component.bits for component in frame.format.components)),
        frame.width,
        frame.height,
        _display_matrix(frame),
        stream.sample_aspect_ratio or None,
        Colours(
            context.color_range, context.color_primaries, context.color_trc, context.colorspace
        ),
        stream.time_base or 1 / rate,
        rate,
        0,
        (container.duration or 0) / 1_000_000,
        interlaced=bool(frame.interlaced_frame),
        transparent=any(
            name.lower() == "alpha_mode" and value == "1" for name, value in stream.metadata.items()
        ),
        hdr=read_hdr(frame.side_data),
    )


def _display_matrix(frame: "VideoFrame") -> tuple[int, ...]:
    data = frame.side_data.get("DISPLAYMATRIX")
    return UPRIGHT if data is None else tuple(np.frombuffer(bytes(data), np.int32).tolist())


def _with_counted_packets(film: Film) -> Film:
    """The film with its true number of frames.

    Raises:
        UnreadableImageError: It ends before its header says.
    """
    times, end = [], Fraction(0)
    with open_film(film.path) as container:
        start = Fraction(container.start_time or 0, 1_000_000)
        promised = container.streams[film.stream].frames
        for packet in container.demux():
            if packet.dts is None and packet.pts is None:
                continue  # the empty packet that ends each stream
            time = packet.pts if packet.pts is not None else packet.dts
            end = max(end, (time + (packet.duration or 0)) * packet.time_base - start)
            if packet.stream_index == film.stream and not packet.is_discard:
                times.append(packet.dts if packet.dts is not None else time)
    count = len(times)
    if film.seconds - float(end) > MISSING_SECONDS and (not promised or count < promised):
        raise UnreadableImageError(
            f"{film.label} is cut short: {float(end):.1f} of {film.seconds:.1f} seconds are there; "
            "copy or download it again"
        )
    # An AVI has times of decoding alone, from which FFmpeg guesses wrong ones where frames are
    # stored out of order; in order they are those of showing.
    known = tuple(sorted(times)) if film.container == "avi" else ()
    seconds = film.seconds or float(end)
    return dataclasses.replace(film, frames=count, seconds=seconds, times=known)
