"""Claim: a whole job is fast beside EM on Dask, Spark or scikit-learn, and withstands corrupted partitions.

    python benchmarks/whole_job.py --data DIR [--cases moderate wide slow] [--corrupt 0.1 0.3]

A job goes from parquet files on local disk to the parameters of a mixture; the start of the process and of the cluster
is included. Every run is a fresh process (``peers.py``), measured from outside. Measured are wall seconds, CPU seconds
of all processes, and the peak of their proportional set sizes (each shared page counts once), read every 50 ms. Runs
alternate between contestants, every repetition has a seed of its own, and the tables show medians.

Quality is the mean log-likelihood of 100,000 held-out rows, in nats per row below that of the true mixture. The
contestant "sklearn-partition" returns one mixture per partition; its quality is the median over partitions.

Cases: "moderate", 10 million rows, K = 5, d = 10, overlap .1 (``--overlap`` for another); "wide", 2 million rows,
K = 10, d = 30, overlap .1; "slow", 5 million rows, K = 8 long components in d = 10. With ``--corrupt`` these shares of
the partitions, seeded, are garbage, in a wrong unit (x 1000) or have their columns rolled by one.

A finished run is a line of ``--results`` and is not repeated: an interrupted benchmark continues where it stopped, and
``--table-only`` prints the finished runs. The files of a job are in the page cache in all runs but perhaps the first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jobs import CASES, KINDS, Job, ensure_corrupted, ensure_job, load_job, partitions_folder
from output import benchmark_parser, print_progress, print_table, recorded
from peers import CONTESTANTS, NEEDS
from processes import JobFailedError, run_job

from dask_dfmr import Mixture

DEFAULT_CONTESTANTS = [name for name in CONTESTANTS if name != "spark-defaults"]
RUN_ONCE = ("dfmr-counted",)
"""Contestants whose time does not matter."""

Run = dict[str, Any]


# -- runs ----------------------------------------------------------------------------------------


def run_all(folders: Sequence[Path], options: argparse.Namespace) -> None:
    """Run all that is not in the results yet, alternating between the contestants."""
    missing = {name: what_is_missing(name, options) for name in options.contestants}
    for name, reason in missing.items():
        if reason:
            print(f"skipped {name}: {reason}", flush=True)
    done = {(run["job"], run["contestant"], run["repeat"]) for run in load_runs(options.results)}
    for folder in folders:
        job = load_job(folder)
        for repeat in range(options.repeats):
            for name in options.contestants:
                wanted = repeat == 0 or name not in RUN_ONCE
                if wanted and not missing[name] and (job.name, name, repeat) not in done:
                    run = run_once(folder, job, name, repeat, options)
                    append_run(options.results, run)
                    seconds = run.get("failed") or f"{run['wall']:.1f} s"
                    print_progress(f"{job.name} {name} {repeat}: {seconds}")


def what_is_missing(name: str, options: argparse.Namespace) -> str:
    """Why a contestant cannot run here; empty if it can run."""
    if name.startswith("spark") and not shutil.which("java"):
        return "no Java"
    modules = NEEDS.get(name, ())
    if interpreter_of(name, options) == sys.executable:
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
    else:
        check = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if not importlib.util.find_spec(m)])"
        command = [options.peers_python, "-c", check, *modules]
        absent = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return f"no {' and '.join(absent)}" if absent else ""


def interpreter_of(name: str, options: argparse.Namespace) -> str:
    """The interpreter of a contestant; those with dependencies of their own may have their own environment."""
    return str(options.peers_python) if name in NEEDS else sys.executable


def run_once(folder: Path, job: Job, name: str, repeat: int, options: argparse.Namespace) -> Run:
    """Run one contestant on one job; return its measurements."""
    run: Run = {"job": job.name, "contestant": name, "repeat": repeat, "rows": job.n_rows}
    with tempfile.TemporaryDirectory(prefix="whole-job-") as temporary:
        out = Path(temporary)
        command = [interpreter_of(name, options), str(Path(__file__).with_name("peers.py")), name]
        command += [str(partitions_folder(folder)), str(job.n_components), str(out)]
        command += ["--seed", str(repeat), "--matched-tol", str(options.matched_tol)]
        command += ["--spark-memory", options.spark_memory]
        try:
            usage = run_job(command, time_limit=options.time_limit)
        except JobFailedError as error:
            return run | {"failed": str(error)}
        run |= asdict(usage) | json.loads((out / "notes.json").read_text())
        if (out / "answer.npz").exists():
            run["below_truth"] = below_truth(folder, out / "answer.npz")
    return run


def below_truth(folder: Path, answer: Path) -> float:
    """Held-out log-likelihood of the truth minus that of the answer, nats per row; median over its mixtures."""
    rows = np.load(folder / "held_out.npy")
    with np.load(folder / "truth.npz") as data:
        truth = Mixture(data["weights"], data["means"], data["covariances"]).score(rows)
    return float(np.median([truth - mixture.score(rows) for mixture in mixtures_in(answer)]))


def mixtures_in(answer: Path) -> Iterator[Mixture]:
    """The mixtures of a contestant, in double precision, weights summing to one."""
    with np.load(answer) as data:
        stacks = [np.asarray(data[name], float) for name in ("weights", "means", "covariances")]
    for weights, means, covariances in zip(*stacks, strict=True):
        symmetric = (covariances + covariances.transpose(0, 2, 1)) / 2
        yield Mixture(weights / weights.sum(), means, symmetric)


def append_run(path: Path, run: Run) -> None:
    """Add a run to the results."""
    with path.open("a") as lines:
        lines.write(json.dumps(run) + "\n")


def load_runs(path: Path) -> list[Run]:
    """All runs of the results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def runs_of(runs: Sequence[Run], job: str, contestant: str) -> list[Run]:
    """The runs of one contestant on one job."""
    return [run for run in runs if (run["job"], run["contestant"]) == (job, contestant)]


