"""Pictures by name: files of this machine, and whatever fsspec has an address for, such as s3://bucket/folder.

A name is listed by the command and read by the worker, so the pictures themselves never pass through the command.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from totalrecall.errors import DataError, MissingExtraError, PictureError
from totalrecall.pictures.files import PICTURE_SUFFIXES, find_pictures
from totalrecall.pictures.formats.header import file_limit

__all__ = ["is_remote", "list_pictures", "read_remote"]

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+(://|::)")  # of two letters at least: C:\ is a drive


def is_remote(name: str) -> bool:
    """Tell whether a name is an address that fsspec opens; all others are paths of this machine."""
    return _REMOTE.match(name) is not None


def list_pictures(inputs: Sequence[str]) -> Iterator[str]:
    """Yield the names of the pictures that some inputs mean, none twice.

    Files, folders and globs of this machine come first, as `find_pictures` orders them. Behind an address, a folder is
    searched to any depth for files with a picture's suffix, hidden ones left out, a folder's files sorted by name.
    Neither masks beside pictures are told from pictures there, nor is a file's content looked at.

    Args:
        inputs: as typed.

    Raises:
        DataError: one of them holds no picture, or cannot be listed.
        MissingExtraError: the package that opens such an address is not installed.

    Warns:
        PassedOverWarning: as `find_pictures`.
    """
    local = [name for name in inputs if not is_remote(name)]
    if local:
        yield from map(str, find_pictures(local))
    remote = [name for name in inputs if is_remote(name)]
    seen: set[str] = set()
    for address in remote:
        empty = True
        for name in _behind(address):
            empty = False
            if len(remote) > 1:  # within one address no name comes twice
                if name in seen:
                    continue
                seen.add(name)
            yield name
        if empty:
            kinds = " ".join(suffix[1:] for suffix in PICTURE_SUFFIXES)
            raise DataError(f"{address} holds no picture. Pictures end in: {kinds} (any case).")


def read_remote(address: str) -> bytes:
    """Return the bytes of the file at an address.

    Raises:
        PictureError: it is not there, cannot be read, or is larger than a picture may be.
        MissingExtraError: the package that opens such an address is not installed.
    """
    system, path = _opened(address)
    limit = file_limit()
    try:
        with system.open(path, "rb") as file:
            data: bytes = file.read(limit + 1)
    except FileNotFoundError:
        raise PictureError(f"{address} does not exist.") from None
    except Exception as error:  # each kind of store has errors of its own
        raise PictureError(f"{address} cannot be read: {_reason(error)}.") from None
    if len(data) > limit:
        raise PictureError(f"{address} cannot be read: it holds more bytes than the {limit:,} that are allowed.")
    return data


def _behind(address: str) -> Iterator[str]:
    """Yield the addresses of the pictures behind one."""
    system, root = _opened(address)
    try:
        if glob.has_magic(root):
            found = [path for path in sorted(system.glob(root)) if _is_picture(path)]
            yield from map(system.unstrip_protocol, found)
        elif system.isfile(root):
            yield system.unstrip_protocol(root)
        else:
            yield from map(system.unstrip_protocol, _walk(system, root))
    except Exception as error:  # each kind of store has errors of its own
        raise DataError(
            f"{address} cannot be listed: {_reason(error)}. Check the address, and that this machine may read it."
        ) from None


def _walk(system: Any, root: str) -> Iterator[str]:
    """Yield the paths of the pictures in a folder, one folder after the other, so that a bucket is never held whole."""
    for folder, folders, files in system.walk(root, on_error="raise"):
        folders_here = sorted(folders)
        for name in folders_here:
            if name.startswith("."):
                folders.pop(name) if isinstance(folders, dict) else folders.remove(name)
        for name in sorted(files):
            if _is_picture(name):
                yield f"{folder.rstrip('/')}/{name}"


def _is_picture(path: str) -> bool:
    name = PurePosixPath(path)
    return name.suffix.lower() in PICTURE_SUFFIXES and not name.name.startswith(".")


def _opened(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path on it."""
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address)
    except ImportError as error:  # of fsspec, or of what it needs for this kind of store
        reason = str(error).rstrip(".")
        raise MissingExtraError(
            f'{address} cannot be opened: {reason}. Run: pip install "totalrecall[cluster]", and for s3:// also s3fs.'
        ) from None
    except ValueError as error:  # no such kind of store
        raise DataError(
            f"{address} cannot be opened: {_reason(error)}. Give paths, or an address such as s3://."
        ) from None
    return system, path


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")[:300]
