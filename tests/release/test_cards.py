"""What is written down about weights is what the run says, and can be run again."""

import dataclasses
import json
import shlex
import tomllib
from collections.abc import Callable

import pytest
import typer
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.checkpoints.files import read_metadata, save_checkpoint
from derain_cli.checkpoints.hub import HubFile
from derain_cli.cli.finetune_real import finetune_real
from derain_cli.cli.search import search
from derain_cli.cli.train import train
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.models import MODELS, build_model
from derain_cli.release.cards import model_card, network_facts, read_scores
from derain_cli.training.configs.finetune import FinetuneConfig, method_values
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.provenance import training_command, training_facts

SCORE = {"v": 1, "event": "score", "dataset": "rain100l_test", "group": "", "protocol": "y"}


def test_facts_of_a_network():
    facts = network_facts("rdmc")
    assert facts["parameters"] == 247_587
    # Table III of the paper: 3,021 million.
    assert facts["multiply_adds_256"] == pytest.approx(3.021e9, rel=0.002)
    assert facts["paper"] == MODELS["rdmc"].paper
    small = network_facts("rdmc", {"widths": [2, 2, 2, 2, 2]})
    assert small["multiply_adds_256"] < facts["multiply_adds_256"] / 10


def test_all_edges_of_the_supernet_are_counted() -> None:
    assert network_facts("rdmc-supernet")["multiply_adds_256"] > 5e9


def test_the_command_line_gives_the_config_back():
    config = TrainConfig(
        dataset=("rain100l_train:2", "my pairs"),
        rain=("heavy:1.2", "pairs:my pairs"),
        clean=("photos",),
        data=("their rainy", "their clean"),
        betas=(0.5, 0.9),
        contrastive=0.1,
        flip=False,
        rotate=True,
        lr=3e-4,
        lr_milestones=(0.5, 0.75),
        loss=("ssim:1", "l1:1"),
        seed=4,
        steps=11,
    )
    words = shlex.split(training_command(config))
    assert (words[:2], words[-2:]) == (["derain", "train"], ["--out", "RUN"])
    assert config_of_options(words[2:-2]) == config


@pytest.mark.parametrize("kind", [TrainConfig, FinetuneConfig])
def test_the_command_line_says_the_steps_that_epochs_became(kind):
    words = shlex.split(training_command(kind(epochs=2, steps=11)))
    assert words[words.index("--steps") + 1] == "11"
    assert "--epochs" not in words


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(
            **method_values("self_training", {"steps": 9})
            | {"model": "menet", "recipe": "self_training", "steps": 9, "real": "my photos"}
            | {"dataset": ("rain100l_train",), "without": ("tv",), "lr": 3e-4, "ema": 0.99}
        ),
        FinetuneConfig(real="photos", steps=7, lr=1e-5, crop=64, recipe="online_update"),
    ],
)
def test_the_command_line_of_an_adaptation_gives_the_config_back(config):
    words = shlex.split(training_command(dataclasses.replace(config, model="menet")))
    method = config.recipe.replace("_", "-")
    start = ["derain", "finetune-real", "--method", method, "--model", "menet", "--from-scratch"]
    assert words[: len(start)] == start
    given = options_of(finetune_real, words[len(start) : -2])
    fields = method_values(config.recipe, given) | {"recipe": config.recipe, "model": config.model}
    assert FinetuneConfig(**(fields | given)) == config
    adapted = dataclasses.replace(config, weights="moss-rain100l", model_option=("blocks=2",))
    assert "--model moss-rain100l --" in training_command(adapted)
    assert "--model-option" not in training_command(adapted)


def test_the_command_line_of_a_search_gives_the_config_back():
    config = SearchConfig(dataset=("mine",), keep=1, budget=2.5, second_order=True, steps=8)
    words = shlex.split(training_command(config))
    assert words[:2] == ["derain", "search"]
    assert SearchConfig(**options_of(search, words[2:-2])) == config


SCORED = {"validation_psnr": "30.123"}


