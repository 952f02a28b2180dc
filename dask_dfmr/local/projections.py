"""A clustering along directions in which the rows are least normal: a start for long parallel clusters.

k-means divides clusters that are long along one direction and apart along another one across their length. In rows with
identity covariance the length has gone, and a direction shows groups by its moments. Two groups of equal size have a
low kurtosis along the direction between them, and groups of very unequal size a high one. In between, at a share of
.21, the kurtosis is that of a normal law, and the skewness shows them. So directions of extreme kurtosis and skewness
are sought: projection pursuit (Pena & Prieto 2001, J. Amer. Statist. Assoc. 96, 1433-1445). Each step is the fixed
point iteration of Hyvarinen & Oja (1997) for that moment. The first directions are the eigenvectors of E |z|^2 z z'
(Cardoso 1989), whose eigenvalue is unusual along a direction of groups.

Rows are divided by k-means along single directions and in the space of several. Each division is then refined by
distances in the covariance within the groups, which corrects the direction. The one with the highest likelihood under
one common covariance is the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.local.centers import kmeans_plusplus
from dask_dfmr.mixtures.family import Array, Labels

SEARCHED_ROWS = 2000
"""Rows in which directions are sought, at most. With five clusters in 30 columns the direction is found in 5 of 5 draws
from so many, and in 3 of 5 from half as many."""

FIRST_STEPS, LAST_STEPS = 4, 12
"""Iterations from all eigenvectors, and then from those that are most extreme. Neither is tuned."""

SOME_STEPS, MOST_AT_AN_END = 2, 15
"""After so many of the first iterations only so many directions of the lowest and of the highest moments go on, which
is all of them in 30 columns."""

LARGEST_SUBSPACE = 5
"""Most directions that rows are divided in together."""

SAME_DIRECTION = 0.99
"""Directions with a larger cosine count as one. With .9, a direction that was not yet at the extreme hid the one that
was, in 7 of 40 draws of four clusters with the weights .7, .1, .1 and .1; with .99 in none."""

MOST_ALIKE = 0.7
"""A direction counts beside others if a share of its length above this is orthogonal to them."""

N_ALONE = 2
"""Rows are divided along the best so many single directions."""

STEPS = 10
"""Most steps of a division of rows into groups."""

TRIALS = 10
"""Rows that k-means++ tries for each center of a division in several directions. With 4 to 6 clusters in 3 or 4
directions, 59 of 60 divisions are right; with scikit-learn's default of 3 or 4 rows, 52."""

LEAST_EIGENVALUE = 1e-12
"""Directions with a smaller share of the largest variance are not used."""

ROOM = 5.0
"""Rows farther than the square root of the dimension plus ROOM, in standard deviations, take no part in the search: a
few of them would decide the covariance and the moments. The center of a group with a 25th of the rows is at most at
five."""

TRIMMINGS = 4
"""So many covariances are computed at most, each from the rows that are near in the one before."""

LEAST_POSITIVE = float(np.finfo(float).tiny)
"""In place of a length or a variance of 0, by which nothing can be divided."""


def projected_labels(Z: Array, n_components: int, rng: np.random.Generator) -> Labels | None:
    """The group of each row.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        In columns of about equal spread.
    n_components : int
        Number of groups.
    rng : Generator

    Returns
    -------
    ndarray of int of shape (n_samples,), or None
        None if the rows have no spread, or are fewer than the groups.
    """
    some = Z
    if len(Z) > SEARCHED_ROWS:
        some = Z[np.sort(rng.choice(len(Z), SEARCHED_ROWS, replace=False))]
    center, root, is_near = whitening(some)
    white = (some[is_near] - center) @ root
    if not root.size or len(white) < n_components:
        return None
    divisions = [
        _refined(white, labels, n_components, FIRST_STEPS)
        for labels in _projections(white, n_components, rng)
    ]
    labels = max(divisions, key=lambda division: division.score).labels
    best = _refined(white, labels, n_components, STEPS)
    return _best_of(best.levels, (Z - center) @ (root @ best.axes.T))


