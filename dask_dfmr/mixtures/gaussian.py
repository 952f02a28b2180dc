"""Gaussian components with full, diagonal, spherical or tied covariances.

Everything that depends on the covariance structure stands in one table of three *shapes*: a matrix
(``full``, ``tied``), a vector of variances (``diag``), one variance (``spherical``). Per component,
means are (d,) and covariances (d, d), (d,) or (). ``tied`` is the matrix shape whose update is
shared by all components.

Moments are taken about the means of a reference, never about zero, so nothing cancels when the data
lie far from the origin: mass = sum r, first = sum r (x - mu), second = sum r (x - mu)(x - mu)^T,
the last in the shape of the structure (its diagonal, its trace / d).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.lapack import dtrtri
from scipy.special import softmax

from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures.family import (
    BLOCK_FLOATS,
    FARTHEST,
    LOG_2PI,
    Array,
    Components,
    Labels,
    Moments,
    Prior,
    Rows,
    as_block,
)

EM_BLOCK_FLOATS = 2**15
"""Size of the two arrays of residuals that a pass of EM works in, 256 kB each."""

PAIR_FLOATS = 2**18
"""Size of the temporaries of a kernel over pairs of components, 2 MB."""

MAX_MEAN, VARIANCE_RANGE = 1e145, (1e-290, 1e290)
"""Parameters beyond these bounds overflow in sums and squares."""

MIN_CORRELATION_EIGENVALUE = 1e-13
"""Times n_features: a correlation matrix with a smaller eigenvalue is singular to rounding. If every matrix
keeps this bound, so does the sum of any two."""

LEAST_WEIGHT = 1e-12
"""Weight that a component without rows counts as in coordinates, which divide by it."""

COVARIANCE_TYPES = ("full", "diag", "tied", "spherical")


# -- the three shapes of a covariance ------------------------------------------------------------


class _Matrix:
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
        if not (np.isfinite(covariances).all() and _Vector.is_positive(variances)):
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
        return _Matrix.multiply(root, first), root @ second @ np.swapaxes(root, -1, -2)

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


class _Vector:
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

    by_column = _Matrix.by_column
    from_columns = _Matrix.from_columns

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


class _Scalar:
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

    symmetric = _Vector.symmetric
    add_to_diagonal = _Vector.add_to_diagonal
    is_positive = _Vector.is_positive
    root = _Vector.root
    inverse_root = _Vector.inverse_root
    whitened = _Vector.whitened
    coloured = _Vector.coloured

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

    squared_lengths = _Vector.squared_lengths

    @staticmethod
    def second(y: Array, r: Array, scratch: Array) -> Array:
        return _Vector.second(y, r, scratch).mean(axis=-1)

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


_SHAPES: dict[str, type[_Matrix] | type[_Vector] | type[_Scalar]] = {
    "full": _Matrix,
    "tied": _Matrix,
    "diag": _Vector,
    "spherical": _Scalar,
}


# -- the family ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian family with one covariance structure; see :class:`dask_dfmr.mixtures.family.Family` for the contract.

    Parameters
    ----------
    covariance_type : {"full", "diag", "tied", "spherical"}
        As in scikit-learn. ``components`` are ``(means, covariances)`` with the component axis in
        front of both, for ``tied`` too.
    """

    covariance_type: str = "full"

    @property
    def name(self) -> str:
        return f"gaussian-{self.covariance_type}"

    @property
    def _shape(self) -> type[_Matrix] | type[_Vector] | type[_Scalar]:
        return _SHAPES[self.covariance_type]

    @property
    def _is_tied(self) -> bool:
        return self.covariance_type == "tied"

    def n_parameters(self, n_components: int, n_features: int) -> int:
        n_covariances = 1 if self._is_tied else n_components
        return (
            n_components
            - 1
            + n_components * n_features
            + n_covariances * self._shape.n_parameters(n_features)
        )

    def n_features(self, components: Components) -> int:
        return int(components[0].shape[-1])

    # -- densities --------------------------------------------------------------------------------

    def sample(
        self, n_samples: int, weights: Array, components: Components, rng: Any
    ) -> tuple[Array, Labels]:
        counts = rng.multinomial(n_samples, weights / weights.sum())
        y = np.repeat(np.arange(len(weights)), counts)
        means, covariances = components
        white = rng.standard_normal((n_samples, means.shape[-1]))
        return means[y] + self._shape.multiply(self._shape.root(covariances)[y], white), y

    def log_density(self, X: Array, components: Components) -> Array:
        means, covariances = components
        root = self._shape.root(covariances)
        y = self._white_residuals(X, means, self._shape.inverse_root(root))
        log_norm = self._log_norm(root, means.shape[-1])
        return self._log_density(y, np.empty_like(y), log_norm).T

    def _white_residuals(
        self, X: Rows, means: Array, inverse_root: Array, out: Array | None = None
    ) -> Array:
        """Residuals (K, d, n): with the rows last, the inner loops of NumPy are long."""
        # A product may be split in two: centered, its halves are of the size of the residuals.
        center = means.mean(axis=0)
        columns = np.subtract(X.T, center[:, None], order="C")
        return self._shape.whiten(columns, means - center, inverse_root, out)

    def _log_density(self, y: Array, scratch: Array, log_norm: Array) -> Array:
        with np.errstate(over="ignore"):
            joint = self._shape.squared_lengths(y, scratch)
        # Farther than floating point can tell from every component is equally far from all: no NaN.
        np.minimum(joint, FARTHEST, out=joint)
        joint *= -0.5
        joint += log_norm[:, None]
        return joint

    def _log_norm(self, root: Array, n_features: int) -> Array:
        """Log density at the mean."""
        return -0.5 * (n_features * LOG_2PI + self._shape.log_det(root, n_features))

    def log_product_integral(
        self, a: Components, b: Components, floor: tuple[Array, Array] | None = None
    ) -> Array:
        """Log N(mu_i; nu_j, Sigma_i + Omega_j): the product integral of two Gaussian densities."""
        compiled = engine.compiled()
        if compiled is not None:
            n_features = a[0].shape[-1]
            a, b = ((m, self._shape.by_column(c, n_features)) for m, c in (a, b))
            return compiled.log_product_integral(a, b, floor)
        with np.errstate(over="ignore"):  # infinitely far apart is -inf
            return self._log_product_integral(a, b)

    def _log_product_integral(self, a: Components, b: Components) -> Array:
        means_a, covariances_a = a
        means_b, covariances_b = b
        n_features = means_a.shape[-1]
        out = np.empty((len(means_a), len(means_b)))
        floats_a_row = len(means_b) * max(covariances_b[0].size, n_features)
        step = max(1, PAIR_FLOATS // floats_a_row)
        for i in range(0, len(means_a), step):
            s = slice(i, i + step)
            root = self._shape.root(covariances_a[s, None] + covariances_b[None, :])
            y = self._shape.solve(root, means_a[s, None] - means_b[None, :])
            log_det = self._shape.log_det(root, n_features)
            out[s] = -0.5 * (n_features * LOG_2PI + log_det + np.einsum("ijd,ijd->ij", y, y))
        return out

    # -- mixture reduction ------------------------------------------------------------------------

    def divergence(self, a: Components, b: Components) -> Array:
        """KL(N_i || N_k) = 1/2 { tr(B^-1 A) - d + (mu - nu)^T B^-1 (mu - nu) + log det B - log det A }."""
        with np.errstate(over="ignore"):  # infinitely far apart is inf
            return self._divergence(a, b)

    def _divergence(self, a: Components, b: Components) -> Array:
        means_a, covariances_a = a
        means_b, covariances_b = b
        n_features = means_a.shape[-1]
        root_a, root_b = self._shape.root(covariances_a), self._shape.root(covariances_b)
        inverse_b = self._shape.inverse_root(root_b)
        traces = self._shape.trace_ratio(covariances_a, inverse_b, n_features)
        y = self._white_residuals(means_a, means_b, inverse_b)
        mahalanobis = np.einsum("kdn,kdn->nk", y, y)
        log_dets = (
            self._shape.log_det(root_b, n_features)[None]
            - self._shape.log_det(root_a, n_features)[:, None]
        )
        return np.maximum(0.5 * (traces - n_features + mahalanobis + log_dets), 0.0)

    def pooled_moments(
        self, weights: Array, components: Components, labels: Labels, reference: Components
    ) -> Moments:
        means, covariances = components
        n_components = len(reference[0])
        shift = means - reference[0][labels]
        mass, first = np.zeros(n_components), np.zeros_like(reference[0])
        np.add.at(mass, labels, weights)
        np.add.at(first, labels, weights[:, None] * shift)
        second = np.zeros((n_components, *covariances.shape[1:]))
        np.add.at(
            second, labels, self._shape.times(weights, covariances + self._shape.outer(shift))
        )
        return mass, first, second

    def place(self, components: Components, positions: Labels, source: Components) -> Components:
        means, covariances = (parameter.copy() for parameter in components)
        means[positions] = source[0]
        if not self._is_tied:
            covariances[positions] = source[1]
        return means, covariances

    # -- EM ---------------------------------------------------------------------------------------

    def em_pass(self, X: Rows, weights: Array, components: Components) -> tuple[float, Moments]:
        means, covariances = components
        root = self._shape.root(covariances)
        inverse_root = self._shape.inverse_root(root)
        log_norm = self._log_norm(root, means.shape[-1])
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights)  # -inf for a component of weight 0, which has no rows
        compiled = engine.compiled()
        if compiled is None:
            log_likelihood, mass, first, second = self._em_pass(
                X, log_weights, means, inverse_root, log_norm
            )
        else:
            scale = self._shape.by_column(inverse_root, means.shape[-1])
            log_likelihood, mass, first, second = compiled.em_pass(
                X, log_weights, means, scale, log_norm
            )
            second = self._shape.from_columns(second)
        return log_likelihood, (mass, *self._shape.colour(first, second, root))

    def _em_pass(
        self, X: Rows, log_weights: Array, means: Array, inverse_root: Array, log_norm: Array
    ) -> tuple[float, Array, Array, Array]:
        """Log-likelihood, mass, and first and second moments of the white residuals."""
        n_components, n_features = means.shape
        step = min(max(256, EM_BLOCK_FLOATS // (n_components * n_features)), max(len(X), 1))
        y = np.empty((n_components, n_features, step))
        scratch = np.empty_like(y)
        log_likelihood = 0.0
        mass, first = np.zeros(n_components), np.zeros_like(means)
        second = self._shape.second(y[:, :, :0], np.zeros((n_components, 0)), scratch[:, :, :0])
        for i in range(0, len(X), step):
            block = X[i : i + step]
            n = len(block)
            y, scratch = y[:, :, :n], scratch[:, :, :n]
            self._white_residuals(block, means, inverse_root, out=y)
            joint = self._log_density(y, scratch, log_norm)
            joint += log_weights[:, None]
            top = joint.max(axis=0)
            joint -= top
            r = np.exp(joint, out=joint)
            total = r.sum(axis=0)
            r /= total
            log_likelihood += float((np.log(total) + top).sum())
            mass += r.sum(axis=1)
            first += np.matmul(y, r[:, :, None])[:, :, 0]
            second += self._shape.second(y, r, scratch)
        return log_likelihood, mass, first, second

    def hard_moments(self, X: Rows, labels: Labels, reference: Components) -> Moments:
        means, covariances = reference
        n_components = len(means)
        mass, first, second = (
            np.zeros(n_components),
            np.zeros_like(means),
            np.zeros_like(covariances),
        )
        for k in range(n_components):
            shift = as_block(X[labels == k]) - means[k]
            mass[k] = len(shift)
            first[k] = shift.sum(axis=0)
            second[k] = self._shape.project(shift.T @ shift)
        return mass, first, second

    def from_moments(
        self, moments: Moments, reference: Components, prior: Prior | None = None
    ) -> Components:
        mass, first, second = moments
        a, target = (
            (0.0, np.zeros_like(second[0])) if prior is None else (prior.weight, prior.target[0])
        )
        # A component without rows stays where it is: the penalised likelihood does not depend on
        # its mean.
        shift = np.divide(first, mass[:, None], out=np.zeros_like(first), where=mass[:, None] > 0)
        scatter = second - self._shape.times(mass, self._shape.outer(shift))
        if self._is_tied:
            total = mass.sum() + 2 * a * len(mass)
            shared = (scatter.sum(axis=0) + 2 * a * len(mass) * target) / total
            covariances = np.repeat(shared[None], len(mass), axis=0)
        else:
            total = mass + 2 * a
            inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
            covariances = self._shape.times(inverse, scatter + 2 * a * target)
        covariances = self._shape.symmetric(covariances)
        if prior is not None and prior.floor:
            covariances = self._shape.add_to_diagonal(covariances, prior.floor)
        return reference[0] + shift, covariances

    def prior_target(self, X: Rows) -> Components:
        """The sample covariance (ddof 1) in the structure of the family, and the sample mean: two passes in blocks."""
        n_samples, n_features = X.shape
        step = max(256, BLOCK_FLOATS // n_features)

        room = np.empty((n_features, min(step, n_samples)))

        def about(origin: Array) -> Iterator[Array]:
            for i in range(0, n_samples, step):
                rows = X[i : i + step]
                yield np.subtract(rows.T, origin[:, None], out=room[:, : len(rows)])

        # Sums about the first row: those of a constant column are exactly zero, and it is seen to be constant.
        first = as_block(X[:1])[0]
        total = np.zeros(n_features)
        for columns in about(first):
            total += columns.sum(axis=1)
        mean = first + total / n_samples
        scatter = np.zeros((n_features, n_features))
        for columns in about(mean):
            scatter += columns @ columns.T
        return self._shape.project(scatter / max(n_samples - 1, 1)), mean

    def pooled_target(self, counts: Array, targets: Components) -> Components:
        covariances, means = targets
        total = counts.sum()
        # About one of the means: far from the origin nothing cancels.
        mean = means[0] + counts @ (means - means[0]) / total
        within = self._shape.times(np.maximum(counts - 1.0, 0.0), covariances).sum(axis=0)
        between = self._shape.times(counts, self._shape.outer(means - mean)).sum(axis=0)
        return (within + between) / max(total - 1.0, 1.0), mean

    def degeneracy(self, target: Components) -> str | None:
        covariance, mean = target
        # Below the rounding of the data themselves a spread is no spread.
        if self._shape is _Scalar:
            tiny = max((1e-13 * np.abs(mean).max(initial=0.0)) ** 2, VARIANCE_RANGE[0])
            return None if float(covariance) > tiny else "all columns are constant"
        variances = np.diagonal(covariance) if self._shape is _Matrix else covariance
        constant = np.flatnonzero(
            variances <= np.maximum((1e-13 * np.abs(mean)) ** 2, VARIANCE_RANGE[0])
        )
        if constant.size:
            names = ", ".join(f"{{column {j}}}" for j in constant)
            return f"{names} {'is' if constant.size == 1 else 'are'} constant"
        if self._shape is _Matrix:
            scale = np.sqrt(variances)
            values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
            if values[0] < 1e-12 * len(values):
                involved = np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)
                return ", ".join(f"{{column {j}}}" for j in involved) + " are linearly dependent"
        return None

    def log_prior(self, components: Components, prior: Prior) -> float:
        """-a sum_k { tr(S_x Sigma_k^-1) + log det Sigma_k } (Chen & Tan 2009)."""
        if prior.weight == 0:
            return 0.0
        means, covariances = components
        n_features = means.shape[-1]
        root = self._shape.root(covariances)
        traces = self._shape.trace_ratio(
            prior.target[0][None], self._shape.inverse_root(root), n_features
        )
        return -prior.weight * float(traces.sum() + self._shape.log_det(root, n_features).sum())

    def is_proper(self, components: Components) -> bool:
        means, covariances = components
        are_bounded = bool((np.abs(means) <= MAX_MEAN).all())
        return are_bounded and self._shape.is_positive(covariances)

    def start_components(self, X: Array, locations: Array) -> Components:
        variance = self._shape.project(np.diag(X.var(axis=0)))
        return np.asarray(locations, dtype=np.float64), np.repeat(
            variance[None], len(locations), axis=0
        )

    # -- geometry ---------------------------------------------------------------------------------

    def coordinates(
        self, weights: Array, components: Components, origin: tuple[Array, Components]
    ) -> Array:
        """Complete-data Fisher coordinates around ``origin``.

        Means sqrt(w_k) L_k^-1 (mu_k - mu_k0); weights (w - w0) / sqrt(w0); covariances, with
        A = L_k^-1 Sigma_k L_k^-T - I, as sqrt(w_k / 2) A_ii and sqrt(w_k) A_ij (i < j).
        """
        w0, (means0, covariances0) = origin
        means, covariances = components
        root = self._shape.root(covariances0)
        root_w = np.sqrt(np.maximum(w0, LEAST_WEIGHT))
        v_means = root_w[:, None] * self._shape.solve(root, means - means0)
        white = self._shape.whitened(covariances, self._shape.inverse_root(root))
        v_covariances = self._covariance_scale(w0) * self._shape.pack(white, means.shape[-1])
        if self._is_tied:
            v_covariances = v_covariances[0]
        return np.concatenate([(weights - w0) / root_w, v_means.ravel(), v_covariances.ravel()])

    def from_coordinates(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components] | None:
        weights, (means, covariances) = self.displaced(coordinates, origin)
        if not (weights >= 0).all() or not self._shape.is_positive(covariances):
            return None
        return weights / weights.sum(), (means, covariances)

    def displaced(
        self, coordinates: Array, origin: tuple[Array, Components]
    ) -> tuple[Array, Components]:
        w0, (means0, covariances0) = origin
        n_components, n_features = means0.shape
        leading = coordinates.shape[:-1]
        root = self._shape.root(covariances0)
        root_w = np.sqrt(np.maximum(w0, LEAST_WEIGHT))
        v_weights, v_means, v_covariances = np.split(
            coordinates, [n_components, n_components * (1 + n_features)], axis=-1
        )
        weights = w0 + root_w * v_weights
        means = means0 + self._shape.multiply(
            root, v_means.reshape(*leading, n_components, n_features) / root_w[:, None]
        )
        packed = v_covariances.reshape(*leading, 1 if self._is_tied else n_components, -1)
        white = self._shape.unpack(packed / self._covariance_scale(w0), n_features)
        return weights, (means, self._shape.symmetric(self._shape.coloured(white, root)))

    def coordinate_owners(self, components: Components) -> Labels:
        n_components, n_features = components[0].shape
        order = np.arange(n_components)
        n_shape = self._shape.n_parameters(n_features)
        of_covariances = np.full(n_shape, -1) if self._is_tied else np.repeat(order, n_shape)
        return np.concatenate([order, np.repeat(order, n_features), of_covariances])

    def scores(self, X: Array, weights: Array, components: Components) -> Array:
        """Complete-data scores, expected given the row; in whitened residuals y: r y, r (y y^T - I), r - w."""
        means, covariances = components
        root = self._shape.root(covariances)
        y = self._white_residuals(X, means, self._shape.inverse_root(root))
        joint = self._log_density(y, np.empty_like(y), self._log_norm(root, means.shape[-1]))
        with np.errstate(divide="ignore"):
            r = softmax(joint + np.log(weights)[:, None], axis=0)
        root_w = np.sqrt(np.maximum(weights, LEAST_WEIGHT))
        share = (r / root_w[:, None]).T
        y = np.moveaxis(y, -1, 0)
        packed = self._shape.pack(self._shape.outer(y), means.shape[-1])
        by_component = r.T if self._is_tied else share
        s_covariances = by_component[:, :, None] * packed
        if self._is_tied:
            s_covariances = s_covariances.sum(axis=1)
        n_samples = len(X)
        return np.concatenate(
            [
                share - weights / root_w,
                (share[:, :, None] * y).reshape(n_samples, -1),
                s_covariances.reshape(n_samples, -1),
            ],
            axis=1,
        )

    def score_of_moments(self, moments: Moments, weights: Array, components: Components) -> Array:
        mass, first, second = moments
        means, covariances = components
        n_features = means.shape[-1]
        root = self._shape.root(covariances)
        root_w = np.sqrt(np.maximum(weights, LEAST_WEIGHT))
        white = self._shape.whitened(second, self._shape.inverse_root(root))
        # pack takes off the identity once, for a single row.
        identity = self._shape.unpack(np.zeros(self._shape.n_parameters(n_features)), n_features)
        packed = self._shape.pack(white - self._shape.times(mass - 1.0, identity), n_features)
        s_covariances = packed.sum(axis=0) if self._is_tied else packed / root_w[:, None]
        s_means = self._shape.solve(root, first) / root_w[:, None]
        return np.concatenate(
            [
                (mass - weights * mass.sum()) / root_w,
                s_means.ravel(),
                s_covariances.ravel(),
            ]
        )

    def _covariance_scale(self, weights: Array) -> Array:
        """Square root of the share of rows behind a covariance: those of its component, or all."""
        return (
            np.ones((1, 1))
            if self._is_tied
            else np.sqrt(np.maximum(weights, LEAST_WEIGHT))[:, None]
        )

    def sort_keys(self, components: Components) -> Array:
        return components[0]
