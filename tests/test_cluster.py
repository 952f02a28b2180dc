"""Real worker processes: deaths, leftovers, and which scheduler is used."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import distributed
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import AggregationError, GaussianMixture, dfmr, select_components
from tests.conftest import local_cluster
from tests.data_makers import (
    TRUTH,
    Reader,
    WaitingReader,
    deadly,
    make_array,
    make_ddf,
    make_rows,
    other_unit,
    same_bits,
)
from tests.killers import mortal_cluster
from tests.test_by_column import make_x

# Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")

M = 8


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0, "on_failed": "ignore"} | kwargs)


@pytest.fixture(scope="module")
def undisturbed():
    """What every fit here should give, to the last bit."""
    with dask.config.set(scheduler="synchronous"):
        return {
            init_params: make(init_params=init_params).fit(make_ddf(M))
            for init_params in ("pilot", "kmeans")
        }


@pytest.fixture(scope="module")
def doomed_cluster():
    """Two worker processes that may be killed; a task that has lost two of them is given up."""
    with mortal_cluster(2, allowed_failures=1) as cluster:
        yield cluster


@pytest.fixture
def doomed_client(doomed_cluster):
    with distributed.Client(doomed_cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def count_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


def assert_nothing_left(client):
    for _ in range(200):
        n_tasks = client.run_on_scheduler(count_tasks)
        if n_tasks == 0:
            return
        time.sleep(0.05)
    pytest.fail(f"{n_tasks} tasks are left on the scheduler")


def fail(*args):
    raise ZeroDivisionError("a fault")


class TestDeaths:
    @pytest.mark.parametrize("init_params", ["pilot", "kmeans"])
    def test_a_killed_worker_changes_nothing(
        self, doomed_client, undisturbed, tmp_path, init_params
    ):
        reader = WaitingReader(tmp_path, waiting=M - 2)

        def kill_the_reader():
            pid = reader.wait_for_process()
            os.kill(pid, signal.SIGKILL)
            reader.release()
            return pid

        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_the_reader)
            gm = make(init_params=init_params).fit(make_ddf(M, reader))
        assert killed.result() != os.getpid()
        expected = undisturbed[init_params]
        pd.testing.assert_frame_equal(gm.partition_report_, expected.partition_report_)
        assert same_bits(gm.mixture_, expected.mixture_)
        for mine, other in zip(gm.estimates_, expected.estimates_, strict=True):
            assert mine.mixture == other.mixture

    def test_a_killed_worker_that_held_data_in_memory(self, doomed_client, undisturbed):
        X = make_ddf(M).compute()
        for pid in doomed_client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)
            gm = make(n_partitions=M).fit(X)
            assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)

    @pytest.mark.slow  # workers die and are restarted many times over; Dask's nanny may give one up
    @pytest.mark.parametrize("init_params", ["pilot", "kmeans"])
    def test_a_deadly_partition_is_lost_and_the_others_are_fitted(self, doomed_client, init_params):
        X = make_ddf(M, Reader({2: deadly}))
        gm = make(init_params=init_params).fit(X)
        report = gm.partition_report_
        assert report["outcome"].tolist() == ["fitted"] * 2 + ["lost"] + ["fitted"] * (M - 3)
        assert "KilledWorker" in report["reason"][2]
        assert gm.estimates_[2].outcome.value == "lost"
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)
        assert_nothing_left(doomed_client)

    @pytest.mark.slow
    def test_a_deadly_partition_is_a_machine_beside_the_sources(self, doomed_client):
        gm = make(source="sensor").fit(make_x(bad={2: deadly}))
        report = gm.partition_report_
        assert report["outcome"].tolist() == ["fitted"] * 8 + ["failed"]
        assert report["source"].iloc[-1] == "partition 2"
        assert "KilledWorker" in report["reason"].iloc[-1]
        assert_nothing_left(doomed_client)

    @pytest.mark.slow
    def test_nothing_but_deadly_partitions(self, doomed_client):
        with pytest.raises(AggregationError, match="none of the 1") as caught:
            make().fit(make_ddf(1, Reader({0: deadly})))
        assert caught.value.report["outcome"].tolist() == ["lost"]


@pytest.fixture
def interruptible():
    """A shell lets what it starts in the background ignore SIGINT, and Python keeps that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TestLeftovers:
    @pytest.mark.smoke
    def test_nothing_is_left_on_the_scheduler(self, client):
        gm = make().fit(make_ddf(M, Reader({2: other_unit})))
        assert_nothing_left(client)
        assert len(gm.estimates_) == M

    def test_nothing_is_left_of_data_in_memory(self, client):
        make(n_partitions=4).fit(make_rows())
        assert_nothing_left(client)

    def test_nothing_is_left_after_an_error(self, client):
        with pytest.raises(AggregationError):
            make(min_partition_rows=1000).fit(make_ddf(4))
        gc.collect()  # an error and its traceback are a circle
        assert_nothing_left(client)

    @pytest.mark.parametrize(
        "work",
        [
            lambda X: make().fit(X),
            lambda X: make(source="x").fit(X),
            lambda X: select_components(make(), X, [1, 2]),
        ],
        ids=["fit", "sources", "selection"],
    )
    @pytest.mark.usefixtures("interruptible")
    def test_nothing_is_left_after_an_interrupt(self, client, tmp_path, work):
        """Interactive sessions keep the traceback, as pytest does here."""
        reader = WaitingReader(tmp_path, waiting=M - 1)
        X = make_ddf(M, reader)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: (reader.wait_for_process(), signal.raise_signal(signal.SIGINT)))
            with pytest.raises(KeyboardInterrupt) as caught:
                work(X)
        reader.release()
        assert_nothing_left(client)
        assert caught.tb is not None

    def test_nothing_is_left_after_an_error_of_a_later_pass(self, client, monkeypatch):
        """Frames in the traceback hold what lies on the workers."""
        monkeypatch.setattr("dask_dfmr.on_dask.refine.em_passes.refine", fail)
        with pytest.raises(ZeroDivisionError) as caught:
            make(refine=1, n_partitions=M).fit(make_ddf(M).compute())
        assert_nothing_left(client)
        assert caught.tb is not None

    def test_nothing_is_left_of_a_lazy_result(self, client):
        result = dfmr(GaussianMixture(2), make_ddf(M), block_size=3).compute()
        assert result.decision.n_estimates == M
        assert_nothing_left(client)

    def test_persisted_data_stay(self, client):
        X = make_ddf(M).persist()
        make().fit(X)
        assert len(X.compute()) == M * 200
        del X
        assert_nothing_left(client)


