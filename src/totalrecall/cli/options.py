"""Options that several commands share, and what is made of them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from totalrecall.cli.common import check_target, say
from totalrecall.cli.paths import BACKBONE, INPUT, OUTPUT
from totalrecall.detectors.settings import CommonSettings, ComparedSettings
from totalrecall.errors import SettingError
from totalrecall.patchcore.settings import JoinedSettings
from totalrecall.registry import SETTINGS
from totalrecall.system.settings import SECTIONS, Checked, Setting, declared, with_names

if TYPE_CHECKING:
    from totalrecall.pictures.masks import Marking
    from totalrecall.registry import AnyDetector

__all__ = [
    "FIT_SETTINGS",
    "add_rate_options",
    "add_ray_option",
    "add_ray_options",
    "add_reading_options",
    "add_report_options",
    "add_running_options",
    "add_setting_options",
    "add_split_options",
    "check_report",
    "duration",
    "fraction",
    "given_settings",
    "make_detector",
    "memory_size",
    "refuse_workers_without_ray",
    "running",
    "tell_region",
    "training_pictures",
]

FIT_SETTINGS: dict[str, type[CommonSettings]] = {**SETTINGS, "patchcore": JoinedSettings}

_READERS: dict[str, Callable[[str], Any]] = {"backbone": BACKBONE, "roi": INPUT}  # what the program opens


def add_setting_options(
    parser: argparse.ArgumentParser,
    methods: Mapping[str, type[Checked]],
    *,
    without: Sequence[str] = (),
) -> None:
    """Add an option for each setting of some methods, in a group for each section.

    All of them default to None, which says that none was given: each method has its own default.

    Args:
        parser: of the command.
        methods: their classes of settings by name.
        without: settings that the command has other options for.
    """
    owners: dict[str, dict[str, Setting]] = {}  # setting: {method: what it declares}
    for method, kind in methods.items():
        for name, what in declared(kind).items():
            owners.setdefault(name, {})[method] = what
    for section in SECTIONS:
        group = parser.add_argument_group(section)
        for name, by_method in owners.items():
            what = next(iter(by_method.values()))
            if what.section != section or not what.option or name in without:
                continue
            text = _help_of(by_method, everybody=len(by_method) == len(methods)).replace("%", "%%")
            if isinstance(what.default, bool):
                group.add_argument(_option(name), action="store_const", const=True, help=text)
            else:
                several, reader = "+" if any(map(_takes_several, by_method.values())) else None, _reader(name, what)
                group.add_argument(_option(name), type=reader, nargs=several, metavar=what.metavar, help=text)


def _takes_several(what: Setting) -> bool:
    """Tell whether a value of a setting may be a list; a type that is not imported here is text."""
    types = (what.type, *get_args(what.type))
    return any(get_origin(one) is Sequence or (isinstance(one, str) and "Sequence[" in one) for one in types)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _reader(name: str, what: Setting) -> Callable[[str], Any]:
    """Return what reads a value, from the type of the setting."""
    if name in _READERS:
        return _READERS[name]
    types = (what.type, *get_args(what.type))
    return str if str in types else fraction if float in types else int


def _help_of(by_method: Mapping[str, Setting], *, everybody: bool) -> str:
    """Return the help of a setting: what it means and its default, and where methods differ, for each of them."""
    meanings: dict[str, dict[str, list[str]]] = {}  # meaning: {default: methods}
    for method, what in by_method.items():
        meanings.setdefault(what.meaning, {}).setdefault(what.default_in_words, []).append(method)
    texts = []
    for meaning, defaults in meanings.items():
        owners = " and ".join(method for methods in defaults.values() for method in methods)
        notes = [] if everybody or len(meanings) > 1 else [owners]
        for at, (default, methods) in enumerate(defaults.items()):
            if default:
                notes.append(f"{' and '.join(methods) if at else 'default'}: {default}")
        note = f" ({'; '.join(notes)})" if notes else ""
        texts.append((f"{owners}: " if len(meanings) > 1 else "") + meaning + note)
    return with_names("; ".join(texts).replace("`", ""), _option)


def given_settings(args: argparse.Namespace, kind: type[Checked]) -> dict[str, Any]:
    """Return the settings that were given, of those that a class has."""
    values = {name: getattr(args, name, None) for name in declared(kind)}
    return {name: value for name, value in values.items() if value is not None}


def make_detector(args: argparse.Namespace) -> "AnyDetector":
    """Return an unfitted detector from the parsed options of `fit`, where several backbones and sizes may be given.

    Raises:
        SettingError: an option was given that its method does not have.
    """
    from totalrecall.registry import detector_class

    kinds = FIT_SETTINGS
    several = _unwrap(args)
    for name in {name: None for other in kinds.values() for name in given_settings(args, other)}:
        if name not in declared(kinds[args.method]):
            owners = " or ".join(method for method, other in kinds.items() if name in declared(other))
            raise SettingError(
                f"{name} is only for method {owners}, got method {args.method}. Leave it out.", name, "method"
            )
    if several and args.method != "patchcore":
        names = " ".join(args.backbone)
        raise SettingError(
            f"backbone must be one name for method {args.method}, got {names}. Only patchcore joins several.",
            "backbone",
            "method",
        )
    make: Any = detector_class("joined" if several else args.method)
    detector: AnyDetector = make(**given_settings(args, JoinedSettings if several else SETTINGS[args.method]))
    return detector


def _unwrap(args: argparse.Namespace) -> bool:
    """Take a list of one backbone or size as that one; tell whether there are several of either."""
    if args.backbone is not None and len(args.backbone) == 1:
        (args.backbone,) = args.backbone
    if args.sizes is not None and len(args.sizes) == 1 and args.size is None:
        (args.size,), args.sizes = args.sizes, None
    return isinstance(args.backbone, list) or args.sizes is not None


def tell_region(args: argparse.Namespace, region: "Marking | None") -> None:
    """Say how much of the picture the region of interest leaves, before the work: a mask may be read otherwise."""
    from totalrecall.pictures.masks import roi_words

    if region is not None:
        say(args, roi_words(region))


def memory_size(text: str) -> int:
    """Return the bytes of a size as a person writes it, for argparse."""
    from totalrecall.system.text import parse_size

    try:
        return parse_size(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("memory ")) from None


def duration(text: str) -> float:
    """Return the seconds of a time as a person writes it, for argparse."""
    from totalrecall.system.text import parse_seconds

    try:
        return parse_seconds(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("A time ")) from None


def training_pictures(args: argparse.Namespace) -> list[Path]:
    """Return the good pictures that the options name."""
    from totalrecall.pictures.files import find_pictures

    if args.layout is None:
        return find_pictures(args.good)
    from totalrecall.datasets import open_dataset

    if len(args.good) != 1:
        raise SettingError(f"--layout {args.layout} takes one folder, the data set's root; got {len(args.good)}.")
    seed = ComparedSettings.seed if args.seed is None else args.seed
    return list(open_dataset(args.layout, args.good[0], seed=seed).train)


# as `datasets.LAYOUTS`, without importing it to show --help
LAYOUTS = ("folder", "mvtec", "mvtec-loco", "mvtec-ad2", "btad", "visa", "mtd", "mstc", "kolektor")


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels, which every command that reads pictures has."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse pictures whose header says that they have more pixels (default: 100000000)",
    )


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add --layout, for a command whose pictures may be a data set; its --seed splits the set."""
    parser.add_argument("--layout", choices=LAYOUTS, help="layout of the data set's folder")


