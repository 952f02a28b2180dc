"""Filtering component by component, with the mixing weights profiled out."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import (
    AggregationError,
    FilterWarning,
    GaussianMixture,
    LocalEstimate,
    Mixture,
    aggregate,
    dfmr,
    mixing_distance,
)
from dask_dfmr.aggregation import componentwise
from dask_dfmr.aggregation.componentwise import (
    COMPONENT_LEVEL,
    LEAST_CENTER_SCALE,
    ComponentEstimates,
    calibrate,
    component_estimates,
    dissimilarities,
    distances_in_errors,
    fill_in,
    filter_component,
    filter_components,
    find_template,
    match,
    profiled_weights,
)
from dask_dfmr.mixtures.distances import stack_mixtures
from dask_dfmr.mixtures.gaussian import Gaussian
from tests import naive
from tests.data_makers import same_bits
from tests.poisson import PoissonMixture
from tests.strategies import covariance_types, jiggled, random_mixture, seeds, shuffled

pytestmark = [
    pytest.mark.usefixtures("coarse_laws"),
    # What plain DFMR says of the same estimates: tests/test_consensus.py has the warning.
    pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning"),
]

TRUTH = Mixture(
    [0.5, 0.3, 0.2],
    [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]],
    [[[1.0, 0.3], [0.3, 1.0]], [[1.0, 0.0], [0.0, 2.0]], [[0.5, 0.0], [0.0, 0.5]]],
)
N_ROWS = 2000


def reweighted(mixture, weights):
    return Mixture(weights, mixture.means, mixture.covariances, mixture.covariance_type)


def with_component(mixture, k, mean):
    """The same mixture with its k-th component elsewhere."""
    means = mixture.means.copy()
    means[k] = mean
    return Mixture(mixture.weights, means, mixture.covariances, mixture.covariance_type)


def drawn(truth, n_rows, seed):
    """An estimate as ``n_rows`` rows give it where components do not overlap: the moments of the rows of each."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_rows, truth.weights)
    means, covariances = truth.means.copy(), truth.covariances.copy()
    for k, n in enumerate(counts):
        if n > truth.n_features + 1:
            rows = rng.multivariate_normal(truth.means[k], truth.covariances[k], n)
            means[k], covariances[k] = rows.mean(axis=0), np.cov(rows.T, ddof=0)
    return LocalEstimate(Mixture(counts / n_rows, means, covariances), n_rows)


def estimates_of(truth, n_sources, n_rows=N_ROWS, seed=0):
    return [drawn(truth, n_rows, [seed, i]) for i in range(n_sources)]


def edited(estimate, edit, *arguments):
    return LocalEstimate(edit(estimate.mixture, *arguments), estimate.n_samples)


def sources_of(estimates):
    stack = stack_mixtures([e.mixture for e in estimates])
    n_samples = np.array([e.n_samples for e in estimates], dtype=float)
    parameters = np.hstack([stack.weights, *(p.reshape(len(p), -1) for p in stack.components)])
    return component_estimates(estimates[0].mixture.family, stack, n_samples, parameters)


def filtered(estimates, rho=1.3, n_candidates=None, seed=0):
    machines = sources_of(estimates)
    rng = np.random.default_rng(seed)
    return filter_components(machines, rho, machines.n_samples, n_candidates, rng)


def by_weights(estimates, **options):
    return aggregate(estimates, method="componentwise", **options)


def assert_same_mixture(a, b, tolerance=1e-9):
    for name in ("weights", "means", "covariances"):
        scale = np.abs(getattr(b, name)).max()
        assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance * scale)


# -- the parts -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_engine")
class TestDissimilarities:
    @given(covariance_types, seeds)
    def test_one_less_the_cosine_between_densities(self, covariance_type, seed):
        a, b = (random_mixture([seed, i], covariance_type=covariance_type) for i in range(2))
        singles = [list(zip(*naive.full_components(m), strict=True)) for m in (a, b)]

        def product(f, g):
            return naive.product_integral(
                Mixture([1], [f[0]], [f[1]]), Mixture([1], [g[0]], [g[1]])
            )

        expected = [
            [1 - product(f, g) / np.sqrt(product(f, f) * product(g, g)) for g in singles[1]]
            for f in singles[0]
        ]
        machines = sources_of([LocalEstimate(m, 100) for m in (a, b)])
        found = dissimilarities(a.family, a.components, b.components, *machines.log_self)
        assert_allclose(found, expected, atol=1e-9)

    def test_far_apart_is_one_and_the_same_is_zero(self):
        parts = np.array([[0.0, 0.0], [1e100, 0.0]]), np.array([np.eye(2)] * 2)
        log_self = np.diagonal(Gaussian().log_product_integral(parts, parts))
        found = dissimilarities(Gaussian(), parts, parts, log_self, log_self)
        assert_allclose(found, 1 - np.eye(2), atol=1e-14)


