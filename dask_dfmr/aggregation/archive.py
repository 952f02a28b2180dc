"""Aggregates in files: a zip of one JSON document and plain arrays. Nothing in it is executable, or believed unseen.

The format is described in ``docs/file-format.md``. Members are stored uncompressed, so that a file never
becomes larger in memory than it is on disk.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import exceptions
from dask_dfmr.aggregation.result import (
    Aggregate,
    AggregationOptions,
    ComponentDecision,
    FilterDecision,
    Note,
    Origin,
)
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture
from dask_dfmr.untrusted import as_json, portable, read_members, write_members

FORMAT, FORMAT_VERSION = "dask_dfmr.aggregate", 1
DOCUMENT = "aggregate.json"

_OWN_WARNINGS = [
    found
    for found in vars(exceptions).values()
    if isinstance(found, type) and issubclass(found, Warning)
]
CATEGORIES: dict[str, type[Warning]] = {c.__name__: c for c in (*_OWN_WARNINGS, ConvergenceWarning)}

_DECISION_ARRAYS = (
    "distances",
    "distance_ratios",
    "kept",
    "expected_distances",
    "z_scores",
    "p_values",
    "sampling_ratios",
)
_COMPONENT_ARRAYS = (
    "kept",
    "matching",
    "n_rows",
    "distance_ratios",
    "radii",
    "limits",
    "centers",
)
_PARAMETERS = ("weights", "means", "covariances")


# -- writing ---------------------------------------------------------------------------------------


def save_aggregate(aggregate: Aggregate, path: str | os.PathLike[str], estimates: bool) -> None:
    """Write an aggregate, and the estimates behind it if they are there and wanted."""
    arrays: dict[str, Any] = {}
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "method": aggregate.method,
        "objective": aggregate.objective,
        "n_iter": aggregate.n_iter,
        "converged": aggregate.converged,
        "notes": [[note.category.__name__, note.message] for note in aggregate.notes],
        "mixture": _put_mixture(aggregate.mixture, "mixture", arrays),
        "unrefined": None
        if aggregate.unrefined is None
        else _put_mixture(aggregate.unrefined, "unrefined", arrays),
        "decision": _put_decision(aggregate.decision, arrays),
        "origin": None,
    }
    if estimates and aggregate.origin is not None:
        document["origin"] = _put_origin(aggregate.origin, arrays)
    _write(Path(path), document, arrays)


def _write(path: Path, document: dict[str, Any], arrays: dict[str, Any]) -> None:
    """To a file beside the target, renamed when it is complete."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            plain = {name: portable(array) for name, array in arrays.items()}
            write_members(archive, DOCUMENT, as_json(document), plain)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _put_mixture(mixture: Mixture, name: str, arrays: dict[str, Any]) -> dict[str, Any]:
    arrays |= {f"{name}/{p}": getattr(mixture, p) for p in _PARAMETERS}
    return {
        "covariance_type": mixture.covariance_type,
        "feature_names": mixture.feature_names,
    }


def _put_decision(decision: FilterDecision, arrays: dict[str, Any]) -> dict[str, Any]:
    for name in _DECISION_ARRAYS:
        if getattr(decision, name) is not None:
            arrays[f"decision/{name}"] = getattr(decision, name)
    components = decision.components
    if components is not None:
        arrays |= {f"components/{name}": getattr(components, name) for name in _COMPONENT_ARRAYS}
    return {
        "center": decision.center,
        "radius": decision.radius,
        "rho": decision.rho,
        "refused": decision.refused,
        "reasons": decision.reasons,
        "false_exclusion_rate": decision.false_exclusion_rate,
        "scale": decision.scale,
        "groups": decision.groups,
        "n_candidates": decision.n_candidates,
        "n_references": decision.n_references,
        "least_rows": None if components is None else components.least_rows,
    }


