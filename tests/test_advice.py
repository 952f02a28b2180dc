"""What warnings advise has an effect: each argument is used, and the warning is gone or the fit better."""

import warnings

import dask
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import (
    FilterWarning,
    GaussianMixture,
    HeterogeneityWarning,
    Mixture,
    aggregate,
    fit_local,
)

TRUTH = Mixture([0.6, 0.4], [[0.0, 0.0], [8.0, 8.0]], [np.eye(2), np.eye(2)])


def partitions_of(sizes=(300,) * 8):
    return [TRUTH.sample(n, random_state=i)[0] for i, n in enumerate(sizes)]


def make(**parameters):
    return GaussianMixture(**{"n_components": 2, "random_state": 0} | parameters)


def said(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [(w.category, str(w.message)) for w in found]


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def test_raise_max_iter_or_loosen_tol():
    X = partitions_of()
    with pytest.warns(ConvergenceWarning, match="raise max_iter or loosen tol"):
        make(max_iter=2).fit(X)
    assert said(lambda: make(max_iter=100).fit(X)) == []
    assert said(lambda: make(max_iter=2, tol=1.0).fit(X)) == []


def test_equal_weights():
    X = partitions_of((300,) * 7 + (1200,))
    with pytest.warns(FilterWarning, match="use machine_weights='equal'"):
        make().fit(X)
    assert said(lambda: make(machine_weights="equal").fit(X)) == []


def test_divide_it():
    X = np.concatenate(partitions_of())
    with pytest.warns(FilterWarning, match=r"Divide it with n_partitions=8.*method='mr'"):
        make().fit(X)
    assert said(lambda: make(n_partitions=8).fit(X)) == []
    assert said(lambda: make(method="mr").fit(X)) == []


def test_more_rounds():
    estimates = [fit_local(X, 2, random_state=0) for X in partitions_of()]
    with pytest.warns(ConvergenceWarning, match=r"raise max_rounds: aggregate\(estimates, max_r"):
        aggregate(estimates, max_rounds=1)
    assert said(lambda: aggregate(estimates, max_rounds=100)) == []


class TestMoreStarts:
    def test_they_improve_the_fit(self):
        """Of 24 clusters, the starts of ``n_init=1`` do not find the best optimum."""
        rng = np.random.default_rng(6)
        means = rng.normal(0, 4, (24, 2))
        X = rng.permutation(np.concatenate([rng.normal(m, 0.6, (40, 2)) for m in means]))
        fits = [
            make(n_components=24, n_init=n, check_optimum=None, method="mr").fit(X) for n in (1, 3)
        ]
        few, more = (gm.score(X) for gm in fits)
        assert more > few

    def test_they_are_not_advised_for_one_component(self):
        """One component has one optimum, and there is no smaller number."""
        rng = np.random.default_rng(0)
        X = [rng.normal(3.0 * (i % 3 == 0), 1, (300, 2)) for i in range(12)]
        texts = [text for _, text in said(lambda: make(n_components=1).fit(X))]
        assert any("mix_partitions" in text for text in texts)
        assert not [text for text in texts if "n_init" in text or "fewer components" in text]
        with pytest.warns(HeterogeneityWarning, match=r"more starts \(n_init, if none is given\)"):
            make().fit(X)