class TestDistances:
    @given(seeds, st.integers(10, 1000), st.integers(10, 1000))
    def test_the_divergence_in_standard_errors(self, seed, n_a, n_b):
        a, b = (random_mixture([seed, i], n_components=1) for i in range(2))
        divergence = naive.divergence(b.means[0], b.covariances[0], a.means[0], a.covariances[0])
        found = distances_in_errors(
            a.family, a.components, b.components, np.array([n_a]), np.array([n_b])
        )
        assert_allclose(found, [[np.sqrt(2 * divergence / (1 / n_a + 1 / n_b))]], rtol=1e-6)

    def test_two_estimates_of_one_component_are_chi_square_apart_whatever_their_rows(self):
        truth = reweighted(TRUTH, [0.6, 0.3, 0.1])
        few, many = (estimates_of(truth, 150, n, n) for n in (1000, 5000))
        squares = []
        for e, f in zip(few, many, strict=True):
            mine, theirs = e.mixture, f.mixture
            rows = 1000 * mine.weights, 5000 * theirs.weights
            parts = mine.components, theirs.components
            distances = distances_in_errors(mine.family, *parts, *rows)
            squares.append(np.diagonal(distances) ** 2)
        squares = np.array(squares)
        # 150 draws of chi-square with 5 degrees of freedom: the mean has a standard error of .26.
        assert_allclose(squares.mean(axis=0), 5.0, atol=1.0)
        assert (squares > chi2.ppf(0.99, 5)).mean() < 0.03

    def test_rounding_is_no_distance(self):
        e = drawn(TRUTH, N_ROWS, 0).mixture
        rows = np.full(3, 1e12)
        distances = distances_in_errors(e.family, e.components, e.components, rows, rows)
        assert_array_equal(np.diagonal(distances), 0.0)


class TestTemplate:
    def naive_scores(self, estimates):
        """By a loop over all matchings of all pairs."""
        machines = sources_of(estimates)
        k = TRUTH.n_components
        scores = []
        for i, mine in enumerate(estimates):
            costs = []
            for j, theirs in enumerate(estimates):
                parts = mine.mixture.components, theirs.mixture.components
                logs = machines.log_self[i], machines.log_self[j]
                table = dissimilarities(mine.mixture.family, *parts, *logs)
                best = min(
                    itertools.permutations(range(k)),
                    key=lambda p, table=table: sum(table[range(k), p]),
                )
                costs.append(table[range(k), best] if i != j else np.zeros(k))
            scores.append(np.median(costs, axis=0).sum())
        return scores

    @given(seeds)
    def test_the_least_sum_of_medians(self, seed):
        estimates = [LocalEstimate(jiggled(TRUTH, [seed, i], 0.3), N_ROWS) for i in range(5)]
        estimates += [LocalEstimate(random_mixture([seed, 9]), N_ROWS)]
        scores = self.naive_scores(estimates)
        found = find_template(sources_of(estimates), np.arange(6))
        assert scores[found] <= min(scores) * (1 + 1e-9)

    def test_it_has_all_components_though_every_second_machine_has_a_bad_one(self):
        estimates = estimates_of(TRUTH, 12)
        for i in range(0, 12, 2):
            estimates[i] = edited(estimates[i], with_component, i % 3, [50.0 + i, 50.0])
        assert find_template(sources_of(estimates), np.arange(12)) % 2 == 1

    def test_copies_of_one_good_component_are_no_template(self):
        estimates = estimates_of(TRUTH, 9)
        copies = Mixture(np.full(3, 1 / 3), np.zeros((3, 2)), TRUTH.covariances[[0, 0, 0]])
        estimates[4] = LocalEstimate(copies, N_ROWS)
        assert find_template(sources_of(estimates), np.arange(9)) != 4

    def test_a_machine_without_one_of_the_components_is_no_template(self):
        without = reweighted(TRUTH, [0.6, 0.4, 0.0])
        estimates = estimates_of(without, 4) + estimates_of(TRUTH, 5, seed=1)
        assert find_template(sources_of(estimates), np.arange(9)) >= 4


