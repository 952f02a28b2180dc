"""The order of the components is that of a start that the user gave, on every path; a label keeps its meaning."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, Mixture, aggregate, dfmr, fit_local, select_components
from dask_dfmr.aggregation.order import in_order_of
from dask_dfmr.local.starts import GivenStart
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.refit import aggregate_with
from dask_dfmr.parameters import plan_of

MEANS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
"""Neither by increasing nor by decreasing weight."""

UNIT = np.array([np.eye(2)] * 3)
WEIGHTS = [0.3, 0.5, 0.2]
M = 6


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def make_rows(seed, weights=WEIGHTS, n=300, shift=0.0):
    return np.random.default_rng(seed).permutation(
        Mixture(weights, MEANS + shift, UNIT).sample(n, seed)[0]
    )


def make_array(seed=0, m=M, **kwargs):
    rows = [make_rows(seed + i, **kwargs) for i in range(m)]
    return da.from_array(np.concatenate(rows), chunks=(len(rows[0]), 2))


def make(**kwargs):
    return GaussianMixture(3, **{"random_state": 0} | kwargs)


ORDERS = ([0, 1, 2], [2, 0, 1], [1, 2, 0])

STARTS = {
    "means": lambda o: {"means_init": MEANS[o] + 1.0},
    "means and precisions": lambda o: {"means_init": MEANS[o], "precisions_init": UNIT},
    "everything": lambda o: {
        "weights_init": np.ones(3) / 3,
        "means_init": MEANS[o],
        "precisions_init": UNIT,
    },
    "mixture": lambda o: {"init_params": Mixture(np.ones(3) / 3, MEANS[o], UNIT)},
}

PATHS = {
    "fit": {},
    "refined": {"refine": 1},
    "checked": {"check_optimum": 1},
    "componentwise": {"method": "componentwise"},
    "center": {"method": "coat"},
    "hardened": {"method": "hardened"},
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_start(start, order):
    gm = make(**STARTS[start](order)).fit(make_array())
    np.testing.assert_allclose(gm.means_, MEANS[order], atol=0.3)
    for estimate in gm.estimates_:
        np.testing.assert_allclose(estimate.mixture.means, MEANS[order], atol=0.8)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("start", ["means", "mixture"])
def test_every_path(path, start):
    order = [2, 0, 1]
    gm = make(**STARTS[start](order), **PATHS[path]).fit(make_array())
    np.testing.assert_allclose(gm.means_, MEANS[order], atol=0.3)


@pytest.mark.parametrize("start", ["means", "mixture"])
def test_lazily(start):
    lazy = dfmr(make(**STARTS[start]([2, 0, 1])), make_array()).compute()
    np.testing.assert_allclose(lazy.mixture.means, MEANS[[2, 0, 1]], atol=0.3)


def test_without_a_start_by_weight():
    np.testing.assert_allclose(make().fit(make_array()).means_, MEANS[[1, 0, 2]], atol=0.3)


def test_every_refit_of_a_day():
    """The weights change from day to day, and what a label means does not."""
    gm = make(warm_start=True).fit(make_array())
    first = gm.means_
    for day, weights in enumerate(([0.2, 0.2, 0.6], [0.6, 0.2, 0.2]), 1):
        gm.fit(make_array(100 * day, weights=weights, shift=0.1 * day))
        np.testing.assert_allclose(gm.means_, first + 0.1 * day, atol=0.3)


def test_new_partitions():
    gm = make(**STARTS["means"]([2, 0, 1])).fit(make_array())
    gm.update(make_array(50, m=2))
    np.testing.assert_allclose(gm.means_, MEANS[[2, 0, 1]], atol=0.3)


def test_a_better_optimum_keeps_the_order():
    """Two components of the start share the cluster with the least weight, which stays with one of them."""
    means = [[1.0, 9.0], [-1.0, 7.0], [3.5, 0.0]]
    start = Mixture(np.ones(3) / 3, means, UNIT)
    gm = make(init_params=start, check_optimum=1).fit(make_array(n=1000))
    assert gm.n_optimum_changes_ == 1
    assert np.linalg.norm(gm.means_ - MEANS[2], axis=1).argmin() < 2


def test_estimates_that_are_aggregated_again_keep_the_order():
    order = [2, 0, 1]
    gm = make(**STARTS["mixture"](order))
    fit = read_first(plan := plan_of(gm, make_array()))
    again = aggregate_with(plan, fit, {0: fit.estimates[0]})
    np.testing.assert_allclose(again.aggregate.mixture.means, MEANS[order], atol=0.3)
    aggregate = gm.fit(make_array()).aggregate_
    for other in (aggregate.without([0]), aggregate.with_rho(5.0)):
        np.testing.assert_allclose(other.mixture.means, MEANS[order], atol=0.3)


def test_a_selection_that_continues():
    gm = make(**STARTS["means"]([2, 0, 1])).fit(make_array())
    gm.set_params(warm_start=True, means_init=None)
    found = select_components(gm, make_array(50), [2, 3])
    assert found.n_components == 3
    np.testing.assert_allclose(found.mixture.means, MEANS[[2, 0, 1]], atol=0.3)


def test_reasons_follow():
    """A reason names a component by its label in the result."""
    X = make_array().compute()
    X[:300][X[:300, 0] > 4] += [0.0, 2.0]  # the component at (8, 0) of the first partition
    for order in ORDERS:
        gm = make(method="componentwise", means_init=MEANS[order])
        gm.fit(da.from_array(X, chunks=(300, 2)))
        k = order.index(1)
        assert f"component {k} is " in gm.partition_report_["reason"][0]
        assert not gm.aggregate_.decision.components.kept[0, k]


def aggregate_of(order):
    estimates = [fit_local(make_rows(i), 3, start=Mixture(WEIGHTS, MEANS, UNIT)) for i in range(M)]
    return in_order_of(aggregate(estimates), order)


@pytest.mark.parametrize("shift", [0.0, 30.0, -300.0])
def test_means_are_matched_whatever_their_common_shift(shift):
    found = aggregate_of(GivenStart(means=MEANS[[2, 0, 1]] + shift))
    np.testing.assert_allclose(found.mixture.means, MEANS[[2, 0, 1]], atol=0.3)


@pytest.mark.parametrize("start", [None, GivenStart(), Mixture([0.5, 0.5], MEANS[:2], UNIT[:2])])
def test_nothing_to_match(start):
    np.testing.assert_allclose(aggregate_of(start).mixture.means, MEANS[[1, 0, 2]], atol=0.3)
