"""`derain datasets`: list, download, verify, measure and make data sets."""

import json
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.listing import print_listing
from derain_cli.cli.output_files import DataRoot, default_data_root, require_output_file
from derain_cli.cli.scaling import ShardOption, shard_filter
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    from rich.progress import Progress, TaskID

    from derain_cli.datasets.verification import Verification

app = typer.Typer(
    add_completion=False,
    help="List, download, verify, measure and make data sets.",
    no_args_is_help=True,
)

LISTED = 12  # names printed of a long list
LIST_WIDTH = 800  # of the list of data sets off a terminal, so that no line is broken

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command("list")
def list_datasets(data_root: DataRoot = None, as_json: Json = False) -> None:
    """List the known data sets, whether they are here, and where to get them."""
    rows = list(_rows(Path(data_root or default_data_root())))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    short = ("name", "for", "images", "here", "scored on")
    long = ("licence", "paper", "layout", "from")
    fields = ("name", "split", "count", "size", "protocol", "licence", "paper", "layout")
    cells = [[*(row[field] for field in fields), _source(row)] for row in rows]
    print_listing(short, long, cells, width=LIST_WIDTH)


def _source(row: "Mapping[str, Any]") -> str:
    """Addresses of a data set; "" for what is made."""
    copy = [f"hf:{row['hub']} (copy)"] if row["hub"] else []
    return ", ".join([*row["addresses"], *copy])


def _rows(root: Path) -> "Iterator[dict[str, Any]]":
    from derain_cli.datasets.known import DATASETS, find_folder
    from derain_cli.datasets.origins import INGREDIENTS, ORIGINS

    for name, dataset in DATASETS.items():
        folder, origin = find_folder(name, root), ORIGINS[name]
        unit = "images" if dataset.split == "real" else "pairs"
        yield (
            {"name": name}
            | asdict(dataset)
            | asdict(origin)
            | _place(folder)
            | {
                "count": f"{dataset.pairs} {unit}",
                "note": dataset.note,
                "origin_note": origin.note,
            }
        )
    for name, ingredient in INGREDIENTS.items():
        folder = root / name if (root / name).is_dir() else None
        yield _place(folder) | {
            "name": name,
            "split": ingredient.kind,
            "count": f"{ingredient.images} {'pairs' if ingredient.kind == 'pairs' else 'images'}",
            "protocol": "",
            "licence": ingredient.licence,
            "paper": ingredient.made,
            "layout": "images in one folder" if ingredient.kind != "pairs" else "rainy/ + clean/",
            "addresses": ingredient.addresses,
            "hub": "",
        }


def _place(folder: Path | None) -> dict[str, Any]:
    """Path of a data set and its size on disk."""
    if folder is None:
        return {"folder": None, "size": "no", "bytes": None}
    count = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"folder": str(folder), "size": f"{count / 1e6:,.0f} MB", "bytes": count}


@app.command("pull")
def pull(
    names: Annotated[
        list[str],
        typer.Argument(help=r"Data sets that the Hub has a copy of, or hf:org/repo\[@revision]."),
    ],
    data_root: DataRoot = None,
) -> None:
    """Download data sets from the Hub into --data-root, and print where they are.

    Every file is compared with the SHA-256 that the Hub states. Interrupted downloads resume,
    complete ones stay at their commit, and damaged files are replaced.
    """
    from rich.console import Console
    from rich.progress import Progress

    from derain_cli.datasets.pulling import pull_dataset

    console, root = Console(stderr=True), Path(data_root or default_data_root())
    for name in names:
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task(f"pulling {name}", total=None)
            report = partial(_update, progress, task)
            folder, source = pull_dataset(name, root, report)
        typer.echo(
            f"{name}: {len(source.files)} files of {source.repo}@{source.revision}", err=True
        )
        typer.echo(str(folder))


