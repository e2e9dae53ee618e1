"""Pictures of parts whose truth is known, for the gauge study and the evidence sheet: a folder or a table.

FOLDER/good/PART/*.png           a part is a folder; its pictures are its runs, in the order of their names
FOLDER/defect/PART/*.png         any other name than `good` is a kind of defect
FOLDER/good/part.png             a part with one picture

TABLE.csv                        part,path,truth        (a line a picture; truth is good or defect)
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from totalrecall.errors import DataError, PictureError
from totalrecall.pictures.files import PICTURE_SUFFIXES
from totalrecall.pictures.loading import Source
from totalrecall.system.files import LARGEST, file_sha256, read_regular, sha256

__all__ = ["TRUTHS", "Part", "digest_of", "grouped", "parse_table", "read_parts"]

TRUTHS = ("good", "defect")
_COLUMNS = ("part", "path", "truth")
_MOST = 100_000  # lines of a table


@dataclass(frozen=True)
class Part:
    """A part, whose truth a person knows.

    Attributes:
        name: of the part.
        truth: "good" or "defect".
        pictures: of it, a run each.
    """

    name: str
    truth: str
    pictures: tuple[Source, ...]


def read_parts(path: str | Path) -> list[Part]:
    """Return the parts of a folder or table, the good ones first, then by name.

    Raises:
        DataError: it is neither, or is not as described.
    """
    path = Path(path)
    parts = _of_folder(path) if path.is_dir() else _of_table(path)
    return sorted(parts, key=lambda part: (part.truth != "good", part.name))


def _of_folder(root: Path) -> list[Part]:
    parts = []
    for kind in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        truth = "good" if kind.name == "good" else "defect"
        for entry in sorted(kind.iterdir()):
            name = f"{kind.name}/{entry.name}"
            if entry.is_dir():
                pictures = tuple(sorted(file for file in entry.iterdir() if _is_picture(file)))
                if not pictures:
                    raise DataError(f"{entry} holds no pictures. Every folder of a part holds its pictures.")
                parts.append(Part(name, truth, pictures))
            elif _is_picture(entry):
                parts.append(Part(name, truth, (entry,)))
    if not parts:
        raise DataError(
            f"{root} holds no parts. It must hold a folder good and a folder for each kind of defect, in which every "
            "part is a folder of pictures."
        )
    return parts


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _of_table(path: Path) -> list[Part]:
    try:
        text = read_regular(path, limit=LARGEST["table"]).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}. Name a folder or a CSV file.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} must be text in UTF-8. Name a folder or a CSV file.") from None
    rows = parse_table(text, path.name)
    return grouped([(part, path.parent / name, truth) for part, name, truth in rows], path.name)


def parse_table(text: str, name: str = "The table") -> list[tuple[str, str, str]]:
    """Return part, path and truth of each line of a table.

    Args:
        text: of the table.
        name: of its file, for messages.

    Raises:
        DataError: a column is missing or a line is not as described.
    """
    reader = csv.reader(io.StringIO(text))
    try:
        heads = [head.strip().lower() for head in next(reader, [])]
        if sorted(heads) != sorted(_COLUMNS):
            raise DataError(f"{name} must have the columns part,path,truth, got {','.join(heads)[:200]!r}.")
        rows = []
        for line in reader:
            if not any(cell.strip() for cell in line):
                continue
            if len(line) != len(heads):
                raise DataError(f"{name}, line {reader.line_num}: it has {len(line)} cells, and must have 3.")
            cells = dict(zip(heads, (cell.strip() for cell in line), strict=True))
            if not cells["part"] or not cells["path"] or cells["truth"] not in TRUTHS:
                raise DataError(
                    f"{name}, line {reader.line_num}: it must name a part, a path, and good or defect, got "
                    f"{','.join(line)[:200]!r}."
                )
            rows.append((cells["part"], cells["path"], cells["truth"]))
            if len(rows) > _MOST:
                raise DataError(f"{name} has more than {_MOST:,} lines.")
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: it is no CSV ({error}).") from None
    if not rows:
        raise DataError(f"{name} names no pictures.")
    return rows


def grouped(rows: Sequence[tuple[str, Source, str]], name: str = "The table") -> list[Part]:
    """Return the parts of lines, whose pictures stay in their order.

    Args:
        rows: part, picture and truth of each line.
        name: of the table's file, for messages.

    Raises:
        DataError: a part is said to be good and defective.
    """
    pictures: dict[str, list[Source]] = {}
    truths: dict[str, str] = {}
    for part, picture, truth in rows:
        if truths.setdefault(part, truth) != truth:
            raise DataError(f"{name}: part {part!r} is good in one line and a defect in another.")
        pictures.setdefault(part, []).append(picture)
    return [Part(part, truths[part], tuple(mine)) for part, mine in pictures.items()]


def digest_of(picture: Source) -> str:
    """Return the SHA-256 of a picture's file.

    Raises:
        PictureError: it cannot be read.
    """
    if isinstance(picture, bytes):
        return sha256(picture)
    try:
        return file_sha256(str(picture))
    except OSError as error:
        raise PictureError(f"{picture}: it cannot be read: {error.strerror or error}.") from None
