"""Files, folders and globs -> the files of pictures, and what lies beside them and is passed over.

Folders are searched to any depth, through symbolic links to folders too, each folder once. What is passed over is never
passed over in silence: `find_pictures` warns once, with a count and names, of

- files in formats that are not read, such as .pgm and .heic, and pictures whose name has no suffix;
- masks among the pictures: `a_mask.png`, `a_gt.png` or `a_label.png` beside `a.png`; a black and white `a.png` beside a
  photograph `a.jpg`; and the files of a folder with a usual name of mask folders, such as `ground_truth`, that have the
  stem of a picture outside it;
- links that lead nowhere, folders that cannot be read, pipes and devices under a picture's name.

Hidden files, and other files such as tables and texts, are no pictures and are not told.
"""

import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from totalrecall.errors import DataError, PassedOverWarning, PictureError
from totalrecall.pictures.decode import decode_pixels
from totalrecall.pictures.formats.header import file_limit
from totalrecall.pictures.path_patterns import fixed_part, matching_paths, walk
from totalrecall.system.files import read_regular
from totalrecall.system.text import listed

__all__ = [
    "MASK_ENDINGS",
    "MASK_FOLDERS",
    "PICTURE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "FoundPictures",
    "PassedOver",
    "find_pictures",
    "is_mask_folder",
    "masks_beside",
    "passed_over_note",
    "plain_stem",
    "search_pictures",
    "some_names",
    "unread_in",
    "walk_pictures",
]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_UNREAD = """
3fr apng ari arw avif bay cr2 cr3 crw cur czi dcm dcr dds dib dicom djvu dng emf eps erf exr fff fits fpx fts gif hdp
hdr heic heics heif heifs hif icns ico iiq j2c j2k jfif jif jls jp2 jpe jpf jpm jpx jxl jxr kdc lif mef mos mpo mrc mrw
nd2 ndpi nef nrw ora orf pam pbm pcd pcx pef pfm pgm pgx phm pic pict pnm ppm psb psd ptx qoi raf ras raw rw2
rwl sgi sr sr2 srf srw svs tga vicar wbmp wdp wmf x3f xbm xcf xpm
"""
UNREAD_SUFFIXES = frozenset(f".{name}" for name in _UNREAD.split())  # of pictures in formats that are not read
_RENAMED = {".jpe": ".jpg", ".jfif": ".jpg", ".jif": ".jpg", ".mpo": ".jpg", ".dib": ".bmp", ".apng": ".png"}
MASK_ENDINGS = ("_mask", "_masks", "_gt", "_label", "_labels", "_ground_truth")
_FOLDERS = "annotation annotations gt groundtruth groundtruths label labels mask masks segmentation segmentations"
MASK_FOLDERS = frozenset(_FOLDERS.split())  # in lower case, without _ - and spaces
_LOSSY = (".jpg", ".jpeg")  # a photograph's, never a mask's
_EXTREME = 0.98  # of a mask's pixels are black or white; those between them lie on the edges of what is marked
_NAMED = 3  # files that a note names; the rest it counts
_STARTS = (  # the first bytes of formats that a file without suffix may hold
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8", b"\0\0\0\x0cjP  ",
    b"v/1\x01", b"P4\n", b"P5\n", b"P6\n", b"8BPS",
)  # fmt: skip
_MASK_ADVICE = "A mask is learnt or judged only where its file is given alone"


@dataclass(frozen=True)
class PassedOver:
    """Files of one kind that are passed over.

    Attributes:
        kind: the files, for a count before it: ".pgm", "masks beside their pictures"; singular at a count of 1.
        paths: of the files, in the order found.
        advice: what to do, a sentence without its full stop.
    """

    kind: tuple[str, str]  # for one, for several
    paths: tuple[Path, ...]
    advice: str


