"""Row counts are claims: nobody counts for more than ten times the median one."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dask_dfmr import FilterWarning, LocalEstimate, aggregate
from dask_dfmr.aggregation.stages.intake import MOST_ROWS
from tests.data_makers import same_bits
from tests.strategies import jiggled, random_mixture

pytestmark = pytest.mark.usefixtures("coarse_laws")

TRUTH = random_mixture(1, spread=8.0)


def some(n_samples):
    return [LocalEstimate(jiggled(TRUTH, i, 0.02), n) for i, n in enumerate(n_samples)]


def aggregated(n_samples, **options):
    """Without the warnings of those who claim much."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FilterWarning)
        return aggregate(some(n_samples), **options)


OPTIONS = [
    {},
    {"rho": 1.3},
    {"method": "mr"},
    {"method": "componentwise"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_a_claim_counts_as_the_cap(options):
    claimed = aggregated([500] * 12 + [10**15], **options)
    at_cap = aggregated([500] * 12 + [int(MOST_ROWS) * 500], **options)
    assert same_bits(claimed.mixture, at_cap.mixture)
    assert_array_equal(claimed.decision.kept, at_cap.decision.kept)
    assert_array_equal(claimed.decision.distances, at_cap.decision.distances)


@pytest.mark.filterwarnings("ignore:estimate 12 holds")
def test_who_claims_is_named():
    with pytest.warns(FilterWarning, match="estimates 12 claim more than 10 times the rows"):
        aggregate(some([500] * 12 + [10**15]), method="mr")


@pytest.mark.parametrize("n_liars", [1, 3, 5])
def test_liars_who_are_a_minority_cannot_move_the_cap(n_liars):
    honest = [500] * (n_liars + 1)
    result = aggregated(honest + [10**12] * n_liars, rho=np.inf)
    assert same_bits(result.mixture, aggregated(honest + [5000] * n_liars, rho=np.inf).mixture)


def test_refused_claims_do_not_move_the_cap():
    malformed = {**LocalEstimate(TRUTH, 500).to_arrays(), "n_samples": 10**17}
    malformed["weights"] = np.full(3, np.nan)
    estimates = some([400, 500, 600, 700, 800, 900])
    expected = aggregate(estimates, random_state=0)
    found = aggregate([malformed, *estimates, malformed, malformed], random_state=0)
    assert same_bits(found.mixture, expected.mixture)
    assert_array_equal(found.decision.kept[1:7], expected.decision.kept)
    assert_array_equal(found.decision.distances[1:7], expected.decision.distances)
    assert set(found.decision.refused) == {0, 7, 8}


def test_equal_weights_do_not_mind():
    result = aggregate(some([500] * 12 + [4000]), machine_weights="equal")
    assert result.decision.kept.sum() >= 12
