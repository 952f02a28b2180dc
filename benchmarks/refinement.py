"""Claim: refine="auto" ends within 5 % of the error of a fit to all kept rows together.

    python benchmarks/refinement.py [--repeats 1]

K = 5 components in d = 10 columns, m = 100 partitions of n = 500, 1000, 2000 rows, overlap .1 and .3, two populations
each. Every job is fitted once and refined from there with s = 0, 1, 2, 5, 10, 20 passes and "auto". Error is W1 between
the mixing distributions of result and population, over that of the pooled fit. The pooled fit is the penalised maximum
likelihood of all rows of the kept partitions, started at the truth and run to the end.

``reads`` counts the partitions that the automatic refinement reads, over the number of kept ones: passes over the data.
``false`` are partitions that it excludes; all of them are clean.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from itertools import product

import dask
import numpy as np
from common import draw_partitions, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, Mixture, fit_local, mixing_distance
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.fit_plan import Fit
from dask_dfmr.on_dask.refine import refine
from dask_dfmr.parameters import plan_of
from dask_dfmr.refinement.em_passes import RefinementOptions

PASSES = (0, 1, 2, 5, 10, 20, "auto")


def fit_and_refine(parts: list[np.ndarray], seed: int) -> tuple[Fit, dict[int | str, Fit]]:
    """One fit, and its refinements by number of passes."""
    plan = plan_of(GaussianMixture(5, random_state=seed), [dask.delayed(rows) for rows in parts])
    fit = read_first(plan)
    plans = {s: replace(plan, refinement=RefinementOptions(s)) for s in PASSES}
    return fit, {s: refine(of_passes, fit) for s, of_passes in plans.items()}


def pooled_fit(parts: list[np.ndarray], kept: np.ndarray, truth: Mixture) -> Mixture:
    """The penalised maximum likelihood of all rows of the kept partitions."""
    rows = np.concatenate([rows for rows, is_kept in zip(parts, kept, strict=True) if is_kept])
    pooled = fit_local(rows, 5, start=truth, tol=1e-12, max_iter=5000).mixture
    assert pooled is not None
    return pooled


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("-m", type=int, default=100, help="partitions")
    parser.add_argument("--repeats", type=int, default=1, help="draws of the rows per population")
    options = parser.parse_args()
    dask.config.set(scheduler="synchronous")
    warnings.simplefilter("ignore")
    with recorded(options):
        print_results(options.m, options.repeats)


def print_results(m: int, repeats: int) -> None:
    """The table, and how many jobs are within 5 %."""
    began = time.process_time()
    jobs = product((500, 1000, 2000), (0.1, 0.3), (1, 2), range(repeats))
    rows = [row_of(*job, m) for job in jobs]
    worst = [float(row[3 + len(PASSES)]) for row in rows]
    header = ["n", "overlap", "pop.", "W1 pooled", *(f"s = {s}" for s in PASSES[:-1]), "auto"]
    header += ["passes", "reads", "kept", "false"]
    print_table(header, rows)
    n_within = sum(ratio <= 1.05 for ratio in worst)
    print(f'"auto" is within 5 % of the pooled fit in {n_within} of {len(worst)} jobs;', end=" ")
    print(f"largest {max(worst):.3f}. CPU seconds: {time.process_time() - began:.0f}.")


def row_of(n: int, overlap: float, seed: int, repeat: int, m: int) -> list[object]:
    """The line of one job of ``m`` partitions of ``n`` rows."""
    truth = population(overlap, seed)
    parts = draw_partitions(truth, m, n, np.random.default_rng([seed, repeat, n]))
    fit, refined = fit_and_refine(parts, repeat)
    kept = fit.aggregate.decision.kept
    pooled = mixing_distance(pooled_fit(parts, kept, truth), truth)
    errors = [mixing_distance(f.aggregate.mixture, truth) / pooled for f in refined.values()]
    auto = refined["auto"].refinement
    assert auto is not None
    n_reads = sum(record.n_partitions + len(record.excluded) for record in auto.passes)
    return [
        n,
        overlap,
        seed,
        f"{pooled:.4f}",
        *(f"{error:.3f}" for error in errors),
        len(auto.passes),
        f"{n_reads / kept.sum():.1f}",
        int(kept.sum()),
        len(auto.excluded),
    ]


if __name__ == "__main__":
    main()
