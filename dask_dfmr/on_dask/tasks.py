"""The tasks that read partitions. An error in a partition becomes the outcome of that partition.

Plain arrays and numbers travel between tasks (:meth:`LocalEstimate.to_arrays`), not objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from dask_dfmr import deadlines
from dask_dfmr.aggregation.reasons import bounded
from dask_dfmr.exceptions import OutOfTimeError
from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.estimate import LocalEstimate, Outcome, without_estimate, wrong_types
from dask_dfmr.local.fit import MAX_MAGNITUDE, LocalProblem
from dask_dfmr.local.row_statistics import (
    PartitionStatistics,
    Wanted,
    measure,
    split_rows,
)
from dask_dfmr.local.starts import GivenStart, subsample
from dask_dfmr.mixtures.family import Array, Family, Rows
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask import answers
from dask_dfmr.on_dask.partitions import ColumnsError, Loader, rows_of
from dask_dfmr.on_dask.scheduling.passing import passes
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.scheduling.timeouts import within
from dask_dfmr.on_dask.unread import UNREAD, as_entry, entry_of, unread_of, with_reason
from dask_dfmr.seeds import (
    HELD_OUT,
    LOCAL_FIT,
    PILOT_FIT,
    PILOT_ROWS,
    PILOT_SEARCH,
    SAMPLED_ROWS,
    START_ROWS,
    stream,
)
from dask_dfmr.tables import missing_columns
from dask_dfmr.untrusted import plain_mapping

_T = TypeVar("_T")

ROW_SAMPLE = "row_sample"
"""Key of the sampled rows in a message. They are no part of the estimate."""


@dataclass(frozen=True)
class FitSettings:
    """Everything that the tasks of one fit share.

    Attributes
    ----------
    problem : LocalProblem
    start : str or Mixture
        The name of a start, or the mixture that every local fit starts from.
    seed : SeedSequence
    given : GivenStart or None
        Parts of the start that the user gave.
    order : Mixture, GivenStart or None
        The start that the user gave, whole or in parts, whose order the components of the result have. A later pass
        starts from another mixture, and the order stays.
    feature_names : tuple of str or None
        The columns that every partition must have.
    timeout : float or None
        Seconds after which reading and fitting one partition is given up.
    test_share : float
        Share of every partition's rows that is held out of all fits, for the comparison of candidates.
    n_sampled : int
        Rows of every partition that come along with its estimate.
    """

    problem: LocalProblem
    start: str | Mixture
    seed: np.random.SeedSequence
    given: GivenStart | None = None
    order: Mixture | GivenStart | None = None
    feature_names: tuple[str, ...] | None = None
    timeout: float | None = None
    test_share: float = 0.0
    n_sampled: int = 0

    @property
    def needs_pilots(self) -> bool:
        """Whether starts come from pilot partitions."""
        return isinstance(self.start, str) and self.start == "pilot"

    @property
    def width_of_start(self) -> int | None:
        """Number of columns of the start that the user gave; None if that is open."""
        if isinstance(self.start, Mixture):
            return self.start.n_features
        means = None if self.given is None else self.given.means
        return None if means is None else int(means.shape[1])


def fit_partition(
    loader: Loader,
    partition: int,
    source: str | None,
    settings: FitSettings,
    shortlist: pilot.Shortlist | None,
    *values: Any,
) -> dict[str, Any]:
    """Load and fit one partition; the message of its :class:`LocalEstimate`, whose outcome names any error.

    Some of its rows are in the message too, see :func:`sampled_rows`.
    """

    def fit(data: Any) -> tuple[LocalEstimate, dict[str, Any]]:
        X, names = rows_of(data, settings.feature_names)
        with single_threaded_blas():
            estimate = fit_rows(X, names, partition, settings, shortlist)
        unread = unread_of(data)
        # A fit to all rows has found them finite.
        is_finite = estimate.n_samples == len(X)
        sample = sample_of(X, partition, settings, is_finite) if estimate.is_usable else {}
        return with_reason(estimate, unread), sample | as_entry(unread)

    estimate, more = guarded(
        settings.timeout,
        partial(loader.rows, *values),
        fit,
        lambda outcome, reason, n_rows: (without_estimate(outcome, reason, n_rows), {}),
        settings.feature_names,
    )
    return replace(estimate, partition=partition, source=source).to_arrays() | more


def sample_of(
    X: Rows, partition: int, settings: FitSettings, is_finite: bool = False
) -> dict[str, Array]:
    """Some finite rows of a partition, drawn at random, as a part of its message; nothing if none are wanted."""
    if not settings.n_sampled:
        return {}
    finite = X if is_finite else settings.problem.finite_rows(X)[0]
    rng = np.random.default_rng(stream(settings.seed, SAMPLED_ROWS, partition))
    return {ROW_SAMPLE: subsample(finite, settings.n_sampled, rng)}


def guarded(
    timeout: float | None,
    load: Callable[[], Any],
    use: Callable[[Any], _T],
    failed: Callable[[Outcome, str, int], _T],
    features: Sequence[str] | None,
) -> _T:
    """The result of reading and using one partition; after an error ``failed(outcome, reason, n_rows)``.

    Only reading may hang, so that it alone has a thread of its own. A use that takes too long ends itself. ``features``
    are the names of the columns that the partition must have: an error of the reader about one of these is a matter of
    columns, too.
    """
    try:
        with deadlines.within(timeout):
            return use(_loaded(timeout, load, features))
    except ColumnsError as error:
        return failed(Outcome.BAD_COLUMNS, bounded(str(error)), error.n_rows)
    except OutOfTimeError as error:
        return failed(Outcome.TIMED_OUT, str(error), 0)
    except _MissingKeyError as error:
        return failed(Outcome.FAILED, bounded(str(error)), 0)
    except (Exception, SystemExit) as error:
        # Whatever a reader or the fit raises is this partition's outcome, MemoryError included. A reader that calls
        # sys.exit ends neither the fit nor its worker. KeyboardInterrupt passes.
        if passes(error):
            raise
        return failed(Outcome.FAILED, bounded(described(error)), 0)


def _loaded(timeout: float | None, load: Callable[[], Any], features: Sequence[str] | None) -> Any:
    """A partition as it was read.

    Raises
    ------
    ColumnsError
        If the error of the reader names columns that the partition must have. Errors of a fit are not looked at: one
        that happens to name a column is no matter of columns.
    _MissingKeyError
        If the reader asks for another key or column.
    """
    try:
        return within(timeout, load)
    except (Exception, SystemExit) as error:
        text = missing_columns(described(error), features or ())
        if text:
            raise ColumnsError(text) from error
        if isinstance(error, KeyError) and not passes(error):
            raise _MissingKeyError(describe_reading(error)) from error
        raise


class _MissingKeyError(Exception):
    """A KeyError of a reader, in words."""


def describe_reading(error: BaseException) -> str:
    """An error of a reader with its type; that of a KeyError is often the name of a column, and nothing else."""
    is_key = isinstance(error, KeyError)
    lead = "the reader asks for a key or column that is not there: " if is_key else ""
    return f"{lead}{described(error)}"


def described(error: BaseException) -> str:
    """An error with its type in words; its text is that of a reader, and may raise an error itself."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as second:
        return f"{type(error).__name__}, the text of which raises {type(second).__name__}"


