"""`totalrecall info`: what a model file holds."""

import argparse
from typing import Any

from totalrecall.cli.common import check_target, human_bytes, print_table, write_json

__all__ = ["add_parser", "describe"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("info", help="what a model file holds", description="Print what a model file holds.")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--json", metavar="FILE", help="write the facts as JSON ('-' for stdout)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts as a table, or write them."""
    check_target("--json", args.json)
    facts = describe(args.model)
    if args.json:
        write_json(args.json, facts)
        if args.json == "-":
            return 0
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _words(name, value))
    print_table(table)
    return 0


def describe(path: str) -> dict[str, Any]:
    """Return the facts of a model file, in reading order."""
    from pathlib import Path

    from totalrecall.artifact import read_artifact
    from totalrecall.kinds import load_detector

    header, tensors = read_artifact(path)
    detector = load_detector(path)  # also proves that the file is whole
    calibration = detector.calibration_
    settings = dict(header["settings"])
    return {
        "model": path,
        "bytes": Path(path).stat().st_size,
        "kind": header["kind"],
        "format": header["format"],
        "written_by": f"totalrecall {header['library']}",
        "backbone": detector.backbone.name,
        "backbone_sha256": detector.backbone.sha256,
        "backbone_licence": detector.backbone.licence,
        "backbone_inside": "backbone.graph" in tensors,
        "prepared": header["recipe"],
        "region_of_interest": detector.recipe.roi is not None,
        "settings": {name: value for name, value in settings.items() if name != "backbone"},
        "training_pictures": len(detector.pictures_),
        **detector.facts(),
        "calibration_pictures": len(calibration.scores),
        "threshold": detector.threshold_,
        "pixel_threshold": detector.pixel_threshold_,
        "false_alarm_rate": calibration.rate,
        "guaranteed_rate": calibration.guaranteed_rate,
    }


def _words(name: str, value: Any) -> str:
    if name == "bytes":
        return human_bytes(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(key, item)}" for key, item in value.items() if item is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
