"""Claim: acceleration halves the passes over a partition, and ends in the same optimum.

    python benchmarks/passes.py [--rows 20000 --draws 4 --partitions 100]

Local fits of the populations with overlap .1 and .3 (K = 5, d = 10, full covariances). They start where local fits
start in practice: at the loose optimum of another partition's 20,000 rows. Plain EM and accelerated EM run to the same
tight tolerance (``tol="auto"``). Every pass over the rows counts, also those of rejected extrapolations.

Then both run on, to a thousandth of that tolerance, and their optima are compared. The table shows the largest
difference of a parameter, in standard errors of a fit to as many rows and relative to the parameter itself. It also
shows the difference of the objective as a share of it.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from common import draw_rows, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, fit_local
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

OVERLAPS, SEEDS = (0.1, 0.3), (1, 2)

TIGHTER = 1000


class Pair(NamedTuple):
    """Passes of a plain and an accelerated fit of the same rows, and the differences of their optima."""

    plain: int
    accelerated: int
    in_standard_errors: float
    relative: float
    objective: float


def compare(truth: Mixture, n: int, n_sources: int, rng: np.random.Generator) -> Pair:
    """Both fits of the ``n`` rows of one partition."""
    X, other = draw_rows(truth, n, rng), draw_rows(truth, 20_000, rng)
    start = fit_local(other, 5, start=truth, tol=1e-5).mixture
    assert start is not None
    fits = [
        [
            fit_local(
                X,
                5,
                start=start,
                n_sources=m,
                accelerate=accelerate,
                max_iter=20_000,
                random_state=0,
            )
            for m in (n_sources, TIGHTER * n_sources)
        ]
        for accelerate in (False, True)
    ]
    (plain, plain_end), (accelerated, accelerated_end) = fits
    return Pair(plain.n_iter, accelerated.n_iter, *differences(plain_end, accelerated_end))


def differences(a: LocalEstimate, b: LocalEstimate) -> tuple[float, float, float]:
    """Largest difference of a parameter, in standard errors and relative, and relative difference of the objective."""
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
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=100)
    options = parser.parse_args()
    header = ["overlap, seed", "passes, plain: mean", "accelerated: mean"]
    header += ["plain / accelerated: of the means", "mean of ratios"]
    header += ["optima apart: standard errors", "relative", "objective, relative"]
    everything: list[Pair] = []
    rows = []
    with recorded(options), single_threaded_blas():
        for overlap, seed in product(OVERLAPS, SEEDS):
            truth, rng = population(overlap, seed), np.random.default_rng([seed, int(10 * overlap)])
            pairs = [
                compare(truth, options.rows, options.partitions, rng) for _ in range(options.draws)
            ]
            everything += pairs
            rows.append(row(f"{overlap}, {seed}", pairs))
        print_table(header, [*rows, row("all", everything)])


def row(label: str, pairs: list[Pair]) -> list[str]:
    """One line of the table; its differences are the largest of the fits."""
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
