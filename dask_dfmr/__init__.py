"""Robust Gaussian mixture models for Dask.

Each partition is fitted on its own. Fits that are inconsistent with the majority are excluded and reported. The rest
are combined into one model with scikit-learn's :class:`~sklearn.mixture.GaussianMixture` API. The method is distance
filtered mixture reduction (Zhang, Tan & Chen, JRSS-B 2026).
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_dfmr import attacks
    from dask_dfmr.aggregation.result import FilterDecision
    from dask_dfmr.check_data import check
    from dask_dfmr.component_selection import Selection, select_components
    from dask_dfmr.estimator import GaussianMixture
    from dask_dfmr.exceptions import (
        AggregationError,
        ClusterError,
        ClusterWarning,
        ExclusionWarning,
        FilterWarning,
        HeterogeneityWarning,
        NoMajorityWarning,
        OptimumWarning,
        PartitionError,
        PartitionWarning,
        RefinementError,
    )
    from dask_dfmr.lazy import dfmr
    from dask_dfmr.local.estimate import LocalEstimate, Outcome
    from dask_dfmr.local.fit import fit_local
    from dask_dfmr.local.shared_start import shared_start
    from dask_dfmr.mixtures import metrics
    from dask_dfmr.mixtures.distances import pairwise_l2
    from dask_dfmr.mixtures.gaussian import Mixture
    from dask_dfmr.mixtures.metrics import mixing_distance
    from dask_dfmr.monitoring.history import read_history
    from dask_dfmr.monitoring.result import CheckResult
    from dask_dfmr.on_dask.mix_partitions import mix_partitions
    from dask_dfmr.outliers import OutlierDetector
    from dask_dfmr.plotting.breakdown_display import BreakdownDisplay
    from dask_dfmr.plotting.drift_display import DriftDisplay
    from dask_dfmr.plotting.mixture_display import MixtureDisplay
    from dask_dfmr.plotting.partition_display import PartitionDisplay
    from dask_dfmr.plotting.selection_display import SelectionDisplay
    from dask_dfmr.results import Aggregate, aggregate

logging.getLogger("dask_dfmr").addHandler(logging.NullHandler())

__version__: str

__all__ = [
    "Aggregate",
    "AggregationError",
    "BreakdownDisplay",
    "CheckResult",
    "ClusterError",
    "ClusterWarning",
    "DriftDisplay",
    "ExclusionWarning",
    "FilterDecision",
    "FilterWarning",
    "GaussianMixture",
    "HeterogeneityWarning",
    "LocalEstimate",
    "Mixture",
    "MixtureDisplay",
    "NoMajorityWarning",
    "OptimumWarning",
    "Outcome",
    "OutlierDetector",
    "PartitionDisplay",
    "PartitionError",
    "PartitionWarning",
    "RefinementError",
    "Selection",
    "SelectionDisplay",
    "aggregate",
    "attacks",
    "check",
    "dfmr",
    "fit_local",
    "metrics",
    "mix_partitions",
    "mixing_distance",
    "pairwise_l2",
    "read_history",
    "select_components",
    "shared_start",
]

_HOMES = {
    "aggregation.result": ("FilterDecision",),
    "check_data": ("check",),
    "component_selection": ("Selection", "select_components"),
    "estimator": ("GaussianMixture",),
    "exceptions": (
        *("AggregationError", "ClusterError", "ClusterWarning", "ExclusionWarning"),
        *("FilterWarning", "HeterogeneityWarning", "NoMajorityWarning", "OptimumWarning"),
        *("PartitionError", "PartitionWarning", "RefinementError"),
    ),
    "lazy": ("dfmr",),
    "local.estimate": ("LocalEstimate", "Outcome"),
    "local.fit": ("fit_local",),
    "local.shared_start": ("shared_start",),
    "mixtures.distances": ("pairwise_l2",),
    "mixtures.gaussian": ("Mixture",),
    "mixtures.metrics": ("mixing_distance",),
    "monitoring.history": ("read_history",),
    "monitoring.result": ("CheckResult",),
    "on_dask.mix_partitions": ("mix_partitions",),
    "outliers": ("OutlierDetector",),
    "plotting.breakdown_display": ("BreakdownDisplay",),
    "plotting.drift_display": ("DriftDisplay",),
    "plotting.mixture_display": ("MixtureDisplay",),
    "plotting.partition_display": ("PartitionDisplay",),
    "plotting.selection_display": ("SelectionDisplay",),
    "results": ("Aggregate", "aggregate"),
}
"""The module of every public name. It is imported when the name is first used: the whole package takes two seconds,
which ``dask-dfmr --help`` and tasks on workers need not wait for. No module may have the name of a function here."""

_MODULES = {"attacks": "attacks", "metrics": "mixtures.metrics"}
"""Modules that are public, and where they are."""


def __getattr__(name: str) -> Any:
    """A public name, when it is first used (PEP 562)."""
    value: Any
    if name == "__version__":
        value = _version()
    elif name in _MODULES:
        value = import_module(f"dask_dfmr.{_MODULES[name]}")
    else:
        home = next((module for module, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module 'dask_dfmr' has no attribute {name!r}")
        value = getattr(import_module(f"dask_dfmr.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dask-dfmr")
    except PackageNotFoundError:  # a source tree that was not installed
        return "0+unknown"
