"""Write the generated part of the docs: `python docs/generate.py` makes docs/cli.md from the commands' own parsers."""

import argparse
from pathlib import Path

from totalrecall.cli import build_parser
from totalrecall.files import atomic_write

HERE = Path(__file__).resolve().parent


def cli_reference() -> str:
    """Return docs/cli.md. Not `format_help`, whose layout differs from one Python to the next."""
    lines = ["# Commands", "", "Made by `python docs/generate.py` from what `--help` shows; a test compares.", ""]
    for name, parser in _parsers(build_parser(), "totalrecall"):
        lines += [f"## {name}", "", (parser.description or "").replace("\n", " "), ""]
        rows = [_row(action) for action in parser._actions if action.help != argparse.SUPPRESS]
        lines += ["| argument | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return f"| `{action.metavar}` | one of: {', '.join(action.choices)} |"
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    names = ", ".join(action.option_strings)
    if names and action.nargs == 0:
        shown = names
    else:
        shown = f"{names} {value}{' ...' if action.nargs == '+' else ''}".strip()
    return f"| `{shown}` | {(action.help or '').replace('%(default)s', str(action.default)).replace('|', '/')} |"


def _parsers(parser: argparse.ArgumentParser, name: str) -> list[tuple[str, argparse.ArgumentParser]]:
    found = [(name, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, child in action.choices.items():
                found += _parsers(child, f"{name} {command}")
    return found


if __name__ == "__main__":
    atomic_write(HERE / "cli.md", cli_reference().encode())
