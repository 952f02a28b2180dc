"""Any set of estimates and any partitions: an answer with its invariants, or a documented error; never a NaN."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from dask_dfmr import (
    AggregationError,
    FilterWarning,
    GaussianMixture,
    HeterogeneityWarning,
    LocalEstimate,
    Mixture,
    OptimumWarning,
    Outcome,
    PartitionWarning,
    aggregate,
)
from dask_dfmr.aggregation.options import METHODS
from tests.strategies import covariance_types, jiggled, random_mixture, seeds, shuffled

pytestmark = pytest.mark.usefixtures("coarse_laws")

DOCUMENTED = (
    FilterWarning,
    HeterogeneityWarning,
    OptimumWarning,
    PartitionWarning,
    ConvergenceWarning,
)

OPTIONS = [
    *({"method": method} for method in METHODS),
    {"rho": 1.3},
    {"rho": np.inf},
    {"n_references": 3},
    {"n_starts": 3},
    {"machine_weights": "equal"},
]
options = st.sampled_from(OPTIONS)
scales = st.sampled_from([1e-120, 1e-30, 1e-8, 1e-3, 1.0, 1e3, 1e30, 1e120])
row_counts = st.sampled_from([1, 2, 7, 40, 500, 500, 500, 10**6, 10**15, 2**62 - 1])


def quietly(function, *args, **kwargs):
    """With documented warnings silenced; any other is an error, NumPy's about NaN and overflow included."""
    with warnings.catch_warnings():
        for category in DOCUMENTED:
            warnings.simplefilter("ignore", category)
        return function(*args, **kwargs)


# -- any estimates -------------------------------------------------------------------------------


@st.composite
def valid_mixtures(draw, truth):
    """Near the truth, far from it, or as far as floating point goes."""
    seed, kind = draw(seeds), draw(st.sampled_from(["near", "near", "near", "far", "extreme"]))
    if kind == "near":
        return jiggled(truth, seed, draw(st.sampled_from([0.0, 0.01, 0.1, 0.5])))
    shape = (truth.n_components, truth.n_features, truth.covariance_type)
    far = random_mixture(seed, *shape, spread=30.0)
    if kind == "far":
        return far
    by = draw(scales)
    weights = np.full(truth.n_components, draw(st.sampled_from([1e-300, 1e-12, 0.1])))
    weights[0] = 1.0
    with np.errstate(over="ignore"):
        return Mixture(
            weights / weights.sum(),
            far.means * by,
            far.covariances * draw(scales),
            truth.covariance_type,
        )


def spoil(message, field, value):
    """A message with one field replaced."""
    return {**message, field: value(np.array(message[field], dtype=object))}


SPOILT = [
    ("weights", lambda v: v * np.nan),
    ("weights", lambda v: -v),
    ("weights", lambda v: v * 0),
    ("weights", lambda v: v[:-1]),
    ("weights", lambda v: "heavy"),
    ("weights", lambda v: None),
    ("means", lambda v: v * np.inf),
    ("means", lambda v: v.T),
    ("means", lambda v: [[]]),
    ("means", lambda v: {"a": 1}),
    ("means", lambda v: v.astype(complex) + 1j),
    ("covariances", lambda v: -v),
    ("covariances", lambda v: v * 0),
    ("covariances", lambda v: v + 1e400),
    ("covariances", lambda v: np.zeros((0, 0, 0))),
    ("n_samples", lambda v: -5),
    ("n_samples", lambda v: float("nan")),
    ("n_samples", lambda v: 10**30),
    ("n_samples", lambda v: "many"),
    ("n_outside", lambda v: -1),
    ("n_outside", lambda v: 10**30),
    ("n_outside", lambda v: "few"),
    ("outcome", lambda v: "splendid"),
    ("covariance_type", lambda v: "square"),
    ("feature_names", lambda v: 7),
]


