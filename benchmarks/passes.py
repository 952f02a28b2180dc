"""Claim: acceleration halves the passes over a partition, and ends in the same optimum.

    python benchmarks/passes.py [--rows 20000 --draws 4 --machines 100]

Local fits of the populations with overlap .1 and .3 (K = 5, d = 10, full covariances), from where
local fits start in practice: the loose optimum of another machine's 20,000 rows. Plain EM and
accelerated EM run to the same tight tolerance (``tol="auto"``); every pass over the rows counts, those
of rejected extrapolations included. Then both run on, to a thousandth of that tolerance, and their
optima are compared: the largest difference of a parameter, in units of the standard errors of a fit of
so many rows and of the parameter itself, and the difference of the objective as a share of it.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from common import draw_rows, population, print_machine, print_table

from dask_dfmr import LocalEstimate, Mixture, fit_local
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

OVERLAPS, SEEDS = (0.1, 0.3), (1, 2)

TIGHTER = 1000


class Pair(NamedTuple):
    """One fit of the same rows from the same start, plain and accelerated."""

    plain: int
    accelerated: int
    in_standard_errors: float
    relative: float
    objective: float


def compare(truth: Mixture, n: int, n_sources: int, rng: np.random.Generator) -> Pair:
    """Both fits of one machine."""
    X, other = draw_rows(truth, n, rng), draw_rows(truth, 20_000, rng)
    start = fit_local(other, 5, start=truth, tol=1e-5).mixture
    assert start is not None
    fits = [
        [
            fit_local(
                X,
                5,
                start=start,
                n_sources=machines,
                accelerate=accelerate,
                max_iter=20_000,
                random_state=0,
            )
            for machines in (n_sources, TIGHTER * n_sources)
        ]
        for accelerate in (False, True)
    ]
    (plain, plain_end), (accelerated, accelerated_end) = fits
    return Pair(plain.n_iter, accelerated.n_iter, *differences(plain_end, accelerated_end))


def differences(a: LocalEstimate, b: LocalEstimate) -> tuple[float, float, float]:
    """Largest difference of the parameters in standard errors and relative, and of the objective."""
    f, g = a.mixture, b.mixture
    assert f is not None
    assert g is not None
    origin = f.weights, f.components
    x, y = (f.family.coordinates(m.weights, m.components, origin) for m in (f, g))
    relative = max(
        np.abs(p - q).max() / np.abs(p).max()
        for p, q in zip((f.weights, *f.components), (g.weights, *g.components), strict=True)
    )
    return (
        float(np.abs(x - y).max() * np.sqrt(a.n_samples)),
        float(relative),
        abs(a.log_likelihood - b.log_likelihood) / abs(a.log_likelihood),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--machines", type=int, default=100)
    options = parser.parse_args()
    print_machine()
    everything: list[Pair] = []
    rows = []
    with single_threaded_blas():
        for overlap in OVERLAPS:
            for seed in SEEDS:
                rng = np.random.default_rng([seed, int(10 * overlap)])
                pairs = [
                    compare(population(overlap, seed), options.rows, options.machines, rng)
                    for _ in range(options.draws)
                ]
                everything += pairs
                rows.append(row(f"{overlap}, {seed}", pairs))
    rows.append(row("all", everything))
    print_table(
        (
            "overlap, seed",
            "passes, plain: mean",
            "accelerated: mean",
            "plain / accelerated: of the means",
            "mean of ratios",
            "optima apart: standard errors",
            "relative",
            "objective, relative",
        ),
        rows,
    )


def row(label: str, pairs: list[Pair]) -> list[str]:
    """A line of the table; differences are the largest of its fits."""
    plain, accelerated = (np.array([p[i] for p in pairs], dtype=float) for i in (0, 1))
    apart = [max(p[i] for p in pairs) for i in (2, 3, 4)]
    return [
        label,
        f"{plain.mean():.1f}",
        f"{accelerated.mean():.1f}",
        f"{plain.mean() / accelerated.mean():.2f}",
        f"{(plain / accelerated).mean():.2f}",
        *(f"{x:.1e}" for x in apart),
    ]


if __name__ == "__main__":
    main()
