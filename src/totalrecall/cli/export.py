"""`totalrecall export`: a model as one graph that runs without this program."""

import argparse
import re
from typing import TYPE_CHECKING

from totalrecall.cli.common import add_output_options, check_target, complain, emit, print_table, say, write_json
from totalrecall.cli.options import add_reading_options
from totalrecall.cli.paths import EXPORTED, INPUT
from totalrecall.errors import ModelFileError, PictureError, SettingError
from totalrecall.system.text import counted, human_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from totalrecall.export.parity import CheckPicture, Comparison, Parity
    from totalrecall.pictures.bit_depth import BitDepth

__all__ = ["add_parser"]

_FORMATS = ("onnx", "openvino")
_BANKS = ("float32", "float16", "int8")
_MOST_ROWS = 8  # of the table; the JSON holds all


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as one graph that runs without this program",
        description="Write a fitted model as one graph: a picture's pixels in; score, map and verdict out. The graph "
        "is first run on pictures and compared with the model; unless both say the same, no file is written.",
    )
    parser.add_argument("model", metavar="MODEL", type=INPUT, help="file that `fit` wrote")
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURES", type=INPUT, help="with --verify: files, folders or globs to compare"
    )
    parser.add_argument("--to", choices=_FORMATS, default="onnx", help="format of the graph (default: %(default)s)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=EXPORTED,
        help="the graph: FILE.onnx, or FILE.xml with FILE.bin beside it",
    )
    parser.add_argument(
        "--check",
        nargs="+",
        metavar="PICTURES",
        type=INPUT,
        default=[],
        help="files, folders or globs that graph and model are compared on, besides drawn and learnt pictures",
    )
    parser.add_argument(
        "--bank",
        choices=_BANKS,
        default="float32",
        help="number type of the bank in the graph: float16 makes it half as large, int8 a quarter "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--picture-size",
        type=_picture_size,
        metavar="WIDTHxHEIGHT",
        help="take pictures of this size alone, for devices that need it; it is faster, too",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="take N pictures of one size at once, at most 64; each output has the answers of all (default: 1)",
    )
    parser.add_argument(
        "--verify",
        metavar="FILE",
        type=INPUT,
        help="write nothing; compare an exported .onnx file with MODEL, on PICTURES too",
    )
    add_reading_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, or verify; returns the exit code."""
    _check_options(args)
    from totalrecall.export.write import export, verify
    from totalrecall.registry import load_detector
    from totalrecall.system.files import file_sha256

    detector = load_detector(args.model, precision="f32")
    digest = file_sha256(args.model)
    pictures = _Pictures([*args.check, *args.pictures], detector.recipe.depth)
    if args.verify:
        parity = verify(detector, args.verify, model=digest, pictures=pictures)
        _tell(args, parity)
        if not parity.holds:
            raise ModelFileError(f"{args.verify} says something else than {args.model}: {_difference(parity)}.")
        return pictures.exit_code
    parity = export(
        detector,
        args.output,
        model=digest,
        to=args.to,
        bank=args.bank,
        picture_size=args.picture_size,
        batch=1 if args.batch is None else args.batch,
        pictures=pictures,
    )
    _tell(args, parity)
    if not parity.holds:
        raise ModelFileError(
            f"The graph says something else than {args.model}, so {args.output} was not written: {_difference(parity)}."
        )
    _write_table(args, parity)
    return pictures.exit_code


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        SettingError: they do not.
        DataError: the place cannot be written.
    """
    if args.verify is None:
        if not args.output:
            raise SettingError("export needs -o FILE to write to, or --verify FILE to compare.")
        if args.output == "-":
            raise SettingError("--output must name a file, got -.")
        if args.pictures:
            raise SettingError(f"PICTURES are only for --verify, got {args.pictures[0]}. Write --check PICTURES.")
        check_target("--output", args.output)
        return
    if args.output or args.picture_size or args.batch is not None:
        option = "--output" if args.output else "--picture-size" if args.picture_size else "--batch"
        raise SettingError(f"{option} is not for --verify, which writes nothing. Leave it out.")


def _picture_size(text: str) -> tuple[int, int]:
    """Return height and width of `WIDTHxHEIGHT`, for argparse."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, got {text!r}. Write 640x480.")
    return int(match[2]), int(match[1])


class _Pictures:
    """The pictures that a person named, read one after the other; one that cannot be read is told."""

    def __init__(self, names: list[str], depth: "BitDepth | None") -> None:
        from totalrecall.pictures.files import find_pictures

        self._paths = find_pictures(names) if names else []
        self._depth = depth
        self.exit_code = 0

    def __iter__(self) -> "Iterator[CheckPicture]":
        return (picture for picture in map(self._read, self._paths) if picture is not None)

    def _read(self, path: "Path") -> "CheckPicture | None":
        from totalrecall.export.parity import CheckPicture
        from totalrecall.pictures.loading import read_image

        try:
            return CheckPicture(str(path), read_image(path, self._depth))
        except PictureError as error:
            complain(error)
            self.exit_code = 1
            return None


def _difference(parity: "Parity") -> str:
    """Say how a graph differs from its model."""
    worst = parity.worst
    differ = sum(not row.agrees for row in parity.comparisons)
    text = f"{differ} of {counted(len(parity.comparisons), 'comparison')} differ, {parity.changed} verdicts changed"
    return f"{text}; worst {worst.picture} by {worst.runtime}, {_score(worst.score)} and {_score(worst.graph_score)}"


def _score(score: float | None) -> str:
    return "no score" if score is None else f"score {score:.5g}"


def _tell(args: argparse.Namespace, parity: "Parity") -> None:
    """Print the comparisons that differ most, and what all of them say."""
    if not args.quiet or not parity.holds:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("picture", "runtime", "model", "graph", "difference", "of the map", "verdicts"):
            table.add_column(column, overflow="fold")
        rows = sorted(parity.comparisons, key=lambda row: (row.agrees, -row.difference))
        for row in rows[:_MOST_ROWS]:
            table.add_row(*_cells(row))
        print_table(table)
        if len(rows) > _MOST_ROWS:
            emit(f"and {len(rows) - _MOST_ROWS} comparisons that differ less")
    largest = max(row.difference for row in parity.comparisons)
    say(
        args,
        f"{counted(len(parity.comparisons), 'comparison')}: scores differ by at most {largest:.1e} of themselves, "
        f"{counted(parity.changed, 'verdict')} changed",
    )


def _cells(row: "Comparison") -> list[str]:
    from totalrecall.scoring import verdict_in_words

    verdicts = verdict_in_words(row.is_anomalous)
    if not row.same_verdict:
        verdicts += f", graph: {verdict_in_words(row.graph_is_anomalous)}"
    scores = [("none" if score is None else f"{score:.5g}") for score in (row.score, row.graph_score)]
    return [
        row.picture.replace("\\", "/").rpartition("/")[2],
        row.runtime,
        *scores,
        f"{row.difference:.1e}",
        f"{row.map_difference:.1e}",
        verdicts,
    ]


def _write_table(args: argparse.Namespace, parity: "Parity") -> None:
    from pathlib import Path

    table = f"{args.output}.json"
    write_json(table, {"model": args.model, "graph": args.output, "to": args.to, "bank": args.bank, **parity.to_json()})
    written = [Path(args.output), *([Path(args.output).with_suffix(".bin")] if args.to == "openvino" else [])]
    size = sum(path.stat().st_size for path in written)
    say(args, f"Wrote the graph {args.output} ({human_bytes(size)}) and what was compared, {table}")
