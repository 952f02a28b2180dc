"""Why no Gaussian can be fitted to rows: constant columns, dependent columns, or columns beyond the range of floats.

These are three different reasons, and each has its own remedy. A reason has a placeholder ``{column j}`` for every
column that it names. With ``reg_covar`` constant and dependent columns can be fitted, as in scikit-learn.
"""

from __future__ import annotations

import numpy as np

from dask_dfmr.mixtures.family import Array, Labels, Rows

LEAST_VARIANCE = 1e-280
"""A column with a smaller variance leaves its components no room above the smallest variance of a mixture."""

ROUNDING_STEPS = 4
"""A column is constant if it spans no more than so many steps of floating point. Constants that were computed in
different ways differ by one or two."""

LEAST_EIGENVALUE = 1e-12
"""Times n_features: rows whose correlation matrix has a smaller eigenvalue are linearly dependent."""

INVOLVED = 1e-3
"""Columns with a smaller part in the direction of the smallest eigenvalue are not named as dependent."""

SHARE_FOR_CONSTANT, SHARE_FOR_DEPENDENT = 1e-3, 1e-6
"""The advised ``reg_covar``, as a share of the smallest variance of another column, or of the largest variance of the
dependent columns."""

ALL_COLUMNS = "all columns"
"""How a reason names them together."""


def degeneracy(X: Rows, covariance: Array, mean: Array, floor: float) -> str | None:
    """Why no component can be fitted, and what to do; None if one can be fitted.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Finite rows.
    covariance : ndarray of shape (n_features, n_features), (n_features,) or ()
        Their sample covariance in the structure of the family.
    mean : ndarray of shape (n_features,)
    floor : float
        ``reg_covar``.
    """
    variances = np.diagonal(covariance) if covariance.ndim == 2 else np.atleast_1d(covariance)
    is_shared = covariance.ndim == 0
    if not floor:
        constant = _constant_columns(X, variances, mean, is_shared)
        if constant.size:
            return _constant(constant, variances, is_shared)
    tiny = np.flatnonzero(variances + floor < LEAST_VARIANCE)
    if tiny.size:
        names = ALL_COLUMNS if is_shared else _names(tiny)
        verb = "varies" if tiny.size == 1 and not is_shared else "vary"
        limit = f"{np.sqrt(LEAST_VARIANCE):.0e}"
        return f"{names} {verb} by less than {limit}, beyond the range of floats; change the unit"
    return _dependence(covariance, floor) if covariance.ndim == 2 else None


def _constant_columns(X: Rows, variances: Array, mean: Array, is_shared: bool) -> Labels:
    """The constant columns; with one variance for all columns none, unless all are constant."""
    spacing = np.spacing(np.abs(mean))
    # The variance is cheap, and rules nearly every column out. It may underflow where the values differ.
    limit = np.maximum((2 * ROUNDING_STEPS * spacing) ** 2, LEAST_VARIANCE)
    suspect = np.flatnonzero(variances <= (limit.max() if is_shared else limit))
    columns = np.arange(len(mean)) if is_shared and suspect.size else suspect
    constant = [j for j in columns if _is_constant(X[:, j])]
    if is_shared and len(constant) < len(mean):
        return np.empty(0, dtype=np.intp)
    return np.array(constant, dtype=np.intp)


def _is_constant(column: Rows) -> bool:
    low, high = float(column.min()), float(column.max())
    return high - low <= ROUNDING_STEPS * float(np.spacing(max(abs(low), abs(high))))


def _constant(columns: Labels, variances: Array, is_shared: bool) -> str:
    is_one = columns.size == 1
    if is_shared or columns.size == len(variances):
        names = f"{_names(columns)} is" if is_one else f"{ALL_COLUMNS} are"
        return f"{names} constant; check where these rows come from"
    others = np.delete(variances, columns)
    others = others[others > LEAST_VARIANCE]
    advised = f", or set reg_covar={SHARE_FOR_CONSTANT * others.min():.0e}" if others.size else ""
    return f"{_names(columns)} {'is' if is_one else 'are'} constant; remove {'it' if is_one else 'them'}{advised}"


def _dependence(covariance: Array, floor: float) -> str | None:
    variances = np.diagonal(covariance)
    scale = np.sqrt(variances + floor)
    total = covariance + floor * np.eye(len(scale))
    values, vectors = np.linalg.eigh(total / np.outer(scale, scale))
    if values[0] >= LEAST_EIGENVALUE * len(values):
        return None
    involved = np.flatnonzero(np.abs(vectors[:, 0]) > INVOLVED)
    advised = SHARE_FOR_DEPENDENT * variances[involved].max()
    return f"{_names(involved)} are linearly dependent; remove one of them, or set reg_covar={advised:.0e}"


def _names(columns: Labels) -> str:
    return ", ".join(f"{{column {j}}}" for j in columns)
