"""Local estimates in, one global mixture out: the method of the package.

:mod:`~dask_dfmr.aggregation.plan` is the method, one line a stage, written against a builder. One builder calls the
stages at once; the other one, in :mod:`dask_dfmr.on_dask.graph`, adds tasks to a Dask graph::

    stages.intake -> stages.center -> stages.keep -> stages.consensus (-> stages.hardened) -> stages.reduce -> result
    stages.intake -> stages.componentwise                                                                  -> result

The stages work on blocks of estimates. Their arithmetic is in kernels that need arrays only: ``medoid``,
``references``, ``null_law``, ``groups``, ``reduction``, ``componentwise`` and the wing ``hardened``. ``options`` holds
what a caller can choose, ``result`` the values that come back, and ``reasons`` why an estimate was excluded or refused.
:mod:`~dask_dfmr.aggregation.rerun` aggregates the same estimates again, without some of them or with another ``rho``;
:mod:`~dask_dfmr.aggregation.archive` writes a result to a file and reads it.
"""
