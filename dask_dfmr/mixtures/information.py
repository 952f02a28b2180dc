"""The Fisher information of a mixture: how exactly rows drawn from it can tell its parameters.

Coordinates are those of :meth:`Family.coordinates` about the mixture itself, in which the information of
rows with known components is the identity. What is missing of it is lost to overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from dask_dfmr.mixtures.family import BLOCK_FLOATS, Array, Components, Family, Labels

LEAST_ROWS, MOST_ROWS, ROWS_PER_COORDINATE = 2**11, 2**14, 25
"""So many rows are drawn for an information matrix; its error is about sqrt(n_coordinates / n_rows)."""

MOST_COORDINATES = 1500
"""With more coordinates the information of rows with known components stands in: a matrix would take gigabytes."""

LEAST_PART = 0.25
"""Of an equal share of the rows is drawn from every component, however light, or nothing is learnt of it."""

LEAST_SHARE = 1e-3
"""Of the complete information is left in any direction: along flatter ones other things bound an error."""


class Information(NamedTuple):
    """Per row, about ``weights`` and ``components``.

    ``root`` is the lower Cholesky factor of the information (n_coordinates, n_coordinates), in which the direction
    ``normal``, along which weights cease to sum to 1, counts as known exactly; None stands for the identity.
    """

    weights: Array
    components: Components
    root: Array | None
    normal: Array

    def whiten(self, scores: Array) -> Array:
        """Scores (..., n_coordinates) -> coordinates whose covariance over rows of the mixture is the identity.

        Along ``normal`` they are 0: the identity has rank n_coordinates - 1, the number of free parameters.
        """
        scores = scores - np.multiply.outer(scores @ self.normal, self.normal)
        return scores if self.root is None else _solve(self.root, scores, transposed=False)

    def residual(self, v: Array) -> Array:
        """White coordinates of differences (..., n_coordinates): their squares add up to v' I v."""
        v = v - np.multiply.outer(v @ self.normal, self.normal)
        return v if self.root is None else v @ self.root

    def errors(self, white: Array) -> Array:
        """Standard normal draws (n, n_coordinates) -> errors of estimates from one row each, in coordinates."""
        v = white if self.root is None else _solve(self.root, white, transposed=True)
        return v - np.multiply.outer(v @ self.normal, self.normal)


def _solve(root: Array, rows: Array, transposed: bool) -> Array:
    solved: Array = solve_triangular(root, rows.T, lower=True, trans="T" if transposed else "N").T
    return solved


def information(
    family: Family, weights: Array, components: Components, rng: np.random.Generator
) -> Information:
    """The mean outer product of the scores of rows drawn from the mixture: no row of data is read."""
    normal = np.zeros(len(family.coordinates(weights, components, (weights, components))))
    normal[: len(weights)] = np.sqrt(weights)
    if len(normal) > MOST_COORDINATES:
        return Information(weights, components, None, normal)
    n_rows = int(np.clip(ROWS_PER_COORDINATE * len(normal), LEAST_ROWS, MOST_ROWS))
    # The direction of the weights' sum, in which all scores are 0, must not make the matrix singular.
    everything = np.arange(len(normal))
    (matrix,) = information_blocks(family, (weights, components), normal, [everything], n_rows, rng)
    values, vectors = np.linalg.eigh(matrix)
    # A direction in which overlap leaves nothing: an estimate may lie anywhere along it.
    values = np.maximum(values, LEAST_SHARE)
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
    """The blocks on the diagonal of the information that some coordinates each form, from so many rows drawn.

    ``normal`` counts as known exactly.
    """
    weights, components = origin
    rows, importance = _draw_rows(family, n_rows, weights, components, rng)
    totals = [n_rows * np.outer(normal[block], normal[block]) for block in blocks]
    step = max(64, 16 * BLOCK_FLOATS // len(normal))
    for i in range(0, n_rows, step):
        scores = family.scores(rows[i : i + step], weights, components)
        for total, block in zip(totals, blocks, strict=True):
            own = scores if len(block) == len(normal) else scores[:, block]
            total += (own.T * importance[i : i + step]) @ own
    return [total / n_rows for total in totals]


def _draw_rows(
    family: Family, n_rows: int, weights: Array, components: Components, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Rows and their importance: those of light components are drawn more often, and count for less."""
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
