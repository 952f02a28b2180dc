"""Good rows whose fit ended in a wrong optimum are won back; bad rows are not."""

import dask
import dask.array as da
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.on_dask import refit as second_look
from dask_dfmr.on_dask.fit import run
from dask_dfmr.on_dask.refit import FROM_THE_OTHERS, look_again
from dask_dfmr.parameters import build_pipeline

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

    blocks = [
        da.from_delayed(dask.delayed(load, pure=False)(i), (N, 2), float) for i in range(len(rows))
    ]
    return da.concatenate(blocks)


def fitted_with_wrong_optima(wrong, bad=()):
    """A result in which some partitions sit in a wrong optimum, and the pipeline it came from."""
    gm = GaussianMixture(3, random_state=0, refit_excluded=False)
    parameters = gm.get_params(deep=False)
    for name in ("on_failed", "keep_estimates", "warm_start", "verbose"):
        parameters.pop(name)
    for name in ("refit_excluded", "check_optimum", "refine"):
        parameters.pop(name)
    pipeline = build_pipeline(
        collection(partitions(bad)), **parameters, n_starts=1, block_size=None
    )
    result = run(pipeline)
    settings = pipeline.settings
    stuck = second_look.replace(settings, start=WRONG, given=None)
    elsewhere = second_look._fit_again(
        second_look.replace(pipeline, settings=stuck),
        wrong,
        second_look.replace(result, aggregate=second_look.replace(result.aggregate, mixture=WRONG)),
        0,
    )
    spoiled = second_look._aggregate_with(pipeline, result, elsewhere)
    assert spoiled is not None
    return pipeline, spoiled


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.smoke
def test_a_wrong_optimum_is_replaced():
    pipeline, spoiled = fitted_with_wrong_optima([3, 11])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 11]
    again = look_again(pipeline, spoiled)
    assert again.aggregate.decision.kept.all()
    assert [again.rows[i]["start"] for i in (3, 11)] == [FROM_THE_OTHERS] * 2
    assert again.rows[3]["log_likelihood"] > spoiled.rows[3]["log_likelihood"]
    assert again.rows[4] == spoiled.rows[4]


@pytest.mark.smoke
def test_bad_rows_stay_out_and_their_first_estimate_stays():
    pipeline, spoiled = fitted_with_wrong_optima([3], bad=[7])
    assert np.flatnonzero(~spoiled.aggregate.decision.kept).tolist() == [3, 7]
    again = look_again(pipeline, spoiled)
    assert np.flatnonzero(~again.aggregate.decision.kept).tolist() == [7]
    assert again.estimates[7] == spoiled.estimates[7]


def test_who_cannot_be_won_back_changes_nothing():
    pipeline, spoiled = fitted_with_wrong_optima([], bad=[7])
    assert look_again(pipeline, spoiled) is spoiled


def test_only_those_least_far_out_are_read_again(monkeypatch):
    monkeypatch.setattr(second_look, "MOST_SHARE", 0.0)
    monkeypatch.setattr(second_look, "LEAST", 1)
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
    with pytest.raises(ValueError, match="second_look must be one of True, False; got 'maybe'"):
        GaussianMixture(3, refit_excluded="maybe").fit(collection(partitions()))