@st.composite
def estimate_sets(draw):
    """Up to twelve messages: valid ones of one shape, some of another, some malformed."""
    truth = random_mixture(
        draw(seeds),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(covariance_types),
        spread=6.0,
    )
    found = []
    for _ in range(draw(st.integers(1, 12))):
        message = LocalEstimate(draw(valid_mixtures(truth)), draw(row_counts)).to_arrays()
        kind = draw(st.sampled_from(["valid"] * 5 + ["spoilt", "other shape", "no estimate"]))
        if kind == "spoilt":
            field, value = draw(st.sampled_from(SPOILT))
            message = spoil(message, field, value)
        elif kind == "other shape":
            message = LocalEstimate(random_mixture(draw(seeds), 4, 2), 100).to_arrays()
        elif kind == "no estimate":
            message = LocalEstimate(None, 3, Outcome.TOO_FEW_ROWS, "three rows").to_arrays()
        found.append(message)
    return found


def assert_proper(mixture):
    """Everything that a mixture must be."""
    assert_allclose(mixture.weights.sum(), 1.0, rtol=1e-9)
    assert (mixture.weights >= 0).all()
    assert np.isfinite(mixture.means).all()
    assert np.isfinite(mixture.covariances).all()
    np.linalg.cholesky(mixture.full_components[1])


@given(estimate_sets(), options)
def test_any_estimates_give_a_proper_mixture_or_a_documented_error(messages, chosen):
    try:
        result = quietly(aggregate, messages, random_state=0, **chosen)
    except AggregationError:
        return
    assert_proper(result.mixture)
    decision = result.decision
    n_usable = len(messages) - len(decision.refused)
    assert n_usable >= 1
    assert not decision.kept[list(decision.refused)].any()
    if chosen.get("method", "dfmr") in ("dfmr", "mr") and decision.components is None:
        assert decision.kept.sum() > n_usable / 2
    for i in range(len(messages)):
        assert bool(decision.reason(i)) >= (not decision.kept[i])
    if decision.refused:
        assert_refused_ones_leave_no_trace(messages, chosen, result)


def assert_refused_ones_leave_no_trace(messages, chosen, whole):
    left = [m for i, m in enumerate(messages) if i not in whole.decision.refused]
    alone = quietly(aggregate, left, random_state=0, **chosen)
    assert whole.mixture == alone.mixture
    usable = [i for i in range(len(messages)) if i not in whole.decision.refused]
    assert_array_equal(whole.decision.kept[usable], alone.decision.kept)
    assert_array_equal(whole.decision.distances[usable], alone.decision.distances)


# -- invariances ---------------------------------------------------------------------------------


def scenario(seed, covariance_type, n_features=2, m=9):
    """Consistent estimates and two far ones, with different numbers of rows."""
    rng = np.random.default_rng(seed)
    truth = random_mixture(rng.integers(2**32), 2, n_features, covariance_type, spread=5.0)
    mixtures = [jiggled(truth, int(s), 0.03) for s in rng.integers(2**32, size=m)]
    n_rows = rng.integers(400, 600, m + 2)
    mixtures += [jiggled(truth, int(s), 1.5) for s in rng.integers(2**32, size=2)]
    return [LocalEstimate(e, int(n)) for e, n in zip(mixtures, n_rows, strict=True)]


@given(seeds, covariance_types, options)
def test_neither_the_order_of_sources_nor_of_components_matters(seed, covariance_type, chosen):
    if "n_references" in chosen:  # the draw depends on the order of the sources
        return
    estimates = scenario(seed, covariance_type)
    order = np.random.default_rng(seed).permutation(len(estimates))
    mixed = [
        LocalEstimate(shuffled(estimates[i].mixture, seed + int(i)), estimates[i].n_samples)
        for i in order
    ]
    a, b = (quietly(aggregate, e, random_state=0, **chosen) for e in (estimates, mixed))
    assert_array_equal(a.decision.kept[order], b.decision.kept)
    assert order[b.decision.center] == a.decision.center
    aligned = b.mixture.align_to(a.mixture)
    for name in ("weights", "means", "covariances"):
        assert_allclose(getattr(aligned, name), getattr(a.mixture, name), rtol=1e-6, atol=1e-9)


