"""Claim: a worker needs 2.5 times its largest partition and 300 MB, however many partitions there are.

    python benchmarks/memory.py --data DIR
    python benchmarks/memory.py --data DIR --big 20
    python benchmarks/memory.py --engine

1. Equal partitions are fitted with both engines, or only read, on a fresh LocalCluster of two worker processes of one
   thread each. The table shows the most that a worker ever had resident, as the kernel counts it (VmHWM), beside the
   bytes of a partition in memory. Partitions are links to a few files.
2. ``--big GB`` fits that many GB of parquet that does not compress, in distinct files; workers have ``--memory-limit``.
   The table shows whether a worker was paused, killed or started again.
3. ``--engine`` shows what the compiled engine adds to a fresh process, step by step. A function that is loaded from the
   cache takes as much as one that is compiled.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import dask.dataframe as dd
import pandas as pd
import psutil
from clusters import local_cluster
from distributed import Client
from jobs import write_partitions
from output import benchmark_parser, print_table, recorded
from processes import high_water_bytes

from dask_dfmr import GaussianMixture
from dask_dfmr.mixtures.engine import ENVIRONMENT_VARIABLE

N_COMPONENTS, N_FEATURES = 5, 10
N_DISTINCT = 20
"""Number of distinct files that the partitions link to, where they need not be distinct."""

FACTOR, ALLOWANCE = 2.5, 300e6
INTERVAL = 0.2
"""Seconds between two readings. The kernel keeps the peak; a worker that dies must be read before."""


class WorkerWatch(threading.Thread):
    """Records the peak memory, in bytes, of every worker process that this process ever had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[int, int] = {}
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL):
            self._read()

    def _read(self) -> None:
        for child in psutil.Process().children():
            peak = high_water_bytes(child.pid)
            self.peaks[child.pid] = max(peak, self.peaks.get(child.pid, 0))

    def stop(self) -> None:
        """Read once more, and stop recording."""
        self._stop_asked.set()
        self.join()
        self._read()


def read_only(frame: dd.DataFrame) -> int:
    """Read every partition and sum its entries; return the number of partitions."""
    return len(frame.map_partitions(checksum, meta=("x", "f8")).compute())


def checksum(frame: pd.DataFrame) -> pd.Series:
    """The sum of all entries of a partition."""
    return pd.Series([frame.to_numpy().sum()])


def fit(frame: dd.DataFrame) -> int:
    """Fit the partitions; return how many were kept."""
    return int(GaussianMixture(N_COMPONENTS, random_state=0).fit(frame).support_.sum())


class Run(NamedTuple):
    """Memory (bytes), wall seconds and kept partitions of one job, and the events of its workers."""

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
) -> Run:
    """Run a job on the partitions of a folder, on a fresh cluster."""
    os.environ[ENVIRONMENT_VARIABLE] = engine  # workers inherit it
    watch = WorkerWatch()
    with local_cluster(silence_logs=logging.CRITICAL, memory_limit=memory_limit) as client:
        client.run(import_all)
        at_start = max(client.run(resident_now).values())
        began = time.perf_counter()
        watch.start()
        kept = job(dd.read_parquet(folder))
        wall = time.perf_counter() - began
        watch.stop()
        events = worker_events(client)
    return Run(max(watch.peaks.values()), at_start, wall, kept, events)


def import_all() -> None:
    """Import what a fit needs, so that the memory at the start includes it."""
    import pyarrow.parquet  # noqa: F401

    import dask_dfmr  # noqa: F401


def resident_now() -> int:
    """Resident bytes of this process."""
    return psutil.Process().memory_info().rss


def worker_events(client: Client) -> Counter[str]:
    """Number of events of all workers by name.

    The scheduler keeps events by worker and again under "all"; only the first are counted.
    """
    by_topic = client.get_events()
    workers = [topic for topic in by_topic if topic.startswith("tcp://")]
    return Counter(describe(event) for topic in workers for _, event in by_topic[topic])


def describe(event: Any) -> str:
    """Name of an event; empty for a measurement, which is not a dict."""
    if not isinstance(event, dict):
        return ""
    return f"{event.get('action', '')} {event.get('status', '')}".strip()


# -- partitions on disk --------------------------------------------------------------------------


