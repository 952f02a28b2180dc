"""Other ways to fit a Gaussian mixture to rows of which some are bad: short versions, for comparisons.

Each one takes all rows together. Starts are k-means on a sample of the rows, without the tenth whose tenth neighbour is
farthest; the best of a few starts by the method's own objective is the result.

- ``scikit-learn``: maximum likelihood on all rows.
- ``noise component``: one more component, uniform on the box of all rows (Banfield & Raftery, Biometrics 49, 1993).
- ``trimming``: in every iteration the rows with the lowest densities are set aside, as many as there are bad ones
  (Neykov et al., Comput. Stat. Data Anal. 52, 2007). The true share is given.
- ``t mixture``: components of Student's t with 4 degrees of freedom (Peel & McLachlan, Stat. Comput. 10, 2000). The
  scale matrices are multiplied by the factor that makes them right for one normal component.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import NearestNeighbors

from dask_dfmr import Mixture

N_STARTS = 3
MOST_PASSES = 200
TOLERANCE = 1e-7
"""Change of the mean objective per row at which an iteration stops."""

STARTING_ROWS = 3000
FREEDOM = 4.0
"""Degrees of freedom of the t mixture."""


class Point(NamedTuple):
    """Parameters of an iteration; ``noise`` is the weight of the uniform component."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    noise: float = 0.0

    def mixture(self, scale: float = 1.0) -> Mixture:
        """The Gaussian components, their covariances multiplied by ``scale``."""
        weights = self.weights / self.weights.sum()
        return Mixture(weights, self.means, scale * self.covariances)


Pass = Callable[[np.ndarray, Point], tuple[float, np.ndarray, np.ndarray, float]]
"""Rows and a point -> objective per row, responsibilities, weights of the rows in means and covariances, noise."""


def fit_rival(name: str, rows: np.ndarray, n_components: int, share: float, seed: int) -> Mixture:
    """The mixture of one of the methods above; ``share`` is the true share of bad rows."""
    if name == "scikit-learn":
        model = SklearnMixture(n_components, n_init=N_STARTS, random_state=seed, max_iter=500)
        return Mixture.from_sklearn(model.fit(rows))
    width = np.ptp(rows, axis=0)
    passes: dict[str, Pass] = {
        "noise component": lambda X, point: _noise_pass(X, point, -np.log(width).sum()),
        "trimming": lambda X, point: _trimming_pass(X, point, share),
        "t mixture": _t_pass,
    }
    noise = 0.1 if name == "noise component" else 0.0
    found = [
        _iterate(rows, _start(rows, n_components, noise, [seed, i]), passes[name])
        for i in range(N_STARTS)
    ]
    _, best = max(found, key=lambda result: result[0])
    return best.mixture(_t_scale(rows.shape[1]) if name == "t mixture" else 1.0)


RIVALS = ("scikit-learn", "noise component", "trimming", "t mixture")


