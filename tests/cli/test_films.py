"""`derain` with films and animations, from the command line to the files."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from derain_cli.cli.app import app
from derain_cli.whole_files import sha256_of

av = pytest.importorskip("av", reason="the extra `video` is not installed")

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_checkpoint: Path) -> Run:
    """Runs `derain derain` with the tiny network on one CPU thread, in this process."""

    def invoke(*arguments: object, input: bytes | None = None) -> Result:
        engine = ["--model", str(tiny_checkpoint), "--device", "cpu", "--threads", "1"]
        return CliRunner().invoke(app, ["derain", *engine, *map(str, arguments)], input=input)

    return invoke


def make_film(path: Path, frames: int = 6, side: int = 32) -> Path:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for index in range(frames):
            pixels = np.random.default_rng(index).integers(0, 255, (side, side, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frame_count(source: object) -> int:
    with av.open(source) as film:
        return sum(1 for _ in film.decode(video=0))


def make_gif(path: Path) -> Path:
    images = [Image.new("RGB", (20, 16), (60 * index, 90, 30)) for index in range(3)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=50, loop=0)
    return path


def lines_of(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_photos_and_films_in_one_batch(run: Run, photos: Path) -> None:
    film = make_film(photos / "clip.mp4")
    original = film.read_bytes()
    (photos / "code.ts").write_text("export const wet = true;\n")
    result = run(photos, "--json")
    assert result.exit_code == 0, result.stderr
    first, second, moving, summary = lines_of(result)
    assert [first["event"], second["event"], moving["event"]] == ["image", "image", "film"]
    assert moving["output"] == str(photos / "clip_derained.mp4")
    assert (moving["frames"], moving["resumed"], moving["codec"]) == (6, 0, "h264")
    assert moving["flicker"]["output"] <= moving["flicker"]["input"]  # type: ignore[index]
    assert summary["done"] == 3
    assert frame_count(str(photos / "clip_derained.mp4")) == 6
    assert film.read_bytes() == original
    again = run(photos, "--json", "--skip-existing")
    assert [line.get("status") for line in lines_of(again)[:3]] == ["skipped"] * 3


def test_a_manifest_has_the_digests_of_films_and_animations(run: Run, tmp_path: Path) -> None:
    make_film(tmp_path / "wet/clip.mp4")
    make_gif(tmp_path / "wet/moving.gif")
    manifest = tmp_path / "run.jsonl"
    done = run(
        tmp_path / "wet", "-o", f"{tmp_path}/dry/", "--frames", "all", "--manifest", manifest
    )
    assert done.exit_code == 0, done.stderr
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert len(records) == 2
    for record in records:
        assert record["sha256"] == sha256_of(Path(record["output"]))


def test_a_film_goes_where_photos_would(run: Run, tmp_path: Path) -> None:
    film = make_film(tmp_path / "clip.mp4")
    planned = run(film, "-o", f"{tmp_path}/dry/", "--dry-run")
    assert planned.stdout == f"{tmp_path / 'dry' / 'clip.mp4'}\n"
    assert not (tmp_path / "dry").exists()
    assert run(film, "-o", tmp_path / "other.mkv").exit_code == 0
    assert frame_count(str(tmp_path / "other.mkv")) == 6
    refused = run(film, "-o", tmp_path / "still.png")
    assert refused.exit_code == 2
    assert "is the result of a film, which must end in one of .3gp, .avi" in refused.stderr
    exists = run(film, "-o", tmp_path / "other.mkv")
    assert exists.exit_code == 2
    assert "exists already" in exists.stderr


def test_films_through_pipes(run: Run, tmp_path: Path) -> None:
    film = make_film(tmp_path / "clip.mp4")
    piped = run("-", "-o", "-", input=film.read_bytes())
    assert piped.exit_code == 0, piped.stderr
    assert frame_count(io.BytesIO(piped.stdout_bytes)) == 6
    assert run("-", "-o", tmp_path / "out.mkv", input=film.read_bytes()).exit_code == 0
    assert frame_count(str(tmp_path / "out.mkv")) == 6
    wrong = run("-", "-o", tmp_path / "out.png", input=film.read_bytes())
    assert wrong.exit_code == 2
    assert "does not end like a film" in wrong.stderr


def test_without_the_extra_a_film_is_one_line(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(photos / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    alone = run(film)
    assert alone.exit_code == 2
    assert alone.stderr == (
        f"error: {str(film)!r} is a film; to read it: pip install 'derain-cli[video]'\n"
    )
    mixed = run(photos)
    assert mixed.exit_code == 1
    assert (photos / "a2_derained.jpg").exists()
    assert mixed.stderr.count("pip install 'derain-cli[video]'") == 1


@pytest.mark.parametrize("name", ["wet.gif", "wet.webp", "wet.png"])
def test_all_images_of_an_animation(run: Run, tmp_path: Path, name: str) -> None:
    source = make_gif(tmp_path / name)
    result = run(source, "--frames", "all", "--json")
    assert result.exit_code == 0, result.stderr
    line = lines_of(result)[0]
    assert (line["event"], line["frames"], line["seconds"]) == ("film", 3, 0.15)
    with Image.open(tmp_path / f"wet_derained{source.suffix}") as image:
        assert image.n_frames == 3
        assert image.size == (20, 16)


def test_the_first_image_alone_by_default(run: Run, tmp_path: Path) -> None:
    source = make_gif(tmp_path / "wet.gif")
    assert run(source).exit_code == 0
    with Image.open(tmp_path / "wet_derained.png") as image:
        assert getattr(image, "n_frames", 1) == 1
    # A format that does not move holds the first image, whatever --frames says.
    assert run(source, "--frames", "all", "-o", tmp_path / "still.jpg").exit_code == 0
    with Image.open(tmp_path / "still.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "stop", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stopped_film_leaves_no_file_and_goes_on(
    derain_process: Callable[..., subprocess.Popen[bytes]],
    tiny_checkpoint: Path,
    tmp_path: Path,
    stop: signal.Signals,
) -> None:
    film, target = make_film(tmp_path / "clip.mp4", frames=140, side=48), tmp_path / "out.mp4"
    engine = ["--model", tiny_checkpoint, "--device", "cpu", "--threads", "1"]
    process = derain_process(film, "-o", target, *engine)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".derain-*.film/*.segment")):
        assert time.monotonic() < deadline, "no segment was finished"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(stop)
    stderr = process.communicate(timeout=60)[1].decode()
    assert not target.exists()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "0 of 1 done (finished frames of the current film are kept). Go on with:" in stderr
    again = CliRunner().invoke(
        app, ["derain", str(film), "-o", str(target), "--json", *map(str, engine)]
    )
    assert again.exit_code == 0, again.stderr
    line = lines_of(again)[0]
    assert line["resumed"] >= 48  # type: ignore[operator]
    assert line["frames"] == frame_count(str(target)) == 140
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]
