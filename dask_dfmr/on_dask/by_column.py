"""A column with the source of each row -> one loader per source, wherever its rows lie.

The sources are found first, by reading that column alone, because a graph needs to know its loaders. A partition whose
column cannot be read is a source of its own. One whose features cannot be read is found out later, by the tasks that
gather the rows of a source: they go on without it, and name it (:class:`PartlyRead`). Tasks, as they appear on the
dashboard::

    the column alone            dfmr_count_sources
    sources in many partitions  dfmr_split_partition (-> dfmr_route_rows -> dfmr_merge_rows)

If partitions hold one or two sources each, the task of a source reads the partitions that it lies in and takes its own
rows: nothing travels, and no partition is read more than about twice. Otherwise every partition is read once and its
rows are sorted by source. For a scheduler on this machine the pieces lie in temporary files. Elsewhere they stay in
memory and are sent bucket by bucket. A bucket holds the rows of some sources, so that a worker receives little more
than the rows that it fits.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd

from dask_dfmr.exceptions import OutOfTimeError
from dask_dfmr.local.estimate import MAX_ROWS
from dask_dfmr.mixtures.family import Rows
from dask_dfmr.on_dask.partitions import (
    ColumnsError,
    Loader,
    Partitions,
    as_collection,
    as_partitions,
    fold_dataframe,
    is_frame,
    partitions_in_memory,
    rows_of,
)
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.passing import passes
from dask_dfmr.on_dask.scheduling.scheduler import Scheduler, active_scheduler
from dask_dfmr.on_dask.scheduling.timeouts import within
from dask_dfmr.on_dask.sorted_rows import Problem, SortedRows, merge
from dask_dfmr.on_dask.tasks import describe_reading, described
from dask_dfmr.on_dask.unread import PartlyRead
from dask_dfmr.tables import check_columns, columns_of, missing_columns

MAX_SOURCES = 100_000
"""A column with more values is refused: it is likely to be a measurement or the number of a row."""

MAX_READS = 2.0
"""How often, on average, a partition may be read if every source reads the partitions that it lies in. Regrouping reads
each partition once, and writes and reads its rows once more."""

BUCKETS_PER_WORKER, MAX_BUCKETS = 2, 64
"""Number of pieces per worker, and at most, into which every partition is cut. Each piece is a task, and a worker has
to hold a bucket of pieces."""

N_BUCKETS_LAZY = 16
"""Number of buckets of a lazy graph, whose workers are not known yet."""


class Missing(Enum):
    """The source of rows whose value is None, NaN, NaT or NA."""

    MISSING = "missing"


class SourceError(ValueError):
    """Not all rows of a source can be read."""


def sources_of(
    X: Any,
    source: Hashable,
    n_partitions: int = 1,
    timeout: float | None = None,
    scheduler: Scheduler | None = None,
    least: int = 2,
) -> Partitions:
    """What ``fit`` accepts -> one loader per source.

    Parameters
    ----------
    X : as for :func:`as_partitions`
    source : column name, or None for every partition
        A column is read at once, by itself, to find its values; nothing is computed for None.
    n_partitions : int, default 1
        As for :func:`as_partitions`.
    timeout : float, optional
        Seconds after which reading one partition is given up.
    scheduler : Scheduler, optional
        The scheduler of the fit. Without it any scheduler can compute the rows later, and the active one reads the
        column now.
    least : int, default 2
        The least number of values that a column must have. A fit compares sources with one another.

    Raises
    ------
    TypeError
        If X is not a DataFrame and a column is asked for, or has other columns that are not numbers.
    ValueError
        If there is no such column, or it has fewer values than ``least``, or more than ``MAX_SOURCES``.
    RuntimeError
        If the column would have to be read on an asynchronous client.
    """
    X = as_collection(X)
    if source is None:
        return as_partitions(X, n_partitions)
    names = _check(X, source)
    if isinstance(X, pd.DataFrame):
        if n_partitions != 1:
            raise ValueError(
                f"n_partitions must be 1 if source names a column, because the sources are the partitions; "
                f"got n_partitions={n_partitions!r}. Leave it out."
            )
        return _from_memory(X, source, names, least)
    census = take_census(X, source, scheduler or _scheduler_for(source), timeout, least)
    loaders, graph, partition_names = fold_dataframe(X)
    dtype = rows_of(X._meta.drop(columns=[source]), names)[0].dtype
    frames = Frames(loaders, partition_names, Columns(source, names, dtype))
    if census.n_reads <= MAX_READS * len(loaders):
        return _selected(frames, graph, census)
    n_buckets: int | None = N_BUCKETS_LAZY
    if scheduler is not None:
        # Only a scheduler on this machine can use its temporary folder, and needs no buckets.
        n = scheduler.n_workers
        n_buckets = None if n is None else min(max(1, BUCKETS_PER_WORKER * n), MAX_BUCKETS)
    return _regrouped(frames, graph, census, n_buckets, timeout)


def _check(X: Any, source: Hashable) -> tuple[str, ...]:
    """The names of the features: all columns but the one of the sources."""
    if not isinstance(source, Hashable):
        raise TypeError(
            f"source must be None or the name of one column; got {source!r}. "
            "To tell sources by several columns, join them into one."
        )
    if not (isinstance(X, pd.DataFrame) or is_frame(X)):
        raise TypeError(
            f"source={source!r} names a column, so X must be a dask or pandas DataFrame; got a "
            f"{type(X).__name__}. Give a DataFrame that has that column, or leave source=None."
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
        is_example = not isinstance(X, pd.DataFrame)
        columns = columns_of(X._meta if is_example else X, is_example=is_example)
        return check_columns([c for c in columns if c.label != source], besides=[source])
    except TypeError as error:
        raise TypeError(f"{error} (source={source!r} is not among the features.)") from None


def _scheduler_for(source: Hashable) -> Scheduler:
    """The active scheduler, to read the column of the sources."""
    try:
        return active_scheduler()
    except RuntimeError as error:
        raise RuntimeError(
            f"source={source!r} is eager, because the sources have to be found first, and cannot wait on an "
            "asynchronous Client; call it under a synchronous Client or another scheduler."
        ) from error


# -- which sources there are -----------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """Which sources there are, and where their rows lie.

    Attributes
    ----------
    values : list
        The sources, sorted; :class:`Missing` is the last one, if rows have no value.
    names : list of str
        Their names in the report.
    rows : list of dict of int to int
        Per source, the number of its rows in each partition that has some.
    unreadable : dict of int to str
        Partitions that could not be read, and why. Each is a source of its own.
    """

    values: list[Any]
    names: list[str]
    rows: list[dict[int, int]]
    unreadable: dict[int, str]

    @property
    def n_reads(self) -> int:
        """Number of partition reads if every source reads the partitions that it lies in."""
        return sum(map(len, self.rows))


def take_census(
    X: Any,
    column: Hashable,
    scheduler: Scheduler,
    timeout: float | None = None,
    least: int = 2,
) -> Census:
    """Read one column of all partitions; eager."""
    loaders, graph, _ = fold_dataframe(X[[column]])

    def add(g: GraphBuilder, i: int) -> Any:
        refs = loaders[i].refs
        return g.add("count_sources", i, count_rows, loaders[i], column, timeout, *refs)

    return _census(column, scheduler.compute_each(graph, add, len(loaders)), least)


def count_rows(
    loader: Loader, column: Hashable, timeout: float | None, *values: Any
) -> dict[Any, int] | str:
    """How many rows each source has in one partition; a text if the partition cannot be read.

    Raises
    ------
    ValueError
        If the partition has more than ``MAX_SOURCES`` sources.
    """

    def load() -> pd.Series[Any]:
        frame = loader(*values)
        if not isinstance(frame, pd.DataFrame) or column not in frame.columns:
            raise SourceError(_no_column(column))
        return frame[column]

    try:
        labels = within(timeout, load)
    except (Exception, SystemExit) as error:
        if passes(error):
            raise
        reason = _describe(error)
        return _no_column(column) if missing_columns(reason, [str(column)]) else reason
    try:
        return _count(labels, column)
    except TypeError as error:
        return str(error)


def _no_column(column: Hashable) -> str:
    return f"there is no column {column!r}"


def _count(labels: pd.Series[Any], column: Hashable) -> dict[Any, int]:
    codes, found = _factorize(labels, column)
    if len(found) > MAX_SOURCES:
        raise ValueError(_too_many(column, f"{len(found)} in one partition alone"))
    counts = np.bincount(codes + 1, minlength=len(found) + 1).tolist()
    tally: dict[Any, int] = dict(zip(found, counts[1:], strict=True))
    return tally | ({Missing.MISSING: counts[0]} if counts[0] else {})


def _factorize(labels: pd.Series[Any], column: Hashable) -> tuple[Any, list[Any]]:
    """The code of each label, -1 if it is missing, and the value of each code."""
    try:
        codes, found = pd.factorize(labels)
    except TypeError as error:
        raise TypeError(
            f"{_comparable(column)}; {error}. Convert it, for example with astype(str)."
        ) from error
    return codes, list(found)


def _comparable(column: Hashable) -> str:
    return (
        f"source={column!r} must be a column of values that can be compared for equality (text, numbers, dates, "
        "categories)"
    )


def _census(column: Hashable, tallies: Sequence[Any], least: int) -> Census:
    rows: dict[Any, dict[int, int]] = {}
    unreadable: dict[int, str] = {}
    for i, tally in enumerate(tallies):
        if _is_tally(tally):
            for value, count in tally.items():
                rows.setdefault(value, {})[i] = count
        elif type(tally) is str:
            unreadable[i] = tally
        else:
            is_error = isinstance(tally, BaseException)
            unreadable[i] = _describe(tally) if is_error else "malformed numbers of rows"
    if len(rows) > MAX_SOURCES:
        raise ValueError(_too_many(column, str(len(rows))))
    reasons = list(unreadable.values())
    if not rows and reasons and all(text.startswith(_comparable(column)) for text in reasons):
        raise TypeError(reasons[0])
    if len(rows) + len(unreadable) < least:
        found = [_name(column, value) for value in rows]
        expected = "one value" if least == 1 else "two different values"
        raise ValueError(
            f"source={column!r} must have at least {expected}, one per source; got {found}. "
            "Choose another column, or source=None."
        )
    values = _sorted(rows)
    names = [_name(column, value) for value in values]
    return Census(values, names, [rows[value] for value in values], unreadable)


def _is_tally(value: Any) -> bool:
    """Whether a value is what :func:`count_rows` returns, and nothing that only looks like it."""
    is_dict = type(value) is dict
    return is_dict and all(type(n) is int and 0 <= n < MAX_ROWS for n in value.values())


def _sorted(values: Mapping[Any, Any]) -> list[Any]:
    known = [value for value in values if value is not Missing.MISSING]
    try:
        ordered = sorted(known)
    except TypeError:  # values of several types
        ordered = sorted(known, key=lambda value: (type(value).__name__, repr(value)))
    return ordered + [value for value in values if value is Missing.MISSING]


def _name(column: Hashable, value: Any) -> str:
    """The name of a source in the report: sensor='A7', site=3, day=2024-05-01, sensor=<missing>."""
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
        f"source={column!r} must name a column of at most {MAX_SOURCES} different values, one per source; got {n}. "
        "Choose a column that says where rows come from (sensor, site, day), or make a coarser one."
    )


def _describe(error: BaseException) -> str:
    if isinstance(error, (OutOfTimeError, SourceError, ColumnsError)):
        return str(error)
    return describe_reading(error).strip().splitlines()[0]


# -- how their rows are found ----------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns of every partition: the one of the sources, the features, and the type of their rows."""

    source: Hashable
    features: tuple[str, ...]
    dtype: np.dtype[Any]

    def split(self, frame: Any) -> tuple[Rows, pd.Series[Any]]:
        """A partition as it was read -> its rows, and the source of each.

        Raises
        ------
        SourceError
            If the partition has no column of the sources.
        ColumnsError
            If its other columns are not the features.
        """
        if not isinstance(frame, pd.DataFrame) or self.source not in frame.columns:
            raise SourceError(f"there is no column {self.source!r}")
        rows, _ = rows_of(frame.drop(columns=[self.source]), self.features)
        # One type for all, so that rows have the same bits whichever way they are brought together.
        return np.ascontiguousarray(rows, self.dtype), frame[self.source]

    def problem_of(self, partition: str, error: BaseException) -> Problem:
        """Why a partition could not be read and split."""
        reason, of_columns = _describe(error), missing_columns(described(error), self.features)
        is_of_columns = isinstance(error, ColumnsError) or bool(of_columns)
        return Problem(f"{partition}: {of_columns or reason}", is_of_columns)

    def source_of_each(self, labels: pd.Series[Any], numbers: Mapping[Any, int]) -> Any:
        """The number of the source of each row; -1 if its source has no number."""
        codes, found = _factorize(labels, self.source)
        # A missing value has the code -1, which is the last place.
        values = [*found, Missing.MISSING]
        return np.array([numbers.get(value, -1) for value in values], np.intp)[codes]


