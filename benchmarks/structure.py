"""Count what the structure of the package and of its prose is made of.

    python benchmarks/structure.py [ROOT] [NEW] [--list]

The script prints a Markdown table of counts for the package in ``ROOT/dask_dfmr`` and for the prose
in ``ROOT``. The default of ``ROOT`` is the repository that holds the script. With two roots the
table has the columns "before" and "after". ``--list`` also names the members of the counts.

The source is parsed and never imported. These are the rules of counting:

- An import is a pair of modules. Imports under ``if TYPE_CHECKING`` do not count. Imports inside
  functions count. Modules that are imported by a name at run time (``import_module``) do not count.
- An ``__init__`` is bare if it holds nothing but a docstring. A bare ``__init__`` has no imports.
- A wing is the first part of a module's name after ``dask_dfmr``. A module at the top is its own
  wing, and so is the ``__init__`` of the package.
- The floors are the number of modules in the longest chain of imports, with both ends. A circle in
  the chain counts with all of its modules.
- A function has the lines from its ``def`` to its end. Decorators and its docstring are excluded.
  Nested functions belong to the function around them.
- A line of code is not blank, not a comment and not part of a docstring.
- A span of code in the prose counts as one word.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGE = "dask_dfmr"
ROOT_INIT = "__init__"

LONG_LINES = 30
VERY_LONG_LINES = 60
MANY_PARAMETERS = 8

NOT_AVAILABLE = "n/a"
CONSTANT_NAME = re.compile(r"_?[A-Z][A-Z0-9_]+")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Edge = tuple[str, str]


@dataclass(frozen=True)
class Layer:
    """One layer of the order of imports.

    Attributes
    ----------
    wings : tuple of str
        The wings of the layer.
    siblings : bool
        Whether the wings must not import each other.
    """

    wings: tuple[str, ...]
    siblings: bool = False


LAYERS = (
    Layer(("exceptions", "checks", "seeds", "untrusted")),
    Layer(("mixtures",)),
    Layer(("local",)),
    Layer(("aggregation",)),
    Layer(("refinement", "selection", "explanation"), siblings=True),
    Layer(("results", "on_dask"), siblings=True),
    Layer(("parameters",)),
    Layer(("lazy", "estimator"), siblings=True),
    Layer(("select_components", "attacks"), siblings=True),
    Layer((ROOT_INIT,)),
)
"""The layers from the lowest to the highest. A module imports from its own layer and those below."""

RANKS = {wing: rank for rank, layer in enumerate(LAYERS) for wing in layer.wings}


# -- the package -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """A parsed module.

    Attributes
    ----------
    name : str
        The dotted name, with the package in front.
    is_init : bool
        Whether the module is the ``__init__`` of a folder.
    source : str
        The text of the file.
    tree : ast.Module
        The syntax tree of the text.
    """

    name: str
    is_init: bool
    source: str
    tree: ast.Module

    @property
    def short_name(self) -> str:
        """The name without the package in front."""
        return self.name.removeprefix(PACKAGE).lstrip(".") or ROOT_INIT

    @property
    def wing(self) -> str:
        """The first part of the name after the package."""
        return self.short_name.partition(".")[0]

    @property
    def is_bare(self) -> bool:
        """Whether the module is an ``__init__`` that holds nothing but a docstring."""
        return self.is_init and all(is_bare_string(node) for node in self.tree.body)


@dataclass(frozen=True)
class Function:
    """A function or a method.

    Attributes
    ----------
    name : str
        The name, with the module and the class in front.
    lines : int
        The number of lines without decorators and docstring.
    parameters : int
        The number of parameters without ``self`` and ``cls``.
    """

    name: str
    lines: int
    parameters: int


@dataclass(frozen=True)
class Package:
    """All modules of a package.

    Attributes
    ----------
    folder : Path
        The folder of the package.
    modules : dict of str to Module
        The modules by their dotted names.
    """

    folder: Path
    modules: dict[str, Module]

    @classmethod
    def read(cls, folder: Path) -> Package:
        """Parse all modules in a folder and in the folders below."""
        paths = (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)
        modules = [read_module(path, folder) for path in paths]
        return cls(folder, {module.name: module for module in modules})

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules that each module imports."""
        return {
            name: {
                target
                for node, _ in import_statements(module.tree)
                for target in import_targets(node, module, self.modules)
            }
            for name, module in self.modules.items()
        }

    @cached_property
    def edges(self) -> list[Edge]:
        """All pairs of a module and a module that it imports."""
        return [(a, b) for a, targets in self.imports.items() for b in sorted(targets)]

    @cached_property
    def functions(self) -> list[Function]:
        """All functions and methods, the longest first."""
        found = [f for module in self.modules.values() for f in functions_of(module)]
        return sorted(found, key=lambda f: (-f.lines, f.name))


