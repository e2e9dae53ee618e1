"""Compiled graphs on disk, so that the second start is fast. Nothing here can fail a run: at worst it compiles again.

Measured against OpenVINO's own CACHE_DIR, reading the blob ourselves is faster, since the ONNX graph is then never
parsed. And it is safe: a damaged blob would be read by native code, so each carries its SHA-256.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from totalrecall.errors import TotalRecallError
from totalrecall.files import atomic_write

__all__ = ["CompiledCache"]

_MAGIC = b"TRCOMPILED1\n"
_DIGEST = hashlib.sha256().digest_size
_LIMIT = 1 << 30  # bytes; the graphs used longest ago go first


class CompiledCache:
    """A folder of compiled graphs, or none: then it finds nothing and keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: tuple[str, ...]) -> bytes | None:
        """Return the compiled graph kept under `key`, or None if there is none or it is damaged."""
        if self._folder is None:
            return None
        path = self._path(self._folder, key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST
        blob = data[start:]
        if not data.startswith(_MAGIC) or hashlib.sha256(blob).digest() != data[len(_MAGIC) : start]:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use, for `_shrink`
        return blob

    def write(self, key: tuple[str, ...], blob: bytes) -> None:
        """Keep a compiled graph under `key`; a folder that cannot be written is no error."""
        if self._folder is None:
            return
        with contextlib.suppress(TotalRecallError, OSError):
            atomic_write(self._path(self._folder, key), _MAGIC + hashlib.sha256(blob).digest() + blob)
            self._shrink(self._folder)

    def _path(self, folder: Path, key: tuple[str, ...]) -> Path:
        return folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.compiled"

    def _shrink(self, folder: Path) -> None:
        kept = 0
        for path in sorted(folder.glob("*.compiled"), key=lambda path: path.stat().st_mtime, reverse=True):
            kept += path.stat().st_size
            if kept > _LIMIT:
                path.unlink(missing_ok=True)
