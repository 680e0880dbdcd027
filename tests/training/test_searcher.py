"""A whole search on tiny data: what it leaves behind, resuming to the bit, and its candidates."""

import csv
import dataclasses
import itertools
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from derain_cli.checkpoints.resolving import load_model
from derain_cli.connections.file import read_connections
from derain_cli.connections.space import GIGA
from derain_cli.errors import ConfigError
from derain_cli.models.rdmc import CANDIDATES, PAPER_CONNECTIONS, RdmcSupernet
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.searcher import candidate_config, search, search_space
from derain_cli.training.trainer import train
from tests.children import Child

DATA = Path(os.environ.get("DERAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
TINY = ("widths=[2,2,2,2,2]", "dilations=[1]", "stages=1")


def config_of(pairs: Path, **changes) -> SearchConfig:
    options = {
        "dataset": (str(pairs),),
        "model_option": TINY,
        "steps": 6,
        "batch_size": 2,
        "crop": 32,
        "held_out": 1,
        "alpha_lr": 0.02,
        "device": "cpu",
        "validate_every": 0,
        "images": 0,
        "seed": 4,
    }
    return SearchConfig(**(options | changes))


def stop_after(steps: int):
    answers = itertools.chain([False] * (steps - 1), itertools.repeat(True))
    return lambda: next(answers)


def assert_same(first, second) -> None:
    """Equal to the bit, through dictionaries and lists; times apart."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first.keys() - {"seconds", "candidate"}:  # when it was saved changes no number
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.fixture(scope="module")
def searched(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("search") / "run"
    steps = []
    result = search(config_of(pairs), out, report=lambda name, p: steps.append((name, p.step)))
    assert steps == [("search", step) for step in range(1, 7)]
    return result


def test_search_leaves_edges_images_and_alphas_over_time(searched):
    out = searched.folder
    assert (searched.finished, searched.run.step, searched.candidates) == (True, 6, ())
    assert read_connections(out / "connections.toml") == searched.found.edges
    content = tomllib.loads((out / "connections.toml").read_text())
    assert (content["steps"], content["finished"], content["seed"]) == (6, True, 4)
    for name in ("connections.svg", "alphas.svg"):
        assert ElementTree.parse(out / name).getroot().tag.endswith("svg")
    with (out / "alphas.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["step", *map(str, range(7))]
    last = [float(value) for value in rows[-1][1:]]
    assert last == [alpha for row in searched.found.alphas for alpha in row]
    assert rows[0][1:] == [f"{a}-{b}" for row in CANDIDATES for a, b in row]
    assert any(last)


def test_checkpoint_of_a_search_is_the_supernet_with_its_alphas(searched):
    loaded = load_model(searched.folder)
    assert isinstance(loaded.model, RdmcSupernet)
    assert loaded.model.alphas.tolist() == searched.found.alphas
    assert loaded.model(torch.rand(1, 3, 20, 20)).shape == (1, 3, 20, 20)


def test_network_trained_from_the_file_remembers_its_connections(searched, pairs, tmp_path):
    edges = read_connections(searched.folder / "connections.toml")
    config = candidate_config(config_of(pairs, steps=2), edges)
    train(config, tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    assert loaded.architecture == "rdmc"
    assert loaded.model.config.connections == edges
    assert loaded.model.config.widths == (2, 2, 2, 2, 2)


@pytest.mark.parametrize("second_order", [False, True])
def test_four_steps_resumed_by_two_equal_six_to_the_bit(pairs, tmp_path, second_order):
    """Weights, alphas, both optimizers, history and the written files."""
    config = config_of(pairs, second_order=second_order, freeze_norm_from=0.8)
    search(config, tmp_path / "whole")
    stopped = search(config, tmp_path / "parts", should_stop=stop_after(4))
    assert (stopped.run.step, stopped.finished) == (4, False)
    content = tomllib.loads((tmp_path / "parts" / "connections.toml").read_text())
    assert (content["steps"], content["finished"]) == (4, False)
    assert search(config, tmp_path / "parts", resume=True).finished
    whole, parts = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert {"model", "optimizer", "alpha_optimizer", "history"} <= whole["recipe"].keys()
    assert_same(whole, parts)
    for name in ("connections.toml", "connections.svg", "alphas.csv", "alphas.svg"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_candidates_are_trained_alike_and_compared(pairs, tmp_path):
    config = config_of(pairs, steps=3, budget=0.021)
    named = []
    result = search(
        config, tmp_path / "run", candidates=3, report=lambda name, p: named.append(name)
    )
    # The paper's four edges take part where they are within the budget.
    papers = search_space(config).cost(PAPER_CONNECTIONS) <= 0.021 * GIGA
    names = ["found", *(["paper"] if papers else []), "random-1", "random-2", "random-3"]
    assert [name for name, _ in itertools.groupby(named)] == ["search", *names]
    assert named.count("random-2") == 3
    assert [candidate.name for candidate in result.candidates] == names
    assert result.candidates[0].edges == result.found.edges
    assert all(candidate.cost <= 0.021 * GIGA for candidate in result.candidates)
    assert len({candidate.edges for candidate in result.candidates[-3:]}) == 3
    content = json.loads((tmp_path / "run" / "candidates.json").read_text())
    scores = [candidate.psnr for candidate in result.candidates]
    assert [candidate["psnr"] for candidate in content["candidates"]] == scores
    assert content["random_mean"] == pytest.approx(statistics.mean(scores[-3:]))
    assert content["random_spread"] == pytest.approx(statistics.stdev(scores[-3:]))
    for candidate in result.candidates:
        loaded = load_model(tmp_path / "run" / "candidates" / candidate.name)
        assert loaded.model.config.connections == candidate.edges


def test_interrupted_candidates_go_on_where_they_were(pairs, tmp_path):
    config = config_of(pairs, steps=3)
    whole = search(config, tmp_path / "whole", candidates=2)
    stopped = search(config, tmp_path / "parts", candidates=2, should_stop=stop_after(10))
    assert (stopped.run.step, stopped.finished) == (3, False)
    assert [candidate.name for candidate in stopped.candidates] == ["found", "paper"]
    # What a kill before the first save leaves behind does not stand in the way.
    left = tmp_path / "parts" / "candidates" / "random-2"
    left.mkdir()
    edges = search_space(config).draw(2, config.seed)[1]
    (left / "config.json").write_text(candidate_config(config, edges).to_json())
    resumed = search(config, tmp_path / "parts", candidates=2, resume=True)
    assert resumed.finished
    assert resumed.candidates == whole.candidates


def test_candidates_may_be_asked_for_after_the_search(pairs, tmp_path):
    config = config_of(pairs, steps=2)
    search(config, tmp_path / "run")
    result = search(config, tmp_path / "run", candidates=1, resume=True)
    names = ["found", "paper", "random-1"]
    assert [candidate.name for candidate in result.candidates] == names
    assert result.candidates[1].edges == PAPER_CONNECTIONS
    assert json.loads((tmp_path / "run" / "candidates.json").read_text())["random_spread"] is None


def test_a_candidate_of_a_shorter_search_is_not_gone_on_with(pairs, tmp_path):
    config = config_of(pairs, steps=2)
    search(config, tmp_path / "run")
    earlier = tmp_path / "run" / "candidates" / "found"
    earlier.mkdir(parents=True)
    (earlier / "config.json").write_text(candidate_config(config, ((1, 6),)).to_json())
    with pytest.raises(ConfigError, match="the edges of a shorter search; move it away"):
        search(config, tmp_path / "run", candidates=1, resume=True)


def test_impossible_searches_write_nothing(pairs, tmp_path):
    out = tmp_path / "run"
    for changes, candidates, message in (
        ({"budget": 1e-6}, 0, "`budget` is 1e-06 GMAC"),
        ({"model": "rdmc", "model_option": ()}, 0, "model 'rdmc' has no option 'keep'"),
        ({"keep": 10}, 2, "random 2: it must be from 1 to 1"),
        ({"held_out": 0}, 1, "compared on held-out images"),
        ({"recipe": "supervised", "model": "unet", "model_option": ()}, 0, "'unet'"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(config_of(pairs, **changes), out, candidates=candidates)
    assert not out.exists()


def test_other_options_on_resume_are_refused(searched, pairs):
    for changes in ({"keep": 3}, {"second_order": True}, {"budget": 3.0}, {"alpha_lr": 0.5}):
        (name,) = changes
        config = dataclasses.replace(config_of(pairs), **changes)
        with pytest.raises(ConfigError, match=f"`resume` with another `{name}`"):
            search(config, searched.folder, resume=True)


def test_config_reads_back_and_refuses_impossible_values(tmp_path):
    config = SearchConfig(keep=3, budget=2.9, second_order=True, model_option=("stages=1",))
    (tmp_path / "config.json").write_text(config.to_json())
    assert SearchConfig.read(tmp_path / "config.json") == config
    for changes, message in (
        ({"keep": 0}, "`keep` is 0; it must be from 1 to 10"),
        ({"budget": -1.0}, "`budget` is -1.0; it must be 0 or above"),
        ({"alpha_lr": 0.0}, "`alpha_lr` is 0.0; it must be above 0"),
        ({"precision": "fp16"}, "`precision` is 'fp16'"),
    ):
        with pytest.raises(ConfigError, match=message):
            SearchConfig(**changes)


CHILD = """
import sys
from pathlib import Path
from derain_cli.training import processes
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.searcher import search
with processes.joined("cpu"):
    for path in sys.argv[1:]:
        result = search(SearchConfig.read(Path(path)), Path(path).with_suffix(""), candidates=1)
        assert len(result.candidates) == 2
"""


def run_two(paths: list[Path]) -> None:
    """Search by each config in two processes that talk through gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(2):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        settings = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, **place}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        command = [sys.executable, "-c", CHILD, *map(str, paths)]
        children.append(Child(command, env=environment, stderr=subprocess.PIPE))
    try:
        for child in children:
            _, errors = child.communicate(timeout=300)
            assert child.returncode == 0, errors.decode()
    finally:
        for child in children:
            child.kill()


def mean_gradient(run: Path) -> torch.Tensor:
    """Adam's moving average of the alphas' gradient after the last step."""
    state = torch.load(run / "state.pt", weights_only=True)["recipe"]["alpha_optimizer"]["state"]
    return state[0]["exp_avg"]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(pairs, tmp_path):
    short = {"steps": 4, "save_every": 0, "loss": ("mse:1",), "threads": 1}
    configs = {
        "first": config_of(pairs, **short),
        "second": config_of(pairs, second_order=True, **short),
        "uneven": config_of(pairs, batch_size=3, **short),
    }
    paths = []
    for name, config in configs.items():
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(config.to_json())
    run_two(paths)
    for name, config in configs.items():
        alone = search(config, tmp_path / f"{name}-alone", candidates=1)
        # The alphas' mean gradient, not the alphas: Adam divides small gradients by themselves,
        # and has done so with the weights' for three steps: 1 % here. A lost share would be half.
        mine, theirs = (mean_gradient(tmp_path / run) for run in (f"{name}-alone", name))
        assert (theirs - mine).abs().max() < 0.03 * mine.abs().max()
        assert read_connections(tmp_path / name / "connections.toml") == alone.found.edges
        found = json.loads((tmp_path / name / "candidates.json").read_text())["candidates"]
        scores = [candidate.psnr for candidate in alone.candidates]
        assert [candidate["psnr"] for candidate in found] == pytest.approx(scores, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "rain100l_train").is_dir(), reason="needs ../shared/data")
def test_bounded_search_on_photos_learns_and_leaves_indifference(tmp_path):
    """The published widths on RainTrainL, some minutes on two cores; no edge is prescribed."""
    config = SearchConfig(
        dataset=("rain100l_train",),
        data_root=str(DATA),
        steps=60,
        batch_size=4,
        alpha_lr=0.01,
        held_out=4,
        precision="bf16",
        device="cpu",
        validate_every=0,
        images=0,
    )
    losses = []
    result = search(config, tmp_path, report=lambda name, p: losses.append(p.parts))
    assert result.finished
    for name in ("loss", "alpha_loss"):
        values = [parts[name] for parts in losses]
        assert statistics.mean(values[-15:]) < 0.7 * statistics.mean(values[:5])
    # Five equal steps of Adam: more than chance moves alphas apart that all get the same gradient.
    assert all(max(row) - min(row) > 5 * config.alpha_lr for row in result.found.alphas)
    assert all(entropy < math.log(10) for entropy in result.found.entropies)
    assert load_model(tmp_path).model.config.keep == 2