def add_ray_options(
    parser: argparse.ArgumentParser, *, promise: str, cores: str = "one core"
) -> "argparse._ArgumentGroup":
    """Add --ray and --workers, which every command has that works on a cluster; returns their group for its others.

    Args:
        parser: of the command.
        promise: what a person may count on with --ray.
        cores: of each worker.
    """
    group = add_ray_option(parser, promise=promise)
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"use at most N workers of {cores} each (default: as many as the cluster has room for)",
    )
    return group


def add_ray_option(parser: argparse.ArgumentParser, *, promise: str) -> "argparse._ArgumentGroup":
    """Add --ray alone, for a command whose workers have another name; otherwise as `add_ray_options`."""
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster: HOST:PORT, auto for the one that runs on this machine, or local to "
        f"use the cores of this machine; {promise}",
    )
    return group


def refuse_workers_without_ray(args: argparse.Namespace) -> None:
    """Refuse --workers where there is no cluster.

    Raises:
        SettingError: naming it.
    """
    if args.ray is None and args.workers is not None:
        raise SettingError(f"--workers is only for --ray, got {args.workers}. Add --ray local.", "workers")


def add_running_options(parser: argparse.ArgumentParser, *, precision: bool = False) -> None:
    """Add --engine, --device and --threads, and --precision, for a command that runs a fitted model; see `running`."""
    settings = declared(CommonSettings)
    for name in ("engine", "device"):
        what = settings[name]
        text = f"{what.meaning} (default: {what.default_in_words})".replace("`", "")
        parser.add_argument(f"--{name}", metavar=what.metavar, help=text)
    if precision:
        what = settings["precision"]
        text = "number format of the backbone: auto, f32 or bf16 (default: the model's)"
        parser.add_argument("--precision", metavar=what.metavar, help=text)
    what = settings["threads"]
    text = f"{what.meaning} (default: {what.default_in_words})"
    parser.add_argument("--threads", type=int, metavar=what.metavar, help=text)


