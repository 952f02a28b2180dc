"""Local estimates -> one mixture: what may not matter, what is refused, what is warned of."""

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import (
    AggregationError,
    FilterWarning,
    LocalEstimate,
    Mixture,
    Outcome,
    PartitionWarning,
    aggregate,
    mixing_distance,
    pairwise_l2,
)
from dask_dfmr.aggregation.options import AggregationOptions
from dask_dfmr.aggregation.result import FilterDecision
from dask_dfmr.local.estimate import without_estimate
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from tests.strategies import (
    covariance_types,
    estimates,
    jiggled,
    random_mixture,
    seeds,
    shuffled,
    some_estimates,
)

pytestmark = [
    pytest.mark.usefixtures("coarse_laws"),
    # Inconsistent sources that agree form a group: tests/test_consensus.py has the warning.
    pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning"),
]

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def honest(n=8, seed=1, n_samples=1000, **shape):
    truth = random_mixture(seed, **shape)
    return [LocalEstimate(jiggled(truth, [seed, i]), n_samples) for i in range(n)]


def assert_same_mixture(a, b, tolerance=1e-12):
    for name in ("weights", "means", "covariances"):
        scale = np.abs(getattr(b, name)).max()
        assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance * scale)


@pytest.mark.usefixtures("each_engine")
class TestInvariance:
    @given(st.data(), covariance_types, seeds)
    def test_the_order_of_estimates_changes_nothing(self, data, covariance_type, seed):
        given_order = some_estimates(seed, covariance_type=covariance_type)
        order = data.draw(st.permutations(range(len(given_order))))
        here, there = aggregate(given_order), aggregate([given_order[i] for i in order])
        assert_same_mixture(there.mixture, here.mixture)
        assert order[there.decision.center] == here.decision.center
        assert_array_equal(there.decision.kept, here.decision.kept[order])

    @given(covariance_types, seeds)
    def test_the_order_of_components_changes_nothing(self, covariance_type, seed):
        one = some_estimates(seed, covariance_type=covariance_type)
        other = [
            LocalEstimate(shuffled(e.mixture, seed + i), e.n_samples) for i, e in enumerate(one)
        ]
        here, there = aggregate(one), aggregate(other)
        assert there.mixture == here.mixture
        assert_array_equal(there.decision.kept, here.decision.kept)

    @every_type
    def test_a_mapping_is_as_good_as_an_estimate(self, covariance_type):
        as_values = some_estimates(4, covariance_type=covariance_type)
        as_mappings = [e.mixture.to_arrays() | {"n_samples": e.n_samples} for e in as_values]
        as_lists = [
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in m.items()}
            for m in as_mappings
        ]
        expected = aggregate(as_values).mixture
        assert aggregate(as_mappings).mixture == aggregate(as_lists).mixture == expected

    @given(estimates())
    def test_the_verdict_is_that_of_the_distance_matrix(self, some):
        decision = aggregate(some, rho=1.3).decision
        distances = pairwise_l2([e.mixture for e in some])
        medians = np.median(distances, axis=1)
        assert_allclose(medians[decision.center], medians.min(), rtol=1e-9)
        assert_allclose(decision.distances, distances[decision.center], rtol=1e-7, atol=1e-9)
        assert_allclose(decision.radius, np.sort(distances[decision.center])[4], rtol=1e-7)
        assert_array_equal(decision.kept, decision.distance_ratios <= 1.3)

    @every_type
    def test_estimates_all_alike_are_their_own_aggregate(self, covariance_type):
        m = random_mixture(3, covariance_type=covariance_type)
        result = aggregate([LocalEstimate(m, 100)] * 6)
        assert mixing_distance(result.mixture, m) < 1e-9
        assert result.decision.kept.all()
        assert result.decision.radius == 0.0
        assert result.converged


