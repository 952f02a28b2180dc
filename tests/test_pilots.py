"""Pilots: drawn by seed, fitted from many starts, with a short list for which one consistent pilot is enough."""

from dataclasses import replace

import dask
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import GaussianMixture, Mixture
from dask_dfmr.local import pilots
from dask_dfmr.local.comparison import best_first, mean_log_density
from dask_dfmr.local.em import EmResult
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.local.pilots import (
    GROUP_ROWS,
    LEAST_ROWS,
    MAX_SENT_ROWS,
    MAX_SHORTLIST,
    N_PILOTS,
    PilotFit,
    Shortlist,
    as_mixture,
    choose_start,
    draw_pilots,
    fit_pilot,
    make_shortlist,
    n_rows_of,
    n_rows_of_settling,
    pilot_scale,
    read_pilot,
)
from dask_dfmr.local.search import best_of_starts
from dask_dfmr.local.starts import MAX_START_ROWS, Scale
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.mixtures.row_cut import cut_of
from dask_dfmr.seeds import stream
from tests import naive
from tests.strategies import random_mixture

FAMILY = Gaussian()
PROBLEM = LocalProblem(family=FAMILY, n_components=3)
SEED = np.random.SeedSequence(0)


def pilots_of(partitions, seed=SEED, problem=PROBLEM):
    rows = [read_pilot(problem, X, stream(seed, 0, i)) for i, X in enumerate(partitions)]
    scale = pilot_scale(rows)
    return [fit_pilot(problem, r, scale, stream(seed, 1, i)) for i, r in enumerate(rows)]


def partitions_of(mixture, n, seed, n_rows=400):
    return [mixture.sample(n_rows, random_state=seed + i)[0] for i in range(n)]


def truth(seed=1):
    return random_mixture(seed, 3, 3)


@pytest.mark.smoke
class TestDraw:
    def test_the_same_seed_draws_the_same_partitions(self):
        assert draw_pilots(100, SEED) == draw_pilots(100, SEED)
        assert draw_pilots(100, SEED) != draw_pilots(100, np.random.SeedSequence(1))

    def test_at_most_sixteen_different_ones(self):
        drawn = draw_pilots(1000, SEED)
        assert len(set(drawn)) == N_PILOTS == 16
        assert drawn == sorted(drawn)
        assert all(0 <= i < 1000 for i in drawn)

    def test_all_where_there_are_fewer(self):
        assert draw_pilots(5, SEED) == [0, 1, 2, 3, 4]


@pytest.mark.smoke
class TestNumberOfStarts:
    """Rows of sixteen small clusters, on which the starts of ``n_init=1`` do not find the best optimum."""

    @staticmethod
    def best(n_init):
        rng = np.random.default_rng(3)
        rows = np.concatenate(
            [rng.normal(mean, 0.6, (40, 2)) for mean in rng.normal(0, 4, (16, 2))]
        )
        problem = LocalProblem(family=FAMILY, n_components=16, n_init=n_init)
        return best_of_starts(problem, rows, Scale.of(rows), np.random.default_rng(0), 5, 1)

    def test_more_of_them_find_a_better_optimum(self):
        assert self.best(3).objective > self.best(1).objective + 1.0

    def test_the_first_ones_are_among_them(self):
        assert min(self.best(n).objective for n in (2, 3)) >= self.best(1).objective


