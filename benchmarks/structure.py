"""Count what the structure of the package and of its prose is made of.

    python benchmarks/structure.py                  # this repository
    python benchmarks/structure.py ../before .      # two working trees side by side
    python benchmarks/structure.py --list           # also the members of the counts

Modules are parsed and never imported. The rules of counting:

- An import is a pair of modules. Imports under ``if TYPE_CHECKING`` do not count, imports inside functions do.
- An ``__init__`` that holds nothing but a docstring imports nothing, and nothing imports it.
- A wing is the first part of a module's name after the package. A module at the top is its own wing, and so is the
  ``__init__`` of the package. An import is upward if ``tests/test_imports.py`` forbids it by its ``LAYERS``.
- The floors are the modules of the longest chain of imports. All modules of a circle in it count.
- The lines of a function go from its ``def`` to its end, without decorators and docstring. Nested functions belong to
  the function around them. ``self`` and ``cls`` are no parameters.
- A line of code is not blank, not a comment and not part of a docstring.
- A span of code in the prose is one word. Code blocks, tables, headings and images are not prose.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from output import benchmark_parser, print_table, recorded
from scipy.sparse.csgraph import connected_components

from tests.test_imports import LAYERS

PACKAGE = "dask_dfmr"
LONG, VERY_LONG, MANY = 30, 60, 8
"""Lines of a function, twice, and its parameters: more are counted."""

CONSTANT_NAME = re.compile(r"_?[A-Z][A-Z0-9_]+")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

Rows = dict[str, str | list[str]]
"""Rows of the table: a value, or the members of which the table has the number."""


# -- modules -------------------------------------------------------------------------------------


class Module(NamedTuple):
    """A parsed module.

    The name is dotted and without the package. A bare module is an ``__init__`` of nothing but a docstring.
    """

    name: str
    is_bare: bool
    source: str
    tree: ast.Module

    @property
    def wing(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]


Package = dict[str, Module]


def read_package(folder: Path) -> Package:
    """All modules of a package, by name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_init = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_init and parts[1:] else parts)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        is_bare = is_init and all(map(is_string, tree.body))
        found[name] = Module(name, is_bare, source, tree)
    return found


def is_string(node: ast.AST) -> bool:
    """Whether a statement is a string and nothing else, like a docstring."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def n_lines(node: ast.stmt) -> int:
    """Number of lines of a statement."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def code_lines(module: Module) -> int:
    """Number of lines of code."""
    docstrings = {
        node.lineno + i
        for node in ast.walk(module.tree)
        if isinstance(node, ast.stmt) and is_string(node)
        for i in range(n_lines(node))
    }
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in docstrings
        for number, line in enumerate(module.source.splitlines(), start=1)
    )


def size_rows(package: Package) -> Rows:
    """Modules and lines."""
    return {
        "entries at the top": str(len({m.wing for m in package.values()} - {"__init__"})),
        "modules": str(len(package)),
        "lines of code": str(sum(map(code_lines, package.values()))),
    }


# -- imports -------------------------------------------------------------------------------------


