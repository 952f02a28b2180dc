"""Where the wall time of a whole job goes: start-up, and every stage of the graph.

    python benchmarks/where_time_goes.py --data DIR [--case moderate --tol 1e-3]

The job of ``whole_job.py`` (its partitions must be there) in this process and on two workers of one thread
each. For every stage that took time: when its first task started and its last one ended, in seconds
since the process began, how many tasks there were, and the sum of their seconds. "fit" includes
reading. Between the start of the fit and the first task the workers import the package.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import psutil
from common import print_machine, print_table
from dask.utils import key_split
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin
from jobs import ensure_job, load_job, partitions_folder

from dask_dfmr import GaussianMixture

BEGAN = psutil.Process().create_time()

LEAST = 0.02
"""Stages of fewer seconds in all are left out."""

Span = tuple[float, float]


class Spans(SchedulerPlugin):
    """When tasks were computed, by stage."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = defaultdict(list)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Take note of a task that is done."""
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                self.spans[key_split(key)].append((span["start"] - BEGAN, span["stop"] - BEGAN))


def since() -> float:
    """Seconds since the process began."""
    return time.time() - BEGAN


def run(folder: Path, n_components: int, tol: float | str) -> list[list[Any]]:
    """The rows of the table."""
    rows: list[list[Any]] = [["imports", "0.00", f"{since():.2f}", "", ""]]
    began = since()
    plugin = Spans()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        cluster.scheduler.add_plugin(plugin)
        rows.append(["start of the cluster", f"{began:.2f}", f"{since():.2f}", "", ""])
        began = since()
        GaussianMixture(n_components, tol=tol, random_state=0).fit(dd.read_parquet(folder))
        rows.append(["fit", f"{began:.2f}", f"{since():.2f}", "", ""])
        for stage, spans in plugin.spans.items():
            total = sum(stop - start for start, stop in spans)
            if total >= LEAST:
                first, last = min(spans)[0], max(stop for _, stop in spans)
                rows.append(
                    [f"- {stage}", f"{first:.2f}", f"{last:.2f}", len(spans), f"{total:.2f}"]
                )
        began = since()
    rows.append(["end of the cluster", f"{began:.2f}", f"{since():.2f}", "", ""])
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="that of whole_job.py")
    parser.add_argument("--case", default="moderate")
    parser.add_argument("--tol", default="auto", type=lambda x: x if x == "auto" else float(x))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = ensure_job(options.data, options.case)
    rows = run(partitions_folder(folder), load_job(folder).n_components, options.tol)
    print_machine()
    print_table(("stage", "from, s", "to, s", "tasks", "s in all tasks"), rows)


if __name__ == "__main__":
    main()
