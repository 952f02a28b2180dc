"""The tasks of the graph that touch partitions; what goes wrong in a partition stays there.

Between tasks travel plain arrays and numbers (:meth:`LocalEstimate.to_arrays`), not objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from distributed import Reschedule

from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.estimate import LocalEstimate, Outcome, without_estimate, wrong_types
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.row_statistics import (
    PartitionStatistics,
    Wanted,
    measure,
    prior_targets,
    split_rows,
)
from dask_dfmr.local.starts import GivenStart, subsample
from dask_dfmr.mixtures.family import Array, Family, Rows
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.partitions import ColumnsError, Loader, rows_of
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.seeds import HELD_OUT, LOCAL_FIT, PILOT_FIT, PILOT_ROWS, START_ROWS, stream
from dask_dfmr.untrusted import plain_mapping

_T = TypeVar("_T")


@dataclass(frozen=True)
class FitSettings:
    """Everything that the tasks of one fit share.

    ``test_share`` is the share of every partition's rows that no fit sees, where candidates are compared.
    """

    problem: LocalProblem
    start: str | Mixture
    seed: np.random.SeedSequence
    given: GivenStart | None = None
    feature_names: tuple[str, ...] | None = None
    timeout: float | None = None
    test_share: float = 0.0

    @property
    def needs_pilots(self) -> bool:
        """Whether starts come from pilot partitions."""
        return isinstance(self.start, str) and self.start == "pilot"


def fit_partition(
    loader: Loader,
    partition: int,
    source: str | None,
    settings: FitSettings,
    shortlist: pilot.Shortlist | None,
    *values: Any,
) -> dict[str, Any]:
    """Load and fit one partition; whatever happens, the answer is a message of a :class:`LocalEstimate`."""

    def load_and_fit() -> LocalEstimate:
        X, names = rows_of(loader(*values), settings.feature_names)
        with single_threaded_blas():
            return fit_rows(X, names, partition, settings, shortlist)

    estimate = guarded(settings.timeout, load_and_fit, without_estimate)
    return replace(estimate, partition=partition, source=source).to_arrays()


def guarded(
    timeout: float | None, function: Callable[[], _T], failed: Callable[[Outcome, str, int], _T]
) -> _T:
    """The result of reading and using one partition; or what ``failed`` makes of how it went wrong and its rows."""
    try:
        return within(timeout, function)
    except ColumnsError as error:
        return failed(Outcome.BAD_COLUMNS, str(error), error.n_rows)
    except PartitionTimeoutError as error:
        return failed(Outcome.TIMED_OUT, str(error), 0)
    except Reschedule:  # not an error: a shuffle asks to be run again elsewhere
        raise
    except Exception as error:  # whatever a reader or the fit raises is this partition's outcome
        return failed(Outcome.FAILED, f"{type(error).__name__}: {error}", 0)


def fit_rows(
    X: Rows,
    names: tuple[str, ...] | None,
    partition: int,
    settings: FitSettings,
    shortlist: pilot.Shortlist | None,
) -> LocalEstimate:
    """Fit rows, from the candidate of the shortlist that they like best if there is one."""
    problem = settings.problem
    start, label = settings.start, None
    if settings.needs_pilots:
        seed = stream(settings.seed, START_ROWS, partition)
        chosen = None if shortlist is None else pilot.choose_start(problem, X, shortlist, seed)
        if shortlist is None or chosen is None:
            start = (
                "k-means++"  # no pilot could be fitted: every partition has to find its own start
            )
        else:
            start = pilot.as_mixture(problem, shortlist.starts[chosen], names)
            label = f"pilot {chosen}"
    seed = stream(settings.seed, LOCAL_FIT, partition)
    estimate = problem.fit(X, start, given=settings.given, random_state=seed, feature_names=names)
    return replace(estimate, start=label) if label and estimate.is_usable else estimate


def split_partition_rows(X: Rows, partition: int, settings: FitSettings) -> tuple[Rows, Rows]:
    """Rows for fits, and rows for tests alone: the same ones whenever the partition is read."""
    return split_rows(X, settings.test_share, stream(settings.seed, HELD_OUT, partition))


class PartitionTimeoutError(Exception):
    """A partition took longer than it may."""


def within(seconds: float | None, function: Callable[[], _T]) -> _T:
    """Call in a thread of its own and give up on it after so many seconds: a hanging reader cannot be stopped."""
    if seconds is None:
        return function()
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    # Not an executor: it would wait for the thread when the process ends.
    threading.Thread(target=run, daemon=True, name="dfmr-partition").start()
    if not wait([future], seconds).done:
        raise PartitionTimeoutError(f"not done after partition_timeout = {seconds:g} seconds")
    return future.result()


# -- pilots: one that fails is no pilot; as a partition it will say why ----------------------------


def read_pilot(
    loader: Loader, partition: int, settings: FitSettings, *values: Any
) -> pilot.PilotRows | None:
    """Rows of a pilot partition; None where it cannot serve."""

    def load() -> pilot.PilotRows | None:
        X, _ = rows_of(loader(*values), settings.feature_names)
        seed = stream(settings.seed, PILOT_ROWS, partition)
        return pilot.read_pilot(settings.problem, X, seed)

    try:
        return within(settings.timeout, load)
    except Reschedule:
        raise
    except Exception:  # the same error meets the partition when it is fitted, and is reported there
        return None


def fit_pilot(
    rows: pilot.PilotRows | None, scale: Any, partition: int, settings: FitSettings
) -> pilot.PilotFit | None:
    """The candidate of one pilot."""
    with single_threaded_blas():
        return pilot.fit_pilot(
            settings.problem, rows, scale, stream(settings.seed, PILOT_FIT, partition)
        )


def make_shortlist(fits: list[pilot.PilotFit | None], settings: FitSettings) -> pilot.Shortlist:
    """The candidates that all partitions choose from."""
    with single_threaded_blas():
        return pilot.make_shortlist(settings.problem, fits)


# -- second reads ----------------------------------------------------------------------------------


def measure_partition(
    loader: Loader,
    partition: int,
    settings: FitSettings,
    mixtures: list[Mixture],
    wanted: Wanted,
    *values: Any,
) -> PartitionStatistics:
    """Load a partition again and measure its rows; whatever happens, the answer is a :class:`PartitionStatistics`."""

    def load_and_measure() -> PartitionStatistics:
        X, names = rows_of(loader(*values), settings.feature_names)
        with single_threaded_blas():
            return _measure_rows(X, names, partition, settings, mixtures, wanted)

    return guarded(
        settings.timeout,
        load_and_measure,
        lambda outcome, reason, n_rows: PartitionStatistics(
            partition, outcome=outcome, reason=reason
        ),
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
    target = settings.problem.family.prior_target(X) if wanted.target and len(X) else None
    found = measure(X, mixtures, wanted) if len(X) else ()
    held_out = measure(test_rows, mixtures, Wanted(moments=False)) if len(test_rows) else ()
    targets = prior_targets(X, mixtures) if wanted.targets and len(X) else ()
    return PartitionStatistics(
        partition,
        len(X),
        n_omitted,
        target=target,
        measurements=found,
        held_out=held_out,
        targets=targets,
    )


def sample_partition(
    loader: Loader,
    partition: int,
    settings: FitSettings,
    n_rows: int,
    seed: np.random.SeedSequence,
    *values: Any,
) -> Array | None:
    """At most so many rows of a partition, all of them finite; None where it cannot be read this time."""

    def load() -> Array | None:
        X, names = rows_of(loader(*values), settings.feature_names)
        X, _, refusal = settings.problem.check_rows(X, names)
        return None if refusal else subsample(X, n_rows, np.random.default_rng(seed))

    return guarded(settings.timeout, load, lambda outcome, reason, n_rows: None)


def lost_reading(partition: int, error: BaseException) -> PartitionStatistics:
    """The reading of a partition whose task never answered."""
    return PartitionStatistics(partition, outcome=outcome_of(error), reason=_first_line(error))


# -- what is reported ----------------------------------------------------------------------------


def as_plain(message: Any, partition: int | None = None) -> dict[str, Any]:
    """A message as it came, if it is a dict of numbers, texts and numeric arrays; else one that says what it is.

    The first thing that is done with what a worker sent, wherever that is used. Where ``partition`` is known, the
    message does not decide whose it is.
    """
    found = plain_mapping(message)
    if not isinstance(found, str):
        known = {} if partition is None else {"partition": partition}
        found = wrong_types(found) or dict(found) | known
    if not isinstance(found, str):
        return found
    reason = f"malformed estimate: {found}"
    return without_estimate(Outcome.FAILED, reason, partition=partition).to_arrays()


def estimate_of(message: Any, family: Family, partition: int | None = None) -> LocalEstimate:
    """The local estimate of a message; of a malformed one an outcome that says so."""
    plain = as_plain(message, partition)
    try:
        return LocalEstimate.from_arrays(plain, family)
    except (ValueError, TypeError, OverflowError) as error:
        reason = f"malformed estimate: {error}"
        return without_estimate(Outcome.FAILED, reason, partition=partition)


_SAID: dict[str, Any] = {
    f.name: f.default.value if isinstance(f.default, Outcome) else f.default
    for f in fields(LocalEstimate)
    if f.name not in ("mixture", "n_samples")
}
"""What a message that leaves something out says of it."""


def report_rows(messages: Sequence[Any], first: int | None = None) -> list[dict[str, Any]]:
    """What the report says of each partition: everything in its message but the mixture.

    ``first`` is the number of the first of them, for messages that do not say it.
    """
    names = LocalEstimate.__dataclass_fields__.keys() - {"mixture"}
    plain = [as_plain(m, None if first is None else first + k) for k, m in enumerate(messages)]
    return [_SAID | {name: m[name] for name in names if name in m} for m in plain]


def as_plain_each(message: Any, n: int, partition: int | None = None) -> list[dict[str, Any]]:
    """The messages of one partition about several candidates, plain ones; so many, whatever came."""
    several = message if type(message) is list and len(message) == n else [message] * n
    return [as_plain(one, partition) for one in several]


def lost_partition(partition: int, source: str | None, error: BaseException) -> dict[str, Any]:
    """The message of a partition whose task never answered: its workers died, or an upstream task failed."""
    return without_estimate(
        outcome_of(error), _first_line(error), partition=partition, source=source
    ).to_arrays()


def outcome_of(error: BaseException) -> Outcome:
    """What became of a partition whose task ended with this error on a cluster."""
    has_died = type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")
    return Outcome.LOST if has_died else Outcome.FAILED


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
