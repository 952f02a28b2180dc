"""The mathematics of further passes over the rows, after an aggregation.

:mod:`~dask_dfmr.refinement.em_passes` runs EM over the rows of all kept partitions. In some passes
:mod:`~dask_dfmr.refinement.score_test` finds partitions whose rows contradict those of the others.
:mod:`~dask_dfmr.refinement.far_rows` tests what its capped scores do not see, and
:mod:`~dask_dfmr.refinement.same_rows` guards the passes without a test.
:mod:`~dask_dfmr.refinement.likelihood_test` tests partitions with too few rows for an estimate, if there are no further
passes, and :mod:`~dask_dfmr.refinement.optima` whether fresh starts find a better optimum::

    statistics of partitions -> score_test, far_rows, same_rows -> em_passes -> the refined mixture
    likelihoods of small partitions -> likelihood_test
    fits from fresh starts -> optima

Nothing here reads a partition. The caller passes a reader, or what was read.
"""
