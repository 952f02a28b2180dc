"""Running a fit: on a local scheduler as one graph, on a cluster in several submissions.

Only separate submissions survive a partition that kills its worker or an error behind a shuffle:
the fits are waited for, what has no answer becomes the outcome of its partition, and the
aggregation is submitted on what is there. Pilots go first for the same reason.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import dask
import distributed
from dask.core import get_dependencies
from dask.diagnostics import ProgressBar
from dask.task_spec import DataNode, TaskRef

from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.exceptions import AggregationError, ClusterError
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.pilots import Shortlist
from dask_dfmr.mixtures.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.on_dask.estimate_store import MEMORY_LIMIT, StoredEstimates, write_block
from dask_dfmr.on_dask.graph import (
    add_aggregation,
    add_all,
    add_fits,
    add_pilot_fits,
    add_pilot_reads,
    add_shortlist,
    as_delayed,
)
from dask_dfmr.on_dask.partitions import Partitions, reachable
from dask_dfmr.on_dask.scheduling import cluster
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.on_dask.tasks import FitSettings, as_plain, estimate_of, lost_partition

logger = logging.getLogger("dask_dfmr")

MOST_TRIES = 3
"""So often tasks whose workers died are tried: the first time they may have died of another task on the same worker."""


@dataclass(frozen=True)
class Pipeline:
    """A fit, all decisions taken and nothing computed."""

    partitions: Partitions
    settings: FitSettings
    options: AggregationOptions
    split_every: int = SPLIT_EVERY
    block_size: int = BLOCK_SIZE
    trusted: TrustedWorkers | None = None

    def as_delayed(self, wrap: Callable[[AggregationResult], Any]) -> Any:
        """The whole fit as one lazy graph that gives ``wrap(result)``."""
        g = GraphBuilder()
        result, _, _ = add_all(
            g, self.partitions, self.settings, self.options, self.split_every, self.block_size
        )
        return as_delayed(g, g.add("aggregate", 0, wrap, result))

    @property
    def estimate_bytes(self) -> int:
        """About how much memory the local estimates take."""
        problem, n_features = self.settings.problem, self.partitions.n_features or 0
        n_parameters = problem.family.n_parameters(problem.n_components, n_features)
        return 8 * n_parameters * len(self.partitions)


@dataclass(frozen=True)
class FitResult:
    """What a fit gives: the aggregate, the report's rows, and the local estimates if they are kept."""

    aggregate: AggregationResult
    rows: list[dict[str, Any]]
    estimates: Sequence[LocalEstimate] | None


def run(pipeline: Pipeline, keep_estimates: bool | str = "auto", verbose: int = 0) -> FitResult:
    """Compute a fit on whatever scheduler is active.

    Raises
    ------
    AggregationError
        If no estimate is usable; its ``report`` holds the report's rows.
    """
    family = pipeline.settings.problem.family
    fits_memory = pipeline.estimate_bytes <= MEMORY_LIMIT
    in_memory = keep_estimates is True or (keep_estimates == "auto" and fits_memory)
    store = None
    if keep_estimates == "auto" and not fits_memory:
        store = StoredEstimates(len(pipeline.partitions), pipeline.block_size, family)
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
    estimates = [estimate_of(message, family, i) for i, message in enumerate(messages)]
    return FitResult(aggregate, rows, estimates)


def active_client() -> distributed.Client | None:
    """The distributed client that Dask would use now, None for another scheduler.

    Raises
    ------
    RuntimeError
        If it is asynchronous: ``fit`` is eager.
    ClusterError
        If it is gone, and nothing else was configured since.
    """
    try:
        scheduler = dask.base.get_scheduler()
    except RuntimeError as error:  # the way Dask says that the client is asynchronous, or gone
        if "no Client active" in str(error):
            raise ClusterError(
                "Dask is configured for a cluster, and no Client is connected: the one there was is gone. Create a "
                "Client, or call dask.config.set(scheduler='threads') to compute here."
            ) from error
        raise RuntimeError(
            "fit is eager and cannot wait on an asynchronous Client; use dfmr(...) and await client.compute(...)."
        ) from error
    client = getattr(scheduler, "__self__", None)
    return client if isinstance(client, distributed.Client) else None


# -- local schedulers: one graph -----------------------------------------------------------------

