"""PartitionStatistics partitions again with a mixture at hand: for refinement, and whoever else comes back to the data.

Every reading costs what reading cost in the first place; on a cluster the partitions are read wherever
there is room, unless they were persisted. What is measured is small (:mod:`dask_dfmr.local.row_statistics`). It can be
brought here, or stay where it was computed, be summed in a tree and be asked further questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dask_dfmr.local.row_statistics import PartitionStatistics, Total, Wanted, total_of
from dask_dfmr.mixtures.distances import BLOCK_SIZE, tile_blocks
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.fit import HeldTask, fetch, hold_each, place
from dask_dfmr.on_dask.partitions import Partitions
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.tasks import FitSettings

_T = TypeVar("_T")


class Reader:
    """Reads partitions of one fit again, on whatever scheduler is active.

    Parameters
    ----------
    partitions : Partitions
    settings : FitSettings
        Of the fit: its policy for NaN, its columns and its timeout hold here too.
    split_every : int, default 8
        How many partitions are summed at a time.
    verbose : int, default 0
        1 shows a progress bar for every read.
    only : sequence of int, optional
        Partitions that will be read, so that no others are sent to a cluster; all by default.

    Attributes
    ----------
    partitions : Partitions
        With data in memory as this object holds them on a cluster, for whoever else wants tasks on them.
    n_reads : int
        Partitions read so far, repeated ones counted again.
    """

    def __init__(
        self,
        partitions: Partitions,
        settings: FitSettings,
        split_every: int = SPLIT_EVERY,
        verbose: int = 0,
        only: Sequence[int] | None = None,
    ) -> None:
        self.settings = settings
        self.split_every = split_every
        self.verbose = verbose
        self.n_reads = 0
        # Sent to a cluster once, and held there while this object lives.
        self.partitions, self._data = place(
            partitions if only is None else partitions.reduced_to(only)
        )

    def measure(
        self,
        indices: Sequence[int],
        mixtures: Sequence[Mixture],
        wanted: Wanted = Wanted(),  # noqa: B008  (frozen)
    ) -> list[PartitionStatistics]:
        """Read some partitions and bring here what they say of the mixtures.

        Parameters
        ----------
        indices : sequence of int
            Which partitions.
        mixtures : sequence of Mixture
            One at least, of one number of columns; families and numbers of components may differ.
        wanted : Wanted, optional
            What to measure; the log-likelihood and the moments by default.

        Returns
        -------
        list of PartitionStatistics
            In the order of ``indices``. What went wrong in a partition is in its own reading.
        """
        return self.hold(indices, mixtures, wanted).gather()

    def hold(
        self,
        indices: Sequence[int],
        mixtures: Sequence[Mixture],
        wanted: Wanted = Wanted(),  # noqa: B008
    ) -> HeldStatistics:
        """The same, but what is large stays where it was computed."""

        def read(which: Sequence[int]) -> tuple[GraphBuilder, list[Any]]:
            g = GraphBuilder()
            g.tasks.update(self.partitions.graph)
            broadcast = g.add("mixtures", 0, list, list(mixtures))
            refs = []
            for i in which:
                loader = self.partitions.loaders[i]
                arguments = (loader, i, self.settings, broadcast, wanted, *loader.refs)
                refs.append(g.add("measure_partition", i, tasks.measure_partition, *arguments))
            self.n_reads += len(refs)
            return g, refs

        held = hold_each(read, indices, self.verbose)
        answers = [
            task if task.error is None else HeldTask(tasks.lost_reading(index, task.error))
            for index, task in zip(indices, held, strict=True)
        ]
        return HeldStatistics(answers, self.split_every)


@dataclass(frozen=True)
class HeldStatistics:
    """Readings that stay where they were computed as long as this object lives, in the order they were asked for."""

    tasks: list[HeldTask]
    split_every: int = SPLIT_EVERY

    def __len__(self) -> int:
        return len(self.tasks)

    def gather(self) -> list[PartitionStatistics]:
        """All of them, brought here."""
        return self.map(list)

    def numbers(self) -> list[PartitionStatistics]:
        """All of them without their moments."""
        return self.map(_without_moments)

    def total(self, positions: Sequence[int] | None = None) -> Total:
        """What those at these positions, by default all, measured together: one sum per mixture.

        Summed in a tree of fixed shape, so that bits do not depend on the scheduler.
        """
        leaves = self._arguments(range(len(self.tasks)) if positions is None else positions)
        if not leaves:
            return ()
        g = GraphBuilder()
        (total,) = fetch(g, [g.tree("add_measurements", (), total_of, leaves, self.split_every)])
        return tuple(total)

    def map(self, function: Callable[..., Sequence[_T]], *arguments: Any) -> list[_T]:
        """Apply a function of a list of readings, and of further arguments, to blocks of them; join what it returns."""
        g = GraphBuilder()
        shared = [g.add("shared", i, _same, argument) for i, argument in enumerate(arguments)]
        blocks = tile_blocks(len(self.tasks), BLOCK_SIZE)
        refs = [
            g.add("ask_readings", b, function, self._arguments(range(s.start, s.stop)), *shared)
            for b, s in enumerate(blocks)
        ]
        return [value for values in fetch(g, refs) for value in values]

    def _arguments(self, positions: Sequence[int]) -> list[Any]:
        return [self.tasks[i].argument for i in positions]


def _without_moments(readings: list[PartitionStatistics]) -> list[PartitionStatistics]:
    return [reading.without_moments() for reading in readings]


def _same(value: Any) -> Any:
    return value
