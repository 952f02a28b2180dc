"""Attacks on rows, in memory and in lazy collections."""

from __future__ import annotations

from dataclasses import replace

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr.attacks import ATTACKS, corrupt_partitions, corrupt_rows
from dask_dfmr.attacks.on_rows import PLACEHOLDER
from dask_dfmr.seeds import seed_sequence
from tests.data_makers import (
    make_array,
    make_ddf,
    make_delayed,
    make_frame,
    make_rows,
    write_parquet,
)

NAMES = [a.name for a in ATTACKS.values() if a.kind == "rows"]
ROWS = make_rows(0, 500)


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_and_a_partition_decide_everything(name):
    first, second = (corrupt_rows(ROWS, name, random_state=1) for _ in range(2))
    assert_array_equal(first, second)
    draws = [corrupt_rows(ROWS, name, random_state=1, partition=i) for i in range(8)]
    if name not in ("truncated_file", "swapped_columns"):  # they draw nothing in two columns
        assert any(not np.array_equal(first, other) for other in draws)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_came_are_not_written_to(name):
    array, frame = ROWS.copy(), make_frame()
    spoiled = corrupt_rows(array, name, random_state=1)
    assert_array_equal(array, ROWS)
    assert not np.array_equal(spoiled, ROWS)
    corrupt_rows(frame, name, random_state=1)
    pd.testing.assert_frame_equal(frame, make_frame())


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_stays_a_frame_with_its_columns_and_dtypes(name):
    frame = make_frame().assign(
        count=np.arange(200, dtype=np.int16), name="a", seen=pd.Timestamp("2026-01-01")
    )
    spoiled = corrupt_rows(frame, name, random_state=1)
    assert list(spoiled.columns) == list(frame.columns)
    assert (spoiled.dtypes == frame.dtypes).all()
    assert spoiled.index.equals(frame.index[: len(spoiled)])
    assert_array_equal(spoiled["name"], "a")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 1])
def test_next_to_no_rows_are_no_error(name, n):
    assert corrupt_rows(ROWS[:n], name, random_state=1).shape[1] == 2


def test_integers_are_cut_off_at_their_ends():
    rows = np.full((3, 1), 100, dtype=np.int8)
    assert_array_equal(corrupt_rows(rows, "wrong_unit", random_state=0), 127)
    rows = np.full((3, 1), 2**60, dtype=np.int64)
    assert (corrupt_rows(rows, "wrong_unit", random_state=0) > 2**62).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["Int64", "Int8", "UInt16", "Float32", "float32", "uint8"])
def test_columns_of_any_dtype_keep_it(name, dtype):
    values = np.arange(100) % 90
    frame = pd.DataFrame({"x": values, "y": 89 - values}).astype(dtype)
    if dtype[0].isupper():  # they may lack values
        frame.loc[[3, 5], "x"] = pd.NA
    spoiled = corrupt_rows(frame, name, random_state=1)
    assert (spoiled.dtypes == frame.dtypes).all()
    if name in ("truncated_file", "swapped_columns"):
        assert spoiled.isna().sum().sum() == frame.iloc[: len(spoiled)].isna().sum().sum()


def test_wrong_unit_multiplies_one_column():
    spoiled = corrupt_rows(ROWS, "wrong_unit", strength=10.0, random_state=1)
    assert sorted(np.round(np.median(spoiled / ROWS, axis=0), 9)) == [1.0, 10.0]


def test_chosen_columns_alone_are_spoiled():
    spoiled = corrupt_rows(ROWS, "wrong_unit", columns=[1], random_state=1)
    assert_array_equal(spoiled, ROWS * [1.0, 1000.0])
    frame = corrupt_rows(make_frame(), "wrong_unit", columns=["y"], random_state=1)
    assert_allclose(frame["y"], make_frame()["y"] * 1000)


def test_swapped_columns():
    assert_array_equal(corrupt_rows(ROWS, "swapped_columns"), ROWS[:, ::-1])


def test_placeholders_stand_in_one_column_of_a_share_of_the_rows():
    spoiled = corrupt_rows(ROWS, "placeholder", strength=0.2, random_state=1)
    shares = np.sort((spoiled == PLACEHOLDER).mean(axis=0))
    assert shares[0] == 0
    assert 0.1 < shares[1] < 0.3
    assert_array_equal(spoiled[spoiled != PLACEHOLDER], ROWS[spoiled != PLACEHOLDER])


def test_shuffled_columns_keep_their_values_and_lose_their_correlation():
    rows = np.random.default_rng(0).standard_normal((500, 1)) + np.array([[0.0, 5.0]])
    spoiled = corrupt_rows(rows, "shuffled_columns", random_state=1)
    assert_array_equal(np.sort(spoiled, axis=0), np.sort(rows, axis=0))
    assert abs(np.corrcoef(spoiled.T)[0, 1]) < 0.2


@pytest.mark.parametrize(("share", "left"), [(0.0, 500), (0.95, 25), (1.0, 0), (7.0, 0)])
def test_truncated_files_keep_their_first_rows(share, left):
    spoiled = corrupt_rows(ROWS, "truncated_file", strength=share)
    assert_array_equal(spoiled, ROWS[:left])


def test_stuck_sensors_repeat_a_value():
    spoiled = corrupt_rows(ROWS, "stuck_sensor", strength=0.5, random_state=1)
    assert sorted(len(np.unique(column)) for column in spoiled[250:].T) == [1, 250]
    assert_array_equal(spoiled[:250], ROWS[:250])


