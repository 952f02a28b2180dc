"""The first centers of a clustering against scikit-learn's, whose draws they follow."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.cluster import kmeans_plusplus as theirs

from dask_dfmr.local.centers import kmeans_plusplus
from dask_dfmr.local.starts import Points


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(12, 300),
    d=st.integers(1, 6),
    n_centers=st.integers(1, 12),
    n_trials=st.one_of(st.none(), st.integers(1, 5)),
    decimals=st.integers(0, 6),
)
def test_they_are_those_of_scikit_learn(seed, n, d, n_centers, n_trials, decimals):
    Z = np.random.default_rng(seed).normal(size=(n, d)).round(decimals)
    expected, _ = theirs(Z, n_centers, random_state=seed, n_local_trials=n_trials)
    assert_array_equal(kmeans_plusplus(Z, n_centers, seed, n_trials), expected)


def test_equal_rows_give_equal_centers():
    assert_array_equal(kmeans_plusplus(np.ones((9, 2)), 3, 0), np.ones((3, 2)))


def test_the_nearest_of_equally_near_centers_is_the_first():
    Z = np.random.default_rng(0).normal(size=(50, 3)).round(1)
    points, centers = Points(Z), np.vstack([Z[:4], Z[:4]])
    distances = ((Z[:, None] - centers) ** 2).sum(axis=2)
    assert_array_equal(points.nearest(centers[:4]), distances[:, :4].argmin(axis=1))
    assert_array_equal(points.nearest(centers), points.nearest(centers[:4]))
