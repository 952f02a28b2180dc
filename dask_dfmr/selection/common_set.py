"""The partitions on whose rows all candidates are compared, and each candidate's reduction from these partitions.

A candidate is a number of components and a covariance structure. Each candidate has local estimates and a filter of its
own. Candidates are comparable only if they describe the same rows, so there is one *common set* of partitions:

- The *reference* is the candidate that the local fits of most partitions support: the one with the smallest median,
  over all partitions, of the amount by which its BIC exceeds the best BIC of the partition. A minority cannot move a
  median. The local estimates of the reference describe the rows, so that inconsistent partitions stand out. The rows
  determine these estimates, so that consistent ones lie close together.
- A partition is excluded if the reference's filter excludes it, or if it has too few rows for the reference.
- It is also excluded if more than half of the candidates that assessed it exclude it. A minority of candidates does not
  count: with too many components fits end in different optima, with too few they may not differ at all.

Every candidate is then reduced anew, from its estimates of the common set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.plan import (
    CallNow,
    Setting,
    layout_in_memory,
    plan_intake,
    plan_reduction,
)
from dask_dfmr.aggregation.reasons import Reason
from dask_dfmr.aggregation.result import AggregationResult, FilterDecision
from dask_dfmr.aggregation.stages.keep import select
from dask_dfmr.mixtures.family import Array

# -- the common set --------------------------------------------------------------------------------


class Judged(NamedTuple):
    """The values of all candidates after the first read of the partitions.

    Attributes
    ----------
    n_parameters : ndarray of int, shape (n_candidates,)
    n_samples : ndarray of shape (n_partitions,)
    log_likelihoods : ndarray of shape (n_candidates, n_partitions)
        Mean per row, in nats, under the partition's own fit.
    judged : ndarray of bool, shape (n_candidates, n_partitions)
        Whether there is such a fit.
    kept : ndarray of bool, shape (n_candidates, n_partitions)
        Whether the candidate's own filter keeps the partition. A candidate that could not be aggregated keeps none,
        and its exclusions do not count.
    """

    n_parameters: NDArray[np.intp]
    n_samples: Array
    log_likelihoods: Array
    judged: NDArray[np.bool_]
    kept: NDArray[np.bool_]


class CommonSet(NamedTuple):
    """The partitions that all candidates are compared on.

    Attributes
    ----------
    kept : ndarray of bool, shape (n_partitions,)
    reference : int
        The candidate that the local fits of most partitions support.
    n_against, n_judges : ndarray of int, shape (n_partitions,)
        Number of candidates that exclude the partition, and number of those that assessed it.
    """

    kept: NDArray[np.bool_]
    reference: int
    n_against: NDArray[np.intp]
    n_judges: NDArray[np.intp]


def bic_excess(judged: Judged) -> Array:
    """BIC of each local fit less the best BIC of its partition, (n_candidates, n_partitions); inf without a fit."""
    n_samples = np.maximum(judged.n_samples, 1.0)
    penalties = judged.n_parameters[:, None] * np.log(n_samples)
    bic = penalties - 2.0 * n_samples * np.where(judged.judged, judged.log_likelihoods, 0.0)
    bic = np.where(judged.judged, bic, np.inf)
    best = bic.min(axis=0)
    return bic - np.where(np.isfinite(best), best, 0.0)


def find_common_set(judged: Judged) -> CommonSet:
    """The reference and the common set; at least one candidate must have a fit of some partition."""
    excess = bic_excess(judged)
    voters = judged.judged.any(axis=0)
    works = judged.kept.any(axis=1)
    medians = np.where(works, np.median(excess[:, voters], axis=1), np.inf)
    n_fits = np.where(works, judged.judged.sum(axis=1), 0)
    # If fewer than half of the partitions have fits, every median is infinite: then most fits decide.
    reference = int(np.lexsort((judged.n_parameters, -n_fits, medians))[0])
    n_judges = judged.judged[works].sum(axis=0)
    n_against = (judged.judged & ~judged.kept)[works].sum(axis=0)
    own = judged.kept[reference]
    kept = own & (2 * n_against <= n_judges)
    return CommonSet(kept if kept.any() else own, reference, n_against, n_judges)


# -- the reductions --------------------------------------------------------------------------------


def reduce_common(
    messages: Sequence[Mapping[str, Any]],
    own: AggregationResult,
    common: NDArray[np.bool_],
    refusals: Mapping[int, Reason],
    options: AggregationOptions,
) -> AggregationResult | None:
    """The reduction of a candidate's estimates of the common set; None if it has none there.

    Parameters
    ----------
    messages : sequence of mapping
        The candidate's estimates, of all partitions.
    own : AggregationResult
        The result with the candidate's own filter.
    common : ndarray of bool, shape (n_partitions,)
    refusals : mapping of int to Reason
        Why the common set excludes partitions that the candidate's own filter keeps.
    options : AggregationOptions
    """
    decision = own.decision
    usable = np.ones(len(common), dtype=bool)
    usable[list(decision.refused)] = False
    kept = common & usable
    if not kept.any():
        return None
    if (kept == decision.kept).all():
        return own
    # No stage draws at random here, whatever the seed.
    setting = Setting(options, np.random.SeedSequence(0), own.mixture.family)
    layout = layout_in_memory(len(messages))
    blocks, participants = plan_intake(CallNow(), messages, setting, layout)
    decided = _decided(decision, kept, refusals)
    everywhere = np.ones(len(participants.indices), dtype=bool)
    selected = select(decided, participants, options, everywhere)
    result: AggregationResult = plan_reduction(CallNow(), blocks, selected, setting, layout)
    return result


def _decided(
    decision: FilterDecision, kept: NDArray[np.bool_], refusals: Mapping[int, Reason]
) -> FilterDecision:
    """The decision with another set of kept estimates, and a center among them."""
    nearest = np.where(kept, decision.distance_ratios, np.inf).argmin()
    center = decision.center if kept[decision.center] else int(nearest)
    refused = dict(decision.refused)
    newly_excluded = [int(i) for i in np.flatnonzero(decision.kept & ~kept)]
    refused |= {i: refusals[i] for i in newly_excluded if i in refusals}
    return replace(decision, center=center, kept=kept, refused=refused)
