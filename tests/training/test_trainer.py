"""Training for real on a few tiny pairs: it learns, resumes to the bit, and saves whole files."""

import dataclasses
import json
import operator
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import ConfigError, DatasetError, TrainingError
from derain_cli.models import MODELS, build_model
from derain_cli.training import recipes
from derain_cli.training.configs.fields import without_unused
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.supervised import Supervised
from derain_cli.training.saving import Saving
from derain_cli.training.trainer import train
from tests.children import Child, run

SMALL = {
    "resnet": ("channels=4", "blocks=1"),
    "moss": ("widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4"),
    "rdmc-supernet": ("widths=[2,2,2,2,2]", "dilations=[1]", "stages=1"),
}
VARIANTS = {
    "plain": ("resnet", {"loss": ("l1:1",), "freeze_norm_from": 1.0}),
    "frozen": ("rdmc", {"freeze_norm_from": 0.5, "final_crop": 48, "final_from": 0.7}),
    "accumulated": ("unet", {"accumulate": 3, "batch_size": 1, "final_crop": 48}),
    "averaged": ("moss", {"ema": 0.9, "warmup": 3, "clip_gradient": 0.1, "rotate": True}),
    "balanced": ("menet", {"loss": ("pixel:1", "texture:1"), "loss_weighting": "gb"}),
    "bf16": ("unet", {"precision": "bf16", "crops": "ten", "workers": 3}),
}
if "hcn" in MODELS:
    VARIANTS["collaborative"] = ("hcn", {"recipe": "collaborative", "crop": 48})


# Recipes with configs of their own; four steps an epoch, so that 6 and 8 are in and between epochs.
OTHERS = {
    "online_update": (
        FinetuneConfig,
        "resnet",
        {"epoch_steps": 4, "kl_weight": 8.0, "flip": False},
    ),
    "self_training": (FinetuneConfig, "moss", {"epoch_steps": 4, "warmup_epochs": 1, "ema": 0.9}),
    "connection_search": (SearchConfig, "rdmc-supernet", {"alpha_lr": 0.02, "second_order": True}),
}


LONG = {"collaborative", "connection_search", "frozen"}  # seconds of training each
MOST_QUICK = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in (*VARIANTS, *OTHERS)
]


@pytest.fixture(params=[*VARIANTS, *OTHERS])
def variant(request, tiny_config, pairs, tmp_path):
    """A config of each recipe, and of what must survive a resume."""
    if request.param in VARIANTS:
        model, changes = VARIANTS[request.param]
        return tiny_config(model, **changes)
    kind, model, changes = OTHERS[request.param]
    shared = dataclasses.asdict(tiny_config("resnet")) | {"recipe": request.param}
    changes = shared | {"model": model, "model_option": SMALL[model]} | changes
    changes = without_unused(kind, changes)
    if kind is FinetuneConfig:
        changes["real"] = str(pairs / "rainy")
    if request.param == "online_update":
        changes["weights"] = str(tmp_path / "before.safetensors")
        before = build_model(model, kind(**changes).model_options())
        save_checkpoint(Path(changes["weights"]), before, model, {})
    return kind(**changes)


def test_every_recipe_has_a_variant():
    with_own_config = {kind for kind in RECIPES if kind in OTHERS}
    plain = {changes.get("recipe", "supervised") for _, changes in VARIANTS.values()}
    assert with_own_config | plain == set(RECIPES)


@pytest.fixture
def assert_same_state(assert_same_run):
    """Compares two runs to the bit: also optimizers, averages, alphas, epochs."""

    def compare(first, second):
        assert_same_run(first, second)
        states = [torch.load(path / "state.pt", weights_only=True) for path in (first, second)]
        one, other = (dict(leaves(state["recipe"])) for state in states)
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
            assert same(value, other[name]), name

    return compare


