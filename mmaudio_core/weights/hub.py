"""Fetching a published file: resumed after an interruption, checked, and put in place only when whole."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DependencyError, DownloadError
from .hub_client import NotOnHub, OnBytes, RemoteFile, cached, fetch, fetch_whole, look_up, says_offline
from .inspect import file_digest
from .registry import PublishedFile
from .sniff import size_text

STAGING = ".partial"
"""Folder inside the target folder for unfinished files; searches for weights pass over it."""
SHA256 = re.compile(r"[0-9a-f]{64}")
SPARE_BYTES = 64 << 20
WORTH_A_TRY_BYTES = 1 << 16
OFFLINE = "downloading is switched off (offline mode)"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
TRANSFER_MODULES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "huggingface_hub")


def download(
    file: PublishedFile,
    folder: str | os.PathLike[str],
    *,
    offline: bool = False,
    endpoint: str | None = None,
    progress: bool = True,
    on_bytes: OnBytes | None = None,
    overwrite: bool = False,
) -> Path:
    """Fetches ``file`` to ``folder``/<its name> and returns that path; a file that is there and right costs no request.

    An interrupted download goes on at the next call. What arrives is checked against the published MD5, or where none is known
    against the SHA-256 that the hub states, before it is moved into place. A copy in the hub's own cache is used first.
    ``offline`` (or HF_HUB_OFFLINE) never opens a connection. ``endpoint`` is another server than huggingface.co. ``progress``
    shows the hub's progress bar; ``on_bytes(done, total or None)`` is called as bytes arrive, and what it raises stops the
    download (to be resumed). ``overwrite`` replaces a file that is there and is not the published one. The caller says the
    licence (``file.licence``).

    Raises:
        DownloadError: with what to fetch by hand, and where to put it.
        DependencyError: huggingface_hub is missing or broken.
    """
    folder = Path(folder).expanduser()
    target = folder / file.name
    if _there(file, target, overwrite):
        return target
    offline = offline or says_offline()
    if offline and cached(file.repo, file.path) is None:
        raise _failed(file, folder, OFFLINE, endpoint)
    staging = _make_staging(file, folder, endpoint)
    with _lock(staging / f"{file.name}.lock"):
        if _there(file, target, overwrite):  # another process may have fetched it while this one waited
            return target
        if (copy := cached(file.repo, file.path)) and _use_copy(file, copy, staging, target):
            return target
        if offline:
            raise _failed(file, folder, OFFLINE, endpoint)
        arrived, etag = _arrive(file, folder, staging, endpoint, progress, on_bytes)
        _check(file, arrived, etag)
        os.replace(arrived, target)
    _record(file, target)
    return target


def _failed(file: PublishedFile, folder: Path, why: str, endpoint: str | None = None) -> DownloadError:
    url = f"{endpoint.rstrip('/')}/{file.repo}/resolve/main/{file.path}" if endpoint else file.url
    return DownloadError(f"{file.name} could not be fetched: {why}. Fetch it by hand from {url} and put it into {folder}.")


def _there(file: PublishedFile, target: Path, overwrite: bool) -> bool:
    """Whether the published file is in place already.

    Raises:
        DownloadError: when another file lies there and ``overwrite`` is false.
    """
    if not target.is_file():
        return False
    if target.stat().st_size > 0 and (file.md5 is None or _recorded(file, target)):
        return True
    digest = file_digest(target, "md5")
    if digest == file.md5:
        _record(file, target)
        return True
    if overwrite:
        return False
    raise DownloadError(
        f"{target} is there, but it is damaged or another file (MD5 {digest}, published {file.md5}); "
        "move it away or ask to overwrite it."
    )


def _record_path(target: Path) -> Path:
    return target.parent / STAGING / f"{target.name}.verified"


def _recorded(file: PublishedFile, target: Path) -> bool:
    """Whether this very file was checked before: reading 4 GB at every start would take longer than loading them."""
    try:
        values = json.loads(_record_path(target).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    state = target.stat()
    return bool(values == {"md5": file.md5, "size": state.st_size, "mtime_ns": state.st_mtime_ns})


def _record(file: PublishedFile, target: Path) -> None:
    if file.md5 is None:
        return
    state = target.stat()
    values = {"md5": file.md5, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    try:
        _record_path(target).parent.mkdir(exist_ok=True)
        _record_path(target).write_text(json.dumps(values), "utf-8")
    except OSError:
        pass  # a read-only folder: the file is checked again next time


def _make_staging(file: PublishedFile, folder: Path, endpoint: str | None) -> Path:
    staging = folder / STAGING
    try:
        staging.mkdir(parents=True, exist_ok=True)
        if not os.access(staging, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _failed(file, folder, f"the folder {folder} cannot be written to ({error.strerror})", endpoint) from error
    return staging


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Two processes that fetch the same file: the second waits. On file systems without locks both go on."""
    try:
        from filelock import FileLock  # torch depends on it

        lock = FileLock(path)
        lock.acquire()
    except (ImportError, OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _use_copy(file: PublishedFile, copy: Path, staging: Path, target: Path) -> bool:
    """Takes the hub's cached copy if it is right; its real name there is the SHA-256 for large files."""
    etag = copy.resolve().name
    arrived = staging / f"{file.name}.copy"
    arrived.unlink(missing_ok=True)
    try:
        try:
            os.link(copy.resolve(), arrived)
        except OSError:
            shutil.copyfile(copy, arrived)
        _check(file, arrived, etag)
        os.replace(arrived, target)
    except (OSError, DownloadError):
        arrived.unlink(missing_ok=True)
        return False
    _record(file, target)
    return True


def _arrive(
    file: PublishedFile, folder: Path, staging: Path, endpoint: str | None, progress: bool, on_bytes: OnBytes | None
) -> tuple[Path, str]:
    try:
        remote = look_up(file.repo, file.path, endpoint)
        partial = _partial(file, staging, remote)
        _space(file, folder, remote, partial)
        try:
            _fetch_in_pieces(remote, partial, progress, on_bytes)
        except ImportError as error:
            if isinstance(error, DependencyError):
                raise
            partial = fetch_whole(file.repo, file.path, staging, endpoint, progress)
        return partial, remote.etag
    except (DownloadError, DependencyError):
        raise
    except NotOnHub as error:
        raise _failed(file, folder, f"the server does not have it ({error})", endpoint) from error
    except Exception as error:
        if not _of_transfer(error):
            raise
        raise _failed(file, folder, _why(error), endpoint) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _of_transfer(error: Exception) -> bool:
    """Whether it comes from disk or network. The HTTP library below the hub's package differs with the release, and so do its
    errors; what ``on_bytes`` raises is neither and reaches the caller as it is."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in TRANSFER_MODULES


def _fetch_in_pieces(remote: RemoteFile, partial: Path, progress: bool, on_bytes: OnBytes | None) -> None:
    """Goes on after a cut connection as long as each try brings something; releases before 1.0 do not do so themselves."""
    while True:
        before = _size(partial)
        try:
            return fetch(remote, partial, progress, on_bytes)
        except Exception as error:
            size = _size(partial)
            full = isinstance(error, OSError) and error.errno in DISK_FULL
            # Larger than the file: a server that knows no ranges began anew, and this release put that behind the piece.
            spoiled = remote.size is not None and size > remote.size
            if full or spoiled or not _of_transfer(error) or size - before < WORTH_A_TRY_BYTES:
                raise


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "the disk is full; what has arrived is kept"
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"the connection failed ({type(error).__name__}: {first}); the next try goes on where this one stopped"


def _partial(file: PublishedFile, staging: Path, remote: RemoteFile) -> Path:
    """The unfinished file. The etag is in its name so that pieces of two versions are never put together."""
    mark = re.sub(r"[^0-9A-Za-z]", "", remote.etag)[:16] or "unmarked"
    partial = staging / f"{file.name}.incomplete.{mark}"
    if remote.size is not None and _size(partial) > remote.size:
        partial.unlink()
    return partial


def _space(file: PublishedFile, folder: Path, remote: RemoteFile, partial: Path) -> None:
    if remote.size is None:
        return
    needed = remote.size - _size(partial) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _failed(file, folder, f"{folder} has {size_text(free)} free and it needs {size_text(needed)}")


def _check(file: PublishedFile, arrived: Path, etag: str) -> None:
    if file.md5 is not None:
        name, expected = "md5", file.md5
    elif SHA256.fullmatch(etag):
        name, expected = "sha256", etag
    else:
        return
    digest = file_digest(arrived, name)
    if digest != expected:
        arrived.unlink(missing_ok=True)
        raise DownloadError(
            f"{file.name} arrived damaged or is another file: its {name.upper()} is {digest}, published is "
            f"{expected}; it was removed, try again or fetch it by hand from {file.url}."
        )
