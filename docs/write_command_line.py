"""Write ``docs/reference/command-line.md`` from the commands themselves: ``python docs/write_command_line.py``."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path
from textwrap import fill

import click

from dask_dfmr.cli.app import COMMANDS, app
from dask_dfmr.cli.exits import MEANINGS
from dask_dfmr.cli.options import WITHOUT_OPTION, parameter_options
from dask_dfmr.cli.schema import ENVELOPE, RESULTS, Key
from dask_dfmr.parameters import PARAMETERS

PAGE = Path(__file__).parent / "reference" / "command-line.md"

INTRODUCTION = """# Command line

`python docs/write_command_line.py` writes this page from the commands. `dask-dfmr COMMAND --help` prints the same text.
[Use the command line](../how-to/command-line.md) shows the commands at work.
"""

PARAMETERS_OF_FITS = """## Parameters of a fit

`fit`, `select` and `stress` take these options, and `fit-local` and `aggregate` some of them. They are the parameters
of [`GaussianMixture`](api.md), which has more about each. A value that a parameter does not allow is
refused before anything is read (exit code 64). `none`, `true` and `false` are Python's `None`, `True` and `False`.
"""

JSON = """## JSON

With `--json` a command writes one object to stdout, and nothing else. Progress, warnings and hints are on stderr.
Errors are objects, too. Numbers that are not finite are `null`.
"""

COMMON = ("as_json", "quiet", "debug")


def options_table(options: list[click.Option]) -> str:
    """One row per option."""
    rows = [f"| {usage_of(option)} | {about(option)} |" for option in options]
    return "\n".join(["| option | meaning |", "|---|---|", *rows, ""])


def usage_of(option: click.Option) -> str:
    """The names of an option, and what follows."""
    names = ", ".join(option.opts)
    value = "" if option.is_flag else option.metavar or "VALUE"
    if isinstance(option.type, click.Choice):
        value = "{" + ",".join(map(str, option.type.choices)) + "}"
    return f"`{names} {value}`".replace(" `", "`").replace("|", "\\|")


def about(option: click.Option) -> str:
    """The meaning of an option, and its default if the help shows it."""
    default = f" Default: {option.default}." if option.show_default else ""
    return f"{option.help}{default}".replace("|", "\\|")


def keys_table(keys: dict[str, Key]) -> str:
    """One row per key of a JSON object."""
    rows = [f"| `{name}` | {key.kind} | {key.about} |" for name, key in keys.items()]
    return "\n".join(["| key | type | meaning |", "|---|---|---|", *rows, ""])


def description(text: str) -> str:
    """The text of a command, with its examples as code."""
    words, _, examples = cleandoc(text).partition("\b\n")
    code = "\n".join(line.strip() for line in examples.splitlines()[1:])
    return f"{words.strip()}\n\n```sh\n{code}\n```\n"


def parameter_list() -> list[click.Option]:
    """The options of all parameters that have one."""

    @parameter_options(name for name in PARAMETERS if name not in WITHOUT_OPTION)
    def nothing() -> None: ...

    return [p for p in click.command()(nothing).params if isinstance(p, click.Option)]


def section(name: str) -> str:
    """One command: what it does, its own options and the keys of its result."""
    command = app.get_command(click.Context(app), name)
    assert command is not None
    arguments = [
        p.make_metavar(click.Context(command))
        for p in command.params
        if isinstance(p, click.Argument)
    ]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in COMMON]
    of_fits = {option.name for option in parameter_list()}
    own = [option for option in options if option.name not in of_fits]
    n_parameters = len(options) - len(own)
    parts = [
        f"## `dask-dfmr {name}`",
        "",
        f"`dask-dfmr {name} [OPTIONS] {' '.join(arguments)}`",
        "",
    ]
    parts += [description(command.help or ""), options_table(own)]
    if n_parameters:
        those = ", ".join(f"`{o.opts[-1]}`" for o in options if o not in own)
        what = "all" if n_parameters > 15 else those
        text = f"Besides, of the [parameters of a fit](#parameters-of-a-fit): {what}."
        parts += [fill(text, 120, break_on_hyphens=False, break_long_words=False), ""]
    parts += ["Keys of `result`:", "", keys_table(RESULTS[name])]
    return "\n".join(parts)


def command_line_page() -> str:
    """The whole page."""
    codes = [f"| {code.value} | {text} |" for code, text in MEANINGS.items()]
    fit = app.get_command(click.Context(app), "fit")
    assert fit is not None
    common = [p for p in fit.params if isinstance(p, click.Option) and p.name in COMMON]
    commands = [
        f"| [`{name}`](#dask-dfmr-{name}) | {entry.about} |" for name, entry in COMMANDS.items()
    ]
    return "\n".join(
        [
            INTRODUCTION,
            "\n".join(["| command | what it does |", "|---|---|", *commands, ""]),
            "Every command has these options:",
            "",
            options_table(common),
            "## Exit codes",
            "",
            "\n".join(["| code | meaning |", "|---|---|", *codes, ""]),
            JSON,
            keys_table(ENVELOPE),
            *(section(name) for name in COMMANDS),
            PARAMETERS_OF_FITS,
            options_table(parameter_list()),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(command_line_page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
