"""Claim: in many columns the search for a start ends in optima as good as those that many long runs find.

    python benchmarks/wide_search.py [--seeds 2]

One partition of rows in 50 to 100 columns, of components with unequal weights. The distance is that of two means on
average, in standard deviations: at 4 components overlap, at 6 they hardly do. "Search" is what a fit by default does.
"Long runs" are EM runs to their ends from ten k-means++ starts over all rows, of which the best counts. Both results
are continued to their optimum. A result is worse if its mean log-likelihood is more than .001 nats per row below that
of the other; the gap is the mean of what is missing to the better one of both.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from output import benchmark_parser, print_progress, print_table, recorded
from pilot_search import WORSE, unequal_weights
from threadpoolctl import threadpool_limits

from dask_dfmr import Mixture
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import fit_pilot, make_shortlist, pilot_scale, read_pilot
from dask_dfmr.local.search import best_of_starts
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.seeds import stream

CASES = (
    (5_000, 60, 4, "tied"),
    (5_000, 100, 8, "tied"),
    (6_000, 50, 4, "full"),
    (12_000, 100, 2, "full"),
    (5_000, 60, 5, "diag"),
)
"""n, d, K, covariance type."""

DISTANCES = (4.0, 6.0)
N_LONG_RUNS = 10


def rows_of(n: int, d: int, k: int, kind: str, distance: float, seed: int) -> np.ndarray:
    """Rows of components about ``distance`` standard deviations from one another."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(1 if kind == "tied" else k, d, d)) / np.sqrt(d)
    covariances = factors @ factors.swapaxes(1, 2) + 0.5 * np.eye(d)
    if kind == "diag":
        covariances *= np.eye(d)
    spread = np.linalg.cholesky(covariances.mean(axis=0))
    means = distance / np.sqrt(2 * d) * rng.normal(size=(k, d)) @ spread.T
    truth = Mixture(unequal_weights(k, seed), means, np.broadcast_to(covariances, (k, d, d)))
    return rng.permutation(truth.sample(n, np.random.RandomState(seed))[0])


def by_search(problem: LocalProblem, rows: np.ndarray, seed: int) -> list[Any]:
    """The starts that a fit of one partition finds."""
    root = np.random.SeedSequence(seed)
    pilot = read_pilot(problem, rows, stream(root, 0, 0))
    fit = fit_pilot(problem, pilot, pilot_scale([pilot]), stream(root, 1, 0))
    return make_shortlist(problem, [fit], stream(root, 2)).starts


def by_long_runs(problem: LocalProblem, rows: np.ndarray, seed: int) -> list[Any]:
    """The best of many runs to their ends."""
    rng = np.random.default_rng(seed)
    best = best_of_starts(problem, rows, problem.scale_of(rows), rng, N_LONG_RUNS, N_LONG_RUNS)
    return [] if best is None else [(best.weights, best.components)]


def compare(problem: LocalProblem, rows: np.ndarray, seed: int) -> list[float]:
    """Mean log-likelihoods of both, and the CPU seconds of both."""
    likelihoods, seconds = [], []
    for find in (by_search, by_long_runs):
        began = time.process_time()
        starts = find(problem, rows, seed)
        seconds.append(time.process_time() - began)
        fits = [problem.fit(rows, problem.mixture_family.mixture(*s, None)) for s in starts]
        likelihoods.append(max((fit.log_likelihood for fit in fits), default=-np.inf))
    return likelihoods + seconds


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = []
    with recorded(options), threadpool_limits(1):
        for n, d, k, kind in CASES:
            for distance in DISTANCES:
                problem = LocalProblem(Gaussian(kind), k)
                found = []
                for seed in range(options.seeds):
                    rows = rows_of(n, d, k, kind, distance, seed)
                    found.append(compare(problem, rows, seed))
                    print_progress(n, d, k, kind, distance, seed, *found[-1])
                search, runs, of_search, of_runs = np.array(found).T
                best = np.maximum(search, runs)
                worse = [f"{(best - one > WORSE).sum()} of {len(best)}" for one in (search, runs)]
                gaps = [f"{(best - one).mean():.4f}" for one in (search, runs)]
                name = f"({n:,}, {d}, {k}) {kind}, {distance:g} apart"
                share = f"{of_search.sum() / of_runs.sum():.2f}"
                lines.append([name, *worse, *gaps, f"{of_search.mean():.2f}", share])
        header = ["(n, d, K)", "search worse", "long runs worse", "gap: search", "gap: long runs"]
        print_table([*header, "search, CPU s", "of long runs"], lines)


if __name__ == "__main__":
    main()