class TestManyColumns:
    """More columns than a search takes all rows and passes in, and components of one covariance."""

    @pytest.mark.parametrize("covariance_type", ["full", "tied"])
    def test_the_start_leads_to_the_optimum_of_the_truth(self, covariance_type):
        rng = np.random.default_rng(0)
        centers = 0.6 * rng.normal(size=(3, 32))
        rows = rng.permutation((centers[:, None] + rng.normal(size=(3, 800, 32))).reshape(-1, 32))
        problem = LocalProblem(family=Gaussian(covariance_type), n_components=3)
        pilot = read_pilot(problem, rows, SEED)
        shortlist = make_shortlist(
            problem, [fit_pilot(problem, pilot, pilot_scale([pilot]), SEED)], SEED
        )
        shape = problem.family.start_components(rows, centers)[1]
        true = problem.family.mixture(np.full(3, 1 / 3), (centers, shape), None)
        found, best = (
            problem.fit(rows, start).log_likelihood
            for start in (problem.family.mixture(*shortlist.starts[0], None), true)
        )
        assert found > best - 1e-4

    def test_rows_of_a_pilot(self):
        wide = LocalProblem(family=Gaussian("full"), n_components=2)
        assert n_rows_of(wide, 100) == 4040
        assert n_rows_of(wide, 30) == 2000
        tied = LocalProblem(family=Gaussian("tied"), n_components=5)
        assert n_rows_of(tied, 100) == 2 * tied.family.least_rows(5, 100)

    @pytest.mark.parametrize(
        ("n_components", "n_features", "n_sources", "first", "more"),
        [
            (5, 10, 20, 4_000, 4_000),
            (10, 30, 1, 16_000, 16 * 4959),
            (20, 30, 20, 16_000, 80_000),
            (10, 40, 20, 11_250, 40_000),
            (10, 40, 1, 11_250, 11_250),  # the only partition is fitted at once
            (10, 60, 20, 12_200, 20_000),
        ],
    )
    def test_more_rows_where_they_are_few_for_the_parameters(
        self, n_components, n_features, n_sources, first, more
    ):
        problem = LocalProblem(Gaussian("full"), n_components, n_sources=n_sources)
        assert n_rows_of_settling(problem, n_features) == (first, more)

    def test_the_search_is_made_again_if_a_component_has_few_rows(self, monkeypatch):
        """On 300 rows of three components, of which one is light, and on all of them."""
        X = partitions_of(truth(), 1, 0)[0]
        n_rows = []
        search = pilots.Search.best
        monkeypatch.setattr(pilots, "n_rows_of_settling", lambda *_: (300, len(X)))
        monkeypatch.setattr(
            pilots.Search,
            "best",
            lambda self, *a: n_rows.append(len(self.rows)) or search(self, *a),
        )
        pilot = read_pilot(PROBLEM, X, SEED)
        fits = [fit_pilot(PROBLEM, pilot, pilot_scale([pilot]), SEED)]
        for determined in (0.0, np.inf):
            monkeypatch.setattr(pilots, "DETERMINED", determined)
            make_shortlist(PROBLEM, fits, SEED)
        assert n_rows == [300, 300, len(X)]


