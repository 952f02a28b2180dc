"""Claim: the search for the shared start costs a third of the local fits, and small tables in memory are fitted fast.

    python benchmarks/pilot_cost.py [--cases narrow wide memory --repeats 3]

CPU seconds of one process with the synchronous scheduler, by stage of the graph, medians over the repetitions; the
engines alternate. "Pilots" are reading them, their fits and the short list. In the case "memory" scikit-learn fits the
same rows from one start, with its defaults otherwise, and a fit is timed from the call to its end.

Cases: "narrow", 1 million rows, K = 5, d = 10, in 20 partitions; "wide", K = 10, d = 30, in 40 partitions of 50,000
rows; "memory", 400,000 rows, K = 5, d = 10, one ndarray whose rows are split into 20 partitions. Overlap .1.
``--wide-rows`` makes the partitions of the wide case smaller.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import dask
import dask.array as da
import numpy as np
from common import StageClock, draw_rows, population
from mixsim import mixsim
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits

from dask_dfmr import GaussianMixture
from dask_dfmr.mixtures import engine

PILOT_STAGES = ("read_pilot", "pilot_scale", "fit_pilot", "shortlist")


def timed(action: Callable[[], object]) -> float:
    """CPU seconds of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def fit(X: np.ndarray, n_partitions: int, n_components: int, seed: int) -> dict[str, float]:
    """CPU seconds of a fit: of the pilots, of the local fits, and of all."""
    rows = da.from_array(X, chunks=(-(-len(X) // n_partitions), -1))
    with StageClock() as clock:
        total = timed(lambda: GaussianMixture(n_components, random_state=seed).fit(rows))
    pilots = sum(clock.cpu[stage] for stage in PILOT_STAGES)
    return {"pilots": pilots, "fits": clock.cpu["fit_partition"], "all": total}


def medians(X: np.ndarray, m: int, k: int, engines: list[str], repeats: int) -> list[list[str]]:
    """A line of numbers per engine."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for repeat in range(-1, repeats):
        for name in engines:
            with engine.use(name):
                run = fit(X, m, k, max(repeat, 0))
            if repeat >= 0:  # the first one loads the kernels
                found[name].append(run)
    rows = []
    for name, runs in found.items():
        of = {what: np.median([run[what] for run in runs]) for what in runs[0]}
        ratio = np.median([run["pilots"] / run["fits"] for run in runs])
        rows.append([name, *(f"{of[what]:.2f}" for what in of), f"{ratio:.2f}"])
    return rows


def in_memory(X: np.ndarray, m: int, k: int, repeats: int) -> str:
    """CPU seconds of scikit-learn over ours, both alternated."""
    ratios = []
    for repeat in range(repeats):
        ours = fit(X, m, k, repeat)["all"]
        theirs = timed(lambda seed=repeat: SklearnMixture(k, random_state=seed).fit(X))
        ratios.append(theirs / ours)
        print_progress(f"scikit-learn {theirs:.2f}, dask_dfmr {ours:.2f}")
    return f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def run(options: argparse.Namespace) -> None:
    """Print the table of the cases."""
    rng, rows = np.random.default_rng(0), []
    for case in options.cases:
        if case == "wide":
            truth, n, m = mixsim(10, 30, 0.1, seed=1), 40 * options.wide_rows, 40
        else:
            truth, n, m = population(0.1, 1), 1_000_000 if case == "narrow" else 400_000, 20
        X = draw_rows(truth, n, rng)
        k = truth.n_components
        for numbers in medians(X, m, k, options.engines, options.repeats):
            rows.append([case, f"{n:,} x {X.shape[1]}", *numbers, ""])
            print_progress(*rows[-1])
        if case == "memory":
            rows[-1][-1] = in_memory(X, m, k, options.repeats)
    header = ["case", "rows", "engine", "CPU s: pilots", "local fits", "whole fit"]
    print_table([*header, "pilots / fits", "scikit-learn / ours"], rows)


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    cases = ("narrow", "wide", "memory")
    parser.add_argument("--cases", nargs="*", choices=cases, default=list(cases))
    parser.add_argument(
        "--engines", nargs="*", choices=("numpy", "numba"), default=["numpy", "numba"]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wide-rows", type=int, default=50_000, help="of a partition")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    with recorded(options), threadpool_limits(1):
        run(options)


if __name__ == "__main__":
    main()