@dataclass(frozen=True)
class Frames:
    """The partitions of the collection with all their columns."""

    loaders: list[Loader]
    names: list[str | None]
    columns: Columns

    def called(self, partition: int) -> str:
        """The name of a partition in messages."""
        name = self.names[partition]
        return f"partition {partition}{f' ({name})' if name else ''}"


class Unreadable(Loader):
    """In place of a partition that could not be read: a source whose outcome gives the reason."""

    def __init__(self, reason: str, is_of_columns: bool) -> None:
        super().__init__(None, [])
        self.reason, self.is_of_columns = reason, is_of_columns

    def __call__(self, *values: Any) -> Any:
        text = f"its sources could not be found: {self.reason}"
        raise ColumnsError(text) if self.is_of_columns else SourceError(text)


def _partitions(
    frames: Frames,
    loaders: Sequence[Loader],
    graph: dict[Any, Any],
    census: Census,
    **more: Any,
) -> Partitions:
    """The sources, and after them the partitions that could not be read."""
    no_column = _no_column(frames.columns.source)
    lost = [Unreadable(reason, reason == no_column) for reason in census.unreadable.values()]
    names: list[str | None] = [*census.names, *map(frames.called, census.unreadable)]
    features = frames.columns.features
    return Partitions(
        [*loaders, *lost], graph, names, features, len(features), form="source", **more
    )


