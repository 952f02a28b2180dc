"""Claim: the allocator setting of Dask's workers does not slow the local fits down, as it does scikit-learn's.

    python benchmarks/allocator.py [--rows 100000 --partitions 10 --repeats 5]

Dask's nanny starts workers with MALLOC_TRIM_THRESHOLD_=65536: glibc gives freed memory back to the
system at once, and code that allocates large arrays in a loop pays for fresh pages every time. Local
fits of one process with the variable and without, in fresh processes, alternating: CPU seconds of
the fits alone (linear algebra on one thread), medians. Everybody starts at the truth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict

import dask
import distributed  # noqa: F401  (brings the defaults of the nanny)
import numpy as np
from common import draw_partitions, population, print_machine, print_table
from sklearn.mixture import GaussianMixture

from dask_dfmr import Mixture, fit_local

VARIABLE = "MALLOC_TRIM_THRESHOLD_"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fit_dfmr(rows: np.ndarray, start: Mixture, m: int) -> int:
    """One local fit; how many passes it took."""
    return fit_local(rows, start.n_components, start=start, n_sources=m).n_iter


def fit_sklearn(rows: np.ndarray, start: Mixture, m: int) -> int:
    """The same by scikit-learn, to its default tolerance."""
    gm = GaussianMixture(
        start.n_components,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=start.precisions,
    )
    return gm.fit(rows).n_iter_


FITS = {"dask_dfmr": fit_dfmr, "scikit-learn": fit_sklearn}


def print_seconds(name: str, n: int, m: int) -> None:
    """In a process of its own: CPU seconds and passes of all fits."""
    truth = population(0.1, 1)
    partitions = draw_partitions(truth, m, n, np.random.default_rng(0))
    FITS[name](partitions[0][:5000], truth, m)  # whatever is done once a process
    began = time.process_time()
    passes = sum(FITS[name](rows, truth, m) for rows in partitions)
    print(time.process_time() - began, passes)


def measure(name: str, trim: str | None, n: int, m: int) -> tuple[float, int]:
    """CPU seconds and passes in a fresh process."""
    env = {**os.environ, **dict.fromkeys(THREADS, "1")}
    env.pop(VARIABLE, None)
    if trim is not None:
        env[VARIABLE] = trim
    command = [sys.executable, __file__, "--child", name, "--rows", str(n), "--partitions", str(m)]
    answer = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    seconds, passes = answer.stdout.split()
    return float(seconds), int(passes)


def main() -> None:
    """Print the table, or be one of the processes behind it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="of a partition")
    parser.add_argument("--partitions", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", choices=FITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print_seconds(options.child, options.rows, options.partitions)
        return
    print_machine()
    trim = str(dask.config.get("distributed.nanny.pre-spawn-environ")[VARIABLE])
    found = defaultdict(list)
    for _ in range(options.repeats):
        for name in FITS:
            for setting in (None, trim):
                seconds = measure(name, setting, options.rows, options.partitions)
                found[name, setting].append(seconds)
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
