"""`totalrecall station`: the history of an inspection station and its users, from the command line."""

import argparse
import sys
from typing import TYPE_CHECKING, BinaryIO

from totalrecall.cli.common import check_target, complain, emit
from totalrecall.cli.paths import OUTPUT
from totalrecall.cli.station_options import add_database_options, open_database
from totalrecall.cli.station_quality import add_quality_parsers
from totalrecall.cli.station_users import add_parsers
from totalrecall.system.files import refuse_overwriting, write_atomically
from totalrecall.system.text import counted, listed, printable

if TYPE_CHECKING:
    from totalrecall.station.store.records import Filter

__all__ = ["add_parser"]

_MOST = 20  # broken rows that are told one by one


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "station",
        help="check the audit trail of a station, write its history, manage its users, prove that it is fit",
        description="An inspection station from the command line: check its audit trail, write its history as CSV, "
        "manage its users and tokens. The station may run meanwhile. It needs the extra [station]. And the proof that "
        "an inspection is fit to decide, without it: a gauge study, and the evidence sheet of a model.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verifying = actions.add_parser(
        "verify",
        help="check that no row of the audit trail was altered, removed, inserted or swapped",
        description="Check that no row of the audit trail was altered, removed, inserted or swapped, and that the "
        "judgements in the history are those of the trail. Exit code 0: whole; 1: it is not, or cannot be read.",
    )
    add_database_options(verifying)
    verifying.add_argument(
        "--expect-head",
        metavar="HASH",
        help="hash that this command printed earlier; the trail must hold it still, or rows were cut off since",
    )
    verifying.set_defaults(run=run_verify)
    writing = actions.add_parser(
        "csv",
        help="write the inspections as CSV",
        description="Write the inspections as CSV, the newest first. No spreadsheet finds a formula in it.",
    )
    add_database_options(writing)
    _add_filter_options(writing)
    writing.add_argument(
        "-o", "--out", "--output", metavar="FILE", type=OUTPUT, default="-", help="file to write (default: stdout)"
    )
    writing.set_defaults(run=run_csv)
    add_parsers(actions)
    add_quality_parsers(actions)


def _add_filter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="only inspections by this model")
    parser.add_argument("--verdict", metavar="VERDICT", help="only those with this verdict, such as defect or good")
    parser.add_argument(
        "--judgement", metavar="JUDGEMENT", help="only those that a person judged defect or fine, or none for neither"
    )
    parser.add_argument("--serial", metavar="SERIAL", help="only those of the part with this serial number")
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only those from this time on, such as 2026-11-29 or 2026-11-29T16:00+01:00; in UTC without a zone",
    )
    parser.add_argument("--until", metavar="TIME", help="only those before this time")


def run_verify(args: argparse.Namespace) -> int:
    """Look at every row of the trail; returns 1 if one is not what was written."""
    from totalrecall.station.store.trail import Trail

    with open_database(args, create=False) as database:
        verified = Trail(database).verify(args.expect_head)
    for number in verified.broken[:_MOST]:
        complain(f"row {number} of the audit trail is broken: {verified.reasons[number]}.")
    if len(verified.broken) > _MOST:
        complain(f"{len(verified.broken) - _MOST} more rows are broken.")
    if verified.judgements:
        complain(
            "the judgement in the history is not the last one in the audit trail, or the inspection is gone: "
            f"{listed(verified.judgements, _MOST)}."
        )
    if verified.expected is False:
        complain(f"no row of the audit trail has the hash {args.expect_head}: rows were cut off or written anew.")
    if not verified.is_whole:
        emit(f"The audit trail is NOT whole: {counted(len(verified.broken), 'broken row')} of {verified.rows}.")
        return 1
    emit(f"The audit trail is whole: {counted(verified.rows, 'row')}.")
    emit(f"Its last hash, to be written down elsewhere for --expect-head: {verified.head}")
    return 0


def run_csv(args: argparse.Namespace) -> int:
    """Write the inspections."""
    check_target("--out", args.out)
    from totalrecall.station.store.history import History

    with open_database(args, create=False) as database:
        lines = History(database).csv(_filter(args))
        if args.out == "-":
            told = printable if sys.stdout.isatty() else str
            for line in lines:
                sys.stdout.write(told(line.rstrip("\n")) + "\n")
            return 0
        refuse_overwriting(args.out, database.files(), "a file of the history")
        count = -1  # its first line holds the names

        def write(file: BinaryIO) -> None:
            nonlocal count
            for line in lines:
                file.write(line.encode())
                count += 1

        write_atomically(args.out, write)
    emit(f"Wrote {counted(count, 'inspection')} to {args.out}.")
    return 0


def _filter(args: argparse.Namespace) -> "Filter":
    from totalrecall.station.store.records import Filter, typed_time

    return Filter(
        model=args.model,
        verdict=args.verdict,
        judgement=args.judgement,
        serial=args.serial,
        since=None if args.since is None else typed_time("--since", args.since),
        until=None if args.until is None else typed_time("--until", args.until),
    )
