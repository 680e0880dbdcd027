"""A table of tiny networks, trained, scored and written: whole, in parts, shortened and killed."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from derain_cli.errors import ConfigError, UsageError
from derain_cli.reproduce import pages
from derain_cli.reproduce.pages import score_grid, shortened, write_pages
from derain_cli.reproduce.plan import Options, missing_data, published_config
from derain_cli.reproduce.results import results_of
from derain_cli.reproduce.runner import jobs_of, reproduce
from derain_cli.reproduce.tables import Column, Row, Run, Table
from tests.children import Child

TINY = {"model": "resnet", "model_option": ("channels=4", "blocks=1"), "threads": 1}
TRAIN = {"steps": 4, "batch_size": 2, "crop": 32, "lr": 2e-3}


def train_run(name: str, **options) -> Run:
    return Run(name, "train", TINY | TRAIN | options, preset="")


def pairs_table(**changes) -> Table:
    columns = (Column("set", trained_on=("train_set",)),)
    rows = (
        Row("theirs", "Theirs", paper={"set": (20.0, 0.8)}),
        Row("first", "First", (train_run("first"),), {"set": (30.0, 0.9)}),
        Row("second", "Second", (train_run("second", lr=4e-3),), {"set": (31.0, None)}),
    )
    table = Table("tiny", "A tiny table", "nobody, Table 0", columns, rows, against="first")
    return dataclasses.replace(table, **changes)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A test set, a training set and a folder of photos, all tiny."""
    root = tmp_path_factory.mktemp("root")
    for name, seed in (("set", 0), ("train_set", 10)):
        for side in ("rainy", "clean"):
            (root / name / side).mkdir(parents=True)
        for index in range(3):
            rng = np.random.default_rng(seed + index)
            coarse = rng.integers(40, 180, (6, 8, 3), np.uint8)
            clean = np.asarray(Image.fromarray(coarse).resize((64, 48)))
            rain = (rng.random((48, 64, 1)) > 0.95) * 60
            rainy = np.clip(clean + rain, 0, 255).astype(np.uint8)
            Image.fromarray(clean).save(root / name / "clean" / f"{index}.png")
            Image.fromarray(rainy).save(root / name / "rainy" / f"{index}.png")
    (root / "photos").mkdir()
    for index, side in enumerate((100, 100, 100, 20)):
        pixels = np.random.default_rng(index).integers(0, 255, (side, side + 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{index}.png")
    return root


def options_of(data_root: Path, out: Path, **changes) -> Options:
    return Options(out=out, data_root=data_root, device="cpu", threads=1, **changes)


def weights_of(out: Path, job: str) -> dict[str, torch.Tensor]:
    state = torch.load(out / "runs" / job / "state.pt", weights_only=True)
    return state["recipe"]["model"]


@pytest.fixture(scope="session")
def whole(data_root, tmp_path_factory):
    """The tiny table, done at once: its folder, its options, its events."""
    out = tmp_path_factory.mktemp("whole")
    events = []
    options = options_of(data_root, out)
    assert reproduce(pairs_table(), options, report=events.append)
    return out, options, events


def test_every_row_is_trained_and_scored_beside_the_paper(whole):
    _, options, events = whole
    results = results_of(pairs_table(), options)
    lines = {line.name: line for line in results.lines}
    assert list(lines) == ["input", "theirs", "first", "second"]
    assert lines["theirs"].cells[0].paper == 20.0
    assert np.isnan(lines["theirs"].cells[0].ours)
    first, second = lines["first"].cells[0], lines["second"].cells[0]
    assert (first.paper, first.images, first.seeds) == (30.0, 3, 1)
    assert first.ours > 10
    assert second.difference == pytest.approx(second.ours - first.ours)
    assert second.low <= second.difference <= second.high
    assert lines["second"].cells[1].paper is None
    assert [event.what for event in events if event.what != "step"] == ["run", "done", "score"] * 2
    assert (events[-1].number, events[-1].count) == (2, 2)


def test_a_second_call_does_nothing_again(whole):
    _, options, _ = whole
    events = []
    assert reproduce(pairs_table(), options, report=events.append)
    assert events == []


def test_pages_say_it_all(whole):
    out, options, _ = whole
    results = results_of(pairs_table(), options)
    files = write_pages(results, options, "derain reproduce tiny")
    assert [path.name for path in files] == ["page.md", "page.html", "results.csv", "results.json"]
    page = (out / "page.md").read_text()
    assert "| Theirs |  | 20.00 |  | 0.8000 |" in page
    assert "First" in page
    assert "30.00" in page
    assert "Difference from 'First'" in page
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    (second,) = (row for row in rows if row["row"] == "second" and row["metric"] == "psnr")
    assert float(second["paper"]) == 31.0
    assert float(second["low"]) <= float(second["difference"])
    content = json.loads((out / "results.json").read_text())
    assert content["rows"][1]["cells"][0]["ours"] is None
    assert content["runs"]["first--train_set--seed0"]["steps"] == 4
    html = (out / "page.html").read_text()
    assert "<h1>tiny: A tiny table</h1>" in html
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_a_row_is_compared_with_one_that_an_earlier_call_did(whole):
    _, options, _ = whole
    of_second = dataclasses.replace(options, rows=("second",))
    results = results_of(pairs_table(), of_second)
    assert [line.name for line in results.lines] == ["input", "theirs", "second"]
    write_pages(results, of_second, "derain reproduce tiny --rows second")
    assert "Difference from 'First'" in (options.out / "page.md").read_text()


def test_a_run_that_was_left_goes_on_where_the_data_lie_now(data_root, tmp_path):
    root, moved, out = tmp_path / "root", tmp_path / "moved", tmp_path / "out"
    shutil.copytree(data_root, root)
    options = options_of(root, out, rows=("first",))
    assert not reproduce(pairs_table(), options, should_stop=lambda: True)
    root.rename(moved)
    log = out / "runs" / "first--train_set--seed0" / "metrics.jsonl"
    with log.open("a") as file:
        file.write('{"step": 1, "seconds": 4321.0}\n')
    options = options_of(moved, out, rows=("first",))
    assert reproduce(pairs_table(), options)
    (done,) = results_of(pairs_table(), options).runs.values()
    assert done["seconds"] == 4321.0  # all sessions, not the last one alone


def test_a_budget_is_shared_and_stated(data_root, tmp_path):
    table = pairs_table(short={"crop": 16, "batch_size": 1}, images=2)
    long = dataclasses.replace(
        table, rows=tuple(_with_steps(row, 10_000_000) for row in table.rows)
    )
    options = options_of(data_root, tmp_path, budget=0.02)
    assert reproduce(long, options)
    results = results_of(long, options)
    runs = results.runs["first--train_set--seed0"]
    assert 10 <= runs["steps"] < 100_000
    assert (runs["crop"], runs["paper_crop"], runs["paper_steps"]) == (16, 32, 10_000_000)
    assert results.lines[2].cells[0].images == 2
    said = " ".join(shortened(results, options))
    assert "0.02 minutes in all" in said
    assert "means over 2 images" in said
    with pytest.raises(ConfigError, match=r"was begun with budget 0\.02, now 1"):
        reproduce(long, dataclasses.replace(options, budget=1.0))


def test_steps_are_the_same_for_every_run_and_stated(data_root, tmp_path):
    table = pairs_table(short={"crop": 16, "batch_size": 1}, images=2)
    long = dataclasses.replace(table, rows=tuple(_with_steps(row, 10_000) for row in table.rows))
    options = options_of(data_root, tmp_path, steps=12)
    assert reproduce(long, options)
    results = results_of(long, options)
    assert {run["steps"] for run in results.runs.values()} == {12}
    assert {run["crop"] for run in results.runs.values()} == {16}
    assert results.lines[2].cells[0].images == 2
    runs = {name: run | {"seconds": 90.0} for name, run in results.runs.items()}
    said = " ".join(shortened(dataclasses.replace(results, runs=runs), options))
    took = f"{1.5 * len(runs):.0f} minutes"
    assert f"Training was to have 12 steps a run, and took {took}" in said
    with pytest.raises(ConfigError, match="was begun with steps 12, now 13"):
        reproduce(long, dataclasses.replace(options, steps=13))


def test_a_table_begun_before_steps_could_be_asked_for_goes_on(data_root, tmp_path):
    table, options = pairs_table(), options_of(data_root, tmp_path, images=2)
    assert reproduce(table, options)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert (settings.pop("steps"), settings.pop("precision")) == (0, "fp32")
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert reproduce(table, options)
    with pytest.raises(ConfigError, match="was begun with precision 'fp32', now 'bf16'"):
        reproduce(table, dataclasses.replace(options, precision="bf16"))


def _with_steps(row: Row, steps: int) -> Row:
    runs = tuple(
        dataclasses.replace(run, options=run.options | {"steps": steps}) for run in row.runs
    )
    return dataclasses.replace(row, runs=runs)


def test_rows_seeds_and_shards_make_the_whole(data_root, tmp_path, whole):
    out, _, _ = whole
    table = pairs_table()
    done = []
    for number in (1, 2, 3):
        options = options_of(data_root, tmp_path, shard=(number, 3))
        done.append(reproduce(table, options))
        assert not done[-1]
    for job in ("first--train_set--seed0", "second--train_set--seed0"):
        parts, at_once = weights_of(tmp_path, job), weights_of(out, job)
        assert all(torch.equal(parts[name], at_once[name]) for name in at_once)
    results = results_of(table, options_of(data_root, tmp_path))
    assert not np.isnan(results.lines[3].cells[0].difference)


def test_two_seeds_are_averaged_image_by_image(data_root, tmp_path):
    options = options_of(data_root, tmp_path, rows=("first",), seeds=2)
    assert reproduce(pairs_table(), options)
    (line,) = (line for line in results_of(pairs_table(), options).lines if line.name == "first")
    assert line.cells[0].seeds == 2
    assert line.cells[0].spread > 0


def test_missing_data_are_said_and_the_rest_runs(data_root, tmp_path):
    columns = (Column("set", trained_on=("train_set",)), Column("set", ("psnr",), ("nowhere",)))
    table = pairs_table(columns=columns[:1])
    missing = Row("third", "Third", (train_run("third", clean=("nothing",), rain=("small",)),))
    table = dataclasses.replace(table, rows=(*table.rows[:2], missing))
    options = options_of(data_root, tmp_path)
    assert reproduce(table, options)
    results = results_of(table, options)
    assert "data set 'nothing' is not in the data root" in results.missing.values()
    grid = score_grid(results)
    assert "data set 'nothing' is not in the data root" in grid.rows[-1]
    stood_in = dataclasses.replace(options, instead={"nothing": "train_set/clean"})
    assert not [job for job in jobs_of(table, stood_in) if missing_data(job, stood_in)]
    assert "'train_set/clean' stands for 'nothing'." in shortened(results, stood_in)


def test_rows_about_a_loss_in_vggs_space_need_its_weights(data_root, tmp_path):
    table = pairs_table()
    about = Row("about", "About", (train_run("about", loss=("l1:1", "perceptual:0.1")),))
    table = dataclasses.replace(table, rows=(*table.rows, about))
    options = options_of(data_root, tmp_path, rows=("about",))
    (job,) = jobs_of(table, options)
    assert missing_data(job, options) == "needs VGG-19's weights: give --vgg FILE"
    preset = Run("prior", "train", {"model": "rdmc"})
    (job,) = jobs_of(
        dataclasses.replace(table, rows=(Row("prior", "Prior", (preset,)),), against=""),
        options_of(data_root, tmp_path),
    )
    assert missing_data(job, options) == ""
    assert published_config(job, options).contrastive == 0


def test_fine_tuning_starts_from_the_earlier_run_and_real_photos_are_scored(data_root, tmp_path):
    first = train_run("first")
    common = {"recipe": "online_update", "real": "photos", "crop": 32, "batch_size": 1, "lr": 1e-4}
    adapted = Run("adapted", "finetune", common | {"epochs": 1, "epoch_steps": 2}, after="first")
    columns = (Column("photos", ("niqe", "change"), ("train_set",)),)
    rows = (Row("trained", "Trained", (first,)), Row("adapted", "Adapted", (first, adapted)))
    table = pairs_table(columns=columns, rows=rows, against="trained")
    options = options_of(data_root, tmp_path)
    assert reproduce(table, options)
    trained, after = (
        weights_of(tmp_path, f"{name}--train_set--seed0") for name in ("first", "adapted")
    )
    assert any(not torch.equal(trained[name], after[name]) for name in trained)
    links = [path.name for path in sorted((tmp_path / "photos").glob("*/*"))]
    assert links == ["0.png", "1.png", "2.png"]  # the small one is left out
    lines = results_of(table, options).lines
    assert lines[0].cells[1].ours == 0
    assert lines[2].cells[0].images == 3
    assert lines[2].cells[1].ours > 0


def test_a_searched_network_is_trained_on_with_the_supernets_weights(data_root, tmp_path):
    shape = ("widths=[2,2,2,2,2]", "stages=1")
    common = TRAIN | {"batch_size": 1, "steps": 2}
    search = Run("search", "search", common | {"model_option": shape}, preset="")
    later = Run("searched", "train", common | {"model": "rdmc"}, preset="", after="search")
    table = pairs_table(rows=(Row("searched", "Searched", (search, later)),), against="")
    options = options_of(data_root, tmp_path)
    assert reproduce(table, options)
    config = json.loads((tmp_path / "runs/searched--train_set--seed0/config.json").read_text())
    assert any(text.startswith("connections=") for text in config["model_option"])
    assert config["weights"].endswith("search--train_set--seed0/last.safetensors")
    (_, line) = results_of(table, options).lines
    assert line.cells[0].images == 3


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from test_runner import options_of, pairs_table
    from derain_cli.reproduce.runner import reproduce

    def report(event):
        print(event.what, event.step, event.number, flush=True)

    reproduce(pairs_table(), options_of(Path(sys.argv[1]), Path(sys.argv[2])), report=report)
"""


@pytest.mark.parametrize("moment", [pytest.param("score 0 1", marks=pytest.mark.slow), "step 3 2"])
def test_a_killed_call_goes_on_to_the_same_result(moment, data_root, tmp_path, whole):
    """SIGKILL in training and in scoring; then the same weights and scores as at once."""
    out, _, _ = whole
    script = textwrap.dedent(KILLED.format(folder=str(Path(__file__).parent)))
    process = Child(
        [sys.executable, "-c", script, str(data_root), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == moment:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    options = options_of(data_root, tmp_path)
    assert reproduce(pairs_table(), options)
    for job in ("first--train_set--seed0", "second--train_set--seed0"):
        now, at_once = weights_of(tmp_path, job), weights_of(out, job)
        assert all(torch.equal(now[name], at_once[name]) for name in at_once)
    results, expected = (
        results_of(pairs_table(), options_of(data_root, folder)) for folder in (tmp_path, out)
    )
    for line, wanted in zip(results.lines, expected.lines, strict=True):
        for cell, other in zip(line.cells, wanted.cells, strict=True):
            assert np.array_equal(cell.ours, other.ours, equal_nan=True)


def test_a_figure_is_drawn_over_the_number_of_patches(data_root, tmp_path):
    rows = tuple(
        Row(
            f"net-{count}",
            f"{count} patches",
            (train_run(f"net-{count}", clean=("train_set/clean",), rain=("small",)),),
        )
        for count in (8, 64)
    )
    table = pairs_table(
        columns=(Column("set", ("e_r", "psnr")),), rows=rows, against="", figure="points"
    )
    options = options_of(data_root, tmp_path)
    assert reproduce(table, options)
    write_pages(results_of(table, options), options, "derain reproduce tiny")
    svg = (tmp_path / "figure.svg").read_text()
    assert svg.startswith("<svg")
    assert svg.count("<circle") == 4
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_a_page_is_written_without_the_extra_that_draws_and_with_any_path(
    data_root, tmp_path, monkeypatch
):
    table, options = pairs_table(figure="curves"), options_of(data_root, tmp_path)
    for job in jobs_of(table, options):
        facts = ("steps", "paper_steps", "crop", "paper_crop", "batch_size", "paper_batch_size")
        done = dict.fromkeys(facts, 1) | {"seconds": 1.0, "prior": ""}
        (tmp_path / "runs" / job.name).mkdir(parents=True)
        (tmp_path / "runs" / job.name / "done.json").write_text(json.dumps(done))

    def without_matplotlib(*_words):
        raise UsageError("curves need matplotlib: pip install 'derain-cli[plots]'")

    monkeypatch.setattr(pages, "plot_runs", without_matplotlib)
    write_pages(results_of(table, options), options, "derain reproduce tiny -o a\udcff")
    page = (tmp_path / "page.md").read_text()
    assert "derain reproduce tiny -o a\\udcff" in page
    assert "The figure is not drawn: curves need matplotlib" in page
    assert "The figure is not drawn" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "`seeds` must be 1 or above"),
        ({"budget": -1.0}, "`budget`"),
        ({"budget": np.inf}, "`budget` is inf"),
        ({"steps": -1}, "`steps`"),
        ({"budget": 1.0, "steps": 9}, "give `budget` or `steps`"),
        ({"shard": (3, 2)}, "`shard` is 3/2"),
    ],
)
def test_impossible_options_are_refused(changes, message, data_root, tmp_path):
    with pytest.raises(UsageError, match=message):
        options_of(data_root, tmp_path, **changes)