_Answers = tuple[AggregationResult | AggregationError, list[list[dict[str, Any]]], list[Any] | None]


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
    fits = _Fits(client, partitions, pipeline.settings, verbose)
    try:
        answers = _aggregate(client, fits, pipeline, verbose)
    except AggregationError as error:
        # The client keeps the error, its traceback these frames, and they the futures: without cutting
        # that circle the tasks would stay on the scheduler.
        error.__traceback__ = None
        return copy.copy(error), [], None
    kept: list[Any] | None = [] if in_memory else None
    for b, block in enumerate(tile_blocks(len(partitions), pipeline.block_size)):
        if store is not None:
            write_block(fits.messages(block), store.path(b))
        elif kept is not None:
            kept += fits.messages(block)
    data.clear()
    return answers[0], answers[1:], kept


class _Fits:
    """The local estimates of all partitions, which stay on the workers; what died is the outcome of its partition."""

    def __init__(
        self,
        client: distributed.Client,
        partitions: Partitions,
        settings: FitSettings,
        verbose: int,
    ) -> None:
        self.client, self.partitions, self.settings = client, partitions, settings
        self.shortlist = None
        if settings.needs_pilots:
            self.shortlist = _find_shortlist(client, partitions, settings, verbose)
        self.held = hold_each(self._build, range(len(partitions)), verbose)

    def _build(self, indices: Sequence[int]) -> tuple[GraphBuilder, list[TaskRef]]:
        # The fits depend on nothing that a deadly partition could take down with it: the shortlist is here.
        g = GraphBuilder()
        shortlist = self.shortlist
        held = None if shortlist is None else g.add("shortlist", 0, Shortlist, *shortlist)
        return g, add_fits(g, self.partitions, self.settings, held, indices)

    def settle(self) -> None:
        """Bring them up to date: workers that died took finished results with them."""
        self.held = settle_each(self.held, self._build, range(len(self.partitions)))

    @property
    def lost(self) -> dict[int, Any]:
        """Messages of partitions that have no answer of their own."""
        sources = self.partitions.sources
        return {
            i: lost_partition(i, sources[i], task.error)
            for i, task in enumerate(self.held)
            if task.error is not None
        }

    def messages(self, block: slice) -> list[Any]:
        """The messages of a block of partitions, brought here."""

        def bring() -> list[Any]:
            lost = self.lost
            indices = range(block.start, block.stop)
            wanted = [self.held[i].future for i in indices if i not in lost]
            found = iter(cluster.gather(self.client, wanted))
            return [lost[i] if i in lost else as_plain(next(found), i) for i in indices]

        return self.again_if_workers_die(bring)

    def again_if_workers_die(self, use: Callable[[], list[Any]]) -> list[Any]:
        """The result of using them; where that fails because a worker died under it, of trying once more."""
        for _ in range(MOST_TRIES - 1):
            try:
                return use()
            except (distributed.KilledWorker, distributed.CancelledError) as error:
                logger.info("workers died: %s", error)
                self.settle()
        return use()


def _aggregate(
    client: distributed.Client, fits: _Fits, pipeline: Pipeline, verbose: int
) -> list[Any]:
    """The aggregate, and the report's rows block by block."""

    def use() -> list[Any]:
        g = GraphBuilder()
        lost = fits.lost
        messages = [
            g.add("lost_partition", i, dict, lost[i]) if i in lost else task.argument
            for i, task in enumerate(fits.held)
        ]
        result, reports = add_aggregation(
            g,
            messages,
            pipeline.settings,
            fits.partitions.n_features,
            pipeline.options,
            pipeline.split_every,
            pipeline.block_size,
        )
        return cluster.gather(client, _submit(client, g, [result, *reports], verbose))

    try:
        return fits.again_if_workers_die(use)
    except (distributed.KilledWorker, distributed.CancelledError) as error:
        raise _keep_dying(error) from None


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
) -> Shortlist:
    """The starts for all partitions, brought here before any fit is submitted.

    A pilot that kills its workers is no pilot; the same partition says so again when it is fitted.
    """

    def read(indices: Sequence[int]) -> tuple[GraphBuilder, list[TaskRef]]:
        g = GraphBuilder()
        reads = add_pilot_reads(g, partitions, settings)
        return g, [reads[i] for i in indices]

    drawn = list(add_pilot_reads(GraphBuilder(), partitions, settings))
    reads = dict(zip(drawn, hold_each(read, drawn, verbose), strict=True))
    rows = {i: task.argument if task.error is None else None for i, task in reads.items()}

    def fit(indices: Sequence[int]) -> tuple[GraphBuilder, list[TaskRef]]:
        g = GraphBuilder()
        fits = add_pilot_fits(g, rows, settings)
        return g, [fits[i] for i in indices]

    fits = hold_each(fit, drawn)
    raise_errors_of_tasks(fits)
    g = GraphBuilder()
    found = {i: t.argument if t.error is None else None for i, t in zip(drawn, fits, strict=True)}
    with client.as_current():
        (shortlist,) = fetch(g, [add_shortlist(g, found, settings)])
    return Shortlist(*shortlist)


