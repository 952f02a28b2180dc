"""``stress_test``: the error of each method under an attack, against the share of bad sources, on a user's own data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from dask_dfmr import checks
from dask_dfmr.aggregation.options import METHODS, PAPER_RHO
from dask_dfmr.attacks.adversary import Adversary, check_rate, mixture_of, recruit
from dask_dfmr.attacks.catalogue import Attack, find
from dask_dfmr.attacks.on_partitions import corrupt_partitions, some_partitions
from dask_dfmr.estimator import GaussianMixture
from dask_dfmr.exceptions import AggregationError
from dask_dfmr.local.estimate import LocalEstimate
from dask_dfmr.mixtures.gaussian import Mixture
from dask_dfmr.mixtures.metrics import mixing_distance
from dask_dfmr.parameters import PARAMETERS
from dask_dfmr.plotting.breakdown_display import BreakdownDisplay
from dask_dfmr.progress.choice import progress_for
from dask_dfmr.results import Aggregate, aggregate
from dask_dfmr.seeds import SeedLike, seed_sequence, stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Shares of bad sources by default."""

BREAKDOWN_AT = 2.0
"""An error above this is called a breakdown."""

MOST_HONEST = 32
"""Honest estimates, at most, whose distances to the oracle give the unit of errors."""

CORRUPTING = "corrupting sources"
"""The stage of a stress test that its progress shows: one task for each rate and repeat."""

STRESS_COLUMNS = (
    "rate",
    "repeat",
    "method",
    "strength",
    "error",
    "w1_to_oracle",
    "truth_ratio",
    "honest_kept",
    "bad_kept",
    "warned",
    "raised",
)
"""Columns of the table of a stress test, in their order."""


def default_methods() -> dict[str, dict[str, Any]]:
    """Options of :func:`aggregate` by name: all its methods, and "dfmr" with the paper's rho."""
    methods: dict[str, dict[str, Any]] = {"dfmr": {}, "dfmr, rho=1.3": {"rho": PAPER_RHO}}
    return methods | {name: {"method": name} for name in METHODS if name not in methods}


@dataclass(frozen=True, eq=False, repr=False)
class StressTest:
    """The errors of several methods under an attack, at several rates.

    Attributes
    ----------
    attack : Attack
    table : pandas.DataFrame
        One row per rate, repeat and method, with the columns ``strength`` (the worst one, with ``search=True``);
        ``error``, in the unit ``yardstick``; ``w1_to_oracle``, the mixing distance (W1) between the result and the
        oracle, which is the reduction of exactly the honest sources; ``truth_ratio``, the result's mixing distance to
        the truth over the oracle's (NaN without ``truth=``); ``honest_kept`` and ``bad_kept``, shares of the honest and
        of the bad sources that were kept (NaN if there are none); ``warned``, names of the warnings' categories;
        ``raised``, name and message of the error, or "".
    yardstick : str
        Unit of ``error`` in words.
    breakdown_at : float
        An error above this is a breakdown.
    """

    attack: Attack
    table: pd.DataFrame
    yardstick: str
    breakdown_at: float

    @property
    def curve(self) -> pd.DataFrame:
        """Mean error over repeats, one row per rate and one column per method; infinite if a repeat had no result."""
        error = self.table["error"].where(self.table["raised"] == "", np.inf)
        table = self.table.assign(error=error)
        order = list(dict.fromkeys(self.table["method"]))
        return table.groupby(["rate", "method"])["error"].mean().unstack("method")[order]  # noqa: PD010

    @property
    def breakdown(self) -> pd.Series:
        """The lowest rate at which the mean error of each method exceeds ``breakdown_at``; NaN if there is none."""
        curve = self.curve
        broken = curve > self.breakdown_at
        return pd.Series(
            {m: curve.index[broken[m]].min() if broken[m].any() else np.nan for m in curve},
            name="breakdown",
        )

    def __repr__(self) -> str:
        rates = ", ".join(
            f"{method}: {'none' if np.isnan(rate) else f'{rate:g}'}"
            for method, rate in self.breakdown.items()
        )
        return f"StressTest({self.attack.name!r}, breakdown at {rates})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the error against the share of bad sources, one line per method, on a logarithmic scale.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        return BreakdownDisplay.from_stress_test(self, ax=ax).ax_


