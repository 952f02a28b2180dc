"""Local estimates in, one global mixture out: the method of the package.

:mod:`~dask_dfmr.aggregation.plan` is the method, one line a stage, written against a builder. One builder calls the
stages at once; the other one, in :mod:`dask_dfmr.on_dask.graph`, adds tasks to a Dask graph::

    stages.intake -> stages.center -> stages.keep -> stages.consensus
    -> stages.judge (-> stages.hardened) -> stages.reduce -> result
    stages.intake -> stages.componentwise -> result

The stages work on blocks of estimates. Their arithmetic is in kernels that need arrays only::

    medoid, references   the estimate in the middle: by all pairs, or of many estimates by some references
    null_law             the law of the distance that sampling explains
    groups               groups and copies among the estimates
    canaries             known changes of the consensus, which the filter should exclude
    reduction            many components -> one mixture
    componentwise        center, filter and weights of each component
    hardened             the filter for estimates that may collude

``options`` holds what :func:`~dask_dfmr.aggregate` can choose; :mod:`dask_dfmr.parameters` takes its checks from there.
``result`` holds the values that come back; the public ``Aggregate`` in :mod:`dask_dfmr.results` adds methods to them.
``reasons`` defines and words why an estimate was excluded or refused.
:mod:`~dask_dfmr.aggregation.rerun` aggregates the same estimates again, without some of them or with another ``rho``;
:mod:`~dask_dfmr.aggregation.archive` writes a result to a file and reads it.
"""
