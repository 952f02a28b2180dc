"""L2 distances between densities: against integration, and the laws of a metric."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import Mixture, pairwise_l2
from dask_dfmr.mixtures import distances as module
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from tests import naive
from tests.strategies import covariance_types, jiggled, random_mixture, seeds, shuffled

pytestmark = pytest.mark.usefixtures("each_engine")

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def several(n, seed=0, covariance_type="full", **shape):
    return [random_mixture([seed, i], covariance_type=covariance_type, **shape) for i in range(n)]


def spike(d, variance):
    return Mixture([0.5, 0.3, 0.2], np.zeros((3, d)), [np.eye(d) * variance] * 3)


class TestAgainstIntegration:
    @every_type
    def test_in_one_column(self, covariance_type):
        f, g = several(2, covariance_type=covariance_type, n_features=1)
        x = np.linspace(-40, 40, 40_001)
        integral = np.trapezoid((naive.density(f, x) - naive.density(g, x)) ** 2, x)
        assert_allclose(pairwise_l2([f, g])[0, 1], np.sqrt(integral), rtol=1e-8)

    @every_type
    def test_in_two_columns(self, covariance_type):
        f, g = several(2, covariance_type=covariance_type, spread=1.0)
        x = np.linspace(-15, 15, 601)
        grid = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
        difference = naive.density(f, grid) - naive.density(g, grid)
        integral = (difference**2).sum() * (x[1] - x[0]) ** 2
        assert_allclose(pairwise_l2([f, g])[0, 1], np.sqrt(integral), rtol=1e-8)

    @every_type
    def test_against_the_double_loop(self, covariance_type):
        mixtures = several(4, covariance_type=covariance_type, n_features=3)
        products = np.array([[naive.product_integral(f, g) for g in mixtures] for f in mixtures])
        own = np.diag(products)
        squares = own[:, None] - 2 * products + own
        assert_allclose(pairwise_l2(mixtures) ** 2, squares, rtol=1e-9, atol=1e-15)


def log_polar(f, g):
    family = f.family
    a, b = (module.stack_mixtures([m]) for m in (f, g))
    log_self = (module.log_self_products(family, stack) for stack in (a, b))
    return float(module.log_polar_tile(family, a, b, *log_self)[0, 0])


def moved(mixture, scale=1.0, shift=0.0):
    m = mixture
    return Mixture(m.weights, m.means * scale + shift, m.covariances * scale**2, m.covariance_type)


class TestLogPolarDistance:
    @every_type
    def test_against_the_double_loop(self, covariance_type):
        f, g = several(2, covariance_type=covariance_type, n_features=3)
        ff, fg, gg = (naive.product_integral(*pair) for pair in ((f, f), (f, g), (g, g)))
        squared = -2 * np.log(fg / np.sqrt(ff * gg)) + (0.5 * np.log(ff / gg)) ** 2
        assert_allclose(log_polar(f, g), np.sqrt(squared), rtol=1e-9)

    @given(covariance_types, seeds)
    def test_close_densities_have_the_l2_distance_over_the_norm(self, covariance_type, seed):
        f = random_mixture(seed, covariance_type=covariance_type)
        g = jiggled(f, seed, 1e-3)
        norm = np.sqrt(naive.product_integral(f, f))
        assert_allclose(log_polar(f, g), pairwise_l2([f, g])[0, 1] / norm, rtol=0.02, atol=1e-9)

    @given(covariance_types, seeds)
    def test_symmetric_and_free_of_units(self, covariance_type, seed):
        f, g = several(2, seed, covariance_type)
        assert_allclose(log_polar(f, g), log_polar(g, f), rtol=1e-12)
        assert_allclose(log_polar(moved(f, 1e3), moved(g, 1e3)), log_polar(f, g), rtol=1e-8)
        assert log_polar(f, f) == 0.0

    def test_it_is_unbounded_where_l2_is_not(self):
        f = random_mixture(0)
        far = [log_polar(f, moved(f, shift=shift)) for shift in (10.0, 100.0, 1000.0)]
        assert far[0] < far[1] / 5 < far[2] / 25
        assert 20 < log_polar(f, moved(f, scale=1e30)) < log_polar(f, moved(f, scale=1e60))
        assert log_polar(f, moved(f, shift=1e130)) == module.FARTHEST

    def test_weight_on_a_component_of_vanishing_norm_is_seen(self):
        f = Mixture([1.0], [[0.0]], [[[1.0]]])
        g = Mixture([0.7, 0.3], [[0.0], [0.0]], [[[1.0]], [[1e200]]])
        # The directions of the two densities are equal.
        assert_allclose(log_polar(f, g), -np.log(0.7), rtol=1e-6)


class TestLaws:
    @given(covariance_types, seeds)
    def test_symmetric_with_zero_diagonal(self, covariance_type, seed):
        distances = pairwise_l2(several(6, seed, covariance_type))
        assert_array_equal(distances, distances.T)
        assert_array_equal(np.diag(distances), 0.0)
        assert (distances[~np.eye(6, dtype=bool)] > 0).all()

    @given(covariance_types, seeds)
    def test_no_detour_is_shorter(self, covariance_type, seed):
        first = random_mixture(seed, covariance_type=covariance_type)
        distances = pairwise_l2([first, *(jiggled(first, i, 0.3) for i in range(5))])
        detours = (distances[:, :, None] + distances[None, :, :]).min(axis=1)
        assert (distances <= detours * (1 + 1e-9) + 1e-12).all()

    @given(covariance_types, seeds)
    def test_relabelling_moves_nothing(self, covariance_type, seed):
        mixtures = several(4, seed, covariance_type)
        moved = pairwise_l2([shuffled(m, seed + i) for i, m in enumerate(mixtures)])
        assert_allclose(moved, pairwise_l2(mixtures), rtol=1e-10)

    @given(seeds)
    def test_permuting_mixtures_permutes_the_matrix(self, seed):
        mixtures = several(5, seed)
        order = np.random.default_rng(seed).permutation(5)
        moved = pairwise_l2([mixtures[i] for i in order])
        assert_allclose(moved, pairwise_l2(mixtures)[np.ix_(order, order)], rtol=1e-12)

    @every_type
    def test_the_same_density_is_at_distance_exactly_zero(self, covariance_type):
        a, b = several(2, covariance_type=covariance_type)
        distances = pairwise_l2([a, b, a, shuffled(a, 2)])
        assert distances[0, 2] == distances[0, 3] == 0.0
        assert distances[0, 1] > 0

    def test_a_change_of_units_changes_all_distances_by_one_factor(self):
        mixtures = several(4)
        scaled = [Mixture(m.weights, 1e3 * m.means, 1e6 * m.covariances) for m in mixtures]
        assert_allclose(pairwise_l2(scaled), pairwise_l2(mixtures) / 1e3, rtol=1e-9)


@pytest.mark.smoke
class TestTiles:
    def test_blocks_cover_everything_once(self):
        covered = [i for s in module.tile_blocks(11, 4) for i in range(11)[s]]
        assert covered == list(range(11))
        assert len(module.tile_blocks(11, 4)) == 3

    def test_upper_tiles_are_each_pair_of_blocks_once(self):
        assert list(module.upper_tiles(3)) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    @pytest.mark.parametrize("block_size", [1, 2, 5, 11, 100])
    def test_the_size_of_blocks_does_not_show(self, block_size, monkeypatch):
        mixtures = several(11)
        whole = pairwise_l2(mixtures)
        blocks = module.tile_blocks
        monkeypatch.setattr(module, "tile_blocks", lambda n, *_: blocks(n, block_size))
        assert_allclose(pairwise_l2(mixtures), whole, rtol=1e-12)

    def test_a_stack_is_indexed_like_an_array(self):
        mixtures = several(5)
        stack = module.stack_mixtures(mixtures)
        weights, components = stack.one(3)
        assert_array_equal(weights, mixtures[3].weights)
        assert_array_equal(components[1], mixtures[3].covariances)
        assert_array_equal(stack[1:3].one(0)[0], mixtures[1].weights)
        assert stack.pooled()[0].shape == (15, 2)


@pytest.mark.smoke
class TestExtremes:
    def test_a_spike_in_fifty_columns_is_infinitely_far_and_moves_no_one_else(self):
        consistent = several(8, n_features=50)
        alone = pairwise_l2(consistent)
        distances = pairwise_l2([*consistent, spike(50, 1e-13)])
        assert not np.isnan(distances).any()
        assert_allclose(distances[:8, :8], alone, rtol=1e-9)
        assert (alone[~np.eye(8, dtype=bool)] > 0).all()
        assert np.isinf(distances[:8, 8:]).all()
        assert_array_equal(np.diag(distances), 0.0)

    @pytest.mark.parametrize("unit", [1e-15, 1e-7, 1e7, 1e15])
    def test_no_unit_of_measurement_makes_a_nan(self, unit):
        small = [
            Mixture(m.weights, m.means * unit, m.covariances * unit**2)
            for m in several(5, n_features=60)
        ]
        distances = pairwise_l2(small)
        assert not np.isnan(distances).any()
        assert_array_equal(np.diag(distances), 0.0)

    def test_densities_without_overlap_are_as_far_as_their_norms(self):
        a = Mixture([1.0], [[0.0]], [[[1.0]]])
        b = Mixture([1.0], [[1e9]], [[[1.0]]])
        norm_squared = 1 / np.sqrt(4 * np.pi)
        assert_allclose(pairwise_l2([a, b])[0, 1], np.sqrt(2 * norm_squared))

    def test_a_component_of_weight_zero_counts_for_nothing(self):
        a, b = several(2, n_components=2)
        more = Mixture([*a.weights, 0.0], [*a.means, [9.0, 9.0]], [*a.covariances, np.eye(2)])
        rest = Mixture([*b.weights, 0.0], [*b.means, [1.0, 1.0]], [*b.covariances, np.eye(2)])
        assert_allclose(pairwise_l2([more, rest]), pairwise_l2([a, b]), rtol=1e-12)


class TestArguments:
    def test_one_mixture_is_at_distance_zero_to_itself(self):
        assert_array_equal(pairwise_l2(several(1)), [[0.0]])

    def test_none_are_refused(self):
        with pytest.raises(ValueError, match="mixtures must hold at least one Mixture; got none"):
            pairwise_l2([])

    def test_others_than_mixtures_are_refused(self):
        with pytest.raises(TypeError, match=r"mixtures must .*ndarray"):
            pairwise_l2([np.zeros(3)])

    @pytest.mark.parametrize(
        "other",
        [
            random_mixture(1, n_components=2),
            random_mixture(1, n_features=3),
            random_mixture(1, covariance_type="diag"),
        ],
    )
    def test_mixtures_of_different_shape_are_refused(self, other):
        with pytest.raises(ValueError, match=r"must agree in \(family, n_components, n_features\)"):
            pairwise_l2([random_mixture(1), other])
