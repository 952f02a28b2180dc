"""Claim: with 40 % corrupted partitions no clean partition takes a wrong start; one clean pilot is enough.

    python benchmarks/one_clean_pilot_is_enough.py [--rows 1000 --data-draws 5 --pilot-draws 8]
    python benchmarks/one_clean_pilot_is_enough.py --wide -m 20 --rows 6000 --data-draws 2 --pilot-draws 4

K = 5 components in d = 10 columns, m = 40 partitions, 16 of them corrupted. For each overlap and kind of corruption
there are 5 draws of the rows times 8 draws of the pilots. Every draw makes a shortlist from its pilots, and all clean
partitions choose from it. (A pilot's own fit is made once per draw of the rows, in the scale of the first draw of
pilots that has it.)

A candidate is clean if it describes 5000 fresh rows of the population no worse than the worst of the clean pilots' own
fits. The script counts the draws whose list holds no clean candidate, and those in which a clean partition chose
another one. For every fourth draw the local fits and the aggregation follow. The error of the result (W1 to the
population) is divided by the oracle's: plain reduction of the clean partitions alone, each started at the truth. For
the first draw of the rows there is also the error of DFMR with all partitions started at the truth. What is above it is
due to the start.

The last two kinds are the worst that we found for this stage. The rows of all corrupted partitions come from the
Gaussian with the mean and covariance of the whole population, or from a wrong local optimum of the population itself.

``--wide`` takes populations of K = 10 components in d = 30 columns instead.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import product
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from common import draw_partitions, draw_rows, population
from mixsim import mixsim
from output import benchmark_parser, print_progress, print_table, recorded
from threadpoolctl import threadpool_limits

from dask_dfmr import Mixture, aggregate, fit_local, mixing_distance
from dask_dfmr.local import comparison
from dask_dfmr.local import pilots as pilot
from dask_dfmr.local.fit import LocalProblem
from dask_dfmr.mixtures.gaussian import Gaussian
from dask_dfmr.seeds import seed_sequence, stream

Rows = np.ndarray
SHARE_CORRUPTED = 0.4
FIT_EVERY = 4

ROWS_PER_PARAMETER_OF_MEANS = 100
"""Rows of the sample on which the wrong optimum is sought, per component and column."""

# -- kinds of corruption ----------------------------------------------------------------------------


class Case(NamedTuple):
    """The population of a draw, with its overlap and its seed, and another one of the same overlap."""

    truth: Mixture
    other: Mixture
    overlap: float
    seed: int


def rolled(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """The columns moved by one."""
    return np.roll(X, 1, axis=1)


def thousandfold(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """All columns in a unit a thousand times as small."""
    return X * 1000.0


def another_population(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """Clean rows of the other population of the same overlap."""
    return draw_rows(case.other, len(X), rng)


def wide_garbage(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """Noise twenty times as wide as the data."""
    return X.mean(axis=0) + 20.0 * X.std(axis=0) * rng.standard_normal(X.shape)


def all_different(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """Columns permuted, rescaled and moved, differently for every corrupted partition."""
    order, scale = rng.permutation(X.shape[1]), 10.0 ** rng.uniform(-1, 1, X.shape[1])
    return X[:, order] * scale + 5.0 * X.std(axis=0) * rng.standard_normal(X.shape[1])


def one_gaussian(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """Rows of one Gaussian with the mean and covariance of the population."""
    sample = draw_rows(case.truth, 20_000, rng)
    return rng.multivariate_normal(sample.mean(axis=0), np.cov(sample.T), len(X))


def wrong_optimum(X: Rows, case: Case, rng: np.random.Generator) -> Rows:
    """Rows of the worst local optimum that 20 random starts find on a large sample of the population."""
    return draw_rows(_wrong_optimum(case), len(X), rng)


_optima: dict[tuple[float, int], Mixture] = {}


def _wrong_optimum(case: Case) -> Mixture:
    key = case.overlap, case.seed
    if key not in _optima:
        k, d = case.truth.means.shape
        rows = draw_rows(case.truth, ROWS_PER_PARAMETER_OF_MEANS * k * d, np.random.default_rng(0))
        fits = [fit_local(rows, k, start="random_from_data", random_state=i) for i in range(20)]
        mixtures = [f.mixture for f in fits if f.mixture is not None]
        _optima[key] = max(mixtures, key=lambda mixture: mixing_distance(mixture, case.truth))
    return _optima[key]


KINDS: dict[str, Callable[[Rows, Case, np.random.Generator], Rows]] = {
    "columns rolled": rolled,
    "x 1000": thousandfold,
    "another population": another_population,
    "wide garbage": wide_garbage,
    "all different": all_different,
    "one Gaussian": one_gaussian,
    "a wrong optimum": wrong_optimum,
}

# -- one draw ------------------------------------------------------------------------------------


class Draw(NamedTuple):
    """The counts and errors of one draw of the pilots; errors are over the oracle's."""

    n_clean_pilots: int
    n_candidates: int
    n_clean_candidates: int
    n_misled: int
    ratio: float
    corrupted_kept: float
    ratio_from_truth: float = np.nan


