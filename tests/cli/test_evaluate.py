"""`derain eval` as its user meets it."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.cli.app import app
from derain_cli.inference import devices
from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.full_reference import psnr, ssim
from derain_cli.metrics.region_errors import region_errors
from derain_cli.models.resnet import ResNet, ResNetConfig

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the project's data are not here")
SIZE = (48, 32)


def clean_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 180, (SIZE[1], SIZE[0], 3)).astype(np.uint8)


def rainy_image(seed: int) -> np.ndarray:
    rainy = clean_image(seed)
    rainy[:, :: seed + 3] += np.uint8(60)
    return rainy


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A data root with three pairs called rain12."""
    for seed in range(3):
        write(tmp_path / f"data/rain12/rainy/{seed}.png", rainy_image(seed))
        write(tmp_path / f"data/rain12/clean/{seed}.png", clean_image(seed))
    return tmp_path / "data"


@pytest.fixture
def second_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    shutil.copy(tiny_checkpoint, path)
    return path.parent


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if result.exit_code != code:
        raise AssertionError(f"exit code {result.exit_code}: {result.output}") from result.exception
    return result


def events(text: str, event: str) -> list[dict]:
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["v"] for line in lines} == {1}
    return [line for line in lines if line["event"] == event]


def test_table_is_titled_with_the_protocol_and_counts_are_told(data_root):
    result = run("--dataset", "rain12", "--data-root", data_root, "--input-only")
    assert result.stdout.startswith("y: luma as MATLAB's rgb2ycbcr gives it")
    mean = np.mean([psnr(rainy_image(seed), clean_image(seed)) for seed in range(3)])
    (line,) = [line for line in result.stdout.splitlines() if "(input)" in line]
    assert f"{mean:.2f} ± " in line
    assert "rain12: 3 pairs, 12 expected: no version known here has so many" in result.stderr
    assert "no network" in result.stderr


def test_json_holds_means_errors_and_the_share_of_the_network(data_root, tiny_checkpoint):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--protocol", "rgb", "--json")
    text = run(*arguments, "-m", tiny_checkpoint, "--metrics", "psnr,ssim,e_r,e_b").stdout
    measured, derained = events(text, "score")
    assert (measured["model"], derained["model"]) == ("(input)", str(tiny_checkpoint))
    assert (measured["dataset"], measured["images"], measured["protocol"]) == ("rain12", 3, "rgb")
    images = [(rainy_image(seed), clean_image(seed)) for seed in range(3)]
    expected = np.array([psnr(*pair, "rgb") for pair in images])
    assert measured["psnr"] == pytest.approx(expected.mean())
    assert measured["psnr_error"] == pytest.approx(expected.std(ddof=1) / 3**0.5)
    assert measured["ssim"] == pytest.approx(np.mean([ssim(*pair, "rgb") for pair in images]))
    ceilings = [region_errors(rainy, rainy, clean).e_r_ceiling for rainy, clean in images]
    assert measured["e_r_ceiling"] == derained["e_r_ceiling"] == pytest.approx(np.mean(ceilings))
    assert measured["e_r"] == 0
    assert derained["seconds"] > 0
    assert ("precision" in measured, derained["precision"]) == (False, "fp32")
    (summary,) = events(text, "summary")
    assert 0 < summary["network_share"] <= 1


def test_a_lower_precision_is_told_with_the_scores(data_root, tiny_checkpoint):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint)
    text = run(*arguments, "--precision", "bf16", "--json").stdout
    assert events(text, "score")[1]["precision"] == "bf16"
    assert "; networks in bf16" in run(*arguments, "--precision", "bf16").stdout
    assert "networks in" not in run(*arguments).stdout


@pytest.mark.parametrize(("native", "told"), [(True, "bf16"), (False, "fp32")])
def test_what_auto_took_is_told_and_kept_on_resume(
    native, told, data_root, tiny_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "cpu_multiplies_bf16", lambda: native)
    arguments = (
        "--dataset",
        "rain12",
        "--data-root",
        data_root,
        "-m",
        tiny_checkpoint,
        "-d",
        "cpu",
    )
    table = ("--csv", tmp_path / "scores.csv", "--json")
    text = run(*arguments, "--precision", "auto", *table).stdout
    assert events(text, "score")[1]["precision"] == told
    other = "fp32" if told == "bf16" else "bf16"
    result = run(*arguments, "--precision", other, *table, "--resume", code=2)
    assert f"was begun with other precision ({told}, now {other})" in result.stderr


