"""Claim: ``rho="auto"`` is no worse than the paper's rho = 1.3 on the paper's own cases.

    python benchmarks/auto_against_paper.py FOLDER

FOLDER is that of ``reference_cases.py``: local estimates of the published scripts, some of them attacked. Printed is W1
to the truth of both, over that of the oracle (the reduction of exactly the honest machines), and how many honest
and how many bad machines each kept.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common import print_machine, print_table
from reference_cases import load_reader, mixture_of

from dask_dfmr import Aggregate, LocalEstimate, Mixture, aggregate, mixing_distance


def kept_of(result: Aggregate, bad: np.ndarray) -> str:
    """Honest and bad machines that were kept."""
    kept = result.decision.kept
    return f"{(kept & ~bad).sum()} of {(~bad).sum()}, {(kept & bad).sum()} of {bad.sum()}"


def case_row(which: str, attack: str, alpha: float, case: dict[str, Any], n: int) -> list[Any]:
    """One line of the table; the last two entries are the errors."""
    parameters = (case[f"local_{name}"] for name in ("weights", "means", "covs"))
    estimates = [LocalEstimate(Mixture(*p), n) for p in zip(*parameters, strict=True)]
    bad = np.zeros(len(estimates), dtype=bool)
    bad[np.asarray(case.get("byzantine", []), dtype=int)] = True
    truth = mixture_of(case, "true")

    def error(result: Aggregate) -> float:
        return mixing_distance(result.mixture, truth)

    oracle = error(
        aggregate([e for e, b in zip(estimates, bad, strict=True) if not b], method="mr")
    )
    paper, auto = aggregate(estimates, rho=1.3), aggregate(estimates)
    ratios = [error(result) / oracle for result in (paper, auto)]
    kept = [kept_of(result, bad) for result in (paper, auto)]
    return [which, f"{attack} {alpha:g}", f"{oracle:.4f}", *kept, *ratios]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=5000, help="rows per machine in the folder")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print_machine()
    reader = load_reader(options.folder)
    rows = [
        case_row(which, attack, alpha, reader.load_case(which, attack, alpha), options.rows)
        for which in reader.list_sets()
        for attack, alpha in reader.list_cases(which)
    ]
    header = ["set", "attack, alpha", "oracle W1", "kept by 1.3", "kept by auto", "1.3", "auto"]
    print_table(header, [[*row[:-2], *(f"{ratio:.3f}" for ratio in row[-2:])] for row in rows])
    ratios = np.array([row[-2:] for row in rows])
    for name, column in zip(("1.3", "auto"), ratios.T, strict=True):
        print(f"{name}: mean {column.mean():.3f}, worst {column.max():.3f} times the oracle's W1")
    worse = ratios[:, 1] / ratios[:, 0]
    print(
        f"auto over 1.3: mean {worse.mean():.3f}, worst {worse.max():.3f}, best {worse.min():.3f}"
    )
    print(f"worse by more than 1 %: {(worse > 1.01).sum()} of {len(worse)} cases")


if __name__ == "__main__":
    main()
