"""``GaussianMixture``: fit, report and predictions with scikit-learn's interface.

The class holds parameters and what was learned. :mod:`dask_dfmr.parameters` checks the parameters and makes the plan of
a fit, and :mod:`dask_dfmr.on_dask.fit` computes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE, Method
from dask_dfmr.aggregation.rerun import again, origin_of
from dask_dfmr.aggregation.result import Note
from dask_dfmr.exceptions import ExclusionWarning, PartitionError, PartitionWarning, warn
from dask_dfmr.explanation.report import (
    describe_decision,
    describe_exclusions,
    describe_failures,
    have_failed,
    have_outcome,
)
from dask_dfmr.fitted.file import load_model, save_model
from dask_dfmr.fitted.learned import (
    Learned,
    aggregate_of_mixture,
    explained_report,
    learned_from,
    learned_of_aggregate,
    parameters_of_aggregate,
)
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.local.starts import StartName
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import CovarianceType, Mixture
from dask_dfmr.mixtures.row_cut import LEVEL
from dask_dfmr.on_dask.continued import Progress
from dask_dfmr.on_dask.explain_rows import explain_with_rows
from dask_dfmr.on_dask.fit import run_fit
from dask_dfmr.on_dask.fit_plan import Fit, FitPlan
from dask_dfmr.on_dask.predictions import RowMethod, map_rows, values_by_part
from dask_dfmr.on_dask.refit import fit_partitions
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.score import log_likelihood, token_of, total_of_scores
from dask_dfmr.on_dask.tasks import report_rows
from dask_dfmr.parameters import expected_names, plan_of, warn_of_partitions
from dask_dfmr.progress.choice import say_result
from dask_dfmr.reporting.page import write_report
from dask_dfmr.reporting.reprs import in_html, in_text
from dask_dfmr.results import Aggregate, warn_of
from dask_dfmr.seeds import SeedLike

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd
    from dask.delayed import Delayed

logger = logging.getLogger("dask_dfmr")

NO_LABEL = -1
"""Label of a row that was omitted, in an array; a Series has NA."""

Rows = Literal["auto", "kept", "all"]
"""Which rows of X count in a score."""


class _Scored(NamedTuple):
    """The log-likelihood of the rows that count, and what a criterion is multiplied by."""

    log_likelihood: float
    n_samples: int
    factor: float = 1.0


class GaussianMixture(DensityMixin, BaseEstimator):
    """Robust Gaussian mixture model of a Dask collection.

    Each partition is fitted on its own, by penalised maximum likelihood. Local estimates that are inconsistent with
    the majority are excluded and reported. The others are reduced to one global mixture. The method is distance
    filtered mixture reduction (DFMR) [1]_.

    The result is robust against inconsistent *partitions*, as long as more than half of them are consistent: a broken
    sensor, a wrong unit, a truncated file, a malicious estimate. A few wrong rows in every partition move all estimates
    alike; ``row_outliers="truncate"`` withstands them.

    The data are read once, and at most 16 partitions a second time to find starts. Only ``refit_excluded``,
    ``check_optimum``, ``refine`` and partitions that are too small for an estimate cause further reads.

    Parameters
    ----------
    n_components : int, default 1
        Number of components of the mixture.
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
        Structure of the covariance matrices. As in scikit-learn.
    tol : "auto" or float, default "auto"
        When a local fit stops. "auto": when the log-likelihood that is predicted to remain until the optimum of the
        partition is below ``0.005 * p / n_partitions``, where p is the number of free parameters. A float has
        scikit-learn's meaning: the change of the mean log-likelihood per row.
    reg_covar : float, default 0.0
        Added to the diagonal of every covariance matrix. As in scikit-learn, it lets constant, one-hot and dependent
        columns be fitted. It is in squared units of the data, so the default of scikit-learn, 1e-6, is too much for
        columns of a standard deviation below 0.01. ``penalty`` makes it unnecessary for other columns. EM is not
        accelerated with it.
    max_iter : int, default 1000
        Largest number of passes of a local fit over its partition. The partition is in memory then.
    n_init : int, default 1
        How many starts are tried. The best one is used. With "pilot" it multiplies the starts of each pilot and those
        of ``check_optimum``. With another name it is the number of starts of each local fit. It has no effect if a
        mixture or a complete start is given.
    init_params : {"pilot", "kmeans", "k-means++", "random", "random_from_data"} or Mixture, default "pilot"
        Where the local fits start. "pilot": at most 16 partitions are fitted from many starts. The best fits are the
        candidates, at most four. Every partition starts from the candidate under which its rows are most likely. The
        other names are scikit-learn's. Each partition then makes its own starts, which is safe only if the components
        are well separated. A :class:`Mixture` is the start of every partition. If a mixture or means are given,
        the components of the result have their order, otherwise that of decreasing weight.
    weights_init : array-like of shape (n_components,) or None, default None
        Weights to start from. Non-negative, with the sum 1.
    means_init : array-like of shape (n_components, n_features) or None, default None
        Means to start from. Given alone, they attract the rows that are nearest to them.
    precisions_init : array-like or None, default None
        Precision matrices to start from. Their shape is that of ``precisions_``. Weights, means and precision matrices
        together are a complete start.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
        Seed of everything that is drawn at random. The same rows in the same order, partitions and seed give the same
        bits on every scheduler, in whatever memory layout the rows lie. Dask's disk shuffle gives rows another order
        every time, and so other last digits. None draws a new seed.
    warm_start : bool, default False
        Whether to start from the mixture of the last fit. Components keep their order, so labels keep their meaning.
        Repeated fits with ``max_iter=1`` are one iteration each, and end with ``converged_``.
    verbose : int, default 0
        Whether to show progress and the result of the filter. 1 writes to stderr: the stages of the fit by name, with
        the partitions done of how many and times, and then what was excluded. Bars need rich (the extra ``cli``) and a
        terminal, or a notebook with ipywidgets; there are lines of text otherwise. The logger ``dask_dfmr`` has the
        same at INFO.
    source : column name or None, default None
        What is kept or excluded as a whole. None: each partition. A column, like a sensor, site, file or day: the rows
        of one value of it, in whatever partitions they lie. A wrong sensor whose rows lie in every partition can only
        be excluded this way. The column is not a feature. Its values may be of any type that can be compared for
        equality. It is read first, on its own. Rows without a value form a source of their own, and so does a
        partition that cannot be read. The user guide has the cost.
    method : {"dfmr", "hardened", "componentwise", "mr", "coat"}, default "dfmr"
        How the local estimates are aggregated. See :func:`aggregate`.

        - "dfmr": the estimates are filtered by their distance and then reduced.
        - "hardened": the same with further tests, against estimates that collude. For at most 2,000 estimates.
        - "componentwise": the filter compares components and profiles the mixing weights out. It is meant for sorted
          or stratified rows, where consistent partitions differ in proportions, and for partitions of which only some
          components are inconsistent. It does not protect against wrong weights.
        - "mr": all estimates are reduced, and nothing is filtered.
        - "coat": the estimate at the center is the result.
    rho : "auto" or float, default "auto"
        How far from the majority an estimate may be. "auto": an estimate is excluded if its p-value under the null law
        is below ``false_exclusion_rate``. This is the probability that sampling alone explains its distance, given its
        number of rows and the scatter of the majority. A float: estimates within ``rho`` radii of the center are kept.
        The radius is the smallest distance from the center within which more than half of the estimates lie. The
        paper uses 1.3. It is not a significance level: 0 to 35 % of clean partitions lie outside, most of them if the
        mixture has few parameters.
    false_exclusion_rate : float, default 0.001
        Share of consistent partitions that are excluded by mistake. With ``rho="auto"``, and in each test of a
        refinement.
    machine_weights : {"rows", "equal"}, default "rows"
        Weights of the kept partitions in the reduction. "rows": their numbers of rows, but at most ten times that of
        the median partition. "equal": one weight for all.
    n_references : "auto", int or None, default "auto"
        Number of estimates that all others are compared with. They are drawn at random and serve to find candidates
        for the center; everything after that is exact. None compares all pairs. "auto" compares all pairs of up to
        2,000 partitions, and uses 512 references beyond that. See :func:`aggregate`.
    refit_excluded : bool, default True
        Whether to hold the rows of excluded partitions against the global mixture. A fit of correct rows that ended in
        another optimum looks like a fit of wrong rows. So the excluded partitions that are least distant are read once
        more, first a tenth of all (or two, if that is more), and twice as many further ones each time that one of these
        is kept. If the rows do not contradict those of the kept partitions (a p-value of at least
        ``false_exclusion_rate``), the partition is kept, and an EM step from the global mixture takes the place of its
        fit in the reduction. If this step is farther away than fits may be, the partition stays excluded. Needs
        ``rho="auto"``, estimates in memory (``keep_estimates``) and rows that need not be regrouped by ``source``
        again.
    check_optimum : int, "auto" or None, default "auto"
        Whether to look for a better optimum, and how often to adopt one. Partitions that share a start share its
        optimum, whether it is the best one or not. The check reads up to 18 of the kept partitions once more (three
        if they have 2,000 rows and ten per free parameter) and fits them from fresh starts. If an optimum is better, an
        :class:`OptimumWarning` gives the numbers. An int adopts a better optimum up to so many times: all partitions
        are fitted again from it, with one more read of everything each time. "auto" is 0 if the start is in doubt, and
        None otherwise. It is in doubt if it was given (``warm_start``, a mixture, or complete ``*_init`` parameters),
        or if pilots have fewer than ten rows per free parameter. It is not checked if ``source`` names a column whose
        values lie in several partitions, because a few of those cannot be read alone. None: no check.
    refine : int or "auto", default 0
        Number of EM passes over the kept rows after the aggregation. They lead to the mixture that a fit of all these
        rows together would give. "auto": until the remaining gain is negligible, at most 100. This is worth its reads
        if partitions have few rows. Every pass reads the kept partitions again, so persist the data if memory allows,
        without merging parquet files (see the user guide).
        In passes 1, 2, 4, 8, ..., partitions whose rows contradict the others' by more than sampling explains are
        excluded, one consistent partition in a thousand by mistake (``false_exclusion_rate``). Partitions that are too
        small for an estimate join if their rows do not contradict the others'. Must be 0 with "componentwise" and
        "coat".
    penalty : "auto", "paper" or float, default "auto"
        Weight and target of the penalty on the covariances. It shrinks each of them towards a target, which keeps the
        likelihood bounded. The target of "auto" is the covariance *within* the component, as the start of the fit
        divides the rows, and the weight is ``1 / n`` for n rows. "paper" takes the covariance of all rows and the
        weight ``n ** -0.5``, as in [1]_; it widens tight clusters that lie far apart. A float is a weight with the
        target of "auto"; 0 is plain maximum likelihood.
    row_outliers : {None, "truncate"}, default None
        What happens to single rows far from every component. "truncate": a row counts in a component only inside the
        cut of the component, so that a few bad rows in every partition do not decide the result. The estimates stay
        unbiased for Gaussian components, and the result is an ordinary mixture. It withstands scattered rows, and not a
        tight group of several percent of the rows, which is a component. None: every row counts.
    row_outlier_level : float, default 0.01
        Share of the rows of a component that lies beyond its cut. Between 0 and 1; the cut is a quantile of
        the chi-square law of squared distances in standard deviations.
    min_partition_rows : "auto" or int, default "auto"
        Number of rows below which a partition is not fitted. Such a partition takes no part in the aggregation. "auto"
        is the number of free parameters for ``covariance_type="full"``. With the other structures a row informs more
        than one parameter: it is ten times the number of weights, means and variances that one column determines, and
        at most the number of free parameters. The reason in ``partition_report_`` says what fewer rows can be fitted
        with.
    nan_policy : {"raise", "omit"}, default "raise"
        What happens to rows with NaN or infinite values. "raise": their partition is not fitted (see ``on_failed``).
        "omit": they are omitted and counted, and predictions have missing values in their places. Masked cells of an
        array and nulls of a frame are NaN.
    on_failed : {"warn", "raise", "ignore"}, default "warn"
        What happens if partitions could not be read or fitted. "warn" issues a :class:`PartitionWarning`. "raise"
        raises a :class:`PartitionError` after the others were fitted. They are in ``partition_report_`` in any case.
    warn_excluded : bool, default True
        Whether to warn if partitions that have an estimate are excluded. The :class:`ExclusionWarning` is one sentence:
        how many, which ones, and the main reason. They are in ``partition_report_`` in any case.
    partition_timeout : float, str or None, default None
        Time after which reading and fitting a partition is given up. In seconds, or like "5 minutes". Results then
        depend on time. None: never.
    trusted_workers : list of str, mapping or None, default None
        Workers of the cluster that may aggregate. Every task that concerns more than one partition runs on these
        alone: sending out starts, choosing among them, the aggregation, the sums of passes. Partitions are read and
        fitted anywhere. Addresses or names of workers, or a resource that they offer and each task takes
        (``{"TRUSTED": 1}``); only a resource survives that a worker restarts at another address. Checked before
        anything is submitted. It protects against wrong results of other workers, not against hostile code on them:
        see SECURITY.md. None: every worker.
    keep_estimates : "auto" or bool, default "auto"
        Whether to keep the local estimates. "auto": in memory up to 256 MB, and in temporary files beyond that.
    split_every : int or None, default None
        Number of blocks that are combined at a time in the reduction. None is 8.
    n_partitions : int, default 1
        Number of partitions that data in memory are divided into. For one frame or array, not for a list; each
        partition holds consecutive rows.

    Attributes
    ----------
    mixture_ : Mixture
        The global mixture.
    weights_ : ndarray of shape (n_components,)
        Its weights.
    means_ : ndarray of shape (n_components, n_features)
        Its means.
    covariances_ : ndarray
        Its covariance matrices: of shape (n_components, n_features, n_features) for "full", (n_features, n_features)
        for "tied", (n_components, n_features) for "diag" and (n_components,) for "spherical".
    precisions_, precisions_cholesky_ : ndarray
        The inverses of the covariance matrices, and their Cholesky factors. Shapes are those of ``covariances_``.
    converged_ : bool
        Whether every kept local fit, the reduction and the refinement, if there was one, converged. With
        ``warm_start`` local fits that ``max_iter`` ended count as converged, if the fit of the same rows before had
        nearly the same total log-likelihood: ``tol`` says how nearly.
    n_iter_ : int
        Largest number of passes that a kept local fit made over its partition.
    lower_bound_ : float
        Mean log-likelihood in nats per row of the kept partitions, each under its own local estimate. After a
        refinement: under the mixture that its last accepted pass was made with.
    n_features_in_ : int
        Number of columns, without that of ``source``.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, as str objects. Exists only if the columns have names.
    n_partitions_ : int
        Number of partitions, or of sources with ``source``.
    support_ : ndarray of bool, shape (n_partitions,)
        Partitions that the mixture is made of: those that the filter kept, and after a refinement those whose rows it
        used.
    partition_report_ : pandas.DataFrame
        One row per partition, or per value of the column ``source`` in sorted order. Numbers are NaN for a partition
        without an estimate. Its columns:

        - ``partition``: index into ``X.partitions``, or number of the source.
        - ``source``: file path or row range, if known, or ``sensor='A7'``.
        - ``n_samples``: rows fitted, or rows read if no fit was possible.
        - ``outcome``: how the local fit ended, the value of an :class:`Outcome`.
        - ``n_iter``: passes of the local fit.
        - ``log_likelihood``: mean over the rows under the local estimate, in nats per row.
        - ``distance``: L2 distance to the center.
        - ``distance_ratio``: the same in radii.
        - ``expected_distance``: the distance that sampling alone explains (root mean square).
        - ``z_score``, ``p_value``: of the distance to the consensus of the estimates near the center, under the null
          law. The score of the only estimate is NaN.
        - ``group``: number of its group; exists only if the partitions form groups.
        - ``kept``: whether it is part of the mixture.
        - ``components_kept``: how many of its components are; exists only with ``method="componentwise"``.
        - ``reason``: why it, or which part of it, was excluded; otherwise empty.
        - ``n_omitted``: rows omitted for NaN or infinite values.
        - ``rows_outside``: share of its rows that belong nowhere: beyond the cut of every component of its own fit.
        - ``rows_outside_expected``: the same share in the majority of the kept partitions.
        - ``rows_outside_p_value``: probability that a consistent partition has at least as many.
        - ``start``: where the local fit started.
    aggregate_ : Aggregate
        The mixture with the decision of the filter. ``aggregate_.unrefined`` is the mixture before the refinement.
    estimates_ : sequence of LocalEstimate or None
        The local estimates, in the order of the partitions. Of a partition that a second look keeps it has the estimate
        that is reduced, one EM step from the global mixture. Its first fit is kept beside the list, so that
        :func:`aggregate` of the whole list gives the same verdicts. None with ``keep_estimates=False``.
    n_optimum_changes_ : int
        How often a better optimum was adopted (``check_optimum``).
    refinement_ : pandas.DataFrame
        One row per pass of the refinement, and none without it. Its columns: ``pass``; ``objective`` and
        ``mean_log_likelihood`` of the rows used, at the mixture that the pass was made with; ``gain`` of the objective,
        NaN if the rows were others before; ``accepted``, False for an extrapolation that was taken back;
        ``n_partitions`` and ``n_samples`` used; and the partitions ``excluded`` and ``joined`` in the pass.
    n_passes_ : int
        Number of passes of the refinement.

    See Also
    --------
    select_components : Choose the number of components and the structure of the covariances.
    dfmr : The same fit as one lazy graph.
    aggregate : The aggregation alone, from local estimates.

    References
    ----------
    .. [1] Zhang, Tan & Chen, "Byzantine-tolerant distributed learning of finite mixture models", JRSS-B, 2026,
       arXiv 2407.13980.

    Examples
    --------
    The first of twelve partitions is in another unit:

    >>> import dask.array as da, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-4, 1, (4000, 2)), rng.normal(4, 1, (8000, 2))])
    >>> rows = rng.permutation(rows)
    >>> rows[:1000] *= 1000
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(da.from_array(rows, chunks=(1000, 2)))
    >>> gm.means_.round().tolist()
    [[4.0, 4.0], [-4.0, -4.0]]
    >>> bool(gm.support_[0]), gm.explain().loc[0, "finding"]
    (False, 'all columns are 1000 times as large: another unit?')
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        tol: float | Literal["auto"] = "auto",
        reg_covar: float = 0.0,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: Literal["pilot"] | StartName | Mixture = "pilot",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: SeedLike = None,
        warm_start: bool = False,
        verbose: int = 0,
        source: Hashable = None,
        method: Method = "dfmr",
        rho: float | Literal["auto"] = "auto",
        false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
        machine_weights: Literal["rows", "equal"] = "rows",
        n_references: int | Literal["auto"] | None = "auto",
        refit_excluded: bool = True,
        check_optimum: int | Literal["auto"] | None = "auto",
        refine: int | Literal["auto"] = 0,
        penalty: float | Literal["auto", "paper"] = "auto",
        row_outliers: Literal["truncate"] | None = None,
        row_outlier_level: float = LEVEL,
        min_partition_rows: int | Literal["auto"] = "auto",
        nan_policy: Literal["raise", "omit"] = "raise",
        on_failed: Literal["warn", "raise", "ignore"] = "warn",
        warn_excluded: bool = True,
        partition_timeout: float | str | None = None,
        trusted_workers: Sequence[str] | Mapping[str, float] | str | None = None,
        keep_estimates: bool | Literal["auto"] = "auto",
        split_every: int | None = None,
        n_partitions: int = 1,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol, self.reg_covar, self.max_iter = tol, reg_covar, max_iter
        self.n_init, self.init_params = n_init, init_params
        self.weights_init, self.means_init = weights_init, means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start, self.verbose = warm_start, verbose
        self.source = source
        self.method = method
        self.rho = rho
        self.false_exclusion_rate = false_exclusion_rate
        self.machine_weights = machine_weights
        self.n_references = n_references
        self.refit_excluded = refit_excluded
        self.check_optimum = check_optimum
        self.refine = refine
        self.penalty = penalty
        self.row_outliers, self.row_outlier_level = row_outliers, row_outlier_level
        self.min_partition_rows = min_partition_rows
        self.nan_policy = nan_policy
        self.on_failed = on_failed
        self.warn_excluded = warn_excluded
        self.partition_timeout = partition_timeout
        self.trusted_workers = trusted_workers
        self.keep_estimates = keep_estimates
        self.split_every, self.n_partitions = split_every, n_partitions

    # -- what a terminal and a notebook show ----------------------------------------------------

    def __str__(self) -> str:
        return f"{self!r}\n{in_text(self)}" if hasattr(self, "mixture_") else repr(self)

    @property
    def _repr_html_(self) -> Callable[[], str]:
        """scikit-learn's diagram, and below it what was found; not there if scikit-learn is set to plain text."""
        diagram = super()._repr_html_
        found = in_html(self) if hasattr(self, "mixture_") else ""
        return lambda: diagram() + found

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**options)
        bundle["text/plain"] = str(self)
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_()
        return bundle

    # -- without a fit: files, mixtures and aggregates ----------------------------------------------

    def save(self, path: str | os.PathLike[str], estimates: bool = True) -> None:
        """Write the fitted estimator to one file, a zip of JSON and arrays (``docs/reference/file-format.md``).

        Nothing in the file is executable, and no row is in it. :meth:`load` gives back the same bits: parameters,
        predictions, reports and explanations. The file is also one of its :class:`Aggregate`.

        Parameters
        ----------
        path : path-like
            The file is written beside it and then renamed, so that there is never half a file.
        estimates : bool, default True
            Write the local estimates too, if they were kept: :meth:`update`, :meth:`without` and :meth:`explain` then
            work after :meth:`load`.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a parameter has a value that a file cannot hold: ``source``, if it is neither text nor number. A
            RandomState or Generator as ``random_state`` is loaded as None.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        save_model(path, self.get_params(deep=False), self._learned, estimates)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of :meth:`save`; the estimator is fitted.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        GaussianMixture

        Raises
        ------
        OSError
            If the file is not there, or may not be read.
        ValueError
            If it is no such file, has another version, or contradicts itself.
        """
        parameters, learned = load_model(path)
        return cls(**parameters)._become(learned)

    @classmethod
    def from_aggregate(cls, aggregate: Aggregate, **parameters: Any) -> Self:
        """A fitted estimator with the mixture and the estimates of an aggregate: of :func:`aggregate`, or of a file.

        Parameters
        ----------
        aggregate : Aggregate
            With its local estimates :meth:`update`, :meth:`without` and :meth:`explain` work too.
        **parameters
            Of :class:`GaussianMixture`. Those of the mixture, the filter and the local fits are those of the aggregate
            unless they are given here.

        Returns
        -------
        GaussianMixture
            Its report has zeros where the aggregate does not know the numbers of rows.

        Raises
        ------
        TypeError
            If it is no Aggregate, or a parameter is unknown.
        """
        if not isinstance(aggregate, Aggregate):
            raise TypeError(
                f"aggregate must be a dask_dfmr.Aggregate; got a {type(aggregate).__name__}. "
                "from_mixture takes a Mixture, and dask_dfmr.aggregate a list of local estimates."
            )
        estimator = cls(**parameters_of_aggregate(aggregate) | parameters)
        return estimator._become(learned_of_aggregate(aggregate))

    @classmethod
    def from_mixture(
        cls, mixture: Mixture, n_samples: int | None = None, **parameters: Any
    ) -> Self:
        """A fitted estimator with a given mixture, for lazy predictions of collections.

        Parameters
        ----------
        mixture : Mixture
            Components keep their order.
        n_samples : int or None, default None
            Number of rows that the mixture stands for. With it the mixture counts as the first estimate, and
            :meth:`update` adds others. None: it cannot be updated.
        **parameters
            Of :class:`GaussianMixture`; ``n_components`` and ``covariance_type`` are those of the mixture.

        Returns
        -------
        GaussianMixture
            With one partition, which is the mixture.

        Raises
        ------
        TypeError
            If it is no Mixture, or a parameter is unknown.
        ValueError
            If ``n_samples`` is no number of rows.
        """
        found = Aggregate.of(aggregate_of_mixture(mixture, n_samples))
        return cls.from_aggregate(found, **parameters)

    # -- fit --------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the mixture to X, on the scheduler that is active; eager.

        Parameters
        ----------
        X : dask DataFrame, dask Array, list, frame or array-like
            Of shape (n_samples, n_features). All columns are numeric, except the one that ``source`` names. Each
            element of a list is one partition: a Delayed or a Future of a frame or an array, or a frame or a
            two-dimensional array itself. Frames are those of pandas, Polars and Arrow. The chunks of a lazy
            xarray.DataArray are partitions. Columns in another order are matched by name. The
            names in a list of Delayed are known after the read only: partitions in another order than most are then
            read once more, if the estimates are kept in memory. Otherwise their outcome is "other columns".
        y : ignored

        Returns
        -------
        GaussianMixture
            The fitted estimator itself.

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is wrong. Nothing was read then, except a column of ``source``.
        AggregationError
            If no partition has a usable estimate. Its ``report`` gives the reason for each.
        PartitionError
            If a partition could not be fitted and ``on_failed="raise"``.
        RefinementError
            If no kept partition could be read again.
        ClusterError
            If the scheduler is gone, or workers die repeatedly during the aggregation.

        Warns
        -----
        ExclusionWarning
            If partitions that have an estimate are excluded (``warn_excluded``).
        PartitionWarning
            If partitions could not be read or fitted (``on_failed="warn"``), or fewer than half of them are usable.
        HeterogeneityWarning
            If partitions differ by several times what sampling explains, or form groups.
        FilterWarning
            If there is one partition, or too few to filter, Dask may have merged partitions of parquet files, one has
            a large share of the kept rows or claims implausibly many, or some are copies.
        OptimumWarning
            If the optimum that the partitions share is not the best one (``check_optimum``).
        ClusterWarning
            If no worker can compute what the fit waits for.
        ConvergenceWarning
            If a kept local fit, the reduction, or a refinement with ``refine="auto"`` did not converge.
        """
        is_continued = bool(self.warm_start) and hasattr(self, "mixture_")
        if is_continued:
            self._check_warm_start()
        plan = plan_of(self, X)
        if is_continued:
            plan = self._continued(plan)
        warn_of_partitions(plan)
        fit = run_fit(plan)
        self._learn(fit, self._learned.progress if is_continued else None)
        self._remember(X)
        self._report(fit)
        return self

    def fit_predict(
        self, X: Any, y: Any = None
    ) -> NDArray[np.intp] | dd.Series | da.Array | list[Delayed]:
        """Fit the mixture to X and label the rows of X; the labels are as lazy as X.

        Parameters
        ----------
        X : as for :meth:`fit`
        y : ignored

        Returns
        -------
        As for :meth:`predict`.
        """
        return self.fit(X).predict(X)

    def update(self, X: Any) -> Self:
        """Add new partitions: they alone are read and fitted, and all estimates are aggregated again.

        The new partitions are fitted from the present mixture. A refinement is not repeated, because the old rows are
        not available, and new partitions that are too small for an estimate are not judged.

        Parameters
        ----------
        X : as for :meth:`fit`
            The new rows, with the columns of the fit. Their partitions are numbered after the old ones.

        Returns
        -------
        GaussianMixture
            The estimator itself. Components keep their order. The report covers old and new partitions.

        Raises
        ------
        ValueError
            If the estimates were not kept (``keep_estimates=False``), or X has other columns.
        PartitionError
            If a partition could not be fitted and ``on_failed="raise"``. The estimator was updated nevertheless.
        ClusterError
            If the scheduler is gone, or workers die repeatedly.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        origin = origin_of(self.aggregate_)
        n_old = len(origin.estimates)
        plan = self._plan_from_mixture(X, n_old)
        with plan.scheduler.session():
            found = fit_partitions(plan)
        new = [replace(estimate, partition=n_old + k) for k, estimate in enumerate(found)]
        assert self.estimates_ is not None  # they are those of the origin
        estimates = [*self.estimates_, *new]
        with single_threaded_blas():
            aggregate = again(self.aggregate_, replace(origin, estimates=estimates, cache={}))
        fit = Fit.of(aggregate, report_rows([e.to_arrays() for e in estimates]), estimates)
        sample = self._learned.sample
        fit = replace(fit, n_optimum_changes=self.n_optimum_changes_, row_sample=sample)
        self._learn(fit)
        self._report(fit)
        return self

    def without(self, partitions: Sequence[int | str] | int | str) -> Self:
        """The estimator without some of its partitions, from the local estimates of the others alone.

        Parameters
        ----------
        partitions : int, str or sequence of these
            As for :meth:`Aggregate.without`: indices, or names of sources like ``"part-004.parquet"``.

        Returns
        -------
        GaussianMixture
            A new one; this one is not changed. Components and partitions keep their order. It is not refined, even if
            this one was. The warnings are in the ``notes`` of its ``aggregate_``, whose method ``warn`` issues them.

        Raises
        ------
        ValueError
            If an index or a name is wrong, no estimate would be left, or the estimates were not kept.
        AggregationError
            If no usable estimate is left.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        with single_threaded_blas():
            left = self.aggregate_.without(partitions)
        return type(self).from_aggregate(left, **self.get_params(deep=False))

    def explain(
        self, X: Any = None, which: Literal["unusual", "excluded", "all"] = "unusual"
    ) -> pd.DataFrame:
        """Explain why partitions were excluded, and which rows belong nowhere, in words and numbers.

        Parameters
        ----------
        X : as for :meth:`fit`, optional
            The data of the fit, in the same partitions. Without X the explanation uses the local estimates alone. With
            X the partitions in question are read again and refitted from the global mixture, because a fit of correct
            rows may have ended in another optimum. Some kept partitions are read too, to see how likely their rows
            would be under the mixture with the partition in question.
        which : {"unusual", "excluded", "all"}, default "unusual"
            Of the partitions that have an estimate: the excluded ones and those of which more rows belong nowhere than
            of others (``rows_outside_p_value`` below ``false_exclusion_rate``), the excluded ones alone, or all.

        Returns
        -------
        pandas.DataFrame
            One row per partition. Its columns:

            - ``partition``, ``source``, ``n_samples``: as in ``partition_report_``.
            - ``p_value``, ``sampling_ratio``: of the decision; the ratio is the distance to the consensus in units of
              what sampling explains.
            - ``kind``: the cause: "unit", "offset", "sign", "swapped columns", "column order", "weights",
              "component", "column", "optimum", "other optimum", "unexplained", "some rows" or "nothing".
            - ``finding``: the cause in words, with numbers.
            - ``worst_component``, ``worst_column``, ``z``: the parameter that deviates most, and by how many standard
              errors.
            - ``w1_with``: W1 distance between the global mixture and the mixture with this partition.
            - ``rows_outside``: as in ``partition_report_``.
            - ``outside``: if more rows belong nowhere than in the kept partitions, how many, in words; with X also
              which columns are out of range in them.
            - ``log_likelihood``: of its rows under the global mixture; only with X.
            - ``kept_log_likelihood``: of the rows of some kept partitions; only with X.
            - ``log_likelihood_with``: the change of that with this partition; only with X.

            Log-likelihoods are in nats per row.

        Raises
        ------
        ValueError
            If the estimates were not kept, or X has other partitions or columns than the data of the fit.
        ClusterError
            If the scheduler is gone, or workers die repeatedly.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        if X is None:
            with single_threaded_blas():
                return self.aggregate_.explain(which)
        origin_of(self.aggregate_)
        plan = self._plan_from_mixture(X)
        self._check_partitions(plan)
        with plan.scheduler.session():
            return explain_with_rows(self.aggregate_, plan, which)

    def report(
        self, path: str | os.PathLike[str], X: Any = None, *, title: str | None = None
    ) -> None:
        """Write a page about the fit: one HTML file that loads nothing from anywhere.

        It has the verdict in a sentence, warnings, explanations, the mixture, pictures, a table of the partitions
        that can be sorted and searched, parameters, versions and a digest of the mixture. Everything that comes from
        data is escaped. Without matplotlib (the extra ``plots``) it has no pictures.

        Parameters
        ----------
        path : str or path
            The file is written beside it and then renamed, so that there is never half a file.
        X : as for :meth:`GaussianMixture.fit`, optional
            Rows to count behind the ellipses of the mixture. None: no rows, and nothing is read.
        title : str, optional
            Heading of the page.

        Raises
        ------
        OSError
            If the file cannot be written.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        write_report(self, path, X, title)

    def _check_warm_start(self) -> None:
        last = (self.mixture_.n_components, self.mixture_.covariance_type)
        if last != (self.n_components, self.covariance_type):
            raise ValueError(
                f"warm_start=True starts from the last mixture, which has (n_components, covariance_type) = {last}; "
                f"got {(self.n_components, self.covariance_type)}. Set warm_start=False to start afresh."
            )

    def _continued(self, plan: FitPlan) -> FitPlan:
        """The plan of a fit that starts from the last mixture."""
        n_features = plan.partitions.n_features
        if n_features not in (None, self.mixture_.n_features):
            raise ValueError(
                f"warm_start=True starts from the last mixture, so X must have its {self.mixture_.n_features} columns; "
                f"got {n_features}. Set warm_start=False to start afresh."
            )
        return _starting_at(self.mixture_, plan)

    def _plan_from_mixture(self, X: Any, n_others: int = 0) -> FitPlan:
        """The plan of fits of X that start from the global mixture, and of which ``n_others`` are combined besides."""
        plan = plan_of(self, X)
        expected_names(plan.partitions, self.mixture_)  # raises if X has others
        n_features = plan.partitions.n_features
        if n_features not in (None, self.n_features_in_):
            raise ValueError(f"X must have {self.n_features_in_} columns; got {n_features}.")
        problem = plan.settings.problem
        if (problem.mixture_family, problem.n_components) != (
            self.mixture_.family,
            self.mixture_.n_components,
        ):
            raise ValueError(
                f"n_components and covariance_type must be those of the fit, {self.mixture_!r}; "
                f"got {(self.n_components, self.covariance_type)}. Set them back, or fit again."
            )
        problem = replace(problem, n_sources=len(plan.partitions) + n_others)
        return _starting_at(
            self.mixture_, replace(plan, settings=replace(plan.settings, problem=problem))
        )

    def _learn(self, fit: Fit, last: Progress | None = None) -> None:
        """Set the learned attributes to those of a fit."""
        report = explained_report(fit)
        self._become(learned_from(fit, report, self._notes_of(fit, report), self.tol, last))

    def _become(self, learned: Learned) -> Self:
        """Set the learned attributes: the mixture and its parameters, the decision, the report and the estimates."""
        self._learned: Learned = learned
        self.aggregate_: Aggregate = Aggregate.of(learned.aggregate)
        mixture = self.aggregate_.mixture
        self.mixture_: Mixture = mixture
        self.weights_, self.means_ = mixture.weights, mixture.means
        self.covariances_, self.precisions_ = mixture.covariances, mixture.precisions
        self.precisions_cholesky_ = mixture.precisions_cholesky
        self.n_features_in_ = mixture.n_features
        if mixture.feature_names is not None:
            self.feature_names_in_ = np.asarray(mixture.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.n_partitions_ = len(learned.support)
        self.support_ = learned.support
        self.partition_report_: pd.DataFrame = learned.report
        self.estimates_: Sequence[LocalEstimate] | None = learned.estimates
        self.n_optimum_changes_: int = learned.n_optimum_changes
        self.refinement_: pd.DataFrame = learned.passes
        self.n_passes_ = len(learned.passes)
        self.n_iter_, self.lower_bound_ = learned.n_iter, learned.lower_bound
        self.converged_ = learned.converged
        return self

    def _remember(self, X: Any) -> None:
        """Keep what X is recognized by, if some of its rows are not in the mixture."""
        if not self.support_.all():
            self._learned = replace(self._learned, token=token_of(X))

    def _notes_of(self, fit: Fit, report: pd.DataFrame) -> tuple[Note, ...]:
        """The warnings of the aggregate, and that of the exclusions of all passes."""
        notes = [n for n in fit.aggregate.notes if n.category is not ExclusionWarning]
        if fit.aggregate.method == "coat":  # it takes one estimate by definition
            return tuple(notes)
        note = describe_exclusions(
            report,
            fit.aggregate.decision,
            fit.reasons,
            by_source=self.source is not None,
            is_explained=fit.estimates is not None,
        )
        return tuple(notes if note is None else [*notes, note])

    def _report(self, fit: Fit) -> None:
        """Log and print the decision, issue the warnings, and raise an error about failed partitions if asked to."""
        report, decision = self.partition_report_, fit.aggregate.decision
        sentence = describe_decision(report, decision)
        say_result(int(self.verbose), sentence)
        warn_of(self.aggregate_.notes, self.warn_excluded)
        for note in fit.notes:
            logger.warning(note.message)
        warn_of(fit.notes)
        is_unconverged = decision.kept & have_outcome(report, Outcome.NOT_CONVERGED)
        if is_unconverged.any() and not self.converged_:
            warn(
                f"{is_unconverged.sum()} of {decision.kept.sum()} kept local fits did not converge in "
                f"{self.max_iter} passes; raise max_iter or loosen tol.",
                ConvergenceWarning,
            )
        texts = [describe_failures(report)] if have_failed(report).any() else []
        text = ". ".join(filter(None, (*texts, fit.unread)))
        if not text:
            return
        logger.warning(text)
        if self.on_failed == "raise":
            raise PartitionError(
                f"{text}. on_failed='warn' fits the others; partition_report_ has all the reasons."
            )
        if self.on_failed == "warn":
            remedy = "See partition_report_; on_failed='ignore' silences this."
            warn(f"{text}. {remedy}", PartitionWarning)

    # -- predictions ------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[np.intp] | dd.Series | da.Array | list[Delayed]:
        """Label each row of X with its most probable component.

        Parameters
        ----------
        X : as for :meth:`fit`
            Of shape (n_samples, n_features), with the columns of the fit. The column of ``source`` may be there, and is
            not used.

        Returns
        -------
        dask Series, dask Array, list of Delayed or ndarray of int, shape (n_samples,)
            Lazy if X is a Dask collection. A Series has X's index and divisions. An ndarray if X is in memory, and a
            list of these if X is a list. With ``nan_policy="omit"`` a row that a fit would omit has the label -1, and
            NA in a Series, whose type is then Int64.

        Raises
        ------
        TypeError
            If X is the name of a file, a lazy frame of another library, or one column; nothing is computed.
        ValueError
            If X has other columns than the fit; with ``nan_policy="raise"`` for a row with NaN or infinite values when
            it is computed.
        NotFittedError
            Before :meth:`fit`.
        """
        return self._map(X, "predict")

    def predict_proba(self, X: Any) -> Array | dd.DataFrame | da.Array | list[Delayed]:
        """Probability of each component, given the row.

        Parameters
        ----------
        X : as for :meth:`predict`

        Returns
        -------
        As for :meth:`predict`, but of shape (n_samples, n_components) and float.
            A dask DataFrame has the columns "component_0", "component_1" and so on. Omitted rows have NaN.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`.
        """
        return self._map(X, "predict_proba")

    def score_samples(self, X: Any) -> Array | dd.Series | da.Array | list[Delayed]:
        """Log-density of each row, in nats.

        Parameters
        ----------
        X : as for :meth:`predict`

        Returns
        -------
        As for :meth:`predict`, of float. Omitted rows have NaN.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`.
        """
        return self._map(X, "score_samples")

    def score(self, X: Any, y: Any = None, *, rows: Rows = "auto") -> float:
        """Mean log-likelihood of the rows of X that count, in nats per row; eager.

        Every row counts as it is, also one that a fit with ``row_outliers="truncate"`` cut off. A few gross rows can
        decide the mean.

        Parameters
        ----------
        X : as for :meth:`predict`
            With ``rows="kept"``, and if X is the data of the fit: as for :meth:`fit`.
        y : ignored
        rows : {"auto", "kept", "all"}, default "auto"
            Which rows count. "all": all of X. "kept": those of the partitions that the mixture is made of
            (``support_``); X must have the partitions of the fit, and no others are read. "auto": the kept ones if X is
            the data of the fit, otherwise all. Data are recognized by Dask's token: the same collection, or equal data
            in memory. A frame that was persisted since, and rows that were computed, are other data.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`; if X has no rows to score; and if a kept partition cannot be read. Rows that
            ``nan_policy="omit"`` omits do not count; their number is in the log.
        """
        found = self._scored(X, rows)
        return found.log_likelihood / found.n_samples

    def bic(self, X: Any, *, rows: Rows = "auto") -> float:
        """Bayesian information criterion on X, lower is better; eager.

        Every row counts as for :meth:`score`, so that a few gross rows can decide it. They do not decide how
        :func:`select_components` compares truncated fits.

        If only the rows of kept partitions count, it is their criterion, times the number of all rows that the fit read
        over the number of theirs. So fits that kept different partitions compare per row. They are not measured on the
        same rows, as by :func:`select_components`, which reads the data twice for all candidates.

        Parameters
        ----------
        X, rows : as for :meth:`score`

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`score`.
        """
        found = self._scored(X, rows)
        penalty = self.mixture_.n_parameters * float(np.log(found.n_samples))
        return found.factor * (penalty - 2 * found.log_likelihood)

    def aic(self, X: Any, *, rows: Rows = "auto") -> float:
        """Akaike information criterion on X, lower is better; eager.

        Every row counts as for :meth:`bic`.

        If only the rows of kept partitions count, it is scaled as :meth:`bic` is.

        Parameters
        ----------
        X, rows : as for :meth:`score`

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`score`.
        """
        found = self._scored(X, rows)
        return found.factor * 2 * (self.mixture_.n_parameters - found.log_likelihood)

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.intp]]:
        """Draw rows from the mixture, with ``random_state``.

        Parameters
        ----------
        n_samples : int, default 1

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        y : ndarray of int, shape (n_samples,)
            The component of each row.

        Raises
        ------
        ValueError
            If ``n_samples`` is less than 1.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        return self.mixture_.sample(n_samples, self.random_state)

    def _scored(self, X: Any, rows: Rows) -> _Scored:
        """The log-likelihood of the rows of X that count."""
        check_is_fitted(self, "mixture_")
        checks.one_of("rows", rows, ("auto", "kept", "all"))
        if rows == "auto":
            token = self._learned.token
            rows = "kept" if token is not None and token == token_of(X) else "all"
        if rows == "all":
            call = self._row_method("score_samples")
            parts = values_by_part(self, self.mixture_, call, X, self.source)
            return _Scored(*total_of_scores(parts))
        # A score draws nothing, and shows no progress.
        own = GaussianMixture(**self.get_params(deep=False) | {"random_state": 0, "verbose": 0})
        plan = _starting_at(self.mixture_, plan_of(own, X))
        self._check_partitions(plan)
        kept = np.flatnonzero(self.support_).tolist()
        total, n_samples = log_likelihood(plan, self.mixture_, kept)
        logger.info("scored the rows of %d of %d partitions", len(kept), self.n_partitions_)
        n_read = float(self.partition_report_["n_samples"].sum())
        return _Scored(total, n_samples, n_read / self.partition_report_["n_samples"][kept].sum())

    def _check_partitions(self, plan: FitPlan) -> None:
        if len(plan.partitions) != self.n_partitions_:
            raise ValueError(
                f"X must be the data of the fit, in {self.n_partitions_} partitions; "
                f"got {len(plan.partitions)}."
            )

    def _map(self, X: Any, method: str) -> Any:
        """A method of the mixture on all rows of X."""
        check_is_fitted(self, "mixture_")
        return map_rows(self, self.mixture_, self._row_method(method), X, self.source)

    def _row_method(self, name: str) -> RowMethod:
        return RowMethod(name, is_omitting=self.nan_policy == "omit", no_label=NO_LABEL)


def _starting_at(mixture: Mixture, plan: FitPlan) -> FitPlan:
    """The plan with this mixture as the start of every local fit, and with the order of its components."""
    names = expected_names(plan.partitions, mixture)
    settings = replace(plan.settings, start=mixture, given=None, order=mixture, feature_names=names)
    return replace(plan, settings=settings)


def as_fitted(parameters: Mapping[str, Any], fit: Fit, X: Any) -> GaussianMixture:
    """An estimator with these parameters and what it would have learned from this fit of X."""
    estimator = GaussianMixture(**parameters)
    estimator._learn(fit)
    estimator._remember(X)
    return estimator


def learned_by(estimator: GaussianMixture) -> Learned:
    """What a fitted estimator has learned.

    Raises
    ------
    NotFittedError
        Before :meth:`GaussianMixture.fit`.
    """
    check_is_fitted(estimator, "mixture_")
    return estimator._learned
