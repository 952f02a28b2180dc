"""The three shapes of a covariance: a matrix, a vector of variances, one variance.

Everything that depends on the covariance structure stands in one table of these shapes: a matrix (``full``,
``tied``), a vector of variances (``diag``), one variance (``spherical``). Per component, means are (d,) and
covariances (d, d), (d,) or (). ``tied`` is the matrix shape whose update is shared by all components.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dtrtri

from dask_dfmr.mixtures.family import (
    Array,
)

VARIANCE_RANGE = (1e-290, 1e290)
"""Variances beyond these bounds overflow in sums and squares."""

MIN_CORRELATION_EIGENVALUE = 1e-13
"""Times n_features: a correlation matrix with a smaller eigenvalue is singular to rounding. If every matrix
keeps this bound, so does the sum of any two."""

# -- the three shapes of a covariance ------------------------------------------------------------


class MatrixShape:
    """Covariances (..., d, d)."""

    trailing = 2

    @staticmethod
    def n_parameters(n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    @staticmethod
    def project(matrix: Array) -> Array:
        return matrix

    @staticmethod
    def outer(v: Array) -> Array:
        return v[..., :, None] * v[..., None, :]

    @staticmethod
    def times(scale: Array, covariances: Array) -> Array:
        return scale[..., None, None] * covariances

    @staticmethod
    def symmetric(covariances: Array) -> Array:
        return 0.5 * (covariances + np.swapaxes(covariances, -1, -2))

    @staticmethod
    def add_to_diagonal(covariances: Array, value: float) -> Array:
        return covariances + value * np.eye(covariances.shape[-1])

    @staticmethod
    def is_positive(covariances: Array) -> bool:
        variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        if not (np.isfinite(covariances).all() and VectorShape.is_positive(variances)):
            return False
        spread = np.sqrt(variances)
        correlations = covariances / (spread[..., :, None] * spread[..., None, :])
        smallest = np.linalg.eigvalsh(correlations)[..., 0]
        return bool((smallest >= MIN_CORRELATION_EIGENVALUE * covariances.shape[-1]).all())

    @staticmethod
    def root(covariances: Array) -> Array:
        root: Array = np.linalg.cholesky(covariances).astype(np.float64, copy=False)
        return root

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        return 2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        """root^-1 v by forward substitution, vectorised over the leading axes; v (..., d)."""
        y = np.empty(np.broadcast_shapes(root.shape[:-1], v.shape))
        for i in range(v.shape[-1]):
            y[..., i] = (
                v[..., i] - np.einsum("...j,...j->...", root[..., i, :i], y[..., :i])
            ) / root[..., i, i]
        return y

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        return np.einsum("...ij,...j->...i", root, v)

    @staticmethod
    def inverse_root(root: Array) -> Array:
        """W with y = W (x - mu) white: the inverse of the lower triangular root."""
        flat = root.reshape(-1, *root.shape[-2:])
        return np.array([dtrtri(one, lower=1)[0] for one in flat]).reshape(root.shape)

    @staticmethod
    def whiten(columns: Array, means: Array, inverse_root: Array, out: Array | None) -> Array:
        """White residuals (K, d, n) of rows that come as columns (d, n)."""
        y = np.matmul(inverse_root, columns, out=out)
        y -= np.matmul(inverse_root, means[:, :, None])
        return y

    @staticmethod
    def squared_lengths(y: Array, scratch: Array) -> Array:
        """Of residuals (K, d, n), shape (K, n); ``scratch`` is of the shape of y."""
        return np.einsum("kdn,kdn->kn", y, y)

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        """Sums of r y y^T over rows; ``scratch`` is as ``squared_lengths`` left it."""
        np.multiply(y, r[:, None, :], out=scratch)
        return np.matmul(scratch, np.swapaxes(y, -1, -2))

    @staticmethod
    def by_column(inverse_root: Array, n_features: int) -> Array:
        """As the compiled engine takes it."""
        return inverse_root

    @staticmethod
    def from_columns(second: Array) -> Array:
        """As the compiled engine returns it."""
        return second

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        """Moments of white residuals back in the units of the data."""
        return MatrixShape.multiply(root, first), root @ second @ np.swapaxes(root, -1, -2)

    @staticmethod
    def whitened(covariances: Array, inverse_root: Array) -> Array:
        return inverse_root @ covariances @ np.swapaxes(inverse_root, -1, -2)

    @staticmethod
    def coloured(white: Array, root: Array) -> Array:
        return root @ white @ np.swapaxes(root, -1, -2)

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        """tr(B_k^-1 A_i) for all pairs (i, k)."""
        precisions = np.swapaxes(inverse_roots, -1, -2) @ inverse_roots
        return (
            covariances.reshape(len(covariances), n_features**2)
            @ precisions.reshape(len(precisions), n_features**2).T
        )

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        """A symmetric deviation from the identity as a vector in which its Fisher information is the identity."""
        upper = np.triu_indices(n_features, 1)
        deviation = white - np.eye(n_features)
        diagonal = np.diagonal(deviation, axis1=-2, axis2=-1) / np.sqrt(2.0)
        return np.concatenate([diagonal, deviation[..., upper[0], upper[1]]], axis=-1)

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        d = n_features
        upper = np.triu_indices(d, 1)
        white = np.zeros((*packed.shape[:-1], d, d))
        white[..., upper[0], upper[1]] = packed[..., d:]
        white += np.swapaxes(white, -1, -2)
        white[..., np.arange(d), np.arange(d)] = 1.0 + np.sqrt(2.0) * packed[..., :d]
        return white


class VectorShape:
    """Variances (..., d), one per column."""

    trailing = 1

    @staticmethod
    def n_parameters(n_features: int) -> int:
        return n_features

    @staticmethod
    def project(matrix: Array) -> Array:
        return np.diagonal(matrix, axis1=-2, axis2=-1).copy()

    @staticmethod
    def outer(v: Array) -> Array:
        return v * v

    @staticmethod
    def times(scale: Array, covariances: Array) -> Array:
        return scale[..., None] * covariances

    @staticmethod
    def symmetric(covariances: Array) -> Array:
        return covariances

    @staticmethod
    def add_to_diagonal(covariances: Array, value: float) -> Array:
        return covariances + value

    @staticmethod
    def is_positive(covariances: Array) -> bool:
        low, high = VARIANCE_RANGE
        return bool(((covariances >= low) & (covariances <= high)).all())

    @staticmethod
    def root(covariances: Array) -> Array:
        return np.sqrt(covariances)

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        return 2.0 * np.log(root).sum(-1)

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        return v / root

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        return root * v

    @staticmethod
    def inverse_root(root: Array) -> Array:
        return 1.0 / root

    @staticmethod
    def whiten(columns: Array, means: Array, inverse_root: Array, out: Array | None) -> Array:
        y = np.subtract(columns, means[:, :, None], out=out)
        y *= inverse_root[:, :, None]
        return y

    @staticmethod
    def squared_lengths(y: Array, scratch: Array) -> Array:
        np.multiply(y, y, out=scratch)
        return np.matmul(np.ones((1, y.shape[1])), scratch)[:, 0]

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        return np.matmul(scratch, r[:, :, None])[:, :, 0]

    by_column = MatrixShape.by_column
    from_columns = MatrixShape.from_columns

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        return root * first, root**2 * second

    @staticmethod
    def whitened(covariances: Array, inverse_root: Array) -> Array:
        return covariances * inverse_root**2

    @staticmethod
    def coloured(white: Array, root: Array) -> Array:
        return white * root**2

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return covariances @ (inverse_roots**2).T

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        return (white - 1.0) / np.sqrt(2.0)

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        return 1.0 + np.sqrt(2.0) * packed


class ScalarShape:
    """One variance (...) for all columns."""

    trailing = 0

    @staticmethod
    def n_parameters(n_features: int) -> int:
        return 1

    @staticmethod
    def project(matrix: Array) -> Array:
        return np.trace(matrix, axis1=-2, axis2=-1) / matrix.shape[-1]

    @staticmethod
    def outer(v: Array) -> Array:
        return (v * v).sum(-1) / v.shape[-1]

    @staticmethod
    def times(scale: Array, covariances: Array) -> Array:
        return scale * covariances

    symmetric = VectorShape.symmetric
    add_to_diagonal = VectorShape.add_to_diagonal
    is_positive = VectorShape.is_positive
    root = VectorShape.root
    inverse_root = VectorShape.inverse_root
    whitened = VectorShape.whitened
    coloured = VectorShape.coloured

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        return 2.0 * n_features * np.log(root)

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        return v / root[..., None]

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        return root[..., None] * v

    @staticmethod
    def whiten(columns: Array, means: Array, inverse_root: Array, out: Array | None) -> Array:
        y = np.subtract(columns, means[:, :, None], out=out)
        y *= inverse_root[:, None, None]
        return y

    squared_lengths = VectorShape.squared_lengths

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        return VectorShape.second(y, r, scratch).mean(axis=-1)

    @staticmethod
    def by_column(inverse_root: Array, n_features: int) -> Array:
        return np.repeat(inverse_root[:, None], n_features, axis=1)

    @staticmethod
    def from_columns(second: Array) -> Array:
        return second.mean(axis=-1)

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        return root[:, None] * first, root**2 * second

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return n_features * covariances[:, None] * (inverse_roots**2)[None, :]

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        return ((white - 1.0) * np.sqrt(n_features / 2.0))[..., None]

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        return 1.0 + packed[..., 0] / np.sqrt(n_features / 2.0)


SHAPES: dict[str, type[MatrixShape] | type[VectorShape] | type[ScalarShape]] = {
    "full": MatrixShape,
    "tied": MatrixShape,
    "diag": VectorShape,
    "spherical": ScalarShape,
}
