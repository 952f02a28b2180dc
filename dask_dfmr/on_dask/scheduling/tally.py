"""Counts of tasks by stage, told to the progress of a computation: from a local scheduler and from a cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dask.callbacks import Callback

from dask_dfmr.progress.stages import Progress

STAGES = {
    "count_sources": "reading sources",
    "split_partition": "grouping rows by source",
    "merge_rows": "grouping rows by source",
    "read_pilot": "reading pilots",
    "pilot_rows": "reading pilots",
    "fit_pilot": "fitting pilots",
    "fit_partition": "fitting partitions",
    "fit_candidates": "fitting partitions",
    "sample_partition": "reading rows for fresh starts",
    "fit_group": "fitting from fresh starts",
}
"""Stages that are shown, and the words for them. Each of their tasks is one partition, pilot or group of rows."""

SHARED = frozenset(
    {"open_pilot", "pilot_data", "pilot_scale", "shortlist", "shortlists", "candidates", "messages"}
)
"""Stages of which the later ones take something, and which are never shown: few tasks, between those that are."""

READ_AGAIN = "check_statistics"
"""The stage that reads a partition once more; its name is that of the purpose."""

PREPARING = "computing X"
"""The name of tasks that are not of this package: those that X brings along."""

COUNT_EVERY = 0.1
"""Seconds between two counts of the futures of a cluster. A count of 10,000 takes 2 ms."""


def stage_of(key: Any, progress: Progress, others: str | None = None) -> str | None:
    """The name of the stage of a task; None if it is not shown.

    Parameters
    ----------
    key : object
    progress : Progress
    others : str, optional
        The name of all stages that have none of their own.
    """
    name = str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0]
    if not name.startswith("dfmr_"):
        return PREPARING
    stage = name.removeprefix("dfmr_")
    if stage == READ_AGAIN:
        return progress.purpose("reading partitions again")
    return None if stage in SHARED else STAGES.get(stage, others)


class LocalTally(Callback):
    """Tells of the tasks of one graph on a scheduler of this process.

    First tasks of the other stages run between those with a name of their own, and wait for most of these. They are
    told when the named ones have ended: until then their time would say nothing of the time that is left.
    """

    def __init__(self, progress: Progress, others: str | None) -> None:
        super().__init__()
        self._progress, self._others = progress, others
        self._stage_of: dict[Any, str] = {}
        self._n_named = self._n_untold = 0

    def _start_state(self, dsk: Any, state: Mapping[str, Any]) -> None:
        keys = (*state["ready"], *state["waiting"])
        found = ((key, stage_of(key, self._progress, self._others)) for key in keys)
        self._stage_of = {key: stage for key, stage in found if stage is not None}
        counts = Counter(self._stage_of.values())
        for stage, n_tasks in counts.items():
            self._progress.expect(stage, n_tasks)
        self._n_named = sum(n for stage, n in counts.items() if stage != self._others)

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        stage = self._stage_of.get(key)
        if stage is not None and (stage != self._others or not self._n_named):
            self._progress.begin(stage)

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        stage = self._stage_of.get(key)
        if stage is None:
            return
        if stage != self._others:
            self._n_named -= 1
            self._progress.advance(stage)
            return
        self._n_untold += 1
        if not self._n_named:
            self._progress.advance(stage, self._n_untold)
            self._n_untold = 0


class FuturesTally:
    """Tells of futures on a cluster: how many of each stage have a result or an error."""

    def __init__(self, progress: Progress, futures: Sequence[Any], others: str | None) -> None:
        self._progress = progress
        self._next = 0.0
        found = ((future, stage_of(future.key, progress, others)) for future in futures)
        self._open = [(future, stage) for future, stage in found if stage is not None]
        for stage, n_tasks in Counter(stage for _, stage in self._open).items():
            progress.expect(stage, n_tasks)
            progress.begin(stage)

    def count(self, unresolved: Sequence[str], *, at_once: bool = False) -> None:
        """Count, if it is time to; ``unresolved`` are the states of futures that have no result yet."""
        now = time.monotonic()
        if not at_once and now < self._next:
            return
        self._next = now + COUNT_EVERY
        still = [(future, stage) for future, stage in self._open if future.status in unresolved]
        before, after = (Counter(stage for _, stage in some) for some in (self._open, still))
        self._open = still
        for stage, n_tasks in (before - after).items():
            self._progress.advance(stage, n_tasks)
