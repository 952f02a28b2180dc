"""Verdicts on rows that are no Gaussian mixture: what is excluded, what is kept, and whether a doubt is said.

    python benchmarks/real_rows.py                       # all tables, two processes
    python benchmarks/real_rows.py --only t3 --draws 5   # one family, or one table
    python benchmarks/real_rows.py --part few --draws 2  # one part
    python benchmarks/real_rows.py --quick               # a smoke test

Parts: "families" are generated rows, "tables" are shipped by packages (row_families.py has both), "few" are 2 to 10
partitions, some with few rows, and "cost" is the CPU time of ``rho="auto"``. In the first three, some draws have no bad
partition and in some a fifth of the partitions is bad, at least one, all of them in one way.

Methods: the default, rho=1.3, refine="auto", and method="hardened". The last one shares the local fits of the default,
and is fitted anew where it excludes a consistent partition or keeps a bad one.

A doubt counts as said if the fit issues a warning that is not about its optimum or its convergence. A bad partition is
visible if the mixture with it has a held-out log-likelihood more than .05 nats a row below that of the same method on
the good partitions. scikit-learn is the best of five starts on the same rows. Where values repeat, both get the same
``reg_covar`` for this comparison.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import dask
import numpy as np
from common import StageClock
from output import benchmark_parser, print_lines, print_progress, print_table, recorded
from row_families import (
    FAMILIES,
    KINDS,
    TABLES,
    Draw,
    bad_ones,
    damaged,
    draw_family,
    draw_table,
    is_there,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import threadpool_limits

from dask_dfmr import AggregationError, GaussianMixture, Mixture, OptimumWarning, aggregate

SIZES = {400: 40, 1000: 30, 5000: 20}
"""Rows of a partition of the generated families, and how many partitions there are."""

METHODS = ("default", "rho=1.3", "refine", "hardened")
JUDGED = ("default", "refine")
"""Methods that the aims are for."""

VISIBLE = 0.05
"""Nats a row."""

MANY = 1 / 40
"""More than one consistent partition excluded, and more than this share of them, must be said."""

DRAWS, BAD_DRAWS = 20, {400: 20, 1000: 12, 5000: 8}
"""Draws of a family without bad partitions, and with them by the number of rows. Kinds take turns over the draws."""

TABLE_DRAWS = 4
"""Orders of the rows of a table, without bad partitions and with them."""

FEW_DRAWS = 3

COMPARED = 4
"""Draws of a family that are compared with scikit-learn; one order of a table."""

# -- one draw ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One draw of a family (``n_rows`` > 0) or of a table; ``kind`` of the bad partitions, "" for none."""

    name: str
    n_rows: int
    kind: str
    seed: int
    methods: Sequence[str] = METHODS

    @property
    def is_compared(self) -> bool:
        """Whether scikit-learn is fitted to the rows."""
        return not self.kind and self.seed < (COMPARED if self.n_rows else 1)

    def draw(self) -> Draw:
        """The rows."""
        if not self.n_rows:
            return draw_table(BY_NAME[self.name], self.kind, [self.seed])
        return draw_family(
            BY_NAME[self.name], SIZES[self.n_rows], self.n_rows, self.kind, [self.seed]
        )


BY_NAME: dict[str, Any] = {one.name: one for one in (*FAMILIES, *TABLES)}


class Result(NamedTuple):
    """The mixture of a method (None if there was none), the partitions it kept, and the classes of its warnings."""

    mixture: Mixture | None
    kept: np.ndarray
    warned: frozenset[str]

    @property
    def is_said(self) -> bool:
        """Whether a warning is about what was excluded or kept."""
        return bool(self.warned - {ConvergenceWarning.__name__, OptimumWarning.__name__})

    def score(self, rows: np.ndarray) -> float:
        """Mean log-likelihood in nats a row; NaN without a mixture."""
        if self.mixture is None:
            return np.nan
        return float(np.mean(self.mixture.score_samples(rows)))


@dataclass(frozen=True)
class Found:
    """What a method did in one draw. ``lost`` is what the kept bad partitions cost in nats a row.

    ``gap`` is the log-likelihood above scikit-learn's in nats a row, NaN if it was not compared.
    """

    method: str
    n_good: int
    n_excluded: int
    n_bad: int
    n_kept: int
    warned: frozenset[str]
    is_said: bool
    lost: float = 0.0
    gap: float = np.nan

    @property
    def is_silent(self) -> bool:
        """Whether too many consistent partitions were excluded and nothing was said."""
        return self.n_excluded > max(1, MANY * self.n_good) and not self.is_said


