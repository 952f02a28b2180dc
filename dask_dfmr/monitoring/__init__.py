"""Checks of new rows against a model, without a fit: does a source contradict it, where, and how sure is that.

A fit leaves the law of the rows that it is made of: moments of their scores, and their lowest densities. The rows of a
new source are compared with that law, each source by itself::

    heterogeneity  estimates of the kept partitions -> how much more they differ than sampling explains
    row_law        sampled rows of the kept partitions -> RowLaw, a part of the model
    law_file       RowLaw <-> arrays of the file of a model
    columns        unlikely rows -> the change of columns that, undone, makes them agree
    source         rows of one source, RowLaw -> what was found: p-values, and for an unlikely one where it differs
    result         what was found in all sources -> verdicts, a table, a dict
    history        verdicts, appended to a file of JSON lines
"""