def _submit(
    client: distributed.Client, g: GraphBuilder, refs: Sequence[TaskRef], verbose: int
) -> list[Any]:
    """Submit, wait until every task has an answer or an error, and return the futures."""
    return cluster.submit(client, g.tasks, [ref.key for ref in refs], verbose)


def _keep_dying(error: BaseException) -> ClusterError:
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    return ClusterError(
        f"workers died {MOST_TRIES} times over under the same tasks of the aggregation ({first}). Their logs say why: "
        "too little memory for all local estimates, or a cluster that is being taken down."
    )


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

    held = hold_each(build, range(n))
    raise_errors_of_tasks(held)
    client = active_client()
    if client is None:
        return [task.argument for task in held]
    values = iter(cluster.gather(client, [task.future for task in held if task.error is None]))
    return [next(values) if task.error is None else task.error for task in held]


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
        return cluster.is_death(self.error)

    def refreshed(self) -> HeldTask:
        """The same as it is now: a worker that dies takes finished results with it, and they are computed again."""
        if self.future is None:
            return self
        cluster.wait(self.future.client, [self.future])
        return replace(self, error=cluster.error_of(self.future))


Build = Callable[[Sequence[int]], tuple[GraphBuilder, list[TaskRef]]]
"""Makes the graph of the tasks with these numbers, with fresh keys, and references to their results."""


def hold_each(build: Build, indices: Sequence[int], verbose: int = 0) -> list[HeldTask]:
    """Hold a task per index, and try those whose workers died once more, each alone on the cluster.

    A dying worker makes every task on it suspect. Alone, a task is judged by what it does.
    """
    return settle_each(hold(*build(indices), verbose), build, indices)


def settle_each(held: Sequence[HeldTask], build: Build, indices: Sequence[int]) -> list[HeldTask]:
    """Held tasks as they are now, those whose workers died tried again."""
    now, guilty = list(held), set()
    for _ in range(MOST_TRIES):
        now = [task.refreshed() for task in now]
        suspects = [k for k, task in enumerate(now) if task.was_killed and k not in guilty]
        if not suspects:
            break
        for k in suspects:
            (now[k],) = hold(*build([indices[k]]))
            # Others may have lost their results with the workers that this one took down.
            now = [task.refreshed() for task in now]
            if now[k].was_killed:
                guilty.add(k)
    return now


def raise_errors_of_tasks(held: Iterable[HeldTask]) -> None:
    """Raise the first error that is not the death of a worker: a fault of the code, not of the cluster."""
    for task in held:
        error = task.error
        if error is not None and not isinstance(
            error, (distributed.KilledWorker, distributed.CancelledError)
        ):
            error.__traceback__ = None  # it would keep the tasks on the scheduler
            raise copy.copy(error)


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
    return [HeldTask(TaskRef(future.key), cluster.error_of(future), future) for future in futures]


def fetch(g: GraphBuilder, refs: Sequence[TaskRef], verbose: int = 0) -> list[Any]:
    """The results of tasks, brought here; errors are raised, deaths of workers after further tries.

    Raises
    ------
    ClusterError
        If workers keep dying under the tasks, or the scheduler is gone.
    """
    if not refs:
        return []
    client = active_client()
    if client is None:
        packed = g.add("results", 0, _pack, *refs)
        with _progress_bar(verbose):
            return list(as_delayed(g, packed).compute())
    with client.as_current():
        for attempt in range(MOST_TRIES):
            try:
                return cluster.gather(client, _submit(client, g, refs, verbose))
            except distributed.KilledWorker as error:
                if attempt == MOST_TRIES - 1:
                    raise _keep_dying(error) from None
                g, refs = g.renewed(refs)
            except Exception as error:
                error.__traceback__ = None  # as above: it would keep the tasks on the scheduler
                raise copy.copy(error) from None
    raise AssertionError("the last try returns or raises")