def observed(make: Callable[[], Any], m: int) -> tuple[Any, Result]:
    """A fit or an aggregate with its result; None if no estimate was usable."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made = make()
        except AggregationError as error:
            nothing = frozenset([type(error).__name__])
            return None, Result(None, np.zeros(m, dtype=bool), nothing)
    warned = frozenset(w.category.__name__ for w in caught)
    is_fit = isinstance(made, GaussianMixture)
    mixture = made.mixture_ if is_fit else made.mixture
    return made, Result(mixture, made.support_ if is_fit else made.decision.kept, warned)


class Fits:
    """The methods on the same partitions. Each is run once, and some share the local fits of the default."""

    def __init__(self, partitions: list[np.ndarray], n_components: int, **parameters: Any) -> None:
        self.rows, self.n_components, self.parameters = partitions, n_components, parameters
        self.gm, default = self._fit()
        self.results = {"default": default}

    def _fit(self, **parameters: Any) -> tuple[Any, Result]:
        parameters = {"random_state": 0, "keep_estimates": True} | self.parameters | parameters
        model = GaussianMixture(self.n_components, **parameters)
        return observed(lambda: model.fit(list(map(dask.delayed, self.rows))), len(self.rows))

    def result(self, method: str) -> Result:
        """The result of a method."""
        if method not in self.results:
            self.results[method] = (
                self._fit(refine="auto")[1] if method == "refine" else self._shared(method)
            )
        return self.results[method]

    def _shared(self, method: str) -> Result:
        if self.gm is None:
            return self.results["default"]
        options: dict[str, Any] = {"rho": 1.3} if method == "rho=1.3" else {"method": method}
        estimates = self.gm.estimates_
        return observed(lambda: aggregate(estimates, random_state=0, **options), len(estimates))[1]

    def fit_hardened(self) -> Result:
        """The result of ``method="hardened"`` with local fits of its own, from now on."""
        self.results["hardened"] = self._fit(method="hardened")[1]
        return self.results["hardened"]


def measure(job: Job) -> tuple[Job, list[Found], float]:
    """What all methods do in one draw, and the CPU seconds that it took."""
    began = time.process_time()
    about, draw = BY_NAME[job.name], job.draw()
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        fits = Fits(draw.partitions, about.n_components)
        found = [measured(fits, method, draw) for method in job.methods]
        if job.is_compared:
            found = compared(found, fits, draw, getattr(about, "reg_covar", 0.0))
    return job, found, time.process_time() - began


def measured(fits: Fits, method: str, draw: Draw) -> Found:
    """What a method does in one draw."""
    found = judged(fits.result(method), method, draw.bad)
    if method == "hardened" and (found.n_excluded or found.n_kept):
        found = judged(fits.fit_hardened(), method, draw.bad)
    if not found.n_kept:
        return found
    good = Fits(draw.good, fits.n_components).result(method)
    lost = good.score(draw.held_out) - fits.result(method).score(draw.held_out)
    return replace(found, lost=lost)


def judged(result: Result, method: str, bad: Sequence[int]) -> Found:
    """The counts of a result."""
    is_bad = np.isin(np.arange(len(result.kept)), bad)
    return Found(
        method,
        int((~is_bad).sum()),
        int((~is_bad & ~result.kept).sum()),
        int(is_bad.sum()),
        int((is_bad & result.kept).sum()),
        result.warned,
        result.is_said,
    )


def compared(found: list[Found], fits: Fits, draw: Draw, reg_covar: float) -> list[Found]:
    """The same with the log-likelihood above scikit-learn's; ``reg_covar`` > 0 fits all methods anew with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = SklearnMixture(
            fits.n_components, n_init=5, reg_covar=reg_covar or 1e-6, random_state=0
        ).fit(np.concatenate(draw.partitions))
    best = reference.score(draw.held_out)
    if reg_covar:
        fits = Fits(draw.partitions, fits.n_components, reg_covar=reg_covar)
    return [replace(f, gap=fits.result(f.method).score(draw.held_out) - best) for f in found]


# -- few partitions, few rows --------------------------------------------------------------------

FEW = range(2, 11)
FEW_SIZES = {
    "1 a parameter": (1, 1),
    "2 a parameter": (2, 2),
    "3 a parameter": (3, 3),
    "1,000": (None, None),
    "1,000; bad: 2 a parameter": (None, 2),
}
"""Rows a parameter of the consistent partitions and of the bad one; None: 1,000 rows."""

FEW_KINDS = ("", *KINDS, "constant")
FEW_MODELS = ((1, 1), (2, 1), (1, 3), (2, 2), (3, 2), (3, 3))
"""Components and columns."""

FEW_METHODS = ("default", "hardened")


