"""``verbose`` -> what one computation shows: its progress, and a sentence about its result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec

from dask_dfmr.progress.lines import Lines
from dask_dfmr.progress.stages import SILENT, Display, Progress, Unseen, logger

_says_results = ContextVar("dask_dfmr_says_results", default=True)


def progress_for(verbose: int) -> Progress:
    """How one computation shows its progress.

    Parameters
    ----------
    verbose : int
        0 shows nothing; the log has the stages if the logger ``dask_dfmr`` takes INFO. Otherwise bars in a terminal and
        in a notebook, if rich is installed, and else lines of text. Both go to stderr.
    """
    if verbose:
        return Progress(_display())
    return Progress(Unseen()) if logger.isEnabledFor(logging.INFO) else SILENT


def say_result(verbose: int, sentence: str) -> None:
    """Show a sentence about a result where its progress was shown, and log it."""
    logger.info(sentence)
    if verbose and _says_results.get():
        _display().say(sentence)


@contextmanager
def results_shown_elsewhere() -> Iterator[None]:
    """Surrounds a program that shows results itself, in more than a sentence; progress is shown as usual."""
    token = _says_results.set(False)
    try:
        yield
    finally:
        _says_results.reset(token)


def _display() -> Display:
    try:
        from rich.console import Console

        from dask_dfmr.progress.bars import Bars
    except ImportError:  # the extra "cli" is not installed
        return Lines()
    console = Console(stderr=True)
    # In a notebook rich draws with ipywidgets, and warns again and again without.
    draws = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    return Bars(console) if draws else Lines()