def import_statements(
    node: ast.AST, inside: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The import statements that run, and whether each is inside a function."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, inside
        return
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from import_statements(child, inside or isinstance(node, FunctionNode))


def targets_of(node: ast.Import | ast.ImportFrom, module: Module, package: Package) -> set[str]:
    """The modules of the package that a statement imports, without the module itself."""
    if isinstance(node, ast.Import):
        paths = {alias.name for alias in node.names}
    else:
        assert node.level == 0, f"{module.name}:{node.lineno} is a relative import"
        members = {f"{node.module}.{alias.name}" for alias in node.names}
        paths = {m if inner(m) in package else str(node.module) for m in members}
    found = {inner(path) for path in paths} - {None, module.name}
    return {t for t in found if t in package and not package[t].is_bare}


def inner(path: str) -> str | None:
    """The name of a module without the package; None if it is not of the package."""
    top, _, rest = path.partition(".")
    return (rest or "__init__") if top == PACKAGE else None


def knots_of(imports: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    """For each module those that it is in a circle with, itself included."""
    matrix = np.array([[b in targets for b in imports] for targets in imports.values()])
    labels = dict(zip(imports, connected_components(matrix, connection="strong")[1], strict=True))
    return {a: frozenset(b for b in imports if labels[b] == labels[a]) for a in imports}


def longest_chain(imports: dict[str, set[str]], knots: dict[str, frozenset[str]]) -> list[str]:
    """The modules of the longest chain of imports, the importing ones first."""
    chains: dict[frozenset[str], list[str]] = {}

    def chain_from(knot: frozenset[str]) -> list[str]:
        if knot not in chains:
            below = {knots[target] for name in knot for target in imports[name]} - {knot}
            longest = max(map(chain_from, sorted(below, key=sorted)), key=len, default=[])
            chains[knot] = sorted(knot) + longest
        return chains[knot]

    return max(map(chain_from, knots.values()), key=len, default=[])


def import_rows(package: Package) -> Rows:
    """Chains, circles and directions of imports."""
    statements = {m.name: list(import_statements(m.tree)) for m in package.values()}
    imports = {
        m.name: set().union(*(targets_of(node, m, package) for node, _ in statements[m.name]))
        for m in package.values()
    }
    inside = [
        f"{m.name}:{node.lineno} {ast.unparse(node)}"
        for m in package.values()
        for node, is_inside in statements[m.name]
        if is_inside and targets_of(node, m, package)
    ]
    knots = knots_of(imports)
    circles = sorted(", ".join(sorted(k)) for k in set(knots.values()) if len(k) > 1)
    wings = {name: m.wing for name, m in package.items()}
    edges = [(a, b) for a, targets in imports.items() for b in sorted(targets)]
    across = [(a, b) for a, b in edges if wings[a] != wings[b]]
    ranks = {wing or "__init__": rank for rank, layer in enumerate(LAYERS) for wing in layer}
    alone = [name for name, wing in wings.items() if wing not in ranks]
    ranked = [(a, b) for a, b in across if {wings[a], wings[b]} <= ranks.keys()]
    upward = [f"{a} -> {b}" for a, b in ranked if ranks[wings[b]] > max(ranks[wings[a]] - 1, 0)]
    has_layers = 2 * len(alone) <= len(package)
    return {
        "floors (longest chain of imports)": longest_chain(imports, knots),
        "circles of imports": circles,
        "imports inside functions": inside,
        "imports between wings": str(len(across)),
        "imports upwards": upward if has_layers else "n/a",
        "modules in no layer": alone if has_layers else "n/a",
    }


# -- functions and names -------------------------------------------------------------------------


class Function(NamedTuple):
    """A function or method by its full name, with the numbers of its lines and parameters."""

    name: str
    lines: int
    parameters: int


def functions_in(node: ast.AST, prefix: str) -> Iterator[Function]:
    """The functions and methods below a node, without those inside other functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            docstring = n_lines(child.body[0]) if is_string(child.body[0]) else 0
            a = child.args
            names = [p.arg for p in (*a.posonlyargs, *a.args)]
            others = len(a.kwonlyargs) + bool(a.vararg) + bool(a.kwarg)
            n_parameters = len(names) - (names[:1] in (["self"], ["cls"])) + others
            yield Function(f"{prefix}.{child.name}", n_lines(child) - docstring, n_parameters)
        else:
            inner_prefix = f"{prefix}.{child.name}" if isinstance(child, ast.ClassDef) else prefix
            yield from functions_in(child, inner_prefix)


def function_rows(package: Package) -> Rows:
    """Functions, their lines and their parameters."""
    found = chain.from_iterable(functions_in(m.tree, m.name) for m in package.values())
    functions = sorted(found, key=lambda f: (-f.lines, f.name))
    many = sorted(functions, key=lambda f: (-f.parameters, f.name))
    lengths = [f.lines for f in reversed(functions)]

    def longer_than(n: int) -> list[str]:
        return [f"{f.lines} {f.name}" for f in functions if f.lines > n]

    def quantile(percent: int) -> str:
        return str(lengths[-(-len(lengths) * percent // 100) - 1])

    return {
        "functions": str(len(functions)),
        f"functions over {LONG} lines": longer_than(LONG),
        f"functions over {VERY_LONG} lines": longer_than(VERY_LONG),
        "longest function": f"{functions[0].lines} ({functions[0].name})",
        "half of the functions: lines at most": quantile(50),
        "nine in ten functions: lines at most": quantile(90),
        f"functions with more than {MANY} parameters": [
            f"{f.parameters} {f.name}" for f in many if f.parameters > MANY
        ],
        "most parameters": f"{many[0].parameters} ({many[0].name})",
    }


def name_rows(package: Package) -> Rows:
    """Classes and constants."""
    settings = defaultdict(list)
    for module in package.values():
        for node in module.tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            value = " ".join((ast.get_source_segment(module.source, node.value) or "").split())
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and CONSTANT_NAME.fullmatch(target.id):
                    settings[target.id].append((value, module.name))
    several = [
        f"{name}: {', '.join(f'{value} ({module})' for value, module in found)}"
        for name, found in sorted(settings.items())
        if all(len(set(column)) > 1 for column in zip(*found, strict=True))
    ]
    nodes = chain.from_iterable(ast.walk(m.tree) for m in package.values())
    return {
        "classes": str(sum(isinstance(node, ast.ClassDef) for node in nodes)),
        "module-level constants": str(sum(map(len, settings.values()))),
        "constants of one name and two values": several,
    }


# -- prose ---------------------------------------------------------------------------------------

SENTENCE_END = re.compile(r"""[.!?][)\]"'*_]*\s+""")
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
NOT_PROSE = re.compile(r"\s*(?:#{1,6}\s|\||\[[^\]]+\]:\s|(?:[-*_=]\s*){3,}$)")
CLEANING = {
    r"(?s)<!--.*?-->": "",
    r"(?sm)^[ ]*(`{3,}|~{3,}).*?^[ ]*\1[`~]*[ ]*$": "\n",
    r"(?<=\n\n)(?:[ ]{4,}(?![-*+]\s|\d+[.)]\s)\S.*\n)+": "\n",
    r"(?sm)^[ ]*\$\$.*?\$\$[ ]*$": "\n",
    r"(?s)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)": "code",
    r"!\[[^\]]*\]\([^)]*\)": "",
    r"\[([^\]]*)\]\((?:[^()]|\([^()]*\))*\)": r"\1",
    r"</?(a|b|br|details|div|em|i|img|kbd|p|picture|strong|su[bp]|summary)\b[^>,\n]*>": "",
    r"\.{3,}": "…",
    r"(?i)\b(e\.g|i\.e|et al|vs|cf|ca|j|approx|resp|viz|figs?|eqs?|sec|pp|vol|eds?)\.": r"\1",
}
"""Patterns and what replaces them, in this order: comments, blocks of code (between fences, then indented), blocks of
formulas, spans of code, images, links, HTML tags, ellipses, abbreviations."""


