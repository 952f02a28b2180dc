"""A user's collection -> one task per partition that gives its rows: the border between collections and the graph.

Reading and fitting a partition become one task, so that an error of the reader can be caught where it happens. Tasks
that Dask left unfused are folded in here: every task that serves one partition alone belongs to that partition.

Collections are recognised by what they offer, not by their class: Dask has several kinds of arrays.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import dask
import numpy as np
from dask.core import flatten, get_dependencies, ishashable
from dask.delayed import Delayed
from dask.optimization import cull
from dask.task_spec import Alias, DataNode, GraphNode, Task, TaskRef

from dask_dfmr.local.least_rows import Form
from dask_dfmr.mixtures.family import Rows
from dask_dfmr.on_dask.parquet import ColumnReader, Later, by_columns
from dask_dfmr.on_dask.scheduling.types_of import types_of_distributed
from dask_dfmr.on_dask.unread import PartlyRead
from dask_dfmr.tables import (
    NamedRows,
    as_frame,
    check_columns,
    columns_of,
    is_of_pandas,
    refuse_others,
    rows_and_names,
    unmasked,
)

MAX_SOURCE_PARTS = 3
"""How many files the name of a partition lists."""

TUNE = "optimization.tune.active"
"""Dask's name of the step of its optimiser that merges partitions, in its configuration."""

_DIVISION: dict[Form, str] = {
    "frame": "Divide it with X = X.repartition(npartitions=8)",
    "array": "Divide it with X = X.rechunk({0: -(-len(X) // 8)})",
    "memory": "Divide it with n_partitions=8, or give the Dask collection itself if a transformer has computed it",
    "list": "Give a list with a Delayed, frame or array for each file or source",
    "source": "Give a source= column of more values, or none",
}
"""What divides X into more partitions."""

_FUSED_READ = re.compile(r"read_?parquet\w*-(?![0-9a-f]{32}$)")

_LIKE_A_PATH = re.compile(
    r"\w+://\S.*|/\w.*|[A-Za-z]:[\\/].*|[^<>|*?\n]*[\\/][^<>|*?\n ]+\.[A-Za-z]\w{1,8}", re.DOTALL
)
"""A URL, an absolute path, or a relative path with a file extension; not a unit like m/s, not an expression."""


class ColumnsError(ValueError):
    """The columns of one partition, which holds ``n_rows`` rows, are not those of the collection."""

    def __init__(self, message: str, n_rows: int = 0) -> None:
        super().__init__(message)
        self.n_rows = n_rows


class Loader:
    """The rows of one partition, as a task not yet run.

    Called with the values of ``dependencies``, in their order, it returns the partition.
    """

    def __init__(self, node: GraphNode | None, dependencies: Sequence[Any]) -> None:
        self.node = node
        self.dependencies = tuple(dependencies)

    @property
    def refs(self) -> list[TaskRef]:
        """References to the values that a call takes."""
        return [TaskRef(key) for key in self.dependencies]

    def __call__(self, *values: Any) -> Any:
        if self.node is None:
            return values[0]
        return self.node(dict(zip(self.dependencies, values, strict=True)))

    def rows(self, *values: Any) -> Any:
        """The partition in the form that :func:`rows_of` takes with the least work."""
        if isinstance(self.node, Task) and isinstance(self.node.func, ColumnReader):
            return self.node.func.rows(*self.node.args)
        return self(*values)


