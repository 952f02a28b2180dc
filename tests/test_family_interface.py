"""Another family is one more file: Poisson columns go through every step of the method."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import poisson

from dask_dfmr import LocalEstimate, Mixture, Outcome, aggregate, pairwise_l2
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import (
    choose_start,
    draw_pilots,
    fit_pilot,
    make_shortlist,
    pilot_scale,
    read_pilot,
)
from dask_dfmr.mixtures.family import Family
from dask_dfmr.mixtures.mixture import FiniteMixture
from dask_dfmr.on_dask.estimate_store import StoredEstimates, write_block
from dask_dfmr.seeds import stream
from tests.poisson import Poisson, PoissonMixture

# Inconsistent estimates that agree form a group; tests/test_consensus.py tests the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")

TRUTH = PoissonMixture([0.5, 0.3, 0.2], [[2.0, 9.0], [12.0, 3.0], [25.0, 25.0]])
PROBLEM = LocalProblem(family=Poisson(), n_components=3, n_init=8)


def jiggled(seed, scale=0.03):
    rates = TRUTH.rates * np.exp(scale * np.random.default_rng(seed).normal(size=(3, 2)))
    return PoissonMixture(TRUTH.weights, rates)


def rows_of(n_rows, seed):
    return TRUTH.sample(n_rows, seed)[0]


def naive_density(m, x):
    columns = [poisson(m.rates[:, j]).pmf(x[:, [j]]) for j in range(m.n_features)]
    return np.prod(columns, axis=0) @ m.weights


@pytest.fixture(scope="module")
def estimates():
    """Eight consistent fits, and two of rows in another unit."""
    same_unit = [PROBLEM.fit(rows_of(2000, i), "k-means++", random_state=i) for i in range(8)]
    other_unit = [
        PROBLEM.fit(10 * rows_of(2000, 99 + i), "k-means++", random_state=i) for i in (0, 1)
    ]
    return [*same_unit, *other_unit]


@pytest.mark.smoke
def test_it_is_a_family():
    assert isinstance(Poisson(), Family)


def test_the_mixture_value_has_densities_labels_and_samples():
    X, labels = TRUTH.sample(500, 0)
    assert X.shape == (500, 2)
    assert (TRUTH.n_components, TRUTH.n_features, TRUTH.n_parameters) == (3, 2, 8)
    assert_allclose(TRUTH.score_samples(X), np.log(naive_density(TRUTH, X)))
    assert_allclose(TRUTH.predict_proba(X).sum(axis=1), 1.0)
    assert (TRUTH.predict(X) == labels).mean() > 0.9


def test_the_mixture_value_can_be_reordered_aligned_and_saved(tmp_path):
    moved = TRUTH.reordered([2, 0, 1])
    assert_array_equal(moved.rates, TRUTH.rates[[2, 0, 1]])
    assert_array_equal(moved.align_to(TRUTH).weights, TRUTH.weights)
    TRUTH.save(tmp_path / "m.json")
    read = PoissonMixture.load(tmp_path / "m.json")
    assert_array_equal(read.rates, TRUTH.rates)
    with pytest.raises(ValueError, match=r"m\.json: a mixture must have weights, means"):
        Mixture.load(tmp_path / "m.json")


def test_a_mixture_value_must_keep_the_contract():
    class Incomplete(FiniteMixture):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()


@pytest.mark.smoke
def test_distances_sum_the_squared_difference():
    f, g = TRUTH, jiggled(1, 0.3)
    grid = np.stack(np.meshgrid(np.arange(120), np.arange(120)), axis=-1).reshape(-1, 2)
    expected = np.sqrt(((naive_density(f, grid) - naive_density(g, grid)) ** 2).sum())
    assert_allclose(pairwise_l2([f, g]), [[0, expected], [expected, 0]], rtol=1e-8)


def test_local_fits_recover_the_rates(estimates):
    for e in estimates[:8]:
        assert e.outcome is Outcome.FITTED
        assert isinstance(e.mixture, PoissonMixture)
        assert_allclose(e.mixture.weights, TRUTH.weights, atol=0.06)
        assert_allclose(e.mixture.rates, TRUTH.rates, rtol=0.15)


@pytest.mark.parametrize("accelerate", [True, False])
def test_the_penalised_objective_never_falls(accelerate):
    X, start = rows_of(500, 0), jiggled(2, 0.5)
    penalty = PROBLEM.penalty_for(X)
    climb = []
    for i in range(1, 20):
        local = LocalProblem(Poisson(), 3, tol=0.0, max_iter=i, accelerate=accelerate)
        climb.append(local.maximise(X, (start.weights, start.components), penalty).objective)
    assert (np.diff(climb) > -1e-8).all()


def test_the_aggregate_excludes_inconsistent_estimates_and_recovers_the_rates(estimates):
    result = aggregate(estimates, rho=3.0)
    assert isinstance(result.mixture, PoissonMixture)
    assert_array_equal(result.decision.kept, [True] * 8 + [False] * 2)
    assert_allclose(result.mixture.weights, TRUTH.weights, atol=0.02)
    assert_allclose(result.mixture.rates, TRUTH.rates, rtol=0.05)


def test_the_reduction_of_two_is_the_weighted_mean_of_the_rates():
    a, b = jiggled(1), jiggled(2)
    with pytest.warns(UserWarning, match="nothing is filtered"):
        result = aggregate([LocalEstimate(a, 100), LocalEstimate(b, 300)])
    assert_allclose(result.mixture.rates, 0.25 * a.rates + 0.75 * b.rates, rtol=1e-12)


def test_a_malformed_message_is_refused(estimates):
    bad = {"weights": [1.0, 0, 0], "rates": -TRUTH.rates, "n_samples": 10}
    result = aggregate([*estimates[:5], bad])
    assert list(result.decision.refused) == [5]
    assert result.decision.reason(5) == "malformed estimate: rates must be positive"


def test_pilots_find_a_shared_start():
    partitions = [rows_of(1000, i) for i in range(6)]
    seed = np.random.SeedSequence(0)
    pilots = [read_pilot(PROBLEM, partitions[i], stream(seed, i)) for i in draw_pilots(6, seed)]
    scale = pilot_scale(pilots)
    shortlist = make_shortlist(
        PROBLEM, [fit_pilot(PROBLEM, p, scale, stream(seed, i)) for i, p in enumerate(pilots)]
    )
    chosen = choose_start(PROBLEM, partitions[0], shortlist, seed)
    rates = np.sort(shortlist.starts[chosen][1][0], axis=0)
    assert_allclose(rates, np.sort(TRUTH.rates, axis=0), rtol=0.25)


def test_estimates_are_stored_and_read(estimates):
    stored = StoredEstimates(len(estimates), 4, Poisson())
    for block in range(3):
        write_block(
            [e.to_arrays() for e in estimates[4 * block : 4 * block + 4]],
            stored.path(block),
            Poisson(),
        )
    assert_array_equal(stored[9].mixture.rates, estimates[9].mixture.rates)


def test_a_column_without_counts_is_degenerate():
    X = rows_of(100, 0) * [1, 0]
    result = PROBLEM.fit(X, "k-means++", feature_names=["a", "b"])
    assert (result.outcome, result.reason) == (Outcome.DEGENERATE, "'b' has no counts")


def test_the_hardened_filter_knows_no_family(estimates):
    result = aggregate([*estimates, estimates[0], estimates[0]], method="hardened")
    decision = result.decision
    assert decision.kept[:8].sum() + decision.kept[10:].sum() >= 7
    assert decision.kept[[0, 10, 11]].sum() == 1
    assert not decision.kept[8:10].any()
    copied = next(i for i in (0, 10, 11) if not decision.kept[i])
    assert "copies count as one" in decision.reason(copied)
