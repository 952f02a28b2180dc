"""Whether a partition has the same rows in every pass, and gives the same sums.

Between two tests a refinement uses the moments of a partition untested. Two numbers, which follow from the moments,
guard these passes. Mean and covariance of all rows do not depend on the mixture, so they are those of the pass before.
And the sum of the scores does not grow much from pass to pass, since the mixture moves little. If it does, the pass is
made once more at the same mixture, with the test. The same rows give the same sums then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dask_dfmr.local.em import Point
from dask_dfmr.local.row_statistics import PartitionStatistics
from dask_dfmr.mixtures.family import Family, Moments

SAME_SUMS = 1e-9
"""Relative difference by which sums over the same rows may differ. On rows of ten families, up to a million standard
deviations away from 0, it was at most 8e-15 under two mixtures (``benchmarks/row_tests.py``)."""

MOST_GROWTH = 2.0
"""A partition is tested again if its score is this many times as long as in the last test, and longer than the cap."""


class RowSums(NamedTuple):
    """Of the rows of one partition: the length of the sum of their scores, and a mark that no mixture changes.

    ``mark`` is a weighted sum of the numbers in mean and covariance, ``size`` the same of their absolute values. Both
    are 0 if the family truncates: which rows count depends on the mixture then. The mark is NaN, which is that of no
    rows, if moments under two mixtures are those of different rows.
    """

    score: float = 0.0
    mark: float = 0.0
    size: float = 0.0

    def has_rows_of(self, other: RowSums) -> bool:
        """Whether the other sums can be those of the same rows, at any mixture."""
        return abs(self.mark - other.mark) <= SAME_SUMS * max(self.size, other.size)

    def has_score_of(self, other: RowSums) -> bool:
        """Whether the other sums can be those of the same rows at the same mixture."""
        return abs(self.score - other.score) <= SAME_SUMS * max(self.score, other.score)


def row_sums(
    partitions: Sequence[PartitionStatistics], family: Family, points: Sequence[Point]
) -> list[RowSums]:
    """The sums of each partition at the first of the mixtures; of one that was not measured, zeros."""
    return [_row_sums(one, family, points) if one.is_measured else RowSums() for one in partitions]


def _row_sums(partition: PartitionStatistics, family: Family, points: Sequence[Point]) -> RowSums:
    moments = [m.moments for m in partition.measurements if m.moments is not None]
    with np.errstate(over="ignore", invalid="ignore"):
        score = float(np.linalg.norm(family.score_of_moments(moments[0], *points[0])))
        if family.cut.truncates:
            return RowSums(score)
        first, *others = (
            RowSums(score, *_mark(family, own, point))
            for own, point in zip(moments, points, strict=True)
        )
    return first if all(map(first.has_rows_of, others)) else first._replace(mark=np.nan)


def _mark(family: Family, moments: Moments, point: Point) -> tuple[float, float]:
    about = np.concatenate([p.ravel() for p in family.total_target(moments, point[1])])
    # Weights that are all different: no change of a single number keeps the sum.
    weights = 1.0 + np.arange(len(about)) / len(about)
    return float(weights @ about), float(weights @ np.abs(about))