@pytest.mark.smoke
class TestMatching:
    @given(covariance_types, seeds)
    def test_components_are_found_in_any_order(self, covariance_type, seed):
        truth = random_mixture(seed, spread=20.0, covariance_type=covariance_type)
        order = np.random.default_rng(seed).permutation(3)
        estimates = [LocalEstimate(m, 1000) for m in (truth, truth.reordered(order))]
        machines = sources_of(estimates)
        found = match(machines, truth.components, machines.log_self[0])
        assert_array_equal(found, [[0, 1, 2], np.argsort(order)])

    def test_a_component_far_away_does_not_push_the_others_aside(self):
        # Its divergence from the third component is larger by far more than the second one's place is worth.
        bad = with_component(TRUTH, 2, [1e4, 0.0])
        machines = sources_of([LocalEstimate(m, N_ROWS) for m in (TRUTH, bad)])
        assert_array_equal(match(machines, TRUTH.components, machines.log_self[0])[1], [0, 1, 2])

    def test_a_component_without_rows_takes_what_is_left(self):
        # It lies exactly where the second one should be.
        moved = Mixture(
            [0.7, 0.3, 0.0], TRUTH.means[[0, 1, 1]] + [[0], [0.1], [0]], TRUTH.covariances
        )
        machines = sources_of([LocalEstimate(m, N_ROWS) for m in (TRUTH, moved)])
        assert_array_equal(match(machines, TRUTH.components, machines.log_self[0])[1], [0, 1, 2])


class TestCalibration:
    def test_the_limit_is_what_sampling_explains_of_the_radius(self):
        radius, limit = calibrate(10.0, 9, 1.0)
        assert radius == 10.0
        assert_allclose(
            limit, 10 * np.sqrt(chi2.ppf(1 - COMPONENT_LEVEL, 9) / chi2.median(9)), rtol=1e-9
        )

    def test_or_rho_radii_if_that_is_more(self):
        assert calibrate(10.0, 9, 5.0) == (10.0, 50.0)
        assert calibrate(10.0, 9, np.inf)[1] == np.inf

    def test_copies_of_the_center_do_not_shrink_it_to_nothing(self):
        radius, limit = calibrate(0.0, 9, 1.3)
        assert_allclose(radius, np.sqrt(LEAST_CENTER_SCALE * chi2.median(9)), rtol=1e-9)
        assert_allclose(
            limit, np.sqrt(LEAST_CENTER_SCALE * chi2.ppf(1 - COMPONENT_LEVEL, 9)), rtol=1e-9
        )


@pytest.mark.smoke
class TestJudgement:
    def test_naive_twin(self):
        estimates = [drawn(TRUTH, n, n) for n in (500, 900, 700, 2500, 1100)]
        estimates[2] = edited(estimates[2], with_component, 1, [9.0, 0.0])
        machines = sources_of(estimates)
        for k in range(3):
            distances = np.zeros((5, 5))
            for i, j in itertools.permutations(range(5), 2):
                a, b = estimates[i].mixture, estimates[j].mixture
                divergence = naive.divergence(
                    b.means[k], b.covariances[k], a.means[k], a.covariances[k]
                )
                rows = [e.n_samples * e.mixture.weights[k] for e in (estimates[i], estimates[j])]
                distances[i, j] = np.sqrt(2 * divergence / (1 / rows[0] + 1 / rows[1]))
            center = np.median(distances, axis=1).argmin()
            found = filter_component(machines, k, 1.0, None, np.random.default_rng(0))
            assert found.center == center
            assert_allclose(found.distances, distances[center], rtol=1e-6)
            assert found.radius == max(np.sort(found.distances)[2], calibrate(0, 5, 1.0)[0])
            assert_array_equal(found.kept, found.distances <= found.limit)

    def test_too_few_rows_have_no_vote_and_no_verdict(self):
        estimates = [*estimates_of(TRUTH, 5), drawn(TRUTH, 12, 1)]
        found = filter_component(sources_of(estimates), 2, 1.3, None, np.random.default_rng(0))
        assert_array_equal(np.isnan(found.distances), [False] * 5 + [True])
        assert_array_equal(found.kept, [True] * 5 + [False])

    def test_where_nobody_has_enough_rows_all_vote(self):
        found = filter_component(
            sources_of(estimates_of(TRUTH, 5, 12)), 2, 1.3, None, np.random.default_rng(0)
        )
        assert not np.isnan(found.distances).any()

    def test_blocks_of_candidates_find_the_same_center(self, monkeypatch):
        machines = sources_of(estimates_of(TRUTH, 9))
        whole = [
            filter_component(machines, k, 1.3, None, np.random.default_rng(0)) for k in range(3)
        ]
        monkeypatch.setattr(componentwise, "DISTANCE_FLOATS", 2 * 9 * 2)
        for k in range(3):
            block = filter_component(machines, k, 1.3, None, np.random.default_rng(0))
            assert block.center == whole[k].center
            assert_allclose(block.distances, whole[k].distances, rtol=1e-9)

    def test_few_candidates_leave_verdicts_nearly_the_same(self):
        estimates = estimates_of(TRUTH, 60)
        for i in range(0, 60, 3):
            estimates[i] = edited(estimates[i], with_component, 0, [3.0, 3.0])
        exact, ours = filtered(estimates), filtered(estimates, n_candidates=10)
        assert set(ours.centers) <= set(range(60))
        assert not ours.kept[::3, 0].any()
        assert (ours.kept != exact.kept).mean() < 0.02


