import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import ConfigError, DatasetError, TrainingError
from derain_cli.inference.derainer import Derainer
from derain_cli.losses.formulas import l1, rain_divergence
from derain_cli.models import build_model, find_model
from derain_cli.training import collapse, saving, trainer
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.data.real_photos import RealPhotos
from derain_cli.training.finetuning import finetune
from derain_cli.training.guard import (
    EpochReport,
    best_of,
    read_reports,
    scores_better,
    what_is_worse,
)
from derain_cli.training.recipes import RECIPES
from derain_cli.training.recipes.adaptation import derain_whole
from derain_cli.training.recipes.online_update import OnlineUpdate, online_update_loss
from derain_cli.training.run_folder import read_metrics
from derain_cli.training.trainer import train

OPTIONS = {
    "resnet": ("channels=4", "blocks=1"),
    "rdmc": ("widths=[2,2,2,2,2]", "stages=2"),
    "moss": ("widths=[4,4,4]", "blocks=1", "downsamplings=1", "memory_items=4"),
    "hcn": ("channels=4", "blocks=[1,1]", "mining_levels=2"),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(RECIPES, "online_update", OnlineUpdate)


@pytest.fixture
def config(pairs, tmp_path):
    """Makes the config of a run on the four rainy images, from weights that are saved first."""

    def make(model="resnet", **changes):
        options = {"model": model, "model_option": OPTIONS[model], "real": str(pairs / "rainy")}
        options |= {"steps": 9, "batch_size": 2, "crop": 32, "lr": 1e-3, "device": "cpu"}
        options |= {"threads": 1, "save_every": 3, "seed": 4, "flip": False, "held_out": 1}
        weights = tmp_path / f"{model}.safetensors"
        if not weights.exists():
            torch.manual_seed(0)
            made = build_model(model, FinetuneConfig(model_option=OPTIONS[model]).model_options())
            save_checkpoint(weights, made, model, {})
        return FinetuneConfig(**(options | {"weights": str(weights)} | changes))

    return make


def stop_at(step):
    """(report, should_stop) that end a run after a step."""
    seen = []
    return (lambda progress: seen.append(progress.step)), (lambda: seen[-1] >= step)


def test_loss_by_hand():
    torch.manual_seed(1)
    derained, truth, rainy, other = torch.rand(4, 2, 3, 8, 8)
    total, parts = online_update_loss(derained, truth, rainy, other, 0.5)
    p = (rainy - derained).flatten(1).softmax(1)
    q = other.flatten(1).softmax(1)
    divergence = (q * (q.log() - p.log())).sum(1).mean()
    assert torch.allclose(total, (derained - truth).abs().mean() + 0.5 * divergence, rtol=1e-5)
    assert torch.equal(parts["content"], l1(derained, truth))
    assert torch.equal(parts["divergence"], rain_divergence(rainy - derained, other))


@pytest.mark.parametrize("epoch_steps", [2, 3, 4])
def test_six_steps_and_three_are_nine(epoch_steps, config, tmp_path, assert_same_run):
    chosen = config(epoch_steps=epoch_steps, kl_weight=8.0)
    train(chosen, tmp_path / "whole")
    report, should_stop = stop_at(6)
    train(chosen, tmp_path / "parts", report=report, should_stop=should_stop)
    train(chosen, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert read_reports(tmp_path / "whole") == read_reports(tmp_path / "parts")


def test_a_killed_run_goes_on_from_an_earlier_epoch(config, tmp_path, assert_same_run):
    chosen = config(epoch_steps=1, save_every=5)
    train(chosen, tmp_path / "whole")

    def die(progress):
        if progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "killed", report=die)
    state = torch.load(tmp_path / "killed/state.pt", weights_only=True)
    assert (state["recipe"]["epoch"], len(read_reports(tmp_path / "killed"))) == (4, 8)
    train(chosen, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_run_goes_on_with_its_own_photos_alone(config, tmp_path, pairs):
    """The pseudo ground truth lies in files by number: of other photos it would be another's."""
    photos = Path(shutil.copytree(pairs / "rainy", tmp_path / "photos"))
    chosen = config(real=str(photos), epoch_steps=6)
    report, should_stop = stop_at(3)
    train(chosen, tmp_path / "run", report=report, should_stop=should_stop)
    (photos / "0.png").rename(photos / "9.png")
    with pytest.raises(DatasetError, match="are others than those the run began with"):
        train(chosen, tmp_path / "run", resume=True)
    (photos / "9.png").rename(photos / "0.png")
    assert train(chosen, tmp_path / "run", resume=True).finished


@pytest.mark.parametrize("model", ["rdmc", "moss", "hcn"])
def test_other_networks_learn_and_reload(model, config, tmp_path):
    chosen = config(model, steps=2, epoch_steps=1, crop=48, batch_size=1, lr=1e-4)
    train(chosen, tmp_path / "run")
    before = load_model(chosen.weights).model.state_dict()
    after = load_model(tmp_path / "run/last.safetensors").model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    running = [name for name in before if "running_" in name]
    assert bool(running) == (model == "rdmc")
    assert all(torch.equal(before[name], after[name]) for name in running)


def test_pseudo_truth_is_the_networks_own_result_in_floats(config, tmp_path):
    chosen = config(steps=2, epoch_steps=2)
    train(chosen, tmp_path / "run")
    last = load_model(tmp_path / "run/last.safetensors").model
    derainer = Derainer(last, find_model("resnet"), name="resnet", device="cpu")
    kept = np.load(tmp_path / "run/pseudo-truth/epoch-0001/0.npy")
    rainy = np.asarray(Image.open(Path(chosen.real) / "0.png"), np.float32) / 255
    assert kept.dtype == np.float32
    assert np.abs(kept * 255 - np.rint(kept * 255)).max() > 0.1
    assert np.allclose(kept, derain_whole(derainer, rainy), atol=1e-6)


def test_two_passes_make_the_result_of_the_result_the_pseudo_truth(config, tmp_path):
    chosen = config(steps=2, epoch_steps=2, pseudo_passes=2)
    train(chosen, tmp_path / "run")
    last = load_model(tmp_path / "run/last.safetensors").model
    derainer = Derainer(last, find_model("resnet"), name="resnet", device="cpu")
    rainy = np.asarray(Image.open(Path(chosen.real) / "0.png"), np.float32) / 255
    once = derain_whole(derainer, rainy)
    kept = np.load(tmp_path / "run/pseudo-truth/epoch-0001/0.npy")
    assert np.allclose(kept, derain_whole(derainer, once), atol=1e-6)
    assert not np.allclose(kept, once, atol=1e-3)


def test_online_renews_and_frozen_keeps_the_pseudo_truth(config, tmp_path):
    contents = {}
    for mode in ("online", "frozen"):
        run = tmp_path / mode
        train(config(steps=6, epoch_steps=2, pseudo_truth=mode), run)
        contents[mode] = sorted(folder.name for folder in (run / "pseudo-truth").iterdir())
        assert [report.epoch for report in read_reports(run)] == [0, 1, 2, 3]
        assert read_reports(run)[-1].change > 0
    assert contents["frozen"] == ["epoch-0000"]
    assert contents["online"][-1] == "epoch-0003"
    online, frozen = (read_reports(tmp_path / mode)[-1] for mode in contents)
    assert online != frozen


def test_batches_depend_on_seed_and_step_alone(config, tmp_path):
    recipe = OnlineUpdate(build_model("resnet", config().model_options()), config(), tmp_path)
    recipe.begin_epoch(0)
    first = recipe.draw(3, range(2))
    recipe.draw(1, range(2))
    again, second_half = recipe.draw(3, range(2)), recipe.draw(3, range(1, 2))
    for name, crops in first.items():
        assert crops.shape == (2, 3, 32, 32)
        assert np.array_equal(crops, again[name])
        assert np.array_equal(crops[1:], second_half[name])
    seen = {recipe._photo(step, index) for step in range(2) for index in range(2)}
    assert seen == {0, 1, 2, 3}


def test_images_of_each_epoch_can_be_kept(config, tmp_path):
    train(config(steps=2, epoch_steps=1, save_images=str(tmp_path / "kept")), tmp_path / "run")
    folders = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert folders == ["epoch-0000", "epoch-0001", "epoch-0002"]
    assert len(list((tmp_path / "kept/epoch-0002").glob("*.png"))) == 4


def test_guard_keeps_the_first_network_when_adaptation_collapses(config, tmp_path, pairs):
    chosen = config(steps=4, epoch_steps=2, lr=1.0, dataset=(str(pairs),))
    train(chosen, tmp_path / "run")
    reports = read_reports(tmp_path / "run")
    assert reports[0].worse == ""
    assert "rain energy rose" in reports[-1].worse
    assert reports[-1].psnr < reports[0].psnr
    shipped = load_model(tmp_path / "run/best.safetensors")
    before = load_model(chosen.weights).model.state_dict()
    assert shipped.metadata["epoch"] == "0"
    assert all(torch.equal(before[k], v) for k, v in shipped.model.state_dict().items())


def test_guard_by_hand():
    healthy = EpochReport(0, 0.0, 1e-3, niqe=4.0)
    assert what_is_worse(EpochReport(1, 0.0, 5e-4, niqe=4.05), healthy) == ""
    assert "stops removing" in what_is_worse(EpochReport(1, 0.0, 2e-4, niqe=3.0), healthy)
    assert "more than rain" in what_is_worse(EpochReport(1, 0.0, 5e-3, niqe=3.0), healthy)
    assert "more than rain" in what_is_worse(EpochReport(1, 0.0, float("nan")), healthy)
    assert "NIQE rose" in what_is_worse(EpochReport(1, 0.0, 1e-3, niqe=4.3), healthy)
    scored = EpochReport(0, 0.0, 1e-3, niqe=4.0, psnr=30.0)
    assert what_is_worse(EpochReport(1, 0.0, 1e-3, niqe=4.0, psnr=29.8), scored) == ""
    assert "PSNR fell" in what_is_worse(EpochReport(1, 0.0, 1e-3, niqe=4.0, psnr=0.0), scored)
    assert what_is_worse(EpochReport(1, 0.0, 1e-3), scored) == ""
    assert "PSNR fell" in what_is_worse(EpochReport(1, 0.0, 1e-3, niqe=3.0, psnr=29.6), scored)
    assert "NIQE rose" in what_is_worse(EpochReport(1, 0.0, 1e-3, niqe=4.1, psnr=31.0), scored)


def test_what_is_kept(config, tmp_path):
    def report(epoch, energy, niqe, psnr):
        return EpochReport(epoch, 0.0, energy, niqe, psnr)

    looks = [
        report(0, 1.0e-3, 4.00, 30.0),
        report(1, 0.9e-3, 3.90, 30.1),
        report(2, 1.1e-3, 4.01, 29.9),  # more rain removed, within the limits
        report(3, 1.2e-3, 4.00, 29.6),  # even more, beyond them
    ]
    online = OnlineUpdate(build_model("resnet", config().model_options()), config(), tmp_path)
    for look in looks:
        online.reports = [*online.reports, online._judged(look)]
    assert [report.kept for report in online.reports] == [True, False, True, False]
    assert best_of(online.reports).epoch == 2
    assert best_of([]) is None
    assert scores_better(looks[1], looks[0])  # self-training: by the labels it learns
    assert not scores_better(looks[2], looks[0])
    assert scores_better(report(1, 1e-3, 3.9, None), looks[0])


def test_a_loss_that_rises_is_no_collapse(config, tmp_path, monkeypatch):
    """Going back would need pseudo ground truth of an epoch whose files are gone."""
    for module in (collapse, saving):
        monkeypatch.setattr(module, "PATIENCE", 3)
    monkeypatch.setattr(collapse, "WARM_UP", 3)
    plain = OnlineUpdate.update

    def update(recipe, batch, step):
        return plain(recipe, batch, step) | {"loss": 1.0 + 100 * (step > 10)}

    monkeypatch.setattr(OnlineUpdate, "update", update)
    result = train(config(steps=24, save_every=2, epoch_steps=2), tmp_path / "run")
    assert result.finished
    assert not any("collapse" in line for line in read_metrics(tmp_path / "run"))


def test_a_finished_adaptation_that_is_resumed_stays_as_long(config, tmp_path):
    chosen = config(epochs=2, batch_size=4)
    first = finetune(chosen, tmp_path / "run")
    assert first.finished
    again = finetune(chosen, tmp_path / "run", resume=True)
    assert again.step == first.step


def test_the_pace_is_that_of_the_steps_alone(config, tmp_path, monkeypatch):
    """A look at the photos takes an hour here, after the last step, too."""
    begin, paces, hours = OnlineUpdate.begin_epoch, [], [0]

    def slow(recipe, epoch):
        hours[0] += 1
        begin(recipe, epoch)

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours[0])
    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setattr(OnlineUpdate, "begin_epoch", slow)
    chosen = config(steps=2, epoch_steps=2)
    train(chosen, tmp_path / "run", report=lambda step: paces.append(step.seconds_per_step))
    assert hours == [2]
    assert max(paces) < 3600


def test_reports_are_lines_of_json(config, tmp_path):
    train(config(steps=2, epoch_steps=2), tmp_path / "run")
    lines = (tmp_path / "run/epochs.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert (first["epoch"], first["change"], first["psnr"]) == (0, 0.0, None)
    assert len(lines) == 2


def test_photos_large_enough_have_a_niqe(config, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    sample = Image.open(Path(__file__).parents[2] / "samples/rocket.jpg")
    sample.crop((0, 0, 128, 128)).save(folder / "a.png")
    sample.crop((128, 128, 256, 256)).save(folder / "b.png")
    train(config(real=str(folder), steps=1, epoch_steps=1), tmp_path / "run")
    assert all(report.niqe is not None for report in read_reports(tmp_path / "run"))


def test_empty_folder(config, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no images in .*empty"):
        train(config(real=str(tmp_path / "empty")), tmp_path / "run")
    with pytest.raises(DatasetError, match="no folder"):
        train(config(real=str(tmp_path / "absent")), tmp_path / "run2")
    with pytest.raises(ConfigError, match="`real`"):
        train(config(real=""), tmp_path / "run3")


def test_one_photo_needs_no_divergence(config, tmp_path, pairs):
    (tmp_path / "one").mkdir()
    shutil.copy(pairs / "rainy/0.png", tmp_path / "one")
    with pytest.raises(DatasetError, match=r"one photo; R_random .*`kl_weight` 0"):
        train(config(real=str(tmp_path / "one")), tmp_path / "run")
    alone = config(real=str(tmp_path / "one"), kl_weight=0.0, steps=1)
    assert train(alone, tmp_path / "run2").finished


def test_unreadable_and_small_photos(config, tmp_path, pairs):
    folder = tmp_path / "photos"
    shutil.copytree(pairs / "rainy", folder)
    with pytest.raises(DatasetError, match=r"no photo in .* is as large as `crop` 50"):
        train(config(real=str(folder), crop=50), tmp_path / "run")
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"1\.png"):
        train(config(real=str(folder)), tmp_path / "run2")


def test_small_photos_are_skipped_with_a_notice(config, tmp_path, pairs, caplog):
    folder = tmp_path / "photos"
    shutil.copytree(pairs / "rainy", folder)
    count = len(list(folder.iterdir()))
    Image.new("RGB", (30, 7)).save(folder / "small.png")
    assert train(config(real=str(folder), steps=1), tmp_path / "run").finished
    expected = f"skipped 1 of {count + 1} photos smaller than a crop: 'small.png'"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_photos_are_kept_in_the_memory_that_is_given(config):
    one_photo = 2**-30 * 64 * 48 * 3
    photos = RealPhotos.of(config(cache=1.5 * one_photo))
    for photo in range(len(photos)):
        photos.pixels(photo)
    assert (len(photos), photos.cache.held) == (4, 64 * 48 * 3)


def test_lost_pseudo_truth_is_said(config, tmp_path):
    chosen = config(epoch_steps=4)
    report, should_stop = stop_at(6)
    train(chosen, tmp_path / "run", report=report, should_stop=should_stop)
    shutil.rmtree(tmp_path / "run/pseudo-truth")
    with pytest.raises(TrainingError, match=r"pseudo-truth .* is gone"):
        train(chosen, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_weight": -1.0}, "`kl_weight` is -1.0"),
        ({"pseudo_truth": "later"}, "`pseudo_truth` is 'later'"),
        ({"pseudo_passes": 0}, "`pseudo_passes` is 0"),
        ({"recipe": "self_training", "alpha": (1.1, 0.5)}, "`alpha` is .*the smaller one first"),
        ({"labelled": 0.0}, "`labelled` is 0.0"),
        ({"without": ("rain",)}, "`without` is 'rain'. Known: memory"),
    ],
)
def test_impossible_values(changes, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**changes)


def test_plain_training_has_no_photos(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="finetune-real"):
        train(tiny_config("resnet", recipe="online_update"), tmp_path / "run")
