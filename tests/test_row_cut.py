"""The cut of components: naive twins of the truncated sums, and their expectations."""

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2
from strategies import random_mixture

from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from dask_dfmr.mixtures.row_cut import RowCut

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
LEVEL = 0.05


def truncated(covariance_type, seed=0, n=20_000):
    """A mixture of overlapping components, rows of it, and its family with a cut."""
    mixture = random_mixture(seed, 3, 4, covariance_type, 1.0)
    X, _ = mixture.sample(n, random_state=seed)
    return mixture, X, mixture.family.with_cut(RowCut(LEVEL, truncates=True))


def test_the_numbers_are_those_of_chi_square_laws():
    limit, inside, second = RowCut(LEVEL).numbers(7)
    assert limit == pytest.approx(chi2.ppf(1 - LEVEL, 7))
    assert inside == 1 - LEVEL
    assert second == pytest.approx(chi2.cdf(limit, 9))


@every_type
def test_moments_are_sums_over_the_rows_inside(covariance_type):
    mixture, X, family = truncated(covariance_type, n=500)
    X[:20] += 6.0
    limit, inside, second = RowCut(LEVEL).numbers(4)
    found = family.em_pass(X, mixture.weights, mixture.components)
    r = naive.responsibilities(mixture, X)
    is_inside = naive.squared_distances(mixture, X) <= limit
    assert found.n_outside == (~is_inside.any(axis=1)).sum() >= 20
    r = r * is_inside
    assert_allclose(found.moments[0], r.sum(axis=0) / inside)
    shift = X[:, None] - mixture.means
    assert_allclose(found.moments[1], np.einsum("nk,nkd->kd", r, shift) / inside, atol=1e-9)
    outer = np.einsum("nk,nkd,nke->kde", r, shift, shift) / second
    found_diagonal = {
        "full": lambda m: np.diagonal(m, axis1=1, axis2=2),
        "tied": lambda m: np.diagonal(m, axis1=1, axis2=2),
        "diag": lambda m: m,
        "spherical": lambda m: m,
    }[covariance_type](found.moments[2])
    diagonal = np.diagonal(outer, axis1=1, axis2=2)
    if covariance_type == "tied":  # one scatter of all components
        diagonal = diagonal.sum(axis=0)[None]
    assert_allclose(
        found_diagonal, diagonal.mean(axis=1) if covariance_type == "spherical" else diagonal
    )


@every_type
def test_scores_have_mean_zero_at_the_truth_and_add_up_to_those_of_moments(covariance_type):
    mixture, X, family = truncated(covariance_type)
    point = (mixture.weights, mixture.components)
    scores = family.scores(X, *point)
    z = scores.mean(axis=0) / (scores.std(axis=0) / np.sqrt(len(X)))
    assert np.abs(z).max() < 4.5
    moments = family.em_pass(X, *point).moments
    assert_allclose(scores.sum(axis=0), family.score_of_moments(moments, *point), atol=1e-6)


@every_type
def test_no_row_has_a_long_score(covariance_type):
    mixture, X, family = truncated(covariance_type, n=200)
    point = (mixture.weights, mixture.components)
    X[:10] *= 1e6
    lengths = np.linalg.norm(family.scores(X, *point), axis=1)
    bounds = family.score_lengths(X, *point)
    assert (lengths <= bounds * (1 + 1e-9)).all()
    assert bounds[:10].max() == 0.0
    if covariance_type == "full":
        assert_allclose(lengths, bounds, atol=1e-9)
