"""Claim: with about half of the sources bad, or more, the fit warns that it cannot tell which side is the majority.

    python benchmarks/breakdown.py               # ten minutes

K = 5, d = 10, 40 sources of 5,000 rows fitted from pilots, several populations of the paper's design. For each attack
and share of bad sources the script prints the median error of the parameters over the oracle's
(``metrics.parameter_error``). Behind it stands for how many populations ``NoMajorityWarning`` was issued. "!" marks a
confident wrong answer: an error above 1.5 times the oracle's in a population without that warning.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from clean_fits import Setting, clean_fits
from output import benchmark_parser, print_table, recorded

from dask_dfmr import LocalEstimate, Mixture, NoMajorityWarning, aggregate
from dask_dfmr.attacks import recruit
from dask_dfmr.mixtures.information import Information
from dask_dfmr.mixtures.metrics import parameter_error, truth_information

RATES = (0.4, 0.45, 0.475, 0.5, 0.525, 0.6)
ATTACKS = (
    *("mean", "covariance", "weight", "sign_flip", "spike", "blind_spot"),
    *("alie", "min_max", "min_max_noise_70", "clique", "tight_groups", "shadow", "mimic"),
)
WRONG = 1.5
N_SOURCES = 40
CACHE = Path(__file__).with_name("cache")


class Population(NamedTuple):
    """A population with the clean estimates of its sources; ``seed`` also draws which of them are bad."""

    seed: int
    truth: Mixture
    estimates: list[LocalEstimate]
    about: Information


def load(setting: Setting, folder: Path) -> Population:
    """Read or make the fits of a setting."""
    truth, estimates = clean_fits(setting, folder)
    return Population(setting.seed, truth, estimates[:N_SOURCES], truth_information(truth))


def measure(of: Population, attack: str, rate: float, method: str) -> tuple[float, bool]:
    """Error of the parameters over the oracle's, and whether ``NoMajorityWarning`` was issued."""
    corruption = recruit(of.estimates, rate, random_state=of.seed).corrupt(attack)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = aggregate(corruption.estimates, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = aggregate(corruption.honest, method="mr")
    mine, best = (parameter_error(r.mixture, of.truth, about=of.about) for r in (result, oracle))
    return mine / best, any(issubclass(w.category, NoMajorityWarning) for w in caught)


def cell(found: list[tuple[float, bool]]) -> str:
    """Median ratio and number of warnings over the populations, with the mark of a confident wrong answer."""
    warned = sum(is_warned for _, is_warned in found)
    is_wrong = any(ratio > WRONG and not is_warned for ratio, is_warned in found)
    median = np.median([ratio for ratio, _ in found])
    return f"{median:.3g} ({warned}/{len(found)}){' !' if is_wrong else ''}"


def main() -> None:
    """Print one table per method."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--methods", nargs="+", default=["dfmr", "hardened"])
    parser.add_argument("--overlap", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    with recorded(options):
        settings = [Setting(options.overlap, seed) for seed in options.seeds]
        populations = [load(setting, options.cache) for setting in settings]
        for method in options.methods:
            lines = [
                [
                    attack,
                    *(
                        cell([measure(p, attack, rate, method) for p in populations])
                        for rate in RATES
                    ),
                ]
                for attack in ATTACKS
            ]
            print(f"method={method!r}\n")
            print_table(["attack", *(f"{rate:g}" for rate in RATES)], lines)


if __name__ == "__main__":
    main()