def whitening(X: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Center (d,) and root (d, r) with which the near rows have identity covariance, and which rows are near (n,).

    The white rows are ``(X - center) @ root``.
    """
    is_near = np.ones(len(X), dtype=bool)
    for _ in range(TRIMMINGS):
        near = X[is_near]
        center = near.mean(axis=0)
        values, vectors = np.linalg.eigh((near - center).T @ (near - center) / len(near))
        is_wide = values > max(LEAST_EIGENVALUE * values[-1], LEAST_POSITIVE)
        root = vectors[:, is_wide] / np.sqrt(values[is_wide])
        white = (X - center) @ root
        before, limit = is_near, np.sqrt(root.shape[1]) + ROOM
        is_near = np.einsum("nr,nr->n", white, white) <= limit**2
        if np.array_equal(is_near, before) or not is_near.any():
            break
    return center, root, before


# -- directions ------------------------------------------------------------------------------------


class _Climb(NamedTuple):
    """Unit vectors (r, m) after some steps towards extremes, and what the last step has found of the ones before it.

    These are the values (n, m) that rows project to, and their powers.
    """

    directions: Array
    projected: Array
    powers: Array

    @property
    def moments(self) -> Array:
        """The moments (m,) before the last step."""
        return np.einsum("nm,nm->m", self.powers, self.projected) / len(self.projected)


def _climb(is_kurtosis: bool, white: Array, directions: Array, n_steps: int) -> _Climb:
    """Some steps towards extremes of the kurtosis, or of the skewness."""
    for _ in range(n_steps):
        projected = white @ directions
        powers = projected * projected
        if is_kurtosis:
            powers *= projected
        found = white.T @ powers / len(white)
        if is_kurtosis:
            found -= 3.0 * directions
        length = np.sqrt(np.einsum("rm,rm->m", found, found))
        directions = found / np.maximum(length, LEAST_POSITIVE)
    return _Climb(directions, projected, powers)


def extreme_directions(white: Array, n_most: int = 2) -> Array:
    """Unit vectors (r, m) along which rows have the lowest or highest kurtosis, or the largest skewness.

    At most ``n_most`` of each, and none that is nearly another one.
    """
    squares = np.einsum("nr,nr->n", white, white)
    _, start = np.linalg.eigh((white * squares[:, None]).T @ white)
    found = []
    for is_kurtosis in (True, False):
        climb = _climb(is_kurtosis, white, start, SOME_STEPS)
        order = np.argsort(climb.moments, kind="stable")
        outer = np.union1d(order[:MOST_AT_AN_END], order[-MOST_AT_AN_END:])
        first = climb.directions[:, outer]
        climb = _climb(is_kurtosis, white, first, FIRST_STEPS - SOME_STEPS)
        order = np.argsort(climb.moments, kind="stable")
        for ends in (order, order[::-1]):
            extreme = _distinct(climb.directions[:, ends])[:, :n_most]
            found += [_climb(is_kurtosis, white, extreme, LAST_STEPS).directions]
    return _distinct(np.hstack(found))


def _distinct(directions: Array) -> Array:
    """The directions (r, m) without those that are nearly one before them, or its opposite."""
    alike = np.abs(directions.T @ directions)
    kept: list[int] = []
    for i in range(len(alike)):
        if not (alike[i, kept] > SAME_DIRECTION).any():
            kept.append(i)
    return directions[:, kept]


def _projections(white: Array, n_components: int, rng: np.random.Generator) -> Iterator[Labels]:
    """Groups of the rows by k-means along the best single directions, and in the space of the best few together."""
    most = min(max(n_components - 1, 2), LARGEST_SUBSPACE)
    directions = extreme_directions(white, most)
    alone = [_along(white @ direction, n_components) for direction in directions.T]
    chosen: list[Array] = []
    for i in sorted(range(len(alone)), key=lambda i: -alone[i][1]):
        axis = directions[:, i]
        rest = axis - sum((other * (other @ axis) for other in chosen), np.zeros_like(axis))
        length = np.linalg.norm(rest)
        if length > MOST_ALIKE:
            chosen.append(rest / length)
            if len(chosen) <= N_ALONE:
                yield alone[i][0]
    most = min(most, n_components - 1, len(chosen))
    for q in {min(2, most), most} - {0, 1}:
        projected = white @ np.column_stack(chosen[:q])
        seed = int(rng.integers(2**31))
        centers = kmeans_plusplus(projected, n_components, seed, n_trials=TRIALS)
        yield _kmeans(projected, centers)[0]


# -- groups ----------------------------------------------------------------------------------------


def _best_of(levels: Array, projected: Array) -> Labels:
    """The group of each row with the smallest distance: its level (K,) less twice what rows (n, K) project to."""
    return np.asarray((levels - 2.0 * projected).argmin(axis=1))


def _nearest(rows: Array, centers: Array) -> Labels:
    return _best_of(np.einsum("kq,kq->k", centers, centers), rows @ centers.T)


def _means(rows: Array, labels: Labels, n_components: int) -> tuple[Array, Array]:
    """Shares (K,) and means (K, q) of the groups; an empty group has the mean of all rows, which is 0."""
    member = (labels == np.arange(n_components)[:, None]).astype(np.float64)
    sizes = member.sum(axis=1)
    return sizes / len(rows), (member @ rows) / np.maximum(sizes, 1.0)[:, None]


def _kmeans(rows: Array, centers: Array) -> tuple[Labels, Array, Array]:
    """Labels, shares and centers after some steps of k-means."""
    labels = _nearest(rows, centers)
    for _ in range(STEPS):
        shares, centers = _means(rows, labels, len(centers))
        labels, before = _nearest(rows, centers), labels
        if (labels == before).all():
            break
    return labels, shares, centers


def _along(projected: Array, n_components: int) -> tuple[Labels, float]:
    """Groups of the values (n,) along a direction, and the likelihood of the division, up to a constant.

    One k-means starts at quantiles, for groups of about equal size. Another one starts at equal distances.
    """
    values = np.sort(projected)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    squares = float(values @ values)
    at = (np.arange(n_components) + 0.5) / n_components
    low, high = values[[len(values) // 100, -1 - len(values) // 100]]
    best, best_score = values[:0], -np.inf
    ends = np.array([0, *[0] * (n_components - 1), len(values)])
    for centers in (np.quantile(values, at), low + at * (high - low)):
        sizes = np.zeros(n_components, dtype=np.intp)
        for _ in range(STEPS):
            borders = (centers[1:] + centers[:-1]) / 2
            ends[1:-1] = values.searchsorted(borders)
            before, sizes = sizes, ends[1:] - ends[:-1]
            if (sizes == before).all():
                break
            sums_at_ends = sums[ends]
            of_groups = sums_at_ends[1:] - sums_at_ends[:-1]
            centers = np.where(sizes > 0, of_groups / np.maximum(sizes, 1), centers)
        within = (squares - sizes @ (centers * centers)) / len(values)
        score = _score(sizes / len(values), np.array([within]))
        if score > best_score:
            best, best_score = borders, score
    return np.searchsorted(best, projected), best_score


def _score(shares: Array, variances: Array) -> float:
    """Mean log-likelihood of a division into groups with these shares and variances within, up to a constant."""
    occupied = shares[shares > 0]
    return float(
        occupied @ np.log(occupied) - 0.5 * np.log(np.maximum(variances, LEAST_POSITIVE)).sum()
    )


class _Division(NamedTuple):
    """Groups with one covariance S: their axes S^-1 m_k (K, r), levels m_k' S^-1 m_k (K,), labels (n,) and score."""

    axes: Array
    levels: Array
    labels: Labels
    score: float


def _refined(white: Array, labels: Labels, n_components: int, n_steps: int) -> _Division:
    """A division by distances in the covariance within its groups, after some steps.

    White rows have the covariance 1, so that within groups it is S = 1 - A A' with the means m_k, times the roots of
    the shares, as the K columns of A. With A'A = V s V', S^-1 = 1 + A V (1 - s)^-1 V' A', and the other eigenvalues of
    S are 1. This costs K numbers a row and column, and no decomposition of a matrix of all columns.
    """
    least = 1.0 / len(white)
    for _ in range(n_steps):
        shares, means = _means(white, labels, n_components)
        roots = means * np.sqrt(shares)[:, None]
        between, vectors = np.linalg.eigh(roots @ roots.T)
        values = np.maximum(1.0 - between, least)
        # 1 / values = 1 + inverse * between. A value that was raised to the least one has a share between of about 1.
        is_raised = 1.0 - between < least
        inverse = np.where(is_raised, (1.0 / values - 1.0) / np.maximum(between, 0.5), 1.0 / values)
        to_span = vectors.T @ roots
        axes = means + (means @ to_span.T * inverse) @ to_span
        levels = np.einsum("kr,kr->k", axes, means)
        labels, before = _best_of(levels, white @ axes.T), labels
        if (labels == before).all():
            break
    return _Division(axes, levels, labels, _score(shares, values))
