"""What a long run has done so far, in a folder that outlives it, and the one Parquet file at the end.

    results.parquet.parts/
      lock                  held while a command works here; says that it is a predict's
      pictures.jsonl        every picture's name, a line each, in order: what the run is over
      plan.json             what was asked for, and how many pictures a part has
      part-000000000.parquet  the results of the first so many, and so on

Each file appears whole, under its name or not at all. `plan.json` is written after the list is whole, a part when all
of its pictures are judged. So what is there says what is left, whatever ended the run, and no picture is in two parts.
Somebody may have been there meanwhile: the list must be the one that the plan was made of, and each part must hold its
pictures; nothing is left out or doubled in silence.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from totalrecall.cluster.run_folder import (
    RunKind,
    check_folder,
    clear_folder,
    held_folder,
    read_plan,
    remove_folder,
    write_plan,
)
from totalrecall.errors import DataError, MissingExtraError
from totalrecall.scoring import verdict_in_words
from totalrecall.system.files import atomic_write, open_regular, write_atomically

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Block", "Parts", "check_parts", "opened_parts", "parquet_part"]

_KIND = RunKind("predict", r"part-\d+\.parquet", numbers=("total", "size"), words=("list",))
_LIST = "pictures.jsonl"
_MOST = 100  # pictures of a part: what a killed worker or command has to do again
_SHARES = 8  # parts for each worker at least, so that all end at about the same time


@dataclass(frozen=True)
class Block:
    """Pictures that become one part.

    Attributes:
        index: of the part.
        names: of the pictures.
    """

    index: int
    names: list[str]


class Parts:
    """The folder of one run; see `opened_parts`.

    Attributes:
        total: pictures of the run.
        done: of these, how many were judged before.
    """

    def __init__(self, folder: Path, size: int, total: int) -> None:
        self._folder = folder
        self._size = size
        self.total = total
        there = {path.name for path in folder.glob("part-*.parquet")}
        # others of such a name are somebody's: part-7.parquet, part-copy.parquet, one beyond the end
        self._there = {index for index in range(-(-total // size)) if _part_name(index) in there}
        self.done = sum(min(size, total - index * size) for index in self._there)

    def left(self) -> Iterator[Block]:
        """Yield what is not judged yet, in order; the list stays on disk."""
        return (block for block in self._blocks() if block.index not in self._there)

    def _blocks(self) -> Iterator[Block]:
        with (self._folder / _LIST).open(encoding="utf-8") as file:
            for index in range(-(-self.total // self._size)):
                yield Block(index, [json.loads(line) for line in islice(file, self._size)])

    def add(self, index: int, data: bytes) -> None:
        """Keep the results of one block, as `parquet_part` gives them."""
        atomic_write(self._path(index), data)
        self._there.add(index)

    def join(self, target: Path) -> "Counter[str]":
        """Write all parts into one file, in order, a part at a time, and remove them.

        Returns:
            How many pictures got each verdict, and `unreadable` ones.

        Raises:
            DataError: a part is damaged, or holds other pictures than its own; or `target` cannot be written.
        """
        pq = _parquet()
        count: Counter[str] = Counter()

        def write(file: BinaryIO) -> None:
            with pq.ParquetWriter(file, _schema()) as writer:
                for block in self._blocks():
                    table = _read(pq, self._path(block.index), block.names)
                    count.update(_verdicts(table))
                    writer.write_table(table)

        write_atomically(target, write)
        remove_folder(self._folder, _KIND)
        return count

    def _path(self, index: int) -> Path:
        return self._folder / _part_name(index)


def _part_name(index: int) -> str:
    return f"part-{index:09}.parquet"


def check_parts(target: Path, asked: Mapping[str, Any]) -> None:
    """Refuse the folder beside `target` if this run could not go on there; before a cluster is started.

    Args:
        target: the Parquet file at the end.
        asked: what decides the results, as JSON types.

    Raises:
        DataError: an earlier run there was another one, or the folder is no run's.
    """
    check_folder(target, _KIND)
    _plan(Path(f"{target}.parts"), asked)


@contextlib.contextmanager
def opened_parts(target: Path, asked: Mapping[str, Any], names: Iterator[str], workers: int) -> Iterator[Parts]:
    """Hold the folder beside `target` where an earlier run was ended, or a new one; no other command may have it.

    Args:
        target: the Parquet file at the end.
        asked: what decides the results, as JSON types; an earlier run must have asked for the same.
        names: of the pictures; listed only for a new run.
        workers: at most that will judge.

    Raises:
        DataError: an earlier run there was another one, or another command works there, or it cannot be written.
    """
    with held_folder(target, _KIND) as folder:
        plan = _plan(folder, asked)
        if plan is None:
            clear_folder(folder, _KIND)  # of a run that was ended while it was begun or taken away
            try:
                total, digest = _write_names(folder, names)
            except BaseException:  # nothing to go on with
                remove_folder(folder, _KIND)
                raise
            size = max(1, min(_MOST, total // (_SHARES * workers)))
            plan = {"asked": dict(asked), "total": total, "size": size, "list": digest}
            write_plan(folder, _KIND, plan)
        yield Parts(folder, plan["size"], plan["total"])


def _plan(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the plan of the run that is asked for; None if there is none yet."""
    try:
        plan = read_plan(folder, _KIND)
    except (OSError, ValueError) as error:
        raise _no_going_on(folder, error) from None
    if plan is not None and plan["asked"] != json.loads(json.dumps(dict(asked))):
        raise DataError(
            f"{folder} holds what another command did so far ({_difference(plan['asked'], asked)}). Give that "
            "command again to end it, name another --out, or move it away."
        )
    try:
        if plan is not None:
            _check_list(folder, plan)
    except (OSError, ValueError) as error:
        raise _no_going_on(folder, error) from None
    return plan


