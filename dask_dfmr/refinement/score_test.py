"""The score test: whether the rows of a partition contradict those of the other partitions.

The score of a row is the gradient of its log-density in the parameters, at one mixture. If all rows come from one
population, the mean scores of partitions differ by sampling alone. That holds whether the mixture is their optimum or
not, and for any number of rows, since sums over rows need no estimate.

The statistic is the squared length of the partition's sum of scores minus its share of the total, whitened by the
Fisher information: Rao's score test of one sample against the others. The first three moments of its law are exact for
any number of rows. The statistics of the majority correct scale and spread (:mod:`dask_dfmr.aggregation.null_law`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from dask_dfmr.aggregation.null_law import Law, Settled, settle
from dask_dfmr.local.em import Point
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.information import Information, information

MOST_DRAWS, FEWEST_DRAWS, DRAWN_NUMBERS = 2**13, 2**10, 2**22
"""Rows drawn for the moments of scores: so many numbers by the number of coordinates, within these bounds."""

N_PAIRINGS = 4
"""Other rows that each drawn row is paired with."""

LEAST_DRAWN = 25
"""Coordinates of a component are tested if at least so many drawn rows are expected from it."""

LEAST_POWER = 0.05
"""Least power of the normalising transformation. A smaller one, nearly a logarithm, would give longer tails than any
sum of squares has."""


@dataclass(frozen=True)
class RowScores:
    """Moments of the whitened scores of rows drawn from the mixture.

    Let y be the whitened score of one row, q = y.y, h = y.y' for two rows, and C the covariance of y. Then ``mean`` of
    q = trace C; ``variance`` and ``third`` are central moments of q; ``pair`` = E h^2 = trace C^2;
    ``pair_third`` = E h^3; ``lean`` = |E (q - mean) y|^2.
    """

    mean: float
    variance: float
    third: float
    pair: float
    pair_third: float
    lean: float

    def cumulants(self, n: Array) -> tuple[Array, Array]:
        """Variance and third central moment of |sum of y|^2 / n for n independent rows; its mean is ``mean``.

        ``n`` and both results have one entry per partition. The formulas expand the square into rows and pairs of rows.
        """
        variance = (self.variance + 2.0 * (n - 1) * self.pair) / n
        # E (q - mean) y.C y and trace C^3: exact if C is a multiple of a projection, as it is after whitening.
        ratio = self.pair / self.mean
        third = (
            self.third
            + (n - 1) * (12.0 * ratio * self.variance + 6.0 * self.lean + 4.0 * self.pair_third)
            + 8.0 * (n - 1) * (n - 2) * ratio * self.pair
        ) / n**2
        return variance, third

    def as_of_many_rows(self, statistics: Array, n: Array) -> Array:
        """Values of |sum of y|^2 / n for n rows -> values that are about as improbable for many rows.

        Each value is mapped to a normal score and back. The map is the power of a quadratic form that is closest to
        normal (Jensen & Solomon 1972); for many rows that is the cube root.
        """
        variance, third = self.cumulants(n)
        h = np.maximum(1.0 - self.mean * third / (3.0 * variance**2), LEAST_POWER)
        relative = variance / self.mean**2
        center = 1.0 + 0.5 * h * (h - 1.0) * relative
        z = ((statistics / self.mean) ** h - center) / (h * np.sqrt(relative))
        error = 2.0 / (9.0 * self.many_rows.df)
        return self.mean * np.maximum(1.0 - error + z * np.sqrt(error), 0.0) ** 3

    @property
    def many_rows(self) -> Law:
        """Law of |sum of y|^2 / n for many rows."""
        return Law(self.mean, self.mean**2 / self.pair)


@dataclass(frozen=True)
class ScoreTest:
    """The test at one mixture; :func:`score_test` makes it, once for all partitions.

    Parameters
    ----------
    family : Family
    about : Information
        At the mixture.
    is_tested : ndarray of bool, shape (n_coordinates,)
    root : ndarray or None
        Lower Cholesky factor of the information of the tested coordinates; None for the identity.
    row_scores : RowScores
    """

    family: Family
    about: Information
    is_tested: NDArray[np.bool_]
    root: Array | None
    row_scores: RowScores

    @property
    def point(self) -> Point:
        """Weights and components of the mixture."""
        return self.about.weights, self.about.components

    def at(self, point: Point) -> ScoreTest:
        """The same test at a mixture nearby, whose information is nearly the same in coordinates about it."""
        normal = np.zeros_like(self.about.normal)
        normal[: len(point[0])] = np.sqrt(point[0])
        about = self.about._replace(weights=point[0], components=point[1], normal=normal)
        return replace(self, about=about)

    def whiten(self, scores: Array) -> Array:
        """Scores (..., n_coordinates) -> coordinates that are white for rows of the mixture."""
        normal = self.about.normal
        scores = scores - np.multiply.outer(scores @ normal, normal)
        tested = scores[..., self.is_tested]
        if self.root is None:
            return tested
        white: Array = solve_triangular(self.root, tested.T, lower=True).T
        return white

    def settle(self, statistics: Array, counts: Array, is_used: NDArray[np.bool_]) -> Settled:
        """P-values and z-scores of statistics, all (n_partitions,).

        Parameters
        ----------
        statistics, counts : ndarray of shape (n_partitions,)
            As :func:`score_statistics` gives them, and numbers of rows.
        is_used : ndarray of bool, shape (n_partitions,)
            Partitions that scale and spread of the law are corrected by.
        """
        matched = self.row_scores.as_of_many_rows(statistics, counts)
        return settle(matched, self.row_scores.many_rows, is_used)


def score_test(family: Family, point: Point, rng: np.random.Generator) -> ScoreTest:
    """The test at a mixture, with the law from rows drawn from it; no row of data is read."""
    weights, components = point
    about = information(family, *point, rng)
    n_draws = int(np.clip(DRAWN_NUMBERS // len(about.normal), FEWEST_DRAWS, MOST_DRAWS))
    # Draws cannot give the law of a component that they hardly ever come from.
    owners = family.coordinate_owners(components)
    is_tested = (owners < 0) | (weights[owners] * n_draws >= LEAST_DRAWN)
    root = about.root
    if root is not None and not is_tested.all():
        # The factor of the information of the tested coordinates.
        root = np.linalg.qr(root[is_tested].T)[1].T
    test = ScoreTest(family, about, is_tested, root, RowScores(1, 1, 1, 1, 1, 1))
    rows, _ = family.sample(n_draws, *point, rng)
    y = test.whiten(family.scores(rows[rng.permutation(n_draws)], *point))
    return replace(test, row_scores=row_scores_of(y))


def row_scores_of(y: Array) -> RowScores:
    """The moments from whitened scores of drawn rows, (n_draws, n_coordinates)."""
    n_draws = len(y)
    q = np.einsum("ij,ij->i", y, y)
    mean, deviation = float(q.mean()), q - q.mean()
    h = np.concatenate(
        [np.einsum("ij,ij->i", y, np.roll(y, k, axis=0)) for k in range(1, N_PAIRINGS + 1)]
    )
    # The squared length of a mean of draws is too large by its own variance.
    lean = y.T @ deviation / n_draws
    noise = float(np.mean(deviation**2 * q)) / n_draws
    return RowScores(
        mean,
        float(np.mean(deviation**2)),
        float(np.mean(deviation**3)),
        float(np.mean(h**2)),
        max(float(np.mean(h**3)), 0.0),
        max(float(lean @ lean) - noise, 0.0),
    )


def score_statistics(
    partitions: Sequence[PartitionStatistics],
    test: ScoreTest,
    total: Measurement,
    used: frozenset[int],
) -> list[float]:
    """The statistic of each partition, NaN for one that was not measured; :meth:`ScoreTest.settle` gives p-values.

    Parameters
    ----------
    partitions : sequence of PartitionStatistics
        With moments, under the mixture of the test alone.
    test : ScoreTest
    total : Measurement
        Sum over the partitions in ``used``, with which each is compared.
    used : frozenset of int
        Partitions that are part of the total.
    """
    assert total.moments is not None
    mean = test.family.score_of_moments(total.moments, *test.point) / total.n_samples
    return [
        _statistic(one, test, mean, total.n_samples, one.partition in used) for one in partitions
    ]


def _statistic(
    partition: PartitionStatistics,
    test: ScoreTest,
    mean: Array,
    n_total: int,
    is_part: bool,
) -> float:
    if not partition.is_measured:
        return float("nan")
    (measured,) = partition.measurements
    assert measured.moments is not None
    n = measured.n_samples
    beyond = test.family.score_of_moments(measured.moments, *test.point) - n * mean
    # The total has an error too, which is smaller the more rows it has. A part of it shares that error.
    variance = n * (1.0 - n / n_total if is_part else 1.0 + n / n_total)
    white = test.whiten(beyond)
    statistic = float(white @ white) / variance if variance > 0 else 0.0
    # Measured, and beyond all numbers: it contradicts the others, and is not one that was not measured.
    return statistic if np.isfinite(statistic) else np.inf
