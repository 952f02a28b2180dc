"""Claim: one pass of EM costs a fraction of scikit-learn's, with the compiled engine and with NumPy.

    python benchmarks/em_pass.py [--repeats 7 --passes 5]

Measured is the E step and M step of one plain iteration, on one thread, from the same start. The time of scikit-learn
is the CPU time of a fit of 1 + ``passes`` iterations minus that of a fit of one, so that its set-up does not count. The
three take turns; the table shows medians of CPU milliseconds. Rows come from MixSim-like populations (``mixsim.py``,
largest pairwise overlap .1).

The last columns relate the compiled pass to the hardware. They show the least number of multiply-adds per row as a
rate, and this rate as a share of the rate of a BLAS matrix product.
"""

from __future__ import annotations

import time
import warnings
from statistics import median

import numpy as np
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded
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
"""n, d, K, covariance type, and the target: how many times faster than scikit-learn the compiled engine shall be."""

OVERLAP = 0.1


# -- the contestants -------------------------------------------------------------------------------


def our_pass(X: Rows, start: Mixture, name: str) -> float:
    """CPU seconds of one iteration with the engine ``name``."""
    family, prior = start.family, Prior(0.0, start.family.prior_target(X[:100]), 1e-6)
    with engine.use(name):
        family.em_pass(X[:64], start.weights, start.components)
        began = time.process_time()
        moments = family.em_pass(X, start.weights, start.components).moments
        family.from_moments(moments, start.components, prior)
        return time.process_time() - began


def sklearn_fit(X: Rows, start: Mixture, n_iter: int) -> float:
    """CPU seconds of scikit-learn's fit of ``n_iter`` iterations."""
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
    """The population with its covariances reduced to another type."""
    covariances = truth.covariances
    if covariance_type == "tied":
        covariances = np.einsum("k,kij->ij", truth.weights, covariances)
    elif covariance_type != "full":
        covariances = np.diagonal(covariances, axis1=1, axis2=2).copy()
        if covariance_type == "spherical":
            covariances = covariances.mean(axis=1)
    return Mixture(truth.weights, truth.means, covariances, covariance_type)


def measure(n: int, d: int, k: int, covariance_type: str, repeats: int, passes: int) -> list[float]:
    """Median CPU milliseconds per pass of scikit-learn, of NumPy and of the compiled engine."""
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
    """Least number of multiply-adds per row: residuals, their lengths, first and second moments.

    An exponential counts as 15.
    """
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


def case_row(
    case: tuple[int, int, int, str, int], peak: float, repeats: int, passes: int
) -> list[str]:
    """One line of the table; ``peak`` is the rate of BLAS, in multiply-adds per second."""
    n, d, k, covariance_type, target = case
    theirs, by_numpy, by_numba = measure(n, d, k, covariance_type, repeats, passes)
    rate = n * multiply_adds(d, k, covariance_type) / by_numba * 1e3
    return [
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


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    with recorded(options), single_threaded_blas():
        peak = blas_rate()
        rows = [case_row(case, peak, options.repeats, options.passes) for case in CASES]
        header = ["(n, d, K)", "scikit-learn ms", "NumPy ms", "numba ms", "NumPy x", "numba x"]
        print_table([*header, "target x", "10^9 multiply-adds/s", "of BLAS"], rows)
        print(
            f"BLAS: {peak / 1e9:.1f} 10^9 multiply-adds per second in a product of two 1024 x 1024 matrices."
        )


if __name__ == "__main__":
    main()
