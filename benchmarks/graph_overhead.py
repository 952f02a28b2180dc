"""Claim: the graph costs milliseconds per partition, and only the local estimates are all in memory at once.

    python benchmarks/graph_overhead.py [--build 100 1000 10000 --run 400 1000]

1. Building: CPU seconds and tasks of the lazy graph of ``dfmr`` on a dataframe of m partitions. The dataframe is made
   by ``dask.dataframe.from_map``; nothing is computed.
2. Running: a fit on a LocalCluster (one worker process, one thread) of m partitions of 60 rows, one column and one
   component, so that nearly all of its time is overhead. The table shows wall and CPU seconds per task, of client and
   scheduler (one process here) and of the worker. Beside them stand the CPU seconds of the bare local fits in a loop,
   and the time that Dask alone takes for the same number of empty tasks.
3. Memory: how many results of each stage were in memory at once. A scheduler plugin counts them at every transition.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import dask.dataframe as dd
import numpy as np
import pandas as pd
from clusters import local_cluster
from dask.task_spec import Task
from distributed import Client, wait
from distributed.diagnostics.plugin import SchedulerPlugin
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, dfmr, fit_local

N_ROWS = 60


def read_partition(i: int) -> pd.DataFrame:
    """Partition ``i``: 60 rows of one column."""
    return pd.DataFrame({"x": np.random.default_rng(i).normal(size=N_ROWS)})


def tiny_frame(m: int) -> Any:
    """A dataframe of ``m`` tiny partitions."""
    meta = pd.DataFrame({"x": pd.Series(dtype="float64")})
    return dd.from_map(read_partition, range(m), meta=meta)


def stage_of(key: Any) -> str:
    """The stage that a key names."""
    name = str(key[0] if isinstance(key, tuple) else key)
    return name.rsplit("-", 1)[0]


# -- 1. building ---------------------------------------------------------------------------------


def build_row(m: int) -> list[str]:
    """The line of ``m`` partitions: CPU seconds of building the graph, and its tasks by stage."""
    frame = tiny_frame(m)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        graph = dict(dfmr(GaussianMixture(1, random_state=0), frame).__dask_graph__())
        seconds.append(time.process_time() - began)
    stages = Counter(map(stage_of, graph))
    fits, tiles = stages["dfmr_fit_partition"], stages["dfmr_l2_tile"]
    rounds = sum(stages[f"dfmr_{name}"] for name in ("assign_block", "tree_sum", "recenter"))
    median = float(np.median(seconds))
    counts = [len(graph), fits, tiles, rounds, len(graph) - fits - tiles - rounds]
    return [str(m), f"{median:.3f}", f"{1e6 * median / len(graph):.0f}", *map(str, counts)]


# -- 2. and 3. running ---------------------------------------------------------------------------


class AliveByStage(SchedulerPlugin):
    """Counts, by stage, the results in memory now (``alive``), the most at once (``most``) and all (``done``)."""

    name = "alive-by-stage"

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Count a result that enters or leaves memory."""
        stage = stage_of(key)
        if finish == "memory" and start != "memory":
            self.alive[stage] += 1
            self.done[stage] += 1
            self.most[stage] = max(self.most[stage], self.alive[stage])
        elif start == "memory" and finish != "memory":
            self.alive[stage] -= 1


def bare_fits(m: int) -> float:
    """CPU seconds of the local fits of ``m`` partitions without Dask."""
    rows = [read_partition(i).to_numpy() for i in range(m)]
    began = time.process_time()
    for X in rows:
        fit_local(X, 1, n_sources=m)
    return time.process_time() - began


def do_nothing(i: int) -> int:
    """An empty task: all that it costs is overhead."""
    return i


def bare_tasks(client: Client, n: int) -> float:
    """CPU seconds of client and scheduler per task, for ``n`` empty tasks."""
    token = uuid4().hex
    graph = {(token, i): Task((token, i), do_nothing, i) for i in range(n)}
    began = time.process_time()
    wait(client.get(graph, list(graph), sync=False))
    return (time.process_time() - began) / n


def run_once(client: Client, m: int) -> tuple[list[str], AliveByStage]:
    """The line of one fit of ``m`` partitions on the cluster, and the counts of results in memory."""
    watch = AliveByStage()
    scheduler = client.cluster.scheduler
    scheduler.add_plugin(watch)
    frame = tiny_frame(m)
    worker_before = sum(client.run(time.process_time).values())
    wall, cpu = time.perf_counter(), time.process_time()
    GaussianMixture(1, random_state=0).fit(frame)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    worker = sum(client.run(time.process_time).values()) - worker_before
    scheduler.remove_plugin(watch.name)
    n_tasks = sum(watch.done.values())
    per_task = [f"{1e3 * seconds / n_tasks:.2f}" for seconds in (wall, cpu, worker)]
    row = [str(m), str(n_tasks), f"{wall:.1f}", f"{cpu:.1f}", f"{worker:.1f}", *per_task]
    return [*row, f"{1e3 * bare_tasks(client, n_tasks):.2f}", f"{bare_fits(m):.1f}"], watch


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--build", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--run", type=int, nargs="*", default=[400, 1000])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    header = ["m", "CPU s", "microseconds a task", "tasks", "fits", "tiles", "rounds", "others"]
    with recorded(options):
        print_table(header, [build_row(m) for m in options.build])
        print_runs(options.run)


def print_runs(sizes: Sequence[int]) -> None:
    """The tables of times, and of results in memory, for these numbers of partitions."""
    rows, watches = [], {}
    with local_cluster(1) as client:
        GaussianMixture(1, random_state=0).fit(tiny_frame(20))  # imports, once
        for m in sizes:
            row, watches[m] = run_once(client, m)
            rows.append(row)
    header = ["m", "tasks", "wall s", "CPU s: client + scheduler", "CPU s: worker"]
    header += ["ms a task: wall", "CPU client + scheduler", "CPU worker"]
    header += ["the same, bare Dask: CPU client + scheduler", "CPU s: bare fits"]
    print_table(header, rows)
    for m, watch in watches.items():
        stages = sorted(watch.done, key=lambda stage: -watch.most[stage])
        print_table(
            [f"stage (m = {m})", "computed", "most in memory at once"],
            [[stage, watch.done[stage], watch.most[stage]] for stage in stages],
        )


if __name__ == "__main__":
    main()
