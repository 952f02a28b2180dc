"""The tables of the simulation. Ratios are those of one draw; a cell shows their mean over draws, and the largest."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from output import print_table

from paper.grid import NONE, UNSCALED
from paper.local_fits import EARLY, PILOTS, TRUTH
from paper.methods import COAT, DEFAULT, HARDENED, MR, ORACLE, POOLED, REFINED, TRIM

FILTERS = [DEFAULT, "DFMR(1)", "DFMR(1.3)", HARDENED]
METHODS = [POOLED, *FILTERS, COAT, TRIM, MR]
SHOWN_RATE = 0.2
"""Tables of all settings show this rate beside 0 and the largest one; the figures have all."""

ANY = "any"
"""In place of an attack where the result is that of the honest machines alone."""

DRAW = ["overlap", "m", "n_rows", "start", "seed", "rate"]
"""What a draw of rows and of bad machines is; attacks and methods share it."""


def lines_of(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """All lines of all cells, with ``over``, W1 over that of the oracle of the same draw."""
    rows = [line | result["cell"] for result in found for line in result["lines"]]
    lines = pd.DataFrame(rows)
    # The rows of the honest machines are the same under all attacks.
    lines.loc[(lines["method"] == POOLED) & (lines["rate"] > 0), "attack"] = ANY
    oracle = lines[lines["method"] == ORACLE].drop_duplicates(DRAW).set_index(DRAW)
    of_draw = oracle[["w1", "ari", "log_likelihood"]].add_prefix("oracle_")
    lines = lines.join(of_draw, on=DRAW)
    return lines.assign(over=lines["w1"] / lines["oracle_w1"])


def print_tables(found: Sequence[dict[str, Any]]) -> None:
    """Print everything that the page cites."""
    lines = lines_of(found)
    truth, users = (lines[lines["start"] == start] for start in (TRUTH, PILOTS))
    print_cost(found)
    print_summary(truth)
    print_errors(truth, f"Local fits from the {TRUTH}: W1 over the oracle's, mean / largest")
    print_errors(users, f"Local fits from {PILOTS}: W1 over the oracle's, mean / largest")
    print_slopes(truth)
    print_equality(lines)
    print_kept(truth)
    print_other_measures(truth)
    print_seconds(found, lines)
    print_starts(lines)
    print_unscaled(lines)


def print_text(text: str) -> None:
    """A paragraph in lines as long as those of the documents."""
    print(textwrap.fill(text, 120, break_on_hyphens=False), end="\n\n")


def short(value: float) -> str:
    """A ratio as text, with two decimals below 10."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.0e}"


def mean_and_most(values: pd.Series) -> str:
    """Mean and largest value as text; a dash without values."""
    return "-" if values.empty else f"{short(values.mean())} / {short(values.max())}"


def _table(
    lines: pd.DataFrame,
    keys: Sequence[str],
    methods: Sequence[str],
    text: Callable[[pd.DataFrame], str],
) -> None:
    """A table with a line for each group by ``keys``, and a column for each method."""
    there = [name for name in methods if (lines["method"] == name).any()]
    rows = [
        [*(f"{part:g}" if isinstance(part, float) else part for part in key)]
        + [text(group[group["method"] == name]) for name in there]
        for key, group in lines.groupby(list(keys), sort=True)
    ]
    print_table([*keys, *there], rows)


# -- errors --------------------------------------------------------------------------------------


def print_summary(lines: pd.DataFrame) -> None:
    """W1 over the oracle's over all overlaps: by attack and rate, and at the largest rate by setting."""
    attacked = lines[~lines["attack"].isin({ANY, UNSCALED}) & (lines["method"] != POOLED)]
    title = f"Local fits from the {TRUTH}, all overlaps: W1 over the oracle's, mean / largest"
    print(f"{title}; all numbers of machines and of rows.\n")

    def text(group: pd.DataFrame) -> str:
        return mean_and_most(group["over"])

    _table(attacked, ["attack", "rate"], METHODS, text)
    most = attacked["rate"].max()
    print(f"{title}; {most:.0%} of the machines bad.\n")
    _table(attacked[attacked["rate"] == most], ["attack", "m", "n_rows"], METHODS, text)


