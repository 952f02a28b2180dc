"""The keys of the JSON objects that ``--json`` writes; docs/reference/command-line.md lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Key(NamedTuple):
    """One key: the type of its value as in JSON, and what it is."""

    kind: str
    about: str


ENVELOPE = {
    "command": Key("string or null", "the command; null if it could not be told"),
    "version": Key("string", "of dask-dfmr"),
    "exit_code": Key("integer", "the same as that of the process"),
    "warnings": Key("array of object", "`category` and `message` of each warning"),
    "error": Key("object or null", "`type` and `message`, from exit code 64 on; `result` is null"),
    "result": Key("object or null", "the keys below, by command"),
}
"""The keys of the object, in their order."""

PARTITIONS = {
    "n_partitions": Key("integer", "files, or values of `--source`"),
    "n_kept": Key("integer", "how many of them the mixture is made of"),
    "n_samples": Key("integer", "rows that were read"),
    "excluded": Key(
        "array of object",
        "the others: `partition`, `source`, `n_samples`, `outcome`, `p_value` and `reason`",
    ),
}
MIXTURE = {
    "n_components": Key("integer", "number of components"),
    "covariance_type": Key("string", "structure of the covariances"),
    "columns": Key("array of string or null", "names of the columns"),
    "weights": Key("array of number", "of the components"),
    "means": Key("array of array of number", "one array per component"),
    "converged": Key("boolean", "as `converged_`"),
}
FILES = {"files": Key("object", "what was written: `model` and `report`, if they were")}

RESULTS: dict[str, dict[str, Key]] = {
    "fit": {
        **PARTITIONS,
        **MIXTURE,
        "mean_log_likelihood": Key("number", "nats per row of the kept partitions"),
        **FILES,
    },
    "select": {
        "n_components": Key("integer", "selected"),
        "covariance_type": Key("string", "selected"),
        "criterion": Key("string", "what decided"),
        "n_kept": Key("integer", "partitions that candidates were compared on"),
        "n_partitions": Key("integer", "of how many"),
        "excluded": PARTITIONS["excluded"],
        "candidates": Key("array of object", "the columns of `Selection.table`"),
        **FILES,
    },
    "score": {
        "mean_log_likelihood": Key("number", "nats per row"),
        "n_partitions": Key("integer", "partitions that were read"),
    },
    "predict": {
        "out": Key("string", "the file or folder that was written"),
        "columns": Key("array of string", "columns that were written"),
        "n_partitions": Key("integer", "partitions that were read"),
    },
    "check": {
        "format": Key("string", "`dask_dfmr.check`"),
        "version": Key("integer", "of the format"),
        "verdict": Key("string", "the worst one: `accept`, `review` or `quarantine`"),
        "counts": Key("object", "number of sources by verdict"),
        "false_alarm_rate": Key("number", "share of consistent sources that are not accepted"),
        "law": Key("string", "`rows` or `mixture`: what rows are compared with"),
        "model": Key("string", "digest of the mixture"),
        "sources": Key("array of object", "the columns of `CheckResult.report`"),
    },
    "explain": {
        "partitions": Key("array of object", "the columns of `GaussianMixture.explain`"),
    },
    "report": {
        "out": Key("string", "the file that was written"),
        "n_partitions": Key("integer", "partitions of the model"),
    },
    "fit-local": {
        "n_samples": Key("integer", "rows that were fitted"),
        "outcome": Key("string", "how the fit ended"),
        "reason": Key("string", "why there is no estimate, or empty"),
        "mean_log_likelihood": Key("number or null", "nats per row"),
        "out": Key("string", "the file that was written"),
    },
    "start": {
        "n_estimates": Key("integer", "estimates that were read"),
        "n_components": Key("integer", "number of components"),
        "out": Key("string", "the file that was written"),
    },
    "aggregate": {**PARTITIONS, **MIXTURE, **FILES},
    "stress": {
        "attack": Key("string", "name of the attack"),
        "yardstick": Key("string", "unit of `error`"),
        "breakdown": Key("object", "by method: the lowest rate with a breakdown, or null"),
        "rows": Key("array of object", "the columns of `StressTest.table`"),
    },
}
"""The keys of ``result``, by command."""


def installed_version() -> str:
    """The version of the package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dask-dfmr")
    except PackageNotFoundError:
        return "0+unknown"


def envelope(
    command: str | None,
    exit_code: int,
    *,
    warnings: list[dict[str, str]] | None = None,
    error: Mapping[str, str] | None = None,
    result: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of one run.

    Raises
    ------
    TypeError
        If the keys of the result are not those of the command.
    """
    if result is not None:
        assert command is not None
        if set(result) != set(RESULTS[command]):
            wrong = sorted(set(result) ^ set(RESULTS[command]))
            raise TypeError(f"the result of {command!r} and its schema differ in {wrong}")
        result = {key: result[key] for key in RESULTS[command]}
    return {
        "command": command,
        "version": installed_version(),
        "exit_code": int(exit_code),
        "warnings": warnings or [],
        "error": error,
        "result": result,
    }


def to_json(value: Any) -> str:
    """JSON text of plain values, arrays and tables of NumPy and pandas included; NaN and infinity are null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """The same value of the types of JSON."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):  # a table
        return [plain(row) for row in value.to_dict("records")]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)
