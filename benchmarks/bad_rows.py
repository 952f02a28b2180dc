"""A few bad rows in every partition: errors over those of the clean rows' fit, with truncation and without.

    python benchmarks/bad_rows.py            # one draw of a small grid
    python benchmarks/bad_rows.py --full     # every size, three draws
    python benchmarks/bad_rows.py --parts clean tclust

Fits start from pilots, never from the truth. Populations are those of the paper's design (5 components). In every
partition the last rows are bad, in one way, and a different share of them from table to table:

- ``x10``: the first column times 10;
- ``x1000``: all columns times 1000;
- ``fill``: -9999 in the first column;
- ``uniform``: uniform on a box twice as wide as the rows, in every column;
- ``other``: rows of another population of the same design.

An error is ``metrics.parameter_error``, or W1, over that of the default fit to the rows that are not bad. Each cell has
the mean, and the largest in brackets, over settings and draws.

Parts: "rows" are the shares of bad rows. "clean" has none, in 10 columns and in 2. "partitions" adds 30 % bad
partitions (one column x10, all columns x1000, two columns swapped, in turn) to 2 % bad rows; the error is over that of
the clean rows of the good partitions, and a verdict is the set of partitions that are kept. "tclust" has rows of the
generator ``simula.tclust`` of the R package tclust, written anew from its description: three normal clusters in two
columns, of one shape (type 1) or of three (type 2), two columns of standard normal noise, and 10 % of rows uniform in
the first two columns. Beside them are the methods of ``rivals.py``, which have all rows at once.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import dask
import numpy as np
from common import draw_partitions, draw_rows
from mixsim import paper_population
from output import benchmark_parser, print_lines, print_progress, print_table, recorded
from rivals import RIVALS, fit_rival
from row_families import damaged

from dask_dfmr import GaussianMixture, Mixture, metrics, mixing_distance
from dask_dfmr.mixtures.information import Information

K = 5
KINDS = ("x10", "x1000", "fill", "uniform", "other")
SHARES = (0.001, 0.005, 0.02, 0.05, 0.1)
OVERLAPS = (0.1, 0.3)
SIZES, ALL_SIZES = ((10, 2000),), ((10, 2000), (40, 2000), (10, 5000), (40, 5000))
"""Partitions, and rows of a partition."""

BAD_PARTITIONS = ("x10", "x1000", "swapped")
"""Kinds of bad partitions, in turn."""

BAD_PARTITION_SHARE, BAD_ROW_SHARE = 0.3, 0.02
METHODS = {"plain": None, "truncate": "truncate"}
PARTS = ("clean", "rows", "partitions", "tclust")

# -- fits ----------------------------------------------------------------------------------------


class Fitted(NamedTuple):
    """A fit, and the CPU seconds that it took."""

    mixture: Mixture
    kept: np.ndarray
    seconds: float


class Truth(NamedTuple):
    """A population, and what its errors are measured with."""

    mixture: Mixture
    about: Information

    @classmethod
    def of(cls, mixture: Mixture) -> Truth:
        """The information about a population takes a second: it is computed once."""
        return cls(mixture, metrics.truth_information(mixture))

    def errors(self, mixture: Mixture) -> np.ndarray:
        """Parameter error and W1."""
        parameters = metrics.parameter_error(mixture, self.mixture, self.about)
        return np.array([parameters, mixing_distance(mixture, self.mixture)])


def fit(partitions: Sequence[np.ndarray], n_components: int, row_outliers: str | None) -> Fitted:
    """The package's fit of these partitions."""
    model = GaussianMixture(n_components, row_outliers=row_outliers, random_state=0)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(list(partitions))
    return Fitted(model.mixture_, model.support_, time.process_time() - started)


