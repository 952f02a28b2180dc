"""Hypothesis strategies as named values, and the seeded mixtures behind them."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dask_dfmr import LocalEstimate, Mixture
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

seeds = st.integers(0, 2**32 - 1)
covariance_types = st.sampled_from(COVARIANCE_TYPES)


def random_covariances(rng, n_components, n_features, covariance_type):
    """Well-conditioned covariances in the shape of their type."""
    factors = rng.normal(size=(n_components, n_features, n_features))
    full = factors @ factors.transpose(0, 2, 1) / n_features + 0.3 * np.eye(n_features)
    return {
        "full": lambda: full,
        "tied": lambda: full[0],
        "diag": lambda: rng.uniform(0.3, 2.0, (n_components, n_features)),
        "spherical": lambda: rng.uniform(0.3, 2.0, n_components),
    }[covariance_type]()


def random_mixture(
    seed, n_components=3, n_features=2, covariance_type="full", spread=3.0, names=None
):
    """A mixture that depends on its arguments only."""
    rng = np.random.default_rng(seed)
    return Mixture(
        rng.dirichlet(np.full(n_components, 5.0)),
        spread * rng.normal(size=(n_components, n_features)),
        random_covariances(rng, n_components, n_features, covariance_type),
        covariance_type,
        names,
    )


def jiggled(mixture, seed, scale=0.05):
    """A mixture nearby, as another machine would estimate it."""
    rng = np.random.default_rng(seed)
    weights = mixture.weights * np.exp(scale * rng.normal(size=mixture.n_components))
    # One factor per component, or one in all where they share a covariance.
    is_tied = mixture.covariance_type == "tied"
    axes = () if is_tied else (mixture.n_components, *[1] * (mixture.covariances.ndim - 1))
    covariances = mixture.covariances * np.exp(scale * rng.normal(size=axes))
    return Mixture(
        weights / weights.sum(),
        mixture.means + scale * rng.normal(size=mixture.means.shape),
        covariances,
        mixture.covariance_type,
        mixture.feature_names,
    )


def shuffled(mixture, seed):
    """The same mixture, its components in another order."""
    return mixture.reordered(np.random.default_rng(seed).permutation(mixture.n_components))


def some_estimates(seed, n_sources=9, n_bad=2, covariance_type="full", **shape):
    """Estimates of one population, the last ``n_bad`` of them of others; in a seeded row count each."""
    truth = random_mixture(seed, covariance_type=covariance_type, **shape)
    rng = np.random.default_rng([seed, 1])
    good = [jiggled(truth, [seed, 2, i]) for i in range(n_sources - n_bad)]
    bad = [
        random_mixture([seed, 3, i], covariance_type=covariance_type, **shape) for i in range(n_bad)
    ]
    return [LocalEstimate(m, int(rng.integers(900, 1100))) for m in [*good, *bad]]


def mixtures(covariance_type="full", n_components=3, n_features=2):
    """Mixtures of one type and shape."""
    return st.builds(
        random_mixture,
        seeds,
        st.just(n_components),
        st.just(n_features),
        st.just(covariance_type),
        st.floats(0.1, 10.0),
    )


def estimates(covariance_type="full", n_sources=9, n_bad=2):
    """Lists of local estimates, a minority of them bad."""
    return st.builds(
        some_estimates,
        seeds,
        st.just(n_sources),
        st.just(n_bad),
        st.just(covariance_type),
    )
