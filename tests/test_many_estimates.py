"""Many machines: the center by references instead of all pairs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import islice

import dask
import dask.array as da
import numpy as np
import pytest
from dask.utils import key_split
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import (
    AggregationError,
    GaussianMixture,
    LocalEstimate,
    Mixture,
    aggregate,
    dfmr,
    pairwise_l2,
)
from dask_dfmr.aggregation import references
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.references import (
    ALL_PAIRS_UP_TO,
    N_CANDIDATES,
    N_REFERENCES,
    N_SCOUTS,
    best_medians,
    chance_of_inconsistent_majority,
    chance_of_no_consistent_scout,
    draw_references,
    draw_scouts,
    quantile_error,
)
from dask_dfmr.aggregation.stages import center as stages
from dask_dfmr.mixtures.distances import block_size_for, tile_blocks
from dask_dfmr.seeds import SCOUT_DRAW, seed_sequence, stream
from tests.data_makers import make_ddf, make_rows, same_bits
from tests.strategies import random_mixture

# Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")


def sampled(truth, rng, n_samples=1000):
    """Without end: estimates scattered about ``truth`` as complete-data maximum likelihood would."""
    origin = truth.weights, truth.components
    n_coordinates = len(truth.family.coordinates(*origin, origin))
    root = np.sqrt(truth.weights)
    while True:
        v = rng.normal(size=n_coordinates) / np.sqrt(n_samples)
        v[: len(root)] -= root * (root @ v[: len(root)])  # weights sum to one
        drawn = truth.family.from_coordinates(v, origin)
        if drawn is not None:
            yield LocalEstimate(truth.family.mixture(*drawn), n_samples)


def honest(*args, **shape):
    return list(honest_once(*args, **shape))


@cache
def honest_once(m, seed=0, n_components=2, n_features=2):
    truth = random_mixture([seed, 7], n_components, n_features)
    return list(islice(sampled(truth, np.random.default_rng(seed)), m))


def moved(estimate, shift=0.0, factor=1.0):
    m = estimate.mixture
    mixture = Mixture(m.weights, factor * m.means + shift, factor**2 * m.covariances)
    return LocalEstimate(mixture, estimate.n_samples)


def in_one_direction(some, rng):
    """All moved by the same three standard errors of a mean."""
    return [moved(e, 0.15) for e in some]


def one_copied(some, rng):
    """All nearly the same one, somewhat off."""
    return [moved(some[0], 0.1 + 1e-3 * rng.normal()) for _ in some]


def other_unit(some, rng):
    return [moved(e, factor=1000.0) for e in some]


def all_different(some, rng):
    return [
        LocalEstimate(random_mixture(int(i), 2, 2), 1000)
        for i in rng.integers(2**31, size=len(some))
    ]


def of_many_kinds(some, rng):
    """A few standard errors or worlds away."""
    return [
        moved(e, s, f)
        for e, s, f in zip(
            some, rng.normal(0, 0.3, len(some)), rng.choice([1, 1, 3.0], len(some)), strict=True
        )
    ]


def planted(share, kind, m, seed=0, **shape):
    """Estimates of which a share is bad, and which ones; everything in random order."""
    rng = np.random.default_rng([seed, 1])
    is_bad = rng.permutation(m) < int(share * m)
    estimates = np.array(honest(m, seed, **shape), dtype=object)
    estimates[is_bad] = kind(list(estimates[is_bad]), rng)
    return list(estimates), is_bad


def check_agreement(estimates, is_bad, seeds=(0,)):
    """The promise: no bad machine that all pairs drop is kept, and hardly an honest verdict differs."""
    exact = aggregate(estimates, n_references=None).decision
    assert exact.n_references is None
    assert exact.n_candidates == len(estimates)
    assert not is_bad[exact.center]
    for seed in seeds:
        ours = aggregate(estimates, n_references=N_REFERENCES, random_state=seed).decision
        assert ours.n_references == N_REFERENCES
        assert ours.n_candidates == N_SCOUTS + N_CANDIDATES
        assert not (ours.kept & ~exact.kept)[is_bad].any()
        assert (ours.kept != exact.kept)[~is_bad].mean() <= 0.01


class TestAgreementWithAllPairs:
    @pytest.mark.filterwarnings("ignore:estimates .* are copies")
    @pytest.mark.parametrize(
        ("share", "kind", "n_components"),
        [(0.1, all_different, 2), (0.3, one_copied, 1), (0.45, in_one_direction, 1)],
    )
    def test_two_thousand_machines(self, share, kind, n_components):
        check_agreement(*planted(share, kind, 2000, n_components=n_components))

    @pytest.mark.slow
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
    @pytest.mark.parametrize("kind", [in_one_direction, one_copied, other_unit, of_many_kinds])
    def test_two_thousand_machines_of_realistic_size(self, share, kind):
        check_agreement(*planted(share, kind, 2000, n_components=5, n_features=10))

    @pytest.mark.filterwarnings("ignore:estimates .* are copies")
    @pytest.mark.parametrize("kind", [other_unit, of_many_kinds])
    @pytest.mark.parametrize("method", ["dfmr", "mr", "coat"])
    def test_the_result_is_that_of_the_same_centre(self, kind, method):
        estimates, _ = planted(0.3, kind, 600)
        ours = aggregate(estimates, method=method, n_references=100, random_state=0)
        exact = aggregate(estimates, method=method, random_state=0)
        assert ours.decision.center == exact.decision.center
        assert_allclose(ours.decision.radius, exact.decision.radius, rtol=1e-8)
        assert_allclose(ours.mixture.means, exact.mixture.means, rtol=1e-8)
        assert ours.objective == pytest.approx(exact.objective, rel=1e-8)


# -- draws ---------------------------------------------------------------------------------------


class TestDraws:
    @pytest.mark.parametrize("m", [1, 2, N_SCOUTS, N_SCOUTS + 1, 1000])
    def test_scouts_are_different_machines(self, m):
        scouts = draw_scouts(m, np.random.default_rng(0))
        assert len(set(scouts)) == len(scouts) == min(m, N_SCOUTS)
        assert set(scouts) <= set(range(m))

    @pytest.mark.parametrize(("m", "n"), [(12, 3), (1000, 10), (2000, 500)])
    def test_one_reference_of_each_stratum(self, m, n):
        distances = np.random.default_rng(0).random(m)
        ranks = distances.argsort().argsort()
        drawn = draw_references(distances, n, np.random.default_rng(1))
        assert_array_equal(np.sort(ranks[drawn]) // (m // n), np.arange(n))

    def test_as_many_references_as_machines_are_all(self):
        distances = np.random.default_rng(0).random(57)
        for n in (57, 58, 1000):
            drawn = draw_references(distances, n, np.random.default_rng(n))
            assert_array_equal(drawn, np.arange(57))

    def test_every_machine_is_a_reference_equally_often(self):
        rng, m, n, repeats = np.random.default_rng(0), 10, 4, 20_000
        counts = Counter(i for _ in range(repeats) for i in draw_references(np.arange(m), n, rng))
        expected = repeats * n / m
        assert all(abs(counts[i] - expected) < 5 * np.sqrt(expected) for i in range(m))

    def test_candidates_have_the_smallest_medians(self):
        medians = np.random.default_rng(0).random(1000)
        medians[:500] = np.inf
        excluded = np.array([3, int(medians.argmin())])
        expected = [i for i in medians.argsort() if i not in excluded][:N_CANDIDATES]
        assert_array_equal(best_medians(medians, excluded), np.sort(expected))

    def test_scouts_are_never_candidates_again(self):
        medians = np.array([1.0, np.inf, 2.0, np.inf])
        assert_array_equal(best_medians(medians, np.array([0])), [1, 2, 3])
        assert len(best_medians(medians, np.arange(4))) == 0

    def test_nobody_knows_the_references_of_an_unseeded_aggregation(self, monkeypatch):
        drawn, original = [], stages.draw_scouts
        monkeypatch.setattr(
            stages, "draw_scouts", lambda *args: drawn.append(original(*args)) or drawn[-1]
        )
        estimates = honest(60)
        for random_state in (None, None, 5, 5):
            aggregate(estimates, n_references=10, random_state=random_state)
        a, b, c, d = map(tuple, drawn)
        assert a != b
        assert c == d


# -- the guarantee, on simulated distances -------------------------------------------------------


def simulated_distances(m, share_bad=0.0, seed=0):
    """Points of a plane, the bad ones in a clique."""
    points = np.random.default_rng(seed).normal(size=(m, 2))
    points[: int(share_bad * m)] = points[: int(share_bad * m)] * 0.01 + 5.0
    return np.linalg.norm(points[:, None] - points, axis=-1)


class TestGuarantee:
    M, R = 1000, 64

    def share_of_draws_beyond(self, distances, eps, repeats=200):
        """In how many draws some machine's median over references is no quantile within 1/2 -+ eps."""
        ordered = np.sort(distances, axis=1)
        low, high = (
            ordered[:, int(np.clip(q * self.M, 0, self.M - 1))] for q in (0.5 - eps, 0.5 + eps)
        )
        beyond = 0
        for i in range(repeats):
            rng = np.random.default_rng(i)
            drawn = draw_references(distances[rng.integers(self.M)], self.R, rng)
            medians = np.median(distances[:, drawn], axis=1)
            beyond += bool(((medians < low) | (medians > high)).any())
        return beyond / repeats

    @pytest.mark.parametrize("share_bad", [0.0, 0.4])
    def test_references_know_every_median_within_eps(self, share_bad):
        distances = simulated_distances(self.M, share_bad)
        assert self.share_of_draws_beyond(distances, quantile_error(self.M, self.R, 0.05)) <= 0.05

    def test_an_eps_much_smaller_would_not_do(self):
        # Strata along the distance to a machine know less than nothing here.
        distances = np.abs(np.random.default_rng(0).normal(size=(self.M, self.M)))
        assert self.share_of_draws_beyond(distances, quantile_error(self.M, self.R, 0.05)) <= 0.05
        assert (
            self.share_of_draws_beyond(distances, quantile_error(self.M, self.R, 0.05) / 2) > 0.05
        )

    @pytest.mark.parametrize("share_bad", [0.3, 0.4, 0.45])
    def test_bad_references_are_rarely_the_majority(self, share_bad):
        m, n, repeats = 1000, 32, 4000
        is_bad = np.arange(m) < share_bad * m
        rng = np.random.default_rng(0)
        observed = np.mean(
            [is_bad[draw_references(rng.random(m), n, rng)].mean() >= 0.5 for _ in range(repeats)]
        )
        assert observed <= chance_of_inconsistent_majority(share_bad, n)
        assert observed > 0.02 * chance_of_inconsistent_majority(share_bad, n)

    def test_scouts_are_rarely_all_bad(self, monkeypatch):
        monkeypatch.setattr(references, "N_SCOUTS", 4)
        rng, m, repeats = np.random.default_rng(0), 1000, 20_000
        observed = np.mean([(draw_scouts(m, rng) < 0.45 * m).all() for _ in range(repeats)])
        expected = chance_of_no_consistent_scout(0.45, 4)
        assert abs(observed - expected) < 5 * np.sqrt(expected / repeats)

    def test_a_draw_of_bad_references_only_is_survived(self, monkeypatch):
        estimates, is_bad = planted(0.45, other_unit, 600)
        bad = np.flatnonzero(is_bad)
        monkeypatch.setattr(stages, "draw_references", lambda *args: bad)
        decision = aggregate(estimates, n_references=len(bad), random_state=0).decision
        assert decision.n_candidates == N_SCOUTS + N_CANDIDATES
        assert not is_bad[decision.center]
        assert not decision.kept[is_bad].any()

    @pytest.mark.parametrize("seed", range(5))
    def test_the_centre_is_at_least_as_good_as_every_scout(self, seed):
        estimates, _ = planted(0.45, of_many_kinds, 300)
        medians = np.median(pairwise_l2([e.mixture for e in estimates]), axis=1)
        rng = np.random.default_rng(stream(seed_sequence(seed), SCOUT_DRAW))
        scouts = draw_scouts(300, rng)
        center = aggregate(estimates, n_references=2, random_state=seed).decision.center
        assert medians[center] <= medians[scouts].min() * (1 + 1e-9)


