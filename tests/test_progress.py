"""Progress: stages by name and their counts, what is drawn of them, and that nothing is left behind."""

from __future__ import annotations

import io
import logging
import sys
import threading

import dask
import pytest
from rich.console import Console

from dask_dfmr import GaussianMixture, attacks, select_components
from dask_dfmr.on_dask.scheduling.builder import GraphBuilder
from dask_dfmr.on_dask.scheduling.cluster import Cluster
from dask_dfmr.on_dask.scheduling.scheduler import ClusterScheduler, HeldTasks, LocalScheduler
from dask_dfmr.progress import bars, lines, stages
from dask_dfmr.progress.choice import progress_for
from dask_dfmr.progress.stages import SILENT, Progress, Stage, Unseen, in_words
from tests.data_makers import make_ddf

N = 5


class Recorder(Unseen):
    """Keeps what it is told, in place of showing it."""

    def __init__(self):
        self.opened = self.closed = 0
        self.told, self.said = [], []

    def open(self):
        self.opened += 1

    def close(self):
        self.closed += 1

    def tell(self, stage):
        self.told.append((stage.label, stage.done, stage.total))

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def all_shown(monkeypatch):
    """As if every stage took long."""
    monkeypatch.setattr(lines, "LEAST_TIME_SHOWN", 0.0)
    monkeypatch.setattr(bars, "LEAST_TIME_SHOWN", 0.0)


def fits(indices):
    g = GraphBuilder()
    scale = g.add("pilot_scale", 0, int, 1)
    return g, [g.add("fit_partition", i, pow, i, scale) for i in indices]


def total_of(held):
    g = GraphBuilder()
    return g, [g.add("sum", 0, sum, [task.argument for task in held.tasks])]


def report_each(held):
    g = GraphBuilder()
    return g, [g.add("report_rows", i, abs, task.argument) for i, task in enumerate(held.tasks)]


def read_again(scheduler, n):
    """Hold tasks as a Reader does."""

    def build(indices):
        g = GraphBuilder()
        return g, [g.add("check_statistics", i, abs, i) for i in indices]

    with scheduler.progress.during("refining"):
        scheduler.hold_each(build, range(n))


class TestStage:
    def test_words(self, monkeypatch):
        monkeypatch.setattr(stages.time, "monotonic", lambda: 30.0)
        stage = Stage("fitting partitions", total=25, done=5, began=10.0)
        assert stage.elapsed == 20.0
        assert stage.left == 80.0
        assert str(stage) == "fitting partitions: 5 of 25 after 20.0 s, about 1 min 20 s left"
        stage.done, stage.ended = 25, 12.5
        assert str(stage) == "fitting partitions: 25 of 25 in 2.5 s"

    def test_before_the_first_task_is_done(self):
        assert Stage("x", 3).left is None
        assert Stage("x", 3).elapsed == 0.0

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.04, "0.0 s"), (59.94, "59.9 s"), (125, "2 min 5 s"), (3840, "1 h 4 min")],
    )
    def test_durations(self, seconds, text):
        assert in_words(seconds) == text


class TestCounts:
    def expected(self, n_last):
        return [
            ("fitting partitions", N, N),
            ("aggregating", n_last, n_last),
            ("refining", 3, 3),
            ("refining (2)", 3, 3),
        ]

    def test_on_a_local_scheduler(self, recorder):
        scheduler = LocalScheduler(Progress(recorder))
        with dask.config.set(scheduler="synchronous"), scheduler.session():
            steps = scheduler.in_steps()
            held = HeldTasks(steps, fits, range(N))
            assert steps.conclude(lambda: total_of(held), held) == [10]
            read_again(scheduler, 3)
            read_again(scheduler, 3)
        assert recorder.told == self.expected(2)  # the sum, and the task that packs the results
        assert (recorder.opened, recorder.closed) == (1, 1)

    def test_the_aggregation_is_told_of_when_fits_have_ended(self, recorder, monkeypatch):
        monkeypatch.setattr(stages, "LINE_EVERY", 0.0)
        scheduler = LocalScheduler(Progress(recorder))
        with dask.config.set(scheduler="synchronous"), scheduler.session():
            steps = scheduler.in_steps()
            held = HeldTasks(steps, fits, range(N))
            steps.conclude(lambda: report_each(held), held)
        fitted = [("fitting partitions", i + 1, N) for i in range(N)]
        assert recorder.told[:N] == fitted
        assert recorder.told[-1] == ("aggregating", N + 1, N + 1)

    def test_on_a_cluster(self, recorder, client):
        scheduler = ClusterScheduler(Cluster(client), Progress(recorder))
        with scheduler.session():
            held = HeldTasks(scheduler, fits, range(N))
            assert scheduler.conclude(lambda: total_of(held), held) == [10]
            read_again(scheduler, 3)
            read_again(scheduler, 3)
        assert [told for told in recorder.told if told[1] == told[2]] == self.expected(1)
        assert (recorder.opened, recorder.closed) == (1, 1)

    def test_a_failing_computation_closes_what_it_opened(self, recorder):
        progress = Progress(recorder)
        with pytest.raises(KeyboardInterrupt), progress.session(), progress.session():
            raise KeyboardInterrupt
        assert (recorder.opened, recorder.closed) == (1, 1)

    def test_a_long_stage_has_lines_on_the_way(self, recorder, monkeypatch):
        monkeypatch.setattr(stages, "LINE_EVERY", 0.0)
        progress = Progress(recorder)
        with progress.session():
            progress.expect("fitting partitions", 3)
            for _ in range(3):
                progress.advance("fitting partitions")
        assert [done for _, done, _ in recorder.told] == [1, 2, 3]


