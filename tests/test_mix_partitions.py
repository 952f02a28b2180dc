"""Mixing partitions: every row is there once, every new partition is a sample of several old ones."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dfmr import GaussianMixture, HeterogeneityWarning, mix_partitions
from tests.data_makers import TRUTH, make_ddf, make_frame, write_parquet


def sorted_rows(m=8, n=200):
    """Rows sorted by x, so that every partition has values of its own."""
    frame = pd.concat([make_frame(i, n) for i in range(m)]).sort_values("x")
    return dd.from_pandas(frame.assign(old=np.arange(m * n) // n), npartitions=m, sort=False)


@pytest.mark.parametrize("n_pieces", [None, 1, 3, 8])
def test_every_row_is_there_exactly_once(n_pieces):
    X = sorted_rows()
    mixed = mix_partitions(X, random_state=0, n_pieces=n_pieces)
    assert mixed.npartitions == 8
    pd.testing.assert_frame_equal(mixed.compute().sort_index(), X.compute().sort_index())


@pytest.mark.parametrize("n_pieces", [1, 3, 8])
def test_every_new_partition_has_as_many_rows_of_each_of_so_many_old_ones(n_pieces):
    for part in mix_partitions(sorted_rows(), 0, n_pieces).partitions:
        counts = part.compute()["old"].value_counts()
        assert len(counts) == n_pieces
        assert counts.max() - counts.min() <= 1
        assert 200 // n_pieces in counts.to_list()


def test_pieces_are_random_samples():
    """Not the first rows of one partition, and not in their order."""
    X = sorted_rows()
    position = pd.Series(np.tile(np.arange(200), 8), index=X.compute().index)
    part = mix_partitions(X, 0, 2).partitions[3].compute()
    places = position[part.index].to_numpy()
    assert places.min() < 20
    assert places.max() > 180
    assert abs(np.corrcoef(places, np.arange(200))[0, 1]) < 0.3


def test_partitions_of_unequal_sizes_and_none():
    frames = [make_frame(0, 3), make_frame(1).iloc[:0], make_frame(2, 100)]
    X = dd.from_map(lambda i: frames[i], range(3), meta=frames[0])
    mixed = mix_partitions(X, 0)
    expected = pd.concat(frames).sort_index()
    pd.testing.assert_frame_equal(mixed.compute().sort_index(), expected)


def test_same_seed_same_partitions_on_every_scheduler(client):
    def parts(**kwargs):
        with dask.config.set(**kwargs):
            return [part.compute() for part in mix_partitions(make_ddf(4), 5).partitions]

    expected = parts(scheduler="synchronous")
    for other in (parts(scheduler="threads"), parts()):
        for a, b in zip(expected, other, strict=True):
            pd.testing.assert_frame_equal(a, b)
    assert not expected[0].equals(mix_partitions(make_ddf(4), 6).partitions[0].compute())


def test_nothing_is_computed(raise_if_dask_computes):
    with raise_if_dask_computes():
        assert list(mix_partitions(make_ddf(4)).columns) == ["x", "y"]


def test_files_are_not_merged(tmp_path):
    X = dd.read_parquet(write_parquet(tmp_path, 6, n_more_columns=30))[["x", "y"]]
    mixed = mix_partitions(X, 0)
    assert mixed.npartitions == 6
    assert [len(part) for part in mixed.partitions] == [200] * 6


@pytest.mark.filterwarnings("ignore::dask_dfmr.PartitionWarning")
@pytest.mark.filterwarnings("ignore:partitions differ so much:dask_dfmr.FilterWarning")
def test_a_fit_of_sorted_rows():
    X = sorted_rows()[["x", "y"]]
    with pytest.warns(HeterogeneityWarning, match="mix_partitions"):
        plain = GaussianMixture(2, random_state=0).fit(X)
    mixed = GaussianMixture(2, random_state=0).fit(mix_partitions(X, 0))
    assert mixed.aggregate_.decision.radius < plain.aggregate_.decision.radius / 3
    np.testing.assert_allclose(mixed.means_, TRUTH.means, atol=0.3)
    assert mixed.partition_report_["n_samples"].tolist() == [200] * 8


def test_what_is_refused():
    with pytest.raises(TypeError, match="dask DataFrame; got a DataFrame"):
        mix_partitions(make_frame())
    for n_pieces in (0, 7, 1.5):
        with pytest.raises(ValueError, match="n_pieces must be"):
            mix_partitions(make_ddf(6), n_pieces=n_pieces)
