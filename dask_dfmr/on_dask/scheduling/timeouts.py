"""A limit on the time of one call inside a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_T = TypeVar("_T")


class PartitionTimeoutError(Exception):
    """Reading and using one partition took longer than ``partition_timeout``."""


def within(seconds: float | None, function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own and stop waiting for it after ``seconds``; None sets no limit.

    A hanging reader cannot be stopped: its thread goes on, and its result is ignored.

    Raises
    ------
    PartitionTimeoutError
        If the function has not returned in time.
    """
    if seconds is None:
        return function()
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    # Not an executor: it would wait for the thread when the process ends.
    threading.Thread(target=run, daemon=True, name="dfmr-partition").start()
    if not wait([future], seconds).done:
        raise PartitionTimeoutError(f"not done after partition_timeout = {seconds:g} seconds")
    return future.result()