class Data:
    """One draw of the rows, and all that does not depend on the draw of the pilots."""

    def __init__(self, parts: list[Rows], n_corrupted: int, truth: Mixture) -> None:
        self.parts, self.n_corrupted, self.truth = parts, n_corrupted, truth
        self.problem = LocalProblem(Gaussian(), truth.n_components, n_sources=len(parts))
        self.from_truth = [self.problem.fit(X, truth) for X in parts[n_corrupted:]]
        clean = aggregate(self.from_truth, method="mr").mixture
        self.oracle = mixing_distance(clean, truth)
        self.fresh = draw_rows(truth, 5000, np.random.default_rng(0))
        self._fits: dict[int, pilot.PilotFit | None] = {}

    def ratio_from_truth(self) -> float:
        """Error of DFMR over the oracle's if all partitions start at the truth."""
        corrupted = [self.problem.fit(X, self.truth) for X in self.parts[: self.n_corrupted]]
        return self.ratio(aggregate([*corrupted, *self.from_truth]).mixture)

    def ratio(self, mixture: Mixture) -> float:
        """Error of a mixture over the oracle's."""
        return mixing_distance(mixture, self.truth) / self.oracle

    def describes(self, start: pilot.Start) -> float:
        """Mean log-density of fresh rows of the population under a candidate."""
        if self.problem.family.n_features(start[1]) != self.fresh.shape[1]:
            return -np.inf
        return comparison.mean_log_density(self.problem.family, start, self.fresh)

    def pilot_fits(
        self, drawn: list[int], seed: np.random.SeedSequence
    ) -> list[pilot.PilotFit | None]:
        """The candidates of the drawn partitions."""
        rows = {i: pilot.read_pilot(self.problem, self.parts[i], stream(seed, 1, i)) for i in drawn}
        scale = pilot.pilot_scale(list(rows.values()))
        for i in drawn:
            if i not in self._fits:
                self._fits[i] = pilot.fit_pilot(self.problem, rows[i], scale, stream(seed, 2, i))
        return [self._fits[i] for i in drawn]


def run_draw(data: Data, seed: int, to_the_end: bool) -> Draw:
    """Run the pilot stage and the choices of the clean partitions; with ``to_the_end`` also fit all partitions."""
    root, n_corrupted, problem = seed_sequence(seed), data.n_corrupted, data.problem
    drawn = pilot.draw_pilots(len(data.parts), stream(root, 0))
    fits = data.pilot_fits(drawn, root)
    shortlist = pilot.make_shortlist(problem, fits, stream(root, 5))
    clean_fits = [f.start for f, i in zip(fits, drawn, strict=True) if f and i >= n_corrupted]
    least = min(map(data.describes, clean_fits))
    is_clean = [data.describes(start) >= least for start in shortlist.starts]
    numbers = range(len(data.parts)) if to_the_end else range(n_corrupted, len(data.parts))
    chosen = {
        i: pilot.choose_start(problem, data.parts[i], shortlist, stream(root, 3, i))
        for i in numbers
    }
    ratio = corrupted_kept = np.nan
    if to_the_end:
        estimates = [
            problem.fit(data.parts[i], "k-means++", random_state=stream(root, 4, i))
            if c is None
            else problem.fit(data.parts[i], pilot.as_mixture(problem, shortlist.starts[c], None))
            for i, c in chosen.items()
        ]
        result = aggregate(estimates)
        ratio = data.ratio(result.mixture)
        corrupted_kept = float(result.decision.kept[:n_corrupted].sum())
    return Draw(
        sum(i >= n_corrupted for i in drawn),
        len(shortlist.starts),
        sum(is_clean),
        sum(c is None or not is_clean[c] for i, c in chosen.items() if i >= n_corrupted),
        ratio,
        corrupted_kept,
    )


@contextmanager
def remembered_densities() -> Iterator[None]:
    """Compute the density of the same rows under the same candidate only once."""
    compute, known = comparison.mean_log_density, {}

    def remember(family: Gaussian, start: tuple, rows: Rows) -> float:
        # The key holds the objects themselves, so that their ids stay theirs.
        key = id(start), id(rows)
        if key not in known:
            known[key] = compute(family, start, rows), start, rows
        return known[key][0]

    comparison.mean_log_density = remember
    try:
        yield
    finally:
        comparison.mean_log_density = compute


class Job(NamedTuple):
    """One draw of the rows, for which ``pilot_draws`` draws of the pilots are run."""

    overlap: float
    population_seed: int
    kind: str
    data_draw: int
    pilot_draws: int
    m: int
    n: int
    is_wide: bool


