"""Which rows count in ``score``, ``bic`` and ``aic``: those of the kept partitions, if X is the data of the fit."""

import copy
import pickle

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import GaussianMixture, select_components

N, N_ROWS, BAD = 12, 240, 3
MEANS = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


def parts(bad=(BAD,), factor=1000.0):
    rng = np.random.default_rng(1)
    found = [rng.normal(size=(N_ROWS, 2)) + MEANS[rng.integers(0, 3, N_ROWS)] for _ in range(N)]
    return [factor * X if i in bad else X for i, X in enumerate(found)]


PARTS = parts()
ALL, KEPT = np.concatenate(PARTS), np.concatenate(PARTS[:BAD] + PARTS[BAD + 1 :])
FRAME = pd.DataFrame(ALL, columns=["x", "y"])
SOURCES = FRAME.assign(sensor=np.repeat(np.arange(N), N_ROWS)).sample(frac=1, random_state=0)


def make(**parameters):
    return GaussianMixture(**{"n_components": 3, "random_state": 0} | parameters)


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module", name="X")
def data():
    return da.from_array(ALL, chunks=(N_ROWS, 2))


@pytest.fixture(scope="module")
def fitted(X):
    with dask.config.set(scheduler="synchronous"):
        gm = make().fit(X)
    assert gm.support_.sum() == N - 1
    return gm


@pytest.mark.parametrize(
    ("make_data", "parameters"),
    [
        (lambda: da.from_array(ALL, chunks=(N_ROWS, 2)), {}),
        (lambda: dd.from_pandas(FRAME, npartitions=N), {}),
        (lambda: PARTS, {}),
        (lambda: [dask.delayed(part, pure=True) for part in PARTS], {}),
        (lambda: ALL, {"n_partitions": N}),
        (lambda: FRAME, {"n_partitions": N}),
        (lambda: dd.from_pandas(SOURCES, npartitions=2, sort=False), {"source": "sensor"}),
    ],
    ids=["array", "frame", "list", "Delayed", "rows", "table", "sources"],
)
def test_rows_of_excluded_partitions_do_not_count(make_data, parameters):
    gm = make(**parameters).fit(make_data())
    expected, X = gm.mixture_.score_samples(KEPT), make_data()
    total, n, p = expected.sum(), len(KEPT), gm.mixture_.n_parameters
    scale = len(ALL) / len(KEPT)
    assert gm.score(X) == pytest.approx(total / n, rel=1e-9)
    assert gm.bic(X) == pytest.approx(scale * (p * np.log(n) - 2 * total), rel=1e-9)
    assert gm.aic(X) == pytest.approx(scale * 2 * (p - total), rel=1e-9)
    if "source" not in parameters:
        assert gm.score(X, rows="all") == pytest.approx(gm.mixture_.score_samples(ALL).mean())


class TestLoop:
    def test_finds_the_number_of_components(self, X):
        found = [make(n_components=k).fit(X).bic(X) for k in range(1, 5)]
        assert np.argmin(found) + 1 == 3

    @pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning")
    def test_fits_that_keep_different_partitions_compare_per_row(self, X):
        """The smaller one keeps half of the rows: by the sum over its own rows alone it would be the better one."""
        small = make(n_components=1, false_exclusion_rate=0.4).fit(X)
        large = make().fit(X)
        n_small, n_large = (gm.support_.sum() * N_ROWS for gm in (small, large))
        assert n_small < 0.8 * n_large
        assert small.bic(X) * n_small / len(ALL) < large.bic(X) * n_large / len(ALL)
        assert small.bic(X) > large.bic(X)

    def test_agrees_with_the_selection(self, X):
        found = select_components(make(), X, range(1, 5))
        assert found.n_components == 3
        gm = found.estimator
        assert gm.score(X) == pytest.approx(gm.mixture_.score_samples(KEPT).mean())


class TestOtherData:
    def test_all_rows_count(self, fitted):
        new = parts(())[0]
        own = fitted.mixture_.score_samples(new)
        p = fitted.mixture_.n_parameters
        assert fitted.score(new) == pytest.approx(own.mean())
        assert fitted.bic(new) == pytest.approx(p * np.log(N_ROWS) - 2 * own.sum())
        assert fitted.aic(new) == pytest.approx(2 * p - 2 * own.sum())

    def test_the_kept_rows_of_a_copy(self, X, fitted):
        own = X + 0.0
        assert fitted.score(own) == pytest.approx(fitted.mixture_.score_samples(ALL).mean())
        assert fitted.score(own, rows="kept") == fitted.score(X)

    def test_other_partitions(self, X, fitted):
        with pytest.raises(
            ValueError, match="X must be the data of the fit, in 12 partitions; got 6"
        ):
            fitted.bic(X.rechunk((2 * N_ROWS, 2)), rows="kept")

    def test_the_same_array_changed_since(self):
        own = ALL.copy()
        gm = make(n_partitions=N).fit(own)
        assert gm.score(own) > -10
        own += 1e-3
        assert gm.score(own) == pytest.approx(gm.mixture_.score_samples(own).mean())

    def test_after_an_update(self, X, fitted):
        gm = make().fit(X).update([fitted.mixture_.sample(N_ROWS, 5)[0]])
        assert gm.score(X) == pytest.approx(gm.mixture_.score_samples(ALL).mean())

    def test_without_exclusions_as_in_scikit_learn(self):
        own = np.concatenate(parts(()))
        gm = make(n_partitions=N).fit(own)
        assert gm.support_.all()
        assert gm.bic(own) == pytest.approx(gm.mixture_.to_sklearn().bic(own))
        assert gm.aic(own) == pytest.approx(gm.mixture_.to_sklearn().aic(own))


class TestPlumbing:
    def test_a_partition_that_cannot_be_read_is_not_read(self):
        def broken():
            raise OSError("gone")

        own = [dask.delayed(part, pure=True) for part in PARTS]
        own[5] = dask.delayed(broken, pure=True)()
        gm = make(on_failed="ignore").fit(own)
        assert not gm.support_[5]
        assert -10 < gm.score(own) < 0

    def test_a_kept_partition_that_cannot_be_read_any_more(self, fitted):
        own = [dask.delayed(part) for part in PARTS]
        own[7] = dask.delayed(PARTS[7][:0])
        with pytest.raises(ValueError, match="partition 7 of X cannot be scored: it has no rows"):
            fitted.score(own, rows="kept")

    def test_omitted_rows_do_not_count(self):
        own = [part.copy() for part in PARTS]
        own[0][5] = np.nan
        gm = make(nan_policy="omit").fit(own)
        rows = KEPT[np.arange(len(KEPT)) != 5]
        assert gm.score(own) == pytest.approx(gm.mixture_.score_samples(rows).mean())

    def test_copies_know_the_data(self, X, fitted):
        for gm in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
            assert gm.score(X) == fitted.score(X)

    def test_a_generator_is_not_drawn_from(self, X):
        rng = np.random.default_rng(0)
        gm = make(random_state=rng).fit(X)
        before = rng.bit_generator.state
        gm.score(X)
        assert rng.bit_generator.state == before

    def test_the_argument_is_checked(self, X, fitted):
        for method in (fitted.score, fitted.bic, fitted.aic):
            with pytest.raises(ValueError, match=r"rows must be .*got 'some'"):
                method(X, rows="some")
