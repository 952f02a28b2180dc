"""How many clean partitions lie outside rho radii: ``rho`` is not a significance level.

    python benchmarks/clean_partitions_outside_rho.py

Clean, equal partitions of one population, local fits started at the truth, so that every distance
is sampling and nothing else. Printed is the share of partitions left out at rho = 1.3 and 2, by
size of the mixture. K components lie 6 standard deviations apart on a line through d columns.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import print_machine

from dask_dfmr import LocalEstimate, Mixture, aggregate, fit_local

SIZES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (5, 5), (5, 10))


def population(n_components: int, n_features: int) -> Mixture:
    """Components in a row, with standard normal columns."""
    means = 6.0 * np.arange(n_components)[:, None] * np.ones(n_features) / np.sqrt(n_features)
    covariances = np.repeat(np.eye(n_features)[None], n_components, axis=0)
    return Mixture(np.full(n_components, 1 / n_components), means, covariances)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=25)
    options = parser.parse_args()
    print_machine()
    print(f"{options.machines} machines x {options.rows} rows, {options.repetitions} repetitions\n")
    print("|  K |  d | parameters | outside 1.3 radii | outside 2 radii |")
    print("|---:|---:|-----------:|------------------:|----------------:|")
    for n_components, n_features in SIZES:
        truth = population(n_components, n_features)
        rng = np.random.default_rng(0)
        ratios: list[np.ndarray] = []
        for _ in range(options.repetitions):
            samples = (truth.sample(options.rows, rng)[0] for _ in range(options.machines))
            estimates: list[LocalEstimate] = [
                fit_local(X, n_components, start=truth, n_sources=options.machines) for X in samples
            ]
            ratios.append(aggregate(estimates).decision.distance_ratios)
        pooled = np.concatenate(ratios)
        shares = " | ".join(f"{(pooled > rho).mean():.1%}" for rho in (1.3, 2.0))
        print(f"| {n_components} | {n_features} | {truth.n_parameters} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
