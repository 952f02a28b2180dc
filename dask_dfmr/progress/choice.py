"""``verbose`` -> the progress of one computation."""

from __future__ import annotations

import logging

from dask_dfmr.progress.lines import Lines
from dask_dfmr.progress.stages import SILENT, Display, Progress, Unseen, logger


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


def _display() -> Display:
    try:
        from rich.console import Console

        from dask_dfmr.progress.bars import Bars
    except ImportError:  # the extra "cli" is not installed
        return Lines()
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal or console.is_jupyter else Lines()
