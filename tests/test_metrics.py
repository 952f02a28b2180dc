"""The distance between mixing distributions."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from dask_dfmr import Mixture, fit_local, mixing_distance
from dask_dfmr.mixtures.metrics import parameter_error, truth_information
from tests import naive
from tests.strategies import covariance_types, mixtures, random_mixture, seeds, shuffled

pytestmark = pytest.mark.smoke


def equal_weights(m):
    return Mixture(
        np.full(m.n_components, 1 / m.n_components), m.means, m.covariances, m.covariance_type
    )


@given(covariance_types, seeds)
def test_a_mixture_is_at_distance_zero_to_itself(covariance_type, seed):
    m = random_mixture(seed, covariance_type=covariance_type)
    assert_allclose(mixing_distance(m, m), 0.0, atol=1e-9)


@given(mixtures(), mixtures())
def test_it_is_symmetric(a, b):
    assert_allclose(mixing_distance(a, b), mixing_distance(b, a), rtol=1e-7)


@given(mixtures(), mixtures(), mixtures())
def test_no_detour_is_shorter(a, b, c):
    direct = mixing_distance(a, c)
    assert direct <= (mixing_distance(a, b) + mixing_distance(b, c)) * (1 + 1e-7)


@given(mixtures(), mixtures(), seeds)
def test_relabelling_moves_nothing(a, b, seed):
    assert_allclose(mixing_distance(shuffled(a, seed), b), mixing_distance(a, b), rtol=1e-7)


@given(covariance_types, seeds)
def test_with_equal_weights_it_is_the_best_of_all_permutations(covariance_type, seed):
    a, b = (equal_weights(random_mixture([seed, i], 4, 2, covariance_type)) for i in range(2))
    assert_allclose(mixing_distance(a, b), naive.mixing_distance(a, b), rtol=1e-7)


def test_of_two_components_it_is_the_ground_cost():
    a = Mixture([1.0], [[0.0, 0.0]], [[4.0, 9.0]], "diag")
    b = Mixture([1.0], [[3.0, 4.0]], [[1.0, 1.0]], "diag")
    assert_allclose(mixing_distance(a, b), 5.0 + np.hypot(2 - 1, 3 - 1))


def test_moving_weight_costs_weight_times_distance():
    means, covariances = [[0.0], [10.0]], [1.0, 1.0]
    a = Mixture([0.5, 0.5], means, covariances, "spherical")
    b = Mixture([0.3, 0.7], means, covariances, "spherical")
    assert_allclose(mixing_distance(a, b), 0.2 * 10.0)


@pytest.mark.parametrize("factor", [1e-30, 1e20, 1e36, 1e100])
def test_it_scales_with_the_units(factor):
    a = Mixture([0.3, 0.7], [[0.0], [1.0]], [[[1.0]], [[2.0]]])
    b = Mixture([0.5, 0.5], [[0.5], [3.0]], [[[1.0]], [[1.0]]])
    scaled = [Mixture(m.weights, m.means * factor, m.covariances * factor**2) for m in (a, b)]
    assert mixing_distance(*scaled) == pytest.approx(factor * mixing_distance(a, b), rel=1e-9)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_what_both_have_costs_nothing_however_far_it_is(order):
    far = [[0.0], [1.0], [9.96921e36]]
    a = Mixture([0.1, 0.2, 0.7], far, np.ones((3, 1, 1)))
    assert mixing_distance(a, a.reordered(order)) == 0.0
    b = Mixture([0.15, 0.15, 0.7], far, np.ones((3, 1, 1)))
    assert mixing_distance(a, b.reordered(order)) == pytest.approx(0.05, rel=1e-12)


def test_the_numbers_of_components_may_differ():
    a = Mixture([1.0], [[0.0]], [1.0], "spherical")
    b = Mixture([0.5, 0.5], [[-2.0], [4.0]], [1.0, 1.0], "spherical")
    assert_allclose(mixing_distance(a, b), 3.0)


def test_the_covariance_types_may_differ():
    a = Mixture([1.0], [[0.0, 0.0]], [2.0], "spherical")
    b = Mixture([1.0], [[0.0, 0.0]], [2 * np.eye(2)], "full")
    assert_allclose(mixing_distance(a, b), 0.0, atol=1e-12)


def test_another_number_of_columns_is_refused():
    with pytest.raises(ValueError, match="same number of columns; got 2 and 3"):
        mixing_distance(random_mixture(1), random_mixture(1, n_features=3))


# -- parameter_error -----------------------------------------------------------------------------


@given(covariance_types, seeds)
def test_parameters_of_the_same_mixture_have_no_error(covariance_type, seed):
    m = random_mixture(seed, covariance_type=covariance_type)
    assert_allclose(parameter_error(shuffled(m, seed), m), 0.0, atol=1e-9)


def test_of_one_gaussian_it_is_the_textbook_formula():
    """Fisher information of N(mu, s2): 1 / s2 about mu, 1 / (2 s2^2) about s2."""
    truth = Mixture([1.0], [[1.0]], [4.0], "spherical")
    other = Mixture([1.0], [[1.5]], [4.4], "spherical")
    expected = np.sqrt(0.5**2 / 4.0 + 0.4**2 / (2 * 4.0**2))
    # The information is a mean over rows that are drawn: a few thousand of them.
    assert_allclose(parameter_error(other, truth), expected, rtol=0.05)


def test_it_is_the_same_in_all_units():
    truth, other = (random_mixture([7, i]) for i in range(2))
    scale = np.array([1e-3, 50.0])

    def scaled(m):
        return Mixture(m.weights, m.means * scale, m.covariances * np.outer(scale, scale))

    assert_allclose(
        parameter_error(scaled(other), scaled(truth)), parameter_error(other, truth), rtol=1e-6
    )


def test_of_estimates_its_square_is_chi_square_over_n():
    truth, n = random_mixture(3, 2, 2), 2000
    about = truth_information(truth)
    squares = [
        n
        * parameter_error(fit_local(truth.sample(n, i)[0], 2, start=truth).mixture, truth, about)
        ** 2
        for i in range(60)
    ]
    # The mean of 60 chi-squares with p degrees of freedom, within 4 standard errors and a bias of O(1/n).
    p = truth.n_parameters
    assert abs(np.mean(squares) / p - 1) < 4 * np.sqrt(2 / p / 60) + 0.1


def test_errors_of_other_shapes_are_named():
    with pytest.raises(ValueError, match="must agree"):
        parameter_error(random_mixture(0, 2, 2), random_mixture(0, 3, 2))