def test_other_populations_are_as_far_off_as_is_said_and_agree_on_where():
    first, second = (
        corrupt_rows(ROWS, "other_population", strength=3.0, random_state=1, partition=i)
        for i in (0, 1)
    )
    for spoiled in (first, second):
        shift = (spoiled.mean(axis=0) - ROWS.mean(axis=0)) / ROWS.std(axis=0)
        assert_allclose(np.abs(shift), 3.0, atol=0.2)
    assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=0.5)


def test_values_that_are_missing_are_no_obstacle():
    rows = ROWS.copy()
    rows[3, 0], rows[:, 1] = np.inf, np.nan
    for name in NAMES:
        corrupt_rows(rows, name, random_state=1)


# -- collections ---------------------------------------------------------------------------------


def parts_of(X):
    if isinstance(X, dd.DataFrame):
        return [part.to_numpy() for part in dask.compute(*X.to_delayed())]
    if isinstance(X, da.Array):
        return list(dask.compute(*X.to_delayed().ravel()))
    return [np.asarray(part) for part in dask.compute(*X)]


COLLECTIONS = {
    "frame": make_ddf,
    "array": make_array,
    "delayed": make_delayed,
    "in memory": lambda m: [make_frame(i) for i in range(m)],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", COLLECTIONS)
def test_bad_partitions_are_what_corrupt_rows_makes_of_them(kind, name):
    X = COLLECTIONS[kind](6)
    spoiled, is_bad = corrupt_partitions(X, name, 0.4, random_state=3)
    assert type(spoiled) is type(X)
    assert is_bad.sum() == 2
    for i, (part, bad) in enumerate(zip(parts_of(spoiled), is_bad, strict=True)):
        expected = make_rows(i)
        if bad:
            expected = corrupt_rows(expected, name, random_state=seed_sequence(3), partition=i)
        assert_array_equal(part, expected)


@pytest.mark.parametrize("kind", ["frame", "array"])
def test_collections_stay_lazy(kind, raise_if_dask_computes):
    X = COLLECTIONS[kind](6)
    with raise_if_dask_computes():
        spoiled, _ = corrupt_partitions(X, "wrong_unit", 0.4, random_state=3)
    if kind == "frame":
        assert spoiled.npartitions == 6
        assert list(spoiled.columns) == ["x", "y"]


def test_the_draw_does_not_depend_on_the_kind_of_collection():
    draws = [
        corrupt_partitions(make(6), "wrong_unit", 0.4, 3).is_bad for make in COLLECTIONS.values()
    ]
    for draw in draws[1:]:
        assert_array_equal(draw, draws[0])


def test_an_attack_of_the_users_own_needs_no_entry_in_the_catalogue():
    def negated(rows, strength, shared, own):
        """The sign is lost."""
        return -strength * rows

    own = replace(ATTACKS["wrong_unit"], name="negated", strength=1.0, effect=negated)
    assert_array_equal(corrupt_rows(ROWS, own), -ROWS)
    spoiled, is_bad = corrupt_partitions(make_ddf(6), own, 0.2, random_state=0)
    for i, (part, bad) in enumerate(zip(parts_of(spoiled), is_bad, strict=True)):
        assert_array_equal(part, -make_rows(i) if bad else make_rows(i))


# -- bad input -----------------------------------------------------------------------------------


def test_other_collections_are_named():
    with pytest.raises(TypeError, match=r"X must be a dask DataFrame.*got ndarray"):
        corrupt_partitions(ROWS, "wrong_unit", 0.4)
    with pytest.raises(TypeError, match=r"rows must be a pandas DataFrame.*got list"):
        corrupt_rows([1, 2], "wrong_unit")


def test_arrays_cut_along_their_columns_are_named():
    with pytest.raises(ValueError, match="one chunk of columns"):
        corrupt_partitions(make_array().rechunk((200, 1)), "wrong_unit", 0.4)


def test_attacks_on_estimates_are_not_on_rows():
    with pytest.raises(ValueError, match="'mean' is one on estimates"):
        corrupt_rows(ROWS, "mean")
    with pytest.raises(ValueError, match="'mean' is one on estimates"):
        corrupt_partitions(make_ddf(), "mean", 0.4)


def test_columns_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"columns must be columns of the rows; got \['z'\]"):
        corrupt_rows(make_frame(), "wrong_unit", columns=["z"])


def test_an_attack_that_needs_columns_says_so():
    with pytest.raises(
        ValueError, match="'swapped_columns' needs at least 2 numerical columns; got 1"
    ):
        corrupt_rows(ROWS[:, :1], "swapped_columns")
    with pytest.raises(ValueError, match="'wrong_unit' needs at least 1 numerical columns; got 0"):
        corrupt_rows(pd.DataFrame({"a": ["x"]}), "wrong_unit")


def test_partitions_of_a_projected_parquet_frame_are_not_merged(tmp_path):
    paths = write_parquet(tmp_path, 12, n_more_columns=28, n=20)
    X = dd.read_parquet(paths)[["x", "y"]] * 1.0
    with dask.config.set(scheduler="synchronous"):
        spoiled, is_bad = corrupt_partitions(X, "wrong_unit", 0.25, random_state=0)
        frames = dask.compute(*spoiled.to_delayed())
    assert is_bad.sum() == 3
    assert [bool((frame.abs() > 100).to_numpy().any()) for frame in frames] == is_bad.tolist()
