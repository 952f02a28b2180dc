"""A method of a fitted model on rows: as lazy as X, in the shape of X, with its index, its divisions and its chunks.

The model is a value that knows no Dask, such as a mixture. It has ``feature_names``, ``n_features``, and methods that
take rows and return an array with one entry, or one line of entries, per row.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import dask
import numpy as np
import pandas as pd
from dask.delayed import Delayed

from dask_dfmr.local.fit import MAX_MAGNITUDE
from dask_dfmr.on_dask.partitions import (
    Loader,
    as_collection,
    check_example,
    check_kind,
    delayed_parts,
    fold_dataframe,
    is_array,
    is_expression,
    is_frame,
    is_lazy,
    is_list_of_lazy,
    is_list_of_tables,
    rows_of,
)
from dask_dfmr.tables import as_frame, check_names, rows_for, unmasked


class RowMethod(NamedTuple):
    """The method of a model that is called on rows.

    Attributes
    ----------
    name : str
    is_omitting : bool
        Whether a row that a fit would omit has a missing value. Otherwise it raises a ValueError.
    no_label : int
        The missing value of a method that returns integers, in an array. A Series has NA; real numbers have NaN.
    """

    name: str
    is_omitting: bool
    no_label: int


def map_rows(estimator: Any, model: Any, method: RowMethod, X: Any, source: Hashable = None) -> Any:
    """A method of a model on all rows of X.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose ``n_features_in_`` and ``feature_names_in_`` scikit-learn compares with data in memory.
    model : object
        See the head of this module.
    method : RowMethod
    X : as for :meth:`GaussianMixture.predict`
    source : column name or None
        A column that X may have besides the features.

    Returns
    -------
    dask Series or DataFrame, dask Array, list of Delayed, or ndarray
        As X is.
    """
    if is_lazy(X):
        return map_rows(estimator, model, method, [X], source)[0]
    X = without_source(as_collection(X), source, model.feature_names)
    if is_frame(X):
        check_example(X._meta)
        _check_labels(list(X.columns), model)
        meta = _apply_to_frame(X._meta_nonempty.iloc[:0], model, method)
        # One Delayed for all partitions: the model travels once, not with every task.
        return X.map_partitions(_apply_to_frame, dask.delayed(model), method, meta=meta)
    if is_array(X):
        return _map_array(X, model, method)
    if is_list_of_lazy(X):
        delayed = dask.delayed(model)
        return [dask.delayed(_apply)(part, delayed, method) for part in X]
    if is_list_of_tables(X):
        return [_apply(_rows_in_memory(part, estimator, model), model, method) for part in X]
    return _apply(_rows_in_memory(X, estimator, model), model, method)


def values_by_part(
    estimator: Any, model: Any, method: RowMethod, X: Any, source: Hashable = None
) -> list[Any]:
    """The same values as arrays or Series, one for each partition of X, for sums over them.

    Arguments and errors are those of :func:`map_rows`. What is lazy in X is a Delayed. The partitions of a frame are
    read as a fit reads them, which costs less than a frame with an index.
    """
    found = map_rows(estimator, model, method, X, source)
    if isinstance(found, list):
        return found
    if not dask.is_dask_collection(found):
        return [found]
    X = without_source(as_collection(X), source, model.feature_names)
    if not is_frame(X):
        return delayed_parts(found)
    loaders, graph, _ = fold_dataframe(X)
    travelling = dask.delayed(model)
    return [
        dask.delayed(_apply_loaded)(
            loader, travelling, method, *(Delayed(key, graph) for key in loader.dependencies)
        )
        for loader in loaders
    ]


def _map_array(X: Any, model: Any, method: RowMethod) -> Any:
    if X.ndim != 2 or X.shape[1] != model.n_features:
        raise ValueError(f"X must have the shape (n_samples, {model.n_features}); got {X.shape}.")
    check_kind("X", X.dtype)
    X = X.rechunk({1: -1}) if X.numblocks[1] > 1 else X
    # One Delayed for all blocks, as for frames. Expression arrays of Dask cannot take it.
    travelling = model if is_expression(X) else dask.delayed(model)
    example = getattr(model, method.name)(np.empty((0, model.n_features)))
    if example.ndim == 2:
        chunks = (X.chunks[0], example.shape[1:])
        return X.map_blocks(
            _apply, travelling, method, meta=np.empty((0, 0), example.dtype), chunks=chunks
        )
    return X.map_blocks(_apply, travelling, method, meta=example, drop_axis=1)


def without_source(X: Any, source: Hashable, feature_names: Sequence[str] | None) -> Any:
    """A frame, or each of a list, without the column ``source``, unless that is a feature."""
    if source is None or str(source) in (feature_names or ()):
        return X
    if is_list_of_tables(X):
        return [without_source(part, source, feature_names) for part in X]
    has_column = (isinstance(X, pd.DataFrame) or is_frame(X)) and source in X.columns
    return X.drop(columns=[source]) if has_column else X


def _rows_in_memory(X: Any, estimator: Any, model: Any) -> Any:
    """The rows of a frame or an array, whose columns must be those of the fit."""
    frame = as_frame(X)
    if frame is not None and not all(isinstance(label, str) for label in frame.columns):
        # scikit-learn knows no other names than str.
        _check_labels(list(frame.columns), model)
        return rows_for(X, None)
    from sklearn.utils.validation import validate_data

    return validate_data(
        estimator, unmasked(X), reset=False, dtype="numeric", ensure_all_finite=False
    )


def _check_labels(labels: Sequence[Hashable], model: Any) -> None:
    """Raise a ValueError unless the columns of a frame are those of the fit, or as many if these have no names."""
    if model.feature_names is not None:
        check_names(model.feature_names, labels)
    elif len(labels) != model.n_features:
        raise ValueError(f"X must have {model.n_features} columns; got {len(labels)}.")


# -- tasks ---------------------------------------------------------------------------------------


def _apply(data: Any, model: Any, method: RowMethod) -> Any:
    """The method on the rows of one partition; a missing value for a row that a fit would omit."""
    return _values_and_omitted(data, model, method)[0]


def _apply_loaded(loader: Loader, model: Any, method: RowMethod, *values: Any) -> Any:
    """The method on the rows of one partition, which is loaded here."""
    return _apply(loader(*values), model, method)


def _apply_to_frame(
    frame: pd.DataFrame, model: Any, method: RowMethod
) -> pd.Series[Any] | pd.DataFrame:
    """The same as a frame or series with the index of the partition."""
    values, is_omitted = _values_and_omitted(frame, model, method)
    if values.ndim == 2:
        columns = [f"component_{k}" for k in range(values.shape[1])]
        return pd.DataFrame(values, index=frame.index, columns=columns)
    found = pd.Series(values, index=frame.index, name=method.name)
    if values.dtype.kind == "i" and method.is_omitting:
        return found.astype("Int64").mask(is_omitted)
    return found


def _values_and_omitted(data: Any, model: Any, method: RowMethod) -> tuple[Any, Any]:
    rows, _ = rows_of(data, model.feature_names if as_frame(data) is not None else None)
    if not method.is_omitting:
        return getattr(model, method.name)(rows), np.zeros(len(rows), dtype=bool)
    with np.errstate(invalid="ignore"):
        is_good = (np.abs(rows) <= MAX_MAGNITUDE).all(axis=1)
    if is_good.all():  # no copy
        return getattr(model, method.name)(rows), ~is_good
    found = getattr(model, method.name)(rows[is_good])
    missing = method.no_label if found.dtype.kind == "i" else np.nan
    values = np.full((len(rows), *found.shape[1:]), missing, dtype=found.dtype)
    values[is_good] = found
    return values, ~is_good
