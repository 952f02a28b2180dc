"""Claim: one pass of EM costs a fraction of scikit-learn's, with the compiled engine and with NumPy.

    python benchmarks/em_pass.py [--repeats 7 --passes 5]

The E step and the M step of one plain iteration, on one thread, from the same start. scikit-learn's
share is the CPU time of a fit of 1 + ``passes`` iterations minus that of a fit of one, so its
set-up does not count. The three take turns; medians of CPU milliseconds. Rows are drawn from
MixSim-like populations (``mixsim.py``, largest pairwise overlap .1). Then the
same pass under roofline: multiply-adds a row needs at least, and the rate that comes to, next to that
of a matrix product of BLAS.
"""

from __future__ import annotations

import argparse
import time
import warnings
from statistics import median

import numpy as np
from common import print_machine, print_table
from mixsim import mixsim
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dask_dfmr import Mixture
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import Prior, Rows
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

CASES = (
    (100_000, 10, 5, "full", 8),
    (100_000, 3, 8, "full", 8),
    (100_000, 10, 20, "full", 8),
    (50_000, 30, 10, "full", 4),
    (20_000, 50, 10, "full", 4),
    (5_000, 10, 5, "full", 4),
    (100_000, 10, 5, "diag", 4),
    (100_000, 10, 5, "spherical", 4),
    (100_000, 10, 5, "tied", 4),
)
"""n, d, K, covariance type, and how many times faster than scikit-learn the compiled engine is to be."""

OVERLAP = 0.1


# -- the contestants -------------------------------------------------------------------------------


def our_pass(X: Rows, start: Mixture, name: str) -> float:
    """CPU seconds of one iteration with one of the engines."""
    family, prior = start.family, Prior(0.0, start.family.prior_target(X[:100]), 1e-6)
    with engine.use(name):
        family.em_pass(X[:64], start.weights, start.components)
        began = time.process_time()
        _, moments = family.em_pass(X, start.weights, start.components)
        family.from_moments(moments, start.components, prior)
        return time.process_time() - began


def sklearn_fit(X: Rows, start: Mixture, n_iter: int) -> float:
    """CPU seconds of a fit of so many iterations."""
    covariances = start.covariances
    is_matrix = start.covariance_type in ("full", "tied")
    model = GaussianMixture(
        start.n_components,
        covariance_type=start.covariance_type,
        tol=0.0,
        max_iter=n_iter,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=np.linalg.inv(covariances) if is_matrix else 1 / covariances,
        init_params="random_from_data",
    )
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    return time.process_time() - began


# -- tables ----------------------------------------------------------------------------------------


def start_of(truth: Mixture, covariance_type: str) -> Mixture:
    """The population in another covariance structure."""
    covariances = truth.covariances
    if covariance_type == "tied":
        covariances = np.einsum("k,kij->ij", truth.weights, covariances)
    elif covariance_type != "full":
        covariances = np.diagonal(covariances, axis1=1, axis2=2).copy()
        if covariance_type == "spherical":
            covariances = covariances.mean(axis=1)
    return Mixture(truth.weights, truth.means, covariances, covariance_type)


def measure(n: int, d: int, k: int, covariance_type: str, repeats: int, passes: int) -> list[float]:
    """Median CPU milliseconds a pass: scikit-learn, NumPy, compiled."""
    truth = mixsim(k, d, OVERLAP, seed=1)
    X = truth.sample(n, np.random.RandomState(0))[0]
    start = start_of(truth, covariance_type)
    seconds: list[tuple[float, float, float]] = []
    for _ in range(repeats):
        theirs = (sklearn_fit(X, start, 1 + passes) - sklearn_fit(X, start, 1)) / passes
        ours = [min(our_pass(X, start, name) for _ in range(2)) for name in ("numpy", "numba")]
        seconds.append((theirs, *ours))
    return [1e3 * median(column) for column in zip(*seconds, strict=True)]


def multiply_adds(d: int, k: int, covariance_type: str) -> float:
    """Multiply-adds a row needs at least: residuals, their lengths, first and second moments; 15 for an exponential."""
    is_matrix = covariance_type in ("full", "tied")
    per_component = d * (d + 1) + 2 * d if is_matrix else 5 * d
    return k * (per_component + 15.0)


def blas_rate() -> float:
    """Multiply-adds per second of a large matrix product, on one thread."""
    A = np.random.default_rng(0).normal(size=(1024, 1024))
    rates = []
    for _ in range(9):
        began = time.process_time()
        A @ A
        rates.append(1024**3 / (time.process_time() - began))
    return median(rates)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    with single_threaded_blas():
        peak = blas_rate()
        rows = []
        for n, d, k, covariance_type, target in CASES:
            theirs, by_numpy, by_numba = measure(
                n, d, k, covariance_type, options.repeats, options.passes
            )
            rate = n * multiply_adds(d, k, covariance_type) / by_numba * 1e3
            rows.append(
                [
                    f"({n:,}, {d}, {k}) {covariance_type}",
                    f"{theirs:.1f}",
                    f"{by_numpy:.1f}",
                    f"{by_numba:.2f}",
                    f"{theirs / by_numpy:.1f}",
                    f"{theirs / by_numba:.1f}",
                    f"{target}",
                    f"{rate / 1e9:.1f}",
                    f"{rate / peak:.0%}",
                ]
            )
    header = (
        "(n, d, K)",
        "scikit-learn ms",
        "NumPy ms",
        "numba ms",
        "NumPy x",
        "numba x",
        "target x",
    )
    print_table((*header, "10^9 multiply-adds/s", "of BLAS"), rows)
    print(
        f"BLAS: {peak / 1e9:.1f} 10^9 multiply-adds per second in a product of two 1024 x 1024 matrices."
    )


if __name__ == "__main__":
    main()
