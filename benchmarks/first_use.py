"""Claim: importing the package costs little beyond its dependencies, and the first fit little beyond the second.

    python benchmarks/first_use.py [--repeats 11]

1. Import, in fresh processes, alternating: ``import dask_dfmr`` against what it needs in any case
   (dask.array, dask.dataframe, distributed, scipy, sklearn.mixture, threadpoolctl).
2. First use, in fresh processes: wall seconds of the first and of the second ``fit_local`` on 1000
   rows, with an empty NUMBA_CACHE_DIR and with the one that the process before filled. Where nothing is
   compiled the two are alike.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import print_machine, print_table

DEPENDENCIES = (
    "dask.array",
    "dask.dataframe",
    "distributed",
    "scipy.optimize",
    "scipy.special",
    "sklearn.mixture",
    "threadpoolctl",
)
IMPORTS = {"dependencies": DEPENDENCIES, "dask_dfmr": ("dask_dfmr",)}
TARGET = 1.2
ROOT = Path(__file__).resolve().parents[1]

TIMED_IMPORT = """
import sys, time
began = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print(time.perf_counter() - began)
"""

TIMED_FITS = """
import time
import numpy as np
from dask_dfmr import fit_local
rows = np.random.default_rng(0).normal(size=(1000, 5))
for _ in range(2):
    began = time.perf_counter()
    fit_local(rows, 3, random_state=0)
    print(time.perf_counter() - began)
"""


def seconds_in_fresh_process(code: str, *arguments: str, cache: str | None = None) -> list[float]:
    """The numbers that a script prints."""
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
    floor = medians["dependencies"]
    rows = [[name, f"{value:.3f}", f"{value / floor:.3f}"] for name, value in medians.items()]
    print_table(["import", "wall s", f"ratio (at most {TARGET})"], rows)


def print_first_use(repeats: int) -> None:
    """The second table."""
    found: dict[str, list[list[float]]] = {"empty": [], "filled": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="numba-cache-") as cache:
            for state in found:
                found[state].append(seconds_in_fresh_process(TIMED_FITS, cache=cache))
    rows = [
        [state, *(f"{seconds:.3f}" for seconds in np.median(values, axis=0))]
        for state, values in found.items()
    ]
    print_table(["NUMBA_CACHE_DIR", "first fit, wall s", "second fit, wall s"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    print_machine()
    print_imports(options.repeats)
    print_first_use(options.repeats)


if __name__ == "__main__":
    main()
