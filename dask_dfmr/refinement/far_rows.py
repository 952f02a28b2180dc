"""Far rows of a partition: whether its moments are those of rows that the score test saw.

The score test of a partition counts no row for more than a cap (:mod:`dask_dfmr.mixtures.capped_scores`). An M step
sums moments, in which each row counts in full. Scores are linear in moments, so the moments give the sum of all scores.
What this sum has beyond the capped one is the *excess* of the partition: what its far rows, or wrong numbers, do to the
M step unseen by the score test.

Rows of a heavy tail have an excess too. So each partition tells the lengths of its longest scores. Above some length
the tail of any usual law is at most that of a power: the logarithms of lengths over the smallest of the longest are
exponential (Hill 1975). The excess of a partition contradicts the others if even such a tail has no such row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dask_dfmr.aggregation.null_law import Settled
from dask_dfmr.aggregation.reasons import ContradictsOthers, HasFarRows, Reason
from dask_dfmr.local.em import Point
from dask_dfmr.local.row_statistics import N_LONGEST, PartitionStatistics
from dask_dfmr.mixtures.family import Array, Family

MOST_INDEX = 5.0
"""The index of no partition counts for more than this many times the median: numbers of the worst cannot hide them."""

LEAST_INDEX = 0.1
"""Least index of the tail, so that rows of few values have one."""

FEWEST_WITH_TAIL = 3
"""Of fewer partitions the lengths give no law."""


class FarRows(NamedTuple):
    """Excess of partitions, both (n_partitions,), 0 and 1 for one that was not measured.

    ``ratios`` has the length of the excess over the cap. ``p_values`` are the probabilities that the rows of a
    partition have a larger excess; 1 up to the cap, by which one row may move a sum.
    """

    ratios: Array
    p_values: Array


class RowsJudged(NamedTuple):
    """Both tests of the rows of partitions: of their capped scores, ``settled``, and of their excess, ``far``.

    ``truncates`` says whether the fit cuts rows off.
    """

    settled: Settled
    far: FarRows
    truncates: bool = False

    @property
    def p_values(self) -> Array:
        """The smaller p-value of each partition."""
        return np.minimum(self.settled.p_values, self.far.p_values)

    @property
    def z_scores(self) -> Array:
        """The larger z-score of each partition."""
        of_far = -ndtri(np.clip(self.far.p_values, np.finfo(float).tiny, 1.0))
        is_beyond = self.far.p_values < 1.0
        return np.where(is_beyond, np.fmax(self.settled.z_scores, of_far), self.settled.z_scores)

    def reason(self, place: int, level: float) -> Reason:
        """Why the partition at a place contradicts the others: by all of its rows, or else by the far ones."""
        p_value, of_far = (float(p[place]) for p in (self.settled.p_values, self.far.p_values))
        if p_value >= level > of_far:
            return HasFarRows(float(self.far.ratios[place]), of_far, self.truncates)
        return ContradictsOthers(float(self.settled.z_scores[place]), p_value)


def excess_lengths(
    partitions: Sequence[PartitionStatistics], family: Family, point: Point
) -> list[float]:
    """Length of the excess of each partition at the last mixture, which is ``point``; 0 for one that was not measured.

    The partitions have moments and capped scores.
    """
    found = []
    for partition in partitions:
        length = 0.0
        if partition.is_measured:
            measured = partition.measurements[-1]
            assert measured.moments is not None
            assert measured.scores is not None
            with np.errstate(over="ignore", invalid="ignore"):
                beyond = family.score_of_moments(measured.moments, *point) - measured.scores
                length = float(np.linalg.norm(beyond))
        found.append(length if np.isfinite(length) else np.inf)
    return found


def far_rows(
    excess: Array, partitions: Sequence[PartitionStatistics], cap: float, is_used: NDArray[np.bool_]
) -> FarRows:
    """Test the excess of partitions by the longest scores of those that are used.

    Parameters
    ----------
    excess : ndarray of shape (n_partitions,)
        As :func:`excess_lengths` gives it.
    partitions : sequence of PartitionStatistics
        In the same order, with the longest scores at the last mixture.
    cap : float
        Of the scores.
    is_used : ndarray of bool, shape (n_partitions,)
        Partitions whose rows give the law, each for the others.
    """
    ratios, p_values = excess / cap, np.ones(len(excess))
    counts = np.array([max(p.n_samples, 1) for p in partitions], dtype=float)
    tails = {
        i: longest
        for i, p in enumerate(partitions)
        if is_used[i] and p.is_measured and len(longest := _longest(p)) == N_LONGEST
    }
    judged = np.flatnonzero(ratios > 1.0)
    if len(tails) < FEWEST_WITH_TAIL or not len(judged):
        return FarRows(ratios, p_values)
    lengths = np.array(list(tails.values()))
    at = np.array([float(p[0]) for p in lengths])
    n_usual = float(np.median(counts[list(tails)]))
    indices = np.log(np.maximum(lengths[:, 1:], at[:, None]) / at[:, None]).mean(axis=1)
    indices = np.minimum(indices, MOST_INDEX * np.median(indices))
    for i in judged:
        others = np.array([j != i for j in tails])
        index = max(float(indices[others].mean()), LEAST_INDEX)
        expected = N_LONGEST * counts[i] / n_usual
        beyond = np.log(np.maximum(excess[i] / np.median(at[others]), 1.0))
        # The index is a mean of exponential numbers: this is the probability for a further one.
        n_numbers = (N_LONGEST - 1) * int(others.sum())
        log_p = np.log(expected) - n_numbers * np.log1p(beyond / (n_numbers * index))
        p_values[i] = float(np.exp(min(log_p, 0.0)))
    return FarRows(ratios, p_values)


def _longest(partition: PartitionStatistics) -> Array:
    longest = partition.measurements[-1].longest
    return np.empty(0) if longest is None else longest[longest > 0]