@pytest.mark.smoke
class TestRead:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda X: X[:20],
            lambda X: np.where(np.arange(len(X))[:, None] == 3, np.nan, X),
            lambda X: X * [1.0, 0.0, 1.0],
            lambda X: X[:0],
        ],
        ids=["too few rows", "NaN", "constant column", "no rows"],
    )
    def test_inadequate_partitions_are_no_pilots(self, spoil):
        (X,) = partitions_of(truth(), 1, 0)
        assert read_pilot(PROBLEM, spoil(X), SEED) is None

    def test_nan_rows_may_be_omitted(self):
        (X,) = partitions_of(truth(), 1, 0)
        problem = LocalProblem(family=Gaussian(), n_components=3, nan_policy="omit")
        X[3] = np.nan
        assert len(read_pilot(problem, X, SEED).rows) == len(X) - 1

    def test_no_more_rows_than_needed_are_kept(self):
        X = np.random.default_rng(0).normal(size=(GROUP_ROWS + 500, 3))
        for n_sources, n_rows in ((1, GROUP_ROWS), (4, GROUP_ROWS // 4), (100, LEAST_ROWS)):
            problem = replace(PROBLEM, n_sources=n_sources)
            pilot = read_pilot(problem, X, SEED)
            assert len(pilot.rows) == n_rows
            assert_array_equal(pilot.rows, read_pilot(problem, X, SEED).rows)

    def test_the_scale_is_median_and_interquartile_range(self):
        X = np.random.default_rng(0).normal(3.0, [1.0, 10.0, 0.1], (20_000, 3))
        scale = read_pilot(PROBLEM, X, SEED).scale
        assert_allclose(scale.location, 3.0, atol=0.3)
        assert_allclose(scale.spread, [1.0, 10.0, 0.1], rtol=0.05)

    def test_where_the_quartiles_coincide_the_standard_deviation_steps_in(self):
        X = np.zeros((100, 1))
        X[:10] = 5.0
        assert_allclose(Scale.of(X).spread, X.std())


@pytest.mark.smoke
class TestScale:
    def test_one_broken_unit_moves_the_common_scale_little(self):
        good = partitions_of(truth(), 5, 0)
        clean = pilot_scale([read_pilot(PROBLEM, X, SEED) for X in good])
        broken = [*good[:4], 1e6 * good[4]]
        scale = pilot_scale([read_pilot(PROBLEM, X, SEED) for X in broken])
        assert_allclose(scale.spread, clean.spread, rtol=0.3)

    def test_the_usual_number_of_columns_decides(self):
        good = partitions_of(truth(), 2, 0)
        odd = np.random.default_rng(0).normal(size=(400, 7))
        pilots = [read_pilot(PROBLEM, X, SEED) for X in [odd, *good]]
        scale = pilot_scale(pilots)
        assert scale.location.shape == (3,)
        assert fit_pilot(PROBLEM, pilots[0], scale, SEED) is None

    def test_without_pilots_there_is_none(self):
        assert pilot_scale([None, None]) is None
        assert fit_pilot(PROBLEM, None, None, SEED) is None


class TestFit:
    def test_a_pilot_finds_separated_components(self):
        m = Mixture([0.3, 0.3, 0.4], np.diag([20.0, 30.0, 40.0]), [np.eye(3)] * 3)
        (fit,) = pilots_of(partitions_of(m, 1, 0))
        found = Gaussian().mixture(*fit.start).align_to(m)
        assert_allclose(found.means, m.means, atol=0.5)
        assert len(fit.check_rows) <= MAX_SENT_ROWS

    def test_the_same_seed_gives_the_same_candidate(self):
        X = partitions_of(truth(), 2, 0)
        for a, b in zip(pilots_of(X), pilots_of(X), strict=True):
            assert_array_equal(a.start[0], b.start[0])
            assert_array_equal(a.check_rows, b.check_rows)

    def test_mean_log_density_is_the_naive_one(self):
        m = truth()
        X = m.sample(50, random_state=0)[0]
        got = mean_log_density(m.family, (m.weights, m.components), X)
        assert_allclose(got, np.log(naive.density(m, X)).mean(), rtol=1e-12)


def describes(population, start):
    """Whether a candidate describes a population about as well as the population itself."""
    rows = population.sample(2000, random_state=9)[0]
    return population.score(rows) - mean_log_density(FAMILY, start, rows) < 0.3


class TestShortlist:
    def test_without_fits_it_is_empty(self):
        assert make_shortlist(PROBLEM, [None, None]) == Shortlist([], [])
        assert choose_start(PROBLEM, np.zeros((5, 3)), Shortlist([], []), SEED) is None

    def test_pilots_of_one_population_need_one_candidate(self):
        shortlist = make_shortlist(PROBLEM, pilots_of(partitions_of(truth(), 8, 0)))
        assert len(shortlist.starts) == 1
        assert shortlist.support == [8]

    @pytest.mark.parametrize("n_populations", [2, 3, 6])
    def test_support_counts_every_pilot_once(self, n_populations):
        mixtures = [random_mixture(s, 3, 3, spread=20.0) for s in range(n_populations)]
        partitions = [X for s, m in enumerate(mixtures) for X in partitions_of(m, 2, 10 * s)]
        shortlist = make_shortlist(PROBLEM, [*pilots_of(partitions), None])
        assert sum(shortlist.support) == len(partitions)
        assert len(shortlist.starts) == len(shortlist.support) == min(n_populations, MAX_SHORTLIST)

    @pytest.mark.parametrize("seed", range(20))
    def test_every_consistent_partition_chooses_a_consistent_candidate(self, seed):
        """With 40 % of the pilots from another population."""
        good, bad = random_mixture([seed, 0], 3, 3), random_mixture([seed, 1], 3, 3)
        partitions = [*partitions_of(bad, 4, 100, 300), *partitions_of(good, 6, 200, 300)]
        fits = pilots_of(partitions, np.random.SeedSequence(seed))
        shortlist = make_shortlist(PROBLEM, fits)
        choices = [
            choose_start(PROBLEM, X, shortlist, stream(SEED, i)) for i, X in enumerate(partitions)
        ]
        assert all(describes(good, shortlist.starts[c]) for c in choices[4:])

    def test_one_consistent_pilot_is_enough(self):
        good, bad = random_mixture(1, 3, 3), random_mixture(2, 3, 3)
        fits = pilots_of([*partitions_of(bad, 7, 0), *partitions_of(good, 1, 50)])
        shortlist = make_shortlist(PROBLEM, fits)
        for X in partitions_of(good, 5, 90):
            chosen = choose_start(PROBLEM, X, shortlist, SEED)
            assert describes(good, shortlist.starts[chosen])

    def test_a_candidate_with_the_best_optimum_stands_for_its_population(self):
        X = partitions_of(truth(), 2, 0)
        fit = pilots_of(X)[0]
        weights, components = fit.start
        worse = (weights, (components[0] + 0.1, components[1]))
        shortlist = make_shortlist(PROBLEM, [PilotFit(worse, X[1]), fit])
        rows = truth().sample(2000, random_state=7)[0]
        assert len(shortlist.starts) == 1
        assert mean_log_density(FAMILY, shortlist.starts[0], rows) >= mean_log_density(
            FAMILY, fit.start, rows
        )

    def test_a_candidate_is_settled_on_the_rows_of_its_group(self):
        """Twelve pilots of 60 rows each overfit; together they do not."""
        fits = pilots_of(partitions_of(truth(), 12, 0, 60))
        shortlist = make_shortlist(PROBLEM, fits)
        rows = truth().sample(5000, random_state=8)[0]
        alone = max(mean_log_density(FAMILY, fit.start, rows) for fit in fits)
        together = max(mean_log_density(FAMILY, start, rows) for start in shortlist.starts)
        assert together > alone


class TestSpuriousMaxima:
    """A component of a handful of rows in many columns has a likelihood that a weak penalty hardly bounds."""

    def test_they_are_no_start(self):
        m = random_mixture(3, 5, 25, spread=0.3)
        problem = LocalProblem(Gaussian(), 5)
        pilots = pilots_of([m.sample(2000, random_state=3)[0]], problem=problem)
        ((weights, _),) = make_shortlist(problem, pilots, SEED).starts
        assert weights.min() == pytest.approx(m.weights.min(), abs=0.02)  # one had 19 rows, .0095

    @pytest.mark.parametrize("row_outliers", [None, "truncate"])
    def test_they_come_after_all_others(self, row_outliers):
        family, rows = Gaussian("full", cut_of(row_outliers, 0.01)), np.zeros((100, 4))
        healthy, spurious = (
            EmResult(
                np.array([1 - w, w]),
                (np.zeros((2, 4)), np.repeat(scale * np.eye(4)[None], 2, axis=0)),
                *(objective, objective, 1, True),
            )
            for w, scale, objective in ((0.05, 1.0, -500.0), (0.04, 1e-6, 5000.0))
        )
        assert best_first(family, [spurious, None, healthy], rows) == [healthy, spurious]
        assert best_first(family, [spurious], rows) == [spurious]


class TestChoice:
    M = truth()
    OTHER = random_mixture(5, 3, 3, spread=20.0)
    SHORTLIST = Shortlist([(OTHER.weights, OTHER.components), (M.weights, M.components)], [1, 1])

    def test_rows_choose_the_candidate_they_like_best(self):
        for m, index in ((self.OTHER, 0), (self.M, 1)):
            X = m.sample(200, random_state=0)[0]
            assert choose_start(PROBLEM, X, self.SHORTLIST, SEED) == index

    def test_rows_that_are_not_finite_have_no_say(self):
        X = self.M.sample(200, random_state=0)[0]
        X[::2] = np.nan
        X[1] = np.inf
        assert choose_start(PROBLEM, X, self.SHORTLIST, SEED) == 1

    def test_rows_that_are_all_nan_choose_nothing(self):
        assert choose_start(PROBLEM, np.full((9, 3), np.nan), self.SHORTLIST, SEED) is None

    def test_rows_of_another_width_choose_nothing(self):
        assert choose_start(PROBLEM, np.zeros((9, 2)), self.SHORTLIST, SEED) is None

    def test_no_rows_choose_nothing(self):
        assert choose_start(PROBLEM, np.zeros((0, 3)), self.SHORTLIST, SEED) is None

    def test_a_candidate_becomes_a_start(self):
        start = as_mixture(PROBLEM, self.SHORTLIST.starts[1], ["a", "b", "c"])
        assert start == Mixture(
            self.M.weights, self.M.means, self.M.covariances, "full", ["a", "b", "c"]
        )


@pytest.mark.parametrize("options", [{}, {"init_params": "kmeans"}, {"check_optimum": 1}], ids=str)
def test_a_column_that_is_stuck_but_for_one_row_costs_its_partition_alone(options):
    # Of so many rows a pilot is fitted on a sample, in which the column is constant.
    n = MAX_START_ROWS + 2000
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 2)) + 4.0 * rng.integers(0, 2, (n, 1)) for _ in range(6)]
    parts[3][:, 1] = 7.5
    parts[3][11, 1] = 7.6
    with dask.config.set(scheduler="synchronous"):
        gm = GaussianMixture(2, random_state=0, **options).fit(parts)
    assert gm.support_.tolist() == [i != 3 for i in range(6)]