def test_what_json_cannot_hold_is_null(data_root):
    for side in ("rainy", "clean"):
        for seed in range(3):
            write(data_root / f"rain12/{side}/{seed}.png", clean_image(seed))
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--input-only", "--json")
    (score,) = events(run(*arguments, "--metrics", "psnr,e_r").stdout, "score")
    assert (score["psnr"], score["psnr_error"], score["e_r"]) == (None, None, None)


def test_models_are_compared_image_by_image(data_root, tiny_checkpoint, second_checkpoint):
    models = ("-m", tiny_checkpoint, "-m", second_checkpoint)
    arguments = ("--dataset", "rain12", "--data-root", data_root, *models)
    found = events(run(*arguments, "--json").stdout, "difference")
    about = [(line["column"], line["model"], line["against"]) for line in found]
    names = str(second_checkpoint), str(tiny_checkpoint)
    assert about == [("psnr", *names), ("ssim", *names)]
    # The second is a copy of the first.
    assert [(line["value"], line["low"], line["high"]) for line in found] == [(0, 0, 0)] * 2
    assert "+0.00 [+0.00, +0.00]" in run(*arguments).stdout


def test_csv_has_a_row_per_image_and_model(data_root, tiny_checkpoint, tmp_path):
    path = tmp_path / "new folder" / "rows.csv"
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint)
    run(*arguments, "--csv", path, "--metrics", "psnr,niqe", "--limit", 2, code=1)
    assert not path.exists()  # NIQE needs larger images: nothing half written
    run(*arguments, "--csv", path, "--limit", 2)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [(row["image"], row["model"]) for row in rows] == [
        (image, model) for image in "01" for model in ("(input)", str(tiny_checkpoint))
    ]
    assert float(rows[2]["psnr"]) == psnr(rainy_image(1), clean_image(1))
    assert rows[0]["protocol"] == "y"


def test_saved_images_score_as_the_table_says(data_root, tiny_checkpoint, tmp_path):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint, "--json")
    text = run(*arguments, "--save-images", tmp_path / "saved").stdout
    saved = sorted((tmp_path / "saved").rglob("*.png"))
    assert [path.name for path in saved] == ["0.png", "1.png", "2.png"]
    images = [np.asarray(Image.open(path)) for path in saved]
    scores = [psnr(pixels, clean_image(seed)) for seed, pixels in enumerate(images)]
    assert events(text, "score")[1]["psnr"] == pytest.approx(np.mean(scores))


def test_html_report_is_written(data_root, tiny_checkpoint, tmp_path):
    path = tmp_path / "report.html"
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint)
    run(*arguments, "--html", path, "--compare-paper", "--quiet")
    text = path.read_text(encoding="utf-8")
    assert text.count('<figure class="case') == 3
    assert text.count('<svg class="histogram"') == 1
    assert "quoted from HCN (AAAI 2022), Table 1" in text


def test_a_shard_without_pairs_has_no_report_and_is_no_failure(data_root, tmp_path):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--input-only", "--json")
    texts = []
    for index in range(7):
        page = tmp_path / f"{index}.html"
        result = run(*arguments, "--shard", f"{index}/7", "--html", page)
        empty = f"no pair is in this shard: {str(page)!r} is not written" in result.stderr
        assert empty != page.exists()
        texts += events(result.stdout, "score")
    assert sum(line["images"] for line in texts) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_text_reaches_every_table(data_root, tiny_checkpoint, tmp_path):
    for side in ("rainy", "clean"):
        folder = data_root / "rain12" / side
        (folder / "0.png").rename(os.fsdecode(os.fsencode(folder) + b"/a\xff.png"))
    table, page, merged = (tmp_path / name for name in ("t.csv", "r.html", "m.csv"))
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint)
    run(*arguments, "--csv", table, "--html", page, "--quiet")
    assert b",a\xff," in table.read_bytes()
    assert r"a\udcff" in page.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in table.with_suffix(".jsonl").read_text().splitlines()]
    assert "a\udcff" in {line.get("image") for line in lines}
    result = CliRunner().invoke(app, ["merge", str(table), "-o", str(merged)])
    assert result.exit_code == 0, result.output
    assert b",a\xff," in merged.read_bytes()


