"""Imports scripts of the folder ``benchmarks``, which is no package, for the tests of what they share."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def benchmark_script(name: str) -> Iterator[ModuleType]:
    """The script as a module; afterwards it is no longer imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        try:
            yield importlib.import_module(name)
        finally:
            sys.modules.pop(name, None)