class Line(NamedTuple):
    """What one method made of one set of rows, over the fit of the clean rows.

    ``ratios`` are those of the parameter error and of W1. ``seconds`` are over the plain fit of the same rows.
    ``excluded`` counts good partitions among ``good`` ones, ``bad_kept`` bad ones, and ``same_verdict`` says whether
    the same partitions are kept as without bad rows.
    """

    ratios: np.ndarray
    seconds: float
    excluded: int
    good: int
    bad_kept: int = 0
    same_verdict: bool = True


class Reference(NamedTuple):
    """The plain fit of rows of which none is bad: its errors, and the partitions that it keeps beside bad ones."""

    errors: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, truth: Truth, clean: Sequence[np.ndarray], n_bad: int = 0) -> Reference:
        """Of these partitions, the first ``n_bad`` of which are bad and count for the verdicts only."""
        k = truth.mixture.n_components
        oracle = fit(clean[n_bad:], k, None)
        kept = fit(clean, k, None).kept if n_bad else oracle.kept
        return cls(truth.errors(oracle.mixture), kept)


def compare(
    truth: Truth, rows: Sequence[np.ndarray], reference: Reference, n_bad: int = 0
) -> dict[str, Line]:
    """Both methods on ``rows``, whose first ``n_bad`` partitions are bad, over the reference."""
    k = truth.mixture.n_components
    found = {name: fit(rows, k, value) for name, value in METHODS.items()}
    return {
        name: Line(
            truth.errors(one.mixture) / reference.errors,
            one.seconds / found["plain"].seconds,
            int((~one.kept[n_bad:]).sum()),
            len(rows) - n_bad,
            int(one.kept[:n_bad].sum()),
            bool((one.kept == reference.kept).all()),
        )
        for name, one in found.items()
    }


def without_last(rows: np.ndarray, share: float) -> np.ndarray:
    """The rows without the share that is made bad."""
    return rows[: len(rows) - round(share * len(rows))]


# -- bad rows ------------------------------------------------------------------------------------


def spoil(
    kind: str, rows: np.ndarray, share: float, other: Mixture, rng: np.random.Generator
) -> np.ndarray:
    """The rows with the last ones made bad."""
    rows, n_bad = rows.copy(), round(share * len(rows))
    bad = rows[len(rows) - n_bad :]
    if kind == "x10":
        bad[:, 0] *= 10
    elif kind == "x1000":
        bad *= 1000
    elif kind == "fill":
        bad[:, 0] = -9999
    elif kind == "uniform":
        low, width = rows.min(axis=0), np.ptp(rows, axis=0)
        bad[:] = rng.uniform(low - width / 2, low + 1.5 * width, size=bad.shape)
    else:
        bad[:] = draw_rows(other, n_bad, rng)
    return rows


def tclust_population(kind: int, angle: float) -> tuple[Mixture, float]:
    """The clusters of ``simula.tclust`` in four columns, and the half width of the box of its noise."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if kind == 1:
        centers, variances, half = [[4, 4], [-4, 4], [0, 0]], np.ones((3, 2)), 20.0
    else:
        centers, half = [[20, 20], [-20, -20], [0, 0]], 50.0
        variances = np.array([[1, 81], [81, 1], [9, 9]], dtype=float)
    means, covariances = np.zeros((3, 4)), np.tile(np.eye(4), (3, 1, 1))
    means[:, :2] = centers
    covariances[:, :2, :2] = [turn.T @ np.diag(pair) @ turn for pair in variances]
    return Mixture(np.full(3, 1 / 3), means, covariances), half


# -- parts ---------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A population, the size of its partitions, and the number of the draw."""

    overlap: float
    n_features: int
    m: int
    n: int
    draw: int

    def draw_rows(self) -> tuple[Truth, list[np.ndarray], Mixture, np.random.Generator]:
        """The population, its partitions, another population, and the generator of bad rows."""
        seed = 10 * self.draw + 1
        truth = Truth.of(paper_population(K, self.n_features, self.overlap, seed))
        other = paper_population(K, self.n_features, self.overlap, seed + 5)
        rng = np.random.default_rng([seed, self.m, self.n, round(100 * self.overlap)])
        return truth, draw_partitions(truth.mixture, self.m, self.n, rng), other, rng


