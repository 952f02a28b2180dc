"""Parameters: one table, which the estimator, its docstring, its checks and the plan of a fit follow."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import dask
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

import dask_dfmr
from dask_dfmr import Aggregate, GaussianMixture, Mixture, dfmr, select_components
from dask_dfmr.parameters import PARAMETERS, parameters_of, plan_of
from tests.data_makers import TRUTH, same_bits

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
A_SOURCE = "sensor"
"""The reference shows sources like ``sensor='A7'``."""

NEEDS_DATA = ("weights_init", "means_init", "precisions_init", "source")


def make(**parameters):
    return GaussianMixture(**{"n_components": 2, "random_state": 0} | parameters)


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


# -- the table -------------------------------------------------------------------------------------


def documented():
    """Names and texts of the parameters in the docstring of the estimator, in its order."""
    text = (
        inspect.getdoc(GaussianMixture)
        .split("Parameters\n----------\n")[1]
        .split("\n\nAttributes\n")[0]
    )
    entries = re.split(r"^(\w+) : ", text, flags=re.MULTILINE)[1:]
    return dict(
        zip(entries[::2], [" ".join(entry.split()) for entry in entries[1::2]], strict=True)
    )


def test_the_signatures_of_all_public_names_are_those_of_the_file():
    folder = Path(__file__).parent / "data"
    script = runpy.run_path(str(folder / "write_public_api.py"))
    expected = (folder / "public_api.txt").read_text(encoding="utf-8")
    assert script["public_api"]() == expected, "run python tests/data/write_public_api.py"


class TestTable:
    def test_is_the_signature(self):
        signature = list(inspect.signature(GaussianMixture).parameters.values())
        assert [p.name for p in signature] == list(PARAMETERS)
        assert [p.default for p in signature] == [p.default for p in PARAMETERS.values()]

    def test_is_documented_once_and_in_order(self):
        assert list(documented()) == list(PARAMETERS)

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_meanings_and_defaults_are_those_of_the_docstring(self, name):
        kind, _, text = documented()[name].partition(" default ")
        assert kind.endswith(",")
        default = PARAMETERS[name].default
        expected = f'"{default}"' if isinstance(default, str) else repr(default)
        assert text.startswith(f"{expected} {PARAMETERS[name].meaning}")

    def test_defaults_pass_their_checks(self):
        assert parameters_of(GaussianMixture()) == {n: p.default for n, p in PARAMETERS.items()}

    @pytest.mark.parametrize("name", [name for name in PARAMETERS if name not in NEEDS_DATA])
    def test_every_check_names_its_parameter(self, name):
        value = object()
        with pytest.raises((ValueError, TypeError), match=name) as caught:
            PARAMETERS[name].check(name, value)
        assert repr(value) in str(caught.value)

    def test_reference_pages_name_parameters_that_exist(self):
        public = [getattr(dask_dfmr, name) for name in dask_dfmr.__all__]
        functions = [f for thing in public for f in functions_of(thing)]
        known = {name for f in functions for name in inspect.signature(f).parameters}
        for page in REFERENCE.glob("*.md"):
            named = re.findall(r"`(?:\w+\()?([a-z]\w*)=(?!=)", page.read_text())
            assert set(named) - {A_SOURCE} <= known, page.name


def functions_of(thing):
    """The functions of a module, the methods of a class, or the function itself."""
    members = [thing, *(f for _, f in inspect.getmembers(thing))]
    return [f for f in members if inspect.isfunction(f) and f.__module__.startswith("dask_dfmr")]


# -- reading an estimator --------------------------------------------------------------------------


class Parameters:
    """Not an estimator, but it has the parameters of one."""

    def __init__(self, **parameters):
        self.parameters = GaussianMixture(**parameters).get_params()

    def get_params(self, deep=True):
        return self.parameters


class TestParametersOf:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (dfmr, r"comes first: dfmr\(GaussianMixture\(\), X\)"),
            (select_components, r"comes first: select_components\(GaussianMixture\(\), X\)"),
        ],
    )
    def test_data_in_place_of_the_estimator(self, call, message, ddf):
        with pytest.raises(TypeError, match=message):
            call(ddf, 2)

    @pytest.mark.parametrize("call", [dfmr, select_components, plan_of])
    @pytest.mark.parametrize("wrong", [GaussianMixture, SklearnGaussianMixture(2), None, "full"])
    def test_no_estimator(self, call, wrong, ddf):
        with pytest.raises(TypeError, match=r"estimator must be a dask_dfmr\.GaussianMixture"):
            call(wrong, ddf)

    def test_missing_parameters_are_named(self, ddf):
        with pytest.raises(TypeError, match=r"without source, method, rho"):
            parameters_of(type("Old", (), {"get_params": lambda self, deep: SKLEARN_LIKE})())

    @pytest.mark.parametrize("seed", [np.random.default_rng(0), np.random.RandomState(0)])
    def test_a_generator_is_not_advanced(self, seed):
        before = repr(getattr(seed, "bit_generator", seed).__getstate__())
        parameters_of(make(random_state=seed))
        assert repr(getattr(seed, "bit_generator", seed).__getstate__()) == before

    @pytest.mark.parametrize("name", ["warm_start", "verbose"])
    def test_scalars_that_scikit_learn_has_too(self, name):
        with pytest.raises(ValueError, match=name):
            parameters_of(make(**{name: "yes"}))


SKLEARN_LIKE = {
    name: parameter.default
    for name, parameter in PARAMETERS.items()
    if name in SklearnGaussianMixture().get_params() or name.endswith("_")
}


class TestTogether:
    """Rules about more than one parameter, checked before anything is read."""

    @pytest.mark.parametrize(
        ("parameters", "match"),
        [
            ({"method": "coat", "refine": 1}, "refine must be 0 with method='coat'"),
            ({"method": "componentwise", "refine": "auto"}, "refine must be 0 with method='comp"),
            ({"method": "hardened", "n_references": 8}, "n_references must be 'auto' or None"),
        ],
    )
    def test_refused(self, parameters, match, ddf, raise_if_dask_computes):
        with raise_if_dask_computes(), pytest.raises(ValueError, match=match):
            make(**parameters).fit(ddf)


# -- the plan --------------------------------------------------------------------------------------


class TestPlan:
    def test_nothing_is_computed_and_nothing_changed(self, ddf, raise_if_dask_computes):
        gm = make(means_init=np.zeros((2, 2)))
        before = repr(gm.get_params())
        with raise_if_dask_computes():
            plan_of(gm, ddf)
        assert repr(gm.get_params()) == before
        assert not hasattr(gm, "mixture_")

    def test_every_part_follows_from_the_parameters(self, ddf):
        plan = plan_of(
            make(
                covariance_type="diag",
                min_partition_rows=7,
                partition_timeout="2 minutes",
                rho=2,
                split_every=3,
                keep_estimates=False,
                check_optimum=1,
                refit_excluded=False,
                refine=4,
                false_exclusion_rate=0.01,
            ),
            ddf,
        )
        problem = plan.settings.problem
        assert (problem.family.covariance_type, problem.min_rows) == ("diag", 7)
        assert (problem.n_components, problem.n_sources) == (2, 6)
        assert (plan.settings.timeout, plan.settings.start) == (120, "pilot")
        assert (plan.options.rho, plan.split_every) == (2, 3)
        assert (plan.keep_estimates, plan.check_optimum, plan.refit_excluded) == (False, 1, False)
        assert (plan.refinement.most_passes, plan.refinement.level) == (4, 0.01)

    def test_a_mixture_is_the_start_of_all(self, ddf):
        gm = make(init_params=TRUTH).fit(ddf)
        assert (gm.partition_report_["start"] == "given").all()
        np.testing.assert_allclose(gm.means_, TRUTH.means, atol=0.3)

    @pytest.mark.parametrize(
        "other",
        [
            {"n_components": 3},
            {"covariance_type": "diag"},
            {"init_params": Mixture([1.0], [[0.0]], [[[1.0]]])},
        ],
    )
    def test_a_mixture_of_another_shape(self, other, ddf):
        with pytest.raises(ValueError, match=r"init_params must be a name or a mixture with \("):
            make(**{"init_params": TRUTH} | other).fit(ddf)


# -- the lazy fit ----------------------------------------------------------------------------------


class TestLazy:
    def test_is_the_aggregate_of_the_fit(self, ddf):
        gm = make(refit_excluded=False, check_optimum=None)
        found = dfmr(gm, ddf).compute()
        assert isinstance(found, Aggregate)
        assert not hasattr(gm, "mixture_")
        assert same_bits(found.mixture, gm.fit(ddf).mixture_)

    def test_takes_whatever_has_the_parameters(self, ddf):
        found = dfmr(Parameters(n_components=2, random_state=0), ddf).compute()
        assert same_bits(found.mixture, dfmr(make(), ddf).compute().mixture)

    def test_starts_from_a_mixture(self, ddf):
        found = dfmr(make(init_params=TRUTH), ddf).compute()
        np.testing.assert_allclose(found.mixture.means, TRUTH.means, atol=0.3)

    @pytest.mark.parametrize(
        ("parameters", "advice"),
        [
            ({"refine": 3}, r"GaussianMixture\(refine=3\)\.fit\(X\)"),
            ({"refine": "auto"}, r"GaussianMixture\(refine='auto'\)\.fit\(X\)"),
            ({"warm_start": True}, r"init_params=estimator\.mixture_"),
            ({"trusted_workers": ["a"]}, r"client\.compute\(dfmr\(\.\.\.\), workers=\[\.\.\.\]\)"),
        ],
    )
    def test_refuses_what_it_cannot_do(self, parameters, advice, ddf):
        with pytest.raises(ValueError, match=rf"{next(iter(parameters))} must be .*{advice}"):
            dfmr(make(**parameters), ddf)

    @pytest.mark.parametrize("name", ["n_starts", "block_size"])
    def test_own_arguments(self, name, ddf):
        with pytest.raises(ValueError, match=f"{name} must be .*got 0"):
            dfmr(make(), ddf, **{name: 0})

    @pytest.mark.parametrize(("name", "value"), [("n_components", 0), ("rho", 0.5)])
    def test_wrong_parameters_are_found_before_anything_runs(self, name, value, ddf):
        with pytest.raises(ValueError, match=name):
            dfmr(make(**{name: value}), ddf)
