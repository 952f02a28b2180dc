"""The contestants of a whole-job benchmark: one process, one job, one answer.

    python benchmarks/peers.py CONTESTANT FOLDER N_COMPONENTS OUT

``whole_job.py`` starts this script and measures the process from outside. Therefore a contestant imports only what it
needs, inside its own function. The answer is ``OUT/answer.npz`` (weights, means and full covariances, with a leading
axis over mixtures) and ``OUT/notes.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EM_TOL = 1e-3
"""scikit-learn's default: EM stops when the mean log-likelihood per row changes by less."""

EM_MAX_ITER = 100
"""scikit-learn's default."""

REG_COVAR = 1e-6
"""scikit-learn's default, added to the diagonal of every covariance."""

START_ROWS, SAMPLE_ROWS, SAMPLE_FILES = 20_000, 100_000, 10
BLOCK_ROWS = 4096
"""Rows of one block of an E step, so few that its intermediate arrays stay in cache."""


class Task(NamedTuple):
    """The job of a contestant."""

    partitions: Path
    n_components: int
    options: argparse.Namespace

    @property
    def files(self) -> list[Path]:
        """The paths of the partitions, in order."""
        return sorted(self.partitions.glob("*.parquet"))


class Answer(NamedTuple):
    """Parameters of one or more mixtures, stacked (None from a contestant that fits nothing), and notes on the run."""

    parameters: dict[str, np.ndarray] | None
    notes: dict[str, Any]


def one_mixture(weights: Any, means: Any, covariances: Any, **notes: Any) -> Answer:
    """The answer of a contestant that fits one mixture."""
    named = {"weights": weights, "means": means, "covariances": covariances}
    return Answer({name: np.asarray(value)[None] for name, value in named.items()}, notes)


def two_workers() -> AbstractContextManager[Any]:
    """A cluster of two worker processes of one thread each; imported here, not by the other contestants."""
    from clusters import local_cluster

    return local_cluster()


def read_frame(task: Task) -> Any:
    """The job as a Dask dataframe, a partition a file."""
    import dask.dataframe as dd

    return dd.read_parquet([str(path) for path in task.files])


