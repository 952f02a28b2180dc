"""Imported by the process that worker processes are forked from: what each would load at its first fit."""
# ruff: noqa: E402

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # as Dask sets it for workers, before NumPy is loaded

import dask

from dask_dfmr import GaussianMixture
from tests.data_makers import make_ddf

with dask.config.set(scheduler="synchronous"):
    GaussianMixture(2, random_state=0).fit(make_ddf())
