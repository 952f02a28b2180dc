"""A user's words -> a pipeline: the one place where the parameters of a fit are checked."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from dask.utils import parse_timedelta
from numpy.typing import ArrayLike

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, AggregationOptions
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.starts import NAMED_STARTS, GivenStart
from dask_dfmr.mixtures.distances import block_size_for
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture
from dask_dfmr.mixtures.mixture import as_floats
from dask_dfmr.on_dask.by_column import sources_of
from dask_dfmr.on_dask.fit import Pipeline, active_client
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.results import Aggregate
from dask_dfmr.seeds import SeedLike, seed_sequence

START_NAMES = ("pilot", *NAMED_STARTS)


def dfmr(
    X: Any,
    n_components: int = 1,
    *,
    covariance_type: str = "full",
    tol: float | Literal["auto"] = "auto",
    reg_covar: float = 0.0,
    max_iter: int = 1000,
    n_init: int = 1,
    init_params: str | Mixture = "pilot",
    weights_init: ArrayLike | None = None,
    means_init: ArrayLike | None = None,
    precisions_init: ArrayLike | None = None,
    random_state: SeedLike = None,
    source: Hashable = None,
    method: str = "dfmr",
    rho: float | Literal["auto"] = "auto",
    false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
    machine_weights: str = "rows",
    n_references: int | Literal["auto"] | None = "auto",
    n_starts: int = 1,
    refine: int = 0,
    penalty: float | Literal["auto"] = "auto",
    min_partition_rows: int | Literal["auto"] = "auto",
    nan_policy: str = "raise",
    partition_timeout: float | str | None = None,
    n_partitions: int = 1,
    split_every: int | None = None,
    block_size: int | None = None,
    trusted_workers: None = None,
) -> Any:
    """Distance filtered mixture reduction of a collection, as one lazy graph.

    Nothing is read or computed here, but a column of ``source``; compute the result on any
    scheduler. An error in a partition's own reader or fit becomes the outcome of that partition. One
    that arises upstream of it (behind a shuffle, say), or a worker that dies for good, fails the
    graph: :meth:`GaussianMixture.fit` survives those on a cluster, because it submits fits and
    aggregation separately.

    Parameters
    ----------
    X : dask DataFrame, dask Array, list of Delayed, pandas DataFrame or array-like
    n_components, covariance_type, tol, ..., partition_timeout, n_partitions, split_every
        As for :class:`GaussianMixture`. ``init_params`` may also be a :class:`Mixture` to start
        from.
    source : column name or None, default None
        As for :class:`GaussianMixture`. The values of a column are read here and now, on the active
        scheduler; the rows are grouped when the graph is computed, in memory (:meth:`GaussianMixture.fit`
        uses temporary files where it can).
    n_starts : int, default 1
        As for :func:`aggregate`.
    refine : int, default 0
        Must be 0: passes over the data after the aggregation are :meth:`GaussianMixture.fit`'s, because what
        each of them does depends on what the last one found.
    block_size : int, optional
        Machines per task of the aggregation; 50 by default, and more where there are over 3,200.
    trusted_workers : None
        Must be None: who computes a lazy graph is not known here, so its tasks cannot be sent to workers of
        his cluster.

    Returns
    -------
    dask.delayed.Delayed
        Computes to an :class:`Aggregate`; warnings travel in its ``notes``.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("X", "refine")}
    if refine != 0:
        raise ValueError(
            f"refine must be 0 for a lazy graph; got {refine!r}. Use GaussianMixture(refine={refine!r}).fit(X)."
        )
    if trusted_workers is not None:
        raise ValueError(
            f"trusted_workers must be None for a lazy graph; got {trusted_workers!r}. Use "
            "GaussianMixture(trusted_workers=...).fit(X), or send the whole graph to trusted workers: "
            "client.compute(dfmr(...), workers=[...])."
        )
    return build_pipeline(X, **arguments, lazy=True).as_delayed(Aggregate.of)


