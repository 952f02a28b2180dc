"""The score test of partitions: its law for any number of rows, its verdicts, and what it must not depend on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from dask_dfmr import Mixture, fit_local
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure, total_of
from dask_dfmr.mixtures.capped_scores import cap_for, capped_scores
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.mixtures.information import information
from dask_dfmr.refinement.score_test import (
    RowScores,
    ScoreSample,
    components_with_law,
    part_of,
    score_statistics,
)
from tests.data_makers import TRUTH, make_rows
from tests.poisson import Poisson

LINE = Mixture([1.0], [[0.0]], [[[1.0]]])


def sample_at(mixture, parts=(), cap=np.inf, seed=0):
    point = (mixture.weights, mixture.components)
    rng = np.random.default_rng(seed)
    return ScoreSample(mixture.family, point, dict(enumerate(parts)), cap, rng)


def made_at(mixture, seed=0):
    """The test by the law of the mixture."""
    return sample_at(mixture, seed=seed).test(())


def readings_of(parts, mixture, cap=np.inf):
    wanted = Wanted(score_cap=cap)
    return [
        PartitionStatistics(i, len(X), measurements=measure(X, [mixture], wanted))
        for i, X in enumerate(parts)
    ]


def settle(parts, mixture, used=None, seed=0):
    """P-values and z-scores of partitions under the law of the mixture, held against those in ``used``."""
    test, readings = made_at(mixture, seed), readings_of(parts, mixture)
    used = frozenset(range(len(parts)) if used is None else used)
    (total,) = total_of([readings[i] for i in sorted(used)])
    statistics = np.array(score_statistics(readings, test, total, used))
    counts = np.array([float(len(X)) for X in parts])
    return test.settle(statistics, counts, np.array([i in used for i in range(len(parts))]))


def settle_by_rows(parts, mixture, used=None):
    """The same, under the law of the rows of partitions, as a refinement and a second look have it."""
    return settled_and_law(parts, mixture, used)[0]


def settled_and_law(parts, mixture, used=None):
    """The same, and whether the law of the mixture was enough."""
    used = frozenset(range(len(parts)) if used is None else used)
    mine = [parts[i] for i in sorted(used)]
    counts = np.array([float(len(X)) for X in parts])
    usual = float(np.median([len(X) for X in mine]))
    point = (mixture.weights, mixture.components)
    cap = cap_for(mixture.family, point, mine, usual, mixture.n_parameters)
    readings = readings_of(parts, mixture, cap)
    (total,) = total_of([readings[i] for i in sorted(used)])

    def statistics(test):
        return np.array(score_statistics(readings, test, total, used))

    is_used = np.array([i in used for i in range(len(parts))])
    order = list(range(len(parts)))
    sample = sample_at(mixture, parts, cap)
    test, settled = sample.settle(statistics, order, counts, is_used)
    return settled, test is sample.test(())


class TestLaw:
    @pytest.mark.parametrize("n", [1, 2, 5, 30])
    def test_three_moments_for_any_number_of_rows(self, n):
        """Of rows whose whitened scores are centered exponentials: no symmetry helps."""
        rng = np.random.default_rng(0)
        y = rng.exponential(size=(200_000, 2)) - 1.0
        # q = |y|^2: moments of two independent squares; E h^3 = 2 (E y^3)^2 = 8; E (q - 2) y = (2, 2).
        scores = RowScores(mean=2, variance=16, third=2 * 240, pair=2, pair_third=8, lean=8)
        sums = y[: len(y) // n * n].reshape(-1, n, 2).sum(axis=1)
        squares = (sums**2).sum(axis=1) / n
        variance, skew = scores.cumulants(np.array(float(n)))
        assert squares.mean() == pytest.approx(scores.mean, rel=0.03)
        assert squares.var() == pytest.approx(variance, rel=0.1)
        assert np.mean((squares - squares.mean()) ** 3) == pytest.approx(skew, rel=0.25)

    def test_for_many_rows_values_stay_what_they_are(self):
        scores = made_at(TRUTH).row_scores
        values = scores.mean * np.array([0.3, 1.0, 2.0, 10.0])
        matched = scores.as_of_many_rows(values, np.full(4, 1e9))
        np.testing.assert_allclose(matched, values, rtol=1e-6)

    def test_of_few_rows_large_values_are_less_of_a_surprise(self):
        scores = made_at(TRUTH).row_scores
        values = np.full(3, 5.0 * scores.mean)
        matched = scores.as_of_many_rows(values, np.array([5.0, 50.0, 5000.0]))
        assert matched[0] < matched[1] < matched[2]

    @pytest.mark.parametrize(("mixture", "n"), [(LINE, 30), (LINE, 200), (TRUTH, 30), (TRUTH, 100)])
    def test_consistent_partitions_have_uniform_p_values(self, mixture, n):
        """Or rather large ones, where rows are few."""
        rng = np.random.default_rng(3)
        X, _ = mixture.sample(4000 * n, rng)
        p = settle(np.array_split(X[rng.permutation(len(X))], 4000), mixture).p_values
        for level in (0.1, 0.01):
            error = np.sqrt(level * (1 - level) / 4000)
            assert 0.3 * level < (p < level).mean() < level + 4 * error
        assert (p < 1e-3).sum() <= 12


class TestVerdicts:
    def parts(self, n_parts=30, n=200):
        return [make_rows(i, n) for i in range(n_parts)]

    def test_a_partition_of_another_population_stands_out(self):
        parts = self.parts()
        parts[4] = parts[4] + [0.6, 0.0]
        settled = settle(parts, TRUTH)
        assert settled.p_values[4] < 1e-6
        assert settled.z_scores[4] > 5
        assert np.delete(settled.p_values, 4).min() > 1e-3

    def test_at_a_mixture_that_is_no_optimum_nobody_stands_out(self):
        """What all have in common is taken off."""
        moved = Mixture([0.5, 0.5], TRUTH.means + 0.4, TRUTH.covariances * 1.3)
        assert settle(self.parts(), moved).p_values.min() > 1e-3

    def test_one_row_can_be_told(self):
        parts = self.parts()
        parts += [np.array([[3.0, 1.0]]), np.array([[30.0, -20.0]])]
        settled = settle(parts, TRUTH, used=range(30))
        assert settled.p_values[30] > 0.01
        assert settled.p_values[31] < 1e-9

    def test_sizes_far_beyond_probability_are_told_apart(self):
        parts = self.parts()
        parts += [parts[0] * 100, parts[0] * 1000]
        z = settle(parts, TRUTH, used=range(30)).z_scores
        assert np.isfinite(z).all()
        assert z[31] > z[30] > 100

    def test_a_partition_not_measured_has_no_statistic(self):
        test = made_at(TRUTH)
        readings = readings_of(self.parts(5), TRUTH)
        (total,) = total_of(readings)
        lost = PartitionStatistics(7, reason="gone")
        assert np.isnan(score_statistics([lost], test, total, frozenset(range(5)))).all()

    def test_all_rows_in_one_partition_contradict_nobody(self):
        test = made_at(TRUTH)
        readings = readings_of(self.parts(1), TRUTH)
        (total,) = total_of(readings)
        assert score_statistics(readings, test, total, frozenset([0])) == [0.0]

    def test_a_component_on_one_row_does_not_condemn_the_partition_it_lies_in(self):
        mixture, stray = self.with_stray(1e-4)
        parts = self.parts()
        parts[3] = np.vstack([parts[3], stray])
        assert settle_by_rows(parts, mixture).p_values[3] > 1e-3

    @pytest.mark.parametrize("n_rows", [12, 200])
    def test_a_component_on_the_rows_of_one_partition_does(self, n_rows):
        """Its rows are the only ones that it has, and they agree with it."""
        parts = self.parts()
        rng = np.random.default_rng(1)
        mixture, stray = self.with_stray(12 / 5800)
        parts[3] = np.vstack([parts[3][: n_rows - 12], stray + 0.1 * rng.normal(size=(12, 2))])
        settled = settle_by_rows(parts, mixture)
        assert settled.p_values[3] < 1e-9
        assert np.delete(settled.p_values, 3).min() > 1e-3

    @staticmethod
    def with_stray(weight):
        stray = np.array([40.0, 40.0])
        weights = np.array([*(TRUTH.weights * (1 - weight)), weight])
        covariances = np.concatenate([TRUTH.covariances, 0.01 * np.eye(2)[None]])
        return Mixture(weights, np.vstack([TRUTH.means, stray]), covariances), stray

    def test_the_test_moves_with_the_mixture(self):
        nearby = Mixture(TRUTH.weights, TRUTH.means + 0.02, TRUTH.covariances)
        readings = readings_of(self.parts(), nearby)
        (total,) = total_of(readings)
        used = frozenset(range(30))
        moved = made_at(TRUTH).at((nearby.weights, nearby.components))
        fresh = made_at(nearby)
        mine = score_statistics(readings, moved, total, used)
        np.testing.assert_allclose(mine, score_statistics(readings, fresh, total, used), rtol=0.15)


LAWS = {
    "t(3)": lambda r, n: r.standard_t(3, size=(n, 3)),
    "lognormal": lambda r, n: np.exp(r.standard_normal((n, 3))),
    "zeros": lambda r, n: np.exp(r.standard_normal((n, 3))) * (r.random((n, 3)) > 0.4),
    "counts": lambda r, n: r.poisson(r.gamma(0.6, 30, size=(n, 1)) * [0.3, 1.0, 2.0]) * 1.0,
}


def parts_of(law, n_parts=40, n=400):
    return [LAWS[law](np.random.default_rng([7, i]), n) for i in range(n_parts)]


class TestRowsThatAreNoMixture:
    """The law of the mixture excludes consistent partitions of such rows. That of the rows does not."""

    @staticmethod
    @cache
    def mixture(law):
        return fit_local(np.concatenate(parts_of(law)), 3, random_state=0).mixture

    def fitted(self, law):
        return parts_of(law), self.mixture(law)

    @pytest.mark.parametrize("law", LAWS)
    def test_level(self, law):
        parts, mixture = self.fitted(law)
        assert settle_by_rows(parts, mixture).p_values.min() > 1e-3
        assert (settle(parts, mixture).p_values < 1e-3).any()

    CHANGES = {  # noqa: RUF012
        "shifted": lambda X: X + 0.6 * X[:, 0].std() * (np.arange(3) == 0),
        "4 % of the rows x10": lambda X: X * np.where(np.arange(len(X)) < 16, 10.0, 1.0)[:, None],
        "a column x10": lambda X: X * [10.0, 1.0, 1.0],
    }

    @pytest.mark.parametrize("law", LAWS)
    @pytest.mark.parametrize("change", CHANGES)
    def test_power(self, law, change):
        parts, mixture = self.fitted(law)
        parts[1] = self.CHANGES[change](parts[1])
        p = settle_by_rows(parts, mixture).p_values
        assert p[1] < 1e-6
        assert np.delete(p, 1).min() > 1e-3

    @pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
    def test_capped_sums_are_those_of_a_loop(self, covariance_type):
        rows = np.random.default_rng(0).standard_t(3, size=(300, 3))
        family = Gaussian(covariance_type)
        components = family.start_components(rows, rows[:3])
        point = (np.array([0.2, 0.3, 0.5]), components)
        scores, bounds = family.scores(rows, *point), family.score_lengths(rows, *point)
        lengths = np.linalg.norm(scores, axis=1)
        assert (bounds >= lengths * (1 - 1e-12)).all()
        if covariance_type == "full":
            np.testing.assert_allclose(bounds, lengths)
        naive = sum(s * min(1.0, 5.0 / bound) for s, bound in zip(scores, bounds, strict=True))
        (found,) = measure(rows, [family.mixture(*point)], Wanted(score_cap=5.0))
        np.testing.assert_allclose(found.scores, naive, atol=1e-10)
        np.testing.assert_allclose(found.moments[0], family.em_pass(rows, *point)[1][0])

    def test_the_covariance_of_rows_is_white_where_it_is_larger(self):
        parts, mixture = self.fitted("t(3)")
        point = (mixture.weights, mixture.components)
        about = information(mixture.family, *point, np.random.default_rng(0))
        scores = capped_scores(mixture.family, np.concatenate(parts), point, 50.0)
        scores = scores - scores.mean(axis=0)
        covariance = np.cov(about.whiten(scores).T, ddof=0)
        values = np.linalg.eigvalsh(covariance)
        found = np.linalg.eigvalsh(np.cov(about.widened(covariance).whiten(scores).T, ddof=0))
        np.testing.assert_allclose(found, np.minimum(values, 1.0), atol=1e-8)
        assert values[-1] > 2


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_owners_are_those_whose_parameters_move_a_coordinate(covariance_type):
    family = Gaussian(covariance_type)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    components = family.start_components(X, rng.normal(size=(3, 3)))
    weights = np.array([0.2, 0.3, 0.5])
    origin = (weights, components)
    owners = family.coordinate_owners(components)
    assert len(owners) == len(family.coordinates(*origin, origin))
    for k in range(3):
        moved = weights + 0.01 * (np.arange(3) == k)
        other = family.start_components(2 * X + 1, components[0] + 1)
        placed = family.place(components, np.array([k]), tuple(p[:1] + 1.0 for p in other))
        touched = np.flatnonzero(np.abs(family.coordinates(moved, placed, origin)) > 1e-9)
        assert set(owners[touched]) == {k}
        assert len(touched) >= 1 + 3


@pytest.mark.smoke
def test_another_family_has_the_test_too():
    family = Poisson()
    point = (np.array([0.4, 0.6]), (np.array([[1.0, 5.0], [8.0, 2.0]]),))
    test = ScoreSample(family, point, {}, np.inf, np.random.default_rng(0)).test(())
    assert test.row_scores.mean == pytest.approx(5.0, rel=0.1)


class TestWhichLaw:
    def parts(self):
        return [make_rows(i, 200) for i in range(20)]

    def test_that_of_the_mixture_is_enough_if_it_excludes_none(self):
        settled, is_enough = settled_and_law(self.parts(), TRUTH)
        assert is_enough
        assert settled.p_values.min() > 0.01

    def test_it_excludes_none(self):
        parts = self.parts()
        parts[4] = parts[4] + [0.6, 0.0]
        settled, is_enough = settled_and_law(parts, TRUTH)
        assert not is_enough
        assert np.flatnonzero(settled.p_values < 1e-3).tolist() == [4]

    def test_nor_if_all_rows_scatter_more_than_those_of_the_mixture(self):
        parts, mixture = parts_of("t(3)"), TestRowsThatAreNoMixture.mixture("t(3)")
        settled, is_enough = settled_and_law(parts, mixture)
        assert not is_enough
        assert settled.p_values.min() > 1e-3


class TestComponentsWithoutRows:
    """A surplus component sits on a few rows of one partition."""

    def spiked(self, parts):
        rows = parts[3][:4]
        spike = np.cov(rows.T) + 1e-3 * np.eye(2)
        n = sum(map(len, parts))
        weights = np.append(TRUTH.weights * (1 - 4 / n), 4 / n)
        means = np.vstack([TRUTH.means, rows.mean(axis=0)])
        return Mixture(weights, means, np.concatenate([TRUTH.covariances, spike[None]]))

    def test_it_is_no_part_of_the_test(self):
        parts = [make_rows(i, 200) for i in range(30)]
        mixture = self.spiked(parts)
        point = (mixture.weights, mixture.components)
        tested = components_with_law(mixture.family, point, parts)
        assert tested.sum() == 2
        assert mixture.weights[~tested] < 0.001
        weights, components = part_of(point, tested)
        assert weights.sum() == pytest.approx(1.0)
        assert [len(p) for p in components] == [2] * len(components)

    def test_without_rows_all_components_have_the_law_of_the_mixture(self):
        mixture = self.spiked([make_rows(i, 200) for i in range(30)])
        point = (mixture.weights, mixture.components)
        assert components_with_law(mixture.family, point, ()).all()

    def test_few_rows_do_not_take_a_heavy_component_out(self):
        point = (TRUTH.weights, TRUTH.components)
        assert components_with_law(TRUTH.family, point, [make_rows(0, 6)]).all()