def read_module(path: Path, folder: Path) -> Module:
    """Parse one file.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        The folder of the package.

    Returns
    -------
    Module
        The parsed module.
    """
    parts = [PACKAGE, *path.relative_to(folder).with_suffix("").parts]
    is_init = parts[-1] == "__init__"
    source = path.read_text(encoding="utf-8")
    name = ".".join(parts[:-1] if is_init else parts)
    return Module(name, is_init, source, ast.parse(source, filename=str(path)))


def top_entries(folder: Path) -> list[str]:
    """Name the modules and the folders with modules at the top of the package, without ``__init__``."""
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    folders = [path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    return sorted(modules + folders)


def is_bare_string(node: ast.AST) -> bool:
    """Tell whether a statement is a string and nothing else, like a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def line_span(node: ast.stmt) -> range:
    """Return the numbers of the lines of a statement."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def count_code_lines(module: Module) -> int:
    """Count the lines that are not blank, not a comment and not part of a docstring."""
    docstrings = {
        number
        for node in ast.walk(module.tree)
        if isinstance(node, ast.stmt) and is_bare_string(node)
        for number in line_span(node)
    }
    return sum(
        number not in docstrings and line.strip() != "" and not line.lstrip().startswith("#")
        for number, line in enumerate(module.source.splitlines(), start=1)
    )


# -- imports ---------------------------------------------------------------------------------------


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is ``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def import_statements(
    node: ast.AST, in_function: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Walk over the import statements that are executed at run time.

    Parameters
    ----------
    node : ast.AST
        Where the walk begins.
    in_function : bool, default False
        Whether the node lies inside a function.

    Yields
    ------
    statement : ast.Import or ast.ImportFrom
        The import statement.
    in_function : bool
        Whether the statement lies inside a function.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, in_function
        return
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node.test):
        children = node.orelse
    inside = in_function or isinstance(node, FunctionNode)
    for child in children:
        yield from import_statements(child, inside)


def absolute_base(node: ast.ImportFrom, module: Module) -> str:
    """Return the module after ``from`` with its full name.

    Parameters
    ----------
    node : ast.ImportFrom
        The import statement.
    module : Module
        The module that holds the statement.

    Returns
    -------
    str
        The dotted name. Leading dots of a relative import are resolved.
    """
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    kept = len(parts) - node.level + module.is_init
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def import_targets(
    node: ast.Import | ast.ImportFrom, module: Module, modules: dict[str, Module]
) -> set[str]:
    """Find the modules of the package that a statement imports.

    Parameters
    ----------
    node : ast.Import or ast.ImportFrom
        The import statement.
    module : Module
        The module that holds the statement.
    modules : dict of str to Module
        All modules of the package.

    Returns
    -------
    set of str
        The names of the modules. The module itself and a bare ``__init__`` are not among them.
    """
    if isinstance(node, ast.Import):
        targets = {alias.name for alias in node.names}
    else:
        base = absolute_base(node, module)
        members = (f"{base}.{alias.name}" for alias in node.names)
        targets = {member if member in modules else base for member in members}
    return {t for t in targets if t in modules and t != module.name and not modules[t].is_bare}


def imports_in_functions(package: Package) -> list[str]:
    """List the statements inside functions that import modules of the package."""
    return [
        f"{module.short_name}:{node.lineno} {ast.unparse(node)}"
        for module in package.modules.values()
        for node, in_function in import_statements(module.tree)
        if in_function and import_targets(node, module, package.modules)
    ]


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Find all modules that a module imports, directly or through others.

    Parameters
    ----------
    start : str
        The name of the module.
    imports : dict of str to set of str
        The modules that each module imports.

    Returns
    -------
    set of str
        The names of the modules. The start is among them only if it lies in a circle.
    """
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        new = imports[open_ends.pop()] - found
        found |= new
        open_ends.extend(new)
    return found


def knots(imports: dict[str, set[str]]) -> dict[str, frozenset[str]]:
    """Find the strongly connected component of each module.

    Parameters
    ----------
    imports : dict of str to set of str
        The modules that each module imports.

    Returns
    -------
    dict of str to frozenset of str
        The modules that import each other, by each of them. A module outside circles is alone.
    """
    reach = {name: reachable(name, imports) for name in imports}
    return {
        name: frozenset({name} | {other for other in reach[name] if name in reach[other]})
        for name in imports
    }


def circles(package: Package) -> list[list[str]]:
    """List the strongly connected components of more than one module."""
    found = {knot for knot in knots(package.imports).values() if len(knot) > 1}
    return sorted(sorted(shorten(name) for name in knot) for knot in found)


def longest_chain(imports: dict[str, set[str]]) -> list[str]:
    """Find the longest chain of imports.

    Parameters
    ----------
    imports : dict of str to set of str
        The modules that each module imports.

    Returns
    -------
    list of str
        The modules of the chain, the importing ones first. All modules of a circle are listed.
    """
    knot_of = knots(imports)
    chains: dict[frozenset[str], list[str]] = {}

    def chain_from(knot: frozenset[str]) -> list[str]:
        if knot not in chains:
            below = {knot_of[target] for name in knot for target in imports[name]} - {knot}
            longest = max((chain_from(b) for b in sorted(below, key=sorted)), key=len, default=[])
            chains[knot] = sorted(knot) + longest
        return chains[knot]

    return max((chain_from(knot) for knot in knot_of.values()), key=len, default=[])


def shorten(name: str) -> str:
    """Return the name of a module without the package in front."""
    return name.removeprefix(f"{PACKAGE}.") if name != PACKAGE else ROOT_INIT


def edge_text(edge: Edge) -> str:
    """Write an import as ``importing -> imported``."""
    return " -> ".join(shorten(name) for name in edge)


def imports_between_wings(package: Package) -> list[Edge]:
    """List the imports between modules of different wings."""
    return [(a, b) for a, b in package.edges if package.modules[a].wing != package.modules[b].wing]


def is_upward(wing: str, imported: str) -> bool:
    """Tell whether an import is against the order of the layers.

    Parameters
    ----------
    wing : str
        The wing of the importing module.
    imported : str
        The wing of the imported module.

    Returns
    -------
    bool
        False if one of the wings is in no layer.
    """
    if wing == imported or not {wing, imported} <= RANKS.keys():
        return False
    rank = RANKS[wing]
    return rank < RANKS[imported] or (rank == RANKS[imported] and LAYERS[rank].siblings)


def modules_without_layer(package: Package) -> list[str]:
    """List the modules whose wing is in no layer."""
    return [m.short_name for m in package.modules.values() if m.wing not in RANKS]


def upward_imports(package: Package) -> list[Edge] | None:
    """List the imports against the order of the layers.

    Parameters
    ----------
    package : Package
        The package.

    Returns
    -------
    list of tuple or None
        Pairs of the importing and the imported module. None if most modules are in no layer.
    """
    if 2 * len(modules_without_layer(package)) > len(package.modules):
        return None
    wings = {name: module.wing for name, module in package.modules.items()}
    return [(a, b) for a, b in package.edges if is_upward(wings[a], wings[b])]


# -- functions, classes and constants --------------------------------------------------------------


def outer_functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, FunctionNode]]:
    """Walk over functions and methods, without those inside other functions.

    Parameters
    ----------
    node : ast.AST
        Where the walk begins.
    prefix : str
        The name of the module or the class around the node.

    Yields
    ------
    name : str
        The name, with the prefix in front.
    function : ast.FunctionDef or ast.AsyncFunctionDef
        The function.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FunctionNode):
            yield f"{prefix}.{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from outer_functions(child, f"{prefix}.{child.name}")
        else:
            yield from outer_functions(child, prefix)


