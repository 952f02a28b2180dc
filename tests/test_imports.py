"""Imports point one way, and the mathematics knows no Dask."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dask_dfmr

pytestmark = pytest.mark.smoke

ROOT = Path(dask_dfmr.__file__).parent
MATHEMATICS = (
    "mixtures.family",
    "mixtures.gaussian",
    "untrusted",
    "mixtures.mixture",
    "mixtures.covariances",
    "local.estimate",
    "local.starts",
    "local.anderson",
    "local.em",
    "local.fit",
    "local.pilots",
    "mixtures.distances",
    "aggregation.medoid",
    "aggregation.references",
    "mixtures.information",
    "aggregation.null_law",
    "aggregation.groups",
    "aggregation.stages.consensus",
    "explanation.standard_errors",
    "explanation.column_changes",
    "explanation.causes",
    "aggregation.archive",
    "aggregation.rerun",
    "aggregation.componentwise",
    "refinement.score_test",
    "refinement.likelihood_test",
    "local.holdout",
    "local.row_statistics",
    "refinement.em_passes",
    "refinement.optima",
    "selection.common_set",
    "aggregation.reduction",
    "aggregation.trimmed_reduction",
    "mixtures.whitening",
    "aggregation.hardened.spectral",
    "aggregation.hardened.filter",
    "aggregation.stages.hardened",
    "on_dask.sorted_rows",
    "aggregation.plan",
    "attacks.catalogue",
    "attacks.adversary",
    "attacks.on_estimates",
    "attacks.on_messages",
    "attacks.on_rows",
    "exceptions",
    "aggregation.stages.intake",
    "aggregation.result",
    "mixtures.metrics",
    "seeds",
    "checks",
    "mixtures.engine",
    "mixtures",
    "mixtures.compiled",
    "mixtures.compiled.kernels",
    "mixtures.compiled.em",
    "mixtures.compiled.integrals",
    "mixtures.compiled.lanes",
)


@cache
def module_files() -> dict[str, Path]:
    """All modules of the package, by dotted name without the package."""
    files = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@cache
def imports_of(module: str) -> frozenset[tuple[str, str | None]]:
    """(module, name or None) of every import statement, those inside functions and type checks included."""
    found = set()
    for node in ast.walk(ast.parse(module_files()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            found |= {(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def top_level_imports(module: str) -> set[str]:
    return {name.split(".")[0] for name, _ in imports_of(module)}


def own_imports(module: str) -> set[str]:
    """Modules of this package that a module imports; ``from dask_dfmr import tasks`` imports ``tasks``."""
    found = set()
    for origin, name in imports_of(module):
        if origin.split(".")[0] != "dask_dfmr":
            continue
        inner = origin.removeprefix("dask_dfmr").removeprefix(".")
        longer = f"{inner}.{name}".removeprefix(".")
        found.add(longer if longer in module_files() else inner)
    return found


def test_the_parser_sees_the_package():
    assert {"local.pilots", "aggregation.stages.intake", "on_dask.tasks"} <= own_imports(
        "on_dask.graph"
    )
    assert {"mixtures.family", "mixtures.gaussian"} <= own_imports("local.estimate")


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: own_imports(module) for module in module_files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(map(str, error.args[1]))}")


@pytest.mark.parametrize("module", MATHEMATICS)
def test_the_mathematics_knows_no_dask(module):
    assert not top_level_imports(module) & {"dask", "distributed"}


def test_the_mathematics_imports_only_mathematics():
    for module in MATHEMATICS:
        assert own_imports(module) <= {*MATHEMATICS, "exceptions"}, module


def test_the_filter_knows_arrays_only():
    assert own_imports("aggregation.medoid") <= {"mixtures.family"}
    names = {
        name
        for origin, name in imports_of("aggregation.medoid")
        if origin == "dask_dfmr.mixtures.family"
    }
    assert names <= {"Array"}


def test_few_modules_build_tasks():
    users = {
        module
        for module in module_files()
        if any(
            origin == "dask.task_spec" or (origin, name) == ("dask", "task_spec")
            for origin, name in imports_of(module)
        )
    }
    assert users <= {"on_dask.graph", "on_dask.partitions", "on_dask.fit", "on_dask.scheduling.builder"}


@pytest.mark.parametrize("module", sorted(module_files()))
def test_nothing_private_is_imported(module):
    for origin, name in imports_of(module):
        parts = [*origin.split("."), *([] if name is None else [name])]
        private = [part for part in parts if part.startswith("_") and part != "__future__"]
        assert not private, f"{module} imports {origin}.{name}"
