"""Distances -> center, radius, kept: on points of a line and on random matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dask_dfmr.aggregation.medoid import best_candidate, keep_near, row_candidates
from tests.strategies import seeds

pytestmark = pytest.mark.smoke


def on_a_line(*points):
    points = np.asarray(points, dtype=float)
    return np.abs(points[:, None] - points)


def center_of(distances, n_samples=None, parameters=None):
    m = len(distances)
    n_samples = [100] * m if n_samples is None else n_samples
    parameters = np.arange(m, dtype=float)[:, None] if parameters is None else parameters
    return best_candidate(row_candidates(distances, range(m), n_samples, parameters))


def random_distances(seed, m, decimals=None):
    points = np.random.default_rng(seed).normal(size=(m, 2))
    points = points if decimals is None else points.round(decimals)
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


class TestCenter:
    def test_of_three_points_on_a_line_the_middle_one(self):
        assert center_of(on_a_line(0, 1, 10)).estimate == 1

    @given(seeds, st.integers(1, 12))
    def test_it_has_the_least_interpolated_median_with_itself_included(self, seed, m):
        distances = random_distances(seed, m)
        medians = [np.median(row) for row in distances]
        assert np.isclose(center_of(distances).median, min(medians), rtol=1e-12)

    def test_the_median_of_an_even_number_is_interpolated(self):
        # sorted rows: 0 1 4 9 | 0 1 3 8 | 0 3 4 5 | 0 5 8 9
        candidates = row_candidates(on_a_line(0, 1, 4, 9), range(4), [1] * 4, np.zeros((4, 1)))
        assert [c.median for c in candidates] == [2.5, 2.0, 3.5, 6.5]

    @given(seeds, st.integers(1, 12), st.randoms(use_true_random=False))
    def test_the_order_of_the_machines_does_not_matter(self, seed, m, random):
        # On a coarse grid there are ties, and machines in the same place.
        distances, order = random_distances(seed, m, decimals=0), list(range(m))
        parameters = np.random.default_rng(seed).integers(0, 3, (m, 1)).astype(float)
        random.shuffle(order)
        here = center_of(distances, parameters=parameters)
        there = center_of(distances[np.ix_(order, order)], parameters=parameters[order])
        assert (there.median, there.half_distance) == (here.median, here.half_distance)
        assert there.parameters == here.parameters

    @given(seeds, st.integers(2, 12))
    def test_blocks_of_machines_find_the_same_center(self, seed, m):
        distances = random_distances(seed, m, decimals=1)
        parameters = np.arange(m, dtype=float)[:, None]
        rows = row_candidates(distances, range(m), [1] * m, parameters)
        best_of_each = [best_candidate(rows[: m // 2]), best_candidate(rows[m // 2 :])]
        assert best_candidate(best_of_each).estimate == best_candidate(rows).estimate

    def test_machines_at_infinite_distance_do_not_disturb(self):
        distances = on_a_line(0, 1, 2, 3, 4)
        distances[4, :4] = distances[:4, 4] = np.inf
        center = center_of(distances)
        assert center.estimate in (1, 2)
        assert np.isfinite(center.median)

    def test_all_at_infinite_distance_still_have_a_center(self):
        distances = np.where(np.eye(4, dtype=bool), 0.0, np.inf)
        assert center_of(distances).estimate == 0


class TestTies:
    """Smaller median, then half distance, then mean, then more rows, then the parameters."""

    def test_of_two_machines_the_one_with_more_rows(self):
        assert center_of(on_a_line(0, 1), [100, 101]).estimate == 1
        assert center_of(on_a_line(0, 1), [101, 100]).estimate == 0

    def test_of_two_with_as_many_rows_the_smaller_parameters(self):
        assert (
            center_of(on_a_line(0, 1), parameters=np.array([[2.0, 0.0], [1.0, 9.0]])).estimate == 1
        )

    def test_of_three_with_equal_medians_the_one_between(self):
        # 0 and 1 share the median 1 and the half distance 1; 0 has the smaller mean.
        assert center_of(on_a_line(0, 1, -3)).estimate == 0

    def test_the_half_distance_comes_before_the_mean(self):
        distances = np.array(
            [
                [0.0, 1.0, 3.0, 3.0],
                [1.0, 0.0, 4.0, 9.0],
                [3.0, 4.0, 0.0, 9.0],
                [3.0, 9.0, 9.0, 0.0],
            ]
        )
        other = distances.copy()
        other[1] = [2.0, 0.0, 2.0, 50.0]
        rows = row_candidates(np.array([distances[0], other[1]]), [0, 1], [1, 1], np.zeros((2, 1)))
        assert rows[0].median == rows[1].median == 2.0
        assert rows[0].mean < rows[1].mean
        assert best_candidate(rows).estimate == 1

    def test_rounding_makes_no_difference_between_tied_medians(self):
        distances = on_a_line(0, 1)
        distances[0, 1] *= 1 + 1e-14
        assert center_of(distances, [100, 101]).estimate == 1
        distances[1, 0] *= 1 + 1e-14
        assert center_of(distances, [101, 100]).estimate == 0

    def test_of_duplicates_the_one_with_more_rows(self):
        assert center_of(on_a_line(0, 0, 0, 5), [7, 9, 8, 999]).estimate == 1


class TestKept:
    @given(seeds, st.integers(1, 12))
    def test_the_radius_is_the_half_th_sorted_distance(self, seed, m):
        distances = random_distances(seed, m)
        center = center_of(distances)
        near = keep_near(center, 1.0)
        assert near.radius == np.sort(distances[center.estimate])[m // 2]
        assert near.kept.sum() > m / 2

    @given(seeds, st.integers(1, 12), st.floats(1.0, 100.0))
    def test_kept_is_what_lies_within_rho_radii(self, seed, m, rho):
        center = center_of(random_distances(seed, m))
        near = keep_near(center, rho)
        assert_array_equal(near.kept, center.distances <= rho * near.radius)
        assert near.kept[center.estimate]

    def test_the_border_is_kept(self):
        center = center_of(on_a_line(0, 1, -1, 2, -2))
        assert_array_equal(keep_near(center, 1.0).kept, [True, True, True, False, False])
        assert keep_near(center, 2.0).kept.all()

    def test_rho_infinite_keeps_all(self):
        distances = on_a_line(0, 0, 0, 1e9)
        distances[3, :3] = distances[:3, 3] = np.inf
        assert keep_near(center_of(distances), np.inf).kept.all()

    @pytest.mark.parametrize("rho", [1.0, 1.3, 1e9])
    def test_radius_zero_keeps_what_is_at_distance_zero(self, rho):
        near = keep_near(center_of(on_a_line(3, 0, 0, 0, 1e-9)), rho)
        assert near.radius == 0.0
        assert_array_equal(near.kept, [False, True, True, True, False])
        assert_array_equal(near.distance_ratios, [np.inf, 0.0, 0.0, 0.0, np.inf])

    def test_infinite_distances_are_left_out(self):
        distances = on_a_line(0, 1, 2, 3, 4)
        distances[4, :4] = distances[:4, 4] = np.inf
        near = keep_near(center_of(distances), 1e300)
        assert_array_equal(near.kept, [True, True, True, True, False])
        assert np.isinf(near.distance_ratios[4])

    def test_ratios_are_in_units_of_the_radius(self):
        center = center_of(on_a_line(0, 1, 3))
        assert_array_equal(keep_near(center, 1.0).distance_ratios, [1.0, 0.0, 2.0])

    def test_one_machine_keeps_itself(self):
        near = keep_near(center_of(np.zeros((1, 1))), 1.3)
        assert (near.radius, near.kept.tolist()) == (0.0, [True])

    def test_two_machines_keep_both(self):
        assert keep_near(center_of(on_a_line(0, 7)), 1.0).kept.all()

    def test_of_three_the_one_far_out_is_left_out(self):
        assert_array_equal(keep_near(center_of(on_a_line(0, 1, 50)), 1.3).kept, [True, True, False])
