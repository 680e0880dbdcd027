"""A run's numbers as TensorBoard's files; needs the extra `tensorboard`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from derain_cli.errors import UnavailableError
from derain_cli.training.trainer import LOG_EVERY, Progress


@contextmanager
def writing(run: Path) -> Iterator[Callable[[Progress], None]]:
    """A function to call after every step; it writes to `tensorboard/` in the run's folder.

    Raises:
        UnavailableError: TensorBoard is not installed.
    """
    try:
        import_module("tensorboard")
    except ImportError as error:
        raise UnavailableError(
            "`tensorboard` needs TensorBoard: pip install 'derain-cli[tensorboard]' (or draw the "
            "curves with `derain plot RUN`)"
        ) from error
    make = import_module("torch.utils.tensorboard").SummaryWriter
    writer: Any = None  # made at the first step: a run that cannot begin leaves no files

    def write(progress: Progress) -> None:
        nonlocal writer
        writer = writer or make(str(run / "tensorboard"))
        if progress.step % LOG_EVERY == 0 or progress.validation:
            numbers = progress.parts | {
                "learning rate": progress.lr,
                "images per second": progress.images / max(progress.seconds_per_step, 1e-9),
            }
            scores = {f"psnr/{name}": value for name, value in (progress.validation or {}).items()}
            for name, value in (numbers | scores).items():
                writer.add_scalar(name, value, progress.step)

    try:
        yield write
    finally:
        if writer:
            writer.close()