class TestWeights:
    def test_all_known_is_the_average(self):
        mass = np.array([[0.5, 0.5], [0.1, 0.9]])
        nothing = np.zeros((2, 2), dtype=bool)
        found = fill_in(mass, nothing, np.zeros(2), np.array([1.0, 3.0]))
        assert_allclose(found, [0.2, 0.8])

    def test_one_lost_component_gets_what_the_others_leave(self):
        mass = np.array([[0.2, 0.8], [0.4, 0.6], [0.3, 0.0]])
        lost = np.array([[False, False], [False, False], [False, True]])
        found = fill_in(mass, lost, np.array([0.0, 0.0, 0.7]), np.ones(3))
        assert_allclose(found, [0.3, 0.7])

    def test_several_share_it_in_proportion(self):
        mass = np.array([[0.2, 0.6, 0.2], [0.2, 0.5, 0.3], [0.2, 0.0, 0.0]])
        lost = np.array([[False] * 3, [False] * 3, [False, True, True]])
        found = fill_in(mass, lost, np.array([0.0, 0.0, 0.8]), np.ones(3))
        # The maximum of the likelihood of complete and coarsened counts: 1.1 to .5 of what is known.
        assert_allclose(found, [0.2, 0.8 * 1.1 / 1.6, 0.8 * 0.5 / 1.6], atol=1e-9)

    def test_but_no_more_than_others_have(self):
        mass = np.array([[0.8, 0.2]] * 9 + [[0.1, 0.0]])
        lost = np.array([[False, False]] * 9 + [[False, True]])
        found = fill_in(mass, lost, np.array([0.0] * 9 + [0.9]), np.ones(10))
        assert_allclose(found, np.array([7.3, 2.0]) / 9.3)

    def test_a_component_that_everybody_lost_still_gets_what_is_left(self):
        mass, lost = np.array([[0.6, 0.0]] * 3), np.array([[False, True]] * 3)
        assert_allclose(fill_in(mass, lost, np.full(3, 0.4), np.ones(3)), [0.6, 0.4])

    def test_machines_that_do_not_count_do_not(self):
        mass, nothing = np.array([[0.5, 0.5], [0.1, 0.9]]), np.zeros((2, 2), dtype=bool)
        assert_allclose(fill_in(mass, nothing, np.zeros(2), np.array([1.0, 0.0])), [0.5, 0.5])

    def test_a_piece_of_another_component_counts_with_it(self):
        # The third component of the second machine is the middle of the first one.
        split = Mixture(
            [0.4, 0.4, 0.2],
            TRUTH.means[[0, 1, 0]],
            TRUTH.covariances * np.array([1.0, 1.0, 0.5])[:, None, None],
        )
        machines = sources_of([LocalEstimate(m, N_ROWS) for m in (TRUTH, split)])
        machines = ComponentEstimates(*machines[:-1], np.ones((2, 3), dtype=bool))
        kept = np.array([[True, True, True], [True, True, False]])
        found = profiled_weights(TRUTH.family, machines, np.ones(2), kept, TRUTH.components)
        assert_allclose(found, [0.55, 0.35, 0.1])


