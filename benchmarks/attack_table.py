"""Claim: the errors of each method under each attack are published with their worst cases.

    python benchmarks/attack_table.py                                # K = 5, d = 10, 20 sources; 20 CPU minutes
    python benchmarks/attack_table.py --quick                        # one population, two rates, coarse search
    python benchmarks/attack_table.py --sources 100 --seeds 101
    python benchmarks/attack_table.py --picture docs/images/what-it-withstands.png

Populations of the paper's design, sources of 5,000 rows fitted from pilots and not from the truth
(``clean_fits.py``). A share of the sources is bad. An attack with a grid of strengths tries all of them against each
method. The worst strength counts, separately for each of the two kinds of error. The tables show errors over that of
the oracle, the reduction of exactly the honest sources, as mean / largest over populations. "par" is the error of all
parameters in standard errors (``metrics.parameter_error``), and W1 the paper's distance. W1 of one population is noisy,
and its ratios may well be below 1.

Results are kept in a folder, attack by attack, and only missing ones are computed. Delete the folder after a change of
the code.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from attack_table_picture import draw_breakdown_curves
from clean_fits import Setting, clean_fits
from output import benchmark_parser, print_table, recorded
from trimmed_reduction import trimmed_reduction

from dask_dfmr import AggregationError, LocalEstimate, Mixture, aggregate, mixing_distance
from dask_dfmr.attacks import ATTACKS, Adversary, default_methods, recruit
from dask_dfmr.mixtures.information import Information
from dask_dfmr.mixtures.metrics import parameter_error, truth_information

RATES = (0.1, 0.2, 0.3, 0.4)
CACHE = Path(__file__).with_name("cache")

NONE, MALFORMED = "none", "malformed messages"
"""Two more rows: no attack, and the worst of all malformed messages."""

MESSAGES = [a.name for a in ATTACKS.values() if a.kind == "messages"]
ROWS = [NONE, *(a.name for a in ATTACKS.values() if a.kind == "estimates"), MALFORMED]


class Result(NamedTuple):
    """Errors over the oracle's under one strength, and shares of the honest and of the bad sources kept."""

    strength: float
    par: float
    w1: float
    honest_kept: float
    bad_kept: float


class Case(NamedTuple):
    """A population, the information of its rows, and its sources with the bad ones among them."""

    truth: Mixture
    about: Information
    adversary: Adversary


def cases(
    setting: Setting, n_sources: int, rates: Sequence[float], folder: Path
) -> dict[float, Case]:
    """The cases of all rates, and of the rate 0, by rate."""
    truth, estimates = clean_fits(setting, folder)
    about = truth_information(truth)
    return {
        rate: Case(truth, about, recruit(estimates[:n_sources], rate, random_state=setting.seed))
        for rate in (0.0, *rates)
    }


def attempts(
    attack: str, adversary: Adversary, quick: bool
) -> Iterator[tuple[float, list[LocalEstimate | dict[str, Any]]]]:
    """All strengths of an attack, each with the messages of the sources."""
    if attack == NONE:
        yield 0.0, adversary.estimates
    elif attack == MALFORMED:
        for i, name in enumerate(MESSAGES):
            yield float(i), adversary.corrupt(name).estimates
    else:
        for strength in ATTACKS[attack].grid[:: -3 if quick else 1]:
            yield strength, adversary.corrupt(attack, strength).estimates


Combined = tuple[Mixture, np.ndarray]
"""The mixture of a method, and which estimates it kept."""

Method = Callable[[list[Any]], Combined]


def aggregated(estimates: list[Any], options: dict[str, Any]) -> Combined:
    """The result of ``aggregate``."""
    result = aggregate(estimates, random_state=0, **options)
    return result.mixture, result.decision.kept


def trimmed(estimates: list[Any]) -> Combined:
    """The result of the trimmed reduction."""
    result = trimmed_reduction(estimates, random_state=0)
    return result.mixture, result.kept


METHODS: dict[str, Method] = {
    name: partial(aggregated, options=options) for name, options in default_methods().items()
} | {"trim": trimmed}


def measure(case: Case, method: Method, estimates: list[Any], strength: float) -> Result:
    """Errors of a method's result; they are infinite where it raises the documented error."""
    try:
        mixture, kept = method(estimates)
    except AggregationError:
        return Result(strength, np.inf, np.inf, np.nan, np.nan)
    oracle = case.adversary.mixture(*case.adversary.origin)
    mine, best = (
        (parameter_error(m, case.truth, case.about), mixing_distance(m, case.truth))
        for m in (mixture, oracle)
    )
    bad = case.adversary.is_bad
    return Result(
        strength,
        mine[0] / best[0],
        mine[1] / best[1],
        float(kept[~bad].mean()),
        float(kept[bad].mean()) if bad.any() else np.nan,
    )


