"""Running a fit: on a local scheduler as one graph, on a cluster in several submissions.

Only separate submissions survive a partition that kills its worker or an error behind a shuffle:
the fits are waited for, what has no answer becomes the outcome of its partition, and the
aggregation is submitted on what is there. Pilots go first for the same reason.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import dask
import distributed
from dask.core import get_dependencies
from dask.diagnostics import ProgressBar
from dask.task_spec import DataNode, TaskRef

from dask_dfmr.decision import Aggregate, AggregationOptions
from dask_dfmr.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.estimates import LocalEstimate
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.graph import (
    SPLIT_EVERY,
    GraphBuilder,
    add_aggregation,
    add_all,
    add_fits,
    add_pilot_reads,
    add_shortlist,
    as_delayed,
)
from dask_dfmr.partitions import Partitions, reachable
from dask_dfmr.pilot import Shortlist
from dask_dfmr.store import MEMORY_LIMIT, StoredEstimates, write_block
from dask_dfmr.tasks import FitSettings, lost_partition

logger = logging.getLogger("dask_dfmr")

MAX_PILOT_ROUNDS = 3
"""So often the shortlist is tried again without the pilots that died."""


@dataclass(frozen=True)
class Pipeline:
    """A fit, all decisions taken and nothing computed."""

    partitions: Partitions
    settings: FitSettings
    options: AggregationOptions
    split_every: int = SPLIT_EVERY
    block_size: int = BLOCK_SIZE

    def as_delayed(self) -> Any:
        """The whole fit as one lazy graph that gives the :class:`Aggregate`."""
        g = GraphBuilder()
        result, _, _ = add_all(
            g, self.partitions, self.settings, self.options, self.split_every, self.block_size
        )
        return as_delayed(g, result)

    @property
    def estimate_bytes(self) -> int:
        """About how much memory the local estimates take."""
        problem, n_features = self.settings.problem, self.partitions.n_features or 0
        n_parameters = problem.family.n_parameters(problem.n_components, n_features)
        return 8 * n_parameters * len(self.partitions)


@dataclass(frozen=True)
class FitResult:
    """What a fit gives: the aggregate, the report's rows, and the local estimates if they are kept."""

    aggregate: Aggregate
    rows: list[dict[str, Any]]
    estimates: Sequence[LocalEstimate] | None


def run(pipeline: Pipeline, keep_estimates: bool | str = "auto", verbose: int = 0) -> FitResult:
    """Compute a fit on whatever scheduler is active.

    Raises
    ------
    AggregationError
        If no estimate is usable; its ``report`` holds the report's rows.
    """
    mixture_type = pipeline.settings.problem.mixture_type
    fits_memory = pipeline.estimate_bytes <= MEMORY_LIMIT
    in_memory = keep_estimates is True or (keep_estimates == "auto" and fits_memory)
    store = None
    if keep_estimates == "auto" and not fits_memory:
        store = StoredEstimates(len(pipeline.partitions), pipeline.block_size, mixture_type)
    client = active_client()
    where = "on a local scheduler" if client is None else f"on {client}"
    logger.info("fitting %d partitions %s", len(pipeline.partitions), where)
    if client is None:
        aggregate, reports, messages = _run_locally(pipeline, in_memory, store, verbose)
    else:
        with client.as_current():
            aggregate, reports, messages = _run_on(client, pipeline, in_memory, store, verbose)
    if isinstance(aggregate, AggregationError):
        raise aggregate
    rows = [row for block in reports for row in block]
    if messages is None:
        return FitResult(aggregate, rows, store)
    estimates = [LocalEstimate.from_arrays(message, mixture_type) for message in messages]
    return FitResult(aggregate, rows, estimates)


def active_client() -> distributed.Client | None:
    """The distributed client that Dask would use now, None for another scheduler.

    Raises
    ------
    RuntimeError
        If it is asynchronous: ``fit`` is eager.
    """
    try:
        scheduler = dask.base.get_scheduler()
    except RuntimeError as error:  # the way Dask says that the client is asynchronous
        raise RuntimeError(
            "fit is eager and cannot wait on an asynchronous Client; use dfmr(...) and await client.compute(...)."
        ) from error
    client = getattr(scheduler, "__self__", None)
    return client if isinstance(client, distributed.Client) else None


# -- local schedulers: one graph -----------------------------------------------------------------

_Answers = tuple[Aggregate | AggregationError, list[list[dict[str, Any]]], list[Any] | None]


def _run_locally(
    pipeline: Pipeline, in_memory: bool, store: StoredEstimates | None, verbose: int
) -> _Answers:
    g = GraphBuilder()
    result, reports, messages = add_all(
        g,
        pipeline.partitions,
        pipeline.settings,
        pipeline.options,
        pipeline.split_every,
        pipeline.block_size,
    )
    kept: list[Any] = []
    if in_memory:
        kept = list(messages)
    elif store is not None:
        blocks = tile_blocks(len(messages), pipeline.block_size)
        kept = [
            g.add("store", b, write_block, list(messages[s]), store.path(b))
            for b, s in enumerate(blocks)
        ]
    packed = g.add("results", 0, _pack, result, list(reports), kept)
    with _progress_bar(verbose):
        aggregate, report_blocks, values = as_delayed(g, packed).compute()
    return aggregate, report_blocks, values if in_memory else None