# -- the whole -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_engine")
class TestGolden:
    """What the mode is for, and what it gives up."""

    def error(self, result, estimates, truth=TRUTH):
        """In units of the error of the reduction of all estimates before anything was broken."""
        oracle = aggregate(estimates, method="mr").mixture
        return mixing_distance(result.mixture, truth) / mixing_distance(oracle, truth)

    def test_two_regimes_are_both_kept(self):
        other = reweighted(TRUTH, [0.1, 0.2, 0.7])
        estimates = estimates_of(TRUTH, 14) + estimates_of(other, 6, seed=1)
        whole = reweighted(TRUTH, 0.7 * TRUTH.weights + 0.3 * other.weights)
        plain, ours = aggregate(estimates), by_weights(estimates)
        assert not plain.decision.kept[14:].any()
        assert self.error(plain, estimates, whole) > 10
        assert ours.decision.kept.all()
        assert ours.decision.kept_components.mean() > 0.95
        assert self.error(ours, estimates, whole) < 1.1

    def test_a_regime_without_a_component_is_kept_and_does_no_harm(self):
        other = reweighted(TRUTH, [0.0, 0.4, 0.6])
        estimates = estimates_of(TRUTH, 14) + estimates_of(other, 6, seed=1)
        estimates[17] = edited(estimates[17], with_component, 0, [1e3, 0.0])
        result = by_weights(estimates)
        k = int(np.linalg.norm(result.mixture.means, axis=1).argmin())
        assert result.decision.kept.all()
        assert not result.decision.kept_components[14:, k].any()
        assert "too few rows to judge (0 of 5)" in result.decision.reason(15)
        assert_allclose(result.mixture.weights.sum(), 1.0)
        assert_allclose(result.mixture.weights[k], 0.7 * 0.5, atol=0.01)

    @pytest.mark.filterwarnings("ignore:partitions differ so much:dask_dfmr.FilterWarning")
    def test_good_components_of_bad_machines_are_salvaged(self):
        estimates = estimates_of(TRUTH, 20)
        bad = list(estimates)
        for i in range(0, 20, 2):
            bad[i] = edited(bad[i], with_component, i % 3, [30.0 + i, 10.0 * (i % 4)])
        result = by_weights(bad)
        assert result.decision.kept.all()
        lost = ~result.decision.kept_components
        assert_array_equal(lost[::2].sum(axis=1), 1)
        assert lost[1::2].sum() <= 1
        assert self.error(result, estimates) < 1.5
        assert self.error(aggregate(bad), estimates) > 2

    def test_clean_machines_are_kept(self):
        estimates = estimates_of(TRUTH, 60)
        result = by_weights(estimates)
        assert (~result.decision.kept_components).sum() <= 2
        assert self.error(result, estimates) < 1.05
        assert not aggregate(estimates, rho=1.3).decision.kept.all()

    def test_wholly_bad_machines_are_left_out(self):
        estimates = estimates_of(TRUTH, 20)
        rng = np.random.default_rng(5)
        bad = [
            LocalEstimate(
                Mixture(TRUTH.weights, 40 * rng.normal(size=(3, 2)), TRUTH.covariances), N_ROWS
            )
            for _ in range(6)
        ]
        result = by_weights([*bad, *estimates[6:]])
        assert_array_equal(result.decision.kept, [False] * 6 + [True] * 14)
        assert self.error(result, estimates[6:]) < 1.1
        assert result.decision.reason(0).count("times its radius") == 3

    def test_wrong_weights_are_believed(self):
        estimates = estimates_of(TRUTH, 20)
        swapped = [edited(e, reweighted, e.mixture.weights[[2, 1, 0]]) for e in estimates[:6]]
        result = by_weights([*swapped, *estimates[6:]])
        assert result.decision.kept.all()
        assert_allclose(np.sort(result.mixture.weights), np.sort([0.41, 0.3, 0.29]), atol=0.02)
        assert not aggregate([*swapped, *estimates[6:]]).decision.kept[:6].any()

    def test_without_anything_to_filter_it_is_the_pooled_moments(self):
        truth = random_mixture(3, spread=20.0)
        estimates = [LocalEstimate(jiggled(truth, i, 1e-3), 100 * (i + 5)) for i in range(6)]
        assert_same_mixture(
            by_weights(estimates, rho=np.inf).mixture, aggregate(estimates, rho=np.inf).mixture
        )

    def test_rows_or_equal_weights(self):
        truth = random_mixture(3, spread=20.0)
        estimates = [LocalEstimate(jiggled(truth, i, 1e-3), 100 * (i + 5)) for i in range(6)]
        options = {"rho": np.inf, "machine_weights": "equal"}
        assert_same_mixture(
            by_weights(estimates, **options).mixture, aggregate(estimates, **options).mixture
        )

    def test_a_minority_of_the_machines_that_have_a_component_may_be_bad(self):
        # Two in seven machines have the first component, of those two in seven a bad one.
        with_it = reweighted(TRUTH, [0.3, 0.4, 0.3])
        estimates = estimates_of(reweighted(TRUTH, [0.0, 0.5, 0.5]), 15) + estimates_of(with_it, 7)
        for i in (16, 18):
            estimates[i] = edited(estimates[i], with_component, 0, [-20.0, i])
        result = by_weights(estimates)
        k = int(np.linalg.norm(result.mixture.means, axis=1).argmin())
        assert_array_equal(
            np.flatnonzero(result.decision.kept_components[:, k]), [15, 17, 19, 20, 21]
        )
        assert_allclose(result.mixture.means[k], 0.0, atol=0.2)


