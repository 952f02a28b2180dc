"""Entry points of the compiled kernels, loaded by :mod:`dask_dfmr.mixtures.engine`.

They compute what the NumPy code of :mod:`dask_dfmr.mixtures.gaussian` computes, which is the reference. The machine
code is cached on disk, so each computer compiles once.
"""

from __future__ import annotations

import numba

from dask_dfmr.mixtures.compiled.em import em_pass, evaluate, shared_pass
from dask_dfmr.mixtures.compiled.integrals import log_product_integral
from dask_dfmr.mixtures.compiled.lanes import LANES, check_lanes
from dask_dfmr.mixtures.compiled.steps import Bounds, Shrinkage, em_steps

__all__ = [
    "Bounds",
    "Shrinkage",
    "check_lanes",
    "describe",
    "em_pass",
    "em_steps",
    "evaluate",
    "log_product_integral",
    "shared_pass",
]


def describe() -> str:
    """The version of numba and the width of the vectors, for the log."""
    return f"numba {numba.__version__}, {LANES} lanes of float64"
