"""Checks of the partitions of a collection: one task each, and an error in a partition is its own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dask_dfmr.exceptions import ClusterError
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.monitoring.source import Checker, SourceCheck
from dask_dfmr.on_dask.partitions import ColumnsError, Loader, Partitions, rows_of
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import Build, Graph, Scheduler
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.tasks import guarded, outcome_of
from dask_dfmr.on_dask.unread import in_words, unread_of
from dask_dfmr.untrusted import plain_mapping


def check_partitions(
    partitions: Partitions,
    names: Sequence[str],
    checker: Checker,
    scheduler: Scheduler,
    timeout: float | None,
) -> list[SourceCheck]:
    """Read every partition once and check its rows; the names are those of the sources."""
    everyone = range(len(partitions))

    def build(indices: Sequence[int]) -> Graph:
        g = GraphBuilder()
        g.tasks.update(partitions.graph)
        shared = g.add("checker", 0, _same, checker)
        refs = []
        for i in indices:
            loader = partitions.loaders[i]
            arguments = (loader, names[i], shared, timeout, *loader.refs)
            refs.append(g.add("check_partition", i, check_partition, *arguments))
        return g, refs

    with scheduler.session():
        try:
            found = _computed(scheduler, build, everyone)
        except ClusterError:
            raise
        except Exception:  # upstream of one partition; on a local scheduler it ends all
            found = [_one(scheduler, build, i) for i in everyone]
    return [_read(one, name) for one, name in zip(found, names, strict=True)]


def _computed(scheduler: Scheduler, build: Build, indices: Sequence[int]) -> list[Any]:
    """The messages of some partitions; for one whose workers died, the error."""
    held = scheduler.hold_each(build, indices)
    return scheduler.fetch_held(held)


def _one(scheduler: Scheduler, build: Build, i: int) -> Any:
    try:
        (found,) = _computed(scheduler, build, [i])
    except ClusterError:  # no fault of this partition
        raise
    except Exception as error:  # whatever a reader raises
        return error
    return found


def check_partition(
    loader: Loader, name: str, checker: Checker, timeout: float | None, *values: Any
) -> dict[str, Any]:
    """Load and check one partition; the message of its :class:`SourceCheck`, whose outcome names any error."""
    mixture = checker.law.mixture

    def check(data: Any) -> SourceCheck:
        X, _ = rows_of(data, mixture.feature_names)
        if X.shape[1] != mixture.n_features:
            text = f"{X.shape[1]} columns, expected {mixture.n_features}"
            raise ColumnsError(text, len(X))
        with single_threaded_blas():
            return replace(checker.check(X, name), unread=in_words(unread_of(data)))

    def failed(outcome: Outcome, reason: str, n_rows: int) -> SourceCheck:
        return SourceCheck(name, outcome.value, reason, n_rows)

    return guarded(
        timeout, partial(loader, *values), check, failed, mixture.feature_names
    ).to_message()


def _same(value: Any) -> Any:
    return value


def _read(message: Any, name: str) -> SourceCheck:
    """What a task returned, checked; an error of the task, or a malformed message, is an outcome."""
    if isinstance(message, BaseException):
        return SourceCheck(name, outcome_of(message).value, str(message))
    found = plain_mapping(message)
    try:
        if isinstance(found, str):
            raise ValueError(found)
        return SourceCheck.from_message({**found, "source": name})
    except (LookupError, ValueError, TypeError) as error:
        return SourceCheck(name, Outcome.FAILED.value, f"malformed answer: {error}")