def test_papers_are_quoted_with_their_protocol(data_root):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--input-only")
    text = run(*arguments, "--compare-paper").stdout
    assert "RDMC [1]" in text
    assert "[1] quoted, not measured: RDMC (TCSVT 2023), Table I; protocol not stated" in text
    quoted = events(run(*arguments, "--compare-paper", "--json").stdout, "quoted")
    assert {line["dataset"] for line in quoted} == {"rain12"}
    assert not events(run(*arguments, "--json").stdout, "quoted")


def test_named_sets_are_looked_for_in_the_environments_folder(data_root, monkeypatch):
    monkeypatch.setenv("DERAIN_DATA", str(data_root))
    assert len(events(run("--dataset", "Rain12", "--input-only", "--json").stdout, "score")) == 1
    monkeypatch.setenv("HOME", str(data_root.parent))
    monkeypatch.setenv("DERAIN_DATA", "~/data")
    assert len(events(run("--dataset", "Rain12", "--input-only", "--json").stdout, "score")) == 1
    monkeypatch.setenv("DERAIN_DATA", "")
    missing = run("--dataset", "Rain12", "--input-only", code=4).stderr
    assert f"is not in '{data_root.parent}/.cache/derain/datasets'" in missing


def test_two_folders_are_scored(data_root):
    folders = ("--rainy", data_root / "rain12/rainy", "--clean", data_root / "rain12/clean")
    (score,) = events(run(*folders, "--input-only", "--json").stdout, "score")
    assert (score["dataset"], score["images"]) == (str(data_root / "rain12/rainy"), 3)


def test_a_missing_pair_is_one_line_that_names_it(data_root):
    (data_root / "rain12/clean/1.png").unlink()
    result = run("--dataset", "rain12", "--data-root", data_root, "--input-only", code=4)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: '1.png' in ")
    assert "has no partner" in line


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"<html>", "this program reads"), (None, "a pair must have one size")],
)
def test_a_pair_that_cannot_be_scored_is_named(data_root, content, cause):
    path = data_root / "rain12/clean/2.png"
    if content is None:
        write(path, clean_image(2)[:-1])
    else:
        path.write_bytes(content)
    result = run("--dataset", "rain12", "--data-root", data_root, "--input-only", "-q", code=4)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: pair '2': ")
    assert cause in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score: give --dataset NAME"),
        (["--rainy", "."], "--rainy and --clean go together"),
        (["--dataset", "{}/rain12", "--input-only", "-m", "rdmc"], "exclude each other"),
        (["--dataset", "{}/rain12", "--input-only", "--metrics", "psnr,lpibs"], "metric 'lpibs'"),
        (["--dataset", "{}/rain12", "--input-only", "--metrics", ","], "--metrics names no metric"),
        (["--dataset", "{}/rain12", "--input-only", "--protocol", "lab"], "protocol 'lab'"),
        (["--dataset", "{}/rain12", "--input-only", "--html", "{}"], "is a folder"),
        (["--dataset", "{}/rain12", "--csv", "{}/photo.jpg"], "photo.jpg' must end in .csv"),
        (["--dataset", "{}/rain12", "--html", "{}/a.csv"], "a.csv' must end in .html or .htm"),
        (["--dataset", "{}/rain12", "--seed", "-1"], "Invalid value '-1' for '--seed'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(data_root, arguments, message):
    words = [word.format(data_root) for word in arguments]
    result = run(*words, "-q", code=2)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_model_named_twice_is_refused(data_root, tiny_checkpoint):
    models = ("-m", tiny_checkpoint, "-m", tiny_checkpoint)
    result = run("--dataset", data_root / "rain12", *models, "-q", code=2)
    assert "is given twice" in result.stderr


def test_images_without_ground_truth_are_scored_by_niqe_and_change(tmp_path, tiny_checkpoint):
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 255, (200, 200, 3)).astype(np.uint8)
        write(tmp_path / f"photos/{seed}.png", pixels)
    arguments = ("--images", tmp_path / "photos", "-m", tiny_checkpoint)
    untouched, derained = events(run(*arguments, "--json").stdout, "score")
    assert (untouched["change"], untouched["changed"]) == (0, 0)
    assert derained["change"] > 0
    assert 0 < derained["changed"] <= 1
    assert untouched["niqe"] > 0
    page = tmp_path / "report.html"
    text = run(*arguments, "--metrics", "change", "--html", page).stdout
    assert text.startswith("images without ground truth")
    assert "made worse" not in page.read_text(encoding="utf-8")
    told = events(run(*arguments, "--metrics", "change", "--json").stdout, "score")
    assert not any("made_worse" in line for line in told)  # less change is no better
    assert "needs clean images" in run(*arguments, "--metrics", "psnr", code=2).stderr
    both = run("--images", tmp_path, "--dataset", "rain12", code=2)
    assert "score it separately from pairs" in both.stderr


