"""Trimmed mixture reduction against a naive twin; golden numbers are in test_reference.py."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import Aggregate, LocalEstimate, Mixture, aggregate
from dask_dfmr.aggregation.reduction import Centers
from dask_dfmr.aggregation.trimmed_reduction import reduce_trimmed
from tests import naive
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


def test_it_is_the_naive_twin():
    estimates = some()
    result = aggregate(estimates, method="trim")
    start = estimates[result.decision.center].mixture
    weights, means, covariances = naive_trimmed([e.mixture for e in estimates], start)
    order = np.argsort(-weights)
    assert_allclose(result.mixture.weights, weights[order], rtol=1e-10)
    assert_allclose(result.mixture.means, means[order], rtol=1e-9)
    assert_allclose(result.mixture.covariances, covariances[order], rtol=1e-8, atol=1e-12)


def test_half_of_the_weight_is_kept_exactly():
    mixtures = [jiggled(TRUTH, i) for i in range(7)]
    weights = np.concatenate([m.weights for m in mixtures]) / 7
    pooled = tuple(
        np.concatenate([m.components[p] for m in mixtures])
        for p in range(len(mixtures[0].components))
    )
    start = Centers(mixtures[0].weights, mixtures[0].components)
    trimmed = reduce_trimmed(TRUTH.family, weights, pooled, start)
    assert_allclose(trimmed.kept.sum(), 0.5)
    assert ((trimmed.kept > 0) & (trimmed.kept < weights)).sum() <= 1


def test_who_lost_everything_is_left_out_and_says_why():
    bad = [LocalEstimate(random_mixture(100 + i, spread=50.0), 500) for i in range(4)]
    estimates = [*some(), *bad]
    result = aggregate(estimates, method="trim")
    assert not result.decision.kept[12:].any()
    assert "farthest half" in result.decision.reason(13)
    clean = aggregate(some(), method="trim")
    aligned = result.mixture.align_to(clean.mixture)
    assert_allclose(aligned.means, clean.mixture.means, atol=0.1)


def test_order_does_not_matter():
    estimates = some(8)
    mixed = [
        LocalEstimate(shuffled(e.mixture, i), e.n_samples) for i, e in enumerate(estimates[::-1])
    ]
    a, b = (aggregate(e, method="trim") for e in (estimates, mixed))
    assert_allclose(a.mixture.means, b.mixture.means, rtol=1e-10)
    assert_array_equal(a.decision.kept, b.decision.kept[::-1])


def test_one_estimate_is_its_own_trimmed_mean():
    one = some(1)
    result = aggregate(one, method="trim")
    assert result.mixture.n_components == TRUTH.n_components
    assert np.isfinite(result.mixture.means).all()


def test_it_survives_a_file(tmp_path):
    bad = LocalEstimate(random_mixture(100, spread=50.0), 500)
    result = aggregate([*some(), bad], method="trim")
    result.save(tmp_path / "result.zip")
    again = Aggregate.load(tmp_path / "result.zip")
    assert again.decision.reason(12) == result.decision.reason(12) != ""
    assert again.mixture == result.mixture
    assert isinstance(again.mixture, Mixture)
