"""One partition: its rows in, one local estimate out.

A local fit takes a start, runs EM with Anderson acceleration on the rows, and returns a
:class:`~dask_dfmr.local.estimate.LocalEstimate`: a mixture with its number of rows, or an outcome with the reason why
there is none. Pilots are fits of a few partitions that give all others a short list of starts::

    starts, anderson -> em -> fit -> estimate
    a few partitions -> pilots -> a short list of starts

:mod:`~dask_dfmr.local.row_statistics` sums what rows say of given mixtures, for partitions that are read again.
"""