@dataclass(frozen=True)
class Partitions:
    """A collection as loaders of its partitions, and the graph that they depend on.

    Attributes
    ----------
    loaders : list of Loader
        One per partition.
    graph : dict
        Tasks that loaders depend on.
    sources : list of str or None
        The name of each partition in the report: a file path or a row range; None if there is none.
    feature_names : tuple of str or None
    n_features : int or None
        None if it is known only after loading (Delayed objects).
    held : tuple
        Keys of expensive tasks in ``graph`` that serve several loaders. A cluster keeps their results until all fits
        are done.
    scratch : object
        Keeps temporary files as long as the loaders may run.
    n_rows : int or None
        Number of rows, if it is known.
    form : Form
        What the user gave, for advice that works on it.
    may_be_merged : bool
        Whether Dask may have merged partitions of the user when it optimised the collection, before it came here.
    """

    loaders: list[Loader]
    graph: dict[Any, Any]
    sources: list[str | None]
    feature_names: tuple[str, ...] | None
    n_features: int | None
    held: tuple[Any, ...] = ()
    scratch: Any = None
    n_rows: int | None = None
    form: Form = "list"
    may_be_merged: bool = False

    def __len__(self) -> int:
        return len(self.loaders)

    @property
    def remedy(self) -> str:
        """What divides the data into more partitions, for messages."""
        return _DIVISION[self.form]

    def reduced_to(self, indices: Sequence[int]) -> Partitions:
        """The same with as much of the graph as these partitions need; the others cannot be loaded."""
        chosen = set(indices)
        nothing = Loader(None, [])
        loaders = [loader if i in chosen else nothing for i, loader in enumerate(self.loaders)]
        graph = _needed(self.graph, loaders)
        held = tuple(key for key in self.held if key in graph)
        return replace(self, loaders=loaders, graph=graph, held=held)


def as_partitions(X: Any, n_partitions: int = 1) -> Partitions:
    """What ``fit`` accepts -> partitions.

    Parameters
    ----------
    X : as for :meth:`GaussianMixture.fit`
    n_partitions : int, default 1
        Into how many consecutive partitions data in memory is cut.

    Raises
    ------
    TypeError
        If X is none of these, or has columns that are not real numbers.
    ValueError
        If X has no partitions, no columns, or not two dimensions.
    """
    X = as_collection(X)
    if is_frame(X):
        return replace(_from_dask_dataframe(X), may_be_merged=may_be_merged(X))
    if is_array(X):
        return replace(_from_dask_array(X), may_be_merged=may_be_merged(X))
    if is_list_of_lazy(X):
        return replace(_from_delayed(X), may_be_merged=may_be_merged(X))
    if is_list_of_tables(X):
        return _from_list(X)
    return _from_memory(X, n_partitions)


# -- the kinds of input --------------------------------------------------------------------------


def as_collection(X: Any) -> Any:
    """X as one of the kinds that are accepted: the Dask array in an xarray.DataArray, a list of one Delayed.

    A Future becomes a Delayed, which waits for it where it is.

    Raises
    ------
    TypeError
        If X is of no such kind, with the call that makes one of it. Nothing is computed.
    """
    if is_lazy(X):
        return [_as_delayed(X)]
    if isinstance(X, (list, tuple)) and any(map(_is_of_dask, X)):
        return _as_list_of_lazy(X)
    refuse_others(X)
    if not dask.is_dask_collection(X) or is_frame(X) or is_array(X):
        return X
    # xarray keeps the chunks of an array, and says so by these two attributes; nothing of xarray is needed.
    if hasattr(X, "dims") and is_array(getattr(X, "data", None)):
        return X.data
    if _offers(X, "to_frame"):
        raise TypeError(f"X must have columns; got a dask {type(X).__name__}. Use X.to_frame().")
    remedy = " Use X.to_dataframe()." if _offers(X, "to_dataframe") else ""
    raise TypeError(
        "X must be a dask DataFrame, a dask Array or a list of Delayed, frames or arrays; "
        f"got a dask {type(X).__name__}.{remedy}"
    )


def _is_of_dask(part: Any) -> bool:
    return isinstance(part, types_of_distributed("Future")) or dask.is_dask_collection(part)


def _as_delayed(part: Any) -> Delayed:
    return (
        Delayed(part.key, {part.key: part})
        if isinstance(part, types_of_distributed("Future"))
        else part
    )


def _as_list_of_lazy(parts: Sequence[Any]) -> list[Delayed]:
    if all(map(is_lazy, parts)):
        return [_as_delayed(part) for part in parts]
    remedy = "Make each of them Delayed: [dask.delayed(part) for part in X]"
    for is_kind, join in (
        (is_frame, "dask.dataframe.concat"),
        (is_array, "dask.array.concatenate"),
    ):
        if all(is_kind(part) for part in parts):
            remedy = f"Make one collection of them: {join}(X)"
    kinds = sorted({type(part).__name__ for part in parts})
    raise TypeError(
        f"X must be a collection, or a list in which all are Delayed; got a list of {kinds}. {remedy}."
    )


def is_lazy(X: Any) -> bool:
    """Whether X is one Delayed or one Future."""
    return isinstance(X, (Delayed, *types_of_distributed("Future")))