def fit_rows(
    X: Rows,
    names: tuple[str, ...] | None,
    partition: int,
    settings: FitSettings,
    shortlist: pilot.Shortlist | None,
) -> LocalEstimate:
    """Fit rows from the candidate of the shortlist with the highest likelihood, or from the start of the settings.

    Raises
    ------
    ColumnsError
        If the start has another number of columns.
    """
    problem = settings.problem
    if settings.width_of_start not in (None, X.shape[1]):
        raise ColumnsError(
            f"{X.shape[1]} columns, but the start has {settings.width_of_start}", len(X)
        )
    start, label = settings.start, None
    if settings.needs_pilots:
        seed = stream(settings.seed, START_ROWS, partition)
        chosen = None if shortlist is None else pilot.choose_start(problem, X, shortlist, seed)
        if shortlist is None or chosen is None:
            start = "k-means++"  # no pilot could be fitted: every partition makes its own start
        else:
            start = pilot.as_mixture(problem, shortlist.starts[chosen], names)
            label = f"pilot {chosen}"
    seed = stream(settings.seed, LOCAL_FIT, partition)
    estimate = problem.fit(X, start, given=settings.given, random_state=seed, feature_names=names)
    return replace(estimate, start=label) if label and estimate.start == "given" else estimate


def split_partition_rows(X: Rows, partition: int, settings: FitSettings) -> tuple[Rows, Rows]:
    """Rows for fits, and rows held out for tests: the same rows at every read of the partition."""
    return split_rows(X, settings.test_share, stream(settings.seed, HELD_OUT, partition))


