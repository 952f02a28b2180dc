"""The information of a mixture: how precisely rows drawn from it determine its parameters.

Coordinates are those of :meth:`Family.coordinates` about the mixture itself. In them the *complete* information, that
of rows with known components, is the identity. The information of rows alone is smaller, because components overlap.

Maximum likelihood solves sum s = 0, where s is the score of a row. The errors of estimates have the covariance I^-1 / n
with the Fisher information I = E s s'. A family that truncates solves sum psi = 0 instead (:meth:`Family.scores`). Let
B = E psi psi' and A = -E d psi. The errors have the covariance A^-1 B A^-T / n ("sandwich", Huber 1967), so that the
information is A' B^-1 A. Since E psi = 0 at every mixture, A = E psi s', and no derivative is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from dask_dfmr.mixtures.family import BLOCK_FLOATS, Array, Components, Family, Labels, batches

LEAST_DRAWN, MOST_DRAWN, ROWS_PER_COORDINATE = 2**11, 2**14, 25
"""Bounds of the number of rows drawn for an information matrix, and the number between them. The relative error of the
matrix is about sqrt(n_coordinates / n_rows)."""

MOST_COORDINATES = 1500
"""With more coordinates the complete information replaces the information: a matrix would take gigabytes."""

LEAST_PART = 0.25
"""Smallest share of the drawn rows for a component, as a part of 1 / n_components. Without it too few rows of a light
component would be drawn."""

LEAST_INFORMATION = 1e-3
"""Smallest information in any direction, as a share of the complete one. In flatter directions the information does not
bound the error of an estimate."""


class Information(NamedTuple):
    """The information of one row about ``weights`` and ``components``.

    Attributes
    ----------
    weights : ndarray of shape (n_components,)
    components : tuple of ndarray
    root : ndarray of shape (n_coordinates, n_coordinates), or None
        Lower Cholesky factor of the information: the inverse covariance of the errors of estimates. None: the identity.
    normal : ndarray of shape (n_coordinates,)
        Unit vector of the direction in which the sum of the weights changes. No mixture can move along it, so the
        information counts it as known.
    score_root : ndarray of shape (n_coordinates, n_coordinates), or None
        Lower Cholesky factor of the covariance of the scores. None: that of the information, which it is for maximum
        likelihood.
    """

    weights: Array
    components: Components
    root: Array | None
    normal: Array
    score_root: Array | None = None

    @property
    def _whitening(self) -> Array | None:
        return self.root if self.score_root is None else self.score_root

    def whiten(self, scores: Array) -> Array:
        """Scores (..., n_coordinates) in white coordinates: their covariance over rows of the mixture is the identity.

        Along ``normal`` they are 0. The covariance has the rank n_coordinates - 1, the number of free parameters.
        """
        scores = scores - np.multiply.outer(scores @ self.normal, self.normal)
        root = self._whitening
        return scores if root is None else _solve(root, scores, transposed=False)

    def widened(self, covariance: Array) -> Information:
        """Whitening by the covariance of the scores that real rows have, with that of the mixture as its lower bound.

        Parameters
        ----------
        covariance : ndarray of shape (n_coordinates, n_coordinates)
            Of the rows' scores in white coordinates, as :meth:`whiten` gives them. Rows of the mixture have the
            identity.

        Returns
        -------
        Information
            Its ``whiten`` gives such rows the variance 1 in every direction in which they vary more than rows of the
            mixture do, and does not change the other directions. Without a matrix (``root`` is None) nothing changes.
        """
        before = self._whitening
        if before is None:
            return self
        values, vectors = np.linalg.eigh(covariance)
        root = before @ (vectors * np.sqrt(np.maximum(values, 1.0)))
        upper: Array = np.linalg.qr(root.T)[1]
        return self._replace(score_root=upper.T)

    def residual(self, v: Array) -> Array:
        """White coordinates of differences v (..., n_coordinates); the sum of their squares is v' I v."""
        v = v - np.multiply.outer(v @ self.normal, self.normal)
        return v if self.root is None else v @ self.root

    def errors(self, white: Array) -> Array:
        """Errors of estimates from one row each, in coordinates, from standard normal draws (n, n_coordinates)."""
        v = white if self.root is None else _solve(self.root, white, transposed=True)
        return v - np.multiply.outer(v @ self.normal, self.normal)


def narrowing(covariance: Array) -> Array:
    """The matrix by which white rows that vary more than rows of the mixture, (n, n_coordinates), become white.

    The rows times this matrix are, but for a rotation, what :meth:`Information.widened` makes of their scores.
    ``covariance`` is as there.
    """
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1.0)))


def _solve(root: Array, rows: Array, transposed: bool) -> Array:
    solved: Array = solve_triangular(root, rows.T, lower=True, trans="T" if transposed else "N").T
    return solved


