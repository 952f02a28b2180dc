"""Claim: the allocator setting of Dask's workers does not slow local fits down; it does slow scikit-learn down.

    python benchmarks/allocator.py [--rows 100000 --partitions 10 --repeats 5]

Dask's nanny starts workers with MALLOC_TRIM_THRESHOLD_=65536. With this setting glibc returns freed memory to the
system at once. Code that allocates large arrays in a loop then pays for fresh pages every time.

The script runs the local fits of one process with and without the variable, alternating, each time in a fresh process.
It prints median CPU seconds of the fits alone, with linear algebra on one thread. All fits start at the truth.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict

import dask
import distributed  # noqa: F401  (brings the defaults of the nanny)
import numpy as np
from common import draw_partitions, population
from output import benchmark_parser, print_table, recorded
from sklearn.mixture import GaussianMixture

from dask_dfmr import Mixture, fit_local

VARIABLE = "MALLOC_TRIM_THRESHOLD_"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fit_dfmr(rows: np.ndarray, start: Mixture, m: int) -> int:
    """Fit one partition with this package; return the number of passes."""
    return fit_local(rows, start.n_components, start=start, n_sources=m).n_iter


def fit_sklearn(rows: np.ndarray, start: Mixture, m: int) -> int:
    """Fit one partition with scikit-learn to its default tolerance; return the number of passes."""
    gm = GaussianMixture(
        start.n_components,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions,
    )
    return gm.fit(rows).n_iter_


FITS = {"dask_dfmr": fit_dfmr, "scikit-learn": fit_sklearn}


def print_seconds(name: str, n: int, m: int) -> None:
    """Run all fits and print their CPU seconds and passes; :func:`measure` calls this in a process of its own."""
    truth = population(0.1, 1)
    partitions = draw_partitions(truth, m, n, np.random.default_rng(0))
    FITS[name](partitions[0][:5000], truth, m)  # imports and caches, once a process
    began = time.process_time()
    passes = sum(FITS[name](rows, truth, m) for rows in partitions)
    print(time.process_time() - began, passes)


def measure(name: str, trim: str | None, n: int, m: int) -> tuple[float, int]:
    """CPU seconds and passes in a fresh process; ``trim`` is the value of the variable, None leaves it unset."""
    env = {**os.environ, **dict.fromkeys(THREADS, "1")}
    env.pop(VARIABLE, None)
    if trim is not None:
        env[VARIABLE] = trim
    command = [sys.executable, __file__, "--child", name, "--rows", str(n), "--partitions", str(m)]
    answer = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    seconds, passes = answer.stdout.split()
    return float(seconds), int(passes)


def main() -> None:
    """Print the table, or with ``--child`` measure one of its cells."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="of a partition")
    parser.add_argument("--partitions", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=FITS, help="used by the script itself")
    options = parser.parse_args()
    if options.child:
        print_seconds(options.child, options.rows, options.partitions)
        return
    with recorded(options):
        compare(options.rows, options.partitions, options.repeats)


def compare(n: int, m: int, repeats: int) -> None:
    """Print medians of ``repeats`` runs on ``m`` partitions of ``n`` rows."""
    trim = str(dask.config.get("distributed.nanny.pre-spawn-environ")[VARIABLE])
    found = defaultdict(list)
    for _ in range(repeats):
        for name in FITS:
            for setting in (None, trim):
                found[name, setting].append(measure(name, setting, n, m))
    rows = []
    for name in FITS:
        without, with_trim = (
            np.median([seconds for seconds, _ in found[name, setting]]) for setting in (None, trim)
        )
        passes = found[name, None][0][1]
        rows.append([name, passes, f"{without:.2f}", f"{with_trim:.2f}"])
        rows[-1].append(f"{with_trim / without:.2f}")
    header = ["", "passes", "CPU s: unset", f"CPU s: {VARIABLE}={trim}", "ratio"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