def print_errors(lines: pd.DataFrame, title: str) -> None:
    """W1 over the oracle's by setting, attack and rate; the pooled fit stands in the lines of no attack."""
    if lines.empty:
        return
    print_text(f"{title}. The pooled fit to the honest rows is the same for all attacks.")
    keys = ["m", "n_rows", "overlap", "attack"]
    attacked = lines[~lines["attack"].isin({NONE, ANY})]
    pooled = lines[lines["method"] == POOLED].drop(columns="attack")
    shared = pooled.merge(attacked[keys].drop_duplicates(), on=keys[:-1])
    both = pd.concat([attacked, lines[lines["rate"] == 0], shared[shared["rate"] > 0]])
    both = both[both["rate"].isin({0.0, SHOWN_RATE, both["rate"].max()})]
    _table(
        both,
        [*keys, "rate"],
        [*METHODS, REFINED],
        lambda group: mean_and_most(group["over"].dropna()),
    )


def print_slopes(lines: pd.DataFrame) -> None:
    """The slope of log W1 on log N at each m, by draw; mean and its standard error."""
    at = lines[lines["rate"].isin([0.0, lines["rate"].max()]) & (lines["attack"] != UNSCALED)]
    at = at.groupby("m").filter(lambda group: group["n_rows"].min() < group["n_rows"].max())
    if at.empty:
        return
    print("Slope of log W1 on log N, and its standard error over seeds.\n")
    _table(at, ["m", "overlap", "attack", "rate"], [ORACLE, *METHODS], _slope)


def _slope(group: pd.DataFrame) -> str:
    values = group.pivot_table(index="seed", columns="n_rows", values="w1").dropna()
    if values.shape[1] < 2 or len(values) < 2:
        return "-"
    slopes = np.polyfit(np.log(values.columns.to_numpy(float)), np.log(values.to_numpy().T), 1)[0]
    return f"{slopes.mean():.2f} ± {slopes.std(ddof=1) / np.sqrt(len(slopes)):.2f}"


def print_equality(lines: pd.DataFrame) -> None:
    """How far the oracle is from the pooled fit, and how often the filters' results are the oracle's."""
    pooled = lines[(lines["method"] == POOLED) & lines["start"].isin([TRUTH, PILOTS])]
    print_text(
        "The oracle (reduction of the honest estimates) beside the pooled fit to the rows of the same machines: W1 "
        "between the two over W1 of the pooled fit to the truth; W1 of the oracle over that of the pooled fit."
    )
    rows = []
    for key, group in pooled[pooled["rate"].isin([0.0, pooled["rate"].max()])].groupby(
        ["start", "m", "n_rows", "overlap", "rate"]
    ):
        apart, over = group["from_oracle"] / group["w1"], group["oracle_w1"] / group["w1"]
        rows.append([*key, f"{apart.mean():.3f}", f"{over.mean():.3f} / {over.max():.3f}"])
    header = ["start", "m", "N", "overlap", "rate", "apart", "oracle / pooled, mean / largest"]
    print_table(header, rows)
    print(
        "Share of draws in which a filter keeps exactly the honest machines, so that its result is the oracle.\n"
    )
    decided = lines[lines["method"].isin([*FILTERS, MR]) & (lines["start"] != EARLY)]
    exact = (decided["honest_kept"] == 1) & ~(decided["bad_kept"] > 0)
    _table(
        decided.assign(exact=exact),
        ["start", "m", "attack", "rate"],
        [*FILTERS, MR],
        lambda group: "-" if group.empty else f"{group['exact'].mean():.0%}",
    )


def print_kept(lines: pd.DataFrame) -> None:
    """Shares of honest and of bad machines that were kept."""
    print("Machines kept, honest / bad, over all overlaps and sizes.\n")
    decided = lines[lines["method"].isin([*FILTERS, MR])]
    _table(decided, ["attack", "rate"], [*FILTERS, MR], _shares_kept)


def _shares_kept(group: pd.DataFrame) -> str:
    if group.empty:
        return "-"
    bad = group["bad_kept"].dropna()
    return f"{group['honest_kept'].mean():.1%} / {'-' if bad.empty else f'{bad.mean():.1%}'}"


