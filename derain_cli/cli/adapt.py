"""`derain adapt`: weights for one's own rainy photos, in one command."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.cli.finetune_real import config_of, run_finetuning
from derain_cli.cli.options import PlainDevice
from derain_cli.cli.runs import build_config, config_of_run
from derain_cli.errors import NothingToDoError, UsageError
from derain_cli.training.configs.finetune import FinetuneConfig

# The published rate of 1e-6 moves nothing within minutes; a second pass makes a cleaner target.
SETTINGS = {"pseudo_passes": 2, "lr": 1e-5, "lr_schedule": "constant"}
LARGEST_CROP, SMALLEST_CROP, EPOCHS = 224, 64, 4


def adapt(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of rainy photos.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="name",
            show_default=DEFAULT_WEIGHTS,
            help="Weights to start from.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="folder",
            show_default="adapted-PHOTOS",
            help="Folder for the new weights; -m takes it.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, show_default="4", help="Number of passes over the photos."),
    ] = None,
    device: PlainDevice = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted adaptation.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Adapt weights to a folder of rainy photos, and say whether that helped.

    No clean images are needed. Photos that are too small are skipped. If nothing is gained, the
    starting weights are kept.
    """
    from derain_cli.cli.train_view import starting

    if resume and (model is not None or epochs is not None):
        raise UsageError("--resume keeps the run's own weights and epochs: drop -m and --epochs")
    out = output or Path(f"adapted-{photos.resolve().name}")
    with starting(quiet=quiet):
        if resume:
            chosen = _resumed(out, photos, device)
        else:
            settings = _settings(photos, epochs or EPOCHS, device)
            chosen = config_of(
                "online-update", model or DEFAULT_WEIGHTS, settings, from_scratch=False
            )
    run_finetuning(chosen, out, resume=resume, log=(), quiet=quiet)
    if not quiet:
        typer.echo(f"use them with: derain photo.jpg -m {shlex.quote(str(out))}", err=True)


def _resumed(out: Path, photos: Path, device: str) -> FinetuneConfig:
    """The config of an adaptation to go on with, on the device that was named.

    Raises:
        UsageError: It is one to other photos.
        ConfigError: There is no run.
    """
    given = {} if device == "auto" else {"device": device}
    config = build_config(config_of_run(FinetuneConfig, out), {}, given)
    if Path(config.real).resolve() != photos.resolve():
        raise UsageError(
            f"--resume: {str(out)!r} was adapted to {config.real!r}, not to {str(photos)!r}"
        )
    return config


def _settings(photos: Path, epochs: int, device: str) -> dict[str, Any]:
    """What differs from the published online update; crops fit most of the photos.

    Raises:
        UsageError: No such folder.
        NothingToDoError: No photo in it is large enough.
    """
    from derain_cli.datasets.layouts import list_images
    from derain_cli.images import probe_image

    if not photos.is_dir():
        raise UsageError(f"{str(photos)!r} is not a folder of photos")
    sides = sorted(min(probe_image(path)) for path in list_images(photos))
    if not sides or sides[-1] < SMALLEST_CROP:
        raise NothingToDoError(
            f"{str(photos)!r} contains no photo of at least {SMALLEST_CROP}x{SMALLEST_CROP} pixels"
        )
    typical = sides[len(sides) // 4]  # three of four photos are as large as this
    crop = max(SMALLEST_CROP, min(LARGEST_CROP, typical // 16 * 16))
    own = {"real": str(photos), "epochs": epochs, "crop": crop, "device": device}
    # The divergence compares the rain of two photos; from one, the rest can be learnt.
    alone = sum(side >= crop for side in sides) == 1
    return SETTINGS | own | ({"kl_weight": 0.0} if alone else {})
