"""`derain eval`: scores of models on data sets, under a named protocol."""

import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.cli.options import (
    SPEED,
    BatchSize,
    Device,
    Passes,
    Scales,
    ScalesOption,
    Strength,
    TestTimeAugmentation,
    Threads,
    Tile,
    TileOverlap,
    option,
)
from derain_cli.cli.output_files import DataRoot, default_data_root, require_output_file
from derain_cli.cli.scaling import OnOption, ShardOption, check_engine, shard_of_pairs
from derain_cli.cli.scores import Results, show_json, show_tables, summarise_rows
from derain_cli.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from derain_cli.cli.eval_view import EvalView
    from derain_cli.datasets.layouts import Pair
    from derain_cli.evaluation.deraining import EvaluatedModel
    from derain_cli.evaluation.journal import Journal
    from derain_cli.evaluation.scoring import Key, Scored
    from derain_cli.evaluation.statistics import Row
    from derain_cli.inference.derainer import DerainerOptions
    from derain_cli.scale.evaluation_on_ray import Weights

WHAT, SCORES, RESULTS = "What is scored", "Scores", "Results"
METRICS_HELP = (
    "Separated by commas: psnr (dB, higher is better), ssim (up to 1, higher), niqe (about 2 to "
    "20, lower; needs no clean image), lpips and dists (0 to about 1, lower; need published "
    "weights), e_r (levels of rain removed, higher), e_b (levels of background changed, lower), "
    "dry (PSNR of the derained clean image, higher; twice the time), change (levels changed)."
)


NAMED = ("device", "precision", "passes", "tta", "tile", "tile_overlap")
UNNAMED = {"engine": "torch", "scales": 1}


@dataclass(frozen=True)
class Engine:
    """How models run; what of it changes scores must be the same on `--resume`."""

    running: "DerainerOptions"
    strength: float
    batch_size: int

    def settings(self) -> dict[str, Any]:
        """What changes scores, by name."""
        running: Mapping[str, Any] = self.running
        # Defaults are not named: tables begun before there was a choice go on.
        chosen = [name for name, default in UNNAMED.items() if running[name] != default]
        named = {name.replace("_", " "): running[name] for name in (*NAMED, *chosen)}
        return named | {"strength": self.strength, "batch size": self.batch_size}


DataSets = Annotated[
    list[str] | None,
    option("--dataset", panel=WHAT, help="Data set by name, or a folder of pairs; repeatable."),
]
RainyFolder = Annotated[Path | None, option("--rainy", panel=WHAT, help="Folder of rainy images.")]
CleanFolder = Annotated[
    Path | None, option("--clean", panel=WHAT, help="Folder of their clean images.")
]
ImageFolder = Annotated[
    Path | None,
    option(
        "--images",
        panel=WHAT,
        help="Folder of images without ground truth, scored by NIQE and by how much models change "
        "them.",
    ),
]
Models = Annotated[
    list[str] | None,
    option(
        "--model",
        "-m",
        show_default=DEFAULT_WEIGHTS,
        panel=WHAT,
        help="Weights by name or path; repeatable.",
    ),
]
InputOnly = Annotated[
    bool,
    option("--input-only", panel=WHAT, help="Score the rainy images themselves, without a model."),
]
Limit = Annotated[
    int,
    option("--limit", min=0, panel=WHAT, help="Score only the first N pairs of each set; 0 = all."),
]
Protocol = Annotated[
    str | None,
    option(
        "--protocol",
        panel=SCORES,
        help="y (limited-range luma), y-full or rgb, each of the 8-bit result (default: what the "
        "data set's papers use: rgb for DDN-SIRR, y for the rest).",
        show_default=False,
    ),
]
Metrics = Annotated[
    str | None,
    option("--metrics", panel=SCORES, show_default="psnr,ssim", help=METRICS_HELP),
]
Seed = Annotated[
    int, option("--seed", min=0, panel=SCORES, help="Random seed of the bootstrap intervals.")
]
PrecisionName = Annotated[str, option("--precision", panel=SPEED, help="auto, fp32, bf16 or fp16.")]
EngineChoice = Annotated[
    str,
    option(
        "--engine",
        panel=SPEED,
        help="What runs the network: torch, the reference; openvino, onnx or auto.",
    ),
]
Workers = Annotated[
    int,
    option(
        "--workers",
        "-j",
        min=1,
        panel=SPEED,
        help="Threads that read, and as many again that score, while the network runs.",
    ),
]
CsvFile = Annotated[
    Path | None,
    option(
        "--csv",
        panel=RESULTS,
        help="Write each row to FILE.csv, and to FILE.jsonl beside it, as soon as it is known.",
    ),
]
Resume = Annotated[
    bool,
    option("--resume", panel=RESULTS, help="Resume the unfinished evaluation in --csv."),
]
Overwrite = Annotated[
    bool,
    option("--overwrite", panel=RESULTS, help="Replace an unfinished evaluation in --csv."),
]
Html = Annotated[
    Path | None,
    option("--html", panel=RESULTS, help="Write a self-contained HTML report."),
]
SaveImages = Annotated[
    Path | None,
    option("--save-images", panel=RESULTS, help="Folder for the derained images (PNG)."),
]
ComparePaper = Annotated[
    bool,
    option(
        "--compare-paper",
        panel=RESULTS,
        help="Add the scores that papers print, marked as quoted.",
    ),
]
AsJson = Annotated[bool, option("--json", panel=RESULTS, help="Print JSON lines on stdout.")]
Quiet = Annotated[bool, option("--quiet", "-q", panel=RESULTS, help="Show no progress.")]