@dataclass
class FoundPictures:
    """Pictures, each once, and what was passed over beside them.

    Attributes:
        paths: of the pictures, each input's in sorted order.
        passed_over: by kind.
    """

    paths: list[Path] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def find_pictures(inputs: str | Path | Iterable[str | Path]) -> list[Path]:
    """Turn files, folders and globs into picture paths: each input's in sorted order, none twice.

    Folders are searched to any depth for files with a picture's suffix, hidden ones left out. A named file is taken
    whatever its suffix, and even if it is missing: reading it gives the message, and the others go on.

    Raises:
        DataError: a folder or glob holds no picture, or a folder does not exist.

    Warns:
        PassedOverWarning: there are files that look like pictures and are not among them, with their number.
    """
    result = search_pictures(inputs)
    note = passed_over_note(result.passed_over)
    if note:
        warnings.warn(note, PassedOverWarning, stacklevel=2)
    return result.paths


def search_pictures(inputs: str | Path | Iterable[str | Path]) -> FoundPictures:
    """Return what `find_pictures` does, and what it passed over, without a warning.

    Raises:
        DataError: see `find_pictures`.
    """
    bases: dict[Path, str] = {}  # each with what it is relative to; a dict keeps the order and drops repeats
    aside = _Aside()
    for given in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        if given == "":  # an unset variable of a script; as a path it would be the current folder
            raise DataError("An empty name was given. Give picture files, folders or globs such as 'parts/*.png'.")
        before = aside.count
        matches, base = _matches(given, aside)
        if not matches:
            raise DataError(_nothing_in(given, aside if aside.count > before else _Aside()))
        bases.update({path: base for path in matches if path not in bases})
    pairs = [(path, Path(path.relative_to(base) if base else path.name)) for path, base in bases.items()]
    beside = masks_beside([path for path, _ in pairs])
    beside |= _masks_of_the_same_stem([path for path, _ in pairs if path not in beside])
    apart = _masks_apart([(path, inside) for path, inside in pairs if path not in beside])
    for kind, masks in (("beside its picture", beside), ("in a folder of masks", apart)):
        several = kind.replace("its picture", "their pictures").replace("a folder", "folders")
        aside.add((f"mask {kind}", f"masks {several}"), masks, _MASK_ADVICE)
    paths = [path for path in bases if path not in beside and path not in apart]
    return FoundPictures(paths, aside.kinds())


def walk_pictures(folder: Path) -> FoundPictures:
    """Return the pictures in a folder at any depth, sorted by their paths, through links; masks among them too.

    A folder is searched once however many links lead to it, so a link to a folder above it ends. What cannot be
    searched is among what was passed over.
    """
    aside = _Aside()
    return FoundPictures(_walk(folder, aside), aside.kinds())


def unread_in(folders: Iterable[Path]) -> list[PassedOver]:
    """Return the pictures in some folders, not in those inside them, whose formats are not read."""
    aside = _Aside()
    for folder in folders:
        _, listed = next(walk(folder, set()))
        if isinstance(listed, OSError):
            aside.closed(folder)
            continue
        for entry in listed:
            if Path(entry.name).suffix.lower() not in PICTURE_SUFFIXES and _asked(entry.is_file):
                aside.look_at(folder / entry.name)
    return aside.kinds()


def passed_over_note(kinds: Sequence[PassedOver]) -> str:
    """Say in one line what was passed over and what to do about it; empty where nothing was."""
    if not kinds:
        return ""
    count = sum(len(passed.paths) for passed in kinds)
    parts = [
        f"{len(passed.paths)} {passed.kind[len(passed.paths) > 1]} ({some_names(passed.paths)})" for passed in kinds
    ]
    advice = ". ".join(dict.fromkeys(passed.advice for passed in kinds))
    return f"{count} {'files were' if count > 1 else 'file was'} passed over: {', '.join(parts)}. {advice}."


def some_names(paths: Sequence[str | Path]) -> str:
    """Return the names of the first few files, with their folders where they are alike, and how many more there are."""
    first = [Path(path) for path in paths[:_NAMED]]
    alike = len({path.name for path in first}) < len(first)
    names = [f"{path.parent.name}/{path.name}" if alike else path.name for path in first]
    return listed(names, _NAMED, total=len(paths))


