"""Types of distributed, without an import of that library.

The import takes .1 to .2 CPU seconds, which the other schedulers of Dask can do without, and each of their processes
too. Where the library is not loaded, no object has one of its types.
"""

from __future__ import annotations

import sys
from typing import Any


def types_of_distributed(*names: str) -> tuple[type[Any], ...]:
    """The types with these names, for ``isinstance`` and ``except``; none if distributed is not loaded."""
    module = sys.modules.get("distributed")
    return tuple(getattr(module, name) for name in names if hasattr(module, name))