@dataclass(frozen=True)
class FewJob:
    """One draw of ``m`` partitions; ``model`` is its components and columns."""

    m: int
    size: str
    kind: str
    model: tuple[int, int]
    seed: int

    def draw(self) -> Draw:
        """The rows: normal components whose means lie some standard deviations apart."""
        K, d = self.model
        rng = np.random.default_rng([self.m, list(FEW_SIZES).index(self.size), K, d, self.seed])
        centers = 4 * rng.normal(size=(K, d))
        n_parameters = K * (1 + d + d * (d + 1) // 2) - 1
        n, n_bad = (1000 if per is None else per * n_parameters for per in FEW_SIZES[self.size])

        def rows(n: int, shift: float = 0.0) -> np.ndarray:
            return centers[rng.integers(K, size=n)] + shift + rng.normal(size=(n, d))

        partitions = [rows(n) for _ in range(self.m)]
        bad = bad_ones(self.m, rng)[:1] if self.kind else []
        for i in bad:
            partitions[i] = damaged(self.kind, partitions[i][:n_bad], rows(n_bad, 3.0))
        return Draw(partitions, bad, rows(1))


def few_jobs(draws: int) -> Iterator[FewJob]:
    """Every number of partitions with every size and kind, ``draws`` times, each with another model."""
    for m in FEW:
        for size in FEW_SIZES:
            for kind in FEW_KINDS:
                if not kind and len(set(FEW_SIZES[size])) > 1:
                    continue
                needs_columns = kind in ("swapped", "constant")
                models = [model for model in FEW_MODELS if model[1] > 1 or not needs_columns]
                for seed in range(draws):
                    yield FewJob(m, size, kind, models[(seed + m) % len(models)], seed)


def measure_few(job: FewJob) -> tuple[FewJob, list[Found], float]:
    """What the default and ``method="hardened"`` do in one draw, and the CPU seconds that it took."""
    began, draw = time.process_time(), job.draw()
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        fits = Fits(draw.partitions, job.model[0])
        found = [judged(fits.result(method), method, draw.bad) for method in FEW_METHODS]
    return job, found, time.process_time() - began


def print_few(results: Sequence[tuple[FewJob, list[Found]]]) -> None:
    """Print one table by the number of partitions, one by the rows, and one by the kind."""
    keys: dict[str, Callable[[FewJob], Any]] = {
        "partitions": lambda job: job.m,
        "rows": lambda job: job.size,
        "bad one": lambda job: job.kind or "none",
    }
    header = ["fits", "consistent excluded", "silently", "bad kept", "silently", "doubt said"]
    for method in FEW_METHODS:
        print(f"### {method}\n")
        for title, key in keys.items():
            groups = defaultdict(list)
            for job, found in results:
                groups[key(job)] += [f for f in found if f.method == method]
            print_table([title, *header], [[k, *few_cells(v)] for k, v in groups.items()])


def few_cells(found: Sequence[Found]) -> list[str]:
    """Shares of the fits; those with a bad partition kept are over the fits that have one."""
    bad = [f for f in found if f.n_bad]
    return [
        str(len(found)),
        share([f.n_excluded > 0 for f in found]),
        share([f.n_excluded > 0 and not f.is_said for f in found]),
        share([f.n_kept > 0 for f in bad]),
        share([f.n_kept > 0 and not f.is_said for f in bad]),
        share([f.is_said for f in found]),
    ]


def share(flags: Sequence[bool]) -> str:
    """A share in per cent; empty for none."""
    return f"{np.mean(flags):.1%}" if flags else ""


# -- cost ----------------------------------------------------------------------------------------

COST_MODELS = ((3, 3), (5, 3), (3, 10), (5, 10))


def print_cost(models: Sequence[tuple[int, int]] = COST_MODELS) -> None:
    """Print the CPU time of an aggregation with ``rho="auto"``, and over that of the local fits."""
    lines = []
    for K, d in models:
        rng = np.random.default_rng([K, d])
        centers = 2.5 * rng.normal(size=(K, d))
        parts = [
            centers[rng.integers(K, size=2000)] + rng.normal(size=(2000, d)) for _ in range(40)
        ]
        lines.append([f"K {K}, d {d}", *cost_cells(parts, K)])
    header = ["rows", "all local fits", "without pilots", 'rho="auto"', 'method="mr"']
    print_table([*header, "auto, of all fits", "auto, of fits without pilots"], lines)


def cost_cells(parts: list[np.ndarray], n_components: int) -> list[str]:
    """The times of one model; the least of three aggregations each."""
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"):
        model = GaussianMixture(n_components, random_state=0, keep_estimates=True)
        rows = list(map(dask.delayed, parts))
        model.fit(rows)  # compiles
        with StageClock() as clock:
            model.fit(rows)
        fits = clock.cpu["fit_partition"]
        everything = fits + clock.cpu["fit_pilot"] + clock.cpu["shortlist"]
        auto = min(cpu_of(lambda: aggregate(model.estimates_)) for _ in range(3))
        mr = min(cpu_of(lambda: aggregate(model.estimates_, method="mr")) for _ in range(3))
    seconds = [f"{x:.2f} s" for x in (everything, fits, auto, mr)]
    return [*seconds, f"{auto / everything:.0%}", f"{auto / fits:.0%}"]


def cpu_of(call: Callable[[], Any]) -> float:
    """CPU seconds of a call, whose warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.process_time()
        call()
        return time.process_time() - began


# -- tables of results ---------------------------------------------------------------------------

Results = list[tuple[Job, list[Found]]]


def label(job: Job) -> list[str]:
    """The family or table of a job, and its partitions."""
    if job.n_rows:
        return [job.name, f"{SIZES[job.n_rows]} x {job.n_rows:,}"]
    return [job.name, f"{BY_NAME[job.name].n_partitions}, K = {BY_NAME[job.name].n_components}"]


def grouped(results: Results, is_bad: bool) -> Iterator[tuple[list[str], dict[str, list[Found]]]]:
    """The findings by method of each family and size, with bad partitions or without."""
    groups: dict[tuple[str, ...], dict[str, list[Found]]] = {}
    for job, found in results:
        if bool(job.kind) == is_bad:
            of = groups.setdefault(tuple(label(job)), defaultdict(list))
            for f in found:
                of[f.method].append(f)
    for key, of in groups.items():
        yield list(key), of


def excluded_cell(found: Sequence[Found]) -> str:
    """Share of consistent partitions excluded; behind it the fits that excluded more than one of 40 silently."""
    excluded = sum(f.n_excluded for f in found) / sum(f.n_good for f in found)
    silent = sum(f.is_silent for f in found)
    return f"{excluded:.1%}" + (f" ({silent}/{len(found)} silent)" if silent else "")


def kept_cell(found: Sequence[Found]) -> str:
    """Bad partitions kept; behind it those that are visible, and those of them in fits that say nothing."""
    kept = sum(f.n_kept for f in found)
    text = f"{kept}/{sum(f.n_bad for f in found)}"
    if not kept:
        return text
    visible = [f for f in found if f.lost > VISIBLE]
    silent = sum(f.n_kept for f in visible if not f.is_said)
    return f"{text}, {sum(f.n_kept for f in visible)} visible, {silent} silent"


def gap_cell(found: Sequence[Found]) -> str:
    """Median of the log-likelihood above scikit-learn's, and the least."""
    gaps = [f.gap for f in found if not np.isnan(f.gap)]
    return f"{np.median(gaps):+.3f} ({min(gaps):+.3f})" if gaps else ""


def warned_cell(found: Sequence[Found]) -> str:
    """How many fits issued each class of warnings."""
    counts = Counter(name.removesuffix("Warning") for f in found for name in f.warned)
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "-"


def print_results(results: Results) -> None:
    """Print the tables of families or of tables."""
    without, with_bad = list(grouped(results, False)), list(grouped(results, True))
    methods = results[0][0].methods
    header = ["rows", "partitions", *methods]

    def lines(
        groups: Iterable[tuple[list[str], dict[str, list[Found]]]],
        cell: Callable[[Sequence[Found]], str],
    ) -> list[list[str]]:
        return [[*key, *(cell(of[method]) for method in methods)] for key, of in groups]

    if without:
        print("### Consistent partitions excluded, no bad ones\n")
        print_table(header, lines(without, excluded_cell))
        print("### Held-out log-likelihood above scikit-learn's: median (least)\n")
        print_table(header, lines(without, gap_cell))
        print("### Fits that warn, no bad partitions\n")
        print_table(header, lines(without, warned_cell))
    if with_bad:
        print("### Bad partitions kept, of a fifth\n")
        print_table(header, lines(with_bad, kept_cell))
        print("### The same by kind, over all rows above\n")
        kinds = [kind for kind in KINDS if of_method(results, kind, methods[0])]
        by_kind = [[k, *(kept_cell(of_method(results, k, m)) for m in methods)] for k in kinds]
        print_table(["kind", *methods], by_kind)
        print("### Consistent partitions excluded, a fifth bad\n")
        print_table(header, lines(with_bad, excluded_cell))
    print_lines(missed(results))


def of_method(results: Results, kind: str, method: str) -> list[Found]:
    """The findings of a method with one kind of bad partitions."""
    return [f for job, found in results if job.kind == kind for f in found if f.method == method]


def missed(results: Results) -> Iterator[str]:
    """A line for each figure of the default and of refine="auto" that misses its aim."""
    for key, of in grouped(results, False):
        for method in [name for name in JUDGED if name in of]:
            found, where = of[method], f"{', '.join(key)}, {method}"
            excluded = sum(f.n_excluded for f in found) / sum(f.n_good for f in found)
            if excluded > 0.005 and (method == "refine" or any(f.is_silent for f in found)):
                yield f"{where}: excluded {excluded_cell(found)}"
            if any(f.gap < -VISIBLE for f in found):
                yield f"{where}: lost to scikit-learn {gap_cell(found)}"
    for kind in KINDS:
        for key, of in grouped([(job, f) for job, f in results if job.kind == kind], True):
            for method in [name for name in JUDGED if name in of]:
                if any(f.lost > VISIBLE and not f.is_said for f in of[method]):
                    yield f"{', '.join(key)}, {kind}, {method}: bad kept {kept_cell(of[method])}"


# -- command line --------------------------------------------------------------------------------

PARTS = ("families", "tables", "few", "cost")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    options = parse(arguments)
    began = time.perf_counter()
    with (
        recorded(options),
        ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool,
    ):
        run: Any = map if options.jobs == 1 else pool.map
        for part, jobs in jobs_of(options):
            print(f"## {part}\n")
            print_results(followed(run(measure, jobs), len(jobs)))
        if "few" in options.part:
            print("## few partitions, few rows\n")
            jobs = list(few_jobs(options.draws or FEW_DRAWS))[:: 53 if options.quick else 1]
            print_few(followed(run(measure_few, jobs), len(jobs)))
        if "cost" in options.part:
            print("## CPU time, 40 x 2,000 rows\n")
            print_cost(COST_MODELS[: 1 if options.quick else None])
    print_progress(f"{time.perf_counter() - began:.0f} seconds")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ``--quick`` and ``--only`` choose parts where none are named."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, help="all by default")
    parser.add_argument("--only", nargs="+", choices=BY_NAME, help="families and tables")
    parser.add_argument("--size", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--kinds", nargs="+", choices=("none", *KINDS), default=("none", *KINDS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--draws", type=int, help="instead of the usual numbers")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--quick", action="store_true", help="2 draws of little: less than a minute"
    )
    options = parser.parse_args(arguments)
    if options.part is None:
        options.part = ("families", "tables") if options.only else PARTS
    if options.quick:
        options.draws = options.draws or 2
        options.only = options.only or ["counts", "binary", "xclara"]
        options.size = [400]
    return options


