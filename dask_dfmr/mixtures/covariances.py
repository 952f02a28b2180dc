"""Covariance structures: a matrix, a vector of variances, or one variance.

All mathematics that depends on the covariance structure of a Gaussian is here, as one class per shape that implements
:class:`CovarianceShape`. Covariances of one component are (d, d) for ``full`` and ``tied``, (d,) for ``diag`` and ()
for ``spherical``. ``tied`` has the matrix shape; its update is shared by all components. :data:`SHAPES` maps
scikit-learn's names to the classes. The last section checks covariances that come from outside.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.linalg.lapack import dtrtri

from dask_dfmr.mixtures.family import Array, Labels

VARIANCE_RANGE = (1e-290, 1e290)
"""Variances beyond these bounds overflow or vanish in sums and squares."""

MIN_CORRELATION_EIGENVALUE = 1e-13
"""Times n_features: a correlation matrix with a smaller eigenvalue is singular to rounding. If every matrix keeps
this bound, so does the sum of any two."""

ASYMMETRY_TOLERANCE = 1e-8
"""A covariance may differ from its transpose by this share of its largest entry."""

LEAST_TRIANGULAR = 50
"""From so many columns on, products use that a matrix is triangular, or that both factors are one array. Measured for
256 rows: of 30 columns such a product takes 1.3 to 1.6 times as long as a plain one, of 60 .8 to 1 times, of 100 .67 to
.7 times."""


def least_eigenvalue(n_features: int) -> float:
    """Lower bound of the eigenvalues of a regular correlation matrix."""
    return MIN_CORRELATION_EIGENVALUE * n_features


# -- the contract ----------------------------------------------------------------------------------


class CovarianceShape(Protocol):
    """What the Gaussian family needs of a covariance structure.

    ``...`` stands for any leading axes, ``c`` for the axes of one covariance: (d, d), (d,) or (). A *root* L has
    L L^T = Sigma and the shape of the covariance. *White* are values in coordinates L^-1 (x - mu). K is the number of
    components, d the number of columns, n the number of rows.
    """

    @staticmethod
    def n_parameters(n_features: int) -> int:
        """Free parameters of one covariance."""

    @staticmethod
    def project(matrix: Array) -> Array:
        """A matrix (..., d, d) in this shape (..., c): itself, its diagonal, or its trace / d."""

    @staticmethod
    def outer(v: Array) -> Array:
        """The outer product v v^T of vectors (..., d), projected to (..., c)."""

    @staticmethod
    def times(scale: Array, covariances: Array) -> Array:
        """Covariances (..., c) times one number (...) each."""

    @staticmethod
    def symmetric(covariances: Array) -> Array:
        """Covariances without the asymmetry that rounding leaves."""

    @staticmethod
    def add_to_diagonal(covariances: Array, value: float) -> Array:
        """Covariances with ``value`` added to every variance."""

    @staticmethod
    def is_positive(covariances: Array) -> bool:
        """Whether all covariances are finite and positive definite to rounding."""

    # -- factors ----------------------------------------------------------------------------------

    @staticmethod
    def root(covariances: Array) -> Array:
        """Lower triangular roots L, or standard deviations."""

    @staticmethod
    def inverse_root(root: Array) -> Array:
        """Inverse roots W = L^-1: the vectors W (x - mu) are white."""

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        """Log-determinants of the covariances, shape (...)."""

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        """L^-1 v for vectors (..., d)."""

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        """L v for vectors (..., d)."""

    @staticmethod
    def whitened(covariances: Array, inverse_root: Array) -> Array:
        """W Sigma W^T: covariances in white coordinates."""

    @staticmethod
    def coloured(white: Array, root: Array) -> Array:
        """L A L^T: the inverse of :meth:`whitened`."""

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        """tr(B_k^-1 A_i) of all pairs, shape (n_a, n_b), for covariances A and the inverse roots of B."""

    @staticmethod
    def own_trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        """tr(B_k^-1 A_k) of matching pairs, shape (K,): the diagonal of :meth:`trace_ratio`."""

    # -- rows --------------------------------------------------------------------------------------

    @staticmethod
    def whiten(columns: Array, means: Array, inverse_root: Array, out: Array | None) -> Array:
        """White residuals (K, d, n) of transposed rows (d, n) from means (K, d)."""

    @staticmethod
    def squared_lengths(y: Array, scratch: Array) -> Array:
        """Squared lengths (K, n) of residuals y (K, d, n); ``scratch`` has the shape of y and may be overwritten."""

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        """Sums over rows of r y y^T, shape (K, c), for responsibilities r (K, n).

        ``scratch`` must be as :meth:`squared_lengths` left it for the same y.
        """

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        """First and second moments of white residuals in the units of the data."""

    # -- the compiled engine -----------------------------------------------------------------------

    @staticmethod
    def by_column(covariances: Array, n_features: int) -> Array:
        """Covariances or inverse roots as the compiled engine takes them: (K, d, d) or (K, d)."""

    @staticmethod
    def from_columns(second: Array) -> Array:
        """Second moments from the compiled engine, (K, d, d) or (K, d), in this shape."""

    @staticmethod
    def from_flat(flat: Array, n_features: int) -> Array:
        """Covariances that :meth:`by_column` made flat, (K, d * d) or (K, d), in this shape."""

    # -- coordinates -------------------------------------------------------------------------------

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        """White covariances as vectors (..., n_parameters) of deviations from the identity.

        In these coordinates the Fisher information of one row about the covariance is the identity.
        """

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        """The inverse of :meth:`pack`."""

    # -- columns -----------------------------------------------------------------------------------

    @staticmethod
    def with_columns(covariances: Array, order: Labels, scale: Array) -> Array | None:
        """Covariances of scale * x[order], for ``order`` and ``scale`` (d,); None if they have another shape."""


# -- the three shapes ------------------------------------------------------------------------------


class MatrixShape(CovarianceShape):
    """Covariance matrices (..., d, d)."""

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
        # Less the bound a factor exists if all eigenvalues are larger, and it costs less than they do.
        d = covariances.shape[-1]
        correlations -= least_eigenvalue(d) * np.eye(d)
        try:
            np.linalg.cholesky(correlations)
        except np.linalg.LinAlgError:
            return False
        return True

    @staticmethod
    def root(covariances: Array) -> Array:
        root: Array = np.linalg.cholesky(covariances).astype(np.float64, copy=False)
        return root

    @staticmethod
    def inverse_root(root: Array) -> Array:
        flat = root.reshape(-1, *root.shape[-2:])
        return np.array([dtrtri(one, lower=1)[0] for one in flat]).reshape(root.shape)

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        return 2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        # Forward substitution, vectorised over the leading axes.
        y = np.empty(np.broadcast_shapes(root.shape[:-1], v.shape))
        for i in range(v.shape[-1]):
            known = np.einsum("...j,...j->...", root[..., i, :i], y[..., :i])
            y[..., i] = (v[..., i] - known) / root[..., i, i]
        return y

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        return np.matmul(root, v[..., None])[..., 0]

    @staticmethod
    def whitened(covariances: Array, inverse_root: Array) -> Array:
        return inverse_root @ covariances @ np.swapaxes(inverse_root, -1, -2)

    @staticmethod
    def coloured(white: Array, root: Array) -> Array:
        return root @ white @ np.swapaxes(root, -1, -2)

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        precisions = np.swapaxes(inverse_roots, -1, -2) @ inverse_roots
        return (
            covariances.reshape(len(covariances), n_features**2)
            @ precisions.reshape(len(precisions), n_features**2).T
        )

    @staticmethod
    def own_trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return np.einsum("kij,kij->k", inverse_roots @ covariances, inverse_roots)

    @staticmethod
    def whiten(columns: Array, means: Array, inverse_root: Array, out: Array | None) -> Array:
        if len(columns) < LEAST_TRIANGULAR:
            y = np.matmul(inverse_root, columns, out=out)
        else:
            y = np.empty((*means.shape, columns.shape[1])) if out is None else out
            y[:] = columns
            for root, rows in zip(inverse_root, y, strict=True):
                product = dtrmm(1.0, root.T, rows.T, side=1, overwrite_b=1)
                if product.base is not rows.base:
                    rows[:] = product.T
        y -= np.matmul(inverse_root, means[:, :, None])
        return y

    @staticmethod
    def squared_lengths(y: Array, scratch: Array) -> Array:
        return np.einsum("kdn,kdn->kn", y, y)

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        if y.shape[1] < LEAST_TRIANGULAR:
            np.multiply(y, r[:, None, :], out=scratch)
            return np.matmul(scratch, np.swapaxes(y, -1, -2))
        np.multiply(y, np.sqrt(r)[:, None, :], out=scratch)
        return np.matmul(scratch, np.swapaxes(scratch, -1, -2))

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        return MatrixShape.multiply(root, first), root @ second @ np.swapaxes(root, -1, -2)

    @staticmethod
    def by_column(covariances: Array, n_features: int) -> Array:
        return covariances

    @staticmethod
    def from_columns(second: Array) -> Array:
        return second

    @staticmethod
    def from_flat(flat: Array, n_features: int) -> Array:
        return flat.reshape(len(flat), n_features, n_features)

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        diagonal = (np.diagonal(white, axis1=-2, axis2=-1) - 1.0) / np.sqrt(2.0)
        flat = white.reshape(*white.shape[:-2], n_features**2)
        return np.concatenate([diagonal, flat[..., _above_diagonal(n_features)]], axis=-1)

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        d, leading = n_features, packed.shape[:-1]
        flat = np.zeros((*leading, d * d))
        flat[..., _above_diagonal(d)] = packed[..., d:]
        white = flat.reshape(*leading, d, d)
        white += np.swapaxes(white, -1, -2)
        flat[..., :: d + 1] = 1.0 + np.sqrt(2.0) * packed[..., :d]
        return white

    @staticmethod
    def with_columns(covariances: Array, order: Labels, scale: Array) -> Array | None:
        return covariances[..., order[:, None], order] * np.outer(scale, scale)


@cache
def _above_diagonal(d: int) -> Labels:
    """Positions of the entries above the diagonal in the flat matrix. To find them takes longer than to use them."""
    rows, columns = np.triu_indices(d, 1)
    return rows * d + columns


class VectorShape(CovarianceShape):
    """Variances (..., d), one per column."""

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
    def inverse_root(root: Array) -> Array:
        return 1.0 / root

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
    def whitened(covariances: Array, inverse_root: Array) -> Array:
        return covariances * inverse_root**2

    @staticmethod
    def coloured(white: Array, root: Array) -> Array:
        return white * root**2

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return covariances @ (inverse_roots**2).T

    @staticmethod
    def own_trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return (covariances * inverse_roots**2).sum(axis=-1)

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

    @staticmethod
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        return root * first, root**2 * second

    by_column = MatrixShape.by_column
    from_columns = MatrixShape.from_columns

    @staticmethod
    def from_flat(flat: Array, n_features: int) -> Array:
        return flat

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        return (white - 1.0) / np.sqrt(2.0)

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        return 1.0 + np.sqrt(2.0) * packed

    @staticmethod
    def with_columns(covariances: Array, order: Labels, scale: Array) -> Array | None:
        return covariances[..., order] * scale**2


class ScalarShape(CovarianceShape):
    """One variance (...) for all columns."""

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

    @staticmethod
    def log_det(root: Array, n_features: int) -> Array:
        return 2.0 * n_features * np.log(root)

    @staticmethod
    def solve(root: Array, v: Array) -> Array:
        return v / root[..., None]

    @staticmethod
    def multiply(root: Array, v: Array) -> Array:
        return root[..., None] * v

    whitened = VectorShape.whitened
    coloured = VectorShape.coloured

    @staticmethod
    def trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return n_features * covariances[:, None] * (inverse_roots**2)[None, :]

    @staticmethod
    def own_trace_ratio(covariances: Array, inverse_roots: Array, n_features: int) -> Array:
        return n_features * covariances * inverse_roots**2

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
    def colour(first: Array, second: Array, root: Array) -> tuple[Array, Array]:
        return root[:, None] * first, root**2 * second

    @staticmethod
    def by_column(covariances: Array, n_features: int) -> Array:
        return np.repeat(covariances[:, None], n_features, axis=1)

    @staticmethod
    def from_columns(second: Array) -> Array:
        return second.mean(axis=-1)

    @staticmethod
    def from_flat(flat: Array, n_features: int) -> Array:
        return flat[:, 0]

    @staticmethod
    def pack(white: Array, n_features: int) -> Array:
        return ((white - 1.0) * np.sqrt(n_features / 2.0))[..., None]

    @staticmethod
    def unpack(packed: Array, n_features: int) -> Array:
        return 1.0 + packed[..., 0] / np.sqrt(n_features / 2.0)

    @staticmethod
    def with_columns(covariances: Array, order: Labels, scale: Array) -> Array | None:
        return covariances * scale[0] ** 2 if np.ptp(np.abs(scale)) == 0 else None


SHAPES: dict[str, type[CovarianceShape]] = {
    "full": MatrixShape,
    "diag": VectorShape,
    "tied": MatrixShape,
    "spherical": ScalarShape,
}
"""The class of each covariance type."""


# -- checks of covariances from outside ------------------------------------------------------------


def check_shape(
    covariances: Array, covariance_type: str, n_components: int, n_features: int
) -> None:
    """Raise ValueError unless the array has scikit-learn's shape for this covariance type."""
    expected = {
        "full": (n_components, n_features, n_features),
        "diag": (n_components, n_features),
        "tied": (n_features, n_features),
        "spherical": (n_components,),
    }[covariance_type]
    if covariances.shape != expected:
        raise ValueError(
            f"covariances of type {covariance_type!r} must have the shape {expected}; got {covariances.shape}."
        )


