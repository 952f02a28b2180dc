"""The first pass over the data: pilots, local fits, and the aggregation of their estimates.

The steps are written once. A cluster computes each of them as it comes, so a partition that kills its worker becomes
the outcome of that partition, and the aggregation goes on with the others. Pilots go first for the same reason. A local
scheduler computes one graph of all steps, and a lazy fit is that graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dask.delayed import Delayed
from dask.task_spec import TaskRef

from dask_dfmr.aggregation.result import AggregationResult, Note
from dask_dfmr.exceptions import AggregationError, PartitionWarning
from dask_dfmr.explanation.report import partition_report
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.local.least_rows import describe_larger_partitions
from dask_dfmr.mixtures.distances import tile_blocks
from dask_dfmr.on_dask.estimate_store import MEMORY_LIMIT, StoredEstimates, write_block
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.graph import (
    add_aggregation,
    add_fits,
    add_pilot_fits,
    add_pilot_reads,
    add_shortlist,
)
from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.placed import place
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import (
    Graph,
    HeldTasks,
    OneGraph,
    Steps,
    raise_if_all_failed,
)
from dask_dfmr.on_dask.tasks import (
    FitSettings,
    as_plain,
    estimate_of,
    lost_partition,
    sampled_rows,
)
from dask_dfmr.on_dask.unread import describe_unread

logger = logging.getLogger("dask_dfmr")

N_SAMPLED = 16_000
"""Rows of all partitions together that come along with the estimates, about. The relative error of a covariance of the
scores of p parameters is sqrt(p / N_SAMPLED), 14 % for 330."""


def read_first(plan: FitPlan) -> Fit:
    """Fit all partitions and aggregate their estimates.

    Raises
    ------
    AggregationError
        If no estimate is usable; its ``report`` says why for each partition.
    """
    logger.info("fitting %d partitions on %s", len(plan.partitions), plan.scheduler)
    found = _fit_and_aggregate(plan)
    if isinstance(found, AggregationError):
        rows = found.report or []
        advice = _advise_larger_partitions(plan, rows)
        raise AggregationError(
            f"{found}{advice}", found.reasons, partition_report(rows, None)
        ) from None
    return found


def _advise_larger_partitions(plan: FitPlan, rows: Sequence[dict[str, Any]]) -> str:
    """How to make the partitions large enough, if rows are too few in all of them."""
    n_features, problem = plan.partitions.n_features, plan.settings.problem
    if n_features is None or any(row["outcome"] != Outcome.TOO_FEW_ROWS for row in rows):
        return ""
    least = problem.least_rows(n_features)
    counts = [row["n_samples"] for row in rows]
    advice = describe_larger_partitions(counts, least, plan.partitions.form)
    return f" {advice}" if advice else ""


def as_delayed(plan: FitPlan, wrap: Callable[[AggregationResult], Any]) -> Delayed:
    """The first pass as one lazy graph, which computes to ``wrap(result)``."""
    steps = OneGraph()
    g, (result, *reports) = _LocalFits(steps, plan.partitions, plan).aggregation()
    return steps.as_delayed(g, g.add("aggregate", 0, _wrapped, wrap, result, reports))


def _wrapped(
    wrap: Callable[[AggregationResult], Any],
    result: AggregationResult,
    reports: Sequence[Sequence[dict[str, Any]]],
) -> Any:
    """The value of a lazy fit, which warns of partitions of X that could not be read."""
    unread = describe_unread([row for rows in reports for row in rows])
    note = Note(PartitionWarning, f"{unread}.")
    return wrap(replace(result, notes=(*result.notes, note)) if unread else result)


def _fit_and_aggregate(plan: FitPlan) -> Fit | AggregationError:
    """The fit; or the error, returned so that its traceback does not keep the frame that holds the local fits."""
    partitions, data = place(plan.scheduler, plan.partitions)
    n_sampled = -(-N_SAMPLED // len(partitions))
    plan = replace(plan, settings=replace(plan.settings, n_sampled=n_sampled))
    fits = _LocalFits(plan.scheduler.in_steps(), partitions, plan)
    kept = _KeptEstimates(plan)
    n_reports = len(tile_blocks(len(partitions), plan.block_size))
    try:
        aggregate, *found = fits.conclude(kept)
    except AggregationError as error:
        error.__traceback__ = None
        return error
    rows, samples = (
        [of_one for block in blocks for of_one in block]
        for blocks in (found[:n_reports], found[n_reports : 2 * n_reports])
    )
    if plan.scheduler.n_workers is None:
        kept.messages = found[2 * n_reports :]
    else:
        kept.bring(fits)
    data.clear()
    n_features = aggregate.mixture.n_features
    sample = {
        i: drawn
        for i, drawn in enumerate(samples)
        if drawn is not None and drawn.shape[1] == n_features
    }
    return Fit.of(aggregate, rows, kept.estimates, sample)


class _LocalFits:
    """The local estimates of all partitions, where they were computed."""

    def __init__(self, steps: Steps, partitions: Partitions, plan: FitPlan) -> None:
        self.steps, self.partitions, self.plan = steps, partitions, plan
        settings = plan.settings
        shortlist = find_shortlist(steps, partitions, settings) if settings.needs_pilots else None

        # Not a method: data in memory and results on a cluster would live until the circle is collected.
        def build(indices: Sequence[int]) -> Graph:
            g = GraphBuilder()
            # On a cluster the shortlist is here: the fits depend on nothing that a dying worker takes with it.
            starts = None if shortlist is None else g.add("shortlist", 0, _same, shortlist)
            return g, add_fits(g, partitions, settings, starts, indices)

        self.held = HeldTasks(steps, build, range(len(partitions)))

    def aggregation(self) -> Graph:
        """References to the aggregate and to the report's rows by blocks of partitions."""
        g = GraphBuilder()
        plan = self.plan
        result, reports = add_aggregation(
            g,
            self._messages(g),
            plan.settings,
            self.partitions.n_features,
            plan.options,
            plan.split_every,
            plan.block_size,
        )
        return g, [result, *reports]

    def conclude(self, kept: _KeptEstimates) -> list[Any]:
        """The aggregate, report's rows by blocks, sampled rows by blocks, and what a local scheduler can keep."""

        def build() -> Graph:
            g, refs = self.aggregation()
            is_local = self.plan.scheduler.n_workers is None
            messages = self._messages(g)
            n_sampled = self.plan.settings.n_sampled
            samples = [
                g.add("sampled_rows", b, sampled_rows, messages[block], n_sampled)
                for b, block in enumerate(tile_blocks(len(messages), self.plan.block_size))
            ]
            return g, [*refs, *samples, *(kept.add(g, messages) if is_local else [])]

        return self.steps.conclude(build, self.held)

    def bring(self, block: slice) -> list[Any]:
        """The messages of a block of partitions."""

        def fetch() -> list[Any]:
            lost = self._lost()
            values = self.plan.scheduler.fetch_held(self.held.tasks[block])
            indices = range(block.start, block.stop)
            return [
                lost[i] if i in lost else as_plain(value, i)
                for i, value in zip(indices, values, strict=True)
            ]

        return self.held.again_if_workers_die(fetch)

    def _messages(self, g: GraphBuilder) -> list[Any]:
        """References to the messages of all partitions, those included that have no answer of their own."""
        lost = self._lost()
        return [
            g.add("lost_partition", i, dict, lost[i]) if i in lost else task.argument
            for i, task in enumerate(self.held.tasks)
        ]

    def _lost(self) -> dict[int, dict[str, Any]]:
        """Messages for partitions whose tasks have no result."""
        sources = self.partitions.sources
        return {
            i: lost_partition(i, sources[i], task.error)
            for i, task in enumerate(self.held.tasks)
            if task.error is not None
        }


