"""The Gaussian family against the formulas written out, for all four covariance types."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from dask_dfmr import Mixture
from dask_dfmr.mixtures import engine
from dask_dfmr.mixtures import gaussian as module
from dask_dfmr.mixtures.family import Family, Prior, canonical_order
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.mixtures.row_cut import RowCut
from tests import naive
from tests.strategies import covariance_types, jiggled, random_mixture, seeds

pytestmark = pytest.mark.usefixtures("each_engine")

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def rows(n=300, d=2, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (n, d))


def prior_of(family, X, weight=0.2):
    return Prior(weight, family.prior_target(X))


def penalised_step(mixture, X, weight):
    family = mixture.family
    moments = family.em_pass(X, mixture.weights, mixture.components).moments
    components = family.from_moments(moments, mixture.components, prior_of(family, X, weight))
    return family.mixture(moments[0] / len(X), components)


class TestContract:
    @every_type
    def test_it_is_a_family(self, covariance_type):
        assert isinstance(Gaussian(covariance_type), Family)

    def test_families_of_one_type_are_equal_hash_alike_and_pickle(self):
        family = Gaussian("tied")
        assert family == Gaussian("tied") == pickle.loads(pickle.dumps(family))
        assert hash(family) == hash(Gaussian("tied"))
        assert family != Gaussian("full")

    def test_canonical_order_is_by_weight_then_by_mean(self):
        components = (np.array([[3.0], [1.0], [2.0], [0.0]]), np.ones((4, 1, 1)))
        weights = np.array([0.2, 0.2, 0.4, 0.2])
        assert_array_equal(canonical_order(Gaussian(), weights, components), [2, 3, 1, 0])


@pytest.mark.smoke
class TestDensities:
    @every_type
    @pytest.mark.parametrize("kernels", ["numba", "numpy"])
    def test_log_density_of_each_is_that_of_a_mixture_of_one(self, covariance_type, kernels):
        m, X = random_mixture(2, 3, 2, covariance_type), rows(n=700)
        if kernels == "numba":
            pytest.importorskip("numba")
        with engine.use(kernels):
            found = m.family.log_density_of_each(X, m.components)
            for k in range(3):
                alone = tuple(part[k : k + 1] for part in m.components)
                expected = m.family.evaluate(X, np.ones(1), alone, "log_density")
                if covariance_type == "tied":  # whitened about the center of all means
                    assert_allclose(found[:, k], expected, rtol=1e-12, atol=1e-12)
                else:
                    assert_array_equal(found[:, k], expected)

    @every_type
    def test_log_density_is_scipys(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        X = rows(d=3)
        expected = np.log(naive.component_densities(m, X))
        assert_allclose(m.family.log_density(X, m.components), expected, rtol=1e-10)

    @every_type
    def test_product_integrals_are_a_double_loop(self, covariance_type):
        f, g = (random_mixture(s, 3, 3, covariance_type) for s in (1, 2))
        logs = f.family.log_product_integral(f.components, g.components)
        total = f.weights @ np.exp(logs) @ g.weights
        assert_allclose(total, naive.product_integral(f, g), rtol=1e-10)

    @every_type
    def test_product_integral_integrates_the_product_in_one_column(self, covariance_type):
        f, g = (random_mixture(s, 2, 1, covariance_type) for s in (1, 2))
        x = np.linspace(-40, 40, 20_001)
        product = naive.component_densities(f, x)[:, :, None]
        product = product * naive.component_densities(g, x)[:, None, :]
        logs = f.family.log_product_integral(f.components, g.components)
        assert_allclose(np.exp(logs), np.trapezoid(product, x, axis=0), rtol=1e-9)

    @every_type
    def test_product_integral_integrates_the_product_in_two_columns(self, covariance_type):
        f, g = (random_mixture(s, 1, 2, covariance_type, spread=1.0) for s in (1, 2))
        x = np.linspace(-15, 15, 401)
        grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
        cell = (x[1] - x[0]) ** 2
        integral = (naive.density(f, grid) * naive.density(g, grid)).sum() * cell
        logs = f.family.log_product_integral(f.components, g.components)
        assert_allclose(np.exp(logs[0, 0]), integral, rtol=1e-9)

    @every_type
    def test_matched_integrals_are_the_diagonal_of_all_pairs(self, covariance_type):
        f, g = (random_mixture(s, 3, 3, covariance_type) for s in (1, 2))
        every = f.family.log_product_integral(f.components, g.components)
        matched = f.family.log_matched_integral(f.components, g.components)
        assert_allclose(matched, np.diagonal(every), rtol=1e-12)


class TestDivergence:
    @every_type
    def test_it_is_the_formula(self, covariance_type):
        f, g = (random_mixture(s, 3, 3, covariance_type) for s in (1, 2))
        expected = [
            [
                naive.divergence(mu, a, nu, b)
                for nu, b in zip(*naive.full_components(g), strict=True)
            ]
            for mu, a in zip(*naive.full_components(f), strict=True)
        ]
        assert_allclose(f.family.divergence(f.components, g.components), expected, rtol=1e-10)

    @given(covariance_types, seeds)
    def test_it_is_zero_to_itself_and_positive_to_others(self, covariance_type, seed):
        m = random_mixture(seed, 3, 3, covariance_type)
        kl = m.family.divergence(m.components, m.components)
        assert (kl >= 0).all()
        assert_allclose(np.diag(kl), 0.0, atol=1e-12)
        assert (kl[~np.eye(3, dtype=bool)] > 1e-3).all()


class TestBarycenter:
    @staticmethod
    def barycenter(m, weights):
        family = m.family
        labels = np.zeros(m.n_components, dtype=np.intp)
        reference = tuple(parameter[:1] for parameter in m.components)
        moments = family.pooled_moments(weights, m.components, labels, reference)
        return family.from_moments(moments, reference)

    @given(covariance_types, seeds)
    def test_no_point_nearby_has_a_smaller_weighted_divergence(self, covariance_type, seed):
        m, rng = random_mixture(seed, 4, 2, covariance_type), np.random.default_rng(seed)
        weights = rng.dirichlet(np.ones(4))
        means, covariances = self.barycenter(m, weights)
        best = m.family.mixture(np.ones(1), (means, covariances))

        def cost(center):
            return float(weights @ m.family.divergence(m.components, center.components)[:, 0])

        assert all(cost(best) <= cost(jiggled(best, [seed, i], 0.02)) for i in range(20))

    @every_type
    def test_it_has_the_structure_of_the_matched_moments(self, covariance_type):
        m = random_mixture(3, 4, 3, covariance_type)
        means, covariances = naive.full_components(m)
        mu = m.weights @ means
        shifts = means - mu
        second = covariances + shifts[:, :, None] * shifts[:, None, :]
        sigma = np.einsum("k,kij->ij", m.weights, second)[None]
        got_mean, got_covariance = self.barycenter(m, m.weights)
        assert_allclose(got_mean[0], mu, rtol=1e-12)
        expected = naive.in_structure(covariance_type, sigma, np.ones(1))
        assert_allclose(got_covariance, np.reshape(expected, got_covariance.shape), rtol=1e-12)

    def test_tied_centers_share_one_covariance(self):
        m = random_mixture(3, 4, 2, "tied")
        labels, reference = np.array([0, 0, 1, 1]), tuple(p[:2] for p in m.components)
        moments = m.family.pooled_moments(m.weights, m.components, labels, reference)
        _, covariances = m.family.from_moments(moments, reference)
        assert_array_equal(covariances[0], covariances[1])

    @every_type
    def test_moments_of_blocks_add_up(self, covariance_type):
        m = random_mixture(3, 4, 2, covariance_type)
        labels, reference = np.array([0, 1, 1, 0]), tuple(p[:2] for p in m.components)

        def moments(s):
            part = tuple(p[s] for p in m.components)
            return m.family.pooled_moments(m.weights[s], part, labels[s], reference)

        for whole, a, b in zip(
            moments(slice(None)), moments(slice(0, 1)), moments(slice(1, None)), strict=True
        ):
            assert_allclose(a + b, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.smoke
class TestEm:
    @every_type
    @pytest.mark.parametrize("penalty", [0.0, 0.7])
    def test_a_step_is_the_naive_step(self, covariance_type, penalty):
        m, X = random_mixture(1, 3, 2, covariance_type), rows()
        step = penalised_step(m, X, penalty)
        weights, means, covariances = naive.em_step(m, X, penalty)
        assert_allclose(step.weights, weights, rtol=1e-10)
        assert_allclose(step.means, means, rtol=1e-9, atol=1e-10)
        assert_allclose(step.covariances, covariances, rtol=1e-9, atol=1e-10)

    @every_type
    def test_a_step_in_one_column_is_the_naive_step(self, covariance_type):
        m, X = random_mixture(1, 2, 1, covariance_type), rows(d=1)
        step = penalised_step(m, X, 0.3)
        for got, expected in zip(
            (step.weights, step.means, step.covariances), naive.em_step(m, X, 0.3), strict=True
        ):
            assert_allclose(got, expected, rtol=1e-9, atol=1e-10)

    @every_type
    def test_the_pass_reports_the_log_likelihood(self, covariance_type):
        m, X = random_mixture(1, 3, 2, covariance_type), rows()
        value, moments, _ = m.family.em_pass(X, m.weights, m.components)
        assert_allclose(value, np.log(naive.density(m, X)).sum(), rtol=1e-12)
        assert_allclose(moments[0].sum(), len(X), rtol=1e-12)

    @every_type
    def test_the_prior_is_what_the_penalty_adds(self, covariance_type):
        m, X = random_mixture(1, 3, 2, covariance_type), rows()
        expected = naive.penalised_log_likelihood(m, X, 0.4) - np.log(naive.density(m, X)).sum()
        got = m.family.log_prior(m.components, prior_of(m.family, X, 0.4))
        # Only diag(S_x), or its trace, meets a covariance of that structure.
        assert_allclose(got, expected, rtol=1e-9)

    @every_type
    def test_blocks_of_rows_do_not_show(self, covariance_type, monkeypatch):
        m, X = random_mixture(1, 3, 2, covariance_type), rows(3000)
        whole = m.family.em_pass(X, m.weights, m.components)
        target = m.family.prior_target(X)
        monkeypatch.setattr(module, "BLOCK_FLOATS", 7)
        pieces = m.family.em_pass(X, m.weights, m.components)
        assert_allclose(pieces[0], whole[0], rtol=1e-12)
        for a, b in zip(pieces[1], whole[1], strict=True):
            assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())
        for a, b in zip(m.family.prior_target(X), target, strict=True):
            assert_allclose(a, b, rtol=1e-12, atol=1e-13)

    @every_type
    def test_blocks_of_pairs_do_not_show(self, covariance_type, monkeypatch):
        f, g = (random_mixture(s, 9, 2, covariance_type) for s in (1, 2))
        whole = f.family.log_product_integral(f.components, g.components)
        monkeypatch.setattr(module, "PAIR_FLOATS", 1)
        pieces = f.family.log_product_integral(f.components, g.components)
        assert_allclose(pieces, whole, rtol=1e-12)

    @every_type
    def test_nothing_cancels_far_from_the_origin(self, covariance_type):
        m, X, far = random_mixture(1, 3, 2, covariance_type), rows(), 1e7
        moved = Mixture(m.weights, m.means + far, m.covariances, covariance_type)
        here, there = penalised_step(m, X, 0.2), penalised_step(moved, X + far, 0.2)
        assert_allclose(there.covariances, here.covariances, rtol=1e-6, atol=1e-7)
        assert_allclose(there.means - far, here.means, atol=1e-7)

    @pytest.mark.parametrize(("d", "apart"), [(3, 3.0), (60, 3.0), (3, 1e4), (2, 1e8)])
    @pytest.mark.parametrize("truncates", [False, True])
    def test_a_tied_pass_is_a_full_pass_with_one_scatter(self, d, apart, truncates):
        m = random_mixture(1, 3, d, "tied", apart)
        X = m.sample(400, random_state=0)[0]
        cut = RowCut(0.1, truncates)
        full = Gaussian("full", cut).em_pass(X, m.weights, m.components)
        tied = Gaussian("tied", cut).em_pass(X, m.weights, m.components)
        mass, first, second = tied.moments
        assert_allclose(tied.log_likelihood, full.log_likelihood, rtol=1e-12)
        assert_allclose(mass, full.moments[0], rtol=1e-9)
        assert_allclose(first, full.moments[1], rtol=1e-7, atol=1e-9 * np.abs(X).max())
        assert_allclose(second, full.moments[2].sum(axis=0)[None], rtol=1e-7, atol=1e-7)
        assert tied.n_outside == full.n_outside
        found, expected = (Gaussian(kind).log_density(X, m.components) for kind in ("tied", "full"))
        assert_allclose(found, expected, rtol=1e-12, atol=1e-9)

    @every_type
    def test_float32_and_integer_rows_are_computed_in_float64(self, covariance_type):
        m = random_mixture(1, 3, 2, covariance_type)
        X = rows().round().astype(np.int16)
        reference = m.family.em_pass(X.astype(float), m.weights, m.components)
        for dtype in (np.int16, np.float32):
            value, moments, _ = m.family.em_pass(X.astype(dtype), m.weights, m.components)
            assert value == reference[0]
            for a, b in zip(moments, reference[1], strict=True):
                assert_array_equal(a, b)

    def test_a_component_without_rows_stays_where_it_is(self):
        means = np.array([[0.0], [500.0]])
        family, X = Gaussian(), rows(d=1)
        components = (means, np.ones((2, 1, 1)))
        moments = family.em_pass(X, np.array([0.5, 0.5]), components).moments
        moved, covariances = family.from_moments(moments, components, prior_of(family, X))
        assert moments[0][1] == 0
        assert moved[1] == 500.0
        assert_allclose(covariances[1, 0, 0], X.var(ddof=1))

    @every_type
    def test_hard_moments_are_those_of_the_labelled_rows(self, covariance_type):
        family, X = Gaussian(covariance_type), rows()
        labels = (X[:, 0] > 0).astype(np.intp)
        reference = family.start_components(X, np.zeros((2, 2)))
        moments = family.hard_moments(X, labels, reference)
        means, covariances = family.from_moments(moments, reference)
        parts = [X[labels == k] for k in (0, 1)]
        full = np.array([np.cov(part.T, ddof=0) for part in parts])
        expected = naive.in_structure(covariance_type, full, np.bincount(labels))
        assert_allclose(means, [part.mean(axis=0) for part in parts], rtol=1e-10)
        assert_allclose(
            covariances, np.broadcast_to(expected, covariances.shape), rtol=1e-10, atol=1e-12
        )


class TestPriorTargets:
    @staticmethod
    def moments_of(mixture, X):
        return mixture.family.em_pass(X, mixture.weights, mixture.components).moments

    @every_type
    @pytest.mark.parametrize("far", [0.0, 1e6])
    def test_moments_have_the_target_of_all_rows(self, covariance_type, far):
        m, X = random_mixture(1, 3, 2, covariance_type), rows()
        m = Mixture(m.weights, m.means + far, m.covariances, covariance_type)
        found = m.family.total_target(self.moments_of(m, X + far), m.components)
        for mine, direct in zip(found, m.family.prior_target(X + far), strict=True):
            assert_allclose(mine, direct, rtol=1e-8, atol=1e-8)

    @every_type
    def test_within_components_is_the_naive_target(self, covariance_type):
        m, X = random_mixture(1, 3, 2, covariance_type), rows()
        (found,) = m.family.within_target(self.moments_of(m, X), m.components)
        naive_ones = naive.within_targets(m, X)
        expected = naive.in_structure(covariance_type, naive_ones, np.ones(3))
        assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    @every_type
    def test_they_ignore_the_covariances_of_a_start_that_divides_the_rows(self, covariance_type):
        means = np.array([[0.0, 0.0], [500.0, 0.0]])
        X = np.concatenate([means[0] + rows(), means[1] + rows(seed=1)])
        targets = []
        for unit in (1e-6, 1.0, 100.0):
            one = naive.in_structure(covariance_type, np.array([np.eye(2)] * 2) * unit, np.ones(2))
            m = Mixture([0.5, 0.5], means, one, covariance_type)
            targets.append(m.family.within_target(self.moments_of(m, X), m.components)[0])
        assert_allclose(targets[0], targets[1], rtol=1e-9)
        assert_allclose(targets[2], targets[1], rtol=1e-9)

    @pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
    def test_a_component_without_rows_has_the_pooled_target(self, covariance_type):
        X, means = rows(), np.array([[0.0, 0.0], [1e4, 0.0]])
        family = Gaussian(covariance_type)
        reference = family.start_components(X, means)
        moments = family.hard_moments(X, np.zeros(len(X), dtype=np.intp), reference)
        (found,) = family.within_target(moments, reference)
        assert_allclose(found[1], family.prior_target(X)[0] * (1 - 1 / len(X)), rtol=1e-9)

    def test_a_column_that_is_constant_within_components_keeps_a_proper_target(self):
        X = rows(d=3)
        X[:, 2] = X[:, 0] > 0
        reference = Gaussian().start_components(X, np.zeros((2, 3)))
        moments = Gaussian().hard_moments(X, (X[:, 2] > 0).astype(np.intp), reference)
        assert Gaussian().is_proper((reference[0], Gaussian().within_target(moments, reference)[0]))


class TestDegeneracy:
    @staticmethod
    def degeneracy(covariance_type, X, floor=0.0):
        family = Gaussian(covariance_type)
        return family.degeneracy(X, family.prior_target(X), floor)

    @every_type
    def test_ordinary_rows_are_fine(self, covariance_type):
        assert self.degeneracy(covariance_type, rows()) is None

    @every_type
    @pytest.mark.parametrize("unit", [1e-6, 1e6, 1e-130])
    def test_the_unit_of_a_column_does_not_matter(self, covariance_type, unit):
        assert self.degeneracy(covariance_type, rows() * [1.0, unit]) is None

    @every_type
    @pytest.mark.parametrize("mean", [1e14, -1e15])
    def test_a_column_far_from_zero_is_not_constant(self, covariance_type, mean):
        assert self.degeneracy(covariance_type, rows() + np.array([mean, 0.0])) is None
        assert self.degeneracy(covariance_type, rows() / 3 + mean) is None

    @pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])
    @pytest.mark.parametrize("value", [0.0, 0.1, 1e9, 1e-200])
    def test_a_constant_column_is_named(self, covariance_type, value):
        X = rows(d=3)
        X[:, 1] = value
        reason = self.degeneracy(covariance_type, X)
        assert reason.startswith("{column 1} is constant; remove it, or set reg_covar=")
        assert self.degeneracy(covariance_type, X, floor=1e-6) is None

    def test_a_constant_that_was_computed_in_different_ways_is_constant(self):
        X = rows()
        X[:, 1] = np.where(X[:, 0] > 0, 0.1 + 0.2, 0.3) * 1e7
        assert "{column 1} is constant" in self.degeneracy("full", X)

    def test_several_constant_columns_are_named(self):
        X = rows(d=3)
        X[:, 1:] = 5.0
        assert "{column 1}, {column 2} are constant; remove them" in self.degeneracy("full", X)

    def test_spherical_rows_degenerate_only_where_all_columns_are_constant(self):
        X = rows()
        X[:, 1] = 5.0
        assert self.degeneracy("spherical", X) is None
        constant = np.full((9, 2), 0.1)
        assert self.degeneracy("spherical", constant).startswith("all columns are constant")
        assert self.degeneracy("spherical", constant, floor=1e-6) is None

    @every_type
    def test_no_parameter_helps_where_nothing_varies(self, covariance_type):
        reason = self.degeneracy(covariance_type, np.full((9, 2), 0.1))
        assert reason == "all columns are constant; check where these rows come from"

    @every_type
    @pytest.mark.parametrize("unit", [1e-146, 1e-170])
    def test_a_column_beyond_the_range_of_floats_is_not_called_constant(
        self, covariance_type, unit
    ):
        X = rows(d=2) * unit
        reason = self.degeneracy(covariance_type, X)
        assert "beyond the range of floats" in reason
        assert "constant" not in reason
        assert self.degeneracy(covariance_type, X, floor=1e-6) is None

    @pytest.mark.parametrize("covariance_type", ["full", "tied"])
    def test_linearly_dependent_columns_are_named(self, covariance_type):
        X = rows(d=4)
        X[:, 3] = 2 * X[:, 0] - 7
        reason = self.degeneracy(covariance_type, X)
        assert reason.startswith("{column 0}, {column 3} are linearly dependent; remove one")
        assert self.degeneracy(covariance_type, X, floor=1e-6) is None

    @pytest.mark.parametrize("constant", [True, False])
    @pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
    def test_the_advised_reg_covar_is_enough(self, constant, unit):
        X = rows(d=3) * unit
        X[:, 2] = 7.0 if constant else X[:, 0] - X[:, 1]
        advised = float(self.degeneracy("full", X).rpartition("reg_covar=")[2])
        assert self.degeneracy("full", X, floor=advised) is None
        assert advised < 1e-2 * X[:, 0].var()

    @pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
    def test_other_structures_bear_dependent_columns(self, covariance_type):
        X = rows(d=2)
        X[:, 1] = X[:, 0]
        assert self.degeneracy(covariance_type, X) is None

    def test_columns_in_very_different_units_are_not_dependent(self):
        X = rows(d=3) * [1e-8, 1.0, 1e8]
        assert self.degeneracy("full", X) is None


class TestIsProper:
    @every_type
    def test_a_mixture_is_proper(self, covariance_type):
        m = random_mixture(1, covariance_type=covariance_type)
        assert m.family.is_proper(m.components)

    @every_type
    def test_nan_and_negative_are_not(self, covariance_type):
        m = random_mixture(1, covariance_type=covariance_type)
        means, covariances = m.components
        assert not m.family.is_proper((means * np.nan, covariances))
        assert not m.family.is_proper((means, covariances * np.nan))
        assert not m.family.is_proper((means, -covariances))


class TestCoordinates:
    @given(covariance_types, seeds)
    def test_from_coordinates_undoes_coordinates(self, covariance_type, seed):
        m = random_mixture(seed, 3, 3, covariance_type)
        origin, near = (m.weights, m.components), jiggled(m, seed)
        v = m.family.coordinates(near.weights, near.components, origin)
        weights, components = m.family.from_coordinates(v, origin)
        back = m.family.mixture(weights, components)
        for name in ("weights", "means", "covariances"):
            assert_allclose(getattr(back, name), getattr(near, name), rtol=1e-10, atol=1e-11)

    @every_type
    def test_an_origin_that_knows_its_roots_changes_no_bit(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        point, near = (m.weights, m.components), jiggled(m, 2)
        origin = m.family.as_origin(point)
        v = m.family.coordinates(near.weights, near.components, point)
        for _ in range(2):
            assert_array_equal(m.family.coordinates(near.weights, near.components, origin), v)
            found, expected = (m.family.displaced(v, about) for about in (origin, point))
            for a, b in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
                assert_array_equal(a, b)

    @every_type
    def test_the_origin_is_zero_and_there_is_a_coordinate_per_parameter(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        v = m.family.coordinates(m.weights, m.components, (m.weights, m.components))
        assert_allclose(v, 0.0, atol=1e-12)
        assert len(v) == m.n_parameters + 1  # the weights have a sum, too

    @every_type
    def test_beyond_the_parameter_space_there_is_nothing(self, covariance_type):
        m = random_mixture(1, 3, 3, covariance_type)
        origin = (m.weights, m.components)
        v = m.family.coordinates(*origin, origin)
        light, narrow = v.copy(), v.copy()
        light[0] -= 10.0
        narrow[3 + 9 :] -= 10.0
        assert m.family.from_coordinates(light, origin) is None
        assert m.family.from_coordinates(narrow, origin) is None

    @every_type
    def test_the_complete_data_information_is_the_identity(self, covariance_type):
        """-Q(v) = KL of the joint law of (row, component) at the origin to that at v; its Hessian at 0 is I.

        Along sqrt(w) the weights would leave the simplex: there it is 0.
        """
        m = random_mixture(1, 2, 2, covariance_type)
        origin = (m.weights, m.components)

        def kl(v):
            weights, components = m.family.from_coordinates(v, origin)
            # Not through `divergence`, which cannot be negative by rounding.
            near = m.family.mixture(weights, components)
            pairs = zip(*naive.full_components(m), *naive.full_components(near), strict=True)
            parts = np.array([naive.divergence(*pair) for pair in pairs])
            return m.weights @ (parts + np.log(m.weights / weights))

        n, h = m.n_parameters + 1, 1e-3
        e = h * np.eye(n)
        hessian = np.array(
            [[kl(a + b) - kl(a - b) - kl(b - a) + kl(-a - b) for b in e] for a in e]
        ) / (4 * h**2)
        simplex = np.zeros((n, n))
        simplex[:2, :2] = np.sqrt(np.outer(m.weights, m.weights))
        assert_allclose(hessian, np.eye(n) - simplex, atol=1e-4)


class TestScores:
    @every_type
    def test_they_are_the_gradient_of_the_log_density(self, covariance_type):
        m, X, h = random_mixture(1, 3, 2, covariance_type), rows(40), 1e-5
        origin = (m.weights, m.components)
        scores = m.family.scores(X, *origin)
        normal = np.concatenate([np.sqrt(m.weights), np.zeros(scores.shape[1] - 3)])

        def log_density(v):
            weights, components = m.family.displaced(v, origin)
            return logsumexp(m.family.log_density(X, components) + np.log(weights), axis=1)

        for j, e in enumerate(h * np.eye(len(normal))):
            step = e - normal * (normal @ e)  # weights keep their sum
            gradient = (log_density(step) - log_density(-step)) / (2 * h)
            assert_allclose(scores[:, j], gradient, atol=1e-6)

    @every_type
    def test_their_sum_is_known_from_the_moments(self, covariance_type):
        m, X = random_mixture(2, 3, 3, covariance_type), rows(200, 3)
        moments = m.family.em_pass(X, m.weights, m.components).moments
        expected = m.family.scores(X, m.weights, m.components).sum(axis=0)
        found = m.family.score_of_moments(moments, m.weights, m.components)
        assert_allclose(found, expected, rtol=1e-9, atol=1e-9)

    @every_type
    def test_a_component_without_weight_has_none(self, covariance_type):
        m = random_mixture(2, 3, 2, covariance_type)
        weights = np.array([0.4, 0.6, 0.0])
        scores = m.family.scores(rows(50), weights, m.components)
        assert np.isfinite(scores).all()
        assert_array_equal(scores[:, 2], 0.0)

    @every_type
    def test_a_stack_of_displacements_is_one_by_one(self, covariance_type):
        m = random_mixture(2, 3, 2, covariance_type)
        origin = (m.weights, m.components)
        v = 0.01 * np.random.default_rng(0).normal(size=(4, m.n_parameters + 1))
        weights, components = m.family.displaced(v, origin)
        for i in range(4):
            one_weights, one = m.family.displaced(v[i], origin)
            assert_array_equal(weights[i], one_weights)
            for stacked, single in zip(components, one, strict=True):
                assert_allclose(stacked[i], single, rtol=1e-14)
