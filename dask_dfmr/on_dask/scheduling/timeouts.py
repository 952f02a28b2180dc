"""A limit on the time of one call inside a task."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any, TypeVar

from dask.context import thread_state

from dask_dfmr.exceptions import OutOfTimeError

_T = TypeVar("_T")


def within(seconds: float | None, function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own and stop waiting for it after ``seconds``; None sets no limit.

    The function finds what it would find in the thread of the task: the worker, its client, the key of the task. So
    Dask's shuffles, ``get_client`` and nested ``compute`` work. A hanging reader cannot be stopped: its thread goes on,
    and its result is ignored.

    Raises
    ------
    OutOfTimeError
        If the function has not returned in time.
    """
    if seconds is None:
        return function()
    future: Future[_T] = Future()
    context, state, place = copy_context(), dict(vars(thread_state)), _Place()

    def run() -> None:
        vars(thread_state).update(state)
        place.take()
        try:
            result = context.run(function)
        except BaseException as error:
            place.leave()
            future.set_exception(error)
        else:
            place.leave()
            future.set_result(result)

    # Not an executor: it would wait for the thread when the process ends.
    thread = threading.Thread(target=run, daemon=True, name="dfmr-partition")
    thread.start()
    in_time = wait([future], seconds).done
    place.take_back(thread)
    if not in_time:
        raise OutOfTimeError(seconds)
    return future.result()


class _Place:
    """The place of a task's thread in the pool of its worker, which another thread takes for some time.

    A thread that computes something nested leaves the pool while it waits (:func:`distributed.secede`), so that the
    worker can run what it waits for. It can do that only if the pool knows it, and :func:`distributed.secede` looks for
    the pool where this class puts it. Outside of a worker there is no pool, and nothing happens. A process that has not
    loaded distributed is no worker.
    """

    def __init__(self) -> None:
        self._owner = threading.current_thread()
        self._is_over = False
        self._pools: Any = sys.modules.get("distributed.threadpoolexecutor")
        state = getattr(self._pools, "thread_state", None)
        self._pool: Any = getattr(state, "executor", None)

    def take(self) -> None:
        """The calling thread takes the place of the owner."""
        if self._pool is None:
            return
        with self._pools.threads_lock:
            if not self._is_over and self._owner in self._pool._threads:
                self._pool._threads.remove(self._owner)
                self._pool._threads.add(threading.current_thread())
                self._pools.thread_state.executor = self._pool

    def leave(self) -> None:
        """The calling thread is about to end, and gives its place back."""
        if self._pool is None:
            return
        with self._pools.threads_lock:
            if threading.current_thread() not in self._pool._threads:
                return
            self._pool._threads.remove(threading.current_thread())
            if self._is_over:
                # It had left the pool when the owner gave up, and came back later: another thread takes its place.
                self._pool._adjust_thread_count()
            else:
                self._pool._threads.add(self._owner)

    def take_back(self, other: threading.Thread) -> None:
        """The owner waits no longer, and takes its place from the other thread."""
        if self._pool is None:
            return
        with self._pools.threads_lock:
            self._is_over = True
            if other in self._pool._threads:
                self._pool._threads.remove(other)
                self._pool._threads.add(self._owner)
            # Without a place this thread ends after its task, like any that left the pool.
            self._pools.thread_state.proceed = self._owner in self._pool._threads
