"""The tasks of the graph that touch partitions; what goes wrong in a partition stays there.

Between tasks travel plain arrays and numbers (:meth:`LocalEstimate.to_arrays`), not objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_dfmr import pilot
from dask_dfmr.estimates import LocalEstimate, Outcome, without_estimate
from dask_dfmr.local_fit import LocalProblem
from dask_dfmr.mixture import Mixture
from dask_dfmr.partitions import ColumnsError, Loader, rows_of
from dask_dfmr.random import stream
from dask_dfmr.starts import GivenStart
from dask_dfmr.threads import single_threaded_blas

PILOT_DRAW, PILOT_ROWS, PILOT_FIT, START_ROWS, LOCAL_FIT = range(5)
"""First number of the spawn key of each stream of random numbers; the second is the partition."""


@dataclass(frozen=True)
class FitSettings:
    """Everything that the tasks of one fit share."""

    problem: LocalProblem
    start: str | Mixture
    seed: np.random.SeedSequence
    given: GivenStart | None = None
    feature_names: tuple[str, ...] | None = None
    timeout: float | None = None

    @property
    def needs_pilots(self) -> bool:
        """Whether starts come from pilot partitions."""
        return isinstance(self.start, str) and self.start == "pilot"


def fit_partition(
    loader: Loader,
    partition: int,
    source: str | None,
    settings: FitSettings,
    shortlist: Any,
    *values: Any,
) -> dict[str, Any]:
    """Load and fit one partition; whatever happens, the answer is the message of a :class:`LocalEstimate`."""

    def fit() -> LocalEstimate:
        try:
            X, names = rows_of(loader(*values), settings.feature_names)
        except ColumnsError as error:
            return without_estimate(Outcome.BAD_COLUMNS, str(error))
        with single_threaded_blas():
            return _fit_rows(X, names, partition, settings, shortlist)

    try:
        estimate = _within(settings.timeout, fit)
    except Exception as error:  # whatever a reader or the fit raises is this partition's outcome
        estimate = without_estimate(Outcome.FAILED, f"{type(error).__name__}: {error}")
    return replace(estimate, partition=partition, source=source).to_arrays()


def _fit_rows(
    X: Any, names: Any, partition: int, settings: FitSettings, shortlist: pilot.Shortlist | None
) -> LocalEstimate:
    problem = settings.problem
    chosen = (
        None
        if shortlist is None
        else pilot.choose_start(problem, X, shortlist, stream(settings.seed, START_ROWS, partition))
    )
    start: str | Mixture = settings.start
    if settings.needs_pilots:
        # Without a usable pilot every partition has to find its own start.
        start = (
            "k-means++"
            if chosen is None or shortlist is None
            else pilot.as_mixture(problem, shortlist.starts[chosen], names)
        )
    seed = stream(settings.seed, LOCAL_FIT, partition)
    estimate = problem.fit(X, start, given=settings.given, random_state=seed, feature_names=names)
    return (
        estimate
        if chosen is None or not estimate.is_usable
        else replace(estimate, start=f"pilot {chosen}")
    )


def _within(seconds: float | None, function: Callable[[], LocalEstimate]) -> LocalEstimate:
    """Call in a thread of its own and give up on it after so many seconds: a hanging reader cannot be stopped."""
    if seconds is None:
        return function()
    answers: list[LocalEstimate | BaseException] = []

    def run() -> None:
        try:
            answers.append(function())
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True, name="dfmr-partition")
    thread.start()
    thread.join(seconds)
    if not answers:
        return without_estimate(
            Outcome.TIMED_OUT, f"not done after partition_timeout = {seconds:g} seconds"
        )
    answer = answers[0]
    if isinstance(answer, BaseException):
        raise answer
    return answer


# -- pilots: a pilot that fails is no pilot; as a partition it will say why ----------------------


def read_pilot(
    loader: Loader, partition: int, settings: FitSettings, *values: Any
) -> pilot.PilotRows | None:
    """Rows of a pilot partition; None where it cannot serve."""
    found: list[pilot.PilotRows | None] = []

    def read() -> LocalEstimate:
        X, _ = rows_of(loader(*values), settings.feature_names)
        found.append(
            pilot.read_pilot(settings.problem, X, stream(settings.seed, PILOT_ROWS, partition))
        )
        return without_estimate(Outcome.FAILED, "")

    try:
        _within(settings.timeout, read)
    except (
        Exception
    ):  # the same partition meets the same error when it is fitted, and reports it there
        return None
    return found[0] if found else None


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


# -- what is reported ----------------------------------------------------------------------------


def report_rows(messages: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the report says of each partition: everything in its message but the mixture."""
    names = LocalEstimate.__dataclass_fields__.keys() - {"mixture"}
    return [{name: message[name] for name in names if name in message} for message in messages]


def lost_partition(partition: int, source: str | None, error: BaseException) -> dict[str, Any]:
    """The message of a partition whose task never answered: its workers died, or an upstream task failed."""
    outcome = (
        Outcome.LOST
        if type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")
        else Outcome.FAILED
    )
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return without_estimate(outcome, reason, partition=partition, source=source).to_arrays()
