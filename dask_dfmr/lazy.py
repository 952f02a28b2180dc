"""``dfmr``: a fit as one lazy graph, to compute wherever and whenever the user wants.

It is a function of an estimator, and not a method of it, for three reasons. Estimators of scikit-learn are eager, and a
method that returns a Delayed would leave its estimator unfitted. The function needs ``get_params`` alone, so it also
takes an object that only has the parameters of a :class:`~dask_dfmr.GaussianMixture`. And the estimator stays free of
graphs: it computes through :func:`dask_dfmr.on_dask.fit.run_fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dask.delayed import Delayed

from dask_dfmr import checks
from dask_dfmr.aggregation.exclusions import with_exclusion_note
from dask_dfmr.aggregation.result import AggregationResult
from dask_dfmr.on_dask.first_read import as_delayed
from dask_dfmr.parameters import parameters_of, plan_of, warn_of_partitions
from dask_dfmr.results import Aggregate


def dfmr(estimator: Any, X: Any, *, n_starts: int = 1, block_size: int | None = None) -> Delayed:
    """Distance filtered mixture reduction of a collection, as one lazy graph.

    Nothing is read or computed here, except a column of ``source``. The graph can be computed on any scheduler.

    An error in reading or fitting a partition becomes the outcome of that partition. An error upstream of it, behind a
    shuffle for example, or a worker that dies repeatedly, fails the graph. :meth:`GaussianMixture.fit` survives both on
    a cluster, because it submits fits and aggregation separately.

    Parameters
    ----------
    estimator : GaussianMixture
        Its parameters are used; it is not changed, and need not be fitted. Any object whose ``get_params`` returns the
        parameters of a GaussianMixture will do. Three parameters must have their defaults: ``refine``,
        ``warm_start`` and ``trusted_workers``; the errors give the reasons. ``refit_excluded`` and ``check_optimum``
        have no effect, because no task reads the data again after the aggregation. Neither have ``keep_estimates``,
        ``on_failed``, ``warn_excluded`` and ``verbose``.
    X : dask DataFrame, dask Array, list, frame or array-like
        As for :meth:`GaussianMixture.fit`. If ``source`` names a column, its values are read at once, on the active
        scheduler. The rows are regrouped when the graph is computed, and stay in memory then, whereas
        :meth:`GaussianMixture.fit` uses temporary files where it can.
    n_starts : int, default 1
        Number of starts of the reduction, as for :func:`aggregate`.
    block_size : int or None, default None
        Number of local estimates per task of the aggregation. None is 50, and more for over 3,200 estimates.

    Returns
    -------
    dask.delayed.Delayed
        Computes to an :class:`Aggregate`. Its ``notes`` hold the warnings, and its method ``warn`` issues them.

    Raises
    ------
    TypeError, ValueError
        If an argument or a parameter is wrong.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from dask_dfmr import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> X = da.from_array(rng.normal(size=(1200, 2)), chunks=(200, 2))
    >>> lazy = dfmr(GaussianMixture(random_state=0), X)
    >>> int(lazy.compute().decision.kept.sum())
    6
    """
    checks.integer("n_starts", n_starts, 1)
    if block_size is not None:
        checks.integer("block_size", block_size, 1, alternative="None or ")
    _check_lazy(parameters_of(estimator, call="dfmr(GaussianMixture(), X)"))
    plan = plan_of(estimator, X, lazy=True)
    warn_of_partitions(plan)
    plan = replace(plan, options=replace(plan.options, n_starts=n_starts))
    if block_size is not None:
        plan = replace(plan, block_size=int(block_size))
    return as_delayed(plan, _with_notes)


def _with_notes(result: AggregationResult) -> Aggregate:
    return Aggregate.of(with_exclusion_note(result))


def _check_lazy(values: Mapping[str, Any]) -> None:
    """Refuse what a lazy graph cannot do."""
    refine, workers = values["refine"], values["trusted_workers"]
    if refine != 0:
        raise ValueError(
            "refine must be 0 for a lazy graph, because each pass depends on the result of the last one; "
            f"got {refine!r}. Use GaussianMixture(refine={refine!r}).fit(X)."
        )
    if values["warm_start"]:
        raise ValueError(
            "warm_start must be False for a lazy graph, which uses the parameters of the estimator and nothing that it "
            "learned; got True. Use GaussianMixture(init_params=estimator.mixture_) to start from its mixture."
        )
    if workers is not None:
        raise ValueError(
            "trusted_workers must be None for a lazy graph, because the cluster that will compute it is not known; "
            f"got {workers!r}. Use GaussianMixture(trusted_workers=...).fit(X), or send the whole graph to trusted "
            "workers: client.compute(dfmr(...), workers=[...])."
        )