def test_pairs_of_another_tone_are_scored_apart(data_root):
    for seed in range(3, 5):
        write(data_root / f"rain12/clean/{seed}.png", clean_image(seed) + np.uint8(30))
        write(data_root / f"rain12/rainy/{seed}.png", rainy_image(seed) // 2)
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--input-only")
    scores = events(run(*arguments, "--json").stdout, "score")
    assert [(line["group"], line["images"]) for line in scores] == [
        ("", 5),
        ("same tone", 3),
        ("other tone", 2),
    ]
    assert scores[1]["psnr"] > scores[2]["psnr"]
    assert "rain12 (other tone)" in run(*arguments).stdout


def test_dry_is_how_far_a_clean_image_is_left_alone(data_root, tiny_checkpoint):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint, "--json")
    untouched, derained = events(run(*arguments, "--metrics", "psnr,dry").stdout, "score")
    assert untouched["dry"] is None  # infinite
    engine = Derainer.load(tiny_checkpoint)
    expected = [psnr(engine(clean_image(seed)), clean_image(seed)) for seed in range(3)]
    assert derained["dry"] == pytest.approx(np.mean(expected))


def test_batches_workers_and_strength_are_as_in_derain(data_root, tiny_checkpoint, tmp_path):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint, "--json")
    _, alone = events(run(*arguments).stdout, "score")
    _, together = events(run(*arguments, "--batch-size", 2, "--workers", 3).stdout, "score")
    assert together["psnr"] == pytest.approx(alone["psnr"], abs=0.01)
    untouched, none = events(run(*arguments, "--strength", 0).stdout, "score")
    assert none["psnr"] == untouched["psnr"]
    _, turned = events(run(*arguments, "--tta", "--passes", 2).stdout, "score")
    assert turned["psnr"] != alone["psnr"]
    _, coarse = events(run(*arguments, "--scales", 4).stdout, "score")
    assert coarse["psnr"] != alone["psnr"]
    _, tiled = events(run(*arguments, "--tile", 32, "--tile-overlap", 16).stdout, "score")
    assert tiled["psnr"] == pytest.approx(alone["psnr"], abs=0.5)


def test_json_holds_spread_and_images_made_worse(data_root, tiny_checkpoint):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint, "--json")
    text = run(*arguments).stdout
    untouched, derained = events(text, "score")
    scores = [psnr(rainy_image(seed), clean_image(seed)) for seed in range(3)]
    assert untouched["psnr_median"] == pytest.approx(np.median(scores))
    assert untouched["psnr_worst"] == pytest.approx(min(scores))
    assert untouched["psnr_low"] <= untouched["psnr"] <= untouched["psnr_high"]
    assert "made_worse" not in untouched
    assert 0 <= derained["made_worse"] <= 3
    (summary,) = events(text, "summary")
    assert (summary["rows"], summary["partial"]) == (6, False)


