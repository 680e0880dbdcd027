"""`derain search` from the command line, and `derain train --connections` with what it found."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.app import app
from derain_cli.cli.search import _say_what_was_found
from derain_cli.cli.train import config_of, given_options
from derain_cli.connections.file import read_connections
from derain_cli.training.trainer import TrainResult

runner = CliRunner()
TINY = ["--model-option", "widths=[2,2,2,2,2]", "--model-option", "dilations=[1]"]
TINY += ["--model-option", "stages=1"]
QUICK = ["--device", "cpu", "--batch-size", "2", "--crop", "32", "--held-out", "1", "--steps", "2"]
QUICK += ["--images", "0"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pairs"
    rng = np.random.default_rng(0)
    for side in ("rainy", "clean"):
        (folder / side).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 255, (36, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{index}.png")
    return folder


def run(*words: object):
    return runner.invoke(app, ["search", *map(str, words)])


def test_search_then_train_the_found_network(pairs, tmp_path):
    out = tmp_path / "search"
    result = run("--dataset", pairs, "--out", out, *QUICK, *TINY)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(out / "connections.toml")
    assert " images/s, waited " in result.stderr
    assert "skip-up: " in result.stderr
    assert "GMAC at 256x256" in result.stderr
    found = read_connections(out / "connections.toml")
    words = ["--model", "rdmc", "--connections", out / "connections.toml", "--dataset", pairs]
    words += ["--out", tmp_path / "train", *QUICK, *TINY]
    trained = runner.invoke(app, ["train", *map(str, words)])
    assert trained.exit_code == 0, trained.stderr
    assert load_model(tmp_path / "train").model.config.connections == found


def test_candidates_resume_and_quiet(pairs, tmp_path):
    out = tmp_path / "search"
    assert run("--dataset", pairs, "--out", out, "--quiet", *QUICK, *TINY).stderr == ""
    again = run("--out", out, "--resume", "--candidates", "random", "1")
    assert again.exit_code == 0, again.stderr
    assert "random-1: " in again.stderr
    names = [c["name"] for c in json.loads((out / "candidates.json").read_text())["candidates"]]
    assert names == ["found", "paper", "random-1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--candidates", "clever", "3"], "--candidates is 'clever 3'; it must be 'random N'"),
        (["--candidates", "random", "0"], "--candidates is 'random 0'"),
        (["--keep", "11"], "--keep is 11; it must be from 1 to 10"),
        (["--budget", "1"], "--budget is 1 GMAC, but the cheapest network that keeps 2 of each"),
        (["--resume"], "has no run to resume"),
        (["--epochs", "2"], "--epochs and --steps exclude each other"),
        (["--model", "unet"], "--model"),
    ],
)
def test_impossible_options_are_one_line_and_exit_2(pairs, tmp_path, words, message):
    result = run("--dataset", pairs, "--out", tmp_path / "search", *QUICK, *words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "search").exists()


def test_edges_that_are_stated_count_more_than_those_of_the_search_that_is_begun_from(tmp_path):
    (tmp_path / "connections.toml").write_text("format = 1\nconnections = [[3, 9]]")
    stated = {"weights": str(tmp_path), "model_option": ["connections=[[2, 8]]"]}
    begun = given_options(stated)
    assert config_of(None, None, False, begun).model_options() == {"connections": [[2, 8]]}
    begun = given_options({"weights": str(tmp_path)})
    assert config_of(None, None, False, begun).model_options() == {"connections": [[3, 9]]}
    begun = given_options(stated, tmp_path / "connections.toml")
    assert config_of(None, None, False, begun).model_options() == {"connections": [[3, 9]]}


def test_unusable_connections_are_one_line_and_exit_2(pairs, tmp_path):
    path = tmp_path / "connections.toml"
    for text, message in (
        ("format = 2\nconnections = [[3, 9]]", "has format 2, this version reads 1"),
        ("format = 1\nconnections = [[3, 8]]", "no such edge 3-8"),
    ):
        path.write_text(text)
        words = ["--connections", path, "--dataset", pairs, "--out", tmp_path / "run", *QUICK]
        result = runner.invoke(app, ["train", *map(str, words)])
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert not (tmp_path / "run").exists()


def test_interrupt_saves_says_how_to_go_on_and_exits_130(
    pairs, tmp_path, derain_process, wait_for_steps
):
    out = tmp_path / "search"
    words = ["--dataset", pairs, "--out", out, *QUICK, *TINY, "--steps", 100_000, "--save-every", 1]
    with derain_process("search", *words) as child:
        wait_for_steps(out, child)
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate(timeout=120)
    assert child.returncode == 130
    assert output == b""
    assert f"go on with: derain search --out {out} --resume" in errors.decode()
    assert len(read_connections(out / "connections.toml")) == 4


def test_the_command_that_resumes_names_the_candidates(tmp_path, capsys):
    run = TrainResult(tmp_path, 5, True, 20.0)
    result = SimpleNamespace(run=run, finished=False, folder=tmp_path)
    _say_what_was_found(result, 3, quiet=True, interrupted=True)
    told = capsys.readouterr().err
    assert told.endswith(f"derain search --out {tmp_path} --resume --candidates random 3\n")


def test_help_lists_the_options_of_a_search_only():
    result = runner.invoke(app, ["search", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in ("--second-order", "--keep", "--budget", "--candidates", "--alpha-lr", "--out"):
        assert option in result.stdout
    for option in ("--recipe", "--output-weights"):
        assert option not in result.stdout
