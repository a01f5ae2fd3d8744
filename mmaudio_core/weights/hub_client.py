"""The only file that knows the huggingface_hub package. Used: what releases 0.25 to 2.x have in common.

The package's ``hf_hub_download`` is not used where it can be avoided: since its temporary files have a random name, a download
that was interrupted begins anew at the next call, which with files of 4 GB nobody wants. ``http_get`` with our own partial file
goes on where it stopped, also after the program was ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ..errors import DependencyError

HEAD_TIMEOUT_S = 15.0
OnBytes = Callable[[int, "int | None"], None]


class NotOnHub(Exception):
    """The server answered, and does not have the file (or does not give it to us)."""


@dataclass(frozen=True)
class RemoteFile:
    """What the server says about a file: ``etag`` is its SHA-256 for large files; ``location`` is where the bytes come from."""

    url: str
    location: str
    etag: str
    size: int | None


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils
    except Exception as error:  # a broken dependency below it raises more than ImportError
        raise DependencyError(
            f"Downloading needs huggingface_hub, which cannot be imported ({error}); install huggingface_hub 0.25 or newer, "
            "or fetch the files by hand."
        ) from error
    return huggingface_hub


def says_offline(env: dict[str, str] | None = None) -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE, as in huggingface_hub) is set."""
    values = os.environ if env is None else env
    said = (values.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in ("1", "ON", "YES", "TRUE") for value in said)


def look_up(repo: str, path: str, endpoint: str | None) -> RemoteFile:
    """Asks the hub about a file (one HEAD request).

    Raises:
        NotOnHub: the repository or file is not there, or not public.
        Exception: whatever the HTTP library of this release raises for a network failure.
    """
    hub = _package()
    url = hub.hf_hub_url(repo, path, endpoint=endpoint)
    refusals = (hub.utils.EntryNotFoundError, hub.utils.RepositoryNotFoundError, hub.utils.RevisionNotFoundError)
    try:
        found = hub.get_hf_file_metadata(url, timeout=HEAD_TIMEOUT_S)
    except refusals as error:
        raise NotOnHub(str(error).strip().splitlines()[0]) from error
    return RemoteFile(url, found.location or url, found.etag or "", found.size)


def fetch(remote: RemoteFile, partial: Path, progress: bool, on_bytes: OnBytes | None) -> None:
    """Appends what is missing of ``remote`` to ``partial``; whatever was received stays there when it fails.

    Raises:
        ImportError: this release has no ``http_get``.
        Exception: whatever the HTTP library of this release raises.
    """
    hub = _package()
    from huggingface_hub.file_download import http_get

    headers = hub.utils.build_hf_headers()
    if urlparse(remote.url).netloc != urlparse(remote.location).netloc:
        headers.pop("authorization", None)  # the token is for the hub, not for the storage that it points to
    with open(partial, "ab") as file, _bars(hub, progress):
        done = file.tell()
        if remote.size is not None and done == remote.size:
            return
        target: Any = _Counting(file, done, remote.size, on_bytes) if on_bytes else file
        http_get(
            remote.location,
            target,
            resume_size=done,
            headers=headers,
            expected_size=remote.size,
            displayed_filename=partial.name.split(".incomplete")[0],
        )


def fetch_whole(repo: str, path: str, folder: Path, endpoint: str | None, progress: bool) -> Path:
    """The same through ``hf_hub_download``, for releases without ``http_get``; it may begin anew after an interruption."""
    hub = _package()
    with _bars(hub, progress):
        return Path(hub.hf_hub_download(repo, path, local_dir=folder, endpoint=endpoint))


def cached(repo: str, path: str) -> Path | None:
    """The file in the hub's own cache on this machine, where another program may have put it; opens no connection."""
    try:
        found = _package().try_to_load_from_cache(repo, path)
    except DependencyError:
        return None
    return Path(found) if isinstance(found, str) and os.path.isfile(found) else None


class _Counting:
    """A file that reports how many bytes it holds after each write."""

    def __init__(self, file: Any, done: int, total: int | None, report: OnBytes) -> None:
        self._file, self._done, self._total, self._report = file, done, total, report

    def write(self, data: bytes) -> int:
        written: int = self._file.write(data)
        self._done += written
        self._report(self._done, self._total)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _bars(hub: Any, progress: bool) -> Iterator[None]:
    """Shows no progress bars inside, if so asked; the package's own switch is put back afterwards."""
    switch = not progress and not hub.utils.are_progress_bars_disabled()
    if switch:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if switch:
            hub.utils.enable_progress_bars()
