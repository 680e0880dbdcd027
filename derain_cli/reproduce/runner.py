"""Train what a table lacks, score it, and write its page; killed at any point, it goes on.

The folder of a table holds

=====================  ==================================================================
settings.json          what was asked for; another call must ask for the same
runs/JOB/              a training run each (`training.run_folder`), with `done.json` at its end
photos/NAME/           links to the real photos that a short adaptation sees
scores/JOB/SET.json    scores of a finished run, image by image
page.md, .html, ...    what `pages` writes of all that is there
=====================  ==================================================================

A run is trained by the trainer, which saves and resumes by itself; a file is whole or not there. So
nothing is lost but the steps since the last save, and no state but the files is needed.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import torch

from derain_cli.datasets.layouts import list_images
from derain_cli.errors import ConfigError
from derain_cli.images import probe_image
from derain_cli.inference.derainer import Derainer
from derain_cli.reproduce.plan import (
    KINDS,
    Job,
    Options,
    chosen_rows,
    folder_of,
    is_present,
    job_of,
    jobs_of,
    missing_data,
    published_config,
    shortened_config,
    with_curve,
)
from derain_cli.reproduce.scoring import Sheet, photo_folder, score_column, spaced
from derain_cli.reproduce.tables import Column, Table
from derain_cli.training import processes
from derain_cli.training.configs.finetune import REST, FinetuneConfig
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.metrics_log import read_metrics
from derain_cli.training.searcher import search
from derain_cli.training.trainer import Progress, train
from derain_cli.whole_files import write_whole

PROBE_STEPS = 4
DONE = "done.json"


@dataclass(frozen=True)
class Event:
    """What a caller may show.

    Attributes:
        what: `run`, `step`, `done`, `skipped`, `score` or `measure`.
        job: Name of the job.
        number: Which job of how many, from 1.
        count: How many jobs there are.
        step: Steps done.
        steps: Steps in all.
        note: Why it was skipped, or what is scored.
    """

    what: str
    job: str
    number: int = 0
    count: int = 0
    step: int = 0
    steps: int = 0
    note: str = ""


Report = Callable[[Event], None]


def reproduce(
    table: Table,
    options: Options,
    *,
    report: Report = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train and score every job of a table that this process is to do; True if all are done.

    Under `torchrun` every process calls this with the same arguments.

    Args:
        table: The table.
        options: What to run of it, and how long.
        report: Called with what goes on, in the first process.
        should_stop: Asked after every step; True saves and ends, to be continued.

    Raises:
        ConfigError: The folder holds results of other settings.
        DatasetError: An image that cannot be read.
        TrainingError: A loss that is not finite.
        ResourceError: No space for a file.
    """
    with processes.joined(options.device) as device:
        here = dataclasses.replace(options, device=device)
        _open(table, here)
        jobs = [job for job in jobs_of(table, here) if not missing_data(job, here)]
        mine = [job for job in jobs if _is_mine(job, here)]
        for number, job in enumerate(mine, start=1):
            note = _noting(report, job, number, len(mine))
            if not _finish(job, table, here, len(jobs), note, should_stop):
                return False
            if processes.is_first():
                _score(job, table, here, note)
            processes.wait_for_all()
        return len(mine) == len(jobs)


def _open(table: Table, options: Options) -> None:
    """Note what is asked for, or check that it is what was asked for before.

    Raises:
        ConfigError: The folder holds results of other settings.
    """
    asked = {
        "table": table.name,
        "budget": options.budget,
        "steps": options.steps,
        "precision": options.precision,
        "images": options.images,
        "instead": dict(options.instead),
        "vgg": options.vgg is not None,
    }
    path = options.out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        # Tables that an earlier version began do not name these two.
        before = {"steps": 0, "precision": "fp32"} | before
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            name = changed[0]
            raise ConfigError(
                f"{str(options.out)!r} was begun with {name} {before.get(name)!r}, now "
                f"{asked[name]!r}; ask for the same, or name another `out`"
            )
    elif processes.is_first():
        options.out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asked, indent=2).encode())
    processes.wait_for_all()


