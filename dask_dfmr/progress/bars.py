"""Progress as bars, drawn by rich: in a terminal and in a notebook.

rich draws from a thread of its own, so that times go on while a task is long. :meth:`Bars.close` ends that thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from dask_dfmr.progress.lines import LEAST_TIME_SHOWN, Lines
from dask_dfmr.progress.stages import Stage, in_words

_terminal = threading.Lock()
"""Held by the computation that draws: bars of two would overwrite each other."""


class Bars:
    """One bar per stage. Nothing is drawn of a computation that takes less than half a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: _Table | None = None
        self._tasks: dict[str, Any] = {}
        self._lines: Lines | None = None

    def open(self) -> None:
        if not _terminal.acquire(blocking=False):
            self._lines = Lines()
            return
        self._tasks = {}
        self._progress = _Table(self._console)
        self._progress.start()

    def show(self, stage: Stage) -> None:
        table = self._progress
        if table is None:
            return
        if stage.name not in self._tasks:
            self._tasks[stage.name] = table.add_task(stage.label, total=stage.total)
        table.update(
            self._tasks[stage.name],
            description=stage.label,
            total=stage.total,
            completed=stage.done,
            stage=stage,
        )

    def tell(self, stage: Stage) -> None:
        if self._lines is not None:
            self._lines.tell(stage)

    def close(self) -> None:
        table, self._progress, self._lines = self._progress, None, None
        if table is not None:
            try:
                table.live.transient = not table.is_worth_it
                table.stop()
            finally:
                _terminal.release()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Table(RichProgress):
    """The bars of one computation, empty until they are worth it."""

    def __init__(self, console: Console) -> None:
        self._since = time.monotonic()
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Counts(),
            _Times(),
            console=console,
        )

    @property
    def is_worth_it(self) -> bool:
        """Whether the computation has taken long enough to be shown."""
        return time.monotonic() >= self._since + LEAST_TIME_SHOWN

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.is_worth_it:
            yield self.make_tasks_table(sorted(self.tasks, key=_beginning))


def _beginning(task: Task) -> float:
    stage: Stage | None = task.fields.get("stage")
    return float("inf") if stage is None or stage.began is None else stage.began


class _Counts(ProgressColumn):
    """Tasks done of how many."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:.0f} of {task.total or 0:.0f}", justify="right")


class _Times(ProgressColumn):
    """The time of a stage, and what is left of it."""

    max_refresh = None

    def render(self, task: Task) -> Text:
        stage: Stage | None = task.fields.get("stage")
        if stage is None or stage.began is None:
            return Text("")
        is_open = stage.ended is None and stage.left is not None
        left = f", about {in_words(stage.left or 0.0)} left" if is_open else ""
        return Text(f"{in_words(stage.elapsed)}{left}", style="dim")
