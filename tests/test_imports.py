"""The architecture: imports point one way, and Dask, tasks, private names and constants stay where they belong."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dask_dfmr

pytestmark = pytest.mark.smoke

PACKAGE = Path(dask_dfmr.__file__).parent
ROOT = PACKAGE.parent

LAYERS = (
    {"exceptions", "checks", "seeds", "tables", "untrusted", "deadlines", "progress", "reprs"},
    {"mixtures"},
    {"local"},
    {"aggregation"},
    {"refinement", "selection", "explanation"},
    {"monitoring"},
    {"on_dask"},
    {"plotting"},
    {"reporting"},
    {"results"},
    {"parameters"},
    {"fitted"},
    {"lazy", "estimator"},
    {"component_selection", "outliers", "attacks", "check_data"},
    {"cli"},
    {""},
)
"""Wings and single modules from the lowest layer to the highest; "" is ``dask_dfmr/__init__.py``.

A module imports from its own wing and from lower layers only. Wings of one layer do not import each other, but the
ground floor does: its modules build on one another.
"""

KNOWS_DASK = {
    *("results", "parameters", "lazy", "estimator", "component_selection"),
    *("attacks.on_partitions", "cli.data", "cli.scheduler"),
}
"""Modules outside ``on_dask`` that may import Dask."""

KERNELS = {
    *("medoid", "references", "null_law", "groups", "reduction", "componentwise"),
    *("hardened.filter", "hardened.spectral"),
}
"""Arithmetic of the aggregation: arrays in, arrays out."""

PUBLIC = {
    *("Aggregate", "AggregationError", "ClusterError", "ClusterWarning", "ExclusionWarning"),
    *("FilterDecision",),
    *("FilterWarning", "GaussianMixture", "HeterogeneityWarning", "LocalEstimate", "Mixture"),
    *(
        "NoMajorityWarning",
        "OptimumWarning",
        "Outcome",
        "OutlierDetector",
        "PartitionError",
        "PartitionWarning",
    ),
    *("RefinementError", "Selection", "aggregate", "attacks", "dfmr", "fit_local", "metrics"),
    *("mix_partitions", "mixing_distance", "pairwise_l2", "select_components"),
    *("CheckResult", "check", "read_history", "shared_start"),
    *("BreakdownDisplay", "DriftDisplay", "MixtureDisplay", "PartitionDisplay", "SelectionDisplay"),
}


@cache
def module_files() -> dict[str, Path]:
    """All modules of the package, by dotted name without the package."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_in(path: Path) -> frozenset[tuple[str, str | None]]:
    """(module, name or None) of every import statement, those inside functions and type checks included."""
    found: set[tuple[str, str | None]] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            found |= {(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def imports_of(module: str) -> frozenset[tuple[str, str | None]]:
    return imports_in(module_files()[module])


def own_imports(module: str) -> set[str]:
    """Modules of this package that a module imports; ``from dask_dfmr import checks`` imports ``checks``."""
    found = set()
    for origin, name in imports_of(module):
        if origin.split(".")[0] != "dask_dfmr":
            continue
        inner = origin.removeprefix("dask_dfmr").removeprefix(".")
        longer = f"{inner}.{name}".removeprefix(".")
        found.add(longer if longer in module_files() else inner)
    return found


def imports_dask(module: str) -> bool:
    roots = {origin.split(".")[0] for origin, _ in imports_of(module)}
    return bool(roots & {"dask", "distributed"})


def wing_of(module: str) -> str:
    return module.split(".")[0]


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if wing_of(module) in layer)


def test_the_parser_sees_the_package():
    assert {"local.fit", "mixtures.gaussian", "checks"} <= set(module_files())
    assert {"mixtures.gaussian", "mixtures.family"} <= own_imports("local.estimate")


class TestLayers:
    def test_every_module_is_in_exactly_one(self):
        for module in module_files():
            found = [layer for layer in LAYERS if wing_of(module) in layer]
            assert len(found) == 1, f"{module or '__init__'} is in {len(found)} layers"

    @pytest.mark.parametrize("module", sorted(module_files()))
    def test_no_import_points_up_or_sideways(self, module):
        for other in own_imports(module) - {module}:
            is_near = wing_of(other) == wing_of(module) or layer_of(module) == 0
            limit = layer_of(module) if is_near else layer_of(module) - 1
            assert layer_of(other) <= limit, f"{module} imports {other}"

    def test_no_modules_import_each_other_in_a_circle(self):
        graph = {module: own_imports(module) for module in module_files()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"a circle of imports: {' -> '.join(map(str, error.args[1]))}")

    def test_the_kernels_of_the_aggregation_know_no_stages(self):
        for kernel in KERNELS:
            others = own_imports(f"aggregation.{kernel}")
            forbidden = {m for m in others if m.startswith("aggregation.")} - {
                f"aggregation.{k}" for k in KERNELS
            }
            assert forbidden <= {"aggregation.reasons"}, f"{kernel} imports {forbidden}"


class TestDask:
    @pytest.mark.parametrize("module", sorted(module_files()))
    def test_only_some_modules_know_it(self, module):
        if wing_of(module) != "on_dask" and module not in KNOWS_DASK:
            assert not imports_dask(module)

    def test_scheduling_knows_nothing_of_the_package_but_errors_and_progress(self):
        for module in module_files():
            if module.startswith("on_dask.scheduling"):
                others = own_imports(module)
                known = ("exceptions", "progress", "on_dask.scheduling")
                assert all(m.startswith(known) for m in others)

    @pytest.mark.parametrize("module", sorted(module_files()))
    def test_tasks_are_built_in_one_wing(self, module):
        builds = any(
            "task_spec" in (*origin.split("."), name) or name == "GraphBuilder"
            for origin, name in imports_of(module)
        )
        assert not builds or wing_of(module) == "on_dask"


def paired(target, value):
    """The targets of an assignment, each with its own value where it is one of several."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
        return [pair for one, of_one in pairs for pair in paired(one, of_one)]
    several = target.elts if isinstance(target, ast.Tuple) else [target]
    return [(one, value) for one in several]


class TestNames:
    @pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/**/__init__.py")))
    def test_the_front_door_of_a_wing_has_no_code(self, path):
        if path.parent.name == "attacks":  # users import from it, as from the package
            return
        statements = parsed(path).body
        assert len(statements) == 1, path
        assert ast.get_docstring(parsed(path)), path

    def test_what_is_public(self):
        assert set(dask_dfmr.__all__) == PUBLIC
        assert all(hasattr(dask_dfmr, name) for name in PUBLIC)

    def test_a_name_has_one_home(self):
        """Type checkers read imports that never run; what runs is a table of the same."""
        homes = {
            (f"dask_dfmr.{module}", name)
            for module, names in dask_dfmr._HOMES.items()
            for name in names
        }
        for name, module in dask_dfmr._MODULES.items():
            parent = f"dask_dfmr.{module}".rpartition(".")[0]
            homes.add((parent, name))
        assert homes == {(m, n) for m, n in imports_of("") if m.startswith("dask_dfmr")}

    def test_no_module_hides_a_function(self):
        top = {module for module in module_files() if "." not in module}
        assert top & PUBLIC == {"attacks"}

    @pytest.mark.parametrize("folder", ["dask_dfmr", "tests", "benchmarks", "examples"])
    def test_nothing_private_is_imported(self, folder):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for origin, name in imports_in(path):
                parts = [*origin.split("."), *([] if name is None else [name])]
                private = [p for p in parts if p.startswith("_") and p != "__future__"]
                assert not private, f"{path} imports {origin}.{name}"

    def test_a_constant_has_one_value(self):
        values: dict[str, dict[str, str]] = defaultdict(dict)
        for module, path in module_files().items():
            for node in parsed(path).body:
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    for target, value in (pair for t in targets for pair in paired(t, node.value)):
                        if isinstance(target, ast.Name) and target.id.isupper():
                            values[target.id][module] = ast.unparse(value)
        several = {name: where for name, where in values.items() if len(set(where.values())) > 1}
        assert not several
