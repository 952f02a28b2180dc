"""``rho="auto"``: who is kept by what sampling explains, and what is said where it explains little."""

import warnings
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import (
    FilterWarning,
    HeterogeneityWarning,
    LocalEstimate,
    Mixture,
    aggregate,
    fit_local,
    pairwise_l2,
)
from dask_dfmr.aggregation.groups import groups_of
from dask_dfmr.aggregation.stages import consensus as judging
from tests.data_makers import other_notes
from tests.strategies import random_mixture

TWO = Mixture([0.4, 0.6], [[0.0, 0.0], [3.0, 1.0]], [np.eye(2), [[1.0, 0.6], [0.6, 2.0]]])


def fits(sizes, seed=0):
    """Local estimates from rows of ``TWO``; the same ones serve many tests."""
    return list(fits_of(tuple(sizes), seed))


@cache
def fits_of(sizes, seed, truth=None):
    """Local estimates from honest rows, started at the truth."""
    truth = truth or TWO
    rng = np.random.default_rng(seed)
    return [
        fit_local(truth.sample(n, rng)[0], truth.n_components, start=truth, n_sources=len(sizes))
        for n in sizes
    ]


def moved(estimate, by):
    m = estimate.mixture
    return LocalEstimate(Mixture(m.weights, m.means + by, m.covariances), estimate.n_samples)


