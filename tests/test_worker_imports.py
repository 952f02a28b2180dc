"""What a process that computes the tasks of a fit imports: arrays and Dask, and no library for rare paths."""

from __future__ import annotations

import os
import subprocess
import sys

import cloudpickle
import dask
import dask.dataframe as dd
import pytest

from dask_dfmr import GaussianMixture, dfmr
from tests.data_makers import make_array, write_parquet

HEAVY = ("sklearn", "scipy.stats", "narwhals", "distributed", "rich", "matplotlib", "numba")
"""Libraries that a worker does without. numba is the other engine."""

FRAMES = ("pandas", "dask.dataframe")
"""What it does without if the partitions are files of plain numbers."""

COMPUTE = """
import pickle, sys
import dask
graph, keys, heavy = pickle.load(sys.stdin.buffer)
dask.get(graph, keys)
print("fitted", *(name for name in heavy if name in sys.modules))
"""


def imported(X, heavy, last=True):
    """Which libraries a fresh process has imported after pilots, local fits and the aggregation of partitions.

    The last task makes what the user gets of the result of the aggregation.
    """
    lazy = dfmr(GaussianMixture(2, random_state=0), X)
    graph = dict(dask.optimize(lazy)[0].__dask_graph__())
    keys = [lazy.key] if last else list(graph.pop(lazy.key).dependencies)
    answer = subprocess.run(
        [sys.executable, "-c", COMPUTE],
        input=cloudpickle.dumps((graph, keys, heavy)),
        env=os.environ | {"DASK_DFMR_ENGINE": "numpy"},
        capture_output=True,
        check=False,
    )
    assert not answer.returncode, answer.stderr.decode()
    first, *names = answer.stdout.decode().split()
    assert first == "fitted"
    return names


def test_a_worker_needs_no_library_for_rare_paths():
    assert not imported(make_array(4), HEAVY)


@pytest.mark.filterwarnings("ignore:.*inplace keyword")  # Dask's use of pandas
def test_a_worker_reads_files_without_frames(tmp_path):
    write_parquet(tmp_path, 4)
    assert not imported(dd.read_parquet(tmp_path), HEAVY + FRAMES, last=False)
