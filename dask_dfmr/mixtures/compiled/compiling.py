"""How a kernel is compiled, and the arrays that kernels work in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache

from dask_dfmr.mixtures import family
from dask_dfmr.mixtures.family import Array

CACHE_LINE = 64
"""Bytes of one line of the processor's cache."""

SOURCES = (Path(family.__file__), *sorted(Path(__file__).parent.glob("*.py")))
"""The files that kernels are made of: they take constants from the first one, and code from one another."""

FINGERPRINT = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
"""What the names of cached kernels end in. numba looks only for changes in the file of a kernel itself, so that another
release of the package would run machine code of the last one."""

_logger = logging.getLogger("dask_dfmr")


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel that Python calls, without the GIL; cache the machine code where a folder can be written.

    Every kernel is compiled without ``fastmath``, so that no rounding depends on the version of LLVM.
    """
    return _compile(function)


def jit_part(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels, which Python cannot call.

    Parts have no wrappers for Python and C, and the first use of kernels takes a sixth less time. A call from Python
    would crash the process.
    """
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def jit_inlined(function: Callable[..., Any]) -> Any:
    """Compile a part of one kernel as if its lines were those of the kernel.

    LLVM then optimises them once, and not for the part and for the kernel again: a sixth of the first use of EM steps.
    """
    return _compile(function, inline="always")


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    function.__qualname__ += f"_{FINGERPRINT}"
    kernel = njit(nogil=True, error_model="numpy", **options)(function)
    with suppress(RuntimeError):  # numba: no locator available, that is no folder for the cache
        kernel._cache = _Cache(function)
    return kernel


class _Cache(FunctionCache):
    """A cache whose failures cost time alone: what cannot be loaded is compiled, and may be saved or not."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a file that is cut off or damaged raises
            self._tell("load", error)
            self._discard()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, or an index that cannot be read
            self._tell("save", error)

    def _discard(self) -> None:
        """Forget all that the index has, so that the next process does not fail again."""
        try:
            self.flush()
        except OSError as error:
            self._tell("discard", error)

    def _tell(self, verb: str, error: Exception) -> None:
        _logger.info(
            "cannot %s compiled kernels in %s, so that they are compiled: %s: %.500s",
            verb,
            self.cache_path,
            type(error).__name__,
            error,
        )


def aligned(size: int) -> Array:
    """An uninitialised float64 array of ``size`` elements that starts at a cache line.

    A vector that straddles two lines costs two loads.
    """
    raw = np.empty(size + CACHE_LINE // 8)
    first = -raw.__array_interface__["data"][0] % CACHE_LINE // 8
    return raw[first : first + size]


def read_only(array: Array) -> Array:
    """A view that cannot be written.

    numba gives read-only arrays a type of their own. If every input is read-only, a kernel is compiled for one type.
    """
    view = array.view()
    view.setflags(write=False)
    return view