# -- who may be drawn ----------------------------------------------------------------------------


class TestRefused:
    def test_refused_estimates_take_no_part(self):
        good = honest(400)
        nobody = {"n_samples": 10, "weights": [np.nan], "means": [[0.0]], "covariances": [[[1.0]]]}
        mixed = [e for pair in zip([nobody] * 400, good, strict=True) for e in pair]
        ours = aggregate(mixed, n_references=50, random_state=3).decision
        alone = aggregate(good, n_references=50, random_state=3).decision
        assert ours.center == 2 * alone.center + 1
        assert_array_equal(ours.kept[1::2], alone.kept)
        assert not ours.kept[::2].any()
        assert len(ours.refused) == 400

    @pytest.mark.smoke
    def test_no_more_usable_ones_than_references(self):
        some = honest(40) + [{"n_samples": 5}] * 30
        ours = aggregate(some, n_references=60, random_state=0).decision
        exact = aggregate(some, n_references=None).decision
        assert (ours.n_references, ours.n_candidates) == (40, 40)
        assert ours.center == exact.center
        assert_array_equal(ours.kept, exact.kept)

    def test_nobody_usable(self):
        with pytest.raises(AggregationError, match="none of the 9"):
            aggregate([{"n_samples": 5}] * 9, n_references=2)

    @pytest.mark.parametrize("n_usable", [1, 2, 3])
    @pytest.mark.filterwarnings("ignore")
    def test_hardly_anybody_usable(self, n_usable):
        some = [{"n_samples": 5}] * 9 + honest(n_usable)
        ours = aggregate(some, n_references=1, random_state=0)
        exact = aggregate(some)
        assert ours.decision.center == exact.decision.center
        assert ours.mixture == exact.mixture


