"""`derain datasets`: what data sets there are, whether one is sound, how complex, making one."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.output_files import DataRoot, default_data_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from derain_cli.datasets.verification import Verification

app = typer.Typer(
    help="Known data sets; checking, measuring and making them.", no_args_is_help=True
)

LISTED = 12  # names printed of a long list

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """Show the data sets known by name."""
    from derain_cli.datasets.known import DATASETS

    for name, dataset in DATASETS.items():
        if as_json:
            typer.echo(json.dumps({"name": name} | asdict(dataset)))
        else:
            facts = f"{dataset.split:6} {dataset.pairs:6} pairs  {dataset.protocol:4}"
            typer.echo(f"{name:16} {facts} {dataset.paper:36} {dataset.layout}")


@app.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="Data set by name, or a folder.")],
    data_root: DataRoot = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Data set or folder that should share no photo with it; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set: pairs, layout, version, duplicates, photos shared with other sets.

    Ends with 1 when something is missing, damaged or shared.
    """
    from rich.console import Console
    from rich.progress import Progress

    from derain_cli.datasets import verification

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("reading")

        def report(done: int, pairs: int) -> None:
            progress.update(task, completed=done, total=pairs)

        root = Path(data_root or default_data_root())
        found = verification.verify(name, root, against or (), report)
    if as_json:
        typer.echo(json.dumps(_verification_fields(found)))
    else:
        _show_verification(found)
    if not found.sound:
        raise typer.Exit(1)


def _verification_fields(found: "Verification") -> dict[str, Any]:
    fields = asdict(found) | {"folder": str(found.folder)}
    return fields | {"version": found.version, "sound": found.sound}


def _show_verification(found: "Verification") -> None:
    from derain_cli.datasets.known import DATASETS, dataset_named

    sizes = [f"{count} of {size}" for size, count in found.sizes.items()]
    lines = [
        ("folder", str(found.folder)),
        ("layout", found.layout),
        ("pairs", found.count),
        ("sizes", _shortened(sizes)),
        *(("input", _input_line(group, found)) for group in found.input_psnr),
        ("fingerprint", f"{found.digest} (equal for copies equal to the bit)"),
        ("duplicates", _duplicates_line(found)),
        *((f"in {other}", _shared_line(pairs)) for other, pairs in found.shared.items()),
        *(("problem", problem) for problem in found.problems),
    ]
    key = dataset_named(found.name)
    if key and DATASETS[key].note:
        lines.append(("note", DATASETS[key].note))
    for title, text in lines:
        typer.echo(f"{title + ':':16} {text}")


def _input_line(group: str, found: "Verification") -> str:
    score = f"{found.input_psnr[group]:.2f} dB ({found.protocol})"
    if group:
        return f"{score} {group}"
    return f"{score}, {found.version}" if found.version else score


def _duplicates_line(found: "Verification") -> str:
    groups = [" = ".join(names) for names in found.duplicates]
    return f"{len(groups)} photos: {_shortened(groups)}" if groups else "none"


def _shared_line(pairs: "Iterable[tuple[str, str]]") -> str:
    groups = [f"{own} = {other}" for own, other in pairs]
    return f"{len(groups)} shared: {_shortened(groups)}" if groups else "nothing shared"


def _shortened(items: list[str]) -> str:
    more = f", and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


@app.command("complexity")
def complexity(
    folders: Annotated[list[Path], typer.Argument(help="Folders of images to compare.")],
    crop: Annotated[
        int, typer.Option(min=0, help="Side of the middle that is measured; 0 = the whole image.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Measure how complex images are (multi-scale structural complexity, mean over images).

    Backgrounds should be less complex than the rain that a network is to remove. Compare images
    of one size only: use --crop where sizes differ.
    """
    from derain_cli.errors import NothingToDoError
    from derain_cli.evaluation.statistics import mean_of
    from derain_cli.metrics.complexity import structural_complexity

    for folder in folders:
        sizes: set[tuple[int, ...]] = set()
        values = []
        for pixels in _images(folder, crop):
            sizes.add(tuple(sorted(pixels.shape[:2])))
            values.append(structural_complexity(pixels))
        if not values:
            raise NothingToDoError(f"no images in {str(folder)!r}")
        mean = mean_of(values)
        error = None if math.isnan(mean.error) else mean.error
        if as_json:
            fields = {"folder": str(folder), "images": len(values), "crop": crop}
            fields |= {"complexity": mean.value, "complexity_error": error}
            typer.echo(json.dumps(fields | {"one_size": len(sizes) == 1}))
        else:
            spread = "" if error is None else f" ± {error:.5f}"
            warning = "" if len(sizes) == 1 else "  (several sizes: compare with --crop)"
            typer.echo(f"{mean.value:.5f}{spread}  {len(values)} images  {folder}{warning}")


def _images(folder: Path, crop: int) -> "Iterator[np.ndarray]":
    from derain_cli.datasets.layouts import list_images
    from derain_cli.errors import DatasetError
    from derain_cli.images import read_image

    for path in list_images(folder):
        pixels = read_image(path).rgb
        height, width = pixels.shape[:2]
        if min(height, width) < crop:
            raise DatasetError(
                f"{str(path)!r} is {width}x{height}, smaller than --crop {crop}; take it out or "
                "choose a smaller crop"
            )
        top, left = ((height - crop) // 2, (width - crop) // 2) if crop else (0, 0)
        yield pixels[top : top + crop or None, left : left + crop or None]


@app.command("synth")
def synth(
    clean_folder: Annotated[Path, typer.Argument(help="Folder of clean images.")],
    out: Annotated[
        Path, typer.Option(help="Folder for rainy/ and clean/; must not hold pairs yet.")
    ],
    rain: Annotated[
        str,
        typer.Option(
            help="small, medium, large, heavy, streaks:FOLDER of rain layers, or pairs:DATASET."
        ),
    ] = "large",
    seed: Annotated[int, typer.Option(min=0, help="The same seed paints the same rain.")] = 0,
    data_root: DataRoot = None,
) -> None:
    """Paint rain onto clean images and write the pairs."""
    from derain_cli.rain.synthesis import synthesize

    root = Path(data_root or default_data_root())
    count = synthesize(clean_folder, out, rain, seed, root)
    typer.echo(f"{count} pairs in {out}", err=True)
