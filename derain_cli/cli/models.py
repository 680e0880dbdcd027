"""`derain models`: networks, their weights and where those are stored."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.listing import print_listing
from derain_cli.cli.streams import printable
from derain_cli.errors import DerainError, NothingToDoError, UnavailableError, UsageError

if TYPE_CHECKING:
    from derain_cli.checkpoints.catalogue import WeightsEntry

PIPE_WIDTH = 240
UNTRAINED = "untrained"
SETS = {"rain100l": "Rain100L", "rain100h": "Rain100H", "ddn_sirr_test": "DDN-SIRR"}

app = typer.Typer(add_completion=False, help="Networks and their weights.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

Name = Annotated[
    str, typer.Argument(help="Weights, a network, a run's folder, a file, or hf:org/repo.")
]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the weights, those for any photo first, with their speed and scores.

    s/MP is seconds per megapixel on two CPU cores. The columns of data sets are PSNR in dB, and dry
    is the PSNR of a rain-free photo after deraining; higher is better. `derain models info NAME`
    shows more.
    """
    rows = sorted(_rows(), key=_by_use)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, default=str))
        return
    _print_table([row for row in rows if row["where"] != UNTRAINED])
    without = [row["name"] for row in rows if row["where"] == UNTRAINED]
    if without:
        typer.echo(f"Networks without weights, to train: {', '.join(without)}")


def _rows() -> Iterator[dict[str, Any]]:
    from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, list_weights
    from derain_cli.models import MODELS

    entries = list_weights()
    for entry in entries:
        facts = {"name": entry.name, "model": entry.model, "default": entry.default}
        facts |= {"recommended": entry.name == DEFAULT_WEIGHTS, "where": _where(entry)}
        yield facts | {"megabytes": _megabytes(entry)} | dict(entry.about)
    for model in sorted(MODELS.keys() - {entry.model for entry in entries}):
        summary = f"no weights yet: train some ({MODELS[model].paper})"
        facts = {"name": model, "model": model, "default": False, "recommended": False}
        yield facts | {"where": UNTRAINED, "summary": summary}


def _by_use(row: Mapping[str, Any]) -> tuple[bool, bool, bool, bool, float]:
    """The default first, then weights for any photo, then the others by their scores."""
    scores = [_psnr(row, name) or 0.0 for name in SETS]
    for_any_photo = row["name"].endswith("-real") and not row.get("harm")
    return (
        row["where"] == UNTRAINED,
        not row["recommended"],
        not for_any_photo,
        bool(row.get("harm")),
        -sum(scores),
    )


def _psnr(row: Mapping[str, Any], name: str) -> float | None:
    score = row.get("scores", {}).get(name, {})
    return score.get("psnr") if isinstance(score, dict) else None


def _where(entry: "WeightsEntry") -> str:
    from derain_cli.checkpoints.resolving import locate

    found = locate(entry)
    if found is None:
        return "on the Hub" if entry.on_hub else "missing"
    return "bundled" if found == entry.bundled_path else "cached"


def _megabytes(entry: "WeightsEntry") -> float | None:
    from derain_cli.checkpoints.resolving import locate

    found = locate(entry)
    return round(found.stat().st_size / 1e6, 1) if found else None


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    figures = ("s/MP", *SETS.values(), "dry", "MB")
    cells = [[_title(row), *_figures(row), _sentence(row)] for row in rows]
    print_listing(("name", *figures), ("what it is for",), cells, width=PIPE_WIDTH, right=figures)


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['name']} (default)" if row["recommended"] else row["name"]


