"""Workers that are killed: at a stage of the graph, or at random, on a LocalCluster of processes."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import distributed
from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from tests.conftest import local_cluster

PATIENT = {
    # A LocalCluster closes a worker for good if it is away 15 seconds after an earlier death, as one may be that is
    # killed again and again; then nobody is left to compute anything.
    "distributed.deploy.lost-worker-timeout": "1 hour",
}


@contextmanager
def mortal_cluster(
    n_workers: int = 3,
    allowed_failures: int = 3,
    config: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Iterator[distributed.LocalCluster]:
    """Worker processes that may be killed; a task that has lost more workers than allowed is given up."""
    settings = PATIENT | {"distributed.scheduler.allowed-failures": allowed_failures}
    with dask.config.set(settings | (config or {})), local_cluster(n_workers, **kwargs) as cluster:
        yield cluster


def pids(cluster: distributed.LocalCluster) -> dict[str, int]:
    """The process of every worker that is up, by the address of the worker."""
    nannies = list(cluster.workers.values())
    return {n.worker_address: n.pid for n in nannies if n.worker_address and n.pid}


def kill(pid: int) -> None:
    """End a process without a word."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it died before
        return


class StageKiller(SchedulerPlugin):
    """Kills the worker of the first task of each stage: as the task is sent there, or as its result arrived.

    Parameters
    ----------
    cluster : LocalCluster
    stages : iterable of str
        Names without "dfmr_".
    when : {"processing", "memory"}
        The state that the task has come to.
    """

    name = "stage-killer"

    def __init__(
        self, cluster: distributed.LocalCluster, stages: Iterable[str], when: str = "processing"
    ) -> None:
        self.cluster, self.when = cluster, when
        self.left = {f"dfmr_{stage}" for stage in stages}
        self.killed: list[str] = []

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        stage = key_split(key)
        if finish != self.when or stage not in self.left:
            return
        task = self.cluster.scheduler.tasks[key]
        worker = task.processing_on if finish == "processing" else next(iter(task.who_has), None)
        pid = None if worker is None else pids(self.cluster).get(worker.address)
        if pid is None:
            return
        self.left.discard(stage)
        self.killed.append(stage)
        kill(pid)


@contextmanager
def killing_at(
    cluster: distributed.LocalCluster, stages: Iterable[str], when: str = "processing"
) -> Iterator[StageKiller]:
    """Kill a worker at each of some stages of what is computed meanwhile."""
    killer = StageKiller(cluster, stages, when)
    cluster.scheduler.add_plugin(killer)
    try:
        yield killer
    finally:
        cluster.scheduler.remove_plugin(killer.name)


class RandomKiller:
    """Kills a random worker every so often, in a thread of its own, from ``start`` until ``stop``."""

    def __init__(self, cluster: distributed.LocalCluster, every: float, seed: int = 0) -> None:
        self.cluster, self.every = cluster, every
        self.random = random.Random(seed)
        self.n_killed = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._end.wait(self.random.expovariate(1 / self.every)):
            alive = sorted(pids(self.cluster).values())
            if alive:
                kill(self.random.choice(alive))
                self.n_killed += 1

    def __enter__(self) -> RandomKiller:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._end.set()
        self._thread.join()
