"""What pilots and later reads return is checked like messages: a wrong answer costs its own partition, and no more."""

from __future__ import annotations

from dataclasses import replace

import dask
import numpy as np
import pytest
from scipy.special import logsumexp

from dask_dfmr import ClusterError, GaussianMixture, Mixture, mixing_distance, select_components
from dask_dfmr.local.estimate import Outcome
from dask_dfmr.local.pilots import PilotFit, PilotRows
from dask_dfmr.local.row_statistics import PartitionStatistics, Wanted, measure
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.on_dask import answers, by_column, tasks
from dask_dfmr.untrusted import not_plain, type_name
from tests.data_makers import TRUTH, make_ddf, make_frame, make_rows
from tests.poisson import Poisson

M, SPOILED = 6, 3
TYPES = ["full", "tied", "diag", "spherical"]

pytestmark = pytest.mark.filterwarnings("ignore::dask_dfmr.OptimumWarning")


# -- whole fits --------------------------------------------------------------------------------------


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0, "on_failed": "ignore"} | kwargs)


@pytest.fixture(scope="module", autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


FROM_THE_TRUTH = {"means_init": TRUTH.means, "check_optimum": None}
SETTINGS = {
    "read_pilot": {"check_optimum": None},
    "fit_pilot": {"check_optimum": None},
    "sample_partition": FROM_THE_TRUTH | {"check_optimum": 0},
    "measure_partition": FROM_THE_TRUTH | {"refine": 2},
}
"""By task: a fit that has it, and not much else."""


def fit(task):
    return make(**SETTINGS[task]).fit(make_ddf(M)).mixture_


@pytest.fixture(scope="module")
def undisturbed():
    return {task: fit(task) for task in SETTINGS}


def first(**changes):
    def change(reading):
        return replace(reading, measurements=(replace(reading.measurements[0], **changes),))

    return change


def moments(change):
    def of_all(reading):
        (one,) = reading.measurements
        changed = tuple(change(i, m) for i, m in enumerate(one.moments))
        return replace(reading, measurements=(replace(one, moments=changed),))

    return of_all


class Float(float):
    """A number that runs code."""

    def __float__(self):
        raise AssertionError("code of a message ran")

    __le__ = __ge__ = __lt__ = __gt__ = __eq__ = __add__ = __radd__ = __float__
    __hash__ = None


def of_pilot_rows(**changes):
    return lambda found: found._replace(**{k: change(found) for k, change in changes.items()})


HOSTILE = {
    ("read_pilot", "a text"): lambda found: "hello",
    ("read_pilot", "a number"): lambda found: 1.0,
    ("read_pilot", "a short tuple"): lambda found: tuple.__new__(PilotRows, (found.rows,)),
    ("read_pilot", "NaN in the rows"): of_pilot_rows(rows=lambda f: f.rows * np.nan),
    ("read_pilot", "equal rows"): of_pilot_rows(rows=lambda f: np.ones_like(f.rows)),
    ("read_pilot", "one row"): of_pilot_rows(rows=lambda f: f.rows[:1]),
    ("read_pilot", "rows of another width"): of_pilot_rows(rows=lambda f: f.rows[:, :1]),
    ("read_pilot", "rows and scale of another width"): of_pilot_rows(
        rows=lambda f: f.rows[:, :1],
        scale=lambda f: type(f.scale)(f.scale.location[:1], f.scale.spread[:1]),
    ),
    ("read_pilot", "NaN in the scale"): of_pilot_rows(
        scale=lambda f: replace(f.scale, spread=f.scale.spread * np.nan)
    ),
    ("read_pilot", "a spread of zero"): of_pilot_rows(
        scale=lambda f: replace(f.scale, spread=f.scale.spread * 0)
    ),
    ("fit_pilot", "a text"): lambda found: "hello",
    ("fit_pilot", "NaN in the start"): lambda found: found._replace(
        start=(found.start[0] * np.nan, found.start[1])
    ),
    ("fit_pilot", "more components"): lambda found: found._replace(
        start=(np.ones(3) / 3, found.start[1])
    ),
    ("fit_pilot", "an indefinite covariance"): lambda found: found._replace(
        start=(found.start[0], (found.start[1][0], -found.start[1][1]))
    ),
    ("fit_pilot", "check rows of another width"): lambda found: found._replace(
        check_rows=found.check_rows[:, :1]
    ),
    ("fit_pilot", "no check rows"): lambda found: found._replace(check_rows=found.check_rows[:0]),
    ("fit_pilot", "components in a list"): lambda found: found._replace(
        start=(found.start[0], list(found.start[1]))
    ),
    ("sample_partition", "a text"): lambda found: "hello",
    ("sample_partition", "rows of another width"): lambda found: found[:, :1],
    ("sample_partition", "NaN"): lambda found: found * np.nan,
    ("sample_partition", "many rows"): lambda found: np.tile(found, (1000, 1)),
    ("measure_partition", "a text"): lambda reading: "hello",
    ("measure_partition", "a tuple"): lambda reading: reading.measurements,
    ("measure_partition", "no measurement"): lambda reading: replace(reading, measurements=()),
    ("measure_partition", "no moments"): first(moments=None),
    ("measure_partition", "NaN moments"): moments(lambda i, m: m * np.nan),
    ("measure_partition", "moments of 1e300"): moments(lambda i, m: m if i == 0 else m + 1e300),
    ("measure_partition", "moments of 1e40"): moments(lambda i, m: m if i == 0 else m + 1e40),
    ("measure_partition", "negative moments"): moments(lambda i, m: -m),
    ("measure_partition", "moments of more rows"): moments(lambda i, m: 1e9 * m),
    ("measure_partition", "moments of another shape"): moments(lambda i, m: m[:1]),
    ("measure_partition", "moments of objects"): moments(lambda i, m: m.astype(object)),
    ("measure_partition", "a log-likelihood of 1e300"): first(log_likelihood=1e300),
    ("measure_partition", "a log-likelihood of -1e300"): first(log_likelihood=-1e300),
    ("measure_partition", "a log-likelihood of NaN"): first(log_likelihood=float("nan")),
    ("measure_partition", "a log-likelihood that runs code"): first(log_likelihood=Float(1.0)),
    ("measure_partition", "10**15 rows in the sums"): first(n_samples=10**15),
    ("measure_partition", "10**15 rows"): lambda reading: replace(
        first(n_samples=10**15)(reading), n_samples=10**15
    ),
    ("measure_partition", "10**15 rows with their sums"): lambda reading: replace(
        moments(lambda i, m: m * (10**15 / reading.n_samples))(first(n_samples=10**15)(reading)),
        n_samples=10**15,
    ),
    ("measure_partition", "the number of another partition"): lambda reading: replace(
        reading, partition=0
    ),
    ("measure_partition", "an outcome in a text"): lambda reading: replace(
        reading, outcome="failed"
    ),
    ("measure_partition", "a reason that is none"): lambda reading: replace(
        reading, outcome=Outcome.FAILED, reason=b"?"
    ),
}


@pytest.fixture(params=HOSTILE, ids=" returns ".join)
def hostile(request, monkeypatch):
    """One partition's answer to one task is replaced."""
    name, _ = request.param
    usual = getattr(tasks, name)
    position = 2 if name == "fit_pilot" else 1
    given = []

    def answer(*arguments):
        found = usual(*arguments)
        is_spoiled = arguments[position] == SPOILED and found is not None
        given.append(is_spoiled)
        return HOSTILE[request.param](found) if is_spoiled else found

    monkeypatch.setattr(tasks, name, answer)
    yield name
    assert any(given)


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning")
@pytest.mark.filterwarnings("ignore:the refinement ended early")
def test_a_fit_is_hardly_moved(undisturbed, hostile):
    """Honest partitions are as far from one another as a mixture without one of them."""
    assert mixing_distance(fit(hostile), undisturbed[hostile]) < 0.1


@pytest.mark.parametrize("what", ["a text", "NaN moments", "a log-likelihood of 1e300"])
def test_a_selection_goes_on(monkeypatch, what):
    usual = tasks.measure_partition

    def answer(loader, partition, *arguments):
        found = usual(loader, partition, *arguments)
        if partition != SPOILED:
            return found
        if what == "a text":
            return "hello"
        spoiled = {"log_likelihood": 1e300} if "1e300" in what else {"log_likelihood": np.nan}
        return replace(found, measurements=tuple(replace(m, **spoiled) for m in found.measurements))

    monkeypatch.setattr(tasks, "measure_partition", answer)
    found = select_components(
        GaussianMixture(random_state=0, on_failed="ignore"), make_ddf(M), [1, 2]
    )
    assert found.n_components == 2


@pytest.mark.parametrize(
    "tally",
    [
        7,
        None,
        {0: -3},
        {0: 1.5},
        {0: 10**30},
        type("Tally", (dict,), {"items": lambda self: 1 / 0})({0: 3}),
    ],
)
def test_malformed_numbers_of_rows_of_sources(monkeypatch, tally):
    """The partition is a source of its own, and what else there is of the others is fitted."""
    usual = by_column.count_rows
    monkeypatch.setattr(
        by_column,
        "count_rows",
        lambda loader, *more: tally if loader is first_loader(loader) else usual(loader, *more),
    )
    seen = []

    def first_loader(loader):
        seen.append(loader)
        return seen[0]

    X = make_ddf(M).assign(site=make_ddf(M).x.map_partitions(site_of, meta=("site", int)))
    report = make(source="site").fit(X).partition_report_
    assert report["outcome"].tolist() == ["fitted"] * (M - 1) + ["failed"]
    assert "its sources could not be found: malformed numbers" in report["reason"].iloc[-1]


def site_of(column):
    """Every partition is a source."""
    return column * 0 + round(abs(float(column.iloc[0])) * 1e6)


def test_the_report_says_why(monkeypatch):
    usual = tasks.measure_partition

    def answer(loader, partition, *arguments):
        return usual(loader, partition, *arguments) if partition != SPOILED else "hello"

    monkeypatch.setattr(tasks, "measure_partition", answer)
    with pytest.warns(UserWarning, match="could not be read again .*malformed statistics"):
        gm = make(refine=1).fit(make_ddf(M))
    reason = gm.partition_report_["reason"][SPOILED]
    assert "malformed statistics: no PartitionStatistics" in reason
    assert gm.support_.tolist() == [i != SPOILED for i in range(M)]


# -- the checks --------------------------------------------------------------------------------------


class TestStatistics:
    def statistics(self, wanted, **changes):
        rows = make_rows()
        found = PartitionStatistics(0, len(rows), measurements=measure(rows, [TRUTH], wanted))
        return answers.statistics(replace(found, **changes), 5, [TRUTH], wanted, 200)

    @pytest.mark.parametrize("wanted", [Wanted(), Wanted(moments=False), Wanted(entropy=True)])
    def test_consistent_ones_pass(self, wanted):
        found = self.statistics(wanted)
        assert found.is_measured
        assert found.partition == 5

    def test_one_that_has_other_rows_now(self):
        rows = make_rows(n=150)
        found = PartitionStatistics(0, 150, measurements=measure(rows, [TRUTH], Wanted()))
        checked = answers.statistics(found, 0, [TRUTH], Wanted(), 200)
        assert (checked.outcome, checked.reason) == (
            Outcome.FAILED,
            "it has 150 rows now and had 200",
        )

    def test_a_partition_without_rows(self):
        found = answers.statistics(PartitionStatistics(0), 0, [TRUTH], Wanted())
        assert found == PartitionStatistics(0)

    def test_one_that_could_not_be_measured(self):
        lost = PartitionStatistics(0, outcome=Outcome.LOST, reason="its worker died")
        assert answers.statistics(lost, 0, [TRUTH], Wanted(), 200) == lost

    def test_an_object_without_its_attributes(self):
        empty = object.__new__(PartitionStatistics)
        found = answers.statistics(empty, 0, [TRUTH], Wanted(), 200)
        assert found.outcome is Outcome.FAILED

    def test_held_out_rows(self):
        held_out = measure(make_rows(1, 50), [TRUTH], Wanted(moments=False))
        (found,) = self.statistics(Wanted(), held_out=held_out).held_out
        assert (found.n_samples, found.log_likelihood) == (50, held_out[0].log_likelihood)
        assert not self.statistics(Wanted(), held_out=held_out * 2).is_measured


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_target_follows_from_the_moments(covariance_type, offset):
    family, rows = Gaussian(covariance_type), make_rows() + offset
    mixture = make(
        covariance_type=covariance_type, n_partitions=1, init_params="k-means++", method="mr"
    )
    mixture = mixture.fit(make_frame(n=2000)).mixture_
    components = (mixture.means + offset, mixture.components[1])
    found = family.em_pass(rows, mixture.weights, components).moments
    target = family.total_target(found, components)
    for mine, direct in zip(target, family.prior_target(rows), strict=True):
        np.testing.assert_allclose(mine, direct, rtol=1e-8, atol=1e-9)


def test_the_target_of_another_family():
    family = Poisson()
    rows = np.random.default_rng(0).poisson(4.0, (100, 2)).astype(float)
    components = (np.array([[3.0, 4.0], [5.0, 4.0]]),)
    found = family.em_pass(rows, np.array([0.5, 0.5]), components).moments
    np.testing.assert_allclose(
        family.total_target(found, components)[0], family.prior_target(rows)[0]
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_no_density_exceeds_the_peaks(covariance_type):
    family = Gaussian(covariance_type)
    mixture = make(
        covariance_type=covariance_type, n_partitions=1, init_params="k-means++", method="mr"
    )
    mixture = mixture.fit(make_frame(n=2000)).mixture_
    peaks = family.log_peaks(mixture.components)
    at_means = np.diag(family.log_density(mixture.means, mixture.components))
    np.testing.assert_allclose(peaks, at_means)
    largest = logsumexp(np.log(mixture.weights) + peaks)
    assert mixture.score_samples(np.vstack([make_rows(), mixture.means])).max() <= largest


class TestPilots:
    def test_consistent_ones_pass(self):
        rows = make_rows()
        scale = answers.Scale.of(rows)
        found = answers.pilot_rows(PilotRows(rows, scale))
        assert found is not None
        np.testing.assert_array_equal(found.rows, rows)

    def test_nothing_is_nothing(self):
        problem = tasks.LocalProblem(Gaussian(), 2)
        assert answers.pilot_rows(None) is None
        assert answers.pilot_fits([None], problem) == []
        assert answers.sample(None, 10, 2) is None

    def test_starts_of_other_numbers_of_columns(self):
        """They are compared on the rows of all pilots, which therefore have one width."""
        problem = tasks.LocalProblem(Gaussian(), 2)
        narrow = Mixture([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[1.0]]])
        wide = [
            PilotFit((TRUTH.weights, TRUTH.components), make_rows(seed, 50)) for seed in range(2)
        ]
        other = PilotFit((narrow.weights, narrow.components), make_rows(3, 50)[:, :1])
        settings = tasks.FitSettings(problem, "pilot", np.random.SeedSequence(0))
        shortlist = tasks.make_shortlist([other, *wide], settings)
        assert all(components[0].shape == (2, 2) for _, components in shortlist.starts)


def test_a_pilot_whose_task_fails_is_done_without(client, monkeypatch):
    """A fault of all of them is one of the code; see tests/test_faults.py."""
    monkeypatch.setattr("dask_dfmr.on_dask.tasks.fit_pilot", faulty_once)
    with dask.config.set(scheduler="distributed"):
        assert make().fit(make_ddf(M)).n_partitions_ == M


def faulty_once(rows, scale, partition, settings):
    if partition == SPOILED:
        raise ClusterError("a fault")


# -- messages ----------------------------------------------------------------------------------------


class Silent(type):
    """A type that must not be asked anything."""

    def __eq__(cls, other):
        raise AssertionError("code of a message ran")

    def __hash__(cls):
        raise AssertionError("code of a message ran")

    def __getattribute__(cls, name):
        raise AssertionError("code of a message ran")


class Loud:
    """A name that runs code as soon as it is put into a text."""

    def __format__(self, spec):
        raise AssertionError("code of a message ran")

    __str__ = __repr__ = __format__


HOSTILE_VALUES = [
    type("Number", (np.float64,), {"__float__": Loud.__format__, "__lt__": Loud.__format__})(1.0),
    Silent("Strange", (), {})(),
    type("Odd", (), {"__module__": Loud()})(),
    Loud(),
    type("Text", (str,), {"__len__": Loud.__format__})("a"),
    type("List", (list,), {"__iter__": Loud.__format__})(),
    np.zeros(2).view(type("Rows", (np.ndarray,), {"__len__": Loud.__format__})),
    np.array([Loud()], dtype=object),
    1 + 2j,
    np.complex128(1),
]


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=range(len(HOSTILE_VALUES)))
@pytest.mark.parametrize("inside", [lambda v: v, lambda v: {"weights": v}, lambda v: [v, {"a": v}]])
def test_no_method_of_a_message_is_called(value, inside):
    assert isinstance(not_plain(inside(value)), str)


@pytest.mark.parametrize("key", [None, 1, Loud()])
def test_keys_are_texts(key):
    assert "has a key of type" in not_plain({key: 1})


def test_numbers_of_numpy_are_plain():
    kinds = (np.float64, np.float32, np.int64, np.uint8, np.bool_, np.intc, np.longlong)
    assert [not_plain(kind(1)) for kind in kinds] == [None] * len(kinds)


def test_names_of_types():
    assert type_name(dict) == "builtins.dict"
    assert type_name(Silent("Strange", (), {})) == "unknown"