def _figures(row: Mapping[str, Any]) -> list[str]:
    """Cells of the columns of figures; the speed with a digit more, since it is often below 1."""
    seconds = row.get("seconds_per_megapixel")
    others = [*(_psnr(row, name) for name in SETS), row.get("dry_psnr"), row.get("megabytes")]
    return ["-" if seconds is None else f"{seconds:.2f}", *map(_figure, others)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _sentence(row: Mapping[str, Any]) -> str:
    """Purpose and known harm of the weights, and where they are if not here."""
    parts = [row.get("summary", ""), row.get("harm", "")]
    parts += [f"({row['where']})"] if row["where"] != "bundled" else []
    return "; ".join(part for part in parts[:2] if part) + "".join(f" {part}" for part in parts[2:])


@app.command("info")
def info(name: Name, as_json: Json = False) -> None:
    """Show facts about a network, its weights and their training."""
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.checkpoints.files import build_described, read_metadata
    from derain_cli.checkpoints.resolving import resolve_weights
    from derain_cli.models import MODELS
    from derain_cli.release.cards import network_facts

    weights = [entry for entry in list_weights() if name in (entry.name, entry.model)]
    if name in MODELS:
        facts = network_facts(name)
    elif weights:
        facts = network_facts(weights[0].model, _shape(name))
    else:
        path = resolve_weights(name)
        metadata = read_metadata(path)
        facts = network_facts(metadata["model"], built=build_described(path, metadata))
    cards = [_card(entry) for entry in weights] if weights else _own_card(name)
    if as_json:
        typer.echo(json.dumps(facts | {"weights": cards}, default=str))
        return
    _print_facts(facts)
    for card in cards:
        typer.echo("")
        _print_facts(card)


def _shape(name: str) -> dict[str, Any] | None:
    """Config of the network of weights that are on this machine; None: the published one."""
    from derain_cli.checkpoints.files import read_metadata
    from derain_cli.checkpoints.resolving import find_weights

    path = find_weights(name)
    shape = read_metadata(path).get("model_config") if path else None
    return json.loads(shape) if shape else None


def _card(entry: "WeightsEntry") -> dict[str, Any]:
    told = {"name": entry.name, "default_of_its_network": entry.default, "where": _where(entry)}
    hub = {"hub": str(entry.on_hub)} if entry.on_hub else {}
    return told | {"file": entry.file, "sha256": entry.sha256} | hub | dict(entry.about)


def _own_card(name: str) -> list[dict[str, Any]]:
    """Metadata of a checkpoint without an entry; empty for a network's name."""
    from derain_cli.checkpoints.resolving import find_weights
    from derain_cli.models import MODELS
    from derain_cli.training.provenance import training_facts

    path = None if name in MODELS else find_weights(name)
    return [{"name": name, "file": str(path)} | training_facts(path)] if path else []


def _print_facts(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            for part, item in value.items():
                typer.echo(printable(f"{key.replace('_', ' ')} of {part}: {_plain(item)}"))
        elif value not in ("", None):
            typer.echo(printable(f"{key.replace('_', ' ')}: {_plain(value)}"))


def _plain(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


@app.command("path")
def path_of(name: Name) -> None:
    """Print the path of a local checkpoint after verifying it; nothing is downloaded."""
    from derain_cli.checkpoints.resolving import find_weights

    found = find_weights(name)
    if found is None:
        raise UnavailableError(f"weights {name!r} are not here: run `derain models pull {name}`")
    typer.echo(found)


@app.command("pull")
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help=r"Weights, networks, or hf:org/repo\[@revision].")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Pull all named weights.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that one download may take.")
    ] = 600,
) -> None:
    """Download weights for use without a network, and print where they are.

    Damaged files are replaced; a repository named without a commit is updated.
    """
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.checkpoints.resolving import pull_weights

    if bool(names) == everything:
        raise UsageError("name the weights to pull, or give --all for all of them; not both")
    for name in names or [entry.name for entry in list_weights()]:
        typer.echo(pull_weights(name, timeout=timeout))


@app.command("verify")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Weights, runs, files or hf:org/repo (default: all that are here)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the SHA-256 of checkpoints, and that each fits its network."""
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.checkpoints.resolving import locate

    here = [entry.name for entry in list_weights() if locate(entry)]
    if not names and not here:
        raise NothingToDoError("no weights are here to verify: name a checkpoint or a run")
    results = [_verified(name) for name in names or here]
    for result in results:
        if as_json:
            typer.echo(json.dumps(result))
        else:
            typer.echo(f"{result['name']:20} {result['error'] or 'ok'}")
    if any(result["error"] for result in results):
        raise typer.Exit(UnavailableError.exit_code)


def _verified(name: str) -> dict[str, Any]:
    from derain_cli.checkpoints.resolving import find_weights, load_model

    try:
        path = find_weights(name)
        if path is None:
            return {"name": name, "path": None, "error": "not here"}
        load_model(path)
    except DerainError as error:
        return {"name": name, "path": None, "error": str(error)}
    return {"name": name, "path": str(path), "error": None}


@app.command("import")
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(help="Checkpoint of another program: .pth, .pt, .ckpt, .bin, .safetensors."),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Architecture of these weights.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write.", show_default="FILE.safetensors beside it"
        ),
    ] = None,
    model_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the network's own config, VALUE in JSON; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert another program's checkpoint to one that every command accepts.

    Only tensors are read: nothing in a pickled file is ever run. Tensor names are mapped to ours
    and shown; public PReNet checkpoints are supported (--model prenet).
    """
    from derain_cli.checkpoints.importing import import_weights
    from derain_cli.training.configs.train import TrainConfig

    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a folder: name a checkpoint in it")
    target = output or file.with_suffix(".safetensors")
    if target.exists() and file.exists() and target.samefile(file):
        raise UsageError(f"{str(target)!r} is the checkpoint itself: name another --output")
    _check_target(target, overwrite=overwrite)
    options = TrainConfig(model_option=tuple(model_option or ())).model_options()
    imported = import_weights(file, target, model, options)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(imported), default=str))
        return
    for theirs, ours in imported.names.items():
        typer.echo(f"{theirs} -> {ours}", err=True)
    for name in imported.ignored:
        typer.echo(f"{name} is not used", err=True)
    typer.echo(f"{model}: {imported.parameters:,} parameters", err=True)
    typer.echo(str(imported.path))


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.suffix != ".safetensors":
        raise UsageError(f"--output {str(target)!r} must end in .safetensors")
    if target.exists() and not overwrite:
        raise UsageError(
            f"{str(target)!r} exists already: name another --output, or give --overwrite"
        )


