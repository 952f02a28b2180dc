"""Probabilities and quantiles against scipy.stats, whose laws these are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from dask_dfmr.mixtures.tails import (
    NEARLY_NORMAL,
    binom_sf,
    chi2_ppf,
    pearson3_cdf,
    pearson3_ppf,
    pearson3_sf,
)

SHARES = np.array([1e-12, 1e-3, 0.25, 0.5, 0.9, 1 - 1e-9])
Z = np.array([-40.0, -3.0, -0.5, 0.0, 1.0, 6.0, 40.0])


@given(df=st.floats(1e-2, 1e4))
def test_quantiles_of_chi_squares(df):
    assert_allclose(chi2_ppf(SHARES, df), stats.chi2.ppf(SHARES, df), rtol=1e-12)


@given(n=st.integers(1, 10**6), p=st.floats(0, 1))
def test_the_tail_of_the_binomial_law(n, p):
    k = np.array([-1, 0, n // 3, n - 1, n, n + 1])
    assert_allclose(binom_sf(k, n, p), stats.binom.sf(k, n, p), rtol=1e-9, atol=1e-300)


def test_the_binomial_law_of_several_numbers_of_trials():
    k, n = np.array([-1, 3, 7]), np.array([0, 5, 7])
    assert_allclose(binom_sf(k, n, 0.3), stats.binom.sf(k, n, 0.3))


@pytest.mark.parametrize("sign", [1, -1])
@given(size=st.floats(NEARLY_NORMAL / 2, 10))
def test_the_law_of_type_three(sign, size):
    skewness = sign * size
    law = stats.pearson3(skewness)
    assert_allclose(pearson3_sf(Z, skewness), law.sf(Z), rtol=1e-9, atol=1e-300)
    assert_allclose(pearson3_cdf(Z, skewness), law.cdf(Z), rtol=1e-9, atol=1e-300)
    assert_allclose(pearson3_ppf(SHARES, skewness), law.ppf(SHARES), rtol=1e-9, atol=1e-12)
