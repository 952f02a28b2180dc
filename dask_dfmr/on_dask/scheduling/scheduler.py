"""The scheduler as one value: this process, or a cluster whose workers may die.

:func:`active_scheduler` makes the value once, and everything that computes takes it::

    LocalScheduler    whatever scheduler of this process Dask is configured for
    ClusterScheduler  a distributed cluster: results stay on the workers, and tasks of dead workers are tried again
    OneGraph          several steps collected in one graph, which a local scheduler or a user computes at the end
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import dask
from dask.callbacks import Callback, normalize_callback
from dask.delayed import Delayed
from dask.task_spec import TaskRef

from dask_dfmr.exceptions import ClusterError
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.cluster import Cluster, error_of
from dask_dfmr.on_dask.scheduling.tally import LocalTally
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.on_dask.scheduling.types_of import types_of_distributed
from dask_dfmr.progress.choice import progress_for
from dask_dfmr.progress.stages import SILENT, Progress

if TYPE_CHECKING:
    import distributed

logger = logging.getLogger("dask_dfmr")

MOST_TRIES = 3
"""How often tasks are tried whose workers died: another task on the same worker may have killed it the first time."""

DEATHS = ("KilledWorker", "CancelledError")
"""Errors of distributed which mean that the workers of a task died, not that its code is wrong."""

Graph = tuple[GraphBuilder, list[TaskRef]]
"""Tasks, and references to the results wanted."""

AGGREGATING = "aggregating"
"""The name under which the last step of a fit is shown."""

Build = Callable[[Sequence[int]], Graph]
"""Makes the graph of the tasks with these numbers, with fresh keys."""

_T = TypeVar("_T")


# -- results that stay where they were computed ----------------------------------------------------


@dataclass(frozen=True)
class HeldTask:
    """The result of a task, which stays where it was computed as long as this object lives.

    Attributes
    ----------
    argument : object
        What a later task takes for it: on a cluster and in one graph a reference, else the result itself.
    error : BaseException or None
        On a cluster, why there is no result: the workers that tried it died, or an upstream task failed.
    future : distributed.Future or None
        On a cluster, what keeps the result there.
    """

    argument: Any
    error: BaseException | None = None
    future: Any = None

    @property
    def was_killed(self) -> bool:
        """Whether the workers that tried it died."""
        return isinstance(self.error, types_of_distributed("KilledWorker"))


class HeldTasks:
    """One held task per index, kept up to date while workers die and take results with them.

    Attributes
    ----------
    tasks : list of HeldTask
        In the order of the indices.
    """

    def __init__(self, steps: Steps, build: Build, indices: Sequence[int]) -> None:
        self._steps, self._build, self._indices = steps, build, indices
        self.tasks = steps.hold_each(build, indices)

    def settle(self) -> None:
        """Try those tasks again whose workers died."""
        self.tasks = self._steps.settle_each(self.tasks, self._build, self._indices)

    def again_if_workers_die(self, use: Callable[[], _T]) -> _T:
        """What a function of the held results returns; if workers die under it, they are settled and used again."""
        for _ in range(MOST_TRIES - 1):
            try:
                return use()
            except types_of_distributed(*DEATHS) as error:
                logger.info("workers died: %s", error)
                self.settle()
        return use()


def raise_errors_of_tasks(held: Iterable[HeldTask]) -> None:
    """Raise the first error that is not the death of a worker: a fault of the code, not of the cluster."""
    for task in held:
        error = task.error
        if error is not None and not isinstance(error, types_of_distributed(*DEATHS)):
            raise _without_traceback(error)


def raise_if_all_failed(held: Sequence[HeldTask]) -> None:
    """Raise an error of tasks that can be done without, if none of them has a result; else errors are logged."""
    errors = [task.error for task in held if task.error is not None]
    if len(errors) == len(held):
        raise_errors_of_tasks(held)
    for error in errors:
        logger.warning("%s: %s", type(error).__name__, error)


# -- what a scheduler can do -----------------------------------------------------------------------


class Steps(ABC):
    """Work in several steps: a step holds results that later steps take, and the last one brings results here."""

    @abstractmethod
    def hold(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[HeldTask]:
        """Compute tasks and leave the results where they are.

        On a cluster the error of a task is in its own :class:`HeldTask`. A local scheduler raises it.

        Parameters
        ----------
        g : GraphBuilder
        refs : sequence of TaskRef
            The results wanted.
        """

    @abstractmethod
    def bring(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        """Results for later tasks, brought here so that no dying worker takes them along; references in one graph."""

    @abstractmethod
    def conclude(
        self, build: Callable[[], Graph], held: HeldTasks, keep: bool = False
    ) -> list[Any]:
        """The last step: the results of a graph that uses held tasks, brought here.

        Parameters
        ----------
        build : callable
            Makes the graph. It is called again if workers die under its tasks.
        held : HeldTasks
        keep : bool, default False
            Whether ``held`` is used after this step.

        Raises
        ------
        ClusterError
            If workers keep dying under the tasks, or the scheduler is gone.
        """

    @abstractmethod
    def refreshed(self, task: HeldTask) -> HeldTask:
        """A held task as it is now: a worker that dies takes results with it, and they are computed again."""

    def hold_each(self, build: Build, indices: Sequence[int]) -> list[HeldTask]:
        """Hold one task per index. A task whose workers died is tried again, alone on the cluster.

        A dying worker makes every task on it suspect. Alone, a task is judged by its own effect.
        """
        return self.settle_each(self.hold(*build(indices)), build, indices)

    def settle_each(
        self, held: Sequence[HeldTask], build: Build, indices: Sequence[int]
    ) -> list[HeldTask]:
        """Held tasks as they are now; those whose workers died are tried again."""
        now, guilty = list(held), set()
        for _ in range(MOST_TRIES):
            now = [self.refreshed(task) for task in now]
            suspects = [k for k, task in enumerate(now) if task.was_killed and k not in guilty]
            if not suspects:
                break
            for k in suspects:
                (now[k],) = self.hold(*build([indices[k]]))
                # Other tasks may have lost their results with the workers that this one killed.
                now = [self.refreshed(task) for task in now]
                if now[k].was_killed:
                    guilty.add(k)
        return now


class Scheduler(Steps):
    """What computes the tasks of a fit, how much of that is shown, and which workers may aggregate."""

    progress: Progress

    @property
    @abstractmethod
    def n_workers(self) -> int | None:
        """Number of workers now; None for a scheduler on this machine, whose tasks can use its files."""

    def session(self) -> AbstractContextManager[None]:
        """Surrounds all work of one call of the user, of which one progress is shown."""
        return self.progress.session()

    @abstractmethod
    def in_steps(self) -> Steps:
        """The way to compute work in several steps.

        A cluster computes each step as it comes, and so survives a partition that kills its worker. A local scheduler
        computes one graph of all steps: whatever partitions have upstream is computed once.
        """

    @abstractmethod
    def fetch(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        """The results of tasks, brought here.

        Tasks whose workers died are tried again under fresh keys. Other errors are raised.

        Raises
        ------
        ClusterError
            If workers keep dying under the tasks, or the scheduler is gone.
        """

    @abstractmethod
    def fetch_held(self, held: Sequence[HeldTask]) -> list[Any]:
        """The results of held tasks, brought here; for a task without a result its error."""

    @abstractmethod
    def place(self, graph: Mapping[Any, Any], keys: Iterable[Any]) -> list[Any]:
        """Compute tasks once for several submissions.

        Returns
        -------
        list
            What holds the results on the cluster; empty on a local scheduler, which computes nothing here.
        """

    def bring(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        """The same as :meth:`fetch`: each step is computed as it comes."""
        return self.fetch(g, refs)

    def compute_each(
        self, graph: Mapping[Any, Any], add: Callable[[GraphBuilder, int], TaskRef], n: int
    ) -> list[Any]:
        """The results of n tasks; for a task whose workers died, the error. Any other error is raised.

        Parameters
        ----------
        graph : mapping
            Tasks that these depend on.
        add : callable
            Adds task number i to a graph.
        n : int
            How many tasks there are.
        """

        def build(indices: Sequence[int]) -> Graph:
            g = GraphBuilder()
            g.tasks.update(graph)
            return g, [add(g, i) for i in indices]

        with self.session():
            held = self.hold_each(build, range(n))
            raise_errors_of_tasks(held)
            return self.fetch_held(held)


def active_scheduler(trusted: TrustedWorkers | None = None, verbose: int = 0) -> Scheduler:
    """The scheduler that Dask would use now.

    Parameters
    ----------
    trusted : TrustedWorkers, optional
        The only workers that may aggregate; all by default.
    verbose : int, default 0
        As for :func:`~dask_dfmr.progress.choice.progress_for`.

    Raises
    ------
    ValueError
        If trusted workers are not on the cluster, or there is none.
    RuntimeError
        If the client is asynchronous: waiting for results would block its event loop.
    ClusterError
        If the client is gone, and no other scheduler was configured since.
    """
    client = _active_client()
    if trusted is not None:
        trusted = trusted.found_on(client)
    if client is None:
        return LocalScheduler(progress_for(verbose))
    return ClusterScheduler(Cluster(client, trusted), progress_for(verbose))


def _active_client() -> distributed.Client | None:
    """The distributed client that Dask would use now; None for another scheduler."""
    try:
        scheduler = dask.base.get_scheduler()
    except RuntimeError as error:  # Dask raises it if the client is asynchronous, or gone
        if "no Client active" in str(error):
            raise ClusterError(
                "Dask is configured for a cluster, and no Client is connected: the one there was is gone. Create a "
                "Client, or call dask.config.set(scheduler='threads') to compute here."
            ) from error
        raise RuntimeError(
            "fit is eager and cannot wait on an asynchronous Client; use dfmr(...) and await client.compute(...)."
        ) from error
    client = getattr(scheduler, "__self__", None)
    return client if isinstance(client, types_of_distributed("Client")) else None


# -- this process ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalScheduler(Scheduler):
    """Whatever scheduler of this process Dask is configured for; it raises the error of any task."""

    progress: Progress = SILENT

    def __str__(self) -> str:
        return "a local scheduler"

    @property
    def n_workers(self) -> int | None:
        return None

    def in_steps(self) -> Steps:
        return OneGraph(self)

    def compute(
        self, g: GraphBuilder, refs: Sequence[TaskRef], others: str | None = None
    ) -> list[Any]:
        """The results of tasks, computed as one graph.

        ``others`` is the name under which the progress shows stages without a name of their own.
        """
        if not refs:
            return []
        packed = g.add("results", 0, _pack, *refs)
        shows = {}
        if self.progress.is_active:
            # A callback as a context would be that of everything computed in the process meanwhile.
            tally = normalize_callback(LocalTally(self.progress, others))
            shows = {"callbacks": [tally, *Callback.active]}
        # As Delayed.compute does, but without its expressions, which take longer than so few tasks.
        compute = dask.base.compute_as_if_collection
        return list(compute(Delayed, g.tasks, packed.key, **shows))

    def hold(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[HeldTask]:
        return [HeldTask(value) for value in self.compute(g, refs)]

    def conclude(
        self, build: Callable[[], Graph], held: HeldTasks, keep: bool = False
    ) -> list[Any]:
        return self.compute(*build(), AGGREGATING)

    def refreshed(self, task: HeldTask) -> HeldTask:
        return task

    def fetch(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        return self.compute(g, refs)

    def fetch_held(self, held: Sequence[HeldTask]) -> list[Any]:
        return [task.argument for task in held]

    def place(self, graph: Mapping[Any, Any], keys: Iterable[Any]) -> list[Any]:
        return []


@dataclass(frozen=True)
class OneGraph(Steps):
    """Steps that are collected in one graph. The last step computes all of them.

    Until then a held task is a reference into the graph.
    """

    local: LocalScheduler = field(default_factory=LocalScheduler)
    tasks: dict[Any, Any] = field(default_factory=dict)

    def hold(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[HeldTask]:
        self.tasks.update(g.tasks)
        return [HeldTask(ref) for ref in refs]

    def bring(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        return [task.argument for task in self.hold(g, refs)]

    def conclude(
        self, build: Callable[[], Graph], held: HeldTasks, keep: bool = False
    ) -> list[Any]:
        g, refs = build()
        g.tasks = self.tasks | g.tasks
        kept = [task.argument for task in held.tasks] if keep else []
        found = self.local.compute(g, [*refs, *kept], AGGREGATING)
        if keep:
            held.tasks = [HeldTask(value) for value in found[len(refs) :]]
        return found[: len(refs)]

    def refreshed(self, task: HeldTask) -> HeldTask:
        return task

    def as_delayed(self, g: GraphBuilder, ref: TaskRef) -> Delayed:
        """One result of all steps as a Delayed."""
        return Delayed(ref.key, self.tasks | g.tasks)


def _pack(*values: Any) -> tuple[Any, ...]:
    return values


# -- a cluster -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterScheduler(Scheduler):
    """A distributed cluster: results stay on the workers, and tasks whose workers died are tried again.

    Only separate submissions survive a partition that kills its worker, or an error behind a shuffle.
    """

    cluster: Cluster
    progress: Progress = SILENT

    def __str__(self) -> str:
        return str(self.cluster.client)

    @property
    def n_workers(self) -> int | None:
        return len(self.cluster.client.scheduler_info(n_workers=-1)["workers"])

    @contextmanager
    def session(self) -> Iterator[None]:
        """The same, and what :meth:`Cluster.session` releases after an error."""
        with self.progress.session(), self.cluster.session():
            yield

    def in_steps(self) -> Steps:
        return self

    def hold(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[HeldTask]:
        futures = self._submit(g, refs)
        return [HeldTask(TaskRef(future.key), error_of(future), future) for future in futures]

    def conclude(
        self, build: Callable[[], Graph], held: HeldTasks, keep: bool = False
    ) -> list[Any]:
        def use() -> list[Any]:
            return self.cluster.gather(self._submit(*build(), AGGREGATING))

        try:
            return held.again_if_workers_die(use)
        except types_of_distributed(*DEATHS) as error:
            raise _keep_dying(error) from None
        except Exception as error:
            raise _without_traceback(error) from None

    def refreshed(self, task: HeldTask) -> HeldTask:
        if task.future is None:
            return task
        self.cluster.wait([task.future])
        return replace(task, error=error_of(task.future))

    def fetch(self, g: GraphBuilder, refs: Sequence[TaskRef]) -> list[Any]:
        if not refs:
            return []
        for attempt in range(MOST_TRIES):
            try:
                return self.cluster.gather(self._submit(g, refs))
            except types_of_distributed("KilledWorker") as error:
                if attempt == MOST_TRIES - 1:
                    raise _keep_dying(error) from None
                g, refs = g.renewed(refs)
            except Exception as error:
                raise _without_traceback(error) from None
        raise AssertionError("the last try returns or raises")

    def fetch_held(self, held: Sequence[HeldTask]) -> list[Any]:
        values = iter(self.cluster.gather([task.future for task in held if task.error is None]))
        return [next(values) if task.error is None else task.error for task in held]

    def place(self, graph: Mapping[Any, Any], keys: Iterable[Any]) -> list[Any]:
        return self.cluster.submit(graph, list(keys), self.progress)

    def _submit(
        self, g: GraphBuilder, refs: Sequence[TaskRef], others: str | None = None
    ) -> list[Any]:
        """Submit, wait until every task has a result or an error, and return the futures."""
        return self.cluster.submit(g.tasks, [ref.key for ref in refs], self.progress, others)


def _without_traceback(error: BaseException) -> BaseException:
    """A copy of an error without its traceback, to be raised in its place.

    The client keeps the error, its traceback the frames, and the frames the futures. Without cutting that circle the
    tasks would stay on the scheduler.
    """
    error.__traceback__ = None
    return copy.copy(error)


def _keep_dying(error: BaseException) -> ClusterError:
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    return ClusterError(
        f"workers died {MOST_TRIES} times under the same tasks of the aggregation ({first}). See their logs for the "
        "cause: too little memory for all local estimates, or a cluster that is being taken down."
    )
