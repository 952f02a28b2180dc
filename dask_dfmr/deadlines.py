"""A moment at which the computations of a thread give up.

Iterative computations call :func:`check` once a pass. They know nothing of the limit, and whoever sets it knows nothing
of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dask_dfmr.exceptions import OutOfTimeError

_limit: ContextVar[tuple[float, float] | None] = ContextVar("limit", default=None)
"""The moment, on the monotonic clock, and the seconds that were given until then."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Computations inside give up after ``seconds``; None sets no limit."""
    token = _limit.set(None if seconds is None else (time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def check() -> None:
    """Give up if it is time.

    Raises
    ------
    OutOfTimeError
        If the limit has passed.
    """
    limit = _limit.get()
    if limit is not None and time.monotonic() > limit[0]:
        raise OutOfTimeError(limit[1])