def information(
    family: Family, weights: Array, components: Components, rng: np.random.Generator
) -> Information:
    """The information at a mixture, from the scores of rows drawn from it; no row of the data is read."""
    normal = np.zeros(len(family.coordinates(weights, components, (weights, components))))
    normal[: len(weights)] = np.sqrt(weights)
    if len(normal) > MOST_COORDINATES:
        return Information(weights, components, None, normal)
    n_rows = int(np.clip(ROWS_PER_COORDINATE * len(normal), LEAST_DRAWN, MOST_DRAWN))
    everything = np.arange(len(normal))
    (found,) = information_blocks(family, (weights, components), normal, [everything], n_rows, rng)
    of_scores = None if found.scores is found.information else _root_of(found.scores)
    return Information(weights, components, _root_of(found.information), normal, of_scores)


def _root_of(matrix: Array) -> Array:
    """Lower Cholesky factor of a symmetric matrix, whose eigenvalues are made positive."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, LEAST_INFORMATION)
    upper: Array = np.linalg.qr((vectors * np.sqrt(values)).T)[1]
    return upper.T


class InformationBlock(NamedTuple):
    """The information of some coordinates, and the covariance of their scores, the same matrix for maximum likelihood.

    Both have the shape (n_block, n_block).
    """

    information: Array
    scores: Array


def information_blocks(
    family: Family,
    origin: tuple[Array, Components],
    normal: Array,
    blocks: Sequence[Labels],
    n_rows: int,
    rng: np.random.Generator,
) -> list[InformationBlock]:
    """Diagonal blocks of the information matrix, from rows drawn from the mixture.

    If the family truncates, the blocks are those of A and B, and not of A' B^-1 A.

    Parameters
    ----------
    family : Family
    origin : (weights, components)
        The mixture.
    normal : ndarray of shape (n_coordinates,)
        Direction in which the sum of the weights changes. All scores are 0 along it. Its outer product is added, so
        that no matrix is singular and the direction counts as known.
    blocks : sequence of ndarray
        The coordinates of each block.
    n_rows : int
        Number of rows drawn.
    rng : Generator

    Returns
    -------
    list of InformationBlock
    """
    weights, components = origin
    rows, importance = _draw_rows(family, n_rows, weights, components, rng)
    likelihood = family.with_cut(family.cut._replace(truncates=False))
    totals = [n_rows * np.outer(normal[block], normal[block]) for block in blocks]
    crossed = [total.copy() for total in totals] if family.cut.truncates else []
    step = max(64, 16 * BLOCK_FLOATS // len(normal))
    for batch in batches(n_rows, step):
        importance_roots = np.sqrt(importance[batch, None])
        scores = family.scores(rows[batch], weights, components) * importance_roots
        for total, block in zip(totals, blocks, strict=True):
            own = scores if len(block) == len(normal) else scores[:, block]
            total += own.T @ own  # of one array: NumPy computes half of the products
        if crossed:
            of_likelihood = likelihood.scores(rows[batch], weights, components) * importance_roots
        for total, block in zip(crossed, blocks, strict=bool(crossed)):
            total += scores[:, block].T @ of_likelihood[:, block]
    matrices = [total / n_rows for total in totals]
    if not crossed:
        return [InformationBlock(matrix, matrix) for matrix in matrices]
    return [
        InformationBlock(_sandwich(cross / n_rows, matrix), matrix)
        for cross, matrix in zip(crossed, matrices, strict=True)
    ]


def _sandwich(derivative: Array, variance: Array) -> Array:
    """The information A' B^-1 A of an estimating function with the mean derivative -A and the covariance B.

    With means over the same rows it is at most the Fisher information of these rows, whatever the noise of A is.
    """
    values, vectors = np.linalg.eigh(variance)
    half = (vectors / np.sqrt(np.maximum(values, LEAST_INFORMATION))).T @ derivative
    return np.asarray(half.T @ half)


def _draw_rows(
    family: Family, n_rows: int, weights: Array, components: Components, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Rows (n_rows, n_features) and their importance weights (n_rows,).

    Light components are drawn more often than their weight says, and their rows count for less.
    """
    drawn = np.maximum(weights, LEAST_PART / len(weights))
    if np.array_equal(drawn, weights):
        return family.sample(n_rows, weights, components, rng)[0], np.ones(n_rows)
    drawn /= drawn.sum()
    rows, _ = family.sample(n_rows, drawn, components, rng)
    log_density = family.log_density(rows, components)
    log_importance = logsumexp(log_density, axis=1, b=weights) - logsumexp(
        log_density, axis=1, b=drawn
    )
    return rows, np.exp(log_importance)
