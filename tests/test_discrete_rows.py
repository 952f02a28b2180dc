"""Rows that are no Gaussian mixture: few distinct values, heavy tails, tight clusters, too many components.

Every kind has consistent partitions, which stay, and the same with a fifth of inconsistent ones, which do not.
"""

import numpy as np
import pytest

from dask_dfmr import (
    FilterWarning,
    HeterogeneityWarning,
    LocalEstimate,
    Mixture,
    NoMajorityWarning,
    aggregate,
    fit_local,
)
from dask_dfmr.aggregation.groups import beyond_chance, copies_of, df_of_quantiles, observed_df
from dask_dfmr.aggregation.null_law import Law, chi_square_law
from dask_dfmr.aggregation.reasons import Copy

pytestmark = pytest.mark.usefixtures("coarse_laws")

MEANS = np.array([[0.0, 0.0, 0.0], [4.0, 1.0, -2.0], [-2.0, 4.0, 1.0]])


def normal(n, rng):
    """Three components of normal rows."""
    return MEANS[rng.choice(3, n, p=[0.4, 0.35, 0.25])] + rng.normal(size=(n, 3))


def zero_one(n, rng):
    """Two classes of four 0/1 columns."""
    p = np.array([[0.2, 0.7, 0.5, 0.8], [0.8, 0.3, 0.6, 0.15]])
    return (rng.uniform(size=(n, 4)) < p[rng.choice(2, n)]).astype(float)


def one_zero_one(n, rng):
    """One 0/1 column, whose estimates coincide all the time."""
    return (rng.uniform(size=(n, 1)) < 0.4).astype(float)


def rare(n, rng):
    """0/1 columns of rare categories."""
    return (rng.uniform(size=(n, 3)) < [0.02, 0.03, 0.4]).astype(float)


def mixed(n, rng):
    """A 0/1 column beside normal ones."""
    X = normal(n, rng)
    X[:, 2] = rng.uniform(size=n) < 0.3
    return X


def small_integers(n, rng):
    return rng.poisson(np.array([[1.0, 5.0], [6.0, 2.0]])[rng.choice(2, n)]).astype(float)


def skewed_counts(n, rng):
    return rng.poisson(rng.gamma(0.6, 300.0, n)[:, None] * [0.3, 0.6, 1.0]).astype(float)


def grid(n, rng):
    return np.round(2 * normal(n, rng)) / 2


def tight(n, rng):
    """Ten clusters far apart."""
    centers = np.random.default_rng(1).uniform(0, 50, (10, 2))
    return centers[rng.choice(10, n)] + 0.02 * rng.normal(size=(n, 2))


def heavy_tails(n, rng):
    return 3.0 * MEANS[rng.choice(3, n)] + rng.standard_t(3, size=(n, 3))


def lognormal(n, rng):
    return np.exp(rng.normal(size=(n, 3)) @ [[1.0, 0.4, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 0.8]])


def zero_inflated(n, rng):
    return np.where(rng.uniform(size=(n, 2)) < 0.4, 0.0, np.exp(rng.normal(size=(n, 2))))


def correlated(n, rng):
    X = normal(n, rng)
    return np.c_[X, X[:, :1] + 0.05 * rng.normal(size=(n, 1))]


KINDS = {
    normal: 3,
    zero_one: 2,
    one_zero_one: 1,
    rare: 1,
    mixed: 3,
    small_integers: 2,
    skewed_counts: 3,
    grid: 3,
    tight: 10,
    heavy_tails: 3,
    lognormal: 3,
    zero_inflated: 2,
    correlated: 3,
}
FEW_VALUES = [zero_one, one_zero_one, mixed, tight]
"""Kinds of which the law of continuous rows says that consistent partitions are copies."""


def fits(draw, m=24, n=500, change=None, n_changed=0, n_components=None, seed=0):
    """Local estimates of m partitions, all from the fit of other rows of the same population."""
    rng = np.random.default_rng(seed)
    n_components = n_components or KINDS[draw]
    start = fit_local(draw(5000, rng), n_components, random_state=0).mixture
    found = []
    for i in range(m):
        X = draw(n, rng)
        found.append(fit_local(change(X) if i < n_changed else X, n_components, start=start))
    return [e for e in found if e.is_usable]


def doubts(result):
    return [
        note.message for note in result.notes if issubclass(note.category, HeterogeneityWarning)
    ]


@pytest.fixture(scope="module", params=KINDS, ids=lambda draw: draw.__name__)
def kind(request, coarse_laws):
    return request.param, fits(request.param)


