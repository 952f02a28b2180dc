"""How a kernel is compiled, and the arrays that kernels work in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from dask_dfmr.mixtures.family import Array

CACHE_LINE = 64
"""Bytes of one line of the processor's cache."""


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
    try:
        return njit(nogil=True, error_model="numpy", cache=True, **options)(function)
    except RuntimeError:  # numba: no locator available, that is no folder for the cache
        return njit(nogil=True, error_model="numpy", **options)(function)


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
