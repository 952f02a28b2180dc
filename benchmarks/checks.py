"""Checks of new data against a model: false alarms, power, and whether the reason names what was done.

    python benchmarks/checks.py                             # about 2 minutes
    python benchmarks/checks.py --evidently DIR/bin/python  # evidently on the same rows, see checks_evidently.py
    python benchmarks/checks.py --quick                     # a smoke test

A model is fitted to 30 partitions of 1,000 rows. Then sources of 1,000 rows are checked, drawn from the same population
as the model's rows, and sources in which something was changed. A change counts as named if the kind and the columns
are right. Populations: a MixSim mixture of five components in ten columns; Student's t with three degrees of freedom;
and the diamonds, whose rows are drawn with replacement.

Changes: one column in another unit (x 2.54); two columns exchanged; "correlation": within the components, the values of
one column are reordered, so that every column keeps its values and its component; one column shifted by .3 standard
deviations; and six rows of 1,000 with one value ten standard deviations off.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import dask
import numpy as np
from common import draw_rows, population
from output import benchmark_parser, print_progress, print_table, recorded
from row_families import TABLES, student
from scipy.stats import norm, rankdata

from dask_dfmr import GaussianMixture, check

M, N, RATE = 30, 1000, 0.001
Rows = np.ndarray
Draw = Callable[[np.random.Generator, int], Rows]


class Population(NamedTuple):
    """Rows that are drawn from a population, and the number of components that is fitted to them."""

    name: str
    draw: Draw
    n_components: int


def _populations() -> list[Population]:
    truth, table = population(0.1, 1), next(one for one in TABLES if one.name == "diamonds").read()
    return [
        Population("mixture", lambda rng, n: draw_rows(truth, n, rng), 5),
        Population("t3", lambda rng, n: student(rng, n, False), 3),
        Population("diamonds", lambda rng, n: table[rng.integers(len(table), size=n)], 5),
    ]


# -- what is changed -----------------------------------------------------------------------------


class Changed(NamedTuple):
    """Rows of a source, and the kinds and the columns that a reason has to name."""

    rows: Rows
    kinds: set[str]
    columns: set[int]


def unit(rows: Rows, gm: GaussianMixture, rng: np.random.Generator) -> Changed:
    """One column in another unit."""
    j = int(rng.integers(rows.shape[1]))
    rows[:, j] *= 2.54
    return Changed(rows, {"unit"}, {j})


def swapped(rows: Rows, gm: GaussianMixture, rng: np.random.Generator) -> Changed:
    """Two columns exchanged."""
    i, j = rng.choice(rows.shape[1], 2, replace=False)
    rows[:, [i, j]] = rows[:, [j, i]]
    return Changed(rows, {"swapped columns"}, {int(i), int(j)})


def correlation(rows: Rows, gm: GaussianMixture, rng: np.random.Generator) -> Changed:
    """Two columns with another correlation within the components, and the same values."""
    i, j = rng.choice(rows.shape[1], 2, replace=False)
    labels = gm.predict(rows)
    for k in range(gm.n_components):
        own = np.flatnonzero(labels == k)
        if len(own) < 2:
            continue
        order = norm.ppf(rankdata(rows[own, i], method="ordinal") / (len(own) + 1))
        now = np.corrcoef(rows[own, i], rows[own, j])[0, 1] if np.ptp(rows[own, j]) else 0.0
        aim = 0.0 if abs(now) > 0.4 else 0.6
        score = aim * order + np.sqrt(1 - aim**2) * rng.normal(size=len(own))
        rows[own[np.argsort(score)], j] = np.sort(rows[own, j])
    return Changed(rows, set(), {int(j)})


def shifted(rows: Rows, gm: GaussianMixture, rng: np.random.Generator) -> Changed:
    """One column shifted by .3 standard deviations."""
    j = int(rng.integers(rows.shape[1]))
    rows[:, j] += 0.3 * rows[:, j].std()
    return Changed(rows, {"offset"}, {j})


def gross(rows: Rows, gm: GaussianMixture, rng: np.random.Generator) -> Changed:
    """Six rows with one value ten standard deviations off."""
    j = int(rng.integers(rows.shape[1]))
    rows[:6, j] += 10 * rows[:, j].std()
    return Changed(rows, {"some rows"}, {j})


CHANGES = {
    "unit": unit,
    "swapped": swapped,
    "correlation": correlation,
    "shifted": shifted,
    "gross rows": gross,
}

# -- one population ------------------------------------------------------------------------------


def fitted(one: Population) -> tuple[GaussianMixture, Rows]:
    """A model of a population, and the rows that it was fitted to."""
    rng = np.random.default_rng([1, len(one.name)])
    parts = [one.draw(rng, N) for _ in range(M)]
    gm = GaussianMixture(one.n_components, random_state=0, check_optimum=None).fit(parts)
    return gm, np.concatenate(parts)


def sources_of(one: Population, gm: GaussianMixture, change: str, n: int) -> list[Changed]:
    """Sources with a change, or without one."""
    rng = np.random.default_rng([2, len(one.name), len(change), n])
    found = []
    for _ in range(n):
        rows = one.draw(rng, N).astype(np.float64)
        clean = Changed(rows, set(), set())
        found.append(CHANGES[change](rows, gm, rng) if change else clean)
    return found


def alarms(gm: object, sources: list[Changed]) -> list[str]:
    """The cells of a line of false alarms."""
    start = time.process_time()
    report = check(gm, [one.rows for one in sources]).report
    seconds = time.process_time() - start
    counts = report["verdict"].value_counts()
    return [
        str(len(sources)),
        f"{(report['verdict'] != 'accept').mean():.2%}",
        str(counts.get("quarantine", 0)),
        f"{(report['p_scores'] < 0.01).mean():.2%}",
        f"{(report['p_low'] < 0.01).mean():.2%}",
        f"{1000 * seconds / len(sources):.0f} ms",
    ]


def power(gm: GaussianMixture, sources: list[Changed]) -> list[str]:
    """The cells of a line of changed sources."""
    report = check(gm, [one.rows for one in sources]).report
    is_found = report["p_value"] < RATE
    named = sum(_is_named(row, one) for row, one in zip(report.itertuples(), sources, strict=True))
    return [f"{is_found.mean():.0%}", f"{named / len(sources):.0%}"]


def _is_named(row: object, one: Changed) -> bool:
    columns = set(map(int, filter(None, row.columns.split(", "))))
    if not one.kinds:  # of one component, or of all
        return one.columns <= columns
    return row.kind in one.kinds and one.columns <= columns


# -- evidently -----------------------------------------------------------------------------------


def by_evidently(python: str, written: dict[str, tuple[Rows, list[Changed]]]) -> dict[str, dict]:
    """The alarms of evidently on the same sources, by the name of the file."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (reference, sources) in written.items():
            rows = np.array([one.rows for one in sources])
            np.savez(Path(folder) / f"{name}.npz", reference=reference, sources=rows)
        script = Path(__file__).with_name("checks_evidently.py")
        done = subprocess.run(
            [python, str(script), folder], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Print the tables."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--evidently", help="the Python of an environment with evidently")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="synchronous")
    with recorded(options):
        if options.evidently:
            compare(options.evidently, 4 if options.quick else 10)
        else:
            measure(*(20, 3) if options.quick else (1000, 60))


