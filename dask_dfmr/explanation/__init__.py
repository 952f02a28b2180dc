"""Why a partition was excluded: from numbers to words.

An estimate's distance from the global mixture is measured in standard errors. Changes of its columns, and parts of the
mixture set free, are tried as causes. The simplest cause that leaves no more than sampling explains becomes the
finding, and is worded where it is shown::

    standard_errors -> column_changes -> causes -> findings -> table
    the decision of the filter -> report
"""