class _KeptEstimates:
    """Where the local estimates go: into memory, into temporary files, or nowhere."""

    def __init__(self, plan: FitPlan) -> None:
        self.family = plan.settings.problem.mixture_family
        self.blocks = tile_blocks(len(plan.partitions), plan.block_size)
        is_small = plan.estimate_bytes <= MEMORY_LIMIT
        is_auto = plan.keep_estimates == "auto"
        self.in_memory = plan.keep_estimates is True or (is_auto and is_small)
        self.store: StoredEstimates | None = None
        if is_auto and not is_small:
            self.store = StoredEstimates(len(plan.partitions), plan.block_size, self.family)
        self.messages: list[Any] = []

    def add(self, g: GraphBuilder, messages: list[Any]) -> list[TaskRef]:
        """Tasks that keep the messages, in the graph that computes them."""
        if self.store is None:
            return messages if self.in_memory else []
        return [
            g.add("store", b, write_block, messages[block], self.store.path(b), self.family)
            for b, block in enumerate(self.blocks)
        ]

    def bring(self, fits: _LocalFits) -> None:
        """Keep the messages that lie on the workers, block by block."""
        for b, block in enumerate(self.blocks):
            if self.store is not None:
                write_block(fits.bring(block), self.store.path(b), self.family)
            elif self.in_memory:
                self.messages += fits.bring(block)

    @property
    def estimates(self) -> list[LocalEstimate] | StoredEstimates | None:
        """The estimates that were kept; None if none were."""
        if not self.in_memory:
            return self.store
        return [estimate_of(message, self.family, i) for i, message in enumerate(self.messages)]


def find_shortlist(steps: Steps, partitions: Partitions, settings: FitSettings) -> Any:
    """The starts that all partitions choose from, brought here before any fit on a cluster.

    A pilot that kills its workers is ignored; its partition is reported when it is fitted.
    """

    def read(indices: Sequence[int]) -> Graph:
        g = GraphBuilder()
        reads = add_pilot_reads(g, partitions, settings)
        return g, [reads[i] for i in indices]

    drawn = list(add_pilot_reads(GraphBuilder(), partitions, settings))
    reads = dict(zip(drawn, steps.hold_each(read, drawn), strict=True))
    rows = {i: task.argument if task.error is None else None for i, task in reads.items()}

    def fit(indices: Sequence[int]) -> Graph:
        g = GraphBuilder()
        fits = add_pilot_fits(g, rows, settings)
        return g, [fits[i] for i in indices]

    fits = steps.hold_each(fit, drawn)
    raise_if_all_failed(fits)
    g = GraphBuilder()
    found = {i: t.argument if t.error is None else None for i, t in zip(drawn, fits, strict=True)}
    (shortlist,) = steps.bring(g, [add_shortlist(g, found, settings)])
    return shortlist


def _same(value: Any) -> Any:
    return value