# -- every source reads the partitions that it lies in -------------------------------------------


class SelectingLoader(Loader):
    """The rows of one source, taken out of the partitions that it lies in, in their order.

    Called with the values of ``dependencies``, like any other loader.
    """

    def __init__(self, frames: Frames, value: Any, n_rows: Mapping[int, int]) -> None:
        self.parts = [(frames.loaders[i], n, frames.called(i)) for i, n in sorted(n_rows.items())]
        needed = dict.fromkeys(key for loader, _, _ in self.parts for key in loader.dependencies)
        super().__init__(None, list(needed))
        self.value, self.columns = value, frames.columns

    def __call__(self, *values: Any) -> Any:
        given = dict(zip(self.dependencies, values, strict=True))
        pieces, problems = [], []
        for loader, expected, name in self.parts:
            try:
                # One partition at a time, so that only its rows are in memory beside those taken.
                frame = loader(*(given[key] for key in loader.dependencies))
                rows, labels = self.columns.split(frame)
            except (Exception, SystemExit) as error:
                if passes(error):
                    raise
                problems.append(self.columns.problem_of(name, error))
                continue
            own = self.columns.source_of_each(labels, {self.value: 0}) == 0
            _check_number(int(own.sum()), expected, name)
            pieces.append(rows[own])
        return _gathered(pieces, problems)


