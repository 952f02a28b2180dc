"""How many clean partitions lie outside ``rho`` radii: ``rho`` is not a significance level.

    python benchmarks/clean_partitions_outside_rho.py

The partitions are clean, of equal size and of one population. Local fits start at the truth, so that sampling is the
only cause of distances. The script prints the share of partitions that rho = 1.3 and rho = 2 exclude, by size of the
mixture. The K components lie 6 standard deviations apart on a line through d columns.
"""

from __future__ import annotations

import numpy as np
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, aggregate, fit_local

SIZES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (5, 5), (5, 10))


def population(n_components: int, n_features: int) -> Mixture:
    """Components of equal weight on a line, each with the identity as covariance."""
    means = 6.0 * np.arange(n_components)[:, None] * np.ones(n_features) / np.sqrt(n_features)
    covariances = np.repeat(np.eye(n_features)[None], n_components, axis=0)
    return Mixture(np.full(n_components, 1 / n_components), means, covariances)


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--partitions", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=25)
    options = parser.parse_args()
    with recorded(options):
        m, n, repetitions = options.partitions, options.rows, options.repetitions
        print(f"{m} clean partitions x {n} rows, {repetitions} repetitions:\n")
        header = ["K", "d", "parameters", "outside 1.3 radii", "outside 2 radii"]
        print_table(header, [size_row(*size, m, n, repetitions) for size in SIZES])


def size_row(n_components: int, n_features: int, m: int, n: int, repetitions: int) -> list[object]:
    """One line of the table: shares of the partitions outside 1.3 and 2 radii."""
    truth = population(n_components, n_features)
    rng = np.random.default_rng(0)
    ratios: list[np.ndarray] = []
    for _ in range(repetitions):
        samples = (truth.sample(n, rng)[0] for _ in range(m))
        estimates: list[LocalEstimate] = [
            fit_local(X, n_components, start=truth, n_sources=m) for X in samples
        ]
        ratios.append(aggregate(estimates).decision.distance_ratios)
    pooled = np.concatenate(ratios)
    shares = [f"{(pooled > rho).mean():.1%}" for rho in (1.3, 2.0)]
    return [n_components, n_features, truth.n_parameters, *shares]


if __name__ == "__main__":
    main()
