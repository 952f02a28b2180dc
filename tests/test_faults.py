"""What a cluster does to a fit: workers that are killed, hang, are full, leave or are not there; a lost scheduler."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dask
import distributed
import numpy as np
import pytest

from dask_dfmr import (
    ClusterError,
    ClusterWarning,
    GaussianMixture,
    PartitionWarning,
    select_components,
)
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.scheduling import cluster
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.scheduler import active_scheduler
from dask_dfmr.parameters import plan_of
from tests.conftest import local_cluster
from tests.data_makers import (
    Reader,
    WaitingReader,
    broken,
    make_ddf,
    renamed,
    same_bits,
)
from tests.killers import RandomKiller, kill, killing_at, mortal_cluster, pids

M = 8
BLOCK = 3
PILOTS = ["read_pilot", "pilot_scale", "fit_pilot", "shortlist"]
FITS = ["fit_partition", "report_rows"]
FILTER = [
    *("stack_estimates", "summary", "admit", "l2_tile", "coat_candidate", "coat_min"),
    *("l2_filter", "draw_estimates", "take_estimates", "join_estimates", "consensus"),
    *("consensus_distances", "judge"),
]
AT_ONCE = ["offer_start", "pick_start", "reduce", "finish"]
ROUNDS = ["offer_start", "pick_start", "assign_block", "tree_sum", "recenter", "finish"]
FOLLOW_UP = ["measure_partition", "add_measurements", "ask_readings"]


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0} | kwargs)


def fit_in_blocks(X=None, block_size=BLOCK, **kwargs):
    """With as many tasks as a fit of many partitions has."""
    plan = plan_of(make(**kwargs), make_ddf(M) if X is None else X)
    return read_first(replace(plan, block_size=block_size))


@pytest.fixture(scope="module")
def undisturbed():
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf(M)).mixture_


@pytest.fixture(scope="module")
def undisturbed_blocks():
    with dask.config.set(scheduler="synchronous"):
        return fit_in_blocks().aggregate.mixture


@pytest.fixture(scope="module")
def mortal():
    with mortal_cluster(3) as found:
        yield found


@pytest.fixture
def mortal_client(mortal):
    with distributed.Client(mortal) as client:
        client.wait_for_workers(3, timeout=60)
        yield client


@pytest.fixture(autouse=True)
def no_scheduler_left():
    """A client that lost its cluster may leave Dask configured for it."""
    yield
    try:
        distributed.Client.current()
    except ValueError:
        dask.config.set(scheduler=None)


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)


# -- workers that are killed -----------------------------------------------------------------------


class TestKilledAtAStage:
    def test_of_a_fit(self, mortal, mortal_client, undisturbed):
        with killing_at(mortal, ["read_pilot", "fit_partition", "l2_filter", "reduce"]) as killer:
            gm = make().fit(make_ddf(M))
        assert len(killer.killed) == 4
        assert same_bits(gm.mixture_, undisturbed)

    def test_when_results_are_in(self, mortal, mortal_client, undisturbed_blocks):
        with killing_at(mortal, ["fit_partition", "l2_tile", "recenter"], "memory") as killer:
            found = fit_in_blocks()
        assert len(killer.killed) == 3
        assert same_bits(found.aggregate.mixture, undisturbed_blocks)

    @pytest.mark.slow
    @pytest.mark.parametrize("when", ["processing", "memory"])
    def test_each_one_reduced_at_once(self, mortal, mortal_client, undisturbed, when):
        stages = {*PILOTS, *FITS, *FILTER, *AT_ONCE}
        with killing_at(mortal, stages, when) as killer:
            gm = make().fit(make_ddf(M))
        assert not killer.left
        assert same_bits(gm.mixture_, undisturbed)

    @pytest.mark.slow
    @pytest.mark.parametrize("when", ["processing", "memory"])
    def test_each_one_reduced_in_rounds(self, mortal, mortal_client, undisturbed_blocks, when):
        stages = {*PILOTS, *FITS, *FILTER, *ROUNDS}
        with killing_at(mortal, stages, when) as killer:
            found = fit_in_blocks()
        assert not killer.left
        assert same_bits(found.aggregate.mixture, undisturbed_blocks)

    @pytest.mark.slow
    @pytest.mark.parametrize("when", ["processing", "memory"])
    def test_each_one_of_a_refinement(self, mortal, mortal_client, when):
        with dask.config.set(scheduler="synchronous"):
            expected = make(refine=2).fit(make_ddf(M)).mixture_
        with killing_at(mortal, FOLLOW_UP, when) as killer:
            gm = make(refine=2).fit(make_ddf(M))
        assert not killer.left
        assert same_bits(gm.mixture_, expected)

    @pytest.mark.slow
    def test_each_one_of_a_selection(self, mortal, mortal_client):
        with dask.config.set(scheduler="synchronous"):
            expected = select_components(GaussianMixture(random_state=0), make_ddf(M), [1, 2])
        stages = {"read_pilot", "fit_pilot", "shortlist", "fit_candidates", "aggregate_candidate"}
        stages |= {"reduce_candidate", "measure_partition"}
        with killing_at(mortal, stages) as killer:
            found = select_components(GaussianMixture(random_state=0), make_ddf(M), [1, 2])
        assert not killer.left
        assert found.table.equals(expected.table)
        assert same_bits(found.estimator.mixture_, expected.estimator.mixture_)

    @pytest.mark.slow
    def test_at_random_over_and_over(self, mortal, mortal_client, undisturbed_blocks):
        with RandomKiller(mortal, every=1.0) as killer:
            while killer.n_killed < 20:
                assert same_bits(fit_in_blocks().aggregate.mixture, undisturbed_blocks)

    @pytest.mark.slow
    def test_all_at_once(self, mortal, mortal_client, undisturbed, tmp_path):
        reader = WaitingReader(tmp_path, waiting=M - 2)

        def kill_all():
            reader.wait_for_process()
            for pid in pids(mortal).values():
                kill(pid)
            reader.release()

        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_all)
            gm = make().fit(make_ddf(M, reader))
        killed.result()
        assert same_bits(gm.mixture_, undisturbed)


class TestDeadlyTasks:
    """With no failure allowed, every task on a dying worker is given up by Dask, innocent or not."""

    def test_innocent_ones_are_tried_again_and_an_aggregation_that_kills_is_an_error(self):
        with mortal_cluster(2, allowed_failures=0) as found, distributed.Client(found):
            values = active_scheduler().compute_each(
                {}, lambda g, i: g.add("one", i, deadly_two, i), 4
            )
            assert values[:2] + values[3:] == [0, 1, 3]
            assert isinstance(values[2], distributed.KilledWorker)
            g = GraphBuilder()
            with pytest.raises(ClusterError, match=r"workers died 3 times under.*dfmr_sum"):
                active_scheduler().fetch(g, [g.add("sum", 0, deadly_two, 2)])

    def test_tasks_that_were_given_up_are_renewed_under_other_keys(self, client):
        scheduler = active_scheduler()
        g = GraphBuilder()
        first = g.add("a", 0, abs, -3)
        total = g.add("b", (0, 1), sum, [first, g.add("a", 1, abs, -4)])
        held = scheduler.hold(g, [first])
        other, (renewed,) = g.renewed([total])
        assert not g.tasks.keys() & other.tasks.keys()
        assert scheduler.fetch(other, [renewed]) == [7]
        assert held[0].error is None

    @pytest.mark.slow
    def test_a_partition_that_fills_the_memory(self, undisturbed):
        """The nanny kills the worker."""
        config = {
            "distributed.worker.memory.terminate": 0.95,
            "distributed.worker.memory.pause": False,
        }
        with (
            mortal_cluster(2, allowed_failures=0, config=config, memory_limit="700MB") as found,
            distributed.Client(found),
            pytest.warns(PartitionWarning, match="partition 3: lost"),
        ):
            gm = make().fit(make_ddf(M, Reader({3: hungry})))
        report = gm.partition_report_
        assert report["outcome"].tolist() == ["fitted"] * 3 + ["lost"] + ["fitted"] * 4
        assert report["kept"].sum() == M - 1


def deadly_two(i):
    if i == 2:
        os._exit(1)
    return i


def hungry(frame):
    """Fill the memory slowly enough to be seen, and end some time."""
    held = []
    for _ in range(40):
        held.append(np.ones(50 * 2**17))
        time.sleep(0.1)
    raise OSError(f"{len(held)} x 50 MB were not enough")


# -- partitions ------------------------------------------------------------------------------------


class TestBadPartitions:
    def test_one_hangs_one_raises_one_has_another_schema(self, client, undisturbed):
        bad = {1: hanging, 2: broken, 5: renamed}
        with pytest.warns(PartitionWarning, match="3 of 8"):
            gm = make(partition_timeout=2).fit(make_ddf(M, Reader(bad)))
        outcomes = gm.partition_report_["outcome"]
        assert outcomes[[1, 2, 5]].tolist() == ["timed out", "failed", "other columns"]
        assert (outcomes.drop([1, 2, 5]) == "fitted").all()

    @pytest.mark.parametrize("scheduler", ["synchronous", "client"])
    def test_a_fault_of_a_pilot_task_is_raised_and_not_taken_for_a_death(
        self, client, monkeypatch, scheduler
    ):
        """Tasks take the function by reference: it is replaced by one that workers can import."""
        monkeypatch.setattr("dask_dfmr.on_dask.tasks.fit_pilot", faulty_fit)
        config = {"scheduler": "synchronous"} if scheduler == "synchronous" else {}
        with dask.config.set(config):
            with pytest.raises(ZeroDivisionError, match="a fault"):
                select_components(GaussianMixture(random_state=0), make_ddf(M), [1, 2])
            with pytest.raises(ZeroDivisionError, match="a fault"):
                make().fit(make_ddf(M))


def hanging(frame):
    time.sleep(120)
    return frame


def faulty_fit(*args):
    raise ZeroDivisionError("a fault")


# -- schedulers and workers that are not there -----------------------------------------------------


class TestLostScheduler:
    @pytest.fixture
    def reader(self, tmp_path):
        reader = WaitingReader(tmp_path, waiting=M - 2)
        yield reader
        reader.release()

    def fit_until(self, reader, end):
        """Fit, and end something as soon as a partition is being read."""
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(lambda: (reader.wait_for_process(), end()))
            try:
                with pytest.raises(ClusterError) as caught:
                    make().fit(make_ddf(M, reader))
            finally:
                reader.release()
            ended.result(timeout=60)
        return str(caught.value)

    def test_a_closed_cluster(self, reader):
        with local_cluster(1) as found, distributed.Client(found):
            text = self.fit_until(reader, found.close)
        assert "was lost" in text
        assert "fit again" in text
        assert "dfmr_read_pilot" in text

    def test_a_closed_client(self, reader):
        with local_cluster(1, processes=False) as found, distributed.Client(found) as client:
            assert "was lost" in self.fit_until(reader, client.close)

    def test_a_restarted_scheduler(self, reader):
        with local_cluster(1) as found, distributed.Client(found) as client:
            text = self.fit_until(reader, lambda: client.restart(wait_for_workers=False))
        assert "restarted" in text

    @pytest.mark.slow
    def test_a_killed_scheduler(self, reader, tmp_path):
        """A process of its own, as on a real cluster."""
        file = str(tmp_path / "scheduler.json")
        words = [*("--port", "0"), *("--scheduler-file", file), *("--dashboard-address", ":0")]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *words]
        scheduler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        worker = None
        try:
            with distributed.Client(scheduler_file=file, timeout=2) as client:
                command = [sys.executable, "-m", "distributed.cli.dask_worker", *words[2:4]]
                command += ["--nthreads", "1", "--no-nanny", "--death-timeout", "60"]
                worker = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                client.wait_for_workers(1, timeout=60)
                assert "was lost" in self.fit_until(reader, scheduler.kill)
        finally:
            for process in (scheduler, worker):
                if process is not None:
                    process.kill()
                    process.wait()

    def test_a_client_that_is_gone_before_the_fit(self):
        with (
            dask.config.set(scheduler="dask.distributed"),
            pytest.raises(ClusterError, match="no Client is connected"),
        ):
            make().fit(make_ddf(M))


class TestNobodyThere:
    def test_no_workers_are_said_and_waited_for(self, undisturbed, short_patience, caplog):
        with local_cluster(0, processes=False) as found, distributed.Client(found):
            helper = threading.Timer(1.0, found.scale, [1])
            helper.start()
            with (
                caplog.at_level(logging.WARNING, "dask_dfmr"),
                pytest.warns(ClusterWarning, match="dfmr_read_pilot.* no worker is connected"),
            ):
                gm = make().fit(make_ddf(M))
            helper.join()
        assert "no worker is connected" in caplog.text
        assert same_bits(gm.mixture_, undisturbed)

    def test_the_time_limit_is_the_schedulers(self):
        config = {"distributed.scheduler.no-workers-timeout": "200 ms"}
        with (
            dask.config.set(config),
            local_cluster(0, processes=False) as found,
            distributed.Client(found),
            pytest.raises(ClusterError, match="gave up waiting for workers"),
        ):
            make().fit(make_ddf(M))

    def test_paused_workers_are_said(self, short_patience):
        """Memory that is full from the start."""
        with (
            dask.config.set({"distributed.worker.memory.pause": 0.0001}),
            local_cluster(1, processes=False, memory_limit="1 GB") as found,
            distributed.Client(found),
        ):
            ender = threading.Timer(3.0, found.close)
            ender.start()
            with (
                pytest.warns(ClusterWarning, match=r"no worker takes tasks \(1 paused\)"),
                pytest.raises(ClusterError, match="was lost"),
            ):
                make().fit(make_ddf(M))
            ender.join()


class TestComingAndGoing:
    def test_workers_retire_and_others_come(self, mortal, mortal_client, undisturbed, tmp_path):
        reader = WaitingReader(tmp_path, waiting=M - 2)

        def exchange():
            reading = reader.wait_for_process()
            idle = [address for address, pid in pids(mortal).items() if pid != reading]
            mortal_client.retire_workers(idle[:1])
            mortal.scale(4)
            mortal_client.wait_for_workers(3, timeout=60)
            reader.release()

        with ThreadPoolExecutor(1) as pool:
            exchanged = pool.submit(exchange)
            gm = make().fit(make_ddf(M, reader))
        exchanged.result()
        assert same_bits(gm.mixture_, undisturbed)

    def test_data_on_disk_for_want_of_memory(self, undisturbed):
        config = {
            "distributed.worker.memory.target": 1e-6,
            "distributed.worker.memory.spill": False,
        }
        with (
            dask.config.set(config),
            local_cluster(1, memory_limit="1 GB") as found,
            distributed.Client(found) as client,
        ):
            X = make_ddf(M).persist()
            distributed.wait(X)
            assert sum(client.run(count_spilled).values()) > 0
            assert same_bits(make().fit(X).mixture_, undisturbed)


def count_spilled(dask_worker):
    return len(dask_worker.data.slow)


@pytest.mark.slow
def test_two_hundred_fits_leave_nothing_behind(undisturbed):
    """The short form of ``benchmarks/faults.py --only soak``, whose figures are in the README there."""
    with mortal_cluster(3) as found, distributed.Client(found), RandomKiller(found, every=5.0):
        for _ in range(30):
            assert same_bits(make().fit(make_ddf(M)).mixture_, undisturbed)
        for _ in range(100):
            if not found.scheduler.tasks:
                break
            time.sleep(0.1)
        assert not found.scheduler.tasks


def test_what_a_message_holds_that_is_no_message():
    for message in (None, 3, [1], object(), {1: 2}, {"n_samples": object()}, {"n_samples": "7"}):
        plain = tasks.as_plain(message, 4)
        assert (plain["outcome"], plain["partition"]) == ("failed", 4)
        assert "malformed estimate" in plain["reason"]
