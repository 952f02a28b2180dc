"""Tables in memory, of whatever library: the names of their columns, their rows, and which cells are missing.

pandas is used as it is, and looked at only where it is loaded: without it there is no frame of it. Polars, Arrow and
other frames are read through narwhals, which is imported for them alone. An array has no names. Masked cells of NumPy,
nulls, and columns that hold nothing are missing values, NaN.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Hashable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import narwhals as nw
    import pandas as pd
    from typing_extensions import TypeIs

READERS = {
    ".parquet": "dask.dataframe.read_parquet({})",
    ".csv": "dask.dataframe.read_csv({})",
    ".json": "dask.dataframe.read_json({})",
    ".orc": "dask.dataframe.read_orc({})",
    ".npy": "numpy.load({})",
    ".zarr": "dask.array.from_zarr({})",
}
"""How files are read, by their extension."""


_NAMING = re.compile(
    r"KeyError: \"None of \[Index\((.+?), dtype="
    r"|KeyError: (.+?)(?: not in index.*)?$"
    r"|(?:\w+: )?No match for FieldRef\.Name\((.+?)\) in "
    r"|(?:\w+: Usecols do not match columns, )?columns expected but not found: (.+)"
    r"|ColumnNotFoundError: [^\"]*\"(.+?)\"",
    re.DOTALL,
)
"""How errors name columns that are not there."""


class Column(NamedTuple):
    """One column of a frame: its label, the name of its type, and whether it holds real numbers or nothing at all."""

    label: Hashable
    dtype: str
    is_real: bool
    is_empty: bool = False


class NamedRows(NamedTuple):
    """Rows (n_samples, n_features) of real numbers, and the names of their columns: a frame that needs no library."""

    rows: NDArray[Any]
    names: tuple[str, ...]


# -- what is a table -------------------------------------------------------------------------------


def refuse_others(X: Any) -> None:
    """Raise a TypeError for what is no table but can become one; the message has the call that makes one of it.

    Paths, lazy frames, columns alone, and datasets of several arrays are refused. Nothing is computed.
    """
    if isinstance(X, np.ndarray) or _is_pandas_frame(X):
        return
    if isinstance(X, (list, tuple)) and not X:
        raise ValueError(
            "X must have at least one partition; got an empty list. Was no file found?"
        )
    parts = X if isinstance(X, (list, tuple)) else [X]
    if all(isinstance(part, (str, os.PathLike)) for part in parts):
        given = [os.fspath(path) for path in parts]
        call = READERS.get(PurePath(given[0]).suffix.lower(), "dask.dataframe.read_parquet({})")
        shown = repr(given if isinstance(X, (list, tuple)) else given[0])
        raise TypeError(
            f"X must be rows, not the name of a file; got {shown:.200}. Read it first: X = {call.format(shown)}."
        )
    if hasattr(type(X), "data_vars"):
        raise TypeError(
            f"X must be one table; got a {type(X).__name__} of several arrays. Give its variables as columns: "
            "X.to_dask_dataframe()[list(X.data_vars)]."
        )
    if is_of_pandas(X):
        raise TypeError(f"X must have columns; got a {type(X).__name__}. Use X.to_frame().")
    if _is_of_dask(parts[0]):  # narwhals warns of collections of Dask
        return
    import narwhals as nw

    found = nw.from_native(X, pass_through=True, allow_series=True)
    first = nw.from_native(parts[0], pass_through=True)
    if isinstance(first, nw.LazyFrame):
        is_polars = first.implementation.is_polars()
        call = "{}.collect()" if is_polars else "narwhals.from_native({}).collect().to_native()"
        call = call.format("X") if parts[0] is X else f"[{call.format('part')} for part in X]"
        raise TypeError(
            f"X must be in memory or a Dask collection; got a lazy {type(parts[0]).__name__}. Compute it first: {call}."
        )
    if isinstance(found, nw.Series):
        call = "pyarrow.table({'x': X})" if found.implementation.is_pyarrow() else "X.to_frame()"
        raise TypeError(f"X must have columns; got a {type(X).__name__}. Use {call}.")


def as_frame(X: Any) -> pd.DataFrame | nw.DataFrame[Any] | None:
    """A frame in memory, of whatever library; None if X is none, for example an array."""
    if _is_pandas_frame(X):
        return X
    if isinstance(X, np.ndarray) or _is_of_dask(X):
        return None
    import narwhals as nw

    found = nw.from_native(X, pass_through=True, eager_only=True)
    return found if isinstance(found, nw.DataFrame) else None


def is_of_pandas(X: Any) -> bool:
    """Whether X is a frame or a series of pandas."""
    pandas = sys.modules.get("pandas")
    names = ("DataFrame", "Series")
    return isinstance(X, tuple(getattr(pandas, name) for name in names if hasattr(pandas, name)))


def _is_pandas_frame(X: Any) -> TypeIs[pd.DataFrame]:
    return is_of_pandas(X) and X.ndim == 2


def _is_of_dask(X: Any) -> bool:
    return hasattr(type(X), "__dask_graph__")


def unmasked(values: Any) -> Any:
    """A masked array of numbers as an array with NaN in the masked cells; anything else as it is."""
    if not isinstance(values, np.ma.MaskedArray) or values.dtype.kind not in "fiu":
        return values
    if not np.ma.is_masked(values):
        return values.data
    dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return np.where(np.ma.getmaskarray(values), np.nan, values.data).astype(dtype, copy=False)


# -- columns ---------------------------------------------------------------------------------------


def columns_of(
    frame: pd.DataFrame | nw.DataFrame[Any], *, is_example: bool = False
) -> list[Column]:
    """The columns of a frame.

    Parameters
    ----------
    frame : frame of pandas or narwhals
    is_example : bool, default False
        Whether the frame has no rows because it only shows the types of others. Otherwise a column without a value
        counts as one of real numbers, whatever its type.
    """
    if _is_pandas_frame(frame):
        columns = [
            Column(label, str(dtype), _is_real(dtype))
            for label, dtype in zip(frame.columns, frame.dtypes, strict=True)
        ]
    else:
        columns = [
            Column(name, str(dtype), dtype.is_numeric()) for name, dtype in frame.schema.items()
        ]
    if is_example:
        return columns
    return [
        c._replace(is_real=True, is_empty=True) if not c.is_real and _has_nothing(frame, j) else c
        for j, c in enumerate(columns)
    ]


def _is_real(dtype: Any) -> bool:
    import pandas as pd

    is_number = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
    return bool(is_number and not pd.api.types.is_complex_dtype(dtype))


def _has_nothing(frame: pd.DataFrame | nw.DataFrame[Any], j: int) -> bool:
    if _is_pandas_frame(frame):
        return bool(frame.iloc[:, j].isna().all())
    return bool(frame[:, j].is_null().all())


def check_columns(
    columns: Sequence[Column],
    besides: Sequence[Hashable] = (),
    is_pandas: bool = True,
    is_partition: bool = False,
) -> tuple[str, ...]:
    """Names of the columns, all of which must be real numbers; X has the columns ``besides``, which are no features.

    If they are those of one partition of X, the remedy is one for this partition: the others may be as they should.

    Raises
    ------
    TypeError
        Naming the columns that are not.
    ValueError
        If there is no column, or two of one name.
    """
    names = tuple(str(column.label) for column in columns)
    if not names:
        raise ValueError("X must have at least one column; got none.")
    if len(set(names)) < len(names):
        raise ValueError(f"X must have columns of different names; got {list(names)}.")
    wrong = [column for column in columns if not column.is_real]
    if wrong:
        got = ", ".join(f"{str(column.label)!r} ({column.dtype})" for column in wrong)
        good = [column.label for column in columns if column.is_real]
        if is_partition:
            others = f", or select the others in all: {_labels(good)}" if good else ""
            raise TypeError(
                f"columns must hold real numbers; got {got}. Convert text of numbers to float in this partition"
                f"{others}."
            )
        kept = selection([*good, *besides], is_pandas)
        remedy = f"Select the numeric columns, {kept}, or convert" if good else "Convert"
        types = ", ".join(f"{_plain(column.label)!r}: float" for column in wrong)
        how = f": text of numbers, or a column without values, by X.astype({{{types}}})"
        how = how if is_pandas else ""
        raise TypeError(f"X must hold real numbers; got {got}. {remedy} the others{how}.")
    return names


def check_names(
    expected: Sequence[str], labels: Sequence[Hashable], is_pandas: bool = True
) -> None:
    """Raise a ValueError unless the labels of the columns, as str, are the expected names in their order."""
    names = [str(label) for label in labels]
    if names == list(expected):
        return
    missing = [name for name in expected if name not in names]
    unexpected = [name for name in names if name not in expected]
    if missing:
        raise ValueError(
            f"X must have the columns of fit, {list(expected)}; missing {missing}, unexpected {unexpected}. "
            "Rename columns of X, or fit again with the columns that there are."
        )
    difference = f"unexpected {unexpected}" if unexpected else "the order differs"
    wanted = [labels[names.index(name)] for name in expected]
    raise ValueError(
        f"X must have the columns of fit, {list(expected)}; {difference}. "
        f"Select them: {selection(wanted, is_pandas)}."
    )


def missing_columns(error: str, expected: Sequence[str]) -> str:
    """Which expected columns a file or frame lacks, in words, by an error with its type; empty if the error names none.

    A reader that selects columns, or a selection after it, fails before there is a frame whose columns could be
    compared. The texts are those of pandas, Arrow and Polars. What stands before them, like the name of a file, stays.
    """
    found = _NAMING.search(error)
    if found is None:
        return ""
    named = next(group for group in found.groups() if group is not None)

    def is_named(name: str) -> bool:
        return re.search(rf"(?:^|['\"\[(]|, ){re.escape(name)}(?:$|['\"\]),])", named) is not None

    missing = [name for name in expected if is_named(name)]
    where = re.sub(r"^\w+: ", "", error[: found.start()])
    return f"{where}columns {missing} are missing, expected {list(expected)}" if missing else ""


def selection(labels: Sequence[Hashable], is_pandas: bool) -> str:
    """The expression that selects some columns of a frame X of pandas or another library, to be copied."""
    chosen = _labels(labels)
    return f"X[{chosen}]" if is_pandas else f"X.select({chosen})"


def _labels(labels: Sequence[Hashable]) -> str:
    return repr([_plain(label) for label in labels])


def _plain(label: Any) -> Any:
    """A label without NumPy's types, whose repr is no literal."""
    if isinstance(label, tuple):
        return tuple(_plain(part) for part in label)
    return label.item() if isinstance(label, np.generic) else label


