"""The page about a result: what it says, that it escapes everything, and that it works in a browser."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.exceptions import NotFittedError

import dask_dfmr.reporting.page as page_module
from dask_dfmr import (
    Aggregate,
    FilterDecision,
    GaussianMixture,
    LocalEstimate,
    Mixture,
    NoMajorityWarning,
    Outcome,
    PartitionDisplay,
    aggregate,
    fit_local,
    select_components,
)
from dask_dfmr.aggregation.result import Note
from dask_dfmr.reporting.facts import provenance_of, sha256_of
from dask_dfmr.reporting.page import report_page
from dask_dfmr.reporting.tables import explanation_rows, report_of
from dask_dfmr.reporting.verdict import verdict_of
from tests.data_makers import TRUTH, make_rows

pytest.importorskip("matplotlib")

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
END = "</script><script>alert(3)</script>"
NASTY = [
    SCRIPT,
    IMAGE,
    END,
    "'; alert(4); //",
    "{{ 7 * 7 }}",
    "$\\frac{",
    "汉字 \N{SNOWMAN}",
    "a\u2028b",
]


def nasty_frame() -> pd.DataFrame:
    """Rows of nine sources, the names of which attack a page; two of them are wrong."""
    parts = []
    for i in range(9):
        rows = make_rows(i, 150) * (10.0 if i == 2 else 1.0)
        rows = np.full_like(rows, -999) if i == 1 else rows
        name = f"{NASTY[i % len(NASTY)]}{i}"
        parts.append(pd.DataFrame(rows, columns=[SCRIPT, IMAGE]).assign(**{END: name}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> GaussianMixture:
    options = {"random_state": 0, "check_optimum": None, "on_failed": "ignore"}
    return GaussianMixture(2, source=END, refit_excluded=False, **options).fit(nasty_frame())


@pytest.fixture(scope="module")
def page(fitted, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    fitted.report(path, nasty_frame(), title=SCRIPT)
    return path


def many(n: int = 3000) -> Aggregate:
    """An aggregate of many estimates that was never computed."""
    rng = np.random.default_rng(0)
    ratios = np.sqrt(rng.chisquare(11, n) / 11)
    kept = rng.random(n) > 0.03
    ratios[~kept] *= 9
    p = np.where(kept, 0.5, 1e-9)
    z = np.cbrt(ratios**2)
    decision = FilterDecision(
        int(np.flatnonzero(kept)[0]), 1.0, "auto", ratios, ratios, kept,
        z_scores=z, p_values=p, sampling_ratios=ratios,
    )  # fmt: skip
    return Aggregate(TRUTH, decision, 0.0, 1, True)


def fitted_number(fitted: GaussianMixture, i: int) -> int:
    """The number of the source whose name ends with this one."""
    return int(np.flatnonzero(fitted.partition_report_["source"].str.contains(f"{i}['\"]$"))[0])


@cache
def estimates() -> list[LocalEstimate]:
    return [fit_local(make_rows(i, 100), 1, random_state=0) for i in range(4)]


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)


class TestPage:
    def test_it_has_no_elements_but_its_own(self, page):
        elements = Elements(page.read_text(encoding="utf-8"))
        tags = [tag for tag, _ in elements.found]
        assert tags.count("script") == 2
        assert not {
            "img",
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "foreignobject",
        } & set(tags)
        for tag, attributes in elements.found:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                if name in ("href", "xlink:href", "src"):
                    assert value.startswith(("#", "data:image/png;base64,")), (tag, value)

    def test_its_rows_are_the_report(self, page, fitted):
        text = next(s for s in Elements(page.read_text(encoding="utf-8")).scripts if s[0] == "{")
        data = json.loads(text)
        table = pd.DataFrame(data["rows"], columns=data["columns"]).set_index("partition")
        report = fitted.partition_report_
        assert table["source"].sort_index().tolist() == report["source"].tolist()
        assert table["state"].value_counts().to_dict() == {
            "kept": 7,
            "excluded": 1,
            "no estimate": 1,
        }
        assert not (table["state"].iloc[:2] == "kept").any()  # they come first

    def test_it_says_what_came_out_and_from_where(self, page, fitted):
        text = page.read_text(encoding="utf-8")
        assert "7 of 9 partitions are in the mixture: 1 is excluded and 1 has no usable" in text
        assert "all columns are 10 times as large" in text
        assert sha256_of(fitted.mixture_) in text
        for package in ("dask-dfmr", "numpy", "scikit-learn"):
            assert f"{package} " in text
        assert "<code>random_state=0</code>" in text
        assert text.count("<svg") == 3

    def test_the_digest_is_that_of_the_saved_mixture(self, fitted, tmp_path):
        fitted.mixture_.save(tmp_path / "m.json")
        content = (tmp_path / "m.json").read_bytes()
        assert sha256_of(fitted.mixture_) == hashlib.sha256(content).hexdigest()

    def test_3000_partitions_are_less_than_1_mb(self):
        found = many()
        report = report_of(found, found)
        sources = [f"s3://bucket/{'folder/' * 8}{i}.parquet" for i in range(3000)]
        seen = SimpleNamespace(
            aggregate_=found,
            mixture_=TRUTH,
            partition_report_=report.assign(source=sources, reason="far away " * 20),
        )
        text = report_page(seen)
        assert text.count("<svg") == 2
        assert len(text.encode()) < 1_000_000

    def test_each_excluded_partition_has_a_cause(self, fitted):
        rows, n_more = explanation_rows(fitted, fitted.aggregate_)
        assert [kind for _, _, kind, _ in rows] == ["unit", "degenerate"]
        assert [number for number, *_ in rows] == [fitted_number(fitted, i) for i in (2, 1)]
        assert "constant" in rows[1][3]
        assert n_more == 0

    def test_what_cannot_be_explained_has_its_reason(self):
        rows, n_more = explanation_rows(many(400), many(400))
        n = int((~many(400).decision.kept).sum())
        assert len(rows) + n_more == n
        assert "as far from the consensus" in rows[0][3]

    def test_without_matplotlib_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(page_module, "has_matplotlib", lambda: False)
        text = report_page(many(5))
        assert "<svg" not in text
        assert "dask-dfmr[plots]" in text

    def test_a_picture_that_fails_is_said_to_be_missing(self, monkeypatch):
        def fail(self, *arguments, **options):
            raise RuntimeError("no <ink>")

        monkeypatch.setattr(PartitionDisplay, "plot", fail)
        text = report_page(many(5))
        assert "could not be drawn: RuntimeError: no &lt;ink&gt;" in text
        assert "<svg" in text  # the other pictures

    def test_a_selection_has_its_candidates(self):
        X = [make_rows(i, 60) for i in range(4)]
        selection = select_components(GaussianMixture(random_state=0), X, [1, 2])
        text = report_page(selection)
        assert "<h2>Candidates</h2>" in text
        assert '<tr class="selected"><td class="number">2</td>' in text
        assert "* " in str(selection)

    def test_an_error_leaves_no_file(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            many(3).report(tmp_path / "nowhere" / "report.html")
        with pytest.raises(NotFittedError):
            GaussianMixture().report(tmp_path / "report.html")
        assert list(tmp_path.iterdir()) == []


class TestVerdict:
    def test_all_is_well(self):
        found = aggregate(estimates())
        assert verdict_of(found) == ("fine", "All 4 estimates are in the mixture.")

    def test_no_majority_is_the_worst(self):
        found = replace(many(9), notes=(Note(NoMajorityWarning, "two halves"),))
        assert verdict_of(found).level == "no majority"

    def test_what_has_no_estimate_is_counted_apart(self):
        lost = LocalEstimate(None, 3, Outcome.TOO_FEW_ROWS, "3 rows")
        found = aggregate([*estimates(), lost], warn_excluded=False)
        sentence = "4 of 5 estimates are in the mixture: 1 has no usable estimate."
        assert verdict_of(found) == ("excluded", sentence)


class TestReprs:
    def test_text_has_the_numbers(self, fitted):
        text = str(fitted)
        assert text.startswith("GaussianMixture(")
        assert "7 of 9 partitions are in the mixture" in text
        assert f"{fitted.weights_[0]:.4g}" in text
        assert str(GaussianMixture(2)) == repr(GaussianMixture(2))

    def test_html_escapes_names_and_keeps_the_diagram(self, fitted):
        html = fitted._repr_html_()
        assert "sk-container" in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        found = html[html.rindex("7 of 9 partitions") :]
        assert "<script>" not in found
        assert "<img" not in found
        assert fitted._repr_mimebundle_()["text/html"].endswith(fitted.mixture_._repr_html_())

    def test_plain_text_is_respected(self, fitted):
        with sklearn.config_context(display="text"):
            assert not hasattr(fitted, "_repr_html_")
            assert list(fitted._repr_mimebundle_()) == ["text/plain"]

    @pytest.mark.parametrize("source", NASTY)
    def test_a_source_is_escaped(self, source):
        html = LocalEstimate(TRUTH, 5000, source=source)._repr_html_()
        assert "5,000 rows" in html
        assert "<script" not in html
        assert "<img" not in html

    def test_many_components_and_columns_are_counted(self):
        m = Mixture(np.full(30, 1 / 30), np.zeros((30, 9)), np.ones(30), "spherical")
        assert "and 10 more components" in str(m)
        assert "and 4 more" in str(m).splitlines()[1]
        assert max(map(len, str(m).splitlines())) < 121

    def test_an_estimate_without_a_mixture_has_its_reason(self):
        lost = LocalEstimate(None, 3, Outcome.TOO_FEW_ROWS, "3 rows & <b>", partition=7)
        assert str(lost) == "Estimate of 3 rows of partition 7: too few rows\n3 rows & <b>"
        assert "3 rows &amp; &lt;b&gt;" in lost._repr_html_()


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    reason = "the page is opened in Chromium by playwright: pip install playwright"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(names)} is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Its sandbox needs rights that containers lack; the only page is the one made here.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page, and holds what it asked for and complained about."""
    contexts, heard = [], []

    def open_page(path: Path, width: int = 1280):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        view = context.new_page()
        for event in ("dialog", "pageerror", "console", "requestfailed"):
            view.on(event, lambda what, event=event: heard.append((event, str(what))))
        view.on("request", lambda r: None if r.url.startswith("file:") else heard.append(r.url))
        view.goto(path.as_uri())
        return view

    yield open_page
    for context in contexts:
        context.close()
    assert [h for h in heard if not str(h).startswith("data:")] == []


