import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain_cli.errors import ImageError, UnreadableImageError, UsageError
from derain_cli.inference.derainer import Derainer
from derain_cli.video.encoding import CODERS, SEGMENT, SegmentEncoder, choose_coding
from derain_cli.video.films import PART, FilmFacts, FilmOptions, FilmProgress, derain_film
from derain_cli.video.reading import probe_film, timed_frames

av = pytest.importorskip("av", reason="the extra `video` is not installed")

MakeFilm = Callable[..., Path]
STANDARD = FilmOptions()
UNCHANGED = FilmOptions(strength=0, temporal=False)


def derain(
    source: Path, target: Path, derainer: Derainer, options: FilmOptions = STANDARD
) -> FilmFacts:
    """All of a film; what it became."""
    *_, facts = derain_film(source, target, derainer, options)
    assert isinstance(facts, FilmFacts)
    return facts


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as film:
        return list(film.decode(video=0))


def times_of(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def packets_of(path: Path, kind: str) -> list[tuple[Any, bytes]]:
    with av.open(str(path)) as film:
        stream = next(one for one in film.streams if one.type == kind)
        packets = [packet for packet in film.demux(stream) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


def stop_after(source: Path, target: Path, derainer: Derainer, frames: int) -> None:
    """A run that ends in the middle, as an interrupt or a kill would end it."""
    steps: Iterator[FilmProgress | FilmFacts] = derain_film(source, target, derainer, FilmOptions())
    with closing(steps):  # type: ignore[type-var]
        for step in steps:
            if isinstance(step, FilmProgress) and step.frames >= frames:
                return


def test_everything_but_the_rain_is_kept(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "clip.mp4", rotation=90)
    facts = derain(source, tmp_path / "out.mp4", derainer)
    assert facts.frames == facts.film.frames == 72
    assert facts.film.upright_size == (48, 64)
    assert times_of(tmp_path / "out.mp4") == times_of(source)
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
    with av.open(str(source)) as rainy, av.open(str(tmp_path / "out.mp4")) as derained:
        assert derained.format.name == rainy.format.name
        assert derained.metadata["title"] == "A wet day"
        assert derained.chapters() == rainy.chapters()
        one, two = rainy.streams.video[0], derained.streams.video[0]
        assert two.codec_context.name == one.codec_context.name == "h264"
        assert two.time_base == one.time_base
        for tag in ("color_range", "color_primaries", "color_trc", "colorspace"):
            assert getattr(two.codec_context, tag) == getattr(one.codec_context, tag) == 1
        assert next(derained.decode(video=0)).rotation == next(rainy.decode(video=0)).rotation == 90
    assert not list(tmp_path.glob(".derain*"))


def test_a_frame_that_nothing_changes_comes_back(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "clip.mkv", codec="ffv1", ticks=1000, frames=5, sound=None)
    derain(source, tmp_path / "out.mkv", derainer, UNCHANGED)
    for one, two in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        difference = one.to_ndarray().astype(int) - two.to_ndarray()
        assert np.abs(difference).max() <= 1
        assert abs(difference.mean()) < 0.05


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip.mkv", {"ticks": 1000}),
        ("clip.webm", {"codec": "libvpx-vp9", "sound": "libopus", "ticks": 1000}),
        ("clip.ts", {"ticks": 90000}),
        ("clip.avi", {"codec": "mpeg4", "sound": "mp3", "steady": True, "ticks": 25}),
        ("clip.mov", {"codec": "prores_ks", "pixels": "yuv422p10le", "sound": "pcm_s16le"}),
    ],
)
def test_containers_keep_codec_times_and_sound(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    source, target = make_film(tmp_path / name, frames=20, **settings), tmp_path / f"out_{name}"
    facts = derain(source, target, derainer, UNCHANGED)
    assert facts.notices == ()
    assert times_of(target) == times_of(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    one, two = frames_of(source)[0], frames_of(target)[0]
    assert two.format.name == one.format.name
    with av.open(str(source)) as rainy, av.open(str(target)) as derained:
        names = [film.streams.video[0].codec_context.name for film in (rainy, derained)]
    assert names[0] == names[1]


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "mjpeg"])
def test_avi_shows_its_first_frame_at_once(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path, codec: str
) -> None:
    source = make_film(tmp_path / "clip.mp4", frames=5, sound=None, ticks=25, steady=True)
    derain(source, tmp_path / "out.avi", derainer, dataclasses.replace(UNCHANGED, codec=codec))
    assert times_of(tmp_path / "out.avi") == times_of(source)


