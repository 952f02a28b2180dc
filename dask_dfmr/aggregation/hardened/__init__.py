"""The filter against estimates that collude, ``method="hardened"``: arrays in, excluded estimates and reasons out.

:mod:`~dask_dfmr.aggregation.hardened.filter` takes the steps in order: copies, white coordinates, outliers in parts of
the parameters, and directions along which several estimates lie. :mod:`~dask_dfmr.aggregation.hardened.spectral` has
the tests that these steps use.
"""
