"""Plain EM steps with one covariance matrix for all components, over rows whose scatter is known.

If every row counts, the scatter of all rows about a center is the same at every step. That within components is what
the means leave of it. The squared length of a white residual is one term that all components share, which no
responsibility depends on and whose sum over the rows follows from the scatter, and a term that is linear in the row.
So a step takes two products of the rows with K vectors. A pass over whitened rows takes two with d vectors.

Apart from the rows, all is in coordinates z = W (x - c) in which the scatter of the n rows is n times the identity.
There the covariance of a step is as well conditioned as the means are near to one another, whatever the units of the
columns are and however much they correlate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dpotrf, dtrtri

from dask_dfmr.mixtures.family import (
    LOG_2PI,
    Array,
    EmSteps,
    Labels,
    Prior,
    Rows,
    StepRule,
    as_block,
    batches,
)
from dask_dfmr.mixtures.shared_pass import MAX_WHITE_MEAN, about_means

MOST_SPREAD = 2.0**5
"""Largest mean squared distance of the rows from their center, in standard deviations of a component and per column.
It is the factor by which the rounding of a log-likelihood grows beside a sum of squared residuals."""

LEAST_SPREAD = 2.0**-36
"""Smallest standard deviation of a column, as a share of its mean: below are columns that are constant to rounding."""

PRECISE, MOST_INFLATED = 2.0**7, 1e9
"""Mean inflation of the variances of the columns by their correlation: up to the first one the scatter of the rows is
precise, and up to the second one that of the rows whitened by it. Rounding grows by the inflation, and by its root."""

BLOCK = 2**16
"""Numbers of a block of rows, 512 kB."""


class KnownScatter(NamedTuple):
    """The coordinates z = W (x - c) of some rows in which their scatter about c is their number times the identity.

    ``center`` is c (d,), ``inverse_root`` the lower triangular W (d, d), and ``root`` its inverse.
    """

    center: Array
    root: Array
    inverse_root: Array

    @property
    def log_det(self) -> float:
        """The logarithm of the determinant of the covariance that is the identity in these coordinates."""
        return _log_det(self.root)

    def white(self, means: Array) -> Array:
        """Means (K, d) in these coordinates."""
        return (means - self.center) @ self.inverse_root.T

    def back(self, means: Array) -> Array:
        """Means (K, d) in the coordinates of the rows."""
        return means @ self.root.T + self.center

    def whiten(self, covariance: Array) -> Array:
        """A covariance (d, d) in these coordinates."""
        return _symmetric_product(self.inverse_root, covariance)

    def colour(self, covariance: Array) -> Array:
        """A covariance (d, d) in the coordinates of the rows."""
        return _symmetric_product(self.root, covariance)


class _Point(NamedTuple):
    """A mixture in white coordinates: weights, means, covariance, and the root of the latter with its inverse."""

    weights: Array
    means: Array
    covariance: Array
    root: Array
    inverse_root: Array

    @property
    def spread(self) -> float:
        """Mean squared distance of the rows from their center, in standard deviations."""
        return _square(self.inverse_root)

    def trace(self, covariance: Array) -> float:
        """The trace of a covariance (d, d) times the precision."""
        product = dtrmm(1.0, self.inverse_root, covariance, lower=1)
        return float(np.einsum("ij,ij->", product, self.inverse_root))


# -- the rows --------------------------------------------------------------------------------------


def known_scatter(X: Rows) -> KnownScatter | None:
    """The coordinates of rows (n, d); None if the rows do not determine them precisely."""
    n, d = X.shape
    if n <= d:
        return None
    total = np.zeros(d)
    for x in _blocks(X, np.zeros(d)):
        total += x.sum(axis=0)
    center = total / n
    scatter = _scatter_about(X, center)
    spread = np.sqrt(np.diagonal(scatter) / n)
    if not (spread > LEAST_SPREAD * np.abs(center)).all():
        return None
    found = _roots(scatter / (n * spread[:, None] * spread))
    if found is None or not _square(found[1]) <= MOST_INFLATED * d:
        return None
    root = spread[:, None] * found[0]
    if _square(found[1]) > PRECISE * d:
        found = _roots(_scatter_about(X, center, _inverse(root)) / n)
        if found is None or not _square(found[1]) <= PRECISE * d:
            return None
        root = root @ found[0]
    return _about_origin(center, root)


def _about_origin(center: Array, root: Array) -> KnownScatter:
    """The coordinates about the origin if the rows are not far from it: then no step has to move them."""
    inverse_root = _inverse(root)
    offset = inverse_root @ center
    if offset @ offset > len(center):
        return KnownScatter(center, root, inverse_root)
    root = root @ np.linalg.cholesky(np.eye(len(center)) + np.outer(offset, offset))
    return KnownScatter(np.zeros_like(center), root, _inverse(root))


def _blocks(X: Rows, center: Array) -> Iterator[Array]:
    """Blocks of the rows about a center, each of which lasts until the next one."""
    n, d = X.shape
    step = max(256, BLOCK // d)
    buffer = np.empty((min(step, n), d))
    is_same = not center.any() and X.dtype == np.float64 and X.flags.c_contiguous
    for batch in batches(n, step):
        rows = X[batch]
        # With one buffer no block is new memory, which the allocator of a worker would map and unmap.
        yield as_block(rows) if is_same else np.subtract(rows, center, out=buffer[: len(rows)])


def _scatter_about(X: Rows, center: Array, inverse_root: Array | None = None) -> Array:
    """The scatter (d, d) of the rows about a center, whitened by a root if there is one."""
    scatter = np.zeros((len(center), len(center)))
    for x in _blocks(X, center):
        if inverse_root is not None:
            x = dtrmm(1.0, inverse_root, x.T, lower=1).T
        scatter += x.T @ x
    return scatter


def hard_moments_of_known(
    X: Rows, known: KnownScatter, labels: Labels, means: Array
) -> tuple[Array, Array, Array]:
    """Moments of rows about the means (K, d) of the components that they belong to, as a family has them."""
    n, d = X.shape
    r = (np.arange(len(means))[:, None] == labels).astype(np.float64)
    mass, first, start = r.sum(axis=1), np.zeros_like(means), 0
    for x in _blocks(X, known.center):
        first += r[:, start : start + len(x)] @ x
        start += len(x)
    sums = mass, first @ known.inverse_root.T, n * np.eye(d)[None]
    _, first, second = about_means(sums, known.white(means))
    return mass, first @ known.root.T, known.colour(second[0])[None]


# -- the steps -------------------------------------------------------------------------------------


def steps_of_known(
    X: Rows,
    known: KnownScatter,
    point: tuple[Array, Array, Array],
    prior: Prior,
    rule: StepRule,
    share_between: float,
) -> EmSteps:
    """Make plain EM steps until one gains too little, would not be precise, or there were enough.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    known : KnownScatter
        Of these rows.
    point : (weights, means, covariance)
        Arrays (K,), (K, d) and (d, d).
    prior : Prior
        An open target becomes the covariance within components, and a share of that between them.
    rule : StepRule
    share_between : float

    Returns
    -------
    EmSteps
        Its components are means (K, d) and the covariance (1, d, d). A step is precise if the rows are not too far from
        their center before and after it, in standard deviations. One that is not is not counted. Rows outside are not
        counted either.
    """
    n, d = X.shape
    weights, means, covariance = point
    now = _point(weights, known.white(means), known.whiten(covariance))
    target = known.whiten(prior.target[0]) if prior.target else None
    floor = prior.floor * known.whiten(np.eye(d)) if prior.floor else 0.0
    strength = 2.0 * prior.weight * len(weights)
    found = EmSteps(weights, (), prior, objective=rule.objective)
    while now is not None and not found.has_stopped and found.n_steps < rule.n_most:
        log_likelihood, mass, first = _sums(X, known, now)
        means = np.divide(first, mass[:, None], out=now.means.copy(), where=mass[:, None] > 0)
        within = n * np.eye(d) - _scatter(mass, means)
        if target is None:
            target = (within + share_between * _scatter(mass, means - mass @ means / n)) / n
        log_prior = -0.5 * strength * (now.trace(target) + _log_det(now.root) + known.log_det)
        now = _point(mass / n, means, (within + strength * target) / (n + strength) + floor)
        if now is not None:
            objective = log_likelihood + log_prior
            gain = objective - found.objective
            components, n_steps = (means, now.covariance), found.n_steps + 1
            stops = rule.stops(gain, objective, n * d)
            sums = objective, log_likelihood, gain
            found = EmSteps(now.weights, components, prior, n_steps, *sums, stops)
    if not found.n_steps or target is None:
        return found
    means, covariance = found.components
    components = known.back(means), known.colour(covariance)[None]
    if not prior.target:
        prior = prior._replace(target=(known.colour(target),))
    return found._replace(components=components, prior=prior)


def _scatter(mass: Array, means: Array) -> Array:
    """The scatter (d, d) of means about the origin."""
    scatter: Array = (mass[:, None] * means).T @ means
    return scatter


def _point(weights: Array, means: Array, covariance: Array) -> _Point | None:
    """The mixture with these parameters; None if sums over rows would not be precise under it."""
    roots = _roots(covariance)
    if roots is None:
        return None
    point = _Point(weights, means, covariance, *roots)
    farthest = np.abs(means @ point.inverse_root.T).max()
    is_near = point.spread <= MOST_SPREAD * len(covariance) and farthest <= MAX_WHITE_MEAN
    return point if is_near else None


def _sums(X: Rows, known: KnownScatter, at: _Point) -> tuple[float, Array, Array]:
    """Log-likelihood, the sum of the responsibilities (K,), and that of responsibility times white row (K, d)."""
    n, d = X.shape
    white = at.means @ at.inverse_root.T
    with np.errstate(divide="ignore"):
        log_weights = np.log(at.weights)  # -inf for a component of weight 0, which has no rows
    constants = (log_weights - 0.5 * np.einsum("kd,kd->k", white, white))[:, None]
    # In this layout BLAS multiplies few columns twice as fast.
    linear = np.ascontiguousarray((white @ at.inverse_root @ known.inverse_root).T)
    mass, first = np.zeros(len(white)), np.zeros_like(white)
    in_nats = 0.0
    for x in _blocks(X, known.center):
        r = np.add((x @ linear).T, constants, order="C")
        top = r.max(axis=0)
        r -= top
        np.exp(r, out=r)
        total = r.sum(axis=0)
        in_nats += float((np.log(total) + top).sum())
        r /= total
        mass += r.sum(axis=1)
        first += r @ x
    squares = at.spread + d * LOG_2PI + _log_det(at.root) + known.log_det
    return in_nats - 0.5 * n * squares, mass, first @ known.inverse_root.T


# -- matrices --------------------------------------------------------------------------------------


def _roots(matrix: Array) -> tuple[Array, Array] | None:
    """The lower triangular root of a matrix and its inverse; None if the matrix is not positive definite."""
    root, info = dpotrf(matrix, lower=1)
    return None if info else (root, _inverse(root))


def _inverse(root: Array) -> Array:
    """The inverse of a lower triangular matrix."""
    inverse: Array = dtrtri(root, lower=1)[0]
    return inverse


def _square(matrix: Array) -> float:
    """The sum of the squares."""
    return float(np.einsum("ij,ij->", matrix, matrix))


def _log_det(root: Array) -> float:
    """The logarithm of the determinant of a matrix with this root."""
    return 2.0 * float(np.log(np.diagonal(root)).sum())


def _symmetric_product(factor: Array, matrix: Array) -> Array:
    """F A F^T of a lower triangular F and a symmetric A, symmetric to the last bit."""
    half = dtrmm(1.0, factor, matrix, lower=1)
    product = dtrmm(1.0, factor, half, side=1, lower=1, trans_a=1, overwrite_b=1)
    symmetric: Array = 0.5 * (product + product.T)
    return symmetric
