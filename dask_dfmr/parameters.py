"""Every parameter of :class:`~dask_dfmr.GaussianMixture` once, and the plan of a fit that follows from them.

:data:`PARAMETERS` is the table: name, default, check and meaning. :func:`parameters_of` reads the parameters of an
estimator and checks them, first each by itself and then together. :func:`plan_of` turns them and the data into a
:class:`~dask_dfmr.on_dask.fit.FitPlan`. All of this happens before anything is read, except a column of ``source``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.utils import parse_timedelta

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, AggregationOptions
from dask_dfmr.exceptions import FilterWarning, warn
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.penalty import check_penalty
from dask_dfmr.local.starts import NAMED_STARTS, GivenStart
from dask_dfmr.mixtures.distances import block_size_for
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture
from dask_dfmr.mixtures.mixture import as_floats
from dask_dfmr.mixtures.row_cut import LEVEL, ROW_OUTLIERS, check_level, cut_of
from dask_dfmr.on_dask.by_column import sources_of
from dask_dfmr.on_dask.fit_plan import FitPlan
from dask_dfmr.on_dask.partitions import TUNE, Partitions
from dask_dfmr.on_dask.scheduling.builder import SPLIT_EVERY
from dask_dfmr.on_dask.scheduling.scheduler import LocalScheduler, active_scheduler
from dask_dfmr.on_dask.scheduling.trusted_workers import TrustedWorkers
from dask_dfmr.on_dask.tasks import FitSettings
from dask_dfmr.refinement.em_passes import RefinementOptions
from dask_dfmr.refinement.optima import ROWS_PER_PARAMETER
from dask_dfmr.seeds import seed_sequence
from dask_dfmr.tables import check_names

START_NAMES = ("pilot", *NAMED_STARTS)
"""Names that ``init_params`` accepts."""

WITHOUT_REFINEMENT = {
    "coat": "which takes one estimate as it is",
    "componentwise": "which keeps components of partitions whose other rows are inconsistent",
}
"""Methods that cannot be refined, and why."""

WITHOUT_FILTER = ("mr", "coat")
"""Methods that need no other partition."""

LEAST_TO_FILTER = 4
"""Least number of partitions for which a fit warns neither that nothing is filtered nor that it withstands one only."""

Check = Callable[[str, Any], object]
"""Takes the name of a parameter and its value; raises a ValueError or TypeError if the value is wrong."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of :class:`~dask_dfmr.GaussianMixture`.

    Attributes
    ----------
    name : str
    default : object
    check : callable
        Called with the name and a value. It raises a ValueError or a TypeError if the value is wrong.
    meaning : str
        One line. The docstring of the class begins its description of the parameter with it.
    """

    name: str
    default: Any
    check: Check
    meaning: str


# -- checks of one parameter -----------------------------------------------------------------------


def _one_of(*allowed: Any) -> Check:
    return lambda name, value: checks.one_of(name, value, allowed)


def _integer(least: int, *others: str | None) -> Check:
    """An integer of at least ``least``, or one of the other values."""
    named = [repr(other) for other in others]
    alternative = f"{', '.join(named)} or " if named else ""

    def check(name: str, value: Any) -> None:
        is_text = isinstance(value, str)
        if not any(value == other if is_text else value is other for other in others):
            checks.integer(name, value, least, alternative=alternative)

    return check


def _number(name: str, value: Any) -> None:
    checks.number(name, value)


def _number_or_auto(name: str, value: Any) -> None:
    checks.number(name, value, alternatives=("auto",))


def _in_options(name: str, value: Any) -> None:
    """By the rule of :class:`AggregationOptions`, which is also that of :func:`aggregate`."""
    AggregationOptions(**{name: value})


def _passes(name: str, value: Any) -> None:
    """By the rule of :class:`RefinementOptions`."""
    RefinementOptions(passes=value)


def _start(name: str, value: Any) -> None:
    if not isinstance(value, Mixture):
        checks.one_of(name, value, START_NAMES)


def _seed(name: str, value: Any) -> None:
    # A generator is valid. To draw from it here would change the numbers of the fit.
    if not isinstance(value, (np.random.Generator, np.random.RandomState)):
        seed_sequence(value)


def _verbosity(name: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        checks.integer(name, value, 0)


def _timeout(name: str, value: Any) -> None:
    seconds_of(value)


def _workers(name: str, value: Any) -> None:
    if value is not None:
        TrustedWorkers.of(value)


def _with_data(name: str, value: Any) -> None:
    """Nothing can be checked without X: :func:`plan_of` does it."""


def seconds_of(timeout: Any) -> float | None:
    """The value of ``partition_timeout`` in seconds.

    Raises
    ------
    ValueError
        If it is neither None nor a positive time.
    """
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


# -- the table -------------------------------------------------------------------------------------

_TABLE = (
    Parameter("n_components", 1, _integer(1), "Number of components of the mixture."),
    Parameter(
        "covariance_type",
        "full",
        _one_of(*COVARIANCE_TYPES),
        "Structure of the covariance matrices.",
    ),
    Parameter("tol", "auto", _number_or_auto, "When a local fit stops."),
    Parameter("reg_covar", 0.0, _number, "Added to the diagonal of every covariance matrix."),
    Parameter(
        "max_iter", 1000, _integer(1), "Largest number of passes of a local fit over its partition."
    ),
    Parameter("n_init", 1, _integer(1), "How many starts are tried."),
    Parameter("init_params", "pilot", _start, "Where the local fits start."),
    Parameter("weights_init", None, _with_data, "Weights to start from."),
    Parameter("means_init", None, _with_data, "Means to start from."),
    Parameter("precisions_init", None, _with_data, "Precision matrices to start from."),
    Parameter("random_state", None, _seed, "Seed of everything that is drawn at random."),
    Parameter(
        "warm_start",
        False,
        _one_of(True, False),
        "Whether to start from the mixture of the last fit.",
    ),
    Parameter("verbose", 0, _verbosity, "Whether to show progress and the result of the filter."),
    Parameter("source", None, _with_data, "What is kept or excluded as a whole."),
    Parameter("method", "dfmr", _in_options, "How the local estimates are aggregated."),
    Parameter("rho", "auto", _in_options, "How far from the majority an estimate may be."),
    Parameter(
        "false_exclusion_rate",
        FALSE_EXCLUSION_RATE,
        _in_options,
        "Share of consistent partitions that are excluded by mistake.",
    ),
    Parameter(
        "machine_weights", "rows", _in_options, "Weights of the kept partitions in the reduction."
    ),
    Parameter(
        "n_references",
        "auto",
        _in_options,
        "Number of estimates that all others are compared with.",
    ),
    Parameter(
        "refit_excluded",
        True,
        _one_of(True, False),
        "Whether to hold the rows of excluded partitions against the global mixture.",
    ),
    Parameter(
        "check_optimum",
        "auto",
        _integer(0, None, "auto"),
        "Whether to look for a better optimum, and how often to adopt one.",
    ),
    Parameter(
        "refine", 0, _passes, "Number of EM passes over the kept rows after the aggregation."
    ),
    Parameter(
        "penalty",
        "auto",
        check_penalty,
        "Weight and target of the penalty on the covariances.",
    ),
    Parameter(
        "row_outliers",
        None,
        _one_of(*ROW_OUTLIERS),
        "What happens to single rows far from every component.",
    ),
    Parameter(
        "row_outlier_level",
        LEVEL,
        check_level,
        "Share of the rows of a component that lies beyond its cut.",
    ),
    Parameter(
        "min_partition_rows",
        "auto",
        _integer(1, "auto"),
        "Number of rows below which a partition is not fitted.",
    ),
    Parameter(
        "nan_policy",
        "raise",
        _one_of("raise", "omit"),
        "What happens to rows with NaN or infinite values.",
    ),
    Parameter(
        "on_failed",
        "warn",
        _one_of("warn", "raise", "ignore"),
        "What happens if partitions could not be read or fitted.",
    ),
    Parameter(
        "warn_excluded",
        True,
        _one_of(True, False),
        "Whether to warn if partitions that have an estimate are excluded.",
    ),
    Parameter(
        "partition_timeout",
        None,
        _timeout,
        "Time after which reading and fitting a partition is given up.",
    ),
    Parameter("trusted_workers", None, _workers, "Workers of the cluster that may aggregate."),
    Parameter(
        "keep_estimates",
        "auto",
        _one_of("auto", True, False),
        "Whether to keep the local estimates.",
    ),
    Parameter(
        "split_every",
        None,
        _integer(2, None),
        "Number of blocks that are combined at a time in the reduction.",
    ),
    Parameter(
        "n_partitions", 1, _integer(1), "Number of partitions that data in memory are divided into."
    ),
)

PARAMETERS: Mapping[str, Parameter] = {parameter.name: parameter for parameter in _TABLE}
"""The parameters of :class:`~dask_dfmr.GaussianMixture` by name, in the order of its signature."""


# -- the parameters of an estimator ----------------------------------------------------------------


def parameters_of(estimator: Any, call: str = "") -> dict[str, Any]:
    """The parameters of an estimator, checked as far as that is possible without data.

    Parameters
    ----------
    estimator : GaussianMixture
        Or any object whose ``get_params`` returns the parameters of one.
    call : str
        A correct call of the public function, for the message: ``"dfmr(GaussianMixture(), X)"``.

    Raises
    ------
    TypeError, ValueError
        If it is no such estimator, or one of its parameters is wrong.
    """
    remedy = f" The estimator comes first: {call}." if call else ""
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        what = repr(estimator) if isinstance(estimator, type) else f"a {type(estimator).__name__}"
        raise TypeError(f"estimator must be a dask_dfmr.GaussianMixture; got {what}.{remedy}")
    given = estimator.get_params(deep=False)
    missing = [name for name in PARAMETERS if name not in given]
    if missing:
        raise TypeError(
            "estimator must be a dask_dfmr.GaussianMixture, or have all of its parameters; got a "
            f"{type(estimator).__module__}.{type(estimator).__name__} without {', '.join(missing)}."
        )
    values = {name: given[name] for name in PARAMETERS}
    for name, value in values.items():
        PARAMETERS[name].check(name, value)
    _check_together(values)
    return values


def _check_together(values: Mapping[str, Any]) -> None:
    """The rules about more than one parameter that need no data."""
    options_of(values)
    method, refine = values["method"], values["refine"]
    if method in WITHOUT_REFINEMENT and RefinementOptions(refine).most_passes:
        raise ValueError(
            f"refine must be 0 with method={str(method)!r}, {WITHOUT_REFINEMENT[method]}; got {refine!r}. "
            "Leave refine out, or use another method."
        )


# -- the plan of a fit -----------------------------------------------------------------------------


def plan_of(estimator: Any, X: Any, *, lazy: bool = False) -> FitPlan:
    """The plan of a fit of X with the parameters of an estimator; everything is checked, and nothing is computed.

    Only a column of ``source`` is read, because a graph must list its sources.

    Parameters
    ----------
    estimator : GaussianMixture
        Or any object whose ``get_params`` returns the parameters of one. It is not changed.
    X : as for :meth:`GaussianMixture.fit`
    lazy : bool, default False
        Whether the plan is that of a graph which may be computed on another scheduler than the active one.

    Raises
    ------
    TypeError, ValueError
        If X or a parameter is wrong.
    """
    values = parameters_of(estimator)
    workers, split_every = values["trusted_workers"], values["split_every"]
    trusted = None if workers is None else TrustedWorkers.of(workers)
    scheduler = None if lazy else active_scheduler(trusted, int(values["verbose"]))
    options, timeout = options_of(values), seconds_of(values["partition_timeout"])
    partitions = sources_of(X, values["source"], values["n_partitions"], timeout, scheduler)
    options.references_among(len(partitions))  # raises if there are too many for the method
    problem = problem_of(values, len(partitions))
    start, given = start_of(values, problem, partitions.n_features)
    seed = seed_sequence(values["random_state"])
    return FitPlan(
        partitions=partitions,
        settings=FitSettings(
            problem,
            start,
            seed,
            given,
            order=start if isinstance(start, Mixture) else given,
            feature_names=expected_names(partitions, start),
            timeout=timeout,
        ),
        options=options,
        scheduler=LocalScheduler() if scheduler is None else scheduler,
        split_every=SPLIT_EVERY if split_every is None else int(split_every),
        block_size=block_size_for(len(partitions)),
        keep_estimates=values["keep_estimates"],
        check_optimum=values["check_optimum"],
        refit_excluded=values["refit_excluded"],
        refinement=RefinementOptions(values["refine"], values["false_exclusion_rate"]),
    )


def warn_of_partitions(plan: FitPlan) -> None:
    """Warn of partitions with which the filter cannot do what it usually does."""
    if plan.options.method in WITHOUT_FILTER:
        return
    for message in (_one_partition(plan), _merged_partitions(plan.partitions)):
        if message is not None:
            warn(message, FilterWarning)


def _one_partition(plan: FitPlan) -> str | None:
    """What is wrong with a single partition where a filter was to be expected.

    It is expected if the rows are enough for as many partitions as a filter needs, or if their number is not known.
    """
    partitions, problem = plan.partitions, plan.settings.problem
    if len(partitions) > 1:
        return None
    n_parameters = problem.family.n_parameters(problem.n_components, partitions.n_features or 1)
    least = LEAST_TO_FILTER * ROWS_PER_PARAMETER * n_parameters
    if partitions.n_rows is not None and partitions.n_rows < least:
        return None
    return (
        f"X is one partition, and there is nothing to compare it with: no rows can be excluded. {partitions.remedy}. "
        "method='mr' fits without a filter, and without this warning."
    )


def _merged_partitions(partitions: Partitions) -> str | None:
    """What is wrong if Dask may have made one partition of several parquet files."""
    if not partitions.may_be_merged:
        return None
    return (
        f"Dask may have merged parquet files: X has {len(partitions)} partitions, and each is kept or excluded as a "
        "whole. persist(), to_delayed() and to_dask_array() merge small files of which only some columns are used. "
        f"If X had more partitions, call dask.config.set({{{TUNE!r}: False}}) before that; it silences this, too."
    )


def options_of(values: Mapping[str, Any]) -> AggregationOptions:
    """The options of the aggregation."""
    return AggregationOptions(
        method=values["method"],
        rho=values["rho"],
        machine_weights=values["machine_weights"],
        n_references=values["n_references"],
        false_exclusion_rate=values["false_exclusion_rate"],
    )


def problem_of(values: Mapping[str, Any], n_sources: int) -> LocalProblem:
    """What each of so many sources fits to its rows."""
    return LocalProblem(
        family=Gaussian(
            values["covariance_type"],
            cut_of(values["row_outliers"], values["row_outlier_level"]),
        ),
        n_components=values["n_components"],
        tol=values["tol"],
        max_iter=values["max_iter"],
        penalty=values["penalty"],
        reg_covar=values["reg_covar"],
        min_rows=values["min_partition_rows"],
        nan_policy=values["nan_policy"],
        n_sources=n_sources,
        n_init=values["n_init"],
    )


# -- starts that the user gave ---------------------------------------------------------------------


def start_of(
    values: Mapping[str, Any], problem: LocalProblem, n_features: int | None
) -> tuple[str | Mixture, GivenStart | None]:
    """The start of every local fit: a mixture if all of it is given, else a name and the given parts.

    ``n_features`` is None where the columns are not known before the data are read.
    """
    start = values["init_params"]
    if isinstance(start, Mixture):
        _check_mixture(start, problem, n_features)
        return start, None
    n_components = problem.n_components
    weights = _given_weights(values["weights_init"], n_components)
    means = _given("means_init", values["means_init"], (n_components, n_features))
    covariances = _given_covariances(values, n_features)
    if weights is not None and means is not None and covariances is not None:
        return problem.family.mixture(weights, (means, covariances)), None
    if weights is None and means is None and covariances is None:
        return start, None
    # The candidates of the pilots have an order of their own: the values for component k would go to another one.
    name = "k-means++" if start == "pilot" else start
    return name, GivenStart(weights, means, None if covariances is None else (covariances,))


def expected_names(partitions: Partitions, start: str | Mixture) -> tuple[str, ...] | None:
    """The names that the columns of every partition must have: those of X, or of the start if X is a list of Delayed.

    Raises
    ------
    ValueError
        If the columns of X are not those of the start, or in another order, and both have names.
    """
    names = partitions.feature_names
    if isinstance(start, str) or start.feature_names is None:
        return names
    if names is not None:
        check_names(start.feature_names, names)
    # An array has no names, whatever it starts from. What a Delayed will be is not known.
    return start.feature_names if partitions.n_features is None else names


def _check_mixture(start: Mixture, problem: LocalProblem, n_features: int | None) -> None:
    expected = (
        problem.mixture_family,
        problem.n_components,
        start.n_features if n_features is None else n_features,
    )
    found = (start.family, start.n_components, start.n_features)
    if found != expected:
        raise ValueError(
            f"init_params must be a name or a mixture with (family, n_components, n_features) = {expected}; "
            f"got {found}."
        )


def _given_weights(values: Any, n_components: int) -> Array | None:
    weights = _given("weights_init", values, (n_components,))
    if weights is None:
        return None
    if (weights < 0).any() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(f"weights_init must be non-negative and sum to 1; got {weights.tolist()}.")
    return weights / weights.sum()


def _given_covariances(values: Mapping[str, Any], d: int | None) -> Array | None:
    """The inverse of ``precisions_init``, with the component axis first."""
    k, kind = values["n_components"], values["covariance_type"]
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    precisions = _given("precisions_init", values["precisions_init"], shape)
    if precisions is None:
        return None
    if kind in ("diag", "spherical"):
        if (precisions <= 0).any():
            raise ValueError(f"precisions_init must be positive; got {precisions.min():.6g}.")
        return 1.0 / precisions
    try:
        if not np.allclose(precisions, np.swapaxes(precisions, -1, -2)):
            raise np.linalg.LinAlgError
        np.linalg.cholesky(precisions)
    except np.linalg.LinAlgError:
        raise ValueError(
            "precisions_init must be symmetric positive definite matrices; one is not."
        ) from None
    covariances = np.linalg.inv(precisions)
    covariances = 0.5 * (covariances + np.swapaxes(covariances, -1, -2)).astype(np.float64)
    return np.repeat(covariances[None], k, axis=0) if kind == "tied" else covariances


def _given(name: str, values: Any, shape: tuple[int | None, ...]) -> Array | None:
    """An array of this shape; None in a shape stands for any number of columns."""
    if values is None:
        return None
    array = as_floats(name, values)
    if array.ndim != len(shape) or any(
        expected is not None and expected != found
        for expected, found in zip(shape, array.shape, strict=True)
    ):
        expected_shape = tuple("n_features" if n is None else n for n in shape)
        raise ValueError(f"{name} must have the shape {expected_shape}; got {array.shape}.")
    return array
