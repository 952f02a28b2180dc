"""A second look at excluded partitions: whether their rows contradict those of the kept ones at the global mixture.

A local fit of consistent rows may end in another optimum of their likelihood. Its estimate then looks inconsistent,
however often the rows are fitted again. The rows themselves do not depend on an optimum. So the score test holds them
against the global mixture (:mod:`dask_dfmr.refinement.score_test`). The rows that came along with the estimates stand
for the kept partitions, so only excluded partitions are read.

The test holds at any mixture. So one test at the first global mixture serves all excluded partitions, however many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.null_law import Settled
from dask_dfmr.local.comparison import RARITY, boundary
from dask_dfmr.local.estimate import FROM_OTHERS, LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure, total_of
from dask_dfmr.mixtures.capped_scores import cap_for
from dask_dfmr.mixtures.family import Array, Components, Family
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut
from dask_dfmr.refinement.far_rows import RowsJudged, excess_lengths, far_rows
from dask_dfmr.refinement.score_test import (
    ScoreSample,
    ScoreTest,
    components_with_law,
    part_of,
    score_statistics,
    with_rows_outside,
)


class RowsOfKept:
    """Some rows of the kept partitions, against which the score test at the global mixture holds those of others.

    Parameters
    ----------
    mixture : Mixture
        The global mixture.
    kept : mapping of int to ndarray
        Some rows (n_rows, n_features) of each kept partition, which have rows. They give the mean score, the covariance
        and the law, and correct it as the majority does in a refinement.
    counts : sequence of int
        Rows of the partitions that will be tested.
    rng : Generator
    cut : RowCut, optional
        That of the fits.

    Attributes
    ----------
    mixtures : list of Mixture
        The global mixture, and that of the test if it is another one.
    wanted : Wanted
        What to measure of the rows of partitions under these, if they are to be tested.
    """

    def __init__(
        self,
        mixture: Mixture,
        kept: Mapping[int, Array],
        counts: Sequence[int],
        rng: np.random.Generator,
        cut: RowCut = COUNTING,
    ) -> None:
        family = mixture.family.with_cut(cut)
        whole = (mixture.weights, mixture.components)
        chosen = components_with_law(family, whole, kept.values())
        point = whole if chosen.all() else part_of(whole, chosen)
        tested = mixture.family.mixture(*point, mixture.feature_names)
        self.mixtures = [mixture] if chosen.all() else [mixture, tested]
        usual = float(np.median(counts))
        cap = cap_for(family, point, list(kept.values()), usual, tested.n_parameters)
        floor = boundary(family, point, RARITY * cut.level) if cut.truncates else None
        self.wanted = Wanted(score_cap=cap, log_floor=floor, cut=cut)
        self.sampled = [
            PartitionStatistics(i, len(rows), measurements=measure(rows, [tested], self.wanted))
            for i, rows in kept.items()
        ]
        (self.total,) = total_of(self.sampled)
        self.sample = ScoreSample(family, point, kept, cap, rng)

    def hold_against(self, readings: Sequence[PartitionStatistics]) -> Settled:
        """The score test of partitions that were measured as ``wanted``; the results have their order."""
        everyone, n_sampled = [*self.sampled, *readings], len(self.sampled)
        used = frozenset(one.partition for one in self.sampled)

        def statistics(test: ScoreTest) -> Array:
            return np.array(score_statistics(everyone, test, self.total, used))

        is_used = np.arange(len(everyone)) < n_sampled
        counts = np.array([one.n_samples for one in everyone], dtype=float)
        numbers = [one.partition for one in everyone]
        _, settled = self.sample.settle(statistics, numbers, counts, is_used, ~is_used)
        settled = with_rows_outside(settled, everyone, self.total, self.wanted.cut)
        assert self.wanted.score_cap is not None
        excess = excess_lengths(everyone, self.sample.family, self.sample.point)
        far = far_rows(np.array(excess), everyone, self.wanted.score_cap, is_used)
        judged = RowsJudged(settled, far, self.wanted.cut.truncates)
        return settled._replace(
            p_values=judged.p_values[n_sampled:], z_scores=judged.z_scores[n_sampled:]
        )

    def shares_outside(self, reading: PartitionStatistics) -> tuple[float, float]:
        """The shares of rows outside, of a partition and of the kept ones; 0 if the test compares these rows, too."""
        if not self.wanted.cut.truncates:
            return 0.0, 0.0
        own, usual = reading.measurements[-1].n_outside, self.total.n_outside
        return own / max(reading.n_samples, 1), usual / max(self.total.n_samples, 1)


def one_step(
    problem: LocalProblem, mixture: Mixture, reading: PartitionStatistics, first: LocalEstimate
) -> LocalEstimate | None:
    """The estimate of a partition after an EM step from the global mixture; None if a component collapses.

    It is as near to the global mixture as the rows are, whatever other optima they have. The log-likelihood is that at
    the global mixture. Outcome and reason stay those of the local fit.
    """
    family, n_samples = problem.family, reading.n_samples
    measured = reading.measurements[0]
    assert measured.moments is not None
    n_inside = n_samples if not family.cut.truncates else float(measured.moments[0].sum())
    moments = measured.moments
    prior = problem.penalty_of_moments(n_samples).prior(moments, mixture.components)
    components = family.from_moments(moments, mixture.components, prior)
    if not family.is_proper(components):
        return None
    components = _where_determined(family, moments[0], components, mixture.components)
    return replace(
        first,
        mixture=family.mixture(moments[0] / n_inside, components, mixture.feature_names),
        n_iter=1,
        log_likelihood=measured.log_likelihood / n_samples,
        start=FROM_OTHERS,
        n_outside=measured.n_outside,
    )


def _where_determined(
    family: Family, rows: Array, components: Components, others: Components
) -> Components:
    """The components that have as many rows (n_components,) as parameters, and those of the global mixture for others.

    A component that few rows of a partition stand behind is narrow in an arbitrary direction after a step, and its
    density dominates the L2 distance of the step, however light it is.
    """
    owners = family.coordinate_owners(components)
    if (owners < 0).any():  # they share a covariance, which all rows determine
        return components
    parameters = np.bincount(owners, minlength=len(rows))
    is_determined = rows >= parameters
    return tuple(
        np.where(is_determined.reshape(-1, *[1] * (own.ndim - 1)), own, other)
        for own, other in zip(components, others, strict=True)
    )
