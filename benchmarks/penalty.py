"""Claim: the default penalty costs no more than scikit-learn's plain likelihood, on tight clusters too.

    python benchmarks/penalty.py [--draws 2] [--only tight]

Twelve partitions of each family are fitted, all of them clean. The table shows the held-out log-likelihood in nats per
row, less that of scikit-learn's ``GaussianMixture`` on all rows together (best of three starts), averaged over the
draws. The columns are three penalties:

- auto: the covariance within each component as the start divides the rows, with one row of the pooled one added, and
  the weight 1 / n;
- pooled: the covariance within components, one for all of them, and the weight 1 / n;
- paper: the covariance of all rows, and the weight n ** -0.5.

Families: ten round clusters far apart (standard deviation .02, or .002, in a range of 50); four clusters whose standard
deviations are .05, .5, 8 and 100; overlapping Gaussians; heavy tails (t with 3 degrees of freedom); skewed counts; zero
inflated columns, where the likelihood is unbounded and a gain over scikit-learn means nothing.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import dask
import numpy as np
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

from dask_dfmr import GaussianMixture
from dask_dfmr.mixtures.gaussian import Gaussian

M, N_TEST = 12, 6000

Draw = Callable[[np.random.Generator, int], np.ndarray]


class Setting(NamedTuple):
    """One line of the table."""

    name: str
    draw: Draw
    n_components: int
    n_rows: int
    covariance_type: str = "full"


def tight(spread: float, n_features: int, rng: np.random.Generator, n: int) -> np.ndarray:
    """Ten round clusters."""
    centers = np.random.default_rng(5).uniform(0, 50, size=(10, n_features))
    return centers[rng.integers(10, size=n)] + spread * rng.normal(size=(n, n_features))


def unlike(rng: np.random.Generator, n: int) -> np.ndarray:
    """Four clusters of very unlike spread."""
    centers = np.array([[0, 0, 0], [3, 1, 0], [40, -30, 20], [200, 300, -100]], dtype=float)
    y = rng.choice(4, p=[0.4, 0.3, 0.2, 0.1], size=n)
    return centers[y] + np.array([0.05, 0.5, 8, 100])[y, None] * rng.normal(size=(n, 3))


def overlapping(rng: np.random.Generator, n: int) -> np.ndarray:
    """Three Gaussians 2.5 standard deviations apart."""
    centers = np.array([[0, 0, 0], [2.5, 0, 0], [0, 2.5, 1]])
    return centers[rng.choice(3, p=[0.5, 0.3, 0.2], size=n)] + rng.normal(size=(n, 3))


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Columns of Student's t."""
    return rng.standard_t(3, size=(n, 3))


def counts(rng: np.random.Generator, n: int) -> np.ndarray:
    """Counts that depend on one skewed activity."""
    activity = rng.gamma(0.6, 300, size=n)
    rates = (0.2 * activity + 1, 0.05 * activity + 2, activity + 0.5)
    return np.column_stack([rng.poisson(rate) for rate in rates]).astype(float)


def zero_inflated(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two of three columns are exactly 0 in a share of the rows."""
    X = rng.normal(size=(n, 3)) + np.array([3, 0, 1])
    X[:, 1] = np.where(rng.random(n) < 0.4, 0, np.abs(X[:, 1]) + 0.3 * X[:, 0])
    X[:, 2] = np.where(rng.random(n) < 0.2, 0, X[:, 2])
    return X


SETTINGS = (
    Setting("tight", partial(tight, 0.02, 2), 10, 1000),
    Setting("tight", partial(tight, 0.02, 2), 10, 200),
    Setting("tight, 3 columns", partial(tight, 0.02, 3), 10, 200),
    Setting("tight", partial(tight, 0.02, 2), 10, 200, "diag"),
    Setting("tight", partial(tight, 0.02, 2), 10, 200, "tied"),
    Setting("tight", partial(tight, 0.02, 2), 10, 200, "spherical"),
    Setting("tighter", partial(tight, 0.002, 2), 10, 300),
    Setting("unlike", unlike, 4, 400),
    Setting("unlike", unlike, 4, 150),
    Setting("overlapping", overlapping, 3, 400),
    Setting("overlapping", overlapping, 3, 60),
    Setting("heavy tails", heavy, 3, 400),
    Setting("heavy tails", heavy, 3, 150),
    Setting("skewed counts", counts, 3, 400),
    Setting("zero-inflated", zero_inflated, 3, 400),
)


def pooled_target(family: Gaussian, moments: tuple, reference: tuple) -> tuple:  # type: ignore[type-arg]
    """In place of :meth:`Gaussian.within_target`: the covariance within components, the same for all."""
    components = family.from_moments(moments, reference)
    covariances = components[1]
    return (np.tensordot(moments[0] / moments[0].sum(), covariances, axes=1),)


def lost(setting: Setting, draw: int) -> dict[str, float]:
    """Held-out nats per row above scikit-learn's, by penalty."""
    rngs = [np.random.default_rng((draw, i)) for i in range(M + 1)]
    parts = [setting.draw(rng, setting.n_rows) for rng in rngs[:M]]
    test = setting.draw(rngs[M], N_TEST)
    k, kind = setting.n_components, setting.covariance_type
    twin = SklearnGaussianMixture(k, covariance_type=kind, n_init=3, random_state=0)
    reference = twin.fit(np.concatenate(parts)).score(test)
    found = {}
    usual = Gaussian.within_target
    for name, penalty in (("auto", "auto"), ("pooled", "auto"), ("paper", "paper")):
        Gaussian.within_target = pooled_target if name == "pooled" else usual  # type: ignore[method-assign]
        gm = GaussianMixture(k, covariance_type=kind, penalty=penalty, random_state=draw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = gm.fit([dask.delayed(rows) for rows in parts]).score(test) - reference
    Gaussian.within_target = usual  # type: ignore[method-assign]
    return found


def line(setting: Setting, n_draws: int) -> list[object]:
    """One line of the table."""
    found = [lost(setting, draw) for draw in range(n_draws)]
    print_progress(f"{setting.name} {setting.n_rows} {setting.covariance_type}")
    means = [f"{np.mean([f[name] for f in found]):+.3f}" for name in ("auto", "pooled", "paper")]
    return [setting.name, setting.covariance_type, setting.n_rows, *means]


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = benchmark_parser(__doc__)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--only", help="families whose names begin with this")
    options = parser.parse_args()
    chosen = [s for s in SETTINGS if s.name.startswith(options.only or "")]
    with recorded(options), dask.config.set(scheduler="synchronous"):
        print(
            f"{M} clean partitions; nats per held-out row above scikit-learn's fit of all rows:\n"
        )
        header = ["rows", "structure", "rows a partition", "auto", "pooled", "paper"]
        print_table(header, [line(setting, options.draws) for setting in chosen])


if __name__ == "__main__":
    main()
