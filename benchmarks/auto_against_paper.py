"""Claim: ``rho="auto"`` is no worse than the paper's rho = 1.3 on the paper's own cases.

    python benchmarks/auto_against_paper.py FOLDER

FOLDER is that of ``reference_cases.py``. It holds local estimates of the published scripts, some of them attacked.
The script prints, for both rules, W1 to the truth over that of the oracle. The oracle is the reduction of exactly the
clean sources. It also prints how many clean and how many corrupted sources each rule kept.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from output import benchmark_parser, print_lines, print_table, recorded
from reference_cases import Case, add_folder, cases_in, mixture_of

from dask_dfmr import Aggregate, LocalEstimate, aggregate, mixing_distance


def kept_of(result: Aggregate, corrupted: np.ndarray) -> str:
    """Numbers of clean and of corrupted sources that were kept, as text."""
    kept = result.decision.kept
    return f"{(kept & ~corrupted).sum()} of {(~corrupted).sum()}, {(kept & corrupted).sum()} of {corrupted.sum()}"


def case_row(case: Case, n: int) -> list[Any]:
    """One line of the table; the last two entries are the errors of the two rules over the oracle's."""
    estimates = [LocalEstimate(mixture, n) for mixture in case.local_mixtures()]
    corrupted = np.zeros(len(estimates), dtype=bool)
    corrupted[np.asarray(case.arrays.get("byzantine", []), dtype=int)] = True
    truth = mixture_of(case.arrays, "true")

    def error(result: Aggregate) -> float:
        return mixing_distance(result.mixture, truth)

    oracle = error(
        aggregate([e for e, b in zip(estimates, corrupted, strict=True) if not b], method="mr")
    )
    paper, auto = aggregate(estimates, rho=1.3), aggregate(estimates)
    ratios = [error(result) / oracle for result in (paper, auto)]
    kept = [kept_of(result, corrupted) for result in (paper, auto)]
    return [case.which, case.label, f"{oracle:.4f}", *kept, *ratios]


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    add_folder(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with recorded(options):
        print_comparison([case_row(case, options.rows) for case in cases_in(options.folder)])


def print_comparison(rows: list[list[Any]]) -> None:
    """The table of the cases in which the two rules keep different sources, and a summary of all cases."""
    header = ["set", "attack, alpha", "oracle W1", "kept by 1.3", "kept by auto", "1.3", "auto"]
    different = [row for row in rows if row[3] != row[4]]
    print_table(header, [[*row[:-2], *(f"{r:.3f}" for r in row[-2:])] for row in different])
    ratios = np.array([row[-2:] for row in rows])
    worse = ratios[:, 1] / ratios[:, 0]
    print_lines(
        [
            *(
                f"{name}: mean {column.mean():.3f}, worst {column.max():.3f} times the oracle's W1"
                for name, column in zip(("1.3", "auto"), ratios.T, strict=True)
            ),
            f"auto over 1.3: mean {worse.mean():.3f}, worst {worse.max():.3f}, best {worse.min():.3f}",
            f"worse by more than 1 %: {(worse > 1.01).sum()} of {len(worse)} cases",
        ]
    )


if __name__ == "__main__":
    main()
