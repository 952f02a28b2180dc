"""Mixture reduction: majorise-minimise, block by block, with as many components as asked for."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr.aggregation.reduction import (
    Centers,
    add_assignments,
    assign,
    in_canonical_order,
    recenter,
    reduce_pooled,
)
from dask_dfmr.mixtures.family import take
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from tests import naive
from tests.strategies import covariance_types, jiggled, random_mixture, seeds, some_estimates

pytestmark = pytest.mark.smoke

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def centers_of(mixture):
    return Centers(mixture.weights, mixture.components)


def pool(seed, covariance_type="full", n_sources=7, n_bad=2, n_components=3):
    """Weights and components of several machines, the family, and a start."""
    estimates = some_estimates(seed, n_sources, n_bad, covariance_type, n_components=n_components)
    mixtures = [e.mixture for e in estimates]
    weights = np.concatenate([m.weights for m in mixtures]) / n_sources
    pooled = tuple(np.concatenate(p) for p in zip(*(m.components for m in mixtures), strict=True))
    return Gaussian(covariance_type), weights, pooled, centers_of(mixtures[0])


class TestReduction:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_round_is_the_naive_round(self, seed):
        family, weights, (means, covariances), _ = pool(seed)
        start = random_mixture([seed, 9])
        centers, assignment = centers_of(start), None
        twins = list(zip(start.weights, start.means, start.covariances, strict=True))
        for _ in range(4):
            assignment = assign(family, weights, (means, covariances), centers, assignment)
            if len(set(assignment.labels)) < 3:  # the twin knows no re-seeding
                pytest.skip("a center lost its components")
            labels, twins, objective = naive.reduction_round(weights, means, covariances, twins)
            centers = recenter(family, centers, assignment)
            assert_array_equal(assignment.labels, labels)
            assert_allclose(assignment.objective, objective, rtol=1e-10)
            if centers.converged:
                break
            for k, (v, mu, sigma) in enumerate(twins):
                assert_allclose(centers.weights[k], v, rtol=1e-10)
                assert_allclose(centers.components[0][k], mu, rtol=1e-9, atol=1e-12)
                assert_allclose(centers.components[1][k], sigma, rtol=1e-9, atol=1e-12)

    @given(covariance_types, seeds)
    def test_the_objective_never_rises(self, covariance_type, seed):
        family, weights, pooled, _ = pool(seed, covariance_type)
        start = centers_of(random_mixture(seed + 1, covariance_type=covariance_type))
        objectives = [
            reduce_pooled(family, weights, pooled, start, max_rounds=i).objective
            for i in range(1, 8)
        ]
        assert (np.diff(objectives) <= 1e-10).all()

    @given(covariance_types, seeds)
    def test_it_ends_where_no_assignment_changes(self, covariance_type, seed):
        family, weights, pooled, start = pool(seed, covariance_type)
        end = reduce_pooled(family, weights, pooled, start, max_rounds=100)
        assert end.converged
        again = reduce_pooled(family, weights, pooled, end._replace(converged=False))
        assert_allclose(again.objective, end.objective, rtol=1e-9, atol=1e-12)

    @given(covariance_types, seeds)
    def test_a_mixture_reduced_to_its_own_size_is_itself(self, covariance_type, seed):
        m = random_mixture(seed, 4, 2, covariance_type)
        end = reduce_pooled(m.family, m.weights, m.components, centers_of(m))
        result = m.family.mixture(end.weights, end.components)
        for name in ("weights", "means", "covariances"):
            assert_allclose(getattr(result, name), getattr(m, name), rtol=1e-10, atol=1e-12)
        assert end.converged
        assert end.objective <= 1e-10

    @given(covariance_types, seeds)
    def test_copies_of_one_mixture_reduce_to_it(self, covariance_type, seed):
        m = random_mixture(seed, 3, 2, covariance_type)
        pooled = tuple(np.tile(p, (5, *[1] * (p.ndim - 1))) for p in m.components)
        weights = np.tile(m.weights, 5) / 5
        end = reduce_pooled(m.family, weights, pooled, centers_of(m))
        assert_allclose(end.weights, m.weights, rtol=1e-10)
        assert_allclose(end.components[0], m.means, rtol=1e-9, atol=1e-10)

    @every_type
    def test_weights_stay_weights(self, covariance_type):
        end = reduce_pooled(*pool(3, covariance_type))
        assert_allclose(end.weights.sum(), 1.0, rtol=1e-12)
        assert end.n_iter >= 1

    def test_too_few_rounds_are_not_converged(self):
        family, weights, pooled, _ = pool(3)
        start = centers_of(random_mixture(77))
        assert not reduce_pooled(family, weights, pooled, start, max_rounds=1).converged

    def test_components_come_by_decreasing_weight(self):
        end = in_canonical_order(Gaussian(), reduce_pooled(*pool(3)))
        assert (np.diff(end.weights) <= 0).all()


class TestBlocks:
    @every_type
    @pytest.mark.parametrize("cut", [1, 7, 20])
    def test_assignments_of_blocks_add_up(self, covariance_type, cut):
        family, weights, pooled, start = pool(5, covariance_type)
        whole = assign(family, weights, pooled, start, None)
        halves = [
            assign(family, weights[s], tuple(p[s] for p in pooled), start, None)
            for s in (slice(0, cut), slice(cut, None))
        ]
        total = add_assignments([halves[0], None, halves[1]])
        for a, b in zip(total.moments, whole.moments, strict=True):
            assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        assert_allclose(total.objective, whole.objective, rtol=1e-12)
        assert_allclose(total.farthest[0], whole.farthest[0], rtol=1e-12)
        assert_array_equal(total.farthest[1][0], whole.farthest[1][0])
        assert total.changed

    def test_nothing_kept_adds_up_to_nothing(self):
        assert add_assignments([None, None]) is None

    def test_one_changed_block_is_a_change(self):
        family, weights, pooled, start = pool(5)
        first = assign(family, weights, pooled, start, None)
        same = assign(family, weights, pooled, start, first)
        assert not same.changed
        assert add_assignments([same, first]).changed
        assert not add_assignments([same, same]).changed

    def test_a_converged_reduction_stays_as_it_is(self):
        family, weights, pooled, start = pool(5)
        end = reduce_pooled(family, weights, pooled, start)
        last = assign(family, weights, pooled, end, None)
        assert assign(family, weights, pooled, end, last) is last
        assert recenter(family, end, last) is end


class TestNumberOfComponents:
    """K is kept, whatever happens."""

    @staticmethod
    def far_start(covariance_type, n_lost):
        """A start with ``n_lost`` centers far away from everything."""
        family, weights, pooled, start = pool(6, covariance_type, n_components=4)
        means = start.components[0].copy()
        means[-n_lost:] += 1e4
        return family, weights, pooled, start._replace(components=(means, start.components[1]))

    @every_type
    @pytest.mark.parametrize("n_lost", [1, 2, 3])
    def test_a_centre_without_components_is_put_where_it_helps(self, covariance_type, n_lost):
        family, weights, pooled, start = self.far_start(covariance_type, n_lost)
        end = reduce_pooled(family, weights, pooled, start, max_rounds=50)
        assert end.converged
        assert (end.weights > 0.01).all()
        assert len(np.unique(end.components[0].round(9), axis=0)) == 4

    @every_type
    def test_reseeding_lowers_the_objective_too(self, covariance_type):
        family, weights, pooled, start = self.far_start(covariance_type, 2)
        objectives = [
            reduce_pooled(family, weights, pooled, start, max_rounds=i).objective
            for i in range(1, 12)
        ]
        assert (np.diff(objectives) <= 1e-10).all()

    def test_the_new_place_is_the_component_that_costs_most(self):
        family, weights, pooled, start = self.far_start("full", 1)
        assignment = assign(family, weights, pooled, start, None)
        kl = family.divergence(pooled, start.components).min(axis=1)
        costliest = take(pooled, np.array([(weights * kl).argmax()]))
        moved = recenter(family, start, assignment)
        assert_array_equal(moved.components[0][3], costliest[0][0])
        assert_array_equal(moved.components[1][3], costliest[1][0])

    @given(covariance_types, seeds)
    def test_where_nothing_helps_the_heaviest_centre_is_split(self, covariance_type, seed):
        """All pooled components are the same: one center takes all, and no place is better than another."""
        one = random_mixture(seed, 1, 2, covariance_type)
        pooled = tuple(np.repeat(p, 6, axis=0) for p in one.components)
        near = jiggled(one, seed, 0.1)
        parameters = zip(one.components, near.components, near.components, strict=True)
        start = Centers(np.full(3, 1 / 3), tuple(np.concatenate(p) for p in parameters))
        end = reduce_pooled(one.family, np.full(6, 1 / 6), pooled, start)
        assert end.converged
        assert (end.weights > 0.1).all()
        assert_allclose(end.weights.sum(), 1.0, rtol=1e-12)
        for parameter, expected in zip(end.components, one.components, strict=True):
            assert_allclose(parameter, np.repeat(expected, 3, axis=0), rtol=1e-9, atol=1e-10)
