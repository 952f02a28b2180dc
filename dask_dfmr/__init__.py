"""Robust Gaussian mixture models for Dask.

Each partition is fitted on its own. Fits that are inconsistent with the majority are excluded and reported. The rest
are combined into one model with scikit-learn's :class:`~sklearn.mixture.GaussianMixture` API. The method is distance
filtered mixture reduction (Zhang, Tan & Chen, JRSS-B 2026).
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from dask_dfmr import attacks
from dask_dfmr.aggregation.result import FilterDecision
from dask_dfmr.check_data import check
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
from dask_dfmr.results import Aggregate, aggregate
from dask_dfmr.select_components import Selection, select_components

logging.getLogger("dask_dfmr").addHandler(logging.NullHandler())

try:
    __version__ = version("dask-dfmr")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

__all__ = [
    "Aggregate",
    "AggregationError",
    "CheckResult",
    "ClusterError",
    "ClusterWarning",
    "ExclusionWarning",
    "FilterDecision",
    "FilterWarning",
    "GaussianMixture",
    "HeterogeneityWarning",
    "LocalEstimate",
    "Mixture",
    "NoMajorityWarning",
    "OptimumWarning",
    "Outcome",
    "PartitionError",
    "PartitionWarning",
    "RefinementError",
    "Selection",
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
