"""Consistent rows whose fit ended in a wrong optimum are gained by a refit; inconsistent rows are not."""

from dataclasses import replace

import dask
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.on_dask import refit
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.refit import REFIT_START, aggregate_with, fit_partitions, refit_excluded
from dask_dfmr.parameters import plan_of

TRUTH = Mixture(
    [0.4, 0.3, 0.3], [[0.0, 0.0], [20.0, 0.0], [20.0, 6.0]], np.repeat(np.eye(2)[None], 3, axis=0)
)
WRONG = Mixture(
    [0.2, 0.2, 0.6], [[-1.0, 0.0], [1.0, 0.0], [20.0, 3.0]], np.repeat(np.eye(2)[None], 3, axis=0)
)
M, N = 20, 300


def partitions(bad=()):
    rows = [TRUTH.sample(N, i)[0] for i in range(M)]
    for i in bad:
        rows[i] = rows[i] * [1.0, 1.3]
    return rows


def collection(rows, reads=None):
    def load(i):
        if reads is not None:
            reads.append(i)
        return rows[i]

    return [dask.delayed(load, pure=False)(i) for i in range(len(rows))]


def fitted_with_wrong_optima(wrong, bad=()):
    """A plan, and a fit of it in which some partitions sit in a wrong optimum."""
    plan = plan_of(GaussianMixture(3, random_state=0), collection(partitions(bad)))
    fit = read_first(plan)
    stuck = replace(plan, settings=replace(plan.settings, start=WRONG, given=None))
    elsewhere = dict(zip(wrong, fit_partitions(stuck, wrong), strict=True))
    spoiled = aggregate_with(plan, fit, elsewhere)
    assert spoiled is not None
    return plan, spoiled


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.smoke
def test_a_wrong_optimum_is_replaced():
    plan, spoiled = fitted_with_wrong_optima([3, 11])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 11]
    again = refit_excluded(plan, spoiled)
    assert again.aggregate.decision.kept.all()
    assert [again.rows[i]["start"] for i in (3, 11)] == [REFIT_START] * 2
    assert again.rows[3]["log_likelihood"] > spoiled.rows[3]["log_likelihood"]
    assert again.rows[4] == spoiled.rows[4]


@pytest.mark.smoke
def test_bad_rows_stay_out_and_their_first_estimate_stays():
    plan, spoiled = fitted_with_wrong_optima([3], bad=[7])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 7]
    again = refit_excluded(plan, spoiled)
    assert np.flatnonzero(~again.aggregate.decision.kept).tolist() == [7]
    assert again.estimates[7] == spoiled.estimates[7]


def test_who_cannot_be_won_back_changes_nothing():
    plan, spoiled = fitted_with_wrong_optima([], bad=[7])
    assert refit_excluded(plan, spoiled) is spoiled


def test_only_those_least_far_out_are_read_again(monkeypatch):
    monkeypatch.setattr(refit, "MOST_SHARE", 0.0)
    monkeypatch.setattr(refit, "LEAST", 1)
    reads = []
    rows = partitions(bad=[2, 9])
    rows[9] = rows[9] * 5.0
    GaussianMixture(3, random_state=0).fit(collection(rows, reads))
    counts = np.bincount(reads, minlength=M)
    plain = []
    GaussianMixture(3, random_state=0, refit_excluded=False).fit(collection(rows, plain))
    assert (counts - np.bincount(plain, minlength=M)).tolist() == [int(i == 2) for i in range(M)]


def test_nobody_left_out_means_no_reading():
    reads, plain = [], []
    GaussianMixture(3, random_state=0).fit(collection(partitions(), reads))
    GaussianMixture(3, random_state=0, refit_excluded=False).fit(collection(partitions(), plain))
    assert sorted(reads) == sorted(plain)


def test_estimates_that_were_not_kept_cannot_be_replaced():
    rows = partitions(bad=[2])
    gm = GaussianMixture(3, random_state=0, keep_estimates=False).fit(collection(rows))
    assert not gm.support_[2]


def test_it_is_yes_or_no():
    with pytest.raises(ValueError, match="refit_excluded must be one of True, False; got 'maybe'"):
        GaussianMixture(3, refit_excluded="maybe").fit(collection(partitions()))