def case_of(job: Job) -> Case:
    """The populations of a job."""
    overlap, seed = job.overlap, job.population_seed
    if job.is_wide:
        truth, other = (mixsim(10, 30, overlap, seed=s) for s in (seed, 3 - seed))
    else:
        truth, other = (population(overlap, s) for s in (seed, 3 - seed))
    return Case(truth, other, overlap, seed)


def run_job(job: Job) -> tuple[Job, list[Draw], float]:
    """Draw the rows, corrupt some and run all draws of the pilots; return the job, the draws and CPU seconds."""
    began = time.process_time()
    warnings.simplefilter("ignore")
    case = case_of(job)
    truth = case.truth
    rng = np.random.default_rng([job.data_draw, round(10 * job.overlap)])
    n_corrupted = round(SHARE_CORRUPTED * job.m)
    parts = draw_partitions(truth, job.m, job.n, rng)
    parts[:n_corrupted] = [KINDS[job.kind](X, case, rng) for X in parts[:n_corrupted]]
    with threadpool_limits(1), remembered_densities():
        data = Data(parts, n_corrupted, truth)
        draws = [
            run_draw(data, 1000 * job.data_draw + draw, to_the_end=draw % FIT_EVERY == 0)
            for draw in range(job.pilot_draws)
        ]
        if job.data_draw == 0:
            draws[0] = draws[0]._replace(ratio_from_truth=data.ratio_from_truth())
    return job, draws, time.process_time() - began


# -- the table -----------------------------------------------------------------------------------


def row_of(name: tuple[float, str], draws: list[Draw]) -> list[str]:
    """One line of the table."""
    ratio = np.array([d.ratio for d in draws if np.isfinite(d.ratio)])
    sizes = np.bincount([d.n_candidates for d in draws], minlength=5)
    return [
        f"{name[0]:g}",
        name[1],
        str(len(draws)),
        str(min(d.n_clean_pilots for d in draws)),
        str(sum(d.n_clean_candidates == 0 for d in draws)),
        str(sum(d.n_misled > 0 for d in draws)),
        str(sum(d.n_misled for d in draws)),
        ", ".join(f"{count} x {size}" for size, count in enumerate(sizes) if count),
        f"{ratio.mean():.3f}, {ratio.max():.3f} ({len(ratio)})" if len(ratio) else "",
        f"{draws[0].ratio_from_truth:.3f}",
        f"{np.nanmax([d.corrupted_kept for d in draws]):.0f}" if len(ratio) else "",
    ]


def main() -> None:
    """Print the table."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("-m", type=int, default=40, help="partitions")
    parser.add_argument("--rows", type=int, default=1000, help="of a partition")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--population-seed", type=int, default=1, choices=(1, 2))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--data-draws", type=int, default=5)
    parser.add_argument("--pilot-draws", type=int, default=8, help="per draw of the rows")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--wide", action="store_true", help="K = 10 components in d = 30 columns")
    options = parser.parse_args()
    cases = product(options.overlaps, options.kinds, range(options.data_draws))
    size = options.pilot_draws, options.m, options.rows, options.wide
    jobs = [Job(o, options.population_seed, kind, draw, *size) for o, kind, draw in cases]
    with recorded(options):
        print_draws(*run_jobs(jobs, options.jobs))


def run_jobs(
    jobs: list[Job], n_processes: int
) -> tuple[dict[tuple[float, str], list[Draw]], float]:
    """The draws by overlap and kind, and the CPU seconds of all jobs."""
    found: dict[tuple[float, str], list[Draw]] = {}
    cpu, last = 0.0, max(job.data_draw for job in jobs)
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        for job, draws, seconds in pool.map(run_job, jobs):
            name = job.overlap, job.kind
            found.setdefault(name, []).extend(draws)
            cpu += seconds
            if job.data_draw == last:
                print_progress(*row_of(name, found[name]))
    return found, cpu


def print_draws(found: dict[tuple[float, str], list[Draw]], cpu: float) -> None:
    """The table and its summary."""
    header = ["overlap", "40 % corrupted: kind", "draws", "fewest clean pilots"]
    header += ["no clean candidate", "a clean partition misled", "partitions misled"]
    header += ["draws x size of the list", "W1 / oracle: mean, max (of)"]
    header += ["started at the truth", "most corrupted kept"]
    print_table(header, [row_of(name, draws) for name, draws in found.items()])
    everything = [draw for draws in found.values() for draw in draws]
    misled = sum(draw.n_misled > 0 for draw in everything)
    print(f"A clean partition chose a wrong start in {misled} of {len(everything)} draws.")
    print(f"CPU seconds: {cpu:.0f}.")


if __name__ == "__main__":
    main()
