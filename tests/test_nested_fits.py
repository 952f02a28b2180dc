"""Fits inside of tasks: they leave the threads of their worker to the tasks that they wait for.

Every worker has one thread, and there are at least as many fits as workers, so that a fit that held its thread would
wait for ever.
"""

from __future__ import annotations

import dask
import dask.dataframe as dd
import distributed
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV

from dask_dfmr import GaussianMixture, dfmr, select_components
from tests.data_makers import make_ddf, make_frame, same_bits

M = 4
TIMEOUT = 120


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0} | kwargs)


def fit(seed=0, **kwargs):
    return make(random_state=seed, **kwargs).fit(make_ddf(M)).mixture_


def fit_inside_worker_client(seed):
    with distributed.worker_client() as client:
        mixture = fit(seed)
        return mixture, client.submit(abs, -seed).result()


def fit_beside_get_client(seed):
    """The user's own waiting before and after a fit."""
    client = distributed.get_client()
    first = client.submit(abs, -seed, pure=False)
    mixture = fit(seed)
    distributed.secede()
    found = first.result()
    again = fit(seed)
    distributed.rejoin()
    return same_bits(mixture, again), found, fit(seed, verbose=1)


def fit_after_compute(seed):
    n_rows = len(make_ddf(M).compute())
    return fit(seed), n_rows


def fit_partition(frame):
    return pd.DataFrame({"k": [make(n_partitions=M).fit(frame).mixture_.n_components]})


def with_sensor(frame):
    return frame.assign(sensor=np.arange(len(frame)) % M)


def select(seed):
    X = make_ddf(M)
    found = select_components(GaussianMixture(random_state=seed), X, [1, 2])
    gm = make(refine=1, source="sensor").fit(X.map_partitions(with_sensor))
    later = make_ddf(2 * M).partitions[M:].map_partitions(with_sensor)
    return found.n_components, gm.update(later).n_partitions_


def fit_lazily(seed):
    return dfmr(GaussianMixture(2, random_state=seed), make_ddf(M)).compute().mixture


async def fit_on_the_event_loop():
    return fit()


@pytest.fixture(scope="module")
def alone():
    with dask.config.set(scheduler="synchronous"):
        return fit()


class TestOnOneThread:
    def test_a_submitted_fit(self, narrow, alone):
        assert same_bits(narrow.submit(fit).result(timeout=TIMEOUT), alone)
        assert narrow.submit(abs, -1).result(timeout=TIMEOUT) == 1  # the thread is there again

    def test_several_fits(self, narrow):
        found = narrow.gather(narrow.map(fit, range(3)))
        assert [mixture.n_components for mixture in found] == [2] * 3

    def test_delayed_fits(self, narrow):
        assert len(dask.compute(*(dask.delayed(fit)(seed) for seed in range(3)))) == 3

    def test_fits_of_partitions(self, narrow):
        X = dd.from_pandas(make_frame(n=800), npartitions=2)
        found = X.map_partitions(fit_partition, meta={"k": int}).compute()
        assert found["k"].tolist() == [2, 2]

    def test_inside_worker_client(self, narrow, alone):
        mixture, one = narrow.submit(fit_inside_worker_client, 0).result(timeout=TIMEOUT)
        assert (same_bits(mixture, alone), one) == (True, 0)

    def test_beside_the_users_own_waiting(self, narrow, alone):
        are_same, found, last = narrow.submit(fit_beside_get_client, 0).result(timeout=TIMEOUT)
        assert (are_same, found, same_bits(last, alone)) == (True, 0, True)

    def test_after_a_nested_compute(self, narrow, alone):
        mixture, n_rows = narrow.submit(fit_after_compute, 0).result(timeout=TIMEOUT)
        assert (same_bits(mixture, alone), n_rows) == (True, 200 * M)

    def test_all_that_waits(self, narrow):
        assert narrow.submit(select, 0).result(timeout=TIMEOUT) == (2, 2 * M)

    def test_a_lazy_fit(self, narrow, alone):
        assert same_bits(narrow.submit(fit_lazily, 0).result(timeout=TIMEOUT), alone)

    def test_a_coroutine_is_refused(self, narrow):
        """It would block the event loop of the worker."""
        with pytest.raises(RuntimeError, match="cannot wait on an asynchronous Client"):
            narrow.submit(fit_on_the_event_loop).result(timeout=TIMEOUT)


class TestOnProcesses:
    def test_more_fits_than_workers(self, client, alone):
        found = client.gather(client.map(fit, [0, 1, 2]))
        assert same_bits(found[0], alone)

    def test_a_grid_search(self, client):
        X = make_frame(n=600).to_numpy()
        with joblib.parallel_config(backend="dask"):
            search = GridSearchCV(make(n_partitions=M), {"n_components": [1, 2]}, cv=2).fit(X)
        assert search.best_params_ == {"n_components": 2}
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
