"""Rows that come along with the estimates: which ones, that they are checked, and that nothing else holds them."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from dask_dfmr import GaussianMixture
from dask_dfmr.on_dask import first_read
from dask_dfmr.on_dask.first_read import read_first
from dask_dfmr.on_dask.tasks import ROW_SAMPLE, as_plain, sampled_rows
from dask_dfmr.parameters import plan_of
from tests.data_makers import make_rows


def fit_of(parts, **kwargs):
    with dask.config.set(scheduler="synchronous"):
        return read_first(plan_of(GaussianMixture(2, random_state=0, **kwargs), parts))


def as_delayed(parts):
    return [dask.delayed(rows) for rows in parts]


@pytest.mark.smoke
def test_they_are_distinct_rows_of_each_partition_in_their_order(monkeypatch):
    monkeypatch.setattr(first_read, "N_SAMPLED", 150)
    parts = [make_rows(i, 100) for i in range(8)]
    sample = fit_of(as_delayed(parts)).row_sample
    assert sorted(sample) == list(range(8))
    for i, rows in sample.items():
        places = [int(np.flatnonzero((parts[i] == row).all(axis=1))[0]) for row in rows]
        assert len(rows) == 19
        assert sorted(set(places)) == places


@pytest.mark.parametrize("init_params", ["pilot", "kmeans"])
def test_whatever_starts_the_fits(init_params):
    parts = [make_rows(i, 50) for i in range(6)]
    sample = fit_of(as_delayed(parts), init_params=init_params).row_sample
    for i, rows in enumerate(parts):
        np.testing.assert_array_equal(sample[i], rows)


def test_partitions_without_an_estimate_have_none_and_bad_rows_are_omitted():
    parts = [make_rows(i, 50) for i in range(6)]
    parts[1] = parts[1][:3]
    parts[2][4, 0] = np.nan
    sample = fit_of(as_delayed(parts), nan_policy="omit").row_sample
    assert sorted(sample) == [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(sample[2], np.delete(parts[2], 4, axis=0))


@pytest.mark.parametrize(
    "sent",
    [None, [[1.0, 2.0]], np.zeros(3), np.zeros((0, 2)), np.zeros((9, 2)), np.full((2, 2), np.nan)],
)
def test_what_a_worker_sent_is_checked(sent):
    message = {"n_samples": 5, "outcome": "too few rows", ROW_SAMPLE: sent}
    assert sampled_rows([message], 8) == [None]
    assert as_plain(message) == {"n_samples": 5, "outcome": "too few rows"}


def test_a_message_that_is_none_has_none():
    assert sampled_rows([object(), {}, np.zeros((2, 2))], 8) == [None] * 3


def test_rows_of_other_columns_are_not_used():
    parts = [make_rows(i, 50) for i in range(6)]
    parts[3] = np.hstack([parts[3], parts[3]])
    assert sorted(fit_of(as_delayed(parts)).row_sample) == [0, 1, 2, 4, 5]


def test_estimates_do_not_hold_them():
    fit = fit_of(as_delayed([make_rows(i, 50) for i in range(6)]))
    assert not any(ROW_SAMPLE in estimate.to_arrays() for estimate in fit.estimates)
    assert not any(ROW_SAMPLE in row for row in fit.rows)