def _put_origin(origin: Origin, arrays: dict[str, Any]) -> dict[str, Any]:
    groups: dict[Any, list[Mixture]] = {}
    told: list[dict[str, Any]] = []
    for estimate in origin.estimates:
        entry, mixture = _told(estimate, origin.family)
        if mixture is not None:
            key = (
                mixture.covariance_type,
                mixture.n_components,
                mixture.n_features,
                mixture.feature_names,
            )
            members = groups.setdefault(key, [])
            entry |= {"group": list(groups).index(key), "row": len(members)}
            members.append(mixture)
        told.append(entry)
    for g, members in enumerate(groups.values()):
        for p in _PARAMETERS:
            arrays[f"estimates-{g}/{p}"] = np.array([getattr(m, p) for m in members])
    seed = origin.seed
    return {
        "options": {name: getattr(origin.options, name) for name in _fields(AggregationOptions)},
        "entropy": seed.entropy,
        "spawn_key": seed.spawn_key,
        "removed": sorted(origin.removed),
        "problem": None if origin.problem is None else _put_problem(origin.problem),
        "groups": [{"covariance_type": key[0], "feature_names": key[3]} for key in groups],
        "estimates": told,
    }


def _told(estimate: Any, family: Family) -> tuple[dict[str, Any], Mixture | None]:
    """What an estimate says of itself, and its mixture; a malformed one is kept as malformed."""
    if not isinstance(estimate, LocalEstimate):
        try:
            estimate = LocalEstimate.from_arrays(estimate, family)
        except (ValueError, TypeError, OverflowError) as error:
            return {"malformed": str(error)}, None
    names = [name for name in _fields(LocalEstimate) if name != "mixture"]
    return {name: getattr(estimate, name) for name in names}, estimate.mixture


def _put_problem(problem: LocalProblem) -> dict[str, Any]:
    names = [n for n in _fields(LocalProblem) if n != "family"]
    return {"family": problem.family.name} | {name: getattr(problem, name) for name in names}


def _fields(kind: Any) -> list[str]:
    return list(kind.__dataclass_fields__)


# -- reading ---------------------------------------------------------------------------------------


def load_aggregate(path: str | os.PathLike[str]) -> Aggregate:
    """Read what :func:`save_aggregate` wrote.

    Raises
    ------
    OSError
        If the file is not there, or may not be read.
    ValueError
        If it is no such file, is of another version, or does not hold what it says.
    """
    name = os.fspath(path)
    document, arrays = read_members(path, DOCUMENT, "a saved aggregate", dict)
    if document.get("format") != FORMAT:
        raise ValueError(f'{name} is not a saved aggregate: expected "format": "{FORMAT}".')
    if document.get("version") != FORMAT_VERSION or isinstance(document["version"], bool):
        raise ValueError(
            f"{name}: expected format version {FORMAT_VERSION}, got {document.get('version')!r:.100}; "
            "a newer dask_dfmr may read it."
        )
    try:
        return _read(document, arrays)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except _OTHERWISE as error:
        raise ValueError(
            f"{name}: this saved aggregate lacks something or holds it in another form "
            f"({type(error).__name__}: {error})."
        ) from error


