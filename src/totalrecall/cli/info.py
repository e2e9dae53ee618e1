"""`totalrecall info`: what a model file holds."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from totalrecall.cli.common import check_target, emit, print_table, size_change, write_json
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.errors import SettingError
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from totalrecall.detectors.promise import Promise
    from totalrecall.registry import AnyDetector

__all__ = ["add_parser", "describe"]

_SCORES = "scores_of_good_pictures"
_HISTORY = "history"
_LEVELS = "thresholds"
_CAPABILITY = "capability"
_TUNING = "tuning"
_MEMBERS = "members"
_OF_BACKBONE = ("backbone_sha256", "backbone_licence")  # said once of one that all members share


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "info", help="show what a model file contains", description="Print what a model file contains."
    )
    parser.add_argument("model", metavar="MODEL", type=INPUT, help="file that `fit` or `export` wrote")
    parser.add_argument(
        "--parts-per-day",
        type=int,
        default=1000,
        metavar="N",
        help="good parts per day, to estimate the false alarms per day (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write the facts as JSON ('-' for stdout)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts as a table, or write them."""
    check_target("--json", args.json)
    if args.parts_per_day < 1:
        raise SettingError(f"--parts-per-day must be at least 1, got {args.parts_per_day}.")
    facts = describe(args.model, parts=args.parts_per_day)
    if args.json:
        write_json(args.json, facts)
        if args.json == "-":
            return 0
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if name == _LEVELS:
            for level in value:
                table.add_row(f"threshold at {level['false_alarm_rate']:.0%}", _level(level))
        elif name == _MEMBERS:
            for at, member in enumerate(value, start=1):
                told = {key: item for key, item in member.items() if key not in _OF_BACKBONE or key not in facts}
                table.add_row(f"member {at}", _words(name, told))
        elif name not in (_SCORES, _HISTORY, _CAPABILITY, _TUNING):
            table.add_row(name.replace("_", " "), _words(name, value))
    print_table(table)
    if _SCORES in facts:
        for line in ["scores of good pictures", *_drawn(**facts[_SCORES], threshold=facts["threshold"])]:
            emit(line)
    if _CAPABILITY in facts:
        emit(
            f"planted defects found, {facts[_CAPABILITY]['when']}, sizes in pixels (planted defects are not real ones)"
        )
        for planted in facts[_CAPABILITY]["kinds"]:
            emit(_planted(planted))
    if _TUNING in facts:
        emit("settings that were tried before the fit, on planted defects at the stated rate")
        for row in facts[_TUNING]:
            emit(_tried(row))
    if _HISTORY in facts:
        emit("history since the fit")
        for step in facts[_HISTORY]:
            emit(_told(step, facts["kind"]))
    return 0


def describe(path: str, *, parts: int = 1000) -> dict[str, Any]:
    """Return the facts of a model file, in reading order, with the false alarms expected for so many parts per day."""
    from pathlib import Path

    from totalrecall.detectors.model_file import is_protected
    from totalrecall.registry import detector_of, is_exported, read_model

    if is_exported(path):
        return _describe_exported(path, parts)
    contents = read_model(path)
    header, detector = contents[0], detector_of(contents, path)
    return {
        "model": path,
        "bytes": Path(path).stat().st_size,
        "kind": header["kind"],
        "format": header["format"],
        "header_protected_by_hash": is_protected(header),
        "written_by": f"totalrecall {header['library']}",
        **_backbone(detector),
        "backbone_inside": "backbone.graph" in header["tensors"],
        "prepared": _shared(header, "recipe"),
        "region_of_interest": detector.recipe.roi is not None,
        "settings": {name: value for name, value in _shared(header, "settings").items() if name != "backbone"},
        "training_pictures": len(detector.pictures_),
        **detector.facts(),
        "threshold": detector.threshold_,
        **_changes(detector),
        "pixel_threshold": detector.pixel_threshold_,
        **_promise(detector.promise_, parts),
        **_tuning(detector),
        **({} if detector.capability_ is None else {_CAPABILITY: dict(detector.capability_)}),
        "drift": _drift(detector),
    }


def _backbone(detector: "AnyDetector") -> dict[str, Any]:
    """Return the facts of the backbone; of several none, as they stand with the members."""
    members = getattr(detector, _MEMBERS, (detector,))
    if len({member.backbone.sha256 for member in members}) > 1:
        return {}
    backbone = detector.backbone
    return {"backbone": backbone.name, "backbone_sha256": backbone.sha256, "backbone_licence": backbone.licence}