class TestConsistentPartitions:
    @pytest.mark.filterwarnings("ignore::dask_dfmr.FilterWarning")
    @pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
    def test_hardened_keeps_them_or_says_its_doubt(self, kind):
        draw, estimates = kind
        result = aggregate(estimates, method="hardened", random_state=0)
        n_lost = int((~result.decision.kept).sum())
        assert n_lost <= 1 or doubts(result)
        assert not [r for r in result.decision.reasons.values() if isinstance(r, Copy)]
        if draw in FEW_VALUES:
            assert n_lost == 0

    @pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
    @pytest.mark.filterwarnings("ignore:partitions differ so much:dask_dfmr.FilterWarning")
    def test_they_are_no_copies(self, kind):
        result = aggregate(kind[1], random_state=0)
        assert not [note for note in result.notes if "copies" in note.message]


def ten_times(X):
    X = X.copy()
    X[:, 0] *= 10
    return X


def swapped(X):
    return X[:, ::-1]


def in_another_unit(X):
    return 1000.0 * X


def of_others(X):
    """Another population of the same values."""
    return X.max(axis=0) - X


class TestInconsistentPartitions:
    @pytest.mark.filterwarnings("ignore::dask_dfmr.FilterWarning")
    @pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
    @pytest.mark.parametrize("change", [ten_times, swapped, in_another_unit, of_others])
    @pytest.mark.parametrize("draw", [zero_one, mixed, skewed_counts, grid, tight])
    def test_a_fifth_of_them_is_excluded(self, draw, change):
        estimates = fits(draw, 20, change=change, n_changed=4)
        result = aggregate(estimates, method="hardened", random_state=0)
        kept = result.decision.kept
        assert not kept[: len(estimates) - 16].any()
        assert kept[-16:].sum() >= 15 or doubts(result)


# -- copies ----------------------------------------------------------------------------------------


class TestCopies:
    @pytest.mark.parametrize("draw", [zero_one, mixed, tight])
    def test_many_of_few_values_are_found(self, draw):
        estimates = fits(draw, 16)
        estimates += [estimates[2]] * 8
        with pytest.warns(FilterWarning, match="2, 16, 17, 18, 19, 20, 21, 22, 23 are copies"):
            aggregate(estimates, random_state=0)
        decision = aggregate(estimates, method="hardened", random_state=0).decision
        assert decision.kept[[2, *range(16, 24)]].sum() == 1
        assert decision.kept.sum() == 16

    def test_one_equal_pair_of_a_single_column_may_be_chance(self):
        law, n = Law(1.0, 2.0), 40
        parameters = np.random.default_rng(0).normal(size=(n, 1))
        parameters[1] = parameters[0]
        parameters = np.c_[parameters, parameters]
        distances = np.abs(np.subtract.outer(parameters[:, 0], parameters[:, 0]))
        assert copies_of(distances, law, parameters, 400) == []
        parameters[1:20] = parameters[0]
        distances = np.abs(np.subtract.outer(parameters[:, 0], parameters[:, 0]))
        assert copies_of(distances, law, parameters, 400) == [list(range(20))]

    def test_a_copy_repeats_all_parameters(self):
        rng = np.random.default_rng(0)
        parameters = rng.normal(size=(12, 6))
        distances = np.sqrt(((parameters[:, None] - parameters) ** 2).sum(axis=2))
        distances[3, 7] = distances[7, 3] = 0.0
        assert copies_of(distances, chi_square_law(6), parameters, 1e6) == []
        parameters[3] = parameters[7]
        assert copies_of(distances, chi_square_law(6), parameters, 1e6) == [[3, 7]]

    def test_other_near_pairs_show_that_pairs_are_near(self):
        squares = np.ones((20, 20)) - np.eye(20)
        pairs = [np.array([i, i + 1]) for i in range(0, 12, 2)]
        for pair in pairs:
            squares[np.ix_(pair, pair)] = 0.3 * (1 - np.eye(2))
        assert len(beyond_chance(pairs[:1], squares, 0.3, 20.0, 1e4)) == 1
        assert beyond_chance(pairs, squares, 0.3, 20.0, 1e4) == []
        # Near is another thing than equal.
        squares[0, 1] = squares[1, 0] = 1e-6
        assert [g.tolist() for g in beyond_chance(pairs, squares, 0.3, 20.0, 1e4)] == [[0, 1]]

    @pytest.mark.filterwarnings("ignore:. usable estimates:dask_dfmr.FilterWarning")
    @pytest.mark.parametrize("m", [2, 3, 8])
    def test_all_the_same_is_said(self, m):
        (one,) = fits(normal, 1)
        with pytest.warns(NoMajorityWarning, match="are copies of one another"):
            aggregate([one] * m)


