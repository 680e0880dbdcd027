"""The journal: rows on disk at once, read back to the bit, refused where anything else changed."""

import csv
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.errors import UsageError
from derain_cli.evaluation.journal import Journal
from derain_cli.evaluation.statistics import Row
from tests.children import run

SETTINGS = {"models": ["net"], "weights": {"net": "ab" * 32}, "strength": 1.0}


def row(number: int, psnr: float = 1 / 3) -> Row:
    scores = {"psnr": psnr * (number + 1), "e_r": math.nan}
    return Row("set", "", str(number), "net", "y", scores, 0.1 + number, tone="same tone")


def journal(path: Path, settings: dict = SETTINGS) -> Journal:
    return Journal(path, ["psnr", "e_r"], settings)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    written = journal(path)
    written.begin()
    for number in range(3):
        written.append(row(number, math.inf if number == 1 else 1 / 3))
    return path


def same(first: list[Row], second: list[Row]) -> bool:
    """Equal with NaN equal to itself."""
    return repr(first) == repr(second)


def test_rows_come_back_to_the_bit_with_infinity_and_nan(begun):
    resumed = journal(begun)
    resumed.resume()
    assert same(resumed.rows, [row(0), row(1, math.inf), row(2)])
    for line in begun.with_suffix(".jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # strict JSON: neither NaN nor Infinity


def test_the_csv_has_the_same_rows_and_empty_cells_for_undefined_scores(begun):
    rows = list(csv.DictReader(begun.read_text().splitlines()))
    assert [(r["image"], r["psnr"], r["e_r"]) for r in rows] == [
        ("0", repr(1 / 3), ""),
        ("1", "inf", ""),
        ("2", "1.0", ""),
    ]


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_that_was_cut_off_is_dropped_and_written_again(begun, cut):
    lines = begun.with_suffix(".jsonl")
    content = lines.read_bytes()
    lines.write_bytes(content[:-cut])
    begun.write_bytes(begun.read_bytes()[:-5])
    resumed = journal(begun)
    resumed.resume()
    assert same(resumed.rows, [row(0), row(1, math.inf)])
    resumed.append(row(2))
    assert lines.read_bytes() == content
    assert len(begun.read_text().splitlines()) == 4


def test_other_settings_are_refused_and_named(begun):
    for changed, message in (
        ({"weights": {"net": "cd" * 32}}, r"other weights \(net: abababababababab…, now cdcd"),
        ({"strength": 0.5}, r"other strength \(1.0, now 0.5\)"),
        ({"tile": 64}, r"other tile \(nothing, now 64\)"),
    ):
        with pytest.raises(UsageError, match=message):
            journal(begun, SETTINGS | changed).resume()


def test_an_unfinished_evaluation_is_not_overwritten_by_a_slip(begun):
    with pytest.raises(UsageError, match=r"unfinished evaluation \(3 rows\): give `resume`"):
        journal(begun).begin()
    anew = journal(begun)
    anew.begin(overwrite=True)
    anew.append(row(7))
    anew.end()
    journal(begun).begin()  # a complete one may be replaced by its like
    with pytest.raises(UsageError, match="an evaluation with other settings"):
        journal(begun, SETTINGS | {"strength": 0.5}).begin()
    assert len(begun.read_text().splitlines()) == 2


def test_somebody_elses_file_is_not_overwritten(tmp_path):
    (tmp_path / "scores.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(UsageError, match="holds something else"):
        journal(tmp_path / "scores.csv").begin()
    (tmp_path / "mine.csv").write_text("my,own,table\n")
    with pytest.raises(UsageError, match=r"mine\.csv' exists already and is of no evaluation"):
        journal(tmp_path / "mine.csv").begin()
    journal(tmp_path / "mine.csv").begin(overwrite=True)


def test_resuming_before_the_first_row_begins(tmp_path):
    resumed = journal(tmp_path / "scores.csv")
    resumed.resume()
    resumed.append(row(0))
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 2


def test_a_complete_evaluation_resumes_with_nothing_to_do(begun):
    complete = journal(begun)
    complete.resume()
    complete.end()
    content = begun.with_suffix(".jsonl").read_bytes()
    again = journal(begun)
    again.resume()
    again.end()
    assert len(again.rows) == 3
    assert begun.with_suffix(".jsonl").read_bytes() == content


# Killed


def write_pairs(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        clean = rng.integers(0, 180, (16, 24, 3)).astype(np.uint8)
        rainy = clean + rng.integers(0, 70, (16, 24, 1)).astype(np.uint8)
        for side, pixels in (("rainy", rainy), ("clean", clean)):
            (folder / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / side / f"{number:03}.png")
    return folder


def kill_and_resume(derain_process, arguments: list, lines: Path, rng: random.Random, rows: int):
    """Kill -9 once so many rows are known, and a random moment later; all rows left if it ended."""
    process = derain_process(*arguments)
    while process.poll() is None:
        known = lines.read_bytes().count(b"\n") - 1 if lines.exists() else 0
        if known >= rows:
            time.sleep(rng.uniform(0, 0.03))
            process.kill()
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode


def without_seconds(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in lines]


def check_killed_evaluation(
    tmp_path: Path, tiny_checkpoint: Path, derain_process, count: int, kills: int
) -> None:
    """An evaluation that is killed time and again ends in the table of one that is not."""
    folder = write_pairs(tmp_path / "set", count)
    second = tmp_path / "second.safetensors"
    make_second_model(second)
    base = ["eval", "--dataset", folder, "-m", tiny_checkpoint, "-m", second, "--quiet"]
    undisturbed = derain_process(*base, "--csv", tmp_path / "whole.csv")
    table, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors.decode()
    rng = random.Random(count)
    path = tmp_path / "killed.csv"
    resumed = [*base, "--csv", path, "--resume"]
    moments = sorted(rng.randrange(3 * count) for _ in range(kills))
    codes = [
        kill_and_resume(derain_process, resumed, path.with_suffix(".jsonl"), rng, rows)
        for rows in moments
    ]
    # A run whose last rows were already known when it began may end by itself.
    assert codes.count(-signal.SIGKILL) >= kills - 1
    last = derain_process(*resumed)
    output, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    assert output == table
    assert without_seconds(path.with_suffix(".jsonl")) == without_seconds(tmp_path / "whole.jsonl")
    strip = [line.rsplit(b",", 1)[0] for line in path.read_bytes().splitlines()]
    assert strip == [
        x.rsplit(b",", 1)[0] for x in (tmp_path / "whole.csv").read_bytes().splitlines()
    ]


def make_second_model(path: Path) -> None:
    import torch

    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models.prenet import PReNet, PReNetConfig

    generator_state = torch.get_rng_state()
    torch.manual_seed(1)
    model = PReNet(PReNetConfig(channels=2, blocks=1, stages=1)).eval()
    torch.set_rng_state(generator_state)
    save_checkpoint(path, model, "prenet", {"recipe": "none"})


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_table(
    tmp_path, tiny_checkpoint, derain_process
):
    check_killed_evaluation(tmp_path, tiny_checkpoint, derain_process, count=12, kills=1)


@pytest.mark.slow
def test_200_images_killed_ten_times_end_in_the_same_table(
    tmp_path, tiny_checkpoint, derain_process
):
    check_killed_evaluation(tmp_path, tiny_checkpoint, derain_process, count=200, kills=10)


def test_ctrl_c_prints_a_partial_table_and_the_command_that_goes_on(
    tmp_path, tiny_checkpoint, derain_process
):
    folder = write_pairs(tmp_path / "set", 80)
    path = tmp_path / "scores.csv"
    arguments = ["eval", "--dataset", folder, "-m", tiny_checkpoint, "--csv", path]
    process = derain_process(*arguments, start_new_session=True)
    while process.poll() is None and not path.exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"partial: " in output
    assert b"of 160 rows" in output
    command = errors.decode().split("go on with: ", 1)[1].strip()
    words = command.split()
    assert words[0] == "derain"
    assert words[-1] == "--resume"
    again = run(
        [sys.executable, "-m", "derain_cli", *words[1:], "--quiet"], capture_output=True, check=True
    )
    assert b"partial:" not in again.stdout
    assert len(path.read_text().splitlines()) == 161
