"""Write ``docs/reference/parameters.md`` from the table of parameters: ``python docs/write_parameters.py``."""

from __future__ import annotations

from pathlib import Path

from dask_dfmr.parameters import PARAMETERS

PAGE = Path(__file__).parent / "reference" / "parameters.md"

INTRODUCTION = """# Parameters in groups

`python docs/write_parameters.py` writes this page. It has the parameters of `GaussianMixture`, with their defaults.
Four of them decide most fits. [The class](api.md) describes each of them in full.
"""

GROUPS = {
    "The four you need first": ["n_components", "source", "random_state", "nan_policy"],
    "The mixture": ["covariance_type", "reg_covar", "penalty"],
    "Which partitions are kept": [
        *("method", "rho", "false_exclusion_rate", "machine_weights"),
        *("refit_excluded", "n_references"),
    ],
    "Where fits start and end": [
        *("init_params", "n_init", "weights_init", "means_init", "precisions_init"),
        *("warm_start", "check_optimum", "tol", "max_iter", "refine"),
    ],
    "Bad rows": ["row_outliers", "row_outlier_level"],
    "Partitions": ["n_partitions", "min_partition_rows", "partition_timeout", "on_failed"],
    "What is said and kept": ["warn_excluded", "verbose", "keep_estimates"],
    "On a cluster": ["trusted_workers", "split_every"],
}
"""Headings of the page, and the parameters below each; every parameter is in one group."""


def parameters_page() -> str:
    """The whole page."""
    grouped = sorted(name for names in GROUPS.values() for name in names)
    if grouped != sorted(PARAMETERS):
        wrong = sorted(set(grouped) ^ set(PARAMETERS)) or "one parameter twice"
        raise ValueError(
            f"every parameter must be in one group of docs/write_parameters.py: {wrong}"
        )
    parts = [INTRODUCTION]
    for heading, names in GROUPS.items():
        rows = [
            f"| `{n}` | `{_shown(PARAMETERS[n].default)}` | {PARAMETERS[n].meaning} |"
            for n in names
        ]
        parts.append(
            "\n".join([f"## {heading}\n\n| parameter | default | |\n|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def _shown(default: object) -> str:
    return f'"{default}"' if isinstance(default, str) else repr(default)


if __name__ == "__main__":
    PAGE.write_text(parameters_page(), encoding="utf-8")