def _shared(header: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return what a header says in a part, without what its members, if it has any, differ in."""
    members = header.get(_MEMBERS, ())
    return {
        name: value
        for name, value in header[part].items()
        # each member was fitted for a rate of its own threshold, which is not in use
        if name == "false_alarm_rate" or all(member[part].get(name) == value for member in members)
    }


def _describe_exported(path: str, parts: int) -> dict[str, Any]:
    """Return the facts of an exported graph, in reading order."""
    from pathlib import Path

    from totalrecall.export.exported import load_exported
    from totalrecall.export.parity import MAP_TOLERANCE, TOLERANCE

    graph = load_exported(path)
    said, size = graph.facts_, graph.facts_["picture_size"]
    return {
        "model": path,
        "bytes": Path(path).stat().st_size,
        "kind": f"{graph.kind}, exported graph",
        "format": said["format"],
        "written_by": f"totalrecall {said['library']}",
        "exported_from": said["model"],
        "backbone": graph.backbone.name,
        "backbone_sha256": graph.backbone.sha256,
        "backbone_licence": graph.backbone.licence,
        "prepared": said["recipe"],
        "picture_size": "any" if size is None else f"{size[1]} x {size[0]}",
        "batch": graph.batch,
        "region_of_interest": graph.recipe.roi is not None,
        "scoring": said["scoring"],
        "bank_type": said["bank"],
        "tolerance": TOLERANCE,
        "map_tolerance": MAP_TOLERANCE,
        "training_pictures": len(graph.pictures_),
        **graph.facts(),
        "threshold": graph.threshold_,
        "pixel_threshold": graph.pixel_threshold_,
        **_promise(graph.promise_, parts),
    }


def _level(level: dict[str, Any]) -> str:
    """Say which threshold another rate gives, and whether the number of pictures supports it."""
    support = "" if level["by_rank"] else ", an estimate" if level["estimated"] else ", the highest score"
    return f"{level['threshold']:.4g}{support}"


def _changes(detector: "AnyDetector") -> dict[str, Any]:
    """Return what was done to a model since its fit."""
    steps = [step.to_json() for step in detector.history_]
    if not steps:
        return {}
    taught = {"threshold_was_taught": True} if detector.promise_.origin == "taught" else {}
    return {**taught, _HISTORY: steps}


def _tuning(detector: "AnyDetector") -> dict[str, Any]:
    """Return the settings that were tried before the fit."""
    rows = getattr(detector, "tuning_", None)
    return {} if rows is None else {_TUNING: [dict(row) for row in rows]}


def _tried(row: dict[str, Any]) -> str:
    """Say in a line how settings fared that were tried before the fit."""
    name = ", ".join(f"{key} {_words(key, value)}" for key, value in row["changes"].items()) or "as given"
    text = f"{name}: {row['found']} of {row['planted']}, {row['milliseconds']:.3g} ms"
    return f"{text}{', chosen' if row['chosen'] else ''}{': ' + row['note'] if row['note'] else ''}"


def _planted(planted: dict[str, Any]) -> str:
    """Say in a line what planted defects of a kind said."""
    from totalrecall.capability import SizeLimit

    at = "" if planted["contrast"] is None else f", contrast {planted['contrast']:g}"
    text = f"{planted['kind']}{at}: {planted['hits']} of {planted['planted']}"
    if planted["a90"] is None or planted["a90_95"] is None:
        return text
    limits = [SizeLimit.from_json(planted[name]).in_words() for name in ("a90", "a90_95")]
    return f"{text}, a90 {limits[0]}, a90/95 {limits[1]}"


def _told(step: dict[str, Any], kind: str) -> str:
    """Say in a line what a step did."""
    (m, n), (before, after), count = step["vectors"], step["threshold"], len(step["pictures"])
    by = "" if step["what"] == "threshold" else f", {counted(count, 'picture')}"
    text = f"{step['when']} {step['what']}{by}"
    text += "" if m == n else f", {size_change(kind, m, n, then='then')}"
    return text if before is None or after is None else f"{text}, threshold {before:.4g}, then {after:.4g}"


def _drift(detector: "AnyDetector") -> str:
    """Say which changes of light, focus and position are noticed."""
    try:
        return "; ".join(detector.drift_.words())
    except SettingError as error:  # a model of before
        return str(error)


def _promise(promise: "Promise", parts: int) -> dict[str, Any]:
    """Return what stands behind the threshold in use: how many scores, what they promise, and how they lie."""
    import numpy as np

    calibration = promise.calibration
    count = len(calibration.scores)
    facts: dict[str, Any] = {"calibration_pictures": count, "calibration_folds": calibration.folds}
    facts |= {"promise": promise.in_words(), **promise.facts()}
    if not count:
        return facts
    if calibration.parts is not None:
        facts |= {"parts_seemingly_shown": calibration.parts, "rate_is_for_new_parts": calibration.new_parts}
    facts["smallest_rate_by_rank"] = calibration.floor
    facts |= {"parts_per_day": parts, "false_alarms_per_day": promise.expected_rate * parts}
    counts, edges = np.histogram(calibration.scores, bins=min(max(count // 5, 5), 20))
    facts[_SCORES] = {"counts": counts.tolist(), "edges": edges.tolist()}
    return facts


def _drawn(counts: list[int], edges: list[float], threshold: float) -> list[str]:
    """Draw a histogram as lines of text, the threshold at its place, or below where it lies beyond."""
    lines = []
    for number, low, high in zip(counts, edges, edges[1:], strict=False):
        here = " <- threshold" if low <= threshold < high or high == threshold == edges[-1] else ""
        bar = "#" * max(round(40 * number / max(counts)), 1 if number else 0)
        lines.append(f"{low:9.4g} to {high:<9.4g}{number:5d} {bar}{here}")
    if threshold > edges[-1]:
        lines.append(f"{threshold:9.4g} <- threshold, above all scores")
    return lines


def _words(name: str, value: Any) -> str:
    if name == "bytes":
        return human_bytes(value)
    if name == "header_protected_by_hash" and not value:
        old = "no, because an older version wrote it: damage there may go unseen"
        return f"{old}. Load and save it in Python to protect it"
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(key, item)}" for key, item in value.items() if item is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(_words(name, item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
