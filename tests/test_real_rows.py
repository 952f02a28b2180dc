"""What ``benchmarks/real_rows.py`` draws and counts: bad partitions are bad, and figures are those of the fits."""

import numpy as np
import pytest

from tests.benchmark_scripts import benchmark_script

with benchmark_script("real_rows") as script:
    from row_families import FAMILIES, KINDS, bad_ones, damaged


def moments(rows):
    return np.concatenate([rows.mean(0), rows.std(0)])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_changes_every_family(family, kind):
    rng = np.random.default_rng(0)
    rows, again, other = (family.rows(rng, 4000, is_other) for is_other in (False, False, True))
    before = rows.copy()
    changed = damaged(kind, rows, other)
    assert np.array_equal(rows, before)
    scale = np.tile(rows.std(0), 2)
    by_chance, by_damage = (np.abs(moments(x) - moments(rows)) / scale for x in (again, changed))
    # Only the correlation differs in the other population of correlated columns.
    if (family.name, kind) != ("correlated", "other"):
        assert by_damage.max() > max(0.15, 2 * by_chance.max())


def test_a_fifth_is_bad_and_at_least_one():
    rng = np.random.default_rng(0)
    assert [len(set(bad_ones(m, rng))) for m in (2, 5, 10, 40)] == [1, 1, 2, 8]


def found(**changes):
    plain = {"n_good": 32, "n_excluded": 0, "n_bad": 8, "n_kept": 0, "is_said": False}
    return script.Found("default", **(plain | {"warned": frozenset()} | changes))


class TestFigures:
    def test_one_of_forty_is_not_many(self):
        assert not found(n_good=8, n_excluded=1).is_silent
        assert found(n_good=40, n_excluded=2).is_silent
        assert not found(n_good=40, n_excluded=2, is_said=True).is_silent

    def test_a_warning_about_the_optimum_says_nothing_about_partitions(self):
        kept = np.ones(2, dtype=bool)
        said = [
            script.Result(None, kept, frozenset(names)).is_said
            for names in (["OptimumWarning", "ConvergenceWarning"], ["FilterWarning"])
        ]
        assert said == [False, True]

    def test_kept_bad_ones_are_counted_by_what_they_cost(self):
        of = [found(n_kept=8, lost=0.2), found(n_kept=2, lost=0.2, is_said=True), found(n_kept=1)]
        assert script.kept_cell(of) == "11/24, 10 visible, 8 silent"
        assert script.kept_cell([found()]) == "0/8"


def test_one_draw_from_the_rows_to_the_table(monkeypatch, capsys):
    monkeypatch.setitem(script.SIZES, 120, 8)
    jobs = [script.Job("grid", 120, "x1000", script.COMPARED, ("default", "rho=1.3"))]
    script.print_results(script.followed(map(script.measure, jobs), 1))
    (kept, *_) = [line for line in capsys.readouterr().out.splitlines() if "| grid" in line]
    assert [cell.strip() for cell in kept.split("|")[1:-1]] == ["grid", "8 x 120", "0/2", "0/2"]


def test_constant_columns_and_few_partitions():
    job = script.FewJob(4, "1,000; bad: 2 a parameter", "constant", (1, 3), 0)
    draw = job.draw()
    sizes = [len(rows) for rows in draw.partitions]
    (bad,) = draw.bad
    assert sizes[bad] == 18
    assert sorted(sizes) == [18, 1000, 1000, 1000]
    assert np.ptp(draw.partitions[bad], axis=0)[1:].tolist() == [0, 0]
    _, (default, _hardened), _ = script.measure_few(job)
    assert (default.n_bad, default.n_kept) == (1, 0)


@pytest.mark.slow
def test_the_quick_run_prints_every_part(capsys):
    script.main(["--quick", "--jobs", "1"])
    printed = capsys.readouterr().out
    for part in ("families", "tables", "few partitions, few rows", "CPU time, 40 x 2,000 rows"):
        assert f"## {part}\n" in printed
