"""Claim: with about half of the machines bad, or more, the fit says that it cannot tell who the majority is.

    python benchmarks/breakdown.py               # ten minutes

K = 5, d = 10, 40 machines of 5,000 rows fitted from pilots, several populations of the paper's design. Printed is, by
attack and share of bad machines, the median error over the oracle's ("par", ``metrics.parameter_error``), and behind
it for how many populations ``NoMajorityWarning`` was issued. "!" marks a confident wrong answer: an error of more than
1.5 times the oracle's in a population without that warning.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from common import print_machine, print_table
from honest_fits import Setting, honest_fits

from dask_dfmr import NoMajorityWarning, aggregate
from dask_dfmr.attacks import recruit
from dask_dfmr.mixtures.metrics import parameter_error, truth_information

RATES = (0.4, 0.45, 0.475, 0.5, 0.525, 0.6)
ATTACKS = (
    *("mean", "covariance", "weight", "sign_flip", "spike", "blind_spot"),
    *("alie", "min_max", "min_max_noise_70", "clique", "tight_groups", "shadow", "mimic"),
)
WRONG = 1.5
N_MACHINES = 40
CACHE = Path(__file__).with_name("cache")


def main() -> None:
    """Print one table per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["dfmr", "hardened"])
    parser.add_argument("--overlap", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    print_machine()
    settings = [Setting(options.overlap, seed) for seed in options.seeds]
    populations = []
    for setting in settings:
        truth, estimates = honest_fits(setting, options.cache)
        populations.append((truth, estimates[:N_MACHINES], truth_information(truth)))
    for method in options.methods:
        lines = []
        for attack in ATTACKS:
            cells = []
            for rate in RATES:
                ratios, said = [], []
                for seed, (truth, estimates, about) in zip(options.seeds, populations, strict=True):
                    adversary = recruit(estimates, rate, random_state=seed)
                    corruption = adversary.corrupt(attack)
                    honest = [
                        e
                        for e, bad in zip(corruption.estimates, corruption.is_bad, strict=True)
                        if not bad
                    ]
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always")
                        result = aggregate(corruption.estimates, method=method)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        oracle = aggregate(honest, method="mr")
                    errors = [
                        parameter_error(r.mixture, truth, about=about) for r in (result, oracle)
                    ]
                    ratios.append(errors[0] / errors[1])
                    said.append(any(issubclass(w.category, NoMajorityWarning) for w in caught))
                wrong = any(r > WRONG and not s for r, s in zip(ratios, said, strict=True))
                cells.append(
                    f"{np.median(ratios):.3g} ({sum(said)}/{len(said)}){' !' if wrong else ''}"
                )
            lines.append([attack, *cells])
        print(f"\nmethod={method!r}\n")
        print_table(["attack", *(f"{rate:g}" for rate in RATES)], lines)


if __name__ == "__main__":
    main()
