"""A column that says where a row comes from -> one loader per source: machines that are not the partitions.

Which sources there are is found first, by reading that column alone, because a graph has to know its
machines. Tasks, as they appear on the dashboard::

    the column alone            dfmr_count_sources
    sources in many partitions  dfmr_split_partition (-> dfmr_route_rows -> dfmr_merge_rows)

Where partitions hold one or two sources each, a source's task reads the partitions that it lies in and
takes its own rows: nothing travels and no partition is read more than about twice. Otherwise every
partition is read once and its rows are sorted by source. The pieces lie in temporary files for a
scheduler on this machine; elsewhere they stay in memory and are sent bucket by bucket, a bucket being
the rows of some sources, so that a worker receives little more than the rows that it fits.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
from distributed import Reschedule

from dask_dfmr.mixtures.family import Rows
from dask_dfmr.on_dask.fit import active_client, compute_each
from dask_dfmr.on_dask.partitions import (
    Loader,
    Partitions,
    as_partitions,
    check_dtypes,
    fold_dataframe,
    partitions_in_memory,
    rows_of,
)
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.sorted_rows import SortedRows, merge
from dask_dfmr.on_dask.tasks import PartitionTimeoutError, within

MAX_SOURCES = 100_000
"""More machines than that are hardly meant: the column is likely to be a measurement or the number of a row."""

MAX_READS = 2.0
"""So often, on average, a partition may be read where every source reads the partitions that it lies in. Regrouping
reads each partition once, and writes and reads its rows once more."""

BUCKETS_PER_WORKER, MAX_BUCKETS = 2, 64
"""Every partition is cut into so many pieces, which are a task each; a worker has to hold a bucket."""

N_BUCKETS_LAZY = 16
"""Of a graph of which nobody knows yet who will compute it."""


class Missing(Enum):
    """The source of rows that have None, NaN, NaT or NA in its place."""

    MISSING = "missing"


class SourceError(ValueError):
    """The rows of a source cannot be had in full."""


def sources_of(
    X: Any,
    source: Hashable,
    n_partitions: int = 1,
    timeout: float | None = None,
    lazy: bool = False,
) -> Partitions:
    """What ``fit`` accepts -> one loader per machine, whatever a machine is.

    Parameters
    ----------
    X : as for :func:`as_partitions`
    source : column name, or None for every partition
        A column is read at once, by itself, to find its values; nothing is computed for "partition".
    n_partitions : int, default 1
        As for :func:`as_partitions`.
    timeout : float, optional
        Seconds after which reading one partition is given up.
    lazy : bool, default False
        Whether somebody else may compute the graph, on another scheduler than the one active now.

    Raises
    ------
    TypeError
        If X is not a DataFrame and a column is asked for, or has other columns that are not numbers.
    ValueError
        If there is no such column, or it has one value only, or more than ``MAX_SOURCES``.
    """
    if source is None:
        return as_partitions(X, n_partitions)
    names = _check(X, source)
    if isinstance(X, pd.DataFrame):
        if n_partitions != 1:
            raise ValueError(
                f"n_partitions must be 1 where source names a column, because the sources are the partitions; "
                f"got n_partitions={n_partitions!r}. Leave it out."
            )
        return _from_memory(X, source, names)
    census = take_census(X, source, timeout)
    # The folders of a scheduler that is not on this machine are not ours.
    client = None if lazy else _client(source)
    loaders, graph, partition_names = fold_dataframe(X)
    dtype = rows_of(X._meta.drop(columns=[source]), names)[0].dtype
    frames = Frames(loaders, partition_names, Columns(source, names, dtype))
    if census.n_reads <= MAX_READS * len(loaders):
        return _selected(frames, graph, census)
    n_buckets = N_BUCKETS_LAZY if lazy else None
    if client is not None:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        n_buckets = min(max(1, BUCKETS_PER_WORKER * n_workers), MAX_BUCKETS)
    return _regrouped(frames, graph, census, n_buckets, timeout)


def _check(X: Any, source: Hashable) -> tuple[str, ...]:
    """The names of the features, all columns but the one of the machines."""
    if not isinstance(source, Hashable):
        raise TypeError(
            f"source must be None or the name of one column; got {source!r}. "
            "To tell sources by several columns, join them into one."
        )
    if not isinstance(X, (dd.DataFrame, pd.DataFrame)):
        raise TypeError(
            f"source={source!r} names a column, so X must be a dask or pandas DataFrame; got a "
            f"{type(X).__name__}. Give a DataFrame that has that column, or leave source='partition'."
        )
    found = list(X.columns)
    if found.count(source) != 1:
        raise ValueError(
            f"source must be None or one of the columns of X, {found}; got {source!r}."
        )
    if len(found) == 1:
        raise ValueError(
            f"X must have columns to fit besides {source!r}, which says where a row comes from; got none."
        )
    try:
        return check_dtypes(X.dtypes.drop(source))
    except TypeError as error:
        raise TypeError(f"{error} (source={source!r} is not among the features.)") from None


def _client(source: Hashable) -> distributed.Client | None:
    try:
        return active_client()
    except RuntimeError as error:
        raise RuntimeError(
            f"source={source!r} is eager, because the sources have to be found first, and cannot wait on an "
            "asynchronous Client; call it under a synchronous Client or another scheduler."
        ) from error


# -- who is there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """Which sources there are, and where their rows lie.

    Attributes
    ----------
    values : list
        The sources, sorted; last :class:`Missing`, if rows have none.
    names : list of str
        What the report calls them.
    rows : list of dict of int to int
        Per source, the number of its rows in each partition that has some.
    unreadable : dict of int to str
        Partitions that could not be read, and why: machines of their own.
    """

    values: list[Any]
    names: list[str]
    rows: list[dict[int, int]]
    unreadable: dict[int, str]

    @property
    def n_reads(self) -> int:
        """How many partitions are read if every source reads those that it lies in."""
        return sum(map(len, self.rows))


def take_census(X: dd.DataFrame, column: Hashable, timeout: float | None = None) -> Census:
    """Read one column of all partitions; eager."""
    _client(column)
    loaders, graph, _ = fold_dataframe(X[[column]])

    def add(g: GraphBuilder, i: int) -> Any:
        refs = loaders[i].refs
        return g.add("count_sources", i, count_rows, loaders[i], column, timeout, *refs)

    return _census(column, compute_each(graph, add, len(loaders)))


def count_rows(
    loader: Loader, column: Hashable, timeout: float | None, *values: Any
) -> dict[Any, int] | str:
    """How many rows each source has in one partition; a text where it cannot be read."""

    def load() -> pd.Series[Any]:
        frame = loader(*values)
        if not isinstance(frame, pd.DataFrame) or column not in frame.columns:
            raise SourceError(f"there is no column {column!r}")
        return frame[column]

    try:
        labels = within(timeout, load)
    except Reschedule:
        raise
    except Exception as error:  # of a reader; what is wrong with the column itself is raised below
        return _describe(error)
    return _count(labels, column)


def _count(labels: pd.Series[Any], column: Hashable) -> dict[Any, int]:
    codes, found = _factorize(labels, column)
    if len(found) > MAX_SOURCES:
        raise ValueError(_too_many(column, f"{len(found)} in one partition alone"))
    counts = np.bincount(codes + 1, minlength=len(found) + 1).tolist()
    tally: dict[Any, int] = dict(zip(found, counts[1:], strict=True))
    return tally | ({Missing.MISSING: counts[0]} if counts[0] else {})


def _factorize(labels: pd.Series[Any], column: Hashable) -> tuple[Any, list[Any]]:
    """The code of each label, -1 where it is missing, and what the codes stand for."""
    try:
        codes, found = pd.factorize(labels)
    except TypeError as error:
        raise TypeError(
            f"source={column!r} must be a column of values that can be compared for equality (text, numbers, "
            f"dates, categories); {error}. Convert it, for example with astype(str)."
        ) from error
    return codes, list(found)


def _census(column: Hashable, tallies: Sequence[Any]) -> Census:
    rows: dict[Any, dict[int, int]] = {}
    unreadable: dict[int, str] = {}
    for i, tally in enumerate(tallies):
        if isinstance(tally, dict):
            for value, count in tally.items():
                rows.setdefault(value, {})[i] = count
        else:
            unreadable[i] = tally if isinstance(tally, str) else _describe(tally)
    if len(rows) > MAX_SOURCES:
        raise ValueError(_too_many(column, str(len(rows))))
    if len(rows) + len(unreadable) < 2:
        found = [_name(column, value) for value in rows]
        raise ValueError(
            f"source={column!r} must have at least two different values, one per machine; got {found}. "
            "Choose another column, or source='partition'."
        )
    values = _sorted(rows)
    names = [_name(column, value) for value in values]
    return Census(values, names, [rows[value] for value in values], unreadable)


def _sorted(values: Mapping[Any, Any]) -> list[Any]:
    known = [value for value in values if value is not Missing.MISSING]
    try:
        ordered = sorted(known)
    except TypeError:  # values of several types
        ordered = sorted(known, key=lambda value: (type(value).__name__, repr(value)))
    return ordered + [value for value in values if value is Missing.MISSING]


def _name(column: Hashable, value: Any) -> str:
    """A source as the report calls it: sensor='A7', site=3, day=2024-05-01, sensor=<missing>."""
    if value is Missing.MISSING:
        return f"{column}=<missing>"
    if isinstance(value, pd.Timestamp):
        midnight = value == value.normalize()
        return f"{column}={value.date() if midnight and value.tz is None else value}"
    plain = value.item() if isinstance(value, np.generic) else value
    is_dated = isinstance(plain, (pd.Timedelta, pd.Period, pd.Interval))
    return f"{column}={plain if is_dated else repr(plain)}"


def _too_many(column: Hashable, n: str) -> str:
    return (
        f"source={column!r} must name a column of at most {MAX_SOURCES} different values, one per machine; got {n}. "
        "Choose a column that says where rows come from (sensor, site, day), or make a coarser one."
    )


def _describe(error: BaseException) -> str:
    if isinstance(error, PartitionTimeoutError):
        return str(error)
    own = "" if isinstance(error, SourceError) else f"{type(error).__name__}: "
    return (own + str(error)).strip().splitlines()[0]


# -- how their rows are found --------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """What the columns of a partition are."""

    machine: Hashable
    features: tuple[str, ...]
    dtype: np.dtype[Any]

    def split(self, frame: Any) -> tuple[Rows, pd.Series[Any]]:
        """A partition as it was read -> its rows, and the source of each."""
        if not isinstance(frame, pd.DataFrame) or self.machine not in frame.columns:
            raise SourceError(f"there is no column {self.machine!r}")
        rows, _ = rows_of(frame.drop(columns=[self.machine]), self.features)
        # One type for all, so that rows have the same bits whichever way they are brought together.
        return np.ascontiguousarray(rows, self.dtype), frame[self.machine]

    def machine_of_each(self, labels: pd.Series[Any], machines: Mapping[Any, int]) -> Any:
        """The machine of each row; -1 where its source is none of those asked for."""
        codes, found = _factorize(labels, self.machine)
        wanted = [*found, Missing.MISSING]  # a missing one has the code -1, which is the last place
        return np.array([machines.get(value, -1) for value in wanted], np.intp)[codes]


@dataclass(frozen=True)
class Frames:
    """The partitions of the collection with all their columns."""

    loaders: list[Loader]
    names: list[str | None]
    columns: Columns

    def called(self, partition: int) -> str:
        """What a person would call a partition."""
        name = self.names[partition]
        return f"partition {partition}{f' ({name})' if name else ''}"


class Unreadable(Loader):
    """What stands for a partition that could not be read: a machine that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(None, [])
        self.reason = reason

    def __call__(self, *values: Any) -> Any:
        raise SourceError(f"its sources could not be found: {self.reason}")


