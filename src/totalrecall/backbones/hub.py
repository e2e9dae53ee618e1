"""Fetch a weights file from the Hugging Face hub: into its own cache, checked, going on where the last try stopped.

The package huggingface_hub brings the session (proxies, certificates, token, offline mode) and the cache (`HF_HOME`).
The bytes themselves are received here, since it throws away what is there of a download that was cut short.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from totalrecall.backbones.published import Remote
from totalrecall.errors import BackboneError, MissingExtraError
from totalrecall.system.files import file_sha256

__all__ = ["Fetched", "fetch"]

_ATTEMPTS = 5  # in a row without one new byte
_PAUSE = 1.0  # seconds before the second attempt; twice as long before each further one
_WAIT = 600.0  # seconds for another process that fetches the same file
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[0-9A-Za-z._-]{8,128}")


@dataclass(frozen=True)
class Fetched:
    """A weights file in the hub's cache, with its commit and its SHA-256."""

    remote: Remote
    path: Path
    commit: str
    sha256: str

    @property
    def source(self) -> str:
        """Repository, commit, file and hash in one line, as it is kept in every model."""
        return f"hf://{self.remote.repository}@{self.commit}/{self.remote.file}, sha256 {self.sha256}"


class _RefusedError(Exception):
    """Why a file could not be had, without what to do about it."""


class _CutError(_RefusedError):
    """The connection ended before the file did."""


def fetch(remote: Remote, command: str) -> Fetched:
    """Return a file of the hub, from its cache or over the network, whole and with the hash that it should have.

    Args:
        remote: the file.
        command: what to type once the file was brought by hand, for the error.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        BackboneError: it could not be had; the message says why and how to bring the file by hand.
    """
    by_hand = f"download {remote.url} where there is a network, and run: {command}"
    if not _installed():
        raise MissingExtraError(
            f"Weights of the hub are fetched with huggingface_hub 1 or later, which is not installed. "
            f'Run: pip install "huggingface_hub>=1.0" "onnx>=1.16". Or by hand: {by_hand}'
        )
    from huggingface_hub import constants

    try:
        return _cached(remote) or _download(remote)
    except Exception as error:  # the session's errors have no base in common with those of files
        raise BackboneError(
            f"Cannot fetch {remote}: {_reason(error, remote)}. By hand: {by_hand} "
            f"(or copy the folder {remote.folder} of another machine's Hugging Face cache into "
            f"{constants.HF_HUB_CACHE})"
        ) from None


def _installed() -> bool:
    try:
        import huggingface_hub
    except ImportError:
        return False
    return hasattr(huggingface_hub, "set_client_factory")  # of version 1; the session before it was another library's


def _cached(remote: Remote) -> Fetched | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(remote.repository, remote.file, revision=remote.revision)
    if not isinstance(found, str):
        return None
    path, digest = Path(found), file_sha256(Path(found))
    if remote.sha256 and digest != remote.sha256:
        return None  # another revision's, or damaged: the hub is asked
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) and blob.name != digest:
        raise _damaged(blob, digest)
    return Fetched(remote, path, _commit_of(path, remote), digest)


def _download(remote: Remote) -> Fetched:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download
    from huggingface_hub.utils import WeakFileLock

    found = get_hf_file_metadata(remote.url, timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=remote.hub)
    etag, size = found.etag, found.size
    if not (found.commit_hash and etag and _ETAG.fullmatch(etag) and size):
        raise _RefusedError(f"what answers at {remote.hub} is no hub (a proxy's login page? a wrong HF_ENDPOINT?)")
    announced = etag if _SHA256.fullmatch(etag) else ""  # of small files the ETag is git's hash
    if remote.sha256 and announced and announced != remote.sha256:
        raise _RefusedError(
            f"the hub now has another file there (SHA-256 {announced[:12]}, expected {remote.sha256[:12]}); to take it "
            f"all the same, name it as the weights: hf://{remote.repository}"
        )
    cache = Path(constants.HF_HUB_CACHE)
    blob = cache / remote.folder / "blobs" / etag
    lock = cache / ".locks" / remote.folder / f"{etag}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock, timeout=_WAIT):
        if not blob.exists():
            _transfer(remote, blob, size, remote.sha256 or announced)
    # the library makes of the blob what its users look for: refs, snapshots, links or copies
    path = Path(hf_hub_download(remote.repository, remote.file, revision=remote.revision, endpoint=remote.hub))
    digest = file_sha256(path)
    if digest != (remote.sha256 or announced or digest):
        raise _damaged(blob, digest)
    return Fetched(remote, path, _commit_of(path, remote), digest)


