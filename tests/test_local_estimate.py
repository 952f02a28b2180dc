"""Local estimates: the value, and the message it travels as."""

import pickle

import numpy as np
import pytest

from dask_dfmr import LocalEstimate, Outcome
from dask_dfmr.local.estimate import without_estimate
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES
from tests.strategies import random_mixture

pytestmark = pytest.mark.smoke

M = random_mixture(1)


class TestOutcome:
    def test_the_value_is_the_phrase(self):
        assert str(Outcome.TOO_FEW_ROWS) == Outcome.TOO_FEW_ROWS == "too few rows"

    def test_only_a_fit_is_usable(self):
        usable = {outcome for outcome in Outcome if outcome.is_usable}
        assert usable == {Outcome.FITTED, Outcome.NOT_CONVERGED}


class TestConstruction:
    def test_a_mixture_and_a_row_count_are_enough(self):
        e = LocalEstimate(M, 5000)
        assert e.is_usable
        assert e.outcome is Outcome.FITTED

    @pytest.mark.parametrize("count", [100, 100.0, np.int64(100), np.float32(100)])
    def test_any_whole_number_is_a_row_count(self, count):
        assert LocalEstimate(M, count).n_samples == 100
        assert type(LocalEstimate(M, count).n_samples) is int

    @pytest.mark.parametrize("count", [-1, 1.5, np.nan, np.inf, "many", None, [3]])
    def test_anything_else_is_none(self, count):
        with pytest.raises(ValueError, match="n_samples must be a number of rows; got"):
            LocalEstimate(M, count)

    def test_a_mixture_comes_from_at_least_one_row(self):
        with pytest.raises(ValueError, match="n_samples must be at least 1"):
            LocalEstimate(M, 0)

    @pytest.mark.parametrize(
        ("details", "message"),
        [
            ({"n_iter": -1}, "n_iter must be a non-negative integer; got -1"),
            ({"n_omitted": "many"}, "n_omitted must be a non-negative integer; got 'many'"),
            ({"n_outside": 10}, "n_outside must be at most n_samples; got 10"),
            ({"n_outside": -1}, "n_outside must be a non-negative integer; got -1"),
            ({"partition": 1.5}, "partition must be a non-negative integer; got 1.5"),
            ({"log_likelihood": 1j}, "log_likelihood must be a number; got 1j"),
            ({"source": b"x"}, "source must be a string; got b'x'"),
            ({"reason": np.ones(2)}, "reason must be a string; got array"),
            ({"start": None}, "start must be a string; got None"),
        ],
    )
    def test_what_goes_into_reports_is_of_its_type(self, details, message):
        with pytest.raises(ValueError, match=message):
            LocalEstimate(M, 9, **details)

    def test_the_outcome_may_be_its_phrase(self):
        assert LocalEstimate(M, 9, "not converged").outcome is Outcome.NOT_CONVERGED

    def test_an_unknown_outcome_is_named(self):
        with pytest.raises(ValueError, match="'splendid'"):
            LocalEstimate(M, 9, "splendid")

    def test_mixture_and_outcome_must_agree(self):
        with pytest.raises(ValueError, match="'failed' must not have a mixture"):
            LocalEstimate(M, 9, Outcome.FAILED)
        with pytest.raises(ValueError, match="'fitted' must have a mixture"):
            LocalEstimate(None, 9)

    def test_it_is_frozen(self):
        with pytest.raises(AttributeError):
            LocalEstimate(M, 9).n_samples = 10

    def test_repr_shows_the_mixture_or_the_reason(self):
        assert repr(LocalEstimate(M, 9, partition=3)) == (
            f"LocalEstimate('fitted', n_samples=9, partition=3, {M!r})"
        )
        assert repr(without_estimate(Outcome.LOST, "worker gone")) == (
            "LocalEstimate('lost', n_samples=0, reason='worker gone')"
        )


class TestMessage:
    @pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
    def test_there_and_back_is_the_same_estimate(self, covariance_type):
        e = LocalEstimate(
            random_mixture(1, covariance_type=covariance_type, names=["a", "b"]),
            77,
            Outcome.NOT_CONVERGED,
            "not converged after 3 passes",
            partition=2,
            source="here",
            n_omitted=5,
            n_iter=3,
            log_likelihood=-1.5,
            start="given",
            n_outside=2,
        )
        assert LocalEstimate.from_arrays(e.to_arrays()) == e

    def test_an_outcome_without_mixture_travels_too(self):
        e = without_estimate(Outcome.TOO_FEW_ROWS, "3 rows", 3, n_omitted=1, log_likelihood=0.0)
        assert LocalEstimate.from_arrays(e.to_arrays()) == e

    def test_a_message_holds_plain_values(self):
        plain = (np.ndarray, str, int, float, tuple, type(None))
        assert all(isinstance(v, plain) for v in LocalEstimate(M, 9).to_arrays().values())

    def test_mixture_and_row_count_are_message_enough(self):
        assert LocalEstimate.from_arrays(M.to_arrays() | {"n_samples": 9}).mixture == M

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights": [1.0, 1.0, 1.0]}, "weights must sum to 1"),
            ({"n_samples": -3}, "n_samples must be a number of rows; got -3"),
            ({"outcome": "failed"}, "must not have a mixture"),
            ({"colour": "red"}, r"\['colour'\] unknown"),
            ({"mixture": M}, r"\['mixture'\] unknown"),
        ],
    )
    def test_a_malformed_message_says_what_is_wrong(self, change, message):
        with pytest.raises(ValueError, match=message):
            LocalEstimate.from_arrays(LocalEstimate(M, 9).to_arrays() | change)

    def test_a_message_without_row_count_says_so(self):
        with pytest.raises(ValueError, match=r"must have n_samples; got only \['covariance_type"):
            LocalEstimate.from_arrays(M.to_arrays())

    def test_it_pickles_to_itself(self):
        e = LocalEstimate(M, 9, log_likelihood=-2.0)
        assert pickle.loads(pickle.dumps(e)) == e
