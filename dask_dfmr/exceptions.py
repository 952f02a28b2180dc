"""Errors and warnings by name, so that code can catch or silence exactly one kind."""

from __future__ import annotations

from typing import Any


class AggregationError(ValueError):
    """No global mixture can be formed: no estimate is usable.

    Attributes
    ----------
    reasons : dict of int to str
        Why each estimate could not be used.
    report : pandas.DataFrame, list of dict or None
        What was learned about each partition before it failed: the estimator's
        ``partition_report_`` (from :func:`dfmr`, its rows).
    """

    def __init__(
        self, message: str, reasons: dict[int, str] | None = None, report: Any = None
    ) -> None:
        super().__init__(message)
        self.reasons = {} if reasons is None else reasons
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.reasons, self.report)


class PartitionError(ValueError):
    """A partition could not be fitted, and ``on_failed="raise"`` asked to hear of it as an error."""


class RefinementError(ValueError):
    """A refinement found none of the kept partitions readable again."""


class ClusterError(RuntimeError):
    """The cluster failed, not the data: its scheduler is gone, or workers keep dying under the aggregation.

    A partition that takes down its worker is not this error but the outcome "lost" of that partition.
    """


class ClusterWarning(UserWarning):
    """A cluster does not get on: nobody is there to compute what is waited for."""


class PartitionWarning(UserWarning):
    """Partitions were left out because they could not be read, fitted or used."""


class HeterogeneityWarning(UserWarning):
    """Partitions differ by more than their numbers of rows explain: they are no samples of one population."""


class NoMajorityWarning(HeterogeneityWarning):
    """No majority of the estimates agrees, or hardly one: the result may be that of the wrong ones."""


class FilterWarning(UserWarning):
    """The filter cannot promise what it usually does: too few machines, or one that weighs too much."""


class OptimumWarning(UserWarning):
    """The optimum that all partitions share is not the best one: fits from fresh starts describe their rows better."""
