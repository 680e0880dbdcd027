"""From a table to the runs it takes: their configs, the data they need, their steps and time."""

import dataclasses
import fnmatch
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from derain_cli.connections.file import model_option, read_connections
from derain_cli.datasets.known import dataset_folder, plain_folder
from derain_cli.errors import DatasetError, UsageError, did_you_mean
from derain_cli.models import build_model, find_model
from derain_cli.reproduce.tables import Column, Row, Run, Table
from derain_cli.training import finetuning
from derain_cli.training.configs.fields import without_unused
from derain_cli.training.configs.finetune import REST, FinetuneConfig, method_values
from derain_cli.training.configs.presets import preset_values
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.recipes.paired import with_steps

KINDS: Mapping[str, type[TrainConfig]] = {
    "train": TrainConfig,
    "finetune": FinetuneConfig,
    "search": SearchConfig,
}
# A learning curve needs images that nothing is trained on; every other run learns from all.
HELD_OUT = 20
CURVE_POINTS = 20
FEWEST_STEPS = 10
# Forward passes and gradients of a step, beside those of one plain training step.
COSTS = {"self_training": 2.7, "connection_search": 2.0}


@dataclass(frozen=True)
class Options:
    """What the caller asks for.

    Attributes:
        out: Folder of everything; a table that was begun there goes on.
        data_root: Where named data sets lie.
        rows: Names of rows, with wildcards; all when left out.
        seeds: How often each row is trained, with seeds 0, 1, ...
        budget: Minutes of training in all, shared out evenly over the runs; 0 = as published.
        steps: Steps of every run, whatever time they take; 0 = as published or as the budget says.
        images: Images of each test set to score; 0 = all, or the table's number where runs are
            shortened.
        instead: Names of data sets in place of others.
        vgg: File of VGG-19's weights, for losses that need it.
        shard: (number, of how many): which runs this process takes.
    """

    out: Path
    data_root: Path
    rows: tuple[str, ...] = ()
    seeds: int = 1
    budget: float = 0.0
    steps: int = 0
    images: int = 0
    instead: Mapping[str, str] = field(default_factory=dict)
    vgg: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Refuse impossible numbers.

        Raises:
            UsageError: A number out of its range.
        """
        if self.seeds < 1 or min(self.budget, self.steps, self.images) < 0:
            raise UsageError(
                "`seeds` must be 1 or above, `budget`, `steps` and `images` 0 or above"
            )
        if not math.isfinite(self.budget):
            raise UsageError(
                f"`budget` is {self.budget}; it must be minutes, or 0 to train as published"
            )
        if self.budget and self.steps:
            raise UsageError("give `budget` or `steps`: both say how long a run is")
        number, count = self.shard
        if not 1 <= number <= count:
            raise UsageError(f"`shard` is {number}/{count}; it must be I/N with I from 1 to N")

    @property
    def shortens(self) -> bool:
        """Whether runs are shorter than published, and smaller with it."""
        return bool(self.budget or self.steps)

    def named(self, dataset: str) -> str:
        """The data set to take for one that a table names."""
        return self.instead.get(dataset, dataset)


@dataclass(frozen=True)
class Job:
    """A run of a row, on the training data of a column, with a seed.

    Attributes:
        run: What the table says of it.
        trained_on: Names of its training sets, as the paper has them.
        earlier: The job whose weights it starts from.
    """

    run: Run
    trained_on: tuple[str, ...]
    seed: int
    earlier: "Job | None" = None

    @property
    def name(self) -> str:
        """Name of its folder: what decides its numbers."""
        data = "+".join(self.trained_on)
        parts = (self.run.name, data, f"seed{self.seed}")
        return "--".join(re.sub(r"[^\w.+-]", "-", part) for part in parts if part)

    def chain(self) -> Iterator["Job"]:
        """The jobs that must be done, in order, this one last."""
        if self.earlier:
            yield from self.earlier.chain()
        yield self


def chosen_rows(table: Table, names: Sequence[str]) -> tuple[Row, ...]:
    """Rows of ours that the names mean.

    Raises:
        UsageError: A name that means no row that can be run.
    """
    ours = [row for row in table.rows if row.is_ours]
    for name in names:
        if not any(fnmatch.fnmatch(row.name, name) for row in ours):
            hint = did_you_mean(name, [row.name for row in ours])
            raise UsageError(f"table {table.name!r} has no row {name!r} to run. {hint}")
    if not names:
        return tuple(ours)
    return tuple(row for row in ours if any(fnmatch.fnmatch(row.name, name) for name in names))


def job_of(row: Row, column: Column, seed: int) -> Job | None:
    """The last job of a row for a column; None for a row without runs."""
    jobs: dict[str, Job] = {}
    last = None
    for run in row.runs:
        trained_on = () if "clean" in run.options else column.trained_on
        last = jobs[run.name] = Job(run, trained_on, seed, jobs.get(run.after))
    return last


def jobs_of(table: Table, options: Options) -> list[Job]:
    """Every job of the chosen rows, each once, what others start from first."""
    jobs: dict[str, Job] = {}
    for row in chosen_rows(table, options.rows):
        for column in table.columns:
            for seed in range(options.seeds):
                last = job_of(row, column, seed)
                for job in last.chain() if last else ():
                    jobs.setdefault(job.name, job)
    return list(jobs.values())


def folder_of(job: Job, options: Options) -> Path:
    """Where a job's run lies."""
    return options.out / "runs" / job.name


