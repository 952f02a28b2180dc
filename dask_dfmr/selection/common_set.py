"""Which of several mixtures describes the rows of good partitions best: who is good, and the criteria. Knows no Dask.

Every candidate (a number of components and a structure) has local estimates, a filter and a verdict of its own. To be
comparable all of them have to describe the same rows, so there is one *common set* of partitions:

- The candidate that most partitions' own fits support is the *reference*: the one with the smallest median, one vote a
  partition, of what a local fit's BIC lies above the partition's best. Its local estimates describe the rows, so that
  bad ones stand out, and are determined by them, so that good ones lie together. A minority cannot move a median.
- Left out is what the reference leaves out, or has too few rows to judge.
- Left out is, too, what more than half of the candidates that judged it leave out: a minority of them may, because too
  many components end in different optima, and too few may see no difference.

Every candidate is then reduced anew, from its estimates in the common set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.result import Aggregate, AggregationOptions, FilterDecision
from dask_dfmr.aggregation.stages import intake as stages
from dask_dfmr.mixtures.distances import tile_blocks
from dask_dfmr.mixtures.family import Array

# -- who is compared on ----------------------------------------------------------------------------


class Judged(NamedTuple):
    """What the first read says of all candidates; arrays (n_candidates, n_partitions).

    ``log_likelihoods`` are means per row under the partition's own fit; ``judged`` says where there is one, and
    ``kept`` what the candidate's own filter says of it. A candidate that could not be aggregated judges nobody.
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
        The candidate that most partitions support.
    n_against, n_judges : ndarray of int, shape (n_partitions,)
        So many candidates leave the partition out, of so many that judged it.
    """

    kept: NDArray[np.bool_]
    reference: int
    n_against: NDArray[np.intp]
    n_judges: NDArray[np.intp]


def bic_excess(judged: Judged) -> Array:
    """What each local fit's BIC lies above the best of its partition, (n_candidates, n_partitions); inf for no fit."""
    n_samples = np.maximum(judged.n_samples, 1.0)
    penalties = judged.n_parameters[:, None] * np.log(n_samples)
    bic = penalties - 2.0 * n_samples * np.where(judged.judged, judged.log_likelihoods, 0.0)
    bic = np.where(judged.judged, bic, np.inf)
    best = bic.min(axis=0)
    return bic - np.where(np.isfinite(best), best, 0.0)


def find_common_set(judged: Judged) -> CommonSet:
    """Reference and common set; at least one candidate must have judged somebody."""
    excess = bic_excess(judged)
    voters = judged.judged.any(axis=0)
    works = judged.kept.any(axis=1)
    medians = np.where(works, np.median(excess[:, voters], axis=1), np.inf)
    n_fits = np.where(works, judged.judged.sum(axis=1), 0)
    # With fits of fewer than half of the partitions every median is infinite: then the one with most fits.
    reference = int(np.lexsort((judged.n_parameters, -n_fits, medians))[0])
    n_judges = judged.judged[works].sum(axis=0)
    n_against = (judged.judged & ~judged.kept)[works].sum(axis=0)
    own = judged.kept[reference]
    kept = own & (2 * n_against <= n_judges)
    return CommonSet(kept if kept.any() else own, reference, n_against, n_judges)


def reduce_common(
    messages: Sequence[Mapping[str, Any]],
    own: Aggregate,
    common: NDArray[np.bool_],
    refusals: Mapping[int, str],
    options: AggregationOptions,
) -> Aggregate | None:
    """The reduction of a candidate's estimates in the common set; None where it has none there.

    Parameters
    ----------
    messages : sequence of mapping
        The candidate's estimates, of all partitions.
    own : Aggregate
        What came of its own filter.
    common : ndarray of bool, shape (n_partitions,)
    refusals : mapping of int to str
        Why partitions are left out that its own filter kept.
    """
    decision = own.decision
    usable = np.ones(len(common), dtype=bool)
    usable[list(decision.refused)] = False
    kept = common & usable
    if not kept.any():
        return None
    if (kept == decision.kept).all():
        return own
    schema = stages.agree_on_schema([stages.describe_estimates(messages, own.mixture.family)])
    blocks = [
        stages.stack_estimates(messages[s], s.start, schema) for s in tile_blocks(len(messages))
    ]
    participants = stages.admit([block.summary for block in blocks], schema, options)
    decided = _decided(decision, kept, refusals)
    verdict = stages.verdict_on(
        decided, participants, options, np.ones(len(participants.indices), dtype=bool)
    )
    start = stages.pick_start([stages.offer_start(block, verdict, 0) for block in blocks])
    reduced = stages.reduce_blocks(blocks, verdict, start, options)
    return stages.finish([reduced], verdict, options)


def _decided(
    decision: FilterDecision, kept: NDArray[np.bool_], refusals: Mapping[int, str]
) -> FilterDecision:
    """The decision with another set of kept estimates, and a kept center."""
    nearest = np.where(kept, decision.distance_ratios, np.inf).argmin()
    center = decision.center if kept[decision.center] else int(nearest)
    refused = dict(decision.refused)
    newly_out = [int(i) for i in np.flatnonzero(decision.kept & ~kept)]
    refused |= {i: refusals[i] for i in newly_out if i in refusals}
    return replace(decision, center=center, kept=kept, refused=refused)
