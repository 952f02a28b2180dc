"""Claim: p-values are those of the mixture, the rate of false alarms is kept, and outliers are found.

    python benchmarks/outliers.py
    python benchmarks/outliers.py --parts law tables --draws 1

Parts:

- "law": p-values of mixtures of the paper's design. Standard error as the detector states it, scatter between seeds at
  some p, CPU time of the law, and the share of a million rows of the mixture with p below .001.
- "alarms": detectors trained on ten partitions, each with 2 % gross rows, half of them with the first column times 10
  and half with all columns times 1000. False alarms are the share of fresh clean rows that are flagged at the rate
  .001. "found" is the share of fresh rows with the first column times 10 that are flagged, and AUC tells these from
  clean rows. The detectors of scikit-learn get the true share of bad rows; its mixture gets the law of this package.
- "tables": tables that scikit-learn ships, columns divided by their interquartile range. Each class in turn has the
  outliers, and the others the inliers. "new": detectors are trained on half of the inliers, and score the other half
  and the outliers. "among": they are trained on all inliers and on outliers, 5 % of all, and score the same rows. AUC
  over classes and draws: mean, and smallest. "worse" counts those more than .005 below scikit-learn's mixture.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import dask
import numpy as np
from common import draw_partitions, draw_rows
from mixsim import paper_population
from output import benchmark_parser, print_progress, print_table, recorded
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import LocalOutlierFactor

from dask_dfmr import GaussianMixture, Mixture, OutlierDetector

PARTS = ("law", "alarms", "tables")
RATE = 0.001
N_FRESH = 200_000
"""Fresh clean rows: the standard error of a share of .001 is .00007."""

N_BAD = 5000
"""Fresh bad rows, and the clean rows that the slower detectors of scikit-learn see."""

SHAPES = ((2, 2), (5, 2), (2, 10), (5, 10), (10, 10), (5, 30), (10, 30))
"""Components and columns of the laws."""

LAW_SEEDS = 6
PROBED = (1e-16, 1e-8, 1e-4, 0.5, 0.99)

TRAINED = {2: (5, 2000), 10: (5, 2000), 30: (3, 5000)}
"""Columns -> components, and rows of a partition, of the trained detectors."""

N_PARTITIONS, GROSS = 10, 0.02
OUTLIER_SHARE = 0.05
WHAT = ("mean AUC", "smallest", "worse")
OURS = {"plain": None, "truncate": "truncate"}

# -- the law -------------------------------------------------------------------------------------


def law_row(n_components: int, n_features: int) -> list[Any]:
    """One line of the table of the law."""
    mixture = paper_population(n_components, n_features, 0.2, 1)
    started = time.process_time()
    detectors = [
        OutlierDetector.from_mixture(mixture, false_alarm_rate=RATE, random_state=seed)
        for seed in range(LAW_SEEDS)
    ]
    seconds = (time.process_time() - started) / LAW_SEEDS
    rows, _ = mixture.sample(1_000_000, 0)
    flagged = (detectors[0].predict(rows) == -1).mean()
    p = np.sort(detectors[0].p_value(rows[:: len(rows) // 10_000]))
    ks = np.abs(p - (np.arange(len(p)) + 0.5) / len(p)).max() * np.sqrt(len(p))
    return [
        *(n_components, n_features, f"{detectors[0].p_value_error_:.2%}"),
        *(f"{error:.2%}" for error in law_scatter(mixture)),
        *(f"{seconds:.2f}", f"{flagged:.5f}", f"{ks:.2f}"),
    ]


def law_scatter(mixture: Mixture) -> list[float]:
    """Standard deviation between seeds of the p-value of rows whose p is about ``PROBED``, over min(p, 1 - p)."""
    offsets = [OutlierDetector.from_mixture(mixture, false_alarm_rate=p).offset_ for p in PROBED]
    rows = rows_of_density(mixture, offsets)
    found = np.array(
        [
            OutlierDetector.from_mixture(mixture, random_state=seed).p_value(rows)
            for seed in range(LAW_SEEDS)
        ]
    )
    return list(found.std(axis=0, ddof=1) / np.minimum(found, 1 - found).mean(axis=0))


def rows_of_density(mixture: Mixture, offsets: list[float]) -> np.ndarray:
    """Rows on a ray from the densest mean, where the density falls to given values."""
    start = mixture.means[mixture.score_samples(mixture.means).argmax()]
    away = start - mixture.means.mean(axis=0)
    spread = np.sqrt(mixture.full_components[1].trace(axis1=1, axis2=2).max())
    steps = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 100_001)])
    rows = start + steps[:, None] * (spread * away / np.linalg.norm(away))
    density = mixture.score_samples(rows)
    return rows[[int(np.argmax(density < offset)) for offset in offsets]]


# -- false alarms --------------------------------------------------------------------------------


def spoiled(rows: np.ndarray) -> np.ndarray:
    """The rows with the last 2 % made gross, in two ways."""
    rows = rows.copy()
    n_bad = round(GROSS * len(rows))
    rows[-n_bad : -n_bad // 2, 0] *= 10
    rows[-n_bad // 2 :] *= 1000
    return rows


Flags = Callable[[np.ndarray], np.ndarray]
"""Rows -> a value for each, negative for outliers."""


def trained(partitions: list[np.ndarray], n_components: int) -> Iterator[tuple[str, Flags]]:
    """All detectors, trained on these partitions."""
    for name, value in OURS.items():
        model = GaussianMixture(n_components, row_outliers=value, random_state=0)
        yield name, OutlierDetector(model, false_alarm_rate=RATE).fit(partitions).decision_function
    rows = np.concatenate(partitions)
    mixture = Mixture.from_sklearn(SklearnMixture(n_components, random_state=0).fit(rows))
    detector = OutlierDetector.from_mixture(mixture, false_alarm_rate=RATE)
    yield "scikit-learn's mixture", detector.decision_function
    forest = IsolationForest(contamination=GROSS, random_state=0).fit(rows)
    yield "IsolationForest", forest.decision_function
    sample = rows[np.random.default_rng(0).permutation(len(rows))[:5000]]
    factor = LocalOutlierFactor(novelty=True, contamination=GROSS).fit(sample)
    yield "LocalOutlierFactor", factor.decision_function


def alarm_rows(n_features: int, draw: int) -> Iterator[list[Any]]:
    """A line for each detector."""
    n_components, n = TRAINED[n_features]
    truth = paper_population(n_components, n_features, 0.1, draw + 1)
    rng = np.random.default_rng([n_features, draw])
    partitions = [spoiled(rows) for rows in draw_partitions(truth, N_PARTITIONS, n, rng)]
    clean, bad = draw_rows(truth, N_FRESH, rng), draw_rows(truth, N_BAD, rng)
    bad[:, 0] *= 10
    for name, flags in trained(partitions, n_components):
        is_slow = name in ("IsolationForest", "LocalOutlierFactor")
        values, found = flags(clean[: len(bad)] if is_slow else clean), flags(bad)
        labels = np.repeat([0, 1], [len(values), len(found)])
        auc = roc_auc_score(labels, -np.concatenate([values, found]))
        yield [
            n_features,
            draw,
            name,
            f"{(values < 0).mean():.3%}",
            f"{(found < 0).mean():.1%}",
            f"{auc:.4f}",
        ]


# -- tables --------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table with classes. A mixture has ``per_class`` components for each class of inliers."""

    name: str
    rows: np.ndarray
    labels: np.ndarray
    covariance_type: str
    per_class: int = 1