def link_partitions(data: Path, n: int, m: int) -> Path:
    """A folder of ``m`` partitions of ``n`` rows, which are links to ``N_DISTINCT`` files."""
    folder = data / f"linked-{m}x{n}"
    files = write_partitions(data / f"distinct-{n}", n, min(m, N_DISTINCT))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i in range(m):
        os.link(files[i % len(files)], folder / f"part-{i:05d}.parquet")
    return folder


# -- tables --------------------------------------------------------------------------------------


JOBS: dict[str, tuple[Callable[[dd.DataFrame], int], str]] = {
    "reading alone": (read_only, "auto"),
    "fit, NumPy": (fit, "numpy"),
    "fit, numba": (fit, "numba"),
}


def peak_rows(data: Path, n: int, m: int) -> Iterator[list[str]]:
    """The lines of ``m`` equal partitions of ``n`` rows, one a job."""
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
    """The table of a fit of more rows than fit into memory."""
    m = max(2, round(gigabytes * 1e9 / (8 * n * N_FEATURES)))
    folder = data / f"big-{m}x{n}"
    files = write_partitions(folder, n, m)
    run = run_on_cluster(folder, memory_limit)
    size = sum(path.stat().st_size for path in files)
    header = ["GB of parquet", "partitions", "kept", "memory_limit", "peak MB", "wall s"]
    header += ["paused", "workers added", "workers removed"]
    counts = ("worker-status-change paused", "add-worker", "remove-worker")
    row = [f"{size / 1e9:.1f}", m, run.kept, memory_limit, f"{run.peak / 1e6:.0f}"]
    print_table(header, [[*row, f"{run.wall:.0f}", *(run.events[name] for name in counts)]])


STEPS = (
    (
        "import of dask_dfmr and its dependencies",
        "import dask_dfmr.estimator, dask.dataframe, distributed",
    ),
    ("import of llvmlite", "import llvmlite.binding"),
    ("import of numba", "import numba"),
    (
        "first function of numba, from the cache",
        "from dask_dfmr.mixtures.compiled import lanes; lanes.check_lanes()",
    ),
    ("all kernels", "from dask_dfmr.mixtures import engine; engine.compiled()"),
    (
        "a fit of 2,000 x 10",
        "import numpy, dask_dfmr; dask_dfmr.fit_local(numpy.random.default_rng(0).normal(size=(2000, 10)), 3)",
    ),
)
"""What a process does that fits with the compiled engine: in words, and in Python."""


def resident_after_each_step() -> list[float]:
    """Resident MB of a fresh process after each of STEPS."""
    reading = "print(psutil.Process().memory_info().rss / 1e6)"
    code = "\n".join(["import psutil", *(f"{step}\n{reading}" for _, step in STEPS)])
    command = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(line) for line in found.stdout.split()]


def print_engine() -> None:
    """The table of what the compiled engine adds to a process."""
    resident_after_each_step()  # compiles, if nothing is in the cache
    found = resident_after_each_step()
    added = ["", *(f"{now - before:.0f}" for before, now in pairwise(found))]
    rows = [
        [words, f"{now:.0f}", more]
        for (words, _), now, more in zip(STEPS, found, added, strict=True)
    ]
    print_table(["step", "resident MB", "added"], rows)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", type=Path, help="where partitions are written")
    parser.add_argument(
        "--engine", action="store_true", help="show the steps of the engine instead"
    )
    parser.add_argument("--rows", type=int, default=100_000, help="of a partition")
    parser.add_argument("--partitions", type=int, nargs="*", default=[20, 100, 400])
    parser.add_argument("--large-rows", type=int, default=1_000_000, help="of a large partition")
    parser.add_argument("--large-partitions", type=int, nargs="*", default=[20])
    parser.add_argument("--big", type=float, metavar="GB", help="fit that much instead")
    parser.add_argument("--memory-limit", default="1GB", help="of a worker, with --big")
    options = parser.parse_args()
    if options.data is None and not options.engine:
        parser.error("--data or --engine is required")
    warnings.simplefilter("ignore")
    sizes = [(options.rows, m) for m in options.partitions]
    sizes += [(options.large_rows, m) for m in options.large_partitions]
    header = ["rows a partition", "partitions", "partition MB", "job", "worker MB at start"]
    header += ["peak MB", "(peak - start) / partition", "allowed MB", "within", "wall s"]
    with recorded(options):
        if options.engine:
            print_engine()
        elif options.big:
            print_big(options.data, options.big, options.rows, options.memory_limit)
        else:
            print_table(header, [row for n, m in sizes for row in peak_rows(options.data, n, m)])


if __name__ == "__main__":
    main()