class TestVerdict:
    def test_honest_machines_are_kept_at_the_rate_that_was_asked_for(self):
        kept = [aggregate(fits([500] * 30, seed)).decision for seed in range(20)]
        p = np.concatenate([decision.p_values for decision in kept])
        assert 0.02 < (p < 0.05).mean() < 0.1
        assert (p < 1e-3).sum() <= 4
        assert np.concatenate([d.kept for d in kept]).sum() == (p >= 1e-3).sum()

    def test_unequal_sizes_are_judged_alike(self):
        sizes = [100] * 10 + [700] * 10 + [5000] * 5
        small, middle, large = [], [], []
        for seed in range(10):
            p = aggregate(fits(sizes, seed)).decision.p_values
            small.append(p[:10])
            middle.append(p[10:20])
            large.append(p[20:])
        for some in (small, middle, large):
            assert (np.concatenate(some) < 0.02).mean() < 0.08

    @pytest.mark.smoke
    def test_a_small_machine_is_not_left_out_for_being_small(self):
        decision = aggregate(fits([100] * 3 + [20_000] * 12)).decision
        assert decision.kept.all()
        # Although they lie farther out than the radius.
        assert (decision.distance_ratios[:3] > 1.3).sum() >= 2

    @pytest.mark.smoke
    def test_a_large_machine_that_lies_no_farther_than_small_ones_can_be_bad(self):
        some = fits([100] * 6 + [20_000] * 12)
        some[-1] = moved(some[-1], 0.15)
        decision = aggregate(some).decision
        assert not decision.kept[-1]
        assert decision.kept[:-1].all()
        assert decision.distances[-1] < decision.distances[:6].max()
        assert decision.reason(17).endswith(
            " times as far from the consensus as sampling explains (p < 1e-12)"
        )

    def test_the_rate_is_a_parameter(self):
        some = fits([300] * 40)
        strict = aggregate(some, false_exclusion_rate=0.4).decision
        assert strict.false_exclusion_rate == 0.4
        assert_array_equal(strict.kept, strict.p_values >= 0.4)
        assert 20 < strict.kept.sum() < 40

    def test_more_than_half_are_kept_whatever_the_rate(self):
        rng = np.random.default_rng(0)
        some = [LocalEstimate(random_mixture(int(s)), 10**7) for s in rng.integers(99, size=9)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert aggregate(some, false_exclusion_rate=0.49).decision.kept.sum() > 4

    def test_what_sampling_explains_is_the_distance_that_honest_machines_have(self):
        decision = aggregate(fits([500] * 60)).decision
        others = np.arange(60) != decision.center
        squares = decision.distances[others] ** 2
        assert_allclose((squares / decision.expected_distances[others] ** 2).mean(), 1, rtol=0.25)
        assert decision.expected_distances[decision.center] == 0

    def test_numbers_are_there_whoever_decides(self):
        some = [*fits([300] * 9), moved(fits([300])[0], 3.0)]
        auto = aggregate(some).decision
        for options in ({"rho": 2.0}, {"method": "mr"}, {"method": "coat"}):
            decision = aggregate(some, **options).decision
            assert decision.p_values[9] < 1e-6
            assert_allclose(decision.p_values[:9], auto.p_values[:9], rtol=1e-6)
        assert aggregate(some, method="mr").decision.kept.all()

    def test_refused_ones_have_no_numbers(self):
        decision = aggregate([*fits([300] * 5), {"n_samples": 3}]).decision
        for values in (decision.expected_distances, decision.z_scores, decision.p_values):
            assert np.isnan(values[5])
            assert np.isfinite(values[:5]).all()

    def test_an_estimate_alone_agrees_with_itself_and_has_no_score(self):
        for alone in (fits([300]), [*fits([300]), {"n_samples": 3}]):
            found = aggregate(alone)
            decision = found.decision
            assert decision.p_values[0] == 1.0
            assert decision.expected_distances[0] == decision.sampling_ratios[0] == 0.0
            assert np.isnan(decision.z_scores[0])
            assert found.mixture.n_components == alone[0].mixture.n_components

    def test_the_order_of_machines_does_not_matter(self):
        some = [*fits([200] * 6 + [2000] * 6), moved(fits([500])[0], 0.5)]
        order = np.random.default_rng(3).permutation(13)
        here = aggregate(some).decision
        there = aggregate([some[i] for i in order]).decision
        assert_array_equal(there.kept, here.kept[order])
        assert_allclose(there.p_values, here.p_values[order], rtol=1e-6, atol=1e-300)

    def test_the_unit_of_the_columns_does_not_matter(self):
        some = [*fits([400] * 10), moved(fits([400])[0], 0.4)]
        scaled = [
            LocalEstimate(
                Mixture(e.mixture.weights, e.mixture.means * 1e3, e.mixture.covariances * 1e6),
                e.n_samples,
            )
            for e in some
        ]
        here, there = aggregate(some).decision, aggregate(scaled).decision
        assert_array_equal(there.kept, here.kept)
        assert_allclose(there.z_scores, here.z_scores, rtol=1e-5, atol=1e-5)

    def test_more_estimates_than_the_sample_takes(self, monkeypatch):
        some = [*fits([300] * 40), *(moved(e, 1.0) for e in fits([300] * 5, 1))]
        whole = aggregate(some).decision
        monkeypatch.setattr(judging, "MOST_IN_SAMPLE", 20)
        monkeypatch.setattr(judging, "MOST_COMPARED", 10)
        part = aggregate(some, random_state=0).decision
        assert not part.kept[40:].any()
        assert_allclose(part.z_scores, whole.z_scores, atol=1.0)


class TestHeterogeneity:
    def test_honest_machines_are_no_news(self):
        for seed in range(8):
            assert not other_notes(aggregate(fits([200] * 25, seed)))

    @pytest.mark.smoke
    def test_groups_are_named(self):
        other = Mixture([0.8, 0.2], TWO.means, TWO.covariances)
        some = [*fits([2000] * 14), *fits_of((2000,) * 6, 1, other)]
        with pytest.warns(HeterogeneityWarning, match="groups of 14 and 6") as caught:
            decision = aggregate(some).decision
        assert decision.groups == (tuple(range(14)), tuple(range(14, 20)))
        message = str(caught[0].message)
        assert "30% of the rows are excluded" in message
        for remedy in ("shuffle", "n_components", "n_init", "method='componentwise'"):
            assert remedy in message

    def test_a_few_bad_ones_are_the_filters_business(self):
        some = [*fits([1000] * 18), *(moved(e, 1.0) for e in fits([1000] * 2, 1))]
        assert not other_notes(aggregate(some))

    def test_a_radius_that_rows_do_not_explain(self):
        rng = np.random.default_rng(0)
        some = [
            moved(e, by)
            for e, by in zip(fits([5000] * 20), rng.normal(0, 0.3, (20, 2)), strict=True)
        ]
        with pytest.warns(HeterogeneityWarning, match=r"are [\d.]+ times what their numbers of"):
            decision = aggregate(some).decision
        assert decision.scale > 9
        assert decision.kept.sum() > 10

    def test_two_machines_are_no_groups(self):
        assert groups_of(np.array([[0.0, 9.0], [9.0, 0.0]]), 1.0) == []

    def test_a_far_group_of_copies(self):
        distances = np.where(np.equal.outer(np.arange(8) < 4, np.arange(8) < 4), 0.0, np.inf)
        assert groups_of(distances, 1.0) == [[0, 1, 2, 3], [4, 5, 6, 7]]


class TestUnequalSizesAndTheCentre:
    def test_distances_in_the_report_are_plain_ones(self):
        some = fits([100] * 4 + [3000] * 6)
        decision = aggregate(some).decision
        distances = pairwise_l2([e.mixture for e in some])[decision.center]
        assert_allclose(decision.distances, distances, rtol=1e-7)
        assert_allclose(decision.radius, np.sort(distances)[5], rtol=1e-7)
        assert_allclose(decision.distance_ratios, distances / decision.radius, rtol=1e-7)

    def test_equal_sizes_have_the_papers_centre(self):
        some = fits([300] * 15)
        assert aggregate(some).decision.center == aggregate(some, rho=1.3).decision.center


class TestSmallCentre:
    def test_the_reduction_does_not_start_at_a_small_machine(self):
        # Machines see other parts of the rows; all are near to a small one in units of its own large error.
        rng = np.random.default_rng(3)
        truth = Mixture([1 / 3] * 3, [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], [np.eye(2)] * 3)
        shares = [rng.dirichlet([2, 2, 2]) for _ in range(9)]
        large = [
            LocalEstimate(
                Mixture(w, truth.means + rng.normal(0, 0.01, (3, 2)), truth.covariances), n
            )
            for w, n in zip(shares, range(10_000, 28_000, 2_000), strict=True)
        ]
        # One wide component that all others are nearest to, and two that are nobody's.
        wide = Mixture(
            [0.998, 0.001, 0.001],
            [[3.0, 3.0], [50.0, 50.0], [60.0, 50.0]],
            [60 * np.eye(2), *[np.eye(2)] * 2],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HeterogeneityWarning)
            warnings.simplefilter("ignore", FilterWarning)
            result = aggregate([*large, LocalEstimate(wide, 30)])
        assert result.decision.center != 9
        assert result.objective < 0.01 * len(large)


class TestFewRowsClaimed:
    @pytest.mark.parametrize("weights", ["rows", "equal"])
    @pytest.mark.parametrize("far", [50.0, 1e12])
    @pytest.mark.parametrize("rows", [1, 11])
    def test_who_claims_few_rows_does_not_decide(self, rows, far, weights):
        some = fits([2000] * 11)
        bad = Mixture([0.5, 0.5], [[far, far], [1.2 * far, 1.2 * far]], [np.eye(2)] * 2)
        result = aggregate([LocalEstimate(bad, rows), *some], machine_weights=weights)
        assert result.decision.kept.tolist() == [False] + [True] * 11
        assert result.decision.center != 0
        assert not other_notes(result)


class TestLightComponents:
    @pytest.mark.parametrize("light", [1e-3, 1e-8, 1e-20, 1e-60])
    def test_a_component_that_died_does_not_blind_the_filter(self, light):
        honest = [
            LocalEstimate(
                Mixture(
                    np.append(estimate.mixture.weights * (1 - light), light),
                    np.vstack([estimate.mixture.means, [20.0, 20.0]]),
                    np.concatenate([estimate.mixture.covariances, np.eye(2)[None]]),
                ),
                estimate.n_samples,
            )
            for estimate in fits([1000] * 12)
        ]
        decision = aggregate([*honest[:-1], moved(honest[-1], 0.5)]).decision
        assert decision.kept.tolist() == [True] * 11 + [False]

    @pytest.mark.parametrize("gap", [0.0, 0.3, 1.0])
    def test_components_on_top_of_each_other_do_not_blind_it_either(self, gap):
        rng = np.random.default_rng(0)

        def estimate(shift=0.0):
            means = np.array([0.0, gap, 5.0])[:, None] + rng.normal(0, 0.03, (3, 1)) + shift
            return LocalEstimate(Mixture([0.25, 0.25, 0.5], means, np.ones((3, 1, 1))), 1000)

        some = [estimate() for _ in range(11)] + [estimate(2.0)]
        assert aggregate(some).decision.kept.tolist() == [True] * 11 + [False]


def column(rng, n=1000):
    x = rng.normal(size=n)
    return LocalEstimate(Mixture([1.0], [[x.mean()]], [[[x.var()]]]), n)


class TestFewEstimates:
    @pytest.mark.parametrize("n_estimates", [3, 4, 6, 10])
    @pytest.mark.filterwarnings("ignore")
    def test_of_few_consistent_ones_hardly_any_is_excluded(self, n_estimates):
        rng = np.random.default_rng(n_estimates)
        fits_ = [aggregate([column(rng) for _ in range(n_estimates)]) for _ in range(50)]
        lost = [not fit.decision.kept.all() for fit in fits_]
        assert sum(lost) <= 2
        assert min(fit.decision.p_values.min() for fit in fits_) > 1e-6

    @pytest.mark.parametrize("n_estimates", [3, 4, 5, 8])
    @pytest.mark.parametrize("scale", [10.0, 1000.0])
    @pytest.mark.filterwarnings("ignore")
    def test_one_in_another_unit_is_excluded(self, n_estimates, scale):
        rng = np.random.default_rng(n_estimates)
        some = [column(rng) for _ in range(n_estimates)]
        m = some[1].mixture
        some[1] = LocalEstimate(Mixture([1.0], m.means * scale, m.covariances * scale**2), 1000)
        kept = aggregate(some).decision.kept
        assert kept.tolist() == [i != 1 for i in range(n_estimates)]


class TestMargin:
    def fits_with(self, z, n=12):
        """Estimates of one column, the last of which lies ``z`` standard errors away in its mean."""
        rng = np.random.default_rng(4)
        some = [column(rng) for _ in range(n - 1)]
        return [*some, LocalEstimate(Mixture([1.0], [[z / np.sqrt(1000)]], [[[1.0]]]), 1000)]

    def test_an_exclusion_by_a_narrow_margin_is_said(self):
        with pytest.warns(
            HeterogeneityWarning, match="1 of 12 estimates are excluded without a clear gap"
        ):
            decision = aggregate(self.fits_with(4.5)).decision
        assert not decision.kept[-1]

    def test_one_that_stands_clearly_apart_needs_no_doubt(self):
        result = aggregate(self.fits_with(30))
        assert not result.decision.kept[-1]
        assert not other_notes(result)
