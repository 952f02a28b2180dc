"""Rows that belong nowhere: their number, the comparison of partitions, and the columns that put them there."""

from dataclasses import replace

import dask.array as da
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import betabinom, binom
from strategies import jiggled, random_mixture

from dask_dfmr import GaussianMixture, LocalEstimate, Mixture, aggregate, fit_local
from dask_dfmr.explanation.rows_outside import columns_in_words, rows_outside
from dask_dfmr.local.row_statistics import Wanted, measure
from dask_dfmr.mixtures.row_cut import RowCut

LEVEL = 0.001


def compared(x, n, kept=None):
    return rows_outside(x, n, np.ones(len(x), bool) if kept is None else np.array(kept))


def draws(seed, m=40, n=1000, share=0.008, correlation=0.0):
    rng = np.random.default_rng(seed)
    if correlation:
        size = 1 / correlation - 1
        share = rng.beta(share * size, (1 - share) * size, m)
    return rng.binomial(n, share, m), np.full(m, n)


class TestComparison:
    def test_with_equal_shares_the_law_is_binomial(self):
        x, n = np.array([8, 9, 7, 8, 8, 9, 7, 8, 8, 30]), np.full(10, 1000)
        found = compared(x, n)
        assert_allclose(found.shares, x / n)
        assert_allclose(found.expected, 72 / 9000)
        # The share of the majority has an error, which widens the law a little.
        assert_allclose(found.p_values[:9], binom.sf(x[:9] - 1, n[:9], 0.008), rtol=0.1)
        assert binom.sf(29, 1000, 0.008) < found.p_values[9] < 1e-6

    @pytest.mark.parametrize("correlation", [0.0, 0.003])
    def test_few_consistent_partitions_stand_out(self, correlation):
        p = np.concatenate(
            [compared(*draws(seed, correlation=correlation)).p_values for seed in range(40)]
        )
        assert (p < LEVEL).sum() <= 6  # of 1,600
        assert 0.002 < (p < 0.01).mean() < 0.025

    def test_a_minority_is_found_though_partitions_vary(self):
        x, n = draws(1, correlation=0.001)
        x[:6] += 60
        assert_array_equal(np.flatnonzero(compared(x, n).p_values < LEVEL), np.arange(6))

    def test_of_no_rows_outside_at_all_one_is_no_alarm(self):
        x, n = np.zeros(20), np.full(20, 500)
        assert (compared(x, n).p_values == 1.0).all()
        x[3] = 1
        assert compared(x, n).p_values[3] > LEVEL

    def test_excluded_ones_are_compared_and_do_not_count(self):
        x, n = np.array([8, 9, 7, 8, 300, 300, 300, 300]), np.full(8, 1000)
        found = compared(x, n, [True] * 4 + [False] * 4)
        assert_allclose(found.expected, 0.008)
        assert (found.p_values[4:] < 1e-12).all()

    def test_unknown_and_few_are_nan(self):
        found = compared([np.nan, 8, 9, 7, 8], [1000] * 5)
        assert np.isnan([found.shares[0], found.expected[0], found.p_values[0]]).all()
        few = compared([8, 9, 7], [1000] * 3)
        assert_allclose(few.shares, [0.008, 0.009, 0.007])
        assert np.isnan(few.p_values).all()

    @pytest.mark.parametrize("n_outside", [60, 150, 600])
    def test_p_values_are_exact_far_out(self, n_outside):
        x, n = draws(1, m=12)
        p = compared(np.append(x, n_outside), np.append(n, 1000)).p_values[-1]
        share, size = x.sum() / n.sum(), n.sum()
        k = np.arange(n_outside, 1001)
        # The law of the others, if these vary by sampling alone: its share is as sure as their number of rows makes it.
        exact = betabinom.pmf(k, 1000, share * (size - 1), (1 - share) * (size - 1)).sum()
        assert p == pytest.approx(exact, rel=0.05)

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=4, max_size=12))
    def test_p_values_are_probabilities_that_fall_with_the_rows_outside(self, counts):
        x, n = (np.array(c, float) for c in zip(*counts, strict=True))
        found = compared(x, x + n)
        known = x + n > 0
        assert (np.isnan(found.p_values) | ((found.p_values >= 0) & (found.p_values <= 1))).all()
        if known.sum() >= 4:
            law = compared(
                np.append(x, [0.0, 40.0]), np.append(x + n, [40.0, 40.0]), [*known, 0, 0]
            )
            assert law.p_values[-1] <= law.p_values[-2] == 1.0