def column(view, name: str) -> list[str]:
    return view.locator(f"#table td.{name}").all_inner_texts()


class TestBrowser:
    def test_names_are_text(self, opened, page, fitted):
        view = opened(page)
        assert view.title() == SCRIPT
        assert view.locator("h1").inner_text() == SCRIPT
        assert sorted(column(view, "source"))[0] in set(fitted.partition_report_["source"])
        assert view.locator("img").count() == 0
        labels = view.locator("figure svg text").all_text_contents()
        assert any("alert(1)" in label for label in labels)

    def test_the_table_sorts_and_searches(self, opened, tmp_path):
        many().report(tmp_path / "many.html")
        view = opened(tmp_path / "many.html")
        assert len(column(view, "partition")) == 50
        assert view.locator("#found").inner_text() == "3,000 rows"

        heading = view.locator("#table th button", has_text="distance")
        heading.click()
        up = [float(v) for v in column(view, "distance")]
        assert up == sorted(up)
        heading.click()
        down = [float(v) for v in column(view, "distance")]
        assert down == sorted(down, reverse=True)
        assert down[0] > up[-1]

        view.locator("#next").click()
        assert view.locator("#where").inner_text() == "51 to 100 of 3,000"
        view.locator("#search").fill("excluded")
        states = set(column(view, "state"))
        assert states == {"◆ excluded"} or states == {"excluded"}
        n = int((~many().decision.kept).sum())
        assert view.locator("#found").inner_text() == f"{n} of 3,000 rows"
        view.locator("#search").fill("")
        view.locator("#state").select_option("kept")
        assert view.locator("#found").inner_text() == f"{3000 - n:,} of 3,000 rows"

    def test_it_fits_a_phone_and_paper(self, opened, page):
        view = opened(page, 390)
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        image = view.screenshot(full_page=True)
        assert image[:4] == b"\x89PNG"
        assert view.pdf(format="A4")[:4] == b"%PDF"
        view.emulate_media(media="print")
        assert not view.locator("#search").is_visible()


def test_facts_name_data_and_seed(fitted):
    facts = provenance_of(fitted, fitted.aggregate_)
    assert facts["rows"] == "1,350"
    assert facts["sources"].startswith("9: ")
    assert facts["seed"] == "0"