def count_lines(node: FunctionNode) -> int:
    """Count the lines of a function without decorators and docstring."""
    docstring = len(line_span(node.body[0])) if is_bare_string(node.body[0]) else 0
    return len(line_span(node)) - docstring


def count_parameters(node: FunctionNode) -> int:
    """Count the parameters of a function without ``self`` and ``cls``."""
    arguments = node.args
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a]
    bound = positional[:1] in (["self"], ["cls"])
    return len(positional) - bound + len(arguments.kwonlyargs) + len(starred)


def functions_of(module: Module) -> Iterator[Function]:
    """Walk over the measured functions and methods of a module."""
    for name, node in outer_functions(module.tree, module.short_name):
        yield Function(name, count_lines(node), count_parameters(node))


def with_many_parameters(package: Package) -> list[Function]:
    """List the functions with too many parameters, the largest number first."""
    many = [f for f in package.functions if f.parameters > MANY_PARAMETERS]
    return sorted(many, key=lambda f: (-f.parameters, f.name))


def quantile(values: list[int], percent: int) -> int:
    """Return the smallest value that a share of the values does not exceed.

    Parameters
    ----------
    values : list of int
        At least one value.
    percent : int
        The share, from 1 to 100.

    Returns
    -------
    int
        One of the values.
    """
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def count_classes(package: Package) -> int:
    """Count the classes of all modules."""
    return sum(
        isinstance(node, ast.ClassDef)
        for module in package.modules.values()
        for node in ast.walk(module.tree)
    )