def test_facts_of_an_adaptation(tmp_path):
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    config = FinetuneConfig(real="my photos", steps=40, model="rdmc", weights="rdmc-real")
    about = {"config": config.to_json(), "step": "20", "epoch": "1", "recipe": "online_update"}
    save_checkpoint(tmp_path / "best.safetensors", model, "rdmc", about)
    facts = training_facts(tmp_path / "best.safetensors")
    assert facts["data"] == "photos of my photos without a truth"
    assert facts["command"].startswith("derain finetune-real --method online-update --model rdmc")
    assert (facts["steps"], "validation" in facts, "seconds" in facts) == (20, False, False)
    # The trainer itself scores none of an adaptation: the guard's score is in the checkpoint.
    log = [{"step": 20, "seconds": 6.5}, {"step": 20, "validation": {}}, {"step": 40, "seconds": 9}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    save_checkpoint(tmp_path / "best.safetensors", model, "rdmc", {**about, **SCORED})
    facts = training_facts(tmp_path / "best.safetensors")
    assert (facts["validation"], facts["seconds"]) == ({"mean": 30.12}, 6)


def config_of_options(words: list[str]) -> TrainConfig:
    """The config that the options of `derain train` make of words."""
    return TrainConfig(**options_of(train, words))


def options_of(command: Callable[..., None], words: list[str]) -> dict[str, object]:
    """What a command is given for the fields of its config by words."""
    seen = []
    app = typer.Typer()

    @app.command()
    def catch(**options: object) -> None:
        seen.append({key: value for key, value in options.items() if value not in (None, [])})

    kinds = (TrainConfig, FinetuneConfig, SearchConfig)
    fields = {item.name for kind in kinds for item in dataclasses.fields(kind)}
    parameters = command.__signature__.parameters.values()
    options = [parameter for parameter in parameters if parameter.name in fields - {"model"}]
    if command is train:
        options.append(command.__signature__.parameters["model"])
    catch.__signature__ = command.__signature__.replace(parameters=options)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return {key: tuple(v) if isinstance(v, list) else v for key, v in seen[0].items()}


@pytest.fixture
def run_folder(tmp_path):
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    config = TrainConfig(dataset=("rain100l_train",), steps=40, seed=2)
    about = {"config": config.to_json(), "step": "20", "seconds": "9", "validation_psnr": "21.2"}
    save_checkpoint(tmp_path / "best.safetensors", model, "rdmc", about | {"commit": "abc"})
    return tmp_path


def test_facts_of_a_run(run_folder):
    path = run_folder / "best.safetensors"
    assert training_facts(path)["validation"] == {"mean": 21.2}
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    unscored = {key: read_metadata(path)[key] for key in ("config", "step", "seconds")}
    save_checkpoint(run_folder / "last.safetensors", model, "rdmc", unscored)
    assert "validation" not in training_facts(run_folder / "last.safetensors")
    lines = [
        {"step": 10, "validation": {"rain100l_train": 19.0}},
        {"step": 20, "loss": 0.1},
        {"step": 20, "validation": {"rain100l_train": 21.234}},
    ]
    log = run_folder / "metrics.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = training_facts(path)
    assert facts["validation"] == {"rain100l_train": 21.23}
    assert (facts["steps"], facts["seed"], facts["seconds"]) == (20, 2, 9)
    assert (facts["data"], facts["commit"]) == ("pairs of rain100l_train", "abc")


def test_a_torn_log_costs_no_card(run_folder):
    log = run_folder / "metrics.jsonl"
    log.write_text('{"step": 20, "validation": {"rain100l_train": 21.5}}\n[1]\n{"step": "x"}\n{"st')
    facts = training_facts(run_folder / "best.safetensors")
    assert facts["steps"] == 20
    assert facts["validation"] == {"rain100l_train": 21.5}
    log.write_bytes(b"\xff\xfe{not even text")
    assert training_facts(run_folder / "best.safetensors")["steps"] == 20


def test_the_command_begins_with_that_of_the_run_it_started_from(run_folder, tmp_path):
    base = run_folder / "best.safetensors"
    config = TrainConfig(weights=str(base), clean=("/somewhere/mine",), rain=("dry",), steps=3)
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    about = {"config": config.to_json(), "step": "3", "seconds": "1"}
    save_checkpoint(tmp_path / "later.safetensors", model, "rdmc", about)
    first, then = training_facts(tmp_path / "later.safetensors")["command"].split(" && ")
    assert first.endswith("--steps 40 --seed 2 --out BASE")
    assert "--weights BASE --clean mine --rain dry" in then
    assert str(tmp_path) not in first + then


def test_a_checkpoint_that_was_not_trained_here_has_no_facts(tiny_checkpoint):
    assert training_facts(tiny_checkpoint) == {}


def test_a_foreign_config_is_refused(tmp_path):
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1})
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, model, "rdmc", {"config": '{"steps_": 3}', "step": "1"})
    with pytest.raises(CheckpointError, match="holds a foreign config: unknown option 'steps_'"):
        training_facts(path)


