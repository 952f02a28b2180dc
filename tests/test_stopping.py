"""When an EM run stops: near a regular optimum as promised, and early along a ridge that the rows do not determine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_dfmr import LocalEstimate, Mixture, fit_local
from dask_dfmr.local import stopping
from dask_dfmr.local.stopping import MeanChange, Outlook, RemainingGain

NEAR = Outlook(remaining=1e-6, is_concave=True)
FAR = Outlook(remaining=10.0, is_concave=True)
RIDGE = Outlook(is_concave=False, step=0.1, rows_per_parameter=5.0)
HEAVY = RIDGE._replace(rows_per_parameter=500.0)
LONG = RIDGE._replace(step=1e3)
UNKNOWN = Outlook()


def n_passes(rule: RemainingGain, outlooks: Iterable[Outlook]) -> int | None:
    """The pass after which a rule stops; None if it does not."""
    return next((i for i, seen in enumerate(outlooks, 1) if rule(1e-6, seen)), None)


def tight(n_samples: int = 50_000) -> RemainingGain:
    return RemainingGain.tight(n_parameters=100, n_sources=10, n_samples=n_samples)


@pytest.mark.parametrize(
    ("outlooks", "expected"),
    [
        ([FAR, NEAR, NEAR, NEAR], 4),
        ([NEAR, NEAR, FAR, NEAR, NEAR, NEAR], 6),
        ([RIDGE, UNKNOWN, RIDGE, UNKNOWN, RIDGE], 5),
        ([RIDGE, RIDGE, FAR, RIDGE, RIDGE], 5),
        ([RIDGE, FAR] * 20, None),
        ([HEAVY] * 20, None),
        ([LONG] * 20, None),
        ([UNKNOWN] * 20, None),
    ],
)
def test_passes_until_the_rule_stops(outlooks: list[Outlook], expected: int | None) -> None:
    assert n_passes(tight(), outlooks) == expected


def test_there_is_no_ridge_for_few_rows_nor_for_a_plain_threshold() -> None:
    assert n_passes(tight(stopping.LEAST_ROWS_OF_A_RIDGE - 1), [RIDGE] * 50) is None
    assert n_passes(RemainingGain(0.1), [RIDGE] * 50) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([NEAR, FAR, HEAVY, LONG, UNKNOWN]), max_size=30))
def test_without_passes_on_a_ridge_only_the_predicted_gain_counts(seen: list[Outlook]) -> None:
    assert n_passes(tight(), seen) == n_passes(RemainingGain(tight().threshold), seen)


def test_the_rule_of_scikit_learn_looks_at_the_gain_alone() -> None:
    rule = MeanChange(1.0)
    assert rule(-0.5, FAR)
    assert not rule(2.0, NEAR)


class Drawn(NamedTuple):
    """Rows of three components in five columns: to fit, to test on, and to find starts from."""

    fitted: np.ndarray
    tested: np.ndarray
    first: np.ndarray

    def fit(self, k: int) -> tuple[LocalEstimate, Mixture]:
        start = fit_local(self.first, k, tol=1e-5, random_state=0).mixture
        assert start is not None
        found = fit_local(self.fitted, k, start=start, n_sources=10)
        assert found.mixture is not None
        return found, found.mixture


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    rng = np.random.default_rng(1)
    means = rng.normal(0, 2, (3, 5))
    truth = Mixture(np.full(3, 1 / 3), means, np.tile(np.eye(5), (3, 1, 1)))
    return Drawn(*(truth.sample(n, rng)[0] for n in (10_000, 50_000, 3000)))


@pytest.fixture(scope="module")
def regular(drawn: Drawn) -> tuple[LocalEstimate, Mixture]:
    """The fit of three components."""
    return drawn.fit(3)


def test_a_regular_fit_is_what_it_is_without_a_ridge(
    drawn: Drawn, regular: tuple[LocalEstimate, Mixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "LEAST_ROWS_OF_A_RIDGE", 10**9)
    found, mixture = drawn.fit(3)
    assert found.n_iter == regular[0].n_iter
    assert mixture == regular[1]


@pytest.mark.parametrize("k", [4, 6])
def test_fits_with_too_many_components_take_few_passes(
    drawn: Drawn, regular: tuple[LocalEstimate, Mixture], k: int
) -> None:
    found, mixture = drawn.fit(k)
    assert found.outcome == "fitted"
    # To the optimum it would be 376 and 202 passes, for .0005 and .004 nats per row less on other rows.
    assert found.n_iter <= 4 * regular[0].n_iter
    n_surplus = mixture.n_parameters - regular[1].n_parameters
    loss = regular[1].score(drawn.tested) - mixture.score(drawn.tested)
    assert loss < 1.5 * n_surplus / 2 / len(drawn.fitted)