def constants_of(module: Module) -> Iterator[tuple[str, str]]:
    """Walk over the constants of a module.

    Parameters
    ----------
    module : Module
        The module.

    Yields
    ------
    name : str
        The name of the constant, in upper case.
    value : str
        The source text of its value, with single spaces.
    """
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        value = " ".join((ast.get_source_segment(module.source, node.value) or "").split())
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and CONSTANT_NAME.fullmatch(target.id):
                yield target.id, value


def constants(package: Package) -> dict[str, list[tuple[str, str]]]:
    """Collect the constants of all modules.

    Parameters
    ----------
    package : Package
        The package.

    Returns
    -------
    dict of str to list of tuple
        Pairs of a value and the module that sets it, by the name of the constant.
    """
    found = defaultdict(list)
    for module in package.modules.values():
        for name, value in constants_of(module):
            found[name].append((value, module.short_name))
    return dict(sorted(found.items()))


def two_valued_constants(package: Package) -> list[str]:
    """Describe the constants that have different values in different modules."""
    return [
        f"{name}: " + ", ".join(f"{value} ({module})" for value, module in settings)
        for name, settings in constants(package).items()
        if len({value for value, _ in settings}) > 1 and len({module for _, module in settings}) > 1
    ]


# -- prose -----------------------------------------------------------------------------------------

ABBREVIATION = re.compile(
    r"\b(e\.g|i\.e|et al|vs|cf|ca|j|approx|resp|viz|figs?|eqs?|sec|pp|vol|eds?)\.", re.IGNORECASE
)
SENTENCE_END = re.compile(r"""[.!?][)\]"'*_]*\s+""")
HTML_TAG = re.compile(
    r"</?(a|b|br|details|div|em|i|img|kbd|p|picture|strong|su[bp]|summary)\b[^>,\n]*>"
)
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
NOT_PROSE_LINE = re.compile(r"\s*(?:#{1,6}\s|\||\[[^\]]+\]:\s|(?:[-*_=]\s*){3,}$)")
CLEANING = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"^[ ]*(`{3,}|~{3,}).*?^[ ]*\1[`~]*[ ]*$", re.DOTALL | re.MULTILINE), "\n"),
    (re.compile(r"(?<=\n\n)(?:[ ]{4,}(?![-*+]\s|\d+[.)]\s)\S.*\n)+"), "\n"),
    (re.compile(r"^[ ]*\$\$.*?\$\$[ ]*$", re.DOTALL | re.MULTILINE), "\n"),
    (re.compile(r"(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)", re.DOTALL), "code"),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]*)\]\((?:[^()]|\([^()]*\))*\)"), r"\1"),
    (HTML_TAG, ""),
    (re.compile(r"\.{3,}"), "…"),
    (ABBREVIATION, r"\1"),
)
"""Patterns and what replaces them, in this order.

They are comments, blocks of code (between fences, then indented), blocks of formulas, spans of
code, images, links, HTML tags, ellipses and abbreviations.
"""