def try_attack(
    attack: str, case: Case, methods: Sequence[str], quick: bool
) -> dict[str, list[Result]]:
    """The results of all strengths, by method."""
    found: dict[str, list[Result]] = {name: [] for name in methods}
    for strength, estimates in attempts(attack, case.adversary, quick):
        for name in methods:
            found[name].append(measure(case, METHODS[name], estimates, strength))
    return found


Table = dict[str, dict[float, dict[str, list[Result]]]]
"""Attack -> rate -> method -> results of all strengths, of one population."""


def results_of(
    setting: Setting, n_sources: int, rates: Sequence[float], options: argparse.Namespace
) -> Table:
    """The results of one population; those in files are not computed again."""
    every: dict[float, Case] = {}
    table: Table = {}
    for attack in options.attacks:
        table[attack] = {}
        for rate in (0.0,) if attack == NONE else rates:
            label = f"{setting.name}_first{n_sources}_{attack}_{rate:g}{'_quick' * options.quick}"
            path = options.cache / "attack_table" / f"{label.replace(' ', '_')}.json"
            known = json.loads(path.read_text()) if path.exists() else {}
            missing = [name for name in options.methods if name not in known]
            if missing:
                every = every or cases(setting, n_sources, rates, options.cache / "fits")
                known |= try_attack(attack, every[rate], missing, options.quick)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(known))
            table[attack][rate] = {k: [Result(*r) for r in known[k]] for k in options.methods}
    return table


def worst(results: Sequence[Result], column: str) -> float:
    """The largest error of all strengths."""
    return max(getattr(result, column) for result in results)


def cell(values: Sequence[float]) -> str:
    """Mean and largest value, as text."""
    return f"{short(float(np.mean(values)))} / {short(max(values))}"


def short(value: float) -> str:
    """A number as text, with two decimals below 10."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.0e}"


def mean_par(tables: Sequence[Table], attack: str, rate: float, method: str) -> float:
    """Mean over populations of the error of the parameters under the worst strength."""
    return float(np.mean([worst(t[attack][rate][method], "par") for t in tables]))


def print_tables(tables: Sequence[Table], rates: Sequence[float], methods: Sequence[str]) -> None:
    """Print a table for each kind of error and rate."""
    for column, title in (("par", "parameters"), ("w1", "W1")):
        for rate in rates:
            print(f"{title}, {rate:.0%} bad: error / oracle's, mean / largest\n")
            lines = []
            for attack in tables[0]:
                at = 0.0 if attack == NONE else rate
                lines.append(
                    [attack]
                    + [cell([worst(t[attack][at][m], column) for t in tables]) for m in methods]
                )
            print_table(["attack", *methods], lines)


def print_summary(tables: Sequence[Table], rates: Sequence[float], methods: Sequence[str]) -> None:
    """Print for each method the worst attack, the number of attacks that cost a fifth, and honest sources kept."""
    lines = []
    for method in methods:
        line = [method]
        for rate in rates:
            attacks = [attack for attack in tables[0] if attack != NONE]
            means = {attack: mean_par(tables, attack, rate, method) for attack in attacks}
            top = max(means, key=means.__getitem__)
            many = sum(value > 1.2 for value in means.values())
            line.append(f"{short(means[top])} ({top}), {many} of {len(means)}")
        kept = [
            r.honest_kept
            for t in tables
            for at in t.values()
            for by_method in at.values()
            for r in by_method[method]
        ]
        lines.append([*line, f"{np.nanmean(kept):.1%} / {np.nanmin(kept):.1%}"])
    print(
        "worst attack by mean of par, and attacks that cost more than a fifth of the oracle's error\n"
    )
    print_table(["method", *(f"{r:.0%} bad" for r in rates), "honest kept, mean / least"], lines)


def main() -> None:
    """Print the tables, and draw the picture if asked to."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sources", type=int, default=20, help="at most 100")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[101])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--attacks", nargs="+", default=ROWS, choices=ROWS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of fits and results")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rates = (0.2, 0.4) if options.quick else RATES
    settings = [Setting(o, s) for o in options.overlaps for s in options.seeds]
    settings = settings[:1] if options.quick else settings
    with recorded(options):
        started = time.process_time()
        tables = [results_of(s, options.sources, rates, options) for s in settings]
        print(
            f"{options.sources} sources x {settings[0].n_rows} rows, K = 5, d = 10, {len(settings)} populations "
            f"(overlaps {options.overlaps}, seeds {options.seeds}); {time.process_time() - started:.0f} CPU seconds\n"
        )
        print_tables(tables, rates, options.methods)
        print_summary(tables, rates, options.methods)
    if options.picture:
        curves = {
            attack: {
                method: [mean_par(tables, attack, rate, method) for rate in rates]
                for method in options.methods
            }
            for attack in options.attacks
            if attack != NONE
        }
        draw_breakdown_curves(options.picture, rates, curves)


if __name__ == "__main__":
    main()