def evaluate(
    dataset: DataSets = None,
    rainy: RainyFolder = None,
    clean: CleanFolder = None,
    images: ImageFolder = None,
    data_root: DataRoot = None,
    model: Models = None,
    input_only: InputOnly = False,
    limit: Limit = 0,
    protocol: Protocol = None,
    metrics: Metrics = None,
    strength: Strength = 1.0,
    passes: Passes = 1,
    tta: TestTimeAugmentation = False,
    scales: ScalesOption = Scales.one,
    seed: Seed = 0,
    device: Device = "auto",
    precision: PrecisionName = "fp32",
    engine: EngineChoice = "torch",
    tile: Tile = None,
    tile_overlap: TileOverlap = None,
    batch_size: BatchSize = 1,
    threads: Threads = None,
    workers: Workers = 1,
    csv_file: CsvFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    html: Html = None,
    save_images: SaveImages = None,
    compare_paper: ComparePaper = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    shard: ShardOption = None,
    on: OnOption = None,
) -> None:
    """Score models on pairs of rainy and clean images; the untouched input is the first row.

    Ctrl-C prints the table so far. With --csv, the same command with --resume continues where it
    stopped, even after a power cut.
    """
    from derain_cli.cli.eval_view import EvalView

    if input_only and model:
        raise UsageError("--input-only and --model exclude each other: leave one out")
    if resume and (overwrite or not csv_file):
        raise UsageError("--resume needs --csv FILE and excludes --overwrite")
    check_engine(on)
    if on and (html or save_images):
        raise UsageError("--on ray only scores: drop --html and --save-images")
    pairs = _pairs_of(dataset or [], rainy, clean, images, data_root or default_data_root())
    if csv_file:
        require_output_file(csv_file, "--csv", ".csv")
    if html:
        require_output_file(html, "--html", ".html", ".htm")
    metric_names = _metrics_of(metrics, unpaired=images is not None)
    if not quiet:
        _say_what_is_scored(pairs, limit, shard)
    # The first of each set, whichever shard does them: together, shards score what one run would.
    pairs = {name: members[: limit or None] for name, members in pairs.items()}
    pairs = shard_of_pairs(pairs, shard)
    running: DerainerOptions = {
        "device": device,
        "engine": engine,
        "precision": precision,
        "passes": passes,
        "tta": tta,
        "scales": scales.number,
        "tile": tile,
        "tile_overlap": tile_overlap,
        "threads": threads,
    }
    how = Engine(running, strength, batch_size)
    scoring = Scoring(pairs, metric_names, protocol, how, workers, save_images, on)
    with EvalView(quiet=quiet).shown() as view:
        scoring.load(view, [] if input_only else model or [""])
        journal = scoring.open_journal(view, csv_file, resume=resume, overwrite=overwrite)
        rows, seconds, interrupted = scoring.run(view, journal)
        results = summarise_rows(
            rows,
            seconds,
            scoring.precision,
            quote=compare_paper,
            seed=seed,
            total=scoring.total,
            known=scoring.known,
        )
        if html and not interrupted:
            _write_html(html, results, scoring, view)
    (show_json if as_json else show_tables)(results)
    if not quiet and rows:
        typer.echo(results.time_spent, err=True)
    if interrupted:
        _say_how_to_go_on(journal, html)
        raise typer.Exit(INTERRUPTED)