@dataclass(frozen=True)
class Prose:
    """The size of a text.

    Attributes
    ----------
    words : int
        The number of words.
    sentences : int
        The number of sentences.
    """

    words: int = 0
    sentences: int = 0

    def __add__(self, other: Prose) -> Prose:
        return Prose(self.words + other.words, self.sentences + other.sentences)

    @property
    def mean(self) -> float:
        """The mean number of words in a sentence."""
        return self.words / self.sentences if self.sentences else 0.0


def paragraphs(text: str) -> list[str]:
    """Split a Markdown text into paragraphs and list items.

    Parameters
    ----------
    text : str
        The text of a document.

    Returns
    -------
    list of str
        What is prose, without code, tables, headings, images and the targets of links.
    """
    for pattern, replacement in CLEANING:
        text = pattern.sub(replacement, text)
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        content = line.lstrip("> ")
        if not content or NOT_PROSE_LINE.match(content):
            blocks.append([])
        elif LIST_ITEM.match(content):
            blocks.append([LIST_ITEM.sub("", content, count=1)])
        else:
            blocks[-1].append(content)
    return [" ".join(block) for block in blocks if block]


def sentences(text: str) -> list[list[str]]:
    """Split a Markdown text into sentences, each a list of words."""
    pieces = (piece for block in paragraphs(text) for piece in SENTENCE_END.split(block))
    split = ([word for word in piece.split() if re.search(r"\w", word)] for piece in pieces)
    return [words for words in split if words]


def measure_prose(path: Path) -> Prose:
    """Count the words and the sentences of a document."""
    found = sentences(path.read_text(encoding="utf-8"))
    return Prose(sum(map(len, found)), len(found))


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """What is counted in one tree.

    Attributes
    ----------
    cells : dict of str to str
        The value of each row of the table.
    members : dict of str to list of str
        The members of those counts that have some worth naming.
    """

    cells: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)


def with_name(functions: Iterable[Function], size: Callable[[Function], int]) -> str:
    """Write the largest size of the functions, and the function that has it."""
    largest = max(functions, key=size, default=None)
    return f"{size(largest)} ({largest.name})" if largest else NOT_AVAILABLE


def size_cells(package: Package) -> dict[str, str]:
    """Count modules and lines."""
    return {
        "entries at the top": str(len(top_entries(package.folder))),
        "modules": str(len(package.modules)),
        "lines of code": str(sum(map(count_code_lines, package.modules.values()))),
    }


def import_cells(package: Package) -> dict[str, str]:
    """Count what the imports between modules look like."""
    upward = upward_imports(package)
    return {
        "floors (longest chain of imports)": str(len(longest_chain(package.imports))),
        "circles of imports": str(len(circles(package))),
        "imports inside functions": str(len(imports_in_functions(package))),
        "imports between wings": str(len(imports_between_wings(package))),
        "imports upwards": NOT_AVAILABLE if upward is None else str(len(upward)),
    }


def function_cells(package: Package) -> dict[str, str]:
    """Count functions, their lines and their parameters."""
    functions = package.functions
    lengths = [f.lines for f in functions] or [0]
    return {
        "functions": str(len(functions)),
        f"functions over {LONG_LINES} lines": str(sum(n > LONG_LINES for n in lengths)),
        f"functions over {VERY_LONG_LINES} lines": str(sum(n > VERY_LONG_LINES for n in lengths)),
        "longest function": with_name(functions, lambda f: f.lines),
        "half of the functions: lines at most": str(quantile(lengths, 50)),
        "nine in ten functions: lines at most": str(quantile(lengths, 90)),
        f"functions with more than {MANY_PARAMETERS} parameters": str(
            len(with_many_parameters(package))
        ),
        "most parameters": with_name(functions, lambda f: f.parameters),
    }


def name_cells(package: Package) -> dict[str, str]:
    """Count classes and constants."""
    return {
        "classes": str(count_classes(package)),
        "module-level constants": str(sum(map(len, constants(package).values()))),
        "constants of one name and two values": str(len(two_valued_constants(package))),
    }


