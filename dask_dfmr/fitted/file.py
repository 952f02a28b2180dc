"""A fitted estimator in a file: that of its aggregate, with its parameters, reports and numbers as one more entry.

:meth:`Aggregate.load` reads such a file too. ``docs/reference/file-format.md`` describes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dask_dfmr.aggregation.archive import get_mixture, load_result_and, put_mixture, save_result
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.explanation.report import REPORT_COLUMNS
from dask_dfmr.fitted.learned import Learned, estimates_of
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.monitoring.law_file import get_row_law, put_row_law
from dask_dfmr.parameters import PARAMETERS

ENTRY = "estimator"
"""Name of the entry of the document."""

TABLES = {"report": "report", "passes": "refinement"}
"""Attributes of :class:`Learned` that are tables, and their names in the file."""

NUMBERS: dict[str, tuple[type, ...]] = {
    "n_iter": (int,),
    "lower_bound": (float, int),
    "converged": (bool,),
    "n_optimum_changes": (int,),
    "gain": (float, int, type(None)),
    "token": (str, type(None)),
}
"""Attributes of :class:`Learned` that are entries of the document, and their types."""

ARRAY_KINDS = {"int64": "i", "float64": "f", "bool": "b"}
"""Types of columns that are arrays in the file."""

TEXT_KINDS = ("object", "str", "string", "Int64")
"""Types of columns that are lists in the document."""


# -- writing ---------------------------------------------------------------------------------------


def save_model(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Any],
    learned: Learned,
    estimates: bool,
) -> None:
    """Write a fitted estimator to one file.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If a parameter has a value that no file can hold.
    """
    arrays: dict[str, Any] = {"report/support": learned.support}
    entry: dict[str, Any] = {
        "row_law": None,
        "parameters": {name: _put(name, value, arrays) for name, value in parameters.items()},
        **{name: getattr(learned, name) for name in NUMBERS},
        **{
            name: _put_table(getattr(learned, attribute), name, arrays)
            for attribute, name in TABLES.items()
        },
    }
    if learned.row_law is not None:
        entry["row_law"], of_law = put_row_law(learned.row_law)
        arrays |= of_law
    save_result(learned.aggregate, path, estimates, {ENTRY: entry}, arrays)


def _put(name: str, value: Any, arrays: dict[str, Any]) -> Any:
    """A parameter as JSON has it; arrays go into their own members."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if name == "random_state":
        return _put_seed(value)
    if isinstance(value, Mixture):
        return {"mixture": put_mixture(value, name, arrays)}
    if name in ("weights_init", "means_init", "precisions_init"):
        arrays[f"parameters/{name}"] = np.asarray(value, dtype=np.float64)
        return {"array": name}
    if isinstance(value, Mapping):
        return {
            "mapping": [[_put(name, k, arrays), _put(name, v, arrays)] for k, v in value.items()]
        }
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_put(name, one, arrays) for one in value]}
    raise ValueError(
        f"{name} must be a text or a number to be saved; got {value!r:.200}. Rename the column, or use set_params."
    )


def _put_seed(value: Any) -> Any:
    # The position of a generator is not kept: it is no property of the model.
    if isinstance(value, np.random.SeedSequence):
        return {"entropy": value.entropy, "spawn_key": list(value.spawn_key)}
    return None


def _put_table(table: pd.DataFrame, name: str, arrays: dict[str, Any]) -> dict[str, Any]:
    columns = []
    for label, values in table.items():
        kind = str(values.dtype)
        entry: dict[str, Any] = {"name": str(label), "type": kind}
        if kind in ARRAY_KINDS:
            arrays[f"{name}/{label}"] = values.to_numpy()
        else:
            entry["values"] = [_put_cell(one) for one in values]
        columns.append(entry)
    return {"n_rows": len(table), "columns": columns}


def _put_cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_put_cell(one) for one in value]}
    return None if value is None or value is pd.NA or value is np.nan else value


# -- reading ---------------------------------------------------------------------------------------