def leaves(value, name=""):
    """Everything in nested dictionaries and lists, with where it is."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, f"{name}/{key}")
    else:
        yield name, value


def test_it_learns_and_leaves_a_whole_run_folder(tiny_config, tmp_path, lines_of):
    config = tiny_config("resnet", steps=100, lr=1e-2, loss=("l1:1",), validate_every=40)
    losses = []
    result = train(config, tmp_path / "run", report=lambda p: losses.append(p.parts["loss"]))
    assert result.finished
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "config.json",
        "metrics.jsonl",
        "state.pt",
        "last.safetensors",
        "best.safetensors",
        "images",
    }
    assert TrainConfig.read(tmp_path / "run" / "config.json") == config
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [40, 50, 80, 100, 100]
    assert len(list((tmp_path / "run" / "images").iterdir())) == 3
    metadata = load_model(tmp_path / "run").metadata
    assert metadata["recipe"] == "supervised"
    assert float(metadata["validation_psnr"]) == pytest.approx(result.best_psnr, abs=0.001)


@pytest.mark.parametrize("variant", MOST_QUICK, indirect=True)
def test_six_steps_resume_three_equal_nine_to_the_bit(variant, tmp_path, assert_same_state):
    train(variant, tmp_path / "nine")
    stop_after = iter([False] * 5 + [True])
    stopped = train(variant, tmp_path / "two", should_stop=lambda: next(stop_after))
    assert (stopped.step, stopped.finished) == (6, False)
    assert train(variant, tmp_path / "two", resume=True).finished
    assert_same_state(tmp_path / "nine", tmp_path / "two")


@pytest.mark.parametrize("arch", ["resnet", "rdmc"])  # without and with batch norm
def test_a_stopped_run_can_be_used_before_it_goes_on(arch, tiny_config, tmp_path, saved_by):
    config = tiny_config(arch, steps=4, lr=1e-2, validate_every=0)
    for out, last in (("run", 1), ("begun", 0)):
        stop_after = iter([False] * last + [True])
        train(config, tmp_path / out, should_stop=lambda times=stop_after: next(times))
    stopped = load_model(tmp_path / "run")
    assert stopped.metadata["step"] == "2"
    first, second = saved_by(tmp_path / "begun"), saved_by(tmp_path / "run")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert train(config, tmp_path / "run", resume=True).finished
    assert load_model(tmp_path / "run").metadata["step"] == "4"


def test_a_stop_keeps_what_was_validated_at_its_step(tiny_config, tmp_path):
    stop_after = iter([False, True])
    config = tiny_config("resnet", steps=4, validate_every=2)
    result = train(config, tmp_path / "run", should_stop=lambda: next(stop_after))
    assert (result.step, result.finished) == (2, False)
    metadata = load_model(tmp_path / "run" / "last.safetensors").metadata
    assert float(metadata["validation_psnr"]) == pytest.approx(result.best_psnr, abs=0.001)


RUN_CHILD = """
import sys, time
from importlib import import_module
from pathlib import Path
from derain_cli.training.saving import Saving
from derain_cli.training.trainer import train
module, name, config, out = sys.argv[1:]
def stall(progress):
    if progress.step == 8:  # two steps past the last save
        print("stalled", flush=True)
        time.sleep(60)
