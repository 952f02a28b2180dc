"""Counts of tasks by stage, and where they go: the one value that a scheduler carries."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger("dask_dfmr")

LINE_EVERY = 10.0
"""Seconds between two lines about the same stage, in the log and in plain text."""


@dataclass
class Stage:
    """One stage of a computation.

    Attributes
    ----------
    name : str
    total : int
        Number of its tasks.
    done : int
        How many have ended, failed ones included.
    turn : int
        1, and one more every time that a stage of this name begins again.
    began, ended : float or None
        By the monotonic clock, in seconds; None before.
    """

    name: str
    total: int = 0
    done: int = 0
    turn: int = 1
    began: float | None = None
    ended: float | None = None

    @property
    def label(self) -> str:
        """The name, with the turn if it is not the first one."""
        return self.name if self.turn == 1 else f"{self.name} ({self.turn})"

    @property
    def elapsed(self) -> float:
        """Seconds since the first task began, until the last one ended."""
        if self.began is None:
            return 0.0
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    @property
    def left(self) -> float | None:
        """Seconds that the other tasks will take at the speed so far; None before the first one is done."""
        return self.elapsed * (self.total - self.done) / self.done if self.done else None

    def __str__(self) -> str:
        counts = f"{self.label}: {self.done} of {self.total}"
        if self.ended is not None:
            return f"{counts} in {in_words(self.elapsed)}"
        left = "" if self.left is None else f", about {in_words(self.left)} left"
        return f"{counts} after {in_words(self.elapsed)}{left}"


class Display(Protocol):
    """What shows stages to a person."""

    def open(self) -> None:
        """A computation begins."""

    def show(self, stage: Stage) -> None:
        """The counts of a stage have changed."""

    def tell(self, stage: Stage) -> None:
        """A stage has ended, or a line about it is due."""

    def close(self) -> None:
        """The computation has ended, perhaps with an error."""

    def say(self, text: str) -> None:
        """Show a sentence about the result; nothing is open."""


class Unseen:
    """A display that shows nothing: the log alone has the stages."""

    def open(self) -> None: ...

    def show(self, stage: Stage) -> None: ...

    def tell(self, stage: Stage) -> None: ...

    def close(self) -> None: ...

    def say(self, text: str) -> None: ...


class Progress:
    """Counts and times of the stages of a computation, for a display and for the log.

    All calls come from the thread that computes. Sessions may be nested; the outermost one opens the display.
    """

    is_active = True

    def __init__(self, display: Display) -> None:
        self._display = display
        self._stages: dict[str, Stage] = {}
        self._purposes: list[str] = []
        self._depth = 0
        self._told: dict[str, float] = {}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Surrounds all work of one call of the user; the display is closed whatever happens."""
        self._depth += 1
        if self._depth == 1:
            self._stages, self._told = {}, {}
            self._display.open()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._display.close()

    @contextmanager
    def during(self, purpose: str) -> Iterator[None]:
        """Name the stages that read partitions once more for this purpose."""
        self._purposes.append(purpose)
        try:
            yield
        finally:
            self._purposes.pop()

    def purpose(self, otherwise: str) -> str:
        """The name given by the innermost :meth:`during`."""
        return self._purposes[-1] if self._purposes else otherwise

    def expect(self, name: str, n_tasks: int) -> None:
        """Announce tasks of a stage; a stage that has ended begins again."""
        stage = self._stages.get(name)
        if stage is None:
            stage = self._stages[name] = Stage(name)
        elif stage.ended is not None:
            stage = self._stages[name] = Stage(name, turn=stage.turn + 1)
        stage.total += n_tasks
        self._display.show(stage)

    def begin(self, name: str) -> None:
        """A task of a stage begins."""
        stage = self._stages[name]
        if stage.began is None:
            stage.began = self._told[name] = time.monotonic()
            self._display.show(stage)

    def advance(self, name: str, n_tasks: int = 1) -> None:
        """Tasks of a stage have ended."""
        self.begin(name)
        stage, now = self._stages[name], time.monotonic()
        stage.done += n_tasks
        if stage.done >= stage.total:
            stage.ended = now
        self._display.show(stage)
        if stage.ended is not None or now >= self._told[name] + LINE_EVERY:
            self._told[name] = now
            logger.info("%s", stage)
            self._display.tell(stage)


class _Silent(Progress):
    """Counts nothing and shows nothing."""

    is_active = False

    def __init__(self) -> None:
        super().__init__(Unseen())

    @contextmanager
    def session(self) -> Iterator[None]:
        yield

    @contextmanager
    def during(self, purpose: str) -> Iterator[None]:
        yield

    def expect(self, name: str, n_tasks: int) -> None: ...

    def begin(self, name: str) -> None: ...

    def advance(self, name: str, n_tasks: int = 1) -> None: ...


SILENT = _Silent()
"""The progress of a computation that is not shown. It holds nothing, so that everybody can share it."""


def in_words(seconds: float) -> str:
    """A duration for people: "3.1 s", "2 min 5 s", "1 h 4 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
