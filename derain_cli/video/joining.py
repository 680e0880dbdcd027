"""The whole file: derained packets, and everything that was not derained, copied."""

import heapq
import io
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain_cli.video.encoding import Coding, Encoded, configure
from derain_cli.video.kinds import load_pyav
from derain_cli.video.reading import UPRIGHT, Film, open_film
from derain_cli.video.segments import Segment

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

COPIED = ("video", "audio", "subtitle", "attachment")
OWN_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "alpha_mode"})
ISO_FORMATS = ("mp4", "mov", "3gp")


def join_film(
    film: Film,
    coding: Coding,
    container: str,
    segments: Sequence[Segment],
    packets: Iterator[Encoded],
    part: Path,
) -> Iterator[tuple[str, ...]]:
    """Write the whole film to a file.

    Args:
        film: What was read.
        coding: How it was encoded.
        container: FFmpeg's name of the container.
        segments: All of the film, without the packets.
        packets: All of them, in the order of decoding.
        part: The file to write.

    Yields:
        Nothing of interest from time to time, as a sign of life; at last the notices.
    """
    av = load_pyav(film.label)
    with (
        open_film(film.path) as rainy,
        av.open(str(part), "w", format=container, options=_muxer_options(container, rainy)) as out,
    ):
        derained = _derained_stream(out, rainy.streams[film.stream], film, coding)
        copies, notices = _copied_streams(out, rainy, film, container)
        out.metadata.update({k: v for k, v in rainy.metadata.items() if k.lower() not in OWN_TAGS})
        out.set_chapters(rainy.chapters())
        merged = heapq.merge(
            _stamped(packets, segments, derained, film),
            _copied_packets(rainy, copies),
            key=lambda item: item[0],
        )
        for number, (_, packet) in enumerate(merged):
            out.mux(packet)
            if number % 1000 == 0:
                yield ()
    _flush_to_disk(part)
    yield notices


def needs_global_header(container: str) -> bool:
    """Whether a container holds what a decoder must know in its header and not in each packet."""
    return container not in ("mpegts", "avi")


def reordering(order: Sequence[int]) -> int:
    """By how many places a packet may come before its turn to be shown.

    Args:
        order: Numbers of the frames, in the order of decoding.

    Example:
        >>> reordering([0, 1, 2]), reordering([0, 3, 1, 2])
        (0, 1)
    """
    return max((place - index for place, index in enumerate(order)), default=0)


def _stamped(
    packets: Iterator[Encoded], segments: Sequence[Segment], stream: "Stream", film: Film
) -> Iterator[tuple[Fraction, "Packet[Any]"]]:
    """Packets with the times of their frames, and times of decoding that never go back."""
    av = load_pyav(film.label)
    step = max(1, round(1 / (film.rate * film.time_base)))
    times = [time for segment in segments for time in segment.times]
    delay = reordering([index for segment in segments for index in segment.order])
    for place, encoded in enumerate(packets):
        packet = av.Packet(encoded.content)
        packet.stream, packet.time_base = stream, film.time_base
        packet.pts = times[encoded.index]
        turn = place - delay
        packet.dts = times[turn] if turn >= 0 else times[0] + turn * step
        following = encoded.index + 1
        packet.duration = (times[following] if following < len(times) else 0) - packet.pts
        if packet.duration <= 0:
            packet.duration = step
        packet.is_keyframe = encoded.is_key
        yield packet.dts * film.time_base, packet


def _derained_stream(
    out: "OutputContainer", rainy: "Stream", film: Film, coding: Coding
) -> "Stream":
    """The stream for the derained packets, described as the encoder of the segments was."""
    stream = out.add_stream(coding.coder.encoder, rate=film.rate)
    configure(stream.codec_context, film, coding)
    stream.time_base = film.time_base
    if film.matrix != UPRIGHT:
        stream.set_display_matrix(film.matrix)
    _describe(stream, rainy)
    return stream


def _copied_streams(
    out: "OutputContainer", rainy: "InputContainer", film: Film, container: str
) -> tuple[dict[int, "Stream"], tuple[str, ...]]:
    """A stream for each that is copied, by its index in the input, and what cannot be kept."""
    copies: dict[int, Stream] = {}
    notices = []
    for stream in rainy.streams:
        if stream.index == film.stream or _is_chapter_track(stream, rainy):
            continue
        try:
            if stream.type not in COPIED or not _can_hold(container, film, stream):
                raise ValueError("no copy of such a stream can be made")
            copy = out.add_stream_from_template(stream, opaque=True)
        except ValueError:
            codec = getattr(stream.codec_context, "name", None) or "unnamed"
            notices.append(f"its {stream.type} stream {stream.index} ({codec}) is not kept")
            continue
        _describe(copy, stream)
        if stream.type != "attachment":  # it stands in the header, without packets
            copies[stream.index] = copy
        if stream.type == "video" and not _is_cover(stream):
            notices.append(f"its second film, stream {stream.index}, is copied with its rain")
    return copies, tuple(notices)


def _can_hold(container: str, film: Film, stream: "Stream") -> bool:
    """Whether a container takes the sound; some refuse it only when its first packet is written."""
    if stream.type != "audio":
        return True
    av = load_pyav(film.label)
    with open_film(film.path) as rainy:
        sound = rainy.streams[stream.index]
        first = next((packet for packet in rainy.demux(sound) if packet.size), None)
        options = _muxer_options(container, rainy)
        try:
            with av.open(io.BytesIO(), "w", format=container, options=options) as trial:
                copy = trial.add_stream_from_template(sound, opaque=True)
                trial.start_encoding()
                if first is not None:
                    first.stream = copy
                    trial.mux(first)
        except (ValueError, av.error.FFmpegError):
            return False
    return True


def _describe(stream: "Stream", rainy: "Stream") -> None:
    stream.metadata.update({k: v for k, v in rainy.metadata.items() if k.lower() not in OWN_TAGS})
    stream.disposition = rainy.disposition


def _is_cover(stream: "Stream") -> bool:
    return "attached_pic" in str(stream.disposition.name)


def _is_chapter_track(stream: "Stream", rainy: "InputContainer") -> bool:
    """QuickTime keeps the chapters' names in a track of its own, which the writer makes anew."""
    return stream.type == "data" and stream.name == "bin_data" and bool(rainy.chapters())


def _copied_packets(
    rainy: "InputContainer", copies: dict[int, "Stream"]
) -> Iterator[tuple[Fraction, "Packet[Any]"]]:
    if not copies:
        return
    last = Fraction(0)
    for packet in rainy.demux([rainy.streams[index] for index in copies]):
        if not packet.size:
            continue  # the empty packet that ends each stream
        if packet.pts is None and packet.dts is None:  # a cover, which is there from the start
            packet.pts = packet.dts = 0
        last = (packet.dts if packet.dts is not None else packet.pts) * packet.time_base
        packet.stream = copies[packet.stream_index]
        yield last, packet


def _muxer_options(container: str, rainy: "InputContainer") -> dict[str, str]:
    options = {"avoid_negative_ts": "disabled"}
    if container in ISO_FORMATS and any("." in key for key in rainy.metadata):
        options["movflags"] = (
            "use_metadata_tags"  # phones name their own: com.apple.…, com.android.…
        )
    if container == "mpegts":
        options["mpegts_copyts"] = "1"
    if container == "matroska":
        options = {}  # it looks at the times of showing alone, which it can keep
    return options


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