class TestWords:
    def test_what_is_said(self):
        found = compared([9] * 9 + [31], [1000] * 10)
        assert found.in_words(0, LEVEL) == ""
        text = found.in_words(9, LEVEL)
        assert text.startswith("3.1 % of its rows belong nowhere, 0.9 % elsewhere (p = ")

    @pytest.mark.parametrize(
        ("by_column", "text"),
        [
            ([0, 40, 1], "out of range: 'b' in 100% of them"),
            ([20, 40, 1], "out of range: 'b' in 100% of them, 'a' in 50% of them"),
            ([39, 40, 40], "all columns are out of range in 98% of them or more"),
            ([3, 2, 1], "no single column is out of range in most of them"),
        ],
    )
    def test_the_columns(self, by_column, text):
        assert columns_in_words(40, np.array(by_column), ["'a'", "'b'", "'c'"]) == text


class TestCounts:
    def test_a_fit_counts_the_rows_beyond_all_cuts(self):
        mixture = random_mixture(3, 2, 3, spread=6.0)
        X, _ = mixture.sample(800, random_state=0)
        X[:9] += 500.0
        found = fit_local(X, 2, start=mixture)
        limit = RowCut().numbers(3).limit
        outside = (naive.squared_distances(found.mixture, X) > limit).all(axis=1).sum()
        assert abs(found.n_outside - outside) <= 1  # the pass before the last step

    def test_columns_are_those_of_the_rows_outside(self):
        mixture = Mixture([0.5, 0.5], [[0.0, 0.0], [9.0, 0.0]], [np.eye(2)] * 2)
        X = np.array([[0.0, 0.0], [0.0, 50.0], [4.5, 0.0], [4.5, 50.0], [9.0, 0.5]])
        (found,) = measure(X, [mixture], Wanted(outside=True))
        assert found.n_outside == 3
        assert_array_equal(found.outside_columns, [2, 2])
        assert_array_equal((found + found).outside_columns, [4, 4])


@pytest.fixture(scope="module")
def rows():
    """Twelve partitions of 500 rows; in partition 7 the second column is far off in 20 of them."""
    mixture = Mixture([0.6, 0.4], [[0.0, 0.0], [8.0, 8.0]], [np.eye(2)] * 2)
    X, _ = mixture.sample(6000, random_state=0)
    X = np.random.default_rng(0).permutation(X)
    X[3500:3520, 1] = np.linspace(-14.0, 22.0, 20)
    return X


@pytest.fixture(scope="module")
def fitted(rows):
    X = da.from_array(rows, chunks=(500, 2))
    model = GaussianMixture(n_components=2, random_state=0, warn_excluded=False)
    return model.fit(X), X


def test_the_report_has_the_share_of_every_partition(fitted):
    report = fitted[0].partition_report_
    assert (report["rows_outside"].drop(7) < 0.03).all()
    assert report["rows_outside"][7] > 0.03
    assert_array_equal(np.flatnonzero(report["rows_outside_p_value"] < LEVEL), [7])
    assert report["rows_outside_expected"].nunique() == 1


def test_explain_says_it_and_names_the_column(fitted):
    model, X = fitted
    assert "of its rows belong nowhere" in model.explain(which="all")["outside"][7]
    table = model.explain(X, which="all")
    assert "out of range: column 1 in" in table["outside"][7]
    assert (table["outside"].drop(7) == "").all()


def test_a_kept_partition_with_too_many_of_them_is_explained_without_being_asked_for():
    mixture = Mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    estimates = [
        replace(LocalEstimate(jiggled(mixture, i, 0.01), 1000), n_outside=60 if i == 7 else 9)
        for i in range(12)
    ]
    found = aggregate(estimates, rho=np.inf)
    assert found.decision.kept.all()
    table = found.explain()
    assert table["partition"].tolist() == [7]
    assert table.loc[7, "kind"] == "some rows"
    assert table.loc[7, "finding"] == table.loc[7, "outside"] != ""
    assert len(found.explain("excluded")) == 0


def test_estimates_from_elsewhere_may_say_nothing_of_it():
    estimates = [LocalEstimate(jiggled(random_mixture(0), i, 0.1), 100) for i in range(4)]
    table = aggregate(estimates, method="mr").explain(which="all")
    assert table["rows_outside"].isna().all()
    assert (table["outside"] == "").all()