class TestDegreesOfFreedom:
    @pytest.mark.parametrize("df", [1, 4, 30, 200])
    def test_of_quantiles(self, df):
        low, high = chi_square_law(df).ppf(np.array([0.2, 0.6]))
        assert df_of_quantiles(low, high, np.array([0.2, 0.6])) == pytest.approx(df, rel=0.15)
        assert df_of_quantiles(high, high, np.array([0.2, 0.6])) == np.inf

    @pytest.mark.parametrize("df", [2, 9, 60])
    def test_of_pairs(self, df):
        found = []
        for seed in range(30):
            points = np.random.default_rng(seed).normal(size=(30, df))
            found.append(observed_df(((points[:, None] - points) ** 2).sum(axis=2)))
        assert np.median(found) == pytest.approx(df, rel=0.2)
        assert observed_df(np.ones((3, 3))) == np.inf


# -- few partitions --------------------------------------------------------------------------------


SMALL = Mixture([0.6, 0.4], [[0.0, 0.0], [3.0, 1.0]], [np.eye(2), 0.5 * np.eye(2)])


def small_fits(m, seed, changed=None):
    """Fits of m partitions of 1,000 rows; the last one is changed."""
    rng = np.random.default_rng(seed)
    rows = [SMALL.family.sample(1000, SMALL.weights, SMALL.components, rng)[0] for _ in range(m)]
    if changed is not None:
        rows[-1] = changed(rows[-1])
    return [fit_local(X, 2, start=SMALL) for X in rows]


def of_one_column(m, seed):
    """Means and variances of single normal columns."""
    X = np.random.default_rng(seed).normal(size=(m, 1000))
    return [LocalEstimate(Mixture([1.0], [[x.mean()]], [[[x.var()]]]), 1000) for x in X]


def constant_but_one(X):
    return np.c_[X[:, 0], np.full(len(X), X[0, 1])]


class TestFewPartitions:
    @pytest.mark.parametrize("make", [of_one_column, small_fits])
    def test_consistent_ones_are_kept(self, make):
        lost = 0
        for m in (4, 5, 6, 8, 12):
            for seed in range(12):
                result = aggregate(make(m, seed), method="hardened", random_state=0)
                lost += not result.decision.kept.all()
        assert lost <= 2  # of 60

    @pytest.mark.parametrize("m", [4, 6, 10])
    @pytest.mark.parametrize("changed", [ten_times, swapped, in_another_unit, of_others])
    def test_one_inconsistent_is_excluded(self, m, changed):
        decision = aggregate(small_fits(m, 1, changed), method="hardened", random_state=0).decision
        assert not decision.kept[-1]
        assert decision.kept[:-1].all()

    @pytest.mark.filterwarnings("ignore:3 usable estimates:dask_dfmr.FilterWarning")
    @pytest.mark.filterwarnings("ignore:method='hardened' does not apply:dask_dfmr.FilterWarning")
    @pytest.mark.parametrize("m", [4, 6])
    def test_a_constant_column_gives_no_estimate(self, m):
        decision = aggregate(
            small_fits(m, 2, constant_but_one), method="hardened", random_state=0
        ).decision
        assert not decision.kept[-1]
        assert decision.kept[:-1].all()


# -- more components than rows show ----------------------------------------------------------------


class TestTooManyComponents:
    def estimates(self, seed=0):
        def one_gaussian(n, rng):
            return rng.normal(size=(n, 8))

        return fits(one_gaussian, 20, 600, n_components=4, seed=seed)

    def test_the_remedy_is_named(self):
        with pytest.warns(UserWarning, match="fewer components") as caught:
            aggregate(self.estimates(), random_state=0)
        assert not [w for w in caught if issubclass(w.category, NoMajorityWarning)]
        assert not [w for w in caught if "inconsistent" in str(w.message)]

    @pytest.mark.filterwarnings("ignore:method='hardened' does not apply:dask_dfmr.FilterWarning")
    def test_so_it_is_by_the_hardened_filter(self):
        with pytest.warns(UserWarning, match="fewer components") as caught:
            aggregate(self.estimates(), method="hardened", random_state=0)
        assert not [w for w in caught if issubclass(w.category, NoMajorityWarning)]