class TestTies:
    def test_copies(self):
        one, other, *rest = honest(102)
        decision = aggregate(
            [one] * 300 + [other] * 100 + rest, rho=1.3, n_references=50, random_state=0
        ).decision
        assert decision.radius == 0
        assert_array_equal(np.flatnonzero(decision.kept), np.arange(300))

    def test_all_the_same(self):
        decision = aggregate(honest(1) * 500, n_references=50, random_state=0).decision
        assert decision.radius == 0
        assert decision.kept.all()

    def test_more_rows_win(self):
        one = honest(1)[0]
        copies = [LocalEstimate(one.mixture, 1000)] * 60 + [LocalEstimate(one.mixture, 2000)]
        assert aggregate(copies, n_references=5, random_state=0).decision.center == 60


# -- options -------------------------------------------------------------------------------------


class TestOptions:
    @pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "many", [3]])
    def test_checked_everywhere(self, wrong, ddf):
        expected = r"n_references must be None, 'auto' or an integer of at least 1; got "
        with pytest.raises(ValueError, match=expected):
            aggregate(honest(3), n_references=wrong)
        with pytest.raises(ValueError, match=expected):
            dfmr(GaussianMixture(2, n_references=wrong), ddf)
        with pytest.raises(ValueError, match=expected):
            GaussianMixture(2, n_references=wrong).fit(ddf)

    def test_random_state_is_checked(self):
        with pytest.raises(ValueError, match="random_state must be"):
            aggregate(honest(3), random_state="seven")

    @pytest.mark.smoke
    def test_references_past_a_threshold(self):
        auto = AggregationOptions()
        assert auto.references_among(ALL_PAIRS_UP_TO) is None
        assert auto.references_among(ALL_PAIRS_UP_TO + 1) == N_REFERENCES
        assert AggregationOptions(n_references=None).references_among(10**6) is None
        assert AggregationOptions(n_references=7).references_among(7) is None
        assert AggregationOptions(n_references=7).references_among(8) == 7

    def test_all_pairs_below_it_do_not_depend_on_the_seed(self):
        some = honest(60)
        a, b = (aggregate(some, random_state=i) for i in range(2))
        assert same_bits(a.mixture, b.mixture)
        assert a.decision.n_references is None
        assert a.decision.n_candidates == 60

    def test_it_is_told(self):
        decision = aggregate(honest(400), n_references=50, random_state=0).decision
        assert repr(decision).endswith(", n_candidates=288, n_references=50)")
        assert "n_references" not in repr(aggregate(honest(10)).decision)

    def test_blocks_get_larger_not_more(self):
        assert block_size_for(1) == block_size_for(3200) == 50
        assert block_size_for(10_000) == 157
        assert len(tile_blocks(10_000)) == len(tile_blocks(1_000_000)) == 64