class TestWhichScheduler:
    @pytest.mark.smoke
    def test_an_active_client_is_used(self, client, undisturbed, tmp_path):
        gm = make().fit(make_ddf(M, ProcessReader(tmp_path)))
        assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()}
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)

    @pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
    def test_another_scheduler_is_honoured(self, client, undisturbed, tmp_path, scheduler):
        with dask.config.set(scheduler=scheduler):
            gm = make().fit(make_ddf(M, ProcessReader(tmp_path)))
        assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)

    def test_predictions_honour_it_too(self, client, undisturbed, tmp_path):
        with dask.config.set(scheduler="synchronous"):
            undisturbed["pilot"].score(make_ddf(2, ProcessReader(tmp_path)))
        assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]

    def test_inside_with_client(self, cluster, undisturbed):
        with distributed.Client(cluster):
            gm = make().fit(make_ddf(M))
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)

    def test_a_client_that_is_not_the_default(self, cluster, undisturbed, tmp_path):
        X = make_ddf(M, ProcessReader(tmp_path))
        with distributed.Client(cluster, set_as_default=False):
            make().fit(X)
        assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]

    def test_such_a_client_can_be_asked_for(self, cluster, undisturbed, tmp_path):
        X = make_ddf(M, ProcessReader(tmp_path))
        with distributed.Client(cluster, set_as_default=False) as client:
            with dask.config.set(scheduler=client):
                gm = make().fit(X)
            with client.as_current():
                again = make().fit(X)
        assert str(os.getpid()) not in {path.name for path in tmp_path.iterdir()}
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)
        assert same_bits(again.mixture_, undisturbed["pilot"].mixture_)

    @pytest.mark.smoke
    def test_lazy_graph_on_a_client(self, client, undisturbed):
        result = dfmr(GaussianMixture(2, random_state=0), make_ddf(M))
        expected = undisturbed["pilot"].mixture_
        assert same_bits(result.compute().mixture, expected)
        assert same_bits(client.compute(result).result().mixture, expected)

    def test_workers_without_processes(self, undisturbed):
        with local_cluster(2, processes=False) as cluster, distributed.Client(cluster):
            gm = make().fit(make_ddf(M))
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)

    def test_several_threads_at_once(self, client, undisturbed):
        expected = undisturbed["pilot"].mixture_
        with ThreadPoolExecutor(3) as pool:
            fits = [pool.submit(make().fit, make_ddf(M)) for _ in range(3)]
            assert all(same_bits(fit.result().mixture_, expected) for fit in fits)

    def test_an_asynchronous_client_is_refused(self, cluster):
        async def fit():
            async with distributed.Client(cluster.scheduler_address, asynchronous=True):
                with pytest.raises(RuntimeError, match="dfmr"):
                    make().fit(make_ddf(M))

        asyncio.run(fit())

    def test_what_the_refusal_proposes_works(self, cluster, undisturbed):
        async def compute():
            async with distributed.Client(cluster.scheduler_address, asynchronous=True) as client:
                return await client.compute(dfmr(GaussianMixture(2, random_state=0), make_ddf(M)))

        result = asyncio.run(compute())
        assert same_bits(result.mixture, undisturbed["pilot"].mixture_)

    def test_inside_a_task(self, client, undisturbed):
        """A fit that is itself a task runs where it is, and does not wait for its own worker."""
        gm = client.submit(fit_with_threads).result(timeout=60)
        assert same_bits(gm.mixture_, undisturbed["pilot"].mixture_)