def _partitions(
    frames: Frames,
    loaders: Sequence[Loader],
    graph: dict[Any, Any],
    census: Census,
    **more: Any,
) -> Partitions:
    """The machines: the sources, and after them what could not be read."""
    lost = [Unreadable(reason) for reason in census.unreadable.values()]
    names: list[str | None] = [*census.names, *map(frames.called, census.unreadable)]
    features = frames.columns.features
    return Partitions([*loaders, *lost], graph, names, features, len(features), **more)


# -- every source reads the partitions that it lies in -------------------------------------------


class SelectingLoader(Loader):
    """The rows of one source, taken out of the partitions that it lies in, in their order.

    Call it with the values of ``dependencies``, like any other.
    """

    def __init__(self, frames: Frames, value: Any, n_rows: Mapping[int, int]) -> None:
        self.parts = [(frames.loaders[i], n, frames.called(i)) for i, n in sorted(n_rows.items())]
        needed = dict.fromkeys(key for loader, _, _ in self.parts for key in loader.dependencies)
        super().__init__(None, list(needed))
        self.value, self.columns = value, frames.columns

    def __call__(self, *values: Any) -> Any:
        given = dict(zip(self.dependencies, values, strict=True))
        pieces = []
        for loader, expected, name in self.parts:
            # One partition at a time, so that only its rows are in memory beside those taken.
            frame = loader(*(given[key] for key in loader.dependencies))
            rows, labels = self.columns.split(frame)
            own = self.columns.machine_of_each(labels, {self.value: 0}) == 0
            _check_number(int(own.sum()), expected, name)
            pieces.append(rows[own])
        return np.concatenate(pieces)


