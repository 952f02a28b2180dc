"""What the rows of unusual partitions show: their likelihood, and a refit from the global mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.explanation.causes import compare_refit
from dask_dfmr.explanation.rows_outside import columns_in_words
from dask_dfmr.explanation.table import (
    explained_estimates,
    explanation_table,
    kind_and_words,
    standard_errors_of,
    with_estimate,
)
from dask_dfmr.local.fit import column_labels
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.fit_plan import FitPlan
from dask_dfmr.on_dask.refit import fit_partitions
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

MOST_READ = 8
"""How many kept partitions are read to measure what a mixture is worth to them."""

MOST_BAD = 0.5
"""Share of the rows outside the global mixture, up to which the rows are bad and not the partition."""


def explain_with_rows(aggregate: AggregationResult, plan: FitPlan, which: str) -> pd.DataFrame:
    """The table of explanations, with likelihoods of the rows and with findings that a refit confirms or corrects.

    Parameters
    ----------
    aggregate : AggregationResult
    plan : FitPlan
        Over the same partitions, with the global mixture as start.
    which : {"unusual", "excluded", "all"}
        As for :func:`explained_estimates`.
    """
    with single_threaded_blas():
        table, findings = explanation_table(aggregate, which)
    estimates = explained_estimates(aggregate, which)
    chosen, kept = list(estimates), np.flatnonzero(aggregate.decision.kept)
    sampled = [int(i) for i in kept[:: max(1, -(-len(kept) // MOST_READ))]]
    reader = Reader(plan, sorted({*chosen, *sampled}), purpose="explaining")
    likelihoods = Wanted(moments=False)
    wanted = replace(likelihoods, outside=True, cut=plan.settings.problem.family.cut)
    own = reader.measure(chosen, [aggregate.mixture], wanted)
    candidates = [with_estimate(aggregate, estimates[i]) for i in chosen]
    proper = [mixture for mixture in candidates if mixture is not None]
    theirs = reader.measure(sampled, [aggregate.mixture, *proper], likelihoods)
    usual, *means = _means(theirs, 1 + len(proper))
    following = iter(means)
    changed = [np.nan if mixture is None else next(following) for mixture in candidates]
    again = [i for i in chosen if findings[i].kind != "nothing"]
    if again:
        refits = fit_partitions(plan, again)
        with single_threaded_blas():
            errors = standard_errors_of(aggregate)
            for i, refit in zip(again, refits, strict=True):
                findings[i] = compare_refit(findings[i], estimates[i], refit, errors)
    outside = [
        _with_columns(text, reading, aggregate.mixture)
        for text, reading in zip(table["outside"], own, strict=True)
    ]
    words = [kind_and_words(findings[i], text) for i, text in zip(chosen, outside, strict=True)]
    return table.assign(
        kind=[kind for kind, _ in words],
        finding=[text for _, text in words],
        outside=outside,
        log_likelihood=[_means([reading], 1)[0] for reading in own],
        kept_log_likelihood=usual,
        log_likelihood_with=[mean - usual for mean in changed],
    )


def _with_columns(text: str, reading: PartitionStatistics, mixture: Mixture) -> str:
    """The sentence about the rows of a partition that belong nowhere, with the columns that put them there.

    They are not named if most of the rows are outside: then the finding says what is wrong.
    """
    if not text or not reading.is_measured:
        return text
    (found,) = reading.measurements
    if found.outside_columns is None or not 0 < found.n_outside <= MOST_BAD * found.n_samples:
        return text
    labels = column_labels(mixture.feature_names, mixture.n_features)
    return f"{text}; {columns_in_words(found.n_outside, found.outside_columns, labels)}"


def _means(readings: Sequence[PartitionStatistics], n: int) -> list[float]:
    """Mean log-likelihood per row, in nats, under each of n mixtures; NaN if nothing could be read."""
    measured = [r for r in readings if r.is_measured]
    rows = sum(r.n_samples for r in measured)
    if not rows:
        return [float("nan")] * n
    sums = [sum(r.measurements[k].log_likelihood for r in measured) for k in range(n)]
    return [total / rows for total in sums]
