"""A second look at excluded partitions: whether their rows contradict those of the kept ones at the global mixture.

A local fit of consistent rows may end in another optimum of their likelihood. Its estimate then looks inconsistent,
however often the rows are fitted again. The rows themselves do not depend on an optimum. So the score test holds them
against the global mixture (:mod:`dask_dfmr.refinement.score_test`). The rows that came along with the estimates stand
for the kept partitions, so only excluded partitions are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dask_dfmr.aggregation.null_law import Settled
from dask_dfmr.local.comparison import RARITY, boundary
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure, total_of
from dask_dfmr.mixtures.capped_scores import cap_for
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, RowCut
from dask_dfmr.refinement.score_test import (
    ScoreSample,
    ScoreTest,
    score_statistics,
    with_rows_outside,
)

FROM_OTHERS = "mixture of the others"
"""Start of an estimate that replaced the first one, as the report shows it."""

STEP_SHARE = 0.5
"""Share of an EM step. A partition whose rows do not contradict differs from the global mixture by chance alone, but
the distance may weigh just this difference most. Of small integers, 2 of 120 partitions whose rows agree (p = .04 and
.37) are still excluded after a whole step, and none after half a step."""


def wanted_of(
    mixture: Mixture, kept: Mapping[int, Array], counts: Sequence[int], cut: RowCut = COUNTING
) -> Wanted:
    """What to measure of the rows of excluded partitions, which have ``counts`` rows; ``cut`` is that of the fits."""
    point, family = (mixture.weights, mixture.components), mixture.family.with_cut(cut)
    usual = float(np.median(counts))
    cap = cap_for(family, point, list(kept.values()), usual, mixture.n_parameters)
    floor = boundary(family, point, RARITY * cut.level) if cut.truncates else None
    return Wanted(score_cap=cap, log_floor=floor, cut=cut)


def hold_against(
    mixture: Mixture,
    kept: Mapping[int, Array],
    readings: Sequence[PartitionStatistics],
    wanted: Wanted,
    rng: np.random.Generator,
) -> Settled:
    """The score test of excluded partitions at the global mixture; p-values and z-scores in the order of ``readings``.

    Parameters
    ----------
    mixture : Mixture
        The global mixture.
    kept : mapping of int to ndarray
        Some rows (n_rows, n_features) of each kept partition, which have rows. They give the mean score, the covariance
        and the law, and correct it as the majority does in a refinement.
    readings : sequence of PartitionStatistics
        Of the excluded partitions, all measured.
    wanted : Wanted
        As they were measured.
    rng : Generator
    """
    assert wanted.score_cap is not None
    sampled = [
        PartitionStatistics(i, len(rows), measurements=measure(rows, [mixture], wanted))
        for i, rows in kept.items()
    ]
    (total,) = total_of(sampled)
    everyone, used = [*sampled, *readings], frozenset(kept)

    def statistics(test: ScoreTest) -> Array:
        return np.array(score_statistics(everyone, test, total, used))

    point = (mixture.weights, mixture.components)
    family = mixture.family.with_cut(wanted.cut)
    sample = ScoreSample(family, point, kept, wanted.score_cap, rng)
    counts = np.array([one.n_samples for one in everyone], dtype=float)
    is_used = np.arange(len(everyone)) < len(sampled)
    _, settled = sample.settle(statistics, [one.partition for one in everyone], counts, is_used)
    settled = with_rows_outside(settled, everyone, total, wanted.cut)
    return settled._replace(
        p_values=settled.p_values[len(sampled) :], z_scores=settled.z_scores[len(sampled) :]
    )


def one_step(
    problem: LocalProblem, mixture: Mixture, reading: PartitionStatistics, first: LocalEstimate
) -> LocalEstimate | None:
    """The estimate of a partition after a part of an EM step from the global mixture; None if a component collapses.

    It is as near to the global mixture as the rows are, whatever other optima they have. The log-likelihood is that at
    the global mixture. Outcome and reason stay those of the local fit.
    """
    family, n_samples = problem.family, reading.n_samples
    (measured,) = reading.measurements
    assert measured.moments is not None
    n_inside = n_samples if not family.cut.truncates else float(measured.moments[0].sum())
    own = family.pooled_moments(
        n_inside * mixture.weights,
        mixture.components,
        np.arange(mixture.n_components),
        mixture.components,
    )
    moments = tuple(a + STEP_SHARE * (b - a) for a, b in zip(own, measured.moments, strict=True))
    prior = problem.penalty_of_moments(n_samples).prior(measured.moments, mixture.components)
    components = family.from_moments(moments, mixture.components, prior)
    if not family.is_proper(components):
        return None
    return replace(
        first,
        mixture=family.mixture(moments[0] / n_inside, components, mixture.feature_names),
        n_iter=1,
        log_likelihood=measured.log_likelihood / n_samples,
        start=FROM_OTHERS,
        n_outside=measured.n_outside,
    )
