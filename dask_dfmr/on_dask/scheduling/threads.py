"""One BLAS thread per task: several tasks run at once, and bits must not depend on the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_state: dict[str, Any] = {"controller": None, "limiter": None, "users": 0}


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit the process to one BLAS thread while any thread is inside; the last thread to leave restores the limits."""
    with _lock:
        if _state["users"] == 0:
            _state["controller"] = _state["controller"] or ThreadpoolController()
            _state["limiter"] = _state["controller"].limit(limits=1)
            _state["limiter"].__enter__()
        _state["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _state["users"] -= 1
            if _state["users"] == 0:
                _state["limiter"].__exit__(None, None, None)
                _state["limiter"] = None
