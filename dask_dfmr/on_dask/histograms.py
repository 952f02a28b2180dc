"""Rows counted in bins: every partition counts its own, and only the counts travel."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_dfmr.mixtures.family import Array
from dask_dfmr.on_dask.partitions import Loader, as_collection, as_partitions, is_frame, rows_of
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY, GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import active_scheduler
from dask_dfmr.tables import as_frame, check_names

logger = logging.getLogger("dask_dfmr")


class Grid(NamedTuple):
    """Bins of some columns: their positions, and the edges of the bins of each, increasing."""

    columns: tuple[int, ...]
    edges: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many bins each column has."""
        return tuple(len(e) - 1 for e in self.edges)


class Counts(NamedTuple):
    """Rows in the bins of each grid, the number of all rows, and of partitions that could not be read."""

    bins: list[NDArray[np.int64]]
    n_samples: int
    n_failed: int


def count_rows(
    X: Any, names: tuple[str, ...] | None, n_features: int, grids: Sequence[Grid]
) -> Counts:
    """Count the rows of a collection in the bins of grids, on the scheduler that is active; eager.

    Of a frame only the columns of the grids are read. Rows outside of a grid, and missing values, are in no bin.

    Parameters
    ----------
    X : as for :meth:`GaussianMixture.fit`
    names : tuple of str or None
        Names of the columns that positions in ``grids`` count.
    n_features : int
        Number of these columns.
    grids : sequence of Grid

    Raises
    ------
    TypeError, ValueError
        If X is no such collection, or lacks a column.
    """
    X, grids, names = _needed(as_collection(X), names, list(grids))
    partitions = as_partitions(X)
    width = len(names) if names is not None else n_features
    g = GraphBuilder()
    g.tasks.update(partitions.graph)
    shared = g.add("grids", 0, list, list(grids))
    leaves = [
        g.add("count_rows", i, _count_partition, loader, names, width, shared, *loader.refs)
        for i, loader in enumerate(partitions.loaders)
    ]
    root = g.tree("add_counts", (), _total, leaves, SPLIT_EVERY)
    scheduler = active_scheduler()
    with scheduler.session():
        (found,) = scheduler.fetch(g, [root])
    if found.n_failed:
        logger.warning("%d of %d partitions could not be counted", found.n_failed, len(partitions))
    return found


def _needed(
    X: Any, names: tuple[str, ...] | None, grids: list[Grid]
) -> tuple[Any, list[Grid], tuple[str, ...] | None]:
    """A frame of the grids' columns alone, so that no others are read, and the grids in its positions."""
    frame = X if is_frame(X) else as_frame(X)
    if names is None or frame is None:
        return X, grids, names
    wanted = sorted({j for grid in grids for j in grid.columns})
    chosen = tuple(names[j] for j in wanted)
    labels = {str(label): label for label in frame.columns}
    if not set(chosen) <= labels.keys():
        check_names(chosen, list(frame.columns))  # raises, with what is missing
    place = {j: i for i, j in enumerate(wanted)}
    grids = [Grid(tuple(place[j] for j in grid.columns), grid.edges) for grid in grids]
    return frame[[labels[name] for name in chosen]], grids, chosen


def _count_partition(
    loader: Loader, names: tuple[str, ...] | None, width: int, grids: list[Grid], *values: Any
) -> Counts:
    try:
        rows, _ = rows_of(loader(*values), names)
        if rows.shape[1] != width:
            raise ValueError(f"{rows.shape[1]} columns, expected {width}")
    except Exception:  # a picture can do without a partition, as the fit did
        logger.info("a partition could not be counted", exc_info=True)
        return Counts([np.zeros(grid.shape, np.int64) for grid in grids], 0, 1)
    bins = [_bins(np.asarray(rows[:, list(grid.columns)], float), grid) for grid in grids]
    return Counts(bins, len(rows), 0)


def _bins(rows: Array, grid: Grid) -> NDArray[np.int64]:
    rows = rows[np.isfinite(rows).all(axis=1)]
    counts, _ = np.histogramdd(rows, bins=list(grid.edges))
    return counts.astype(np.int64)


def _total(parts: list[Counts]) -> Counts:
    bins = [np.sum(same, axis=0) for same in zip(*(p.bins for p in parts), strict=True)]
    return Counts(bins, sum(p.n_samples for p in parts), sum(p.n_failed for p in parts))
