"""Local estimates on disk: the same values, no pickle, gone with the object."""

import gc
import json
from pathlib import Path

import numpy as np
import pytest

from dask_dfmr import LocalEstimate, Outcome
from dask_dfmr.local.estimate import without_estimate
from dask_dfmr.mixtures.gaussian import COVARIANCE_TYPES, Gaussian
from dask_dfmr.on_dask.estimate_store import PLAIN, StoredEstimates, read_block, write_block
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
    fitted[2] = without_estimate(Outcome.NOT_FINITE, "NaN in 'ä'", 5, log_likelihood=0.0)
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
