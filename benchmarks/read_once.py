"""Claim: a fit costs little more than reading the files once.

    python benchmarks/read_once.py [--rows 2_000_000 --partitions 20 --repeats 5 --data DIR]

Parquet files of float64 columns (5 components in 10 columns, overlap .1), one partition each. Contestants alternate,
medians. "Dask's reader" counts the rows of all partitions: ``X.map_partitions(len)``. "By columns" does so with the
reader of the fit. The fits read every partition once, and those of the pilots twice.

1. On the synchronous scheduler: CPU seconds, one thread.
2. On a cluster of two processes with one thread each: wall seconds, and CPU seconds of both processes. The start of the
   cluster and a first fit are apart.

A table says what the CPU seconds of a fit on the synchronous scheduler are made of: reading, the passes of EM over the
rows, what else the tasks of local fits do, pilots with their shortlist, the aggregation, and all outside of tasks
(graph, scheduler, report).
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
from clusters import local_cluster
from common import StageClock, draw_rows, population
from output import benchmark_parser, print_progress, print_table, recorded
from predictions import write_partitions
from threadpoolctl import threadpool_limits

from dask_dfmr import GaussianMixture
from dask_dfmr.on_dask.partitions import as_partitions

TARGET = 1.5

PILOTS = ("read_pilot", "fit_pilot", "shortlist")
"""Stages of the search for a start."""

Seconds = dict[str, list[float]]


def count_rows(loader: Callable[[], Any]) -> int:
    """The number of rows of a partition."""
    return len(loader())


def contestants(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    X = dd.read_parquet(folder)
    loaders = as_partitions(X).loaders

    def by_columns() -> Any:
        return dask.compute(*(dask.delayed(count_rows)(loader) for loader in loaders))

    def fit(tol: float | str) -> Callable[[], Any]:
        return lambda: GaussianMixture(5, tol=tol, random_state=0).fit(X)

    return {
        "Dask's reader": lambda: X.map_partitions(len, meta=(None, int)).compute(),
        "by columns": by_columns,
        "fit, default tolerance": fit("auto"),
        "fit, tol=1e-3": fit(1e-3),
    }


def measured(
    calls: dict[str, Callable[[], Any]], repeats: int, cpu: Callable[[], float]
) -> tuple[Seconds, Seconds]:
    """Wall and CPU seconds of every call, in turn; each runs once before."""
    walls: Seconds = {name: [] for name in calls}
    cpus: Seconds = {name: [] for name in calls}
    for i in range(1 + repeats):
        for name, call in calls.items():
            wall_then, cpu_then = time.perf_counter(), cpu()
            call()
            if i:
                walls[name].append(time.perf_counter() - wall_then)
                cpus[name].append(cpu() - cpu_then)
        print_progress("round", i)
    return walls, cpus


def lines_of(seconds: Seconds) -> dict[str, tuple[str, str]]:
    """Median seconds, and the ratio to Dask's reader, by contestant."""
    medians = {name: median(values) for name, values in seconds.items()}
    floor = medians["Dask's reader"]
    return {name: (f"{value:.2f}", f"{value / floor:.2f}") for name, value in medians.items()}


def print_parts(folder: Path, reading: float) -> None:
    """What the CPU seconds of a fit with the default tolerance are made of."""
    X = dd.read_parquet(folder)
    with StageClock() as stages:
        began = time.process_time()
        model = GaussianMixture(5, random_state=0).fit(X)
        total = time.process_time() - began
    n_passes = model.partition_report_["n_iter"].median()
    mixture, rows = model.mixture_, as_partitions(X).loaders[0]().to_numpy()
    began = time.process_time()
    for _ in range(5):
        mixture.family.em_pass(rows, mixture.weights, mixture.components)
    one = (time.process_time() - began) / 5 * X.npartitions
    passes = n_passes * one
    fits = stages.cpu.pop("fit_partition")
    pilots = sum(stages.cpu.pop(name, 0.0) for name in PILOTS)
    aggregation = sum(stages.cpu.values())
    parts = (fits - reading - passes, pilots, aggregation, total - fits - pilots - aggregation)
    line = (f"{total:.2f}", f"{reading:.2f}", f"{n_passes:g} x {one:.2f} = {passes:.2f}")
    print_table(
        (
            *("fit, CPU s", "reading by columns", "passes over all rows"),
            *("rest of the local fits", "pilots", "aggregation", "outside of tasks"),
        ),
        [(*line, *(f"{part:.2f}" for part in parts))],
    )


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, help="where the files are kept; a temporary folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with (
        recorded(options),
        threadpool_limits(1),
        tempfile.TemporaryDirectory(prefix="read-once-") as temporary,
    ):
        folder = options.data or Path(temporary)
        rows = draw_rows(population(0.1, 1), options.rows, np.random.default_rng(0))
        write_partitions(folder, rows, options.partitions)
        del rows
        calls = contestants(folder)
        with dask.config.set(scheduler="synchronous"):
            _, alone = measured(calls, options.repeats, time.process_time)
            found = lines_of(alone)
            print(f"{options.rows:,} rows in {options.partitions} files, synchronous:\n")
            header = ("", "CPU s", f"of Dask's reading (fit: at most {TARGET})")
            print_table(header, [[name, *line] for name, line in found.items()])
            print_parts(folder, median(alone["by columns"]))
        with local_cluster() as client:

            def cpu() -> float:
                return float(sum(client.run(time.process_time).values()))

            on_cluster = [lines_of(one) for one in measured(calls, options.repeats, cpu)]
        print("Two workers of one thread:\n")
        header = ("", "wall s", "of Dask's reading", "CPU s", "of Dask's reading")
        print_table(header, [[name, *(c for f in on_cluster for c in f[name])] for name in calls])


if __name__ == "__main__":
    main()
