"""Do the rows of a partition contradict those of the others? Asked of the sum of their scores at one mixture.

The score of a row is the gradient of its log-density in the parameters. Where all rows come from one population
the sums of partitions differ by sampling alone, whether the mixture is their optimum or not, and for any number of
rows: sums over rows need no estimate. The test is the squared length of what a sum has beyond its share of the
total, whitened by the Fisher information (Rao's score test, of one sample against the others). Its law has the
first three moments for as few rows as there are; scale and spread are corrected by what the majority shows
(:mod:`dask_dfmr.aggregation.null_law`).
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
"""Rows drawn for the moments of scores, by the number of coordinates."""

N_PAIRINGS = 4
"""Every drawn row is paired with so many others."""

LEAST_DRAWN = 25
"""Coordinates of a component that fewer of these rows are expected from are not tested."""

LEAST_POWER = 0.05
"""A smaller power, nearly a logarithm, would make tails longer than those of any sum of squares."""


@dataclass(frozen=True)
class RowScores:
    """Moments of the whitened score y of one row and of pairs of rows, of rows drawn from the mixture.

    With q = y.y, h = y.y' of two rows and C the covariance of y: ``mean`` of q = trace C, ``variance`` and ``third``
    central moment of q; ``pair`` = E h^2 = trace C^2, ``pair_third`` = E h^3; ``lean`` = |E (q - mean) y|^2.
    """

    mean: float
    variance: float
    third: float
    pair: float
    pair_third: float
    lean: float

    def cumulants(self, n: Array) -> tuple[Array, Array]:
        """Variance and third central moment of |sum of y|^2 / n over n independent rows; its mean is ``mean``.

        They follow from expanding the square into rows and pairs of rows.
        """
        variance = (self.variance + 2.0 * (n - 1) * self.pair) / n
        # E (q - mean) y.C y and trace C^3, exact where C is a multiple of a projection, as after whitening.
        ratio = self.pair / self.mean
        third = (
            self.third
            + (n - 1) * (12.0 * ratio * self.variance + 6.0 * self.lean + 4.0 * self.pair_third)
            + 8.0 * (n - 1) * (n - 2) * ratio * self.pair
        ) / n**2
        return variance, third

    def as_of_many_rows(self, statistics: Array, n: Array) -> Array:
        """Values of |sum of y|^2 / n -> values that are about as improbable for many rows.

        Each is taken to a normal score and back by the power of a quadratic form that is most nearly normal
        (Jensen & Solomon 1972); for many rows that is the cube root.
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
        """The same for many rows."""
        return Law(self.mean, self.mean**2 / self.pair)


@dataclass(frozen=True)
class ScoreTest:
    """The test at one mixture; make it with :func:`score_test`, once for all partitions.

    ``is_tested`` are the coordinates with a say, ``root`` is the lower Cholesky factor of their information, None
    for the identity.
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
        """The same test at a mixture nearby: the information in coordinates about the mixture is nearly the same."""
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

    def settle(self, statistics: Array, counts: Array, judges: NDArray[np.bool_]) -> Settled:
        """P-values and z-scores of statistics of ``counts`` rows each; ``judges`` have a say in scale and spread."""
        matched = self.row_scores.as_of_many_rows(statistics, counts)
        return settle(matched, self.row_scores.many_rows, judges)


def score_test(family: Family, point: Point, rng: np.random.Generator) -> ScoreTest:
    """The test at a mixture, from rows drawn from it: no row of data is read."""
    weights, components = point
    about = information(family, *point, rng)
    n_draws = int(np.clip(DRAWN_NUMBERS // len(about.normal), FEWEST_DRAWS, MOST_DRAWS))
    # A component that draws hardly meet has no law that draws could tell.
    owners = family.coordinate_owners(components)
    is_tested = (owners < 0) | (weights[owners] * n_draws >= LEAST_DRAWN)
    root = about.root
    if root is not None and not is_tested.all():
        # The factor of the information of the coordinates that are left.
        root = np.linalg.qr(root[is_tested].T)[1].T
    test = ScoreTest(family, about, is_tested, root, RowScores(1, 1, 1, 1, 1, 1))
    rows, _ = family.sample(n_draws, *point, rng)
    y = test.whiten(family.scores(rows[rng.permutation(n_draws)], *point))
    return replace(test, row_scores=row_scores_of(y))


def row_scores_of(y: Array) -> RowScores:
    """From draws, (n_draws, n_coordinates)."""
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
    readings: Sequence[PartitionStatistics],
    test: ScoreTest,
    total: Measurement,
    used: frozenset[int],
    which: int = 0,
) -> list[float]:
    """What the test says of partitions, before it is settled: one number each, NaN for one that was not measured.

    Parameters
    ----------
    readings : sequence of PartitionStatistics
        Measured, with moments, at the mixture of the test: the one number ``which`` of the reading.
    total : Measurement
        Of the partitions in ``used``, those that the others are held against.
    used : frozenset of int
        Partitions that are part of the total.
    """
    assert total.moments is not None
    mean = test.family.score_of_moments(total.moments, *test.point) / total.n_samples
    return [
        _statistic(reading, test, mean, total.n_samples, reading.partition in used, which)
        for reading in readings
    ]


def _statistic(
    reading: PartitionStatistics,
    test: ScoreTest,
    mean: Array,
    n_total: int,
    is_part: bool,
    which: int,
) -> float:
    if not reading.is_measured:
        return float("nan")
    measured = reading.measurements[which]
    assert measured.moments is not None
    n = measured.n_samples
    beyond = test.family.score_of_moments(measured.moments, *test.point) - n * mean
    # The total is uncertain too: less so the more rows it has, and what is part of it pulls it along.
    variance = n * (1.0 - n / n_total if is_part else 1.0 + n / n_total)
    white = test.whiten(beyond)
    return float(white @ white) / variance if variance > 0 else 0.0
