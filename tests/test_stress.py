"""``stress_test``: errors and kept shares against the rate, and when a method breaks down."""

from __future__ import annotations

import builtins
import sys

import dask
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from dask_dfmr import GaussianMixture, LocalEstimate, aggregate, mixing_distance
from dask_dfmr.aggregation.options import METHODS
from dask_dfmr.attacks import ATTACKS, corrupt, default_methods, stress_test
from dask_dfmr.attacks.stress import STRESS_COLUMNS
from dask_dfmr.seeds import seed_sequence, stream
from tests.data_makers import TRUTH, make_ddf, make_frame
from tests.strategies import jiggled, random_mixture

pytestmark = pytest.mark.usefixtures("coarse_laws")

MIXTURE = random_mixture(5, 3, 2)
ESTIMATES = [LocalEstimate(jiggled(MIXTURE, [5, i]), 1000) for i in range(15)]
SOME = ["dfmr", "mr"]


@pytest.fixture(scope="module")
def tested():
    return stress_test(ESTIMATES, "mean", methods=SOME, truth=MIXTURE, n_repeats=2, random_state=0)


def test_there_is_a_row_per_rate_repeat_and_method(tested):
    assert tuple(tested.table.columns) == STRESS_COLUMNS
    assert len(tested.table) == 5 * 2 * 2
    assert not tested.table.duplicated(["rate", "repeat", "method"]).any()
    assert (tested.table["raised"] == "").all()


@pytest.mark.smoke
def test_numbers_are_those_of_the_aggregation():
    tested = stress_test(
        ESTIMATES, "clique", (0.4,), methods=["dfmr, rho=1.3"], truth=MIXTURE, random_state=3
    )
    found = corrupt(ESTIMATES, "clique", 0.4, random_state=stream(seed_sequence(3), 0))
    result = aggregate(found.estimates, rho=1.3, random_state=0)
    oracle = aggregate(found.honest, method="mr").mixture
    (row,) = tested.table.to_dict("records")
    assert_allclose(row["w1_to_oracle"], mixing_distance(result.mixture, oracle), rtol=1e-6)
    ratio = mixing_distance(result.mixture, MIXTURE) / mixing_distance(oracle, MIXTURE)
    assert_allclose([row["error"], row["truth_ratio"]], ratio, rtol=1e-6)
    assert row["honest_kept"] == result.decision.kept[~found.is_bad].mean()
    assert row["bad_kept"] == result.decision.kept[found.is_bad].mean()
    assert row["strength"] == ATTACKS["clique"].strength


@pytest.mark.smoke
def test_plain_reduction_breaks_down_and_the_filter_does_not(tested):
    assert tested.breakdown["mr"] == 0.1
    assert np.isnan(tested.breakdown["dfmr"])
    kept = tested.table.set_index("method")["bad_kept"].dropna()
    assert (kept["mr"] == 1).all()
    assert (kept["dfmr"] == 0).all()
    assert "mr: 0.1" in repr(tested)
    assert "dfmr: none" in repr(tested)


def test_a_seed_decides_everything(tested):
    again = stress_test(ESTIMATES, "mean", methods=SOME, truth=MIXTURE, n_repeats=2, random_state=0)
    pd.testing.assert_frame_equal(again.table, tested.table)


def test_without_truth_one_is_as_bad_as_a_single_source():
    tested = stress_test(ESTIMATES, "mean", (0.0, 0.4), methods=["coat", "mr"], random_state=0)
    error = tested.curve
    assert error.loc[0.0, "mr"] == 0
    assert 0.3 < error.loc[0.4, "coat"] < 3  # the center is a single source
    assert error.loc[0.4, "mr"] > 100
    assert tested.table["truth_ratio"].isna().all()
    assert "single" in tested.yardstick