def _update(progress: "Progress", task: "TaskID", done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


@app.command("verify")
def verify(
    name: Annotated[str, typer.Argument(help="Data set by name, or a folder.")],
    data_root: DataRoot = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Data set or folder that must not share photos with it; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a data set: pairs, layout, version, duplicates, photos shared with other sets.

    The exit code is 1 if something is missing, damaged or shared.
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
        verified = verification.verify(name, root, against or (), report)
    if as_json:
        typer.echo(json.dumps(_verification_fields(verified)))
    else:
        _show_verification(verified)
    if not verified.sound:
        raise typer.Exit(1)


def _verification_fields(verification: "Verification") -> dict[str, Any]:
    fields = asdict(verification) | {"folder": str(verification.folder)}
    return fields | {"version": verification.version, "sound": verification.sound}


def _show_verification(verification: "Verification") -> None:
    from derain_cli.datasets.known import DATASETS, dataset_named

    sizes = [f"{count} of {size}" for size, count in verification.sizes.items()]
    lines = [
        ("folder", str(verification.folder)),
        ("layout", verification.layout),
        ("pairs", verification.count),
        ("sizes", _shortened(sizes)),
        *(("input", _input_line(group, verification)) for group in verification.input_psnr),
        ("fingerprint", f"{verification.digest} (equal for bit-identical copies)"),
        ("duplicates", _duplicates_line(verification)),
        *((("tone", _tone_line(verification)),) if verification.other_tone else ()),
        *((f"in {other}", _shared_line(pairs)) for other, pairs in verification.shared.items()),
        *(("problem", problem) for problem in verification.problems),
    ]
    key = dataset_named(verification.name)
    if key and DATASETS[key].note:
        lines.append(("note", DATASETS[key].note))
    for title, text in lines:
        typer.echo(f"{title + ':':16} {text}")


def _input_line(group: str, verification: "Verification") -> str:
    score = f"{verification.input_psnr[group]:.2f} dB ({verification.protocol})"
    if group:
        return f"{score} {group}"
    return f"{score}, {verification.version}" if verification.version else score


def _duplicates_line(verification: "Verification") -> str:
    groups = [" = ".join(names) for names in verification.duplicates]
    return f"{len(groups)} photos: {_shortened(groups)}" if groups else "none"


def _tone_line(verification: "Verification") -> str:
    count, names = len(verification.other_tone), _shortened(list(verification.other_tone))
    return (
        f"{count} pairs have a rainy image that is darker than the clean one in over 35 % of the "
        f"pixels: their ground truth has another tone, so `eval` scores them separately: {names}"
    )


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
        int,
        typer.Option(min=0, help="Measure the central square of this side; 0 = the whole image."),
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
        Path, typer.Option(help="Folder for rainy/ and clean/; must not contain pairs.")
    ],
    rain: Annotated[
        str,
        typer.Option(
            help="small, medium, large, heavy, wide, dense, curtain, slanted, coarse, drops, "
            "streaks:FOLDER of rain layers, pairs:DATASET, mixed:FOLDER, or a scene such as "
            "phone+veil+structures+wide."
        ),
    ] = "large",
    seed: Annotated[int, typer.Option(min=0, help="The same seed paints the same rain.")] = 0,
    data_root: DataRoot = None,
    shard: ShardOption = None,
) -> None:
    """Paint rain onto clean images and write the pairs.

    With --shard, several runs may share one --out.
    """
    from derain_cli.rain.synthesis import synthesize

    root = Path(data_root or default_data_root())
    count = synthesize(clean_folder, out, rain, seed, root, shard_filter(shard))
    typer.echo(f"{count} pairs in {out}", err=True)


@app.command("rain-sheet")
def rain_sheet(
    clean_folder: Annotated[Path, typer.Argument(help="Folder of photos.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    rain: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of rain, as for synth; repeatable. By default all kinds that need no data "
            "set."
        ),
    ] = None,
    columns: Annotated[int, typer.Option(min=1, help="Photos per kind.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same sheet.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file (never a photo).")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Draw a contact sheet: kinds of rain on photos in one image."""
    from derain_cli.rain.sheet import ALONE, draw_sheet

    if out.resolve().parent == clean_folder.resolve():
        raise UsageError(f"--out {str(out)!r} lies among the photos: name another folder")
    require_output_file(out, "--out", ".png", overwrite=overwrite)
    root = Path(data_root or default_data_root())
    draw_sheet(clean_folder, out, rain or ALONE, columns, seed, root)
    typer.echo(str(out))
