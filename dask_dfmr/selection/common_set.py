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
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.result import Aggregate, AggregationOptions, FilterDecision
from dask_dfmr.aggregation.stages import intake as stages
from dask_dfmr.local.em import Ascent, ComponentCollapsedError, Point, RemainingGain
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import Measurement, PartitionStatistics
from dask_dfmr.mixtures.distances import tile_blocks
from dask_dfmr.mixtures.family import Array, Prior
from dask_dfmr.mixtures.gaussian import Mixture

CRITERIA = ("bic", "aic", "icl", "held_out")


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


# -- EM passes for all candidates at once ----------------------------------------------------------


class Climb:
    """Further EM passes of one candidate over the training rows of the common set.

    A component that collapses (possible with ``penalty=0`` only) ends it where it is.
    """

    def __init__(
        self, problem: LocalProblem, start: Mixture, readings: Sequence[PartitionStatistics], c: int
    ):
        family, names = problem.family, start.feature_names
        counts = np.array([r.n_samples for r in readings], dtype=np.float64)
        stacked = zip(*(r.targets[c] for r in readings), strict=True)
        target = family.pooled_target(counts, tuple(np.array(parts) for parts in stacked))
        n_samples = int(counts.sum())
        weight = n_samples**-0.5 if problem.penalty == "auto" else float(problem.penalty)
        accelerate = problem.accelerate and problem.reg_covar == 0
        prior = Prior(weight, target, problem.reg_covar)
        point = (start.weights, start.components)
        self._ascent = Ascent(family, point, prior, n_samples, RemainingGain(0.0), accelerate)
        self._problem, self._names, self._has_ended = problem, names, False

    def take(self, total: Measurement) -> None:
        """Go on from the sums over all rows at :attr:`point`."""
        if self._has_ended or total.moments is None:
            return
        try:
            self._ascent.take(total.log_likelihood, total.moments)
        except ComponentCollapsedError:
            self._has_ended = True

    @property
    def point(self) -> Mixture:
        """Where the next pass has to be made."""
        ascent = self._ascent
        return self._as_mixture(ascent.mapped if self._has_ended else ascent.point)

    @property
    def result(self) -> Mixture:
        """The best so far."""
        return self._as_mixture(self._ascent.mapped)

    def _as_mixture(self, point: Point) -> Mixture:
        problem = self._problem
        return problem.family.mixture(*point, self._names)


# -- the criteria ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """What the rows of the common set say of one candidate.

    Attributes
    ----------
    n_parameters : int
        Free parameters p.
    log_likelihood : float
        l, of the N training rows together, in nats.
    aic, bic, icl : float
        -2 l + 2 p; -2 l + p log N; BIC + 2 sum over rows of the entropy of the responsibilities: the lower the better.
    held_out : float
        Mean log-likelihood per held-out row, in nats; NaN where no rows are held out.
    held_out_se : float
        Its standard error, from the differences between partitions; NaN for fewer than two.
    """

    n_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    held_out: float
    held_out_se: float


class Scores(NamedTuple):
    """All candidates on the same rows, and how the held-out rows compare them pair by pair.

    ``gaps`` are held-out means below the best candidate's, and ``gap_errors`` their standard errors: the rows are the
    same, so that what partitions have in common is in neither.
    """

    scores: list[Score]
    gaps: list[float]
    gap_errors: list[float]
    n_samples: int
    n_held_out: int


def score_all(readings: Sequence[PartitionStatistics], n_parameters: Sequence[int]) -> Scores:
    """Criteria of the candidates, from what each partition of the common set measured."""
    n_samples = sum(r.n_samples for r in readings)
    tested = [r for r in readings if r.held_out]
    counts = np.array([r.held_out[0].n_samples for r in tested], dtype=np.float64)
    sums = np.array([[m.log_likelihood for m in r.held_out] for r in tested])
    scores = []
    for c, p in enumerate(n_parameters):
        # In the order of the partitions: the same bits whoever read them.
        log_likelihood = float(sum(r.measurements[c].log_likelihood for r in readings))
        entropy = float(sum(r.measurements[c].entropy for r in readings))
        bic = -2.0 * log_likelihood + p * float(np.log(n_samples))
        aic = -2.0 * log_likelihood + 2.0 * p
        held_out = mean_and_error(sums[:, c], counts) if tested else (np.nan, np.nan)
        scores.append(Score(p, log_likelihood, aic, bic, bic + 2.0 * entropy, *held_out))
    if not tested:
        nothing = [float("nan")] * len(scores)
        return Scores(scores, nothing, nothing, n_samples, 0)
    best = int(np.argmax([s.held_out for s in scores]))
    pairs = [mean_and_error(sums[:, best] - column, counts) for column in sums.T]
    gaps, errors = [gap for gap, _ in pairs], [error for _, error in pairs]
    return Scores(scores, gaps, errors, n_samples, int(counts.sum()))


def mean_and_error(sums: Array, counts: Array) -> tuple[float, float]:
    """Mean per row of sums over groups of rows, and its standard error by the differences between groups."""
    total, n_groups = counts.sum(), len(counts)
    mean = sums.sum() / total
    if n_groups < 2:
        return float(mean), float("nan")
    residuals = sums - counts * mean
    return float(mean), float(np.sqrt(n_groups / (n_groups - 1) * (residuals @ residuals)) / total)


def pick(
    values: Array, n_parameters: NDArray[np.intp], gaps: Array, gap_errors: Array, criterion: str
) -> int:
    """The candidate that a criterion takes, of those whose values are not NaN; of equal ones the smallest.

    The lowest value; by ``"held_out"`` the one with the fewest parameters that is no more than one standard error of
    the difference behind the best, because among candidates that describe held-out rows alike chance decides.
    """
    known = np.flatnonzero(~np.isnan(values))
    if criterion == "held_out":
        alike = known[gaps[known] <= np.nan_to_num(gap_errors[known])]
        return int(min(alike, key=lambda c: (n_parameters[c], gaps[c])))
    return int(min(known, key=lambda c: (values[c], n_parameters[c])))