def is_frame(X: Any) -> bool:
    """Whether X is a dask DataFrame; a Series is none."""
    is_collection = dask.is_dask_collection(X) and _offers(X, "map_partitions", "columns", "ndim")
    return is_collection and X.ndim == 2


def is_array(X: Any) -> bool:
    """Whether X is an array of Dask, of whichever implementation."""
    return dask.is_dask_collection(X) and _offers(X, "map_blocks", "numblocks", "rechunk", "dtype")


def is_list_of_lazy(X: Any) -> bool:
    """Whether X is a list of Delayed objects, and not empty."""
    return isinstance(X, list) and len(X) > 0 and all(isinstance(part, Delayed) for part in X)


def is_list_of_tables(X: Any) -> bool:
    """Whether X is a list or tuple of frames and two-dimensional arrays in memory, and not empty."""
    return isinstance(X, (list, tuple)) and len(X) > 0 and all(map(_is_table, X))


def is_one_table(X: Any) -> bool:
    """Whether X, as :func:`as_collection` gives it, is one frame or array in memory."""
    return not (dask.is_dask_collection(X) or is_list_of_lazy(X) or is_list_of_tables(X))


def _is_table(part: Any) -> bool:
    if isinstance(part, (list, tuple)):  # a row
        return False
    is_array_like = getattr(part, "ndim", None) == 2 and hasattr(part, "__array__")
    return is_array_like or as_frame(part) is not None


def is_expression(X: Any) -> bool:
    """Whether a collection is an expression, which gets its graph, and the keys of its partitions, when optimised."""
    return _offers(X, "expr", "optimize")


def _offers(X: Any, *names: str) -> bool:
    # A Delayed has every attribute, as another Delayed.
    return not isinstance(X, Delayed) and all(hasattr(X, name) for name in names)


def delayed_parts(X: Any) -> list[Delayed]:
    """The partitions of a collection of Dask, in their order and number, as Delayed objects."""
    if isinstance(X, Delayed):
        return [X]
    if is_frame(X):
        keys, graph = unmerged(X)
        return [Delayed(key, graph) for key in keys]
    if not is_expression(X):
        return np.ravel(X.to_delayed()).tolist()
    optimised = X.optimize()
    graph = optimised.__dask_graph__()
    return [Delayed(key, graph) for key in flatten(optimised.__dask_keys__())]


def unmerged(X: Any) -> tuple[list[Any], dict[Any, Any]]:
    """The keys of the partitions of a dask DataFrame, as many as the user chose, and the optimised graph.

    Dask's ``optimize`` merges small parquet partitions after a projection, unless its configuration says otherwise.
    The configuration belongs to the process, so that changing it here would change it for other threads, too. These
    are the steps of ``optimize`` without that one.
    """
    optimised = X.expr.simplify().lower_completely().simplify().fuse()
    return list(optimised.__dask_keys__()), dict(optimised.__dask_graph__())


def may_be_merged(X: Any) -> bool:
    """Whether Dask may have merged partitions of parquet files when it optimised a collection that the user gives.

    ``persist``, ``optimize``, ``to_delayed``, ``to_dask_array`` and ``values`` merge small partitions if only some of
    the columns are used. What they return has the keys of the reading tasks, and shows no more of it. Without the
    step of the optimiser that merges there is no doubt.
    """
    if not dask.config.get(TUNE, True):
        return False
    if not is_frame(X):
        parts = X if isinstance(X, list) else [X]
        keys = parts if isinstance(X, list) else parts[0].__dask_graph__()
        return any(_is_of_fused_read(getattr(key, "key", key)) for key in keys)
    # Other nodes than fused ones may raise where they are asked for what they do not have.
    nodes = [
        one
        for node in X.expr.walk()
        for one in (node, *(node.operand("exprs") if "exprs" in node._parameters else ()))
    ]
    kinds = {type(node).__name__ for node in nodes}
    graphs = [node for node in nodes if type(node).__name__ == "FromGraph"]
    keys = [key for node in graphs for key in node.operand("keys")]
    return "FusedIO" in kinds or any(map(_is_of_fused_read, keys))


def _is_of_fused_read(key: Any) -> bool:
    """Whether a key is that of reading parquet together with something else; reading alone merges nothing."""
    return isinstance(key, tuple) and _FUSED_READ.match(str(key[0])) is not None


