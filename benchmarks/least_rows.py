"""Claim: ten rows for each number that a column has to determine are enough for "diag", "tied" and "spherical".

    python benchmarks/least_rows.py [--draws 2]

A row gives each column one number. One column determines K - 1 weights, K means, and its share of the covariances: K
variances for "diag", d for "tied", K / d for "spherical". Twenty clean partitions of a multiple of that number of rows
are fitted, and of as many rows as there are free parameters. The rows come from a population of the paper's design
(K = 5, d = 10, overlap .1) with its covariances in the structure, and from three clusters in 30 columns. The table
shows the nats per held-out row lost against scikit-learn's fit of all rows (best of three starts), and the share of
the partitions that the default filter keeps, averaged over the draws.
"""

from __future__ import annotations

import warnings

import dask
import numpy as np
from common import population
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.mixtures.gaussian import Gaussian

M, N_TEST = 20, 4000
MULTIPLES = (1, 3, 5, 10)


def determined(covariance_type: str, k: int, d: int) -> int:
    """Numbers that one column determines."""
    return 2 * k - 1 + {"diag": k, "tied": d, "spherical": -(-k // d)}[covariance_type]


def in_structure(mixture: Mixture, covariance_type: str) -> Mixture:
    """A mixture with full covariances in another structure."""
    variances = np.diagonal(mixture.covariances, axis1=1, axis2=2)
    covariances = {
        "diag": variances,
        "tied": np.einsum("k,kij->ij", mixture.weights, mixture.covariances),
        "spherical": variances.mean(axis=1),
    }[covariance_type]
    return Mixture(mixture.weights, mixture.means, covariances, covariance_type)


def wide() -> Mixture:
    """Three clusters in 30 columns."""
    means = np.random.default_rng(0).normal(size=(3, 30))
    return Mixture([0.5, 0.3, 0.2], 1.1 * means, [np.eye(30)] * 3)


def measure(truth: Mixture, n: int, n_draws: int) -> str:
    """Nats lost and share kept, as text."""
    k, kind = truth.n_components, truth.covariance_type
    lost, kept = [], []
    for draw in range(n_draws):
        rng = np.random.RandomState(1000 * draw + n)
        parts = [rng.permutation(truth.sample(n, rng)[0]) for _ in range(M)]
        test = truth.sample(N_TEST, rng)[0]
        twin = SklearnGaussianMixture(k, covariance_type=kind, n_init=3, random_state=0)
        twin.fit(np.concatenate(parts))
        gm = GaussianMixture(
            k, covariance_type=kind, min_partition_rows=n, check_optimum=None, random_state=draw
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gm.fit([dask.delayed(rows) for rows in parts])
        lost.append(twin.score(test) - gm.score(test))
        kept.append(gm.support_.mean())
    print_progress(f"{kind} {truth.n_features} columns, {n} rows")
    return f"{np.mean(lost):.2f}, {np.mean(kept):.0%} ({n})"


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    with recorded(options), dask.config.set(scheduler="synchronous"):
        print("nats lost, share kept (rows a partition), by rows for each number determined:\n")
        lines = []
        for truth in (population(0.1, 1), wide()):
            for kind in ("diag", "tied", "spherical"):
                own, k, d = in_structure(truth, kind), truth.n_components, truth.n_features
                sizes = [m * determined(kind, k, d) for m in MULTIPLES]
                sizes.append(Gaussian(kind).n_parameters(k, d))
                lines.append([f"{k}, {d}", kind, *(measure(own, n, options.draws) for n in sizes)])
        print_table(["K, d", "structure", *map(str, MULTIPLES), "free parameters"], lines)


if __name__ == "__main__":
    main()