class TestMethod:
    @every_type
    def test_bad_machines_are_left_out(self, covariance_type):
        result = aggregate(some_estimates(2, 12, 4, covariance_type), rho=5.0)
        assert_array_equal(result.decision.kept, [True] * 8 + [False] * 4)
        truth = random_mixture(2, covariance_type=covariance_type)
        assert mixing_distance(result.mixture, truth) < 0.2

    @every_type
    def test_only_the_kept_ones_have_a_say(self, covariance_type):
        some = some_estimates(2, 12, 4, covariance_type)
        result = aggregate(some)
        kept = [e for e, k in zip(some, result.decision.kept, strict=True) if k]
        alone = aggregate(kept, rho=np.inf)
        assert_same_mixture(alone.mixture, result.mixture, 1e-9)

    def test_mr_keeps_all(self):
        some = some_estimates(2, 12, 4)
        result = aggregate(some, method="mr")
        assert result.decision.kept.all()
        assert result.decision.rho == np.inf
        assert result.method == "mr"
        assert aggregate(some, rho=np.inf).mixture == result.mixture

    def test_coat_is_the_centre_itself(self):
        some = some_estimates(2)
        result = aggregate(some, method="coat")
        center = some[result.decision.center].mixture
        assert result.mixture.align_to(center) == center
        assert result.decision.kept.sum() == 1
        assert (result.objective, result.converged) == (0.0, True)
        assert result.decision.center == aggregate(some).decision.center

    def test_rows_weigh(self):
        m, heavy = random_mixture(1), jiggled(random_mixture(1), 2, 0.1)
        some = [LocalEstimate(m, 100)] * 9 + [LocalEstimate(heavy, 150)]
        by_rows, equal = (
            aggregate(some, rho=np.inf, machine_weights=w).mixture for w in ("rows", "equal")
        )
        for result, share in ((by_rows, 150 / 1050), (equal, 0.1)):
            weights = (1 - share) * m.weights + share * heavy.weights
            means = (1 - share) * m.weights[:, None] * m.means
            means = (means + share * heavy.weights[:, None] * heavy.means) / weights[:, None]
            result = result.align_to(m)
            assert_allclose(result.weights, weights, rtol=1e-10)
            assert_allclose(result.means, means, rtol=1e-9, atol=1e-9)

    @given(covariance_types, seeds)
    def test_more_starts_are_never_worse(self, covariance_type, seed):
        some = some_estimates(seed, covariance_type=covariance_type)
        one, many = (aggregate(some, rho=np.inf, n_starts=n).objective for n in (1, 5))
        assert many <= one * (1 + 1e-12)

    def test_more_starts_than_kept_estimates_are_no_trouble(self):
        some = some_estimates(3)
        assert aggregate(some, n_starts=50).objective <= aggregate(some).objective

    def test_components_come_by_decreasing_weight(self):
        assert (np.diff(aggregate(some_estimates(5)).mixture.weights) <= 0).all()

    def test_names_of_the_columns_are_kept(self):
        assert aggregate(honest(names=["a", "b"])).mixture.feature_names == ("a", "b")

    @given(seeds, st.integers(0, 4))
    def test_a_minority_does_not_choose_the_centre(self, seed, n_bad):
        truth = random_mixture(seed)
        good = [jiggled(truth, [seed, i], 0.01) for i in range(5)]
        clique = random_mixture([seed, 7])
        bad = [jiggled(clique, [seed, 8, i], 1e-4) for i in range(n_bad)]
        result = aggregate([LocalEstimate(m, 1000) for m in [*bad, *good]])
        assert result.decision.center >= n_bad
        assert not result.decision.kept[:n_bad].any()


@pytest.mark.smoke
class TestFewMachines:
    def test_none_are_refused(self):
        with pytest.raises(
            ValueError, match="estimates must hold at least one LocalEstimate; got none"
        ):
            aggregate([])

    def test_one_is_its_own_aggregate(self):
        (e,) = honest(1)
        result = aggregate([e])
        assert_same_mixture(result.mixture.align_to(e.mixture), e.mixture)
        assert result.decision.kept.tolist() == [True]

    def test_two_filter_nothing_and_say_so(self):
        with pytest.warns(FilterWarning, match="2 usable estimates: .*nothing is filtered"):
            result = aggregate(some_estimates(1, 2, 1))
        assert result.decision.kept.all()
        assert len(result.notes) == 1

    def test_three_survive_one_and_say_so(self):
        with pytest.warns(
            FilterWarning, match="3 usable estimates: three estimates survive one inconsistent one"
        ):
            result = aggregate(some_estimates(1, 3, 1))
        assert_array_equal(result.decision.kept, [True, True, False])

    def test_without_filter_few_machines_are_no_news(self):
        assert aggregate(honest(2), method="mr").notes == ()


