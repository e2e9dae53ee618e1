"""Write the generated pages of the docs: `python docs/generate.py`.

It makes reference/cli.md, reference/settings.md and the table in reference/station-access.md. The commands' own
parsers, the declarations of the settings and the table of permissions are the source; a test compares.
"""

import argparse
from pathlib import Path

from totalrecall.cli import build_parser
from totalrecall.patchcore.settings import JoinedSettings, Settings
from totalrecall.registry import SETTINGS, detector_class
from totalrecall.system.files import atomic_write
from totalrecall.system.settings import declared

HERE = Path(__file__).resolve().parent


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
        "Made by `python docs/generate.py` from the declarations of the settings; a test compares.",
        "",
        "Every setting has a default that needs no thought. In Python a setting is a keyword of the detector; on the",
        "command line it is an option of `fit` (`benchmark` has the same options, `audit` some of them).",
        "",
    ]
    for method, kind in {**SETTINGS, "joined": JoinedSettings}.items():
        name, known = detector_class(method).__name__, {}
        lines += [f"## {name}", ""]
        if method == "joined":
            known = declared(Settings)
            lines += [
                "Several memory banks, their scores joined to one. The other settings are those of `PatchCore`.",
                "",
            ]
        lines += ["| keyword | option | default | meaning |", "| --- | --- | --- | --- |"]
        for keyword, what in declared(kind).items():
            if what == known.get(keyword):
                continue
            option = f"`--{keyword.replace('_', '-')}`" if what.option else "Python only"
            default = str(what.default).replace("(2, 3)", "2 3")
            lines.append(f"| `{keyword}` | {option} | `{default}` | {_cell(what.sentences())} |")
        lines.append("")
    return "\n".join(lines)


def station_access() -> str:
    """Return reference/station-access.md: as it is, but for the table of who may call what."""
    try:
        from totalrecall.station.access.permissions import ANYONE, PERMISSIONS
        from totalrecall.station.store.records import ROLES
    except ImportError:  # without the extra [station]
        return STATION_ACCESS.read_text(encoding="utf-8")
    lines = [f"| route | {' | '.join(ROLES)} |", f"| --- |{' --- |' * len(ROLES)}"]
    for (method, path), roles in PERMISSIONS.items():
        cells = ["anybody"] * len(ROLES) if ANYONE in roles else ["yes" if role in roles else "" for role in ROLES]
        lines.append(f"| `{method} {path}` | {' | '.join(cells)} |".replace("{path:path}", "{path}"))
    before, _, rest = STATION_ACCESS.read_text(encoding="utf-8").partition("<!-- permissions -->\n")
    after = rest.partition("<!-- end -->")[2]
    return "\n".join([f"{before}<!-- permissions -->", *lines, f"<!-- end -->{after}"])


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return f"| `{action.metavar}` | one of: {', '.join(action.choices)} |"
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    names = ", ".join(action.option_strings)
    if names and action.nargs == 0:
        shown = names
    else:
        shown = f"{names} {value}{' ...' if action.nargs in ('+', '*') else ''}".strip()
    meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
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


STATION_ACCESS = HERE / "reference/station-access.md"
PAGES = {
    "reference/cli.md": cli_reference,
    "reference/settings.md": settings_reference,
    "reference/station-access.md": station_access,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        atomic_write(HERE / name, page().encode())
