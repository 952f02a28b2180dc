"""Claim: the search of the pilots ends in optima as good as those that many long runs find, for a part of their cost.

    python benchmarks/pilot_search.py [--seeds 4]

16 pilots draw rows of one population. "Search" is what a fit does: a few starts of each pilot, and a search on pooled
rows. "Long runs" are EM runs to their ends from 40 k-means++ starts on as many pooled rows, of which the best counts.
Both results are continued to their optimum over all rows. A result is worse if its mean log-likelihood is more than
.001 nats per row below that of the other. The gap is the mean of what is missing to the better one of both.

Mixtures have unequal weights; the other rows are no mixtures (``row_families.py``).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from common import draw_rows
from mixsim import mixsim
from output import benchmark_parser, print_progress, print_table, recorded
from row_families import FAMILIES
from threadpoolctl import threadpool_limits

from dask_dfmr import Mixture
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import fit_pilot, make_shortlist, pilot_scale, read_pilot
from dask_dfmr.local.search import best_of_starts
from dask_dfmr.local.starts import Scale
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.seeds import stream

N_PILOTS, N_LONG_RUNS, POOLED_ROWS = 16, 40, 16_000
WORSE = 1e-3
MIXTURES = ((5, 10, 0.1, 2500), (5, 10, 0.3, 2500), (10, 10, 0.1, 2500), (3, 2, 0.2, 2500))


class Case(NamedTuple):
    """Rows of all pilots, and the problem of their fit."""

    rows: np.ndarray
    problem: LocalProblem


def unequal_weights(n_components: int, seed: int) -> np.ndarray:
    """Weights of at least about .02."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(n_components, 2.0))
    weights: np.ndarray = np.maximum(drawn, 0.02)
    return weights / weights.sum()


def cases(seed: int) -> Iterator[tuple[str, Case]]:
    """All kinds of rows, by name."""
    for k, d, overlap, n in MIXTURES:
        drawn = mixsim(k, d, overlap, seed=100 + seed)
        truth = Mixture(unequal_weights(k, seed), drawn.means, drawn.covariances)
        rows = draw_rows(truth, N_PILOTS * n, np.random.default_rng([seed, 5]))
        yield f"mixture, K = {k}, d = {d}, overlap {overlap}", Case(rows, problem_of(k))
    for family in FAMILIES:
        for k in (2, 4):
            rows = family.rows(np.random.default_rng([seed, 5]), N_PILOTS * 1000, False)
            yield f"{family.name}, K = {k}", Case(rows, problem_of(k, family.reg_covar))


def problem_of(n_components: int, reg_covar: float = 0.0) -> LocalProblem:
    """The problem of the local fits."""
    return LocalProblem(Gaussian("full"), n_components, reg_covar=reg_covar, n_sources=N_PILOTS)


def by_search(case: Case, seed: int) -> list[Any]:
    """The shared starts, as a fit finds them."""
    root, problem = np.random.SeedSequence(seed), case.problem
    parts = np.array_split(case.rows, N_PILOTS)
    rows = [read_pilot(problem, part, stream(root, 0, i)) for i, part in enumerate(parts)]
    scale = pilot_scale(rows)
    fits = [fit_pilot(problem, one, scale, stream(root, 1, i)) for i, one in enumerate(rows)]
    return make_shortlist(problem, fits, stream(root, 2)).starts


def by_long_runs(case: Case, seed: int) -> list[Any]:
    """The best of many runs to their ends."""
    rng = np.random.default_rng(seed)
    rows = case.rows[:: -(-len(case.rows) // POOLED_ROWS)]
    scale = Scale.of(rows)
    best = best_of_starts(case.problem, rows, scale, rng, N_LONG_RUNS, N_LONG_RUNS)
    return [] if best is None else [(best.weights, best.components)]


def likelihood(case: Case, starts: list[Any]) -> float:
    """Mean log-likelihood over all rows of the best optimum near the starts."""
    family = case.problem.mixture_family
    fits = [case.problem.fit(case.rows, family.mixture(*start, None)) for start in starts]
    return max((fit.log_likelihood for fit in fits), default=-np.inf)


def compare(case: Case, seed: int) -> tuple[float, float, float, float]:
    """Both likelihoods, and the CPU seconds of both."""
    found = []
    for find in (by_search, by_long_runs):
        began = time.process_time()
        starts = find(case, seed)
        found.append((likelihood(case, starts), time.process_time() - began))
    (search, of_search), (runs, of_runs) = found
    return search, runs, of_search, of_runs


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    by_name: dict[str, list[tuple[float, float, float, float]]] = {}
    with recorded(options), threadpool_limits(1):
        for seed in range(options.seeds):
            for name, case in cases(seed):
                by_name.setdefault(name, []).append(compare(case, seed))
                print_progress(name, seed, *by_name[name][-1])
        header = ["rows", "search worse", "long runs worse", "gap: search", "gap: long runs"]
        lines = []
        for name, results in by_name.items():
            search, runs, of_search, of_runs = np.array(results).T
            best = np.maximum(search, runs)
            worse = [f"{(best - one > WORSE).sum()} of {len(best)}" for one in (search, runs)]
            gaps = [f"{(best - one).mean():.4f}" for one in (search, runs)]
            lines.append([name, *worse, *gaps, f"{of_search.sum() / of_runs.sum():.2f}"])
        print_table([*header, "CPU, of long runs"], lines)


if __name__ == "__main__":
    main()
