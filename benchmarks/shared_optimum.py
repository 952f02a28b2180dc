"""Claim: the check corrects a wrong optimum that all partitions share, at little cost, and does not change a right one.

    python benchmarks/shared_optimum.py [--repeats 1]

K = 5 components in d = 10 columns, m = 40 partitions of n = 500 and 2000 rows, overlap .1 and .3, two populations each.
Fits start from pilots, and from a wrong start: two neighbouring components of the true mixture are merged, and the
heaviest of the others is split in two. Error is W1 between the mixing distributions of result and population, without
the check (`check_optimum=None`) and with `check_optimum=2`. `adopted` counts the changes of the optimum. `check` is the
CPU time that the check alone adds (`check_optimum=0`), in per cent of that of the fit without it.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
from common import draw_partitions, population
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture, Mixture, mixing_distance


def wrong_start(truth: Mixture) -> dict[str, Any]:
    """Initial parameters with two neighbours merged into one component and another component split in two."""
    k = truth.n_components
    pairs = itertools.combinations(range(k), 2)
    a, b = min(pairs, key=lambda pair: float(np.linalg.norm(np.subtract(*truth.means[list(pair)]))))
    c = max((i for i in range(k) if i not in (a, b)), key=lambda i: float(truth.weights[i]))
    weights, means, covariances = (
        x.copy() for x in (truth.weights, truth.means, truth.covariances)
    )
    share = weights[a] / (weights[a] + weights[b])
    gap = means[a] - means[b]
    means[a] = share * means[a] + (1 - share) * means[b]
    within = share * covariances[a] + (1 - share) * covariances[b]
    covariances[a] = within + share * (1 - share) * np.outer(gap, gap)
    weights[a] += weights[b]
    values, vectors = np.linalg.eigh(covariances[c])
    step = 0.7 * np.sqrt(values[-1]) * vectors[:, -1]
    covariances[c] -= np.outer(step, step)
    covariances[b] = covariances[c]
    means[b], means[c] = means[c] + step, means[c] - step
    weights[b] = weights[c] = weights[c] / 2
    return {
        "weights_init": weights,
        "means_init": means,
        "precisions_init": np.linalg.inv(covariances),
    }


def fit(data: list[Any], seed: int, **parameters: Any) -> tuple[GaussianMixture, float]:
    """A fitted estimator, and the CPU seconds of the fit."""
    began = time.process_time()
    gm = GaussianMixture(5, random_state=seed, **parameters).fit(data)
    return gm, time.process_time() - began


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("-m", type=int, default=40, help="partitions")
    parser.add_argument("--repeats", type=int, default=1, help="draws of the rows per population")
    options = parser.parse_args()
    dask.config.set(scheduler="synchronous")
    warnings.simplefilter("ignore")
    header = [
        "n",
        "overlap",
        "pop.",
        "start",
        "W1 unchecked",
        "W1 check_optimum=2",
        "adopted",
        "check",
    ]
    jobs = itertools.product((500, 2000), (0.1, 0.3), (1, 2), range(options.repeats))
    with recorded(options):
        print_table(header, [row for job in jobs for row in rows_of(*job, options.m)])


def rows_of(n: int, overlap: float, seed: int, repeat: int, m: int) -> Iterator[list[Any]]:
    """The two lines of one job, started from pilots and from the wrong start."""
    truth = population(overlap, seed)
    parts = draw_partitions(truth, m, n, np.random.default_rng([seed, repeat, n]))
    data = [dask.delayed(rows) for rows in parts]
    for name, start in {"pilots": {}, "wrong": wrong_start(truth)}.items():
        plain, seconds = fit(data, repeat, check_optimum=None, **start)
        checked, _ = fit(data, repeat, check_optimum=2, **start)
        _, with_check = fit(data, repeat, check_optimum=0, **start)
        errors = [f"{mixing_distance(gm.mixture_, truth):.3f}" for gm in (plain, checked)]
        cost = f"{with_check / seconds - 1:.0%}"
        yield [n, overlap, seed, name, *errors, checked.n_optimum_changes_, cost]


if __name__ == "__main__":
    main()
