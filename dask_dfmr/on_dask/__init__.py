"""Everything that uses Dask: collections in, graphs out, and passes that read the data.

A collection becomes one loading task per source, the plan of the aggregation becomes a graph, and the graph runs on
the scheduler that the user chose. Every pass over the data is a function ``(plan, fit) -> fit`` of the two values in
``plan``, and ``fit`` runs them in order::

    partitions, by_column, sorted_rows -> tasks -> graph -> first_read     the first read
    check_optimum -> refit -> refine                                       later reads, each optional
    placed                                                                 data sent to a cluster once for several reads
    rereading                                                              how a partition is read again
    explain_rows                                                           what the rows of an excluded one show
    candidates                                                             several mixtures in two reads

:mod:`dask_dfmr.on_dask.scheduling` runs tasks although workers may die; nothing there is about mixtures.
"""
