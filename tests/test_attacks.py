"""Attacks on estimates: who is bad, what they send, and that all of it is valid but what is meant not to be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import LocalEstimate, Mixture, Outcome, aggregate
from dask_dfmr.attacks import ATTACKS, corrupt, describe, recruit
from dask_dfmr.attacks.on_estimates import alie_z
from dask_dfmr.attacks.on_messages import ABSURD_ROWS
from dask_dfmr.local.estimate import without_estimate
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from tests.data_makers import same_bits
from tests.poisson import PoissonMixture
from tests.strategies import jiggled, random_mixture

MESSAGES = [a.name for a in ATTACKS.values() if a.kind == "messages"]
ON_ESTIMATES = [a.name for a in ATTACKS.values() if a.kind == "estimates"]


def honest(covariance_type="full", n=12, n_rows=2000):
    truth = random_mixture(5, 3, 2, covariance_type, names=["x", "y"])
    return [LocalEstimate(jiggled(truth, [5, i]), n_rows, partition=i) for i in range(n)]


ESTIMATES = {kind: honest(kind) for kind in COVARIANCE_TYPES}
MANY = {kind: honest(kind, n=24) for kind in COVARIANCE_TYPES}


def bits(estimate):
    arrays = estimate.to_arrays()
    return {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in arrays.items()} | {
        "log_likelihood": repr(arrays["log_likelihood"])
    }


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("name", ON_ESTIMATES)
def test_what_is_sent_is_valid_and_the_honest_stay_as_they_are(name, covariance_type):
    estimates = ESTIMATES[covariance_type]
    for strength in (ATTACKS[name].grid[0], ATTACKS[name].grid[-1]):
        found = corrupt(estimates, name, 0.4, strength=strength, random_state=1)
        assert found.is_bad.sum() == 4
        assert found.strength == strength
        for before, after, bad in zip(estimates, found.estimates, found.is_bad, strict=True):
            assert (after is before) == (not bad)
            # The constructor has checked that weights sum to 1 and covariances are positive definite.
            assert isinstance(after.mixture, Mixture)
            assert after.mixture.covariance_type == covariance_type
            assert after.mixture.feature_names == ("x", "y")
            assert after.partition == before.partition


@pytest.mark.parametrize("name", ON_ESTIMATES)
def test_a_seed_decides_everything(name):
    estimates = ESTIMATES["full"]
    first, second, other = (corrupt(estimates, name, 0.4, random_state=seed) for seed in (1, 1, 2))
    assert_array_equal(first.is_bad, second.is_bad)
    assert list(map(bits, first.estimates)) == list(map(bits, second.estimates))
    assert (first.is_bad != other.is_bad).any()


@pytest.mark.parametrize("name", ON_ESTIMATES)
@pytest.mark.smoke
def test_an_attack_changes_every_bad_source(name):
    estimates = ESTIMATES["full"]
    found = corrupt(estimates, name, 0.4, random_state=1)
    for before, after, bad in zip(estimates, found.estimates, found.is_bad, strict=True):
        assert (bits(before) != bits(after)) == bad


@pytest.mark.parametrize("name", [n for n in ON_ESTIMATES if not ATTACKS[n].gaussian_only])
@pytest.mark.smoke
def test_other_families_are_attacked_too(name):
    rng = np.random.default_rng(0)
    truth = np.array([[2.0, 9.0], [12.0, 3.0], [25.0, 25.0]])
    estimates = [
        LocalEstimate(
            PoissonMixture(
                rng.dirichlet([500, 300, 200]), truth * np.exp(0.02 * rng.normal(size=(3, 2)))
            ),
            1000,
        )
        for _ in range(10)
    ]
    found = corrupt(estimates, name, 0.4, random_state=0)
    assert all(isinstance(e.mixture, PoissonMixture) for e in found.estimates)


def test_attacks_on_covariances_name_the_family_that_has_none():
    estimates = [LocalEstimate(PoissonMixture([1.0], [[2.0 + i]]), 100) for i in range(4)]
    with pytest.raises(ValueError, match=r"'covariance' needs means and covariances.*'poisson'"):
        corrupt(estimates, "covariance", 0.3)


# -- who is bad ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "n", "expected"),
    [(0, 10, 0), (0.1, 19, 1), (0.29, 100, 29), (0.4, 12, 4), (0.7, 10, 7)],
)
def test_the_number_of_bad_sources_is_rounded_down(rate, n, expected):
    mixture = Mixture([1.0], [[0.0]], [[[1.0]]])
    found = corrupt([LocalEstimate(mixture, 10)] * n, "mean", rate, random_state=0)
    assert found.is_bad.sum() == expected


def test_the_bad_ones_of_a_smaller_rate_are_among_those_of_a_larger_one():
    few, many = (corrupt(ESTIMATES["full"], "mean", rate, random_state=3) for rate in (0.2, 0.5))
    assert many.is_bad[few.is_bad].all()


def test_failed_and_unlike_estimates_take_no_part():
    failed = without_estimate(Outcome.FAILED, "the disk is gone")
    other = LocalEstimate(random_mixture(0, 2, 2), 100)
    estimates = [failed, *ESTIMATES["full"], other]
    found = corrupt(estimates, "covariance", 0.9, random_state=0)
    assert found.is_bad.sum() == 10
    assert not found.is_bad[[0, -1]].any()
    assert found.estimates[0] is failed


def test_the_honest_of_a_corruption_are_the_untouched():
    found = corrupt(ESTIMATES["full"], "mean", 0.4, random_state=0)
    assert found.honest == [
        e for e, bad in zip(ESTIMATES["full"], found.is_bad, strict=True) if not bad
    ]


# -- formulas ------------------------------------------------------------------------------------


def bad_pairs(name, covariance_type="full", strength=None, rate=0.4):
    """Mixtures of the bad sources before and after."""
    estimates = ESTIMATES[covariance_type]
    found = corrupt(estimates, name, rate, strength=strength, random_state=1)
    return [
        (before.mixture, after.mixture)
        for before, after, bad in zip(estimates, found.estimates, found.is_bad, strict=True)
        if bad
    ]


def test_mean_attack_replaces_means_by_draws_of_that_spread():
    drawn = np.array([after.means for _, after in bad_pairs("mean", rate=0.8)])
    assert 80 < drawn.std() < 120
    for before, after in bad_pairs("mean"):
        assert_array_equal(before.weights, after.weights)
        assert_array_equal(before.covariances, after.covariances)


def test_covariance_attack_adds_a_wishart_of_expected_trace_one():
    added = np.array(
        [
            after.covariances - before.covariances
            for before, after in bad_pairs("covariance", rate=0.8)
        ]
    )
    assert (np.linalg.eigvalsh(added) > -1e-12).all()
    # trace(B B^T) / d^2 has the mean 1 and the variance 2 / d^2.
    assert abs(np.trace(added, axis1=-2, axis2=-1).mean() - 1) < 4 * np.sqrt(
        0.5 / added[..., 0, 0].size
    )


@pytest.mark.parametrize("name", ["mean_component", "covariance_component", "spike"])
def test_component_attacks_change_one_component(name):
    for before, after in bad_pairs(name):
        changed = (before.means != after.means).any(axis=1) | (
            before.covariances != after.covariances
        ).any(axis=(1, 2))
        assert changed.sum() == 1


def test_weight_attack_draws_nearly_equal_weights():
    for before, after in bad_pairs("weight"):
        assert_array_equal(before.means, after.means)
        # Parameters from 10 to 20 of three components: weights far from 0 and 1.
        assert ((after.weights > 0.1) & (after.weights < 0.65)).all()
    half, full = (bad_pairs("weight", strength=s) for s in (0.5, 1.0))
    for (before, middle), (_, after) in zip(half, full, strict=True):
        assert_allclose(middle.weights, (before.weights + after.weights) / 2)


def test_weight_attack_on_a_component_keeps_the_proportions_of_the_others():
    for before, after in bad_pairs("weight_component"):
        ratios = after.weights / before.weights
        odd = np.abs(ratios - np.median(ratios)).argmax()
        others = np.delete(ratios, odd)
        assert_allclose(others, others[0])


def test_sign_flip():
    for before, after in bad_pairs("sign_flip", strength=2.0):
        assert_array_equal(after.means, -2.0 * before.means)


@pytest.mark.parametrize(("name", "variance"), [("spike", 1e-4), ("needle", 1e-13)])
def test_spikes_have_the_variance_that_is_said(name, variance):
    for before, after in bad_pairs(name):
        (k,) = np.flatnonzero((before.covariances != after.covariances).any(axis=(1, 2)))
        assert_array_equal(after.covariances[k], variance * np.eye(2))


def test_needles_are_possible_in_fifty_columns():
    truth = random_mixture(0, 2, 50)
    estimates = [LocalEstimate(jiggled(truth, i), 5000) for i in range(5)]
    found = corrupt(estimates, "needle", 0.2, random_state=0)
    (bad,) = np.flatnonzero(found.is_bad)
    assert (np.diagonal(found.estimates[bad].mixture.covariances, axis1=1, axis2=2) == 1e-13).any()


@pytest.mark.usefixtures("coarse_laws")
def test_needles_in_fifty_columns_do_not_hide_the_others_from_each_other():
    truth = random_mixture(0, 2, 50)
    estimates = [LocalEstimate(jiggled(truth, i), 5000) for i in range(7)]
    found = corrupt(estimates, "needle", 0.3, random_state=0)
    decision = aggregate(found.estimates, rho=1.3).decision
    assert not decision.kept[found.is_bad].any()
    alone = aggregate(found.honest, rho=1.3).decision
    # The unit of distances is that of the median estimate.
    ratios = decision.distance_ratios[~found.is_bad]
    assert (ratios > 0).sum() == len(ratios) - 1
    assert np.isfinite(ratios).all()
    assert (
        alone.kept.sum() <= decision.kept.sum()
    )  # a wider ball holds more than half of more estimates


@pytest.mark.parametrize("name", ["alie", "ipm", "min_max", "min_max_component", "mimic"])
def test_colluders_send_the_same(name):
    sent = [after for _, after in bad_pairs(name)]
    assert all(m == sent[0] for m in sent)


@pytest.mark.parametrize("name", ["min_max_noise_50", "clique", "tight_groups", "shadow"])
def test_others_do_not(name):
    sent = [after for _, after in bad_pairs(name)]
    assert not any(sent[i] == sent[j] for i in range(4) for j in range(i))


def coordinates(adversary, mixture):
    return adversary.coordinates_of(LocalEstimate(mixture, 1))


def test_alie_is_so_many_sd_below_the_honest_mean():
    adversary = recruit(ESTIMATES["full"], 0.4, random_state=1)
    sent = adversary.corrupt("alie", 0.7).estimates[adversary.bad[0]].mixture
    expected = adversary.deviations.mean(axis=0) - 0.7 * adversary.deviations.std(axis=0, ddof=1)
    difference = coordinates(adversary, sent) - expected
    # Weights are the first three: all of them cannot be below their means.
    assert_allclose(difference[3:], 0, atol=1e-12)


def test_ipm_goes_against_the_honest_update():
    adversary = recruit(ESTIMATES["full"], 0.4, random_state=1)
    start = adversary.coordinates_of(adversary.own[0])
    sent = adversary.corrupt("ipm", 0.5).estimates[adversary.bad[0]].mixture
    update = coordinates(adversary, sent) - start
    assert_allclose(update, -0.5 * (adversary.mean - start), atol=1e-3)


def test_the_z_of_a_little_is_enough():
    # 50 workers, 24 bad: 2 supporters are needed, of 26 honest ones.
    assert_allclose(alie_z(50, 24), 1.426, atol=1e-3)


@pytest.mark.parametrize("name", ["min_max", "min_max_component", "min_max_noise_50"])
@pytest.mark.parametrize("strength", [1.0, 1.3])
def test_min_max_is_at_the_radius(name, strength):
    adversary = recruit(ESTIMATES["full"], 0.4, random_state=1)
    found = adversary.corrupt(name, strength)
    sent = [found.estimates[i].mixture for i in adversary.bad]
    reached = np.median(adversary.distances_to_coat(sent)) / adversary.radius
    assert reached <= strength * (1 + 1e-9)
    assert reached > 0.99 * strength


def test_mimic_copies_the_farthest_inside_the_radius():
    adversary = recruit(ESTIMATES["full"], 0.4, random_state=1)
    found = adversary.corrupt("mimic", 1.0)
    distances = adversary.distances[adversary.coat]
    farthest = np.sort(distances)[len(distances) // 2]  # the radius itself is the distance of one
    victim = adversary.honest[int(np.flatnonzero(distances == farthest)[0])].mixture
    assert all(found.estimates[i].mixture == victim for i in adversary.bad)


def test_blind_spot_moves_the_widest_component_by_its_own_sd():
    for before, after in bad_pairs("blind_spot", strength=2.0):
        after = after.align_to(before)
        widest = np.linalg.det(before.covariances).argmax()
        moved = np.flatnonzero(np.abs(after.means - before.means).max(axis=1) > 0.1)
        assert_array_equal(moved, [widest])
        shift = after.means[widest] - before.means[widest]
        length = np.sqrt(shift @ np.linalg.solve(before.covariances[widest], shift))
        assert 1.7 < length < 2.3  # the sd are the consensus'


def test_shadow_moves_along_the_direction_in_which_rows_say_least():
    adversary = recruit(ESTIMATES["full"], 0.4, random_state=1)
    errors, axes = adversary.axes
    assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-9)
    assert (np.diff(errors) <= 0).all()
    root = adversary.about.root
    assert_allclose(axes[0] @ root @ root.T @ axes[0], 1 / errors[0] ** 2)
    found = adversary.corrupt("shadow", 1.0)
    for i, own in zip(adversary.bad, adversary.own, strict=True):
        moved = adversary.coordinates_of(found.estimates[i]) - adversary.coordinates_of(own)
        length = np.linalg.norm(moved)
        assert abs(moved @ axes[0]) > 0.99 * length
        assert_allclose(length, adversary.inflation * errors[0] / np.sqrt(2000), rtol=0.02)


def test_tight_groups_are_groups():
    estimates = honest(n=40)
    found = corrupt(estimates, "tight_groups", 0.4, random_state=1)
    adversary = recruit(estimates, 0.4, random_state=1)
    sent = np.array([adversary.coordinates_of(found.estimates[i]) for i in adversary.bad])
    groups = np.arange(len(sent)) % 4
    within = [
        np.linalg.norm(sent[groups == g] - sent[groups == g][0], axis=1).max() for g in range(4)
    ]
    between = np.linalg.norm(sent[0] - sent[1:4], axis=1).min()
    assert max(within) < between / 2


def test_duplicates_are_copies_of_honest_estimates():
    found = corrupt(ESTIMATES["full"], "duplicate", 0.4, random_state=1)
    originals = [e.mixture for e in found.honest]
    for i in np.flatnonzero(found.is_bad):
        assert found.estimates[i].mixture in originals


def test_inflated_rows_change_nothing_but_the_count():
    found = corrupt(ESTIMATES["full"], "inflated_rows", 0.4, strength=1e3, random_state=1)
    for i in np.flatnonzero(found.is_bad):
        assert found.estimates[i].n_samples == 2_000_000
        assert found.estimates[i].mixture is ESTIMATES["full"][i].mixture
    enormous = corrupt(ESTIMATES["full"], "inflated_rows", 0.4, strength=1e300, random_state=1)
    assert max(e.n_samples for e in enormous.estimates) == 2**61


# -- malformed messages --------------------------------------------------------------------------


def malformed(name, covariance_type):
    try:
        return corrupt(MANY[covariance_type], name, 0.45, random_state=1)
    except ValueError as error:
        assert "needs covariance matrices" in str(error)  # noqa: PT017
        return None


@pytest.mark.usefixtures("coarse_laws")
@pytest.mark.filterwarnings("ignore::dask_dfmr.FilterWarning")
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.smoke
def test_malformed_messages_are_refused_by_name_and_change_no_bit(name, covariance_type):
    found = malformed(name, covariance_type)
    if found is None:
        assert name == "asymmetric"
        assert covariance_type in ("diag", "spherical")
        return
    result = aggregate(found.estimates, random_state=0)
    assert_array_equal(sorted(result.decision.refused), np.flatnonzero(found.is_bad))
    assert all(len(str(reason)) > 20 for reason in result.decision.refused.values())
    assert not result.decision.kept[found.is_bad].any()
    alone = aggregate(found.honest, random_state=0)
    assert same_bits(result.mixture, alone.mixture)
    for values in ("distances", "kept", "p_values"):
        assert_array_equal(
            getattr(result.decision, values)[~found.is_bad], getattr(alone.decision, values)
        )


def test_malformed_messages_are_malformed_in_as_many_ways_as_there_are():
    found = corrupt(MANY["full"], "absurd_rows", 0.45, random_state=1)
    claims = [found.estimates[i]["n_samples"] for i in np.flatnonzero(found.is_bad)]
    assert list(map(repr, claims[: len(ABSURD_ROWS)])) == list(map(repr, ABSURD_ROWS))


def test_the_estimates_that_messages_are_made_of_stay_as_they_are():
    before = [bits(e) for e in ESTIMATES["full"]]
    for name in MESSAGES:
        corrupt(ESTIMATES["full"], name, 0.8, random_state=1)
    assert [bits(e) for e in ESTIMATES["full"]] == before


def test_claims_of_text_and_objects_are_no_row_counts():
    mixture = ESTIMATES["full"][0].mixture
    for claim in ABSURD_ROWS:
        with pytest.raises((ValueError, OverflowError)):
            LocalEstimate(mixture, claim)


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.2", np.nan])
def test_rates_are_shares(rate):
    with pytest.raises(ValueError, match="rate must be"):
        corrupt(ESTIMATES["full"], "mean", rate)


@pytest.mark.parametrize("strength", [-1, np.inf, "much"])
def test_strengths_are_numbers(strength):
    with pytest.raises(ValueError, match="strength must be a non-negative number"):
        corrupt(ESTIMATES["full"], "mean", 0.2, strength=strength)


def test_unknown_attacks_are_named():
    with pytest.raises(ValueError, match="attack must be one of 'mean'"):
        corrupt(ESTIMATES["full"], "meen", 0.2)


def test_two_honest_sources_must_be_left():
    with pytest.raises(ValueError, match=r"at least 2 honest sources at rate 0\.95"):
        corrupt(ESTIMATES["full"], "mean", 0.95)


def test_mixtures_alone_are_no_estimates():
    with pytest.raises(TypeError, match="LocalEstimate objects; got Mixture"):
        corrupt([e.mixture for e in ESTIMATES["full"]], "mean", 0.2)


def test_every_attack_says_what_it_is():
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert len(attack.description) > 20
        assert attack.source
        assert attack.unit
        assert attack.knows
        assert attack.adaptive == (len(attack.grid) > 1)
        assert name in repr(attack)


def test_attacks_on_rows_are_not_on_estimates():
    with pytest.raises(ValueError, match="'wrong_unit' is one on rows"):
        corrupt(ESTIMATES["full"], "wrong_unit", 0.2)


def test_the_list_of_attacks_has_them_all():
    table = describe()
    assert list(table.index) == list(ATTACKS)
    assert table.loc["alie", "grid"] == ATTACKS["alie"].grid
    assert table.loc["nan", "kind"] == "messages"
    assert table["description"].str.endswith((".", ":")).all()
    assert (table["adaptive"] == (table["grid"].str.len() > 1)).all()