def _from_dask_dataframe(X: Any) -> Partitions:
    names = check_example(X._meta)
    loaders, graph, sources = fold_dataframe(X)
    return Partitions(loaders, graph, sources, names, len(names), form="frame")


def fold_dataframe(X: Any) -> tuple[list[Loader], dict[Any, Any], list[str | None]]:
    """A loader and a name for every partition of a dask DataFrame, and the graph that loaders depend on."""
    keys, graph = unmerged(X)
    loaders, graph = _fold(graph, keys)
    divisions: list[str | None] = [None] * len(keys)
    if X.known_divisions:
        divisions = [f"index {a} to {b}" for a, b in itertools.pairwise(X.divisions)]
    sources = [
        source_of(loader.node) or interval
        for loader, interval in zip(loaders, divisions, strict=True)
    ]
    return loaders, graph, sources


def _from_dask_array(X: Any) -> Partitions:
    if X.ndim != 2:
        raise ValueError(f"X must have the shape (n_samples, n_features); got {X.ndim} dimensions.")
    check_kind("X", X.dtype)
    if X.shape[1] == 0:
        raise ValueError("X must have at least one column; got none.")
    X = X.rechunk({1: -1}) if X.numblocks[1] > 1 else X
    if is_expression(X):
        X = X.optimize()
        graph = dict(X.__dask_graph__())
    else:
        graph = _optimised_graph([X])
    loaders, graph = _fold(graph, list(flatten(X.__dask_keys__())))
    bounds = np.concatenate([[0], np.cumsum(X.chunks[0])])
    sources = [
        None if np.isnan(b) else f"rows {int(a)}:{int(b)}" for a, b in itertools.pairwise(bounds)
    ]
    n_rows = None if np.isnan(bounds[-1]) else int(bounds[-1])
    return Partitions(loaders, graph, sources, None, int(X.shape[1]), n_rows=n_rows, form="array")


def _from_delayed(parts: list[Delayed]) -> Partitions:
    keys = [part.key for part in parts]
    loaders, graph = _fold(_optimised_graph(parts), keys)
    return Partitions(loaders, graph, [source_of(loader.node) for loader in loaders], None, None)


def _optimised_graph(collections: list[Any]) -> dict[Any, Any]:
    """The optimised graph of collections, with the futures of persisted data, which Dask's optimisation drops."""
    graph: dict[Any, Any] = {}
    for collection in collections:
        whole = dict(collection.__dask_graph__())
        graph |= {
            key: value
            for key, value in whole.items()
            if isinstance(value, types_of_distributed("Future"))
        }
    # Collections optimised together share one graph.
    optimised = {id(g): g for g in (c.__dask_graph__() for c in dask.optimize(*collections))}
    for shared in optimised.values():
        graph |= dict(shared)
    return graph


def _from_memory(X: Any, n_partitions: int) -> Partitions:
    frame = as_frame(X)
    names: tuple[str, ...] | None = None
    data: Any = frame
    if frame is None:
        from sklearn.utils import check_array

        data = check_array(unmasked(X), ensure_all_finite=False, ensure_min_samples=2)
        check_kind("X", data.dtype)
    elif is_of_pandas(frame):
        names = check_columns(columns_of(frame))
    else:
        data, names = rows_and_names(frame)
    bounds = np.linspace(0, len(data), n_partitions + 1).astype(int)
    rows = data.iloc if is_of_pandas(data) else data
    pieces = [rows[a:b] for a, b in itertools.pairwise(bounds)]
    sources: list[str | None] = [f"rows {a}:{b}" for a, b in itertools.pairwise(bounds)]
    found = partitions_in_memory(pieces, sources, names, int(data.shape[1]))
    return replace(found, form="memory")


def _from_list(parts: Sequence[Any]) -> Partitions:
    """Each element is a partition. The columns are those of most of them; others are the outcome of their partition."""
    frames = [as_frame(part) for part in parts]
    widths = Counter(part.shape[1] for part in parts)
    columns = Counter(tuple(map(str, frame.columns)) for frame in frames if frame is not None)
    names = columns.most_common(1)[0][0] if columns else None
    width = widths.most_common(1)[0][0] if names is None else len(names)
    return partitions_in_memory(parts, [None] * len(parts), names, width)