def jobs_of(options: argparse.Namespace) -> Iterator[tuple[str, list[Job]]]:
    """The jobs of the families and of the tables. Kinds of bad partitions take turns over the draws."""
    kinds = [kind for kind in options.kinds if kind != "none"]

    def jobs(name: str, n: int, draws: int, bad_draws: int) -> Iterator[Job]:
        if "none" in options.kinds:
            for seed in range(options.draws or draws):
                yield Job(name, n, "", seed, options.methods)
        if kinds:
            for seed in range(options.draws or bad_draws):
                yield Job(name, n, kinds[seed % len(kinds)], seed, options.methods)

    def chosen(one: Any) -> bool:
        return options.only is None or one.name in options.only

    if "families" in options.part and any(map(chosen, FAMILIES)):
        cells = [(f.name, n) for f in FAMILIES if chosen(f) for n in options.size]
        yield "families", [job for c in cells for job in jobs(*c, DRAWS, BAD_DRAWS[c[1]])]
    tables = [table for table in TABLES if chosen(table)]
    if "tables" in options.part and tables:
        for table in tables:
            if not is_there(table):
                print(f"The table {table.name} is in the package {table.package}: not installed.\n")
        there = [table.name for table in tables if is_there(table)]
        yield "tables", [job for name in there for job in jobs(name, 0, TABLE_DRAWS, TABLE_DRAWS)]


def followed(
    results: Iterable[tuple[Any, list[Found], float]], n: int
) -> list[tuple[Any, list[Found]]]:
    """All results without their CPU seconds, whose sum is progress."""
    collected, seconds = [], 0.0
    for job, found, cpu in results:
        collected.append((job, found))
        seconds += cpu
        if len(collected) in (n, *range(0, n, 20)):
            print_progress(f"{len(collected)} of {n}, {seconds:.0f} CPU seconds", job)
    return collected


if __name__ == "__main__":
    main()
