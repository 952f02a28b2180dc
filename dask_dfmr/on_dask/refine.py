"""What a fit comes back to the data for after the aggregation: small partitions, refinement, a better optimum."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr.aggregation.reasons import NeedsRegrouping, NotTested, Reason, Unreadable
from dask_dfmr.aggregation.result import AggregationResult, Note
from dask_dfmr.exceptions import HeterogeneityWarning, PartitionWarning
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.local.row_statistics import Wanted
from dask_dfmr.on_dask.fit import FitResult, Pipeline
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement.em_passes import PassRecord, Refinement, RefinementOptions, refine
from dask_dfmr.refinement.likelihood_test import (
    as_likelihoods,
    compare_likelihoods,
    likelihood_reason,
)
from dask_dfmr.seeds import REFINEMENT, stream

logger = logging.getLogger("dask_dfmr")

LEAST_SHARE = 0.5
"""Of the rows: with fewer behind the refined mixture it is one of a minority."""

PASS_COLUMNS = PassRecord._fields


@dataclass(frozen=True)
class FollowUp:
    """What came of it.

    Attributes
    ----------
    aggregate : AggregationResult
        With the refined mixture, if there was a refinement.
    kept : ndarray of bool, shape (n_partitions,)
        Partitions whose rows are in the mixture now.
    reasons : dict of int to Reason
        Added to the reasons that the report has already.
    refinement : Refinement or None
    """

    aggregate: AggregationResult
    kept: NDArray[np.bool_]
    reasons: dict[int, Reason] = field(default_factory=dict)
    refinement: Refinement | None = None

    def apply_to(self, report: pd.DataFrame) -> pd.DataFrame:
        """The report with what was learned since."""
        said = report["reason"].tolist()
        for i, reason in self.reasons.items():
            said[i] = f"{said[i]}; {reason}" if said[i] else str(reason)
        return report.assign(kept=self.kept, reason=said)

    @property
    def passes(self) -> pd.DataFrame:
        """One row per pass over the data."""
        records = () if self.refinement is None else self.refinement.passes
        return pd.DataFrame(records, columns=list(PASS_COLUMNS)).rename(columns={"number": "pass"})


def follow_up(
    pipeline: Pipeline, result: FitResult, options: RefinementOptions, verbose: int = 0
) -> FollowUp:
    """Whatever the options ask for, on whatever scheduler is active."""
    small = [
        i
        for i, row in enumerate(result.rows)
        if row["outcome"] == Outcome.TOO_FEW_ROWS.value and row["n_samples"] > 0
    ]
    kept = [int(i) for i in np.flatnonzero(result.aggregate.decision.kept)]
    if options.most_passes:
        return _refine(pipeline, result, kept, small, options, verbose)
    if small:
        return _judge_small(pipeline, result, kept, small, options, verbose)
    return FollowUp(result.aggregate, result.aggregate.decision.kept)


# -- partitions with too few rows for an estimate ---------------------------------------------------


def _judge_small(
    pipeline: Pipeline,
    result: FitResult,
    kept: Sequence[int],
    small: Sequence[int],
    options: RefinementOptions,
    verbose: int,
) -> FollowUp:
    """Read the small partitions once more and judge them by the likelihood of their rows."""
    aggregate = result.aggregate
    if pipeline.partitions.held:
        reason: Reason = NotTested(NeedsRegrouping())
        return FollowUp(aggregate, aggregate.decision.kept, dict.fromkeys(small, reason))
    reader = Reader(pipeline.partitions, pipeline.settings, pipeline.split_every, verbose, small)
    readings = reader.measure(small, [aggregate.mixture], Wanted(moments=False))
    reasons: dict[int, Reason] = {
        r.partition: NotTested(Unreadable(r.reason)) for r in readings if not r.is_measured
    }
    measured = [r for r in readings if r.is_measured]
    if measured:
        own = [(result.rows[i]["log_likelihood"], result.rows[i]["n_samples"]) for i in kept]
        theirs = [(r.measurements[0].log_likelihood / r.n_samples, r.n_samples) for r in measured]
        rng = np.random.default_rng(stream(pipeline.settings.seed, REFINEMENT))
        with single_threaded_blas():
            compared = compare_likelihoods(
                aggregate.mixture, as_likelihoods(own), as_likelihoods(theirs), rng
            )
        for r, p, z in zip(measured, compared.p_values, compared.z_scores, strict=True):
            reasons[r.partition] = likelihood_reason(float(p), float(z), options.level)
    return FollowUp(aggregate, aggregate.decision.kept, reasons)


# -- refinement -------------------------------------------------------------------------------------


def _refine(
    pipeline: Pipeline,
    result: FitResult,
    kept: Sequence[int],
    small: Sequence[int],
    options: RefinementOptions,
    verbose: int,
) -> FollowUp:
    settings, aggregate = pipeline.settings, result.aggregate
    needed = [*kept, *small]
    reader = Reader(pipeline.partitions, settings, pipeline.split_every, verbose, needed)
    seed = stream(settings.seed, REFINEMENT)
    with single_threaded_blas():
        refinement = refine(reader, settings.problem, aggregate.mixture, kept, small, options, seed)
    logger.info(
        "refined in %d passes over the rows of %d partitions, %d excluded, %d joined",
        len(refinement.passes),
        len(refinement.used),
        len(refinement.excluded),
        len(refinement.joined),
    )
    used = np.zeros(len(pipeline.partitions), dtype=bool)
    used[list(refinement.used)] = True
    reasons = refinement.excluded | refinement.joined | refinement.refused
    refined = replace(
        aggregate,
        mixture=refinement.mixture,
        unrefined=aggregate.mixture,
        notes=(
            *aggregate.notes,
            *_notes(refinement, options, len(kept)),
            *_minority_notes(used, result),
        ),
    )
    return FollowUp(refined, used, reasons, refinement)


def _minority_notes(used: NDArray[np.bool_], result: FitResult) -> list[Note]:
    """The filter keeps a majority, but a refinement judges more sharply, pass by pass."""
    n_samples = np.array([row["n_samples"] for row in result.rows], dtype=float)
    share = n_samples[used].sum() / max(n_samples.sum(), 1.0)
    if share >= LEAST_SHARE:
        return []
    text = f"after the refinement only {share:.0%} of the rows read are behind the mixture"
    remedy = "Do without it (refine=0), or mix trusted rows (mix_partitions)"
    return [
        Note(HeterogeneityWarning, f"{text}: partitions differ by more than sampling. {remedy}.")
    ]


def _notes(refinement: Refinement, options: RefinementOptions, n_kept: int) -> list[Note]:
    notes = []
    if refinement.failure:
        notes.append(Note(ConvergenceWarning, f"the refinement ended early: {refinement.failure}"))
    elif options.passes == "auto" and not refinement.converged:
        text = f"the refinement did not converge in {len(refinement.passes)} passes over the data"
        notes.append(Note(ConvergenceWarning, f"{text}; the mixture is the best so far."))
    if refinement.lost:
        names = _some([f"{i}: {refinement.excluded[i]}" for i in refinement.lost])
        text = f"{len(refinement.lost)} of {n_kept} kept partitions could not be read again"
        notes.append(Note(PartitionWarning, f"{text} ({names})."))
    return notes


def _some(items: list[Any], most: int = 3) -> str:
    return "; ".join(items[:most]) + (
        f"; and {len(items) - most} more" if len(items) > most else ""
    )
