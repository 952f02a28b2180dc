"""The engine of the inner loops: NumPy, or the same mathematics compiled by numba (the extra ``fast``).

The environment variable ``DASK_DFMR_ENGINE`` ("auto", "numba" or "numpy") selects the engine of a process, and
:func:`use` that of a block of code. "auto" takes numba if it is installed and works, and NumPy otherwise. The two
engines agree to rounding, not to the last bit, so all workers of a cluster should run the same one.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import ModuleType

from dask_dfmr import checks

ENGINES = ("auto", "numba", "numpy")
"""Engines that can be requested."""

ENVIRONMENT_VARIABLE = "DASK_DFMR_ENGINE"
"""It requests an engine for the whole process."""

KERNELS = "dask_dfmr.mixtures.compiled.kernels"
"""The module of compiled kernels, imported only if numba is the engine."""

_logger = logging.getLogger("dask_dfmr")
_lock = threading.RLock()


class _Selection:
    """An engine that was requested (None: the environment decides), and its kernels once they are loaded."""

    def __init__(self, requested: str | None = None) -> None:
        self.requested = requested
        self.kernels: ModuleType | None = None
        self.is_loaded = False

    def load(self) -> None:
        with _lock:
            if not self.is_loaded:
                self.kernels = _load(self.requested or _of_environment())
                self.is_loaded = True


_selections: tuple[_Selection, ...] = (_Selection(),)
"""That of the process, and those of all blocks of :func:`use` that run now, in the order in which they began."""

_own: ContextVar[_Selection | None] = ContextVar("engine", default=None)
"""The selection of the innermost block of :func:`use` around the code of this thread."""


def compiled() -> ModuleType | None:
    """The module of compiled kernels, or None if NumPy is the engine.

    The first call of a process loads the kernels and logs one line that names the engine.

    Raises
    ------
    ValueError
        If the environment variable names no engine.
    Exception
        If "numba" was requested and cannot be used: ImportError if it is not installed, otherwise the error of numba.
    """
    selection = _own.get() or _selections[-1]
    if not selection.is_loaded:
        selection.load()
    return selection.kernels


def name() -> str:
    """The engine of this process, "numba" or "numpy"."""
    return "numpy" if compiled() is None else "numba"


@contextmanager
def use(engine: str) -> Iterator[None]:
    """Run a block of code with one of the engines.

    It holds in this thread, and in threads that are in no such block themselves, as those of a scheduler. Of several
    blocks that run at once in different threads, these take the one that began last.

    Parameters
    ----------
    engine : {"auto", "numba", "numpy"}

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    global _selections
    checks.one_of("engine", engine, ENGINES)
    selection = _Selection(engine)
    selection.load()
    token = _own.set(selection)
    try:
        with _lock:
            _selections = (*_selections, selection)
        yield
    finally:
        with _lock:
            _selections = tuple(one for one in _selections if one is not selection)
        _own.reset(token)


def _of_environment() -> str:
    requested = (
        os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    )  # files of services set it to nothing
    checks.one_of(f"the environment variable {ENVIRONMENT_VARIABLE}", requested, ENGINES)
    return requested


def _load(requested: str) -> ModuleType | None:
    is_installed = find_spec("numba") is not None
    if requested == "numba" and not is_installed:
        raise ImportError(
            "the engine 'numba' was requested, but numba is not installed. Run pip install 'dask-dfmr[fast]', "
            "or choose the engine 'numpy'."
        )
    if requested == "numpy" or not is_installed:
        why = "requested" if requested == "numpy" else "numba is not installed"
        _logger.info("engine: NumPy (%s)", why)
        return None
    try:
        kernels = importlib.import_module(KERNELS)
        kernels.check_lanes()
    except Exception as error:
        # numba refuses a NumPy newer than itself, or the vectors of `compiled.lanes` do not fit this release of numba.
        if requested == "numba":
            raise
        _logger.warning(
            "engine: NumPy (numba is installed, but the kernels cannot be compiled with it: %s: %.500s)",
            type(error).__name__,
            error,
        )
        return None
    _logger.info("engine: %s", kernels.describe())
    return kernels
