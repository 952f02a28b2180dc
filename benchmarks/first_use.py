"""Claim: importing the package costs little beyond its dependencies, and the first fit little beyond the second.

    python benchmarks/first_use.py [--repeats 11]

1. Import, in fresh processes, alternating, CPU seconds: ``import dask_dfmr``, and ``GaussianMixture`` of it, alone and
   after Dask's frames, against ``import sklearn.mixture, dask.dataframe``, and against all dependencies (with
   distributed).
2. First use, in fresh processes: CPU seconds of the first and the second use of every kernel, on 1000 rows. With an
   empty NUMBA_CACHE_DIR the first use compiles. With the directory that the process before filled, the first use loads
   the machine code, without numba.
3. ``scheduler="processes"``, which starts its processes anew for every computation: CPU seconds of all processes, for
   a fit to 60,000 rows in 10 partitions and for the sum of the same array; and what a new process imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from output import benchmark_parser, print_table, recorded

DEPENDENCIES = (
    "dask.array",
    "dask.dataframe",
    "distributed",
    "scipy.optimize",
    "scipy.special",
    "sklearn.mixture",
    "threadpoolctl",
)
FLOOR = "sklearn.mixture, dask.dataframe"
IMPORTS = {
    FLOOR: ("sklearn.mixture", "dask.dataframe"),
    "all dependencies": DEPENDENCIES,
    "dask_dfmr": ("dask_dfmr",),
    "GaussianMixture": ("dask_dfmr.estimator",),
    f"{FLOOR}, GaussianMixture": ("sklearn.mixture", "dask.dataframe", "dask_dfmr.estimator"),
    "what a task of a fit imports": ("dask_dfmr.on_dask.tasks",),
}
TARGET, COMPILE_TARGET, PROCESSES_TARGET = 1.05, 5.0, 2.0
ROOT = Path(__file__).resolve().parents[1]

TIMED_IMPORT = """
import sys, time
began = time.process_time()
for name in sys.argv[1:]:
    __import__(name)
print(time.process_time() - began)
"""

TIMED_USES = """
import time
import numpy as np
from dask_dfmr import fit_local, pairwise_l2
rows = np.random.default_rng(0).normal(size=(1000, 5))
for covariance_type in ("full", "diag"):
    for _ in range(2):
        began = time.process_time()
        mixture = fit_local(rows, 3, covariance_type=covariance_type, random_state=0).mixture
        print(time.process_time() - began)
        began = time.process_time()
        pairwise_l2([mixture, mixture])
        print(time.process_time() - began)
"""
TIMED_PROCESSES = """
import resource, time, warnings
import dask
import numpy as np
import dask.array as da
from dask_dfmr import GaussianMixture

def cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime + time.process_time()

def seconds(call):
    began = cpu()
    call()
    print(cpu() - began)

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
rows = rng.normal(size=(60_000, 10)) + 4 * rng.integers(5, size=(60_000, 1))
X = da.from_array(rows, chunks=(6000, 10))
model = GaussianMixture(5, random_state=0)
for scheduler in ("processes", "threads"):
    with dask.config.set(scheduler=scheduler, num_workers=2):
        seconds(lambda: X.sum().compute())
        seconds(lambda: model.fit(X))
"""

USES = ("fit, full", "distances, full", "fit, diag", "distances, diag")


def seconds_in_fresh_process(code: str, *arguments: str, cache: str | None = None) -> list[float]:
    """Run ``code`` in a fresh process and return the numbers that it prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    if cache is not None:
        env["NUMBA_CACHE_DIR"] = cache
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(line) for line in answer.stdout.split()]


def print_imports(repeats: int) -> None:
    """The first table."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(1 + repeats):
        for name, modules in IMPORTS.items():
            found[name] += seconds_in_fresh_process(TIMED_IMPORT, *modules)
    medians = {name: float(np.median(values[1:])) for name, values in found.items()}  # first: cold
    floor = medians[FLOOR]
    rows = [[name, f"{value:.3f}", f"{value / floor:.3f}"] for name, value in medians.items()]
    print_table(["import", "CPU s", f"ratio (at most {TARGET})"], rows)


def print_first_use(repeats: int) -> None:
    """The second table."""
    found: dict[str, list[list[float]]] = {"empty": [], "filled": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="numba-cache-") as cache:
            for state in found:
                found[state].append(seconds_in_fresh_process(TIMED_USES, cache=cache))
    rows = []
    for state, values in found.items():
        full, diag = np.median(values, axis=0).reshape(2, 2, 2)
        first, second = (np.concatenate([full[i], diag[i]]) for i in range(2))
        rows.append([state, "first", *(f"{x:.3f}" for x in first), f"{first.sum():.2f}"])
        rows.append([state, "second", *(f"{x:.3f}" for x in second), f"{second.sum():.2f}"])
    print_table(["NUMBA_CACHE_DIR", "use", *USES, f"all (at most {COMPILE_TARGET})"], rows)


def print_processes(repeats: int) -> None:
    """The third table."""
    found = [seconds_in_fresh_process(TIMED_PROCESSES) for _ in range(repeats)]
    medians = np.median(found, axis=0).reshape(2, 2)
    rows = [
        [scheduler, f"{of_sum:.2f}", f"{fit:.2f}", f"{fit / of_sum:.1f}"]
        for scheduler, (of_sum, fit) in zip(("processes", "threads"), medians, strict=True)
    ]
    header = ("scheduler", "X.sum(), CPU s", "fit, CPU s", f"ratio (at most {PROCESSES_TARGET:g})")
    print_table(header, rows)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    with recorded(options):
        print_imports(options.repeats)
        print_first_use(options.repeats)
        print_processes(min(options.repeats, 3))


if __name__ == "__main__":
    main()