def unequal_estimates(seed, covariance_type):
    """Machines with their own weights and row counts, three of them with a component or all of it bad."""
    truth = random_mixture(seed, spread=8.0, covariance_type=covariance_type)
    rng = np.random.default_rng([seed, 1])
    estimates = []
    for i in range(9):
        mixture = jiggled(truth, [seed, 2, i])
        mixture = reweighted(mixture, rng.dirichlet(np.full(3, 4.0)))
        if i in (2, 6):
            mixture = with_component(mixture, i % 3, mixture.means[i % 3] + 30)
        if i == 7:
            mixture = random_mixture([seed, 3], spread=8.0, covariance_type=covariance_type)
        estimates.append(LocalEstimate(mixture, int(rng.integers(1000, 1800))))
    return estimates


class TestInvariance:
    @given(st.data(), covariance_types, seeds)
    def test_the_order_of_machines_changes_nothing(self, data, covariance_type, seed):
        estimates = unequal_estimates(seed, covariance_type)
        order = data.draw(st.permutations(range(9)))
        here, there = by_weights(estimates), by_weights([estimates[i] for i in order])
        assert_same_mixture(there.mixture, here.mixture)
        mine, theirs = here.decision, there.decision
        assert order[theirs.center] == mine.center
        assert_array_equal(theirs.kept_components, mine.kept_components[order])
        assert_array_equal(np.array(order)[theirs.components.centers], mine.components.centers)
        assert_allclose(
            theirs.components.distance_ratios, mine.components.distance_ratios[order], rtol=1e-6
        )

    @given(covariance_types, seeds)
    def test_the_order_of_components_changes_nothing(self, covariance_type, seed):
        estimates = unequal_estimates(seed, covariance_type)
        other = [edited(e, shuffled, seed + i) for i, e in enumerate(estimates)]
        here, there = by_weights(estimates), by_weights(other)
        assert there.mixture == here.mixture
        assert_array_equal(there.decision.kept_components, here.decision.kept_components)

    @given(covariance_types, seeds)
    def test_the_unit_of_the_rows_changes_nothing(self, covariance_type, seed):
        estimates = unequal_estimates(seed, covariance_type)

        def scaled(m):
            return Mixture(m.weights, 8.0 * m.means, 64.0 * m.covariances, covariance_type)

        here, there = by_weights(estimates), by_weights([edited(e, scaled) for e in estimates])
        assert_array_equal(there.decision.kept_components, here.decision.kept_components)
        assert_same_mixture(there.mixture, scaled(here.mixture))

    @given(covariance_types, seeds)
    def test_a_machines_own_weights_decide_by_their_rows_only(self, covariance_type, seed):
        # Twice the weight and half the rows are the same rows behind a component.
        truth = random_mixture(seed, n_components=2, spread=20.0, covariance_type=covariance_type)
        some = [LocalEstimate(jiggled(truth, [seed, i]), 1000) for i in range(7)]
        first = filtered(some)
        assert_allclose(first.rows.sum(axis=1), 1000.0)
        machines = sources_of(some)
        halved = machines._replace(
            n_samples=machines.n_samples / 2,
            stack=type(machines.stack)(2 * machines.stack.weights, machines.stack.components),
        )
        second = filter_components(halved, 1.3, np.ones(7), None, np.random.default_rng(0))
        assert_allclose(second.distances, first.distances)

    def test_a_refused_estimate_is_as_if_it_were_not_there(self):
        estimates = unequal_estimates(1, "full")
        here = by_weights(estimates)
        there = by_weights([estimates[0], {"n_samples": 3}, *estimates[1:]])
        assert there.mixture == here.mixture
        assert there.decision.refused.keys() == {1}
        assert there.decision.reason(1) == str(there.decision.refused[1])
        assert not there.decision.kept_components[1].any()
        assert_array_equal(
            np.delete(there.decision.kept_components, 1, axis=0), here.decision.kept_components
        )

    @pytest.mark.parametrize("n_sources", [2, 3])
    def test_few_machines(self, n_sources):
        with pytest.warns(FilterWarning, match=f"{n_sources} usable estimates"):
            result = by_weights(estimates_of(TRUTH, n_sources))
        assert result.decision.kept.all()

    def test_one_machine_is_the_result(self):
        (only,) = estimates_of(TRUTH, 1)
        assert_same_mixture(by_weights([only]).mixture, only.mixture)

    def test_one_component(self):
        truth = random_mixture(0, n_components=1)
        estimates = [LocalEstimate(jiggled(truth, i, 0.01), 1000) for i in range(7)]
        estimates[3] = edited(estimates[3], with_component, 0, [99.0, 99.0])
        assert_array_equal(np.flatnonzero(~by_weights(estimates).decision.kept), [3])

    def test_another_family(self):
        rates = np.array([[2.0, 9.0], [20.0, 3.0]])
        estimates = [
            LocalEstimate(PoissonMixture([w, 1 - w], rates * (1 + 0.01 * i)), 1000)
            for i, w in enumerate((0.5, 0.2, 0.8, 0.5, 0.4))
        ]
        estimates[1] = LocalEstimate(PoissonMixture([0.2, 0.8], rates * [[1.0], [3.0]]), 1000)
        result = by_weights(estimates)
        assert isinstance(result.mixture, PoissonMixture)
        lost = np.argwhere(~result.decision.kept_components)
        assert_array_equal(lost[:, 0], [1])