def _start(rows: np.ndarray, n_components: int, noise: float, seed: list[int]) -> Point:
    rng = np.random.default_rng(seed)
    sample = rows[rng.permutation(len(rows))[:STARTING_ROWS]]
    # The middle half of each column sets its unit: bad rows do not.
    unit = np.subtract(*np.percentile(sample, [75, 25], axis=0))
    tenth = NearestNeighbors(n_neighbors=11).fit(sample / unit).kneighbors()[0][:, -1]
    good = sample[tenth <= np.quantile(tenth, 0.9)]
    labels = KMeans(n_components, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(
        good / unit
    )
    groups = [good[labels == k] for k in range(n_components)]
    pooled = np.cov(good.T)
    return Point(
        np.array([len(group) for group in groups]) / len(good) * (1 - noise),
        np.array([group.mean(axis=0) for group in groups]),
        # A thousandth of the pooled covariance keeps a small group from being flat.
        np.array([_scatter(group) + 1e-3 * pooled for group in groups]),
        noise,
    )


def _scatter(group: np.ndarray) -> np.ndarray:
    centered = group - group.mean(axis=0)
    return centered.T @ centered / len(group)


def _iterate(rows: np.ndarray, point: Point, one_pass: Pass) -> tuple[float, Point]:
    """Passes until the objective stands still; the objective and the point."""
    last = -np.inf
    for _ in range(MOST_PASSES):
        objective, responsibilities, row_weights, noise = one_pass(rows, point)
        if objective - last < TOLERANCE:
            break
        last = objective
        masses = responsibilities.sum(axis=0)
        shares = responsibilities * row_weights
        sums = shares.sum(axis=0)
        means = (shares.T @ rows) / sums[:, None]
        covariances = np.empty_like(point.covariances)
        for k, mean in enumerate(means):
            centered = rows - mean
            covariances[k] = (shares[:, k, None] * centered).T @ centered / masses[k]
        covariances += (
            1e-9 * np.trace(covariances, axis1=1, axis2=2)[:, None, None] * np.eye(rows.shape[1])
        )
        point = Point(masses / masses.sum() * (1 - noise), means, covariances, noise)
    return objective, point


def _distances(rows: np.ndarray, point: Point) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to all components (n, k), and half of the log-determinants (k,)."""
    roots = np.linalg.cholesky(point.covariances)
    squares = [
        (solve_triangular(root, (rows - mean).T, lower=True) ** 2).sum(axis=0)
        for root, mean in zip(roots, point.means, strict=True)
    ]
    return np.array(squares).T, np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)


def _log_joint(rows: np.ndarray, point: Point) -> np.ndarray:
    squares, log_dets = _distances(rows, point)
    constant = -0.5 * rows.shape[1] * np.log(2 * np.pi)
    return np.log(point.weights) + constant - log_dets - 0.5 * squares


def _noise_pass(rows: np.ndarray, point: Point, log_uniform: float):
    joint = np.column_stack(
        [_log_joint(rows, point), np.full(len(rows), np.log(point.noise + 1e-300) + log_uniform)]
    )
    total = logsumexp(joint, axis=1)
    responsibilities = np.exp(joint - total[:, None])
    noise = float(responsibilities[:, -1].mean())
    return total.mean(), responsibilities[:, :-1], np.ones((len(rows), 1)), noise


def _trimming_pass(rows: np.ndarray, point: Point, share: float):
    joint = _log_joint(rows, point)
    total = logsumexp(joint, axis=1)
    is_kept = np.zeros(len(rows), dtype=bool)
    is_kept[np.argsort(total)[round(share * len(rows)) :]] = True
    responsibilities = np.exp(joint - total[:, None]) * is_kept[:, None]
    return total[is_kept].mean(), responsibilities, np.ones((len(rows), 1)), 0.0


def _t_pass(rows: np.ndarray, point: Point):
    n_features = rows.shape[1]
    squares, log_dets = _distances(rows, point)
    half = 0.5 * (FREEDOM + n_features)
    constant = gammaln(half) - gammaln(FREEDOM / 2) - 0.5 * n_features * np.log(np.pi * FREEDOM)
    joint = np.log(point.weights) + constant - log_dets - half * np.log1p(squares / FREEDOM)
    total = logsumexp(joint, axis=1)
    row_weights = 2 * half / (FREEDOM + squares)
    return total.mean(), np.exp(joint - total[:, None]), row_weights, 0.0


def _t_scale(n_features: int) -> float:
    """The covariance of normal rows over the scale matrix that a t component has for them."""
    squares = chi2.ppf((np.arange(10_000) + 0.5) / 10_000, n_features)

    def excess(scale: float) -> float:
        row_weights = (FREEDOM + n_features) / (FREEDOM + scale * squares)
        return float((row_weights * scale * squares).mean() - n_features)

    return float(brentq(excess, 0.1, 10.0))
