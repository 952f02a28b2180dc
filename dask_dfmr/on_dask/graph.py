"""A whole fit as one lazy Dask graph: pilots, fits, and the plan of the aggregation as tasks.

Stages, as they appear on the dashboard (``dask.utils.key_split`` of the keys)::

    a few partitions          dfmr_read_pilot -> dfmr_pilot_scale -> dfmr_fit_pilot -> dfmr_shortlist
    every partition           dfmr_fit_partition (reads and fits), dfmr_report_rows
    columns unknown           dfmr_describe -> dfmr_schema
    participants              dfmr_stack_estimates -> dfmr_summary -> dfmr_admit
    the center, all pairs     dfmr_l2_tile -> dfmr_coat_candidate -> dfmr_coat_min
    the center, references    { dfmr_draw_estimates -> dfmr_take_estimates -> dfmr_join_estimates
                              -> dfmr_l2_rows or dfmr_reference_medians } x 3
                              -> dfmr_coat_candidate -> dfmr_coat_min
    estimates near the center dfmr_l2_filter
    what sampling explains    dfmr_draw_estimates -> dfmr_take_estimates -> dfmr_join_estimates
                              -> dfmr_consensus -> dfmr_consensus_distances
    which are kept            dfmr_judge
    starts of the reduction   dfmr_offer_start -> dfmr_pick_start
    reduction at once         dfmr_reduce
    reduction in rounds       { dfmr_assign_block -> dfmr_tree_sum -> dfmr_recenter } x max_rounds
    method="hardened"         dfmr_harden, from dfmr_judge and all dfmr_l2_tile
    the result                dfmr_finish
    method="componentwise"    dfmr_componentwise, from dfmr_admit to the result

A fit on a cluster adds ``dfmr_lost_partition`` for partitions whose workers died. A fit on a local scheduler collects
its results in ``dfmr_results``, and writes estimates with ``dfmr_store`` if they are kept on disk.

:mod:`dask_dfmr.aggregation.plan` has the plan of the aggregation; :class:`StageTasks` is the builder that makes tasks
of it. No task holds all rows, and only ``dfmr_harden`` holds the whole distance matrix. Each ``add_*`` below adds one
part to a dictionary of tasks and returns references to its results, so that the parts can be submitted together or one
after the other. A lazy fit adds ``dfmr_aggregate``, which makes the public value of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.task_spec import TaskRef

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.plan import Layout, Setting, plan_aggregation
from dask_dfmr.aggregation.stages.intake import Schema
from dask_dfmr.local import pilots as pilot
from dask_dfmr.mixtures.distances import block_size_for, tile_blocks
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.seeds import PILOT_DRAW, stream

REDUCE_AT_ONCE = 500
"""Up to so many estimates, unless smaller blocks than usual are asked for, one task makes the whole reduction: a round
of tasks takes several messages to the scheduler, and these take longer than its arithmetic."""

READ_MESSAGES = frozenset({"describe", "stack_estimates"})
"""Stages whose first argument are messages of workers. Their content is checked first."""

USE_BLAS = frozenset(
    {
        *("l2_tile", "l2_rows", "reference_medians", "consensus", "consensus_distances"),
        *("harden", "reduce", "assign_block", "finish", "componentwise", "in_order"),
    }
)
"""Stages whose tasks limit BLAS to one thread."""


# -- parts of the graph --------------------------------------------------------------------------


def add_pilot_reads(
    g: GraphBuilder, partitions: Partitions, settings: FitSettings
) -> dict[int, Any]:
    """The pilots' rows, by partition."""
    g.tasks.update(partitions.graph)
    drawn = pilot.draw_pilots(len(partitions), stream(settings.seed, PILOT_DRAW))
    loaders = partitions.loaders
    return {
        i: g.add("read_pilot", i, tasks.read_pilot, loaders[i], i, settings, *loaders[i].refs)
        for i in drawn
    }


def add_pilot_fits(
    g: GraphBuilder, pilots: dict[int, Any], settings: FitSettings
) -> dict[int, Any]:
    """The candidates of the pilots, by partition, from references to their rows."""
    scale = g.add("pilot_scale", 0, tasks.pilot_scale, list(pilots.values()))
    return {
        i: g.add("fit_pilot", i, tasks.fit_pilot, rows, scale, i, settings)
        for i, rows in pilots.items()
    }