def _gathered(pieces: Sequence[Any], problems: Sequence[Problem]) -> Rows | PartlyRead:
    """The rows of a source from the partitions that could be read.

    Raises
    ------
    SourceError, ColumnsError
        If none of them could be read.
    """
    texts = tuple(problem.text for problem in problems)
    if pieces:
        rows = np.concatenate(pieces)
        return PartlyRead(rows, texts) if texts else rows
    is_of_columns = all(problem.is_of_columns for problem in problems)
    raise (ColumnsError if is_of_columns else SourceError)("; ".join(texts))


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
    """The rows of one source, taken out of the pieces that hold them; ``n_rows`` says how many in which partition."""

    def __init__(self, source: int, n_rows: Mapping[int, int], keys: Sequence[Any]) -> None:
        super().__init__(None, keys)
        self.source, self.n_rows = source, dict(n_rows)

    def __call__(self, *pieces: SortedRows) -> Any:
        errors = {i: problem for piece in pieces for i, problem in piece.errors.items()}
        unread = sorted(errors.keys() & self.n_rows.keys())
        found = [
            rows for rows in (piece.of_source(self.source) for piece in pieces) if rows is not None
        ]
        expected = sum(n for i, n in self.n_rows.items() if i not in errors)
        _check_number(sum(map(len, found)), expected, "X")
        return _gathered(found, [errors[i] for i in unread])


