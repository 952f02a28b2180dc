"""Everything that uses Dask: collections in, graphs out, and passes that read the data.

A collection becomes one loading task per source. The plan of the aggregation becomes a graph, and the graph runs on the
scheduler that the user chose. Every pass over the data is a function ``(plan, fit) -> fit`` of a ``FitPlan`` and a
``Fit``, the two values in ``fit_plan``. ``fit`` calls the passes in this order::

    first_read      pilots, local fits and their aggregation
    check_optimum   fits from fresh starts find a better optimum, or do not
    refit           excluded partitions are fitted once more, from the global mixture
    refine          EM passes over the rows of the kept partitions

The passes use::

    partitions      a collection -> one loading task per partition
    by_column       the rows of one value of a column, wherever they lie -> one loading task per value
    sorted_rows     rows in memory, sorted by source
    unread          which partitions' rows a source is without, because they could not be read
    mix_partitions  sorted partitions -> partitions that are samples of all rows
    tasks           what the task of one partition computes, and its outcome if that fails
    answers         what such tasks return, checked before anything else is computed from it
    graph           tasks of pilots, local fits and aggregation
    placed          data in memory sent to a cluster once
    rereading       a partition is read again
    estimate_store  local estimates in temporary files
    predictions     a method of a fitted model on all rows of a collection
    explain_rows    the likelihood of excluded partitions' rows
    candidates      several mixtures fitted in one read and compared in another
    candidates_again  a second look at partitions that a selection excludes

:mod:`dask_dfmr.on_dask.scheduling` runs tasks although workers may die; nothing there is about mixtures.
"""