def sample_rows(task: Task, n_rows: int) -> np.ndarray:
    """The first rows of files spread evenly over the job; rows within a file are in random order."""
    import pyarrow.parquet as pq

    files = task.files
    chosen = np.linspace(0, len(files) - 1, min(SAMPLE_FILES, len(files))).astype(int)
    heads = [
        pq.read_table(files[i]).slice(0, -(-n_rows // len(chosen))).to_pandas().to_numpy()
        for i in chosen
    ]
    return np.concatenate(heads)


# -- this package --------------------------------------------------------------------------------


def dfmr(task: Task) -> Answer:
    """GaussianMixture with its defaults."""
    return _fit_dfmr(task, read_frame, tol="auto")


def dfmr_loosened(task: Task) -> Answer:
    """GaussianMixture with a tolerance that gives the peers' log-likelihood."""
    return _fit_dfmr(task, read_frame, tol=task.options.matched_tol)


def dfmr_counted(task: Task) -> Answer:
    """GaussianMixture on a reader that counts its reads."""
    marks = task.options.out / "reads"
    marks.mkdir()

    def counted_frame(task: Task) -> Any:
        import dask.dataframe as dd
        import pandas as pd

        meta = pd.read_parquet(task.files[0]).iloc[:0]  # or Dask reads a partition to find out
        return dd.from_map(read_and_mark, task.files, marks=marks, meta=meta)

    answer = _fit_dfmr(task, counted_frame, tol="auto")
    reads = [len((marks / path.name).read_bytes()) for path in task.files]
    return Answer(answer.parameters, {**answer.notes, "reads": reads})


def read_and_mark(path: Path, marks: Path) -> Any:
    """Read one partition and append a byte to its file of marks, which is atomic between processes."""
    import pandas as pd

    with (marks / path.name).open("ab") as mark:
        mark.write(b".")
    return pd.read_parquet(path)


def _fit_dfmr(task: Task, frame_of: Callable[[Task], Any], tol: float | str) -> Answer:
    from dask_dfmr import GaussianMixture

    with two_workers():
        gm = GaussianMixture(task.n_components, tol=tol, random_state=task.options.seed).fit(
            frame_of(task)
        )
    return one_mixture(
        gm.weights_,
        gm.means_,
        gm.covariances_,
        iterations=float(gm.partition_report_["n_iter"].median()),
        kept=gm.support_.tolist(),
    )


# -- exact EM on Dask, as one would write it by hand ---------------------------------------------


def dask_em(task: Task) -> Answer:
    """EM with the E step of scikit-learn, partition by partition; every iteration reads the files."""
    return _dask_em(task, sums_as_sklearn)


def dask_em_blocks(task: Task) -> Answer:
    """The same with an E step that works in blocks of rows, so that its arrays stay in cache."""
    return _dask_em(task, em_sums)


def dask_em_persisted(task: Task) -> Answer:
    """EM in blocks on rows that the workers hold in memory."""
    return _dask_em(task, em_sums, persisted=True)


def _dask_em(task: Task, sums_of: Callable[..., list[Any]], persisted: bool = False) -> Answer:
    import dask

    with two_workers():
        frame = read_frame(task)
        partitions = (frame.persist() if persisted else frame).to_delayed()
        e_step, add = dask.delayed(sums_of, pure=False), dask.delayed(add_sums, pure=False)
        point = start_from_kmeans(task)
        last, change, iteration = -np.inf, np.inf, 0
        while change >= EM_TOL and iteration < EM_MAX_ITER:
            sums = [e_step(rows, *point) for rows in partitions]
            while len(sums) > 1:
                sums = [add(sums[i : i + 8]) for i in range(0, len(sums), 8)]
            n_rows, log_likelihood, *moments = sums[0].compute()
            point = m_step(n_rows, *moments)
            mean = log_likelihood / n_rows
            last, change, iteration = mean, abs(mean - last), iteration + 1
    return one_mixture(*point, iterations=iteration)


def start_from_kmeans(task: Task) -> tuple[np.ndarray, ...]:
    """Weights, means and covariances of k-means clusters of a sample: scikit-learn's default start."""
    from sklearn.cluster import KMeans

    rows = sample_rows(task, START_ROWS)
    labels = KMeans(task.n_components, random_state=task.options.seed).fit(rows).labels_
    clusters = [rows[labels == k] for k in range(task.n_components)]
    counts = np.array([len(cluster) for cluster in clusters], dtype=float)
    sums = np.array([cluster.sum(axis=0) for cluster in clusters])
    products = np.array([cluster.T @ cluster for cluster in clusters])
    return m_step(len(rows), counts, sums, products)


def m_step(
    n_rows: int, counts: np.ndarray, sums: np.ndarray, products: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and covariances from the sums of an E step."""
    counts = counts + 10 * np.finfo(float).eps
    means = sums / counts[:, None]
    covariances = products / counts[:, None, None] - means[:, :, None] * means[:, None, :]
    return counts / n_rows, means, covariances + REG_COVAR * np.eye(means.shape[1])


def em_sums(
    frame: Any, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> list[Any]:
    """Of one partition: rows, log-likelihood, and the count, sum and products of each component."""
    X = frame.to_numpy()
    n_features = X.shape[1]
    whiteners = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    constants = (
        np.log(weights)
        + np.log(np.diagonal(whiteners, axis1=1, axis2=2)).sum(axis=1)
        - 0.5 * n_features * np.log(2 * np.pi)
    )
    offsets = (means[:, None, :] @ whiteners)[:, 0, :]
    log_likelihood = 0.0
    counts, sums = np.zeros(len(weights)), np.zeros_like(means)
    products = np.zeros_like(covariances)
    for i in range(0, len(X), BLOCK_ROWS):
        block = np.ascontiguousarray(X[i : i + BLOCK_ROWS])
        joint = np.empty((len(weights), len(block)))
        for k, whitener in enumerate(whiteners):
            white = block @ whitener - offsets[k]
            joint[k] = constants[k] - 0.5 * np.einsum("ij,ij->i", white, white)
        top = joint.max(axis=0)
        np.exp(joint - top, out=joint)
        total = joint.sum(axis=0)
        log_likelihood += float(np.sum(top + np.log(total)))
        joint /= total
        counts += joint.sum(axis=1)
        sums += joint @ block
        for k, share in enumerate(joint):
            products[k] += (block * share[:, None]).T @ block
    return [len(X), log_likelihood, counts, sums, products]


def sums_as_sklearn(
    frame: Any, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> list[Any]:
    """The same as scikit-learn computes it: on all rows of the partition at once, one component after the other."""
    from scipy.special import logsumexp

    X = frame.to_numpy()
    n_features = X.shape[1]
    whiteners = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    joint = np.empty((len(X), len(weights)))
    for k, (mean, whitener) in enumerate(zip(means, whiteners, strict=True)):
        joint[:, k] = np.square(X @ whitener - mean @ whitener).sum(axis=1)
    log_dets = np.log(np.diagonal(whiteners, axis1=1, axis2=2)).sum(axis=1)
    joint = -0.5 * (n_features * np.log(2 * np.pi) + joint) + log_dets + np.log(weights)
    log_norm = logsumexp(joint, axis=1)
    shares = np.exp(joint - log_norm[:, None])
    products = np.array([(share[:, None] * X).T @ X for share in shares.T])
    return [len(X), float(log_norm.sum()), shares.sum(axis=0), shares.T @ X, products]


def add_sums(parts: list[list[Any]]) -> list[Any]:
    """Add the sums of several partitions."""
    return [sum(values[1:], start=values[0]) for values in zip(*parts, strict=True)]


# -- scikit-learn --------------------------------------------------------------------------------


def sklearn_memory(task: Task) -> Answer:
    """scikit-learn on all rows in memory, both cores."""
    import pandas as pd

    return _fit_sklearn(pd.read_parquet(task.partitions), task)


def sklearn_sample(task: Task) -> Answer:
    """scikit-learn on a sample of the rows."""
    return _fit_sklearn(sample_rows(task, SAMPLE_ROWS), task)


def sklearn_partition(task: Task) -> Answer:
    """scikit-learn on every partition alone, on the workers; the fits are not combined."""
    import dask

    with two_workers():
        fit = dask.delayed(_fit_sklearn)
        tasks = [fit(rows, task) for rows in read_frame(task).to_delayed()]
        answers = dask.compute(*tasks)
    found = [answer.parameters for answer in answers if answer.parameters is not None]
    stacked = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return Answer(
        stacked,
        {"iterations": float(np.median([answer.notes["iterations"] for answer in answers]))},
    )


def _fit_sklearn(rows: Any, task: Task) -> Answer:
    from sklearn.mixture import GaussianMixture

    gm = GaussianMixture(task.n_components, random_state=task.options.seed)
    gm.fit(np.asarray(rows))
    return one_mixture(gm.weights_, gm.means_, gm.covariances_, iterations=gm.n_iter_)


# -- others --------------------------------------------------------------------------------------


def spark(task: Task) -> Answer:
    """Spark MLlib, stopped after 10 iterations."""
    return _fit_spark(task, max_iter=10)


def spark_defaults(task: Task) -> Answer:
    """Spark MLlib with its defaults: tol .01, at most 100 iterations."""
    return _fit_spark(task, max_iter=100)


def _fit_spark(task: Task, max_iter: int) -> Answer:
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", task.options.spark_memory)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    frame = session.read.parquet(str(task.partitions))
    rows = VectorAssembler(inputCols=frame.columns, outputCol="x").transform(frame).select("x")
    model = GaussianMixture(
        featuresCol="x", k=task.n_components, maxIter=max_iter, seed=task.options.seed
    ).fit(rows)
    components = model.gaussians
    answer = one_mixture(
        model.weights,
        [component.mean.toArray() for component in components],
        [component.cov.toArray() for component in components],
        iterations=model.summary.numIter,
    )
    _end_spark(session)
    return answer


def _end_spark(session: Any) -> None:
    """Stop Spark and wait for its virtual machine, so that its CPU seconds count."""
    gateway = session.sparkContext._gateway
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


def pomegranate(task: Task) -> Answer:
    """Pomegranate on all rows in memory as float32 tensors, both cores; scikit-learn's start and tolerance."""
    import pandas as pd
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    rows = torch.from_numpy(pd.read_parquet(task.partitions).to_numpy(dtype=np.float32))
    weights, means, covariances = start_from_kmeans(task)
    components = [
        Normal(mean.astype(np.float32), covariance.astype(np.float32))
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    model = GeneralMixtureModel(
        components,
        priors=weights.astype(np.float32),
        max_iter=EM_MAX_ITER,
        tol=EM_TOL * len(rows),  # pomegranate compares totals
    ).fit(rows)
    return one_mixture(
        model.priors.numpy(),
        [component.means.numpy() for component in model.distributions],
        [component.covs.numpy() for component in model.distributions],
    )


def read_only(task: Task) -> Answer:
    """Read all partitions on the same cluster and sum every column; no fit."""
    with two_workers():
        read_frame(task).sum().compute()
    return Answer(None, {})


CONTESTANTS: dict[str, Callable[[Task], Answer]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        read_only,
        dfmr,
        dfmr_loosened,
        dfmr_counted,
        dask_em,
        dask_em_blocks,
        dask_em_persisted,
        sklearn_memory,
        sklearn_partition,
        sklearn_sample,
        spark,
        spark_defaults,
        pomegranate,
    )
}

NEEDS = {
    "spark": ("pyspark",),
    "spark-defaults": ("pyspark",),
    "pomegranate": ("torch", "pomegranate"),
}
"""Modules that contestants import beyond the dependencies of this package."""


def main() -> None:
    """Run one contestant on one job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("n_components", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matched-tol", type=float, default=1e-4)
    parser.add_argument("--spark-memory", default="8g")
    options = parser.parse_args()
    task = Task(options.folder, options.n_components, options)
    answer = CONTESTANTS[options.contestant](task)
    if answer.parameters is not None:
        np.savez(options.out / "answer.npz", **answer.parameters)
    (options.out / "notes.json").write_text(json.dumps(answer.notes))


if __name__ == "__main__":
    main()
