"""What a fit does under each fault of a cluster, and a soak test under random kills.

Clusters are LocalClusters of worker processes. Eight partitions of 200 rows, K = 2: a fit takes a second and its tasks
take milliseconds, because the cluster is under test here and not the fit. "Same bits" compares with the fit of the
same partitions on the synchronous scheduler.

    python benchmarks/faults.py                          # all faults
    python benchmarks/faults.py --only killed            # the faults whose name contains this word
    python benchmarks/faults.py --only soak --soak 200   # the soak test with this number of fits
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import dask
import distributed
import numpy as np
import psutil
from output import benchmark_parser, print_lines, print_progress, print_table, recorded

from dask_dfmr import ClusterError, GaussianMixture, Mixture
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.parameters import plan_of
from tests.conftest import local_cluster
from tests.data_makers import Reader, WaitingReader, broken, deadly, make_ddf, renamed, same_bits
from tests.killers import RandomKiller, kill, killing_at, mortal_cluster, pids

M = 8
N_WORKERS = 3
STAGES = {
    "pilots": ["read_pilot", "pilot_scale", "fit_pilot", "shortlist"],
    "local fits": ["fit_partition", "report_rows"],
    "tiles of the distances": ["stack_estimates", "admit", "l2_tile", "coat_candidate"],
    "filter and consensus": [
        *("coat_min", "l2_filter", "draw_estimates", "take_estimates", "join_estimates"),
        *("consensus", "consensus_distances", "judge"),
    ],
    "reduction at once": ["offer_start", "pick_start", "reduce", "finish"],
    "reduction in rounds": ["assign_block", "tree_sum", "recenter", "finish"],
    "refinement": ["measure_partition", "add_measurements", "ask_readings"],
}


@dataclass
class Row:
    """One line of the table.

    ``tried`` and ``survived`` count fits; a fit that gave no result did not survive. ``became`` is the outcome in
    words. ``bits``: whether the result has the bits of the undisturbed fit; None where there is no result.
    """

    fault: str
    tried: int
    survived: int
    became: str
    seconds: float
    bits: bool | None

    def cells(self) -> list[object]:
        """The entries under ``HEADER``."""
        bits = {True: "yes", False: "NO", None: "-"}[self.bits]
        numbers = (self.tried, self.survived, self.tried - self.survived)
        return [self.fault, *numbers, self.became, bits, f"{self.seconds:.1f}"]


HEADER = ("fault", "fits", "survived", "lost", "what became of it", "same bits", "seconds")


def make(**kwargs: object) -> GaussianMixture:
    """The estimator of all fits here."""
    return GaussianMixture(2, **{"random_state": 0, "on_failed": "ignore"} | kwargs)


def fit(block_size: int | None = None, refine: int = 0) -> Mixture:
    """One fit; a small ``block_size`` gives it the many tasks of a fit of many partitions."""
    if block_size is None:
        return make(refine=refine).fit(make_ddf(M)).mixture_
    plan = plan_of(make(), make_ddf(M))
    return read_first(replace(plan, block_size=block_size)).aggregate.mixture


def undisturbed(*args: object, **kwargs: object) -> Mixture:
    """The same fit on the synchronous scheduler."""
    with dask.config.set(scheduler="synchronous"):
        return fit(*args, **kwargs)


# -- workers that are killed -----------------------------------------------------------------------


def killed_at_stages() -> Iterator[Row]:
    """Two fits per group of stages; in each, a worker is killed at the first task of every stage of the group.

    In the first fit the worker dies as the task is sent to it, in the second as the result has arrived.
    """
    with mortal_cluster(N_WORKERS) as cluster, distributed.Client(cluster):
        for group, stages in STAGES.items():
            words = {
                "reduction in rounds": {"block_size": 3},
                "tiles of the distances": {"block_size": 3},
                "refinement": {"refine": 2},
            }.get(group, {})
            expected, n_killed, equal, start = undisturbed(**words), 0, [], time.perf_counter()
            for when in ("processing", "memory"):
                with killing_at(cluster, stages, when) as killer:
                    equal.append(same_bits(fit(**words), expected))
                n_killed += len(killer.killed)
            became = f"{n_killed} workers killed, as a task came and as its result was there"
            seconds = time.perf_counter() - start
            yield Row(f"worker killed: {group}", 2, 2, became, seconds, all(equal))


def all_killed() -> Iterator[Row]:
    """All workers are killed at once while a partition is read."""
    with mortal_cluster(N_WORKERS) as cluster, distributed.Client(cluster):

        def strike() -> None:
            for pid in pids(cluster).values():
                kill(pid)

        yield disturbed(
            "all workers killed at once", strike, "restarted, and what they did done again"
        )


def disturbed(fault: str, strike: Callable[[], object], became: str) -> Row:
    """One fit; ``strike`` is called while one of its partitions is read."""
    expected, start = undisturbed(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        reader = WaitingReader(Path(folder), waiting=M - 2)

        def wait_and_strike() -> None:
            reader.wait_for_process()
            try:
                strike()
            finally:
                reader.release()

        struck = pool.submit(wait_and_strike)
        found = make().fit(make_ddf(M, reader)).mixture_
        struck.result()
    return Row(fault, 1, 1, became, time.perf_counter() - start, same_bits(found, expected))


# -- partitions ------------------------------------------------------------------------------------


def hanging(frame: object) -> object:
    """A reader that never returns."""
    time.sleep(3600)
    return frame


def hungry(frame: object) -> object:
    """A reader that allocates memory until its worker is killed."""
    held = []
    for _ in range(60):
        held.append(np.ones(50 * 2**17))
        time.sleep(0.1)
    return held or frame


def corrupted_partitions() -> Iterator[Row]:
    """Partition 3 cannot be fitted; the result must be that of the other partitions."""
    cases = {
        "a partition that raises": (broken, {}, {}),
        "a partition of another schema": (renamed, {}, {}),
        "a partition that never returns (partition_timeout=2)": (
            hanging,
            {"partition_timeout": 2},
            {},
        ),
        "a partition that kills its worker": (deadly, {}, {"allowed_failures": 1}),
        "a partition that fills the memory of its worker": (
            hungry,
            {},
            {"allowed_failures": 1, "memory_limit": "700MB"},
        ),
    }
    for fault, (what, parameters, words) in cases.items():
        with dask.config.set(scheduler="synchronous"):  # a raising reader needs no cluster
            expected = make().fit(make_ddf(M, Reader({3: broken})))
        config = {"distributed.worker.memory.pause": False}
        with mortal_cluster(2, config=config, **words) as cluster, distributed.Client(cluster):
            start = time.perf_counter()
            gm = make(**parameters).fit(make_ddf(M, Reader({3: what})))
            seconds = time.perf_counter() - start
        row = gm.partition_report_.loc[3]
        reason = row["reason"].split(":")[0]
        became = f'outcome "{row["outcome"]}" ({reason}), {int(gm.support_.sum())} of {M} kept'
        yield Row(fault, 1, 1, became, seconds, same_bits(gm.mixture_, expected.mixture_))


# -- workers that come, go, pause and spill ---------------------------------------------------------


def coming_and_going() -> Iterator[Row]:
    """Workers are exchanged while a partition is read."""
    with mortal_cluster(N_WORKERS) as cluster, distributed.Client(cluster) as client:

        def exchange() -> None:
            client.retire_workers(list(pids(cluster))[:1])
            cluster.scale(N_WORKERS + 1)
            client.wait_for_workers(N_WORKERS, timeout=60)

        yield disturbed("a worker retired, others added", exchange, "the fit moved on")


def full_memory() -> Iterator[Row]:
    """All results go to disk at once."""
    spilling = {"distributed.worker.memory.target": 1e-6, "distributed.worker.memory.spill": False}
    with (
        dask.config.set(spilling),
        local_cluster(2, memory_limit="2 GB") as cluster,
        distributed.Client(cluster) as client,
    ):
        X = make_ddf(M).persist()
        distributed.wait(X)
        start = time.perf_counter()
        found = make().fit(X).mixture_
        spilled = sum(client.run(lambda dask_worker: len(dask_worker.data.slow)).values())
        became = f"{spilled} results on disk at the end"
        seconds = time.perf_counter() - start
        yield Row("memory under pressure", 1, 1, became, seconds, same_bits(found, undisturbed()))


def nobody_there() -> Iterator[Row]:
    """No worker for 40 seconds, and no worker at all under Dask's own time limit."""
    start = time.perf_counter()
    with local_cluster(0) as cluster, distributed.Client(cluster), warnings.catch_warnings():
        helper = threading.Timer(40.0, cluster.scale, [1])
        helper.start()
        warnings.simplefilter("ignore")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = make().fit(make_ddf(M)).mixture_
        told = sum("no worker is connected" in str(w.message) for w in said)
    became = f"waited, {told} ClusterWarning after 30 s"
    seconds = time.perf_counter() - start
    yield Row("no worker for 40 seconds", 1, 1, became, seconds, same_bits(found, undisturbed()))
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "5 s"}),
        local_cluster(0) as cluster,
        distributed.Client(cluster),
    ):
        yield lost("no worker, no-workers-timeout of 5 seconds", lambda: make().fit(make_ddf(M)))


