"""Results in files: a zip of one JSON document and plain arrays. Nothing in it is executable, and all of it is checked.

``docs/reference/file-format.md`` describes the format. Members are stored uncompressed, so that a file never becomes
larger in memory than it is on disk.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from dask_dfmr import exceptions
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.reasons import from_plain, to_plain
from dask_dfmr.aggregation.result import (
    AggregationResult,
    ComponentDecision,
    FilterDecision,
    Note,
    Origin,
)
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.family import Array, Family
from dask_dfmr.mixtures.gaussian import Gaussian, Mixture
from dask_dfmr.mixtures.row_cut import COUNTING, cut_of
from dask_dfmr.untrusted import (
    as_json,
    check_format,
    portable,
    read_members,
    replacing,
    write_members,
)

_T = TypeVar("_T")

FORMAT, FORMAT_VERSION = "dask_dfmr.aggregate", 1
"""The first two entries of the document."""

DOCUMENT = "aggregate.json"
"""Name of the member that holds the document."""

_DECISION_ARRAYS = (
    "distances",
    "distance_ratios",
    "kept",
    "expected_distances",
    "z_scores",
    "p_values",
    "sampling_ratios",
)
"""Attributes of a decision that are members of the file."""

_COMPONENT_ARRAYS = (
    "kept",
    "matching",
    "n_rows",
    "distance_ratios",
    "radii",
    "limits",
    "centers",
)
"""Attributes of a decision about components that are members of the file."""

_PARAMETERS = ("weights", "means", "covariances")
"""Attributes of a mixture that are members of the file."""


# -- writing ---------------------------------------------------------------------------------------


def save_result(
    result: AggregationResult,
    path: str | os.PathLike[str],
    estimates: bool,
    more: Mapping[str, Any] | None = None,
    more_arrays: Mapping[str, Any] | None = None,
) -> None:
    """Write a result.

    Parameters
    ----------
    result : AggregationResult
    path : path-like
    estimates : bool
        Whether to write also the estimates that it was made of, if they were kept.
    more, more_arrays : mapping, optional
        Further entries of the document and further members, of somebody who has more to keep than the result.
    """
    document, arrays = _put_result(result, estimates)
    plain = {name: portable(array) for name, array in (arrays | dict(more_arrays or {})).items()}
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        write_members(archive, DOCUMENT, as_json(document | dict(more or {})), plain)


def _put_result(
    result: AggregationResult, estimates: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays: dict[str, Any] = {}
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "method": result.method,
        "objective": result.objective,
        "n_iter": result.n_iter,
        "converged": result.converged,
        "notes": [[note.category.__name__, note.message] for note in result.notes],
        "mixture": put_mixture(result.mixture, "mixture", arrays),
        "unrefined": None
        if result.unrefined is None
        else put_mixture(result.unrefined, "unrefined", arrays),
        "decision": _put_decision(result.decision, arrays),
        "origin": None,
    }
    if estimates and result.origin is not None:
        document["origin"] = _put_origin(result.origin, arrays)
    return document, arrays


def put_mixture(mixture: Mixture, name: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """The entry of a mixture in a document; its parameters become arrays under ``name``."""
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
        "refused": {i: to_plain(reason) for i, reason in decision.refused.items()},
        "reasons": {i: to_plain(reason) for i, reason in decision.reasons.items()},
        "false_exclusion_rate": decision.false_exclusion_rate,
        "scale": decision.scale,
        "groups": decision.groups,
        "n_candidates": decision.n_candidates,
        "n_references": decision.n_references,
        "least_rows": None if components is None else components.least_rows,
    }


def _put_origin(origin: Origin, arrays: dict[str, Any]) -> dict[str, Any]:
    groups: dict[Any, list[Mixture]] = {}
    entries = [_put_estimate(e, origin.family, groups) for e in origin.estimates]
    first = [[i, _put_estimate(e, origin.family, groups)] for i, e in origin.first.items()]
    for g, members in enumerate(groups.values()):
        for p in _PARAMETERS:
            arrays[f"estimates-{g}/{p}"] = np.array([getattr(m, p) for m in members])
    seed = origin.seed
    return {
        "options": {name: getattr(origin.options, name) for name in _fields(AggregationOptions)},
        "entropy": seed.entropy,
        "spawn_key": seed.spawn_key,
        "removed": sorted(origin.removed),
        "first": first,
        "problem": None if origin.problem is None else _put_problem(origin.problem),
        "groups": [{"covariance_type": key[0], "feature_names": key[3]} for key in groups],
        "estimates": entries,
    }


def _put_estimate(
    estimate: Any, family: Family, groups: dict[Any, list[Mixture]]
) -> dict[str, Any]:
    """The fields of an estimate, and the place of its mixture in ``groups``; a malformed one stays malformed."""
    if not isinstance(estimate, LocalEstimate):
        try:
            estimate = LocalEstimate.from_arrays(estimate, family)
        except (ValueError, TypeError, OverflowError) as error:
            return {"malformed": str(error)}
    names = [name for name in _fields(LocalEstimate) if name != "mixture"]
    entry, m = {name: getattr(estimate, name) for name in names}, estimate.mixture
    if m is None:
        return entry
    key = (m.covariance_type, m.n_components, m.n_features, m.feature_names)
    members = groups.setdefault(key, [])
    members.append(m)
    return entry | {"group": list(groups).index(key), "row": len(members) - 1}


def _put_problem(problem: LocalProblem) -> dict[str, Any]:
    names = [n for n in _fields(LocalProblem) if n != "family"]
    own = {"family": problem.family.name, "cut": list(problem.family.cut)}
    return own | {name: getattr(problem, name) for name in names}


def _fields(kind: Any) -> list[str]:
    return list(kind.__dataclass_fields__)


# -- reading ---------------------------------------------------------------------------------------


def load_result(path: str | os.PathLike[str]) -> AggregationResult:
    """Read a file of :func:`save_result`.

    Raises
    ------
    OSError
        If the file is not there, or may not be read.
    ValueError
        If it is no such file, has another version, or contradicts itself.
    """
    return load_result_and(path, lambda result, document, arrays: result)


def load_result_and(
    path: str | os.PathLike[str],
    use: Callable[[AggregationResult, dict[str, Any], dict[str, Array]], _T],
) -> _T:
    """Read a file of :func:`save_result`, and what it holds besides the result.

    Parameters
    ----------
    path : path-like
    use : callable
        Takes the result, the document and all arrays. An error that values of wrong types or shapes cause in it
        becomes a ValueError that names the file.

    Raises
    ------
    OSError, ValueError
        As of :func:`load_result`.
    """
    name = os.fspath(path)
    document, arrays = read_members(path, DOCUMENT, "a saved aggregate", dict)
    check_format(document, FORMAT, FORMAT_VERSION, name, "a saved aggregate")
    try:
        return use(_get_result(document, arrays), document, arrays)
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
"""Errors that values of wrong types or shapes cause."""


def _categories() -> dict[str, type[Warning]]:
    """The categories of notes by their names, as files name them."""
    from sklearn.exceptions import ConvergenceWarning

    found = (*vars(exceptions).values(), ConvergenceWarning)
    return {c.__name__: c for c in found if isinstance(c, type) and issubclass(c, Warning)}


def _get_result(document: dict[str, Any], arrays: dict[str, Any]) -> AggregationResult:
    decision = _get_decision(document["decision"], arrays)
    origin = None if document["origin"] is None else _get_origin(document["origin"], arrays)
    if origin is not None and len(origin.estimates) != decision.n_estimates:
        raise ValueError(
            f"estimates must be as many as the decision is about, {decision.n_estimates}; got {len(origin.estimates)}."
        )
    categories = _categories()
    unknown = {category for category, _ in document["notes"]} - categories.keys()
    if unknown:
        raise ValueError(f"notes must be of {sorted(categories)}; got {sorted(unknown)}.")
    unrefined = document["unrefined"]
    return AggregationResult(
        get_mixture(document["mixture"], "mixture", arrays),
        decision,
        float(document["objective"]),
        int(document["n_iter"]),
        bool(document["converged"]),
        str(document["method"]),
        tuple(Note(categories[category], str(text)) for category, text in document["notes"]),
        None if unrefined is None else get_mixture(unrefined, "unrefined", arrays),
        origin,
    )


def get_mixture(given: dict[str, Any], name: str, arrays: dict[str, Any]) -> Mixture:
    """The mixture that :func:`put_mixture` put into a document and arrays."""
    parameters = {p: arrays[f"{name}/{p}"] for p in _PARAMETERS}
    return Mixture.from_arrays(parameters | given)


def _get_decision(given: dict[str, Any], arrays: dict[str, Array]) -> FilterDecision:
    given = dict(given)
    own = _decision_arrays(arrays)
    components = _get_components(given.pop("least_rows"), len(own["kept"]), arrays)
    _check_types(given)
    refused = {int(i): from_plain(reason) for i, reason in given.pop("refused").items()}
    reasons = {int(i): from_plain(reason) for i, reason in given.pop("reasons").items()}
    groups = tuple(tuple(int(i) for i in group) for group in given.pop("groups"))
    return FilterDecision(
        **own, **given, refused=refused, reasons=reasons, groups=groups, components=components
    )


def _decision_arrays(arrays: dict[str, Array]) -> dict[str, Any]:
    found: dict[str, Any] = {name: arrays.get(f"decision/{name}") for name in _DECISION_ARRAYS}
    n = len(found["kept"])
    for name, array in found.items():
        if array is None:
            continue
        kind = "b" if name == "kept" else "f"
        if array.dtype.kind != kind or array.shape != (n,):
            raise ValueError(
                f"decision/{name} must have one entry per estimate, {n}; got {array.shape}."
            )
    return found


def _get_components(least_rows: Any, n: int, arrays: dict[str, Any]) -> ComponentDecision | None:
    if least_rows is None:
        return None
    parts = {name: arrays[f"components/{name}"] for name in _COMPONENT_ARRAYS}
    k = len(parts["radii"])
    for name, array in parts.items():
        expected = (k,) if name in ("radii", "limits", "centers") else (n, k)
        if array.shape != expected:
            raise ValueError(
                f"components/{name} must have the shape {expected}; got {array.shape}."
            )
    return ComponentDecision(**parts, least_rows=int(least_rows))


_DECISION_TYPES: dict[str, tuple[type, ...]] = {
    "center": (int,),
    "radius": (int, float),
    "rho": (int, float, str),
    "false_exclusion_rate": (int, float),
    "scale": (int, float),
    "n_candidates": (int, type(None)),
    "n_references": (int, type(None)),
    "refused": (dict,),
    "reasons": (dict,),
}
"""Types of the entries of a decision in the document."""


def _check_types(given: dict[str, Any]) -> None:
    for name, types in _DECISION_TYPES.items():
        if not isinstance(given[name], types) or isinstance(given[name], bool):
            raise ValueError(
                f"{name} of the decision must be of type {types[0].__name__}; got {given[name]!r:.100}."
            )


def _get_origin(given: dict[str, Any], arrays: dict[str, Any]) -> Origin:
    stacks = [
        (group, [arrays[f"estimates-{g}/{p}"] for p in _PARAMETERS])
        for g, group in enumerate(given["groups"])
    ]
    estimates = [_get_estimate(dict(entry), stacks) for entry in given["estimates"]]
    removed = frozenset(int(i) for i in given["removed"])
    # Files of earlier versions have no first estimates.
    first = {int(i): _get_estimate(dict(entry), stacks) for i, entry in given.get("first", ())}
    for name, indices in (("removed", removed), ("first", set(first))):
        if not indices <= set(range(len(estimates))):
            raise ValueError(f"{name} must be indices of estimates; got {sorted(indices)}.")
    problem = None if given["problem"] is None else _get_problem(dict(given["problem"]))
    spawn_key = tuple(int(i) for i in given["spawn_key"])
    families = (e.mixture.family for e in estimates if isinstance(e, LocalEstimate) and e.mixture)
    return Origin(
        estimates,
        AggregationOptions(**given["options"]),
        np.random.SeedSequence(given["entropy"], spawn_key=spawn_key),
        problem,
        next(families, Gaussian()) if problem is None else problem.family,
        removed,
        first,
    )


def _get_estimate(entry: dict[str, Any], stacks: list[tuple[Any, list[Array]]]) -> Any:
    if "malformed" in entry:
        return entry  # refused again, for what it lacks
    if "group" not in entry:
        return LocalEstimate(None, **entry)
    given, parameters = stacks[entry.pop("group")]
    row = entry.pop("row")
    own = dict(zip(_PARAMETERS, (array[row] for array in parameters), strict=True))
    mixture = Mixture.from_arrays(own | given)
    return LocalEstimate(mixture, **entry)


def _get_problem(given: dict[str, Any]) -> LocalProblem:
    covariance_type = str(given.pop("family")).removeprefix("gaussian-")
    level, truncates = given.pop("cut", COUNTING)  # files of earlier versions have no cut
    cut = cut_of("truncate" if truncates else None, level)
    return LocalProblem(Gaussian(covariance_type, cut), **given)