def load_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Learned]:
    """The parameters of an estimator that :func:`save_model` wrote, and what it had learned.

    Raises
    ------
    OSError
        If the file is not there, or may not be read.
    ValueError
        If it is no such file, has another version, or contradicts itself.
    """
    return load_result_and(path, _get_model)


def _get_model(
    aggregate: AggregationResult, document: dict[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], Learned]:
    if ENTRY not in document:
        raise ValueError(
            "this is the file of an aggregate, and not of an estimator. "
            "Use GaussianMixture.from_aggregate(Aggregate.load(path))."
        )
    entry = document[ENTRY]
    given = entry["parameters"]
    unknown = given.keys() - PARAMETERS.keys()
    if unknown:
        raise ValueError(f"parameters must be those of a GaussianMixture; got {sorted(unknown)}.")
    parameters = {name: _get(name, value, arrays) for name, value in given.items()}
    for name, value in parameters.items():
        PARAMETERS[name].check(name, value)
    numbers: dict[str, Any] = {
        name: _typed(name, entry[name], types) for name, types in NUMBERS.items()
    }
    tables: dict[str, Any] = {
        a: _get_table(entry[name], name, arrays) for a, name in TABLES.items()
    }
    support = arrays["report/support"]
    n = aggregate.decision.n_estimates
    _check_report(tables["report"], support, n)
    estimates = estimates_of(aggregate)
    law = entry["row_law"]
    law = None if law is None else get_row_law(law, arrays, aggregate.mixture)
    own: dict[str, Any] = {"support": support, "estimates": estimates, "saved_law": law}
    return parameters, Learned(aggregate, **own, **tables, **numbers)


def _get(name: str, value: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(value, dict):
        return value
    if name == "random_state":
        return np.random.SeedSequence(
            value["entropy"], spawn_key=tuple(int(i) for i in value["spawn_key"])
        )
    ((kind, content),) = value.items()
    if kind == "mixture":
        return get_mixture(content, name, arrays)
    if kind == "array":
        return arrays[f"parameters/{name}"]
    if kind == "mapping":
        return {_get(name, k, arrays): _get(name, v, arrays) for k, v in content}
    return {"list": list, "tuple": tuple}[kind](_get(name, one, arrays) for one in content)


def _typed(name: str, value: Any, types: tuple[type, ...]) -> Any:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{name} must be of type {types[0].__name__}; got {value!r:.100}.")
    return value


def _get_table(given: dict[str, Any], name: str, arrays: dict[str, Array]) -> pd.DataFrame:
    n_rows = _typed("n_rows", given["n_rows"], (int,))
    columns: dict[str, Any] = {}
    for column in given["columns"]:
        label, kind = _typed("name", column["name"], (str,)), column["type"]
        if kind in ARRAY_KINDS:
            values = arrays[f"{name}/{label}"]
            if values.shape != (n_rows,) or values.dtype.kind != ARRAY_KINDS[kind]:
                raise ValueError(f"{name}/{label} must have {n_rows} entries of type {kind}.")
            columns[label] = pd.Series(values, dtype=kind)
        elif kind in TEXT_KINDS and len(column["values"]) == n_rows:
            columns[label] = pd.Series([_get_cell(v) for v in column["values"]], dtype=kind)
        else:
            raise ValueError(
                f"column {label!r:.100} of {name} must have {n_rows} values of a known type; got {kind!r:.100}."
            )
    return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


def _get_cell(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_get_cell(one) for one in value["tuple"])
    if value is not None and not isinstance(value, (str, int, float)):
        raise ValueError(f"a cell must be a text, a number or a tuple; got {value!r:.100}.")
    return value


def _check_report(report: pd.DataFrame, support: Array, n: int) -> None:
    missing = [name for name in REPORT_COLUMNS if name not in report]
    if missing or len(report) != n:
        raise ValueError(
            f"report must have one row per estimate, {n}, and the columns {list(REPORT_COLUMNS)}; "
            f"got {len(report)} rows without {missing}."
        )
    if support.shape != (n,) or support.dtype.kind != "b":
        raise ValueError(f"report/support must have {n} entries of type bool; got {support.shape}.")