_OTHERWISE = (
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
"""What values of other types and shapes than ours trip over."""


def _read(document: dict[str, Any], arrays: dict[str, Any]) -> Aggregate:
    decision = _get_decision(document["decision"], arrays)
    origin = None if document["origin"] is None else _get_origin(document["origin"], arrays)
    if origin is not None and len(origin.estimates) != decision.n_estimates:
        raise ValueError(
            f"estimates must be as many as the decision is about, {decision.n_estimates}; got {len(origin.estimates)}."
        )
    unknown = {category for category, _ in document["notes"]} - CATEGORIES.keys()
    if unknown:
        raise ValueError(f"notes must be of {sorted(CATEGORIES)}; got {sorted(unknown)}.")
    unrefined = document["unrefined"]
    return Aggregate(
        _get_mixture(document["mixture"], "mixture", arrays),
        decision,
        float(document["objective"]),
        int(document["n_iter"]),
        bool(document["converged"]),
        str(document["method"]),
        tuple(Note(CATEGORIES[category], str(text)) for category, text in document["notes"]),
        None if unrefined is None else _get_mixture(unrefined, "unrefined", arrays),
        origin,
    )


def _get_mixture(told: dict[str, Any], name: str, arrays: dict[str, Any]) -> Mixture:
    parameters = {p: arrays[f"{name}/{p}"] for p in _PARAMETERS}
    return Mixture.from_arrays(parameters | told)


def _get_decision(told: dict[str, Any], arrays: dict[str, Any]) -> FilterDecision:
    own: dict[str, Any] = {name: arrays.get(f"decision/{name}") for name in _DECISION_ARRAYS}
    n = len(own["kept"])
    for name, array in own.items():
        if array is None:
            continue
        kind = "b" if name == "kept" else "f"
        if array.dtype.kind != kind or array.shape != (n,):
            raise ValueError(
                f"decision/{name} must have one entry per estimate, {n}; got {array.shape}."
            )
    told = dict(told)
    least_rows = told.pop("least_rows")
    components = None
    if least_rows is not None:
        parts = {name: arrays[f"components/{name}"] for name in _COMPONENT_ARRAYS}
        k = len(parts["radii"])
        for name, array in parts.items():
            expected = (k,) if name in ("radii", "limits", "centers") else (n, k)
            if array.shape != expected:
                raise ValueError(
                    f"components/{name} must have the shape {expected}; got {array.shape}."
                )
        components = ComponentDecision(**parts, least_rows=int(least_rows))
    _check_types(told)
    refused = {int(i): str(reason) for i, reason in told.pop("refused").items()}
    reasons = {int(i): str(reason) for i, reason in told.pop("reasons", {}).items()}
    groups = tuple(tuple(int(i) for i in group) for group in told.pop("groups"))
    return FilterDecision(
        **own, **told, refused=refused, reasons=reasons, groups=groups, components=components
    )


_DECISION_TYPES: dict[str, tuple[type, ...]] = {
    "center": (int,),
    "radius": (int, float),
    "rho": (int, float, str),
    "false_exclusion_rate": (int, float),
    "scale": (int, float),
    "n_candidates": (int, type(None)),
    "n_references": (int, type(None)),
    "refused": (dict,),
}


def _check_types(told: dict[str, Any]) -> None:
    for name, types in _DECISION_TYPES.items():
        if not isinstance(told[name], types) or isinstance(told[name], bool):
            raise ValueError(
                f"{name} of the decision must be of type {types[0].__name__}; got {told[name]!r:.100}."
            )


def _get_origin(told: dict[str, Any], arrays: dict[str, Any]) -> Origin:
    stacks = [
        (group, [arrays[f"estimates-{g}/{p}"] for p in _PARAMETERS])
        for g, group in enumerate(told["groups"])
    ]
    estimates = [_get_estimate(dict(entry), stacks) for entry in told["estimates"]]
    removed = frozenset(int(i) for i in told["removed"])
    if not removed <= set(range(len(estimates))):
        raise ValueError(f"removed must be indices of estimates; got {sorted(removed)}.")
    problem = told["problem"]
    spawn_key = tuple(int(i) for i in told["spawn_key"])
    return Origin(
        estimates,
        AggregationOptions(**told["options"]),
        np.random.SeedSequence(told["entropy"], spawn_key=spawn_key),
        None if problem is None else _get_problem(dict(problem)),
        removed=removed,
    )


def _get_estimate(entry: dict[str, Any], stacks: list[tuple[Any, list[Array]]]) -> Any:
    if "malformed" in entry:
        return entry  # refused again, for what it lacks
    if "group" not in entry:
        return LocalEstimate(None, **entry)
    told, parameters = stacks[entry.pop("group")]
    row = entry.pop("row")
    own = dict(zip(_PARAMETERS, (array[row] for array in parameters), strict=True))
    mixture = Mixture.from_arrays(own | told)
    return LocalEstimate(mixture, **entry)


def _get_problem(told: dict[str, Any]) -> LocalProblem:
    family = str(told.pop("family")).removeprefix("gaussian-")
    return LocalProblem(Gaussian(family), **told)
