"""Twenty seconds of 1280x720 with sound: `python tests/benchmarks/film_kept_whole.py`.

A film is made with PyAV and derained by the command with a tiny network: once in one go, once
killed (SIGKILL) in the middle and started again. Both results must be equal byte by byte, every
time and every packet of the sound must be the input's, which `ffmpeg` and `ffprobe` say too where
they are installed, and the memory must not grow with the film.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.models.rdmc import Rdmc, RdmcConfig
from derain_cli.video.encoding import SEGMENT

WIDTH, HEIGHT = 1280, 720
TICKS = 12800


def make_film(path: Path, seconds: int, rate: int) -> None:
    """A camera that pans, rain that differs by frame, uneven frame times, and a tone."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (60, 100, 3)).astype(np.uint8)
    scene = cv2.resize(small, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        film.codec_context.time_base = film.time_base = Fraction(1, TICKS)
        voice = out.add_stream("aac", rate=48000)
        ticks = 0
        for index in range(seconds * rate):
            view = scene[index : index + HEIGHT, 2 * index : 2 * index + WIDTH]
            streaks = rng.random((HEIGHT // 16, WIDTH)) > 0.98
            rain = 80 * np.repeat(streaks, 16, axis=0)[..., None].astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(cv2.add(view, np.repeat(rain, 3, axis=2)))
            frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
            ticks += TICKS // rate + (index % 3 - 1) * (TICKS // rate // 10)
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
        for start in range(0, seconds * 48000, 1024):
            wave = 0.2 * np.sin((start + np.arange(1024)) / 20).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            out.mux(voice.encode(sound))
        out.mux(voice.encode(None))


def facts_of(path: Path) -> tuple[list[Fraction], list[bytes]]:
    """Times of the frames, and the packets of the sound."""
    times, sound = [], []
    with av.open(str(path)) as film:
        for packet in film.demux():
            if packet.size and packet.stream.type == "video":
                times.append(packet.pts * packet.time_base)
            elif packet.size and packet.stream.type == "audio":
                sound.append(bytes(packet))
    return sorted(times), sound


def as_ffmpeg_says(path: Path) -> str:
    """Digests of the decoded sound and of the times of the frames."""
    sound = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:a", "-f", "md5", "-"]
    times = ["ffprobe", "-v", "error", "-select_streams", "v", "-of", "csv=p=0", path]
    digest = subprocess.run(sound, check=True, capture_output=True).stdout.decode().strip()
    shown = subprocess.run(
        [*times, "-show_entries", "packet=pts_time"], check=True, capture_output=True
    ).stdout
    moments = b"\n".join(sorted(shown.split()))
    return f"{digest}, {len(moments.split())} times {hashlib.md5(moments).hexdigest()}"


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a process; 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def derain(source: Path, target: Path, network: str, *, kill_after: int = 0) -> list[float]:
    """Run the command and watch its memory; end it when so many segments are there."""
    command = [sys.executable, "-m", "derain_cli", str(source), "-o", str(target), "-m", network]
    process = subprocess.Popen([*command, "--threads", "1", "--device", "cpu", "-q"])
    memory = []
    while process.poll() is None:
        memory.append(megabytes(process))
        segments = len(list(target.parent.glob(".derain-*.film/*.segment")))
        if kill_after and segments >= kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)
    return memory


def main() -> None:
    """Print what was measured, line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--model", help="default: a tiny network of chance")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, network = Path(name), options.model
        if not network:
            torch.manual_seed(0)
            network = str(folder / "tiny.safetensors")
            tiny = Rdmc(RdmcConfig(widths=(2, 2, 2, 2, 2), stages=1)).eval()
            save_checkpoint(Path(network), tiny, "rdmc", {"recipe": "none"})
        source = folder / "clip.mp4"
        make_film(source, options.seconds, options.rate)
        began = time.perf_counter()
        memory = derain(source, folder / "whole.mp4", network)
        print(f"{options.seconds} s of film in {time.perf_counter() - began:.0f} s", flush=True)
        third = len(memory) // 3
        early, late = max(memory[third : 2 * third]), max(memory[2 * third :])
        print(f"memory: at most {early:.0f} MB in the middle third, {late:.0f} MB in the last")
        killed_at = options.seconds * options.rate // SEGMENT // 2
        derain(source, folder / "resumed.mp4", network, kill_after=max(1, killed_at))
        assert not (folder / "resumed.mp4").exists(), "the run was not killed in time"
        derain(source, folder / "resumed.mp4", network)
        whole, resumed = (folder / "whole.mp4").read_bytes(), (folder / "resumed.mp4").read_bytes()
        print(f"killed and resumed: {'equal' if whole == resumed else 'DIFFERENT'}")
        rainy, derained = facts_of(source), facts_of(folder / "whole.mp4")
        print(f"times of {len(rainy[0])} frames: {'equal' if rainy[0] == derained[0] else 'NOT'}")
        print(f"{len(rainy[1])} packets of sound: {'equal' if rainy[1] == derained[1] else 'NOT'}")
        if shutil.which("ffmpeg") and shutil.which("ffprobe"):
            for film in (source, folder / "whole.mp4"):
                print(f"{film.name}: {as_ffmpeg_says(film)}")


if __name__ == "__main__":
    main()
