"""Exit codes, and which one an error or a result has."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes. From 64 on they are those of ``sysexits.h``."""

    FINE = 0
    REVIEW = 1
    NO_MAJORITY = 2
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_WRITE = 73
    INTERRUPTED = 130


MEANINGS = {
    Exit.FINE: "nothing was excluded, and nothing needs a review",
    Exit.REVIEW: "there is a result, and something was excluded or needs a review; stderr says what",
    Exit.NO_MAJORITY: "there is a result, and no clear majority of the sources agrees on it",
    Exit.USAGE: "the command line is wrong: an option, a value, or options that exclude each other",
    Exit.DATA: "the data, the model or the estimates cannot be used",
    Exit.NO_INPUT: "a file does not exist, cannot be read, or a pattern matches none",
    Exit.UNAVAILABLE: "the cluster does not answer or is gone, or a package that the command needs is missing",
    Exit.INTERNAL: "an error of this package",
    Exit.CANNOT_WRITE: "an output exists (`--force` replaces it), or cannot be written",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}
"""What each exit code means."""


class CommandError(Exception):
    """An error that ends a command with a sentence and an exit code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def exit_of(error: BaseException) -> tuple[Exit, str]:
    """The exit code of an error, and a sentence for it."""
    if isinstance(error, CommandError):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED, "interrupted."
    if isinstance(error, ImportError):
        return Exit.UNAVAILABLE, str(error)
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return Exit.CANNOT_WRITE, f"the output cannot be written: {error.strerror}"
        where = f"{error.filename}: " if error.filename else ""
        return Exit.NO_INPUT, f"{where}{error.strerror or error}"
    from dask_dfmr.exceptions import ClusterError

    if isinstance(error, ClusterError):
        return Exit.UNAVAILABLE, str(error)
    if isinstance(error, (ValueError, TypeError)):
        notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("in ")]
        return Exit.DATA, " ".join([str(error), *notes[:1]])
    text = f"{type(error).__name__}: {error}"
    return Exit.INTERNAL, f"{text} (an error of dask-dfmr; --debug shows where)"


def exit_for(categories: Iterable[str], n_excluded: int) -> Exit:
    """The exit code of a result: from the categories of its warnings, and how much was excluded."""
    found = set(categories)
    if "NoMajorityWarning" in found:
        return Exit.NO_MAJORITY
    return Exit.REVIEW if found or n_excluded else Exit.FINE
