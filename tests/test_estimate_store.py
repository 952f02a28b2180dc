"""Local estimates on disk: the same values, no pickle, gone with the object."""

import copy
import gc
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dask_dfmr import LocalEstimate, Outcome
from dask_dfmr.local.estimate import without_estimate
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.on_dask.estimate_store import PLAIN, StoredEstimates, read_block, write_block
from dask_dfmr.on_dask.tasks import estimate_of, report_rows
from tests.strategies import random_mixture

pytestmark = pytest.mark.smoke


def some(n=7):
    """Estimates of every covariance type, and one outcome without a mixture."""
    fitted = [
        LocalEstimate(
            random_mixture(i, covariance_type=COVARIANCE_TYPES[i % 4], names=["ä", "b/c"]),
            100 + i,
            partition=i,
            source=f"part-{i}.csv",
            n_iter=i,
            log_likelihood=-1.5 / 7,
        )
        for i in range(n)
    ]
    reason = "NaN in 'ä'"
    fitted[2] = without_estimate(Outcome.NOT_FINITE, reason, 5, partition=2, log_likelihood=0.0)
    return fitted


def stored(estimates, block_size):
    on_disk = StoredEstimates(len(estimates), block_size, Gaussian())
    for block, start in enumerate(range(0, len(estimates), block_size)):
        messages = [e.to_arrays() for e in estimates[start : start + block_size]]
        write_block(messages, on_disk.path(block))
    return on_disk


@pytest.mark.parametrize("block_size", [1, 3, 7, 50])
def test_what_is_read_is_what_was_written(block_size):
    estimates = some()
    assert list(stored(estimates, block_size)) == estimates


def test_it_is_indexed_like_a_sequence():
    estimates = some()
    on_disk = stored(estimates, 3)
    assert len(on_disk) == 7
    assert on_disk[-1] == estimates[-1]
    assert on_disk[1:6:2] == estimates[1:6:2]
    assert on_disk[2].mixture is None
    with pytest.raises(IndexError):
        on_disk[7]


def test_an_unknown_log_likelihood_survives(tmp_path):
    path = write_block(
        [without_estimate(Outcome.LOST, "gone").to_arrays()], str(tmp_path / "b.npz")
    )
    assert np.isnan(LocalEstimate.from_arrays(read_block(path)[0]).log_likelihood)


def test_the_files_hold_no_pickle(tmp_path):
    path = write_block([e.to_arrays() for e in some()], str(tmp_path / "b.npz"))
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[name] for name in file.files if name != PLAIN]
        assert len(arrays) == 3 * 6
        assert all(array.dtype == float for array in arrays)
        assert isinstance(json.loads(file[PLAIN]), list)


def test_an_empty_block_is_empty(tmp_path):
    assert read_block(write_block([], str(tmp_path / "b.npz"))) == []


def test_the_files_go_with_the_object():
    on_disk = stored(some(), 3)
    folder, first, text = Path(on_disk.path(0)).parent, on_disk[0], repr(on_disk)
    assert len(list(folder.iterdir())) == 3
    assert first.is_usable
    assert str(folder) in text
    del on_disk
    gc.collect()
    assert not folder.exists()


GOOD = LocalEstimate(random_mixture(0), 100).to_arrays()


@pytest.mark.parametrize(
    "field",
    [
        {"../../x": np.ones(2)},
        {"": np.ones(2)},
        {"a" * 60: np.ones(2)},
        {"\ud800": np.ones(2)},
        {"extra": np.complex128(1j)},
        {"extra": 10**5000},
        {"extra": np.longdouble(1)},
        {"weights": np.ones(3, dtype=complex)},
        {"means": "text"},
        {"log_likelihood": 10**5000},
        {"n_iter": 10**5000},
        {"n_samples": -1},
        {"outcome": "failed"},
        {"reason": "\ud800"},
        {"source": "\udcff.csv"},
        None,
    ],
    ids=range(16),
)
def test_a_malformed_message_costs_its_own_partition_alone(tmp_path, field):
    odd = None if field is None else GOOD | field
    path = write_block([GOOD, odd, GOOD], str(tmp_path / "b.npz"))
    found = [estimate_of(message, None, i) for i, message in enumerate(read_block(path))]
    in_memory = [estimate_of(message, None, i) for i, message in enumerate([GOOD, odd, GOOD])]
    assert [e.is_usable for e in found] == [True, False, True]
    assert [e.reason for e in found] == [e.reason for e in in_memory]
    assert all(isinstance(row["reason"], str) for row in report_rows([GOOD, odd, GOOD]))
    assert report_rows([odd])[0]["n_samples"] < 2**62


def test_the_partition_is_that_of_the_place_and_not_of_the_message():
    estimates = [replace(e, partition=99) for e in some()]
    assert [e.partition for e in stored(estimates, 3)] == list(range(7))


@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_a_copy_survives_the_original(twin):
    on_disk = stored(some(), 3)
    other = twin(on_disk)
    del on_disk
    gc.collect()
    assert list(other) == some()
    folder = Path(other.path(0)).parent
    del other
    gc.collect()
    assert not folder.exists()
