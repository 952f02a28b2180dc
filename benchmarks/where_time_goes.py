"""Where the wall time of a whole job goes: start-up, and every stage of the graph.

    python benchmarks/where_time_goes.py --data DIR [--case moderate --tol 1e-3]

The job of ``whole_job.py`` runs in this process and on two workers of one thread each. For every stage that took time
the table shows the start of its first task and the end of its last one, in seconds since the process began. It also
shows the number of its tasks and the sum of their seconds. "fit" includes reading. Between the start of the fit and the
first task the workers import the package.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import psutil
from clusters import local_cluster
from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin
from jobs import ensure_job, load_job, partitions_folder
from output import benchmark_parser, print_table, recorded

from dask_dfmr import GaussianMixture

BEGAN = psutil.Process().create_time()

LEAST = 0.02
"""Stages whose tasks take fewer seconds in all are not in the table."""

Span = tuple[float, float]


class Spans(SchedulerPlugin):
    """Records when tasks were computed, by stage."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = defaultdict(list)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Record the times of a finished task."""
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                self.spans[key_split(key)].append((span["start"] - BEGAN, span["stop"] - BEGAN))


def since() -> float:
    """Seconds since the process began."""
    return time.time() - BEGAN


def run(folder: Path, n_components: int, tol: float | str) -> list[list[Any]]:
    """Fit the partitions of a folder; return the rows of the table."""
    rows: list[list[Any]] = [["imports", "0.00", f"{since():.2f}", "", ""]]
    began = since()
    plugin = Spans()
    with local_cluster() as client:
        client.cluster.scheduler.add_plugin(plugin)
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
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="that of whole_job.py")
    parser.add_argument("--case", default="moderate")
    parser.add_argument("--tol", default="auto", type=lambda x: x if x == "auto" else float(x))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = ensure_job(options.data, options.case)
    with recorded(options):
        rows = run(partitions_folder(folder), load_job(folder).n_components, options.tol)
        print_table(("stage", "from, s", "to, s", "tasks", "s in all tasks"), rows)


if __name__ == "__main__":
    main()
