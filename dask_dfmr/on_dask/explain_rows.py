"""Coming back to partitions after a fit: fitting some of them from a given mixture, and measuring them for an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.explanation.causes import compare_refit
from dask_dfmr.explanation.table import (
    explained_estimates,
    explanation_table,
    standard_errors_of,
    with_estimate,
)
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit import Pipeline, fetch, hold_each, place
from dask_dfmr.on_dask.graph import add_fits
from dask_dfmr.on_dask.rereading import Reader
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas

MOST_READ = 8
"""So many kept partitions are read to see what a mixture is worth to them."""


def fit_partitions(
    pipeline: Pipeline, indices: Sequence[int] | None = None, verbose: int = 0
) -> list[LocalEstimate]:
    """Fit partitions, by default all, from the mixture that the pipeline starts from; nothing is aggregated.

    What goes wrong in a partition is in its own estimate.
    """
    settings = pipeline.settings
    chosen = list(range(len(pipeline.partitions)) if indices is None else indices)
    partitions, _data = place(pipeline.partitions.reduced_to(chosen))

    def fit(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
        g = GraphBuilder()
        return g, add_fits(g, partitions, settings, None, which)

    held = hold_each(fit, chosen, verbose)
    g = GraphBuilder()
    alive = [
        g.add("message", index, tasks.as_plain, task.argument, index)
        for index, task in zip(chosen, held, strict=True)
        if task.error is None
    ]
    messages = iter(fetch(g, alive))
    found = [
        next(messages)
        if task.error is None
        else tasks.lost_partition(index, partitions.sources[index], task.error)
        for index, task in zip(chosen, held, strict=True)
    ]
    family = settings.problem.family
    return [
        tasks.estimate_of(message, family, index)
        for index, message in zip(chosen, found, strict=True)
    ]


def explain_with_rows(
    aggregate: AggregationResult, pipeline: Pipeline, which: str, verbose: int = 0
) -> pd.DataFrame:
    """The audit with what the rows say: likelihoods, and whether a refit from the global mixture agrees.

    ``pipeline`` is over the same partitions, and starts from the global mixture.
    """
    with single_threaded_blas():
        table, findings = explanation_table(aggregate, which)
    estimates = explained_estimates(aggregate, which)
    chosen, kept = list(estimates), np.flatnonzero(aggregate.decision.kept)
    judges = [int(i) for i in kept[:: max(1, -(-len(kept) // MOST_READ))]]
    needed = sorted({*chosen, *judges})
    settings = pipeline.settings
    reader = Reader(pipeline.partitions, settings, pipeline.split_every, verbose, needed)
    likelihoods = Wanted(moments=False)
    own = reader.measure(chosen, [aggregate.mixture], likelihoods)
    candidates = [with_estimate(aggregate, estimates[i]) for i in chosen]
    theirs = reader.measure(judges, [aggregate.mixture, *candidates], likelihoods)
    usual, *changed = _means(theirs, 1 + len(candidates))
    again = [i for i in chosen if findings[i].kind != "nothing"]
    if again:
        refits = fit_partitions(pipeline, again, verbose)
        with single_threaded_blas():
            yardstick = standard_errors_of(aggregate)
            for i, refit in zip(again, refits, strict=True):
                findings[i] = compare_refit(findings[i], estimates[i], refit, yardstick)
    return table.assign(
        kind=[findings[i].kind for i in chosen],
        finding=[findings[i].text for i in chosen],
        log_likelihood=[_means([reading], 1)[0] for reading in own],
        kept_log_likelihood=usual,
        log_likelihood_with=[mean - usual for mean in changed],
    )


def _means(readings: Sequence[PartitionStatistics], n: int) -> list[float]:
    """Mean log-likelihood per row under each of so many mixtures; NaN where nothing could be read."""
    measured = [r for r in readings if r.is_measured]
    rows = sum(r.n_samples for r in measured)
    if not rows:
        return [float("nan")] * n
    sums = [sum(r.measurements[k].log_likelihood for r in measured) for k in range(n)]
    return [total / rows for total in sums]


def numbered_from(estimates: Sequence[LocalEstimate], first: int) -> list[LocalEstimate]:
    """Partitions numbered on, after those that were there before."""
    return [replace(e, partition=first + k) for k, e in enumerate(estimates)]
