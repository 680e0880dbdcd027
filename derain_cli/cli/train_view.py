"""Live view of a training run: a table on a terminal, lines in a log."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from derain_cli.training.configs.fields import shown
from derain_cli.training.configs.train import TrainConfig

if TYPE_CHECKING:
    from derain_cli.training.phases import Phase
    from derain_cli.training.trainer import Progress

# Weight of the newest step in the running means.
NEW = 0.05
REDRAWS_PER_SECOND = 4
LINE_EVERY = 60.0


class RunView:
    """Table of a run: running means and the current phase."""

    def __init__(self, config: TrainConfig) -> None:
        self._title = f"{config.model}, {config.recipe}"
        self._means: dict[str, float] = {}
        self._progress: Progress | None = None
        self._psnr = self._best = float("nan")
        self._started = self._phase_began = time.monotonic()
        self._phase = "starting"
        self._sign = Spinner("line")

    def note(self, progress: "Progress") -> None:
        """Take in a step."""
        self.say("training")
        self._progress = progress
        numbers = progress.parts | {
            "seconds": progress.seconds_per_step,
            "waited": progress.waited,
            "images": progress.images,
        }
        for name, value in numbers.items():
            self._means[name] = self._means.get(name, value) * (1 - NEW) + NEW * value
        if progress.psnr is not None:
            self._psnr = progress.psnr
            self._best = progress.psnr if self._best != self._best else max(self._best, self._psnr)

    def say(self, phase: str) -> None:
        """Set the current phase, such as "validating 7 of 20"."""
        if phase.split()[0] != self._phase.split()[0]:
            self._phase_began = time.monotonic()
        self._phase = phase

    def rows(self) -> list[tuple[str, str]]:
        """Values to show, by name."""
        now = time.monotonic()
        doing = [("now", f"{self._phase} ({duration(now - self._phase_began)})")]
        doing.append(("elapsed", duration(now - self._started)))
        progress = self._progress
        if progress is None:
            return doing
        seconds = max(self._means["seconds"], 1e-9)
        waited = 100 * self._means["waited"] / seconds
        rows = [
            ("step", f"{progress.step} of {progress.steps}"),
            *doing,
            *((name, f"{self._means[name]:.4g}") for name in progress.parts),
            ("learning rate", f"{progress.lr:.3g}"),
            ("images/s", f"{self._means['images'] / seconds:.1f}"),
            ("waiting for data", f"{waited:.0f} %"),
            ("time left", self._time_left(progress)),
        ]
        if self._psnr == self._psnr:
            rows.append(("validation PSNR", f"{self._psnr:.2f} dB, best {self._best:.2f}"))
        return rows

    def _time_left(self, progress: "Progress") -> str:
        """Time left, from the newest steps alone: validations do not count."""
        return duration(self._means["seconds"] * (progress.steps - progress.step))

    def line(self) -> str:
        """The table as one line, for a log."""
        return ", ".join(f"{name} {value}" for name, value in self.rows())

    def __rich__(self) -> Table:
        table = Table(title=self._title, show_header=False, title_justify="left")
        for name, value in self.rows():
            shown = self._sign_of_life(value) if name == "now" else Text(value)
            table.add_row(name, shown)
        return table

    def _sign_of_life(self, text: str) -> Spinner:
        """A spinner, so that a long phase does not look like a hanging program."""
        self._sign.update(text=Text(text))
        return self._sign


@contextmanager
def show_progress(config: TrainConfig, *, quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """Context that yields a function to call after every step.

    On a terminal it redraws a table on stderr four times a second, in its own thread; in a log it
    prints a line per minute, per phase and per validation.
    """
    from derain_cli.training import phases

    console, view = Console(stderr=True, quiet=quiet), RunView(config)
    live = Live(view, console=console, refresh_per_second=REDRAWS_PER_SECOND)
    last_line, last_phase = time.monotonic(), ""

    def log(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def note_phase(phase: "Phase") -> None:
        nonlocal last_phase
        view.say(str(phase))
        if not console.is_terminal and phase.total and phase.name != last_phase:
            log(f"{phase.name}, {phase.total} images")
        last_phase = phase.name

    def report(progress: "Progress") -> None:
        nonlocal last_line, last_phase
        if progress.notice:
            console.print(progress.notice, highlight=False, markup=False, soft_wrap=True)
            return
        view.note(progress)
        last_phase = "training"
        if progress.validation:
            log(validation_line(progress))
        elif not console.is_terminal and time.monotonic() - last_line > LINE_EVERY:
            log(view.line())
            last_line = time.monotonic()

    with phases.listening(note_phase), live if console.is_terminal else nullcontext():
        yield report


@contextmanager
def starting(*, quiet: bool) -> Iterator[None]:
    """A sign of life on a terminal while torch is loaded and the images are looked through."""
    console = Console(stderr=True, quiet=quiet)
    with console.status("starting") if console.is_terminal else nullcontext():
        yield


def validation_line(progress: "Progress") -> str:
    """PSNR of each source."""
    scores = ", ".join(f"{name} {value:.2f}" for name, value in (progress.validation or {}).items())
    return f"step {progress.step}: validation PSNR (y) {scores} dB"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration(59.6), duration(3725)
        ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_settings(rows: Sequence[tuple[str, Any, str]]) -> None:
    """A table on stdout: field, value, source."""
    console = Console()
    if not console.is_terminal:
        for name, value, source in rows:
            typer.echo(f"{name}\t{shown(value)}\t{source}")
        return
    table = Table("field", "value", "source")
    for name, value, source in rows:
        table.add_row(name, Text(shown(value)), Text(source))
    console.print(table)
