"""Write the generated pages of the docs: `python docs/generate.py` makes reference/cli.md and reference/settings.md.

The commands' own parsers, and the signatures and docstrings of the detectors, are the source; a test compares.
"""

import argparse
import inspect
import re
from pathlib import Path

from totalrecall import SPADE, PaDiM, PatchCore
from totalrecall.cli import build_parser
from totalrecall.system.files import atomic_write

HERE = Path(__file__).resolve().parent
DETECTORS = (PatchCore, PaDiM, SPADE)


def cli_reference() -> str:
    """Return reference/cli.md. Not `format_help`, whose layout differs from one Python to the next."""
    lines = ["# Commands", "", "Made by `python docs/generate.py` from what `--help` shows; a test compares.", ""]
    for name, parser in _parsers(build_parser(), "totalrecall"):
        lines += [f"## {name}", "", (parser.description or "").replace("\n", " "), ""]
        rows = [_row(action) for action in parser._actions if action.help != argparse.SUPPRESS]
        lines += ["| argument | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def settings_reference() -> str:
    """Return reference/settings.md: every setting, its keyword in Python, its option of `fit`, its default."""
    lines = [
        "# Settings",
        "",
        "Made by `python docs/generate.py` from the detectors' signatures; a test compares.",
        "",
        "Every setting has a default that needs no thought. In Python a setting is a keyword of the detector; on the",
        "command line it is an option of `fit` (`benchmark` has the same options, `audit` some of them).",
        "",
    ]
    options = _fit_options()
    for detector in DETECTORS:
        meanings = _documented_arguments(detector)
        lines += [
            f"## {detector.__name__}",
            "",
            "| keyword | option | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for name, parameter in inspect.signature(detector).parameters.items():
            option = f"`{options[name]}`" if name in options else "Python only"
            default = str(parameter.default).replace("(2, 3)", "2 3")
            meaning = meanings.get(name, "as for PatchCore" if detector is not PatchCore else "")
            lines.append(f"| `{name}` | {option} | `{default}` | {_cell(meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _fit_options() -> dict[str, str]:
    """Return the long option of `fit` for each keyword."""
    (fit,) = (parser for name, parser in _parsers(build_parser(), "totalrecall") if name == "totalrecall fit")
    return {action.dest: action.option_strings[-1] for action in fit._actions if action.option_strings}


def _documented_arguments(detector: type) -> dict[str, str]:
    """Return what the docstring of a class says of each keyword."""
    text = inspect.getdoc(detector) or ""
    section = text.partition("\nArgs:\n")[2]
    entries = re.split(r"\n    (?=[\w, ]+: )", "\n" + section.split("\n\n")[0])
    return {name: " ".join(meaning.split()) for name, _, meaning in (entry.partition(": ") for entry in entries[1:])}


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return f"| `{action.metavar}` | one of: {', '.join(action.choices)} |"
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    names = ", ".join(action.option_strings)
    if names and action.nargs == 0:
        shown = names
    else:
        shown = f"{names} {value}{' ...' if action.nargs == '+' else ''}".strip()
    meaning = (action.help or "").replace("%(default)s", str(action.default))
    return f"| `{shown}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    """Return a text as a cell of a table: no column ends in it, and no bracket begins a link."""
    return text.replace("|", "/").replace("[", r"\[")


def _parsers(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    found = [(name, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, child in action.choices.items():
                found += _parsers(child, f"{name} {command}")
    return found


PAGES = {"reference/cli.md": cli_reference, "reference/settings.md": settings_reference}

if __name__ == "__main__":
    for name, page in PAGES.items():
        atomic_write(HERE / name, page().encode())
