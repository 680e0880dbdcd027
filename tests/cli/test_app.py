"""Which word is a command, and errors as one line with an exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.version import __version__

runner = CliRunner()


def test_version():
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize("command", ["derain", "eval", "train", "models", "datasets"])
def test_every_command_has_help_for_every_option(command):
    result = runner.invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["missing.jpg"],
        ["-m", "rdmc", "missing.jpg"],
        ["--model=rdmc", "missing.jpg"],
        ["./train"],
        ["--", "train"],
        ["derain", "missing.jpg"],
    ],
)
def test_anything_that_is_no_command_is_an_input_of_derain(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, words)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert words[-1].removeprefix("./") in line
    assert "no command" not in line


@pytest.mark.parametrize(("word", "meant"), [("trian", "train"), ("evl", "eval")])
def test_a_misspelt_command_is_suggested(word, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, [word])
    assert result.exit_code == 2
    assert f"Did you mean 'derain {meant}'?" in result.stderr


def test_unknown_option_is_one_line_and_exit_2():
    result = runner.invoke(app, ["eval", "--datset", "x"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "--datset" in line


def test_a_file_named_like_options_is_told_how_to_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-lead.jpg").write_bytes(b"")
    result = runner.invoke(app, ["-lead.jpg"])
    assert result.exit_code == 2
    assert "Is '-lead.jpg' a file? Write './-lead.jpg'" in result.stderr


@pytest.mark.parametrize("words", [["--limit", "-1"], ["--limit=-1"]])
def test_an_impossible_value_is_named(words):
    result = runner.invoke(app, ["eval", *words])
    assert result.exit_code == 2
    assert "Invalid value '-1' for '--limit'" in result.stderr


def test_unknown_model_suggests_the_nearest_and_exits_4(tmp_path):
    (tmp_path / "rainy").mkdir()
    result = runner.invoke(app, ["eval", "--dataset", "rain100x", "--data-root", str(tmp_path)])
    assert result.exit_code == 4
    assert "Did you mean" in result.stderr


def test_a_bug_shows_its_traceback():
    code = (
        "import derain_cli.cli.app as a\n"
        "@a.app.command('boom')\n"
        "def boom(): raise ZeroDivisionError('a bug')\n"
        "a.app(['boom'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


def test_interrupt_exits_130():
    code = (
        "import derain_cli.cli.app as a\n"
        "@a.app.command('stop')\n"
        "def stop(): raise KeyboardInterrupt\n"
        "a.app(['stop'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "interrupted\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [["datasets", "list"], ["models", "list"], ["--version"]])
def test_full_standard_output_is_one_line_and_exit_5(derain_process, words):
    with Path("/dev/full").open("w") as full:
        child = derain_process(*words, stdout=full)
        _, stderr = child.communicate(timeout=120)
    assert child.returncode == 5
    assert stderr.decode().splitlines() == ["error: cannot write: No space left on device"]


def test_a_refusal_of_the_system_is_one_line_and_exit_5(tmp_path, photos):
    (tmp_path / "file").write_bytes(b"")
    words = ["datasets", "synth", str(photos), "--out", str(tmp_path / "file" / "pairs")]
    result = runner.invoke(app, words)
    assert result.exit_code == 5
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Not a directory" in line
