"""The engine of the inner loops: NumPy, or the same mathematics compiled by numba (the extra ``fast``).

One engine serves a whole process. The environment variable ``DASK_DFMR_ENGINE`` ("auto", "numba" or "numpy") or
:func:`use` selects it. "auto" takes numba if it is installed and works, and NumPy otherwise. The two engines agree to
rounding, not to the last bit, so all workers of a cluster should run the same one.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class _Selection:
    """The engine requested by :func:`use` (None: the environment decides), and the kernels once they are loaded."""

    requested: str | None = None
    kernels: ModuleType | None = None
    is_loaded: bool = False


_selection = _Selection()


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
    global _selection
    if not _selection.is_loaded:
        with _lock:
            if not _selection.is_loaded:
                kernels = _load(_requested())
                _selection = replace(_selection, kernels=kernels, is_loaded=True)
    return _selection.kernels


def name() -> str:
    """The engine of this process, "numba" or "numpy"."""
    return "numpy" if compiled() is None else "numba"


@contextmanager
def use(engine: str) -> Iterator[None]:
    """Run with one of the engines, in all threads of this process.

    Parameters
    ----------
    engine : {"auto", "numba", "numpy"}

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    global _selection
    checks.one_of("engine", engine, ENGINES)
    with _lock:
        before = _selection
        _selection = _Selection(engine)
    try:
        compiled()
        yield
    finally:
        with _lock:
            _selection = before


def _requested() -> str:
    if _selection.requested is not None:
        return _selection.requested
    requested = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
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