def transformed(mixture, a, b):
    """The mixture of A x + b."""
    covariances = mixture.covariances
    if mixture.covariance_type in ("full", "tied"):
        moved = a @ covariances @ a.T
    elif mixture.covariance_type == "diag":
        moved = covariances * np.diagonal(a) ** 2
    else:
        moved = covariances * a[0, 0] ** 2
    return Mixture(mixture.weights, mixture.means @ a.T + b, moved, mixture.covariance_type)


def random_map(rng, covariance_type, n_features):
    """Any for full and tied covariances, scalings of the columns for diag, one for spherical."""
    if covariance_type == "spherical":
        return np.exp(rng.normal(scale=3)) * np.eye(n_features)
    stretch = np.diag(np.exp(rng.normal(scale=3, size=n_features)))
    if covariance_type == "diag":
        return stretch
    turn, _ = np.linalg.qr(rng.normal(size=(n_features, n_features)))
    return turn @ stretch


@given(seeds, covariance_types, options)
@example(0, "full", {})
def test_the_kept_set_does_not_depend_on_units(seed, covariance_type, chosen):
    estimates = scenario(seed, covariance_type)
    rng = np.random.default_rng(seed)
    a = random_map(rng, covariance_type, 2)
    b = rng.normal(scale=100, size=2)
    moved = [LocalEstimate(transformed(e.mixture, a, b), e.n_samples) for e in estimates]
    first, second = (quietly(aggregate, e, random_state=0, **chosen) for e in (estimates, moved))
    p_values = first.decision.p_values
    if p_values is not None:
        # Laws are drawn: what is on the border may fall on either side.
        p = p_values[np.isfinite(p_values)]
        if ((p > 1e-5) & (p < 1e-2)).any():
            return
    assert_array_equal(first.decision.kept, second.decision.kept)


# -- any partitions ------------------------------------------------------------------------------

CELLS = [0.0, 1.0, -1.0, 1e-300, 1e300, np.nan, np.inf, -np.inf, "text", None, True, 2**70]


@st.composite
def frames(draw):
    """A partition: rows of the population, or anything else."""
    kind = draw(st.sampled_from(["rows"] * 4 + ["cells", "constant", "few", "columns", "scaled"]))
    rng = np.random.default_rng(draw(seeds))
    rows = rng.normal(size=(80, 2)) + rng.choice([-4.0, 4.0], size=(80, 1))
    frame = pd.DataFrame(rows, columns=["x", "y"])
    if kind == "cells":
        frame = frame.astype(object)
        for _ in range(draw(st.integers(1, 4))):
            cell = draw(st.integers(0, 79)), draw(st.integers(0, 1))
            frame.iloc[cell] = draw(st.sampled_from(CELLS))
    elif kind == "constant":
        frame["x"] = draw(st.sampled_from(CELLS))
    elif kind == "few":
        frame = frame.head(draw(st.integers(0, 5)))
    elif kind == "columns":
        frame = draw(
            st.sampled_from(
                [frame[["x"]], frame[["y", "x"]], frame.assign(z=1.0), frame.iloc[:, :0]]
            )
        )
    elif kind == "scaled":
        frame = frame * draw(scales)
    return frame


@given(st.lists(frames(), min_size=1, max_size=7), st.sampled_from([{}, {"nan_policy": "omit"}]))
def test_any_partitions_give_a_proper_mixture_or_a_documented_error(partitions, chosen):
    X = [dask.delayed(frame) for frame in partitions]
    gm = GaussianMixture(2, random_state=0, on_failed="ignore", **chosen)
    error = None
    with dask.config.set(scheduler="synchronous"):
        try:
            quietly(gm.fit, X)
        except AggregationError as raised:
            error = raised
    report = gm.partition_report_ if error is None else error.report
    assert len(report) == len(partitions)
    rows = report["n_samples"] + report["n_omitted"]
    assert rows.tolist() == [len(frame) for frame in partitions]
    if error is not None:
        return
    assert_proper(gm.mixture_)
    excluded = report[~report["kept"]]
    assert (excluded["reason"] != "").all()
