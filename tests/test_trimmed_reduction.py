"""The baseline ``benchmarks/trimmed_reduction.py`` against a naive twin and the numbers of the published scripts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import LocalEstimate, mixing_distance
from dask_dfmr.aggregation.reduction import Centers
from tests import naive, test_reference
from tests.benchmark_scripts import benchmark_script
from tests.strategies import jiggled, random_mixture, shuffled

pytestmark = pytest.mark.usefixtures("coarse_laws")

TRUTH = random_mixture(1, spread=8.0)


def some(m=12, scale=0.05, n_samples=500):
    return [LocalEstimate(jiggled(TRUTH, i, scale), n_samples) for i in range(m)]


def naive_trimmed(mixtures, start, share=0.5, rounds=50):
    """Component by component, in loops."""
    weights = np.concatenate([m.weights for m in mixtures]) / len(mixtures)
    means = np.concatenate([m.means for m in mixtures])
    covariances = np.concatenate([m.covariances for m in mixtures])
    centers = [start.means, start.covariances]
    for _ in range(rounds):
        costs = np.array(
            [
                [naive.divergence(mean, cov, mu, sigma) for mu, sigma in zip(*centers, strict=True)]
                for mean, cov in zip(means, covariances, strict=True)
            ]
        )
        labels, nearest = costs.argmin(axis=1), costs.min(axis=1)
        left, kept = share, np.zeros(len(weights))
        for i in np.argsort(nearest, kind="stable"):
            kept[i] = min(weights[i], left)
            left -= kept[i]
        new_weights, new_means, new_covariances = [], [], []
        for k in range(len(start.means)):
            w = np.where(labels == k, kept, 0.0)
            mu = w @ means / w.sum()
            centered = means - mu
            scatter = sum(
                w[i] * (covariances[i] + np.outer(centered[i], centered[i])) for i in range(len(w))
            )
            new_weights.append(w.sum() / kept.sum())
            new_means.append(mu)
            new_covariances.append(scatter / w.sum())
        centers = [np.array(new_means), np.array(new_covariances)]
    return np.array(new_weights), *centers


@pytest.fixture(scope="module")
def script():
    with benchmark_script("trimmed_reduction") as module:
        yield module


def test_it_is_the_naive_twin(script):
    estimates = some()
    result = script.trimmed_reduction(estimates)
    start = estimates[result.center].mixture
    weights, means, covariances = naive_trimmed([e.mixture for e in estimates], start)
    order = np.argsort(-weights)
    assert_allclose(result.mixture.weights, weights[order], rtol=1e-10)
    assert_allclose(result.mixture.means, means[order], rtol=1e-9)
    assert_allclose(result.mixture.covariances, covariances[order], rtol=1e-8, atol=1e-12)


def test_half_of_the_weight_is_kept_exactly(script):
    mixtures = [jiggled(TRUTH, i) for i in range(7)]
    weights = np.concatenate([m.weights for m in mixtures]) / 7
    pooled = tuple(
        np.concatenate([m.components[p] for m in mixtures])
        for p in range(len(mixtures[0].components))
    )
    start = Centers(mixtures[0].weights, mixtures[0].components)
    trimmed = script.reduce_trimmed(TRUTH.family, weights, pooled, start)
    assert_allclose(trimmed.kept.sum(), 0.5)
    assert ((trimmed.kept > 0) & (trimmed.kept < weights)).sum() <= 1


def test_an_estimate_without_kept_components_is_not_kept(script):
    bad = [LocalEstimate(random_mixture(100 + i, spread=50.0), 500) for i in range(4)]
    result = script.trimmed_reduction([*some(), *bad])
    assert not result.kept[12:].any()
    clean = script.trimmed_reduction(some())
    aligned = result.mixture.align_to(clean.mixture)
    assert_allclose(aligned.means, clean.mixture.means, atol=0.1)


def test_unusable_estimates_and_messages(script):
    """A malformed message changes nothing, and a message counts like the estimate that it holds."""
    estimates = some()
    plain = script.trimmed_reduction(estimates)
    messages = [{"weights": np.array([np.nan])}, *(e.to_arrays() for e in estimates)]
    result = script.trimmed_reduction(messages)
    assert result.mixture == plain.mixture
    assert_array_equal(result.kept, [False, *plain.kept])


def test_no_estimate_counts_for_more_than_ten_times_the_median_rows(script):
    claims, capped = (
        [LocalEstimate(e.mixture, n) for e, n in zip(some(4), (1, 1, 1, most), strict=True)]
        for most in (10**6, 10)
    )
    a, b = map(script.trimmed_reduction, (claims, capped))
    assert a.mixture == b.mixture


def test_the_order_of_estimates_and_components_does_not_matter(script):
    estimates = some(8)
    mixed = [
        LocalEstimate(shuffled(e.mixture, i), e.n_samples) for i, e in enumerate(estimates[::-1])
    ]
    a, b = map(script.trimmed_reduction, (estimates, mixed))
    assert_allclose(a.mixture.means, b.mixture.means, rtol=1e-10)
    assert_array_equal(a.kept, b.kept[::-1])


def test_one_estimate_is_its_own_trimmed_mean(script):
    result = script.trimmed_reduction(some(1))
    assert result.mixture.n_components == TRUTH.n_components
    assert np.isfinite(result.mixture.means).all()


def test_more_starts_are_no_worse(script):
    estimates = some(scale=0.2)
    one, three = (script.trimmed_reduction(estimates, n_starts=n) for n in (1, 3))
    assert three.objective <= one.objective


@pytest.mark.usefixtures("each_engine")
@pytest.mark.parametrize("case", test_reference.CASES)
@pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
def test_it_is_the_reduction_of_the_published_scripts(script, case):
    estimates = test_reference.estimates_of(case)
    result = script.trimmed_reduction(estimates, equal_weights=True, max_rounds=100)
    assert result.converged
    trimmed = test_reference.reference(case, "trim_coatinit_trimmed_label").reshape(20, 5) == 1
    assert_array_equal(result.kept, ~trimmed.all(axis=1))
    # The scripts stop at an absolute change of 1e-5.
    objective = test_reference.reference(case, "trim_coatinit_obj")
    assert_allclose(result.objective, objective, rtol=1e-3)
    w1 = mixing_distance(result.mixture, test_reference.TRUTH)
    assert_allclose(w1, test_reference.reference(case, "trim_coatinit_W1"), rtol=1e-3)
