"""`derain adapt`: weights for one's own photos, of whatever size."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli import adapt
from derain_cli.cli.app import app
from derain_cli.training.configs.finetune import METHODS, FinetuneConfig


def write_photo(path: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_photos_of_many_sizes_give_weights_that_are_used_by_name(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"a": (100, 90), "b": (96, 130), "c": (120, 100), "small": (30, 20)}
    for name, size in sizes.items():
        write_photo(tmp_path / "holiday" / f"{name}.png", *size)
    words = ["adapt", "holiday", "-m", str(tiny_checkpoint), "--epochs", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "skipped 1 of 4 photos smaller than a crop: 'small.png'" in caplog.text
    assert done.stderr.splitlines()[-1] == "use them with: derain photo.jpg -m adapted-holiday"
    config = json.loads((tmp_path / "adapted-holiday" / "config.json").read_text())
    assert (config["crop"], config["pseudo_passes"], config["epochs"]) == (80, 2, 1)
    load_model("adapted-holiday")
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert again.stderr.splitlines()[-1].startswith("error: ")
    changed = CliRunner().invoke(app, [*words, "--resume"])
    assert changed.exit_code == 2
    assert changed.stderr.startswith("error: --resume keeps the run's own weights")
    assert CliRunner().invoke(app, ["adapt", "holiday", "--resume"]).exit_code == 0


def test_resuming_takes_the_device_and_no_other_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = FinetuneConfig(**METHODS["online_update"], real="holiday", weights="x", device="cuda")
    (tmp_path / "adapted-holiday").mkdir()
    (tmp_path / "adapted-holiday" / "config.json").write_text(config.to_json())
    resumed: list[str] = []
    monkeypatch.setattr(adapt, "run_finetuning", lambda run, *_, **__: resumed.append(run.device))
    for words in ([], ["--device", "cpu"]):
        CliRunner().invoke(app, ["adapt", "holiday", "--resume", *words], catch_exceptions=False)
    assert resumed == ["cuda", "cpu"]
    other = CliRunner().invoke(app, ["adapt", "trip", "-o", "adapted-holiday", "--resume"])
    assert other.exit_code == 2
    assert "'adapted-holiday' was adapted to 'holiday', not to 'trip'" in other.stderr


def test_one_photo_is_enough(tmp_path: Path, tiny_checkpoint: Path) -> None:
    for name, size in {"a": (100, 90), "small": (30, 20)}.items():
        write_photo(tmp_path / "one" / f"{name}.png", *size)
    words = ["-m", str(tiny_checkpoint), "-o", str(tmp_path / "out"), "--epochs", "1"]
    done = CliRunner().invoke(app, ["adapt", str(tmp_path / "one"), *words, "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert FinetuneConfig.read(tmp_path / "out" / "config.json").kl_weight == 0


def test_what_is_no_folder_of_photos_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["adapt", str(tmp_path / "none")])
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: '{tmp_path / 'none'}' is not a folder of photos\n",
    )
    write_photo(tmp_path / "tiny" / "a.png", 60, 90)
    done = CliRunner().invoke(app, ["adapt", str(tmp_path / "tiny")])
    assert done.exit_code == 3
    assert done.stderr.endswith("contains no photo of at least 64x64 pixels\n")
