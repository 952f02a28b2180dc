"""Write ``docs/reference/api.md`` from the docstrings of everything public: ``python docs/write_api.py``."""

from __future__ import annotations

import enum
import inspect
from pathlib import Path
from typing import Any

import dask_dfmr
from dask_dfmr import attacks, metrics

PAGE = Path(__file__).parent / "reference" / "api.md"

INTRODUCTION = """# API

`python docs/write_api.py` writes this page from the docstrings. `help(dask_dfmr.GaussianMixture)` prints the same text.
"""

SECTIONS = {
    "Fit": ["GaussianMixture", "dfmr", "select_components", "Selection", "mix_partitions"],
    "The parts of a fit, without Dask": [
        *("fit_local", "LocalEstimate", "Outcome", "shared_start", "aggregate")
    ],
    "Outliers": ["OutlierDetector"],
    "Results": ["Aggregate", "FilterDecision", "Mixture", "mixing_distance", "pairwise_l2"],
    "Pictures": [
        *("BreakdownDisplay", "DriftDisplay", "MixtureDisplay", "PartitionDisplay"),
        *("SelectionDisplay",),
    ],
    "Checks of new data": ["check", "CheckResult", "read_history"],
    "Errors": ["AggregationError", "ClusterError", "PartitionError", "RefinementError"],
    "Warnings": [
        *(
            "ClusterWarning",
            "ExclusionWarning",
            "FilterWarning",
            "HeterogeneityWarning",
            "NoMajorityWarning",
        ),
        *("OptimumWarning", "PartitionWarning"),
    ],
}
"""Headings of the page, and the public names of ``dask_dfmr`` below each."""

SUBMODULES = {"attacks": attacks, "metrics": metrics}


def public_names(module: Any) -> list[str]:
    """The names that a module offers: ``__all__``, or the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def document(name: str, value: Any, level: int = 3) -> str:
    """Heading, signature and docstring of an object; of a class its public methods as well."""
    parts = [f"{'#' * level} `{name}`", ""]
    text = inspect.getdoc(value) or ""
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        members = "\n".join(f"{member.name} = {member.value!r}" for member in value)
        return "\n".join([*parts, "```text", text, "", members, "```", ""])
    if inspect.isclass(value) and issubclass(value, Exception):
        return "\n".join([*parts, "```text", text, "```", ""])
    if callable(value):
        parts += ["```python", f"{name.rpartition('.')[2]}{signature_of(value)}", "```", ""]
    parts += ["```text", text, "```", ""]
    page = "\n".join(parts)
    if inspect.isclass(value):
        page += "".join("\n" + document(f"{name}.{m}", f, level + 1) for m, f in methods(value))
    return page


def signature_of(value: Any) -> inspect.Signature:
    """Parameters with their defaults; the docstring says their types."""
    signature = inspect.signature(value)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)


def methods(cls: type) -> list[tuple[str, Any]]:
    """Public methods that the package documents, in the order of their definition."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("dask_dfmr"):
            found |= {
                name: getattr(cls, name)
                for name, value in vars(base).items()
                if not name.startswith("_")
                and isinstance(value, (type(document), classmethod, staticmethod))
                and inspect.getdoc(value)
            }
    return list(found.items())


def api_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for heading, names in SECTIONS.items():
        parts.append(f"## {heading}\n")
        parts += [document(name, getattr(dask_dfmr, name)) for name in names]
    for name, module in SUBMODULES.items():
        about = (inspect.getdoc(module) or "").strip()
        parts.append(f"## `dask_dfmr.{name}`\n\n```text\n{about}\n```\n")
        inner = {n: getattr(module, n) for n in public_names(module)}
        parts += [document(f"{name}.{n}", value) for n, value in inner.items() if callable(value)]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
