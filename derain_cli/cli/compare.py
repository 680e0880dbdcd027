"""`derain compare`: one photo through several networks, to choose by eye."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.options import PlainDevice
from derain_cli.cli.output_files import require_output_file
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from derain_cli.evaluation.photo_comparison import View
    from derain_cli.images import Picture

PAGE, SHEETS = (".html", ".htm"), (".png", ".jpg", ".jpeg", ".webp")


def compare(
    photo: Annotated[Path, typer.Argument(help="The photo.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Weights to compare; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default="PHOTO_models.html",
            help="A page (.html), or one image with all results side by side (.png, .jpg, .webp).",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing result.")
    ] = False,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="Remove this share of the rain.")
    ] = 1.0,
    device: PlainDevice = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="CPU threads.")
    ] = None,
) -> None:
    """Show the results of several weights on one photo, as a page or an image.

    The page is one file that works offline; the number keys flip between the results in place.
    """
    from derain_cli.images import read_image

    if not model or len(set(model)) < 2:
        raise UsageError("name at least two weights: -m nimbus-real -m menet-real")
    rainy = read_image(photo)  # before a folder for the result is made beside a mistyped name
    target = output or photo.with_name(f"{photo.stem}_models.html")
    if target.exists() and photo.exists() and target.samefile(photo):
        raise UsageError(f"-o {str(target)!r} is the photo itself: name another file")
    require_output_file(target, "-o", *PAGE, *SHEETS, overwrite=overwrite)
    views = _views(rainy, list(dict.fromkeys(model)), strength, device, threads)
    _write(target, photo.name, views)
    typer.echo(str(target))


def _views(
    rainy: "Picture", names: Sequence[str], strength: float, device: str, threads: int | None
) -> "list[View]":
    from derain_cli.checkpoints.catalogue import known_harm
    from derain_cli.evaluation.photo_comparison import View, describe_change
    from derain_cli.inference.derainer import Derainer

    before = _eight_bits(rainy.rgb)
    views = [View("input", before, f"{rainy.width}x{rainy.height}, {rainy.bit_depth} bits")]
    for name in names:
        derainer = Derainer.load(name, device=device, threads=threads)
        began = time.perf_counter()
        derained, facts = derainer.run(rainy.rgb, strength)
        seconds, after = time.perf_counter() - began, _eight_bits(derained)
        for notice in filter(None, (*facts.notices, known_harm(name))):
            typer.echo(f"{name}: {notice}", err=True)
        views.append(View(derainer.name, after, describe_change(before, after, seconds)))
    return views


def _eight_bits(pixels: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)


def _write(target: Path, title: str, views: "Sequence[View]") -> None:
    from derain_cli.evaluation.photo_comparison import comparison_page, comparison_sheet
    from derain_cli.images import Picture, encode_image, format_of_path
    from derain_cli.whole_files import write_whole

    if target.suffix.lower() in PAGE:
        write_whole(target, comparison_page(title, views).encode("utf-8", "backslashreplace"))
        return
    import numpy as np

    sheet = Picture(np.asarray(comparison_sheet(views)))
    write_whole(target, encode_image(sheet, format_of_path(target), None, name=repr(title)))
