"""``GaussianMixture``: the method behind scikit-learn's interface. No arithmetic happens here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.delayed import Delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from dask_dfmr import checks
from dask_dfmr.aggregation.options import FALSE_EXCLUSION_RATE
from dask_dfmr.aggregation.rerun import again, origin_of
from dask_dfmr.aggregation.result import AggregationResult, Note, Origin
from dask_dfmr.exceptions import AggregationError, PartitionError, PartitionWarning
from dask_dfmr.explanation.report import (
    describe_failures,
    describe_verdict,
    failures,
    partition_report,
)
from dask_dfmr.explanation.table import short_findings
from dask_dfmr.local.estimate import LocalEstimate, Outcome
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.check_optimum import SettledFit, check_parameter, settle_optimum
from dask_dfmr.on_dask.explain_rows import explain_with_rows, fit_partitions, numbered_from
from dask_dfmr.on_dask.fit import FitResult, Pipeline, run
from dask_dfmr.on_dask.partitions import check_dtypes, check_kind, rows_of
from dask_dfmr.on_dask.refine import FollowUp, follow_up
from dask_dfmr.on_dask.refit import look_again
from dask_dfmr.on_dask.scheduling.threads import single_threaded_blas
from dask_dfmr.on_dask.scheduling.trusted_workers import trusting
from dask_dfmr.on_dask.tasks import report_rows
from dask_dfmr.parameters import build_pipeline
from dask_dfmr.refinement.em_passes import RefinementOptions
from dask_dfmr.results import Aggregate
from dask_dfmr.seeds import SeedLike

logger = logging.getLogger("dask_dfmr")

_OWN_PARAMETERS = (
    *("on_failed", "keep_estimates", "warm_start", "verbose"),
    *("refit_excluded", "check_optimum", "refine"),
)
"""Parameters of the estimator that do not decide what the graph computes."""

MOST_EXPLAINED = 20
"""So many partitions left out are explained in the report of a fit; :meth:`GaussianMixture.explain` explains all."""


class GaussianMixture(DensityMixin, BaseEstimator):
    """Gaussian mixture of a Dask collection that bad partitions do not spoil.

    Every partition is a machine: it fits a mixture to its own rows. Local estimates that lie far,
    in L2 distance, from where the majority of them sits are left out; the others are reduced to one
    global mixture (distance filtered mixture reduction, DFMR). The data are read once, plus at most
    16 partitions a second time for the start.

    Protects against bad *partitions*: broken sensor, wrong unit, truncated file, attacker. A few
    bad rows in every partition pass through, as in any Gaussian mixture.

    Parameters
    ----------
    n_components : int, default 1
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
        As in scikit-learn.
    tol : "auto" or float, default "auto"
        When a local fit stops. "auto": when the log-likelihood that the partition's optimum still
        has to offer is predicted to be below 0.005 p / n_partitions, p the number of free
        parameters. A float has scikit-learn's meaning: the change of the mean log-likelihood per
        row.
    reg_covar : float, default 0.0
        Added to the diagonal of every covariance, as in scikit-learn; the penalty makes it
        unnecessary.
    max_iter : int, default 1000
        Passes of a local fit over its partition (in memory).
    n_init : int, default 1
        Starts of a local fit, where it makes its own; the best one wins.
    init_params : {"pilot", "kmeans", "k-means++", "random", "random_from_data"}, default "pilot"
        "pilot": a few partitions are fitted from many starts, and every partition starts from the
        one of at most four candidates that its rows like best. The others are scikit-learn's, made
        on each partition by itself: safe only where the components are well apart.
    weights_init, means_init, precisions_init : array-like, optional
        As in scikit-learn. All three are a complete start; means alone attract the rows nearest to
        them.
    random_state : int, RandomState, Generator or None, default None
        Same data, same partitions, same seed: same bits on every scheduler.
    warm_start : bool, default False
        Start from the mixture of the previous fit.
    verbose : int, default 0
        1 shows Dask's progress bar and what was left out.
    source : column name or None, default None
        What is trusted or left out as a whole. None: every partition. A column (sensor, site,
        file, day): the rows of one value of it, wherever they lie; a bad sensor whose rows lie in
        every partition can be left out only so. The column is no feature, may be of any type that
        can be compared for equality, and is read first by itself; rows without a value are a machine
        of their own, and so is a partition that cannot be read. See the user guide for the cost.
    method : {"dfmr", "mr", "coat", "hardened", "componentwise"}, default "dfmr"
        The filtered reduction; the reduction of all partitions; the estimate in the middle alone;
        the filtered reduction with further tests against estimates that collude, for up to
        2,000 partitions; or filter and reduction component by component with the mixing weights
        profiled out, for sorted or stratified rows and for partitions of which only some components
        are inconsistent: it does not protect against wrong weights. See :func:`aggregate`.
    rho : "auto" or float, default "auto"
        "auto": partitions are left out whose distance sampling explains with a probability below
        ``false_exclusion_rate``, given their rows and what the majority shows. A float: partitions
        within ``rho`` times the radius are kept, the smallest one, round the estimate in the
        middle, that holds more than half of them. The paper's is 1.3. It is not a significance
        level: 0 to 35 % of clean partitions lie outside, most where the mixture has few parameters.
    false_exclusion_rate : float, default 0.001
        Share of honest partitions that ``rho="auto"`` leaves out.
    machine_weights : {"rows", "equal"}, default "rows"
        Weight of a kept partition in the reduction: its rows, at most ten times those of the median
        partition, or one for all.
    n_references : "auto", int or None, default "auto"
        How many partitions, drawn at random, all others are measured against to find candidates for
        the center; everything after that is exact. None measures all pairs. "auto" measures all
        pairs up to 2,000 partitions, and takes 512 references beyond. See :func:`aggregate`.
    refit_excluded : bool, default True
        Partitions that ``rho="auto"`` left out, at most a tenth of all and those least far out, are read
        once more and fitted from the global mixture: a fit of good rows that ended in a wrong optimum looks
        like one of bad rows, and is replaced. Needs the estimates in memory (``keep_estimates``), and rows
        that need not be regrouped once more (``source``).
    check_optimum : int, "auto" or None, default "auto"
        Partitions that share a start share its optimum, and agree whether it is the best one or not. So up to 18 of
        the kept partitions (three, where they have ten rows per free parameter) are read once more and fitted
        from fresh starts; an :class:`OptimumWarning` tells of a better optimum. It is adopted, up to ``check_optimum``
        times, by fitting all partitions again from it: one more read of everything each time. "auto": 0, and only
        where the start was given (``warm_start`` and complete ``*_init`` parameters too), or where pilots have fewer
        than ten rows per free parameter; not where ``source`` names a column whose values lie in several
        partitions, since a few of them cannot be read alone. None: nothing is checked.
    refine : int or "auto", default 0
        Passes of EM over all rows of the kept partitions after the aggregation, which take the mixture
        to the one that a fit to all those rows together would give; "auto": until the gain that remains is
        negligible, 100 at most. Worth it where partitions have few rows. Every pass reads the kept partitions
        again: persist the data where memory allows. In every pass partitions whose rows contradict the others' by
        more than sampling are left out, one honest partition in a thousand by mistake, and partitions with too few
        rows for an estimate join if their rows do not.
    penalty : "auto" or float, default "auto"
        Of the local fits: "auto" is n ** -0.5 with the partition's n, 0 plain maximum likelihood.
    min_partition_rows : "auto" or int, default "auto"
        Partitions with fewer rows are not judged and take no part; "auto" is the number of free
        parameters.
    nan_policy : {"raise", "omit"}, default "raise"
        A partition with NaN or infinity cannot be fitted (see ``on_failed``), or such rows are left
        out and counted.
    on_failed : {"warn", "raise", "ignore"}, default "warn"
        What to do about partitions that could not be read or fitted. They are in
        ``partition_report_`` in any case.
    partition_timeout : float or str, optional
        Seconds (or "5 minutes") after which reading and fitting one partition is given up. It makes
        results depend on time.
    trusted_workers : list of str, mapping or None, default None
        On a cluster, the only workers that may do what speaks for all partitions: broadcast starts, choose among them,
        aggregate, sum passes. Addresses or names of workers, or a resource that they offer and a task takes
        (``{"TRUSTED": 1}``), which is the way that survives their restart at another address. Partitions
        are read and fitted anywhere. Checked before anything is submitted. It protects against wrong results of
        other workers, not against hostile code on them: see SECURITY.md.
    keep_estimates : "auto" or bool, default "auto"
        Keep the local estimates in ``estimates_``: "auto" in memory up to 256 MB, beyond that in
        temporary files.
    split_every : int, optional
        How many blocks are combined at a time in the trees of the reduction; 8 by default.
    n_partitions : int, default 1
        Into how many consecutive partitions a pandas DataFrame or NumPy array is cut.

    Attributes
    ----------
    mixture_ : Mixture
        The global mixture.
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        Its parameters, in scikit-learn's shapes.
    converged_ : bool
        Whether every kept local fit, the reduction and the refinement, if there was one, converged.
    n_iter_ : int
        Most passes that a kept local fit took over its partition.
    lower_bound_ : float
        Mean log-likelihood per row of the kept partitions, each under its own local estimate; after a
        refinement, under the mixture that its last accepted pass was made with.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if the columns have names.
    aggregate_ : Aggregate
        The mixture with the filter's decision; ``aggregate_.unrefined`` is the mixture before its refinement.
    refinement_ : pandas.DataFrame
        One row per pass over the data: ``pass``, ``objective`` and ``mean_log_likelihood`` of the rows used at
        the mixture the pass was made with, ``gain`` of the objective (NaN where the rows were others before),
        ``accepted`` (an extrapolation may be taken back), ``n_partitions`` and ``n_samples`` used, and the
        partitions ``excluded`` and ``joined`` in it. Empty without refinement.
    n_passes_ : int
        Passes over the data that the refinement made.
    n_optimum_changes_ : int
        How often a better optimum was adopted.
    n_partitions_ : int
    support_ : ndarray of bool, shape (n_partitions_,)
        Partitions that went into the mixture: those that the filter kept, and where there was a refinement, those
        whose rows it used.
    partition_report_ : pandas.DataFrame
        One row per partition, or per value of the column ``source`` in sorted order:
        ``partition`` (index into ``X.partitions``, or the number of the value), ``source`` (file or
        row range, where known, or ``sensor='A7'``), ``n_samples``, ``outcome``, ``n_iter``,
        ``log_likelihood`` (mean per row), ``distance`` (L2, to the center), ``distance_ratio`` (in
        radii), ``expected_distance`` (that sampling explains), ``z_score`` and ``p_value`` (of the
        distance to the consensus of those near the center), ``kept``, ``reason``, ``n_omitted``
        (rows left out), ``start``. With ``method="componentwise"`` also ``components_kept``, how
        many components went into the mixture; ``reason`` says which did not.
    estimates_ : sequence of LocalEstimate or None
        The local estimates, in the order of the partitions.

    References
    ----------
    Zhang, Tan & Chen, Byzantine-tolerant distributed learning of finite mixture models, JRSS-B
    2026, arXiv 2407.13980.

    Examples
    --------
    >>> import dask, dask.array as da, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-4, 1, (4000, 2)), rng.normal(4, 1, (8000, 2))])
    >>> rows = rng.permutation(rows)
    >>> rows[:1000] *= 1000                                  # the first partition is in another unit
    >>> gm = GaussianMixture(2, random_state=0).fit(da.from_array(rows, chunks=(1000, 2)))
    >>> gm.means_.round().tolist()                           # and does not matter
    [[4.0, 4.0], [-4.0, -4.0]]
    >>> bool(gm.support_[0]), gm.explain().loc[0, "finding"]
    (False, 'all columns are 1000 times as large: another unit?')
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float | Literal["auto"] = "auto",
        reg_covar: float = 0.0,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str = "pilot",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: SeedLike = None,
        warm_start: bool = False,
        verbose: int = 0,
        source: Hashable = None,
        method: str = "dfmr",
        rho: float | Literal["auto"] = "auto",
        false_exclusion_rate: float = FALSE_EXCLUSION_RATE,
        machine_weights: str = "rows",
        n_references: int | Literal["auto"] | None = "auto",
        refit_excluded: bool = True,
        check_optimum: int | Literal["auto"] | None = "auto",
        refine: int | Literal["auto"] = 0,
        penalty: float | Literal["auto"] = "auto",
        min_partition_rows: int | Literal["auto"] = "auto",
        nan_policy: str = "raise",
        on_failed: str = "warn",
        partition_timeout: float | str | None = None,
        trusted_workers: Sequence[str] | Mapping[str, float] | str | None = None,
        keep_estimates: bool | Literal["auto"] = "auto",
        split_every: int | None = None,
        n_partitions: int = 1,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
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
        self.min_partition_rows = min_partition_rows
        self.nan_policy = nan_policy
        self.on_failed = on_failed
        self.partition_timeout = partition_timeout
        self.trusted_workers = trusted_workers
        self.keep_estimates = keep_estimates
        self.split_every = split_every
        self.n_partitions = n_partitions

    # -- fit --------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on whatever scheduler is active; eager.

        Parameters
        ----------
        X : dask DataFrame, dask Array, list of Delayed, pandas DataFrame or array-like of shape
        (n_samples, n_features)
            Numeric columns only, besides the one that ``source`` names. A Delayed gives one
            partition: a DataFrame or an array.
        y : ignored

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is wrong: before anything is read, except a column of ``source``.
        AggregationError
            If no partition has a usable estimate; its ``report`` says why for each.
        PartitionError
            If a partition could not be fitted and ``on_failed="raise"``.
        RefinementError
            If no kept partition could be read again.
        ClusterError
            If the scheduler is gone, or workers keep dying under the aggregation.

        Warns
        -----
        PartitionWarning
            If partitions could not be read or fitted (``on_failed="warn"``), or fewer than half are
            usable.
        HeterogeneityWarning
            If partitions differ by several times what sampling explains, or fall into groups.
        FilterWarning
            If there are too few partitions to filter, or one holds most of the kept rows.
        OptimumWarning
            If the partitions share an optimum that is not the best one (``check_optimum``).
        ClusterWarning
            If a cluster has nobody to compute what is waited for.
        ConvergenceWarning
            If a kept local fit, the reduction, or a refinement with ``refine="auto"`` did not converge.
        """
        checks.one_of("on_failed", self.on_failed, ("warn", "raise", "ignore"))
        checks.one_of("refit_excluded", self.refit_excluded, (True, False))
        checks.one_of("keep_estimates", self.keep_estimates, ("auto", True, False))
        parameters = self._parameters()
        if self.warm_start and hasattr(self, "mixture_"):
            self._check_warm_start()
            parameters |= {
                "init_params": self.mixture_,
                "weights_init": None,
                "means_init": None,
                "precisions_init": None,
            }
        check_parameter(self.check_optimum)
        refinement = self._refinement_options()
        pipeline = build_pipeline(X, **parameters, n_starts=1, block_size=None)
        with trusting(pipeline.trusted):
            settled, followed = self._compute(pipeline, refinement)
        self._learn(settled.result, followed)
        self.n_optimum_changes_ = settled.n_optimum_changes
        self._tell(followed.aggregate, settled.notes)
        return self

    def _compute(
        self, pipeline: Pipeline, refinement: RefinementOptions
    ) -> tuple[SettledFit, FollowUp]:
        """The fit, and what it comes back to the data for."""
        try:
            result = run(pipeline, self.keep_estimates, self.verbose)
        except AggregationError as error:
            error.report = partition_report(error.report or [], None)
            raise
        settled = settle_optimum(
            pipeline, result, self.check_optimum, self.keep_estimates, self.verbose
        )
        result = settled.result
        if self.refit_excluded:
            result = look_again(pipeline, result, self.verbose)
        if result.estimates is not None:
            settings = pipeline.settings
            problem, options = settings.problem, pipeline.options
            origin = Origin(result.estimates, options, settings.seed, problem, problem.family)
            result = replace(result, aggregate=replace(result.aggregate, origin=origin))
        followed = follow_up(pipeline, result, refinement, self.verbose)
        return replace(settled, result=result), followed

    def _refinement_options(self) -> RefinementOptions:
        options = RefinementOptions(self.refine, self.false_exclusion_rate)
        if options.most_passes and self.method == "coat":
            raise ValueError(
                f"refine must be 0 with method='coat', which takes one estimate as it is; got {self.refine!r}."
            )
        if options.most_passes and self.method == "componentwise":
            raise ValueError(
                "refine must be 0 with method='componentwise', which keeps consistent components of partitions whose "
                f"other rows are inconsistent; got {self.refine!r}."
            )
        return options

    def _parameters(self) -> dict[str, Any]:
        """Those that decide what the graph computes."""
        parameters = self.get_params(deep=False)
        return {name: v for name, v in parameters.items() if name not in _OWN_PARAMETERS}

    def _pipeline_from_mixture(self, X: Any) -> Pipeline:
        """Over partitions that are fitted from the global mixture."""
        own: dict[str, Any] = dict.fromkeys(("weights_init", "means_init", "precisions_init"))
        pipeline = build_pipeline(X, **self._parameters() | own, n_starts=1, block_size=None)
        partitions, settings = pipeline.partitions, pipeline.settings
        if partitions.feature_names is not None:
            self._check_names(partitions.feature_names)
        elif partitions.n_features not in (None, self.n_features_in_):
            raise ValueError(
                f"X must have {self.n_features_in_} columns; got {partitions.n_features}."
            )
        mine = (settings.problem.family, settings.problem.n_components)
        if mine != (self.mixture_.family, self.mixture_.n_components):
            raise ValueError(
                f"n_components and covariance_type must be those of the fit, {self.mixture_!r}; "
                f"got {(self.n_components, self.covariance_type)}. Set them back, or fit again."
            )
        return replace(pipeline, settings=replace(settings, start=self.mixture_, given=None))

    def update(self, X: Any) -> Self:
        """Add new partitions: only they are read and fitted, from the mixture as it is, and all are aggregated again.

        Parameters
        ----------
        X : as for :meth:`fit`
            The new rows, with the columns of the fit. Their partitions are numbered on.

        Returns
        -------
        GaussianMixture
            Itself. Components keep their order; the report covers old and new partitions. What is learned is that of
            the aggregation: a refinement is not repeated, since the old rows are not at hand, and small partitions
            are not judged.

        Raises
        ------
        ValueError
            If the estimates were not kept (``keep_estimates=False``), or X has other columns.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        origin = origin_of(self.aggregate_)
        pipeline = self._pipeline_from_mixture(X)
        n_old = len(origin.estimates)
        n_sources = n_old + len(pipeline.partitions)
        problem = replace(pipeline.settings.problem, n_sources=n_sources)
        pipeline = replace(pipeline, settings=replace(pipeline.settings, problem=problem))
        with trusting(pipeline.trusted):
            found = numbered_from(fit_partitions(pipeline, verbose=self.verbose), n_old)
        assert self.estimates_ is not None  # they are the origin's
        estimates = [*self.estimates_, *found]
        origin = replace(origin, estimates=estimates, cache={})
        with single_threaded_blas():
            aggregate = again(self.aggregate_, origin)
        rows = report_rows([e.to_arrays() for e in estimates])
        followed = FollowUp(aggregate, aggregate.decision.kept)
        self._learn(FitResult(aggregate, rows, estimates), followed)
        self._tell(aggregate)
        return self

    def explain(
        self, X: Any = None, which: Literal["excluded", "all"] = "excluded"
    ) -> pd.DataFrame:
        """Why partitions were left out, in words and numbers.

        Parameters
        ----------
        X : as for :meth:`fit`, optional
            The data of the fit, in the same partitions. Without it only the local estimates speak. With it the
            partitions in question are read again, refitted from the global mixture (some fits end in another optimum
            of rows that are good), and some kept ones read to see what the mixture would be worth to them.
        which : {"excluded", "all"}, default "left out"
            Partitions that have an estimate and were left out, or all that have one.

        Returns
        -------
        pandas.DataFrame
            One row per partition: ``partition``, ``source``, ``n_samples``, ``p_value`` and
            ``sampling_ratio`` (of the decision), ``kind`` ("unit", "offset", "sign",
            "swapped columns", "column order", "weights", "component", "column", "optimum",
            "other optimum", "unexplained", "nothing"), ``finding`` (the same in words),
            ``worst_component``, ``worst_column`` and ``z`` (the number that is farthest off, in
            standard errors), and ``w1_with``, the W1 distance between the global mixture and what
            it would be with this partition. With X also ``log_likelihood`` of its rows under the
            global mixture, ``kept_log_likelihood`` of some kept partitions' rows, and by how much
            that would change with this partition, ``log_likelihood_with``; all
            in nats per row.

        Raises
        ------
        ValueError
            If the estimates were not kept, or X has other partitions or columns than the fit.
        NotFittedError
            Before :meth:`fit`.
        """
        check_is_fitted(self, "mixture_")
        if X is None:
            with single_threaded_blas():
                return self.aggregate_.explain(which)
        origin_of(self.aggregate_)
        pipeline = self._pipeline_from_mixture(X)
        if len(pipeline.partitions) != self.n_partitions_:
            raise ValueError(
                f"X must be what was fitted, in {self.n_partitions_} partitions; got {len(pipeline.partitions)}."
            )
        with trusting(pipeline.trusted):
            return explain_with_rows(self.aggregate_, pipeline, which, self.verbose)

    def _check_warm_start(self) -> None:
        last = (self.mixture_.n_components, self.mixture_.covariance_type)
        if last != (self.n_components, self.covariance_type):
            raise ValueError(
                f"warm_start=True starts from the last mixture, which has (n_components, covariance_type) = {last}; "
                f"got {(self.n_components, self.covariance_type)}. Set warm_start=False to start afresh."
            )

    def _learn(self, result: FitResult, followed: FollowUp) -> None:
        decision, mixture = result.aggregate.decision, followed.aggregate.mixture
        report = self._explained(followed.apply_to(partition_report(result.rows, decision)), result)
        kept = report[decision.kept & followed.kept]
        self.aggregate_ = Aggregate.of(followed.aggregate)
        self.mixture_: Mixture = mixture
        self.weights_, self.means_, self.covariances_ = (
            mixture.weights,
            mixture.means,
            mixture.covariances,
        )
        self.precisions_cholesky_, self.precisions_ = (
            mixture.precisions_cholesky,
            mixture.precisions,
        )
        self.n_features_in_ = mixture.n_features
        if mixture.feature_names is not None:
            self.feature_names_in_ = np.asarray(mixture.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.n_partitions_ = decision.n_estimates
        self.support_ = followed.kept
        self.refinement_: pd.DataFrame = followed.passes
        self.n_passes_ = len(followed.passes)
        self.partition_report_: pd.DataFrame = report
        self.estimates_: Sequence[LocalEstimate] | None = result.estimates
        refinement = followed.refinement
        self.converged_ = bool(
            result.aggregate.converged
            and (kept["outcome"] == Outcome.FITTED.value).all()
            and (refinement is None or refinement.converged)
        )
        self.n_iter_ = int(kept["n_iter"].max())
        self.lower_bound_ = float(np.average(kept["log_likelihood"], weights=kept["n_samples"]))
        if refinement is not None:
            self.lower_bound_ = refinement.mean_log_likelihood

    @staticmethod
    def _explained(report: pd.DataFrame, result: FitResult) -> pd.DataFrame:
        """The report with what is unlike the others about partitions left out, where that takes little."""
        # Estimates on disk are many.
        if result.aggregate.decision.components is not None or not isinstance(
            result.estimates, list
        ):
            return report
        said = report["reason"].tolist()
        with single_threaded_blas():
            found = short_findings(result.aggregate, MOST_EXPLAINED)
        for i, text in found.items():
            said[i] = f"{said[i]}: {text}"
        return report.assign(reason=said)

    def _tell(self, aggregate: AggregationResult, notes: Sequence[Note] = ()) -> None:
        """Log the verdict; warn or raise where the user asked for it."""
        report = self.partition_report_
        verdict = describe_verdict(report, aggregate.decision)
        logger.info(verdict)
        if self.verbose:
            print(verdict)
        Aggregate.of(aggregate).warn(stacklevel=3)
        for note in notes:
            logger.warning(note.message)
            warnings.warn(note.message, note.category, stacklevel=3)
        unconverged = report[
            aggregate.decision.kept & (report["outcome"] == Outcome.NOT_CONVERGED.value)
        ]
        if len(unconverged):
            text = (
                f"{len(unconverged)} of {aggregate.decision.kept.sum()} kept local fits "
                f"did not converge in {self.max_iter} passes"
            )
            warnings.warn(
                f"{text}; raise max_iter or loosen tol.", ConvergenceWarning, stacklevel=3
            )
        if len(failures(report)):
            text = describe_failures(report)
            logger.warning(text)
            if self.on_failed == "raise":
                raise PartitionError(
                    f"{text}. on_failed='warn' fits the others; partition_report_ has all the reasons."
                )
            if self.on_failed == "warn":
                warnings.warn(
                    f"{text}. See partition_report_; on_failed='ignore' silences this.",
                    PartitionWarning,
                    stacklevel=3,
                )

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Fit, then label the rows of X; the labels are as lazy as X."""
        return self.fit(X).predict(X)

    # -- use --------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Most probable component of each row.

        Parameters
        ----------
        X : dask DataFrame, dask Array, list of Delayed, pandas DataFrame or array-like

        Returns
        -------
        Lazy for Dask collections: a Series with X's index and divisions, an Array, a list of
        Delayed. An ndarray for data in memory.
        """
        return self._map(X, "predict")

    def predict_proba(self, X: Any) -> Any:
        """Probability of each component given the row; like :meth:`predict`, with columns 0 to n_components - 1."""
        return self._map(X, "predict_proba")

    def score_samples(self, X: Any) -> Any:
        """Log-density of each row; like :meth:`predict`."""
        return self._map(X, "score_samples")

    def _map(self, X: Any, method: str) -> Any:
        check_is_fitted(self, "mixture_")
        X = self._without_machines(X)
        if isinstance(X, dd.DataFrame):
            self._check_names(check_dtypes(X.dtypes))
            meta = _apply_to_frame(X._meta_nonempty.iloc[:0], self.mixture_, method)
            # One Delayed for all partitions: the model travels once, not with every task.
            return X.map_partitions(_apply_to_frame, dask.delayed(self.mixture_), method, meta=meta)
        if isinstance(X, da.Array):
            return self._map_array(X, method)
        if isinstance(X, Delayed):
            return self._map([X], method)[0]
        if isinstance(X, (list, tuple)) and len(X) and all(isinstance(part, Delayed) for part in X):
            model = dask.delayed(self.mixture_)
            return [dask.delayed(_apply)(part, model, method) for part in X]
        rows = validate_data(self, X, reset=False, dtype="numeric", ensure_all_finite=False)
        return _apply(rows, self.mixture_, method)

    def _without_machines(self, X: Any) -> Any:
        """X without the column that says where a row comes from, if X has it and it is no feature."""
        is_column = self.source is not None
        if not is_column or not isinstance(X, (dd.DataFrame, pd.DataFrame)):
            return X
        is_feature = str(self.source) in (self.mixture_.feature_names or ())
        return X if is_feature or self.source not in X.columns else X.drop(columns=[self.source])

    def _map_array(self, X: Any, method: str) -> Any:
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X must have the shape (n_samples, {self.n_features_in_}); got {X.shape}."
            )
        check_kind("X", X.dtype)
        X = X.rechunk({1: -1}) if X.numblocks[1] > 1 else X
        model, k = dask.delayed(self.mixture_), self.mixture_.n_components
        if method == "predict_proba":
            return X.map_blocks(
                _apply, model, method, meta=np.empty((0, 0)), chunks=(X.chunks[0], (k,))
            )
        meta = np.empty(0, dtype=np.intp if method == "predict" else np.float64)
        return X.map_blocks(_apply, model, method, meta=meta, drop_axis=1)

    def _check_names(self, names: tuple[str, ...]) -> None:
        expected = self.mixture_.feature_names
        if expected is None:
            if len(names) != self.n_features_in_:
                raise ValueError(f"X must have {self.n_features_in_} columns; got {len(names)}.")
            return
        if names != expected:
            missing, extra = (
                [c for c in expected if c not in names],
                [c for c in names if c not in expected],
            )
            detail = (
                f"missing {missing}, unexpected {extra}"
                if missing or extra
                else "the order differs"
            )
            raise ValueError(
                f"X must have the columns of fit, {list(expected)}; {detail}. Select them: X[{list(expected)}]."
            )

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood of the rows of X, in nats per row; eager."""
        total, n_samples = self._total(X)
        return total / n_samples

    def bic(self, X: Any) -> float:
        """Bayesian information criterion on X; the lower the better. Eager."""
        total, n_samples = self._total(X)
        return -2 * total + self.mixture_.n_parameters * float(np.log(n_samples))

    def aic(self, X: Any) -> float:
        """Akaike information criterion on X; the lower the better. Eager."""
        total, _ = self._total(X)
        return -2 * total + 2 * self.mixture_.n_parameters

    def _total(self, X: Any) -> tuple[float, int]:
        """Total log-density and number of rows, in one pass."""
        scores = self.score_samples(X)
        if isinstance(scores, dd.Series):
            parts = scores.to_delayed()
        elif isinstance(scores, da.Array):
            parts = scores.to_delayed().ravel().tolist()
        else:
            parts = scores if isinstance(scores, list) else [scores]
        sums = dask.compute(*(dask.delayed(_sum_and_size)(part) for part in parts))
        total, n_samples = np.sum(sums, axis=0)
        if n_samples == 0:
            raise ValueError("X must have at least one row; got none.")
        return float(total), int(n_samples)

    def sample(self, n_samples: int = 1) -> tuple[Array, Any]:
        """Draw rows from the mixture: (X, y), y the component of each row."""
        check_is_fitted(self, "mixture_")
        return self.mixture_.sample(n_samples, self.random_state)


def as_fitted(
    parameters: Mapping[str, Any], result: FitResult, followed: FollowUp
) -> GaussianMixture:
    """An estimator with these parameters that learned from a fit that somebody else made."""
    estimator = GaussianMixture(**parameters)
    estimator._learn(result, followed)
    estimator.n_optimum_changes_ = 0
    return estimator


# -- tasks of predictions ------------------------------------------------------------------------


def _apply(data: Any, mixture: Any, method: str) -> Any:
    """One method of the mixture on one partition in memory."""
    rows, _ = rows_of(data, mixture.feature_names if isinstance(data, pd.DataFrame) else None)
    return getattr(mixture, method)(rows)


def _apply_to_frame(frame: pd.DataFrame, mixture: Mixture, method: str) -> pd.Series | pd.DataFrame:
    """The same with the index kept."""
    values = _apply(frame, mixture, method)
    if values.ndim == 2:
        return pd.DataFrame(values, index=frame.index)
    return pd.Series(values, index=frame.index, name=method)


def _sum_and_size(scores: Any) -> Array:
    return np.array([np.sum(np.asarray(scores)), len(scores)])