def _check_number(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise SourceError(
            f"{where} had {expected} rows of this source when its sources were counted, and {found} when they were "
            "fitted; the data must not change in between"
        )


def _selected(frames: Frames, graph: dict[Any, Any], census: Census) -> Partitions:
    loaders = [
        SelectingLoader(frames, value, n_rows)
        for value, n_rows in zip(census.values, census.rows, strict=True)
    ]
    return _partitions(frames, loaders, graph, census)


# -- partitions are split, and sources gathered --------------------------------------------------


class GatheringLoader(Loader):
    """The rows of one machine, out of the pieces that hold them."""

    def __init__(
        self, machine: int, n_rows: int, partitions: Sequence[int], keys: Sequence[Any]
    ) -> None:
        super().__init__(None, keys)
        self.machine, self.n_rows, self.partitions = machine, n_rows, tuple(partitions)

    def __call__(self, *pieces: SortedRows) -> Any:
        for piece in pieces:
            for partition in sorted(piece.errors.keys() & set(self.partitions)):
                raise SourceError(piece.errors[partition])
        found = [
            rows
            for rows in (piece.of_machine(self.machine) for piece in pieces)
            if rows is not None
        ]
        _check_number(sum(map(len, found)), self.n_rows, "X")
        return np.concatenate(found)


class Scratch:
    """A temporary folder that goes with the object."""

    def __init__(self) -> None:
        where = dask.config.get("temporary-directory", None)
        self.folder = Path(tempfile.mkdtemp(prefix="dask-dfmr-", dir=where))
        self._cleanup = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def split_partition(
    partition: int,
    name: str,
    loader: Loader,
    columns: Columns,
    machines: Mapping[Any, int],
    path: Path | None,
    timeout: float | None,
    *values: Any,
) -> SortedRows:
    """Read one partition and sort its rows by machine; into a file if there is a path."""

    def load() -> SortedRows:
        rows, labels = columns.split(loader(*values))
        owners = columns.machine_of_each(labels, machines)
        if (owners < 0).any():
            raise SourceError("it has sources that were not there when they were counted")
        pieces = SortedRows.of(rows, owners)
        return pieces if path is None else pieces.stored(path)

    try:
        return within(timeout, load)
    except Reschedule:
        raise
    except Exception as error:  # the sources that have rows in this partition say so
        return SortedRows.failed(partition, f"{name}: {_describe(error)}")


def _regrouped(
    frames: Frames,
    graph: dict[Any, Any],
    census: Census,
    n_buckets: int | None,
    timeout: float | None,
) -> Partitions:
    """Split every partition; merge the pieces bucket by bucket, or leave them in files if there are no buckets."""
    g = GraphBuilder()
    g.tasks.update(graph)
    scratch = Scratch() if n_buckets is None else None
    machines = {value: j for j, value in enumerate(census.values)}
    shared = g.add("source_names", 0, dict, machines)
    splits = {}
    for i in sorted({i for n_rows in census.rows for i in n_rows}):
        path = None if scratch is None else scratch.folder / f"rows-{i:06d}"
        loader, columns = frames.loaders[i], frames.columns
        arguments = (i, frames.called(i), loader, columns, shared, path, timeout, *loader.refs)
        splits[i] = g.add("split_partition", i, split_partition, *arguments)
    if n_buckets is None:
        found_in = [[splits[i] for i in sorted(n_rows)] for n_rows in census.rows]
        held = list(splits.values())
    else:
        n_buckets = min(n_buckets, len(machines))
        held = [_add_bucket(g, b, n_buckets, census, splits) for b in range(n_buckets)]
        found_in = [[held[j % n_buckets]] for j in range(len(machines))]
    loaders = [
        GatheringLoader(j, sum(n_rows.values()), list(n_rows), [ref.key for ref in refs])
        for j, (n_rows, refs) in enumerate(zip(census.rows, found_in, strict=True))
    ]
    keys = tuple(ref.key for ref in held)
    return _partitions(frames, loaders, g.tasks, census, held=keys, scratch=scratch)


def _add_bucket(
    g: GraphBuilder, bucket: int, n_buckets: int, census: Census, splits: Mapping[int, Any]
) -> Any:
    """The rows of every ``n_buckets``-th machine."""
    wanted = sorted({i for n_rows in census.rows[bucket::n_buckets] for i in n_rows})
    pieces = [
        g.add("route_rows", (bucket, i), SortedRows.of_bucket, splits[i], bucket, n_buckets)
        for i in wanted
    ]
    return g.add("merge_rows", bucket, merge, pieces)


# -- data in memory ------------------------------------------------------------------------------


def _from_memory(X: pd.DataFrame, column: Hashable, features: tuple[str, ...]) -> Partitions:
    census = _census(column, [_count(X[column], column)])
    machines = {value: j for j, value in enumerate(census.values)}
    codes = Columns(column, features, np.dtype(float)).machine_of_each(X[column], machines)
    order = np.argsort(codes, kind="stable")
    bounds = np.cumsum([sum(n_rows.values()) for n_rows in census.rows])[:-1]
    rest = X.drop(columns=[column])
    parts = [rest.iloc[places] for places in np.split(order, bounds)]
    return partitions_in_memory(parts, list(census.names), features, len(features))
