"""Comparing candidates: which number of components, and which structure of covariances.

Candidates are comparable only on the same rows. :mod:`~dask_dfmr.selection.common_set` finds the partitions that all
candidates are measured on, and :mod:`~dask_dfmr.selection.criteria` compares them there::

    aggregates of all candidates -> common_set -> criteria -> the choice
"""
