"""`derain train` as it is typed: presets, dry runs, data, signals, curves, one line per error."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.cli.runs import say_how_to_go_on
from derain_cli.cli.train_view import RunView, duration
from derain_cli.training.configs.fields import facts, flag, hidden, word_of
from derain_cli.training.configs.finetune import METHODS, FinetuneConfig
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.objectives import LOSSES
from derain_cli.training.recipes import RECIPES
from derain_cli.training.trainer import Progress, TrainResult

TINY = ["--model", "resnet", "--model-option", "channels=4", "--model-option", "blocks=1"]
SHORT = ["--steps", "4", "--batch-size", "2", "--crop", "16", "--device", "cpu", "--held-out", "1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for side, gain in (("rainy", 1.2), ("clean", 1.0)):
        (folder / side).mkdir()
        for index in range(3):
            rng = np.random.default_rng(index)
            pixels = rng.integers(0, 200, (24, 32, 3)) * gain
            Image.fromarray(pixels.astype(np.uint8)).save(folder / side / f"{index}.png")
    return [str(folder / "rainy"), str(folder / "clean")]


def train(*words, **settings):
    return CliRunner().invoke(app, ["train", *map(str, words)], **settings)


def error_of(result) -> str:
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def settings_of(result) -> dict[str, tuple[str, str]]:
    lines = (line.split("\t") for line in result.stdout.splitlines())
    return {name: (value, source) for name, value, source in lines}


def test_a_run_says_where_it_is_and_how_fast_it_was(folders, tmp_path):
    result = train("--data", *folders, *TINY, *SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "run")
    assert "step 4: validation PSNR (y)" in result.stderr
    assert "% for data" in result.stderr
    config = TrainConfig.read(tmp_path / "run" / "config.json")
    assert config.data == tuple(folders)
    assert config.model_option == ("channels=4", "blocks=1")


def test_quiet_says_only_where_the_run_is(folders, tmp_path):
    result = train("--data", *folders, *TINY, *SHORT, "--out", tmp_path / "run", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")


def test_config_of_a_run_is_taken_and_flags_win(folders, tmp_path):
    train("--data", *folders, *TINY, *SHORT, "--out", tmp_path / "run", "-q")
    config = tmp_path / "run" / "config.json"
    result = train("--config", config, "--lr", "0.5", "--dry-run")
    shown = settings_of(result)
    assert shown["steps"] == ("4", str(config))
    assert shown["lr"] == ("0.5", "given")


def test_steps_given_by_hand_replace_the_epochs_of_a_file_or_a_run(folders, tmp_path):
    data = ["--data", *folders, *TINY, "--crop", "16", "--batch-size", "2", "--held-out", "1"]
    begun = train(*data, "--epochs", "2", "--out", tmp_path / "run", "--device", "cpu")
    assert begun.exit_code == 0, begun.stderr
    shown = settings_of(train("--config", tmp_path / "run" / "config.json", "--steps", "7", "-n"))
    assert (shown["steps"][0], shown["epochs"][0]) == ("7", "0")
    longer = train("--out", tmp_path / "run", "--resume", "--steps", "5")
    assert longer.exit_code == 0, longer.stderr
    saved = TrainConfig.read(tmp_path / "run" / "config.json")
    assert (saved.steps, saved.epochs) == (5, 0)


def test_dry_run_shows_every_number_with_its_source(tmp_path):
    result = train("--model", "hcn", "--preset", "paper", "--dry-run", "--lr", "0.01")
    shown = settings_of(result)
    assert shown["crop"] == ("128", "wang2022, Implementation Details")
    assert shown["lr"] == ("0.01", "given")
    assert shown["flip"] == ("no", "wang2022 release: no augmentation, for a fair comparison")
    assert shown["ema"] == ("0", "default")
    assert shown["model"] == ("hcn", "given")
    assert shown["vgg"] == ("none", "not used by recipe 'collaborative'")


def test_dry_run_counts_the_data_and_writes_nothing(folders, tmp_path):
    words = ["--data", *folders, "--crop", "16", "--held-out", "1"]
    result = train(*words, "--dry-run", "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert f"{folders[0]}: 2 to train on, 1 held out" in result.stderr
    assert not (tmp_path / "run").exists()
    too_large = train("--data", *folders, "--crop", "25", "--dry-run")
    assert "is 32x24, smaller than the 25x25 crop" in too_large.stderr
    assert too_large.exit_code == 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--steps", "3"], 2, "no --out: name the folder of the run"),
        (["--out", "x"], 2, "nothing to train on"),
        (["--data", "a", "--out", "x"], 2, "--data takes two folders, RAINY and CLEAN"),
        (["--out", "x", "--dataset", "a/b"], 4, "no folder of pairs 'a/b'"),
        (["--out", "x", "--dataset", "a:1.2.3"], 2, "weight of 'a:1.2.3' is 1.2.3"),
        (["--out", "x", "--rain", "heavy"], 2, "rain 'heavy' needs clean images"),
        (["--out", "x", "--dataset", "rain100l"], 4, "is a test set"),
        (["--out", "x", "--dataset", "rain10h"], 4, "unknown data set 'rain10h'. Did you mean"),
        (["--out", "x", "--data", "a", "b"], 4, "--data: no folder 'a'"),
        (["--out", "x", "--clean", "a", "--rain", "heavy"], 4, "no folder of clean images 'a'"),
        (["--model", "hcm", "--preset", "paper"], 2, "no presets for model 'hcm'. Did you mean"),
        (["--preset", "papr"], 2, "unknown preset 'papr' of model 'rdmc'. Did you mean 'paper'"),
        (["--preset", "paper", "--config", "c.json"], 2, "--preset begins a new run"),
        (["--config", "none.json"], 2, "cannot read config 'none.json'"),
        (["--out", "x", "--resume"], 2, "'x' has no run to resume"),
        (["--steps", "0"], 2, "--steps is 0; it must be above 0"),
        (["--steps", "9", "--epochs", "2"], 2, "--epochs and --steps exclude each other"),
        (
            ["photo.jpg", "--out", "x"],
            2,
            "'photo.jpg': name what to train on with --dataset or --data",
        ),
        (["--plot"], 2, "--plot is a command of its own now: derain plot RUN..."),
        (["--plot", "a", "b"], 2, "--plot is a command of its own now: derain plot a b"),
        (["--model", "rdmc-rain100l"], 2, "give --arch rdmc --weights rdmc-rain100l"),
        (
            ["--recipe", "collaborative", "--loss", "l1:1"],
            2,
            "--loss is not used by recipe 'collaborative', which has --output-weights, "
            "--scale-weights; leave it out",
        ),
        (["--scale-weights", "1"], 2, "--scale-weights is not used by recipe 'supervised'"),
        (
            ["--lr-milestones", "0.5"],
            2,
            "--lr-milestones is not used by the schedule 'cosine': give --lr-schedule milestones, "
            "or leave it out",
        ),
        (["--lrr", "1"], 2, "--lrr"),
    ],
)
def test_every_mistake_is_one_line(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(*words)
    assert message in error_of(result)
    assert result.exit_code == code
    assert not list(tmp_path.iterdir())


def test_unknown_option_in_config_json_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"batchsize": 3}))
    result = train("--config", tmp_path / "config.json", "--out", tmp_path / "run")
    assert "unknown option 'batchsize'. Did you mean 'batch_size'?" in error_of(result)
    assert result.exit_code == 2


def test_contrastive_prior_without_its_network_stops_with_the_way_out(folders, tmp_path):
    words = ["--data", *folders, *SHORT, "--model", "rdmc", "--preset", "paper"]
    result = train(*words, "--out", tmp_path / "run")
    assert "--vgg FILE" in error_of(result)
    assert "--contrastive 0" in error_of(result)
    done = train(*words, "--contrastive", "0", "--steps", "1", "--out", tmp_path / "run", "-q")
    assert done.exit_code == 0, done.stderr


CONFIGS = [TrainConfig(), SearchConfig(), FinetuneConfig(**METHODS["online_update"])]


def help_of(command: str, columns: int) -> list[str]:
    result = CliRunner().invoke(app, [command, "-h"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.command)
def test_help_shows_every_option_with_its_default_and_type(config):
    command, left_out = config.command, hidden(type(config))
    lines = [line for line in help_of(command, 400) if line[:1] == "│" and " --" in line]
    shown = {line.split("--")[1].split()[0].partition(",")[0]: line for line in lines}
    for field in dataclasses.fields(config):
        if field.name in left_out:
            assert flag_of(field) not in shown
            continue
        line, default = shown[flag_of(field)], getattr(config, field.name)
        assert ("[default: " in line) == bool(default or facts(field).shown), field.name
        assert f" {word_of(field)} " in line
        assert "\\[" not in line
        assert "<" not in line
        assert not re.search(r"\d\.\d{7}", line), field.name
    root = "[default: $DERAIN_DATA, else ~/.cache/derain/datasets]"
    assert root in shown["data-root"]
    assert "cuda[:N]" in shown["device"]
    assert "[:WEIGHT]" in shown["dataset"]
    assert "[default: 0.9 0.999]" in shown["betas"]
    assert ("[default: yes]" in shown["flip"]) == (command != "finetune-real")


def flag_of(field) -> str:
    return (facts(field).flags or (flag(field.name),))[0].removeprefix("--")


@pytest.mark.parametrize("command", ["train", "finetune-real", "search"])
def test_help_has_panels(command):
    assert sum(line.startswith("╭") for line in help_of(command, 80)) >= 7


def test_help_of_train_fits_few_screens():
    assert len(help_of("train", 80)) < 130


def test_help_of_recipe_and_loss_lists_every_value():
    text = {item.name: facts(item).help for item in dataclasses.fields(TrainConfig)}
    assert all(name in text["recipe"] for name in TrainConfig.recipes)
    assert all(name in text["loss"] for name in LOSSES)
    commands = (TrainConfig, FinetuneConfig, SearchConfig)
    assert {name for kind in commands for name in kind.recipes} == set(RECIPES)


def test_fields_of_one_recipe_stand_in_a_panel_of_it():
    text = "\n".join(help_of("train", 80))
    (panel,) = re.findall(r"Only with --recipe collaborative ─.*?╰", text, re.DOTALL)
    assert set(re.findall(r"--\w+-?\w*", panel)) >= {"--output-weights", "--scale-weights"}
    assert "Only with --method self-training" in "\n".join(help_of("finetune-real", 80))


def test_curves_of_runs_are_drawn(folders, tmp_path):
    runs = [tmp_path / name for name in ("first", "second")]
    for run in runs:
        train("--data", *folders, *TINY, *SHORT, "--out", run, "-q")
    result = CliRunner().invoke(app, ["plot", *map(str, runs)])
    assert result.stdout.strip() == str(runs[0] / "curves.svg")
    ET.parse(runs[0] / "curves.svg")
    target = str(tmp_path / "both.svg")
    elsewhere = CliRunner().invoke(app, ["plot", *map(str, runs), "--out", target])
    assert elsewhere.stdout.strip() == str(tmp_path / "both.svg")


def test_tensorboard_is_written_or_asked_for(folders, tmp_path):
    words = ["--data", *folders, *TINY, *SHORT, "--out", tmp_path / "run", "-q", "--tensorboard"]
    result = train(*words)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        assert "pip install 'derain-cli[tensorboard]'" in error_of(result)
        assert result.exit_code == 2
        assert not (tmp_path / "run").exists()
    else:
        assert result.exit_code == 0
        assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 3, "'nowhere' has no metrics to draw"),
        (
            ["nowhere", "--out", "photo.jpg"],
            2,
            "--out 'photo.jpg' must end in .svg or .png or .pdf",
        ),
        ([], 2, "Missing argument 'RUNS'"),
    ],
)
def test_mistakes_of_plot_are_one_line(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["plot", *words])
    assert message in error_of(result)
    assert result.exit_code == code
    assert not list(tmp_path.iterdir())


def test_what_a_recipe_ignores_is_dropped_unless_given_by_hand(tmp_path):
    preset = train("--model", "rdmc", "--preset", "paper", "--recipe", "collaborative", "-n")
    assert settings_of(preset)["loss"] == ("ssim:1 mse:0.1", "not used by recipe 'collaborative'")
    path = tmp_path / "config.json"
    path.write_text(TrainConfig(loss=("l1:1",)).to_json())
    words = ["--config", path, "--model", "hcn", "--recipe", "collaborative", "--dry-run"]
    assert settings_of(train(*words))["recipe"] == ("collaborative", "given")
    assert "--loss is not used" in error_of(train(*words, "--loss", "l1:1"))


@pytest.mark.parametrize(
    "sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_go_on(
    folders, tmp_path, derain_process, wait_for_steps, sign
):
    out = tmp_path / "run"
    words = ["train", "--data", *folders, *TINY, *SHORT, "--steps", "100000", "--save-every", "5"]
    with derain_process(*words, "--out", out) as child:
        wait_for_steps(out, child)
        child.send_signal(sign)
        stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert stdout == b""
    assert f"go on with: derain train --out {out} --resume" in stderr.decode()
    assert "% for data" in stderr.decode()
    assert "Traceback" not in stderr.decode()


def test_resume_needs_only_the_folder(folders, tmp_path):
    out = tmp_path / "run"
    words = ["--data", *folders, *TINY, *SHORT, "--steps", "200000", "--max-time", "0.005"]
    stopped = train(*words, "--out", out, "--patience", "1000")
    assert stopped.exit_code == 0
    assert "time is up at step" in stopped.stderr
    assert f"derain train --out {out} --resume --patience 1000\n" in stopped.stderr
    assert "% for data" in stopped.stderr
    step = int(stopped.stderr.split("at step ")[1].split(";")[0])
    again = train("--out", out, "--resume", "--max-time", "0.002")
    assert int(again.stderr.split("at step ")[1].split(";")[0]) > step


def test_a_goal_ends_a_run_at_a_validation(folders, tmp_path):
    words = ["--data", *folders, *TINY, *SHORT, "--steps", "900", "--validate-every", "2"]
    stopped = train(*words, "--until", "1", "--out", tmp_path / "run")
    assert stopped.exit_code == 0
    assert re.search(r"reached \d+\.\d\d dB at step 2; go on with: derain train", stopped.stderr)
    assert (tmp_path / "run" / "best.safetensors").exists()
    words += ["--lr", "1e-12", "--patience", "2"]
    stale = train(*words, "--out", tmp_path / "stale")
    assert re.search(r"no better than .* dB in 2 validations at step \d+;", stale.stderr)


def test_a_moved_run_says_where_it_reads_its_data(folders, tmp_path):
    root = Path(folders[0]).parent
    (tmp_path / "a").symlink_to(root.parent)
    (tmp_path / "b").symlink_to(root.parent)
    words = ["--dataset", root.name, *TINY, *SHORT, "--out", tmp_path / "run"]
    assert train(*words, "--data-root", tmp_path / "a").exit_code == 0
    again = train("--out", tmp_path / "run", "--resume", "--data-root", tmp_path / "b")
    assert again.exit_code == 0, again.stderr
    notice = f"data sets are read from {tmp_path / 'b'}, no longer from {tmp_path / 'a'}"
    assert notice in again.stderr


@pytest.mark.slow
def test_torchrun_trains_one_model_in_two_processes(folders, tmp_path):
    out = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    words = ["2", "-m", "derain_cli", "train", "--data", *folders, *TINY, *SHORT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *words, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(out)]
    assert (out / "best.safetensors").exists()
    assert "Warning" not in done.stderr


def progress(step, **changes):
    facts = {"parts": {"loss": 0.5}, "lr": 1e-3, "images": 8, "seconds_per_step": 2.0}
    return Progress(step=step, steps=100, waited=0.5, **(facts | changes))


def test_table_shows_loss_rate_wait_and_scores():
    view = RunView(TrainConfig(steps=100))
    view.note(progress(1))
    view.note(progress(2, validation={"a": 30.0}, psnr=30.0))
    view.note(progress(3, validation={"a": 29.0}, psnr=29.0))
    rows = dict(view.rows())
    assert rows["step"] == "3 of 100"
    assert rows["loss"] == "0.5"
    assert rows["images/s"] == "4.0"
    assert rows["waiting for data"] == "25 %"
    assert rows["validation PSNR"] == "29.00 dB, best 30.00"
    assert rows["time left"] == "3:14"  # 97 steps of 2 s: steps alone count
    assert rows["now"].startswith("training (")
    assert "time left" in view.line()


def test_time_left_does_not_grow_while_a_validation_runs(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("derain_cli.cli.train_view.time.monotonic", lambda: clock[0])
    view = RunView(TrainConfig(steps=100))
    view.note(progress(1))
    before = dict(view.rows())["time left"]
    view.say("validating 1 of 20")
    clock[0] = 45.0
    rows = dict(view.rows())
    assert rows["time left"] == before
    assert rows["now"] == "validating 1 of 20 (0:45)"
    assert rows["elapsed"] == "0:45"


def test_units_of_time():
    assert duration(61) == "1:01"


@pytest.mark.parametrize(
    "words",
    [
        ["--loss", "contrastive:1"],
        ["--arch", "resnet", "--recipe", "collaborative"],
        ["--arch", "rdmc", "--loss", "l1:1", "--loss", "ssim:1", "--loss-weighting", "gb"],
        ["--weights", "menet-rain100l"],
        ["--crop", "25"],
    ],
)
def test_dry_run_refuses_what_training_refuses_in_the_same_words(words, folders, tmp_path):
    start = ["--data", *folders, "--crop", "16", "--steps", "2", "--batch-size", "1", *words]
    dry = train(*start, "--dry-run", "--out", tmp_path / "run")
    real = train(*start, "--out", tmp_path / "run", "-q")
    assert dry.exit_code == real.exit_code != 0
    assert dry.stderr.splitlines()[-1] == real.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_command_that_goes_on_names_the_loggers(capsys):
    say_how_to_go_on(TrainResult(Path("run"), 3, False, 20.0), "train", "stopped", ["wandb"])
    told = "stopped at step 3; go on with: derain train --out run --resume --log wandb\n"
    assert capsys.readouterr().err == told


def test_a_dry_run_without_data_is_refused_as_the_run_would_be(tmp_path):
    words = ["--arch", "resnet", "--out", tmp_path / "run"]
    shown, trained = train(*words, "--dry-run"), train(*words)
    assert shown.exit_code == trained.exit_code == 2
    assert "nothing to train on" in error_of(trained)
    assert error_of(shown) == error_of(trained)
    assert "batch_size" in shown.stdout


def test_a_preset_can_be_read_without_its_data(tmp_path):
    words = ["--arch", "menet", "--preset", "paper", "--dry-run"]
    result = train(*words)
    assert result.exit_code == 0
    assert "--data-root" in told_last(result.stderr)
    assert "data set 'rain100l_train' is not in" in told_last(result.stderr)
    asked = train(*words, "--data-root", tmp_path)
    assert asked.exit_code == 4
    assert str(tmp_path) in error_of(asked)


def told_last(text):
    return text.splitlines()[-1]


def test_a_dry_run_refuses_an_unknown_architecture_at_once():
    result = train("--arch", "menett", "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert error_of(result).startswith("error: unknown model 'menett'")
