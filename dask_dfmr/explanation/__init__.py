"""Why a partition was excluded: from values to words.

The distance of an estimate from the global mixture is expressed in standard errors, compared with what a change of
its columns would do, and worded. All sentences about partitions are made here, at the end::

    standard_errors -> column_changes -> causes -> table
    the decision of the filter -> report
"""