def print_other_measures(lines: pd.DataFrame) -> None:
    """ARI of labels, and loss of held-out log-likelihood."""
    most = lines[lines["rate"].isin([0.0, lines["rate"].max()])]
    keys = ["overlap", "attack", "rate"]
    print("Adjusted Rand index of the labels of held-out rows, mean over sizes and seeds.\n")
    _table(most, keys, [ORACLE, *METHODS], lambda g: f"{g['ari'].mean():.3f}" if len(g) else "-")
    print("Held-out log-likelihood below the oracle's, in thousandths of a nat a row, mean.\n")
    _table(most, keys, METHODS, _loss)


def _loss(group: pd.DataFrame) -> str:
    if group.empty:
        return "-"
    loss = 1e3 * (group["oracle_log_likelihood"] - group["log_likelihood"]).mean()
    return f"{loss:.2f}" if abs(loss) < 100 else f"{loss:.0f}" if loss < 1e6 else f"{loss:.0e}"


# -- what it costs, and what starts change -----------------------------------------------------------


def print_cost(found: Sequence[dict[str, Any]]) -> None:
    """The number of seeds of every setting, and CPU seconds in all."""
    cells = pd.DataFrame([result["cell"] | {"seconds": result["seconds"]} for result in found])
    keys = ["start", "m", "n_rows", "overlap"]
    rows = [
        [*key, len(group), f"{group['seconds'].mean():.1f}"] for key, group in cells.groupby(keys)
    ]
    print(f"CPU seconds of all tasks: {cells['seconds'].sum():.0f}.\n")
    print_table([*keys, "seeds", "CPU seconds a seed"], rows)


def print_seconds(found: Sequence[dict[str, Any]], lines: pd.DataFrame) -> None:
    """CPU seconds of local fits, of the aggregation, and of the pooled fit, medians over draws."""
    fits = pd.DataFrame([result["cell"] | result["fits"] for result in found])
    keys = ["start", "m", "n_rows", "overlap"]
    timed = lines[lines["seconds"].notna()]
    methods = [DEFAULT, HARDENED, TRIM, REFINED, POOLED]
    rows = []
    for key, group in fits.groupby(keys):
        here = timed[(timed[keys] == list(key)).all(axis=1)]
        of_methods = [here[here["method"] == name]["seconds"].median() for name in methods]
        numbers = [group["slowest"].median(), group["all"].median(), *of_methods]
        rows.append([*key, *("-" if np.isnan(n) else f"{n:.3f}" for n in numbers)])
    print(
        "CPU seconds, medians over draws. Local fits: of the slowest machine, and of all machines.\n"
    )
    print_table([*keys, "slowest fit", "all fits", *methods], rows)


def print_starts(lines: pd.DataFrame) -> None:
    """Oracle and pooled fit without an attack, from each other start beside the truth in the same draws."""
    clean = lines[(lines["rate"] == 0) & lines["method"].isin([ORACLE, POOLED])]
    keys = ["m", "n_rows", "overlap"]
    w1 = clean.pivot_table(index=[*keys, "seed"], columns=["start", "method"], values="w1")
    print("Mean W1 without an attack, by the start of the local fits, each over the same draws.\n")
    rows = []
    for start in sorted(set(w1.columns.get_level_values("start")) - {TRUTH}):
        for key, group in w1[[start, TRUTH]].dropna().groupby(keys):
            means = [
                f"{group[at, name].mean():.4f}"
                for name, at in product((ORACLE, POOLED), (start, TRUTH))
            ]
            rows.append([start, *key, len(group), *means])
    header = [f"{name}, {at}" for name, at in product((ORACLE, POOLED), ("this start", TRUTH))]
    print_table(["start", *keys, "seeds", *header], rows)


def print_unscaled(lines: pd.DataFrame) -> None:
    """The covariance attack of the paper beside that of the published scripts, in the same draws."""
    of_scripts = lines[lines["attack"] == UNSCALED]
    if of_scripts.empty:
        return
    draws = of_scripts[DRAW].drop_duplicates()
    of_paper = lines[lines["attack"] == "covariance"].merge(draws, on=DRAW)
    seeds = draws["seed"].nunique()
    title = "The covariance attack with and without d^-2: W1 over the oracle's, mean / largest"
    print(f"{title}; {seeds} seeds.\n")
    both = pd.concat([of_paper, of_scripts])
    _table(both, ["overlap", "attack", "rate"], METHODS, lambda g: mean_and_most(g["over"]))