# -- the options, the decision, the report, the graph --------------------------------------------


class TestOptions:
    def test_rho_widens_the_limit(self):
        estimates = estimates_of(TRUTH, 9)
        estimates[0] = edited(estimates[0], with_component, 0, [0.5, 0.5])
        strict, lax = by_weights(estimates), by_weights(estimates, rho=100.0)
        assert not strict.decision.kept_components[0].all()
        assert lax.decision.kept_components.all()

    def test_more_machines_than_references_draw_candidates_by_seed(self):
        estimates = estimates_of(TRUTH, 30)
        first, second, other = (
            by_weights(estimates, n_references=5, random_state=s) for s in (0, 0, 1)
        )
        assert first.decision.n_candidates == 5
        assert_array_equal(first.decision.components.centers, second.decision.components.centers)
        assert first.mixture == second.mixture
        assert not np.array_equal(
            first.decision.components.centers, other.decision.components.centers
        )

    def test_too_far_for_floating_point(self):
        truth = random_mixture(1, n_components=2)
        far = with_component(truth, 0, [1e144, 1e144])
        estimates = [LocalEstimate(jiggled(truth, i), 1000) for i in range(4)]
        result = by_weights([*estimates, LocalEstimate(far, 1000)])
        assert np.isfinite(result.mixture.means).all()
        with pytest.raises(AggregationError, match="finite rho"):
            by_weights([*estimates, LocalEstimate(far, 1000)], rho=np.inf)


