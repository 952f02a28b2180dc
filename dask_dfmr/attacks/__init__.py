"""Named, seeded ways in which machines go wrong, and what the aggregation makes of them.

``ATTACKS`` lists them; :func:`corrupt` spoils estimates.
"""

from dask_dfmr.attacks import on_estimates
from dask_dfmr.attacks.adversary import Adversary, Corruption, corrupt, recruit
from dask_dfmr.attacks.catalogue import ATTACKS, Attack

__all__ = ["ATTACKS", "Adversary", "Attack", "Corruption", "corrupt", "on_estimates", "recruit"]
