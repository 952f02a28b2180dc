"""Claim: a local fit costs a fraction of scikit-learn's, in few rows as in many columns.

    python benchmarks/local_fit.py [--repeats 5]

1. Ten plain iterations of ``fit_local`` (``accelerate=False, tol=0``) and of scikit-learn's ``GaussianMixture`` from
   the same start, all checks and the result included.
2. The same in 100 and 150 columns.
3. A fit by default of rows in memory, in 100 columns, and one of scikit-learn from five starts (``n_init=5``), which
   is how many starts a pilot has. Both stop by their own rules; the table shows the mean log-likelihoods that they
   reach.

All take turns, on one thread, with both engines. The tables show medians of CPU milliseconds.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from em_pass import start_of
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnMixture

from dask_dfmr import GaussianMixture, Mixture, fit_local
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import Rows
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

CASES = (
    (1_000, 2, 3, "full", None),
    (5_000, 10, 5, "full", 6.0),
    (20_000, 50, 10, "full", 5.0),
    (5_000, 10, 5, "tied", None),
    (5_000, 10, 5, "diag", None),
)
"""n, d, K, covariance type, and the target: scikit-learn's time over ours."""

WIDE_CASES = (
    (5_000, 100, 5, "full", 1.5),
    (5_000, 100, 5, "tied", 1.5),
    (5_000, 150, 5, "tied", 1.5),
)
"""The same in many columns."""

STARTED_CASES = (
    (12_000, 100, 2, "full", 1.5),
    (10_000, 100, 5, "tied", 1.5),
    (10_000, 150, 5, "tied", 1.5),
)
"""Fits by default beside scikit-learn's with five starts."""

N_ITER, N_STARTS = 10, 5

ENGINES = ("numpy", "numba")


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def wide_mixture(d: int, k: int, covariance_type: str) -> Mixture:
    """Components whose means are a standard deviation and less apart in each of many columns."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(k, d, d)) / np.sqrt(d)
    covariances = factors @ factors.swapaxes(1, 2) + 0.5 * np.eye(d)
    full = Mixture(np.full(k, 1 / k), 0.6 * rng.normal(size=(k, d)), covariances)
    return start_of(full, covariance_type)


def mixture_of(d: int, k: int, covariance_type: str) -> Mixture:
    """The population of a case: of MixSim in few columns."""
    if d > 50:
        return wide_mixture(d, k, covariance_type)
    return start_of(mixsim(k, d, 0.1, seed=1), covariance_type)


def theirs(X: Rows, start: Mixture) -> Any:
    """scikit-learn's fit of ten iterations."""
    is_matrix = start.covariance_type in ("full", "tied")
    precisions = np.linalg.inv(start.covariances) if is_matrix else 1 / start.covariances
    return SklearnMixture(
        start.n_components,
        covariance_type=start.covariance_type,
        tol=0.0,
        max_iter=N_ITER,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=precisions,
        init_params="random_from_data",
    ).fit(X)


def ours(X: Rows, start: Mixture) -> Any:
    """Our local fit of ten plain iterations."""
    return fit_local(
        X,
        start.n_components,
        covariance_type=start.covariance_type,
        start=start,
        tol=0.0,
        max_iter=N_ITER,
        accelerate=False,
        min_rows=2,
    )


def line(case: tuple[Any, ...], seconds: dict[str, list[float]]) -> list[str]:
    """A line of a table: medians, and how many times faster than scikit-learn each engine is."""
    n, d, k, covariance_type, target = case
    by_name = {name: median(times) for name, times in seconds.items()}
    ratios = [f"{by_name['scikit-learn'] / by_name[name]:.1f}" for name in ENGINES]
    return [
        f"({n:,}, {d}, {k}) {covariance_type}",
        *(f"{1e3 * by_name[name]:.1f}" for name in ("scikit-learn", *ENGINES)),
        *ratios,
        "" if target is None else f"{target:g}",
    ]


HEADER = ["(n, d, K)", "scikit-learn ms", "NumPy ms", "numba ms", "NumPy x", "numba x", "target x"]


def plain_row(case: tuple[Any, ...], repeats: int) -> list[str]:
    """One line: ten iterations from the same start."""
    n, d, k, covariance_type, _ = case
    start = mixture_of(d, k, covariance_type)
    X = start.sample(n, np.random.RandomState(0))[0]
    seconds: dict[str, list[float]] = {"scikit-learn": [], "numpy": [], "numba": []}
    for i in range(repeats + 1):
        times = {"scikit-learn": cpu_seconds(lambda: theirs(X, start))}
        for name in ENGINES:
            with engine.use(name):
                times[name] = cpu_seconds(lambda: ours(X, start))
        for name, value in times.items() if i else ():  # the first round warms up
            seconds[name].append(value)
    return line(case, seconds)


def started_row(case: tuple[Any, ...], repeats: int) -> list[str]:
    """One line: fits from several starts, each to its own rule."""
    n, d, k, covariance_type, _ = case
    X = mixture_of(d, k, covariance_type).sample(n, np.random.RandomState(0))[0]
    X = np.random.default_rng(1).permutation(X)
    shape = {"covariance_type": covariance_type, "random_state": 0}
    seconds: dict[str, list[float]] = {"scikit-learn": [], "numpy": [], "numba": []}
    for _ in range(repeats):
        other = SklearnMixture(k, n_init=N_STARTS, **shape)
        seconds["scikit-learn"].append(cpu_seconds(lambda other=other: other.fit(X)))
        for name in ENGINES:
            own = GaussianMixture(k, **shape)
            with engine.use(name):
                seconds[name].append(cpu_seconds(lambda own=own: own.fit(X)))
    bounds = [f"{model.score(X):.4f}" for model in (other, own)]
    return [*line(case, seconds), *bounds]


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    few = max(1, options.repeats // 2)
    with recorded(options), single_threaded_blas():
        print_table(HEADER, [plain_row(case, options.repeats) for case in CASES])
        print_table(HEADER, [plain_row(case, few) for case in WIDE_CASES])
        header = [*HEADER, "log-likelihood, scikit-learn", "ours"]
        print_table(header, [started_row(case, few) for case in STARTED_CASES])


if __name__ == "__main__":
    main()
