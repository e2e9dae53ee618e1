"""Pictures of inspections, kept in a folder within a budget: of all rejects and near misses, and a share of the others.

A picture lies in `ab/KEY.picture`, byte for byte as it came, and its heat map in `ab/KEY.heat.png`; KEY is the key of
its inspection and `ab` its first two digits. Names come from us, never from a request. What makes room goes in this
order, each the oldest first: good ones, near misses, rejects that a person has judged, the others.
"""

import contextlib
import hashlib
import heapq
import itertools
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sqlalchemy import select

from totalrecall.errors import DataError
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import NEAR_MISS, NOT_PRODUCTION, REJECTS, Inspection
from totalrecall.station.store.tables import inspections
from totalrecall.system.files import LARGEST, read_regular

__all__ = ["KeptPictures"]

_KEY = re.compile("[0-9a-f]{32}")
_PICTURE, _HEAT, _PART = ".picture", ".heat.png", ".part"
_BLOCK = 4096  # bytes: the disk gives whole blocks, and so a file counts
_PAGE = 500  # keys of one query
_GOOD, _NEAR_MISS, _JUDGED, _TO_JUDGE = range(4)  # what goes first


@dataclass(frozen=True)
class _Kept:
    """A picture with its heat map: bytes on the disk, and what its place in the queue of those that go depends on.

    The number counts as they come: the clock may jump.
    """

    size: int
    rank: int
    number: int