def _is_mine(job: Job, options: Options) -> bool:
    """Whether this shard takes a job; what a job starts from is in the same shard."""
    number, count = options.shard
    first = next(job.chain())
    return crc32(first.name.encode()) % count == number - 1


def _noting(report: Report, job: Job, number: int, count: int) -> Report:
    """A report that adds which job it is about."""

    def note(event: Event) -> None:
        if processes.is_first():
            report(dataclasses.replace(event, job=job.name, number=number, count=count))

    return note


def _finish(
    job: Job,
    table: Table,
    options: Options,
    jobs: int,
    note: Report,
    should_stop: Callable[[], bool],
) -> bool:
    """Train a job to its end, from where it was left; whether it got there."""
    folder = folder_of(job, options)
    if (folder / DONE).exists():
        return True
    begun = (folder / "config.json").exists()
    config = _config_of(job, table, options, jobs, note) if not begun else None
    if config is None:
        config = _own_config(folder, job, options)
    processes.wait_for_all()
    began = time.monotonic()
    note(Event("run", job.name, steps=config.steps))

    def stepped(progress: Progress) -> None:
        note(Event("step", job.name, step=progress.step, steps=progress.steps))

    if isinstance(config, SearchConfig):
        finished = search(
            config,
            folder,
            resume=begun,
            report=lambda _, progress: stepped(progress),
            should_stop=should_stop,
        ).finished
    else:
        finished = train(
            config, folder, resume=begun, report=stepped, should_stop=should_stop
        ).finished
    if not finished:
        return False
    if processes.is_first():
        _note_end(job, config, options, folder, time.monotonic() - began)
    processes.wait_for_all()
    note(Event("done", job.name, step=config.steps, steps=config.steps))
    return True


def _own_config(folder: Path, job: Job, options: Options) -> TrainConfig:
    """The config of a run that was begun, with the device and the data root that there are now."""
    config = KINDS[job.run.command].read(folder / "config.json")
    return dataclasses.replace(
        config,
        device=options.device,
        threads=options.threads,
        data_root=str(options.data_root),
    )


def _config_of(job: Job, table: Table, options: Options, jobs: int, note: Report) -> TrainConfig:
    """The config of a new run: the paper's, or what fits the budget or the steps."""
    config = published_config(job, options)
    if not options.shortens:
        return with_curve(_with_photos(config, table, options), table)
    if options.budget:
        note(Event("measure", job.name))
    shorter = shortened_config(
        job,
        table,
        options,
        60 * options.budget / jobs,
        lambda config: _seconds_of_a_step(
            _with_photos(config, table, options), options.out / "measure" / job.name
        ),
    )
    return with_curve(_with_photos(shorter, table, options), table)


def _with_photos(config: TrainConfig, table: Table, options: Options) -> TrainConfig:
    """The config with a folder of the photos that are large enough, some of them with a budget."""
    if not isinstance(config, FinetuneConfig) or config.real in ("", REST):
        return config
    paths = [
        path
        for path in list_images(photo_folder(config.real, options.data_root))
        if min(probe_image(path)) >= max(config.crop, config.final_crop)
    ]
    paths = spaced(paths, table.photos if options.shortens else 0)
    folder = options.out / "photos" / f"{Path(config.real).name}-{config.crop}-{len(paths)}"
    if processes.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with suppress(FileExistsError):  # another shard may be as far
                (folder / path.name).symlink_to(path.resolve())
    processes.wait_for_all()
    return dataclasses.replace(config, real=str(folder))


