"""Small partitions, tested by the likelihood of their rows."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dfmr import Mixture, fit_local
from dask_dfmr.refinement.likelihood_test import (
    as_likelihoods,
    compare_likelihoods,
    likelihood_reason,
)
from tests.data_makers import TRUTH, make_rows

LINE = Mixture([1.0], [[0.0]], [[[1.0]]])


def kept_of(n_parts=30, n=200):
    fits = [fit_local(make_rows(i, n), 2, start=TRUTH) for i in range(n_parts)]
    return as_likelihoods([(fit.log_likelihood, n) for fit in fits])


@pytest.fixture(scope="module", name="kept")
def thirty_kept():
    return kept_of()


def compared(parts, kept, mixture=TRUTH):
    small = as_likelihoods([(mixture.score(X), len(X)) for X in parts])
    return compare_likelihoods(mixture, kept, small, np.random.default_rng(0))


@pytest.mark.parametrize("n", [1, 3, 10, 50])
def test_consistent_partitions_have_uniform_p_values(kept, n):
    X = np.random.default_rng(1).permutation(TRUTH.sample(3000 * n, 1)[0])
    p = compared(np.array_split(X, 3000), kept).p_values
    for level in (0.5, 0.1, 0.01):
        error = np.sqrt(level * (1 - level) / 3000)
        assert abs((p < level).mean() - level) < 0.3 * level + 4 * error


def test_of_one_normal_the_law_of_any_number_of_rows_is_a_chi_square():
    """The log-density of n rows is a chi-square of n degrees of freedom: its three moments say all."""
    many = as_likelihoods([(-0.5 * np.log(2 * np.pi) - 0.5, 10**6)] * 40)
    X = np.random.default_rng(1).normal(size=(4000, 2, 1))
    p = compared(list(X), many, LINE).p_values
    assert (p < 0.1).mean() == pytest.approx(0.1, abs=0.02)
    assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.006)


def test_far_rows_are_unlikely_and_likely_ones_are_not(kept):
    far = make_rows(100, 5) + np.array([0.0, 20.0])
    copies = np.repeat(TRUTH.means[:1], 10, axis=0)
    found = compared([far, copies], kept)
    assert found.p_values[0] < 1e-9
    assert found.z_scores[0] < -6
    assert found.z_scores[1] > 0
    assert found.p_values[1] > 0.9


def test_z_scores_go_on_where_probabilities_end(kept):
    z = compared([make_rows(100, 5) * 100, make_rows(100, 5) * 1000], kept).z_scores
    assert np.isfinite(z).all()
    assert z[1] < z[0] < -100


def test_if_the_kept_scatter_more_small_ones_may_too(kept):
    """Real rows are no mixture: the majority says how much partitions differ."""
    scattered = kept._replace(means=kept.means + np.linspace(-0.5, 0.5, len(kept.means)))
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
