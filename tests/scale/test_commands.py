"""`derain` with shards, manifests and addresses, and `derain merge`, as a user calls them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from derain_cli.cli.app import app
from derain_cli.whole_files import sha256_of

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_checkpoint: Path) -> Run:
    """Runs `derain derain` with the tiny network on one CPU thread, in this process."""

    def invoke(*arguments: object) -> Result:
        engine = ["--model", str(tiny_checkpoint), "--device", "cpu", "--threads", "1"]
        return CliRunner().invoke(app, ["derain", *engine, *map(str, arguments)])

    return invoke


@pytest.fixture
def many(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    for index in range(12):
        make_image(tmp_path / f"many/{index % 3}/{index}.png")
    return tmp_path / "many"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_shards_together_do_each_image_exactly_once(run: Run, many: Path, tmp_path: Path) -> None:
    manifests = [tmp_path / f"shard-{index}.jsonl" for index in range(3)]
    for index, manifest in enumerate(manifests):
        result = run(
            many, "-r", "-o", f"{tmp_path}/dry/", "--shard", f"{index}/3", "--manifest", manifest
        )
        assert result.exit_code == 0, result.stderr
    inputs = [record["input"] for manifest in manifests for record in records(manifest)]
    assert sorted(inputs) == sorted(str(path) for path in many.rglob("*.png"))
    assert len(list((tmp_path / "dry").rglob("*.png"))) == 12

    merged = CliRunner().invoke(
        app, ["merge", *map(str, manifests), "-o", str(tmp_path / "all.jsonl"), "--json"]
    )
    assert merged.exit_code == 0, merged.stderr
    assert json.loads(merged.stdout) == {"images": 12, "done": 12, "failed": 0, "done_twice": 0}
    assert len(records(tmp_path / "all.jsonl")) == 12
    again = run(
        many,
        "-r",
        "-o",
        f"{tmp_path}/dry/",
        "--skip-existing",
        "--manifest",
        tmp_path / "all.jsonl",
    )
    assert "12 skipped" in again.stderr


def test_a_shard_without_images_is_no_failure(run: Run, photos: Path, tmp_path: Path) -> None:
    codes = [
        run(photos / "a2.jpg", "-o", f"{tmp_path}/dry/", "--shard", f"{index}/7").exit_code
        for index in range(7)
    ]
    assert codes == [0] * 7
    assert [path.name for path in (tmp_path / "dry").iterdir()] == ["a2.jpg"]


def test_auto_takes_the_index_of_a_kubernetes_job(
    run: Run, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert run(many, "-r", "-o", f"{tmp_path}/dry/", "--shard", "auto/2").exit_code == 0
    assert len(list((tmp_path / "dry").rglob("*.png"))) == 12


def test_what_changed_since_is_done_again_and_said(
    run: Run, many: Path, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    manifest, dry = tmp_path / "run.jsonl", tmp_path / "dry"
    options = [many, "-r", "-o", f"{dry}/", "--manifest", manifest]
    assert run(*options).exit_code == 0
    changed, lost = many / "0/0.png", dry / "1/1.png"
    make_image(changed, (30, 20))
    lost.unlink()
    before = {path: path.stat().st_mtime_ns for path in dry.rglob("*.png")}
    result = run(*options, "--skip-existing", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    done = {line["input"]: line["warnings"] for line in lines if line.get("status") == "done"}
    assert done == {
        str(changed): ["derained again: the input has changed"],
        str(many / "1/1.png"): [],
    }
    with Image.open(dry / "0/0.png") as image:
        assert image.size == (30, 20)
    others = {path: path.stat().st_mtime_ns for path in before if path != dry / "0/0.png"}
    assert others == {path: before[path] for path in others}

    half = run(*options, "--skip-existing", "--strength", "0.5", "--json")
    warnings = [json.loads(line).get("warnings") for line in half.stdout.splitlines()][:-1]
    assert warnings == [["derained again: made with other options (strength 1.0 -> 0.5)"]] * 12
    assert "12 skipped" in run(*options, "--skip-existing", "--strength", "0.5").stderr


def test_failures_are_recorded_and_merge_says_so(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    manifest = tmp_path / "run.jsonl"
    assert run(photos, "-o", f"{tmp_path}/dry/", "--manifest", manifest).exit_code == 1
    failed = [record for record in records(manifest) if record["status"] == "failed"]
    assert [Path(record["input"]).name for record in failed] == ["broken.png"]
    merged = CliRunner().invoke(app, ["merge", str(manifest)])
    assert merged.exit_code == 1
    assert "3 images: 2 done, 1 failed" in merged.stdout
    assert "broken.png" in merged.stderr
    manifest.write_bytes(manifest.read_bytes().replace(b"broken.png", b"bro\\nken\\u001b[2J.png"))
    (line,) = CliRunner().invoke(app, ["merge", str(manifest)]).stderr.splitlines()
    assert r"bro\nken\x1b[2J.png" in line


def test_shards_of_an_evaluation_make_the_same_table(
    tiny_checkpoint: Path, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for index in range(5):
        for side in ("rainy", "clean"):
            make_image(tmp_path / side / f"{index}.png", (32, 24))
    folders = ["--rainy", str(tmp_path / "rainy"), "--clean", str(tmp_path / "clean")]
    common = ["eval", *folders, "-m", str(tiny_checkpoint), "-d", "cpu", "-q"]
    tables = [tmp_path / f"{index}.csv" for index in range(2)]
    for index, table in enumerate(tables):
        part = CliRunner().invoke(app, [*common, "--shard", f"{index}/2", "--csv", str(table)])
        assert part.exit_code == 0, part.stderr
    whole = CliRunner().invoke(app, [*common, "--json"])
    everything = tmp_path / "all.csv"
    merged = CliRunner().invoke(app, ["merge", *map(str, tables), "-o", str(everything), "--json"])
    assert merged.exit_code == 0, merged.stderr

    def means(output: str) -> dict[str, float]:
        lines = [json.loads(line) for line in output.splitlines()]
        return {line["model"]: line["psnr"] or 0 for line in lines if "psnr" in line}

    assert means(merged.stdout) == pytest.approx(means(whole.stdout))
    assert len(means(whole.stdout)) == 2
    assert len(everything.read_text().splitlines()) == 1 + 2 * 5


def test_shards_of_a_limited_evaluation_score_its_images_and_no_more(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for index in range(6):
        for side in ("rainy", "clean"):
            make_image(tmp_path / side / f"{index}.png", (32, 24))
    folders = ["--rainy", str(tmp_path / "rainy"), "--clean", str(tmp_path / "clean")]
    scored: list[str] = []
    for index in range(2):
        table = tmp_path / f"{index}.csv"
        part = ["--limit", "3", "--shard", f"{index}/2", "--csv", str(table), "--metrics", "psnr"]
        result = CliRunner().invoke(app, ["eval", *folders, "--input-only", *part])
        assert result.exit_code == 0, result.stderr
        assert f"the first 3 of them scored, shard {index}/2 of these" in result.stderr
        if table.exists():
            scored += [row["image"] for row in csv.DictReader(table.read_text().splitlines())]
    assert sorted(scored) == ["0", "1", "2"]


def test_shards_of_painted_rain_are_those_of_one_run(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for index in range(6):
        make_image(tmp_path / "clean" / f"{index}.png", (40, 30))
    common = ["datasets", "synth", str(tmp_path / "clean"), "--rain", "small"]
    assert CliRunner().invoke(app, [*common, "--out", str(tmp_path / "one")]).exit_code == 0
    for index in range(2):
        part = [*common, "--out", str(tmp_path / "two"), "--shard", f"{index}/2"]
        result = CliRunner().invoke(app, part)
        assert result.exit_code == 0, result.stderr
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in files}
        for name in ("one", "two")
        for files in [sorted((tmp_path / name).rglob("*.png"))]
    )
    assert one == two
    assert len(one) == 12


@pytest.mark.filterwarnings("ignore")
def test_from_s3_to_s3_and_back(
    run: Run, s3: Any, photos: Path, tmp_path: Path, read_all: Callable[[str], dict[str, bytes]]
) -> None:
    assert run(photos, "-r", "-o", f"{tmp_path}/local/").exit_code == 0
    s3.put(f"{photos}/", "photos/cli/in/", recursive=True)
    s3.pipe("photos/cli/in/notes.txt", b"no image")
    options = ["s3://photos/cli/in/", "-r", "--manifest", tmp_path / "run.jsonl"]
    result = run(*options, "-o", "s3://photos/cli/out/")
    assert result.exit_code == 0, result.stderr
    expected = {
        path.relative_to(tmp_path / "local").as_posix(): path.read_bytes()
        for path in (tmp_path / "local").rglob("*.*")
    }
    assert read_all("cli/out") == expected
    assert s3.info("photos/cli/out/a2.jpg")["ContentType"] == "image/jpeg"

    refused = run(*options, "-o", "s3://photos/cli/out/")
    assert refused.exit_code == 1
    assert "exists already: --skip-existing" in refused.stderr
    assert "3 skipped" in run(*options, "-o", "s3://photos/cli/out/", "--skip-existing").stderr
    s3.put(str(photos / "a10.jpg"), "photos/cli/in/a2.jpg")
    again = run(*options, "-o", "s3://photos/cli/out/", "--skip-existing")
    assert "derained again: the input has changed" in again.stderr
    assert read_all("cli/out")["a2.jpg"] == expected["a10.jpg"]

    down = run("s3://photos/cli/in/below/b.png", "-o", tmp_path / "down.png")
    assert down.exit_code == 0, down.stderr
    assert (tmp_path / "down.png").read_bytes() == expected["below/b.png"]
    up = run(photos / "a2.jpg", "-o", "s3://photos/cli/single.jpg")
    assert up.exit_code == 0, up.stderr
    assert s3.cat("photos/cli/single.jpg") == expected["a2.jpg"]


def test_a_missing_layer_does_not_hide_that_the_input_changed(
    run: Run, photos: Path, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    manifest, dry = tmp_path / "run.jsonl", tmp_path / "dry"
    options = [photos / "a2.jpg", "-o", f"{dry}/", "--manifest", manifest, "--skip-existing"]
    assert run(*options).exit_code == 0
    before = (dry / "a2.jpg").read_bytes()
    kept = run(*options[:3], "--skip-existing", "--save-rain", "--json")
    (line, _) = [json.loads(line) for line in kept.stdout.splitlines()]
    assert line["warnings"] == [f"'{dry / 'a2.jpg'}' was there and stays: only its layers are new"]
    assert (dry / "a2.jpg").read_bytes() == before
    (dry / "a2_rain.jpg").unlink()

    make_image(photos / "a2.jpg", (30, 20))
    again = run(*options, "--save-rain", "--json")
    (line, _) = [json.loads(line) for line in again.stdout.splitlines()]
    assert line["warnings"][0].startswith("derained again: the input has changed")
    with Image.open(dry / "a2.jpg") as image:
        assert image.size == (30, 20)
    assert records(manifest)[-1]["sha256"] == sha256_of(dry / "a2.jpg")


def test_images_derained_together_say_what_one_alone_says(
    run: Run, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for name in ("a.png", "b.png"):
        make_image(tmp_path / "wet" / name, (160, 96))
    told = []
    for size in (1, 2):
        options = ["-o", f"{tmp_path}/{size}/", "--tile", "32", "--batch-size", size, "--json"]
        lines = run(tmp_path / "wet", *options).stdout.splitlines()[:-1]
        told.append([(json.loads(x)["warnings"], json.loads(x)["tile"]) for x in lines])
    assert told[0] == told[1]
    assert "seams may show" in told[0][0][0][0]


def test_a_manifest_alone_makes_nothing_again(run: Run, photos: Path, tmp_path: Path) -> None:
    """Only --skip-existing trusts earlier records; without it they replace and tell nothing."""
    options = [photos / "a2.jpg", "-o", f"{tmp_path}/dry/", "--manifest", tmp_path / "run.jsonl"]
    assert run(*options).exit_code == 0
    again = run(*options, "--strength", "0.5", "--overwrite", "--json")
    assert json.loads(again.stdout.splitlines()[0])["warnings"] == []
    refused = run(*options, "--strength", "0.7")
    assert "exists already" in refused.stderr