class Scoring:
    """An evaluation from its pairs to its rows.

    Attributes:
        pairs: By data set.
        models: Models to score besides the input.
        weights: SHA-256 of each model's file, by the model's name.
        known: Number of rows that an earlier session scored.
    """

    def __init__(
        self,
        pairs: "Mapping[str, Sequence[Pair]]",
        metrics: Sequence[str],
        protocol: str | None,
        engine: Engine,
        workers: int,
        save_images: Path | None,
        on: str | None = None,
    ) -> None:
        self.on = on
        self.sent: list[Weights] = []
        self.pairs, self.metrics, self.protocol, self.engine = pairs, metrics, protocol, engine
        self.workers, self.save_images = workers, save_images
        self.models: list[EvaluatedModel] = []
        self.weights: dict[str, str] = {}
        self.known = 0

    @property
    def total(self) -> int:
        """Number of rows in all."""
        return sum(map(len, self.pairs.values())) * (1 + len(self.weights))

    @property
    def precision(self) -> str:
        """That of the networks: "auto" says nothing of a score, nor what another machine takes."""
        return (
            self.models[0].derainer.precision if self.models else self.engine.running["precision"]
        )

    def load(self, view: "EvalView", names: Sequence[str]) -> None:
        """Load the models; an empty name is the default one's."""
        from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, known_harm
        from derain_cli.checkpoints.resolving import resolve_weights
        from derain_cli.evaluation.deraining import EvaluatedModel
        from derain_cli.evaluation.identity import file_sha256
        from derain_cli.inference.derainer import Derainer
        from derain_cli.scale.evaluation_on_ray import read_weights

        for number, name in enumerate(name or DEFAULT_WEIGHTS for name in names):
            view.phase("loading models", number, len(names))
            if name in self.weights:
                raise UsageError(f"--model {name!r} is given twice")
            self.weights[name] = file_sha256(resolve_weights(name))
            if self.on:
                self.sent.append(read_weights(name))
                continue
            derainer = Derainer.load(name, **self.engine.running)
            # Checkpoints of two runs have one file name: tell them apart as the user did.
            self.models.append(EvaluatedModel(derainer, name, self.engine.strength))
            if harm := known_harm(name):
                typer.echo(f"{name}: {harm}", err=True)

    def open_journal(
        self, view: "EvalView", path: Path | None, *, resume: bool, overwrite: bool
    ) -> "Journal | None":
        """Journal in a CSV file, new or resumed."""
        from derain_cli.evaluation.identity import data_identity
        from derain_cli.evaluation.journal import Journal
        from derain_cli.evaluation.scoring import columns_of

        if path is None:
            return None
        settings = {
            "models": list(self.weights),
            "weights": self.weights,
            "data": data_identity(
                self.pairs, lambda done, files: view.phase("reading data", done, files)
            ),
            "protocol": self.protocol or "each set's own",
            "metrics": list(self.metrics),
        }
        settings |= self.engine.settings() | {"precision": self.precision}
        journal = Journal(path, columns_of(self.metrics), settings)
        journal.resume() if resume else journal.begin(overwrite=overwrite)
        return journal

    def run(self, view: "EvalView", journal: "Journal | None") -> "tuple[list[Row], float, bool]":
        """All rows, the seconds of this session, and whether Ctrl-C ended it."""
        from derain_cli.evaluation import scoring
        from derain_cli.evaluation.extremes import leading_column

        rows = list(journal.rows) if journal else []
        self.known = len(rows)
        column = leading_column(scoring.columns_of(self.metrics))
        images = sum(map(len, self.pairs.values()))
        began = time.perf_counter()
        fresh = self._fresh({scoring.key_of(row) for row in rows})
        view.begin_scoring(images, 1 + len(self.weights), rows, column)
        try:
            for row in fresh:
                rows.append(row)
                if journal:
                    journal.append(row)
                view.note(row)
        except KeyboardInterrupt:
            return rows, time.perf_counter() - began, True
        if journal and rows:
            journal.end()
        return rows, time.perf_counter() - began, False

    def _fresh(self, done: "Collection[Key]") -> "Iterator[Row]":
        """Score the missing rows, in this process or on Ray."""
        from derain_cli.evaluation import scoring

        if self.on is None:
            return scoring.evaluate(
                self.pairs,
                self.models,
                self.protocol,
                metrics=self.metrics,
                observe=self._observer(),
                done=done,
                workers=self.workers,
                batch_size=self.engine.batch_size,
            )
        from derain_cli.scale.evaluation_on_ray import evaluate_on_ray

        task = (self.protocol, self.metrics, self.engine.strength)
        return evaluate_on_ray(self.pairs, self.sent, self.engine.running, *task, done, self.on)

    def _observer(self) -> "Callable[[Scored], None] | None":
        if not self.save_images:
            return None
        from derain_cli.evaluation.gallery import save_derained

        return save_derained(self.save_images)


