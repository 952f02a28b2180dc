"""``OutlierDetector``: rows that are improbable under a fitted mixture, with p-values and a false-alarm rate.

The law of the density (:mod:`dask_dfmr.mixtures.density_law`) is computed once, when the detector is fitted. After that
the p-value of a row depends on that row alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted

from dask_dfmr import checks
from dask_dfmr.estimator import GaussianMixture
from dask_dfmr.mixtures.density_law import ExactLaw, TabulatedLaw, density_law
from dask_dfmr.mixtures.family import Array
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.on_dask.partitions import as_collection, is_one_table
from dask_dfmr.on_dask.predictions import RowMethod, map_rows
from dask_dfmr.seeds import DENSITY_LAW, SeedLike, seed_sequence, stream

NEITHER = 0
"""Label of a row that was omitted, in an array; a Series has NA."""


class OutlierDetector(OutlierMixin, BaseEstimator):
    """Detect rows that are improbable under a Gaussian mixture.

    A row x is an outlier if its density under the mixture f is so low that a row Y of f has a lower one with a
    probability below ``false_alarm_rate``. This probability, P(f(Y) < f(x)), is the p-value of x. It holds for
    components that overlap too. There is no contamination parameter: how many outliers there are is a result.

    The detector flags improbable *rows*. It cannot flag a tight group of several percent of the rows: that is a
    component of the mixture.

    Parameters
    ----------
    estimator : GaussianMixture, Mixture or None, default None
        What the rows should be like. The parameters of a :class:`GaussianMixture` are those of the fit, which clones
        it. Use ``row_outliers="truncate"``, so that outliers in X do not widen the mixture until they fit into it. A
        :class:`Mixture` is used as it is, and nothing is fitted. None: a GaussianMixture with one component,
        ``row_outliers="truncate"`` and this ``random_state``. Rows of several kinds need more components; see
        :func:`select_components`. Data in memory are then one partition, which is fitted however few rows it has.
    false_alarm_rate : float, default 0.001
        Probability that a row of the fitted mixture is flagged. Above 0 and below 1.
    random_state : int, RandomState, Generator, SeedSequence or None, default 0
        Seed of the p-values of mixtures with several components, which have a small Monte Carlo error
        (``p_value_error_``), and of the default estimator. With the default the same mixture has the same p-values in
        every program.

    Attributes
    ----------
    mixture_ : Mixture
        The mixture that rows are compared with.
    estimator_ : GaussianMixture or None
        The fitted estimator, with the report of its partitions. None if the detector was made from a mixture.
    offset_ : float
        The log-density, in nats, whose p-value is ``false_alarm_rate``. ``decision_function`` is ``score_samples``
        less this.
    p_value_error_ : float
        Standard error of the p-values. It is relative to the smaller of p and 1 - p, and the largest one for p from
        1e-8 to 0.99. 0 for one component, whose p-values are exact.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, as str objects. Exists only if the columns have names.

    See Also
    --------
    GaussianMixture : The model of the rows.
    select_components : Choose the number of components first.

    Notes
    -----
    p-values are per row. Of a million rows of the mixture a thousand have p < 0.001. To keep the expected number of
    false alarms among n rows below one, flag those with ``p_value(X) < 1 / n``.

    The rate holds for rows of the *fitted* mixture. Rows that are no Gaussian mixture, for example with heavier tails,
    are flagged more often.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.random.default_rng(0).normal(size=(2000, 2))
    >>> rows[:40, 0] *= 10
    >>> detector = OutlierDetector(false_alarm_rate=0.001).fit(rows)
    >>> detector.predict([[0.0, 1.0], [6.0, 0.0]]).tolist()
    [1, -1]
    >>> bool(detector.p_value([[6.0, 0.0]])[0] < 1e-6)
    True
    """

    def __init__(
        self,
        estimator: GaussianMixture | Mixture | None = None,
        *,
        false_alarm_rate: float = 0.001,
        random_state: SeedLike = 0,
    ) -> None:
        self.estimator = estimator
        self.false_alarm_rate = false_alarm_rate
        self.random_state = random_state

    @classmethod
    def from_mixture(
        cls, mixture: Any, *, false_alarm_rate: float = 0.001, random_state: SeedLike = 0
    ) -> Self:
        """Make a detector from what is fitted already; nothing is fitted again.

        Parameters
        ----------
        mixture : Mixture, GaussianMixture, Aggregate or Selection
            A mixture, as of a fit or of :meth:`Mixture.load`, or a fitted result that holds one. A GaussianMixture is
            not changed. Its ``nan_policy`` and its ``source`` column are those of the detector.
        false_alarm_rate, random_state
            As for :class:`OutlierDetector`.

        Returns
        -------
        OutlierDetector
            A fitted one.

        Raises
        ------
        TypeError
            If ``mixture`` is nothing of this kind.
        ValueError
            If ``false_alarm_rate`` is no probability.
        NotFittedError
            If ``mixture`` is a GaussianMixture that is not fitted.

        Examples
        --------
        >>> normal = Mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
        >>> detector = OutlierDetector.from_mixture(normal, false_alarm_rate=0.01)
        >>> detector.predict([[3.0, 0.0], [3.1, 0.0]]).tolist()
        [1, -1]
        """
        parameters: dict[str, Any] = {
            "false_alarm_rate": false_alarm_rate,
            "random_state": random_state,
        }
        if isinstance(mixture, GaussianMixture):
            check_is_fitted(mixture, "mixture_")
            return cls(mixture, **parameters)._learn(mixture.mixture_, mixture)
        found = getattr(mixture, "mixture", mixture)
        if not isinstance(found, Mixture):
            raise TypeError(
                "mixture must be a Mixture, or a fitted GaussianMixture, Aggregate or Selection; "
                f"got {mixture!r:.100}. "
                "Mixture.load reads a saved mixture, and Mixture.from_sklearn takes one of scikit-learn."
            )
        return cls(found, **parameters)._learn(found)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the mixture to X, and compute the law of its density; eager.

        Parameters
        ----------
        X : dask DataFrame, dask Array, list, frame or array-like
            As for :meth:`GaussianMixture.fit`. Not used if ``estimator`` is a Mixture.
        y : ignored

        Returns
        -------
        OutlierDetector
            The fitted detector itself.

        Raises
        ------
        TypeError, ValueError
            If X or a parameter is wrong.
        AggregationError, PartitionError, RefinementError, ClusterError
            As :meth:`GaussianMixture.fit`.

        Warns
        -----
        ExclusionWarning, PartitionWarning, HeterogeneityWarning, FilterWarning, OptimumWarning, ClusterWarning
            As :meth:`GaussianMixture.fit`.
        """
        _check_rate(self.false_alarm_rate)
        if isinstance(self.estimator, Mixture):
            return self._learn(self.estimator)
        if self.estimator is None:
            estimator = _default_estimator(X, self.random_state)
        elif isinstance(self.estimator, GaussianMixture):
            estimator = clone(self.estimator)
        else:
            raise TypeError(
                "estimator must be a GaussianMixture or a Mixture of dask_dfmr, or None; "
                f"got {self.estimator!r:.100}. OutlierDetector.from_mixture takes other results."
            )
        return self._learn(estimator.fit(X).mixture_, estimator)

    def _learn(self, mixture: Mixture, estimator: GaussianMixture | None = None) -> Self:
        """Set the learned attributes from a mixture, and the fitted estimator that it is of."""
        _check_rate(self.false_alarm_rate)
        self.mixture_, self.estimator_ = mixture, estimator
        self.n_features_in_ = mixture.n_features
        if mixture.feature_names is not None:
            self.feature_names_in_ = np.asarray(mixture.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        seed = stream(seed_sequence(self.random_state), DENSITY_LAW)
        law = density_law(mixture, seed)
        self.offset_ = law.quantile(self.false_alarm_rate)
        self.p_value_error_ = law.standard_error
        self._test = _DensityTest(mixture, law, self.offset_)
        return self

    # -- rows -------------------------------------------------------------------------------------

    def predict(self, X: Any) -> Any:
        """Label each row of X: -1 if it is an outlier, else 1.

        Parameters
        ----------
        X : as for :meth:`GaussianMixture.predict`

        Returns
        -------
        dask Series, dask Array, list of Delayed or ndarray of int, shape (n_samples,)
            As of :meth:`GaussianMixture.predict`: lazy if X is, with X's index and divisions. -1 where
            ``decision_function`` is negative. If ``nan_policy="omit"`` omits a row, its label is 0, and NA in a Series,
            whose type is then Int64.

        Raises
        ------
        TypeError
            If X is the name of a file, a lazy frame of another library, or one column; nothing is computed.
        ValueError
            If X has other columns than the fit. For a row with NaN or infinite values when it is computed, unless
            ``nan_policy`` of the estimator is "omit".
        NotFittedError
            Before :meth:`fit`.
        """
        return self._map(X, "predict")

    def p_value(self, X: Any) -> Any:
        """Probability that a row of the mixture has a lower density than this row.

        Exact for one component; ``p_value_error_`` is the standard error otherwise. The p-values of rows of the mixture
        are uniform between 0 and 1.

        Parameters
        ----------
        X : as for :meth:`predict`

        Returns
        -------
        As for :meth:`predict`, of float.
            Omitted rows have NaN.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`.
        """
        return self._map(X, "p_value")

    def score_samples(self, X: Any) -> Any:
        """Log-density of each row, in nats; lower is more of an outlier.

        Parameters
        ----------
        X : as for :meth:`predict`

        Returns
        -------
        As for :meth:`predict`, of float.
            Omitted rows have NaN.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`.
        """
        return self._map(X, "score_samples")

    def decision_function(self, X: Any) -> Any:
        """``score_samples`` less ``offset_``, in nats; negative for outliers.

        Parameters
        ----------
        X : as for :meth:`predict`

        Returns
        -------
        As for :meth:`predict`, of float.
            Omitted rows have NaN.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As :meth:`predict`.
        """
        return self._map(X, "decision_function")

    def _map(self, X: Any, method: str) -> Any:
        check_is_fitted(self, "mixture_")
        is_omitting = self.estimator_ is not None and self.estimator_.nan_policy == "omit"
        source = None if self.estimator_ is None else self.estimator_.source
        call = RowMethod(method, is_omitting, no_label=NEITHER)
        return map_rows(self, self._test, call, X, source)


def _default_estimator(X: Any, random_state: SeedLike) -> GaussianMixture:
    """One component. Rows in memory are one partition, which is fitted however few they are, and not filtered."""
    robust = GaussianMixture(row_outliers="truncate", random_state=random_state)
    if is_one_table(as_collection(X)):
        robust.set_params(method="mr", min_partition_rows=2)
    return robust


def _check_rate(rate: Any) -> None:
    checks.number("false_alarm_rate", rate)
    if not 0 < rate < 1:
        raise ValueError(
            f"false_alarm_rate must be a probability above 0 and below 1; got {rate!r}."
        )


@dataclass(frozen=True)
class _DensityTest:
    """What the tasks of a detector need: the mixture, the law of its density, and the density of the threshold."""

    mixture: Mixture
    law: ExactLaw | TabulatedLaw
    offset: float

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        return self.mixture.feature_names

    @property
    def n_features(self) -> int:
        return self.mixture.n_features

    def score_samples(self, X: Any) -> Array:
        return self.mixture.score_samples(X)

    def decision_function(self, X: Any) -> Array:
        return self.mixture.score_samples(X) - self.offset

    def predict(self, X: Any) -> NDArray[np.intp]:
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.intp)

    def p_value(self, X: Any) -> Array:
        return self.law.p_value(self.mixture.score_samples(X))
