"""Claim: time is linear in the number of partitions, and two threads of a process fit nearly twice as fast as one.

    python benchmarks/scaling.py --data DIR [--base 16 --factors 1 2 4 8]

1. Rows: whole fits of 1, 2, 4 and 8 times as many partitions of the same size, from parquet, on a LocalCluster of two
   processes that already runs. The table shows the time per row over that of the fewest partitions; the target is at
   most 1.15. "auto" asks more of each local fit the more partitions there are. Therefore the table also shows the
   passes per partition, and the same fits with a fixed number of passes.
2. Threads: local fits of equal partitions in memory on one and on two worker threads of a single process
   (``Client(processes=False)``). Every fit does the same number of passes. The target is a speedup of at least 1.8.

3. The interpreter: CPU time of such fits on one thread, and its share outside the compiled kernels. Kernels hold no
   GIL. The rest is Python and NumPy, which mostly hold it, so it is what two threads wait for.

Runs alternate; the tables show medians, of wall seconds in the first two. ``--only`` prints one table alone. The third
one does not depend on what else the machine does.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
from clusters import local_cluster
from common import draw_partitions, draw_rows, population
from distributed import Client
from jobs import write_partitions
from numba.core.registry import CPUDispatcher
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, fit_local
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

N_COMPONENTS = 5
LINEAR, SPEEDUP = 1.15, 1.8
KERNELS = "dask_dfmr.mixtures.compiled"
"""The package whose functions are compiled."""

N_PASSES = 10
"""Passes of a fit that does the same work everywhere: it stops by ``max_iter``."""


# -- 1. rows -------------------------------------------------------------------------------------


def timed_fit(files: Sequence[str], **parameters: Any) -> tuple[float, float]:
    """Wall seconds of one fit, and its mean number of passes per partition."""
    began = time.perf_counter()
    gm = GaussianMixture(N_COMPONENTS, random_state=0, **parameters).fit(dd.read_parquet(files))
    return time.perf_counter() - began, gm.partition_report_["n_iter"].mean()


def print_rows(data: Path, n: int, base: int, factors: Sequence[int], repeats: int) -> None:
    """The first table."""
    files = [str(path) for path in write_partitions(data / f"scaling-{n}", n, base * max(factors))]
    rules = {"auto": {}, f"{N_PASSES} passes": {"tol": 0.0, "max_iter": N_PASSES}}
    found = defaultdict(list)
    with local_cluster():
        timed_fit(files[:base])  # imports and caches
        for _ in range(repeats):
            for factor in factors:
                for name, parameters in rules.items():
                    run = timed_fit(files[: base * factor], **parameters)
                    found[name, factor].append(run)
    rows = []
    for name in rules:
        medians = {factor: np.median(found[name, factor], axis=0) for factor in factors}
        first = medians[factors[0]][0] / factors[0]
        for factor, (wall, passes) in medians.items():
            row = [name, base * factor, f"{base * factor * n:,}", f"{wall:.1f}", f"{passes:.1f}"]
            rows.append([*row, f"{wall / factor / first:.2f}"])
    header = ["local fits stop", "partitions", "rows", "wall s", "passes a partition"]
    print_table([*header, f"time per row, relative (at most {LINEAR})"], rows)


# -- 2. threads ----------------------------------------------------------------------------------


def fit_as_task(rows: np.ndarray) -> int:
    """A local fit with the settings of a task; returns the number of passes."""
    with single_threaded_blas():
        start = population(0.1, 1)
        return fit_local(rows, N_COMPONENTS, start=start, tol=0.0, max_iter=N_PASSES).n_iter


def seconds_on_threads(partitions: Sequence[np.ndarray], n_threads: int) -> float:
    """Wall seconds of the fits of all partitions on this number of threads."""
    with Client(processes=False, threads_per_worker=n_threads, dashboard_address=None) as client:
        data = client.scatter(list(partitions))
        client.gather(client.map(fit_as_task, data[:n_threads], pure=False))  # warm
        began = time.perf_counter()
        client.gather(client.map(fit_as_task, data, pure=False))
        return time.perf_counter() - began


def print_threads(n: int, m: int, repeats: int) -> None:
    """The second table."""
    partitions = draw_partitions(population(0.1, 1), m, n, np.random.default_rng(0))
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for n_threads, seconds in found.items():
            seconds.append(seconds_on_threads(partitions, n_threads))
    medians = {n_threads: float(np.median(seconds)) for n_threads, seconds in found.items()}
    rows = [
        [n_threads, f"{n:,}", m, f"{wall:.2f}", f"{medians[1] / wall:.2f}"]
        for n_threads, wall in medians.items()
    ]
    header = ["threads", "rows a partition", "partitions", "wall s"]
    print_table([*header, f"speedup (at least {SPEEDUP})"], rows)


# -- 3. the interpreter --------------------------------------------------------------------------


@contextmanager
def clock_of_kernels() -> Iterator[list[float]]:
    """CPU seconds of this thread in compiled kernels that Python calls; the sum is the only entry of the list."""
    seconds = [0.0]

    def timed(kernel: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start = time.thread_time()
            found = kernel(*arguments)
            seconds[0] += time.thread_time() - start
            return found

        return run

    modules = [module for name, module in sys.modules.items() if name.startswith(KERNELS)]
    kernels = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, CPUDispatcher)
    ]
    for module, name, kernel in kernels:
        setattr(module, name, timed(kernel))
    try:
        yield seconds
    finally:
        for module, name, kernel in kernels:
            setattr(module, name, kernel)


def print_interpreter(sizes: Sequence[int], repeats: int) -> None:
    """The third table."""
    rows = draw_rows(population(0.1, 1), max(sizes), np.random.default_rng(0))
    cells = []
    for n in sizes:
        fit_as_task(rows[:n])  # the kernels are compiled now, and no longer look at their modules
        found = []
        for _ in range(repeats):
            with clock_of_kernels() as inside:
                start = time.thread_time()
                fit_as_task(rows[:n])
                found.append((time.thread_time() - start, inside[0]))
        cpu, inside_ = np.median(found, axis=0)
        outside = cpu - inside_
        cells.append([f"{n:,}", f"{1e3 * cpu:.1f}", f"{1e3 * outside:.1f}", f"{outside / cpu:.2f}"])
    print_table(["rows", "CPU ms a fit", "of it outside the kernels", "share"], cells)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", type=Path, help="where partitions are written; table 1 needs it")
    parser.add_argument("--only", type=int, choices=[1, 2, 3], help="one table alone")
    parser.add_argument("--rows", type=int, default=100_000, help="of a partition")
    parser.add_argument("--base", type=int, default=16, help="fewest partitions")
    parser.add_argument("--factors", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--thread-rows", type=int, default=50_000, help="of a fit on a thread")
    parser.add_argument("--thread-partitions", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="*", default=[5_000, 20_000, 50_000, 200_000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    wanted = [options.only] if options.only else [1, 2, 3]
    if 1 in wanted and options.data is None:
        parser.error("--data is required for the first table")
    with recorded(options):
        if 1 in wanted:
            print_rows(options.data, options.rows, options.base, options.factors, options.repeats)
        if 2 in wanted:
            print_threads(options.thread_rows, options.thread_partitions, options.repeats)
        if 3 in wanted:
            print_interpreter(options.sizes, 5 * options.repeats)


if __name__ == "__main__":
    main()