def _transfer(remote: Remote, blob: Path, size: int, digest: str) -> None:
    """Fill `blob` with the file's bytes; what is there of an earlier try is kept and gone on from."""
    partial = blob.with_name(f"{blob.name}.totalrecall.incomplete")
    done = partial.stat().st_size if partial.exists() else 0
    free = shutil.disk_usage(blob.parent).free
    if free < size - done:
        raise _RefusedError(
            f"the disk of {blob.parent} has {_mb(free)} free, {_mb(size - done)} are needed; "
            "set HF_HOME to another disk"
        )
    going_on = f", going on at {_mb(done)}" if done else ""
    print(f"Fetching {remote} ({_mb(size)}{going_on}) from {remote.hub}", file=sys.stderr, flush=True)
    failures = 0
    while (before := done) < size:
        try:
            _receive(remote, partial, size)
            break
        except Exception as error:
            done = partial.stat().st_size if partial.exists() else 0
            failures = 1 if done > before else failures + 1
            if failures == _ATTEMPTS or not _kinds(error) & {"_CutError", "TransportError"}:
                if 0 < done < size:
                    raise _RefusedError(
                        f"{_reason(error, remote)}, with {_mb(done)} of {_mb(size)} here; "
                        "the same command continues from there"
                    ) from None
                raise
        time.sleep(_PAUSE * 2 ** (failures - 1))
    actual = file_sha256(partial)
    if partial.stat().st_size != size or actual != (digest or actual):
        partial.unlink()
        raise _RefusedError(
            f"what arrived is damaged (SHA-256 {actual[:12]}, expected {digest[:12]}); run the command again"
        )
    os.replace(partial, blob)  # noqa: PTH105  atomic on every system


def _receive(remote: Remote, partial: Path, size: int) -> None:
    """Append what the hub sends to `partial`."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, tqdm

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    with partial.open("ab") as file:
        if file.tell():
            headers["Range"] = f"bytes={file.tell()}-"
        # redirected to another host, the session leaves the token out
        with get_session().stream(
            "GET", remote.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
        ) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:  # the whole file, whatever was asked for
                file.truncate(0)
                file.seek(0)
            # disable=None: no bar where nobody looks
            bar = tqdm(total=size, initial=file.tell(), unit="B", unit_scale=True, desc=remote.file, disable=None)
            with contextlib.closing(bar):
                for piece in response.iter_bytes():  # as they come: of pieces of one size the last would be lost
                    file.write(piece)
                    bar.update(len(piece))
        file.flush()
        os.fsync(file.fileno())  # as `write_atomically`: the rename must not survive a power cut without the bytes
        if file.tell() < size:
            raise _CutError(f"the connection to {remote.hub} broke")


def _damaged(blob: Path, digest: str) -> _RefusedError:
    return _RefusedError(f"the file {blob} is damaged (SHA-256 {digest[:12]}); delete it and run the command again")


def _commit_of(path: Path, remote: Remote) -> str:
    """Return the commit from `snapshots/COMMIT/FILE`."""
    return path.parts[-1 - len(remote.file.split("/"))]


def _reason(error: Exception, remote: Remote) -> str:
    """Return why in one line without a full stop; the libraries' own texts run over several."""
    from huggingface_hub import constants

    kinds = _kinds(error)
    if "LocalEntryNotFoundError" in kinds and isinstance(error.__cause__, Exception):
        return _reason(error.__cause__, remote)
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, _RefusedError):
        return str(error)
    if "OfflineModeIsEnabled" in kinds:
        return f"HF_HUB_OFFLINE is set, and the file is not in {constants.HF_HUB_CACHE}"
    if status is not None:
        return _reason_of_status(int(status), remote)
    if "ProxyError" in kinds:
        return f"the proxy refuses ({text}); check HTTPS_PROXY and NO_PROXY"
    if "TimeoutException" in kinds:
        return f"{remote.hub} did not answer within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s (HF_HUB_DOWNLOAD_TIMEOUT)"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the certificate of {remote.hub} is not trusted (behind a company's proxy set SSL_CERT_FILE)"
    if "TransportError" in kinds:
        return f"{remote.hub} cannot be reached ({text})"
    if "Timeout" in kinds:
        return f"another process has been fetching the same file for {_WAIT:.0f} s; wait for it"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk of {constants.HF_HUB_CACHE} is full; free some space or set HF_HOME to another disk"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or constants.HF_HUB_CACHE}"
    return f"{type(error).__name__}: {text}"


def _reason_of_status(status: int, remote: Remote) -> str:
    if status in (401, 403):
        return (
            f"the hub refuses it ({status}): the repository is private, gated or not there; accept its conditions at "
            f"{remote.hub}/{remote.repository} and set HF_TOKEN"
        )
    if status == 404:
        return "the hub has no such repository, revision or file (404)"
    if status == 407:
        return "the proxy wants a name and a password (407); write them into HTTPS_PROXY"
    if status == 429:
        return "the hub has had too many requests from here (429); wait some minutes, or set HF_TOKEN"
    if status >= 500:
        return f"the hub itself has a problem ({status}); run the command again later"
    return f"the hub answers {status}"


def _kinds(error: BaseException) -> set[str]:
    # by name: huggingface_hub uses httpx in version 1 and httpx2 in version 2
    return {kind.__name__ for kind in type(error).__mro__}


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"
