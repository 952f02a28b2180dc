"""The law of the log-density of a mixture's rows, against exact laws, integrals on grids and plain draws."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2, kstest, multivariate_normal

from dask_dfmr import Mixture
from dask_dfmr.mixtures.density_law import density_law
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from tests.strategies import random_mixture

pytestmark = pytest.mark.smoke

SEED = np.random.SeedSequence(0)
LOW = np.array([1e-12, 1e-8, 1e-4, 0.01, 0.3])
HIGH = np.array([0.01, 0.2, 0.5])


def law_of(mixture, seed=0):
    return density_law(mixture, np.random.SeedSequence(seed))


def tails_on_a_grid(mixture, levels, reach, n):
    """P(log f(Y) < level) and 1 minus that: the integral of f over a grid of cells, 1 or 2 columns."""
    axis = np.linspace(-reach, reach, n)
    grids = np.meshgrid(*[axis] * mixture.n_features, indexing="ij")
    log_f = mixture.score_samples(np.column_stack([grid.ravel() for grid in grids]))
    order = np.argsort(log_f)
    masses = np.exp(log_f[order]) * (axis[1] - axis[0]) ** mixture.n_features
    lower = np.concatenate([[0.0], np.cumsum(masses)])
    upper = np.concatenate([np.cumsum(masses[::-1])[::-1], [0.0]])
    at = np.searchsorted(log_f[order], levels)
    return lower[at], upper[at]


OVERLAPPING = {
    "a column": (
        Mixture([0.3, 0.7], [[0.0], [2.0]], [0.25, 4.0], "spherical"),
        (20.0, 500_001),
    ),
    "two columns": (
        Mixture(
            [0.5, 0.3, 0.2],
            [[0.0, 0.0], [1.5, 0.5], [-1.0, 2.0]],
            [[[1.0, 0.8], [0.8, 1.0]], [[0.2, 0.0], [0.0, 2.0]], [[2.0, -0.5], [-0.5, 0.5]]],
        ),
        (12.0, 1501),
    ),
    "one inside the other": (
        Mixture([0.9, 0.1], [[0.0, 0.0], [0.1, 0.0]], [1.0, 4.0], "spherical"),
        (16.0, 1501),
    ),
}


class TestOneComponent:
    @pytest.mark.parametrize("n_features", [1, 2, 10, 100])
    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_is_the_chi_square_law(self, n_features, covariance_type):
        mixture = random_mixture(1, 1, n_features, covariance_type)
        law = law_of(mixture)
        rows, _ = mixture.sample(50, 1)
        rows = np.concatenate([rows, mixture.means, mixture.means + 3 * (rows - mixture.means)])
        means, covariances = mixture.full_components
        z = np.linalg.solve(np.linalg.cholesky(covariances[0]), (rows - means[0]).T)
        expected = chi2.sf((z**2).sum(axis=0), n_features)
        assert_allclose(law.p_value(mixture.score_samples(rows)), expected, rtol=1e-8, atol=1e-300)
        assert law.standard_error == 0

    @pytest.mark.parametrize("p", [1e-200, 1e-8, 0.001, 0.5, 0.999])
    def test_quantile_is_the_inverse(self, p):
        law = law_of(random_mixture(1, 1, 3))
        assert_allclose(law.p_value(law.quantile(p)), p, rtol=1e-9)

    def test_components_without_weight_do_not_count(self):
        mixture = Mixture([0.0, 1.0], [[0.0], [50.0]], [1.0, 4.0], "spherical")
        alone = Mixture([1.0], [[50.0]], [4.0], "spherical")
        assert law_of(mixture) == law_of(alone)


class TestSeveralComponents:
    @pytest.mark.parametrize("name", OVERLAPPING)
    def test_both_tails_are_those_of_an_integral_over_a_grid(self, name):
        mixture, grid = OVERLAPPING[name]
        law = law_of(mixture)
        levels = np.array([law.quantile(p) for p in [*LOW, *(1 - HIGH)]])
        lower, upper = tails_on_a_grid(mixture, levels, *grid)
        assert_allclose(law.p_value(levels)[: len(LOW)], lower[: len(LOW)], rtol=0.02)
        assert_allclose(1 - law.p_value(levels)[len(LOW) :], upper[len(LOW) :], rtol=0.05)

    @pytest.mark.parametrize(("n_components", "n_features"), [(5, 10), (3, 2)])
    def test_bulk_is_that_of_draws(self, n_components, n_features):
        mixture = random_mixture(2, n_components, n_features, spread=1.0)
        rows, _ = mixture.sample(40_000, 3)
        p = law_of(mixture).p_value(mixture.score_samples(rows))
        assert kstest(p, "uniform").pvalue > 0.01
        for rate in (0.001, 0.01, 0.99):
            assert abs((p < rate).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / len(p))

    def test_rows_of_a_far_component_are_like_those_of_one(self):
        """Components that do not overlap have the law of each, mixed."""
        mixture = Mixture([0.25, 0.75], [[0.0, 0.0], [1e6, 0.0]], [1.0, 4.0], "spherical")
        levels = mixture.score_samples([[r, 0.0] for r in (0.5, 2.0, 4.0, 8.0, 20.0)])
        peaks = [
            np.log(w) + multivariate_normal([0, 0], s * np.eye(2)).logpdf([0, 0])
            for w, s in ((0.25, 1.0), (0.75, 4.0))
        ]
        exact = sum(
            w * chi2.sf(2 * np.maximum(peak - levels, 0), 2)
            for w, peak in zip((0.25, 0.75), peaks, strict=True)
        )
        assert_allclose(law_of(mixture).p_value(levels), exact, rtol=0.01)

    def test_equal_components_are_one(self):
        one = random_mixture(4, 1, 6)
        two = Mixture([0.4, 0.6], np.repeat(one.means, 2, 0), np.repeat(one.covariances, 2, 0))
        levels = np.array([law_of(one).quantile(p) for p in (1e-250, 1e-30, 1e-8, 0.5, 0.99)])
        ratio = law_of(two).p_value(levels) / law_of(one).p_value(levels)
        assert (np.abs(ratio - 1) < [0.2, 0.01, 0.002, 0.002, 0.002]).all()

    @pytest.mark.parametrize("p", [1e-280, 1e-30, 1e-8, 0.001, 0.4999, 0.5001, 0.999])
    def test_quantile_is_the_inverse(self, p):
        law = law_of(OVERLAPPING["two columns"][0])
        assert_allclose(law.p_value(law.quantile(p)), p, rtol=1e-9)

    def test_grows_with_the_density_from_0_to_1(self):
        law = law_of(OVERLAPPING["two columns"][0])
        p = law.p_value(np.concatenate([[-1e300, -1e4], np.linspace(-900, 3, 20_001)]))
        assert (np.diff(p) >= 0).all()
        assert (p[0], p[-1]) == (0, 1)

    def test_error_is_that_of_other_seeds(self):
        mixture = random_mixture(5, 4, 3, spread=1.0)
        laws = [law_of(mixture, seed) for seed in range(5)]
        levels = np.array([laws[0].quantile(p) for p in (1e-8, 1e-5, 0.01, 0.5)])
        p = np.array([law.p_value(levels) for law in laws])
        found = (p.std(axis=0, ddof=1) / np.minimum(p, 1 - p).mean(axis=0)).max()
        assert found < 2.5 * laws[0].standard_error
        assert laws[0].standard_error < 0.02

    def test_same_seed_same_bits(self):
        mixture = random_mixture(6, 3, 4)
        assert law_of(mixture).log_lower.tobytes() == law_of(mixture).log_lower.tobytes()

    def test_units_do_not_matter(self):
        """p-values are invariant under affine maps, to within the error."""
        mixture = OVERLAPPING["two columns"][0]
        scaled = Mixture(mixture.weights, 1e8 * mixture.means, 1e16 * mixture.covariances)
        rows, _ = mixture.sample(20, 0)
        p = law_of(mixture).p_value(mixture.score_samples(rows))
        assert_allclose(law_of(scaled).p_value(scaled.score_samples(1e8 * rows)), p, rtol=1e-6)

    def test_extreme_distances_and_spreads(self):
        mixture = Mixture([0.5, 0.5], [[0.0], [1e90]], [1e-60, 1e60], "spherical")
        law = law_of(mixture)
        near = mixture.score_samples([[0.0], [1e90], [1e30]])
        assert np.isfinite(law.p_value(near)).all()
        assert_allclose(law.p_value(near)[0], 1, atol=1e-6)
