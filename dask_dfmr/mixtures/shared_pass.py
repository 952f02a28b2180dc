"""One E step over all rows if all components have one covariance matrix: the rows are whitened once.

With y the white rows about the center of all means and m_k the white means, the scatter of all components together is

    sum_k sum r_k (y - m_k)(y - m_k)^T = sum s y y^T - sum_k (f_k m_k^T + m_k f_k^T - mass_k m_k m_k^T)

with s = sum_k r_k and f_k = sum r_k y: two products of matrices instead of two for each component. Squared lengths are
those of y - m_k themselves, so that nothing cancels in them.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dtrmm

from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import (
    MAX_SQUARED_LENGTH,
    Array,
    EmSums,
    Moments,
    Rows,
    as_block,
    batches,
)

MAX_WHITE_MEAN = 2.0**10
"""Distance of a mean from the center of all means, in standard deviations, up to which the scatter is that of one
product. Its rounding is the square of this distance, 2e-10 of a variance."""

SHARED_BLOCK_FLOATS = 2**15
"""Size of the white rows of a block, 256 kB."""


def shared_pass(
    X: Rows,
    log_weights: Array,
    means: Array,
    inverse_root: Array,
    log_norm: Array,
    cut: tuple[float, bool],
) -> EmSums:
    """The sums over the rows, with the moments of white residuals: second (1, d, d) is that of all components.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    log_weights, means : ndarray of shape (K,), (K, d)
    inverse_root : ndarray of shape (d, d)
        The lower triangular matrix W with white residuals W (x - mu).
    log_norm : ndarray of shape (K,)
        Log-density of each component at its mean.
    cut : (float, bool)
        The largest squared length of a white residual inside, and whether responsibilities are 0 beyond it.
    """
    compiled = engine.compiled()
    about_center = _about_center if compiled is None else compiled.shared_pass
    sums = about_center(X, log_weights, means, inverse_root, log_norm, cut)
    white = (means - means.mean(axis=0)) @ inverse_root.T
    return EmSums(sums.log_likelihood, about_means(sums.moments, white), sums.n_outside)


def about_means(moments: Moments, white: Array) -> Moments:
    """Moments about the center of the means, moved to the white means (K, d) themselves."""
    mass, first, second = moments
    cross = first.T @ white
    own = (mass[:, None] * white).T @ white
    return mass, first - mass[:, None] * white, second - (cross + cross.T - own)


def _about_center(
    X: Rows,
    log_weights: Array,
    means: Array,
    inverse_root: Array,
    log_norm: Array,
    cut: tuple[float, bool],
) -> EmSums:
    """The sums over the rows with moments about the center of the means, computed by NumPy."""
    n_components, d = means.shape
    limit, truncates = cut
    center = means.mean(axis=0)
    white = (means - center) @ inverse_root.T
    mass, first, second = np.zeros(n_components), np.zeros((n_components, d)), np.zeros((d, d))
    log_likelihood, n_outside = 0.0, 0
    for batch in batches(len(X), max(256, SHARED_BLOCK_FLOATS // d)):
        y = _whitened(X[batch], center, inverse_root)
        joint = np.array([_squared_lengths(y - mean) for mean in white])
        np.minimum(joint, MAX_SQUARED_LENGTH, out=joint)
        joint *= -0.5
        is_inside = joint >= -0.5 * limit
        n_outside += len(y) - int(np.count_nonzero(is_inside.any(axis=0)))
        joint += (log_weights + log_norm)[:, None]
        top = joint.max(axis=0)
        r = np.exp(joint - top)
        total = r.sum(axis=0)
        log_likelihood += float((np.log(total) + top).sum())
        r /= total
        if truncates:
            r *= is_inside
            y_counted = y * np.sqrt(r.sum(axis=0))[:, None]
        mass += r.sum(axis=1)
        first += r @ y
        counted = y_counted if truncates else y
        second += counted.T @ counted
    return EmSums(log_likelihood, (mass, first, second[None]), n_outside)


def log_densities(X: Array, means: Array, inverse_root: Array, log_norm: Array) -> Array:
    """Log phi_k(x), shape (n_samples, K); the arguments are those of :func:`shared_pass`."""
    center = means.mean(axis=0)
    white = (means - center) @ inverse_root.T
    of_means = _squared_lengths(white)
    found = np.empty((len(X), len(means)))
    for batch in batches(len(X), max(256, SHARED_BLOCK_FLOATS // means.shape[1])):
        y = _whitened(X[batch], center, inverse_root)
        squares = _squared_lengths(y)[:, None] - 2.0 * (y @ white.T) + of_means
        found[batch] = log_norm - 0.5 * np.minimum(squares, MAX_SQUARED_LENGTH)
    return found


def _whitened(rows: Rows, center: Array, inverse_root: Array) -> Array:
    """White rows (n, d) about a center."""
    columns = np.subtract(as_block(rows), center).T
    white: Array = dtrmm(1.0, inverse_root.T, columns, trans_a=1, overwrite_b=1).T
    return white


def _squared_lengths(y: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.einsum("nd,nd->n", y, y)
