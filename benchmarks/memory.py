"""Claim: a worker needs 2.5 times its largest partition and 300 MB, however many partitions there are.

    python benchmarks/memory.py --data DIR
    python benchmarks/memory.py --data DIR --big 20

1. Equal partitions, fitted with both engines or only read, on a fresh LocalCluster of two worker
   processes of one thread each: the most that a worker ever had resident, by the kernel's own count
   (VmHWM), beside the bytes of the largest partition in memory. Partitions are links to a few files.
2. ``--big``: that many GB of parquet that does not compress, in distinct files, under a
   ``memory_limit`` of ``--memory-limit`` a worker: whether one was paused, killed or started again.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
from common import draw_rows, population, print_machine, print_table
from distributed import Client, LocalCluster
from jobs import write_rows
from processes import high_water_bytes

from dask_dfmr import GaussianMixture
from dask_dfmr.mixtures.engine import ENVIRONMENT_VARIABLE

N_COMPONENTS, N_FEATURES = 5, 10
N_DISTINCT = 20
"""Distinct files among which the partitions are shared out, where they need not be distinct."""

FACTOR, ALLOWANCE = 2.5, 300e6
INTERVAL = 0.2
"""Seconds between two looks: the kernel keeps the peak, only workers that die must not be missed."""


class WorkerWatch(threading.Thread):
    """The peak of every worker process that this process ever had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, int] = {}
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL):
            for child in psutil.Process().children():
                peak = high_water_bytes(child.pid)
                self.peaks[child.pid] = max(peak, self.peaks.get(child.pid, 0))

    def stop(self) -> None:
        """Stop looking."""
        self._stop_asked.set()
        self.join()


def read_only(frame: dd.DataFrame) -> int:
    """Read every partition and do nearly nothing with it; how many there were."""
    return len(frame.map_partitions(checksum, meta=("x", "f8")).compute())


def checksum(frame: pd.DataFrame) -> pd.Series:
    """A number of a partition's rows."""
    return pd.Series([frame.to_numpy().sum()])


def fit(frame: dd.DataFrame) -> int:
    """The fit; how many partitions were kept."""
    return int(GaussianMixture(N_COMPONENTS, random_state=0).fit(frame).support_.sum())


class Fit(NamedTuple):
    """What became of one fit."""

    peak: int
    at_start: int
    wall: float
    kept: int
    events: Counter[str]


def run_on_cluster(
    folder: Path,
    memory_limit: str | int,
    job: Callable[[dd.DataFrame], int] = fit,
    engine: str = "auto",
) -> Fit:
    """Fit a folder on a fresh cluster, or only read it."""
    os.environ[ENVIRONMENT_VARIABLE] = engine  # workers inherit it
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        memory_limit=memory_limit,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    watch = WorkerWatch()
    with cluster, Client(cluster) as client:
        client.run(import_all)
        at_start = max(client.run(resident_now).values())
        began = time.perf_counter()
        watch.start()
        kept = job(dd.read_parquet(folder))
        wall = time.perf_counter() - began
        watch.stop()
        events = worker_events(client)
    return Fit(max(watch.peaks.values()), at_start, wall, kept, events)


def import_all() -> None:
    """What a worker imports for a fit, so that it is there when memory at the start is read."""
    import pyarrow.parquet  # noqa: F401

    import dask_dfmr  # noqa: F401


def resident_now() -> int:
    """Resident bytes of this process."""
    return psutil.Process().memory_info().rss


def worker_events(client: Client) -> Counter[str]:
    """How often what happened to workers, in the scheduler's words; it keeps events by worker and again under "all"."""
    by_topic = client.get_events()
    workers = [topic for topic in by_topic if topic.startswith("tcp://")]
    return Counter(describe(event) for topic in workers for _, event in by_topic[topic])


def describe(event: Any) -> str:
    """What happened to a worker; other events than dicts are measurements."""
    if not isinstance(event, dict):
        return ""
    return f"{event.get('action', '')} {event.get('status', '')}".strip()