def settings(options: argparse.Namespace, n_features: int = 10) -> Iterator[Setting]:
    """All settings of a run."""
    sizes = ALL_SIZES if options.full else SIZES
    for overlap, (m, n), draw in product(OVERLAPS, sizes, range(options.draws)):
        print_progress(f"overlap {overlap}, {n_features} columns, {m} x {n} rows, draw {draw}")
        yield Setting(overlap, n_features, m, n, draw)


Cell = tuple[float, str, float]
"""Overlap (or type), kind and share of bad rows, or 0."""

Lines = dict[Cell, list[dict[str, Line]]]


def rows_part(options: argparse.Namespace) -> Lines:
    """Every kind and share of bad rows."""
    found: Lines = defaultdict(list)
    for setting in settings(options):
        truth, clean, other, rng = setting.draw_rows()
        for share in SHARES:
            reference = Reference.of(truth, [without_last(rows, share) for rows in clean])
            for kind in KINDS:
                bad = [spoil(kind, rows, share, other, rng) for rows in clean]
                found[setting.overlap, kind, share].append(compare(truth, bad, reference))
    return found


def clean_part(options: argparse.Namespace) -> Lines:
    """No bad rows."""
    found: Lines = defaultdict(list)
    for n_features in (10, 2):
        for setting in settings(options, n_features):
            truth, clean, _, _ = setting.draw_rows()
            found[setting.overlap, f"{n_features} columns", 0.0].append(
                compare(truth, clean, Reference.of(truth, clean))
            )
    return found


def partitions_part(options: argparse.Namespace) -> Lines:
    """Bad rows in every partition, and bad partitions."""
    found: Lines = defaultdict(list)
    for setting in settings(options):
        truth, clean, other, rng = setting.draw_rows()
        n_bad = round(BAD_PARTITION_SHARE * setting.m)
        for i in range(n_bad):
            clean[i] = damaged(BAD_PARTITIONS[i % len(BAD_PARTITIONS)], clean[i], clean[i])
        good = [without_last(rows, BAD_ROW_SHARE) for rows in clean]
        reference = Reference.of(truth, good, n_bad)
        for kind in KINDS:
            bad = [spoil(kind, rows, BAD_ROW_SHARE, other, rng) for rows in clean]
            found[setting.overlap, kind, BAD_ROW_SHARE].append(
                compare(truth, bad, reference, n_bad)
            )
    return found


def tclust_part(options: argparse.Namespace) -> dict[int, list[dict[str, np.ndarray]]]:
    """Ratios of errors by each method, for both types."""
    found = defaultdict(list)
    for kind, (m, n), draw in product((1, 2), SIZES, range(options.draws)):
        print_progress(f"simula.tclust type {kind}, draw {draw}")
        rng = np.random.default_rng([kind, draw])
        mixture, half = tclust_population(kind, rng.uniform(0, 2 * np.pi))
        truth = Truth.of(mixture)
        rows = draw_partitions(mixture, m, n, rng)
        n_good = round(0.9 * n)
        for one in rows:
            one[n_good:, :2] = rng.uniform(-half, half, size=(n - n_good, 2))
        oracle = truth.errors(fit([one[:n_good] for one in rows], 3, None).mixture)
        fits = {name: fit(rows, 3, value).mixture for name, value in METHODS.items()}
        fits |= {name: fit_rival(name, np.concatenate(rows), 3, 0.1, draw) for name in RIVALS}
        found[kind].append({name: truth.errors(fit) / oracle for name, fit in fits.items()})
    return found


# -- tables --------------------------------------------------------------------------------------


def mean_and_worst(values: Sequence[float]) -> str:
    """The mean, and the largest in brackets if there are several."""
    worst = f" ({max(values):.3g})" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{worst}"


