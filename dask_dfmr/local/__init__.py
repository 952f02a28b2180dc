"""From the rows of one partition to its local estimate, without Dask.

A local fit takes a start, runs EM with Anderson acceleration on the rows, and returns a
:class:`~dask_dfmr.local.estimate.LocalEstimate`: a mixture with its number of rows, or an outcome with the reason why
there is no mixture. Pilots are fits of a few partitions from many starts. They give all other partitions a short list
of starts::

    centers -> projections -> starts, anderson -> em -> fit -> estimate
    a few partitions -> pilots -> a short list of starts

:mod:`~dask_dfmr.local.row_statistics` computes sums over rows under given mixtures, for partitions that are read again,
and splits off the rows that a selection holds out.
"""
