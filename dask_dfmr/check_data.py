"""``check``: whether new rows contradict a model."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, AggregationOptions
from dask_dfmr.estimator import GaussianMixture, learned_by
from dask_dfmr.explanation.standard_errors import make_standard_errors
from dask_dfmr.explanation.table import standard_errors_of
from dask_dfmr.fitted.learned import Learned
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import cut_of
from dask_dfmr.monitoring.history import append_history
from dask_dfmr.monitoring.result import CheckResult, result_of
from dask_dfmr.monitoring.row_law import law_of_mixture
from dask_dfmr.monitoring.source import MOST_FIT_PASSES, Checker, SourceCheck
from dask_dfmr.on_dask.by_column import sources_of
from dask_dfmr.on_dask.check_partitions import check_partitions
from dask_dfmr.on_dask.partitions import (
    Partitions,
    as_collection,
    is_array,
    is_frame,
    is_list_of_lazy,
    is_list_of_tables,
)
from dask_dfmr.on_dask.predictions import without_source
from dask_dfmr.on_dask.scheduling.scheduler import active_scheduler
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.parameters import seconds_of
from dask_dfmr.results import Aggregate
from dask_dfmr.tables import as_frame

EVERYTHING = "all rows"
"""Name of the only source if the rows cannot be divided into sources."""


def check(
    model: GaussianMixture | Aggregate | Mixture,
    X: Any,
    *,
    source: Hashable = None,
    names: Sequence[str] | None = None,
    false_alarm_rate: float = FALSE_EXCLUSION_RATE,
    partition_timeout: float | str | None = None,
    history: str | os.PathLike[str] | None = None,
) -> CheckResult:
    """Check whether new rows contradict a model, source by source, without a fit; eager.

    Each source is compared by itself with the law of the rows that the model was fitted to. Two things are tested: the
    mean score of its rows, which shows changes of weights, means, variances and correlations, and the number of its
    rows where the model has almost none. A source that is unlikely is explained: another unit, columns swapped, a
    component, a few rows. The result has the same bits on every scheduler.

    Parameters
    ----------
    model : GaussianMixture, Aggregate or Mixture
        A :class:`GaussianMixture` that was fitted, or loaded from a file, knows the law of its rows. Without that law,
        rows are compared with rows of the mixture. This gives false alarms if the rows of the fit are no mixture.
    X : as for :meth:`GaussianMixture.fit`
        Each partition is a source, or each element of a list. A table in memory is one source. Every partition is read
        once.
    source : column name or None, default None
        The rows of one value of a column are a source, as in :class:`GaussianMixture`. None: as the model was fitted.
    names : sequence of str or None, default None
        Names of the sources, for the report and the history. None: file names, values of ``source``, or numbers.
    false_alarm_rate : float, default 0.001
        Share of consistent sources that are not accepted.
    partition_timeout : float, str or None, default None
        Time after which reading and checking a source is given up, as in :class:`GaussianMixture`.
    history : path or None, default None
        A file to which a line for each source is appended; :func:`read_history` reads it.

    Returns
    -------
    CheckResult
        With one verdict per source: "accept", "review" or "quarantine". Sources that cannot be read, have other
        columns, or no rows have a verdict too, with the reason.

    Raises
    ------
    TypeError
        If the model or X is of a wrong type.
    ValueError
        If another argument has a wrong value.
    NotFittedError
        If the estimator is not fitted.
    OSError
        If the history cannot be written.
    ClusterError
        If the scheduler is gone, or workers die repeatedly.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_dfmr import GaussianMixture, check
    >>> rng = np.random.default_rng(0)
    >>> days = [rng.normal(size=(400, 2)) for _ in range(8)]
    >>> gm = GaussianMixture(random_state=0).fit(days)
    >>> today = rng.normal(size=(300, 2))
    >>> check(gm, [today, 10 * today], names=["today", "in mm"])
    CheckResult(accept 1, quarantine 1; false_alarm_rate=0.001, law='rows')
      quarantine  in mm: unlikely (p < 1e-12): all columns are 10 times as large: another unit?
    """
    AggregationOptions(false_exclusion_rate=_rate(false_alarm_rate))
    estimator = _estimator_of(model)
    timeout = seconds_of(partition_timeout)
    X = as_collection(X)
    scheduler = active_scheduler()
    checker = _checker(estimator, float(false_alarm_rate))
    own = estimator.source if source is None and _has_column(X, estimator.source) else source
    if own is None:
        X = without_source(X, estimator.source, checker.law.mixture.feature_names)
    try:
        partitions = sources_of(_in_parts(X, own), own, 1, timeout, scheduler, least=1)
    except (TypeError, ValueError) as error:
        if not (_is_table(X) or is_frame(X) or is_array(X)):
            raise
        found = [SourceCheck(EVERYTHING, Outcome.BAD_COLUMNS.value, str(error))]
    else:
        labels = _labels(partitions, names)
        found = check_partitions(partitions, labels, checker, scheduler, timeout)
    result = result_of(found, float(false_alarm_rate), checker.law.is_of_rows, checker.law.mixture)
    if history is not None:
        append_history(history, result)
    return result


def _rate(value: Any) -> Any:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not 0 < value < 0.5:
        raise ValueError(
            f"false_alarm_rate must be a probability below 0.5, like 0.001; got {value!r}."
        )
    return value


def _estimator_of(model: Any) -> GaussianMixture:
    if isinstance(model, GaussianMixture):
        return model
    if isinstance(model, Aggregate):
        return GaussianMixture.from_aggregate(model)
    if isinstance(model, Mixture):
        return GaussianMixture.from_mixture(model)
    raise TypeError(
        f"model must be a fitted GaussianMixture, an Aggregate or a Mixture; got a {type(model).__name__}. "
        "GaussianMixture.load reads one from a file."
    )


def _checker(estimator: GaussianMixture, level: float) -> Checker:
    """What the checks of all sources share."""
    learned, mixture = learned_by(estimator), estimator.mixture_
    cut = cut_of(estimator.row_outliers, estimator.row_outlier_level)
    problem = LocalProblem(
        mixture.family.with_cut(cut),
        mixture.n_components,
        max_iter=MOST_FIT_PASSES,
        nan_policy=estimator.nan_policy,
        reg_covar=estimator.reg_covar,
        min_rows=estimator.min_partition_rows,
    )
    with single_threaded_blas():
        law = learned.row_law or law_of_mixture(mixture, learned.n_rows)
        return Checker(law, _errors_of(learned), problem, level)


def _errors_of(learned: Learned) -> Any:
    """Standard errors for explanations, corrected by the kept estimates if they are there."""
    if learned.aggregate.origin is None or not np.isfinite(learned.n_rows):
        return make_standard_errors(learned.mixture, learned.n_rows)
    return standard_errors_of(learned.aggregate)


def _has_column(X: Any, source: Hashable) -> bool:
    return source is not None and hasattr(X, "columns") and source in list(X.columns)


def _is_table(X: Any) -> bool:
    return is_list_of_tables([X])


def _in_parts(X: Any, source: Hashable) -> Any:
    """X in the partitions that are sources: a table in memory is one, unless a column divides it."""
    if is_frame(X) or is_array(X) or is_list_of_lazy(X) or is_list_of_tables(X):
        return X
    if as_frame(X) is not None and source is not None:
        return X
    rows = X if _is_table(X) else np.asarray(X)
    if not _is_table(rows):
        raise TypeError(
            f"X must be a table of rows and columns, a list of tables or a Dask collection; got a {type(X).__name__}."
        )
    return [rows]


def _labels(partitions: Partitions, names: Sequence[str] | None) -> list[str]:
    """A name for every source; partitions of one file are told apart by their numbers."""
    n = len(partitions)
    if names is not None:
        given = [names] if isinstance(names, str) else list(names)
        if len(given) != n or not all(isinstance(one, str) for one in given):
            raise ValueError(f"names must be {n} texts, one for each source; got {given!r:.200}.")
        return given
    own = [source or f"partition {i}" for i, source in enumerate(partitions.sources)]
    return [f"{one}, partition {i}" if own.count(one) > 1 else one for i, one in enumerate(own)]
