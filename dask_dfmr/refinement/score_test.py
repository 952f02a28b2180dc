"""The score test: whether the rows of a partition contradict those of the other partitions.

The score of a row is the gradient of its log-density in the parameters, at one mixture. If all rows come from one
population, the mean scores of partitions differ by sampling alone. That holds whether the mixture is their optimum or
not, and for any number of rows, since sums over rows need no estimate.

The statistic is the squared length of the partition's sum of scores minus its share of the total, whitened: Rao's score
test of one sample against the others. Real rows are no mixture, and their scores vary as they will. So a sample of the
rows of consistent partitions gives the covariance that whitens, with the Fisher information as its lower bound
("sandwich"), and the law of the statistic for any number of rows. No score counts for more than a cap
(:mod:`dask_dfmr.mixtures.capped_scores`). The statistics of the majority correct scale and spread of the law
(:mod:`dask_dfmr.aggregation.null_law`).

With more components than the population has, some follow a handful of rows of single partitions. Sums of their scores
have no law that a sample could show, and consistent partitions would contradict one another. The test holds at any
mixture, so it is made at the mixture without these components (:func:`components_with_law`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dask_dfmr.aggregation.null_law import Law, Settled, settle
from dask_dfmr.local.comparison import MOST_OUTSIDE
from dask_dfmr.local.em import Point
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics
from dask_dfmr.mixtures.capped_scores import capped_scores
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.information import Information, information, narrowing
from dask_dfmr.mixtures.row_cut import RowCut
from dask_dfmr.mixtures.tails import binom_sf

MOST_SCORE_DRAWS, FEWEST_SCORE_DRAWS, DRAWN_SCORE_NUMBERS = 2**13, 2**10, 2**22
"""Rows drawn for the moments of scores: so many numbers by the number of coordinates, within these bounds."""

N_PAIRINGS = 8
"""Other rows that each row is paired with for the third moment of pairs; the second moment is that of all pairs."""

MOST_NUMBERS = 2**24
"""Numbers in the scores of sampled rows that one test uses, at most: 128 MB."""

MEMBER_LEVEL = 0.01
"""Partitions with a smaller p-value do not add their rows to the covariance and the law of the scores."""

N_FOLDS = 4
"""Parts of the sampled rows. The scores of each are whitened by the covariance of the others, like those of a partition
whose rows are not in the sample. Of 3,000 resampled partitions of 1,798 rows with extreme tails (prices and sizes of
diamonds, 107 parameters), .27 % have p < .001 without this, and none with it; of t(3) rows .13 % and .07 %."""

EXPLAINED_SCALE, EXPLAINED_SPREAD = 1.05, 1.25
"""Scale and spread up to which the law of the mixture explains the partitions that are used. On rows of mixtures, 20
partitions of 800 rows, the scale was .90 to 1.30 and the spread up to 1.20 by chance, and both were explained in 108 of
120 draws (``benchmarks/row_tests.py``). In the others the law of the rows decides, which costs time alone."""

MOST_MEMBER_SETS = 2
"""Sets of consistent partitions whose rows give a law, one after the other. Mostly the second one is the first."""

LEAST_ROWS_PER_PARAMETER, MOST_UNTESTED = 10.0, 0.05
"""The test is made without components that have fewer sampled rows per parameter, the lightest first, as long as these
hold at most this share of the rows. This is caution: a covariance of scores that few rows determine has no law. No harm
could be measured. At mixtures with one such component, .14 % of 16,800 consistent partitions have p < .001. Where it
has 10 to 30 rows a parameter, .17 % of 1,200 have (``benchmarks/row_tests.py``)."""

LEAST_POWER = 0.05
"""Least power of the normalising transformation. A smaller one, nearly a logarithm, would give longer tails than any
sum of squares has."""


@dataclass(frozen=True)
class RowScores:
    """Moments of the whitened scores of rows: of rows of partitions, or of rows drawn from the mixture.

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
    """The test at one mixture; :class:`ScoreSample` makes it, once for all partitions.

    Parameters
    ----------
    family : Family
    about : Information
        At the mixture. It whitens by the covariance of the scores of sampled rows.
    row_scores : RowScores
    """

    family: Family
    about: Information
    row_scores: RowScores

    def at(self, point: Point) -> ScoreTest:
        """The same test at a mixture nearby, whose information is nearly the same in coordinates about it."""
        normal = np.zeros_like(self.about.normal)
        normal[: len(point[0])] = np.sqrt(point[0])
        about = self.about._replace(weights=point[0], components=point[1], normal=normal)
        return replace(self, about=about)

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