GOOD = honest(5, names=["a", "b"])
BASE = GOOD[0].to_arrays()
BASE_ARRAYS = GOOD[0].mixture.to_arrays()

MALFORMED = {
    "NaN": ({"means": np.full((3, 2), np.nan)}, "means must be finite"),
    "infinite": ({"covariances": BASE["covariances"] * np.inf}, "covariances must be finite"),
    "wrong K": (random_mixture(1, 2).to_arrays(), "n_components is 2, the majority's is 3"),
    "wrong d": (random_mixture(1, 3, 5).to_arrays(), "n_features is 5, the majority's is 2"),
    "wrong type": (
        random_mixture(1, covariance_type="diag").to_arrays(),
        "family is .*diag.*, the majority's is .*full",
    ),
    "other columns": ({"feature_names": ["b", "a"]}, r"columns are \['b', 'a'\], the majority's"),
    "one weight short": ({"weights": [0.5, 0.5]}, "means must have the shape"),
    "negative weights": ({"weights": [-0.5, 1.0, 0.5]}, "weights must not be negative; got -0.5"),
    "not normalised": ({"weights": [1.0, 1.0, 1.0]}, "weights must sum to 1; their sum is 3"),
    "asymmetric": (
        {"covariances": [[[1, 0.5], [0, 1]]] * 3},
        r"covariances\[0\] must be symmetric",
    ),
    "indefinite": (
        {"covariances": [[[1, 2], [2, 1]]] * 3},
        r"covariances\[0\] must be positive def",
    ),
    "negative rows": ({"n_samples": -10}, "n_samples must be a number of rows; got -10"),
    "NaN rows": ({"n_samples": float("nan")}, "n_samples must be a number of rows; got nan"),
    "no rows": ({"n_samples": 0}, "n_samples must be at least 1"),
    "rows in words": ({"n_samples": "many"}, "n_samples must be a number of rows; got 'many'"),
    "rows beyond belief": ({"n_samples": 10**400}, "n_samples"),
    "text": ({"weights": "hello"}, "weights must be an array of numbers"),
    "object": ({"means": object()}, "means must be an array of numbers"),
    "huge integer": ({"weights": [10**400, 0, 0]}, "weights"),
    "unknown field": ({"colour": "red"}, r"\['colour'\] unknown"),
    "unknown outcome": ({"outcome": "splendid"}, "'splendid'"),
    "unknown type": ({"covariance_type": "banana"}, "covariance_type must be one of"),
    "enormous covariances": ({"covariances": [np.eye(2) * 1.5e308] * 3}, "covariances"),
    "tiny covariances": ({"covariances": [np.eye(2) * 5e-324] * 3}, "covariances"),
    "enormous means": ({"means": [[1e308, -1e308], [-1e308, 1e308], [0, 0]]}, "means"),
    "nearly singular": (
        {"covariances": [[[1e16, 1e16], [1e16, 1e16 + 2]]] * 3},
        r"covariances\[0\] must",
    ),
}


