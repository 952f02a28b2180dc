"""Submitting tasks to a cluster and waiting for them, whatever happens to its workers and its scheduler.

Dask runs the tasks of a dead worker elsewhere. Two cases are left to this module. If no worker can run the tasks,
a warning gives the states of the workers; Dask's own limit, ``distributed.scheduler.no-workers-timeout``, ends the
wait if it is set. If the scheduler that held the tasks is gone, all results are gone with it, and an error is raised.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import dask
from dask.utils import format_time, key_split

from dask_dfmr.exceptions import ClusterError, ClusterWarning, warn
from dask_dfmr.on_dask.scheduling.tally import FuturesTally
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.progress.stages import SILENT, Progress

if TYPE_CHECKING:
    import distributed

logger = logging.getLogger("dask_dfmr")

PATIENCE = 30.0
"""Seconds without a new result after which the workers are checked, and checked again."""

ANSWER_TIMEOUT = 10.0
"""Seconds after which a scheduler that has not listed its workers counts as not answering."""

MOVE_PATIENCE = 3.0
"""Seconds without a new result after which trusted workers are searched at other addresses."""

SHORTEST_NAP, LONGEST_NAP = 0.0005, 0.01
"""Seconds between two checks of a future."""

_UNRESOLVED = ("pending", "lost")
"""States of a future that has no result yet; "lost": finished on a worker that died, and computed again."""

_NO_WORKERS = ("NoWorkerError", "NoValidWorkerError")
"""Names of the errors with which a scheduler gives up waiting for workers."""

_WHOLE_CONNECTION = ("scheduler-connection-lost", "scheduler-restart")
"""Reasons of cancelled futures that concern all futures of the client."""

_SAME_BITS = "with the same random_state it gives the same bits."


@dataclass(frozen=True)
class Cluster:
    """A connected cluster, and which of its workers may aggregate.

    Attributes
    ----------
    client : distributed.Client
    trusted : TrustedWorkers or None
        The only workers that get tasks of the aggregation; None for all workers.
    submitted : WeakValueDictionary
        The futures of everything submitted that are still in use.
    """

    client: distributed.Client
    trusted: TrustedWorkers | None = None
    submitted: WeakValueDictionary[int, Any] = field(
        default_factory=WeakValueDictionary, compare=False, repr=False
    )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Work that submits tasks and waits for them, from wherever it is called.

        In a task of a worker, it leaves the worker's threads to other tasks, as Dask's own nested ``compute`` does:
        they may be those that it waits for. If it ends with an error or Ctrl-C, all that it has submitted is released.
        Otherwise the tasks would go on as long as somebody keeps the traceback, as interactive sessions do.
        """
        with _outside_of_the_pool():
            try:
                yield
            except BaseException:
                for future in list(self.submitted.values()):
                    future.release()
                raise

    def submit(
        self,
        graph: Mapping[Any, Any],
        keys: Sequence[Any],
        progress: Progress = SILENT,
        others: str | None = None,
    ) -> list[Any]:
        """Submit tasks, wait until each has a result or an error, and return the futures.

        ``others`` is the name under which the progress shows stages without a name of their own.

        Raises
        ------
        ClusterError
            If the scheduler is gone, or gave up waiting for workers.
        """
        from distributed.client import ClosedClientError

        pinned = (
            nullcontext() if self.trusted is None else dask.annotate(**self.trusted.annotations())
        )
        try:
            with self.client.as_current(), pinned:
                futures = list(self.client.get(dict(graph), list(keys), sync=False))
                self.submitted.update((id(future), future) for future in futures)
        except (OSError, RuntimeError, ClosedClientError) as error:
            if self.client.status != "running":
                raise ClusterError(self._connection_lost(keys, 0)) from error
            raise
        self.wait(futures, FuturesTally(progress, futures, others) if progress.is_active else None)
        return futures

    def wait(self, futures: Sequence[Any], tally: FuturesTally | None = None) -> None:
        """Wait until each of the futures has a result or an error.

        The futures are checked in turn. ``distributed.wait`` would depend on the client's own thread, which may have
        ended.

        Raises
        ------
        ClusterError
            If the scheduler is gone, gave up waiting for workers, or trusted workers moved to another address.
        """
        watch = _Watch(self, futures)
        for future in futures:
            nap = SHORTEST_NAP
            while future.status in _UNRESOLVED:
                time.sleep(nap)
                nap = min(2 * nap, LONGEST_NAP)
                watch.check()
                if tally is not None:
                    tally.count(_UNRESOLVED)
        if tally is not None:
            tally.count(_UNRESOLVED, at_once=True)
        # A future that had a result may have lost it meanwhile: then it is computed, and waited for, again.
        if any(future.status in _UNRESOLVED for future in futures):
            self.wait(futures, tally)
            return
        watch.raise_if_gone()
        for future in futures:
            error = error_of(future)
            if type(error).__name__ in _NO_WORKERS:
                text = f"the scheduler gave up waiting for workers ({error})"
                raise ClusterError(f"{text}. Add workers and fit again; {_SAME_BITS}") from None

    def gather(self, futures: Sequence[Any]) -> list[Any]:
        """The results of futures that were waited for, brought to this process.

        Raises
        ------
        ClusterError
            If the scheduler is gone.
        """
        from distributed.client import FutureCancelledError

        try:
            with self.client.as_current():
                return list(self.client.gather(list(futures)))
        except (OSError, RuntimeError, FutureCancelledError) as error:
            reason = getattr(error, "reason", None)
            if self.client.status != "running" or reason in _WHOLE_CONNECTION:
                raise ClusterError(self._connection_lost([f.key for f in futures], 0)) from None
            raise

    def workers(self) -> dict[str, Any]:
        """The scheduler's description of each worker that is connected now, by address."""
        client: Any = self.client
        info = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_TIMEOUT)
        workers: dict[str, Any] = info["workers"]
        return workers

    def describe_trouble(self) -> str | None:
        """Why no worker can compute anything now; None if one can."""
        try:
            workers = self.workers()
        # Whatever a broken connection raises; a lost client is found by _Watch.
        except Exception as error:
            return f"the scheduler does not answer ({type(error).__name__})."
        if not workers:
            return "no worker is connected. Add some."
        trusted = workers if self.trusted is None else self.trusted.among(workers)
        if not trusted:
            return f"none of the {len(workers)} connected workers is trusted with the aggregation ({self.trusted})."
        states = Counter(worker["status"] for worker in trusted.values())
        if "running" in states:
            return None
        listed = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        return (
            f"no worker takes tasks ({listed}). A worker pauses when its memory is nearly full: add memory or "
            "workers, use smaller partitions, or persist less."
        )

    def raise_if_gone(self, futures: Sequence[Any]) -> None:
        """Raise ClusterError if the connection was lost or the scheduler was restarted."""
        gone = [f for f in futures if f.status == "cancelled"]
        if self.client.status != "running" or any(
            _reason_of(f) in _WHOLE_CONNECTION for f in gone[:1]
        ):
            n_done = sum(f.status in ("finished", "error") for f in futures)
            raise ClusterError(self._connection_lost([f.key for f in futures], n_done))

    def raise_if_moved(self) -> None:
        """Raise ClusterError if all trusted workers, known by address, were restarted at other addresses."""
        trusted = self.trusted
        if trusted is None or not trusted.places:
            return
        workers = self.workers()
        moved = [address for address in trusted.among(workers) if address not in trusted.places]
        if moved and not set(trusted.places) & set(workers):
            raise ClusterError(
                f"the trusted workers ({trusted}) were restarted during the fit, and are at {', '.join(moved)} now: "
                f"what was sent to {', '.join(trusted.places)} will never be computed. Fit again; a resource that "
                "trusted workers offer, trusted_workers={'TRUSTED': 1}, survives their restart."
            )

    def _connection_lost(self, keys: Sequence[Any], n_done: int) -> str:
        scheduler = getattr(self.client, "scheduler", None)
        where = getattr(scheduler, "address", None) or "the scheduler"
        return (
            f"the connection to {where} was lost, or the scheduler restarted, while {len(keys)} tasks "
            f"({_stages(keys)}) were waited for, {n_done} of them done; the client is {self.client.status}. Results "
            f"on a cluster do not outlive its scheduler: connect to a running one and fit again; {_SAME_BITS}"
        )


