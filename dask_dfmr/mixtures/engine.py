"""Which code runs the inner loops: NumPy, or the same mathematics compiled by numba (the extra ``fast``).

The choice is one of the process: the environment variable ``DASK_DFMR_ENGINE`` ("auto", "numba" or
"numpy"), or :func:`use`. "auto" compiles where numba is installed and works. The two engines agree to
rounding, not to the last bit, so workers of one cluster should run the same one.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from dask_dfmr import checks

ENGINES = ("auto", "numba", "numpy")

ENVIRONMENT_VARIABLE = "DASK_DFMR_ENGINE"

_logger = logging.getLogger("dask_dfmr")
_lock = threading.RLock()
_state: dict[str, Any] = {"asked": None, "kernels": None, "is_ready": False}


def compiled() -> ModuleType | None:
    """The compiled kernels, or None where NumPy is to be used; the first call of a process loads them and logs which.

    Raises
    ------
    ValueError
        If the environment variable names no engine.
    ImportError
        If numba was asked for and is not installed, or cannot be imported.
    """
    if not _state["is_ready"]:
        with _lock:
            if not _state["is_ready"]:
                _state["kernels"] = _load(_asked())
                _state["is_ready"] = True
    return _state["kernels"]


def name() -> str:
    """The engine of this process, "numba" or "numpy"."""
    return "numpy" if compiled() is None else "numba"


@contextmanager
def use(engine: str) -> Iterator[None]:
    """Run with one of the engines, in all threads of this process.

    Parameters
    ----------
    engine : {"auto", "numba", "numpy"}
    """
    checks.one_of("engine", engine, ENGINES)
    with _lock:
        before = dict(_state)
        _state.update(asked=engine, is_ready=False)
    try:
        compiled()
        yield
    finally:
        with _lock:
            _state.update(before)


def _asked() -> str:
    if _state["asked"] is not None:
        return str(_state["asked"])
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    checks.one_of(f"the environment variable {ENVIRONMENT_VARIABLE}", asked, ENGINES)
    return asked


def _load(asked: str) -> ModuleType | None:
    is_installed = find_spec("numba") is not None
    if asked == "numba" and not is_installed:
        raise ImportError(
            "the engine 'numba' was asked for, but numba is not installed: pip install 'dask-dfmr[fast]', "
            "or choose the engine 'numpy'."
        )
    if asked == "numpy" or not is_installed:
        why = "asked for" if asked == "numpy" else "numba is not installed"
        _logger.info("engine: NumPy (%s)", why)
        return None
    try:
        kernels = importlib.import_module("dask_dfmr.mixtures.compiled.kernels")
    except ImportError as error:  # numba refuses a NumPy that is newer than it knows
        if asked == "numba":
            raise
        _logger.warning("engine: NumPy (numba is installed but cannot be imported: %s)", error)
        return None
    _logger.info("engine: %s", kernels.describe())
    return kernels