train(getattr(import_module(module), name).read(Path(config)), Path(out), report=stall)
"""


def killed_between_saves(config: TrainConfig, folder: Path) -> Path:
    """A run that was killed at step 8, its last save being of step 6."""
    (folder / "given.json").write_text(config.to_json())
    out, kind = folder / "killed", type(config)
    words = [kind.__module__, kind.__name__, str(folder / "given.json"), str(out)]
    command = [sys.executable, "-c", RUN_CHILD, *words]
    with Child(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"stalled\n"
        child.send_signal(signal.SIGKILL)
    return out


def test_killed_run_resumes_to_the_same_bits(tiny_config, tmp_path, assert_same_run):
    config = tiny_config("rdmc", freeze_norm_from=0.6, ema=0.5)
    train(config, tmp_path / "whole")
    out = killed_between_saves(config, tmp_path)
    assert torch.load(out / "state.pt", weights_only=True)["run"]["step"] == 6
    train(config, out, resume=True)
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.slow
def test_every_recipe_survives_a_kill(variant, tmp_path, assert_same_state):
    train(variant, tmp_path / "whole")
    out = killed_between_saves(variant, tmp_path)
    assert torch.load(out / "state.pt", weights_only=True)["run"]["step"] == 6
    train(variant, out, resume=True)
    assert_same_state(tmp_path / "whole", out)


@pytest.mark.parametrize("variant", MOST_QUICK, indirect=True)
def test_a_run_killed_before_its_first_save_begins_again(variant, tmp_path, assert_same_state):
    train(variant, tmp_path / "whole")

    def die(progress):
        raise MemoryError

    with pytest.raises(MemoryError):
        train(variant, tmp_path / "killed", report=die)
    assert torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["run"]["step"] == 0
    (tmp_path / "killed" / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    train(variant, tmp_path / "killed", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def test_a_run_killed_between_its_weights_and_its_state_goes_on(
    tiny_config, tmp_path, monkeypatch, assert_same_state
):
    config = tiny_config("resnet", steps=2, save_every=10)
    train(config, tmp_path / "whole")

    def die(saving):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "save_state", die)
        with pytest.raises(MemoryError):
            train(config, tmp_path / "killed")
    assert (tmp_path / "killed" / "last.safetensors").exists()
    train(config, tmp_path / "killed", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def test_weights_without_a_state_are_never_trained_over(tiny_config, tmp_path):
    config = tiny_config("resnet", steps=2)
    run = tmp_path / "run"
    train(config, run)
    (run / "state.pt").unlink()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"no state\.pt .*`weights` .*last\.safetensors"):
        train(config, run, resume=True)
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_a_finished_run_can_be_made_longer(tiny_config, tmp_path, assert_same_run):
    short = tiny_config("resnet", steps=3, lr_schedule="constant")
    train(short, tmp_path / "run")
    longer = dataclasses.replace(short, steps=6)
    assert train(longer, tmp_path / "run", resume=True).step == 6
    train(longer, tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    with pytest.raises(ConfigError, match="another `steps`: the run has 6, now 3"):
        train(short, tmp_path / "run", resume=True)


def test_a_longer_run_measures_its_statistics_again(tiny_config, tmp_path, monkeypatch):
    measured = []
    gather = Saving.freeze_statistics

    def noted(saving):
        measured.append(saving.state.step)
        gather(saving)

    monkeypatch.setattr(Saving, "freeze_statistics", noted)
    short = tiny_config("menet", steps=4, freeze_norm_from=0.5)
    train(short, tmp_path / "run")
    train(dataclasses.replace(short, steps=12), tmp_path / "run", resume=True)
    assert measured == [2, 6]


def test_a_damaged_state_is_told_with_a_way_out(tiny_config, tmp_path):
    config = tiny_config("resnet", steps=2)
    train(config, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    for damaged in (state.read_bytes()[:1000], b"", b"not a state"):
        state.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"state\.pt' is damaged.*`weights` .*last\.safe"):
            train(config, tmp_path / "run", resume=True)


def test_metrics_of_steps_that_were_lost_are_written_once(tiny_config, tmp_path, lines_of):
    config = tiny_config("resnet", validate_every=4)
    stop_after = iter([False] * 5 + [True])
    train(config, tmp_path / "run", should_stop=lambda: next(stop_after))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "psnr": 1}\n{"step": 8, "ps')  # killed in the middle of a line
    train(config, tmp_path / "run", resume=True)
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [4, 8, 9]


def test_time_limit_stops_resumably(tiny_config, tmp_path):
    config = tiny_config("resnet", steps=100_000, max_time=0.01, validate_every=0)
    result = train(config, tmp_path / "run")
    assert not result.finished
    assert 0 < result.step < 100_000
    assert (tmp_path / "run" / "state.pt").exists()


def test_existing_run_is_not_overwritten(tiny_config, tmp_path):
    config = tiny_config("resnet", steps=1)
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="`resume`"):
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="no run to resume"):
        train(config, tmp_path / "other", resume=True)
    changed = dataclasses.replace(config, lr=0.5)
    with pytest.raises(ConfigError, match=r"another `lr`: the run has 0\.002, now 0\.5"):
        train(changed, tmp_path / "run", resume=True)
    elsewhere = dataclasses.replace(config, workers=2, cache=0.1, max_time=5.0)
    assert train(elsewhere, tmp_path / "run", resume=True).finished


def test_loss_that_is_not_finite_names_the_step_and_keeps_the_saved_state(tiny_config, tmp_path):
    config = tiny_config("resnet", steps=40, lr=1e30, save_every=1)
    with pytest.raises(TrainingError, match=r"of step \d+ is (nan|inf).*state\.pt' keeps"):
        train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["run"]["step"] >= 1
    assert all(value.isfinite().all() for value in state["recipe"]["model"].values())


def test_starting_from_weights_keeps_them(tiny_config, tmp_path, saved_by):
    train(tiny_config("rdmc", steps=2), tmp_path / "first")
    start = str(tmp_path / "first" / "last.safetensors")
    config = tiny_config("rdmc", steps=1, lr=1e-12, weights=start, freeze_norm_from=0)
    train(config, tmp_path / "second")
    before, after = saved_by(tmp_path / "first"), saved_by(tmp_path / "second")
    torch.testing.assert_close(before["to_rain.weight"], after["to_rain.weight"])
    with pytest.raises(ConfigError, match="are of another network than 'unet'"):
        train(tiny_config("unet", weights=start), tmp_path / "third")
    smaller = ("widths=[2,2,2,2,1]", "stages=2")
    with pytest.raises(ConfigError, match="of another shape than the 'rdmc' asked for: it"):
        train(tiny_config("rdmc", weights=start, model_option=smaller), tmp_path / "third")


def test_weights_decide_the_shape_unless_another_is_asked_for(tiny_config, tmp_path, saved_by):
    train(tiny_config("rdmc", steps=2), tmp_path / "first")
    start = str(tmp_path / "first" / "last.safetensors")
    config = tiny_config("rdmc", steps=2, lr=1e-12, weights=start, model_option=())
    train(config, tmp_path / "second", should_stop=lambda: True)
    assert train(config, tmp_path / "second", resume=True).finished
    before, after = saved_by(tmp_path / "first"), saved_by(tmp_path / "second")
    assert before.keys() == after.keys()
    torch.testing.assert_close(before["to_rain.weight"], after["to_rain.weight"])


def test_a_larger_network_starts_from_the_weights_of_a_smaller_one(tiny_config, tmp_path):
    few = ('block="plain"', "widths=[4,6]", "encoder=[1,1]", "decoder=[1]", "full_size=2")
    train(tiny_config("nimbus", model_option=few, steps=2), tmp_path / "first")
    small = load_model(str(tmp_path / "first")).model
    wider = ('block="plain"', "widths=[6,8]", "encoder=[2,1]", "decoder=[1]", "full_size=2")
    start = str(tmp_path / "first" / "last.safetensors")
    config = tiny_config("nimbus", model_option=wider, weights=start, steps=1, lr=1e-12)
    train(config, tmp_path / "second")
    large = load_model(str(tmp_path / "second")).model
    rainy = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(large(rainy), small(rainy), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"recipe": "supervise"}, ConfigError, "Did you mean 'supervised'"),
        ({"precision": "fp16"}, ConfigError, "`precision` fp16 needs a CUDA device, not cpu"),
        ({"dataset": ("nowhere",)}, DatasetError, "unknown data set 'nowhere'"),
        ({"crop": 50}, DatasetError, "64x48, smaller than the 50x50 crop"),
        ({"final_crop": 64}, DatasetError, "64x48, smaller than the 64x64 crop"),
        ({"model_option": ("widths",)}, ConfigError, "`model_option` is 'widths'"),
        ({"model_option": ("width=3",)}, ConfigError, "Did you mean 'widths'"),
        ({"loss": ("l2:1",)}, ConfigError, "unknown loss 'l2'"),
    ],
)
def test_what_cannot_go_well_is_said_before_anything_is_written(
    tiny_config, tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        train(tiny_config("rdmc", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Renewing(Supervised):
    """A recipe with epochs of four steps, whose data depend on the epoch: pseudo-truth."""

    steps_per_epoch = 4

    def __init__(self, model, config, folder):
        super().__init__(model, config, folder)
        self.gain, self.begun = 0.0, []

    def begin_epoch(self, epoch):
        self.begun.append(epoch)
        weights = next(iter(self.model.parameters()))
        self.gain = float(weights.detach().abs().mean())  # of the network as it is now

    def draw(self, step, part):
        drawn = super().draw(step, part)
        return drawn | {"clean": (self.gain * drawn["clean"]).astype(np.float32)}

    def state_dict(self):
        return super().state_dict() | {"gain": self.gain, "begun": self.begun}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.gain, self.begun = state["gain"], state["begun"]


@pytest.mark.parametrize("stop_at", [6, 8])
def test_epochs_begin_on_time_and_survive_a_resume(
    tiny_config, tmp_path, monkeypatch, assert_same_run, stop_at
):
    monkeypatch.setitem(recipes.RECIPES, "renewing", Renewing)
    config = tiny_config("resnet", recipe="renewing", steps=10, loss=("l1:1",), workers=3)
    train(config, tmp_path / "whole")
    stop_after = iter([False] * (stop_at - 1) + [True])
    train(config, tmp_path / "parts", should_stop=lambda: next(stop_after))
    train(config, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert state["recipe"]["begun"] == [0, 1, 2]


class Unscored(Supervised):
    """A recipe without a truth to score against, as with real photos."""

    def __init__(self, model, config, folder):
        super().__init__(model, config, folder)
        self.training_sources, self.sources = self.sources, []

    def draw(self, step, part):
        self.sources = self.training_sources
        drawn = super().draw(step, part)
        self.sources = []
        return drawn


def test_without_pairs_to_score_there_is_a_last_checkpoint_and_no_best(
    tiny_config, tmp_path, monkeypatch, lines_of
):
    monkeypatch.setitem(recipes.RECIPES, "unscored", Unscored)
    train(tiny_config("resnet", recipe="unscored", steps=2), tmp_path / "run")
    assert lines_of(tmp_path / "run")[-1]["psnr"] is None
    assert (tmp_path / "run" / "last.safetensors").exists()
    assert not (tmp_path / "run" / "best.safetensors").exists()


FILL_DISK = """
import resource, sys
from pathlib import Path
from derain_cli.errors import ResourceError
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.saving import Saving
from derain_cli.training.trainer import train
def limit(progress):
    if progress.step == 5:  # the state of step 3 is saved; no file may grow this large any more
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    train(TrainConfig.read(Path(sys.argv[1])), Path(sys.argv[2]), report=limit)
except ResourceError as error:
    print(error)
