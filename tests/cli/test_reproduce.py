"""`derain reproduce`: the list, the plan, the errors; tests/reproduce has those of the engine."""

import json

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.reproduce.catalogue import OUT_OF_REACH, TABLES


def run(*words):
    return CliRunner().invoke(app, ["reproduce", *map(str, words)])


def test_the_list_shows_every_table_with_its_state(tmp_path):
    result = run("--list", "--data-root", tmp_path)
    assert result.exit_code == 0
    for table in (*TABLES.values(), *OUT_OF_REACH):
        assert f"\n{table.name} " in f"\n{result.stdout}"
    assert "rdmc-3" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("menet-1 "))
    assert "fan-menet (MENET), Table I" in line
    assert "0 of 16 runs ready: data set 'rain100l_train' is not in the data root" in line
    assert next(line for line in result.stdout.splitlines() if line.startswith("rdmc-3 ")).endswith(
        "ready"
    )


def test_a_table_of_counts_needs_no_data(tmp_path):
    result = run("rdmc-3", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("Ours"))
    assert row.split() == ["Ours", "248", "249", "3,018", "3,021"]
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "page.md")
    printed = json.loads(
        run("rdmc-3", "--data-root", tmp_path, "-o", tmp_path / "out", "--json").stdout
    )
    assert printed["rows"][-1]["cells"][0]["paper"] == 249


def test_a_dry_run_lists_what_is_missing_and_trains_nothing(tmp_path):
    result = run("rdmc-4", "--data-root", tmp_path, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.count("cannot be run: data set 'rain100l_train'") == 4
    assert "test set 'ddn_sirr_real' is missing" in result.stdout
    assert not (tmp_path / "out").exists()
    short = run("rdmc-4", "--data-root", tmp_path, "--steps", 1200, "--dry-run")
    assert "with --steps 1,200: at most this many per run" in short.stdout
    brief = run("rdmc-4", "--data-root", tmp_path, "--budget", 1, "--dry-run")
    assert "with --budget 1: 1 min of training in all" in brief.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a table; `derain reproduce --list` shows them"),
        (["menet-9"], "unknown table 'menet-9'. Did you mean 'menet-"),
        (["rdmc-6"], "'rdmc-6' (Table VI"),
        (["--list", "--json"], "--json prints results: leave it out"),
        (["menet-1", "--dry-run", "--json"], "--json prints results: leave it out"),
        (["menet-1", "--shard", "3/2"], "--shard '3/2' is outside"),
        (["menet-1", "--steps", "9", "--budget", "1"], "give --budget or --steps"),
        (["menet-1", "--shard", "x"], "--shard 'x' must be I/N"),
        (["menet-1", "--instead", "a"], "is 'a'; it must be NAME=OTHER"),
        (["menet-1", "--instead", "rain100=a"], "uses no data set 'rain100'. Did you mean 'rain10"),
        (["menet-1", "--rows", "lx", "--dry-run"], "table 'menet-1' has no row 'lx' to run"),
    ],
)
def test_what_cannot_be_is_one_line(words, message, tmp_path):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