def error_of(future: Any) -> BaseException | None:
    """Why a future that was waited for has no result; None if it has one."""
    if future.status == "error":
        error: BaseException = future.exception()
        return error
    if future.status == "cancelled":
        from distributed.client import FutureCancelledError

        # Its scheduler has forgotten it: for example, data that cannot be computed again were lost.
        return FutureCancelledError(key=future.key, reason=_reason_of(future))
    return None


@contextmanager
def _outside_of_the_pool() -> Iterator[None]:
    """Leave the threads of a worker for some time, if this is one of them."""
    import distributed

    has_left = _leave_pool()
    try:
        yield
    finally:
        if has_left:
            distributed.rejoin()


def _leave_pool() -> bool:
    import distributed

    try:
        distributed.secede()
    except (ValueError, AttributeError, KeyError):
        # This is no worker, a thread that its pool does not know, or one that has left already.
        return False
    return True


class _Watch:
    """Checks a cluster from time to time while futures are waited for."""

    def __init__(self, cluster: Cluster, futures: Sequence[Any]) -> None:
        self.cluster, self.futures = cluster, futures
        self.since = self.checked = time.monotonic()
        self.n_unresolved = len(futures)
        self.warned: str | None = None

    def check(self) -> None:
        """Raise if the results can never come; warn if no result came for a long time and no worker can compute."""
        now = time.monotonic()
        if now < self.checked + min(1.0, PATIENCE):
            return
        self.checked = now
        self.raise_if_gone()
        left = sum(future.status in _UNRESOLVED for future in self.futures)
        if left != self.n_unresolved:
            self.n_unresolved, self.since = left, now
        if now >= self.since + min(PATIENCE, MOVE_PATIENCE):
            self.cluster.raise_if_moved()
        if now < self.since + PATIENCE:
            return
        self.since = now
        self._warn(left)

    def raise_if_gone(self) -> None:
        self.cluster.raise_if_gone(self.futures)

    def _warn(self, left: int) -> None:
        trouble = self.cluster.describe_trouble()
        if trouble is None:
            return
        stages = _stages([f.key for f in self.futures if f.status in _UNRESOLVED])
        text = (
            f"{left} tasks ({stages}) wait, and no result has come for {format_time(PATIENCE)}: {trouble} "
            "They go on waiting; distributed.scheduler.no-workers-timeout of Dask's configuration limits that."
        )
        logger.warning(text)
        if trouble != self.warned:
            warn(text, ClusterWarning)
        self.warned = trouble


def _stages(keys: Sequence[Any]) -> str:
    names = dict.fromkeys(key_split(key) for key in keys)
    return ", ".join(names)


def _reason_of(future: Any) -> str | None:
    error = getattr(getattr(future, "_state", None), "exception", None)
    reason: str | None = getattr(error, "reason", None)
    return reason
