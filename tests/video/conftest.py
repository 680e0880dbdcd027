"""Small films, made with PyAV."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain_cli.inference.derainer import Derainer

av = pytest.importorskip("av", reason="the extra `video` is not installed")

MakeFilm = Callable[..., Path]
WIDTH, HEIGHT, FRAMES = 64, 48, 72
TICKS = 12800


@pytest.fixture(scope="package")
def derainer(tiny_checkpoint: Path) -> Derainer:
    return Derainer.load(str(tiny_checkpoint), device="cpu", threads=1)


def rainy_frame(index: int) -> np.ndarray:
    """A slope that drifts to the right, and streaks that differ by frame."""
    rng = np.random.default_rng(index)
    slope = np.linspace(40, 160, WIDTH)[None, :, None] + 0.5 * index
    streaks = np.repeat(rng.random((HEIGHT // 8, WIDTH)) > 0.95, 8, axis=0)
    return np.clip(slope + 70 * streaks[..., None] + np.zeros(3), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_film() -> MakeFilm:
    """Writes a film of uneven frame times, with sound, chapters, a title and colour tags."""

    def make(
        path: Path,
        frames: int = FRAMES,
        codec: str = "libx264",
        pixels: str = "yuv420p",
        sound: str | None = "aac",
        rotation: int = 0,
        steady: bool = False,
        ticks: int = TICKS,
        parameters: str = "",
    ) -> Path:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
            stream.codec_context.time_base = stream.time_base = Fraction(1, ticks)
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = 1
            context.color_range = 1
            if codec == "libx265":
                context.options = {"x265-params": "log-level=none" + parameters}
            if rotation:
                stream.set_display_rotation(rotation)
            voice = out.add_stream(sound, rate=48000) if sound else None
            out.metadata["title"] = "A wet day"
            titles = {"title": "The shower"}
            chapter = {"id": 1, "start": 0, "end": 1, "time_base": Fraction(1), "metadata": titles}
            out.set_chapters([chapter])
            end = _write_frames(out, stream, frames, pixels, steady=steady, ticks=ticks)
            if voice is not None:
                _write_sound(out, voice, end)
        return path

    return make


def _write_frames(
    out: Any, stream: Any, frames: int, pixels: str, *, steady: bool, ticks: int
) -> float:
    time = 0
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(rainy_frame(index), format="rgb24")
        frame = frame.reformat(format=pixels, dst_colorspace=1, dst_color_range=1)
        frame.pts, frame.time_base = time, Fraction(1, ticks)
        time += ticks // 25 + (0 if steady else index % 3 * (ticks // 100))
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
    return time / ticks


def _write_sound(out: Any, voice: Any, seconds: float) -> None:
    size = voice.codec_context.frame_size or 1024
    for start in range(0, int(seconds * 48000), size):
        wave = np.sin((start + np.arange(size)) / 20).astype(np.float32)[None] * 0.2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(voice.encode(frame))
    out.mux(voice.encode(None))