# -- tables --------------------------------------------------------------------------------------


def print_job(runs: Sequence[Run], job: Job, contestants: Sequence[str]) -> None:
    """Print time, memory and quality on one job."""
    print(
        f"{job.name}: {job.n_rows:,} rows in {job.n_partitions} partitions, K = {job.n_components}\n"
    )
    header = ["contestant", "runs", "wall s: median (least to most)", "CPU s", "peak GiB"]
    header += ["nats a row below the truth", "iterations"]
    found = {name: runs_of(runs, job.name, name) for name in contestants if name not in RUN_ONCE}
    print_table(header, [job_row(name, of_name) for name, of_name in found.items() if of_name])
    for name in contestants:
        for run in runs_of(runs, job.name, name):
            if "failed" in run:
                print(f"{name} failed: {run['failed']}\n")
    print_reads(runs_of(runs, job.name, "dfmr-counted"))


def job_row(name: str, runs: Sequence[Run]) -> list[str]:
    """The line of one contestant: medians over its runs."""
    good = [run for run in runs if "failed" not in run]
    if not good:
        return [name, "0", "failed", "", "", "", ""]

    def median(field: str) -> float | None:
        values = [run[field] for run in good if field in run]
        return float(np.median(values)) if values else None

    walls = [run["wall"] for run in good]
    wall = f"{np.median(walls):.1f} ({min(walls):.1f} to {max(walls):.1f})"
    lost, iterations = median("below_truth"), median("iterations")
    return [
        name,
        str(len(good)),
        wall,
        f"{median('cpu'):.1f}",
        f"{median('peak_pss') / 2**30:.2f}",
        "" if lost is None else f"{lost:.5f}",
        "" if iterations is None else f"{iterations:g}",
    ]


def print_reads(counted: Sequence[Run]) -> None:
    """Print how often this package read the partitions."""
    for run in counted:
        if "reads" in run:
            reads = np.array(run["reads"])
            once, twice, more = (reads == 1).sum(), (reads == 2).sum(), (reads > 2).sum()
            print(f"dfmr: partitions read once / twice / more: {once} / {twice} / {more}\n")


