"""Information at a mixture, the law of a distance, and what the majority of machines makes of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import chi2

from dask_dfmr import Mixture, aggregate
from dask_dfmr.aggregation import null_law as calibration
from dask_dfmr.aggregation.null_law import Law, chi_square_law, distance_law, fitted_law, settle
from dask_dfmr.mixtures import information
from tests.poisson import Poisson
from tests.strategies import covariance_types, random_mixture, seeds


def information_of(mixture, seed=0):
    rng = np.random.default_rng(seed)
    return information.information(mixture.family, mixture.weights, mixture.components, rng)


class TestInformation:
    def test_of_one_component_nothing_is_missing(self):
        m = Mixture([1.0], [[3.0, -1.0]], [[[2.0, 0.5], [0.5, 1.0]]])
        about = information_of(m)
        assert_allclose(about.root @ about.root.T, np.eye(6), atol=0.15)

    def test_of_two_components_on_top_of_each_other_most_is(self):
        m = Mixture([0.5, 0.5], [[0.0], [0.01]], [[[1.0]], [[1.0]]])
        about = information_of(m)
        assert np.linalg.eigvalsh(about.root @ about.root.T).min() < 1e-3

    @given(covariance_types, seeds)
    def test_whitened_scores_of_other_rows_are_white(self, covariance_type, seed):
        m = random_mixture(seed, 3, 2, covariance_type)
        about = information_of(m, 1)
        rows, _ = m.sample(20_000, seed)
        white = about.whiten(m.family.scores(rows, m.weights, m.components))
        assert_allclose((white**2).sum(axis=1).mean(), m.n_parameters, rtol=0.15)

    def test_errors_and_whitened_scores_are_inverse(self):
        m = random_mixture(3, 3, 2)
        about = information_of(m)
        z = np.random.default_rng(0).normal(size=(5, len(about.normal)))
        v = about.errors(z)
        assert_allclose(v @ about.normal, 0.0, atol=1e-10)
        # J v, whitened, is L^T v.
        scores = v @ (about.root @ about.root.T)
        assert_allclose(about.whiten(scores), v @ about.root, atol=1e-8)

    @pytest.mark.parametrize("light", [1e-2, 1e-3, 1e-5])
    def test_a_light_component_is_known_as_well_as_its_rows_allow(self, light):
        m = Mixture([0.5, 0.5 - light, light], [[0.0], [6.0], [15.0]], np.ones((3, 1, 1)))
        about = information_of(m)
        # Nothing overlaps: no information is missing, although hardly a row in n_rows is of the third one.
        assert_allclose(about.root @ about.root.T, np.eye(9), atol=0.35)
        without = Mixture([0.5, 0.5], [[0.0], [6.0]], np.ones((2, 1, 1)))
        laws = [
            distance_law(x.family, information_of(x), np.random.default_rng(0))[0]
            for x in (m, without)
        ]
        assert_allclose(laws[0].mean, laws[1].mean, rtol=0.15)

    def test_another_family(self):
        weights, rates = np.array([0.4, 0.6]), np.array([[2.0, 9.0], [30.0, 1.0]])
        rng = np.random.default_rng(0)
        about = information.information(Poisson(), weights, (rates,), rng)
        law, _ = distance_law(Poisson(), about, rng)
        assert law.mean > 0

    def test_too_large_for_a_matrix(self, monkeypatch):
        monkeypatch.setattr(information, "MOST_COORDINATES", 3)
        m = random_mixture(1, 2, 2)
        about = information_of(m)
        assert about.root is None
        scores = np.random.default_rng(0).normal(size=(4, m.n_parameters + 1))
        assert_allclose(about.whiten(scores) @ about.normal, 0.0, atol=1e-12)


class TestLaw:
    @pytest.mark.parametrize("df", [1, 2, 5, 60])
    def test_without_a_shift_it_is_chi_square(self, df):
        q = np.linspace(0.1, 4 * df, 20)
        assert_allclose(chi_square_law(df).sf(q), chi2.sf(q, df), rtol=1e-9)

    @given(st.floats(1, 300), st.floats(0.1, 10), st.floats(1, 3))
    def test_draws_are_fitted(self, df, mean, skew):
        law = Law(mean, df, skew)
        u = (np.arange(200_000) + 0.5) / 200_000
        found = fitted_law(law.ppf(u))
        assert_allclose(found.mean, mean, rtol=0.05)
        assert_allclose(found.df, df, rtol=0.15)

    def test_scores_are_standard_normal(self):
        law = Law(3.0, 9.0, 1.4)
        z = law.z_scores(law.ppf((np.arange(10_000) + 0.5) / 10_000))
        assert_allclose([z.mean(), z.std()], [0, 1], atol=0.01)

    def test_scores_go_on_where_probabilities_end(self):
        law = chi_square_law(5)
        far = np.array([1e4, 1e6])
        assert (law.sf(far) == 0).all()
        assert law.z_scores(far)[1] > law.z_scores(far)[0] > 20

    def test_of_a_distance_in_one_column(self):
        """f = N(0, 1): in units of <f, f>, n D^2 is 1/2 n (error of the mean)^2 + 3/16 n (error of the variance)^2."""
        m = Mixture([1.0], [[0.0]], [[[1.0]]])
        law, log_self = distance_law(m.family, information_of(m), np.random.default_rng(0))
        assert_allclose(np.exp(log_self), 1 / np.sqrt(4 * np.pi), rtol=1e-12)
        assert_allclose(law.mean, 1 / 2 + 3 / 16 * 2, rtol=0.06)


class TestSettle:
    def test_honest_machines_get_uniform_p_values(self):
        rng = np.random.default_rng(0)
        p = np.concatenate(
            [settle(rng.chisquare(8, 40), chi_square_law(8)).p_values for _ in range(200)]
        )
        for level in (0.1, 0.01):
            assert 0.6 * level < (p < level).mean() < 1.6 * level

    @pytest.mark.parametrize("scale", [1.5, 4.0, 100.0])
    def test_a_scale_that_all_share_is_learned(self, scale):
        q = scale * np.random.default_rng(1).chisquare(50, 40)
        settled = settle(q, chi_square_law(50))
        assert_allclose(settled.scale, scale, rtol=0.1)
        assert (settled.p_values > 1e-3).sum() >= 39

    def test_bad_machines_do_not_widen_the_law(self):
        q = np.random.default_rng(2).chisquare(20, 100)
        q[:40] *= 30
        settled = settle(q, chi_square_law(20))
        assert settled.scale < 1.2
        assert (settled.p_values[:40] < 1e-6).all()
        assert (settled.p_values[40:] > 1e-3).sum() >= 58

    def test_a_few_machines_change_little(self):
        settled = settle(np.array([0.5, 2.0, 3.0]), chi_square_law(2))
        assert_allclose([settled.scale, settled.spread], 1.0)

    def test_machines_that_agree_too_well_do_not_condemn_the_others(self):
        q = np.concatenate([np.full(60, 1e-6), np.random.default_rng(3).chisquare(10, 40)])
        settled = settle(q, chi_square_law(10))
        assert settled.scale == calibration.LEAST_SCALE
        assert (settled.p_values[60:] > 1e-3).sum() >= 38

    def test_longer_tails_are_learned_where_there_are_enough_machines(self):
        rng = np.random.default_rng(4)
        q = rng.chisquare(60, 200) * np.exp(0.4 * rng.normal(size=200))
        assert settle(q, chi_square_law(60)).spread > 1.5

    def test_only_judges_are_heard(self):
        q = np.concatenate([np.random.default_rng(5).chisquare(30, 50), np.full(60, 1e5)])
        judges = np.arange(110) < 50
        assert (settle(q, chi_square_law(30), judges).p_values[50:] == 0).all()


def test_distances_too_small_for_floating_point_are_no_error():
    """Weights of 1e-12 and 1e15 rows: the squares of all distances that sampling explains are tiny."""
    tight = {
        "weights": np.array([1.0, 1e-12]),
        "means": np.array([[-1.6e-119], [1.1e-119]]),
        "covariances": np.array([[[2.0e-30]], [[1.2e-30]]]),
        "n_samples": 10**15,
    }
    other = tight | {"means": tight["means"] + 1e-3}
    decision = aggregate([tight] * 5 + [other], random_state=0).decision
    assert decision.kept.tolist() == [True] * 5 + [False]
    assert fitted_law(np.zeros(8)).sf(np.array([0.0, 1e-90])).tolist() == [1.0, 0.0]
