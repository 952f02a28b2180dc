"""The inner loops of Gaussian mixtures, compiled by numba.

Twins of the NumPy code in :mod:`dask_dfmr.mixtures.gaussian`, which is the reference.

Loops go over *lanes*: as many rows (or pairs of components) at a time as a vector register of the
processor holds. What is compiled is cached on disk, so a machine pays once.
"""

from __future__ import annotations

import numba

from dask_dfmr.mixtures.compiled.em import em_pass
from dask_dfmr.mixtures.compiled.integrals import log_product_integral
from dask_dfmr.mixtures.compiled.lanes import LANES

__all__ = ["describe", "em_pass", "log_product_integral"]


def describe() -> str:
    """The engine in words."""
    return f"numba {numba.__version__}, {LANES} lanes of float64"
