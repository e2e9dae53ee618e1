"""results/peers.csv -> the Markdown tables of the benchmarks' README: the last session of each configuration.

`python -m benchmarks.peers.table` prints them; `--into FILE` writes them between the marks `<!-- peers -->` and
`<!-- /peers -->` of a Markdown file.
"""

import argparse
import csv
from pathlib import Path

from benchmarks.common import RESULTS

__all__ = ["coreset_table", "main_table", "sentence"]

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
NOT_MEASURED = "–"

Row = dict[str, str]


def main() -> None:
    """Print the tables or put them into a file."""
    parser = argparse.ArgumentParser(description="Markdown tables of results/peers.csv.")
    parser.add_argument("--into", type=Path, help=f"Markdown file with the marks {BEGIN} and {END}")
    args = parser.parse_args()
    parts = []
    rows = _read("peers")
    if rows:
        parts += [sentence(rows), main_table(rows)]
    if coreset := _read("peers_coreset"):
        parts.append(coreset_table(coreset))
    text = "\n\n".join(parts)
    if args.into is None:
        print(text)
        return
    before, mark, rest = args.into.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"{args.into} has no marks {BEGIN} and {END}. Put them where the tables shall be.")
    args.into.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def sentence(rows: list[Row]) -> str:
    """Return when, where and with what the rows were measured."""
    last = rows[-1]
    return f"{last['date']}, {last['machine']}; {last['versions']}; {last['peer_versions']}."


def main_table(rows: list[Row]) -> str:
    """Return a table with a row a system, grouped by configuration; in brackets how many times ours it is."""
    header = ("", "fit s", "fit s, memory kept", "fit MB", "score ms", "pictures/s", "first score s", "MB installed")
    header += ("image / pixel AUROC",)
    lines = [_line(header), _line(["---"] + ["--:"] * (len(header) - 1))]
    for backbone, data in dict.fromkeys((row["backbone"], row["data"]) for row in rows):
        group = [row for row in rows if (row["backbone"], row["data"]) == (backbone, data)]
        group = [row for row in group if row["session"] == group[-1]["session"]]
        ours = next(row for row in group if row["system"] == "ours")
        size = f"{int(ours['pictures'])} pictures, bank of {int(ours['bank']):,}"
        lines.append(_line([f"**{backbone}, {data}**: {size}"] + [""] * (len(header) - 1)))
        lines += [_line(_cells(row, ours)) for row in group]
    return "\n".join(lines)


def coreset_table(rows: list[Row]) -> str:
    """Return the coreset alone: ours to the end, anomalib's loop extrapolated."""
    rows = [row for row in rows if row["session"] == rows[-1]["session"]]
    first, peer = rows[0], rows[-1]
    lines = [
        f"The coreset alone, {int(first['chosen']):,} of {int(first['patches']):,} patches ({first['backbone']}, "
        f"{first['data']}); anomalib's loop extrapolated from its first {peer['selections_timed']} selections:",
        "",
        _line(("", "dimensions", "ms a selection", "s", "times ours")),
        _line(("---", "--:", "--:", "--:", "--:")),
    ]
    for row in rows:
        name = row["system"] + (", memory kept" if row["memory_kept"] == "True" else "")
        each, whole = _number(1000 * float(row["selection_s"])), _number(row["coreset_s"])
        lines.append(_line((name, row["dimensions"], each, whole, _number(row["times"]))))
    return "\n".join(lines)


def _cells(row: Row, ours: Row) -> list[str]:
    about = "about " if row["fit_extrapolated"] == "True" else ""
    installed = float(row["installed_mb"]) / float(ours["installed_mb"])
    return [
        row["system"],
        about + _with(row, "fit_s", row["fit_times"]),
        _with(row, "fit_kept_s", float(row["fit_kept_s"] or 0) / float(ours["fit_s"])),
        _with(row, "fit_peak_mb", float(row["fit_peak_mb"]) / float(ours["fit_peak_mb"])),
        _with(row, "latency_ms", row["latency_times"]),
        _with(row, "pictures_per_s", 1 / float(row["rate_times"])),
        _with(row, "first_score_s", row["first_score_times"]),
        _with(row, "installed_mb", installed),
        f"{_percent(row['image_auroc'])} / {_percent(row['pixel_auroc'])}",
    ]


def _with(row: Row, column: str, times: str | float) -> str:
    """Return a value, and in brackets how many times ours it is."""
    if not row[column]:
        return NOT_MEASURED
    shown = _number(row[column])
    return shown if row["system"] == "ours" else f"{shown} ({_number(times)}x)"


def _number(value: str | float) -> str:
    number = float(value)
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f}" if value else NOT_MEASURED


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _read(name: str) -> list[Row]:
    path = RESULTS / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
