"""Local estimates in, one global mixture out: the method of the package.

:mod:`~dask_dfmr.aggregation.plan` is the method on one screen, one line a stage, written against a builder. One
builder calls the stages at once; the other one, in :mod:`dask_dfmr.on_dask.graph`, adds tasks to a Dask graph::

    stages.intake -> stages.center -> stages.keep -> stages.consensus (-> stages.hardened) -> stages.reduce -> result
    stages.intake -> stages.componentwise                                                                  -> result

The stages work on blocks of estimates. Their arithmetic is in kernels that know arrays only: ``medoid``,
``references``, ``null_law``, ``groups``, ``reduction``, ``componentwise`` and the wing ``hardened``.
:mod:`~dask_dfmr.aggregation.rerun` aggregates the same estimates again, without some of them or with another ``rho``;
:mod:`~dask_dfmr.aggregation.archive` writes an aggregate to a file and reads it.
"""