@pytest.fixture
def scores_file(tmp_path):
    of_x = {"model": "runs/x", "precision": "fp32"}
    extremes = {"psnr_worst": 21.98766, "psnr_median": 31.0, "made_worse": 2}
    of_heavy = of_x | {"group": "heavy", "protocol": "rgb", "precision": "bf16"}
    lines = [
        SCORE | {"model": "(input)", "images": 100, "psnr": 25.12345, "ssim": 0.8, "niqe": None},
        SCORE | of_x | extremes | {"images": 100, "psnr": 30.98768, "ssim": 0.9, "seconds": 1.0},
        SCORE | of_heavy | {"images": 5, "psnr": 1.0},
        {"v": 1, "event": "summary", "seconds": 3},
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_scores_stand_beside_those_of_the_input(scores_file):
    assert read_scores(scores_file, ["rdmc-x", "runs/x"]) == {
        "rain100l_test": {
            "protocol": "y",
            "images": 100,
            "psnr": 30.9877,
            "ssim": 0.9,
            "input_psnr": 25.1234,
            "input_ssim": 0.8,
            "worst_psnr": 21.9877,
            "made_worse": 2,
        },
        "rain100l_test heavy rgb": {
            "precision": "bf16",
            "protocol": "rgb",
            "images": 5,
            "psnr": 1.0,
        },
    }


def test_scores_of_others_and_other_files_are_refused(scores_file, tmp_path):
    with pytest.raises(UsageError, match=r"scores none of \['rdmc-y'\]; it scores: runs/x"):
        read_scores(scores_file, ["rdmc-y"])
    with pytest.raises(UsageError, match="cannot read scores"):
        read_scores(tmp_path / "none", ["x"])
    (tmp_path / "other").write_text("[]\n")
    with pytest.raises(UsageError, match="is not what `derain eval --json` prints"):
        read_scores(tmp_path / "other", ["x"])


def test_scores_of_an_interrupted_evaluation_are_refused(scores_file):
    lines = scores_file.read_text().replace('"summary"', '"summary", "partial": true')
    scores_file.write_text(lines)
    with pytest.raises(UsageError, match="is of an unfinished evaluation"):
        read_scores(scores_file, ["runs/x"])


def test_a_worst_score_that_is_infinite_is_left_out(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(SCORE | {"model": "x", "images": 1, "psnr_worst": None}))
    assert read_scores(path, ["x"])["rain100l_test"] == {"protocol": "y", "images": 1}


def eval_results(card: str) -> dict[tuple[str, str], float]:
    """What the Hub would show beside a model, read by the Hub's own client."""
    results = ModelCard(card, ignore_metadata_errors=False).data.eval_results
    return {(r.dataset_name, r.metric_type): r.metric_value for r in results}


def test_every_bundled_card_is_one_that_the_hub_reads():
    for entry in list_weights():
        card = model_card(entry.name, entry.model, entry.about, HubFile("me/net"))
        expected = {
            (name, column): value
            for name, means in entry.about.get("scores", {}).items()
            for column, value in means.items()
            if column in ("psnr", "ssim")
        }
        found = eval_results(card) if expected else {}
        assert {key: found[key] for key in expected} == expected
        data = ModelCard(card).data
        assert (data.library_name, data.pipeline_tag) == ("derain", "image-to-image")


def test_card_names_copies_of_its_data_on_the_hub():
    about = {"command": "derain train --dataset rain1400_train:2 --dataset rain100l_train"}
    assert "datasets:\n- dronefreak/DDN-Data\n" in model_card("x", "rdmc", about, HubFile("me/n"))


def test_card_states_what_is_known_and_nothing_else():
    about = tomllib.loads(
        'summary = "For photos."\nlicence = "Apache-2.0"\nsteps = 7\nlimits = "Not for snow."\n'
        '[scores.set]\nprotocol = "y"\npsnr = 30.5\n[scores.other]\nssim = 0.9\n'
    )
    card = model_card("rdmc-x", "rdmc", about, HubFile("me/net"))
    header, text = card.removeprefix("---\n").split("---\n", 1)
    assert "license: apache-2.0\n" in header
    assert "datasets:" not in header
    assert text.startswith("\n# rdmc-x\n\nFor photos.\n")
    assert "| steps | 7 |" in text
    assert "| data set | protocol | psnr | ssim |" in text
    assert "| other | – | – | 0.9 |" in text
    assert text.endswith("## Limits\n\nNot for snow.\n")
    assert eval_results(card) == {("set", "psnr"): 30.5, ("other", "ssim"): 0.9}
    bare = model_card("x", "rdmc", {"licence": "see LICENSE of the data"}, HubFile("me/net"))
    assert "license:" not in bare
    assert "##" not in bare