@pytest.mark.usefixtures("each_engine")
class TestRefused:
    @pytest.mark.parametrize("change", MALFORMED)
    def test_a_malformed_estimate_changes_no_bit_and_is_named(self, change):
        bad, reason = MALFORMED[change]
        message = BASE | {"feature_names": ("a", "b")} | bad
        here, there = aggregate(GOOD), aggregate([*GOOD[:2], message, *GOOD[2:]])
        assert there.mixture == here.mixture
        assert there.objective == here.objective
        assert there.decision.radius == here.decision.radius
        assert list(there.decision.refused) == [2]
        assert re.search(reason, str(there.decision.refused[2]))
        assert np.isnan(there.decision.distances[2])
        assert not there.decision.kept[2]
        assert there.decision.reason(2) == str(there.decision.refused[2])

    @pytest.mark.parametrize("field", ["n_samples", "weights", "means", "covariances"])
    def test_a_missing_field_is_named(self, field):
        message = {k: v for k, v in BASE.items() if k != field}
        result = aggregate([*GOOD, message])
        assert field in str(result.decision.refused[5])
        assert result.mixture == aggregate(GOOD).mixture

    def test_an_empty_message_is_refused(self):
        assert 5 in aggregate([*GOOD, {}]).decision.refused

    def test_a_machine_without_estimate_is_refused_with_its_own_words(self):
        failed = without_estimate(Outcome.TOO_FEW_ROWS, "3 rows, fewer than 17", 3)
        result = aggregate([failed, *GOOD])
        assert result.decision.refused.keys() == {0}
        assert result.decision.reason(0) == "too few rows: 3 rows, fewer than 17"
        assert result.mixture == aggregate(GOOD).mixture

    def test_an_estimate_that_did_not_converge_takes_part(self):
        some = [LocalEstimate(e.mixture, 1000, Outcome.NOT_CONVERGED, "slow") for e in GOOD]
        assert aggregate(some).mixture == aggregate(GOOD).mixture

    def test_a_spike_in_fifty_columns_is_far_and_changes_no_bit(self):
        truth = random_mixture(1, 2, 50)
        some = [LocalEstimate(jiggled(truth, i), 10_000) for i in range(7)]
        spike = LocalEstimate(
            Mixture([0.5, 0.5], np.zeros((2, 50)), [np.eye(50) * 1e-13] * 2), 10_000
        )
        # The spike has a vote, so another one far out keeps the majority where it was.
        far = LocalEstimate(Mixture([0.5, 0.5], np.full((2, 50), 99.0), [np.eye(50)] * 2), 10_000)
        here, there = aggregate([*some, far]), aggregate([*some, spike])
        assert there.mixture == here.mixture
        assert not there.decision.kept[7]
        assert np.isinf(there.decision.distance_ratios[7])
        assert np.isfinite(there.decision.distances[:7]).all()
        assert (np.delete(there.decision.distances[:7], there.decision.center) > 0).all()

    @pytest.mark.parametrize(
        ("covariances", "means"),
        [(1e99, 0.0), (1e-99, 0.0), (1.0, 1e99), (1.0, -1e99), (1e40, 1e60), (1e-40, 1e60)],
    )
    def test_one_extreme_estimate_is_survived(self, covariances, means):
        extreme = Mixture(np.full(3, 1 / 3), np.full((3, 2), means), [np.eye(2) * covariances] * 3)
        some = [*GOOD, LocalEstimate(extreme, 1000)]
        for method in ("dfmr", "coat"):
            result = aggregate(some, method=method)
            assert not result.decision.kept[5]
            assert mixing_distance(result.mixture, GOOD[0].mixture) < 1.0
        with suppress(
            AggregationError
        ):  # without the filter it may spoil the result, not the program
            assert np.isfinite(aggregate(some, method="mr").mixture.covariances).all()

    def test_all_unusable_is_an_error_with_the_reasons(self):
        bad = [
            {"n_samples": 5},
            without_estimate(Outcome.LOST, "worker gone"),
            BASE | {"weights": [1]},
        ]
        with pytest.raises(
            AggregationError, match="none of the 3 local estimates is usable"
        ) as info:
            aggregate(bad)
        assert set(info.value.reasons) == {0, 1, 2}
        assert "lost: worker gone" in str(info.value)
        assert info.value.reasons[1] == "lost: worker gone"

    def test_fewer_than_half_usable_is_worth_a_warning(self):
        bad = [without_estimate(Outcome.LOST, "worker gone")] * 6
        with pytest.warns(PartitionWarning, match="only 5 of 11 local estimates are usable"):
            aggregate([*GOOD, *bad])

    def test_the_majority_says_what_an_estimate_looks_like(self):
        diagonal = [LocalEstimate(random_mixture(i, covariance_type="diag"), 10) for i in range(4)]
        result = aggregate([*diagonal, *GOOD])
        assert sorted(result.decision.refused) == [0, 1, 2, 3]

    @pytest.mark.filterwarnings("ignore:estimates 0, 5 are copies:dask_dfmr.FilterWarning")
    def test_estimates_with_and_without_names_go_together(self):
        bare = LocalEstimate(Mixture(**BASE_ARRAYS | {"feature_names": None}), 1000)
        result = aggregate([*GOOD, bare])
        assert result.decision.refused == {}
        assert result.mixture.feature_names == ("a", "b")