def print_corrupted(runs: Sequence[Run], jobs: Sequence[Job], contestants: Sequence[str]) -> None:
    """Print quality by contestant and corruption, and the partitions that dfmr excluded."""
    print(f"{jobs[0].case}, corrupted: held-out nats a row below the truth\n")

    def quality(job: Job, name: str) -> str:
        found = runs_of(runs, job.name, name)
        values = [run["below_truth"] for run in found if "below_truth" in run]
        return f"{np.median(values):.4g}" if values else ("failed" if found else "")

    fitted = [name for name in contestants if name not in (*RUN_ONCE, "read-only")]
    header = ["contestant", *(f"{job.kind} {job.share:.0%}" for job in jobs)]
    rows = [[name, *(quality(job, name) for job in jobs)] for name in fitted]
    print_table(header, [row for row in rows if any(row[1:])])
    decisions = [
        [job.kind, f"{job.share:.0%}", name, *kept_counts(run["kept"], job)]
        for job in jobs
        for name in ("dfmr", "dfmr-loosened")
        for run in runs_of(runs, job.name, name)[:1]
        if "kept" in run
    ]
    header = [
        "kind",
        "share",
        "contestant",
        "corrupted",
        "corrupted kept",
        "clean",
        "clean excluded",
    ]
    if decisions:
        print_table(header, decisions)


def kept_counts(kept: Sequence[bool], job: Job) -> list[int]:
    """Numbers of corrupted partitions, corrupted ones kept, clean partitions, and clean ones excluded."""
    is_corrupted = np.isin(np.arange(job.n_partitions), job.corrupted)
    was_kept = np.array(kept)
    return [
        is_corrupted.sum(),
        (is_corrupted & was_kept).sum(),
        (~is_corrupted).sum(),
        (~is_corrupted & ~was_kept).sum(),
    ]


# -- command line --------------------------------------------------------------------------------


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the benchmarks that run contestants."""
    parser.add_argument("--data", type=Path, required=True, help="where jobs are written, once")
    parser.add_argument("--results", type=Path, help="default: whole_job.jsonl in --data")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument(
        "--contestants", nargs="*", choices=CONTESTANTS, default=DEFAULT_CONTESTANTS, metavar="NAME"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--overlap", type=float, help="of the population, instead of the case's own"
    )
    parser.add_argument("--matched-tol", type=float, default=1e-4, help="tol of dfmr-loosened")
    parser.add_argument(
        "--peers-python", default=sys.executable, help="interpreter with pyspark and pomegranate"
    )
    parser.add_argument("--spark-memory", default="8g")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds a run may take")


def finish_options(options: argparse.Namespace) -> None:
    """Set the options that depend on others."""
    options.data.mkdir(parents=True, exist_ok=True)
    options.results = options.results or options.data / "whole_job.jsonl"


def main() -> None:
    """Write the jobs, run the contestants, print the tables."""
    parser = benchmark_parser(__doc__)
    add_run_options(parser)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=["moderate"])
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of rows")
    parser.add_argument("--corrupt", type=float, nargs="*", default=[], metavar="SHARE")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    finish_options(options)
    with recorded(options):
        for case in options.cases:
            run_case(case, options)


def run_case(case: str, options: argparse.Namespace) -> None:
    """Write the jobs of a case, run the contestants, print the table."""
    clean = ensure_job(options.data, case, options.scale, options.overlap)
    folders = [
        ensure_corrupted(clean, kind, share) for kind in options.kinds for share in options.corrupt
    ] or [clean]
    if not options.table_only:
        run_all(folders, options)
    runs, jobs = load_runs(options.results), [load_job(folder) for folder in folders]
    if options.corrupt:
        print_corrupted(runs, jobs, options.contestants)
    else:
        print_job(runs, jobs[0], options.contestants)


if __name__ == "__main__":
    main()