# -- pilots: one that fails is ignored; the outcome of its partition has the reason ------------------


def read_pilot(
    loader: Loader, partition: int, settings: FitSettings, *values: Any
) -> pilot.PilotRows | None:
    """Rows of a pilot partition; None if it is unsuitable or cannot be read.

    The partition is read again when it is fitted, and an error is reported there.
    """

    def draw(data: Any) -> pilot.PilotRows | None:
        X, _ = rows_of(data, settings.feature_names)
        seed = stream(settings.seed, PILOT_ROWS, partition)
        return pilot.read_pilot(settings.problem, X, seed)

    return guarded(
        settings.timeout, partial(loader.rows, *values), draw, _nothing, settings.feature_names
    )


def fit_pilot(
    rows: pilot.PilotRows | None, scale: Any, partition: int, settings: FitSettings
) -> pilot.PilotFit | None:
    """The start that one pilot proposes; None if it has none, or too few rows for this fit."""
    problem, rows = settings.problem, answers.pilot_rows(rows)
    if rows is None:
        return None
    _, _, refusal = problem.check_rows(rows.rows)
    if refusal is not None or not problem.can_fit(rows.rows):
        return None
    with single_threaded_blas():
        return pilot.fit_pilot(problem, rows, scale, stream(settings.seed, PILOT_FIT, partition))


def pilot_scale(rows: list[Any]) -> Any:
    """The scale of the columns in which all pilots are clustered."""
    return pilot.pilot_scale([answers.pilot_rows(value) for value in rows])


def make_shortlist(fits: list[pilot.PilotFit | None], settings: FitSettings) -> pilot.Shortlist:
    """The starts that all partitions choose from."""
    with single_threaded_blas():
        present = answers.pilot_fits(fits, settings.problem)
        return pilot.make_shortlist(settings.problem, present, stream(settings.seed, PILOT_SEARCH))


# -- later reads -----------------------------------------------------------------------------------


def measure_partition(
    loader: Loader,
    partition: int,
    settings: FitSettings,
    mixtures: list[Mixture],
    wanted: Wanted,
    *values: Any,
) -> PartitionStatistics:
    """Load a partition again and measure its rows; an error is in the outcome of its statistics."""

    def measure_rows(data: Any) -> PartitionStatistics:
        X, names = rows_of(data, settings.feature_names)
        with single_threaded_blas():
            return _measure_rows(X, names, partition, settings, mixtures, wanted)

    return guarded(
        settings.timeout,
        partial(loader.rows, *values),
        measure_rows,
        lambda outcome, reason, n_rows: PartitionStatistics(
            partition, outcome=outcome, reason=reason
        ),
        settings.feature_names,
    )


def _measure_rows(
    X: Rows,
    names: tuple[str, ...] | None,
    partition: int,
    settings: FitSettings,
    mixtures: list[Mixture],
    wanted: Wanted,
) -> PartitionStatistics:
    n_features = mixtures[0].n_features
    if X.shape[1] != n_features:
        raise ColumnsError(f"{X.shape[1]} columns, expected {n_features}")
    X, n_omitted, refusal = settings.problem.finite_rows(X, names)
    if refusal is not None:
        return PartitionStatistics(partition, outcome=refusal.outcome, reason=refusal.reason)
    X, test_rows = split_partition_rows(X, partition, settings)
    found = measure(X, mixtures, wanted) if len(X) else ()
    of_test = Wanted(moments=False, log_floor=wanted.log_floor)
    held_out = measure(test_rows, mixtures, of_test) if len(test_rows) else ()
    return PartitionStatistics(partition, len(X), n_omitted, measurements=found, held_out=held_out)


def sample_partition(
    loader: Loader,
    partition: int,
    settings: FitSettings,
    n_rows: int,
    seed: np.random.SeedSequence,
    *values: Any,
) -> Array | None:
    """At most ``n_rows`` rows of a partition, all finite; None if it cannot be read this time."""

    def draw(data: Any) -> Array | None:
        X, names = rows_of(data, settings.feature_names)
        X, _, refusal = settings.problem.check_rows(X, names)
        return None if refusal else subsample(X, n_rows, np.random.default_rng(seed))

    return guarded(
        settings.timeout, partial(loader.rows, *values), draw, _nothing, settings.feature_names
    )