class TestChoice:
    def test_nothing_by_default(self):
        assert progress_for(0) is SILENT
        assert not SILENT.is_active

    def test_the_log_has_the_stages_of_a_quiet_fit(self, caplog, capsys):
        with caplog.at_level(logging.INFO, logger="dask_dfmr"):
            GaussianMixture(2, random_state=0).fit(make_ddf(N))
        assert f"fitting partitions: {N} of {N} in " in caplog.text
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("has_rich", [True, False])
    def test_lines_where_there_is_no_terminal_or_no_rich(
        self, has_rich, all_shown, capsys, monkeypatch
    ):
        if not has_rich:
            monkeypatch.setitem(sys.modules, "rich.console", None)
        GaussianMixture(2, random_state=0, verbose=1, refine=1).fit(make_ddf(N))
        out, err = capsys.readouterr()
        assert out == ""
        for stage in ("fitting pilots", "fitting partitions", "aggregating", "refining"):
            assert err.count(f"{stage}: ") == 1
        assert err.splitlines()[-1].startswith(f"{N} of {N} partitions kept")

    def test_a_quick_fit_says_its_result_only(self, capsys, monkeypatch):
        monkeypatch.setattr(lines, "LEAST_TIME_SHOWN", 1e6)
        GaussianMixture(2, random_state=0, verbose=1).fit(make_ddf(N))
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_a_selection(self, all_shown, capsys):
        select_components(GaussianMixture(random_state=0, verbose=1), make_ddf(N), [1, 2])
        err = capsys.readouterr().err
        assert f"fitting pilots: {2 * N} of {2 * N}" in err
        assert f"comparing candidates: {N} of {N}" in err

    def test_a_stress_test(self, all_shown, capsys):
        gm = GaussianMixture(2, random_state=0).fit(make_ddf(N))
        attacks.stress_test(gm, "mean", [0, 0.2], methods=["mr"], verbose=1, random_state=0)
        assert "corrupting sources: 2 of 2" in capsys.readouterr().err
        attacks.stress_test(gm, "mean", 0.2, methods=["mr"], random_state=0)
        assert capsys.readouterr() == ("", "")


class TestBars:
    def console(self):
        return Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)

    def drawn(self, n=3):
        console = self.console()
        progress = Progress(bars.Bars(console))
        with progress.session():
            progress.expect("fitting [partitions]", n)
            for _ in range(n):
                progress.advance("fitting [partitions]")
        return console.file.getvalue()

    def test_drawn(self, all_shown):
        text = self.drawn()
        assert "fitting [partitions]" in text
        assert "3 of 3" in text

    def test_nothing_is_drawn_of_a_quick_computation(self):
        text = self.drawn()
        assert "fitting" not in text
        assert "\n" not in text

    def test_no_thread_is_left_behind(self, all_shown):
        before = set(threading.enumerate())
        self.drawn()
        left = set(threading.enumerate()) - before
        for thread in left:
            thread.join(timeout=5)
        assert not any(thread.is_alive() for thread in left)

    def test_only_one_computation_draws_at_a_time(self, all_shown):
        console = self.console()
        outer = Progress(bars.Bars(console))
        with outer.session():
            assert "fitting" not in self.drawn()
        # The lines of the other one are written above the bars.
        assert "fitting [partitions]: 3 of 3" in console.file.getvalue()
        assert "3 of 3" in self.drawn()

    def test_a_sentence_is_not_markup(self):
        console = self.console()
        bars.Bars(console).say("column [bold]")
        assert console.file.getvalue() == "column [bold]\n"