# -- the graph -----------------------------------------------------------------------------------

M = 330


@cache
def small_rows():
    rows = np.concatenate([make_rows(i, 20) for i in range(M)])
    rows[: 60 * 20] *= 100.0
    return da.from_array(rows, chunks=(20, 2))


def fit():
    # A lazy fit has no second look at the rows of excluded partitions.
    return GaussianMixture(
        1, random_state=0, n_references=40, keep_estimates=True, refit_excluded=False
    ).fit(small_rows())


@cache
def fitted_alone():
    with dask.config.set(scheduler="synchronous"):
        return fit()


class TestGraph:
    def test_equal_to_memory(self):
        gm = fitted_alone()
        expected = aggregate(gm.estimates_, n_references=40, random_state=0)
        for name in ("distances", "distance_ratios", "kept"):
            ours, theirs = (getattr(a.decision, name) for a in (gm.aggregate_, expected))
            assert ours.tobytes() == theirs.tobytes(), name
        assert repr(gm.aggregate_.decision) == repr(expected.decision)
        assert gm.aggregate_.decision.n_candidates == N_SCOUTS + N_CANDIDATES
        assert_allclose(gm.means_, expected.mixture.means, rtol=1e-12)
        assert not gm.support_[:60].any()

    def test_the_verdict_says_how_the_centre_was_found(self, caplog):
        with caplog.at_level("INFO", logger="dask_dfmr"):
            fit()
        assert "(best of 288 candidates, found with 40 references)" in caplog.text

    @pytest.mark.parametrize("block_size", [7, 100, 1000])
    def test_blocks_do_not_show(self, block_size):
        result = dfmr(
            GaussianMixture(1, random_state=0, n_references=40), small_rows(), block_size=block_size
        )
        ours, theirs = result.compute(scheduler="synchronous"), fitted_alone().aggregate_
        assert repr(ours.decision) == repr(theirs.decision)
        assert_allclose(ours.decision.distances, theirs.decision.distances, rtol=1e-8)
        assert_allclose(ours.mixture.means, theirs.mixture.means, rtol=1e-10)

    @pytest.mark.parametrize(
        "scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
    )
    def test_the_same_bits_on_local_schedulers(self, scheduler):
        with dask.config.set(scheduler=scheduler):
            self.check_bits()

    def test_the_same_bits_on_a_cluster(self, client):
        self.check_bits()

    def check_bits(self):
        gm, expected = fit(), fitted_alone()
        assert same_bits(gm.mixture_, expected.mixture_)
        assert (
            gm.aggregate_.decision.distances.tobytes()
            == expected.aggregate_.decision.distances.tobytes()
        )

    def test_tasks_grow_with_the_machines_only(self):
        def count(m):
            names = Counter(key_split(key) for key in dfmr(GaussianMixture(1), make_ddf(m)).dask)
            return names, sum(names.values()) - names["dfmr_fit_partition"]

        few, n_few = count(ALL_PAIRS_UP_TO)
        many, n_many = count(2 * ALL_PAIRS_UP_TO)
        assert few["dfmr_l2_tile"] == 820
        assert many["dfmr_l2_tile"] == 0
        assert n_many < 2500
        assert n_many < 1.15 * n_few