def test_the_search_shows_the_worst_strength():
    options = {"methods": SOME, "truth": MIXTURE, "random_state": 0}
    searched = stress_test(ESTIMATES, "shadow", (0.4,), search=True, **options)
    for strength in ATTACKS["shadow"].grid:
        one = stress_test(ESTIMATES, "shadow", (0.4,), strength=strength, **options)
        assert (searched.table["error"] >= one.table["error"]).all()
        same = searched.table["strength"] == strength
        assert_array_equal(searched.table["error"][same], one.table["error"][same])
    assert len(set(searched.table["strength"])) > 1  # each method has its own


def test_malformed_messages_are_counted_as_left_out():
    tested = stress_test(ESTIMATES, "nan", (0.0, 0.4), methods=["dfmr"], random_state=0)
    assert tested.table["bad_kept"].tolist()[1] == 0
    assert_allclose(tested.table["w1_to_oracle"], 0, atol=1e-12)


def test_the_default_methods_are_those_that_aggregate_has():
    methods = default_methods()
    assert {options.get("method", "dfmr") for options in methods.values()} == set(METHODS)
    for options in methods.values():
        aggregate(ESTIMATES, **options)


def test_own_methods_have_their_options():
    tested = stress_test(
        ESTIMATES, "mean", 0.2, methods={"tight": {"rho": 1.0}, "all": {"rho": np.inf}}
    )
    assert tested.table["method"].tolist() == ["tight", "all"]
    assert tested.table["bad_kept"].tolist() == [0.0, 1.0]


def test_warnings_are_named_and_not_issued():
    tested = stress_test(ESTIMATES, "mimic", (0.0, 0.4), methods=["mr"], random_state=0)
    assert tested.table["warned"].tolist() == ["", "NoMajorityWarning"]  # copies of one another
    few = stress_test(ESTIMATES[:3], "mean", (0.0,), methods=["dfmr"])
    assert few.table["warned"].tolist() == ["FilterWarning"]


def test_an_aggregation_that_raises_is_a_row():
    # One bad source so far off that the one center is a line to rounding.
    one = random_mixture(5, 1, 2)
    estimates = [LocalEstimate(jiggled(one, [5, i]), 1000) for i in range(15)]
    tested = stress_test(
        estimates, "mean", (0.0, 0.1), methods=SOME, strength=1e100, random_state=0
    )
    raised = tested.table.set_index(["rate", "method"])["raised"]
    assert raised[0.1, "mr"].startswith("AggregationError: the reduction of the kept estimates")
    assert tested.table.loc[raised.to_numpy() != "", "error"].isna().all()
    assert tested.curve.loc[0.1, "mr"] == np.inf
    assert tested.breakdown["mr"] == 0.1
    assert (raised.drop((0.1, "mr")) == "").all()


# -- end to end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["wrong_unit", "other_population"])
def test_rows_are_fitted_again_at_every_rate(attack):
    with dask.config.set(scheduler="synchronous"):
        tested = stress_test(
            make_ddf(8),
            attack,
            (0.0, 0.25),
            methods=SOME,
            truth=TRUTH,
            strength=10.0,
            random_state=0,
            n_components=2,
        )
    table = tested.table.set_index(["rate", "method"])
    assert table["bad_kept"][0.25, "mr"] == 1
    assert table["bad_kept"][0.25, "dfmr"] == 0
    assert table["error"][0.25, "dfmr"] < 1.5
    assert table["error"][0.25, "mr"] > 5


def test_a_collection_is_fitted_once_for_attacks_on_estimates():
    with dask.config.set(scheduler="synchronous"):
        tested = stress_test(
            make_ddf(8), "mean", (0.25,), methods=SOME, n_components=2, random_state=0
        )
    assert tested.table["bad_kept"].tolist() == [0.0, 1.0]


# -- sources that are wrong already ----------------------------------------------------------------


def with_one_bad():
    return [make_frame(8000 if i == 3 else i) * (50.0 if i == 3 else 1.0) for i in range(8)]


@pytest.fixture(scope="module")
def fitted():
    with dask.config.set(scheduler="synchronous"):
        return GaussianMixture(2, random_state=0).fit(with_one_bad())