def test_the_table_is_the_same_to_the_bit_each_time(data_root, tiny_checkpoint):
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint)
    first, second = run(*arguments), run(*arguments)
    assert first.stdout == second.stdout
    assert "s/image under" in first.stderr


def test_a_session_states_its_own_time_alone(data_root, tiny_checkpoint, tmp_path):
    table = ("--csv", tmp_path / "rows.csv", "--json")
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", tiny_checkpoint, *table)
    assert events(run(*arguments).stdout, "summary")[0]["network_share"] > 0
    again = run(*arguments, "--resume")  # with nothing left to do
    assert events(again.stdout, "summary")[0]["network_share"] == 0
    assert again.stderr.endswith(" s, no network\n")


def test_resume_needs_the_same_weights_and_a_csv(data_root, tiny_checkpoint, tmp_path):
    copy = tmp_path / "net.safetensors"
    shutil.copy(tiny_checkpoint, copy)
    path = tmp_path / "rows.csv"
    arguments = ("--dataset", "rain12", "--data-root", data_root, "-m", copy, "--csv", path, "-q")
    run(*arguments)
    run(*arguments, "--resume")
    save_checkpoint(copy, ResNet(ResNetConfig(channels=2, blocks=1)), "resnet", {"recipe": "none"})
    assert "was begun with other weights" in run(*arguments, "--resume", code=2).stderr
    assert "--resume needs --csv FILE" in run(*arguments[:-3], "--resume", code=2).stderr


@pytest.mark.parametrize("metric", ["lpips", "dists"])
def test_perceptual_metrics_say_where_their_weights_come_from(data_root, metric, monkeypatch):
    monkeypatch.setenv("DERAIN_METRIC_WEIGHTS", "/nowhere")
    arguments = ("--dataset", "rain12", "--data-root", data_root, "--input-only", "-q")
    result = run(*arguments, "--metrics", metric, code=4)
    (line,) = result.stderr.splitlines()
    assert f"metric '{metric}' needs published weights" in line


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"), [("rain100l", (26.90, 0.8382)), ("rain100h", (13.56, 0.3786))]
)
def test_inputs_of_rain100_score_as_is_known(name, expected):
    arguments = ("--dataset", name, "--data-root", DATA, "--input-only", "--json")
    (score,) = events(run(*arguments).stdout, "score")
    assert score["images"] == 100
    assert score["psnr"] == pytest.approx(expected[0], abs=0.01)
    assert score["ssim"] == pytest.approx(expected[1], abs=0.0005)


@needs_data
def test_inputs_of_ddn_sirr_score_as_is_known():
    arguments = ("--dataset", "ddn_sirr_test", "--data-root", DATA, "--input-only", "--json")
    scores = {score["group"]: score for score in events(run(*arguments).stdout, "score")}
    assert {score["protocol"] for score in scores.values()} == {"rgb"}
    assert scores["dense"]["psnr"] == pytest.approx(17.82, abs=0.01)
    assert scores["sparse"]["psnr"] == pytest.approx(23.93, abs=0.01)


@needs_data
@pytest.mark.slow
def test_rain100h_spends_its_time_in_the_network(tmp_path):
    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models.rdmc import Rdmc

    save_checkpoint(tmp_path / "rdmc.safetensors", Rdmc(), "rdmc", {"recipe": "none"})
    arguments = ("--dataset", "rain100h", "--data-root", DATA, "--json", "--limit", 12)
    text = run(*arguments, "-m", tmp_path / "rdmc.safetensors").stdout
    (summary,) = events(text, "summary")
    assert summary["network_share"] >= 0.8


def test_clean_images_are_scored_against_themselves(tmp_path, make_image, tiny_checkpoint):
    """How dry photos are scored: one folder stands for both, under a protocol by name."""
    for number in range(2):
        make_image(tmp_path / "clean" / f"{number}.png", (64, 48))
    words = ["eval", "--rainy", tmp_path / "clean", "--clean", tmp_path / "clean"]
    words += ["--protocol", "rgb", "-m", tiny_checkpoint, "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    scores = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["protocol"] for line in scores if line["event"] == "score"} == {"rgb"}
    assert scores[1]["made_worse"] == 2
