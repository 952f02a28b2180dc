"""Comparing candidates: which number of components, and which structure of covariances.

Candidates are comparable only on the same rows. :mod:`~dask_dfmr.selection.common_set` finds the partitions that all
candidates are measured on, :mod:`~dask_dfmr.selection.climb` makes further EM passes over their rows if wanted, and
:mod:`~dask_dfmr.selection.criteria` compares the candidates::

    aggregates of all candidates -> common_set -> climb -> criteria -> the choice
"""
