"""Why a partition was excluded: from numbers to words.

An estimate's distance from the global mixture is measured in standard errors. Changes of its columns, and parts of the
mixture set free, are tried as causes. The simplest cause that leaves no more than sampling explains becomes the
finding::

    standard_errors   the differences between an estimate and the mixture, in standard errors
    column_changes    a column multiplied, shifted, reversed or exchanged
    causes            all causes, tried in turn -> a finding
    findings          findings as values, and their sentences
    table             one row per excluded estimate: the result of ``explain()``
    report            one row per partition: the decision of the filter, its reasons and outcomes
"""
