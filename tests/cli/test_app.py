"""Which word is a command, and errors as one line with an exit code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.cli.app import app
from derain_cli.cli.wording import in_flags
from derain_cli.errors import ConfigError
from derain_cli.training.configs.train import TrainConfig
from derain_cli.version import __version__
from tests.children import run

runner = CliRunner()


def test_version():
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, __version__)


def commands_below(group, words=()):
    """The words of every command, nested ones included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_below(command, (*words, name))
        else:
            yield (*words, name)


COMMANDS = [*commands_below(typer.main.get_command(app))]


@pytest.mark.parametrize("words", [(), ("models",), ("datasets",), *COMMANDS], ids=" ".join)
def test_help_is_short_to_ask_for_and_names_types_in_words(words):
    result = runner.invoke(app, [*words, "-h"], env={"COLUMNS": "200"})
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Usage: derain" in result.stdout.replace("root", "derain")
    assert not re.search(r"<(bool|int|float|str|path|list)|\[x|\[default: \(", result.stdout)


def test_help_of_the_group_shows_its_commonest_use_and_the_default_weights():
    result = runner.invoke(app, ["-h"], env={"COLUMNS": "80"})
    (usage, *_) = [line for line in result.stdout.splitlines() if "Usage" in line]
    assert usage.split()[2:] == ["[OPTIONS]", "IMAGES..."]
    assert DEFAULT_WEIGHTS in result.stdout
    assert runner.invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout == result.stdout


def test_help_of_derain_names_the_default_weights_and_ranges():
    text = runner.invoke(app, ["derain", "-h"], env={"COLUMNS": "200"}).stdout
    assert f"[default: {DEFAULT_WEIGHTS}, the best for real photos]" in text
    assert re.search(r"--quality +1\.\.100 ", text)
    assert re.search(r"--overwrite +Replace", text)


def test_help_loads_nothing_heavy():
    heavy = "{'torch', 'cv2', 'numpy', 'PIL', 'huggingface_hub'}"
    code = (
        "import sys, derain_cli.cli.app as a\n"
        "a.app(['-h'], standalone_mode=False)\n"
        "a.app(['train', '-h'], standalone_mode=False)\n"
        f"print({heavy} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_errors_name_fields_in_the_library_and_flags_on_the_command_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^`batch_size` is 0; it must be above 0$"):
        TrainConfig(batch_size=0)
    result = runner.invoke(app, ["train", "--batch-size", "0", "--out", str(tmp_path / "run")])
    assert result.stderr == "error: --batch-size is 0; it must be above 0\n"
    result = runner.invoke(app, ["train", "--arch", "rdmc-rain100l", "--out", str(tmp_path)])
    assert result.stderr.startswith("error: --arch is an architecture")


@pytest.mark.parametrize(
    ("message", "flags", "words"),
    [
        ("give `loss`", {"loss": "--loss"}, "give --loss"),
        ("see `derain search`", {"search": "--search"}, "see `derain search`"),
        ("`unknown` stays", {"loss": "--loss"}, "`unknown` stays"),
    ],
)
def test_only_options_of_the_command_become_flags(message, flags, words):
    assert in_flags(message, flags) == words


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


# `-d` takes a value: the second name is a device, and no input is left.
@pytest.mark.parametrize("name", ["-lead.jpg", "-dash.jpg"])
def test_a_file_named_like_options_is_told_how_to_be_given(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"")
    result = runner.invoke(app, [name])
    assert result.exit_code == 2
    assert f"Is '{name}' a file? Write './{name}'" in result.stderr


def test_a_file_after_two_dashes_was_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-dash.jpg").write_bytes(b"")
    result = runner.invoke(app, ["derain", "-m", "no-such-model", "--", "-dash.jpg"])
    assert "unknown model 'no-such-model'" in result.stderr
    assert "Is '-dash.jpg' a file" not in result.stderr


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
        "from derain_cli.cli import app, manual\n"
        "def boom(): raise ZeroDivisionError('a bug')\n"
        "manual.manual = boom\n"
        "app.app(['manual'])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


def test_a_command_loads_no_other_command() -> None:
    code = (
        "import sys\n"
        "from derain_cli.cli.app import app\n"
        "app(['derain', '--help'], standalone_mode=False)\n"
        "from derain_cli.cli.commands import COMMANDS\n"
        "names = [f'derain_cli.cli.{module}' for module, _ in COMMANDS.values()]\n"
        "print(*[name for name in names if name in sys.modules], file=sys.stderr)"
    )
    # A new process: a forked one has all modules already.
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["derain_cli.cli.derain"]


@pytest.mark.parametrize("group", ["models", "datasets"])
def test_completion_is_installed_for_the_program_not_for_a_group(group: str) -> None:
    assert "--install-completion" in runner.invoke(app, ["--help"]).output
    assert "--install-completion" not in runner.invoke(app, [group, "--help"]).output


def test_interrupt_exits_130():
    code = (
        "from derain_cli.cli import app, manual\n"
        "def stop(): raise KeyboardInterrupt\n"
        "manual.manual = stop\n"
        "app.app(['manual'])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
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
