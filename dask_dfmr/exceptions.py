"""Errors and warnings of the package, each of its own class, so that code can catch or silence exactly one kind."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class AggregationError(ValueError):
    """No global mixture can be formed: no estimate is usable.

    Attributes
    ----------
    reasons : dict of int to str
        The reason why each estimate could not be used, by its index.
    report : pandas.DataFrame, list of dict or None
        The ``partition_report_`` that the estimator would have had; from :func:`dfmr`, its rows.
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
    """A partition could not be fitted, and ``on_failed="raise"`` makes that an error."""


class OutOfTimeError(Exception):
    """Reading or fitting one partition took longer than ``partition_timeout``; its outcome is "timed out"."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done after partition_timeout = {seconds:g} seconds")
        self.seconds = seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds,)


class RefinementError(ValueError):
    """None of the kept partitions could be read again in a refinement."""


class ClusterError(RuntimeError):
    """The cluster failed: its scheduler is gone, or workers die repeatedly during the aggregation.

    A partition that kills its worker does not raise this error. It has the outcome "lost".
    """


class ClusterWarning(UserWarning):
    """The cluster makes no progress, because no worker can compute the tasks that the client waits for."""


class PartitionWarning(UserWarning):
    """Partitions were excluded because they could not be read, fitted or used."""


class ExclusionWarning(UserWarning):
    """Partitions that have an estimate were excluded, because they are inconsistent with the majority."""


class HeterogeneityWarning(UserWarning):
    """Partitions differ by more than sampling explains, so they are no samples of one population."""


class NoMajorityWarning(HeterogeneityWarning):
    """At most a narrow majority of the estimates agrees, so the result may be that of inconsistent estimates."""


class FilterWarning(UserWarning):
    """The filter cannot keep its usual guarantees, for example because there are too few sources or too few rows."""


class OptimumWarning(UserWarning):
    """The common optimum is not the best one: fits from new starts give the rows of the partitions a higher density."""


def warn(message: str, category: type[Warning]) -> None:
    """Issue a warning at the line that called the package, however deep inside of the package this is called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
