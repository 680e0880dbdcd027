"""A whole search: the alphas' run, what it found as files, and random choices to compare with.

Besides what every run leaves behind (`run_folder`), the folder of a search holds

=====================  ==================================================================
connections.toml       the found edges, every alpha, share and cost
connections.svg        the network with its edges
alphas.csv             the alphas over time
alphas.svg             their shares over time
candidates.json        the found and the random choices, trained alike: cost and PSNR
candidates/NAME/       their training runs
=====================  ==================================================================
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from derain_cli.connections.diagram import History, history_image, network_image
from derain_cli.connections.file import FoundConnections, model_option, to_toml
from derain_cli.connections.space import GIGA, SearchSpace
from derain_cli.errors import ConfigError
from derain_cli.models import build_model
from derain_cli.models.rdmc import CANDIDATES, PAPER_CONNECTIONS, Connection, RdmcSupernet
from derain_cli.training import processes
from derain_cli.training.configs.fields import names
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.paired import with_steps
from derain_cli.training.run_folder import RunFolder
from derain_cli.training.trainer import Progress, TrainResult, train
from derain_cli.whole_files import write_whole

Report = Callable[[str, Progress], None]


@dataclass(frozen=True)
class Candidate:
    """A choice of edges, trained.

    Attributes:
        name: `found`, `paper`, or `random-1` and so on.
        psnr: Highest mean PSNR of a validation, dB.
    """

    name: str
    edges: tuple[Connection, ...]
    cost: int
    psnr: float


@dataclass(frozen=True)
class SearchResult:
    """How a search ended.

    Attributes:
        run: The search itself, without its candidates.
        finished: Whether all that was asked for is done, candidates included.
        candidates: Those whose training is done.
    """

    folder: Path
    run: TrainResult
    finished: bool
    found: FoundConnections
    candidates: tuple[Candidate, ...] = ()


def search(
    config: SearchConfig,
    out: str | os.PathLike[str],
    *,
    candidates: int = 0,
    resume: bool = False,
    report: Report | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Search RDMC's connections and leave what was found in the folder `out`.

    Args:
        config: The search.
        out: Run folder; made when missing, refused when it holds a run and `resume` is not set.
        candidates: Train the found edges and as many random choices (equally likely among those
            with as many edges within the budget), each as long as the search and with its data.
        resume: Go on, with the search or with its candidates.
        report: Called after every step with what is trained, `search` or a candidate's name.
        should_stop: Asked after every step; True saves and ends the search, resumable.

    Raises:
        ConfigError: Impossible options, or a folder that holds another run.
        DatasetError: Data missing, a test set, or too few images for two halves.
        TrainingError: A loss that is not finite; the last saved state stays.
    """
    out, config = Path(out), with_steps(config)
    report = report or (lambda name, progress: None)
    space, deadline = search_space(config), _deadline(config)
    drawn = space.draw(candidates, config.seed) if candidates else []
    if drawn and not config.held_out:
        raise ConfigError("`candidates` are compared on held-out images; give `held_out` 20")

    def stop() -> bool:
        return should_stop() or time.monotonic() > deadline

    with processes.joined(config.device) as device:
        here = replace(config, device=device)
        run = train(here, out, resume=resume, report=partial(report, "search"), should_stop=stop)
        processes.wait_for_all()
        found = _write_found(here, space, out)
        choices = {"found": found.edges} if drawn else {}
        if drawn and _allows_the_papers(space):
            choices["paper"] = PAPER_CONNECTIONS
        choices |= {f"random-{number}": edges for number, edges in enumerate(drawn, start=1)}
        trained: list[Candidate] = []
        if run.finished:
            trained = _train_candidates(here, space, choices, out, report, stop)
    finished = run.finished and len(trained) == len(choices)
    return SearchResult(out, run, finished, found, tuple(trained))


def search_space(config: SearchConfig) -> SearchSpace:
    """What the search of a config may choose.

    Raises:
        ConfigError: No supernet, an impossible option of it, or a budget that cannot be met.
    """
    network = build_model(config.model, config.model_options())
    if not isinstance(network, RdmcSupernet):
        raise ConfigError(f"`derain search` searches 'rdmc-supernet', not {config.model!r}")
    return SearchSpace(network.config.derived(()), config.keep, config.budget)