class TestPersisted:
    def test_frames(self, client, undisturbed):
        X = make_ddf(M).persist()
        assert same_bits(make().fit(X).mixture_, undisturbed["pilot"].mixture_)

    def test_arrays(self, client, undisturbed):
        X = make_array(M).persist()
        assert same_bits(make().fit(X).mixture_, undisturbed["pilot"].mixture_)

    def test_delayed(self, client, undisturbed):
        X = list(dask.persist(*make_ddf(M).to_delayed()))
        assert same_bits(make().fit(X).mixture_, undisturbed["pilot"].mixture_)

    @pytest.mark.parametrize("make_x", [make_ddf, make_array], ids=["frame", "array"])
    def test_an_operation_on_persisted_data(self, client, undisturbed, make_x):
        X = (make_x(M) / 2).persist() * 2
        assert same_bits(make().fit(X).mixture_, undisturbed["pilot"].mixture_)

    def test_predictions_of_persisted_arrays(self, client, undisturbed):
        X = make_array(M).persist()
        gm = make().fit(make_array(M))
        np.testing.assert_array_equal(gm.predict(X), gm.predict(X.compute()))

    def test_lazily(self, client, undisturbed):
        result = dfmr(GaussianMixture(2, random_state=0), make_ddf(M).persist()).compute()
        assert same_bits(result.mixture, undisturbed["pilot"].mixture_)

    def test_lost_persisted_data_are_computed_again(self, doomed_client, undisturbed):
        X = make_ddf(M).persist()
        distributed.wait(X)
        os.kill(next(iter(doomed_client.run(os.getpid).values())), signal.SIGKILL)
        assert same_bits(make().fit(X).mixture_, undisturbed["pilot"].mixture_)


def fit_with_threads():
    with dask.config.set(scheduler="threads"):
        return make().fit(make_ddf(M))


class ProcessReader(Reader):
    """Leaves a file named after the process that reads."""

    def __init__(self, folder):
        super().__init__({})
        self.folder = str(folder)

    def __call__(self, i):
        with open(os.path.join(self.folder, str(os.getpid())), "w"):
            pass
        return super().__call__(i)