def sentences_of(path: Path) -> list[int]:
    """Numbers of words of the sentences of a document."""
    text = path.read_text(encoding="utf-8")
    for pattern, replacement in CLEANING.items():
        text = re.sub(pattern, replacement, text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        content = line.lstrip("> ")
        if not content or NOT_PROSE.match(content):
            blocks.append([])
        elif LIST_ITEM.match(content):
            blocks.append([LIST_ITEM.sub("", content, count=1)])
        else:
            blocks[-1].append(content)
    pieces = chain.from_iterable(SENTENCE_END.split(" ".join(block)) for block in blocks)
    counts = (sum(bool(re.search(r"\w", word)) for word in piece.split()) for piece in pieces)
    return [count for count in counts if count]


def prose_rows(root: Path) -> Rows:
    """Mean words a sentence of the README, of the documents, and of the document with most of them."""
    readme, *others = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    found = {path: sentences_of(path) for path in (readme, *others)}
    means = {path: fmean(counts or [0]) for path, counts in found.items()}
    worst = max(means, key=means.__getitem__)
    of_docs = fmean(chain.from_iterable(found[path] for path in others))
    return {
        "words a sentence, README": f"{means[readme]:.1f}",
        "words a sentence, docs": f"{of_docs:.1f}",
        "words a sentence, worst document": f"{means[worst]:.1f} ({worst.relative_to(root)})",
    }


# -- the table -----------------------------------------------------------------------------------


def measure(root: Path) -> Rows:
    """All rows of one working tree."""
    package = read_package(root / PACKAGE)
    rows = size_rows(package) | import_rows(package) | function_rows(package)
    return rows | name_rows(package) | prose_rows(root)


def main() -> None:
    """Print the table, and with ``--list`` the members of the counts."""
    parser = benchmark_parser(__doc__)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("root", nargs="?", type=Path, default=here, help="a working tree")
    parser.add_argument("new", nargs="?", type=Path, help="the working tree after a change")
    parser.add_argument("--list", action="store_true", help="name the members of the counts")
    options = parser.parse_args()
    roots = {"before": options.root, "after": options.new} if options.new else {"now": options.root}
    for root in roots.values():
        if not (root / PACKAGE).is_dir():
            parser.error(f"there is no folder {PACKAGE} in {root}")
    with recorded(options):
        print_measures({heading: measure(root) for heading, root in roots.items()}, options.list)


def print_measures(measures: dict[str, Rows], with_members: bool) -> None:
    """The table with one column a tree, and the lists."""
    names = list(next(iter(measures.values())))
    columns = [
        [cell if isinstance(cell, str) else len(cell) for cell in rows.values()]
        for rows in measures.values()
    ]
    print_table(["", *measures], zip(names, *columns, strict=True))
    for heading, rows in measures.items() if with_members else ():
        for name, members in rows.items():
            if members and not isinstance(members, str):
                print(f"## {name}, {heading} ({len(members)})\n")
                print("\n".join(f"- {member}" for member in members), end="\n\n")


if __name__ == "__main__":
    main()
