"""The generator of populations for the benchmarks: overlaps by formula, by counting, and of published populations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, norm

from tests.benchmark_scripts import BENCHMARKS, benchmark_script


@pytest.fixture(scope="module")
def mixsim():
    with benchmark_script("mixsim") as script:
        yield script


def overlap(mixsim, weights, means, covariances):
    directions = mixsim.spread_directions(means.shape[1])
    omega = mixsim.misclassification(weights, means, covariances, directions)
    return omega, (omega + omega.T).max()


def test_equal_covariances_have_a_formula(mixsim):
    """The log-ratio is linear: P(w_j phi_j > w_i phi_i) = Phi(log(w_j / w_i) / delta - delta / 2)."""
    weights, delta = np.array([0.7, 0.3]), 1.7
    covariance = np.array([[2.0, 0.6], [0.6, 1.0]])
    shift = np.linalg.cholesky(covariance) @ [0.6 * delta, -0.8 * delta]
    means, covariances = np.array([[0.0, 0.0], shift]), np.array([covariance, covariance])
    omega, _ = overlap(mixsim, weights, means, covariances)
    log_odds = np.log(weights[1] / weights[0])
    expected = norm.cdf([log_odds / delta - delta / 2, -log_odds / delta - delta / 2])
    assert_allclose([omega[0, 1], omega[1, 0]], expected, atol=1e-3)
    assert omega[0, 0] == omega[1, 1] == 0


def test_concentric_components_have_another(mixsim):
    """In one dimension, sd 1 and s about the same mean: the wider one wins outside of a radius."""
    s, weights = 3.0, np.array([0.5, 0.5])
    omega, _ = overlap(mixsim, weights, np.zeros((2, 1)), np.array([[[1.0]], [[s**2]]]))
    radius = np.sqrt(2 * np.log(s) / (1 - s**-2))
    assert_allclose(omega[0, 1], 2 * norm.sf(radius), atol=1e-9)
    assert_allclose(omega[1, 0], 1 - 2 * norm.sf(radius / s), atol=1e-9)


def test_it_is_what_counting_rows_gives(mixsim):
    mixture = mixsim.paper_population(3, 4, 0.2, seed=7, weights=np.array([0.5, 0.3, 0.2]))
    omega, worst = overlap(mixsim, mixture.weights, mixture.means, mixture.covariances)
    assert_allclose(worst, 0.2, atol=1e-5)
    laws = [
        multivariate_normal(*one) for one in zip(mixture.means, mixture.covariances, strict=True)
    ]
    n_rows = 100_000
    for i in range(3):
        rows = laws[i].rvs(n_rows, random_state=i)
        scores = np.array([w * law.pdf(rows) for w, law in zip(mixture.weights, laws, strict=True)])
        shares = (scores > scores[i]).mean(axis=1)
        error = np.sqrt(omega[i] * (1 - omega[i]) / n_rows) + 5e-4
        assert (np.abs(shares - omega[i]) < 4 * error).all()


@pytest.mark.parametrize("published", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", [1, 2])
def test_overlaps_of_published_populations(mixsim, published, seed):
    """MixSim made them: see benchmarks/data/README.md."""
    with np.load(BENCHMARKS / "data" / "populations.npz") as data:
        found = [data[f"o{published:g}_s{seed}_{x}"] for x in ("weights", "means", "covs")]
    assert_allclose(overlap(mixsim, *found)[1], published, rtol=0.02)


def test_the_design_of_the_paper(mixsim):
    mixture = mixsim.paper_population(3, 4, 0.1, seed=3)
    values = np.linalg.eigvalsh(mixture.covariances)
    assert_allclose(np.sqrt(1 - values[:, 0] / values[:, -1]), 0.9, atol=1e-6)
    assert (mixture.means >= 0).all()
    assert (mixture.means <= 1).all()
    assert_allclose(mixture.weights, 1 / 3)
    assert_allclose(
        overlap(mixsim, mixture.weights, mixture.means, mixture.covariances)[1], 0.1, atol=1e-5
    )


def test_what_cannot_be_is_said(mixsim, monkeypatch):
    monkeypatch.setattr(mixsim, "MOST_DRAWS", 1)
    monkeypatch.setattr(mixsim, "N_DIRECTIONS", 2**8)
    with pytest.raises(ValueError, match=r"no 3 components in 30 columns overlap by 0\.5"):
        mixsim.paper_population(3, 30, 0.5, seed=0)