@pytest.mark.smoke
class TestDecision:
    def one_bad(self):
        estimates = estimates_of(TRUTH, 9)
        estimates[4] = edited(estimates[4], with_component, 1, [20.0, 20.0])
        return by_weights(estimates)

    def test_it_says_which_component_and_how_far(self):
        decision = self.one_bad().decision
        (k,) = np.flatnonzero(~decision.kept_components[4])
        ratio = decision.components.distance_ratios[4, k]
        assert decision.kept[4]
        assert decision.distance_ratios[4] == ratio > decision.components.limits[k]
        assert decision.reason(4).startswith(f"component {k} is {ratio:.3g} times its radius")
        assert decision.reason(decision.center) == ""
        assert decision.radius == decision.components.radii.max()

    def test_columns_are_those_of_the_result(self):
        result = self.one_bad()
        (k,) = np.flatnonzero(~result.decision.kept_components[4])
        assert_allclose(result.mixture.means[k], TRUTH.means[1], atol=0.3)
        assert (np.diff(result.mixture.weights) <= 0).all()

    def test_other_modes_have_none(self):
        assert aggregate(estimates_of(TRUTH, 5)).decision.kept_components is None

    def test_repr(self):
        result = self.one_bad()
        kept = result.decision.kept_components.sum()
        assert f"components=ComponentDecision(kept {kept} of 27, too few" in repr(result)

    def test_arrays_are_read_only(self):
        with pytest.raises(ValueError, match="read-only"):
            self.one_bad().decision.kept_components[0, 0] = False

    def test_few_judges_are_worth_a_warning(self):
        rare = reweighted(TRUTH, [0.7, 0.299, 0.001])
        estimates = estimates_of(rare, 9)
        with pytest.warns(FilterWarning, match="component 2: 0 of 9 estimates have the 5 rows"):
            result = by_weights(estimates)
        assert_allclose(result.mixture.means[2], TRUTH.means[2], atol=1.0)

    def test_a_matching_that_does_not_settle_is_worth_a_warning(self, monkeypatch):
        monkeypatch.setattr(componentwise, "MAX_MATCHINGS", 1)
        estimates = estimates_of(TRUTH, 5)
        calls = itertools.count()

        def unsettled(machines, *reference):
            order = [0, 1, 2] if next(calls) % 2 else [1, 0, 2]
            return np.tile(order, (len(machines.judged), 1))

        monkeypatch.setattr(componentwise, "match", unsettled)
        with pytest.warns(ConvergenceWarning, match="did not settle in 1 rounds"):
            assert not by_weights(estimates).converged


N_PARTITIONS = 12


def sorted_rows(n=400):
    """Partitions of which the last three lack a component, and the second is shifted as a whole."""
    parts = []
    for i in range(N_PARTITIONS):
        weights = TRUTH.weights if i < 9 else np.array([0.0, 0.4, 0.6])
        rows, _ = reweighted(TRUTH, weights).sample(n, np.random.RandomState(i))
        rows = np.random.default_rng(i).permutation(rows)
        parts.append(pd.DataFrame(rows + 100 * (i == 1), columns=["x", "y"]))
    return pd.concat(parts, ignore_index=True)


class TestGraph:
    def fit(self, **options):
        gm = GaussianMixture(
            3, random_state=0, n_partitions=N_PARTITIONS, method="componentwise", **options
        )
        return gm.fit(sorted_rows())

    def test_memory_graph_and_estimator_give_the_same_bits(self):
        gm = self.fit()
        expected = aggregate(gm.estimates_, method="componentwise")
        assert same_bits(gm.mixture_, expected.mixture)
        for block_size in (1, 3, 50):
            result = dfmr(
                GaussianMixture(
                    3, n_partitions=N_PARTITIONS, random_state=0, method="componentwise"
                ),
                sorted_rows(),
                block_size=block_size,
            ).compute(scheduler="synchronous")
            assert same_bits(result.mixture, expected.mixture)
            assert repr(result) == repr(expected)
            for name in ("kept", "distance_ratios", "n_rows", "radii", "limits", "centers"):
                mine, theirs = (getattr(r.decision.components, name) for r in (result, expected))
                assert_array_equal(mine, theirs)

    def test_the_report_names_partial_losses(self):
        gm = self.fit()
        report = gm.partition_report_
        assert_array_equal(report["kept"], [True, False, *[True] * 10])
        assert_array_equal(gm.support_, report["kept"])
        kept_components = gm.aggregate_.decision.kept_components
        assert_array_equal(report["components_kept"], kept_components.sum(axis=1))
        assert report.loc[1, "components_kept"] == 0
        assert report.loc[1, "reason"].count("times its radius from the others'") == 3
        assert report.loc[9:, "components_kept"].isin([1, 2]).all()
        assert (
            report.loc[9:, "reason"]
            .str.fullmatch("component 0 .*|component 1 .*|component 2 .*")
            .all()
        )
        assert_array_equal(report["reason"] == "", report["components_kept"] == 3)

    def test_the_verdict_counts_them(self, capsys):
        gm = self.fit(verbose=1)
        lost = 3 * 11 - gm.aggregate_.decision.kept_components.sum()
        expected = (
            f"{(gm.partition_report_.components_kept.isin([1, 2])).sum()} of them without some"
        )
        assert f"{expected} of their components ({lost} in all)" in capsys.readouterr().err

    def test_other_modes_have_no_such_column(self):
        gm = GaussianMixture(3, random_state=0, n_partitions=N_PARTITIONS).fit(sorted_rows())
        assert "components_kept" not in gm.partition_report_