def prose_cells(root: Path) -> dict[str, str]:
    """Measure the sentences of the README and of the documents.

    Parameters
    ----------
    root : Path
        The folder of the repository.

    Returns
    -------
    dict of str to str
        The values by the names of the rows. The worst document may be the README.
    """
    documents = sorted((root / "docs").rglob("*.md"))
    readmes = [path for path in [root / "README.md"] if path.exists()]
    measured = {path: measure_prose(path) for path in readmes + documents}
    worst = max(measured, key=lambda path: measured[path].mean, default=None)
    return {
        "words a sentence, README": mean_words(measured[path] for path in readmes),
        "words a sentence, docs": mean_words(measured[path] for path in documents),
        "words a sentence, worst document": (
            f"{measured[worst].mean:.1f} ({worst.relative_to(root)})" if worst else NOT_AVAILABLE
        ),
    }


def mean_words(texts: Iterable[Prose]) -> str:
    """Write the mean number of words in the sentences of some texts."""
    total = sum(texts, Prose())
    return f"{total.mean:.1f}" if total.sentences else NOT_AVAILABLE


def members_of(package: Package) -> dict[str, list[str]]:
    """Name the members of the counts.

    Parameters
    ----------
    package : Package
        The package.

    Returns
    -------
    dict of str to list of str
        The members by the titles of the lists.
    """
    functions = package.functions
    upward = upward_imports(package)
    is_long = range(LONG_LINES + 1, VERY_LONG_LINES + 1)
    return {
        "longest chain of imports": [shorten(n) for n in longest_chain(package.imports)],
        "circles of imports": [", ".join(circle) for circle in circles(package)],
        "imports inside functions": imports_in_functions(package),
        "imports upwards": [edge_text(edge) for edge in upward or []],
        "modules in no layer": [] if upward is None else modules_without_layer(package),
        f"functions over {VERY_LONG_LINES} lines": [
            f"{f.lines} {f.name}" for f in functions if f.lines > VERY_LONG_LINES
        ],
        f"functions over {LONG_LINES} and up to {VERY_LONG_LINES} lines": [
            f"{f.lines} {f.name}" for f in functions if f.lines in is_long
        ],
        f"functions with more than {MANY_PARAMETERS} parameters": [
            f"{f.parameters} {f.name}" for f in with_many_parameters(package)
        ],
        "constants of one name and two values": two_valued_constants(package),
    }


def measure(root: Path) -> Measure:
    """Count everything in one tree.

    Parameters
    ----------
    root : Path
        The folder of the repository.

    Returns
    -------
    Measure
        The cells of the table, and the members of the counts.
    """
    package = Package.read(root / PACKAGE)
    cells = (
        size_cells(package)
        | import_cells(package)
        | function_cells(package)
        | name_cells(package)
        | prose_cells(root)
    )
    return Measure(cells, members_of(package))


def print_row(cells: Iterable[str]) -> None:
    """Print one row of a Markdown table."""
    print("| " + " | ".join(cells) + " |")


def print_table(measures: dict[str, Measure]) -> None:
    """Print a Markdown table with one column for each tree.

    Parameters
    ----------
    measures : dict of str to Measure
        The measured trees by the headings of their columns.
    """
    print_row(["", *measures])
    print_row(["---", *("---:" for _ in measures)])
    for row in next(iter(measures.values())).cells:
        print_row([row, *(m.cells[row] for m in measures.values())])


def print_members(heading: str, found: Measure) -> None:
    """Print the members of the counts of one tree.

    Parameters
    ----------
    heading : str
        The heading of the tree's column in the table.
    found : Measure
        The measured tree.
    """
    for title, members in found.members.items():
        if members:
            print(f"\n## {title}, {heading} ({len(members)})\n")
            print("\n".join(f"- {member}" for member in members))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("root", nargs="?", type=Path, default=here, help="the repository")
    parser.add_argument("new", nargs="?", type=Path, help="the repository after a change")
    parser.add_argument("--list", action="store_true", help="name the members of the counts")
    arguments = parser.parse_args()
    for root in filter(None, (arguments.root, arguments.new)):
        if not (root / PACKAGE).is_dir():
            parser.error(f"there is no folder {PACKAGE} in {root}")
    return arguments


def main() -> None:
    """Print the table, and the lists if they are asked for."""
    arguments = parse_arguments()
    roots = {"now": arguments.root}
    if arguments.new:
        roots = {"before": arguments.root, "after": arguments.new}
    measures = {heading: measure(root) for heading, root in roots.items()}
    print_table(measures)
    if arguments.list:
        for heading, found in measures.items():
            print_members(heading, found)


if __name__ == "__main__":
    main()
