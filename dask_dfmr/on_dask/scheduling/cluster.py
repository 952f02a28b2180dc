"""Waiting on a cluster: what becomes of submitted tasks when workers die, pause or are not there, or the scheduler is.

A worker that dies is Dask's business: its tasks run elsewhere. What is left to say here is when that
cannot go on: nobody is there to run them (a warning that names who is there, and Dask's own time limit,
``distributed.scheduler.no-workers-timeout``, if one is set), or the scheduler that knew of them is gone
(an error, since all results are gone with it).
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import dask
import distributed
from dask.utils import format_time, key_split

from dask_dfmr.exceptions import ClusterError, ClusterWarning
from dask_dfmr.on_dask.scheduling.trusted_workers import current_trust

logger = logging.getLogger("dask_dfmr")

PATIENCE = 30.0
"""After so many seconds without a new result somebody looks whether there are workers to make one, and again later."""

ANSWER_TIMEOUT = 10.0
"""A scheduler that takes more seconds to say who its workers are is said not to answer."""

MOVE_PATIENCE = 3.0
"""After so many seconds without a new result somebody looks whether trusted workers came back at another address."""

SHORTEST_NAP, LONGEST_NAP = 0.0005, 0.01
"""Seconds between two looks at a future."""

_UNRESOLVED = ("pending", "lost")  # "lost": finished on a worker that died, and computed again
_NOBODY = ("NoWorkerError", "NoValidWorkerError")
_WHOLE_CONNECTION = ("scheduler-connection-lost", "scheduler-restart")


def submit(
    client: distributed.Client, graph: dict[Any, Any], keys: Sequence[Any], verbose: int = 0
) -> list[Any]:
    """Submit tasks, wait until each has a result or an error, and return the futures.

    Raises
    ------
    ClusterError
        If the scheduler is gone, or gave up for want of workers.
    """
    trust = current_trust()
    try:
        with nullcontext() if trust is None else dask.annotate(**trust.annotations()):
            futures = list(client.get(graph, list(keys), sync=False))
    except (OSError, RuntimeError, distributed.client.ClosedClientError) as error:
        if client.status != "running":
            raise ClusterError(_gone(client, keys, 0)) from error
        raise
    if verbose:
        distributed.progress(futures, notebook=False)
        print()
    wait(client, futures)
    return futures


def wait(client: distributed.Client, futures: Sequence[Any], pinned: Sequence[str] = ()) -> None:
    """Wait until each of the futures has a result or an error.

    Looking at them in turn, and not ``distributed.wait``, which waits for a client's own thread that may have ended.

    Raises
    ------
    ClusterError
        If the scheduler is gone, or gave up for want of workers, or trusted workers are not where they were.
    """
    watch = _Watch(client, futures)
    for future in futures:
        nap = SHORTEST_NAP
        while future.status in _UNRESOLVED:
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)
            watch.look()
    # One that was seen with a result may have lost it meanwhile: then it is computed again, and waited for again.
    if any(future.status in _UNRESOLVED for future in futures):
        wait(client, futures)
        return
    watch.raise_if_gone()
    for future in futures:
        error = error_of(future)
        if type(error).__name__ in _NOBODY:
            text = f"the scheduler gave up waiting for workers ({error})"
            raise ClusterError(f"{text}. Add workers and fit again; {_SAME_BITS}") from None


def error_of(future: Any) -> BaseException | None:
    """Why a future that was waited for has no result; None if it has one."""
    if future.status == "error":
        error: BaseException = future.exception()
        return error
    if future.status == "cancelled":
        # Its scheduler does not know of it any more: data that nobody can compute again were lost, for one.
        return distributed.client.FutureCancelledError(key=future.key, reason=_reason_of(future))
    return None


def is_death(error: BaseException | None) -> bool:
    """Whether it says that the workers that tried a task died."""
    return isinstance(error, distributed.KilledWorker)


def gather(client: distributed.Client, futures: Sequence[Any]) -> list[Any]:
    """The results of futures that were waited for, brought here.

    Raises
    ------
    ClusterError
        If the scheduler is gone.
    """
    try:
        return list(client.gather(list(futures)))
    except (OSError, RuntimeError, distributed.client.FutureCancelledError) as error:
        reason = getattr(error, "reason", None)
        if client.status != "running" or reason in _WHOLE_CONNECTION:
            raise ClusterError(_gone(client, [f.key for f in futures], 0)) from None
        raise


# -- who is there ------------------------------------------------------------------------------


class _Watch:
    """Looks up now and then while somebody waits."""

    def __init__(self, client: distributed.Client, futures: Sequence[Any]) -> None:
        self.client, self.futures = client, futures
        self.since = self.looked = time.monotonic()
        self.n_unresolved = len(futures)
        self.told: str | None = None

    def look(self) -> None:
        now = time.monotonic()
        if now < self.looked + min(1.0, PATIENCE):
            return
        self.looked = now
        self.raise_if_gone()
        left = sum(future.status in _UNRESOLVED for future in self.futures)
        if left != self.n_unresolved:
            self.n_unresolved, self.since = left, now
        if now >= self.since + min(PATIENCE, MOVE_PATIENCE):
            self.raise_if_moved()
        if now < self.since + PATIENCE:
            return
        self.since = now
        trouble = describe_trouble(self.client)
        if trouble is None:
            return
        stages = _stages([f.key for f in self.futures if f.status in _UNRESOLVED])
        text = (
            f"{left} tasks ({stages}) wait, and nothing has come for {format_time(PATIENCE)}: {trouble} "
            "They wait on; distributed.scheduler.no-workers-timeout of Dask's configuration limits that."
        )
        logger.warning(text)
        if trouble != self.told:
            warnings.warn(text, ClusterWarning, stacklevel=2)
        self.told = trouble

    def raise_if_gone(self) -> None:
        keys = [future.key for future in self.futures]
        gone = [f for f in self.futures if f.status == "cancelled"]
        if self.client.status != "running" or any(
            _reason_of(f) in _WHOLE_CONNECTION for f in gone[:1]
        ):
            n_done = sum(f.status in ("finished", "error") for f in self.futures)
            raise ClusterError(_gone(self.client, keys, n_done))

    def raise_if_moved(self) -> None:
        trust = current_trust()
        if trust is None or not trust.places:
            return
        workers = _workers(self.client)
        moved = [address for address in trust.among(workers) if address not in trust.places]
        if moved and not set(trust.places) & set(workers):
            raise ClusterError(
                f"the trusted workers ({trust}) were restarted during the fit, and are at {', '.join(moved)} now: what "
                f"was sent to {', '.join(trust.places)} will never be computed. Fit again; a resource that trusted "
                "workers offer, trusted_workers={'TRUSTED': 1}, survives their restart."
            )


def _workers(client: Any) -> dict[str, Any]:
    """What the scheduler says of its workers, by address."""
    info = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_TIMEOUT)
    workers: dict[str, Any] = info["workers"]
    return workers


def describe_trouble(client: distributed.Client) -> str | None:
    """Why nobody can compute anything now; None if somebody can."""
    try:
        workers = _workers(client)
    except (
        Exception
    ) as error:  # whatever a broken connection gives; if it stays broken, the client is told
        return f"the scheduler does not answer ({type(error).__name__})."
    if not workers:
        return "no worker is connected. Add some."
    trust = current_trust()
    trusted = workers if trust is None else trust.among(workers)
    if not trusted:
        return f"none of the {len(workers)} workers that are connected is trusted with the aggregation ({trust})."
    able = {name: worker for name, worker in trusted.items() if worker["status"] == "running"}
    if able:
        return None
    states = Counter(worker["status"] for worker in trusted.values())
    told = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    return (
        f"no worker takes tasks ({told}). A worker pauses when its memory is nearly full: add memory or workers, "
        "use smaller partitions, or persist less."
    )


_SAME_BITS = "with the same random_state it gives the same bits."


def _gone(client: distributed.Client, keys: Sequence[Any], n_done: int) -> str:
    where = getattr(getattr(client, "scheduler", None), "address", None) or "the scheduler"
    return (
        f"the connection to {where} was lost, or the scheduler restarted, while {len(keys)} tasks ({_stages(keys)}) "
        f"were waited for, {n_done} of them done; the client is {client.status}. Results on a cluster do not outlive "
        f"its scheduler: connect to a running one and fit again; {_SAME_BITS}"
    )


def _stages(keys: Sequence[Any]) -> str:
    names = dict.fromkeys(key_split(key) for key in keys)
    return ", ".join(names)


def _reason_of(future: Any) -> str | None:
    error = getattr(getattr(future, "_state", None), "exception", None)
    reason: str | None = getattr(error, "reason", None)
    return reason
