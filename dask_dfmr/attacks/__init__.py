"""Named, seeded attacks: ways in which sources go wrong, by accident or on purpose.

``ATTACKS`` has them by name, and :func:`describe` lists them. :func:`corrupt` corrupts estimates; :func:`corrupt_rows`
and :func:`corrupt_partitions` corrupt rows. :func:`stress_test` compares the results of several methods under an attack
on a user's own data::

    on_estimates, on_messages, on_rows   the attacks; each enters itself into the catalogue
    catalogue       attacks by name
    adversary       which sources are corrupted, what they know, and what they send
    on_partitions   an attack on rows, in the partitions of a collection; the only module here that uses Dask
    stress          methods compared under a growing share of corrupted sources
"""

from dask_dfmr.attacks import on_estimates, on_messages
from dask_dfmr.attacks.adversary import Adversary, Corruption, corrupt, recruit
from dask_dfmr.attacks.catalogue import ATTACKS, Attack, describe
from dask_dfmr.attacks.on_partitions import CorruptedPartitions, corrupt_partitions
from dask_dfmr.attacks.on_rows import corrupt_rows
from dask_dfmr.attacks.stress import StressTest, default_methods, stress_test

__all__ = [
    "ATTACKS",
    "Adversary",
    "Attack",
    "CorruptedPartitions",
    "Corruption",
    "StressTest",
    "corrupt",
    "corrupt_partitions",
    "corrupt_rows",
    "default_methods",
    "describe",
    "on_estimates",
    "on_messages",
    "recruit",
    "stress_test",
]