def missing_data(job: Job, options: Options) -> str:
    """What a job lacks to be run, in words; "" if nothing."""
    for part in job.chain():
        needed = [options.named(name) for name in part.trained_on]
        needed += [options.named(name) for name in part.run.options.get("clean", ())]
        real = part.run.options.get("real", "")
        needed += [options.named(real)] if real and real != REST else []
        for name in needed:
            if not is_present(name, options.data_root):
                return f"data set {name!r} is not in the data root"
        if _needs_vgg(part.run) and not options.vgg:
            return "needs VGG-19's weights: give --vgg FILE"
    return ""


def is_present(name: str, data_root: Path) -> bool:
    """Whether a data set or folder of images is there."""
    try:
        dataset_folder(name, data_root)
    except DatasetError:
        return plain_folder(name, data_root).is_dir()
    return True


def require_used(table: Table, options: Options) -> None:
    """Refuse another data set in place of one that the table has no use for.

    Raises:
        UsageError: There is one; the nearest that is used is suggested.
    """
    names = {column.dataset for column in table.columns}
    names |= {name for column in table.columns for name in column.trained_on}
    for run in (run for row in table.rows for run in row.runs):
        names |= {*run.options.get("clean", ()), run.options.get("real", REST)}
    unused = next((name for name in options.instead if name not in names), None)
    if unused is not None:
        hint = did_you_mean(unused, names - {REST})
        raise UsageError(f"`instead`: table {table.name!r} uses no data set {unused!r}. {hint}")


def _needs_vgg(run: Run) -> bool:
    """Whether the row is about a loss in VGG's space; a preset's prior can be left out."""
    terms = run.options.get("loss", ())
    named = any(term.startswith(("perceptual", "contrastive")) for term in terms)
    return named or bool(run.options.get("contrastive"))


def published_config(job: Job, options: Options) -> TrainConfig:
    """The config of a job as its paper has it.

    Raises:
        ConfigError: An impossible value.
        DatasetError: Its data are missing.
    """
    values = _published_values(job, options)
    kind = KINDS[job.run.command]
    config = kind(**without_unused(kind, values))
    if isinstance(config, FinetuneConfig):
        return finetuning.with_steps(config)
    return with_steps(config)


def _published_values(job: Job, options: Options) -> dict[str, Any]:
    given = _given(job, options)
    run = job.run
    if run.command == "finetune":
        values = method_values(run.options["recipe"], given)
    else:
        model = given.get("model", "rdmc-supernet")
        # The second half of a search's training has a preset of its own.
        preset = "searched" if run.preset and job.earlier else run.preset
        values = preset_values(model, preset, given) if preset else {}
    own = values | given
    prior = "contrastive:" in " ".join(own.get("loss", ()))
    if prior and not options.vgg and "contrastive" not in own:
        own["contrastive"] = 0.0
    return own | _plain(options, job.seed)


