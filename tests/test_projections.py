"""Clusterings along the directions in which rows are least normal, against naive twins and known groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from dask_dfmr import GaussianMixture
from dask_dfmr.local.projections import extreme_directions, projected_labels, whitening
from dask_dfmr.local.starts import Scale

EQUAL = ((0.5, 0.5), (1 / 3,) * 3, (0.2,) * 5)
UNEQUAL = ((0.9, 0.1), (0.79, 0.21), (0.6, 0.3, 0.1), (0.7, 0.1, 0.1, 0.1))


def parallel_clusters(weights, d=6, length=30.0, n=3000, seed=0, gap=6.0):
    """Clusters apart along one direction and long along another one, and the cluster of each row."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(weights), n, p=weights)
    X = rng.normal(size=(n, d))
    X[:, 1] *= length
    X[:, 0] += gap * y
    return X @ np.linalg.qr(rng.normal(size=(d, d)))[0].T, y


def labels_of(X, n_components, seed=0):
    return projected_labels(Scale.of(X).apply(X), n_components, np.random.default_rng(seed))


class TestWhitening:
    def test_of_normal_rows(self):
        X = np.random.default_rng(0).normal(size=(2000, 4)) @ np.diag([1.0, 10.0, 0.1, 3.0]) + 5.0
        center, root, _ = whitening(X)
        white = (X - center) @ root
        assert np.allclose(white.mean(axis=0), 0.0, atol=1e-8)
        assert np.allclose(np.cov(white.T, bias=True), np.eye(4), atol=1e-8)

    def test_a_few_far_rows_do_not_decide_it(self):
        rng = np.random.default_rng(1)
        X = rng.normal(size=(2000, 3))
        X[:10] = 1e6
        center, root, is_near = whitening(X)
        assert np.array_equal(is_near, np.arange(2000) >= 10)
        assert np.allclose(np.cov(((X - center) @ root)[10:].T), np.eye(3), atol=1e-2)

    def test_columns_that_depend_on_others_have_no_direction(self):
        X = np.random.default_rng(2).normal(size=(100, 2))
        assert whitening(np.column_stack([X, X[:, 0] - X[:, 1]]))[1].shape == (3, 2)


class TestDirections:
    @pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (0.79, 0.21)], ids=str)
    def test_one_of_them_separates_two_groups(self, weights):
        X, y = parallel_clusters(weights, d=10)
        center, root, _ = whitening(X)
        white = (X - center) @ root
        found = extreme_directions(white)
        assert np.allclose(np.linalg.norm(found, axis=0), 1.0)
        between = white[y == 0].mean(axis=0) - white[y == 1].mean(axis=0)
        cosines = np.abs(found.T @ between) / np.linalg.norm(between)
        assert cosines.max() > 0.97

    def test_in_many_columns_the_best_of_all_are_followed(self):
        X, y = parallel_clusters((0.5, 0.5), d=45)
        center, root, _ = whitening(X)
        white = (X - center) @ root
        between = white[y == 0].mean(axis=0) - white[y == 1].mean(axis=0)
        cosines = np.abs(extreme_directions(white).T @ between) / np.linalg.norm(between)
        assert cosines.max() > 0.97

    def test_no_two_are_the_same(self):
        X, _ = parallel_clusters((0.5, 0.5), d=3)
        center, root, _ = whitening(X)
        found = extreme_directions((X - center) @ root)
        alike = np.abs(found.T @ found) - np.eye(found.shape[1])
        assert alike.max() < 0.995


class TestLabels:
    @pytest.mark.parametrize("weights", EQUAL + UNEQUAL, ids=str)
    @pytest.mark.parametrize("d", [2, 10])
    def test_of_long_parallel_clusters(self, weights, d):
        X, y = parallel_clusters(weights, d)
        assert adjusted_rand_score(y, labels_of(X, len(weights))) > 0.95

    def test_of_clusters_in_a_plane(self):
        rng = np.random.default_rng(3)
        y = rng.integers(4, size=3000)
        X = rng.normal(size=(3000, 8))
        X[:, 2:4] *= 50.0
        X[:, :2] += 8.0 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[y]
        X = X @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
        assert adjusted_rand_score(y, labels_of(X, 4)) > 0.95

    def test_groups_without_spread_between_columns(self):
        """Within groups a direction has no variance at all: its smallest one is 1 / n of that of all rows."""
        rng = np.random.default_rng(8)
        y = rng.integers(3, size=900)
        assert adjusted_rand_score(y, labels_of(np.column_stack([y, rng.normal(size=900)]), 3)) == 1

    def test_rows_beyond_the_searched_ones_have_labels_too(self):
        X, y = parallel_clusters((0.5, 0.5), n=8000)
        assert adjusted_rand_score(y, labels_of(X, 2)) > 0.95

    def test_a_few_gross_rows_do_not_matter(self):
        X, y = parallel_clusters((0.5, 0.5))
        X[:15] = 1e4
        assert adjusted_rand_score(y[15:], labels_of(X, 2)[15:]) > 0.95

    def test_depend_on_the_seed_alone(self):
        X, _ = parallel_clusters((0.4, 0.3, 0.3), n=3000)
        assert np.array_equal(labels_of(X, 3, seed=5), labels_of(X, 3, seed=5))

    def test_do_not_depend_on_columns_being_turned(self):
        """On fewer rows than are searched nothing is drawn but one seed."""
        X, _ = parallel_clusters((0.4, 0.6), d=4, n=1500)
        turned = X @ np.linalg.qr(np.random.default_rng(6).normal(size=(4, 4)))[0]
        rng, again = np.random.default_rng(0), np.random.default_rng(0)
        found = projected_labels(X, 2, rng), projected_labels(turned, 2, again)
        assert adjusted_rand_score(*found) > 0.99

    @pytest.mark.parametrize("n_components", [1, 2, 7])
    @pytest.mark.parametrize("shape", [(2, 1), (8, 3), (5, 20)])
    def test_of_few_rows_are_groups(self, shape, n_components):
        X = np.random.default_rng(4).normal(size=shape)
        labels = labels_of(X, n_components)
        assert (labels is None) == (shape[0] < n_components)
        if labels is not None:
            assert labels.shape == shape[:1]
            assert set(labels) <= set(range(n_components))

    def test_of_equal_rows_there_are_none(self):
        assert projected_labels(np.ones((50, 3)), 2, np.random.default_rng(0)) is None

    def test_of_two_values(self):
        X = np.repeat([[0.0, 0.0], [1.0, 2.0]], [30, 70], axis=0)
        assert adjusted_rand_score(X[:, 0], labels_of(X, 2)) == 1.0


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_fit_finds_long_parallel_clusters(covariance_type):
    X, y = parallel_clusters((0.4, 0.3, 0.3), d=8, length=100.0, n=3000)
    model = GaussianMixture(3, covariance_type=covariance_type, method="mr", random_state=0)
    assert adjusted_rand_score(y, model.fit(X).predict(X)) > 0.95
