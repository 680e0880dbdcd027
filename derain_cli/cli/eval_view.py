"""Live view of an evaluation: a bar on a terminal, a line per minute in a log."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from derain_cli.cli.train_view import duration

if TYPE_CHECKING:
    from derain_cli.evaluation.statistics import Row

LINE_EVERY = 60.0
# Time left is shown once this many images of the session are scored.
ENOUGH_IMAGES = 2


class EvalView:
    """Phases with their progress, running means per model, the current image, the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._live = self.console.is_terminal and not quiet
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[about]}", markup=False),
            console=self.console,
            disable=not self._live,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, count="", about="")
        self._began = self._last_line = time.monotonic()
        self._total = self._before = self._done = self._models = 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._column = ""

    @contextmanager
    def shown(self) -> Iterator["EvalView"]:
        """Show it until the context ends."""
        with self._progress:
            yield self

    def phase(self, name: str, done: int, total: int) -> None:
        """Set the progress of a phase, such as reading data or drawing the report."""
        self._progress.update(
            self._task,
            description=name,
            completed=done,
            total=total or None,
            count=f"{done} of {total}" if total else "",
            about="",
        )

    def begin_scoring(self, images: int, models: int, known: Sequence["Row"], column: str) -> None:
        """Set the number of images and of models (the input counts as one)."""
        self._total, self._models, self._column = images * models, models, column
        self._before = self._done = len(known)
        for row in known:
            self._add(row)
        self._began = time.monotonic()
        self.phase("scoring", self._done // models, images)

    def note(self, row: "Row") -> None:
        """Take in a row."""
        self._add(row)
        self._done += 1
        about = f"{self._means()}  {row.image}  {self._time_left()}"
        scored = self._done // self._models
        count = f"{scored} of {self._total // self._models}"
        self._progress.update(self._task, completed=scored, count=count, about=about)
        if not self._live and time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            images = f"{self._done // self._models} of {self._total // self._models} images"
            self.console.print(f"{images}, {about}", highlight=False, markup=False, soft_wrap=True)

    def _add(self, row: "Row") -> None:
        score = row.scores[self._column]
        if score - score == 0:  # neither infinite nor undefined
            total, count = self._sums.get(row.model, (0.0, 0))
            self._sums[row.model] = total + score, count + 1

    def _means(self) -> str:
        from derain_cli.evaluation.statistics import COLUMNS, format_score

        title = COLUMNS[self._column].title
        means = [
            f"{model.rsplit('/', 1)[-1]} {format_score(self._column, total / count)}"
            for model, (total, count) in self._sums.items()
        ]
        return f"{title} {', '.join(means)}"

    def _time_left(self) -> str:
        """From the rows of this session alone."""
        done = self._done - self._before
        if done < ENOUGH_IMAGES * self._models:
            return ""
        each = (time.monotonic() - self._began) / done
        return f"{duration(each * (self._total - self._done))} left"
