"""The Fisher information of a mixture: how precisely rows drawn from it determine its parameters.

Coordinates are those of :meth:`Family.coordinates` about the mixture itself. In them the *complete* information, that
of rows with known components, is the identity. The information of rows alone is smaller, because components overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from dask_dfmr.mixtures.family import BLOCK_FLOATS, Array, Components, Family, Labels, batches

LEAST_ROWS, MOST_ROWS, ROWS_PER_COORDINATE = 2**11, 2**14, 25
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
    """The Fisher information of one row about ``weights`` and ``components``.

    Attributes
    ----------
    weights : ndarray of shape (n_components,)
    components : tuple of ndarray
    root : ndarray of shape (n_coordinates, n_coordinates), or None
        Lower Cholesky factor of the information. None: the identity.
    normal : ndarray of shape (n_coordinates,)
        Unit vector of the direction in which the sum of the weights changes. No mixture can move along it, so the
        information counts it as known.
    """

    weights: Array
    components: Components
    root: Array | None
    normal: Array

    def whiten(self, scores: Array) -> Array:
        """Scores (..., n_coordinates) in white coordinates: their covariance over rows of the mixture is the identity.

        Along ``normal`` they are 0. The covariance has the rank n_coordinates - 1, the number of free parameters.
        """
        scores = scores - np.multiply.outer(scores @ self.normal, self.normal)
        return scores if self.root is None else _solve(self.root, scores, transposed=False)

    def widened(self, covariance: Array) -> Information:
        """Whitening by the covariance of the scores that real rows have, with this information as its lower bound.

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
        if self.root is None:
            return self
        values, vectors = np.linalg.eigh(covariance)
        root = self.root @ (vectors * np.sqrt(np.maximum(values, 1.0)))
        upper: Array = np.linalg.qr(root.T)[1]
        return self._replace(root=upper.T)

    def residual(self, v: Array) -> Array:
        """White coordinates of differences v (..., n_coordinates); the sum of their squares is v' I v."""
        v = v - np.multiply.outer(v @ self.normal, self.normal)
        return v if self.root is None else v @ self.root

    def errors(self, white: Array) -> Array:
        """Errors of estimates from one row each, in coordinates, from standard normal draws (n, n_coordinates)."""
        v = white if self.root is None else _solve(self.root, white, transposed=True)
        return v - np.multiply.outer(v @ self.normal, self.normal)


def _solve(root: Array, rows: Array, transposed: bool) -> Array:
    solved: Array = solve_triangular(root, rows.T, lower=True, trans="T" if transposed else "N").T
    return solved


def information(
    family: Family, weights: Array, components: Components, rng: np.random.Generator
) -> Information:
    """The information at a mixture: the mean outer product of the scores of rows drawn from it.

    No row of the data is read.
    """
    normal = np.zeros(len(family.coordinates(weights, components, (weights, components))))
    normal[: len(weights)] = np.sqrt(weights)
    if len(normal) > MOST_COORDINATES:
        return Information(weights, components, None, normal)
    n_rows = int(np.clip(ROWS_PER_COORDINATE * len(normal), LEAST_ROWS, MOST_ROWS))
    everything = np.arange(len(normal))
    (matrix,) = information_blocks(family, (weights, components), normal, [everything], n_rows, rng)
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, LEAST_INFORMATION)
    upper: Array = np.linalg.qr((vectors * np.sqrt(values)).T)[1]
    return Information(weights, components, upper.T, normal)


def information_blocks(
    family: Family,
    origin: tuple[Array, Components],
    normal: Array,
    blocks: Sequence[Labels],
    n_rows: int,
    rng: np.random.Generator,
) -> list[Array]:
    """Diagonal blocks of the information matrix, from rows drawn from the mixture.

    Parameters
    ----------
    family : Family
    origin : (weights, components)
        The mixture.
    normal : ndarray of shape (n_coordinates,)
        Direction in which the sum of the weights changes. All scores are 0 along it. Its outer product is added, so
        that the matrix is not singular and the direction counts as known.
    blocks : sequence of ndarray
        The coordinates of each block.
    n_rows : int
        Number of rows drawn.
    rng : Generator

    Returns
    -------
    list of ndarray of shape (n_block, n_block)
    """
    weights, components = origin
    rows, importance = _draw_rows(family, n_rows, weights, components, rng)
    totals = [n_rows * np.outer(normal[block], normal[block]) for block in blocks]
    step = max(64, 16 * BLOCK_FLOATS // len(normal))
    for batch in batches(n_rows, step):
        scores = family.scores(rows[batch], weights, components)
        scores = scores * np.sqrt(importance[batch, None])
        for total, block in zip(totals, blocks, strict=True):
            own = scores if len(block) == len(normal) else scores[:, block]
            total += own.T @ own  # of one array: NumPy computes half of the products
    return [total / n_rows for total in totals]


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