# -- rows ------------------------------------------------------------------------------------------


def rows_and_names(
    frame: pd.DataFrame | nw.DataFrame[Any], is_partition: bool = False
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Rows (n_samples, n_features) of a frame as floating-point numbers, and the names of its columns.

    The frame is X, or a partition of it.

    Raises
    ------
    TypeError, ValueError
        As of :func:`check_columns`.
    """
    columns, is_pandas = columns_of(frame), _is_pandas_frame(frame)
    names = check_columns(columns, is_pandas=is_pandas, is_partition=is_partition)
    if _is_pandas_frame(frame):
        return _rows_of_pandas(frame, columns), names
    import narwhals as nw

    rows = [
        np.full(len(frame), np.nan) if column.is_empty else frame[:, j].cast(nw.Float64).to_numpy()
        for j, column in enumerate(columns)
    ]
    return np.column_stack(rows), names


def _rows_of_pandas(frame: pd.DataFrame, columns: Sequence[Column]) -> NDArray[Any]:
    empty = [j for j, column in enumerate(columns) if column.is_empty]
    if empty:
        frame = frame.copy(deep=False)
        for j in empty:
            frame.isetitem(j, np.full(len(frame), np.nan))
    if all(isinstance(dtype, np.dtype) for dtype in frame.dtypes):
        rows = frame.to_numpy()
        return rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    return np.asarray(frame.to_numpy(dtype=np.float64, na_value=np.nan))


def rows_for(X: Any, feature_names: Sequence[str] | None) -> NDArray[Any]:
    """The rows of X, whose columns must have these names if both X and the names are there.

    Raises
    ------
    TypeError
        If X is no table, or a column does not hold real numbers.
    ValueError
        If the columns are others, or in another order.
    """
    refuse_others(X)
    frame = as_frame(X)
    if frame is None:
        if feature_names is not None and hasattr(type(X), "columns"):  # of Dask
            check_names(feature_names, list(X.columns))
        return np.asarray(unmasked(X))
    if feature_names is not None:
        check_names(feature_names, list(frame.columns), _is_pandas_frame(frame))
    return rows_and_names(frame)[0]