def add_shortlist(g: GraphBuilder, fits: dict[int, Any], settings: FitSettings) -> TaskRef:
    """The starts that all partitions choose from, from references to the pilots' candidates."""
    return g.add("shortlist", 0, tasks.make_shortlist, list(fits.values()), settings)


def add_fits(
    g: GraphBuilder,
    partitions: Partitions,
    settings: FitSettings,
    shortlist: Any,
    only: Sequence[int] | None = None,
) -> list[TaskRef]:
    """One message per partition, or only for some."""
    g.tasks.update(partitions.graph)
    refs = []
    for i in range(len(partitions)) if only is None else only:
        loader, source = partitions.loaders[i], partitions.sources[i]
        arguments = (loader, i, source, settings, shortlist, *loader.refs)
        refs.append(g.add("fit_partition", i, tasks.fit_partition, *arguments))
    return refs


class StageTasks:
    """The builder that adds the stages of a plan to a graph, one task each."""

    def __init__(self, g: GraphBuilder) -> None:
        self._g = g

    def add(self, stage: str, index: Any, function: Callable[..., Any], *args: Any) -> TaskRef:
        """A reference to the result of ``function(*args)``."""
        if stage in READ_MESSAGES:
            return self._g.add(stage, index, _of_plain, function, *args)
        if stage in USE_BLAS:
            return self._g.add(stage, index, _serial, function, *args)
        return self._g.add(stage, index, function, *args)

    def tree(
        self,
        stage: str,
        index: tuple[int, ...],
        function: Callable[..., Any],
        leaves: list[Any],
        split_every: int,
    ) -> Any:
        """A reference to the leaves combined by ``function``, ``split_every`` at a time."""
        return self._g.tree(stage, index, function, leaves, split_every)


def add_aggregation(
    g: GraphBuilder,
    messages: Sequence[Any],
    settings: FitSettings,
    n_features: int | None,
    options: AggregationOptions,
    split_every: int = SPLIT_EVERY,
    block_size: int | None = None,
) -> tuple[TaskRef, list[TaskRef]]:
    """References to the :class:`AggregationResult` and to the rows of the report, block by block.

    Parameters
    ----------
    g : GraphBuilder
    messages : sequence of TaskRef or future
        One message per partition.
    settings : FitSettings
    n_features : int or None
        None if the columns are not known before partitions are read.
    options : AggregationOptions
    split_every : int
        Results that one task of a tree combines.
    block_size : int or None
        Estimates per block; None: :func:`~dask_dfmr.mixtures.distances.block_size_for`.
    """
    layout = layout_of(len(messages), block_size, split_every)
    reports = [
        g.add("report_rows", b, tasks.report_rows, list(messages[s]), s.start)
        for b, s in enumerate(layout.slices)
    ]
    problem, schema = settings.problem, None
    if n_features is not None:
        names = settings.feature_names
        schema = Schema(problem.mixture_family, problem.n_components, n_features, names)
    setting = Setting(
        options, settings.seed, problem.mixture_family, problem, schema, settings.order
    )
    return plan_aggregation(StageTasks(g), messages, setting, layout, reports), reports


def layout_of(n_estimates: int, block_size: int | None, split_every: int) -> Layout:
    """The blocks of the estimates, and whether the reduction goes through them in rounds."""
    slices = tile_blocks(n_estimates, block_size)
    usual = block_size is None or block_size >= block_size_for(n_estimates)
    at_once = len(slices) == 1 or (usual and n_estimates <= REDUCE_AT_ONCE)
    return Layout(slices, split_every, range(n_estimates), in_rounds=not at_once)


def _serial(function: Callable[..., Any], *args: Any) -> Any:
    """Call a stage with BLAS limited to one thread."""
    with single_threaded_blas():
        return function(*args)


def _of_plain(function: Callable[..., Any], messages: Sequence[Any], *args: Any) -> Any:
    """Call a stage on messages after checking that they hold nothing but numbers, texts and numeric arrays."""
    return _serial(function, [tasks.as_plain(message) for message in messages], *args)
