"""What tasks of one partition return besides messages, checked before anything else is computed from it.

Such a task may run on a worker that is not trusted. Pilots, row samples and statistics of later reads pass through here
on their way to the tasks that use several partitions. A malformed answer counts as none, and the partition of malformed
statistics as one that could not be read again. Types are compared for identity, so that no code of a subclass runs.

What can be computed from the moments of the rows is not asked for: nobody can claim a covariance of the rows that their
moments do not have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import logsumexp

from dask_dfmr.aggregation.reasons import OtherRows
from dask_dfmr.local.estimate import MAX_ROWS, Outcome
from dask_dfmr.local.fit import MAX_MAGNITUDE, LocalProblem
from dask_dfmr.local.pilots import PilotFit, PilotRows
from dask_dfmr.local.row_statistics import N_LONGEST, Measurement, PartitionStatistics, Wanted
from dask_dfmr.local.starts import Scale
from dask_dfmr.mixtures.family import Array, Moments
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.row_cut import RowCut
from dask_dfmr.untrusted import MAX_TEXT

logger = logging.getLogger("dask_dfmr")

MAX_SCORE = 1e100
"""Largest whitened sum over rows: the score test squares it, and no rows of floating-point numbers have more."""

ROUNDING = 1e-6
"""Relative rounding of sums over rows; sums that must agree may differ by it."""

_T = TypeVar("_T")


class MalformedError(ValueError):
    """An answer is not what the task was asked for; the text says what is wrong."""


# -- pilots and samples: a malformed one is none -----------------------------------------------------


def pilot_rows(value: Any) -> PilotRows | None:
    """Rows of a pilot and the scale of its columns."""
    return _checked(_pilot_rows, value)


def pilot_fits(values: Sequence[Any], problem: LocalProblem) -> list[PilotFit]:
    """The starts that pilots propose, and rows on which all are compared, which must have one width: the usual one."""
    found = [fit for fit in (_checked(_pilot_fit, value, problem) for value in values) if fit]
    widths = [fit.check_rows.shape[1] for fit in found]
    usual = max(sorted(set(widths)), key=widths.count, default=0)
    return [fit for fit in found if fit.check_rows.shape[1] == usual]


def sample(value: Any, n_rows: int, n_features: int) -> Array | None:
    """At most ``n_rows`` rows of a partition with ``n_features`` columns."""
    return _checked(_sample, value, n_rows, n_features)


def _checked(check: Callable[..., _T], value: Any, *arguments: Any) -> _T | None:
    try:
        return None if value is None else check(value, *arguments)
    except Exception as error:  # whatever an object that is none of ours makes of the checks
        logger.warning("The answer of a task is malformed and ignored: %s.", type(error).__name__)
        return None


def _pilot_rows(value: Any) -> PilotRows:
    rows, scale = _exactly(PilotRows, value)
    rows = _rows(rows)
    scale = _exactly(Scale, scale)
    location = _numbers(scale.location, rows.shape[1:])
    spread = _numbers(scale.spread, rows.shape[1:])
    _require(bool((spread > 0).all()), "spreads that are not positive")
    return PilotRows(rows, Scale(location, spread))


def _pilot_fit(value: Any, problem: LocalProblem) -> PilotFit:
    (weights, components), check_rows = _exactly(PilotFit, value)
    check_rows = _rows(check_rows)
    weights = _numbers(weights, (problem.n_components,))
    _require(type(components) is tuple, "components that are no tuple")
    components = tuple(_numbers(parameter) for parameter in components)
    mixture = problem.family.mixture(weights, components)  # raises if it is none
    _require(mixture.n_features == check_rows.shape[1], "rows of another width than the start")
    return PilotFit((weights, components), check_rows)


def _sample(value: Any, n_rows: int, n_features: int) -> Array:
    rows = _rows(value)
    _require(len(rows) <= n_rows and rows.shape[1] == n_features, "other rows than asked for")
    return rows


# -- statistics of later reads -----------------------------------------------------------------------


def statistics(
    value: Any,
    partition: int,
    mixtures: Sequence[Mixture],
    wanted: Wanted,
    n_before: int | None = None,
) -> PartitionStatistics:
    """The statistics of a partition under some mixtures.

    Parameters
    ----------
    value : object
        What the task that read the partition returned.
    partition : int
        The partition; the answer does not say whose it is.
    mixtures : sequence of Mixture
    wanted : Wanted
    n_before : int, optional
        How many rows the partition had at the first read.

    Returns
    -------
    PartitionStatistics
        Without measurements, and with an outcome and a reason, if the answer is malformed, or has other rows.
    """
    try:
        found = _statistics(value, partition, mixtures, wanted)
    except Exception as error:
        text = str(error) if type(error) is MalformedError else type(error).__name__
        reason = f"malformed statistics: {text}"
        return PartitionStatistics(partition, outcome=Outcome.FAILED, reason=reason)
    if found.outcome is None and n_before not in (None, found.n_samples):
        reason = str(OtherRows(found.n_samples, int(n_before or 0)))
        return PartitionStatistics(partition, outcome=Outcome.FAILED, reason=reason)
    return found


def _statistics(
    value: Any, partition: int, mixtures: Sequence[Mixture], wanted: Wanted
) -> PartitionStatistics:
    given = _exactly(PartitionStatistics, value)
    if given.outcome is not None:
        reason = _exactly(str, given.reason)[:MAX_TEXT]
        return PartitionStatistics(
            partition, outcome=_exactly(Outcome, given.outcome), reason=reason
        )
    n_samples, n_omitted = _count(given.n_samples), _count(given.n_omitted)
    expected = len(mixtures) if n_samples else 0
    measured = _measurements(given.measurements, expected, mixtures, wanted)
    _require(all(m.n_samples == n_samples for m in measured), "sums over other numbers of rows")
    n_held_out = len(_exactly(tuple, given.held_out))
    held_out = _measurements(
        given.held_out,
        min(n_held_out, len(mixtures)),
        mixtures,
        Wanted(moments=False, log_floor=wanted.log_floor),
    )
    _require(n_held_out in (0, len(mixtures)), "another number of held-out sums")
    return PartitionStatistics(
        partition,
        n_samples,
        n_omitted,
        measurements=measured,
        held_out=held_out,
    )


def _measurements(
    value: Any, expected: int, mixtures: Sequence[Mixture], wanted: Wanted
) -> tuple[Measurement, ...]:
    measurements = _exactly(tuple, value)
    _require(len(measurements) == expected, f"{len(measurements)} sums for {expected} mixtures")
    used, each = mixtures[:expected], wanted.of_each(expected)
    return tuple(_measurement(*one) for one in zip(measurements, used, each, strict=True))


def _measurement(value: Any, mixture: Mixture, wanted: Wanted) -> Measurement:
    given = _exactly(Measurement, value)
    n_samples = _count(given.n_samples)
    family, weights = mixture.family, mixture.weights
    log_likelihood = _number(given.log_likelihood)
    with np.errstate(divide="ignore"):
        peak = float(logsumexp(np.log(weights) + family.log_peaks(mixture.components)))
    if wanted.log_floor is not None:  # that of another mixture, which may be far tighter
        peak = max(peak, wanted.log_floor)
    slack = ROUNDING * (n_samples * (1.0 + abs(peak)) + abs(log_likelihood))
    _require(log_likelihood <= n_samples * peak + slack, "a likelihood beyond that of any rows")
    entropy = float("nan")
    if wanted.entropy:
        entropy = _number(given.entropy)
        most = n_samples * float(np.log(len(weights)))
        slack = ROUNDING * (1.0 + n_samples)
        _require(-slack <= entropy <= most + slack, "an entropy that no responsibilities have")
    moments = _moments(given.moments, n_samples, mixture, wanted.cut) if wanted.moments else None
    n_outside = _count(given.n_outside)
    _require(n_outside <= n_samples, "more rows outside than there are")
    return Measurement(
        n_samples,
        log_likelihood,
        moments,
        entropy,
        _scores(given.scores, n_samples, mixture, wanted),
        n_outside,
        _outside_columns(given.outside_columns, n_outside, mixture) if wanted.outside else None,
        None if wanted.score_cap is None else _longest(given.longest, n_samples),
    )


def _outside_columns(value: Any, n_outside: int, mixture: Mixture) -> Array:
    """Of the rows outside, how many are out of range in each column."""
    counts = _numbers(value, (mixture.n_features,))
    are_counts = bool(((counts >= 0) & (counts <= n_outside)).all())
    _require(are_counts, "more rows outside in a column than in all")
    return counts


def _scores(value: Any, n_samples: int, mixture: Mixture, wanted: Wanted) -> Array | None:
    """The sum of the scores of the rows, each of which is no longer than the cap."""
    if wanted.score_cap is None:
        return None
    family, weights, components = mixture.family, mixture.weights, mixture.components
    none = family.coordinates(weights, components, (weights, components))
    scores = _numbers(value, none.shape)
    most = n_samples * wanted.score_cap * (1.0 + ROUNDING)
    _require(float(np.linalg.norm(scores)) <= most, "scores beyond their cap")
    return scores


def _longest(value: Any, n_samples: int) -> Array:
    """The lengths of the longest scores, which judge other partitions only."""
    lengths = _numbers(value, (min(n_samples, N_LONGEST),))
    _require(bool((lengths >= 0).all()), "scores of negative length")
    return np.sort(lengths)


def _moments(value: Any, n_samples: int, mixture: Mixture, cut: RowCut) -> Moments:
    family, weights, components = mixture.family, mixture.weights, mixture.components
    one_each = np.arange(len(weights))
    expected = family.pooled_moments(weights, components, one_each, components)
    given = _exactly(tuple, value)
    _require(len(given) == len(expected), "moments of another kind")
    moments = tuple(_numbers(m, e.shape) for m, e in zip(given, expected, strict=True))
    mass = moments[0]
    _require(bool((mass >= 0).all()), "negative responsibilities")
    total, slack = float(mass.sum()), ROUNDING * (1.0 + n_samples)
    if cut.truncates:
        # All rows may be inside, whose responsibilities are divided by the share that the cut leaves.
        most = n_samples / cut.numbers(mixture.n_features).inside
        _require(total <= most + slack, "more responsibilities than rows")
    else:
        _require(abs(total - n_samples) <= slack, "responsibilities that do not add up to the rows")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        score = np.abs(family.score_of_moments(moments, weights, components))
    _require(bool((score <= MAX_SCORE).all()), "moments that no rows have")
    return moments


# -- values ------------------------------------------------------------------------------------------


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise MalformedError(otherwise)


def _exactly(kind: type[_T], value: Any) -> _T:
    """A value of this very type, not of a subclass."""
    _require(type(value) is kind, f"no {kind.__name__}")
    found: _T = value
    return found


def _count(value: Any) -> int:
    count = _exactly(int, value)
    _require(0 <= count < MAX_ROWS, "a number of rows that is none")
    return count


def _number(value: Any) -> float:
    _require(type(value) is float or type(value) is np.float64, "no number")
    number = float(value)
    _require(bool(np.isfinite(number)), "NaN or infinity")
    return number


def _numbers(value: Any, shape: tuple[int, ...] | None = None) -> Array:
    """An array of finite floating-point numbers, of this shape if one is given."""
    array = _exactly(np.ndarray, value)
    _require(array.dtype == np.float64, "no array of float64")
    _require(shape is None or array.shape == shape, "an array of another shape")
    _require(bool(np.isfinite(array).all()), "NaN or infinity")
    return array


def _rows(value: Any) -> Array:
    rows = _numbers(value)
    _require(rows.ndim == 2 and rows.size > 0, "no rows")
    _require(float(np.abs(rows).max()) <= MAX_MAGNITUDE, "values that cannot be squared")
    return rows