@app.command("average")
def average_weights(
    one: Annotated[str, typer.Argument(help="Weights, a run, a file or hf:org/repo.")],
    other: Annotated[str, typer.Argument(help="Others of the same network.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the first.")] = 0.5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write the weighted mean of two sets of weights of one network.

    This restores part of what the later training forgot, but also undoes part of what it learnt to
    leave alone: try a few shares on held-out images, and look at the results.
    """
    from derain_cli.checkpoints.averaging import average

    _check_target(output, overwrite=overwrite)
    average(one, other, share, output)
    typer.echo(str(output))


class ExportFormat(StrEnum):
    """File formats of networks for other programs."""

    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


@app.command("export")
def export(
    name: Name,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            "-f",
            help="onnx: one .onnx file; openvino: .xml, and its weights in .bin; torch: .pt2.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a network for other programs, for any height and width, and check the file.

    The file describes itself: name, config, SHA-256 of the weights, what sides must be multiples
    of, and how far tiles must overlap. `derain --model FILE` runs .onnx and .xml without loading
    torch.
    """
    from derain_cli.inference.exporting import export_network

    done = export_network(name, format.value, output, overwrite=overwrite)
    if as_json:
        told = {"paths": [str(path) for path in done.paths], "difference": done.difference}
        typer.echo(json.dumps(told | dataclasses.asdict(done.facts)))
        return
    for path in done.paths:
        typer.echo(str(path))
    multiple = done.facts.padding_multiple
    sides = f"sides that are multiples of {multiple}" if multiple > 1 else "any sides"
    typer.echo(
        f"{done.facts.name}: takes {sides}; differs from the original by at most "
        f"{255 * done.difference:.3f} of 255 levels",
        err=True,
    )


@app.command("bundle")
def bundle(
    run: Annotated[Path, typer.Argument(help="Folder of a training run, or a checkpoint file.")],
    name: Annotated[str, typer.Argument(help="Name of the weights: MODEL-TRAINED_ON.")],
    default: Annotated[
        bool | None,
        typer.Option(help="Make these weights the default of their network."),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store parameters as float16: half the size.")
    ] = False,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", help="FIELD=TEXT of the entry (summary, licence …); repeatable."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Output of `derain eval --json -m RUN` (or -m NAME), to add to the entry."
        ),
    ] = None,
) -> None:
    """Release a run: copy its best checkpoint to the weights folder and write its entry."""
    from derain_cli.checkpoints.catalogue import list_weights
    from derain_cli.release.bundle import bundle_run, entry_toml
    from derain_cli.release.cards import read_scores

    before = next((entry.about for entry in list_weights() if entry.name == name), {})
    about = dict(_split_field(field) for field in fields or [])
    measured = read_scores(scores, {name, str(run)}) if scores else None
    entry = bundle_run(run, name, about=about, scores=measured, default=default, half=half)
    typer.echo(entry_toml(entry))
    lost = [told for told in before if told not in entry.about]
    if lost:
        typer.echo(f"{name}: a new file; dropped {', '.join(lost)} of the old one", err=True)


def _split_field(field: str) -> tuple[str, str]:
    name, equals, text = field.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {field!r} is not FIELD=TEXT")
    return name, text


@app.command("push")
def push(
    run: Annotated[str, typer.Argument(help="A run's folder, a checkpoint, or a name of weights.")],
    target: Annotated[str, typer.Argument(help="hf:org/repo[:file]; created if necessary.")],
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository as private.")
    ] = False,
    new_card: Annotated[
        bool, typer.Option("--new-card", help="Replace an existing model card.")
    ] = False,
) -> None:
    """Upload a checkpoint and its model card to the Hub, and print its name there."""
    from derain_cli.checkpoints.hub import HubFile
    from derain_cli.release.bundle import push_run

    source = HubFile.parse(target)
    if source.revision:
        raise UsageError(f"{target!r} names a revision: an upload makes a new one, so drop it")
    pushed, sha256 = push_run(
        run, source.repo, file=source.file, private=private, new_card=new_card
    )
    typer.echo(str(pushed))
    typer.echo(f"SHA-256 {sha256}", err=True)
