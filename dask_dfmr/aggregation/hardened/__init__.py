"""The filter for estimates that may collude, ``method="hardened"``: arrays -> kept estimates, and reasons.

:mod:`~dask_dfmr.aggregation.hardened.filter` takes the steps in order: copies, white coordinates, outliers in parts of
the parameters, and directions along which several estimates lie. :mod:`~dask_dfmr.aggregation.hardened.spectral` has
the tests of these steps.
"""