def tables() -> Iterator[Table]:
    """Tables that scikit-learn ships. Covariances are diagonal where rows are few for their columns."""
    iris, wine = datasets.load_iris(), datasets.load_wine()
    cancer, digits = datasets.load_breast_cancer(), datasets.load_digits()
    yield Table("iris", iris.data, iris.target, "full")
    yield Table("wine", wine.data, wine.target, "diag")
    yield Table("breast_cancer", cancer.data, cancer.target, "diag", 2)
    parts = PCA(10, random_state=0).fit_transform(digits.data)
    yield Table("digits", parts, digits.target, "full")


class Trial(NamedTuple):
    """Rows to train on, rows to score, and which of the latter are outliers."""

    trained_on: np.ndarray
    scored: np.ndarray
    is_outlier: np.ndarray


def trials(table: Table, outlier: int, rng: np.random.Generator) -> dict[str, Trial]:
    """One class as new outliers, and as outliers among the rows of the training."""
    low, high = np.percentile(table.rows, [25, 75], axis=0)
    rows = table.rows / np.where(high > low, high - low, 1.0)
    good = rng.permutation(rows[table.labels != outlier])
    bad = rng.permutation(rows[table.labels == outlier])
    half = len(good) // 2
    some = bad[: round(OUTLIER_SHARE / (1 - OUTLIER_SHARE) * len(good))]
    new, among = np.concatenate([good[half:], bad]), np.concatenate([good, some])
    return {
        "new": Trial(good[:half], new, np.arange(len(new)) >= len(good) - half),
        "among": Trial(among, among, np.arange(len(among)) >= len(good)),
    }