def _pack(*values: Any) -> tuple[Any, ...]:
    return values


def _progress_bar(verbose: int) -> AbstractContextManager[Any]:
    return ProgressBar() if verbose else nullcontext()


# -- a cluster: submissions ----------------------------------------------------------------------


def _run_on(
    client: distributed.Client,
    pipeline: Pipeline,
    in_memory: bool,
    store: StoredEstimates | None,
    verbose: int,
) -> _Answers:
    partitions, data = _place_data(client, pipeline.partitions)
    fits, lost = _fit_partitions(client, partitions, pipeline.settings, verbose)
    data.clear()
    g = GraphBuilder()
    messages = [
        g.add("lost_partition", i, dict, lost[i]) if i in lost else TaskRef(future.key)
        for i, future in enumerate(fits)
    ]
    result, reports = add_aggregation(
        g,
        messages,
        pipeline.settings,
        partitions.n_features,
        pipeline.options,
        pipeline.split_every,
        pipeline.block_size,
    )
    try:
        answers = client.gather(_submit(client, g, [result, *reports], verbose))
    except AggregationError as error:
        # The client keeps the error, its traceback these frames, and they the futures: without cutting
        # that circle the tasks would stay on the scheduler.
        error.__traceback__ = None
        return copy.copy(error), [], None
    kept: list[Any] | None = [] if in_memory else None
    for b, block in enumerate(tile_blocks(len(fits), pipeline.block_size)):
        if store is not None:
            write_block(_gather_messages(client, fits, lost, block), store.path(b))
        elif kept is not None:
            kept += _gather_messages(client, fits, lost, block)
    return answers[0], answers[1:], kept


def _fit_partitions(
    client: distributed.Client, partitions: Partitions, settings: FitSettings, verbose: int
) -> tuple[list[Any], dict[int, Any]]:
    """A future per partition, and the messages of those that are lost."""
    shortlist = None
    if settings.needs_pilots:
        shortlist = _find_shortlist(client, partitions, settings, verbose)
    fits = _submit_fits(client, partitions, settings, shortlist, verbose)
    for i, future in enumerate(fits):
        # A dying worker makes every task on it suspect. Alone on the cluster, a partition is judged by what it does.
        if isinstance(_error_of(future), distributed.KilledWorker):
            (fits[i],) = _submit_fits(client, partitions, settings, shortlist, 0, [i])
    errors = {i: _error_of(future) for i, future in enumerate(fits)}
    lost = {
        i: lost_partition(i, partitions.sources[i], error)
        for i, error in errors.items()
        if error is not None
    }
    return fits, lost


def _gather_messages(
    client: distributed.Client, fits: Sequence[Any], lost: dict[int, Any], block: slice
) -> list[Any]:
    """The messages of a block of partitions, brought here."""
    indices = range(block.start, block.stop)
    found = iter(client.gather([fits[i] for i in indices if i not in lost]))
    return [lost[i] if i in lost else next(found) for i in indices]


def _place_data(client: distributed.Client, partitions: Partitions) -> tuple[Partitions, list[Any]]:
    """Send data in memory once, and regroup rows once, not with every submission.

    As tasks, so that losing a worker loses nothing. What is left of the graph is what loaders need beside that.
    """
    graph = partitions.graph
    placed = {key for key, node in graph.items() if isinstance(node, DataNode)}
    placed |= set(partitions.held)
    if not placed:
        return partitions, []
    dependencies = {key: get_dependencies(graph, key) for key in graph}
    g = GraphBuilder()
    g.tasks = {key: graph[key] for key in reachable(dependencies, list(placed))}
    futures = _submit(client, g, [TaskRef(key) for key in placed], verbose=0)
    left = {key: needed - placed for key, needed in dependencies.items()}
    wanted = {key for loader in partitions.loaders for key in loader.dependencies}
    kept = reachable(left, list(wanted - placed))
    return replace(partitions, graph={key: graph[key] for key in kept}), futures


def _find_shortlist(
    client: distributed.Client, partitions: Partitions, settings: FitSettings, verbose: int
) -> Shortlist | None:
    """The starts for all partitions, brought here before any fit is submitted.

    So the fits depend on nothing that a deadly partition could take down with it. None if pilots die whenever they
    are asked: then every partition has to find its own start.
    """
    g = GraphBuilder()
    reads = add_pilot_reads(g, partitions, settings)
    futures = _submit(client, g, list(reads.values()), verbose)
    for _ in range(MAX_PILOT_ROUNDS):
        # A pilot whose worker died is no pilot; the same partition says so again when it is fitted.
        alive = {
            i: TaskRef(future.key) if _error_of(future) is None else None
            for i, future in zip(reads, futures, strict=True)
        }
        g = GraphBuilder()
        (future,) = _submit(client, g, [add_shortlist(g, alive, settings)], verbose=0)
        if _error_of(future) is None:
            shortlist: Shortlist = future.result()
            return shortlist
    logger.warning("the pilots could not be fitted; every partition makes its own start")
    return None