def build_pipeline(
    X: Any,
    n_components: int,
    *,
    covariance_type: str,
    tol: float | str,
    reg_covar: float,
    max_iter: int,
    n_init: int,
    init_params: str | Mixture,
    weights_init: ArrayLike | None,
    means_init: ArrayLike | None,
    precisions_init: ArrayLike | None,
    random_state: SeedLike,
    source: Hashable,
    method: str,
    rho: float | str,
    false_exclusion_rate: float,
    machine_weights: str,
    n_references: int | str | None,
    n_starts: int,
    penalty: float | str,
    min_partition_rows: int | str,
    nan_policy: str,
    partition_timeout: float | str | None,
    n_partitions: int,
    split_every: int | None,
    block_size: int | None,
    trusted_workers: Any = None,
    lazy: bool = False,
) -> Pipeline:
    """Check everything, read nothing but a column of ``source``; ``lazy`` if somebody else may compute it."""
    checks.one_of("covariance_type", covariance_type, COVARIANCE_TYPES)
    if not isinstance(init_params, Mixture):
        checks.one_of("init_params", init_params, START_NAMES)
    if min_partition_rows != "auto":
        checks.integer("min_partition_rows", min_partition_rows, 1, alternative="'auto' or ")
    checks.integer("n_partitions", n_partitions, 1)
    if split_every is not None:
        checks.integer("split_every", split_every, 2, alternative="None or ")
    if block_size is not None:
        checks.integer("block_size", block_size, 1, alternative="None or ")
    trusted = None if trusted_workers is None else TrustedWorkers.of(trusted_workers)
    if trusted is not None:
        trusted = trusted.found_on(active_client())
    options = AggregationOptions(
        method,
        rho,
        machine_weights,
        n_starts,
        n_references=n_references,
        false_exclusion_rate=false_exclusion_rate,
    )
    problem = LocalProblem(
        family=Gaussian(covariance_type),
        n_components=n_components,
        tol=tol,
        max_iter=max_iter,
        penalty=penalty,
        reg_covar=reg_covar,
        min_rows=min_partition_rows,
        nan_policy=nan_policy,
        n_init=n_init,
    )
    timeout = _seconds(partition_timeout)
    partitions = sources_of(X, source, n_partitions, timeout, lazy)
    options.references_among(len(partitions))  # raises where there are too many for the method
    problem = replace(problem, n_sources=len(partitions))
    given = {"weights": weights_init, "means": means_init, "precisions": precisions_init}
    start, partial = _resolve_start(
        init_params, given, covariance_type, problem, partitions.n_features
    )
    settings = FitSettings(
        problem,
        start,
        seed_sequence(random_state),
        partial,
        partitions.feature_names,
        timeout,
    )
    return Pipeline(
        partitions,
        settings,
        options,
        SPLIT_EVERY if split_every is None else int(split_every),
        block_size_for(len(partitions)) if block_size is None else int(block_size),
        trusted,
    )


# -- starts that the user gave -------------------------------------------------------------------


def _resolve_start(
    init_params: str | Mixture,
    given: dict[str, Any],
    covariance_type: str,
    problem: LocalProblem,
    n_features: int | None,
) -> tuple[str | Mixture, GivenStart | None]:
    """The start of every local fit: a mixture where everything is given, else a name and what overrides it."""
    n_components = problem.n_components
    weights, means, precisions = given["weights"], given["means"], given["precisions"]
    if isinstance(init_params, Mixture):
        found = (init_params.family, init_params.n_components, init_params.n_features)
        expected = (
            problem.family,
            n_components,
            n_features if n_features is not None else init_params.n_features,
        )
        if found != expected:
            raise ValueError(
                f"init_params must be a name or a mixture with (family, n_components, n_features) = {expected}; "
                f"got {found}."
            )
        return init_params, None
    if weights is None and means is None and precisions is None:
        return init_params, None
    checked_weights = None if weights is None else _array("weights_init", weights, (n_components,))
    if checked_weights is not None and (
        (checked_weights < 0).any() or abs(checked_weights.sum() - 1) > 1e-6
    ):
        raise ValueError(
            f"weights_init must be non-negative and sum to 1; got {checked_weights.tolist()}."
        )
    if checked_weights is not None:
        checked_weights /= checked_weights.sum()
    checked_means = (
        None if means is None else _array("means_init", means, (n_components, n_features))
    )
    covariances = (
        None
        if precisions is None
        else _invert(precisions, covariance_type, n_components, n_features)
    )
    if checked_weights is not None and checked_means is not None and covariances is not None:
        return problem.family.mixture(checked_weights, (checked_means, covariances)), None
    # The pilot's candidates come in an order of their own: what is given for component k would go
    # to another one.
    name = "k-means++" if init_params == "pilot" else init_params
    return name, GivenStart(
        checked_weights, checked_means, None if covariances is None else (covariances,)
    )


def _invert(precisions: Any, covariance_type: str, k: int, d: int | None) -> Array:
    """Covariances of the given precisions, with the component axis first."""
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]
    array = _array("precisions_init", precisions, shape)
    if covariance_type in ("diag", "spherical"):
        if (array <= 0).any():
            raise ValueError(f"precisions_init must be positive; got {array.min():.6g}.")
        return 1.0 / array
    try:
        if not np.allclose(array, np.swapaxes(array, -1, -2)):
            raise np.linalg.LinAlgError
        np.linalg.cholesky(array)
    except np.linalg.LinAlgError:
        raise ValueError(
            "precisions_init must be symmetric positive definite matrices; one is not."
        ) from None
    covariances = np.linalg.inv(array)
    covariances = 0.5 * (covariances + np.swapaxes(covariances, -1, -2)).astype(np.float64)
    return np.repeat(covariances[None], k, axis=0) if covariance_type == "tied" else covariances


def _array(name: str, values: Any, shape: tuple[int | None, ...]) -> Array:
    array = as_floats(name, values)
    if array.ndim != len(shape) or any(
        s is not None and s != a for s, a in zip(shape, array.shape, strict=True)
    ):
        wanted = tuple("n_features" if s is None else s for s in shape)
        raise ValueError(f"{name} must have the shape {wanted}; got {array.shape}.")
    return array


def _seconds(timeout: Any) -> float | None:
    if timeout is None:
        return None
    try:
        seconds = float(parse_timedelta(timeout))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(
            f"partition_timeout must be None, seconds, or a time like '30 s' or '5 minutes'; got {timeout!r}."
        ) from error
    if not seconds > 0:
        raise ValueError(f"partition_timeout must be positive; got {timeout!r}.")
    return seconds