class Scratch:
    """A temporary folder that is deleted with this object."""

    def __init__(self) -> None:
        where = dask.config.get("temporary-directory", None)
        self.folder = Path(tempfile.mkdtemp(prefix="dask-dfmr-", dir=where))
        self._cleanup = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def split_partition(
    partition: int,
    name: str,
    loader: Loader,
    columns: Columns,
    numbers: Mapping[Any, int],
    path: Path | None,
    timeout: float | None,
    *values: Any,
) -> SortedRows:
    """Read one partition and sort its rows by source; write them to a file if there is a path."""
    try:
        rows, labels = columns.split(within(timeout, partial(loader, *values)))
        owners = columns.source_of_each(labels, numbers)
        if (owners < 0).any():
            raise SourceError("it has sources that were not there when they were counted")
        pieces = SortedRows.of(rows, owners)
    except (Exception, SystemExit) as error:
        if passes(error):
            raise
        return SortedRows.failed(partition, columns.problem_of(name, error))
    # A full disk is no error of the partition, and ends the fit.
    return pieces if path is None else pieces.stored(path)


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
    numbers = {value: j for j, value in enumerate(census.values)}
    shared = g.add("source_names", 0, dict, numbers)
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
        n_buckets = min(n_buckets, len(numbers))
        held = [_add_bucket(g, b, n_buckets, census, splits) for b in range(n_buckets)]
        found_in = [[held[j % n_buckets]] for j in range(len(numbers))]
    loaders = [
        GatheringLoader(j, n_rows, [ref.key for ref in refs])
        for j, (n_rows, refs) in enumerate(zip(census.rows, found_in, strict=True))
    ]
    keys = tuple(ref.key for ref in held)
    return _partitions(frames, loaders, g.tasks, census, held=keys, scratch=scratch)


def _add_bucket(
    g: GraphBuilder, bucket: int, n_buckets: int, census: Census, splits: Mapping[int, Any]
) -> Any:
    """The rows of every ``n_buckets``-th source."""
    wanted = sorted({i for n_rows in census.rows[bucket::n_buckets] for i in n_rows})
    pieces = [
        g.add("route_rows", (bucket, i), SortedRows.of_bucket, splits[i], bucket, n_buckets)
        for i in wanted
    ]
    return g.add("merge_rows", bucket, merge, pieces)


# -- data in memory ------------------------------------------------------------------------------


def _from_memory(
    X: pd.DataFrame, column: Hashable, features: tuple[str, ...], least: int
) -> Partitions:
    census = _census(column, [_count(X[column], column)], least)
    numbers = {value: j for j, value in enumerate(census.values)}
    codes = Columns(column, features, np.dtype(float)).source_of_each(X[column], numbers)
    order = np.argsort(codes, kind="stable")
    bounds = np.cumsum([sum(n_rows.values()) for n_rows in census.rows])[:-1]
    rest = X.drop(columns=[column])
    parts = [rest.iloc[places] for places in np.split(order, bounds)]
    found = partitions_in_memory(parts, list(census.names), features, len(features))
    return replace(found, form="source")
