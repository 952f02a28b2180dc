"""Claim: a small table in memory is fitted in a few times what scikit-learn takes, grid searches included.

    python benchmarks/small_tables.py [--repeats 15 --searches 3]

1. 1,000 rows in 2 columns, K = 3, in memory: a fit by default, beside one of scikit-learn's ``GaussianMixture``.
2. The grid search of scikit-learn's gallery, "Gaussian Mixture Model Selection": 1 to 6 components by 4 structures of
   the covariances, 5 folds of 1,000 rows in 2 columns, by BIC. It makes 120 fits and one more.

3. Where the time of such a fit goes, on the synchronous scheduler: in the tasks of the graph, in the search for the
   start, and around them. The parts of the search cover its clusterings, EM runs, and swaps of components.

Contestants take turns, on one thread of BLAS, the first two with the scheduler of threads. The tables show medians of
CPU milliseconds or seconds, and what is chosen.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import dask
import numpy as np
from common import StageClock
from mixsim import mixsim
from output import benchmark_parser, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.model_selection import GridSearchCV

from dask_dfmr import GaussianMixture
from dask_dfmr.local import search as searching
from dask_dfmr.mixtures import engine
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

GRID = {
    "n_components": range(1, 7),
    "covariance_type": ["spherical", "tied", "diag", "full"],
}
"""The candidates of the gallery."""

PILOTS = ("read_pilot", "pilot_scale", "fit_pilot", "shortlist")
"""The stages of the search for the start."""

PARTS_OF_SEARCH = {
    "clusterings": (searching.Clusterings, "start"),
    "EM runs": (searching, "run_on"),
    "swaps: densities": (searching.Pool, "of"),
    "swaps: choice": (searching.Pool, "swaps"),
}
"""What the search calls, as the owner and the name of a function."""

SMALL, SEARCH = 15.0, 2.5
"""Targets: CPU milliseconds of a fit, and CPU seconds of the grid search."""


def cpu_seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of one call, in all threads."""
    began = time.process_time()
    function()
    return time.process_time() - began


def small_rows() -> np.ndarray:
    """1,000 rows of three clusters in two columns."""
    return mixsim(3, 2, 0.05, seed=1).sample(1000, np.random.RandomState(0))[0]


def gallery_rows() -> np.ndarray:
    """The rows of the gallery: one skewed and one round cluster of 500 rows each."""
    rng = np.random.RandomState(0)
    skewed = rng.randn(500, 2) @ np.array([[0.0, -0.1], [1.7, 0.4]])
    return np.concatenate([skewed, 0.7 * rng.randn(500, 2) + np.array([-6, 3])])


def bic_score(estimator: Any, X: np.ndarray) -> float:
    """The score of the gallery: minus the BIC."""
    return -float(estimator.bic(X))


def search(estimator: Any) -> GridSearchCV:
    """The search of the gallery, with the estimator of one contestant."""
    return GridSearchCV(estimator, param_grid=GRID, scoring=bic_score).fit(gallery_rows())


def print_fits(repeats: int) -> None:
    """The first table."""
    X = small_rows()
    fits = {
        "scikit-learn": lambda: SklearnMixture(3, random_state=0).fit(X),
        "dask_dfmr, NumPy": lambda: GaussianMixture(3, random_state=0).fit(X),
        "dask_dfmr, numba": lambda: GaussianMixture(3, random_state=0).fit(X),
    }
    found: dict[str, list[float]] = {name: [] for name in fits}
    for i in range(repeats + 1):
        for name, fit in fits.items():
            with engine.use("numba" if name.endswith("numba") else "numpy"):
                seconds = cpu_seconds(fit)
            if i:  # the first round warms up
                found[name].append(1e3 * seconds)
    rows = [[name, f"{median(times):.1f}"] for name, times in found.items()]
    print_table(["1,000 x 2, K = 3", f"CPU ms (at most {SMALL:.0f})"], rows)


def print_searches(n_searches: int) -> None:
    """The second table."""
    estimators = {"scikit-learn": SklearnMixture, "dask_dfmr": GaussianMixture}
    found: dict[str, list[float]] = {name: [] for name in estimators}
    best = {}
    for _ in range(n_searches):
        for name, make in estimators.items():
            began = time.process_time()
            best[name] = search(make(random_state=0)).best_params_
            found[name].append(time.process_time() - began)
    rows = [[name, f"{median(times):.2f}", best[name]] for name, times in found.items()]
    print_table(["grid search, 24 x 5", f"CPU s (at most {SEARCH})", "chosen"], rows)


@contextmanager
def clocked(spent: Counter[str]) -> Iterator[None]:
    """Add the CPU seconds of each part of the search, which calls none of the others."""
    before = {
        name: (owner, call, vars(owner)[call]) for name, (owner, call) in PARTS_OF_SEARCH.items()
    }

    def clock(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            found = function(*args, **kwargs)
            spent[name] += time.process_time() - began
            return found

        return call

    for name, (owner, call, found) in before.items():
        is_class = isinstance(found, classmethod)
        own = clock(name, found.__func__ if is_class else found)
        setattr(owner, call, classmethod(own) if is_class else own)
    try:
        yield
    finally:
        for owner, call, found in before.values():
            setattr(owner, call, found)


def parts_of(X: np.ndarray) -> dict[str, float]:
    """CPU milliseconds of the parts of a fit."""
    inside: Counter[str] = Counter()
    with dask.config.set(scheduler="synchronous"), StageClock() as clock, clocked(inside):
        total = cpu_seconds(lambda: GaussianMixture(3, random_state=0).fit(X))
    stages = clock.cpu
    pilots, fits = sum(stages[stage] for stage in PILOTS), stages["fit_partition"]
    tasks = sum(stages.values())
    parts = {
        "search for the start": pilots,
        **{f"- {name}": inside[name] for name in PARTS_OF_SEARCH},
        "- the rest of it": pilots - sum(inside.values()),
        "local fit": fits,
        "aggregation": tasks - pilots - fits,
        "graph, plan and report": total - tasks,
        "all": total,
    }
    return {name: 1e3 * seconds for name, seconds in parts.items()}


def print_parts(repeats: int) -> None:
    """The third table."""
    X, found = small_rows(), {}
    for name in ("numpy", "numba"):
        with engine.use(name):
            found[name] = [parts_of(X) for _ in range(repeats + 1)][1:]
    names = found["numpy"][0]
    rows = [[n, *(f"{median(p[n] for p in parts):.1f}" for parts in found.values())] for n in names]
    print_table(["part of a fit, CPU ms", "NumPy", "numba"], rows)


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--searches", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with recorded(options), single_threaded_blas():
        print_fits(options.repeats)
        print_searches(options.searches)
        print_parts(options.repeats)


if __name__ == "__main__":
    main()