def partitions_in_memory(
    pieces: Sequence[Any],
    sources: list[str | None],
    feature_names: tuple[str, ...] | None,
    n_features: int,
) -> Partitions:
    """Data in memory that are already cut, one piece a partition."""
    token = uuid4().hex
    keys = [("dfmr_rows-" + token, i) for i in range(len(pieces))]
    graph = {key: DataNode(key, piece) for key, piece in zip(keys, pieces, strict=True)}
    loaders = [Loader(None, [key]) for key in keys]
    n_rows = sum(map(len, pieces))
    return Partitions(loaders, graph, sources, feature_names, n_features, n_rows=n_rows)


# -- one task per partition ----------------------------------------------------------------------


def _fold(graph: dict[Any, Any], keys: list[Any]) -> tuple[list[Loader], dict[Any, Any]]:
    """Fuse every partition with the tasks that serve it alone; return loaders and the graph that is left."""
    if not keys:
        raise ValueError("X must have at least one partition; got none.")
    missing = [i for i, key in enumerate(keys) if key not in graph]
    if missing:
        raise ValueError(
            f"X has {len(keys)} partitions, but {missing} are not in its graph. Dask does that when persist() "
            f"merges small parquet partitions: call dask.config.set({{{TUNE!r}: False}}) before it."
        )
    graph = {key: _alias(key, node, graph) for key, node in graph.items()}
    graph |= _results_on_cluster(graph)
    dependencies = {key: get_dependencies(graph, key) for key in graph}
    dependents: dict[Any, set[Any]] = {key: set() for key in graph}
    for key, needed in dependencies.items():
        for other in needed:
            dependents[other].add(key)
    targets = set(keys)
    loaders = []
    readers: dict[int, Later] = {}
    for key in keys:
        is_task = isinstance(graph[key], GraphNode) and not isinstance(graph[key], DataNode)
        if not is_task or dependents[key]:
            # Data, a future, or a task that other tasks use too stay in the graph.
            loaders.append(Loader(None, [key]))
            continue
        own = _own_tasks(key, graph, dependencies, dependents, targets)
        node = by_columns(GraphNode.fuse(*(graph[k] for k in own)), readers)
        loaders.append(Loader(node, sorted(node.dependencies, key=str)))
    return loaders, _needed(graph, loaders)


def _alias(key: Any, node: Any, graph: Mapping[Any, Any]) -> Any:
    """A node under its key: from_delayed leaves aliases under the key of their target, dd.concat bare keys."""
    if isinstance(node, Alias):
        return Alias(key, node.target)
    is_key = isinstance(node, tuple) and ishashable(node) and node in graph
    return Alias(key, node) if is_key else node


def _results_on_cluster(graph: Mapping[Any, Any]) -> dict[Any, Any]:
    """Futures for the keys that a graph refers to and does not contain: results that a cluster holds already.

    Arguments that were scattered or submitted are such results, and so are the parts of ``dd.from_delayed(futures)``.
    The futures keep the results there as long as the graph exists.

    Raises
    ------
    ValueError
        If there is no client.
    """
    nodes = (node for node in graph.values() if isinstance(node, GraphNode))
    keys = set().union(*(node.dependencies for node in nodes)) - graph.keys()
    if not keys:
        return {}
    from distributed import Future, get_client

    try:
        client = get_client()
    except ValueError:
        raise ValueError(
            f"X refers to results of a cluster (Futures, such as {min(map(str, keys))!r}), and no Client is connected. "
            "Create the Client that they belong to, or build X from values instead of Futures."
        ) from None
    return {key: Future(key, client) for key in keys}


def _own_tasks(
    key: Any,
    graph: Mapping[Any, Any],
    dependencies: Mapping[Any, set[Any]],
    dependents: Mapping[Any, set[Any]],
    partitions: set[Any],
) -> set[Any]:
    """The task of a partition, and the tasks before it that serve no other partition."""
    own = {key}
    frontier = set(dependencies[key])
    while frontier:
        other = frontier.pop()
        is_task = isinstance(graph[other], GraphNode)
        is_free = other not in own and other not in partitions
        if is_free and is_task and dependents[other] <= own:
            own.add(other)
            frontier |= dependencies[other]
    return own


