"""Where a result comes from: parameters, versions, data, seed, and a digest by which it is recognized."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.mixture import MIXTURE_FORMAT, MIXTURE_VERSION
from dask_dfmr.monitoring.result import digest_of
from dask_dfmr.plotting.found import sources_of
from dask_dfmr.untrusted import document_of

PACKAGES = ("dask-dfmr", "dask", "distributed", "numpy", "scipy", "scikit-learn", "pandas", "numba")
"""Packages whose versions can change a result."""

LONGEST_VALUE = 300
"""Characters of a value in the page; the ends of longer ones are cut off."""


class Parameter(NamedTuple):
    """A parameter of the fit, and whether it differs from its default."""

    name: str
    value: str
    is_changed: bool


def sha256_of(mixture: Mixture) -> str:
    """SHA-256 of the file that :meth:`Mixture.save` writes, in hexadecimal digits."""
    saved = document_of(MIXTURE_FORMAT, MIXTURE_VERSION, mixture.to_arrays())
    return hashlib.sha256(saved).hexdigest()


def parameters_of(found: Any, result: AggregationResult) -> list[Parameter]:
    """The parameters of an estimator, or the options of an aggregation, with their values as text."""
    estimator = getattr(found, "estimator", found)
    if hasattr(estimator, "get_params"):
        values = estimator.get_params(deep=False)
        defaults = type(estimator)().get_params(deep=False)
    elif result.origin is not None:
        options = result.origin.options
        values = {f.name: getattr(options, f.name) for f in fields(options)}
        defaults = {f.name: f.default for f in fields(options)}
    else:
        values, defaults = {"method": result.method}, {}
    return [
        Parameter(name, _shown(value), name in defaults and repr(value) != repr(defaults[name]))
        for name, value in values.items()
    ]


def provenance_of(found: Any, result: AggregationResult) -> dict[str, str]:
    """Facts by name, in words: data, seed, versions and digest."""
    report = getattr(found, "partition_report_", getattr(found, "partition_report", None))
    mixture, sources = result.mixture, sources_of(found, result)
    ends = sources[0] if len(sources) == 1 else f"{sources[0]} to {sources[-1]}"
    facts = {"sources": f"{len(sources):,}: {ends}"}
    if report is not None:
        omitted = int(report["n_omitted"].sum())
        left = f", and {omitted:,} omitted for missing values" if omitted else ""
        facts["rows"] = f"{int(report['n_samples'].sum()):,}{left}"
    names = mixture.feature_names
    columns = "without names" if names is None else ", ".join(names)
    facts["columns"] = f"{mixture.n_features}: {columns}"
    seed = _seed_of(found, result)
    if seed:
        facts["seed"] = seed
    facts["mixture"] = repr(mixture).partition(", feature_names")[0].rstrip(")") + ")"
    facts["SHA-256 of the saved mixture"] = sha256_of(mixture)
    facts["model in the history of checks"] = digest_of(mixture)
    facts["versions"] = ", ".join(f"{name} {number}" for name, number in versions().items())
    facts["written"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {name: _cut(value) for name, value in facts.items()}


def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _seed_of(found: Any, result: AggregationResult) -> str:
    estimator = getattr(found, "estimator", found)
    if hasattr(estimator, "random_state"):
        seed = estimator.random_state
        return "None: drawn afresh" if seed is None else _shown(seed)
    return "" if result.origin is None else f"entropy {result.origin.seed.entropy}"


def _shown(value: Any) -> str:
    with np.printoptions(threshold=20, precision=4):
        return _cut(" ".join(repr(value).split()))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