def _submit_fits(
    client: distributed.Client,
    partitions: Partitions,
    settings: FitSettings,
    shortlist: Shortlist | None,
    verbose: int,
    only: Sequence[int] | None = None,
) -> list[Any]:
    g = GraphBuilder()
    held = None if shortlist is None else g.add("shortlist", 0, Shortlist, *shortlist)
    return _submit(client, g, add_fits(g, partitions, settings, held, only), verbose)


def _submit(
    client: distributed.Client, g: GraphBuilder, refs: Sequence[TaskRef], verbose: int
) -> list[Any]:
    """Submit, wait until every task has an answer or an error, and return the futures."""
    futures = client.get(g.tasks, [ref.key for ref in refs], sync=False)
    if verbose:
        distributed.progress(futures, notebook=False)
        print()
    # A worker that dies after a wait takes finished results with it, and they are pending again.
    while any(future.status == "pending" for future in futures):
        distributed.wait(futures)
    return list(futures)


def compute_each(
    graph: Mapping[Any, Any], add: Callable[[GraphBuilder, int], TaskRef], n: int
) -> list[Any]:
    """The results of tasks on whatever scheduler is active; on a cluster, for one that died there, the error.

    Any other error of a task is raised.

    Parameters
    ----------
    graph : mapping
        Tasks that these depend on.
    add : callable
        Adds task number i to a graph.
    n : int
        How many there are.
    """

    def build(indices: Sequence[int]) -> tuple[GraphBuilder, list[TaskRef]]:
        g = GraphBuilder()
        g.tasks.update(graph)
        return g, [add(g, i) for i in indices]

    client = active_client()
    g, refs = build(range(n))
    if client is None:
        return list(as_delayed(g, g.add("results", 0, _pack, *refs)).compute())
    futures = _submit(client, g, refs, verbose=0)
    for i, future in enumerate(futures):
        if isinstance(_error_of(future), distributed.KilledWorker):
            # As with fits: it may have died with another.
            (futures[i],) = _submit(client, *build([i]), verbose=0)
    errors = [_error_of(future) for future in futures]
    for error in errors:
        if not isinstance(error, (type(None), distributed.KilledWorker)):
            error.__traceback__ = None  # as above: it would keep the tasks on the scheduler
            raise copy.copy(error)
    alive = [future for future, error in zip(futures, errors, strict=True) if error is None]
    values = iter(client.gather(alive))
    return [next(values) if error is None else error for error in errors]


def _error_of(future: Any) -> BaseException | None:
    """Why a future that was waited for has no result; None if it has one."""
    if future.status == "error":
        error: BaseException = future.exception()
        return error
    return distributed.CancelledError("cancelled") if future.status == "cancelled" else None


# -- for those who come back to the data -----------------------------------------------------------


@dataclass(frozen=True)
class HeldTask:
    """The result of a task, which stays where it was computed as long as this object lives.

    Attributes
    ----------
    argument : object
        What a later task takes for it: on a cluster a reference, else the result itself.
    error : BaseException or None
        On a cluster, why there is no result: the workers that tried it died, or an upstream task failed.
    """

    argument: Any
    error: BaseException | None = None
    future: Any = None

    @property
    def was_killed(self) -> bool:
        """Whether the workers that tried it died."""
        return isinstance(self.error, distributed.KilledWorker)

    def refreshed(self) -> HeldTask:
        """The same as it is now: a worker that dies takes finished results with it, and they are computed again."""
        if self.future is None:
            return self
        while self.future.status == "pending":
            distributed.wait([self.future])
        return replace(self, error=_error_of(self.future))


def place(partitions: Partitions) -> tuple[Partitions, list[Any]]:
    """Data in memory sent to the cluster, if one is active, for several submissions; and what holds them there."""
    client = active_client()
    return (partitions, []) if client is None else _place_data(client, partitions)


def hold(g: GraphBuilder, refs: Sequence[TaskRef], verbose: int = 0) -> list[HeldTask]:
    """Compute tasks on whatever scheduler is active and leave the results there.

    Only on a cluster an error that is not caught inside of its task leaves the others alone.
    """
    client = active_client()
    if client is None:
        return [HeldTask(value) for value in fetch(g, refs, verbose)]
    with client.as_current():
        futures = _submit(client, g, refs, verbose)
    return [HeldTask(TaskRef(future.key), _error_of(future), future) for future in futures]


def fetch(g: GraphBuilder, refs: Sequence[TaskRef], verbose: int = 0) -> list[Any]:
    """The results of tasks, brought here; errors are raised."""
    if not refs:
        return []
    client = active_client()
    if client is None:
        packed = g.add("results", 0, _pack, *refs)
        with _progress_bar(verbose):
            return list(as_delayed(g, packed).compute())
    with client.as_current():
        try:
            return list(client.gather(_submit(client, g, refs, verbose)))
        except Exception as error:
            error.__traceback__ = None  # as above: it would keep the tasks on the scheduler
            raise copy.copy(error) from None