def _no_going_on(folder: Path, error: OSError | ValueError) -> DataError:
    reason = f"{_LIST}: {error.strerror or error}" if isinstance(error, OSError) else error
    return DataError(f"{folder} cannot be gone on with ({reason}). Name another --out, or move it away.")


def _check_list(folder: Path, plan: Mapping[str, Any]) -> None:
    """Refuse a list of pictures, or numbers, that are not what the plan was made of.

    Raises:
        ValueError: the message says what is wrong.
        OSError: the list cannot be read.
    """
    digest, total = hashlib.sha256(), 0
    with open_regular(folder / _LIST) as file:
        for line in file:
            digest.update(line)
            total += 1
    if digest.hexdigest() != plan["list"]:
        raise ValueError(f"{_LIST} is not the list that the run began with")
    if plan["total"] != total or plan["size"] > _MOST:
        raise ValueError("a damaged plan.json (its numbers do not fit its list)")


def _write_names(folder: Path, names: Iterator[str]) -> tuple[int, str]:
    """Write the list of pictures; returns how many they are, and the file's SHA-256."""
    total, digest = 0, hashlib.sha256()

    def write(file: BinaryIO) -> None:
        nonlocal total
        for name in names:
            line = f"{json.dumps(name)}\n".encode()  # ASCII, whatever bytes the name has
            file.write(line)
            digest.update(line)
            total += 1

    write_atomically(folder / _LIST, write)
    return total, digest.hexdigest()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
    return f"{name} {str(before.get(name))[:200]}, now {str(now.get(name))[:200]}"


# ---------------------------------------------------------------------- Parquet


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"--ray needs the package pyarrow, which cannot be imported ({error}). "
            'Run: pip install "totalrecall[cluster]"'
        ) from None
    return pyarrow.parquet


def _schema() -> "pyarrow.Schema":
    """Return the columns: those of `Result.to_json`, and `error`, which a picture has that could not be read."""
    import pyarrow as pa

    box = [(name, pa.int64()) for name in ("x", "y", "width", "height", "area")]
    region = pa.struct([*box, ("peak", pa.float64())])
    nearest = pa.struct([("path", pa.string()), ("x", pa.int64()), ("y", pa.int64())])
    return pa.schema(
        [
            ("path", pa.string()),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("is_anomalous", pa.bool_()),
            ("p_value", pa.float64()),
            ("regions", pa.list_(region)),
            ("nearest", nearest),
            ("milliseconds", pa.float64()),
            ("error", pa.string()),
        ]
    )


def parquet_part(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as the bytes of a Parquet file.

    Args:
        rows: a picture each, as `Result.to_json` gives them, or `path` and `error`.
    """
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([_text(row) for row in rows], schema=_schema())
    _parquet().write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose texts are Unicode: a name that is none gets \\udcff for its bytes, as in the JSON lines."""
    clean: dict[str, Any] = {name: _unicode(value) if isinstance(value, str) else value for name, value in row.items()}
    near = clean.get("nearest")
    if near is not None:
        clean["nearest"] = {**near, "path": _unicode(near["path"])}
    return clean


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _read(pq: Any, path: Path, names: Sequence[str]) -> "pyarrow.Table":
    """Return the results of some pictures.

    Raises:
        DataError: the file is damaged, or holds other pictures.
    """
    import pyarrow as pa

    try:
        with open_regular(path) as file:
            table = pq.read_table(file, schema=_schema())
        if table["path"].to_pylist() != list(map(_unicode, names)):
            raise ValueError("it holds other pictures than those of its place in the list")
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"{path} is damaged ({reason}). Remove it, and run the command again.") from None
    return table


def _verdicts(table: "pyarrow.Table") -> "Counter[str]":
    errors, verdicts = table["error"].to_pylist(), table["is_anomalous"].to_pylist()
    return Counter(
        "unreadable" if error is not None else verdict_in_words(verdict)
        for error, verdict in zip(errors, verdicts, strict=True)
    )