def components_with_law(
    family: Family, point: Point, samples: Iterable[Array]
) -> NDArray[np.bool_]:
    """Which components of a mixture rows are tested at, (n_components,): those that sampled rows stand behind.

    Parameters
    ----------
    family : Family
    point : (weights, components)
        The global mixture.
    samples : iterable of ndarray, each (n_rows, n_features)
        Rows of partitions. Without any the law is that of the mixture, and all components have one.
    """
    weights, components = point
    n_rows = sum(map(len, samples))
    n_parameters = family.n_parameters(1, family.n_features(components))
    order = np.argsort(weights, kind="stable")
    is_light = np.cumsum(weights[order]) <= MOST_UNTESTED
    has_few = n_rows * weights[order] < LEAST_ROWS_PER_PARAMETER * n_parameters
    tested = np.ones(len(weights), dtype=bool)
    tested[order[is_light & has_few & (n_rows > 0)]] = False
    return tested


def part_of(point: Point, chosen: NDArray[np.bool_]) -> Point:
    """The mixture of the chosen components."""
    weights, components = point
    return weights[chosen] / weights[chosen].sum(), tuple(p[chosen] for p in components)


class ScoreSample:
    """Capped scores of sampled rows at one mixture: the covariance and the law of the sums of partitions.

    Without rows of partitions, rows drawn from the mixture give both, as if the rows were a mixture of its family.

    Parameters
    ----------
    family : Family
    point : (weights, components)
        The mixture.
    samples : mapping of int to ndarray
        Rows of partitions, (n_rows, n_features).
    cap : float
        Of the scores, as in the sums that are tested.
    rng : Generator
    """

    def __init__(
        self,
        family: Family,
        point: Point,
        samples: Mapping[int, Array],
        cap: float,
        rng: np.random.Generator,
    ) -> None:
        self.family, self.point, self.cap, self.samples = family, point, cap, samples
        self.about = information(family, *point, rng)
        n_draws = int(
            np.clip(
                DRAWN_SCORE_NUMBERS // len(self.about.normal), FEWEST_SCORE_DRAWS, MOST_SCORE_DRAWS
            )
        )
        rows, _ = family.sample(n_draws, *point, rng)
        self.drawn = self._white(rows[rng.permutation(n_draws)])
        self._tests: dict[tuple[int, ...], ScoreTest] = {}

    def _white(self, rows: Array) -> Array:
        return self.about.whiten(capped_scores(self.family, rows, self.point, self.cap))

    @cached_property
    def of_partitions(self) -> dict[int, Array]:
        """Scores of the rows in white coordinates: every test turns and shrinks the same numbers."""
        most = max(1, MOST_NUMBERS // (len(self.about.normal) * max(len(self.samples), 1)))
        return {i: self._white(rows[:most]) for i, rows in self.samples.items() if len(rows)}

    def test(self, members: Sequence[int]) -> ScoreTest:
        """The test whose covariance and law are those of the rows of some partitions, made once for the same ones.

        If they have too few rows, drawn ones are added. Without any partition the law is that of the mixture.
        """
        key = tuple(members)
        if key not in self._tests:
            self._tests[key] = self._test(key)
        return self._tests[key]

    def _test(self, members: Sequence[int]) -> ScoreTest:
        if not members:
            law = row_scores_of(self.drawn - self.drawn.mean(axis=0))
            return ScoreTest(self.family, self.about, law)
        scores = [self.of_partitions[i] for i in members if i in self.of_partitions]
        n_missing = (
            max(FEWEST_SCORE_DRAWS - sum(map(len, scores)), 0) if scores else len(self.drawn)
        )
        white = np.concatenate([*scores, self.drawn[:n_missing]])
        white = (white - white.mean(axis=0))[np.random.default_rng(0).permutation(len(white))]
        if not scores or self.about.root is None:
            return ScoreTest(self.family, self.about, row_scores_of(white))
        folds = [white[f::N_FOLDS] for f in range(N_FOLDS)]
        grams = [fold.T @ fold for fold in folds]
        total, n_rows = np.sum(grams, axis=0), len(white)
        # A covariance fits the rows that it was computed from better than others.
        of_others = [
            fold @ narrowing((total - gram) / (n_rows - len(fold)))
            for gram, fold in zip(grams, folds, strict=True)
        ]
        law = mean_of([row_scores_of(one) for one in of_others])
        return ScoreTest(self.family, self.about.widened(total / n_rows), law)

    def settle(
        self,
        statistics_of: Callable[[ScoreTest], Array],
        partitions: Sequence[int],
        counts: Array,
        is_used: NDArray[np.bool_],
        is_judged: NDArray[np.bool_] | None = None,
    ) -> tuple[ScoreTest, Settled]:
        """The test by the rows of consistent partitions, and what it finds.

        It starts with the law of the mixture. Partitions that this law makes consistent give the covariance of the
        scores and a law of their own. That law decides anew which partitions do. It is wider, so it is not needed if
        the law of the mixture explains the partitions that are used and makes all that are judged consistent.

        Parameters
        ----------
        statistics_of : callable
            The statistics of all partitions under a test, (n_partitions,).
        partitions : sequence of int
            Their numbers in the sample.
        counts, is_used : ndarray of shape (n_partitions,)
            As for :meth:`ScoreTest.settle`. Only partitions that are used may add their rows.
        is_judged : ndarray of bool, shape (n_partitions,), optional
            Partitions whose results are asked for; all by default.
        """
        test, members = self.test(()), None
        settled = test.settle(statistics_of(test), counts, is_used)
        judged = settled.p_values if is_judged is None else settled.p_values[is_judged]
        is_explained = settled.scale <= EXPLAINED_SCALE and settled.spread <= EXPLAINED_SPREAD
        if is_explained and (judged >= MEMBER_LEVEL).all():
            return test, settled
        for _ in range(MOST_MEMBER_SETS):
            agrees = is_used & (settled.p_values >= MEMBER_LEVEL)
            if 2 * agrees.sum() < is_used.sum():
                agrees = is_used & (settled.z_scores <= np.median(settled.z_scores[is_used]))
            found = [i for i, is_member in zip(partitions, agrees, strict=True) if is_member]
            if found == members:
                break
            test, members = self.test(found), found
            settled = test.settle(statistics_of(test), counts, is_used)
        return test, settled


def row_scores_of(y: Array) -> RowScores:
    """The moments from whitened scores of rows in random order, (n_draws, n_coordinates)."""
    n_draws = len(y)
    q = np.einsum("ij,ij->i", y, y)
    mean, deviation = float(q.mean()), q - q.mean()
    pairings = [(y[k:], y[:-k]) for k in range(1, N_PAIRINGS + 1)]
    pairings += [(y[:k], y[-k:]) for k in range(1, N_PAIRINGS + 1)]
    h = np.concatenate([np.einsum("ij,ij->i", a, b) for a, b in pairings])
    gram = y.T @ y if y.shape[1] < n_draws else y @ y.T
    pair = float(np.sum(gram**2) - np.sum(q**2)) / (n_draws * (n_draws - 1))
    # The squared length of a mean of draws is too large by its own variance.
    lean = y.T @ deviation / n_draws
    noise = float(np.mean(deviation**2 * q)) / n_draws
    return RowScores(
        mean,
        float(np.mean(deviation**2)),
        float(np.mean(deviation**3)),
        pair,
        max(float(np.mean(h**3)), 0.0),
        max(float(lean @ lean) - noise, 0.0),
    )


def mean_of(several: Sequence[RowScores]) -> RowScores:
    """The mean of each moment."""
    means = np.mean([astuple(one) for one in several], axis=0)
    return RowScores(*means.tolist())


def with_rows_outside(
    settled: Settled, partitions: Sequence[PartitionStatistics], total: Measurement, cut: RowCut
) -> Settled:
    """The results of a test whose scores are cut off, with the rows that have none.

    Rows beyond all cuts have the score 0. So rows that are all far away would contradict nothing. A partition of which
    a third more rows are outside than of the total contradicts it: its p-value is at most the probability that as many
    rows of the total are. Fewer rows outside are a matter of the quality of the rows, and contradict nothing.

    Parameters
    ----------
    settled : Settled
    partitions : sequence of PartitionStatistics
        In the order of ``settled``; the last mixture is that of the test.
    total : Measurement
        Of the partitions that each is compared with.
    cut : RowCut
    """
    if not cut.truncates:
        return settled
    x = np.array([p.measurements[-1].n_outside if p.is_measured else 0 for p in partitions])
    n = np.array([max(p.n_samples, 1) for p in partitions])
    # One row more, so that without any row outside in the total a few rows are no evidence.
    usual = (total.n_outside + 1) / (total.n_samples + 1)
    probabilities = np.where(x / n > usual + MOST_OUTSIDE, binom_sf(x - 1, n, usual), 1.0)
    z_scores = -ndtri(np.maximum(probabilities, np.finfo(float).tiny))
    return settled._replace(
        p_values=np.minimum(settled.p_values, probabilities),
        z_scores=np.where(
            probabilities < 1.0, np.maximum(settled.z_scores, z_scores), settled.z_scores
        ),
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
        With capped scores; the last mixture is that of the test.
    test : ScoreTest
    total : Measurement
        Sum over the partitions in ``used``, with which each is compared.
    used : frozenset of int
        Partitions that are part of the total.
    """
    assert total.scores is not None
    mean = total.scores / total.n_samples
    return [
        _statistic(one, test.about, mean, total.n_samples, one.partition in used)
        for one in partitions
    ]


def _statistic(
    partition: PartitionStatistics,
    about: Information,
    mean: Array,
    n_total: int,
    is_part: bool,
) -> float:
    if not partition.is_measured:
        return float("nan")
    measured = partition.measurements[-1]
    assert measured.scores is not None
    n = measured.n_samples
    beyond = measured.scores - n * mean
    # The total has an error too, which is smaller the more rows it has. A part of it shares that error.
    variance = n * (1.0 - n / n_total if is_part else 1.0 + n / n_total)
    white = about.whiten(beyond)
    statistic = float(white @ white) / variance if variance > 0 else 0.0
    # Measured, and beyond all numbers: it contradicts the others, and is not one that was not measured.
    return statistic if np.isfinite(statistic) else np.inf
