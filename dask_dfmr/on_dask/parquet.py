"""Parquet files on a local disk, read column by column into the block of rows that a fit needs.

Dask's reader makes an Arrow table of a partition, then a frame of it, then a frame of the wanted columns. Under the
settings for malloc of Dask's workers, each copy maps its pages anew. The reader here holds the rows once and one column
more. On a worker it takes half of the CPU time of Dask's (``benchmarks/read_once.py``).

A task of a fit takes the rows themselves (:meth:`ColumnReader.rows`). Then its worker imports neither pandas nor Dask's
frames: Dask's reader is unpickled only if it is needed.

It reads plain numbers only. Whatever else a task asks for, or a file holds, is left to Dask's reader: filters, columns
of directories, other file systems, nulls in integers, missing columns, damaged files. So results and errors are those
of Dask, with one difference: the index of the frame is 0, 1, 2, and so on. No task of this package uses the index.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask.task_spec import Task

from dask_dfmr.tables import NamedRows

if TYPE_CHECKING:
    import pandas as pd

PLAIN_NUMBERS = {"float": "f4", "double": "f8"} | {
    f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
"""Arrow's names of the types that are read here -> NumPy's."""

OF_OTHERS = frozenset({"partitions", "categories", "filters", "dtype_backend", "arrow_to_pandas"})
"""Arguments of Dask's reader that are not known here: they must be empty."""


Block = np.ndarray[Any, Any]
"""Columns of one type, (n_columns, n_rows)."""

Columns = list[np.ndarray[Any, Any]]
"""Columns of different types."""


class Piece(NamedTuple):
    """A file, and which of its row groups; None: all."""

    path: str
    row_groups: Sequence[int] | None


class Later:
    """An object that another process unpickles, with all that it imports, only if it is used."""

    def __init__(self, value: Any) -> None:
        self._value, self._pickled = value, b""

    def get(self) -> Any:
        """The object."""
        if self._value is None:
            self._value = pickle.loads(self._pickled)
        return self._value

    def __getstate__(self) -> dict[str, Any]:
        if not self._pickled:
            import cloudpickle

            self._pickled = cloudpickle.dumps(self._value)
        return {"_value": None, "_pickled": self._pickled}


class ColumnReader:
    """Dask's function that reads one partition, with a shorter way for plain numbers.

    Parameters
    ----------
    of_dask : Later
        A function that takes one part of a data set, and returns a frame.
    pieces : sequence of Piece
        The files of the part.
    columns : sequence of str
    """

    def __init__(self, of_dask: Later, pieces: Sequence[Piece], columns: Sequence[Any]) -> None:
        self.of_dask, self.pieces, self.columns = of_dask, pieces, columns

    def __call__(self, part: Any) -> pd.DataFrame:
        """The frame of a part."""
        return self._frame(_read(self.pieces, self.columns), part)

    def rows(self, part: Any) -> NamedRows | pd.DataFrame:
        """The rows of a part with the names of their columns, or its frame if columns differ in their types."""
        found = _read(self.pieces, self.columns)
        if isinstance(found, np.ndarray):
            rows = found.T if found.dtype.kind == "f" else found.T.astype(np.float64)
            return NamedRows(rows, tuple(map(str, self.columns)))
        return self._frame(found, part)

    def _frame(self, found: Block | Columns | None, part: Any) -> pd.DataFrame:
        if found is None:
            frame: pd.DataFrame = self.of_dask.get()(part)
            return frame
        import pandas as pd

        if isinstance(found, np.ndarray):
            return pd.DataFrame(found.T, columns=list(self.columns), copy=False)
        return pd.DataFrame(dict(zip(self.columns, found, strict=True)), copy=False)


def by_columns(node: Any, readers: dict[int, Later]) -> Any:
    """A task that reads parquet and does nothing else, made to read by columns; any other task as it is.

    ``readers`` keeps Dask's readers by their identity, so that each is pickled once.
    """
    is_reading = isinstance(node, Task) and len(node.args) == 1 and not node.kwargs
    if not is_reading or type(node.func).__name__ != "ParquetFunctionWrapper":
        return node
    pieces = _pieces_of(node.func, node.args[0])
    if pieces is None:
        return node
    of_dask = readers.setdefault(id(node.func), Later(node.func))
    return Task(node.key, ColumnReader(of_dask, pieces, _columns_of(node.func)), *node.args)