def print_errors(title: str, lines: Lines, which: int) -> None:
    """A line for each kind and method, a column for each share; ``which`` error is shown."""
    shares = sorted({share for _, _, share in lines})
    print(f"{title}:\n")
    rows = []
    for overlap, kind in dict.fromkeys((overlap, kind) for overlap, kind, _ in lines):
        for method in METHODS:
            cells = [
                mean_and_worst([one[method].ratios[which] for one in lines[overlap, kind, share]])
                for share in shares
            ]
            rows.append([overlap, kind, method, *cells])
    print_table(["overlap", "bad rows", "method", *(f"{share:.1%}" for share in shares)], rows)


def summary(name: str, lines: Lines) -> list[str]:
    """What the aims are about, for the truncated fits."""
    found = [one["truncate"] for several in lines.values() for one in several]
    ratios = np.array([one.ratios for one in found])
    seconds = [one.seconds for one in found]
    excluded, good = sum(one.excluded for one in found), sum(one.good for one in found)
    return [
        f"{name}, {len(found)} truncated fits: parameter error mean {ratios[:, 0].mean():.3f}, worst "
        f"{ratios[:, 0].max():.3f}; W1 mean {ratios[:, 1].mean():.3f}, worst {ratios[:, 1].max():.3f}; time over the "
        f"plain fit mean {np.mean(seconds):.2f}, worst {max(seconds):.2f}; {excluded} of {good} good partitions "
        "excluded"
    ]


def print_partitions(lines: Lines) -> None:
    """Errors and verdicts with bad partitions."""
    print("30 % bad partitions, and 2 % bad rows in every partition:\n")
    rows = []
    for (overlap, kind, _), several in lines.items():
        for method in METHODS:
            found = [one[method] for one in several]
            rows.append(
                [
                    *(overlap, kind, method),
                    *(mean_and_worst([one.ratios[i] for one in found]) for i in (0, 1)),
                    f"{sum(one.excluded for one in found)} of {sum(one.good for one in found)}",
                    sum(one.bad_kept for one in found),
                    f"{sum(one.same_verdict for one in found)} of {len(found)}",
                ]
            )
    header = ["parameter error", "W1", "good ones excluded", "bad ones kept", "same verdicts"]
    print_table(["overlap", "bad rows", "method", *header], rows)


def print_tclust(found: dict[int, list[dict[str, np.ndarray]]]) -> None:
    """Errors of all methods on rows of ``simula.tclust``."""
    print("simula.tclust, 10 % noise, errors over those of the clean rows' fit:\n")
    rows = [
        [
            method,
            *(
                mean_and_worst([one[method][i] for one in found[kind]])
                for kind, i in product((1, 2), (0, 1))
            ),
        ]
        for method in (*METHODS, *RIVALS)
    ]
    header = ["type 1: parameter error", "W1", "type 2: parameter error", "W1"]
    print_table(["method", *header], rows)


def main() -> None:
    """Print the tables of the chosen parts."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--full", action="store_true", help="every size, and three draws")
    parser.add_argument("--draws", type=int, help="draws of each setting (1, or 3 with --full)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    options.draws = options.draws or (3 if options.full else 1)
    with recorded(options), dask.config.set(scheduler="synchronous"):
        if "clean" in options.parts:
            lines = clean_part(options)
            for i, name in enumerate(("Parameter error", "W1")):
                print_errors(f"{name} over that of the plain fit, clean rows", lines, i)
            print_lines(summary("clean rows", lines))
        if "rows" in options.parts:
            lines = rows_part(options)
            for i, name in enumerate(("Parameter error", "W1")):
                print_errors(f"{name} over that of the clean rows' fit", lines, i)
            few = {cell: one for cell, one in lines.items() if cell[2] <= 0.02}
            many = {cell: one for cell, one in lines.items() if cell[2] > 0.02}
            print_lines([*summary(".1 to 2 %", few), *summary("5 and 10 %", many)])
        if "partitions" in options.parts:
            print_partitions(partitions_part(options))
        if "tclust" in options.parts:
            print_tclust(tclust_part(options))


if __name__ == "__main__":
    main()
