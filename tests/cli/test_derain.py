import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.cli.app import app
from derain_cli.cli.batch_report import resume_command
from derain_cli.images import Picture, write_image
from derain_cli.models import build_model

Run = Callable[..., Result]
DOCUMENTED = (
    "v event input output status model device engine precision tile scales ms width height "
    "bit_depth rain files warnings error"
)


@pytest.fixture
def run(tiny_checkpoint: Path) -> Run:
    """Runs `derain derain` with the tiny network on one CPU thread, in this process."""

    def invoke(*arguments: object, input: bytes | None = None) -> Result:
        engine = ["--model", str(tiny_checkpoint), "--device", "cpu", "--threads", "1"]
        return CliRunner().invoke(app, ["derain", *engine, *map(str, arguments)], input=input)

    return invoke


def pixels(path: Path) -> np.ndarray:
    """Every pixel of a file: fails where one is missing."""
    with Image.open(path) as image:
        return np.asarray(image)


def broken_contents(folder: Path, make_image: Callable[..., Path]) -> dict[str, bytes]:
    """Ten files that are named like images and are not, each broken in its own way."""
    whole = {
        kind: make_image(folder / f"whole.{kind}", (64, 48)).read_bytes()
        for kind in ("jpg", "png", "webp", "tif")
    }
    bomb = bytearray(whole["png"])
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    floats = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(floats, "TIFF")
    return {
        "empty.jpg": b"",
        "truncated.jpg": whole["jpg"][: len(whole["jpg"]) // 2],
        "truncated.webp": whole["webp"][: len(whole["webp"]) // 2],
        "truncated.tif": whole["tif"][: len(whole["tif"]) // 2],
        "truncated.png": whole["png"][: len(whole["png"]) // 2],
        "bomb.png": bytes(bomb),
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "noise.jpg": np.random.default_rng(0).bytes(500),
        "float.tif": floats.getvalue(),
    }


# One image


def test_one_image_beside_itself(run: Run, photos: Path) -> None:
    original = (photos / "a2.jpg").read_bytes()
    result = run(photos / "a2.jpg")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{photos / 'a2_derained.jpg'}\n"
    assert pixels(photos / "a2_derained.jpg").shape == (16, 24, 3)
    assert (photos / "a2.jpg").read_bytes() == original


def test_an_existing_result_is_kept_unless_told_otherwise(run: Run, photos: Path) -> None:
    target = photos / "a2_derained.jpg"
    target.write_bytes(b"mine")
    refused = run(photos / "a2.jpg")
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"error: {str(target)!r} exists already: --skip-existing keeps what is there, "
        "--overwrite replaces it\n"
    )
    skipped = run(photos / "a2.jpg", "--skip-existing")
    assert (skipped.exit_code, skipped.stdout) == (0, "")
    assert target.read_bytes() == b"mine"
    replaced = run(photos / "a2.jpg", "--overwrite")
    assert replaced.exit_code == 0
    assert pixels(target).shape == (16, 24, 3)


def test_from_stdin_to_stdout(run: Run, photos: Path) -> None:
    image = photos / "below" / "b.png"
    piped = run("-", "-o", "-", input=image.read_bytes())
    assert piped.exit_code == 0, piped.stderr
    run(image)
    assert piped.stdout_bytes == (photos / "below" / "b_derained.png").read_bytes()
    # Without -o an image from stdin goes to stdout, too; a file does when told to.
    assert run("-", input=image.read_bytes()).stdout_bytes == piped.stdout_bytes
    assert run(image, "-o", "-").stdout_bytes == piped.stdout_bytes


def test_format_and_quality_on_stdout(run: Run, photos: Path) -> None:
    image = photos / "below" / "b.png"
    fine, coarse = (
        run(image, "-o", "-", "-f", "jpg", "--quality", quality).stdout_bytes
        for quality in (95, 10)
    )
    assert Image.open(io.BytesIO(fine)).format == "JPEG"
    assert len(coarse) < len(fine)


def test_a_terminal_gets_no_image(
    photos: Path, tiny_checkpoint: Path, derain_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    controller, terminal = os.openpty()
    try:
        child = derain_process(
            "derain", photos / "a2.jpg", "-o", "-", "-m", tiny_checkpoint, stdout=terminal
        )
        _, stderr = child.communicate(timeout=120)
    finally:
        os.close(controller)
        os.close(terminal)
    assert child.returncode == 2
    assert b"error: the image would go to the terminal" in stderr


def test_a_closed_standard_output_is_refused(photos: Path, tiny_checkpoint: Path) -> None:
    words = [sys.executable, "-m", "derain_cli", photos / "a2.jpg", "-m", tiny_checkpoint]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *map(str, words)], capture_output=True, check=False
    )
    assert closed.returncode == 2
    assert closed.stderr.startswith(b"error: standard output is closed")
    assert not (photos / "a2_derained.jpg").exists()


def test_a_reader_that_goes_ends_the_batch_and_is_told(
    photos: Path, tiny_checkpoint: Path, derain_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = derain_process("derain", photos, "-m", tiny_checkpoint, stdout=writer)
    os.close(writer)
    _, stderr = child.communicate(timeout=120)
    assert child.returncode == 1
    assert b"the reader of the output has exited: 1 of 2 done. Go on with:" in stderr
    assert b"--skip-existing" in stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{}/gone.jpg"], 1, "error: no such file or folder: '{}/gone.jpg'\n"),
        (["{}/empty.jpg"], 1, "error: '{}/empty.jpg' is empty (0 bytes)"),
        (["{}", "-o", "{}/new.png"], 2, "error: --output '{}/new.png' would be a folder"),
        (["{}/a2.jpg", "--strength", "2"], 2, "error: Invalid value '2' for '--strength'"),
        (["{}/a2.jpg", "-f", "gif"], 2, "error: Invalid value for '--format' / '-f': 'gif' is not"),
        (["{}/a2.jpg", "--device", "cuda:99"], 2, "error: "),
        (["{}/below/*.jpg"], 3, "error: no image to derain. {}/below/*.jpg: "),
        (["{}/a2.jpg", "-m", "rdcm"], 4, "error: unknown model 'rdcm'"),
        (["{}/a2.jpg", "-o", "-", "--json"], 2, "error: --json and an image on stdout exclude"),
        (["--from-file", "{}/gone.txt"], 2, "error: cannot read the list '{}/gone.txt'"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    run: Run, photos: Path, arguments: list[str], code: int, message: str
) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    result = run(*(argument.replace("{}", str(photos)) for argument in arguments))
    assert result.exit_code == code
    last = result.stderr.splitlines(keepends=True)[-1]
    assert last.startswith(message.replace("{}", str(photos)))
    assert "Traceback" not in result.stderr


# Many images


def two_hundred(tmp_path: Path, make_image: Callable[..., Path]) -> tuple[list[Path], list[Path]]:
    """A folder `photos` with 180 images and 20 broken files, as two lists."""
    folder = tmp_path / "photos"
    good = [make_image(folder / f"{number} ü.jpg") for number in range(180)]
    bad = []
    for name, content in broken_contents(tmp_path / "whole", make_image).items():
        bad += [folder / name, folder / f"100 {name}"]
        for path in bad[-2:]:
            path.write_bytes(content)
    return good, bad


def test_180_of_200_images_and_the_names_of_20(
    run: Run, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    good, bad = two_hundred(tmp_path, make_image)
    result = run(tmp_path / "photos", "-o", f"{tmp_path}/dry/")
    assert result.exit_code == 1
    written = sorted((tmp_path / "dry").iterdir())
    assert [path.name for path in written] == sorted(path.name for path in good)
    assert all(pixels(path).shape == (16, 24, 3) for path in written)
    assert sorted(result.stdout.splitlines()) == sorted(map(str, written))
    assert "180 derained, 20 failed" in result.stderr
    assert "failed: 20 of 200" in result.stderr
    for path in bad:
        assert re.search(rf"^failed: .*{re.escape(path.name)}", result.stderr, re.MULTILINE)


def test_json_lines_as_documented(run: Run, photos: Path) -> None:
    (photos / "b.jpg").write_bytes(b"")
    (photos / "a10_derained.jpg").write_bytes(b"mine")
    result = run(photos, "--json", "--skip-existing")
    assert result.exit_code == 1
    *images, summary = map(json.loads, result.stdout.splitlines())
    assert [" ".join(line) for line in images] == [DOCUMENTED] * 3
    done, skipped, failed = images
    assert done == {
        "v": 1,
        "event": "image",
        "input": str(photos / "a2.jpg"),
        "output": str(photos / "a2_derained.jpg"),
        "status": "done",
        "model": "tiny",
        "device": "cpu",
        "engine": "torch",
        "precision": done["precision"],
        "tile": 0,
        "scales": 1,
        "ms": done["ms"],
        "width": 24,
        "height": 16,
        "bit_depth": 8,
        "rain": done["rain"],
        "files": [str(photos / "a2_derained.jpg")],
        "warnings": [],
        "error": None,
    }
    assert done["ms"] > 0
    assert done["precision"] in ("fp32", "bf16")
    assert done["rain"].keys() == {"share", "mean", "dry"}
    assert skipped["rain"] is None
    assert (skipped["files"], failed["files"]) == ([], [])
    assert (skipped["status"], skipped["width"]) == ("skipped", None)
    assert failed["status"] == "failed"
    assert "b.jpg" in failed["error"]
    counts = {key: summary[key] for key in ("v", "event", "done", "skipped", "failed")}
    assert counts == {"v": 1, "event": "summary", "done": 1, "skipped": 1, "failed": 1}


def test_dry_run_writes_nothing_and_needs_no_model(run: Run, photos: Path) -> None:
    (photos / "a10_derained.jpg").write_bytes(b"mine")
    before = sorted(photos.rglob("*"))
    result = run(photos, "-r", "--dry-run", "--skip-existing", "-m", "no-such-model")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        str(photos / "a2_derained.jpg"),
        str(photos / "below" / "b_derained.png"),
    ]
    assert sorted(photos.rglob("*")) == before
    lines = run(photos, "--dry-run", "--skip-existing", "--json").stdout.splitlines()
    assert [json.loads(line).get("status") for line in lines] == ["planned", "skipped", None]


def test_fail_fast(run: Run, photos: Path) -> None:
    (photos / "a1.jpg").write_bytes(b"")
    result = run(photos, "--fail-fast")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "1 failed, 2 not started" in result.stderr


def test_quiet_and_verbose(run: Run, photos: Path) -> None:
    assert run(photos, "-q").stderr == ""
    told = run(photos, "-v", "--overwrite").stderr
    assert f"{photos / 'a2.jpg'}: {photos / 'a2_derained.jpg'} (24x16, 8 bit, whole, " in told
    assert f"left out: {photos / 'a2_derained.jpg'}: a result of this program" in told


def test_the_same_notice_is_told_once_and_counted(run: Run, tmp_path: Path) -> None:
    for name in ("a.gif", "b.gif", "c.gif"):
        Image.new("P", (8, 8)).save(tmp_path / name)
    notice = "GIF is only read: written as PNG"
    lines = run(tmp_path).stderr.splitlines()
    assert lines[:2] == [
        f"{tmp_path / 'a.gif'}: {notice}",
        f"{notice}: 3 images (-v names them)",
    ]
    told = run(tmp_path, "-v", "--overwrite").stderr
    assert told.count(notice) == 3


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("deep.png", "16 bits per channel are reduced to 8: JPEG holds no more"),
        ("opaque.png", "the alpha channel, opaque everywhere, is dropped: JPEG has none"),
    ],
)
def test_what_the_format_loses_is_told(run: Run, tmp_path: Path, name: str, lost: str) -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 9, 3)).astype(np.uint16)
    write_image(Picture(deep), tmp_path / "deep.png")
    Image.new("RGBA", (9, 8), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    image = tmp_path / name
    result = run(image, "-o", tmp_path / "x.jpg", "--json")
    assert f"{image}: {lost}\n" in result.stderr
    assert json.loads(result.stdout.splitlines()[0])["warnings"] == [lost]
    assert lost in run(image, "-o", "-", "-f", "jpg").stderr
    assert run(image, "-o", tmp_path / "x.png").stderr.count(lost) == 0


def test_images_of_one_size_together_are_as_alone(
    run: Run, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for number in range(7):
        make_image(tmp_path / "in" / f"{number:0{number + 1}}.png", (24 + 8 * (number // 5), 16))
    for size in (1, 3):
        result = run(tmp_path / "in", "-o", f"{tmp_path}/{size}/", "--batch-size", size)
        assert result.exit_code == 0, result.stderr
    for alone in (tmp_path / "1").iterdir():
        together = pixels(tmp_path / "3" / alone.name).astype(int)
        # Convolutions of several images may add up in another order.
        assert np.abs(together - pixels(alone)).max() <= 1


def test_layers_and_list_and_suffix(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{photos}/a2.jpg\n{photos}/below\n", encoding="utf-8")
    arguments = ["--from-file", tmp_path / "list.txt", "--suffix", "_dry", "-f", "webp"]
    result = run(*arguments, "--save-rain", "--compare")
    assert result.exit_code == 0, result.stderr
    made = {path.name for path in photos.rglob("*.webp")}
    stems = [f"{stem}_dry{layer}.webp" for stem in ["a2", "b"] for layer in LAYERS]
    assert made == set(stems)


LAYERS = ("", "_rain", "_compare")


@pytest.mark.parametrize(
    "name",
    ["日本 語.jpg", "with space.jpg", "-r.jpg", "[red]a[/red].jpg", ":smile:.jpg", "%s{0}.jpg"],
)
def test_names_are_only_names(
    run: Run,
    tmp_path: Path,
    make_image: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    make_image(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    result = run("-v", "--", name, "broken.jpg")
    target = name.replace(".jpg", "_derained.jpg")
    assert result.stdout == f"{target}\n"
    assert f"{name}: {target} (" in result.stderr
    assert Path(target).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_text_comes_out_as_it_went_in(
    run: Run, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    make_image(tmp_path / "p.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    result = run("-v", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == os.fsencode(tmp_path) + b"/\xff_derained.png\n"
    lines = run(tmp_path, "--json", "--overwrite").stdout.splitlines()
    assert json.loads(lines[0])["input"] == os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")


# Ends


def many(folder: Path, make_image: Callable[..., Path], count: int) -> Path:
    for number in range(count):
        make_image(folder / f"{number}.png", (96, 64))
    return folder


def wait_for_first_file(folder: Path, child: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Until a whole file is there: its temporary, seen first now and then, is not one."""
    end = time.monotonic() + seconds
    while all(path.suffix == ".tmp" for path in folder.glob("*")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)


def test_a_killed_batch_is_completed_by_a_second_run(
    run: Run,
    tmp_path: Path,
    tiny_checkpoint: Path,
    make_image: Callable[..., Path],
    derain_process: Callable[..., subprocess.Popen[bytes]],
) -> None:
    good, _ = two_hundred(tmp_path, make_image)
    dry = tmp_path / "dry"
    arguments = [tmp_path / "photos", "-o", f"{dry}/"]
    child = derain_process("derain", *arguments, "-m", tiny_checkpoint, "--threads", 1)
    # A random moment once files appear.
    wait_for_first_file(dry, child)
    time.sleep(random.uniform(0, 0.3))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    whole = [pixels(path) for path in dry.glob("*.jpg")]
    assert len(whole) < len(good)
    result = run(*arguments, "--skip-existing")
    assert result.exit_code == 1
    assert f"{180 - len(whole)} derained, {len(whole)} skipped" in result.stderr
    assert {path.name for path in dry.iterdir()} == {path.name for path in good}
    assert all(pixels(path).shape == (16, 24, 3) for path in dry.iterdir())


def test_ctrl_c_keeps_whole_files_and_says_how_to_go_on(
    tmp_path: Path,
    tiny_checkpoint: Path,
    make_image: Callable[..., Path],
    derain_process: Callable[..., subprocess.Popen[bytes]],
) -> None:
    folder, dry = many(tmp_path / "in", make_image, 100), tmp_path / "dry"
    child = derain_process("derain", folder, "-o", f"{dry}/", "-m", tiny_checkpoint)
    wait_for_first_file(dry, child)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    written = sorted(map(str, dry.iterdir()))
    assert 0 < len(written) < 100
    assert sorted(stdout.decode().splitlines()) == written
    for path in written:
        pixels(path)
    told = stderr.decode()
    assert f"interrupted: {len(written)} of 100 done" in told
    assert "Traceback" not in told
    # What is told can be typed as it is: it does the rest.
    command = shlex.split(told.splitlines()[-1])
    assert command[:3] == ["derain", "--skip-existing", str(folder)]
    child = derain_process(*command[1:])
    stdout, stderr = child.communicate(timeout=120)
    assert child.returncode == 0, stderr
    assert len(list(dry.iterdir())) == 100
    assert len(stdout.splitlines()) == 100 - len(written)


@pytest.mark.parametrize(
    ("typed", "overwrite", "told"),
    [
        (["a b.jpg", "-r"], False, "derain --skip-existing 'a b.jpg' -r"),
        (["derain", "a.jpg"], False, "derain --skip-existing a.jpg"),
        (["derain", "train"], False, "derain --skip-existing train"),
        (["--skip-existing", "in"], False, "derain --skip-existing in"),
        (["derain", "train", "--skip-existing"], False, "derain derain train --skip-existing"),
        (["--overwrite", "--", "-a.jpg"], True, "derain --overwrite -- -a.jpg"),
    ],
)
def test_the_resume_command_is_what_one_would_type(
    typed: list[str], *, overwrite: bool, told: str
) -> None:
    assert resume_command(typed, overwrite=overwrite) == told
    assert resume_command(shlex.split(told)[1:], overwrite=overwrite) == told


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_run_quietly(
    tmp_path: Path,
    tiny_checkpoint: Path,
    make_image: Callable[..., Path],
    derain_process: Callable[..., subprocess.Popen[bytes]],
) -> None:
    folder = many(tmp_path / "in", make_image, 100)
    child = derain_process("derain", folder, "-m", tiny_checkpoint)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=60) == 1
    assert b"Traceback" not in child.stderr.read()
    assert len(list(folder.glob("*_derained.png"))) < 100
    child.stderr.close()


# The command itself


def test_every_option_has_a_help_text() -> None:
    command = typer.main.get_command(app).commands["derain"]  # type: ignore[attr-defined]
    options = {name: option.help for option in command.params for name in option.opts}
    documented = (
        "-o --output -m --model --suffix -f --format --quality -r --recursive --overwrite "
        "--skip-existing -d --device --precision -t --tile --tile-overlap --strength --save-rain "
        "--compare -j --workers --batch-size --threads -n --dry-run --fail-fast --json -q --quiet "
        "-v --verbose --compile --from-file --max-pixels"
    )
    assert set(documented.split()) <= set(options)
    assert all(options.values())


def test_the_command_is_defined_without_heavy_imports() -> None:
    code = (
        "import sys, derain_cli.cli.derain; "
        "print([m for m in ('torch', 'cv2', 'numpy', 'PIL', 'rich.progress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_dry_photo_is_left_byte_for_byte_and_said(
    run: Run, tmp_path: Path, make_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that change nothing: every photo is dry to them."""
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    for parameter in model.parameters():
        parameter.data.zero_()
    save_checkpoint(tmp_path / "nothing.safetensors", model, "rdmc", {})
    photo = make_image(tmp_path / "photo.jpg")
    arguments = [photo, "-m", tmp_path / "nothing.safetensors", "--json", "--overwrite"]
    result = run(*arguments, "--leave-dry")
    line = json.loads(result.stdout.splitlines()[0])
    assert line["rain"] == {"share": 0.0, "mean": 0.0, "dry": True}
    assert line["files"] == [line["output"]]
    assert line["precision"] in ("fp32", "bf16")
    assert line["scales"] == 1
    assert "little rain found (0 %): copied unchanged" in line["warnings"]
    assert Path(line["output"]).read_bytes() == photo.read_bytes()
    run(*arguments)
    assert Path(line["output"]).read_bytes() != photo.read_bytes()
    other = run(*arguments, "--leave-dry", "-f", "png")
    png = Path(json.loads(other.stdout.splitlines()[0])["output"])
    np.testing.assert_array_equal(pixels(png), pixels(photo))


def test_the_rain_found_does_not_depend_on_how_much_of_it_is_removed(
    run: Run, photos: Path, tiny_checkpoint: Path
) -> None:
    arguments = [photos / "a2.jpg", "-m", tiny_checkpoint, "--leave-dry", "--json", "--overwrite"]
    lines = [
        json.loads(run(*arguments, "--strength", strength).stdout.splitlines()[0])
        for strength in (1, 0.5, 0)
    ]
    whole, half, none = (line["rain"] for line in lines)
    assert whole["share"] > 0
    assert half["share"] == pytest.approx(whole["share"], abs=0.02)
    assert half["mean"] == pytest.approx(whole["mean"], rel=0.05)
    assert none is None  # no network has run


@pytest.mark.parametrize("words", [["-f", "bmp"], ["-o", "{}/dry.bmp"]])
def test_bmp_is_written_by_either_option(
    run: Run, photos: Path, tmp_path: Path, tiny_checkpoint: Path, words: list[str]
) -> None:
    given = (word.format(tmp_path) for word in words)
    result = run(photos / "a2.jpg", "-m", tiny_checkpoint, *given)
    assert result.exit_code == 0
    (written,) = tmp_path.rglob("*.bmp")
    with Image.open(written) as opened:
        assert opened.format == "BMP"


def test_a_reader_that_goes_is_not_told_to_skip_what_is_there(
    photos: Path, tiny_checkpoint: Path, derain_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = derain_process(
        "derain", photos / "a2.jpg", "-m", tiny_checkpoint, "-o", "-", stdout=writer
    )
    os.close(writer)
    _, stderr = child.communicate(timeout=120)
    assert child.returncode == 1
    assert b"the result was not written whole" in stderr
    assert b"--skip-existing" not in stderr