def is_mask_folder(name: str) -> bool:
    """Tell whether a folder's name is usual for masks: masks, ground_truth, gt, labels, annotations and the like."""
    return re.sub(r"[-_ ]", "", name.lower()) in MASK_FOLDERS


def plain_stem(path: Path) -> str:
    """Return the stem of the picture that a mask would be of: `007_mask.png` and `007.png` would be of `007`."""
    stem = path.stem
    ending = max((suffix for suffix in MASK_ENDINGS if stem.lower().endswith(suffix)), key=len, default="")
    return stem[: len(stem) - len(ending)] or stem


def masks_beside(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return the masks among some files that lie beside their picture, `a_mask.png` beside `a.jpg`, with that."""
    by_stem: dict[tuple[Path, str], Path] = {}
    paths = list(paths)
    for path in paths:
        by_stem.setdefault((path.parent, path.stem), path)
    partners = ((path, by_stem.get((path.parent, plain_stem(path)))) for path in paths if plain_stem(path) != path.stem)
    return {path: partner for path, partner in partners if partner is not None}


def _masks_of_the_same_stem(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return the black and white files that share folder and stem with a JPEG that is not, with that."""
    by_stem: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        by_stem.setdefault((path.parent, path.stem), []).append(path)
    masks: dict[Path, Path] = {}
    for together in by_stem.values():
        photograph = next((path for path in together if path.suffix.lower() in _LOSSY), None)
        if photograph is not None:
            others = (path for path in together if path.suffix.lower() not in _LOSSY)
            like_masks = [path for path in others if _is_black_and_white(path)]
            if like_masks and not _is_black_and_white(photograph):
                masks |= dict.fromkeys(like_masks, photograph)
    return masks


def _is_black_and_white(path: Path) -> bool:
    """Tell whether nearly all of a picture is black or white; reading will name one that cannot be read."""
    try:
        pixels = decode_pixels(read_regular(path, limit=file_limit()), str(path))
    except (OSError, PictureError, MemoryError):
        return False
    dark, light = np.iinfo(pixels.dtype).max // 16, np.iinfo(pixels.dtype).max // 16 * 15
    extreme = (pixels <= dark).all(axis=2) | (pixels >= light).all(axis=2)
    return bool(extreme.mean() >= _EXTREME)


def _masks_apart(pairs: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Return those of some files, given with their paths inside the input, that are masks by their folder's name."""
    inside = [path for path, within in pairs if any(map(is_mask_folder, within.parts[:-1]))]
    if not inside:
        return []
    masks = set(inside)
    stems = {path.stem for path, _ in pairs if path not in masks}
    return [path for path in inside if path.stem in stems or plain_stem(path) in stems]


class _Aside:
    """Collects what is passed over, by kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[tuple[str, str], str], dict[Path, None]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._found.values()))

    def add(self, kind: tuple[str, str], paths: Iterable[Path], advice: str) -> None:
        for path in paths:
            self._found.setdefault((kind, advice), {})[path] = None

    def look_at(self, path: Path) -> None:
        """Note a file that is not read if it is a picture all the same."""
        suffix = path.suffix.lower()
        if suffix in UNREAD_SUFFIXES and path.is_file():
            known = _RENAMED.get(suffix)
            advice = f"Rename {suffix} to {known}" if known else "Convert them to PNG"
            self.add((suffix, suffix), [path], advice)
        elif not suffix and _starts_as_picture(path):
            kind = ("picture without a suffix", "pictures without a suffix")
            self.add(kind, [path], "Give them a suffix such as .png")

    def lost(self, path: Path) -> None:
        """Note a file that has a picture's suffix and is none."""
        if not path.exists():
            advice = "Restore what the links lead to, or delete them"
            self.add(("link that leads nowhere", "links that lead nowhere"), [path], advice)
        else:
            kind = ("pipe or device", "pipes or devices")
            self.add(kind, [path], "Only regular files are read from folders")

    def closed(self, folder: Path) -> None:
        """Note a folder that cannot be read."""
        kind = ("folder that cannot be read", "folders that cannot be read")
        self.add(kind, [folder], "Check the permissions of the folders")

    def kinds(self) -> list[PassedOver]:
        """Return the kinds, the most frequent first, each sorted by path."""
        passed_over = [PassedOver(kind, tuple(sorted(paths)), advice) for (kind, advice), paths in self._found.items()]
        return sorted(passed_over, key=lambda passed: (-len(passed.paths), passed.kind))


def _matches(given: str | Path, aside: _Aside) -> tuple[list[Path], str]:
    """Return the pictures that one input means, and the folder that it is; empty where it is none.

    Raises:
        DataError: it does not exist.
    """
    path = Path(given)
    if _is_folder(path):
        return _walk(path, aside), str(path)
    if _exists(path) or not glob.has_magic(str(given)):
        if not _exists(path) and path.suffix.lower() not in PICTURE_SUFFIXES:
            raise DataError(f"{given} does not exist. Give picture files, folders or globs such as 'parts/*.png'.")
        return [path], ""
    return _glob(str(given), aside), str(fixed_part(str(given)))


def _walk(folder: Path, aside: _Aside, seen: set[tuple[int, int]] | None = None) -> list[Path]:
    """Return the pictures in a folder at any depth, sorted; folders that were seen are not entered again."""
    pictures: list[Path] = []
    for here, entries in walk(folder, set() if seen is None else seen):
        if isinstance(entries, OSError):
            aside.closed(here)
            continue
        for entry in entries:
            path = here / entry.name
            if _asked(entry.is_dir):
                continue
            if path.suffix.lower() not in PICTURE_SUFFIXES:
                aside.look_at(path)
            elif _asked(entry.is_file):
                pictures.append(path)
            else:
                aside.lost(path)
    return sorted(pictures)


def _glob(pattern: str, aside: _Aside) -> list[Path]:
    """Return the pictures that a pattern matches, and in the folders that it matches, as a shell's has it."""
    try:
        paths = [path for path in matching_paths(pattern) if not path.name.startswith(".")]
    except (OSError, ValueError):
        return []
    pictures: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if _is_folder(path):
            pictures.extend(_walk(path, aside, seen))
        elif _is_picture(path, aside):
            pictures.append(path)
    return _each_folder_once(pictures)


def _each_folder_once(paths: Sequence[Path]) -> list[Path]:
    """Return each file once, sorted: of several ways to its folder the shortest, a link's the last."""
    ways: dict[tuple[str, str], Path] = {}
    real_paths = {parent: os.path.realpath(parent) for parent in {path.parent for path in paths}}
    linked = {parent: os.path.abspath(parent) != real for parent, real in real_paths.items()}  # noqa: PTH100  no link followed
    for path in sorted(paths, key=lambda path: (linked[path.parent], len(path.parts), path)):
        ways.setdefault((real_paths[path.parent], path.name), path)
    return sorted(ways.values())


def _is_picture(path: Path, aside: _Aside) -> bool:
    """Tell whether a file that a pattern matches is taken; note it if it is a picture that is not."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        aside.look_at(path)
        return False
    if not path.is_file():
        aside.lost(path)
        return False
    return True


def _nothing_in(given: str | Path, aside: _Aside) -> str:
    kinds = " ".join(suffix[1:] for suffix in PICTURE_SUFFIXES)
    return f"{given} holds no picture. Pictures end in: {kinds} (any case). {passed_over_note(aside.kinds())}".rstrip()


def _starts_as_picture(path: Path) -> bool:
    """Tell whether a file without a suffix begins as a picture does; only regular files are opened."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start.startswith(b"BM"):
        return start[6:10] == bytes(4)  # two letters alone may begin a text
    boxed = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"avis", b"msf1", b"hevc")
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(_STARTS) or boxed or webp or start[128:132] == b"DICM"


def _is_folder(path: Path) -> bool:
    return _asked(path.is_dir)


def _exists(path: Path) -> bool:
    return _asked(lambda: os.path.lexists(path))  # a link to nowhere is named when it is read, not taken for a glob


def _asked(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL byte
        return False
