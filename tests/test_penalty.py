"""The penalty: what its target is made from, and what it does to tight clusters and unsuitable starts."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dask_dfmr import GaussianMixture, Outcome, fit_local, select_components
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.penalty import Penalty, check_penalty, weight_of
from dask_dfmr.local.starts import Clusterings
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian, Mixture

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)

SPREAD = 0.02


def tight(n: int, seed: int, k: int = 10, d: int = 2) -> np.ndarray:
    """Round clusters far apart."""
    centers = np.random.default_rng(5).uniform(0, 50, size=(k, d))
    rng = np.random.default_rng(seed)
    return centers[rng.integers(k, size=n)] + SPREAD * rng.normal(size=(n, d))


def overlapping(n: int = 400) -> tuple[np.ndarray, Mixture]:
    """Rows, and the mixture that they come from."""
    m = Mixture([0.5, 0.3, 0.2], [[0, 0], [3, 0], [0, 4]], [np.eye(2)] * 3)
    return m.sample(n, 0)[0], m


class TestWeight:
    @pytest.mark.parametrize(
        ("penalty", "expected"), [("auto", 0.01), ("paper", 0.1), (0.3, 0.3), (0, 0.0)]
    )
    def test_known_values(self, penalty, expected):
        assert weight_of(penalty, 100) == expected
        check_penalty("penalty", penalty)

    @pytest.mark.parametrize("penalty", ["none", -1.0, np.nan, None, True])
    def test_an_error_names_what_is_allowed(self, penalty):
        with pytest.raises(ValueError, match="'auto' or 'paper' or a non-negative number"):
            check_penalty("penalty", penalty)


class TestTightClusters:
    @every_type
    @pytest.mark.parametrize("n", [200, 1000])
    def test_a_whole_fit_finds_their_spread(self, covariance_type, n):
        parts = [dask.delayed(tight(n, seed)) for seed in range(8)]
        gm = GaussianMixture(10, covariance_type=covariance_type, random_state=0)
        with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gm.fit(parts)
        is_matrix = covariance_type in ("full", "tied")
        found = np.diagonal(gm.covariances_, axis1=-2, axis2=-1) if is_matrix else gm.covariances_
        assert_allclose(np.sqrt(np.median(found)), SPREAD, rtol=0.1)

    @pytest.mark.parametrize("penalty", ["auto", "paper"])
    def test_a_start_by_a_clustering_does_not_blow_them_up(self, penalty):
        X = tight(1000, 0)
        problem = LocalProblem(Gaussian(), 10, penalty=penalty)
        clusterings = Clusterings(problem.family, X, 10, problem.penalty_for(X))
        _, (_, covariances) = clusterings.start("kmeans", np.random.default_rng(3))
        ratio = np.sqrt(np.median(np.linalg.eigvalsh(covariances))) / SPREAD
        assert (ratio < 1.2) == (penalty == "auto")

    def test_the_selection_counts_them(self):
        parts = [dask.delayed(tight(200, seed, k=5)) for seed in range(8)]
        with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = select_components(GaussianMixture(random_state=0), parts, range(3, 8))
        assert found.n_components == 5

    def test_unlike_spreads_have_targets_of_their_own(self):
        rng = np.random.default_rng(0)
        spreads = np.array([0.05, 0.5, 8.0])
        y = rng.choice(3, p=[0.5, 0.3, 0.2], size=150)
        means = np.array([[0.0, 0.0], [40.0, -30.0], [300.0, 400.0]])
        X = means[y] + spreads[y, None] * rng.normal(size=(150, 2))
        start = Mixture([0.5, 0.3, 0.2], means, [np.eye(2) * s**2 for s in spreads])
        own = fit_local(X, 3, start=start).mixture
        plain = fit_local(X, 3, start=start, penalty=0).mixture
        assert_allclose(own.covariances[0], plain.covariances[0], rtol=0.05, atol=1e-5)


class TestUnsuitableStarts:
    """Fits from a start that does not describe the rows are as sane as with the paper's penalty."""

    @staticmethod
    def both(X: np.ndarray, start: Mixture) -> list[Mixture]:
        found = [fit_local(X, 3, start=start, penalty=name) for name in ("auto", "paper")]
        assert all(e.outcome is Outcome.FITTED for e in found)
        return [e.mixture for e in found]

    @pytest.mark.parametrize("unit", [1e-3, 1e3, 1e6])
    def test_rows_in_another_unit(self, unit):
        X, start = overlapping()
        auto, paper = self.both(X * unit, start)
        assert abs(auto.score(X * unit) - paper.score(X * unit)) < 0.1
        assert np.linalg.eigvalsh(auto.covariances).min() > 0.01 * unit**2

    @pytest.mark.parametrize("scale", [1e-12, 1e12, 1e100])
    def test_covariances_that_are_far_off(self, scale):
        X, m = overlapping()
        start = Mixture(m.weights, m.means, m.covariances * scale)
        one = fit_local(X, 1, random_state=0).mixture
        for found in self.both(
            X, start
        ):  # from components that look alike EM may end at one Gaussian
            assert found.score(X) > one.score(X) - 0.01
            assert np.linalg.eigvalsh(found.covariances).min() > 0.1

    def test_one_component_that_is_a_point(self):
        X, m = overlapping()
        covariances = m.covariances * np.array([1.0, 1e-9, 1.0])[:, None, None]
        auto, paper = self.both(X, Mixture(m.weights, m.means, covariances))
        assert abs(auto.score(X) - paper.score(X)) < 0.05
        assert np.linalg.eigvalsh(auto.covariances).min() > 0.01

    def test_all_components_in_one_place_have_the_papers_target(self):
        X, m = overlapping()
        start = Mixture([1.0, 0.0, 0.0], m.means * 0.0, m.covariances)
        moments = Gaussian().em_pass(X, start.weights, start.components).moments
        (target,) = Penalty(Gaussian(), 1.0, 0.0).prior(moments, start.components).target
        assert_allclose(target[0], np.cov(X.T, ddof=0), rtol=1e-9)
