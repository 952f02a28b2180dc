"""What the benchmark scripts write with ``--write``: their block of a page, and nothing else of it."""

import pytest

from tests.benchmark_scripts import benchmark_script

COMMAND = "benchmarks/speed.py --rows 5"


@pytest.fixture(scope="module")
def output():
    with benchmark_script("output") as script:
        yield script


@pytest.fixture(autouse=True)
def _no_thread_setting(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def block(command, text):
    begin, end = (f"<!-- written by {command}: {edge} -->" for edge in ("begin", "end"))
    return f"{begin}\n\n    python {command}\n\n{text}\n\n{end}\n"


class TestWriteBlock:
    def test_a_new_page_has_a_title(self, output, tmp_path):
        output.write_block(tmp_path / "speed.md", COMMAND, "| a |\n")
        assert (tmp_path / "speed.md").read_text() == "# speed.py\n\n" + block(COMMAND, "| a |")

    def test_the_same_command_replaces_its_block_only(self, output, tmp_path):
        page, other = tmp_path / "speed.md", block("benchmarks/speed.py", "| other |")
        page.write_text(f"# Title\n\nBefore.\n\n{other}\n{block(COMMAND, '| old |')}\nAfter.\n")
        output.write_block(page, COMMAND, "| new |")
        new = block(COMMAND, "| new |")
        assert page.read_text() == f"# Title\n\nBefore.\n\n{other}\n{new}\nAfter.\n"

    def test_another_command_adds_a_block_at_the_end(self, output, tmp_path):
        page = tmp_path / "speed.md"
        page.write_text(f"# Title\n\n{block(COMMAND, '| a |')}")
        output.write_block(page, "benchmarks/speed.py", "| b |")
        new = block("benchmarks/speed.py", "| b |")
        assert page.read_text() == f"# Title\n\n{block(COMMAND, '| a |')}\n{new}"

    def test_a_setting_of_threads_is_part_of_the_command(self, output, tmp_path, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        output.write_block(tmp_path / "speed.md", COMMAND, "| a |")
        assert f"\n    OMP_NUM_THREADS=1 python {COMMAND}\n" in (tmp_path / "speed.md").read_text()


class TestCommandLine:
    def test_no_folder_of_this_machine_is_in_it(self, output, tmp_path):
        (tmp_path / "python").touch()
        words = ["--data", str(tmp_path), "--write", "--peers-python", str(tmp_path / "python")]
        line = output.command_line("/somewhere/benchmarks/speed.py", words)
        assert line == "benchmarks/speed.py --data DIR --peers-python DIR/python"

    def test_words_with_spaces_are_quoted(self, output):
        assert output.command_line("speed.py", ["--kinds", "x 1000"]).endswith("--kinds 'x 1000'")


class TestRecorded:
    def run(self, output, tmp_path, monkeypatch, *words):
        monkeypatch.setattr(output, "RESULTS", tmp_path)
        monkeypatch.setattr("sys.argv", ["benchmarks/speed.py", *words])
        options = output.benchmark_parser("What it shows.").parse_args(list(words))
        with output.recorded(options):
            output.print_table(["n", "seconds"], [[5, 1.25]])
            output.print_lines(["worst: 1.3"])
            output.print_lines([])
            output.print_progress("done", 5)
        return tmp_path / "speed.md"

    def test_results_are_printed_and_nothing_written(self, output, tmp_path, monkeypatch, capsys):
        page = self.run(output, tmp_path, monkeypatch)
        printed = capsys.readouterr()
        assert printed.out.startswith("Machine: ")
        assert printed.out.endswith(
            "| n | seconds |\n| - | ------- |\n| 5 | 1.25    |\n\n```text\nworst: 1.3\n```\n\n"
        )
        assert printed.err == "done  5\n"
        assert not page.exists()

    def test_with_write_the_page_has_what_was_printed(self, output, tmp_path, monkeypatch, capsys):
        page = self.run(output, tmp_path, monkeypatch, "--write")
        printed = capsys.readouterr().out.strip()
        assert page.read_text() == "# speed.py\n\n" + block("benchmarks/speed.py", printed)

    def test_a_run_that_fails_writes_nothing(self, output, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(output, "RESULTS", tmp_path)
        options = output.benchmark_parser(None).parse_args(["--write"])
        with pytest.raises(ZeroDivisionError), output.recorded(options):
            _ = 1 / 0
        assert not list(tmp_path.iterdir())
