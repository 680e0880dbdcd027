"""`derain eval`: scores of models on data sets, under a named protocol."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.output_files import DataRoot, default_data_root, require_output_file
from derain_cli.cli.scores import Results, show_json, show_tables, summarise_rows, write_csv
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from derain_cli.datasets.layouts import Pair
    from derain_cli.evaluation.gallery import Gallery
    from derain_cli.evaluation.scoring import Deraining, Scored
    from derain_cli.evaluation.statistics import Row


def evaluate(
    dataset: Annotated[
        list[str] | None, typer.Option(help="Data set by name, or a folder of pairs; repeatable.")
    ] = None,
    rainy: Annotated[Path | None, typer.Option(help="Folder of rainy images.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder of their clean images.")] = None,
    data_root: DataRoot = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Name or path; repeatable.")
    ] = None,
    input_only: Annotated[
        bool, typer.Option("--input-only", help="Score the rainy images as they are: no model.")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="y (limited-range luma), y-full or rgb; of the 8-bit result (default: what the "
            "data set's papers use, rgb for DDN-SIRR and y for the rest).",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="psnr, ssim, niqe, e_r, e_b; with commas between.")
    ] = "psnr,ssim",
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda[:N], mps.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    limit: Annotated[int, typer.Option(min=0, help="Only the first N pairs of each; 0 = all.")] = 0,
    compare_paper: Annotated[
        bool,
        typer.Option("--compare-paper", help="Add the scores that papers print, marked as quoted."),
    ] = False,
    save_images: Annotated[
        Path | None, typer.Option(help="Folder for the derained images (PNG).")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a row per image and model.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report to look at, with images, in one file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")] = False,
    seed: Annotated[int, typer.Option(help="Of the intervals of differences.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score models on pairs of rainy and clean images; the untouched input is the first row."""
    if input_only and model:
        raise UsageError("--input-only and --model exclude each other: leave one out")
    pairs = _pairs_of(dataset or [], rainy, clean, data_root or default_data_root())
    if csv_file:
        require_output_file(csv_file, "--csv", ".csv")
    if html:
        require_output_file(html, "--html", ".html", ".htm")
    chosen = _metrics_of(metrics)
    gallery = _gallery(chosen) if html else None
    if not quiet:
        _say_what_is_scored(pairs, limit)
    models = [] if input_only else _load_models(model or [], device, precision)
    pairs = {name: members[: limit or None] for name, members in pairs.items()}
    rows, seconds = _score(pairs, models, protocol, chosen, _observer(save_images, gallery), quiet)
    results = summarise_rows(rows, seconds, precision, quote=compare_paper, seed=seed)
    if csv_file:
        write_csv(csv_file, rows)
    if html and gallery:
        _write_html(html, results, gallery)
    show = show_json if as_json else show_tables
    show(results)
    if not quiet:
        typer.echo(results.time_spent, err=True)


def _pairs_of(
    names: Sequence[str], rainy: Path | None, clean: Path | None, data_root: str
) -> "dict[str, list[Pair]]":
    from derain_cli.datasets.known import dataset_pairs
    from derain_cli.datasets.layouts import match_pairs

    if (rainy is None) != (clean is None):
        raise UsageError("--rainy and --clean go together: give both folders")
    found = {name: dataset_pairs(name, Path(data_root)) for name in names}
    if rainy and clean:
        found[str(rainy)] = match_pairs(rainy, clean)
    if not found:
        raise UsageError("nothing to score: give --dataset NAME, or --rainy DIR and --clean DIR")
    return found


def _say_what_is_scored(pairs: "Mapping[str, Sequence[Pair]]", limit: int) -> None:
    from derain_cli.datasets.known import DATASETS, dataset_named, describe_count

    for name, members in pairs.items():
        key = dataset_named(name)
        note = DATASETS[key].note if key else ""
        cut = f", the first {limit} of them scored" if 0 < limit < len(members) else ""
        count = describe_count(name, len(members))
        typer.echo(f"{name}: {count}{cut}{f' (note: {note})' if note else ''}", err=True)


def _metrics_of(text: str) -> list[str]:
    from derain_cli.errors import did_you_mean
    from derain_cli.evaluation.scoring import METRICS

    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}. {did_you_mean(name, METRICS)}")
    if not names:
        raise UsageError(f"--metrics names none. Known: {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def _load_models(names: Sequence[str], device: str, precision: str) -> "list[Deraining]":
    from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, known_harm
    from derain_cli.inference.derainer import Derainer

    models: list[Derainer] = []
    for name in names or [DEFAULT_WEIGHTS]:
        if name in [known.name for known in models]:
            raise UsageError(f"--model {name!r} is given twice")
        derainer = Derainer.load(name, device=device, precision=precision)
        # Checkpoints of two runs have one file name: tell them apart as the user did.
        derainer.name = name
        models.append(derainer)
        if harm := known_harm(name):
            typer.echo(f"{name}: {harm}", err=True)
    return list(models)


def _gallery(metrics: Sequence[str]) -> "Gallery":
    from derain_cli.evaluation.gallery import Gallery
    from derain_cli.evaluation.scoring import METRICS

    return Gallery("psnr" if "psnr" in metrics else METRICS[metrics[0]][0])


def _observer(
    save_images: Path | None, gallery: "Gallery | None"
) -> "Callable[[Scored], None] | None":
    observers: list[Callable[[Scored], None]] = [gallery.observe] if gallery else []
    if save_images:
        from derain_cli.evaluation.gallery import save_derained

        observers.append(save_derained(save_images))
    if not observers:
        return None

    def observe(scored: "Scored") -> None:
        for observer in observers:
            observer(scored)

    return observe


def _score(
    pairs: "Mapping[str, Sequence[Pair]]",
    models: "Sequence[Deraining]",
    protocol: str | None,
    metrics: Sequence[str],
    observe: "Callable[[Scored], None] | None",
    quiet: bool,
) -> "tuple[list[Row], float]":
    from rich.console import Console
    from rich.progress import track

    from derain_cli.evaluation import scoring as evaluation

    total = sum(map(len, pairs.values())) * (1 + len(models))
    started = time.perf_counter()
    rows = evaluation.evaluate(pairs, models, protocol, metrics=metrics, observe=observe)
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    scored = list(track(rows, "scoring", total=total, console=console, disable=hidden))
    return scored, time.perf_counter() - started


def _write_html(path: Path, results: Results, gallery: "Gallery") -> None:
    from derain_cli.evaluation.report import write_report
    from derain_cli.version import __version__

    facts = [f"derain {__version__}", results.time_spent, shlex.join(["derain", *sys.argv[1:]])]
    write_report(
        path,
        results.rows,
        results.scores,
        differences=results.differences,
        quotes=results.quotes,
        cases=gallery.cases(),
        facts=facts,
    )
