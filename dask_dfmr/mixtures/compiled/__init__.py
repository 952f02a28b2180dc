"""The inner loops of Gaussian mixtures, compiled by numba.

They compute what the NumPy code in :mod:`dask_dfmr.mixtures.gaussian` computes, which is the reference::

    compiling -> lanes -> em, integrals -> steps -> kernels

:mod:`~dask_dfmr.mixtures.compiled.kernels` has the entry points that :mod:`dask_dfmr.mixtures.engine` loads.
:mod:`~dask_dfmr.mixtures.compiled.lanes` has several numbers side by side, as the vector registers of a processor hold
them. It uses interfaces that numba may change; its docstring names the fall-back.
"""