# -- partitions on disk --------------------------------------------------------------------------


def write_distinct(folder: Path, n: int, n_files: int) -> None:
    """Files of ``n`` rows that do not compress; only those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    mixture = population(0.1, 1)
    for i in range(n_files):
        path = folder / f"part-{i:05d}.parquet"
        if not path.exists():
            partial = path.with_suffix(".partial")
            write_rows(partial, draw_rows(mixture, n, np.random.default_rng([n, i])))
            partial.rename(path)


def link_partitions(data: Path, n: int, m: int) -> Path:
    """A folder of ``m`` partitions of ``n`` rows."""
    distinct, folder = data / f"distinct-{n}", data / f"linked-{m}x{n}"
    write_distinct(distinct, n, min(m, N_DISTINCT))
    files = sorted(distinct.glob("*.parquet"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i in range(m):
        os.link(files[i % N_DISTINCT], folder / f"part-{i:05d}.parquet")
    return folder


# -- tables --------------------------------------------------------------------------------------


JOBS: dict[str, tuple[Callable[[dd.DataFrame], int], str]] = {
    "reading alone": (read_only, "auto"),
    "fit, NumPy": (fit, "numpy"),
    "fit, numba": (fit, "numba"),
}


def peak_rows(data: Path, n: int, m: int) -> Iterator[list[str]]:
    """Equal partitions read and fitted."""
    folder = link_partitions(data, n, m)
    partition = 8 * n * N_FEATURES
    allowed = FACTOR * partition + ALLOWANCE
    for name, (job, engine) in JOBS.items():
        run = run_on_cluster(folder, 0, job, engine)
        yield [
            f"{n:,}",
            str(m),
            f"{partition / 1e6:.0f}",
            name,
            f"{run.at_start / 1e6:.0f}",
            f"{run.peak / 1e6:.0f}",
            f"{(run.peak - run.at_start) / partition:.2f}",
            f"{allowed / 1e6:.0f}",
            "yes" if run.peak <= allowed else "no",
            f"{run.wall:.0f}",
        ]


def print_big(data: Path, gigabytes: float, n: int, memory_limit: str) -> None:
    """The fit of more rows than memory."""
    m = max(2, round(gigabytes * 1e9 / (8 * n * N_FEATURES)))
    folder = data / f"big-{m}x{n}"
    write_distinct(folder, n, m)
    fit = run_on_cluster(folder, memory_limit)
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    header = ["GB of parquet", "partitions", "kept", "memory_limit", "peak MB", "wall s"]
    header += ["paused", "workers added", "workers removed"]
    counts = ("worker-status-change paused", "add-worker", "remove-worker")
    row = [f"{size / 1e9:.1f}", m, fit.kept, memory_limit, f"{fit.peak / 1e6:.0f}"]
    print_table(header, [[*row, f"{fit.wall:.0f}", *(fit.events[name] for name in counts)]])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="where partitions are written")
    parser.add_argument("--rows", type=int, default=100_000, help="of a partition")
    parser.add_argument("--partitions", type=int, nargs="*", default=[20, 100, 400])
    parser.add_argument("--large-rows", type=int, default=1_000_000, help="of a large partition")
    parser.add_argument("--large-partitions", type=int, nargs="*", default=[20])
    parser.add_argument("--big", type=float, metavar="GB", help="fit that much instead")
    parser.add_argument("--memory-limit", default="1GB", help="of a worker, with --big")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print_machine()
    if options.big:
        print_big(options.data, options.big, options.rows, options.memory_limit)
        return
    sizes = [(options.rows, m) for m in options.partitions]
    sizes += [(options.large_rows, m) for m in options.large_partitions]
    header = ["rows a partition", "partitions", "partition MB", "job", "worker MB at start"]
    header += ["peak MB", "(peak - start) / partition", "allowed MB", "within", "wall s"]
    print_table(header, [row for n, m in sizes for row in peak_rows(options.data, n, m)])


if __name__ == "__main__":
    main()