def _columns_of(of_dask: Any) -> list[Any]:
    index = of_dask.index or []
    return [column for column in of_dask.columns if column not in index]


def _pieces_of(of_dask: Any, part: Any) -> list[Piece] | None:
    """The files of a part of a data set, as Dask plans it; None if they are not to be read here."""
    try:
        options = of_dask.common_kwargs
        is_plain = (
            of_dask.engine.__name__ == "ArrowDatasetEngine"
            and "file" in np.atleast_1d(of_dask.fs.protocol)
            and not any(options.get(name) for name in OF_OTHERS)
            and not any(options.get("read", {}).values())
            and of_dask.meta.columns.name is None
        )
        several = part if isinstance(part, list) else [part]
        if not is_plain or any(one.get("kwargs") for one in several):
            return None
        pieces = [_piece(*one["piece"]) for one in several]
    except (AttributeError, TypeError, ValueError, KeyError):  # another release of Dask
        return None
    return pieces if all(isinstance(piece.path, str) for piece in pieces) else None


def _piece(path: Any, row_groups: Any, partition_keys: Any) -> Piece:
    if partition_keys:
        raise ValueError("columns of directories")
    is_all = row_groups is None or list(row_groups) == [None]
    return Piece(path, None if is_all else list(row_groups))


def _read(pieces: Sequence[Piece], columns: Sequence[Any]) -> Block | Columns | None:
    """The columns of the pieces, one after the other; None if they are not plain numbers."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with ExitStack() as stack:
        try:
            files = [stack.enter_context(ParquetFile(piece.path)) for piece in pieces]
            return _read_open(files, pieces, columns)
        except (OSError, ArrowException, IndexError, ValueError, MemoryError):
            # A file is not what its footer says. Dask's reader finds what is wrong, and says it.
            return None


def _read_open(
    files: Sequence[Any], pieces: Sequence[Piece], columns: Sequence[Any]
) -> Block | Columns | None:
    types = [_types_of(file, columns) for file in files]
    if not columns or types[0] is None or any(found != types[0] for found in types):
        return None
    groups = [
        range(file.num_row_groups) if piece.row_groups is None else piece.row_groups
        for file, piece in zip(files, pieces, strict=True)
    ]
    n_rows = sum(
        file.metadata.row_group(group).num_rows
        for file, chosen in zip(files, groups, strict=True)
        for group in chosen
    )
    is_uniform = len(set(types[0])) == 1
    block = np.empty((len(columns), n_rows), types[0][0]) if is_uniform else None
    arrays = [
        np.empty(n_rows, dtype) if block is None else block[j] for j, dtype in enumerate(types[0])
    ]
    for name, out in zip(columns, arrays, strict=True):
        if not _fill(out, name, files, groups):
            return None
    return arrays if block is None else block


def _types_of(file: Any, columns: Sequence[Any]) -> list[str] | None:
    """NumPy's types of some columns of a file; None if one is missing, there more than once, or not a plain number."""
    if not all(isinstance(name, str) for name in columns):
        return None
    schema = file.schema_arrow
    indices = [schema.get_all_field_indices(name) for name in columns]
    if any(len(found) != 1 for found in indices):
        return None
    types = [PLAIN_NUMBERS.get(str(schema.field(i).type)) for (i,) in indices]
    return None if None in types else [name for name in types if name is not None]


def _fill(
    out: np.ndarray[Any, Any], name: str, files: Sequence[Any], groups: Sequence[Sequence[int]]
) -> bool:
    """Copy a column of all pieces; False if it has nulls among integers, or is not what the footer promised."""
    start = 0
    for file, chosen in zip(files, groups, strict=True):
        table = file.read_row_groups(list(chosen), columns=[name], use_threads=False)
        if table.column_names != [name]:  # a nested column of that path
            return False
        for chunk in table.column(0).chunks:
            if chunk.null_count and out.dtype.kind != "f":
                return False
            values = _values_of(chunk)
            out[start : start + len(values)] = values
            start += len(values)
    return start == len(out)


def _values_of(chunk: Any) -> Block:
    """The numbers of an Arrow array; those without nulls as they lie in memory: Arrow would import pandas for it."""
    if chunk.null_count or not len(chunk):
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    dtype = np.dtype(PLAIN_NUMBERS[str(chunk.type)])
    return np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)
