"""``partition_timeout``: what a reader finds in its own thread, and what is left of a fit that is given up."""

from __future__ import annotations

import threading
import time

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from dask_dfmr import GaussianMixture, PartitionWarning, deadlines, select_components
from dask_dfmr.exceptions import OutOfTimeError
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.family import em_steps
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask.scheduling.timeouts import within
from tests.data_makers import Reader, make_ddf, make_frame, make_rows, same_bits

M = 4
LONG = "5 minutes"


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0, "partition_timeout": LONG} | kwargs)


class TestReaders:
    """A reader with a thread of its own finds what it would find in the thread of the task."""

    def outcomes(self, X, **kwargs):
        return make(**kwargs).fit(X).partition_report_["outcome"].tolist()

    @pytest.mark.parametrize("how", ["fit", "by sources", "selection", "refinement"])
    def test_behind_a_shuffle(self, client, how):
        frame = make_frame(n=200 * M).assign(key=np.arange(200 * M) % 97)
        shuffled = dd.from_pandas(frame, npartitions=M).shuffle("key")
        X = shuffled[["x", "y"]]
        if how == "by sources":
            X = shuffled[["x", "y"]].map_partitions(with_sensor)
            assert self.outcomes(X, source="sensor") == ["fitted"] * M
        elif how == "selection":
            found = select_components(
                GaussianMixture(random_state=0, partition_timeout=LONG), X, [1, 2]
            )
            assert found.n_components == 2
        else:
            assert self.outcomes(X, refine=int(how == "refinement")) == ["fitted"] * M

    @pytest.mark.parametrize("nested", ["compute", "worker_client", "get_client", "get_worker"])
    def test_that_compute_something_themselves(self, narrow, nested):
        """On the only thread of the only worker."""
        X = make_ddf(M, Reader(dict.fromkeys(range(M), globals()[f"with_{nested}"])))
        assert self.outcomes(X) == ["fitted"] * M
        assert narrow.submit(abs, -1).result(timeout=60) == 1
        assert [thread.name for thread in alive()] == []

    def test_that_compute_something_and_hang(self, narrow):
        """The thread that is given up has left the worker's pool; the pool is whole nevertheless."""
        X = make_ddf(6, Reader({1: hanging_after_compute}))
        released.clear()
        with pytest.warns(PartitionWarning, match="partition 1: timed out"):
            found = self.outcomes(X, partition_timeout=2.0, init_params="kmeans")
        assert found == ["fitted", "timed out", *["fitted"] * 4]
        released.set()
        assert wait_until(lambda: not alive())
        assert narrow.gather(narrow.map(abs, [-1, -2, -3])) == [1, 2, 3]

    def test_the_same_bits(self):
        with dask.config.set(scheduler="threads"):
            limited = make().fit(make_ddf(M)).mixture_
            assert same_bits(limited, make(partition_timeout=None).fit(make_ddf(M)).mixture_)

    def test_errors_are_raised_as_they_are(self):
        with pytest.raises(ZeroDivisionError):
            within(60, lambda: 1 / 0)
        with pytest.raises(
            OutOfTimeError, match=r"not done after partition_timeout = 0\.01 seconds"
        ):
            within(0.01, lambda: time.sleep(0.5))


class TestFitsThatAreGivenUp:
    @pytest.fixture
    def slow_passes(self, monkeypatch):
        """Passes over the rows of one size take some time; yields how many there were."""
        passes = []
        em_pass = Gaussian.em_pass

        def slow(self, X, weights, components):
            passes.append(threading.current_thread())
            time.sleep(0.02)
            return em_pass(self, X, weights, components)

        monkeypatch.setattr(Gaussian, "em_pass", slow)
        monkeypatch.setattr(Gaussian, "em_steps", em_steps)  # each of them is a pass
        return passes

    @pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
    def test_stop_computing(self, slow_passes, scheduler):
        X = make_rows(n=400)
        before = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}
        gm = make(partition_timeout=0.1, n_partitions=M, init_params="k-means++", tol=1e-300)
        with (
            dask.config.set(scheduler=scheduler),
            pytest.raises(ValueError, match="timed out: not done after partition_timeout"),
        ):
            gm.fit(X)
        n_passes = len(slow_passes)
        assert n_passes < 100
        time.sleep(0.1)
        assert len(slow_passes) == n_passes
        assert alive() == []
        assert {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()} == before

    def test_all_candidates_of_the_partition(self, slow_passes):
        gm = GaussianMixture(
            random_state=0, partition_timeout=0.1, init_params="k-means++", tol=1e-300
        )
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.raises(ValueError, match="timed out"),
        ):
            select_components(gm, make_ddf(M), [1, 2, 3])

    def test_the_limit_is_one_of_the_block(self):
        problem = LocalProblem(Gaussian(), 2)
        with deadlines.within(1e-9), pytest.raises(OutOfTimeError):
            problem.fit(make_rows(), "k-means++", random_state=0)
        assert problem.fit(make_rows(), "k-means++", random_state=0).is_usable


released = threading.Event()


def alive():
    return [thread for thread in threading.enumerate() if thread.name == "dfmr-partition"]


def wait_until(holds):
    for _ in range(200):
        if holds():
            return True
        time.sleep(0.05)
    return False


def with_sensor(frame):
    return frame.assign(sensor=np.arange(len(frame)) % M)


def with_compute(frame):
    return frame + 0.0 * len(make_ddf(2).compute(scheduler=distributed.get_client()))


def with_worker_client(frame):
    with distributed.worker_client() as client:
        return frame + client.submit(abs, 0.0).result()


def with_get_client(frame):
    client = distributed.get_client()
    zero = client.submit(abs, 0.0, pure=False)
    distributed.secede()
    found = frame + zero.result()
    distributed.rejoin()
    return found


def with_get_worker(frame):
    assert distributed.get_worker().address
    return frame


def hanging_after_compute(frame):
    distributed.secede()
    released.wait(60)
    distributed.rejoin()
    return frame