def _needed(graph: Mapping[Any, Any], loaders: Sequence[Loader]) -> dict[Any, Any]:
    """The part of a graph that loaders depend on."""
    needed, _ = cull(graph, {key for loader in loaders for key in loader.dependencies})
    return dict(needed)


def source_of(node: Any) -> str | None:
    """The files that a reading task opens, as its arguments show them; None if they show none."""
    paths: dict[str, None] = {}
    _collect_paths(node, paths, depth=0)
    names = list(paths)
    return (
        None
        if not names
        else ", ".join(names[:MAX_SOURCE_PARTS])
        + (f" and {len(names) - MAX_SOURCE_PARTS} more" if len(names) > MAX_SOURCE_PARTS else "")
    )


def _collect_paths(value: Any, paths: dict[str, None], depth: int) -> None:
    is_plain = value is None or isinstance(value, (bool, int, float, bytes))
    if depth > 12 or is_plain or isinstance(value, np.ndarray) or is_of_pandas(value):
        return
    if isinstance(value, str):
        if _LIKE_A_PATH.fullmatch(value):
            paths[value] = None
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect_paths(item, paths, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect_paths(item, paths, depth + 1)
    elif isinstance(value, GraphNode):
        for item in (*getattr(value, "args", ()), *getattr(value, "kwargs", {}).values()):
            _collect_paths(item, paths, depth + 1)
    else:
        # File objects and fragments of the common readers carry their path, or the fragment that
        # does.
        for name in ("path", "fragment"):
            _collect_paths(getattr(value, name, None), paths, depth + 1)


# -- columns -------------------------------------------------------------------------------------


def check_example(frame: Any) -> tuple[str, ...]:
    """Names of the columns of a dask DataFrame, all of which must be real numbers, from the frame ``X._meta``.

    Raises
    ------
    TypeError, ValueError
        As of :func:`~dask_dfmr.tables.check_columns`.
    """
    return check_columns(columns_of(frame, is_example=True))


def check_kind(name: str, dtype: Any) -> None:
    """Raise TypeError unless the dtype is one of real numbers."""
    if np.dtype(dtype).kind not in "fiu":
        raise TypeError(
            f"{name} must hold real numbers; got the dtype {dtype}. Convert it first if that is meant."
        )


def rows_of(
    data: Any, feature_names: tuple[str, ...] | None
) -> tuple[Rows, tuple[str, ...] | None]:
    """A loaded partition -> its rows (n_samples, n_features) and the names of its columns.

    Columns in another order are matched by name. Masked cells and nulls are NaN.

    Raises
    ------
    ColumnsError
        If the columns are not the expected ones, or not numbers.
    """
    if isinstance(data, PartlyRead):
        return rows_of(data.rows, feature_names)
    if isinstance(data, NamedRows):
        return _in_order(data.rows, data.names, feature_names)
    frame = as_frame(data)
    if frame is not None:
        return _rows_of_frame(frame, feature_names)
    rows = np.asarray(unmasked(data))
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ColumnsError(
            f"expected rows of real numbers, got {type(data).__name__} of shape {rows.shape} and dtype {rows.dtype}",
            len(rows) if rows.ndim == 2 else 0,
        )
    if feature_names is not None and rows.shape[1] != len(feature_names):
        text = f"{rows.shape[1]} columns without names, expected {list(feature_names)}"
        raise ColumnsError(text, len(rows))
    return rows, feature_names


def _rows_of_frame(
    frame: Any, feature_names: tuple[str, ...] | None
) -> tuple[Rows, tuple[str, ...]]:
    try:
        rows, names = rows_and_names(frame, is_partition=True)
    except (TypeError, ValueError) as error:
        raise ColumnsError(str(error), len(frame)) from error
    return _in_order(rows, names, feature_names)


def _in_order(
    rows: Rows, names: tuple[str, ...], feature_names: tuple[str, ...] | None
) -> tuple[Rows, tuple[str, ...]]:
    """Rows and the names of their columns, in the order that is expected."""
    if feature_names is None or names == feature_names:
        return rows, names
    if set(names) != set(feature_names):
        text = f"columns are {list(names)}, expected {list(feature_names)}"
        raise ColumnsError(text, len(rows))
    return rows[:, [names.index(name) for name in feature_names]], feature_names