def stress_test(
    data: Any,
    attack: str | Attack,
    rates: Sequence[float] | float = RATES,
    *,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    strength: float | None = None,
    search: bool = False,
    truth: Mixture | None = None,
    which: Literal["kept", "all"] = "kept",
    n_repeats: int = 1,
    breakdown_at: float = BREAKDOWN_AT,
    random_state: SeedLike = None,
    verbose: int = 0,
    **fit: Any,
) -> StressTest:
    """Corrupt a growing share of sources, and compare each method's result with that of the honest ones alone.

    Parameters
    ----------
    data : fitted GaussianMixture, sequence of LocalEstimate, or a collection
        Sources that are taken for honest. Those of a fitted estimator, of which it must have kept the estimates, or
        these estimates themselves. Or a collection as :meth:`GaussianMixture.fit` takes it. Attacks on rows need a
        collection as :func:`corrupt_partitions` takes it, which is fitted again at every rate. For other attacks it is
        fitted once.
    attack : str or Attack
    rates : sequence of float, or one, default (0, .1, .2, .3, .4)
        Shares of bad sources.
    methods : mapping of str to dict, or sequence of str, optional
        Options of :func:`aggregate` by name, or names of :func:`default_methods`: "dfmr", "dfmr, rho=1.3", and the
        other values of ``method``. All of these by default.
    strength : float, optional
        The attack's own by default.
    search : bool, default False
        Try all strengths of the attack's grid against each method, and report the one with the largest error.
    truth : Mixture, optional
        The true mixture, if it is known. Errors are then relative to it.
    which : {"kept", "all"}, default "kept"
        Which sources are taken for honest, and are in the test at all. "kept": those that the fitted estimator kept, or
        of estimates and of a collection those that :func:`aggregate` or the fit keeps. A source that is already wrong
        would otherwise count as honest. "all": every one.
    n_repeats : int, default 1
        How often bad sources are drawn.
    breakdown_at : float, default 2
        An error above this is a breakdown.
    random_state : int, RandomState, Generator, SeedSequence or None, default None
    verbose : int, default 0
        1 shows the progress of the first fit, if ``data`` is a collection, and then of the test.
    **fit
        If ``data`` is a collection: parameters of :class:`GaussianMixture`, like ``n_components=3``. Those of the
        aggregation come from ``methods``.

    Returns
    -------
    StressTest
        With ``truth``, ``error`` is the result's mixing distance to it, in units of the oracle's. Without, it is the
        mixing distance to the oracle, in units of the median distance of a single honest estimate to the oracle: an
        error of 1 is a result no better than that of one source.

    Raises
    ------
    ValueError
        If an argument is out of range, there is no such attack or method, the attack does not fit the data, or the
        estimator did not keep its estimates.
    NotFittedError
        If an estimator is not fitted.
    AggregationError
        If no honest source has a usable estimate.
    """
    found = find(attack)
    rates = [rates] if isinstance(rates, (int, float)) else list(rates)
    for rate in rates:
        check_rate(rate)
    if not rates:
        raise ValueError("rates must hold at least one share of bad sources; got none.")
    checks.integer("n_repeats", n_repeats, 1)
    checks.number("breakdown_at", breakdown_at)
    chosen = _methods(methods)
    seed = seed_sequence(random_state)
    checks.one_of("which", which, ("kept", "all"))
    PARAMETERS["verbose"].check("verbose", verbose)
    strengths = _strengths(found, strength, search)
    sources = _sources_of(data, found, {**fit, "verbose": verbose} if fit else {}, seed, which)
    make_case = _case_maker(sources, found, fit, seed)
    rows: list[dict[str, Any]] = []
    progress = progress_for(int(verbose))
    with progress.session():
        progress.expect(CORRUPTING, n_repeats * len(rates))
        for repeat in range(n_repeats):
            for rate in rates:
                progress.begin(CORRUPTING)
                case = make_case(rate, stream(seed, repeat), strengths)
                rows += [
                    {"rate": float(rate), "repeat": repeat, "method": name}
                    | _worst(case, found, options, truth)
                    for name, options in chosen.items()
                ]
                progress.advance(CORRUPTING)
    yardstick = "the oracle's" if truth is not None else "a single source's"
    return StressTest(
        found, pd.DataFrame(rows, columns=STRESS_COLUMNS), yardstick, float(breakdown_at)
    )