def as_symmetric(covariances: Array) -> Array:
    """Covariance matrices (d, d) or (K, d, d) without the asymmetry that rounding leaves.

    Raises
    ------
    ValueError
        If a matrix differs from its transpose by more than rounding.
    """
    transposed = np.swapaxes(covariances, -1, -2)
    asymmetry = np.abs(covariances - transposed).max(axis=(-2, -1))
    bad = asymmetry > ASYMMETRY_TOLERANCE * np.abs(covariances).max(axis=(-2, -1))
    if bad.any():
        label = "covariances" if covariances.ndim == 2 else f"covariances[{bad.argmax()}]"
        raise ValueError(
            f"{label} must be symmetric; it differs from its transpose by {asymmetry.max():.3g}."
        )
    return 0.5 * covariances + 0.5 * transposed


def check_positive(covariances: Array, covariance_type: str) -> None:
    """Raise ValueError unless all covariances are positive definite to rounding, within the range of variances."""
    shape = SHAPES[covariance_type]
    is_tied = covariance_type == "tied"
    stack = covariances[None] if is_tied else covariances
    if shape.is_positive(stack):
        return
    k = next(k for k in range(len(stack)) if not shape.is_positive(stack[k : k + 1]))
    label = "covariances" if is_tied else f"covariances[{k}]"
    is_matrix = shape is MatrixShape
    values = np.linalg.eigvalsh(stack[k]) if is_matrix else np.atleast_1d(stack[k])
    if values.min() <= 0:
        what = "smallest eigenvalue" if is_matrix else "smallest variance"
        raise ValueError(f"{label} must be positive definite; its {what} is {values.min():.3g}.")
    raise ValueError(
        f"{label} must have variances from {VARIANCE_RANGE[0]:g} to {VARIANCE_RANGE[1]:g} and be regular to "
        f"rounding; its eigenvalues reach from {values.min():.3g} to {values.max():.3g}. Rescale the columns."
    )