def _pairs_of(
    names: Sequence[str],
    rainy: Path | None,
    clean: Path | None,
    images: Path | None,
    data_root: str,
) -> "dict[str, list[Pair]]":
    from derain_cli.datasets.known import dataset_pairs
    from derain_cli.datasets.layouts import match_pairs, unpaired_images

    if (rainy is None) != (clean is None):
        raise UsageError("--rainy and --clean go together: give both folders")
    if images and (names or rainy):
        raise UsageError("--images has no ground truth: score it separately from pairs")
    if images:
        return {str(images): unpaired_images(images)}
    pairs = {name: dataset_pairs(name, Path(data_root)) for name in names}
    if rainy and clean:
        pairs[str(rainy)] = match_pairs(rainy, clean)
    if not pairs:
        raise UsageError(
            "nothing to score: give --dataset NAME, --rainy DIR and --clean DIR, or --images DIR"
        )
    return pairs


def _say_what_is_scored(
    pairs: "Mapping[str, Sequence[Pair]]", limit: int, shard: str | None
) -> None:
    from derain_cli.datasets.known import DATASETS, dataset_named, describe_count

    for name, members in pairs.items():
        key = dataset_named(name)
        note = DATASETS[key].note if key else ""
        cut = f", the first {limit} of them scored" if 0 < limit < len(members) else ""
        cut += f", shard {shard} of these" if shard else ""
        unpaired = any(pair.is_unpaired for pair in members)
        count = f"{len(members)} images" if unpaired else describe_count(name, len(members))
        typer.echo(f"{name}: {count}{cut}{f' (note: {note})' if note else ''}", err=True)


def _metrics_of(text: str | None, *, unpaired: bool) -> list[str]:
    from derain_cli.errors import did_you_mean
    from derain_cli.evaluation.scoring import DEFAULT_METRICS, METRICS, UNPAIRED_METRICS

    if text is None:
        return list(UNPAIRED_METRICS if unpaired else DEFAULT_METRICS)
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}. {did_you_mean(name, METRICS)}")
        if unpaired and name not in UNPAIRED_METRICS:
            raise UsageError(
                f"metric {name!r} needs clean images; with --images, use "
                f"{', '.join(UNPAIRED_METRICS)}"
            )
    if not names:
        raise UsageError(f"--metrics names no metric. Known: {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def _write_html(path: Path, results: Results, scoring: Scoring, view: "EvalView") -> None:
    from derain_cli.evaluation.extremes import leading_column
    from derain_cli.evaluation.gallery import choose_cases, draw_cases
    from derain_cli.evaluation.report import Report, write_report
    from derain_cli.evaluation.scoring import columns_of

    if not results.rows:
        typer.echo(f"no pair is in this shard: {str(path)!r} is not written", err=True)
        return
    choices = choose_cases(results.rows, leading_column(columns_of(scoring.metrics)))
    cases = draw_cases(
        choices,
        scoring.pairs,
        scoring.models,
        lambda done, images: view.phase("drawing the report", done, images),
    )
    report = Report(
        results.rows,
        results.scores,
        differences=results.differences,
        quotes=results.quotes,
        cases=cases,
        facts=_facts(results, scoring),
        seed=results.seed,
    )
    write_report(path, report)


def _facts(results: Results, scoring: Scoring) -> dict[str, str]:
    """Facts about an evaluation for its report, by name."""
    import datetime

    import torch

    from derain_cli.training.origin import machine
    from derain_cli.version import __version__

    device = torch.device(scoring.models[0].derainer.device if scoring.models else "cpu")
    now = datetime.datetime.now(datetime.UTC)
    running = scoring.engine.settings() | {"precision": scoring.precision}
    settings = {name: str(value) for name, value in running.items() if value}
    return {
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["derain", *sys.argv[1:]]),
        "version": f"derain {__version__}",
        "machine": machine(device),
        "time": results.time_spent,
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items()),
        **{f"weights {name}": f"SHA-256 {digest}" for name, digest in scoring.weights.items()},
    }


def _say_how_to_go_on(journal: "Journal | None", html: Path | None) -> None:
    """Message after Ctrl-C, with the command that resumes."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    report = f" before the report {str(html)!r} was written" if html else ""
    if journal and journal.rows:
        command = shlex.join(["derain", *words, "--resume"])
        typer.echo(f"interrupted{report}; go on with: {command}", err=True)
    else:
        typer.echo(f"interrupted{report}; give --csv FILE to be able to resume", err=True)
