"""Collections whose graph holds Futures: whatever ``X.compute()`` can compute can be fitted."""

from __future__ import annotations

import gc

import dask
import dask.array as da
import dask.dataframe as dd
import distributed
import numpy as np
import pytest

from dask_dfmr import GaussianMixture, dfmr, mix_partitions, select_components
from tests.data_makers import make_array, make_ddf, make_frame, same_bits

M = 4
META = make_frame().iloc[:0]


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0} | kwargs)


def halved(data, factor):
    return data * factor


def halved_in_a_list(data, factors):
    return data * factors[0]["factor"]


def array_of(i):
    return make_frame(i).to_numpy()


def with_source(frame):
    return frame.assign(sensor=np.arange(len(frame)) % M)


@pytest.fixture
def frames(client):
    return [client.submit(make_frame, i, pure=False) for i in range(M)]


@pytest.fixture
def half(client):
    return client.scatter(0.5)


@pytest.fixture(scope="module")
def whole():
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf(M)).mixture_


@pytest.fixture(scope="module")
def halves():
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf(M) * 0.5).mixture_


def from_delayed(frames):
    return dd.from_delayed(frames, meta=META)


COLLECTIONS = {
    "argument of map_partitions": lambda half: make_ddf(M).map_partitions(halved, half, meta=META),
    "keyword of map_partitions": lambda half: make_ddf(M).map_partitions(
        halved, factor=half, meta=META
    ),
    "argument of map_blocks": lambda half: make_array(M).map_blocks(halved, half, dtype=float),
    "argument of Delayed": lambda half: [
        dask.delayed(halved)(dask.delayed(make_frame)(i), half) for i in range(M)
    ],
    "inside of an argument": lambda half: [
        dask.delayed(halved_in_a_list)(dask.delayed(make_frame)(i), [{"factor": half}])
        for i in range(M)
    ],
}
"""Half of the rows of make_ddf(M), by a factor that lies on the cluster."""


class TestFits:
    @pytest.mark.parametrize("name", COLLECTIONS)
    def test_a_scattered_argument(self, half, halves, name):
        found = make().fit(COLLECTIONS[name](half)).mixture_
        np.testing.assert_allclose(found.means, halves.means)

    @pytest.mark.parametrize(
        "collection",
        [
            from_delayed,
            lambda frames: [dask.delayed(frame) for frame in frames],
            lambda frames: [dask.delayed(halved)(frame, 1.0) for frame in frames],
            lambda frames: from_delayed(frames).persist() * 1.0,
        ],
        ids=["from_delayed", "Delayed", "argument", "persisted"],
    )
    def test_submitted_partitions(self, frames, whole, collection):
        assert same_bits(make().fit(collection(frames)).mixture_, whole)

    def test_submitted_arrays(self, client, whole):
        blocks = [da.from_delayed(client.submit(array_of, i), (200, 2), float) for i in range(M)]
        found = make().fit(da.concatenate(blocks)).mixture_
        np.testing.assert_array_equal(found.means, whole.means)

    def test_sources(self, client, frames):
        X = from_delayed(frames).map_partitions(with_source)
        assert make(source="sensor").fit(X).partition_report_["outcome"].tolist() == ["fitted"] * M

    def test_later_passes(self, frames):
        X = from_delayed(frames)
        gm = make(refine=1, check_optimum=0, init_params="kmeans").fit(X)
        assert gm.n_passes_ == 1
        assert len(gm.explain(X, which="all")) == M

    def test_a_selection(self, frames):
        found = select_components(GaussianMixture(random_state=0), from_delayed(frames), [1, 2])
        assert found.n_components == 2

    def test_mixed_partitions(self, frames):
        assert make().fit(mix_partitions(from_delayed(frames), 0)).n_partitions_ == M

    def test_a_lazy_fit_holds_them(self, client, whole):
        """The graph alone keeps the partitions on the cluster."""
        frames = [client.submit(make_frame, i, pure=False) for i in range(M)]
        lazy = dfmr(GaussianMixture(2, random_state=0), from_delayed(frames))
        del frames
        gc.collect()
        assert same_bits(lazy.compute().mixture, whole)


def test_predictions(client, frames, half, whole):
    gm = make(init_params=whole).fit(make_ddf(M))
    X = from_delayed(frames)
    np.testing.assert_array_equal(gm.predict(X).compute(), gm.predict(make_ddf(M)).compute())
    for name, make_collection in COLLECTIONS.items():
        labels = gm.predict(make_collection(half))
        (labels,) = dask.compute(labels)
        labels = np.concatenate(labels) if isinstance(labels, list) else labels
        assert labels.shape == (200 * M,), name
    assert gm.score(X) == pytest.approx(gm.score(make_ddf(M)), rel=1e-12)


def test_without_their_client(cluster):
    with distributed.Client(cluster) as client:
        X = from_delayed([client.submit(make_frame, i) for i in range(M)])
    with pytest.raises(ValueError, match=r"results of a cluster .* no Client is connected"):
        make().fit(X)
