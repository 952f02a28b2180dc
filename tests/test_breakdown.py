"""Where no majority exists, or hardly one, the fit says so by name: never a confident wrong answer."""

import warnings
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dask_dfmr import (
    Aggregate,
    FilterWarning,
    GaussianMixture,
    HeterogeneityWarning,
    LocalEstimate,
    NoMajorityWarning,
    aggregate,
    mixing_distance,
)
from dask_dfmr.aggregation.groups import groups_of, has_clear_majority, rival_groups
from dask_dfmr.attacks import corrupt
from dask_dfmr.mixtures.information import information
from tests.data_makers import make_rows
from tests.strategies import random_mixture

M, N_ROWS = 40, 4000
RATES = [0.45, 0.475, 0.5, 0.525, 0.6]
TRUTH = random_mixture(3, n_components=3, n_features=4, spread=4.0)
ABOUT = information(TRUTH.family, TRUTH.weights, TRUTH.components, np.random.default_rng(0))


@cache
def honest(seed, m=M):
    """What machines of many rows estimate."""
    errors = ABOUT.errors(np.random.default_rng(seed).standard_normal((m, len(ABOUT.normal))))
    weights, components = TRUTH.family.displaced(
        errors / np.sqrt(N_ROWS), (TRUTH.weights, TRUTH.components)
    )
    mixtures = [
        TRUTH.family.mixture(w / w.sum(), tuple(p[i] for p in components))
        for i, w in enumerate(weights)
    ]
    return [LocalEstimate(mixture, N_ROWS) for mixture in mixtures]


@cache
def spoilt(attack, rate, method="dfmr", seed=1):
    """Estimates, who is bad, and the ratio of the result's error to that of exactly the honest ones."""
    corruption = corrupt(honest(seed), attack, rate, random_state=seed)
    good = [e for e, bad in zip(corruption.estimates, corruption.is_bad, strict=True) if not bad]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = aggregate(corruption.estimates, method=method)
    oracle = aggregate(good, method="mr").mixture
    ratio = mixing_distance(result.mixture, TRUTH) / mixing_distance(oracle, TRUTH)
    return result, corruption.is_bad, ratio, {w.category for w in caught}


CONSPICUOUS = ["mean", "covariance", "sign_flip", "spike"]
INSIDE_THE_RADIUS = ["clique", "alie", "min_max"]  # what distances alone cannot see, see docs


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    ("attack", "method"),
    [
        *((attack, "dfmr") for attack in CONSPICUOUS),
        *((attack, "hardened") for attack in CONSPICUOUS + INSIDE_THE_RADIUS),
    ],
)
def test_no_confident_wrong_answer(attack, method, rate):
    _, _, ratio, warned = spoilt(attack, rate, method)
    assert ratio < 1.5 or NoMajorityWarning in warned


@pytest.mark.parametrize("rate", [0.5, 0.525, 0.6])
@pytest.mark.parametrize("attack", ["mean", "sign_flip", "spike"])
def test_half_or_more_bad_is_always_said(attack, rate):
    _, _, _, warned = spoilt(attack, rate)
    assert NoMajorityWarning in warned


@pytest.mark.parametrize("rate", [0.45, 0.475])
@pytest.mark.smoke
def test_a_bare_majority_is_found_and_said(rate):
    result, bad, ratio, warned = spoilt("sign_flip", rate)
    assert_allclose(ratio, 1.0)
    assert not result.decision.kept[bad].any()
    assert NoMajorityWarning in warned


@pytest.mark.parametrize("rate", RATES)
def test_the_groups_are_who_stands_against_whom(rate):
    result, bad, _, _ = spoilt("sign_flip", rate)
    found = {frozenset(group) for group in result.decision.groups}
    assert found == {frozenset(np.flatnonzero(bad)), frozenset(np.flatnonzero(~bad))}


def test_a_clear_majority_is_no_breakdown():
    _, _, ratio, warned = spoilt("sign_flip", 0.3)
    assert_allclose(ratio, 1.0)
    assert HeterogeneityWarning in warned  # bad machines that agree are a group
    assert NoMajorityWarning not in warned


@pytest.mark.parametrize("seed", range(5))
def test_honest_machines_alone_say_nothing(seed):
    assert aggregate(honest(seed)).decision.groups == ()


class TestCopies:
    def test_a_few_are_named(self):
        corruption = corrupt(honest(1), "mimic", 0.2, random_state=1)
        with pytest.warns(FilterWarning, match="are copies of one another") as caught:
            aggregate(corruption.estimates)
        text = str(caught[0].message)
        assert all(f" {i}" in text for i in np.flatnonzero(corruption.is_bad))

    def test_the_same_file_twice(self):
        estimates = honest(1)
        with pytest.warns(FilterWarning, match=r"estimates 3, 40 are copies"):
            aggregate([*estimates, estimates[3]])

    @pytest.mark.parametrize("rate", [0.45, 0.475, 0.5, 0.525, 0.6])
    @pytest.mark.parametrize("attack", ["mimic", "min_max", "alie"])
    def test_many_are_no_majority(self, attack, rate):
        assert NoMajorityWarning in spoilt(attack, rate)[3]

    @pytest.mark.parametrize("seed", range(5))
    def test_independent_estimates_are_none(self, seed):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            aggregate(honest(seed))

    def test_all_the_same(self):
        with pytest.warns(NoMajorityWarning, match="0, 1, 2, 3, 4, 5, 6, 7 are copies"):
            aggregate([honest(0)[0]] * 8)


class TestGroups:
    def test_rivals_may_be_close_where_chance_is_small(self):
        distances = np.full((12, 12), 1.5)
        distances[:6, :6] = distances[6:, 6:] = 1.0
        np.fill_diagonal(distances, 0.0)
        assert groups_of(distances, 1.0) == []
        assert rival_groups(distances, 1.0, df=300.0) == [list(range(6)), list(range(6, 12))]
        assert rival_groups(distances, 1.0, df=3.0) == []

    def test_a_minority_is_no_rival(self):
        distances = np.full((12, 12), 1.5)
        distances[:9, :9] = distances[9:, 9:] = 1.0
        np.fill_diagonal(distances, 0.0)
        assert rival_groups(distances, 1.0, df=300.0) == []

    def test_clear_majority(self):
        assert has_clear_majority([], 10)
        assert has_clear_majority([range(7), range(3)], 10)
        assert not has_clear_majority([range(6), range(4)], 10)


def test_the_warning_survives_a_file(tmp_path):
    result = spoilt("sign_flip", 0.5)[0]
    result.save(tmp_path / "result.zip")
    again = Aggregate.load(tmp_path / "result.zip")
    assert again.notes == result.notes
    assert again.decision.groups == result.decision.groups


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore:partitions differ so much:dask_dfmr.FilterWarning")
def test_the_report_shows_the_groups():
    rows = [make_rows(i) + (100.0 if i >= 5 else 0.0) for i in range(10)]
    gm = GaussianMixture(2, random_state=0, n_partitions=10)
    with pytest.warns(NoMajorityWarning, match="groups of 5 and 5"):
        gm.fit(np.concatenate(rows))
    groups = gm.partition_report_["group"]
    assert set(groups[:5]) != set(groups[5:])
    assert groups[:5].nunique() == groups[5:].nunique() == 1
