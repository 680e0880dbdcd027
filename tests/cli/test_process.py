"""The process around the command: closed streams, odd consoles, signals, folders that are gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.children import Child, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX processes")
DERAIN = [sys.executable, "-m", "derain_cli"]


def derain(
    *words: object, close: int | None = None, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, which may lack one of its standard streams."""
    return run(
        [*DERAIN, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        preexec_fn=None if close is None else lambda: os.close(close),
        check=False,
        timeout=120,
    )


def test_a_closed_stderr_does_not_send_errors_to_stdout(tmp_path: Path) -> None:
    done = derain(tmp_path / "missing.png", "-o", "-", close=2)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("words", [("-", "-o", "-"), ("--from-file", "-", "-n")])
def test_a_closed_stdin_is_one_line(words: tuple[str, ...]) -> None:
    done = derain(*words, close=0)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard input is closed")
    assert done.stdout == b""


def test_a_closed_stdout_is_one_line(photos: Path) -> None:
    done = derain(photos, "-o", f"{photos}/../dry/", close=1)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard output is closed")


def test_a_deleted_working_folder_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = f"mkdir '{gone}'; cd '{gone}'; rmdir '{gone}'; exec \"$@\""
    command = ["sh", "-c", script, "sh", *DERAIN, "x.png", "-n"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == b"error: the current folder was deleted: change to another one\n"


def test_a_name_that_the_console_cannot_encode_ends_no_batch(
    make_image: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    names = ["a.png", "b \u2614 \u96e8.png", "z.png"]
    for name in names:
        make_image(tmp_path / "in" / name, (8, 8))
    words = (tmp_path / "in", "-o", f"{tmp_path}/out/", "-m", tiny_checkpoint, "-v")
    done = derain(*words, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split("\n")[:-1] == [str(tmp_path / "out" / name) for name in names]


def test_escape_sequences_in_names_do_not_reach_the_terminal(
    make_image: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    name = "\x1b]0;owned\x07\x1b[2J.png"
    make_image(tmp_path / "in" / name, (8, 8))
    (tmp_path / "in" / f"x{name}").write_bytes(b"no image")
    done = derain(tmp_path / "in", "-o", f"{tmp_path}/out/", "-m", tiny_checkpoint, "-v")
    assert b"\x1b" not in done.stderr
    assert b"\\x1b[2J.png" in done.stderr
    done = derain(tmp_path / "in" / "\x1b[2Jmissing.png")
    assert b"\x1b" not in done.stderr


def test_messages_have_a_limit(tmp_path: Path) -> None:
    done = derain("x" * 100_000)
    assert done.stderr.startswith(b"error: 'xxx")
    assert len(done.stderr) < 3000


def test_an_ignored_ctrl_c_stays_ignored(
    make_image: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    for number in range(30):
        make_image(tmp_path / "in" / f"{number}.png", (60, 50))
    command = [*DERAIN, str(tmp_path / "in"), "-o", f"{tmp_path}/out/", "-m", str(tiny_checkpoint)]
    child = Child(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    child.stdout.readline()  # the first result
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=120)
    assert child.returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == 30


def test_dev_stdout_is_standard_output(photos: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    image = next(photos.glob("*.png"), None) or next(photos.iterdir())
    done = derain(image, "-o", "/dev/stdout", "-m", tiny_checkpoint, "-f", "png")
    assert done.stdout.startswith(b"\x89PNG"), done.stderr
    assert Path("/dev/stdout").is_symlink()
    for place in ("/dev/null", "/dev/rain.png", "/proc/self/rain.png", "/dev/"):
        done = derain(image, "-o", place, "-m", tiny_checkpoint)
        assert done.returncode == 2
        assert b"is a device: name a file or a folder" in done.stderr


def test_an_endless_list_is_refused() -> None:
    done = derain("--from-file", "/dev/zero", "-n")
    assert done.returncode == 2
    assert b"'/dev/zero' is longer than 64 MiB, too long for a list of paths" in done.stderr


def test_names_that_differ_in_unicode_form_alone(
    make_image: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("caf\u00e9.png", "cafe\u0301.png"):
        make_image(tmp_path / "in" / name, (8, 8))
    if len(list((tmp_path / "in").iterdir())) == 1:
        pytest.skip("this disk holds them to be one")
    done = derain(tmp_path / "in", "-o", f"{tmp_path}/out/", "-n")
    assert done.returncode == 2
    assert b"('caf\\xe9.png' and 'cafe\\u0301.png' differ in Unicode form alone" in done.stderr


def test_strict_fails_what_is_damaged(
    make_image: Callable[..., Path], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    path = make_image(tmp_path / "a.png", (30, 20))
    data = bytearray(path.read_bytes())
    data[-13] ^= 1  # of the last checksum of the pixels
    path.write_bytes(data)
    words = (path, "-o", tmp_path / "b.png", "-m", tiny_checkpoint)
    strict = derain(*words, "--strict")
    assert (strict.returncode, (tmp_path / "b.png").exists()) == (1, False)
    assert b"may be damaged" in strict.stderr
    lenient = derain(*words, "--json")
    assert lenient.returncode == 0
    assert b'"warnings": ["may be damaged: the checksum of its pixels is wrong"]' in lenient.stdout


def test_a_photo_that_is_standard_input_is_not_replaced(photos: Path) -> None:
    photo = photos / "a2.jpg"
    before = photo.read_bytes()
    command = [*DERAIN, "-", "-o", str(photo), "--overwrite"]
    with photo.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=False, timeout=120)
    assert done.returncode == 2
    assert b"would replace the input" in done.stderr
    assert photo.read_bytes() == before
