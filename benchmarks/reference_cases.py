"""Claim: filter and reduction give what the published scripts of the paper give.

    python benchmarks/reference_cases.py FOLDER

FOLDER holds results of the published scripts (Zhang, Tan & Chen 2026) as numbers. Each set has a ``base.npz`` and one
``ATTACK_aALPHA.npz`` per case; the loader ``load_reference.py`` lies beside them. The folder is not shipped with the
project.

For every case the script aggregates the local estimates of the folder again. It compares the L2 distances of all pairs
of estimates, the center (COAT), the radius, and the estimates kept at rho 1 and 1.3. It also compares objective and
result of the reductions that start at COAT: with both rho, and plain mixture reduction (MR) of all estimates.

Known exception: where the published code lets a component die, it returns fewer than K components. ``dask_dfmr`` puts
the component elsewhere and keeps K. This concerns plain MR under the attack ``cov_code``. Such a reduction is not
compared; it must reach a lower objective instead.

The exit code is 1 if any case disagrees.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, aggregate, mixing_distance, pairwise_l2

REDUCTIONS = {
    "DFMR(1)": (1.0, "dfmr_1_coatinit", "kept_1"),
    "DFMR(1.3)": (1.3, "dfmr_1.3_coatinit", "kept_1.3"),
    "MR": (np.inf, "vanilla_coatinit", None),
}
DISTANCE_TOLERANCE = 1e-9
OBJECTIVE_TOLERANCE = 1e-9
W1_TOLERANCE = 1e-3
"""The published scripts stop a reduction at an absolute change of 1e-5 of the objective."""


class Case(NamedTuple):
    """One case of the folder: its set, its attack, the share of corrupted sources, and the stored arrays."""

    which: str
    attack: str
    alpha: float
    arrays: dict[str, Any]

    @property
    def label(self) -> str:
        """Attack and share of corrupted sources, as the tables show them."""
        return f"{self.attack} {self.alpha:g}"

    def local_mixtures(self) -> list[Mixture]:
        """The local estimates, one mixture a source."""
        parameters = (self.arrays[f"local_{name}"] for name in ("weights", "means", "covs"))
        return [Mixture(*p) for p in zip(*parameters, strict=True)]


class Comparison(NamedTuple):
    """One reduction of one case beside the published one.

    ``objective`` is the ratio of the objectives minus 1, ``w1_between`` the distance of the two results, and
    ``w1_to_truth`` the difference of their distances to the truth. ``n_published`` is the number of components that
    the published result has.
    """

    same_center: bool
    same_radius: bool
    same_kept: bool
    objective: float
    w1_between: float
    w1_to_truth: float
    n_published: int

    @property
    def is_exception(self) -> bool:
        """Whether the published reduction lost a component, and ours is the better one."""
        return self.n_published < 5 and self.objective < 0

    @property
    def agrees(self) -> bool:
        """Whether everything is the same within rounding and the published stopping rule."""
        same = self.same_center and self.same_radius and self.same_kept
        close = (
            abs(self.objective) < OBJECTIVE_TOLERANCE
            and self.w1_between < W1_TOLERANCE
            and abs(self.w1_to_truth) < W1_TOLERANCE
        )
        return same and (close or self.is_exception)


def load_reader(folder: Path) -> Any:
    """Import the loader that lies in the folder."""
    spec = importlib.util.spec_from_file_location("load_reference", folder / "load_reference.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} holds no load_reference.py")
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    return reader


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The arguments of the scripts that read these cases."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=5000, help="rows per source in the folder")


def cases_in(folder: Path) -> Iterator[Case]:
    """All cases of all sets in a folder."""
    reader = load_reader(folder)
    for which in reader.list_sets():
        for attack, alpha in reader.list_cases(which):
            yield Case(which, attack, alpha, reader.load_case(which, attack, alpha))


def distance_error(mixtures: list[Mixture], expected: np.ndarray) -> float:
    """Largest relative error of a pairwise L2 distance, without the diagonal."""
    off = ~np.eye(len(mixtures), dtype=bool)
    return float(np.abs(pairwise_l2(mixtures)[off] / expected[off] - 1).max())


def compare(case: dict[str, Any], mixtures: list[Mixture], n_rows: int, name: str) -> Comparison:
    """Aggregate the local mixtures again and compare with the published result of the reduction ``name``."""
    rho, key, kept = REDUCTIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = aggregate(
            [LocalEstimate(m, n_rows) for m in mixtures], rho=rho, machine_weights="equal"
        )
    theirs = mixture_of(case, key)
    truth = mixture_of(case, "true")
    decision = ours.decision
    return Comparison(
        decision.center == case["coat_index"],
        abs(decision.radius / case["radius"] - 1) < DISTANCE_TOLERANCE,
        kept is None or set(np.flatnonzero(decision.kept)) == set(case[kept].tolist()),
        float(ours.objective / case[f"{key}_obj"] - 1),
        mixing_distance(ours.mixture, theirs),
        mixing_distance(ours.mixture, truth) - float(case[f"{key}_W1"]),
        theirs.n_components,
    )


def mixture_of(case: dict[str, Any], key: str) -> Mixture:
    """The stored mixture of this name, weights summing to one."""
    weights = case[f"{key}_weights"]
    return Mixture(weights / weights.sum(), case[f"{key}_means"], case[f"{key}_covs"])


def case_row(case: Case, n: int) -> list[Any]:
    """One line of the table; the last entry says whether the case agrees."""
    mixtures = case.local_mixtures()
    error = distance_error(mixtures, case.arrays["pairwise_l2"])
    found = [compare(case.arrays, mixtures, n, name) for name in REDUCTIONS]
    agrees = error < DISTANCE_TOLERANCE and all(c.agrees for c in found)
    yes = {True: "yes", False: "NO"}
    return [
        case.which,
        case.label,
        f"{error:.0e}",
        yes[all(c.same_center for c in found)],
        yes[all(c.same_radius for c in found)],
        yes[all(c.same_kept for c in found)],
        *(f"{c.objective:+.0e}{'*' * c.is_exception}" for c in found),
        f"{max(max(c.w1_between, abs(c.w1_to_truth)) for c in found if not c.is_exception):.0e}",
        yes[agrees],
    ]


def main() -> int:
    """Print the table; return the exit code."""
    parser = benchmark_parser(__doc__)
    add_folder(parser)
    options = parser.parse_args()
    with recorded(options):
        rows = [case_row(case, options.rows) for case in cases_in(options.folder)]
        header = ["set", "attack, alpha", "distances", "COAT", "radius", "kept"]
        print_table([*header, *REDUCTIONS, "W1", "agrees"], rows)
        n_agree = sum(row[-1] == "yes" for row in rows)
        print(f"{n_agree} of {len(rows)} cases agree.")
    return int(n_agree < len(rows) or not rows)


if __name__ == "__main__":
    sys.exit(main())