def _methods(
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    known = default_methods()
    if methods is None:
        return known
    if isinstance(methods, Mapping):
        chosen = {str(name): dict(options) for name, options in methods.items()}
    else:
        names = [methods] if isinstance(methods, str) else list(methods)
        for name in names:
            checks.one_of("methods", name, list(known))
        chosen = {name: known[name] for name in names}
    if not chosen:
        raise ValueError("methods must name at least one; got none.")
    return chosen


def _strengths(attack: Attack, strength: float | None, search: bool) -> tuple[float, ...]:
    checks.one_of("search", search, (True, False))
    if search and strength is not None:
        raise ValueError(
            f"strength must not be given with search=True, which searches for it; got {strength!r}."
        )
    if search:
        return attack.grid
    level = attack.strength if strength is None else strength
    checks.number("strength", level)
    return (float(level),)


# -- what is aggregated --------------------------------------------------------------------------


Sent = list[tuple[float, list[Any] | AggregationError]]
"""Pairs of a strength and the estimates of all sources, or the error that came instead of them."""


class Case(NamedTuple):
    """One draw of bad sources.

    ``sent`` is what all sources send at each strength. ``oracle`` is the reduction of the honest estimates, and
    ``single`` the median distance of one of them to it. ``is_bad`` and ``is_honest`` have the shape (n_sources,).
    """

    sent: Sent
    is_bad: NDArray[np.bool_]
    is_honest: NDArray[np.bool_]
    oracle: Mixture
    single: float


CaseMaker = Callable[[float, np.random.SeedSequence, Sequence[float]], Case]
"""(rate, seed of the draw, strengths) -> case."""


class Sources(NamedTuple):
    """The sources that are taken for honest: their estimates, and for an attack on rows the collection of their rows.

    ``X`` is None if the rows are not needed, or not known.
    """

    estimates: list[LocalEstimate]
    X: Any = None


def _sources_of(
    data: Any, attack: Attack, fit: Mapping[str, Any], seed: np.random.SeedSequence, which: str
) -> Sources:
    is_fitted = isinstance(data, GaussianMixture)
    is_estimates = isinstance(data, Sequence) and all(isinstance(e, LocalEstimate) for e in data)
    if not is_fitted and not is_estimates:
        estimates, kept = _fit(data, fit, seed)
        kept = kept | (which == "all")
        X = some_partitions(data, kept) if attack.kind == "rows" else None
        return Sources(_chosen(estimates, kept), X)
    if fit:
        raise ValueError(
            f"parameters of a fit need data to fit; got estimates, and {', '.join(sorted(fit))}."
        )
    if is_fitted:
        check_is_fitted(data, "mixture_")
        if data.estimates_ is None:
            raise ValueError(
                "data must have its estimates; this fit did not keep them. Fit with keep_estimates=True."
            )
        estimates, kept = list(data.estimates_), data.support_
    else:
        estimates, kept = list(data), np.ones(len(data), dtype=bool)
        if which == "kept":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are in the notes of every method
                kept = aggregate(estimates, random_state=seed).decision.kept
    return Sources(_chosen(estimates, kept | (which == "all")))


def _chosen(estimates: Sequence[LocalEstimate], kept: NDArray[np.bool_]) -> list[LocalEstimate]:
    return [estimate for estimate, is_kept in zip(estimates, kept, strict=True) if is_kept]


def _case_maker(
    sources: Sources, attack: Attack, fit: Mapping[str, Any], seed: np.random.SeedSequence
) -> CaseMaker:
    if attack.kind != "rows":
        return _cases_of_estimates(sources.estimates, attack)
    if sources.X is None:
        raise ValueError(
            f"attack {attack.name!r} is one on rows; got estimates. Give the collection that they were fitted to, and "
            "n_components."
        )
    return _cases_of_rows(sources, attack, fit, seed)


def _fit(
    X: Any, fit: Mapping[str, Any], seed: np.random.SeedSequence
) -> tuple[list[LocalEstimate], NDArray[np.bool_]]:
    """The local estimates of a fit, and which of them it kept."""
    if "n_components" not in fit:
        raise ValueError("n_components must be given where data are a collection to fit.")
    usual = {"refine": 0, "check_optimum": None, "refit_excluded": False, "on_failed": "ignore"}
    state = int(np.random.default_rng(seed).integers(2**31))
    options: dict[str, Any] = {"random_state": state, **usual, **fit, "keep_estimates": True}
    with warnings.catch_warnings():
        # They are about this fit's filter; the methods are compared later.
        warnings.simplefilter("ignore")
        fitted = GaussianMixture(**options).fit(X)
    return list(fitted.estimates_ or ()), fitted.support_


def _cases_of_estimates(estimates: Sequence[LocalEstimate], attack: Attack) -> CaseMaker:
    def make_case(rate: float, seed: np.random.SeedSequence, strengths: Sequence[float]) -> Case:
        adversary = recruit(estimates, rate, random_state=seed)
        sent: Sent = [(s, adversary.corrupt(attack, s).estimates) for s in strengths]
        return _case(adversary, sent)

    return make_case


def _cases_of_rows(
    sources: Sources, attack: Attack, fit: Mapping[str, Any], seed: np.random.SeedSequence
) -> CaseMaker:
    clean, X = sources

    def make_case(rate: float, seed_: np.random.SeedSequence, strengths: Sequence[float]) -> Case:
        sent: Sent = []
        is_bad = np.zeros(len(clean), dtype=bool)
        for s in strengths:
            corrupted, is_bad = corrupt_partitions(X, attack, rate, seed_, strength=s)
            try:
                sent.append((s, _fit(corrupted, fit, seed)[0] if is_bad.any() else clean))
            except AggregationError as error:
                sent.append((s, error))
        honest = [i for i, e in enumerate(clean) if e.is_usable and not is_bad[i]]
        if len(honest) < 2:
            raise ValueError(f"data must leave at least 2 honest partitions at rate {rate:g}.")
        return _case(Adversary(clean, is_bad, honest, seed_), sent)

    return make_case


def _case(adversary: Adversary, sent: Sent) -> Case:
    honest = np.zeros(len(adversary.is_bad), dtype=bool)
    honest[[i for i, e in enumerate(adversary.estimates) if e.is_usable]] = True
    honest &= ~adversary.is_bad
    oracle, chosen = adversary.mixture(*adversary.origin), adversary.honest
    step = -(-len(chosen) // MOST_HONEST)
    single = [mixing_distance(mixture_of(e), oracle) for e in chosen[::step]]
    return Case(sent, adversary.is_bad, honest, oracle, float(np.median(single)))


# -- errors of the results ----------------------------------------------------------------------------


def _worst(
    case: Case, attack: Attack, options: Mapping[str, Any], truth: Mixture | None
) -> dict[str, Any]:
    """The row of the strength with the largest error; no result counts as the largest."""
    rows = list(_rows(case, options, truth))

    def badness(row: Mapping[str, Any]) -> float:
        return np.inf if row["raised"] else float(row["error"])

    return max(rows, key=badness)


def _rows(
    case: Case, options: Mapping[str, Any], truth: Mixture | None
) -> Iterator[dict[str, Any]]:
    for strength, estimates in case.sent:
        row: dict[str, Any] = {"strength": strength, "raised": "", "warned": ""}
        try:
            if isinstance(estimates, AggregationError):
                raise estimates
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are in the notes
                result = aggregate(estimates, **{"random_state": 0, **options})
        except AggregationError as error:
            yield row | {"raised": f"{type(error).__name__}: {error}"}
            continue
        yield row | _measured(result, case, truth)


def _measured(result: Aggregate, case: Case, truth: Mixture | None) -> dict[str, Any]:
    away = mixing_distance(result.mixture, case.oracle)
    ratio = np.nan
    if truth is not None:
        ratio = mixing_distance(result.mixture, truth) / mixing_distance(case.oracle, truth)
    kept = result.decision.kept
    return {
        "error": ratio if truth is not None else away / case.single,
        "w1_to_oracle": away,
        "truth_ratio": ratio,
        "honest_kept": _share(kept, case.is_honest),
        "bad_kept": _share(kept, case.is_bad),
        "warned": ", ".join(sorted({note.category.__name__ for note in result.notes})),
    }


def _share(kept: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return float(kept[of].mean()) if of.any() else float("nan")
