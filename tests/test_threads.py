"""Fits in several threads of one process: nothing that belongs to the process is changed, or it is changed safely."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.dataframe as dd
import pytest
from dask.callbacks import Callback
from threadpoolctl import threadpool_info, threadpool_limits

from dask_dfmr import GaussianMixture, dfmr, mix_partitions
from dask_dfmr.mixtures import engine
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from tests.data_makers import make_ddf, same_bits, write_parquet

M = 6


def interleaved(first, second):
    """Run two context managers in two threads: the second one is entered inside of the first, and left after it."""
    inner, outer = threading.Event(), threading.Event()

    def run_first():
        with first:
            inner.set()
            assert outer.wait(30)

    def run_second():
        assert inner.wait(30)
        with second:
            outer.set()
            thread.join(30)

    thread = threading.Thread(target=run_first)
    other = threading.Thread(target=run_second)
    for one in (thread, other):
        one.start()
    for one in (thread, other):
        one.join(60)


class TestConfiguration:
    @pytest.fixture
    def projected(self, tmp_path):
        """Partitions of which Dask would merge several, because few of their columns are left."""
        write_parquet(tmp_path, M, n_more_columns=28)
        return dd.read_parquet(tmp_path)[["x", "y"]] * 1.0

    @pytest.fixture
    def fixed_configuration(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("Dask's configuration belongs to the process")

        monkeypatch.setattr(dask.config, "set", refuse)

    @pytest.mark.usefixtures("fixed_configuration")
    def test_plans_do_not_change_it(self, projected):
        dfmr(GaussianMixture(2), projected)
        mix_partitions(projected, 0)

    @pytest.mark.usefixtures("fixed_configuration")
    def test_fits_do_not_change_it(self, projected):
        assert GaussianMixture(2, random_state=0).fit(projected).n_partitions_ == M

    def test_mixing_keeps_the_number_of_partitions(self, projected):
        assert mix_partitions(projected, 0).npartitions == M


class TestEngine:
    def test_every_thread_has_its_own(self):
        before, found = engine.name(), {}
        barrier = threading.Barrier(2)

        def use(name):
            with engine.use(name):
                barrier.wait(30)
                found[name] = engine.name()
                barrier.wait(30)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(use, ["numpy", "numba"]))
        assert found == {"numpy": "numpy", "numba": "numba"}
        assert engine.name() == before

    @pytest.mark.parametrize("names", [("numpy", "numba"), ("numba", "numpy")])
    def test_whoever_leaves_first(self, names):
        before = engine.name()
        interleaved(*map(engine.use, names))
        assert engine.name() == before

    def test_threads_of_a_scheduler_take_it_over(self):
        with engine.use("numpy"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(engine.name).result() == "numpy"

    def test_fits_at_once(self):
        """Each fit has the bits that its own engine gives."""
        X = make_ddf(M)

        def fit(name):
            with engine.use(name):
                return GaussianMixture(2, random_state=0).fit(X).mixture_

        with dask.config.set(scheduler="synchronous"):
            alone = {name: fit(name) for name in ("numpy", "numba")}
            with ThreadPoolExecutor(2) as pool:
                both = dict(zip(alone, pool.map(fit, alone), strict=True))
        assert all(same_bits(both[name], alone[name]) for name in alone)


def blas_threads():
    return {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}


@pytest.mark.usefixtures("several_blas_threads")
class TestBlas:
    def test_whoever_leaves_first(self):
        before = blas_threads()
        interleaved(single_threaded_blas(), single_threaded_blas())
        assert blas_threads() == before

    def test_openmp_of_the_thread_that_left_last(self):
        """The number of OpenMP's threads belongs to each thread."""
        inside = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            before = pool.submit(blas_threads).result()

            def enter():
                with single_threaded_blas():
                    assert inside.wait(30)
                return blas_threads()

            first = pool.submit(enter)
            with single_threaded_blas():
                inside.set()
                first.result(timeout=30)
            assert pool.submit(blas_threads).result() == before

    def test_a_number_that_somebody_sets_meanwhile_stays(self):
        with single_threaded_blas():
            limits = threadpool_limits(3, user_api="blas")
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {3}
        limits.unregister()

    def test_one_thread_after_another(self):
        """The first thread lives on while the second one is inside, and the user sets a number after both."""

        def inside():
            with single_threaded_blas():
                return {
                    lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
                }

        before = blas_threads()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(inside).result() == {1}
            assert inside() == {1}
            assert blas_threads() == before
            with threadpool_limits(3, user_api="blas"):
                assert set(blas_threads().values()) >= {3}
            assert blas_threads() == before

    def test_an_error_on_the_way(self):
        before = blas_threads()
        with pytest.raises(KeyboardInterrupt), single_threaded_blas():
            raise KeyboardInterrupt
        assert blas_threads() == before


def test_progress_is_that_of_the_fit_alone():
    """The tasks of one fit are counted, not those that other threads compute, and no callback is left behind."""
    other = dask.delayed(abs)(-1)
    seen = []

    class Spy(Callback):
        def _start(self, dsk):
            seen.append(set(Callback.active))

    with dask.config.set(scheduler="synchronous"), Spy():
        GaussianMixture(2, random_state=0, verbose=1).fit(make_ddf(M))
        other.compute()
    assert Callback.active == set()
    assert len(seen) == 2  # the callbacks of the user go on
