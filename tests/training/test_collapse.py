"""A planted collapse: it is noticed, said, and undone at half the rate; resume stays bit-equal."""

import dataclasses

import pytest
import torch

from derain_cli.checkpoints.files import read_metadata
from derain_cli.training import collapse, saving
from derain_cli.training.collapse import CollapseWatch
from derain_cli.training.recipes.supervised import Supervised
from derain_cli.training.trainer import train


def watch_over(losses, crop=64):
    watch = CollapseWatch(limit=1.8)
    return watch, [watch.has_collapsed(loss, crop) for loss in losses]


def test_a_loss_that_stays_high_is_a_collapse_and_a_spike_is_not():
    spike = [0.1] * 400 + [3.0] * 3 + [0.1] * 400
    assert not any(watch_over(spike)[1])
    assert any(watch_over([0.1] * 400 + [0.4] * 200)[1])
    assert not any(watch_over([0.1] * 400 + [0.15] * 400)[1])


def test_larger_crops_and_negative_losses_are_judged_by_themselves():
    watch, _ = watch_over([0.1] * 400)
    assert not any(watch.has_collapsed(0.4, 128) for _ in range(400))
    assert not any(watch_over([-0.9] * 400 + [-0.1] * 300)[1])


@pytest.fixture
def quick_watch(monkeypatch):
    """A watch that needs few steps, for runs of a few dozen."""
    for module in (collapse, saving):
        monkeypatch.setattr(module, "PATIENCE", 5)
    monkeypatch.setattr(collapse, "WARM_UP", 5)
    monkeypatch.setattr(collapse, "FOLLOW", 0.5)


@pytest.fixture
def planted(monkeypatch):
    """Weights that turn wild at step 30, the first time that a run comes by."""
    planted = []
    plain = Supervised.update

    def update(recipe, batch, step):
        if step == 30 and not planted:
            planted.append(step)
            with torch.no_grad():
                for parameter in recipe.model.parameters():
                    parameter += 3
        return plain(recipe, batch, step)

    monkeypatch.setattr(Supervised, "update", update)
    return planted


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        "nimbus", steps=60, save_every=6, loss=("l1:1",), ema=0.9, lr=1e-4, collapse=1.8
    )


def test_a_finished_run_keeps_no_save_to_go_back_to(config, tmp_path, quick_watch):
    train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "good.pt").exists()
    assert not (tmp_path / "run" / "candidate.pt").exists()


def test_a_planted_collapse_is_undone(config, tmp_path, quick_watch, planted, lines_of):
    notices = []
    result = train(config, tmp_path / "run", report=lambda p: notices.append((p.notice, p.lr)))
    assert planted == [30]
    assert result.finished
    told = [notice for notice, _ in notices if notice]
    assert len(told) == 1
    assert told[0].startswith("collapsed at step ")
    assert "back to step 24, at 0.5 of the learning rate" in told[0]
    assert notices[-1][1] == pytest.approx(0.5 * config.lr_at(59))
    logged = [line for line in lines_of(tmp_path / "run") if "collapse" in line]
    assert [line["collapse"] for line in logged] == told
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    groups = state["recipe"]["optimizer"]["param_groups"]
    assert [group["rate_share"] for group in groups] == [0.5]
    weights = state["recipe"]["model"].values()
    assert max(weight.abs().max().item() for weight in weights) < 2.5


def test_going_back_keeps_the_best_weights_so_far(
    config, tmp_path, quick_watch, planted, monkeypatch
):
    plain, scores = saving.validate, iter([20.0, 20.0, 20.0, 40.0, *[21.0] * 99])

    def scored(*arguments):
        """A validation as of a run that is at its best between its good save and its collapse."""
        score = next(scores)
        return dataclasses.replace(plain(*arguments), scores={"here": score}, psnr=score)

    monkeypatch.setattr(saving, "validate", scored)
    often = dataclasses.replace(config, validate_every=7)
    result = train(often, tmp_path / "run")
    assert planted == [30]
    assert result.best_psnr == 40.0
    best = read_metadata(tmp_path / "run" / "best.safetensors")
    assert (best["step"], float(best["validation_psnr"])) == ("28", 40.0)


def test_resume_after_going_back_is_bit_equal(
    config, tmp_path, quick_watch, planted, assert_same_run
):
    train(config, tmp_path / "one")
    planted.clear()
    stopped = []
    train(
        config,
        tmp_path / "other",
        report=lambda p: stopped.append(p.step),
        should_stop=lambda: len(stopped) == 50,
    )
    assert train(config, tmp_path / "other", resume=True).finished
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_the_save_to_return_to_stays_until_a_newer_one_has_proved_itself(
    config, tmp_path, quick_watch, planted
):
    seen = []
    train(config, tmp_path / "run", report=seen.append, should_stop=lambda: len(seen) == 32)
    good = torch.load(tmp_path / "run" / "good.pt", weights_only=True)
    assert good["run"]["step"] == 24  # 30 was saved too, a step before the collapse showed


def test_a_gradient_that_is_not_finite_goes_back_too(config, tmp_path, quick_watch, monkeypatch):
    plain, broken = Supervised.update, []

    def update(recipe, batch, step):
        if step == 40 and not broken:
            broken.append(step)
            batch = dict(batch) | {"clean": torch.full_like(batch["clean"], float("nan"))}
        return plain(recipe, batch, step)

    monkeypatch.setattr(Supervised, "update", update)
    notices = []
    assert train(config, tmp_path / "run", report=lambda p: notices.append(p.notice)).finished
    assert [notice[:21] for notice in notices if notice] == ["collapsed at step 40:"]


def test_zero_turns_the_watch_off(config, tmp_path, quick_watch, planted):
    notices = []
    off = dataclasses.replace(config, collapse=0.0)
    train(off, tmp_path / "run", report=lambda p: notices.append(p.notice))
    assert not any(notices)
    assert not (tmp_path / "run" / "good.pt").exists()