def _nothing(outcome: Outcome, reason: str, n_rows: int) -> None:
    return None


def lost_reading(partition: int, error: BaseException) -> PartitionStatistics:
    """The statistics of a partition whose task has no result: none, and the reason."""
    return PartitionStatistics(partition, outcome=outcome_of(error), reason=_first_line(error))


# -- what is reported ----------------------------------------------------------------------------


def as_plain(message: Any, partition: int | None = None) -> dict[str, Any]:
    """A message, if it is a dict of numbers, texts and numeric arrays; else one whose outcome gives the reason.

    Whatever a worker sent passes through here before it is used. A known ``partition`` replaces the number in the
    message.
    """
    found = plain_mapping(message)
    if not isinstance(found, str):
        known = {} if partition is None else {"partition": partition}
        own = {name: value for name, value in found.items() if name not in (ROW_SAMPLE, UNREAD)}
        found = wrong_types(own) or own | known
    if not isinstance(found, str):
        return found
    reason = f"malformed estimate: {found}"
    return without_estimate(Outcome.FAILED, reason, partition=partition).to_arrays()


def sampled_rows(messages: Sequence[Any], n_most: int) -> list[Array | None]:
    """The sampled rows (n_rows, n_features) of each message; None where there are none, or no such rows.

    What a worker sent is checked: finite numbers, and ``n_most`` rows at most.
    """
    return [_checked_sample(plain_mapping(message), n_most) for message in messages]


def _checked_sample(message: Mapping[str, Any] | str, n_most: int) -> Array | None:
    rows = None if isinstance(message, str) else message.get(ROW_SAMPLE)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not 0 < len(rows) <= n_most:
        return None
    rows = rows.astype(np.float64)
    return rows if (np.abs(rows) <= MAX_MAGNITUDE).all() else None


def estimate_of(message: Any, family: Family | None, partition: int | None = None) -> LocalEstimate:
    """The local estimate of a message; for a malformed message one without mixture, and with the reason."""
    plain = as_plain(message, partition)
    try:
        return LocalEstimate.from_arrays(plain, family)
    except (ValueError, TypeError, OverflowError) as error:
        reason = f"malformed estimate: {error}"
        return without_estimate(Outcome.FAILED, reason, partition=partition)


_DEFAULTS: dict[str, Any] = {
    f.name: f.default.value if isinstance(f.default, Outcome) else f.default
    for f in fields(LocalEstimate)
    if f.name not in ("mixture", "n_samples")
}
"""Values of the fields that a message does not have."""


def report_rows(messages: Sequence[Any], first: int | None = None) -> list[dict[str, Any]]:
    """The report's row of each partition: everything in its message except the mixture.

    ``first`` is the number of the first partition, if the partitions are numbered on from there.
    """
    return [report_row(m, None if first is None else first + k) for k, m in enumerate(messages)]


def report_row(message: Any, partition: int | None = None) -> dict[str, Any]:
    """The report's row of one partition. It has ``UNREAD``, too, if the message does."""
    names = LocalEstimate.__dataclass_fields__.keys() - {"mixture"}
    plain = as_plain(message, partition)
    row = _DEFAULTS | {name: plain[name] for name in names if name in plain}
    return row | entry_of(message)


def each_of(message: Any, n: int) -> list[Any]:
    """The n messages of one partition, one per candidate; n of them whatever a worker sent."""
    return message if type(message) is list and len(message) == n else [message] * n


def as_plain_each(message: Any, n: int, partition: int | None = None) -> list[dict[str, Any]]:
    """The same, each made plain."""
    return [as_plain(one, partition) for one in each_of(message, n)]


def lost_partition(partition: int, source: str | None, error: BaseException) -> dict[str, Any]:
    """The message of a partition whose task has no result: its workers died, or an upstream task failed."""
    return without_estimate(
        outcome_of(error), _first_line(error), partition=partition, source=source
    ).to_arrays()


def outcome_of(error: BaseException) -> Outcome:
    """The outcome of a partition whose task ended with this error on a cluster."""
    has_died = type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")
    return Outcome.LOST if has_died else Outcome.FAILED


def _first_line(error: BaseException) -> str:
    return described(error).strip().splitlines()[0]
