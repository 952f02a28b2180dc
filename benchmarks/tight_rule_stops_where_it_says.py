"""Claim: ``tol="auto"`` stops where no more than 0.005 p / m of the log-likelihood is left to gain.

    python benchmarks/tight_rule_stops_where_it_says.py [--rows 500 2000 --partitions 20 100 1000]

p is the number of free parameters and m the number of partitions. The gain is that of the total penalised
log-likelihood of one partition. A fit starts where local fits start in practice, at a loose fit of another partition's
rows, and stops by the rule. Then it continues until a pass gains only rounding. The tables show the true remaining gain
divided by the promise: quantiles, the share of fits above 1, and the worst. They do so with Anderson acceleration and
with plain EM under the same rule, and show the passes over the rows.

Rows come from the six populations (K = 5, d = 10, full covariances). With the other covariance types the model is
wrong, and EM is slow. The penalty is the paper's, whose objective does not depend on the start of a fit.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import NamedTuple

import numpy as np
from common import draw_rows, populations
from output import benchmark_parser, print_lines, print_progress, print_table, recorded
from threadpoolctl import threadpool_limits

from dask_dfmr import Mixture, fit_local
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.stopping import TIGHT
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES


class Stop(NamedTuple):
    """Remaining gain of one fit over the promise, its passes, and whether it converged."""

    ratio: float
    n_iter: int
    converged: bool


class Setting(NamedTuple):
    """Population, model, size and kind of EM of one fit."""

    overlap: float
    covariance_type: str
    n: int
    m: int
    accelerated: bool


def loose_start(X: np.ndarray, covariance_type: str, seed: int) -> Mixture:
    """A loose fit of the rows, as a pilot makes it."""
    fit = fit_local(X, 5, covariance_type=covariance_type, tol=1e-5, n_init=3, random_state=seed)
    assert fit.mixture is not None
    return fit.mixture


def objective(X: np.ndarray, mixture: Mixture) -> float:
    """The total penalised log-likelihood of the rows under a mixture."""
    problem = LocalProblem(mixture.family, mixture.n_components, penalty="paper")
    start = mixture.weights, mixture.components
    return problem.maximise(X, start, problem.penalty_for(X), max_iter=1).objective


def at_the_end(X: np.ndarray, mixture: Mixture) -> float:
    """The objective after EM gains only rounding: first accelerated EM, then plain EM to make sure."""
    best = mixture
    for accelerate in (True, False):
        fit = fit_local(
            X,
            best.n_components,
            covariance_type=best.covariance_type,
            start=best,
            tol=0.0,
            max_iter=5000,
            accelerate=accelerate,
            penalty="paper",
        )
        assert fit.mixture is not None
        best = fit.mixture
    return objective(X, best)


def stop(X: np.ndarray, start: Mixture, m: int, accelerated: bool) -> Stop:
    """Fit by the rule, and measure the remaining gain."""
    fit = fit_local(
        X,
        start.n_components,
        covariance_type=start.covariance_type,
        start=start,
        n_sources=m,
        accelerate=accelerated,
        max_iter=20_000,
        penalty="paper",
    )
    assert fit.mixture is not None
    remaining = at_the_end(X, fit.mixture) - objective(X, fit.mixture)
    return Stop(
        remaining * m / (TIGHT * fit.mixture.n_parameters),
        fit.n_iter,
        fit.outcome == "fitted",
    )


def row_of(name: list[str], stops: list[Stop]) -> list[str]:
    """One line of a table, over a group of fits."""
    ratio = np.array([s.ratio for s in stops])
    passes = np.array([s.n_iter for s in stops])
    return [
        *name,
        str(len(stops)),
        f"{np.median(ratio):.2g}",
        f"{np.quantile(ratio, 0.9):.2g}",
        f"{ratio.max():.3g}",
        f"{np.mean(ratio > 1):.1%}",
        f"{np.mean(ratio > 10):.1%}",
        f"{np.median(passes):.0f}, {np.quantile(passes, 0.9):.0f}, {passes.max()}",
        str(sum(not s.converged for s in stops)),
    ]


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--partitions", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--types", nargs="+", default=list(COVARIANCE_TYPES))
    parser.add_argument("--repeats", type=int, default=2, help="draws of the rows per population")
    options = parser.parse_args()
    with recorded(options):
        began = time.process_time()
        with threadpool_limits(1):
            found = [
                stopped
                for overlap, seed, truth in populations()
                for stopped in stops_of(overlap, seed, truth, options)
            ]
        print_stops(found)
        print(f"CPU seconds: {time.process_time() - began:.0f}.")


def stops_of(
    overlap: float, seed: int, truth: Mixture, options: argparse.Namespace
) -> list[tuple[Setting, Stop]]:
    """All fits of one population; each accelerated fit is followed by its plain twin."""
    found: list[tuple[Setting, Stop]] = []
    for n, repeat in product(options.rows, range(options.repeats)):
        rng = np.random.default_rng([seed, n, repeat])
        X, other = draw_rows(truth, n, rng), draw_rows(truth, n, rng)
        for covariance_type in options.types:
            start = loose_start(other, covariance_type, repeat)
            found += [
                (Setting(overlap, covariance_type, n, m, acc), stop(X, start, m, acc))
                for m, acc in product(options.partitions, (True, False))
            ]
    print_progress(f"done: overlap {overlap}, seed {seed}")
    return found


def print_stops(found: list[tuple[Setting, Stop]]) -> None:
    """The tables, the saving of passes, and the worst fits."""
    header = ["fits", "median", "90 %", "worst", "above 1", "above 10"]
    header += ["passes: median, 90 %, most", "unfinished"]
    for fields in (
        ("accelerated",),
        ("covariance_type", "accelerated"),
        ("overlap", "accelerated"),
        ("n", "m", "accelerated"),
    ):
        groups: dict[tuple[str, ...], list[Stop]] = {}
        for setting, stopped in found:
            name = tuple(str(getattr(setting, field)) for field in fields)
            groups.setdefault(name, []).append(stopped)
        rows = [row_of(list(name), stops) for name, stops in sorted(groups.items())]
        print_table([*fields, *header], rows)
    pairs = zip(found[::2], found[1::2], strict=True)
    saving = [plain.n_iter / quick.n_iter for (_, quick), (_, plain) in pairs]
    ninety = np.quantile(saving, 0.9)
    print(f"Passes, plain / accelerated: median {np.median(saving):.2f}, 90 % {ninety:.1f}.\n")
    worst = sorted(found, key=lambda pair: -pair[1].ratio)[:5]
    print_lines(f"worst: {s}: {stop.ratio:.3g} after {stop.n_iter} passes" for s, stop in worst)


if __name__ == "__main__":
    main()
