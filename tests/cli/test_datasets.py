"""`derain datasets` as its user meets it."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.cli.app import app
from derain_cli.datasets.known import DATASETS
from derain_cli.datasets.origins import INGREDIENTS, ORIGINS
from derain_cli.metrics.complexity import structural_complexity
from derain_cli.reproduce.catalogue import TABLES
from derain_cli.training.configs.finetune import REST


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["datasets", *map(str, arguments)])
    if result.exit_code != code:
        raise AssertionError(f"exit code {result.exit_code}: {result.output}") from result.exception
    return result


def photo(seed: int, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    small = np.random.default_rng(seed).integers(20, 180, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def make_set(folder: Path, seeds: range) -> Path:
    for side, rain in (("rainy", 30), ("clean", 0)):
        (folder / side).mkdir(parents=True)
        for seed in seeds:
            Image.fromarray(photo(seed) + np.uint8(rain)).save(folder / side / f"{seed}.png")
    return folder


def told(text: str) -> dict[str, str]:
    """What stands behind the first colon of each line."""
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines()}


def test_list_names_every_set_with_its_facts():
    head, *lines = run("list").stdout.splitlines()
    assert head.split()[:4] == ["name", "for", "images", "here"]
    (line,) = [line for line in lines if line.startswith("rain1400 ")]
    assert "test" in line
    assert "1400 pairs" in line
    assert "901_1" in line or "1_14" in line
    assert line.split()[4] == "no"
    assert "https://" in line
    assert "hf:" in line
    tables = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert len(tables) == len(lines)
    assert {"name", "pairs", "protocol", "paper", "layout"} <= set(tables[0])


def test_verify_tells_a_sound_set(tmp_path):
    make_set(tmp_path / "rain12", range(12))
    facts = told(run("verify", "rain12", "--data-root", tmp_path).stdout)
    assert facts["pairs"] == "12 of 12 pairs"
    assert facts["layout"] == "rainy/ + clean/"
    assert facts["sizes"] == "12 of 48x32"
    assert facts["duplicates"] == "none"
    assert "problem" not in facts


def test_list_says_what_is_here_and_how_ingredients_were_made(tmp_path):
    make_set(tmp_path / "Rain12", range(2))
    (tmp_path / "streaks").mkdir()
    rows = [
        json.loads(x) for x in run("list", "--json", "--data-root", tmp_path).stdout.splitlines()
    ]
    by_name = {row["name"]: row for row in rows}
    assert by_name["rain12"]["folder"] == str(tmp_path / "Rain12")
    assert by_name["rain12"]["bytes"] > 0
    assert by_name["rain100h"]["folder"] is None
    assert by_name["streaks"]["folder"] == str(tmp_path / "streaks")
    assert "streak layers" in by_name["streaks"]["paper"]
    assert by_name["bsds_clean"]["split"] == "clean"


def test_every_set_says_where_it_comes_from():
    assert set(ORIGINS) == set(DATASETS)
    assert all(origin.addresses for origin in ORIGINS.values())


def test_sets_that_the_bundled_cards_name_are_listed():
    known = {*DATASETS, *INGREDIENTS}
    for entry in list_weights():
        words = shlex.split(entry.about.get("command", ""))
        for option, value in pairwise(words):
            if option in ("--dataset", "--clean", "--real"):
                assert value.partition(":")[0] in known, entry.name


def test_sets_that_the_tables_need_are_listed():
    known = {*DATASETS, *INGREDIENTS, REST}
    runs = [run for table in TABLES.values() for row in table.rows for run in row.runs]
    for options in (run.options for run in runs):
        named = [*options.get("dataset", ()), *options.get("clean", ())]
        named += [options["real"]] if options.get("real") else []
        assert {name.partition(":")[0] for name in named} <= known


def test_verify_finds_pairs_of_another_tone(tmp_path):
    folder = make_set(tmp_path / "mine", range(4))
    darker = np.asarray(Image.open(folder / "clean/2.png")) - np.uint8(9)
    Image.fromarray(darker).save(folder / "rainy/2.png")
    facts = told(run("verify", folder).stdout)
    assert facts["tone"].startswith("1 pairs have a rainy image that is darker")
    assert facts["tone"].endswith(": 2")
    found = json.loads(run("verify", folder, "--json").stdout)
    assert found["other_tone"] == ["2"]


def test_verify_ends_with_1_and_names_what_is_wrong(tmp_path):
    folder = make_set(tmp_path / "rain12", range(12))
    (folder / "clean/3.png").unlink()
    text = run("verify", "rain12", "--data-root", tmp_path, code=1).stdout
    problems = [line for line in text.splitlines() if line.startswith("problem:")]
    assert len(problems) == 2
    assert "'3.png'" in problems[0]
    assert "11 pairs, 12 expected" in problems[1]


def test_verify_against_another_set(tmp_path):
    make_set(tmp_path / "train", range(6))
    make_set(tmp_path / "test", range(5, 8))
    arguments = ("verify", "test", "--data-root", tmp_path, "--against", "train")
    facts = told(run(*arguments, code=1).stdout)
    assert facts["in train"] == "1 shared: 5.png = 5.png"
    fields = json.loads(run(*arguments, "--json", code=1).stdout)
    assert fields["shared"] == {"train": [["5.png", "5.png"]]}
    assert (fields["sound"], fields["problems"]) == (False, [])


def test_verify_shortens_long_lists(tmp_path):
    folder = make_set(tmp_path / "set", range(16))
    make_set(tmp_path / "other", range(16))
    facts = told(run("verify", folder, "--against", tmp_path / "other", code=1).stdout)
    assert facts[f"in {tmp_path / 'other'}"].endswith(", and 4 more")


def test_verify_of_an_unknown_name_is_one_line(tmp_path):
    result = run("verify", "rain99", "--data-root", tmp_path, code=4)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: unknown data set 'rain99'")


def test_complexity_is_the_mean_over_images(tmp_path):
    for seed in range(4):
        Image.fromarray(photo(seed)).save(tmp_path / f"{seed}.png")
    (line,) = run("complexity", tmp_path, "--json").stdout.splitlines()
    fields = json.loads(line)
    expected = np.mean([structural_complexity(photo(seed)) for seed in range(4)])
    assert fields["complexity"] == pytest.approx(expected)
    assert (fields["images"], fields["one_size"]) == (4, True)


def test_complexity_of_several_sizes_asks_for_a_crop(tmp_path):
    for seed, size in enumerate([(48, 32), (64, 40)]):
        Image.fromarray(photo(seed, size)).save(tmp_path / f"{seed}.png")
    assert "compare with --crop" in run("complexity", tmp_path).stdout
    text = run("complexity", tmp_path, "--crop", 16, "--json").stdout
    middles = [photo(0)[8:24, 16:32], photo(1, (64, 40))[12:28, 24:40]]
    expected = np.mean([structural_complexity(middle) for middle in middles])
    assert json.loads(text)["complexity"] == pytest.approx(expected)
    assert "smaller than --crop 33" in run("complexity", tmp_path, "--crop", 33, code=4).stderr


def test_complexity_of_nothing_is_an_error(tmp_path):
    assert "no images" in run("complexity", tmp_path, code=3).stderr