def lost(fault: str, function: Callable[[], object]) -> Row:
    """A fit that cannot have a result, and the error that it ends with."""
    start = time.perf_counter()
    try:
        function()
    except ClusterError:
        return Row(fault, 1, 0, "ClusterError", time.perf_counter() - start, None)
    return Row(fault, 1, 1, "unexpectedly a result", time.perf_counter() - start, None)


def lost_scheduler() -> Iterator[Row]:
    """The cluster or the client is closed while a partition is read."""
    for fault in ("cluster closed during the fit", "client closed during the fit"):
        with local_cluster(1) as cluster, distributed.Client(cluster) as client:
            end = cluster.close if fault.startswith("cluster") else client.close
            with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
                reader = WaitingReader(Path(folder), waiting=M - 2)

                def wait_and_end(reader: WaitingReader = reader, end: Callable = end) -> float:
                    reader.wait_for_process()
                    at = time.perf_counter()
                    end()
                    return at

                ended = pool.submit(wait_and_end)
                row = lost(fault, lambda reader=reader: make().fit(make_ddf(M, reader)))
                over = time.perf_counter()
                row.became += f", {over - ended.result():.1f} s after"
                reader.release()
        yield row


# -- the soak --------------------------------------------------------------------------------------


class LeftOver(NamedTuple):
    """Tasks that stay on the scheduler, objects of the package and megabytes in this process."""

    tasks: int
    objects: int
    megabytes: float


