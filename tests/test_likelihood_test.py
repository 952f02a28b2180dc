"""Small partitions, tested by the likelihood of their rows."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dfmr import Mixture, fit_local
from dask_dfmr.local.row_statistics import Wanted, measure
from dask_dfmr.refinement.likelihood_test import (
    FEWEST_IN_LAW,
    as_likelihoods,
    compare_likelihoods,
    likelihood_reason,
    row_likelihoods,
)
from tests.data_makers import TRUTH, make_rows

LINE = Mixture([1.0], [[0.0]], [[[1.0]]])


@pytest.fixture(scope="module", name="kept")
def thirty_kept():
    return [make_rows(i, 200) for i in range(30)]


def compared(parts, kept, mixture=TRUTH):
    rng = np.random.default_rng(0)
    law = row_likelihoods(mixture, kept, 1e-3, rng)
    wanted = Wanted(log_floor=law.floor)
    sums = [measure(X, [mixture], wanted)[0].log_likelihood for X in parts]
    small = as_likelihoods([(s / len(X), len(X)) for s, X in zip(sums, parts, strict=True)])
    return compare_likelihoods(law, small, rng)


@pytest.mark.parametrize("n", [1, 3, 10, 50])
def test_consistent_partitions_have_uniform_p_values(kept, n):
    X = np.random.default_rng(1).permutation(TRUTH.sample(3000 * n, 1)[0])
    p = compared(np.array_split(X, 3000), kept).p_values
    for level in (0.5, 0.1, 0.01):
        error = np.sqrt(level * (1 - level) / 3000)
        assert abs((p < level).mean() - level) < 0.3 * level + 4 * error


def test_of_one_normal_the_law_of_any_number_of_rows_is_a_chi_square():
    """The log-density of n rows is a chi-square of n degrees of freedom: its three moments say all."""
    rng = np.random.default_rng(1)
    kept = [rng.normal(size=(2000, 1)) for _ in range(8)]
    p = compared(list(rng.normal(size=(4000, 2, 1))), kept, LINE).p_values
    assert (p < 0.1).mean() == pytest.approx(0.1, abs=0.02)
    assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.006)


@pytest.mark.parametrize("n", [1, 5, 25])
def test_rows_of_a_heavy_tail_have_the_law_of_such_rows(n):
    rng = np.random.default_rng(2)
    kept = [rng.standard_t(3, size=(400, 2)) for _ in range(40)]
    mixture = fit_local(np.concatenate(kept), 2, random_state=0).mixture
    parts = list(rng.standard_t(3, size=(2000, n, 2)))
    assert (compared(parts, kept, mixture).p_values < 1e-3).mean() <= 5e-3
    wrong = [X * [10.0, 1.0] for X in parts[:50]]
    assert (compared(wrong, kept, mixture).p_values < 1e-3).mean() >= (n == 25)


def test_one_row_far_away_is_unlikely(kept):
    assert compared([np.array([[1e6, 0.0]])], kept).p_values[0] < 1e-3


def test_few_kept_rows_are_joined_by_rows_of_the_mixture():
    law = row_likelihoods(TRUTH, [make_rows(0, 20)], 1e-3, np.random.default_rng(0))
    assert len(law.rows) == FEWEST_IN_LAW
    assert law.kept.counts.tolist() == [20]
    without = row_likelihoods(TRUTH, [], 1e-3, np.random.default_rng(0))
    assert law.mean == pytest.approx(without.mean, abs=0.05)


def test_far_rows_are_unlikely_and_likely_ones_are_not(kept):
    far = make_rows(100, 5) + np.array([0.0, 20.0])
    copies = np.repeat(TRUTH.means[:1], 10, axis=0)
    found = compared([far, copies], kept)
    assert found.p_values[0] < 1e-9
    assert found.z_scores[0] < -6
    assert found.z_scores[1] > 0
    assert found.p_values[1] > 0.9


def test_no_row_counts_for_less_than_the_floor(kept):
    z = compared([make_rows(100, 5) * 100, make_rows(100, 5) * 1000], kept).z_scores
    assert z[0] == z[1] < -6


def test_if_the_kept_scatter_more_small_ones_may_too(kept):
    """Real rows are no mixture: the majority says how much partitions differ."""
    shifts = np.linspace(-1.0, 1.0, len(kept))
    scattered = [rows + shift for rows, shift in zip(kept, shifts, strict=True)]
    odd = [make_rows(100, 9) + 1.5]
    assert compared(odd, scattered).p_values[0] > 10 * compared(odd, kept).p_values[0]


@pytest.mark.parametrize(
    ("p", "z", "words"),
    [
        (0.4, -0.8, "its rows are as likely as others' (p = 0.4)"),
        (1e-9, -6.1, "its rows are unlikely under the global mixture: z = -6.1 (p = 1e-09)"),
        (0.0, -99.0, "its rows are unlikely under the global mixture: z = -99 (p < 1e-300)"),
    ],
)
def test_the_reason_in_words(p, z, words):
    assert str(likelihood_reason(p, z, 1e-3)) == words
