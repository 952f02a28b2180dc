"""Partitions read again with a mixture at hand: for refinement, selection and explanations.

Every read costs what the first read cost. On a cluster the partitions are read on any worker, unless they were
persisted. The measurements are small (:mod:`dask_dfmr.local.row_statistics`). They can be brought here, or stay where
they were computed, be summed in a tree and be used by further tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dask_dfmr.local.row_statistics import PartitionStatistics, Total, Wanted, total_of
from dask_dfmr.mixtures.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import answers, tasks
from dask_dfmr.on_dask.fit_plan import FitPlan
from dask_dfmr.on_dask.placed import place
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Graph, HeldTask, Scheduler

_T = TypeVar("_T")


class Reader:
    """Reads partitions of one fit again.

    Parameters
    ----------
    plan : FitPlan
        Of the fit: its policy for NaN, its columns, its time-out and its scheduler hold here too.
    only : sequence of int, optional
        Partitions that will be read, so that no others are sent to a cluster; all by default.
    n_before : mapping of int to int, optional
        Numbers of rows of partitions at the first read. A partition with another number counts as one that cannot be
        read again. Unknown by default.
    purpose : str, optional
        What the reads are for, as the progress shows them.

    Attributes
    ----------
    partitions : Partitions
        With data in memory as this object holds them on a cluster, for other tasks on them.
    n_reads : int
        Partitions read so far; a partition read twice counts twice.
    """

    def __init__(
        self,
        plan: FitPlan,
        only: Sequence[int] | None = None,
        n_before: Mapping[int, int] | None = None,
        purpose: str = "reading partitions again",
    ) -> None:
        self.scheduler, self.settings = plan.scheduler, plan.settings
        self.split_every = plan.split_every
        self.purpose = purpose
        self.n_reads = 0
        self.n_before = {} if n_before is None else n_before
        # Sent to a cluster once, and held there while this object lives.
        self.partitions, self._data = place(
            plan.scheduler, plan.partitions if only is None else plan.partitions.reduced_to(only)
        )

    def measure(
        self,
        indices: Sequence[int],
        mixtures: Sequence[Mixture],
        wanted: Wanted = Wanted(),  # noqa: B008  (frozen)
    ) -> list[PartitionStatistics]:
        """Read some partitions and bring here what their rows give under each of the mixtures.

        Parameters
        ----------
        indices : sequence of int
            Which partitions.
        mixtures : sequence of Mixture
            At least one, all with the same number of columns; families and numbers of components may differ.
        wanted : Wanted, optional
            What to measure; the log-likelihood and the moments by default.

        Returns
        -------
        list of PartitionStatistics
            In the order of ``indices``. An error in a partition is in its own entry.
        """
        return self.hold(indices, mixtures, wanted).gather()

    def hold(
        self,
        indices: Sequence[int],
        mixtures: Sequence[Mixture],
        wanted: Wanted = Wanted(),  # noqa: B008
    ) -> HeldStatistics:
        """The same, but the statistics stay where they were computed."""

        def read(which: Sequence[int]) -> Graph:
            g = GraphBuilder()
            g.tasks.update(self.partitions.graph)
            broadcast = g.add("mixtures", 0, list, list(mixtures))
            refs = []
            for i in which:
                loader = self.partitions.loaders[i]
                arguments = (loader, i, self.settings, broadcast, wanted, *loader.refs)
                answer = g.add("measure_partition", i, tasks.measure_partition, *arguments)
                checked = (answer, i, broadcast, wanted, self.n_before.get(i))
                refs.append(g.add("check_statistics", i, answers.statistics, *checked))
            self.n_reads += len(refs)
            return g, refs

        with self.scheduler.progress.during(self.purpose):
            held = self.scheduler.hold_each(read, indices)
        found = [
            task if task.error is None else HeldTask(tasks.lost_reading(index, task.error))
            for index, task in zip(indices, held, strict=True)
        ]
        return HeldStatistics(found, self.scheduler, self.split_every)


@dataclass(frozen=True)
class HeldStatistics:
    """Statistics of partitions that stay where they were computed as long as this object lives.

    Attributes
    ----------
    tasks : list of HeldTask
        In the order in which the partitions were asked for.
    scheduler : Scheduler
    split_every : int, default 8
        How many partitions are summed at a time.
    """

    tasks: list[HeldTask]
    scheduler: Scheduler
    split_every: int = SPLIT_EVERY

    def __len__(self) -> int:
        return len(self.tasks)

    def gather(self) -> list[PartitionStatistics]:
        """The statistics of all partitions, brought here."""
        return self.map(list)

    def numbers(self) -> list[PartitionStatistics]:
        """The statistics of all partitions without their moments, brought here."""
        return self.map(_without_moments)

    def total(self, positions: Sequence[int] | None = None) -> Total:
        """The sum of the measurements at these positions, by default of all: one sum per mixture.

        Summed in a tree of fixed shape, so that bits do not depend on the scheduler.
        """
        leaves = self._arguments(range(len(self.tasks)) if positions is None else positions)
        if not leaves:
            return ()
        g = GraphBuilder()
        root = g.tree("add_measurements", (), total_of, leaves, self.split_every)
        (total,) = self.scheduler.fetch(g, [root])
        return tuple(total)

    def map(self, function: Callable[..., Sequence[_T]], *arguments: Any) -> list[_T]:
        """Apply a function of a list of statistics, and of further arguments, to blocks; join what it returns."""
        g = GraphBuilder()
        shared = [g.add("shared", i, _same, argument) for i, argument in enumerate(arguments)]
        blocks = tile_blocks(len(self.tasks), BLOCK_SIZE)
        refs = [
            g.add("ask_readings", b, function, self._arguments(range(s.start, s.stop)), *shared)
            for b, s in enumerate(blocks)
        ]
        return [value for values in self.scheduler.fetch(g, refs) for value in values]

    def _arguments(self, positions: Sequence[int]) -> list[Any]:
        return [self.tasks[i].argument for i in positions]


def _without_moments(readings: list[PartitionStatistics]) -> list[PartitionStatistics]:
    return [reading.without_moments() for reading in readings]


def _same(value: Any) -> Any:
    return value