def soak(n_fits: int, every: float = 4.0) -> Iterator[Row]:
    """Run ``n_fits`` fits while a worker is killed every ``every`` seconds on average.

    After each tenth of the fits it counts what is left over on the scheduler and in this process.
    """
    expected, process = undisturbed(), psutil.Process()
    equal, survived, errors, counts, lines = 0, 0, [], [], []
    start = time.perf_counter()
    with (
        mortal_cluster(N_WORKERS) as cluster,
        distributed.Client(cluster) as client,
        RandomKiller(cluster, every) as killer,
    ):
        for k in range(n_fits):
            try:
                equal += same_bits(fit(), expected)
                survived += 1
            except Exception as error:  # counted: a soak goes on
                errors.append(f"{type(error).__name__}: {error}"[:200])
            if (k + 1) % max(1, n_fits // 10) == 0:
                gc.collect()
                found = LeftOver(
                    settled_tasks(cluster), count_ours(), process.memory_info().rss / 2**20
                )
                counts.append(found)
                lines.append(
                    f"{k + 1} fits, {killer.n_killed} kills; left: {found.tasks} tasks, {len(client.futures)} futures, "
                    f"{found.objects} objects of the package, {count_groups(cluster)} task groups in Dask's spans; "
                    f"{found.megabytes:.0f} MB, {time.perf_counter() - start:.0f} s"
                )
                print_progress(lines[-1])
    print_lines([*lines, *errors])
    early, late = counts[len(counts) // 5], counts[-1]
    became = (
        f"{killer.n_killed} workers killed; left over after a fifth of the fits and at the end: {early.tasks} and "
        f"{late.tasks} tasks, {early.objects} and {late.objects} objects of the package, "
        f"{early.megabytes:.0f} and {late.megabytes:.0f} MB"
    )
    seconds = time.perf_counter() - start
    yield Row("soak: kills at random", n_fits, survived, became, seconds, equal == n_fits)


def count_ours() -> int:
    """Objects of the package's classes in this process, which is client and scheduler."""
    return sum(str(type(found).__module__).startswith("dask_dfmr") for found in gc.get_objects())


def count_groups(cluster: distributed.LocalCluster) -> int:
    """Task groups that the spans of Dask's scheduler still list."""
    spans = cluster.scheduler.extensions["spans"].spans
    return sum(len(span.groups) for span in spans.values())


def settled_tasks(cluster: distributed.LocalCluster) -> int:
    """Tasks that are on the scheduler after at most five seconds of waiting."""
    for _ in range(100):
        if not cluster.scheduler.tasks:
            break
        time.sleep(0.05)
    return len(cluster.scheduler.tasks)


FAULTS: dict[str, Callable[[], Iterator[Row]]] = {
    "killed": killed_at_stages,
    "all killed": all_killed,
    "partitions": corrupted_partitions,
    "coming and going": coming_and_going,
    "memory": full_memory,
    "nobody": nobody_there,
    "scheduler": lost_scheduler,
}


def main() -> None:
    """Print the table; its rows also appear one by one as progress."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="words of: " + ", ".join(FAULTS))
    parser.add_argument("--soak", type=int, default=200, help="number of fits")
    arguments = parser.parse_args()
    faults = FAULTS | {"soak": lambda: soak(arguments.soak)}
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    rows = []
    with recorded(arguments):
        with contextlib.suppress(KeyboardInterrupt):
            for name, function in faults.items():
                if any(word in name for word in arguments.only):
                    for row in function():
                        rows.append(row.cells())
                        print_progress(*rows[-1])
        print_table(HEADER, rows)


if __name__ == "__main__":
    main()