def running(args: argparse.Namespace) -> dict[str, Any]:
    """Return how a fitted model is run, as `add_running_options` reads it, for `load_detector` and `load_judge`."""
    return {name: getattr(args, name, None) for name in ("engine", "device", "precision", "threads")}


def add_rate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that set another threshold than the model's, for this run only."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--false-alarm-rate",
        type=fraction,
        metavar="RATE",
        help="judge at this false-alarm rate, in this run only (default: the model's)",
    )
    group.add_argument(
        "--threshold",
        type=fraction,
        metavar="SCORE",
        help="judge by this score, in this run only (default: the model's)",
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add --report, and --parts-per-day for it."""
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=OUTPUT,
        help="write an HTML report with scores, threshold and overlays, under 5 MB",
    )
    parser.add_argument(
        "--parts-per-day",
        type=int,
        metavar="N",
        help="good parts per day, to estimate the false alarms per day in the report",
    )
    parser.add_argument(
        "--good-pictures",
        metavar="DIR",
        type=INPUT,
        action="append",
        help="folder of the learnt pictures, so that the report can show the nearest one; may be given several times",
    )


def check_report(args: argparse.Namespace) -> None:
    """Refuse a report that cannot be written.

    Args:
        args: of a command with `add_report_options`.

    Raises:
        SettingError: it has no name, or parts per day were given without a report.
        DataError: it is a folder, or its folder cannot be written.
    """
    if args.parts_per_day is not None and args.report is None:
        raise SettingError(f"--parts-per-day is only for --report, got {args.parts_per_day}. Write --report FILE.html.")
    if args.parts_per_day is not None and args.parts_per_day < 1:
        raise SettingError(f"--parts-per-day must be at least 1, got {args.parts_per_day}.")
    if args.good_pictures and args.report is None:
        raise SettingError(
            f"--good-pictures is only for --report, got {args.good_pictures[0]}. Write --report FILE.html."
        )
    for folder in args.good_pictures or ():
        if not _is_folder(folder):
            raise SettingError(
                f"--good-pictures must be a folder, got {folder}. Name the folder of the learnt pictures."
            )
    if args.report is None:
        return
    if args.report == "-":
        raise SettingError(f"--report must name a file, got {args.report}. Write --report FILE.html.")
    check_target("--report", args.report)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def fraction(text: str) -> float:
    """Read a number for argparse, with a clear message for words."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number such as 0.01, got {text!r}") from None