@pytest.mark.parametrize("data", ["estimator", "estimates", "collection"])
def test_a_source_that_is_wrong_already_is_not_called_honest(fitted, data):
    assert fitted.support_.tolist() == [i != 3 for i in range(8)]
    options = {"methods": ["dfmr", "mr"], "random_state": 0}
    with dask.config.set(scheduler="synchronous"):
        tested = {
            "estimator": lambda: stress_test(fitted, "mean", (0.0,), **options),
            "estimates": lambda: stress_test(fitted.estimates_, "mean", (0.0,), **options),
            "collection": lambda: stress_test(
                with_one_bad(), "mean", (0.0,), n_components=2, **options
            ),
        }[data]()
    assert tested.table["honest_kept"].tolist() == [1.0, 1.0]
    assert (tested.table["w1_to_oracle"] < 0.1).all()


def test_every_source_counts_if_that_is_asked_for(fitted):
    everything = stress_test(fitted, "mean", (0.0,), which="all", methods=["dfmr"], random_state=0)
    assert everything.table["honest_kept"].tolist() == [7 / 8]
    assert everything.table["w1_to_oracle"][0] > 1


def test_rows_of_a_source_that_is_wrong_already_are_not_in_the_test():
    with dask.config.set(scheduler="synchronous"):
        tested = stress_test(
            with_one_bad(), "wrong_unit", (0.0, 0.3), methods=["mr"], n_components=2, random_state=0
        )
    table = tested.table.set_index("rate")
    assert table["honest_kept"].tolist() == [1.0, 1.0]
    assert table["w1_to_oracle"][0.0] < 0.1
    assert table["bad_kept"][0.3] == 1.0


def test_an_estimator_must_be_fitted_and_have_its_estimates():
    with pytest.raises(NotFittedError):
        stress_test(GaussianMixture(2), "mean")
    forgetful = GaussianMixture(1, keep_estimates=False, n_partitions=4, random_state=0)
    forgetful.fit(np.random.default_rng(0).normal(size=(400, 1)))
    with pytest.raises(ValueError, match="keep_estimates=True"):
        stress_test(forgetful, "mean")


# -- the picture ---------------------------------------------------------------------------------


def test_the_plot_has_a_line_per_method_on_a_log_scale(tested):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, ax = pyplot.subplots()
    try:
        assert tested.plot(ax) is ax
        assert ax.get_yscale() == "log"
        assert [t.get_text() for t in ax.get_legend().get_texts()] == SOME
        for line, method in zip(ax.get_lines(), SOME, strict=False):
            assert_array_equal(line.get_xdata(), tested.curve.index)
            assert_array_equal(line.get_ydata(), tested.curve[method].clip(lower=0.01))
        own = tested.plot()
        assert own is not ax
        pyplot.close(own.figure)
    finally:
        pyplot.close(figure)


def test_without_matplotlib_the_plot_says_what_to_install(tested, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'dask-dfmr\[plots\]'"):
        tested.plot()


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": "meen"}, "attack must be one of"),
        ({"rates": (0.2, 1.0)}, "rate must be"),
        ({"rates": ()}, "rates must hold at least one"),
        ({"methods": ["best"]}, "methods must be one of 'dfmr'"),
        ({"methods": []}, "methods must name at least one"),
        ({"n_repeats": 0}, "n_repeats must be"),
        ({"breakdown_at": -1}, "breakdown_at must be"),
        ({"strength": -1}, "strength must be"),
        ({"search": True, "strength": 1.0}, "strength must not be given with search=True"),
        ({"which": "honest"}, "which must be one of"),
        ({"search": "yes"}, "search must be one of"),
        ({"n_components": 3}, "parameters of a fit need data to fit"),
        ({"attack": "wrong_unit"}, "'wrong_unit' is one on rows; got estimates"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        stress_test(**{"data": ESTIMATES, "attack": "mean", **arguments})


def test_a_collection_needs_the_number_of_components():
    with pytest.raises(ValueError, match="n_components must be given"):
        stress_test(make_ddf(), "mean")