def measure(n_clean: int, n_changed: int) -> None:
    """Print false alarms and power."""
    false, found = [], []
    for one in _populations():
        print_progress(one.name)
        gm, _ = fitted(one)
        false.append([one.name, "rows", *alarms(gm, sources_of(one, gm, "", n_clean))])
        drawn = [gm.mixture_.sample(N, i)[0] for i in range(n_clean)]
        of_model = [Changed(rows, set(), set()) for rows in drawn]
        false.append([f"the model of {one.name}", "mixture", *alarms(gm.mixture_, of_model)])
        found += [
            [one.name, change, *power(gm, sources_of(one, gm, change, n_changed))]
            for change in CHANGES
        ]
    header = ["rows of", "law", "sources", "not accepted", "quarantined"]
    print_table([*header, "scores p < .01", "low p < .01", "CPU a source"], false)
    print_table(["rows of", "change", "found", "named"], found)


def compare(python: str, n: int) -> None:
    """Print the alarms of evidently, and those of this package on the same sources."""
    written, own = {}, {}
    for one in _populations():
        gm, reference = fitted(one)
        for change in ("", *CHANGES):
            sources = sources_of(one, gm, change, n if change else 2 * n)
            name = f"{one.name}+{change}"
            written[name] = (reference, sources)
            report = check(gm, [source.rows for source in sources]).report
            own[name] = int((report["p_value"] < RATE).sum())
    theirs = by_evidently(python, written)
    lines = []
    for name in written:
        population, change = name.split("+")
        a = theirs[name]
        counts = [a["sources"], own[name], a["any column"], a["data set"]]
        lines.append([population, change or "none", *map(str, counts)])
    header = ["rows of", "change", "sources", "check", "evidently: any column", "data set"]
    print_table(header, lines)


if __name__ == "__main__":
    main()
