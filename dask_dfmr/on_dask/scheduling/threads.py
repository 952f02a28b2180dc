"""One BLAS thread per task: several tasks run at once, and bits must not depend on the number of threads.

The number of threads of BLAS belongs to the process, and that of OpenMP to the thread that sets it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside: set[object] = set()
_before: list[tuple[Any, int]] = []
"""The BLAS libraries that are limited now, each with its number of threads before."""


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread while any thread of the process is inside, and OpenMP in this thread."""
    me = object()
    try:
        _enter(me)
        with _libraries("openmp").limit(limits=1):
            yield
    finally:
        _leave(me)


def _enter(me: object) -> None:
    with _lock:
        if not _inside:
            for library in _libraries("blas").lib_controllers:
                _before.append((library, library.num_threads))
                _set(library, 1)
        _inside.add(me)


def _leave(me: object) -> None:
    """Restore the numbers of threads if nobody else is inside, apart from a number that someone has set meanwhile."""
    with _lock:
        _inside.discard(me)
        while _before and not _inside:
            library, n_threads = _before.pop()
            if library.num_threads == 1:
                _set(library, n_threads)


def _set(library: Any, n_threads: int) -> None:
    """Set the number of threads of a library, whichever thread set it before.

    From 3.8 on, threadpoolctl lets one thread set that of OpenBLAS, and ignores all others while it lives or until it
    gives up control. Here threads of a scheduler take turns, under a lock.
    """
    give_up_control = getattr(library, "clear_controlling_thread", lambda *, force: None)
    give_up_control(force=True)
    library.set_num_threads(n_threads)
    give_up_control(force=True)


@cache
def _libraries(kind: str) -> Any:
    return ThreadpoolController().select(user_api=kind)