class TestArguments:
    def test_a_bare_mixture_is_told_about_row_counts(self):
        with pytest.raises(TypeError, match=r"got Mixture.*LocalEstimate\(mixture, n_samples\)"):
            aggregate([random_mixture(1)])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "median"}, "method must be one of 'dfmr', 'mr', 'coat', "),
            ({"rho": 0.9}, "rho must be 'auto' or a number of at least 1 .*got 0.9"),
            ({"rho": np.nan}, "rho must be 'auto' or a number of at least 1 .*got nan"),
            ({"rho": "wide"}, "rho must be 'auto' or a number of at least 1 .*got 'wide'"),
            (
                {"false_exclusion_rate": 0},
                "false_exclusion_rate must be a probability below 0.5, .*; got 0",
            ),
            ({"false_exclusion_rate": 0.5}, "false_exclusion_rate must be a probability below 0.5"),
            ({"false_exclusion_rate": "low"}, "false_exclusion_rate must be a non-negative number"),
            ({"machine_weights": "votes"}, "machine_weights must be one of 'rows', 'equal'; got"),
            ({"n_starts": 0}, "n_starts must be an integer of at least 1; got 0"),
            ({"n_starts": 1.5}, "n_starts must be an integer of at least 1; got 1.5"),
            ({"max_rounds": 0}, "max_rounds must be an integer of at least 1; got 0"),
        ],
    )
    def test_an_error_names_argument_expectation_and_finding(self, options, message):
        with pytest.raises(ValueError, match=message):
            aggregate(GOOD, **options)


@pytest.mark.smoke
class TestWarnings:
    def test_one_machine_with_most_rows_is_worth_a_warning(self):
        some = [*GOOD[:4], LocalEstimate(GOOD[4].mixture, 9_000)]
        with pytest.warns(FilterWarning, match="estimate 4 holds 69% of the kept rows"):
            aggregate(some, rho=np.inf)

    def test_with_equal_weights_it_is_not(self):
        some = [*GOOD[:4], LocalEstimate(GOOD[4].mixture, 100_000)]
        assert aggregate(some, rho=np.inf, machine_weights="equal").notes == ()

    def test_too_few_rounds_are_worth_a_warning(self):
        some = some_estimates(11, n_sources=9, n_bad=4)
        with pytest.warns(ConvergenceWarning, match="did not settle in 1 rounds; raise max_rounds"):
            result = aggregate(some, method="mr", max_rounds=1)
        assert not result.converged


@pytest.mark.smoke
class TestValues:
    def test_results_are_frozen(self):
        result = aggregate(GOOD)
        with pytest.raises(AttributeError):
            result.mixture = None
        with pytest.raises(AttributeError):
            result.decision.center = 3
        for array in (
            result.decision.kept,
            result.decision.distances,
            result.decision.distance_ratios,
        ):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    def test_reprs_say_what_happened(self):
        result = aggregate([*GOOD, {}])
        kept = result.decision.kept.sum()
        assert f"FilterDecision(kept {kept} of 6, refused 1, center=" in repr(result.decision)
        assert repr(result).startswith(f"Aggregate({result.mixture!r}, FilterDecision(kept")
        assert "method='dfmr'" in repr(result)

    def test_every_verdict_has_a_reason_in_words(self):
        some = some_estimates(2, 12, 4)
        decision = aggregate(some, rho=1.3).decision
        assert decision.reason(decision.center) == ""
        far = int(np.argmax(decision.distance_ratios))
        assert decision.reason(far).startswith("distance to the center is ")
        assert decision.reason(far).endswith("times the radius (rho = 1.3)")
        coat = aggregate(some, method="coat").decision
        near = next(i for i in range(12) if coat.distance_ratios[i] == 1.0)
        assert coat.reason(near) == "only the center itself is kept (method 'coat')"

    def test_a_decision_checks_itself(self):
        one = np.zeros(1)
        with pytest.raises(ValueError, match="one entry per estimate"):
            FilterDecision(0, 1.0, 1.3, one, np.zeros(2), np.ones(1, dtype=bool))
        with pytest.raises(ValueError, match="center must be the index of a kept estimate"):
            FilterDecision(0, 1.0, 1.3, one, one.copy(), np.zeros(1, dtype=bool))

    def test_options_check_themselves(self):
        assert AggregationOptions("mr").effective_rho == np.inf
        assert AggregationOptions().effective_rho == 1.3
        assert AggregationOptions().is_calibrated
        assert not AggregationOptions(rho=2.0).is_calibrated
        assert not AggregationOptions("coat").is_calibrated