"""


def test_full_disk_leaves_the_previous_state_whole(tiny_config, tmp_path, assert_same_run):
    config = tiny_config("resnet")
    (tmp_path / "given.json").write_text(config.to_json())
    out = tmp_path / "run"
    command = [sys.executable, "-c", FILL_DISK, str(tmp_path / "given.json"), str(out)]
    done = run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "cannot write" in done.stdout
    assert "state.pt': File too large" in done.stdout
    assert {path.name for path in out.iterdir()} == {"config.json", "state.pt", "candidate.pt"}
    assert torch.load(out / "state.pt", weights_only=True)["run"]["step"] == 3
    train(config, out, resume=True)
    train(config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", out)


def test_the_loader_is_never_waited_for_long(tiny_config, tmp_path):
    """Batches are drawn while the network trains, so a step hardly waits for its batch."""
    config = tiny_config("rdmc", model_option=(), steps=8, crop=48, freeze_norm_from=1)
    result = train(config, tmp_path / "run")
    assert result.waited < 0.1
    assert result.images_per_second > 0


def test_metrics_are_strict_json(tiny_config, tmp_path):
    """Every line of the metrics is strict JSON, whatever the scores are."""
    train(tiny_config("resnet", steps=2), tmp_path / "run")
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_progress_tells_rate_size_and_scores(tiny_config, tmp_path):
    seen = []
    train(tiny_config("resnet", steps=3, warmup=2), tmp_path / "run", report=seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3]
    assert seen[0].lr == pytest.approx(1e-3)
    assert {progress.images for progress in seen} == {2}
    assert seen[-1].psnr == pytest.approx(np.mean(list(seen[-1].validation.values())))
    assert seen[0].validation is None
    assert all(progress.waited <= progress.seconds_per_step for progress in seen)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_compiled_training_computes_the_same(tiny_config, tmp_path, state_of):
    train(tiny_config("resnet", steps=2), tmp_path / "plain")
    train(tiny_config("resnet", steps=2, compile=True), tmp_path / "compiled")
    one, other = state_of(tmp_path / "plain"), state_of(tmp_path / "compiled")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5)


def test_weights_frozen_from_the_start_keep_their_statistics(tiny_config, tmp_path):
    train(tiny_config("menet", freeze_norm_from=0.5), tmp_path / "before")
    weights = str(tmp_path / "before" / "last.safetensors")
    after = tiny_config("menet", freeze_norm_from=0.0, weights=weights)
    train(after, tmp_path / "after")
    before, after = (load_model(tmp_path / name).model.state_dict() for name in ("before", "after"))
    statistics = [name for name in before if "running_" in name]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_epochs_are_passes_over_the_data_that_is_there(tiny_config, tmp_path):
    """Three pairs and one held out; with ten crops each is ten samples."""
    result = train(tiny_config("resnet", epochs=2), tmp_path / "run")
    assert result.step == 2 * 2
    every = tiny_config("resnet", epochs=1, held_out=0, crops="ten", flip=False)
    assert train(every, tmp_path / "ten").step == 4 * 10 // 2
    stated = tiny_config("resnet", epochs=3, epoch_steps=2)
    assert train(stated, tmp_path / "stated").step == 6
