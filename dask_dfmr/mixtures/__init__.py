"""What a mixture is, without rows, machines or Dask.

A family (:mod:`~dask_dfmr.mixtures.family`, the contract; :mod:`~dask_dfmr.mixtures.gaussian`, the only one so far)
defines the mathematics of one kind of component. A :mod:`~dask_dfmr.mixtures.mixture` is the value that users see.
Distances, the Fisher information and white coordinates compare two mixtures::

    engine -> compiled -> family -> gaussian -> mixture -> distances, information -> whitening
                                                        -> metrics

:mod:`~dask_dfmr.mixtures.engine` chooses between NumPy and the kernels in :mod:`dask_dfmr.mixtures.compiled`.
A new family, for example Poisson, is one new module here.
"""
