"""The sandwich: information, scores and distances of estimates that truncate."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from strategies import random_mixture

from dask_dfmr import Mixture
from dask_dfmr.aggregation.null_law import distance_law
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures import distances as l2
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.mixtures.information import information
from dask_dfmr.mixtures.row_cut import RowCut
from dask_dfmr.mixtures.whitening import make_frame

CUT = RowCut(0.05, truncates=True)
OVERLAPPING = Mixture([0.6, 0.4], [[0.0], [2.5]], [[[1.0]], [[2.0]]])


def at(mixture, cut=CUT, seed=0):
    family = mixture.family.with_cut(cut)
    rng = np.random.default_rng(seed)
    return family, information(family, mixture.weights, mixture.components, rng)


def precision(about):
    return about.root @ about.root.T


def integrals():
    """A = E psi s', -d E psi and B = E psi psi' of a mixture in one column, by sums over a grid."""
    m, x = OVERLAPPING, np.linspace(-12.0, 18.0, 60_001)[:, None]
    family = m.family.with_cut(CUT)
    density = np.exp(m.score_samples(x)) * (x[1, 0] - x[0, 0])
    origin = (m.weights, m.components)
    psi, s = (f.scores(x, *origin) for f in (family, m.family))

    def expected(v):
        return density @ family.scores(x, *family.displaced(v, origin))

    step = 0.02
    moves = step * np.eye(psi.shape[1])
    derivative = np.array([(expected(v) - expected(-v)) / (2 * step) for v in moves]).T
    return (psi * density[:, None]).T @ s, -derivative, (psi * density[:, None]).T @ psi


def test_the_derivative_is_the_covariance_with_the_likelihood_score():
    A, derivative, _ = integrals()
    free = np.eye(len(A)) - np.outer(*[np.r_[np.sqrt(OVERLAPPING.weights), np.zeros(4)]] * 2)
    # Along the direction in which the sum of the weights changes no mixture lies.
    assert_allclose(derivative @ free, A @ free, atol=0.01)


def test_the_information_is_that_of_the_sandwich():
    A, _, B = integrals()
    _, about = at(OVERLAPPING)
    n = np.outer(about.normal, about.normal)
    expected = A.T @ np.linalg.inv(B + n) @ A + n
    assert_allclose(precision(about), expected, atol=0.1)
    assert_allclose(about.score_root @ about.score_root.T, B + n, atol=0.1)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_it_is_less_than_the_fisher_information_and_tends_to_it(covariance_type):
    m = random_mixture(1, 3, 3, covariance_type, 2.0)
    _, fisher = at(m, RowCut(0.05))
    assert fisher.score_root is None
    _, truncated = at(m)
    gap = precision(fisher) - precision(truncated)
    assert np.linalg.eigvalsh(gap).min() > -1e-3
    assert 0.02 < np.trace(gap) / np.trace(precision(fisher)) < 0.25
    _, hardly = at(m, RowCut(1e-9, truncates=True))
    assert_allclose(precision(hardly), precision(fisher), atol=1e-4)


def test_whitened_scores_have_the_identity_as_their_covariance():
    m = random_mixture(2, 3, 3, spread=3.0)
    family, about = at(m)
    X, _ = m.sample(20_000, random_state=5)
    white = about.whiten(family.scores(X, m.weights, m.components))
    values = np.linalg.eigvalsh(white.T @ white / len(X))
    assert values[0] == pytest.approx(0.0, abs=1e-9)  # the normal
    assert values[1] > 0.5
    assert values[1:].mean() == pytest.approx(1.0, abs=0.1)
    wider = about.widened(4.0 * np.eye(len(about.normal)))
    assert_allclose(wider.whiten(white[:5]), about.whiten(white[:5]) / 2.0, atol=1e-9)
    assert_array_equal(wider.root, about.root)


def simulated(mixture, n, n_fits, cut):
    """Truncated estimates from rows of a mixture, from a start at it."""
    problem = LocalProblem(replace(mixture.family, cut=cut), mixture.n_components, tol=1e-7)
    rows = (mixture.sample(n, random_state=seed)[0] for seed in range(n_fits))
    return l2.stack_mixtures([problem.fit(X, mixture).mixture for X in rows])


@pytest.fixture(scope="module")
def estimates():
    mixture = random_mixture(5, 2, 2, spread=5.0)
    return mixture, simulated(mixture, 2000, 60, CUT)


def test_distances_of_estimates_have_the_law(estimates):
    mixture, stack = estimates
    family, about = at(mixture)
    law, _ = distance_law(family, about, np.random.default_rng(0))
    one = l2.stack_mixtures([mixture])
    selves = (l2.log_self_products(family, s) for s in (one, stack))
    squares = 2000 * l2.log_polar_tile(family, one, stack, *selves)[0] ** 2
    assert squares.mean() == pytest.approx(law.mean, rel=0.15)
    assert law.sf(squares).min() > 1e-4


def test_white_coordinates_of_estimates_are_standard_normal(estimates):
    mixture, stack = estimates
    rng = np.random.default_rng(0)
    frame = make_frame(Gaussian(cut=CUT), mixture.weights, mixture.components, rng)
    white = np.sqrt(2000) * frame.white(stack)
    assert (white**2).mean() == pytest.approx(1.0, abs=0.15)