def _allows_the_papers(space: SearchSpace) -> bool:
    """Whether the paper's four edges are as many as may be kept, and within the budget."""
    within = not space.budget or space.cost(PAPER_CONNECTIONS) <= space.budget * GIGA
    return space.keep == 2 and within


def _deadline(config: SearchConfig) -> float:
    return time.monotonic() + 60 * config.max_time if config.max_time else float("inf")


def _write_found(config: SearchConfig, space: SearchSpace, out: Path) -> FoundConnections:
    """The files of what the state in the folder has found so far."""
    state = RunFolder(out).load_state(torch.device("cpu"))
    step: int = state["run"]["step"]
    history = [(number, alphas.tolist()) for number, alphas in state["recipe"]["history"]]
    about: dict[str, str | int | float | bool] = {
        "steps": step,
        "finished": step >= config.steps,
        "second_order": config.second_order,
        "seed": config.seed,
        "data": ", ".join((*config.dataset, *config.data, *config.clean, *config.rain)),
    }
    found = FoundConnections(space, state["recipe"]["model"]["alphas"].tolist(), about)
    if processes.is_first():
        texts = {
            "connections.toml": to_toml(found),
            "connections.svg": network_image(found),
            "alphas.csv": _table(history),
            "alphas.svg": history_image(history, found.edges),
        }
        for name, text in texts.items():
            write_whole(out / name, text.encode())
    return found


def _table(history: History) -> str:
    names = [f"{source}-{target}" for row in CANDIDATES for source, target in row]
    lines = [",".join(["step", *names])]
    lines += [
        ",".join([str(step), *(repr(alpha) for row in alphas for alpha in row)])
        for step, alphas in history
    ]
    return "\n".join(lines) + "\n"


def candidate_config(config: SearchConfig, edges: tuple[Connection, ...]) -> TrainConfig:
    """Training of a choice of edges: the data, the length and the crops of the search."""
    inherited = names(SearchConfig, lambda option: option.inherited)
    shared = inherited & names(TrainConfig, lambda option: option.inherited)
    options = {name: getattr(config, name) for name in shared}
    return TrainConfig(**options, model_option=(*config.model_option, model_option(edges)))


def _train_candidates(
    config: SearchConfig,
    space: SearchSpace,
    choices: Mapping[str, tuple[Connection, ...]],
    out: Path,
    report: Report,
    stop: Callable[[], bool],
) -> list[Candidate]:
    """The choices whose training is done, in their order; all of them unless stopped."""
    trained: list[Candidate] = []
    for name, edges in choices.items():
        folder, asked = out / "candidates" / name, candidate_config(config, edges)
        begun = (folder / "config.json").exists()
        if begun:
            _require_edges(folder, asked)
        processes.wait_for_all()
        run = train(
            asked,
            folder,
            resume=begun,
            report=partial(report, name),
            should_stop=stop,
        )
        if not run.finished:
            break
        trained.append(Candidate(name, edges, space.cost(edges), run.best_psnr))
    if trained and processes.is_first():
        write_whole(out / "candidates.json", json.dumps(_compared(trained), indent=2).encode())
    return trained


def _require_edges(folder: Path, asked: TrainConfig) -> None:
    """Refuse to go on with a candidate of other edges: those found before the search went on.

    Raises:
        ConfigError: It is one.
    """
    if TrainConfig.read(folder / "config.json").model_option != asked.model_option:
        raise ConfigError(
            f"{str(folder)!r} was trained with the edges of a shorter search; move it away to "
            "train those found since"
        )


def _compared(trained: list[Candidate]) -> dict[str, Any]:
    """What candidates.json says: every candidate; mean and spread of the random ones."""
    scores = [candidate.psnr for candidate in trained if candidate.name.startswith("random")]
    return {
        "candidates": [
            {
                "name": candidate.name,
                "connections": candidate.edges,
                "multiply_adds": candidate.cost,
                "psnr": candidate.psnr,
            }
            for candidate in trained
        ],
        "random_mean": statistics.mean(scores) if scores else None,
        "random_spread": statistics.stdev(scores) if len(scores) > 1 else None,
    }