def table_rows(table: Table, n_draws: int) -> list[list[Any]]:
    """A line for each detector: AUC over the classes and draws, of new outliers and of those among the rows."""
    found = defaultdict(list)
    classes = np.unique(table.labels)
    for outlier, draw in product(classes, range(n_draws)):
        rng = np.random.default_rng([draw, int(outlier)])
        for kind, trial in trials(table, outlier, rng).items():
            n_components = table.per_class * (len(classes) - 1)
            for name, scores in scored(trial, n_components, table.covariance_type, draw):
                found[kind, name].append(roc_auc_score(trial.is_outlier, -scores))
    return [
        [table.name, name, *auc_cells(found, "new", name), *auc_cells(found, "among", name)]
        for kind, name in found
        if kind == "new"
    ]


def auc_cells(found: dict[tuple[str, str], list[float]], kind: str, name: str) -> list[str]:
    """Mean, smallest, and how many are below those of scikit-learn's mixture."""
    auc, usual = np.array(found[kind, name]), np.array(found[kind, "scikit-learn's mixture"])
    return [f"{auc.mean():.3f}", f"{auc.min():.3f}", f"{(auc < usual - 0.005).sum()} of {len(auc)}"]


def scored(
    trial: Trial, n_components: int, covariance_type: str, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """All detectors and their scores; lower is more of an outlier."""
    train, rows = trial.trained_on, trial.scored
    for name, value in OURS.items():
        model = GaussianMixture(
            n_components,
            covariance_type=covariance_type,
            row_outliers=value,
            method="mr",
            min_partition_rows=2,
            random_state=seed,
        )
        yield name, OutlierDetector(model).fit(train).score_samples(rows)
    usual = SklearnMixture(n_components, covariance_type=covariance_type, random_state=seed)
    yield "scikit-learn's mixture", usual.fit(train).score_samples(rows)
    yield "IsolationForest", IsolationForest(random_state=seed).fit(train).score_samples(rows)
    if rows is train:
        yield "LocalOutlierFactor", LocalOutlierFactor().fit(train).negative_outlier_factor_
    else:
        factor = LocalOutlierFactor(novelty=True).fit(train)
        yield "LocalOutlierFactor", factor.score_samples(rows)


# -- output --------------------------------------------------------------------------------------


def print_part(part: str, options: argparse.Namespace) -> None:
    """The table of one part."""
    if part == "law":
        header = ["K", "d", "stated error", *(f"at p = {p:g}" for p in PROBED)]
        header += ["CPU s", f"share below {RATE}", "KS distance times sqrt(n)"]
        print("The law of the density, overlap .2:\n")
        print_table(header, [law_row(*shape) for shape in SHAPES])
    elif part == "alarms":
        print(f"Trained with 2 % gross rows, false-alarm rate {RATE:.1%}:\n")
        header = ["d", "draw", "detector", "false alarms", "found", "AUC"]
        rows = []
        for n_features in TRAINED:
            for draw in range(options.draws):
                print_progress(f"alarms, {n_features} columns, draw {draw}")
                rows += alarm_rows(n_features, draw)
        print_table(header, rows)
    else:
        print("Tables with classes, one of them the outliers:\n")
        lines = []
        for table in tables():
            print_progress(table.name)
            lines += table_rows(table, options.draws)
        header = [f"{kind}: {what}" for kind in ("new", "among") for what in WHAT]
        print_table(["table", "detector", *header], lines)


def main() -> None:
    """Print the tables of the chosen parts."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    with recorded(options), dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in options.parts:
            print_part(part, options)


if __name__ == "__main__":
    main()