@pytest.mark.parametrize("container", ["mov", "avi", "mkv"])
def test_motion_jpeg_has_the_colours_of_jpeg(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path, container: str
) -> None:
    source, target = make_film(tmp_path / "clip.mp4", frames=3), tmp_path / f"out.{container}"
    best = dataclasses.replace(UNCHANGED, quality=100)
    in_jpeg = dataclasses.replace(best, codec="mjpeg")
    assert derain(source, target, derainer, in_jpeg).notices == ()
    again = tmp_path / f"again.{container}"
    derain(target, again, derainer, best)
    assert times_of(again) == times_of(target)
    rainy = probe_film(source)
    for path in (target, again):
        film = probe_film(path)
        assert film.codec == "mjpeg"
        assert film.pixel_format == "yuvj420p"
        assert film.colours.range == 2
        for one, two in zip(timed_frames(rainy), timed_frames(film), strict=True):
            difference = one.pixels.astype(int) - two.pixels
            assert np.abs(difference).mean() < 4
            assert np.abs(difference.mean(axis=(0, 1))).max() < 1


def test_ten_bits_stay_ten_bits_or_it_is_said(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(
        tmp_path / "deep.mp4", frames=4, codec="libx265", pixels="yuv420p10le", sound=None
    )
    facts = derain(source, tmp_path / "out.mp4", derainer)
    assert facts.film.bits == 10
    assert frames_of(tmp_path / "out.mp4")[0].format.name == "yuv420p10le"
    assert facts.notices == ()
    options = FilmOptions(codec="vp9")
    facts = derain(source, tmp_path / "out.webm", derainer, options)
    assert facts.notices[0].startswith("its 10 bits per channel are written as 8")
    assert frames_of(tmp_path / "out.webm")[0].format.name == "yuv420p"


def test_quality_decides_the_size(make_film: MakeFilm, derainer: Derainer, tmp_path: Path) -> None:
    source = make_film(tmp_path / "clip.mp4", frames=10)
    sizes = []
    for quality in (20, 95):
        target = tmp_path / f"{quality}.mp4"
        derain(source, target, derainer, FilmOptions(quality=quality))
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_stopped_run_goes_on_to_an_equal_result(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source, target = make_film(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    derain(source, tmp_path / "whole.mp4", derainer)
    stop_after(source, target, derainer, SEGMENT + 10)
    assert not target.exists()
    folder = next(tmp_path.glob(".derain-*.film"))
    assert [file.name for file in folder.glob("*.segment")] == ["000000.segment"]
    facts = derain(source, target, derainer)
    assert facts.resumed == SEGMENT
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_film_and_its_segments_are_as_private_as_its_input(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source, target = make_film(tmp_path / "clip.mp4", frames=60), tmp_path / "out.mp4"
    before = os.umask(0o022)
    try:
        for mode, expected in ((0o600, 0o600), (0o640, 0o640), (0o444, 0o644)):
            source.chmod(mode)
            stop_after(source, target, derainer, SEGMENT + 5)
            (folder,) = tmp_path.glob(".derain-*.film")
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / PART).touch()  # as a killed run left it
            derain(source, target, derainer, FilmOptions(overwrite=True))
            assert target.stat().st_mode & 0o777 == expected
    finally:
        os.umask(before)


def test_segments_of_other_settings_are_not_used(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source, target = make_film(tmp_path / "clip.mp4", frames=60), tmp_path / "out.mp4"
    stop_after(source, target, derainer, SEGMENT + 5)
    assert derain(source, target, derainer, FilmOptions(strength=0.5)).resumed == 0


def test_two_runs_do_not_write_one_target(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    pytest.importorskip("fcntl", reason="Windows does not notice two runs")
    source, target = make_film(tmp_path / "clip.mp4", frames=10), tmp_path / "out.mp4"
    first = derain_film(source, target, derainer, FilmOptions())
    next(first)
    with pytest.raises(ImageError, match="written by another run"):
        next(derain_film(source, target, derainer, FilmOptions()))
    assert any(isinstance(step, FilmFacts) for step in first)


def test_what_appeared_meanwhile_is_not_replaced(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source, target = make_film(tmp_path / "clip.mp4", frames=5), tmp_path / "out.mp4"
    target.write_bytes(b"mine")
    with pytest.raises(ImageError, match="appeared meanwhile"):
        derain(source, target, derainer)
    assert target.read_bytes() == b"mine"
    derain(source, target, derainer, FilmOptions(overwrite=True))
    assert len(frames_of(target)) == 5


def test_the_step_over_three_frames_lowers_the_flicker(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "clip.mp4", frames=20)
    flicker = [
        derain(source, tmp_path / f"{temporal}.mp4", derainer, options).flicker
        for temporal, options in enumerate([FilmOptions(temporal=False), FilmOptions()])
    ]
    assert flicker[0].pairs == flicker[1].pairs == 19
    assert flicker[1].of_derained < 0.8 * flicker[0].of_derained
    assert flicker[1].of_derained < flicker[1].of_rainy


def test_frames_are_derained_together_alike(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "clip.mkv", codec="ffv1", ticks=1000, frames=7)
    for size in (1, 3):
        options = FilmOptions(temporal=False, batch_size=size)
        derain(source, tmp_path / f"{size}.mkv", derainer, options)
    one, three = frames_of(tmp_path / "1.mkv"), frames_of(tmp_path / "3.mkv")
    for alone, together in zip(one, three, strict=True):
        assert np.abs(alone.to_ndarray().astype(int) - together.to_ndarray()).max() <= 1


def test_wrong_files_are_one_line(make_film: MakeFilm, derainer: Derainer, tmp_path: Path) -> None:
    whole = make_film(tmp_path / "whole.mkv", ticks=1000).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        voice = out.add_stream("aac", rate=48000)
        for start in range(0, 4096, 1024):
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            out.mux(voice.encode(frame))
        out.mux(voice.encode(None))
    for name, reason in {
        "cut.mkv": "is cut short: ",
        "noise.mp4": "is damaged, cut short or no film",
        "empty.mp4": "is damaged, cut short or no film",
        "sound.mp4": "has only sound: there is no video stream",
        "absent.mp4": "does not exist",
    }.items():
        with pytest.raises(UnreadableImageError, match=reason) as caught:
            derain(tmp_path / name, tmp_path / "out.mp4", derainer)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()


def test_a_codec_that_does_not_fit_is_refused(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    source = make_film(tmp_path / "clip.mp4", frames=3)
    with pytest.raises(UsageError, match="unknown codec 'h265'"):
        derain(source, tmp_path / "out.mp4", derainer, FilmOptions(codec="h265"))
    with pytest.raises(UsageError, match="a file of kind webm cannot hold h264"):
        derain(source, tmp_path / "out.webm", derainer, FilmOptions(codec="h264"))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_an_odd_rate_is_kept_by_encoders_that_cannot_count_it(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path, codec: str, container: str
) -> None:
    # Of two segments, and of a rate whose numerator is more than 16 bits hold.
    source = make_film(tmp_path / "clip.mp4", frames=50, sound=None, ticks=99991)
    target = tmp_path / f"out.{container}"
    assert probe_film(source).rate.numerator > 65535
    derain(source, target, derainer, FilmOptions(strength=0, temporal=False, codec=codec))
    times = zip(times_of(source), times_of(target), strict=True)
    unit = 0 if container == "mp4" else 0.001
    assert all(abs(before - after) <= unit for before, after in times)


@pytest.mark.parametrize(
    ("codec", "rate", "counted"),
    [
        ("h264", Fraction(250000, 10427), Fraction(250000, 10427)),
        ("mpeg4", Fraction(30000, 1001), Fraction(30000, 1001)),
        ("mpeg4", Fraction(10**7), Fraction(65535)),
        ("mpeg2video", Fraction(25, 2), Fraction(25, 2)),
        ("mpeg2video", Fraction(250000, 10427), Fraction(24000, 1001)),
        ("mpeg2video", Fraction(5970000, 199111), Fraction(30000, 1001)),
    ],
)
def test_an_encoder_counts_in_the_nearest_clock_it_has(
    codec: str, rate: Fraction, counted: Fraction
) -> None:
    assert CODERS[codec].clock(rate) == 1 / counted


def test_what_an_encoder_refuses_is_one_line(make_film: MakeFilm, tmp_path: Path) -> None:
    film = probe_film(make_film(tmp_path / "clip.mp4", frames=2))
    coding = choose_coding(film, "mp4", "vp9", None)
    film = dataclasses.replace(film, rate=Fraction(2**31 - 1, 2**31 - 3))
    with pytest.raises(UsageError, match=r"libvpx-vp9 cannot write .*clip\.mp4.*another `codec`$"):
        SegmentEncoder(film, coding, 0, global_header=True)


@pytest.mark.parametrize(
    ("source", "codec", "sound", "target"),
    [("clip.avi", "mpeg4", "pcm_s16le", "out.mp4"), ("clip.mkv", "libx264", "flac", "out.mov")],
)
def test_sound_that_the_container_refuses_when_it_is_written_is_left_out_and_said(
    make_film: MakeFilm,
    derainer: Derainer,
    tmp_path: Path,
    source: str,
    codec: str,
    sound: str,
    target: str,
) -> None:
    film = make_film(tmp_path / source, frames=5, codec=codec, sound=sound, steady=True)
    notices = derain(film, tmp_path / target, derainer, UNCHANGED).notices
    assert f"its audio stream 1 ({sound}) is not kept" in notices
    assert len(frames_of(tmp_path / target)) == 5


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")
def test_ffprobe_agrees(make_film: MakeFilm, derainer: Derainer, tmp_path: Path) -> None:
    source, target = make_film(tmp_path / "clip.mp4", frames=60), tmp_path / "out.mp4"
    derain(source, target, derainer)
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-of", "csv=p=0"]
    command += ["-show_entries", "packet=pts"]
    said = [subprocess.run([*command, file], capture_output=True) for file in (source, target)]
    assert said[1].stderr == b""
    assert sorted(said[0].stdout.split()) == sorted(said[1].stdout.split())


def test_subtitles_and_fonts_are_kept(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    plain, source = make_film(tmp_path / "plain.mkv", frames=10, ticks=1000), tmp_path / "clip.mkv"
    with av.open(str(plain)) as film, av.open(str(source), "w") as out:
        stream = film.streams.video[0]
        copy = out.add_stream_from_template(stream)
        text = out.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        text.metadata["language"] = "deu"
        out.add_attachment("rain.ttf", "application/x-truetype-font", b"a font")
        for packet in film.demux(stream):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
        line = av.Packet(b"Es regnet")
        line.stream, line.time_base = text, Fraction(1, 1000)
        line.pts = line.dts = 40
        line.duration = 200
        out.mux(line)
    assert derain(source, tmp_path / "out.mkv", derainer, UNCHANGED).notices == ()
    with av.open(str(tmp_path / "out.mkv")) as derained:
        kinds = {stream.type: stream for stream in derained.streams}
        assert kinds["subtitle"].metadata["language"] == "deu"
        assert kinds["attachment"].metadata["filename"] == "rain.ttf"
        assert kinds["attachment"].data == b"a font"
    assert packets_of(tmp_path / "out.mkv", "subtitle") == packets_of(source, "subtitle")


def test_the_screen_of_an_hdr_film_is_kept_by_hevc(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    screen = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    source = make_film(
        tmp_path / "hdr.mp4",
        frames=3,
        codec="libx265",
        pixels="yuv420p10le",
        sound=None,
        parameters=f":master-display={screen}:max-cll=1000,400",
    )
    facts = derain(source, tmp_path / "out.mp4", derainer, UNCHANGED)
    assert facts.film.hdr is not None
    assert (facts.film.hdr.mastering, facts.film.hdr.light) == (screen, "1000,400")
    assert probe_film(tmp_path / "out.mp4").hdr == facts.film.hdr
    assert facts.notices == ()
    options = FilmOptions(strength=0, codec="h264")
    assert "not kept" in derain(source, tmp_path / "h264.mp4", derainer, options).notices[-1]


def test_damage_in_the_middle_is_said(
    make_film: MakeFilm, derainer: Derainer, tmp_path: Path
) -> None:
    whole = bytearray(make_film(tmp_path / "whole.mkv", frames=30, ticks=1000).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(400)
    (tmp_path / "clip.mkv").write_bytes(whole)
    facts = derain(tmp_path / "clip.mkv", tmp_path / "out.mkv", derainer, UNCHANGED)
    assert any(notice.startswith("is damaged: ") for notice in facts.notices)
    assert len(frames_of(tmp_path / "out.mkv")) == facts.frames
    strict = FilmOptions(strength=0, strict=True)
    with pytest.raises(UnreadableImageError, match="is damaged: "):
        derain(tmp_path / "clip.mkv", tmp_path / "strict.mkv", derainer, strict)
    assert not (tmp_path / "strict.mkv").exists()
