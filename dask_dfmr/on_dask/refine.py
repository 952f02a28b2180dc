"""The last pass: EM over the rows of kept partitions, and partitions with too few rows for an estimate.

The mathematics is in the wing :mod:`dask_dfmr.refinement`; this module reads the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.aggregation.reasons import NeedsRegrouping, NotTested, Reason, Unreadable, in_short
from dask_dfmr.aggregation.result import Note
from dask_dfmr.exceptions import HeterogeneityWarning, PartitionWarning
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.local.row_statistics import Wanted
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.refinement import em_passes
from dask_dfmr.refinement.em_passes import Refinement, RefinementOptions
from dask_dfmr.refinement.likelihood_test import (
    as_likelihoods,
    compare_likelihoods,
    likelihood_reason,
    row_likelihoods,
)
from dask_dfmr.seeds import REFINEMENT, stream

logger = logging.getLogger("dask_dfmr")

MINORITY_SHARE = 0.5
"""Share of all rows; if fewer rows are behind the refined mixture, it is the mixture of a minority."""


def refine(plan: FitPlan, fit: Fit) -> Fit:
    """Refine the mixture if the plan asks for that; else test the partitions with too few rows for an estimate."""
    small = [
        i
        for i, row in enumerate(fit.rows)
        if row["outcome"] == Outcome.TOO_FEW_ROWS.value and row["n_samples"] > 0
    ]
    if plan.refinement.most_passes:
        return _refine_mixture(plan, fit, small)
    return _test_small(plan, fit, small) if small else fit


# -- partitions with too few rows for an estimate ---------------------------------------------------


def _test_small(plan: FitPlan, fit: Fit, small: Sequence[int]) -> Fit:
    """Read the small partitions once more and test the likelihood of their rows."""
    if plan.partitions.held:
        untested = dict.fromkeys(small, NotTested(NeedsRegrouping()))
        return replace(fit, reasons={**fit.reasons, **untested})
    mixture, level = fit.aggregate.mixture, plan.refinement.level
    kept = fit.aggregate.decision.kept
    samples = [rows for i, rows in fit.row_sample.items() if kept[i]]
    rng = np.random.default_rng(stream(plan.settings.seed, REFINEMENT))
    with single_threaded_blas():
        law = row_likelihoods(mixture, samples, level, rng, plan.settings.problem.family.cut)
    wanted = Wanted(moments=False, log_floor=law.floor)
    readings = Reader(plan, small, _counts(fit, small), "testing small partitions").measure(
        small, [mixture], wanted
    )
    reasons: dict[int, Reason] = {
        r.partition: NotTested(Unreadable(r.reason)) for r in readings if not r.is_measured
    }
    measured = [r for r in readings if r.is_measured]
    theirs = [(r.measurements[0].log_likelihood / r.n_samples, r.n_samples) for r in measured]
    with single_threaded_blas():
        compared = compare_likelihoods(law, as_likelihoods(theirs), rng)
    for r, p, z in zip(measured, compared.p_values, compared.z_scores, strict=True):
        reasons[r.partition] = likelihood_reason(float(p), float(z), level)
    return replace(fit, reasons={**fit.reasons, **reasons})


# -- refinement -------------------------------------------------------------------------------------


def _refine_mixture(plan: FitPlan, fit: Fit, small: Sequence[int]) -> Fit:
    """EM passes over the rows of the kept partitions; small partitions may join."""
    aggregate, options = fit.aggregate, plan.refinement
    kept = {int(i): fit.rows[i]["n_samples"] for i in np.flatnonzero(aggregate.decision.kept)}
    problem, seed = plan.settings.problem, stream(plan.settings.seed, REFINEMENT)
    reader = Reader(plan, [*kept, *small], _counts(fit, [*kept, *small]), "refining")
    with single_threaded_blas():
        found = em_passes.refine(
            reader, problem, aggregate.mixture, kept, small, options, seed, fit.row_sample
        )
    logger.info(
        "refined in %d passes over the rows of %d partitions, %d excluded, %d joined",
        len(found.passes),
        len(found.used),
        len(found.excluded),
        len(found.joined),
    )
    used = np.zeros(len(plan.partitions), dtype=bool)
    used[list(found.used)] = True
    notes = (*_notes(found, options, len(kept)), *_minority_notes(used, fit))
    refined = replace(
        aggregate,
        mixture=found.mixture,
        unrefined=aggregate.mixture,
        notes=(*aggregate.notes, *notes),
    )
    reasons = found.excluded | found.joined | found.refused
    return replace(
        fit, aggregate=refined, kept=used, reasons={**fit.reasons, **reasons}, refinement=found
    )


def _counts(fit: Fit, indices: Sequence[int]) -> dict[int, int]:
    """The numbers of rows of some partitions at the first read."""
    return {i: int(fit.rows[i]["n_samples"]) for i in indices}


def _minority_notes(used: NDArray[np.bool_], fit: Fit) -> list[Note]:
    """A warning if few rows are left: the filter keeps a majority, but a refinement tests more sharply."""
    n_samples = np.array([row["n_samples"] for row in fit.rows], dtype=float)
    share = n_samples[used].sum() / max(n_samples.sum(), 1.0)
    if share >= MINORITY_SHARE:
        return []
    text = f"after the refinement only {share:.0%} of the rows read are behind the mixture"
    remedy = "Do without it (refine=0), or mix trusted rows (mix_partitions)"
    return [
        Note(HeterogeneityWarning, f"{text}: partitions differ by more than sampling. {remedy}.")
    ]


def _notes(refinement: Refinement, options: RefinementOptions, n_kept: int) -> list[Note]:
    """Warnings that the refinement ended early, did not converge, or could not read partitions."""
    from sklearn.exceptions import ConvergenceWarning

    notes = []
    if refinement.failure:
        notes.append(Note(ConvergenceWarning, f"the refinement ended early: {refinement.failure}"))
    elif options.passes == "auto" and not refinement.converged:
        text = f"the refinement did not converge in {len(refinement.passes)} passes over the data"
        notes.append(Note(ConvergenceWarning, f"{text}; the mixture is the best so far."))
    if refinement.lost:
        reasons = [f"{i}: {in_short(str(refinement.excluded[i]))}" for i in refinement.lost]
        text = f"{len(refinement.lost)} of {n_kept} kept partitions could not be read again as they were"
        notes.append(Note(PartitionWarning, f"{text} ({_first_few(reasons)})."))
    return notes


def _first_few(items: list[str], most: int = 3) -> str:
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more