class KeptPictures:
    """A folder of kept pictures that is never larger than its budget.

    At the start what a killed process left is put right: halves of files are removed, and so are pictures without an
    inspection; an inspection whose picture is gone no longer says that it is kept.

    Args:
        folder: for the pictures; it is made.
        database: with their inspections.
        budget: bytes that the files may take, each counted in whole blocks of 4,096.
        good_share: share of the good pictures that are kept; which, follows from their keys.
        near_miss: share of the threshold from which on a good picture is a near miss.

    Raises:
        DataError: the folder cannot be made or read.
        HistoryError: the database cannot be used.
    """

    def __init__(
        self, folder: Path, database: Database, *, budget: int, good_share: float = 0.02, near_miss: float = NEAR_MISS
    ) -> None:
        self._folder = folder
        self._database = database
        self._history = History(database)
        self._budget = budget
        self._good_share = good_share
        self._near_miss = near_miss
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._numbers = itertools.count()
        self._queue: list[tuple[int, int, str]] = []  # a heap; entries that no longer hold are passed over
        self._by_rank = [0, 0, 0, 0]  # bytes of the kept ones
        self._coming = 0  # bytes of those that are being written
        self._gone: list[str] = []
        self.problem: str | None = None
        try:
            self._tidy_up()
        except OSError as error:
            raise DataError(f"Cannot keep pictures in {folder}: {error.strerror or error}.") from None

    @property
    def size(self) -> int:
        """Bytes that the kept pictures take, in whole blocks."""
        with self._lock:
            return sum(self._by_rank) + self._coming

    def wanted(self, inspection: Inspection) -> bool:
        """Tell whether the picture of an inspection is to be kept, if there is room for it."""
        if inspection.source in NOT_PRODUCTION:
            return False
        if inspection.verdict in REJECTS or inspection.is_near_miss(self._near_miss):
            return True
        return inspection.verdict == "good" and _draw(inspection.key) < self._good_share

    def put(self, inspection: Inspection, picture: bytes, heat: np.ndarray | None) -> bool:
        """Keep a picture, before or after its inspection is added; others go to make room for it.

        The bytes are not waited for until they are on the disk: that takes longer than to judge a picture.

        Args:
            inspection: of the picture.
            picture: the bytes of its file.
            heat: uint8 (h, w), 0 to 255 for 0 to 2 times the pixel threshold; None if there is none.

        Returns:
            whether it is kept. It is not where the budget leaves no room but that of pictures which matter more, or
            where the disk takes it not; `problem` says why then.
        """
        files = {_PICTURE: picture}
        if heat is not None:
            files = {_HEAT: _png(heat), _PICTURE: picture}  # the picture comes last
        size, rank = sum(map(_on_disk, map(len, files.values()))), self._rank(inspection)
        with self._lock:
            if inspection.key in self._kept or not self._make_room(size, rank):
                return inspection.key in self._kept
            self._coming += size
        written = False
        try:
            self._write(inspection.key, files)
            written = True
        except OSError as error:
            self.problem = f"A picture could not be kept in {self._folder}: {error.strerror or error}."
            self._remove(inspection.key)
        finally:
            with self._lock:
                self._coming -= size
                if written:
                    self.problem = None
                    self._enter(inspection.key, _Kept(size, rank, next(self._numbers)))
        return written

    def judged(self, inspection: Inspection) -> None:
        """Take note of a person's judgement: a reject that was judged goes before one that was not."""
        with self._lock:
            kept = self._kept.get(inspection.key)
            if kept is not None:
                self._forget(inspection.key)
                self._enter(inspection.key, _Kept(kept.size, self._rank(inspection), kept.number))

    def picture(self, key: str) -> bytes | None:
        """Return the bytes of a kept picture; None if it is not kept."""
        return self._read(key, _PICTURE)

    def heat(self, key: str) -> np.ndarray | None:
        """Return the heat map of a kept picture, uint8 (h, w); None if there is none."""
        data = self._read(key, _HEAT)
        if data is None:
            return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)

    def forget(self, keys: Sequence[str]) -> int:
        """Remove pictures, and return how many were there."""
        with self._lock:
            there = [key for key in keys if key in self._kept]
            for key in there:
                self._forget(key)
                self._remove(key)
            self._say_gone(there)
        return len(there)

    def _rank(self, inspection: Inspection) -> int:
        if inspection.verdict == "good" and inspection.judgement != "defect":
            unsure = inspection.judgement is None and inspection.is_near_miss(self._near_miss)
            return _NEAR_MISS if unsure else _GOOD
        return _TO_JUDGE if inspection.judgement is None else _JUDGED

    def _make_room(self, size: int, rank: int) -> bool:
        """Remove pictures that matter no more than one of that rank until so many bytes fit; False if they cannot."""
        used = sum(self._by_rank) + self._coming
        if used + size - sum(self._by_rank[: rank + 1]) > self._budget:
            return False
        gone = []
        while used + size > self._budget:
            entry = heapq.heappop(self._queue)
            key = entry[2]
            kept = self._kept.get(key)
            if kept is None or (kept.rank, kept.number, key) != entry:
                continue  # it is gone, or has been judged since
            self._forget(key)
            self._remove(key)
            used -= kept.size
            gone.append(key)
        self._say_gone(gone)
        return True

    def _enter(self, key: str, kept: _Kept) -> None:
        self._kept[key] = kept
        self._by_rank[kept.rank] += kept.size
        heapq.heappush(self._queue, (kept.rank, kept.number, key))

    def _forget(self, key: str) -> None:
        kept = self._kept.pop(key)
        self._by_rank[kept.rank] -= kept.size

    def _say_gone(self, keys: list[str]) -> None:
        """Write down that pictures are gone.

        subtle: an inspection that promises its picture may be added just after that picture went; so what went the
        time before is said again.
        """
        if keys:
            self._history.mark_kept([*self._gone, *keys], False)
            self._gone = keys

    def _path(self, key: str, end: str) -> Path:
        return self._folder / key[:2] / f"{key}{end}"

    def _write(self, key: str, files: dict[str, bytes]) -> None:
        """Write the files of a picture, the one that promises the others last."""
        for end, data in files.items():
            path = self._path(key, end)
            if end == _PICTURE:
                part = path.with_name(path.name + _PART)
                _write_file(part, data)
                part.replace(path)
            else:  # half of it goes with a picture that is not there
                _write_file(path, data)

    def _remove(self, key: str) -> None:
        for end in (_PICTURE, _HEAT, _PICTURE + _PART, _HEAT + _PART):  # the promise first
            with contextlib.suppress(OSError):
                self._path(key, end).unlink()

    def _read(self, key: str, end: str) -> bytes | None:
        if not _KEY.fullmatch(key):
            return None
        try:
            return read_regular(self._path(key, end), limit=LARGEST["picture"])
        except OSError:
            return None

    def _tidy_up(self) -> None:
        """Bring folder and database together."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sizes = dict(self._whole_pictures())
        with self._database.read() as connection:
            promised = set(connection.execute(select(inspections.c.key).where(inspections.c.kept)).scalars())
        unpromised, ranks = [], []
        for inspection in self._inspections(list(sizes)):
            ranks.append((inspection.at, inspection.key, self._rank(inspection)))
            if not inspection.kept:
                unpromised.append(inspection.key)
        for _, key, rank in sorted(ranks):  # the oldest first
            self._enter(key, _Kept(sizes.pop(key), rank, next(self._numbers)))
        for key in sizes:  # of no inspection
            self._remove(key)
        self._history.mark_kept(unpromised, True)
        self._say_gone(sorted(promised - self._kept.keys()))
        self._make_room(0, _TO_JUDGE)  # the budget may have become smaller

    def _inspections(self, keys: list[str]) -> Iterator[Inspection]:
        for at in range(0, len(keys), _PAGE):
            yield from self._history.among(keys[at : at + _PAGE])

    def _whole_pictures(self) -> Iterator[tuple[str, int]]:
        """Yield key and size of each picture that is there, and remove what is left of others."""
        for folder in sorted(self._folder.iterdir()):
            if not re.fullmatch("[0-9a-f]{2}", folder.name) or not folder.is_dir():
                continue  # not ours
            sizes: dict[str, dict[str, int]] = {}
            for entry in os.scandir(folder):
                key, end = entry.name[:32], entry.name[32:]
                if _KEY.fullmatch(key) and end in (_PICTURE, _HEAT, _PICTURE + _PART, _HEAT + _PART):
                    sizes.setdefault(key, {})[end] = entry.stat(follow_symlinks=False).st_size
            for key, files in sizes.items():
                if not files.get(_PICTURE) or any(end.endswith(_PART) for end in files):
                    self._remove(key)
                else:
                    yield key, sum(map(_on_disk, files.values()))


def _write_file(path: Path, data: bytes) -> None:
    """Write a file, and make its folder if need be.

    With as few calls of the system as there can be: at each of them all other threads fight over the interpreter.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, flags, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
    finally:
        os.close(handle)


def _png(heat: np.ndarray) -> bytes:
    """Return a heat map as PNG, made without a search for repetitions: a third less time, and a tenth more bytes."""
    how = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    return cv2.imencode(".png", heat, how)[1].tobytes()


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _draw(key: str) -> float:
    """Return a number from 0 to 1 that follows from a key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / (1 << 48)