def _seconds_of_a_step(config: TrainConfig, folder: Path) -> float:
    """Median seconds of a few real steps, in a folder that is thrown away."""
    if processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)
    processes.wait_for_all()
    seconds: list[float] = []
    steps = 0

    def note(progress: Progress) -> None:
        nonlocal steps
        steps = progress.step
        seconds.append(progress.seconds_per_step)

    began = time.monotonic()
    trial = dataclasses.replace(config, save_every=0, freeze_norm_from=1.0)
    if isinstance(trial, FinetuneConfig):
        # An epoch begins with a look at every photo, which the budget pays for as well.
        trial = dataclasses.replace(trial, epoch_steps=PROBE_STEPS, steps=PROBE_STEPS, epochs=0)
    train(trial, folder, report=note, should_stop=lambda: len(seconds) >= PROBE_STEPS)
    took = time.monotonic() - began
    step = median(seconds[1:]) if len(seconds) > 1 else took / PROBE_STEPS
    mean = processes.mean_of(torch.tensor(step)).item()
    processes.wait_for_all()
    if processes.is_first():
        shutil.rmtree(folder, ignore_errors=True)
    return max(mean, 1e-4)


def _note_end(
    job: Job, config: TrainConfig, options: Options, folder: Path, seconds: float
) -> None:
    paper = published_config(job, options)
    done: dict[str, Any] = {
        "steps": config.steps,
        "paper_steps": paper.steps,
        "crop": config.crop,
        "paper_crop": paper.crop,
        "batch_size": config.batch_size,
        "paper_batch_size": paper.batch_size,
        "model": config.model,
        "data": [*config.dataset, *config.clean, *config.rain],
        "seed": config.seed,
        "seconds": round(max(seconds, _logged_seconds(folder)), 1),
        "prior": _prior(config),
    }
    write_whole(folder / DONE, json.dumps(done, indent=2).encode())


def _logged_seconds(folder: Path) -> float:
    """Seconds of all sessions of a run, as its log has them; 0 without."""
    return max((float(line.get("seconds", 0)) for line in read_metrics(folder)), default=0.0)


def _prior(config: TrainConfig) -> str:
    asked = any(term.startswith("contrastive:") for term in config.loss)
    return "left out" if asked and config.contrastive == 0 else ""


def columns_of(job: Job, table: Table, options: Options) -> list[Column]:
    """The columns that a job's network is scored on."""
    found = []
    for row in chosen_rows(table, options.rows):
        for column in table.columns:
            last = job_of(row, column, job.seed)
            if last and last.name == job.name and column not in found:
                found.append(column)
    return found


def sheet_path(job: Job, column: Column, options: Options) -> Path:
    """Where the scores of a job on a column's test set lie."""
    kind = "-".join(column.metrics)
    return options.out / "scores" / job.name / f"{column.dataset}-{kind}.json"


def images_of(table: Table, options: Options) -> int:
    """How many images of a test set are scored; 0 = all."""
    return options.images or (table.images if options.shortens else 0)


def _score(job: Job, table: Table, options: Options, note: Report) -> None:
    """Score a job on what was not scored yet; a test set that is missing is left out."""
    derainer = None
    for column in columns_of(job, table, options):
        path = sheet_path(job, column, options)
        dataset = options.named(column.dataset)
        if Sheet.read(path) or not is_present(dataset, options.data_root):
            continue
        note(Event("score", job.name, note=column.dataset))
        if derainer is None:
            weights = folder_of(job, options) / "last.safetensors"
            derainer = Derainer.load(weights, device=options.device)
        images = images_of(table, options)
        score_column(column, dataset, derainer, options.data_root, images).write(path)


def finished_jobs(table: Table, options: Options) -> Mapping[str, dict[str, Any]]:
    """What `done.json` says of each job that is done."""
    done = {}
    for job in jobs_of(table, options):
        path = folder_of(job, options) / DONE
        if path.exists():
            done[job.name] = json.loads(path.read_text(encoding="utf-8"))
    return done


def reasons(table: Table, options: Options) -> dict[str, str]:
    """Why jobs cannot be run: name to reason, for those that lack something."""
    named = {job.name: missing_data(job, options) for job in jobs_of(table, options)}
    return {name: reason for name, reason in named.items() if reason}


def missing_tests(table: Table, options: Options) -> Sequence[str]:
    """Test sets of the table that are not in the data root."""
    names = dict.fromkeys(options.named(column.dataset) for column in table.columns)
    if table.count_only:
        return []
    return [name for name in names if not is_present(name, options.data_root)]
