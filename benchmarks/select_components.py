"""Claim: corrupted partitions do not affect ``select_components``: K = 5 is found as often as without them.

    python benchmarks/select_components.py                         # about 25 minutes on one core
    python benchmarks/select_components.py -m 20 --draws 1 --quick

Populations of the paper's design (K = 5, 10 columns; see data/README.md). The rows of 30 % of the partitions are drawn
from another mixture. Under the mean attack, standard normal noise is added to the means. Under the covariance attack
the covariances are Wishart matrices of as many degrees of freedom as columns. The other mixture differs for every
corrupted partition ("scattered") or is the same for all of them ("together").

The script prints how often each criterion takes K = 5, among K = 3 to 7 (2 to 8 with ``--wide``), on the common set of
``select_components``. It does the same with ``method="mr"``, which filters nothing. It also prints how many corrupted
partitions are in the common set and how many clean ones are not, and how often partitions were read. The last columns
are the CPU time and the share of it that is not fits (``fit_candidates``).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import dask
import numpy as np
from common import SEEDS, StageClock, draw_rows, population
from output import benchmark_parser, print_progress, print_table, recorded

from dask_dfmr import GaussianMixture, Mixture, Selection, select_components

CRITERIA = ("bic", "aic", "icl", "held_out")
SHARE = 0.3
K = 5


def mean_attack(truth: Mixture, rng: np.random.Generator) -> Mixture:
    """The population with other means."""
    means = truth.means + rng.standard_normal(truth.means.shape)
    return Mixture(truth.weights, means, truth.covariances)


def covariance_attack(truth: Mixture, rng: np.random.Generator) -> Mixture:
    """The population with other covariances."""
    k, d = truth.means.shape
    roots = rng.standard_normal((k, d, d))
    return Mixture(truth.weights, truth.means, roots @ roots.transpose(0, 2, 1) + 1e-3 * np.eye(d))


ATTACKS: dict[str, Callable[[Mixture, np.random.Generator], Mixture] | None] = {
    "clean": None,
    "mean": mean_attack,
    "covariance": covariance_attack,
}


class CountedPartitions:
    """Partitions that count how often each of them is read (``reads``)."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self.parts = parts
        self.reads: Counter[int] = Counter()

    def read(self, i: int) -> np.ndarray:
        """The rows of a partition."""
        self.reads[i] += 1
        return self.parts[i]

    def delayed(self) -> list[Any]:
        """The partitions as a list of delayed arrays."""
        return [dask.delayed(self.read)(i) for i in range(len(self.parts))]


class Found(NamedTuple):
    """The choices, the common set, the reads and the CPU seconds of one selection."""

    chosen: dict[str, int]
    n_corrupted_kept: int
    n_clean_excluded: int
    n_reads: int
    cpu: float
    other_cpu: float


def draw(
    truth: Mixture, attack: str, together: bool, m: int, n: int, seed: list[int]
) -> CountedPartitions:
    """Partitions, the first 30 % of them corrupted; the clean rows do not depend on the attack."""
    rng, other_rng = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    parts = [draw_rows(truth, n, rng) for _ in range(m)]
    make = ATTACKS[attack]
    if make is None:
        return CountedPartitions(parts)
    other = make(truth, other_rng)
    for i in range(round(SHARE * m)):
        other = other if together else make(truth, other_rng)
        parts[i] = draw_rows(other, n, other_rng)
    return CountedPartitions(parts)


def chosen_by(selection: Selection) -> dict[str, int]:
    """The number of components that each criterion takes."""
    return {name: int(selection.best_by(name)["n_components"]) for name in CRITERIA}


def run(
    partitions: CountedPartitions, numbers: range, n_corrupted: int, seed: int, **options: Any
) -> Found:
    """One selection among these numbers of components."""
    with StageClock() as clock:
        start = time.process_time()
        found = select_components(
            GaussianMixture(random_state=seed, **options), partitions.delayed(), numbers
        )
        cpu = time.process_time() - start
    return Found(
        chosen_by(found),
        int(found.kept[:n_corrupted].sum()),
        int((~found.kept[n_corrupted:]).sum()),
        max(partitions.reads.values()),
        cpu,
        cpu - clock.cpu["fit_candidates"],
    )


def line(name: list[str], found: list[Found]) -> list[str]:
    """One line of the table, over the selections of all populations and draws."""
    counts = [Counter(f.chosen[criterion] for f in found) for criterion in CRITERIA]
    hits = [
        f"{count[K]}/{len(found)}"
        + "".join(f", {n} x {k}" for k, n in sorted(count.items()) if k != K)
        for count in counts
    ]
    cpu = sum(f.cpu for f in found) / len(found)
    return [
        *name,
        *hits,
        f"{sum(f.n_corrupted_kept for f in found)}",
        f"{sum(f.n_clean_excluded for f in found)}",
        f"{max(f.n_reads for f in found)}",
        f"{cpu:.0f} s",
        f"{sum(f.other_cpu for f in found) / sum(f.cpu for f in found):.0%}",
    ]


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("-m", type=int, default=20, help="partitions")
    parser.add_argument("-n", type=int, default=2000, help="rows of a partition")
    parser.add_argument("--draws", type=int, default=2, help="draws per population")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--wide", action="store_true", help="K = 2 to 8")
    parser.add_argument("--quick", action="store_true", help="scattered attacks only, no mr")
    parser.add_argument("--refine", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    header = ["overlap", "30 % corrupted", "method", *(f"K = 5 by {c}" for c in CRITERIA)]
    with recorded(options):
        lines = []
        for overlap, case in product(options.overlaps, cases(options.quick)):
            lines.append(line_of(overlap, *case, options))
            print_progress(*lines[-1])
        print_table([*header, "corrupted in", "clean excluded", "reads", "CPU", "not fits"], lines)


def cases(quick: bool) -> list[tuple[str, str, str]]:
    """Attack, way of the corrupted partitions ("scattered" or "together"), and method."""
    found = [("clean", "", "dfmr")]
    for attack in ("mean", "covariance"):
        found.append((attack, "scattered", "dfmr"))
        if not quick:
            found += [(attack, "together", "dfmr"), (attack, "scattered", "mr")]
    return found


def line_of(
    overlap: float, attack: str, how: str, method: str, options: argparse.Namespace
) -> list[str]:
    """The line of one overlap and case, over all populations and draws."""
    numbers = range(2, 9) if options.wide else range(3, 8)
    n_corrupted = round(SHARE * options.m) if attack != "clean" else 0
    more = {"method": method, "refine": options.refine}
    found = []
    for seed, repeat in product(SEEDS, range(options.draws)):
        truth, together, key = population(overlap, seed), how == "together", [seed, repeat]
        partitions = draw(truth, attack, together, options.m, options.n, key)
        found.append(run(partitions, numbers, n_corrupted, repeat, **more))
    return line([f"{overlap:g}", f"{attack} {how}".strip(), method], found)


if __name__ == "__main__":
    main()
