"""Errors in a task that are no outcome of its partition, and pass."""

from __future__ import annotations

import signal
import traceback
from types import CodeType
from typing import Any

from dask_dfmr.on_dask.scheduling.types_of import types_of_distributed


def passes(error: BaseException) -> bool:
    """Whether an error is none of a reader or a fit.

    A shuffle asks by ``Reschedule`` that a task is run again elsewhere. A signal handler of the program may raise any
    error, to end the program or to limit the time of a call. If a task runs in the main thread, Python calls the
    handler there, between two lines of the reader. Such an error shows the frame of a handler in its traceback; that of
    a reader which calls ``sys.exit`` does not.
    """
    return isinstance(error, types_of_distributed("Reschedule")) or _is_of_handler(error)


def _is_of_handler(error: BaseException) -> bool:
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: Any) -> CodeType | None:
    """The code that a handler runs; None for those of Python itself and of the system, which are none."""
    function = getattr(handler, "func", handler)  # of functools.partial
    if callable(function) and not hasattr(function, "__code__"):
        function = type(function).__call__
    return getattr(function, "__code__", None)