def _given(job: Job, options: Options) -> dict[str, Any]:
    """Fields that the table names, with the caller's data sets, and what the earlier run left."""
    given = dict(job.run.options)
    if job.trained_on:
        given["dataset"] = tuple(options.named(name) for name in job.trained_on)
    if "clean" in given:
        given["clean"] = tuple(options.named(name) for name in given["clean"])
    if given.get("real", REST) != REST:
        given["real"] = options.named(given["real"])
    if job.earlier:
        given |= _of_earlier(job.earlier, given, options)
    return given


def _of_earlier(earlier: Job, given: Mapping[str, Any], options: Options) -> dict[str, Any]:
    folder = folder_of(earlier, options)
    weights = folder / "last.safetensors"
    model = earlier.run.options.get("model", given.get("model"))
    own: dict[str, Any] = {"weights": str(weights), "model": model}
    settings = list(earlier.run.options.get("model_option", ()))
    if (folder / "config.json").exists():  # which a budget may have made smaller
        settings = list(KINDS[earlier.run.command].read(folder / "config.json").model_option)
    if earlier.run.command == "search":
        own["model"] = "rdmc"
        if (folder / "connections.toml").exists():
            settings.append(model_option(read_connections(folder / "connections.toml")))
    return own | {"model_option": (*settings, *given.get("model_option", ()))}


def _plain(options: Options, seed: int) -> dict[str, Any]:
    """Fields that every job has."""
    return {
        "data_root": str(options.data_root),
        "held_out": 0,
        "validate_every": 0,
        "images": 0,
        "seed": seed,
        "device": options.device,
        "precision": options.precision,
        "threads": options.threads,
        "vgg": options.vgg,
        "save_every": 100,
    }


def shortened_config(
    job: Job,
    table: Table,
    options: Options,
    seconds: float,
    measure: Callable[[TrainConfig], float],
) -> TrainConfig:
    """A job's config for the steps asked for, or for some seconds of training.

    The table says which smaller crops, batches and networks go with it.

    Args:
        job: What to train.
        table: Says what a budget changes besides the steps.
        options: The caller's.
        seconds: What there is for this job; of no account where the options state steps.
        measure: Seconds of one step of a config, from a real one.

    Raises:
        ConfigError: An impossible value.
        DatasetError: Its data are missing.
    """
    config = published_config(job, options)
    known = {item.name for item in dataclasses.fields(config)}
    changes = {name: value for name, value in table.short.items() if name in known}
    if not isinstance(config, FinetuneConfig):
        changes = changes | {"epochs": 0, "epoch_steps": 0}
    small = table.short_networks.get(config.model, ())
    config = dataclasses.replace(config, model_option=(*config.model_option, *small), **changes)
    fitting = options.steps or max(FEWEST_STEPS, int(seconds / measure(config)))
    steps = min(config.steps, fitting)
    if not isinstance(config, FinetuneConfig):
        return dataclasses.replace(config, steps=steps)
    of_epoch = max(1, steps // config.epochs)
    return dataclasses.replace(config, epoch_steps=of_epoch, steps=of_epoch * config.epochs)


def with_curve(config: TrainConfig, table: Table) -> TrainConfig:
    """The config with the validations that a learning curve needs, where the table draws some."""
    if table.figure != "curves":
        return config
    every = max(1, config.steps // CURVE_POINTS)
    return dataclasses.replace(config, held_out=HELD_OUT, validate_every=every)


def estimated_seconds(config: TrainConfig) -> float:
    """Rough seconds of one step on this machine, from a step on noise; needs no data."""
    torch.manual_seed(0)
    entry = find_model(config.model)
    model = build_model(config.model, config.model_options())
    side = min(config.crop, 64)
    rainy = torch.rand(2, 3, side, side)
    took = []
    for _ in range(4):  # the first ones also find memory and kernels
        began = time.perf_counter()
        outputs = model(rainy, **entry.training_outputs)
        tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        loss = torch.stack([x.square().mean() for x in tensors if x is not None]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        took.append(time.perf_counter() - began)
    scale = config.batch_size * config.crop**2 / (2 * side**2)
    return min(took) * scale * COSTS.get(config.recipe, 1.0)
