"""Runs the code of the documents: each page is one session, and a block of text below a block of code is its output.

A page finds the public names, ``X``, a lazy frame of eight partitions with the columns "x" and "y", ``rows`` of one of
them in memory, and ``gm``, a fit to it. What else it needs is in a comment::

    <!--- invisible-code-block: python
    sensors = ...
    -->

The page runs in a folder of its own. ``<!-- skip: next -->`` is for code that needs another machine or language.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import doctest
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

import dask_dfmr
from dask_dfmr import GaussianMixture
from tests.data_makers import make_ddf, make_rows

ROOT = Path(__file__).parent
collect_ignore_glob = ["docs/*.py", "site/*"]


@cache
def fitted() -> GaussianMixture:
    return GaussianMixture(2, random_state=0).fit(make_ddf(8))


def start(namespace: dict[str, Any]) -> None:
    """What every page has, and a folder to write to."""
    end = ExitStack()
    end.enter_context(contextlib.chdir(end.enter_context(tempfile.TemporaryDirectory())))
    end.enter_context(dask.config.set(scheduler="synchronous"))
    namespace.update(dask=dask, dd=dd, np=np, pd=pd, os=os, sys=sys, warnings=warnings, Path=Path)
    namespace.update({name: getattr(dask_dfmr, name) for name in dask_dfmr.__all__})
    namespace.update(dask_dfmr=dask_dfmr, X=make_ddf(8), rows=make_rows())
    namespace.update(gm=copy.deepcopy(fitted()), ROOT=ROOT, end=end, found=[""])


def finish(namespace: dict[str, Any]) -> None:
    namespace["end"].close()


RECIPES = {
    **{"onnx": "skl2onnx", "mlflow": "mlflow", "pandera": "pandera"},
    **{"xarray": "xarray", "polars": "polars"},
}
"""Pages of docs/how-to/recipes that need a package of the extra ``recipes``."""


def pages_without_their_package() -> list[str]:
    missing = [page for page, package in RECIPES.items() if find_spec(package) is None]
    return [f"docs/how-to/recipes/{page}.md" for page in missing]


def run(example: Example) -> None:
    """Run a block as a notebook does: the value of a last expression is part of the output."""
    lines = example.line + example.parsed.line_offset
    tree = ast.parse("\n" * lines + example.parsed, str(example.path))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # of Dask's reader of parquet files
        exec(compile(tree, str(example.path), "exec"), example.namespace)
        if last is not None:
            value = eval(
                compile(ast.Expression(last.value), str(example.path), "eval"), example.namespace
            )
            if value is not None:
                print(repr(value))
    said = [f"{w.category.__name__}: {w.message}\n" for w in caught]
    example.namespace["found"] = [printed.getvalue(), *said]


def compare(example: Example) -> str | None:
    """Compare a block of text with what the block above printed or warned of; "..." stands for anything."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = example.namespace["found"]
    check: Callable[[str, str, int], bool] = doctest.OutputChecker().check_output
    if any(check(example.parsed, one, options) for one in found):
        return None
    return "\n".join(["expected", example.parsed, "found, with the warnings", *found])


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", run), CodeBlockParser("text", compare), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md", "docs/*/*/*.md"],
    excludes=[
        "docs/explanation/**",
        "docs/reference/file-format.md",
        *pages_without_their_package(),
    ],
    setup=start,
    teardown=finish,
).pytest()
